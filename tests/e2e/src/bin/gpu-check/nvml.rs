//! What NVML itself says, asked directly and by code that shares nothing with the observer's: values by the observer's
//! names for them, and how long each call takes.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ffi::{CStr, c_char, c_uint},
    mem,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use nvml_wrapper_sys::bindings::{
    NvmlLib, field_id::*, nvmlDevice_t, nvmlFieldValue_t, nvmlGpmMetricsGet_t, nvmlGpmSample_t, nvmlGpmSupport_t,
    nvmlMemory_t, nvmlMemory_v2_t, nvmlProcessInfo_t, nvmlProcessUtilizationSample_t, nvmlReturn_t, nvmlUtilization_t,
    nvmlViolationTime_t,
};

const OK: nvmlReturn_t = 0;
const NOT_FOUND: nvmlReturn_t = 6;
/// As NVML has it, for symbols that the library lacks.
const FUNCTION_NOT_FOUND: nvmlReturn_t = 13;
const ALL_LINKS: c_uint = c_uint::MAX;
const LINKS_MAX: u32 = 18;
/// Room for so many processes, of the longest layout that any driver has.
const PROCESSES: usize = 128;
const POLICIES: [&str; 6] = ["power", "thermal", "sync_boost", "board_limit", "low_utilization", "reliability"];
const GPM: [(c_uint, &str); 4] = [
    (2, "gpu_sm_active_ratio"),
    (3, "gpu_sm_occupancy_ratio"),
    (5, "gpu_tensor_active_ratio"),
    (10, "gpu_dram_active_ratio"),
];

/// Values by family and labels, but for those that say which GPU.
pub(crate) type Values = BTreeMap<String, f64>;

/// A GPU.
#[derive(Debug)]
pub(crate) struct Gpu {
    pub(crate) index: u32,
    pub(crate) uuid: String,
    pub(crate) name: String,
    device: nvmlDevice_t,
    has_gpm: bool,
    last: RefCell<Option<(Instant, nvmlGpmSample_t)>>,
}

// SAFETY: handles are not tied to a thread, and one thread at a time has the GPU.
unsafe impl Send for Gpu {}

/// The library, open.
pub(crate) struct Nvml {
    library: NvmlLib,
    pub(crate) driver: String,
    pub(crate) gpus: Vec<Gpu>,
    times: RefCell<BTreeMap<&'static str, Vec<Duration>>>,
}

/// Calls a function of the library, if it has it, and writes down how long that took.
macro_rules! call {
    ($nvml:expr, $name:ident($($argument:expr),*)) => {
        match $nvml.library.$name.as_ref() {
            Ok(function) => {
                let begun = Instant::now();
                // SAFETY: arguments are valid for what the function reads and writes, and it is NVIDIA's.
                let code = unsafe { function($($argument),*) };
                $nvml.times.borrow_mut().entry(stringify!($name)).or_default().push(begun.elapsed());
                code
            }
            Err(_) => FUNCTION_NOT_FOUND,
        }
    };
}

/// What a call may write.
trait Number {
    fn float(self) -> f64;
}

impl Number for c_uint {
    fn float(self) -> f64 {
        self.into()
    }
}

impl Number for u64 {
    fn float(self) -> f64 {
        self as f64
    }
}

/// A number that a call writes; `None`: it did not.
macro_rules! number {
    ($nvml:expr, $type:ty, $name:ident($($argument:expr),* ; out)) => {{
        let mut value: $type = 0;
        (call!($nvml, $name($($argument,)* &raw mut value)) == OK).then(|| value.float())
    }};
}

/// What a call wrote into a buffer for text.
fn text(fill: impl Fn(*mut c_char, c_uint) -> nvmlReturn_t) -> Option<String> {
    let mut buffer = [0_u8; 96];
    if fill(buffer.as_mut_ptr().cast(), 96) != OK {
        return None;
    }
    CStr::from_bytes_until_nul(&buffer).ok().map(|text| text.to_string_lossy().into_owned())
}

