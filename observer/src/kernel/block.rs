//! What block devices did for workloads, in kernel maps.

use aya::{
    Ebpf,
    maps::{HashMap, MapData, PerCpuHashMap},
    programs::BtfTracePoint,
};
use observer_common::block::{BlockConfig, BlockStats, Target};

use super::{
    attach::Links,
    btf::Btf,
    error::{KernelError, map_error, missing, removed},
    host::Value,
    loader::Kernel,
    probes::{PROBES, Probe, ProbeReport, Status},
    signal::Signal,
};

const TARGETS: &str = "BLOCK_TARGETS";
const TARGETS_MAX: usize = observer_common::block::TARGETS as usize;

/// Offsets of this kernel, as the words of [`BlockConfig`]. A member that it lacks is 0, and the probes are off.
pub(super) fn constants(btf: &Btf) -> [u32; BlockConfig::WORDS] {
    BlockConfig::words(|structure, path| btf.offset(structure, path).unwrap_or(0))
}

fn rows() -> impl Iterator<Item = &'static Probe> {
    PROBES.iter().filter(|probe| probe.signal == Some(Signal::Block))
}

/// The first hook that this kernel does not have.
pub(super) fn missing_hook(is_there: impl Fn(&str) -> bool) -> Option<String> {
    let Probe { target, since, .. } = rows().find(|probe| !is_there(probe.target))?;
    Some(format!("this kernel has no tracepoint {target}, which came with Linux {since}"))
}

/// All probes of requests, or none: some of them would follow requests to nowhere. That a kernel has not all that they
/// take is no fault: then the signal is off.
pub(super) fn settle(ebpf: &mut Ebpf, reports: &mut [ProbeReport], links: &mut Links) {
    for name in all_or_none(reports) {
        links.retain(|(linked, _)| *linked != name);
        let program = rows().find(|probe| probe.name == name).and_then(|probe| ebpf.program_mut(probe.program));
        if let Some(Ok(program)) = program.map(<&mut BtfTracePoint>::try_from) {
            // It fails only if nothing is loaded.
            drop(program.unload());
        }
    }
}

/// Says so in the reports. Returns the names of those that are attached and must not be.
fn all_or_none(reports: &mut [ProbeReport]) -> Vec<&'static str> {
    let of_block = |report: &ProbeReport| report.signal == Some(Signal::Block);
    let Some(failed) = reports.iter().find(|report| of_block(report) && !report.status.is_as_wanted()) else {
        return Vec::new();
    };
    let others = match &failed.status {
        Status::Unsupported(reason) => reason.clone(),
        _ => format!("since {} cannot be hooked", failed.target),
    };
    let mut attached = Vec::new();
    for report in reports.iter_mut().filter(|report| of_block(report)) {
        match &report.status {
            Status::Attached => attached.push(report.name),
            Status::Unsupported(_) => {}
            Status::Off(_) | Status::NotPermitted(_) | Status::Broken(_) => continue,
        }
        report.status = Status::Off(others.clone());
    }
    attached
}

impl Kernel {
    /// What each device did for the workload in a slot.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub(crate) fn block_targets(&self, slot: u32) -> Result<Vec<(Target, BlockStats)>, KernelError> {
        let map = self.ebpf.map(TARGETS).ok_or_else(|| missing(TARGETS))?;
        let map: PerCpuHashMap<&MapData, Value<Target>, Value<BlockStats>> =
            PerCpuHashMap::try_from(map).map_err(|error| map_error(TARGETS, &error))?;
        let read = |key: Value<Target>| {
            let mut sum = BlockStats::ZERO;
            map.get(&key, 0).ok()?.iter().for_each(|Value(cpu)| sum.add(cpu));
            Some((key.0, sum))
        };
        Ok(map.keys().flatten().filter(|Value(target)| target.slot == slot).filter_map(read).collect())
    }

    /// Forgets requests that are under way: their end may have gone by unseen.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub(super) fn forget_block_requests(&mut self) -> Result<(), KernelError> {
        const REQUESTS: &str = "BLOCK_REQUESTS";
        let map = self.map(REQUESTS)?;
        let mut map: HashMap<&mut MapData, u64, [u64; 7]> =
            HashMap::try_from(map).map_err(|error| map_error(REQUESTS, &error))?;
        let known: Vec<u64> = map.keys().flatten().collect();
        for request in known {
            removed(map.remove(&request)).map_err(|error| map_error(REQUESTS, &error))?;
        }
        Ok(())
    }

    /// How many pairs of a workload and a device there are.
    pub(super) fn block_targets_used(&self) -> Option<u64> {
        let map: PerCpuHashMap<&MapData, Value<Target>, Value<BlockStats>> =
            PerCpuHashMap::try_from(self.ebpf.map(TARGETS)?).ok()?;
        Some(map.keys().take(TARGETS_MAX).count() as u64)
    }

    /// Forgets what devices did for the workload in a slot.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn remove_block_targets(&mut self, slot: u32) -> Result<(), KernelError> {
        let map = self.map(TARGETS)?;
        let mut map: PerCpuHashMap<&mut MapData, Value<Target>, Value<BlockStats>> =
            PerCpuHashMap::try_from(map).map_err(|error| map_error(TARGETS, &error))?;
        let old: Vec<_> = map.keys().flatten().filter(|Value(target)| target.slot == slot).collect();
        for key in old {
            removed(map.remove(&key)).map_err(|error| map_error(TARGETS, &error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(trial: impl Fn(&Probe) -> Status) -> (Vec<&'static str>, Vec<Status>) {
        let mut reports: Vec<_> = rows().map(|probe| ProbeReport::new(probe, trial(probe))).collect();
        let detached = all_or_none(&mut reports);
        (detached, reports.into_iter().map(|report| report.status).collect())
    }

    fn is_start(probe: &Probe) -> bool {
        probe.target == "block_io_start"
    }

    #[test]
    fn with_all_hooks_all_stay() {
        let (detached, statuses) = settled(|_| Status::Attached);
        assert!(detached.is_empty() && statuses.len() == 4);
        assert!(statuses.iter().all(|status| *status == Status::Attached));
        assert_eq!(missing_hook(|_| true), None);
    }

    #[test]
    fn where_the_kernel_lacks_one_all_are_off_and_say_why() {
        let reason = missing_hook(|name| name != "block_io_start").expect("one is missing");
        assert!(reason.contains("block_io_start") && reason.contains("6.5"), "{reason}");
        let lacking = |probe: &Probe| {
            if is_start(probe) { Status::Unsupported(reason.clone()) } else { Status::Attached }
        };
        let (detached, statuses) = settled(lacking);
        assert_eq!(detached, ["block_issue", "block_merge", "block_complete"]);
        assert!(statuses.iter().all(|status| *status == Status::Off(reason.clone())), "{statuses:?}");
    }

    #[test]
    fn what_is_refused_says_so_and_detaches_the_others() {
        for refused in [Status::NotPermitted("no".into()), Status::Broken("a defect".into())] {
            let (detached, statuses) =
                settled(|probe| if is_start(probe) { refused.clone() } else { Status::Attached });
            assert_eq!(detached.len(), 3);
            assert_eq!(statuses.iter().filter(|status| **status == refused).count(), 1);
            let off = Status::Off("since block_io_start cannot be hooked".into());
            assert_eq!(statuses.iter().filter(|status| **status == off).count(), 3, "{statuses:?}");
        }
    }
}
