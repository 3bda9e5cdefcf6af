//! What a GPU tells of itself.

use std::{
    ffi::{c_char, c_int, c_uint, c_ulonglong},
    mem, thread,
    time::Duration,
};

use nvml_wrapper_sys::bindings::{
    nvmlClockType_t, nvmlDevice_t, nvmlEccCounterType_t, nvmlFieldValue_t, nvmlMemory_t, nvmlMemory_v2_t,
    nvmlMemoryErrorType_t, nvmlPciInfo_t, nvmlPcieUtilCounter_t, nvmlPerfPolicyType_t, nvmlTemperatureSensors_t,
    nvmlUtilization_t, nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, nvmlViolationTime_t,
};

use crate::{
    NOT_SUPPORTED, OK, VERSION_MISMATCH, exports, put,
    state::{Call, Device, now},
};

pub(crate) fn uuid(device: Device) -> String {
    let Device { gpu, mig } = device;
    mig.map_or_else(
        || format!("GPU-fa4e0000-0000-0000-0000-{gpu:012x}"),
        |mig| format!("MIG-fa4e0000-0000-0000-{mig:04x}-{gpu:012x}"),
    )
}

pub(crate) fn address(gpu: u32) -> String {
    format!("00000000:{:02X}:00.0", 0x17 + gpu)
}

/// What MIG devices have no value of their own for.
fn whole(call: &Call) -> bool {
    call.device.mig.is_none() && call.text("mig").is_none()
}

fn energy(call: &Call) -> u64 {
    let base: u64 = call.number("energy_mj", 1_000_000);
    if call.number("energy_auto", 0) == 0 {
        return base;
    }
    let mut uptime = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `uptime` is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut uptime) };
    let seconds = uptime.tv_sec as f64 + uptime.tv_nsec as f64 / 1e9;
    base + (seconds * call.number("power_mw", 70_000.0)) as u64
}

