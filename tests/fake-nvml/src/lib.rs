//! A fake `libnvidia-ml.so.1`, for tests on machines without an NVIDIA GPU.
//!
//! What it answers is in a text file, looked at on every call: the one named by `FAKE_NVML_STATE`, else the library's own
//! path with `.state` appended, so that each copy of the library is a host of its own ([`control`]). `key = value` a line:
//! ```text
//! driver = 580.95.05               of the kernel; a library loaded under another one answers 18 (mismatch) until it
//!                                  is unloaded and loaded again
//! gpus = 2                         cuda = 13000
//! log = /path                      each call's name is appended there
//! init.ret = 9                     what nvmlInit_v2 returns (9 driver not loaded, 18 mismatch)
//! all.ret = 15                     every device call fails
//! gpu1.ret = 15                    every call on GPU 1 fails (15 lost)
//! gpu0.nvmlDeviceGetPowerUsage.ret = 3       one call on one GPU (3 not supported)
//! nvmlDeviceGetUtilizationRates.delay_ms = 200     a slow call; it ends early if the file says so meanwhile
//! gpu0.util = 87   gpu0.mem_util = 41   gpu0.mem_total = …   gpu0.mem_used = …
//! gpu0.power_mw = 412000   gpu0.energy_mj = 123456   (gpu0.energy_auto = 1: power × uptime is added)
//! gpu0.procs = 4242:17179869184,4243:none          pid:bytes (none: NVML_VALUE_NOT_AVAILABLE)
//! gpu0.procs_burst = 20            so many more of them when the list is fetched than when it was counted
//! gpu0.proc_util = 4242:71:30,4243:16:4            pid:sm:mem
//! gpu0.xid = 79                    delivered once per change
//! gpu0.field197 = 1000             a field value; field138.all, field138.link0: with a scope
//! gpu0.violation1_ns = 5           nvmlDeviceGetViolationStatus, by policy
//! gpu0.gpm2 = 63.5                 a GPM metric
//! gpu0.mig = 2                     MIG devices, each with keys of its own: gpu0.mig1.mem_used = …
//! ```

pub mod control;
mod device;
mod events;
mod gpm;
mod library;
mod process;
mod state;

use std::ffi::c_char;

use nvml_wrapper_sys::bindings::{NvmlLib, nvmlReturn_t};

pub(crate) const OK: nvmlReturn_t = 0;
pub(crate) const UNINITIALIZED: nvmlReturn_t = 1;
pub(crate) const INVALID_ARGUMENT: nvmlReturn_t = 2;
pub(crate) const NOT_SUPPORTED: nvmlReturn_t = 3;
pub(crate) const NOT_FOUND: nvmlReturn_t = 6;
pub(crate) const INSUFFICIENT_SIZE: nvmlReturn_t = 7;
pub(crate) const TIMEOUT: nvmlReturn_t = 10;
pub(crate) const GPU_IS_LOST: nvmlReturn_t = 15;
pub(crate) const MISMATCH: nvmlReturn_t = 18;
pub(crate) const VERSION_MISMATCH: nvmlReturn_t = 25;

/// Declares exports: each does what all calls do first, then its own.
macro_rules! exports {
    ($($name:ident($($argument:ident: $type:ty),*), $device:expr, |$call:ident| $body:block)+) => {
        $(
            /// As in NVML.
            ///
            /// # Safety
            /// As in NVML: pointers are valid for what the function is to write.
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C" fn $name($($argument: $type),*) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
                let $call = match $crate::state::enter(stringify!($name), $device) {
                    Err(code) => return code,
                    Ok(call) => call,
                };
                let _used = &$call;
                // SAFETY: the caller keeps NVML's contract: pointers are valid.
                unsafe {
                    $crate::by_contract();
                    $body
                }
            }
        )+
    };
}
pub(crate) use exports;

/// Says that what follows relies on what the caller promised, also where it does not.
///
/// # Safety
/// The caller of the export keeps NVML's contract.
pub(crate) const unsafe fn by_contract() {}

/// Writes text into a caller's buffer.
///
/// # Safety
/// `out` is valid for `length` bytes.
pub(crate) unsafe fn put(out: *mut c_char, length: usize, text: &str) -> nvmlReturn_t {
    if text.len() >= length {
        return INSUFFICIENT_SIZE;
    }
    // SAFETY: it fits, with the zero at its end.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast::<c_char>(), out, text.len());
        *out.add(text.len()) = 0;
    }
    OK
}

/// Each export has exactly the type by which it is called: this compiles, or not.
#[expect(dead_code, reason = "only the compiler looks at it")]
fn types(library: &mut NvmlLib) {
    macro_rules! same {
        ($module:ident: $($name:ident),* $(,)?) => { $(library.$name = Ok($module::$name);)* };
    }
    same!(library: nvmlInit_v2, nvmlInitWithFlags, nvmlShutdown, nvmlErrorString, nvmlSystemGetDriverVersion,
        nvmlSystemGetNVMLVersion, nvmlSystemGetCudaDriverVersion_v2, nvmlSystemGetCudaDriverVersion, nvmlDeviceGetCount_v2,
        nvmlDeviceGetHandleByIndex_v2, nvmlDeviceGetHandleByUUID, nvmlDeviceGetHandleByPciBusId_v2, nvmlDeviceGetMigMode,
        nvmlDeviceGetMaxMigDeviceCount, nvmlDeviceGetMigDeviceHandleByIndex, nvmlDeviceGetGpuInstanceId,
        nvmlDeviceGetDeviceHandleFromMigDeviceHandle);
    same!(device: nvmlDeviceGetName, nvmlDeviceGetUUID, nvmlDeviceGetIndex, nvmlDeviceGetMinorNumber, nvmlDeviceGetPciInfo_v3,
        nvmlDeviceGetUtilizationRates, nvmlDeviceGetMemoryInfo_v2, nvmlDeviceGetMemoryInfo, nvmlDeviceGetPowerUsage,
        nvmlDeviceGetEnforcedPowerLimit, nvmlDeviceGetTotalEnergyConsumption, nvmlDeviceGetTemperature,
        nvmlDeviceGetClockInfo, nvmlDeviceGetCurrentClocksThrottleReasons, nvmlDeviceGetCurrentClocksEventReasons,
        nvmlDeviceGetViolationStatus, nvmlDeviceGetPcieThroughput, nvmlDeviceGetTotalEccErrors, nvmlDeviceGetRemappedRows,
        nvmlDeviceGetFieldValues);
    same!(process: nvmlDeviceGetComputeRunningProcesses_v3, nvmlDeviceGetComputeRunningProcesses_v2,
        nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlDeviceGetProcessUtilization);
    same!(events: nvmlDeviceGetSupportedEventTypes, nvmlEventSetCreate, nvmlEventSetFree, nvmlDeviceRegisterEvents,
        nvmlEventSetWait_v2);
    same!(gpm: nvmlGpmQueryDeviceSupport, nvmlGpmSampleAlloc, nvmlGpmSampleFree, nvmlGpmSampleGet, nvmlGpmMigSampleGet,
        nvmlGpmMetricsGet);
}
