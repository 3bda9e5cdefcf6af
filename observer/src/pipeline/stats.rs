//! What the kernel side tells of itself, in the terms of the metrics.

use observer_common::loss::Counter;

use super::drain::Drain;
use crate::{
    kernel::{
        Kernel,
        probes::{ProbeReport, Status},
        statistics,
    },
    metrics::{KernelStats, MapStats, ProbeStats},
    request::hops::CLIENTS_MAX,
};

/// Where a counter of the kernel side goes: `source`, and `reason` if it counts losses.
fn place(counter: Counter) -> Option<(&'static str, Option<&'static str>)> {
    Some(match counter {
        Counter::Data => ("data", None),
        Counter::Open => ("open", None),
        Counter::State => ("state", None),
        Counter::Arrivals => ("arrivals", None),
        Counter::Listen => ("listen", None),
        Counter::Connect => ("connect", None),
        Counter::DataRingFull => ("data", Some("ring_full")),
        Counter::OtherRingFull => ("other", Some("ring_full")),
        Counter::PayloadFault => ("data", Some("payload_fault")),
        Counter::StateStorage => ("open", Some("out_of_memory")),
        Counter::ClientStorage => ("connect", Some("out_of_memory")),
        Counter::BlockEnd => ("block_complete", Some("unseen")),
        Counter::ThreadStorage => ("thread", Some("out_of_memory")),
        Counter::ScopePidInsert
        | Counter::MemberInsert
        | Counter::BlockRequestInsert
        | Counter::BlockTargetInsert
        | Counter::Wakeup
        | Counter::NoPayload
        | Counter::NotHttp
        | Counter::Unstamped
        | Counter::IgnoredPort => return None,
    })
}

/// Everything that one scrape shows of the kernel side.
pub(super) fn collect(kernel: &Kernel, drain: &Drain, ring_bytes: u32) -> KernelStats {
    let mut stats = KernelStats::default();
    let counters = kernel.counters().unwrap_or_else(|error| {
        tracing::warn!("{error}");
        Vec::new()
    });
    let (mut pid_failures, mut member_failures, mut block_requests, mut block_targets) = (0, 0, 0, 0);
    for (counter, value) in counters {
        match place(counter) {
            Some((source, None)) => stats.events.push((source.into(), value)),
            Some((source, Some(reason))) => stats.lost.push((source.into(), reason.into(), value)),
            None => match counter {
                Counter::ScopePidInsert => pid_failures = value,
                Counter::MemberInsert => member_failures = value,
                Counter::BlockRequestInsert => block_requests = value,
                Counter::BlockTargetInsert => block_targets = value,
                Counter::Wakeup => stats.ring_wakeups = Some(value),
                Counter::NotHttp => stats.left_alone = Some(value),
                Counter::Unstamped => stats.unstamped = Some(value),
                Counter::IgnoredPort => stats.ignored_calls = Some(value),
                _ => {}
            },
        }
    }
    stats.bytes = kernel.bytes().unwrap_or_else(|error| {
        tracing::warn!("{error}");
        Vec::new()
    });
    stats.lost.push(("ring".into(), "malformed".into(), drain.malformed()));
    let costs = kernel.costs();
    let counts_all = statistics::are_on_for_everybody();
    let wanted = |report: &&ProbeReport| !matches!(report.status, Status::Off(_)) && !kernel.is_away(report);
    for report in kernel.reports().iter().filter(wanted) {
        let cost = costs.iter().find(|(name, _)| *name == report.name).map(|(_, cost)| *cost).unwrap_or_default();
        // Without `kernel.bpf_stats_enabled` the kernel counts nothing, or the governor's samples alone: then there is
        // nothing to tell.
        let counted = cost.runs > 0 && counts_all;
        stats.probes.push(ProbeStats {
            name: report.name.into(),
            mechanism: report.mechanism.as_str().into(),
            attached: report.is_attached(),
            runs: counted.then_some(cost.runs),
            run_time: counted.then(|| std::time::Duration::from_nanos(cost.nanoseconds)),
        });
        stats.lost.push((report.name.into(), "recursion".into(), cost.recursion_misses));
    }
    for (name, entries, capacity) in kernel.map_usage() {
        stats.maps.push(MapStats {
            name: name.into(),
            entries: Some(entries),
            capacity: Some(capacity),
            insert_failures: match name {
                "pids" => Some(pid_failures),
                "members" => Some(member_failures),
                "block_requests" => Some(block_requests),
                "block_targets" => Some(block_targets),
                _ => None,
            },
        });
    }
    stats.maps.push(MapStats {
        name: "clients".into(),
        entries: Some(drain.clients()),
        capacity: Some(CLIENTS_MAX as u64),
        insert_failures: Some(drain.clients_given_up()),
    });
    stats.ring_used_ratio = Some((drain.backlog() as f64 / f64::from(ring_bytes)).min(1.0));
    stats.arrival_time_available = Some(kernel.sees_arrivals());
    stats
}
