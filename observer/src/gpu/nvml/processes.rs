//! Who is on a GPU, with how much memory and how busy.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use nvml_wrapper::{
    Device, enums::device::UsedGpuMemory, error::NvmlError, struct_wrappers::device::ProcessUtilizationSample,
};

use super::errors::{Lost, loss};
use crate::gpu::snapshot::Process;

/// The list may grow between being counted and being fetched.
const ATTEMPTS: usize = 5;
/// What was told holds so long, if nothing newer is: the driver looks once a second or more often at who runs.
const TOLD: Duration = Duration::from_secs(2);

/// Which list this driver has in a layout that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// `nvmlDeviceGetComputeRunningProcesses_v3`.
    Third,
    /// `nvmlDeviceGetComputeRunningProcesses_v2`.
    Second,
}

impl List {
    /// Entries of the third are longer in 535.43 to 535.86 than before and after, and would be written beyond our
    /// memory; up to 535.98 the symbol went and came.
    pub(super) fn of(version: &str, has_third: bool) -> Self {
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if !has_third || (major == 535 && (43..=98).contains(&minor)) { Self::Second } else { Self::Third }
    }
}

/// All processes with a compute context; `None`: not known.
pub(super) fn list(device: &Device<'_>, list: List) -> Result<Option<Vec<Process>>, Lost> {
    for _ in 0..ATTEMPTS {
        let result = match list {
            List::Third => device.running_compute_processes(),
            List::Second => device.running_compute_processes_v2(),
        };
        let found = match result {
            Ok(found) => found,
            Err(NvmlError::InsufficientSize(_)) => continue,
            Err(error) => return loss(&error).map_or(Ok(None), Err),
        };
        // One process may have several contexts.
        let mut memory: BTreeMap<u32, Option<u64>> = BTreeMap::new();
        for process in found {
            let used = match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            };
            let known = memory.entry(process.pid).or_default();
            *known = (*known).max(used);
        }
        let process = |(pid, memory)| Process { pid, memory, sm_utilization: None };
        return Ok(Some(memory.into_iter().map(process).collect()));
    }
    Ok(None)
}

/// Who was how busy, as the driver told last.
#[derive(Debug, Default)]
pub(super) struct Busy {
    /// The newest time stamp so far, in the driver's terms; what is not newer was told before.
    seen: u64,
    told: Option<Instant>,
    /// `None`: what was told is junk.
    shares: BTreeMap<u32, Option<f64>>,
}

impl Busy {
    /// Adds how busy each of these is. The driver tells of those that ran something: the others did not.
    pub(super) fn add(&mut self, device: &Device<'_>, processes: &mut [Process]) -> Result<(), Lost> {
        let samples = match device.process_utilization_stats(self.seen) {
            Ok(samples) => samples,
            // Nothing ran since.
            Err(NvmlError::NotFound) => Vec::new(),
            Err(error) => return loss(&error).map_or(Ok(()), Err),
        };
        self.take(samples, processes);
        for process in processes {
            process.sm_utilization = self.shares.get(&process.pid).copied().unwrap_or(Some(0.0));
        }
        Ok(())
    }

    fn take(&mut self, samples: Vec<ProcessUtilizationSample>, processes: &[Process]) {
        let mut newest: BTreeMap<u32, (u64, Option<f64>)> = BTreeMap::new();
        for sample in samples {
            // Junk is told, too: of others, of before, of more than there is.
            let is_known = processes.iter().any(|process| process.pid == sample.pid);
            if sample.timestamp <= self.seen || !is_known {
                continue;
            }
            let share = (sample.sm_util <= 100).then(|| f64::from(sample.sm_util) / 100.0);
            let newest = newest.entry(sample.pid).or_default();
            if sample.timestamp >= newest.0 {
                *newest = (sample.timestamp, share);
            }
        }
        if let Some(seen) = newest.values().filter(|(_, share)| share.is_some()).map(|(time, _)| *time).max() {
            self.seen = seen;
            self.told = Some(Instant::now());
            self.shares = newest.into_iter().map(|(pid, (_, share))| (pid, share)).collect();
        } else if self.told.is_none_or(|told| told.elapsed() > TOLD) {
            self.shares.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_with_other_layouts_are_told_apart() {
        for (version, has_third, expected) in [
            ("580.95.05", true, List::Third),
            ("525.60.13", true, List::Third),
            ("535.43.02", true, List::Second),
            ("535.86.10", true, List::Second),
            ("535.98", false, List::Second),
            ("535.104.05", true, List::Third),
            ("470.223.02", false, List::Second),
            ("", true, List::Third),
        ] {
            assert_eq!(List::of(version, has_third), expected, "{version}");
        }
    }
}
