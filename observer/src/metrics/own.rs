//! What the observer tells about itself.

use std::{borrow::Cow, sync::Arc, time::Duration};

use prometheus::proto::MetricFamily;

use super::{
    families::{Family, own as family},
    registry::{Families, Store, flag, number},
    value::{Counter, Gauge},
};
use crate::{
    event::{Content, Direction, OpaqueReason},
    governor::{Action, Costs, Optional},
    request::record::IncompleteReason,
    workload::Identity,
};

/// A name that is known when this is built, or made at run time.
pub type Name = Cow<'static, str>;

/// The kernel side at one moment, read when somebody scrapes. What is absent has no sample.
#[derive(Clone, Debug, Default)]
pub struct KernelStats {
    /// Events since start, by source.
    pub events: Vec<(Name, u64)>,
    /// Lost events since start, by source and reason.
    pub lost: Vec<(Name, Name, u64)>,
    /// Bytes since start that became no events.
    pub bytes: Vec<(Content, Direction, u64)>,
    /// Kernel maps.
    pub maps: Vec<MapStats>,
    /// Probes.
    pub probes: Vec<ProbeStats>,
    /// Fill of the ring, 0 to 1.
    pub ring_used_ratio: Option<f64>,
    /// Wake-ups that the filling ring forced.
    pub ring_wakeups: Option<u64>,
    /// Connections that speak something other than HTTP.
    pub left_alone: Option<u64>,
    /// Calls on ports that are left alone for a while.
    pub ignored_calls: Option<u64>,
    /// Stretches of bytes without an arrival stamp.
    pub unstamped: Option<u64>,
    /// Whether t0 is the arrival in the kernel, rather than the first read.
    pub arrival_time_available: Option<bool>,
    /// What optional probes cost, and what was done about it.
    pub governor: GovernorStats,
}

/// The governor of optional probes at one moment, in the order of [`Optional::ALL`]. All absent, where there is none.
#[derive(Clone, Debug, Default)]
pub struct GovernorStats {
    /// Share of one core that they may take.
    pub budget: Option<f64>,
    /// Whether each signal is shed; `None`: it is off.
    pub shed: [Option<bool>; Optional::ALL.len()],
    /// Share of one core that each took.
    pub costs: Costs,
    /// Decisions so far: to shed each, to restore each.
    pub decisions: [[u64; 2]; Optional::ALL.len()],
}

impl GovernorStats {
    /// Counts one.
    pub fn decided(&mut self, action: Action) {
        let (signal, which) = match action {
            Action::Shed(signal) => (signal, 0),
            Action::Restore(signal) => (signal, 1),
        };
        self.decisions[signal as usize][which] += 1;
    }

    fn collect(&self, families: &mut Families) {
        if let Some(budget) = self.budget {
            families.add(&family::GOVERNOR_BUDGET, &[], budget);
        }
        for signal in Optional::ALL {
            let (at, name) = (signal as usize, signal.as_str());
            if let Some(cost) = self.costs[at] {
                families.add(&family::GOVERNOR_COST, &[name], cost);
            }
            let Some(shed) = self.shed[at] else { continue };
            families.add(&family::SIGNAL_SHED, &[name], flag(shed));
            for (action, count) in [Action::Shed(signal), Action::Restore(signal)].into_iter().zip(self.decisions[at]) {
                families.add(&family::GOVERNOR_DECISIONS, &[action.parts().0, name], number(count));
            }
        }
    }
}

/// A kernel map.
#[derive(Clone, Debug, Default)]
pub struct MapStats {
    /// Its name.
    pub name: Name,
    /// Entries now.
    pub entries: Option<u64>,
    /// Most entries.
    pub capacity: Option<u64>,
    /// Entries refused since start.
    pub insert_failures: Option<u64>,
}

/// A probe.
#[derive(Clone, Debug, Default)]
pub struct ProbeStats {
    /// Its name.
    pub name: Name,
    /// What it is attached by, or should be.
    pub mechanism: Name,
    /// Whether it is attached.
    pub attached: bool,
    /// Runs, where BPF statistics are on.
    pub runs: Option<u64>,
    /// Time in those runs.
    pub run_time: Option<Duration>,
}