exports! {
    nvmlDeviceGetName(device: nvmlDevice_t, name: *mut c_char, length: c_uint), Some(device), |call| {
        put(name, length as usize, call.text("name").unwrap_or("NVIDIA H100 80GB HBM3"))
    }
    nvmlDeviceGetUUID(device: nvmlDevice_t, text: *mut c_char, length: c_uint), Some(device), |call| {
        put(text, length as usize, call.text("uuid").unwrap_or(&uuid(call.device)))
    }
    nvmlDeviceGetIndex(device: nvmlDevice_t, index: *mut c_uint), Some(device), |call| {
        *index = call.device.mig.unwrap_or(call.device.gpu);
        OK
    }
    nvmlDeviceGetMinorNumber(device: nvmlDevice_t, minor: *mut c_uint), Some(device), |call| {
        *minor = call.device.gpu;
        OK
    }
    nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, info: *mut nvmlPciInfo_t), Some(device), |call| {
        let info = &mut *info;
        *info = mem::zeroed();
        info.bus = 0x17 + call.device.gpu;
        info.pciDeviceId = 0x2330_10de;
        put(info.busId.as_mut_ptr(), 32, &address(call.device.gpu));
        put(info.busIdLegacy.as_mut_ptr(), 16, &address(call.device.gpu)[4..])
    }
    nvmlDeviceGetUtilizationRates(device: nvmlDevice_t, rates: *mut nvmlUtilization_t), Some(device), |call| {
        if !whole(&call) {
            return NOT_SUPPORTED;
        }
        *rates = nvmlUtilization_t { gpu: call.number("util", 0), memory: call.number("mem_util", 0) };
        OK
    }
    nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, info: *mut nvmlMemory_v2_t), Some(device), |call| {
        let info = &mut *info;
        // As the real one, which refuses another size or version.
        if info.version as usize != size_of::<nvmlMemory_v2_t>() | (2 << 24) {
            return VERSION_MISMATCH;
        }
        info.total = call.number("mem_total", 85_520_809_984);
        info.used = call.number("mem_used", 0);
        info.reserved = call.number("mem_reserved", 632_291_328);
        info.free = info.total.saturating_sub(info.used + info.reserved);
        OK
    }
    nvmlDeviceGetMemoryInfo(device: nvmlDevice_t, info: *mut nvmlMemory_t), Some(device), |call| {
        let info = &mut *info;
        info.total = call.number("mem_total", 85_520_809_984);
        // This one counts what the driver keeps for itself as used.
        info.used = call.number::<u64>("mem_used", 0) + call.number::<u64>("mem_reserved", 632_291_328);
        info.free = info.total.saturating_sub(info.used);
        OK
    }
    nvmlDeviceGetPowerUsage(device: nvmlDevice_t, power: *mut c_uint), Some(device), |call| {
        if call.device.mig.is_some() {
            return NOT_SUPPORTED;
        }
        *power = call.number("power_mw", 70_000);
        OK
    }
    nvmlDeviceGetEnforcedPowerLimit(device: nvmlDevice_t, power: *mut c_uint), Some(device), |call| {
        if call.device.mig.is_some() {
            return NOT_SUPPORTED;
        }
        *power = call.number("power_limit_mw", 700_000);
        OK
    }
    nvmlDeviceGetTotalEnergyConsumption(device: nvmlDevice_t, value: *mut c_ulonglong), Some(device), |call| {
        if call.device.mig.is_some() {
            return NOT_SUPPORTED;
        }
        *value = energy(&call);
        OK
    }
    nvmlDeviceGetTemperature(device: nvmlDevice_t, _sensor: nvmlTemperatureSensors_t, degrees: *mut c_uint), Some(device), |call| {
        *degrees = call.number("temp", 45);
        OK
    }
    nvmlDeviceGetClockInfo(device: nvmlDevice_t, which: nvmlClockType_t, clock: *mut c_uint), Some(device), |call| {
        *clock = call.number(if which == 2 { "mem_clock" } else { "sm_clock" }, 1980);
        OK
    }
    nvmlDeviceGetCurrentClocksThrottleReasons(device: nvmlDevice_t, reasons: *mut c_ulonglong), Some(device), |call| {
        *reasons = call.number("throttle", 0);
        OK
    }
    nvmlDeviceGetCurrentClocksEventReasons(device: nvmlDevice_t, reasons: *mut c_ulonglong), Some(device), |call| {
        *reasons = call.number("throttle", 0);
        OK
    }
    nvmlDeviceGetViolationStatus(device: nvmlDevice_t, policy: nvmlPerfPolicyType_t, time: *mut nvmlViolationTime_t), Some(device), |call| {
        if !whole(&call) {
            return NOT_SUPPORTED;
        }
        *time = nvmlViolationTime_t {
            referenceTime: now(),
            violationTime: call.number(&format!("violation{policy}_ns"), 0),
        };
        OK
    }
    nvmlDeviceGetPcieThroughput(device: nvmlDevice_t, which: nvmlPcieUtilCounter_t, rate: *mut c_uint), Some(device), |call| {
        // The real one watches for as long.
        thread::sleep(Duration::from_millis(20));
        *rate = call.number(if which == 0 { "pcie_tx_kbs" } else { "pcie_rx_kbs" }, 0);
        OK
    }
    nvmlDeviceGetTotalEccErrors(device: nvmlDevice_t, errors: nvmlMemoryErrorType_t, counter: nvmlEccCounterType_t, count: *mut c_ulonglong), Some(device), |call| {
        let kind = if errors == 1 { "ecc_unc" } else { "ecc_cor" };
        let since = if counter == 0 { "_volatile" } else { "" };
        *count = call.number(&format!("{kind}{since}"), 0);
        OK
    }
    nvmlDeviceGetRemappedRows(device: nvmlDevice_t, correctable: *mut c_uint, uncorrectable: *mut c_uint, pending: *mut c_uint, failure: *mut c_uint), Some(device), |call| {
        *correctable = call.number("remap_cor", 0);
        *uncorrectable = call.number("remap_unc", 0);
        *pending = call.number("remap_pending", 0);
        *failure = call.number("remap_fail", 0);
        OK
    }
    nvmlDeviceGetFieldValues(device: nvmlDevice_t, count: c_int, values: *mut nvmlFieldValue_t), Some(device), |call| {
        for index in 0..usize::try_from(count).unwrap_or(0) {
            let field = &mut *values.add(index);
            field.timestamp = i64::try_from(now()).unwrap_or(i64::MAX);
            field.latencyUsec = 10;
            let name = format!("field{}", field.fieldId);
            // A field of links has one value for each, and one for all.
            let scoped = match field.scopeId {
                c_uint::MAX => format!("{name}.all"),
                link => format!("{name}.link{link}"),
            };
            let plain = if field.scopeId == 0 { call.text(&name) } else { None };
            match call.text(&scoped).or(plain) {
                Some(text) => {
                    field.nvmlReturn = OK;
                    field.valueType = nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
                    field.value.ullVal = text.parse().unwrap_or(0);
                }
                None => field.nvmlReturn = NOT_SUPPORTED,
            }
        }
        OK
    }
}
