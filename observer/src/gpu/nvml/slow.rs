//! Values that change slowly.

use nvml_wrapper::{
    Device,
    enum_wrappers::device::{EccCounter, MemoryError, PerformancePolicy},
    error::{NvmlError, nvml_sym, nvml_try},
};

use super::{
    Book,
    errors::{Lost, value},
    fields,
};
use crate::gpu::snapshot::{RowRemap, Slow};

/// What the driver measures the time of by policy, and what we call it.
const POLICIES: [(&str, PerformancePolicy); 6] = [
    ("power", PerformancePolicy::Power),
    ("thermal", PerformancePolicy::Thermal),
    ("sync_boost", PerformancePolicy::SyncBoost),
    ("board_limit", PerformancePolicy::BoardLimit),
    ("low_utilization", PerformancePolicy::LowUtilization),
    ("reliability", PerformancePolicy::Reliability),
];

/// All of them.
pub(super) fn read(device: &Device<'_>, book: &mut Book) -> Result<Slow, Lost> {
    let power_limit = value(device.enforced_power_limit())?;
    let mut throttled = Vec::new();
    for (name, policy) in POLICIES {
        if let Some(time) = value(device.violation_status(policy))? {
            throttled.push((name, time.violation_time));
        }
    }
    let ids = fields::SLOWDOWNS.map(|(_, id)| (id, 0));
    let times = value(fields::read(device, &ids))?.unwrap_or_default();
    let named = fields::SLOWDOWNS.iter().zip(times);
    throttled.extend(named.filter_map(|((name, _), time)| Some((*name, time?))));
    for (name, time) in &mut throttled {
        *time = book.throttled.entry(name).or_default().read(*time);
    }
    // Over the life of the board, not since the driver was loaded.
    let errors = |kind| value(device.total_ecc_errors(kind, EccCounter::Aggregate));
    let (corrected, uncorrected) = (errors(MemoryError::Corrected)?, errors(MemoryError::Uncorrected)?);
    let [ecc_corrected, ecc_uncorrected] = &mut book.ecc;
    let row_remap = value(remapped(device))?.map(|[correctable, uncorrectable, pending, failed]| {
        let [of_correctable, of_uncorrectable] = &mut book.remapped;
        RowRemap {
            correctable: of_correctable.read(correctable.into()),
            uncorrectable: of_uncorrectable.read(uncorrectable.into()),
            pending: pending != 0,
            failed: failed != 0,
        }
    });
    Ok(Slow {
        power_limit_milliwatts: power_limit.map(u64::from),
        throttled,
        ecc_corrected: corrected.map(|count| ecc_corrected.read(count)),
        ecc_uncorrected: uncorrected.map(|count| ecc_uncorrected.read(count)),
        row_remap,
    })
}

fn remapped(device: &Device<'_>) -> Result<[u32; 4], NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetRemappedRows.as_ref())?;
    let [mut correctable, mut uncorrectable, mut pending, mut failed] = [0; 4];
    // SAFETY: the handle is alive with its library.
    let code = unsafe {
        call(device.handle(), &raw mut correctable, &raw mut uncorrectable, &raw mut pending, &raw mut failed)
    };
    nvml_try(code)?;
    Ok([correctable, uncorrectable, pending, failed])
}