impl Nvml {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // SAFETY: it is NVIDIA's library, or what was named as such.
        let library = unsafe { NvmlLib::new(path) }.with_context(|| {
            format!("load {}: is NVIDIA's driver installed? --library names another place", path.display())
        })?;
        let mut nvml = Self { library, driver: String::new(), gpus: Vec::new(), times: RefCell::default() };
        let code = call!(nvml, nvmlInit_v2());
        if code != OK {
            bail!(
                "nvmlInit_v2 says {code}: see NVIDIA's nvmlReturn_t; 9 is a driver that is not loaded, 18 a mismatch"
            );
        }
        nvml.driver = text(|out, length| call!(nvml, nvmlSystemGetDriverVersion(out, length))).unwrap_or_default();
        let mut count = 0;
        if call!(nvml, nvmlDeviceGetCount_v2(&raw mut count)) != OK || count == 0 {
            bail!("the driver has no GPU");
        }
        for index in 0..count {
            // SAFETY: a pointer, for which zero is valid.
            let mut device: nvmlDevice_t = unsafe { mem::zeroed() };
            if call!(nvml, nvmlDeviceGetHandleByIndex_v2(index, &raw mut device)) != OK {
                println!("      GPU {index} cannot be opened: it is left out");
                continue;
            }
            let mut support = nvmlGpmSupport_t { version: 1, isSupportedDevice: 0 };
            let code = call!(nvml, nvmlGpmQueryDeviceSupport(device, &raw mut support));
            nvml.gpus.push(Gpu {
                index,
                uuid: text(|out, length| call!(nvml, nvmlDeviceGetUUID(device, out, length))).unwrap_or_default(),
                name: text(|out, length| call!(nvml, nvmlDeviceGetName(device, out, length))).unwrap_or_default(),
                device,
                has_gpm: code == OK && support.isSupportedDevice != 0,
                last: RefCell::default(),
            });
        }
        Ok(nvml)
    }

    /// How long each call took, so far.
    pub(crate) fn times(&self) -> BTreeMap<&'static str, Vec<Duration>> {
        self.times.borrow().clone()
    }

    /// Whether lists of processes have entries of the layout that is read here.
    pub(crate) fn lists_are_known(&self) -> bool {
        let mut parts = self.driver.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let is_odd = parts.next() == Some(535) && parts.next().is_some_and(|minor| (43..=98).contains(&minor));
        self.library.nvmlDeviceGetComputeRunningProcesses_v3.is_ok() && !is_odd
    }

    /// All values of a GPU now.
    pub(crate) fn read(&self, gpu: &Gpu) -> Values {
        let mut values = Values::new();
        self.read_fast(gpu, &mut values);
        self.read_slow(gpu, &mut values);
        self.read_fields(gpu, &mut values);
        self.read_processes(gpu, &mut values);
        self.read_gpm(gpu, &mut values);
        values
    }

    fn read_fast(&self, gpu: &Gpu, values: &mut Values) {
        let device = gpu.device;
        let mut put = |name: &str, value: Option<f64>| values.extend(value.map(|value| (name.to_owned(), value)));
        let mut rates = nvmlUtilization_t { gpu: 0, memory: 0 };
        if call!(self, nvmlDeviceGetUtilizationRates(device, &raw mut rates)) == OK {
            put("gpu_utilization_ratio", Some(f64::from(rates.gpu) / 100.0));
            put("gpu_memory_bandwidth_utilization_ratio", Some(f64::from(rates.memory) / 100.0));
        }
        let version = size_of::<nvmlMemory_v2_t>() as c_uint | (2 << 24);
        let mut memory = nvmlMemory_v2_t { version, total: 0, reserved: 0, free: 0, used: 0 };
        let mut code = call!(self, nvmlDeviceGetMemoryInfo_v2(device, &raw mut memory));
        if code == FUNCTION_NOT_FOUND {
            let mut old = nvmlMemory_t { total: 0, free: 0, used: 0 };
            code = call!(self, nvmlDeviceGetMemoryInfo(device, &raw mut old));
            (memory.total, memory.used) = (old.total, old.used);
        }
        if code == OK {
            put("gpu_memory_used_bytes", Some(memory.used as f64));
            put("gpu_memory_total_bytes", Some(memory.total as f64));
        }
        let power = number!(self, c_uint, nvmlDeviceGetPowerUsage(device; out));
        put("gpu_power_watts", power.map(|milliwatts| milliwatts / 1e3));
        let energy = number!(self, u64, nvmlDeviceGetTotalEnergyConsumption(device; out));
        put("gpu_energy_joules_total", energy.map(|millijoules| millijoules / 1e3));
        put("gpu_temperature_celsius", number!(self, c_uint, nvmlDeviceGetTemperature(device, 0; out)));
        for (name, which) in [("sm", 1), ("memory", 2)] {
            let clock = number!(self, c_uint, nvmlDeviceGetClockInfo(device, which; out));
            put(&format!("gpu_clock_hertz{{clock=\"{name}\"}}"), clock.map(|megahertz| megahertz * 1e6));
        }
    }

    fn read_slow(&self, gpu: &Gpu, values: &mut Values) {
        let device = gpu.device;
        let mut put = |name: String, value: Option<f64>| values.extend(value.map(|value| (name, value)));
        let limit = number!(self, c_uint, nvmlDeviceGetEnforcedPowerLimit(device; out));
        put("gpu_power_limit_watts".to_owned(), limit.map(|milliwatts| milliwatts / 1e3));
        for (name, kind) in [("corrected", 0), ("uncorrected", 1)] {
            let count = number!(self, u64, nvmlDeviceGetTotalEccErrors(device, kind, 1; out));
            put(format!("gpu_ecc_errors_total{{type=\"{name}\"}}"), count);
        }
        let [mut correctable, mut uncorrectable, mut pending, mut failed] = [0; 4];
        let (one, two, three, four) = (&raw mut correctable, &raw mut uncorrectable, &raw mut pending, &raw mut failed);
        if call!(self, nvmlDeviceGetRemappedRows(device, one, two, three, four)) == OK {
            put("gpu_row_remaps_total{type=\"correctable\"}".to_owned(), Some(correctable.into()));
            put("gpu_row_remaps_total{type=\"uncorrectable\"}".to_owned(), Some(uncorrectable.into()));
            put("gpu_row_remap_pending".to_owned(), Some(f64::from(pending != 0)));
            put("gpu_row_remap_failed".to_owned(), Some(f64::from(failed != 0)));
        }
        for (policy, name) in (0..).zip(POLICIES) {
            let mut time = nvmlViolationTime_t { referenceTime: 0, violationTime: 0 };
            if call!(self, nvmlDeviceGetViolationStatus(device, policy, &raw mut time)) == OK {
                put(throttle(name), Some(time.violationTime as f64 / 1e9));
            }
        }
    }

    /// Values of fields, each with the link that it is of.
    fn fields(&self, gpu: &Gpu, fields: &[(c_uint, c_uint)]) -> Vec<Option<f64>> {
        let ask = |(id, scope): &(c_uint, c_uint)| {
            // SAFETY: all of it is numbers, for which zero is valid.
            let mut field: nvmlFieldValue_t = unsafe { mem::zeroed() };
            (field.fieldId, field.scopeId) = (*id, *scope);
            field
        };
        let mut asked: Vec<_> = fields.iter().map(ask).collect();
        let code = call!(self, nvmlDeviceGetFieldValues(gpu.device, asked.len() as i32, asked.as_mut_ptr()));
        let value = |field: &nvmlFieldValue_t| {
            // SAFETY: the tag says which part of the union was written.
            let value = unsafe {
                match field.valueType {
                    1 => Some(f64::from(field.value.uiVal)),
                    2 => Some(field.value.ulVal as f64),
                    3 => Some(field.value.ullVal as f64),
                    4 => Some(field.value.sllVal as f64),
                    _ => None,
                }
            };
            value.filter(|_| code == OK && field.nvmlReturn == OK)
        };
        asked.iter().map(value).collect()
    }

    fn read_fields(&self, gpu: &Gpu, values: &mut Values) {
        let mut version = self.driver.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (version.next().unwrap_or(0), version.next().unwrap_or(0));
        // Three of them got other numbers there.
        let moved = if version >= (580, 82) { 18 } else { 0 };
        let held = [
            (NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN, "sw_thermal"),
            (NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN, "hw_thermal"),
            (NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN, "hw_power_brake"),
        ];
        let times = self.fields(gpu, &held.map(|(id, _)| (id + moved, 0)));
        for ((_, name), time) in held.iter().zip(times) {
            values.extend(time.map(|nanoseconds| (throttle(name), nanoseconds / 1e9)));
        }
        for (direction, pcie, link) in [
            ("transmit", NVML_FI_DEV_PCIE_COUNT_TX_BYTES, NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX),
            ("receive", NVML_FI_DEV_PCIE_COUNT_RX_BYTES, NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX),
        ] {
            let [bytes, all] = self.fields(gpu, &[(pcie, 0), (link, ALL_LINKS)])[..] else { return };
            let each = || {
                let links: Vec<_> = (0..LINKS_MAX).map(|number| (link, number)).collect();
                let counted: Vec<_> = self.fields(gpu, &links).into_iter().map_while(|value| value).collect();
                (!counted.is_empty()).then(|| counted.iter().sum())
            };
            let kib: Option<f64> = all.or_else(each);
            values.extend(bytes.map(|bytes| (format!("gpu_pcie_bytes_total{{direction=\"{direction}\"}}"), bytes)));
            values
                .extend(kib.map(|kib| (format!("gpu_nvlink_bytes_total{{direction=\"{direction}\"}}"), kib * 1024.0)));
        }
    }

    fn read_processes(&self, gpu: &Gpu, values: &mut Values) {
        if !self.lists_are_known() {
            return;
        }
        // SAFETY: all of it is numbers, for which zero is valid.
        let mut entries: [nvmlProcessInfo_t; PROCESSES] = unsafe { mem::zeroed() };
        let mut count = (PROCESSES / 2) as c_uint;
        if call!(self, nvmlDeviceGetComputeRunningProcesses_v3(gpu.device, &raw mut count, entries.as_mut_ptr())) != OK
        {
            return;
        }
        let listed = &entries[..count as usize];
        let memory = listed.iter().filter(|entry| entry.usedGpuMemory != u64::MAX);
        values.extend(memory.map(|entry| (process("memory_bytes", entry.pid), entry.usedGpuMemory as f64)));
        // SAFETY: as above.
        let mut samples: [nvmlProcessUtilizationSample_t; PROCESSES] = unsafe { mem::zeroed() };
        let mut count = PROCESSES as c_uint;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64);
        let since = now.saturating_sub(1_500_000);
        let code =
            call!(self, nvmlDeviceGetProcessUtilization(gpu.device, samples.as_mut_ptr(), &raw mut count, since));
        if ![OK, NOT_FOUND].contains(&code) {
            return;
        }
        let samples = if code == OK { &samples[..count as usize] } else { &[] };
        for entry in listed {
            let newest = samples.iter().filter(|sample| sample.pid == entry.pid).max_by_key(|sample| sample.timeStamp);
            let percent = newest.map_or(0, |sample| sample.smUtil);
            if percent <= 100 {
                values.insert(process("sm_utilization_ratio", entry.pid), f64::from(percent) / 100.0);
            }
        }
    }

    /// Between this call and the one before, if that was long enough ago.
    fn read_gpm(&self, gpu: &Gpu, values: &mut Values) {
        let mut last = gpu.last.borrow_mut();
        if !gpu.has_gpm || last.as_ref().is_some_and(|(time, _)| time.elapsed() < Duration::from_secs(1)) {
            return;
        }
        // SAFETY: a pointer, for which zero is valid.
        let mut sample: nvmlGpmSample_t = unsafe { mem::zeroed() };
        if call!(self, nvmlGpmSampleAlloc(&raw mut sample)) != OK {
            return;
        }
        if call!(self, nvmlGpmSampleGet(gpu.device, sample)) != OK {
            call!(self, nvmlGpmSampleFree(sample));
            return;
        }
        let Some((_, before)) = last.replace((Instant::now(), sample)) else { return };
        // SAFETY: numbers and pointers, for which zero is valid.
        let mut wanted: Box<nvmlGpmMetricsGet_t> = Box::new(unsafe { mem::zeroed() });
        (wanted.version, wanted.numMetrics) = (1, GPM.len() as c_uint);
        (wanted.sample1, wanted.sample2) = (before, sample);
        for (metric, (id, _)) in wanted.metrics.iter_mut().zip(GPM) {
            metric.metricId = id;
        }
        if call!(self, nvmlGpmMetricsGet(&raw mut *wanted)) == OK {
            let told = wanted.metrics.iter().zip(GPM).filter(|(metric, _)| metric.nvmlReturn == OK);
            values.extend(told.map(|(metric, (_, name))| (name.to_owned(), (metric.value / 100.0).min(1.0))));
        }
        call!(self, nvmlGpmSampleFree(before));
    }
}

impl Drop for Nvml {
    fn drop(&mut self) {
        for gpu in &self.gpus {
            if let Some((_, sample)) = gpu.last.borrow_mut().take() {
                call!(self, nvmlGpmSampleFree(sample));
            }
        }
        call!(self, nvmlShutdown());
    }
}

fn throttle(reason: &str) -> String {
    format!("gpu_throttle_seconds_total{{reason=\"{reason}\"}}")
}

fn process(what: &str, pid: u32) -> String {
    format!("gpu_process_{what}{{pid=\"{pid}\"}}")
}

/// The process that a series is of.
pub(crate) fn pid(key: &str) -> Option<u32> {
    key.strip_prefix("gpu_process_memory_bytes{pid=\"")?.strip_suffix("\"}")?.parse().ok()
}