/// Requests in flight on one port of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// As in the metrics' label.
    pub workload: Arc<str>,
    /// The workload itself, where it is known by more than its name.
    pub identity: Option<Arc<Identity>>,
    /// As in the metrics' label: the port, or `unix`.
    pub server_port: String,
    /// Requests whose first byte arrived and that have not ended; 0 while connections are idle.
    pub requests: u64,
}

/// Counters and gauges that the pipeline feeds. All are there from the start: nothing lost is a fact, too.
pub struct Own {
    incomplete: [Arc<Counter>; IncompleteReason::ALL.len()],
    opaque: [Arc<Counter>; OpaqueReason::ALL.len()],
    traffic: [[Arc<Counter>; 2]; Content::ALL.len()],
    stream_gap: [Arc<Counter>; 2],
    uncaptured: [Arc<Counter>; 2],
    unparsed: [Arc<Counter>; 2],
    /// Requests that were under way when their connection became known.
    pub joined_mid_request: Arc<Counter>,
    /// HTTP requests that are not for a language model.
    pub other_requests: Arc<Counter>,
    /// Measured writes whose bytes had not left when the time was taken; fed by finished requests.
    pub unsent_at_stamp: Arc<Counter>,
    /// Requests missing from the request log because its queue was full.
    pub request_log_queue_full: Arc<Counter>,
    /// Requests missing from the request log because writing failed.
    pub request_log_write_error: Arc<Counter>,
    /// Connections known now.
    pub connections: Gauge,
}

const DIRECTIONS: [&str; 2] = ["receive", "send"];

impl Own {
    pub(super) fn new(store: &Store) -> Self {
        let directions = |family: &'static Family| DIRECTIONS.map(|direction| store.counter(family, &[direction]));
        Self {
            incomplete: IncompleteReason::ALL.map(|reason| store.counter(&family::INCOMPLETE, &[reason.as_str()])),
            opaque: OpaqueReason::ALL.map(|reason| store.counter(&family::OPAQUE, &[reason.as_str()])),
            traffic: Content::ALL.map(|content| {
                DIRECTIONS.map(|direction| store.counter(&family::TRAFFIC, &[content.as_str(), direction]))
            }),
            stream_gap: directions(&family::STREAM_GAP),
            uncaptured: directions(&family::UNCAPTURED),
            unparsed: directions(&family::UNPARSED),
            joined_mid_request: store.counter(&family::JOINED_MID_REQUEST, &[]),
            other_requests: store.counter(&family::OTHER_REQUESTS, &[]),
            unsent_at_stamp: store.counter(&family::UNSENT, &[]),
            request_log_queue_full: store.counter(&family::REQUEST_LOG_DROPPED, &["queue_full"]),
            request_log_write_error: store.counter(&family::REQUEST_LOG_DROPPED, &["write_error"]),
            connections: Gauge::default(),
        }
    }

    /// Incomplete requests; fed by finished requests.
    #[must_use]
    pub fn incomplete(&self, reason: IncompleteReason) -> &Counter {
        &self.incomplete[reason as usize]
    }

    /// Opaque connections.
    #[must_use]
    pub fn opaque(&self, reason: OpaqueReason) -> &Counter {
        &self.opaque[reason as usize]
    }

    /// Bytes on candidate ports.
    #[must_use]
    pub fn traffic(&self, content: Content, direction: Direction) -> &Counter {
        &self.traffic[content as usize][direction as usize]
    }

    /// Takes over what the kernel side counts.
    pub(super) fn take_over(&self, kernel: &KernelStats) {
        for (content, direction, bytes) in &kernel.bytes {
            self.traffic(*content, *direction).set_total(*bytes);
        }
    }

    /// Bytes that no event accounted for.
    #[must_use]
    pub fn stream_gap_bytes(&self, direction: Direction) -> &Counter {
        &self.stream_gap[direction as usize]
    }

    /// Bytes whose content was not captured.
    #[must_use]
    pub fn uncaptured_bytes(&self, direction: Direction) -> &Counter {
        &self.uncaptured[direction as usize]
    }

    /// Bytes that could not be understood.
    #[must_use]
    pub fn unparsed_bytes(&self, direction: Direction) -> &Counter {
        &self.unparsed[direction as usize]
    }
}

/// What this process costs.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessStats {
    /// User and system time.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
}

