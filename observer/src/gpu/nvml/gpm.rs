//! GPU performance monitoring (Hopper and later): shares between two samples. It reads counters that the GPU keeps
//! anyway; nothing is switched on or reserved for it.

use std::time::{Duration, Instant};

use nvml_wrapper::{
    Device, GpmSample, Nvml as Library, enums::gpm::GpmMetricId, error::NvmlError, gpm::gpm_metrics_get,
};

use super::errors::{Lost, value};
use crate::gpu::snapshot::Gpm;

/// Samples that lie closer together say nothing.
const APART: Duration = Duration::from_millis(100);

/// In the order of [`Gpm`]'s fields.
const METRICS: [GpmMetricId; 4] =
    [GpmMetricId::SmUtil, GpmMetricId::SmOccupancy, GpmMetricId::AnyTensorUtil, GpmMetricId::DramBwUtil];

/// Whether the library has all that is called; letting go of a sample without the last one would end this process.
pub(super) fn is_there(library: &Library) -> bool {
    let library = library.lib();
    library.nvmlGpmQueryDeviceSupport.is_ok()
        && library.nvmlGpmMetricsGet.is_ok()
        && library.nvmlGpmSampleAlloc.is_ok()
        && library.nvmlGpmSampleGet.is_ok()
        && library.nvmlGpmSampleFree.is_ok()
}

/// One GPU's or MIG device's counters.
#[derive(Debug, Default)]
pub(super) struct Counters<'nvml> {
    last: Option<(Instant, GpmSample<'nvml>)>,
}

impl<'nvml> Counters<'nvml> {
    /// Shares since the last call. `instance`: of a MIG device, whose GPU `device` is.
    pub(super) fn read(&mut self, device: &Device<'nvml>, instance: Option<u32>) -> Result<Gpm, Lost> {
        if self.last.as_ref().is_some_and(|(time, _)| time.elapsed() < APART) {
            return Ok(Gpm::default());
        }
        let sample = match instance {
            Some(instance) => device.gpm_mig_sample(instance),
            None => device.gpm_sample(),
        };
        let Some(sample) = value(sample)? else { return Ok(Gpm::default()) };
        let library = device.nvml();
        let Some((_, before)) = self.last.replace((Instant::now(), sample)) else { return Ok(Gpm::default()) };
        let Some((_, after)) = &self.last else { return Ok(Gpm::default()) };
        let Some(values) = value(gpm_metrics_get(library, &before, after, &METRICS))? else {
            return Ok(Gpm::default());
        };
        let mut shares = values.into_iter().map(|value| value.ok().and_then(|metric| share(metric.value)));
        let mut next = || shares.next().flatten();
        Ok(Gpm { sm_active: next(), sm_occupancy: next(), tensor_active: next(), dram_active: next() })
    }
}

fn share(percent: f64) -> Option<f64> {
    // A little more than all is how these counters are read; much more is not a share.
    (0.0..=105.0).contains(&percent).then(|| (percent / 100.0).min(1.0))
}

/// Whether this GPU has such counters.
pub(super) fn is_supported(device: &Device<'_>) -> bool {
    is_there(device.nvml()) && matches!(device.gpm_support(), Ok::<_, NvmlError>(true))
}
