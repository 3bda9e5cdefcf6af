//! How one GPU's energy falls to the workloads that use it.

use std::{collections::BTreeMap, sync::Arc};

use crate::gpu::snapshot::Process;

/// A workload's share of a GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Share {
    /// Nobody else has a process there.
    Whole,
    /// Others have; this part of it, from 0 to 1, by the share of SM time.
    Part(f64),
    /// Others have, and nobody knows how much they do.
    Unknown,
}

/// Shares of all workloads that have a process on a GPU. Where none of the processes did anything, all that hold it
/// have equal parts of what it takes to be there.
pub(super) fn shares(processes: &[Process], workload: &dyn Fn(u32) -> Option<Arc<str>>) -> Vec<(Arc<str>, Share)> {
    // `None`: processes of no workload, one like another.
    let mut users: BTreeMap<Option<Arc<str>>, Option<f64>> = BTreeMap::new();
    for process in processes {
        let sum = users.entry(workload(process.pid)).or_insert(Some(0.0));
        *sum = sum.zip(process.sm_utilization).map(|(sum, more)| sum + more);
    }
    let total: Option<f64> = users.values().copied().sum();
    let count = f64::from(u32::try_from(users.len()).unwrap_or(u32::MAX));
    let share = |own: Option<f64>| match (total, own) {
        _ if users.len() == 1 => Share::Whole,
        (Some(total), Some(own)) if total > 0.0 => Share::Part(own / total),
        (Some(_), Some(_)) => Share::Part(1.0 / count),
        _ => Share::Unknown,
    };
    users.iter().filter_map(|(name, own)| Some((Arc::clone(name.as_ref()?), share(*own)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(processes: &[(u32, Option<f64>)]) -> Vec<(String, Share)> {
        let processes: Vec<Process> = processes
            .iter()
            .map(|(pid, utilization)| Process { pid: *pid, memory: None, sm_utilization: *utilization })
            .collect();
        // Ten process ids to a workload; those from 90 on are of none.
        let workload = |pid: u32| (pid < 90).then(|| format!("w{}", pid / 10).into());
        shares(&processes, &workload).into_iter().map(|(name, share)| (name.to_string(), share)).collect()
    }

    #[test]
    fn one_workload_has_all_of_it_however_many_processes() {
        assert_eq!(on(&[(10, None), (11, Some(0.2))]), [("w1".to_owned(), Share::Whole)]);
        assert_eq!(on(&[]), []);
        assert_eq!(on(&[(95, Some(1.0))]), []);
    }

    #[test]
    fn several_share_by_what_they_do() {
        let seen = on(&[(10, Some(0.2)), (11, Some(0.1)), (20, Some(0.1)), (95, Some(0.2))]);
        let [(_, Share::Part(first)), (_, Share::Part(second))] = seen[..] else { panic!("{seen:?}") };
        assert!((first - 0.5).abs() < 1e-9 && (second - 1.0 / 6.0).abs() < 1e-9, "{seen:?}");
    }

    #[test]
    fn who_only_holds_it_has_an_equal_part() {
        let seen = on(&[(10, Some(0.0)), (20, Some(0.0))]);
        assert!(seen.iter().all(|(_, share)| *share == Share::Part(0.5)), "{seen:?}");
    }

    #[test]
    fn what_nobody_measured_is_not_split() {
        assert!(on(&[(10, None), (20, Some(0.5))]).iter().all(|(_, share)| *share == Share::Unknown));
    }
}