impl ProcessStats {
    /// Of this process, from `/proc/self/stat`; `None` if that cannot be read.
    #[must_use]
    pub fn read() -> Option<Self> {
        let stat = procfs::process::Process::myself().ok()?.stat().ok()?;
        let milliseconds = (stat.utime + stat.stime) * 1000 / procfs::ticks_per_second();
        Some(Self { cpu: Duration::from_millis(milliseconds), resident_bytes: stat.rss * procfs::page_size() })
    }
}

/// Families that are computed when somebody asks.
pub(super) fn collect(own: &Own, kernel: Option<&KernelStats>, last_scrape: Option<Duration>) -> Vec<MetricFamily> {
    let mut families = Families::default();
    families.add(&family::BUILD, &[env!("CARGO_PKG_VERSION")], 1.0);
    families.add(&family::CONNECTIONS, &[], number(own.connections.get()));
    if let Some(process) = ProcessStats::read() {
        families.add(&family::CPU, &[], process.cpu.as_secs_f64());
        families.add(&family::MEMORY, &[], number(process.resident_bytes));
    }
    if let Some(time) = last_scrape {
        families.add(&family::SCRAPE, &[], time.as_secs_f64());
    }
    let Some(kernel) = kernel else { return families.all() };
    for (source, count) in &kernel.events {
        families.add(&family::EVENTS, &[source], number(*count));
    }
    for (source, reason, count) in &kernel.lost {
        families.add(&family::EVENTS_LOST, &[source, reason], number(*count));
    }
    for map in &kernel.maps {
        for (family, value) in [
            (&family::MAP_ENTRIES, map.entries),
            (&family::MAP_CAPACITY, map.capacity),
            (&family::MAP_INSERT_FAILURES, map.insert_failures),
        ] {
            if let Some(value) = value {
                families.add(family, &[&map.name], number(value));
            }
        }
    }
    for probe in &kernel.probes {
        families.add(&family::PROBE_ATTACHED, &[&probe.name, &probe.mechanism], flag(probe.attached));
        if let Some(runs) = probe.runs {
            families.add(&family::PROBE_RUNS, &[&probe.name], number(runs));
        }
        if let Some(time) = probe.run_time {
            families.add(&family::PROBE_RUN_TIME, &[&probe.name], time.as_secs_f64());
        }
    }
    if let Some(ratio) = kernel.ring_used_ratio {
        families.add(&family::RING_USED, &[], ratio);
    }
    for (family, count) in [
        (&family::RING_WAKEUPS, kernel.ring_wakeups),
        (&family::LEFT_ALONE, kernel.left_alone),
        (&family::IGNORED_CALLS, kernel.ignored_calls),
        (&family::UNSTAMPED, kernel.unstamped),
    ] {
        if let Some(count) = count {
            families.add(family, &[], number(count));
        }
    }
    kernel.governor.collect(&mut families);
    if let Some(available) = kernel.arrival_time_available {
        families.add(&family::ARRIVAL_TIME, &[], flag(available));
    }
    families.all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_is_off_is_not_governed_and_one_that_is_shed_costs_nothing_known() {
        let mut stats = GovernorStats {
            budget: Some(0.02),
            shed: [Some(true), None, Some(false), None],
            costs: [None, None, Some(0.004), None],
            ..GovernorStats::default()
        };
        for action in [Action::Shed(Optional::Io), Action::Restore(Optional::Io), Action::Shed(Optional::Io)] {
            stats.decided(action);
        }
        let mut families = Families::default();
        stats.collect(&mut families);
        let mut lines: Vec<_> = families
            .all()
            .iter()
            .flat_map(|family| {
                let line = |metric: &prometheus::proto::Metric| {
                    let labels: Vec<_> = metric.get_label().iter().map(|label| label.value().to_owned()).collect();
                    let value = metric.get_gauge().get_value() + metric.get_counter().get_value();
                    format!("{} {} {value}", family.name(), labels.join(","))
                };
                family.get_metric().iter().map(line).collect::<Vec<_>>()
            })
            .collect();
        lines.sort();
        let told = [
            "observer_governor_budget_ratio  0.02",
            "observer_governor_cost_ratio scheduler 0.004",
            "observer_governor_decisions_total restore,io 1",
            "observer_governor_decisions_total restore,scheduler 0",
            "observer_governor_decisions_total shed,io 2",
            "observer_governor_decisions_total shed,scheduler 0",
            "observer_signal_shed io 1",
            "observer_signal_shed scheduler 0",
        ];
        assert_eq!(lines, told);
    }
}
