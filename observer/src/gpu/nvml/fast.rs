//! Values that change fast.

use nvml_wrapper::{
    Device,
    enum_wrappers::device::{Clock, TemperatureSensor},
    error::{NvmlError, nvml_sym, nvml_try},
};
use nvml_wrapper_sys::bindings::nvmlMemory_t;

use super::{
    Book,
    errors::{Lost, value},
    fields::{self, Links},
};
use crate::gpu::snapshot::{Fast, Slowdown};

const HERTZ: u64 = 1_000_000;

fn ratio(percent: u32) -> Option<f64> {
    (percent <= 100).then(|| f64::from(percent) / 100.0)
}

/// All of them, but for performance counters.
pub(super) fn read(device: &Device<'_>, links: &mut Links, book: &mut Book) -> Result<Fast, Lost> {
    let utilization = value(device.utilization_rates())?;
    let memory = memory(device)?;
    let power = value(device.power_usage())?;
    let energy = value(device.total_energy_consumption())?;
    let temperature = value(device.temperature(TemperatureSensor::Gpu))?;
    let clock = |which| Ok(value(device.clock_info(which))?.map(|megahertz| u64::from(megahertz) * HERTZ));
    let (sm_clock, memory_clock) = (clock(Clock::SM)?, clock(Clock::Memory)?);
    let slowdown = value(slowdown(device))?;
    let (pcie, nvlink) = fields::traffic(device, links, book)?;
    Ok(Fast {
        utilization: utilization.as_ref().and_then(|rates| ratio(rates.gpu)),
        memory_utilization: utilization.as_ref().and_then(|rates| ratio(rates.memory)),
        memory_used: memory.map(|(used, _)| used),
        memory_total: memory.map(|(_, total)| total),
        power_milliwatts: power.map(u64::from),
        energy_millijoules: energy.map(|energy| book.energy.read(energy)),
        temperature,
        sm_clock,
        memory_clock,
        slowdown: slowdown.map(Slowdown),
        pcie,
        nvlink,
        gpm: Default::default(),
    })
}

/// Bytes used and in all.
pub(super) fn memory(device: &Device<'_>) -> Result<Option<(u64, u64)>, Lost> {
    match device.memory_info() {
        // A driver that is older than this call.
        Err(NvmlError::FailedToLoadSymbol(_)) => value(memory_of_old(device)),
        result => Ok(value(result)?.map(|info| (info.used, info.total))),
    }
}

fn memory_of_old(device: &Device<'_>) -> Result<(u64, u64), NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetMemoryInfo.as_ref())?;
    let mut info = nvmlMemory_t { total: 0, free: 0, used: 0 };
    // SAFETY: the handle is alive with its library.
    nvml_try(unsafe { call(device.handle(), &raw mut info) })?;
    Ok((info.used, info.total))
}

/// The bits, those included that the wrapper has no name for.
fn slowdown(device: &Device<'_>) -> Result<u64, NvmlError> {
    let library = device.nvml().lib();
    // The same by two names, of which old drivers know the second.
    let new = library.nvmlDeviceGetCurrentClocksEventReasons.as_ref();
    let call = nvml_sym(new.or(library.nvmlDeviceGetCurrentClocksThrottleReasons.as_ref()))?;
    let mut bits = 0;
    // SAFETY: the handle is alive with its library.
    nvml_try(unsafe { call(device.handle(), &raw mut bits) })?;
    Ok(bits)
}
