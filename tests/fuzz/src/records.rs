//! What holds for every record, whatever the events were.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use observer::{
    config::MetricsConfig,
    event::{Cookie, Direction, OpaqueReason},
    metrics::{
        Metrics, RequestRecorder,
        families::{self, BucketSet, Family, Type, requests as family},
    },
    request::{
        record::{ConnectionInfo, Outcome, RequestRecord},
        tracker::{Sink, TrackerConfig},
    },
    time::KernelTime,
};

use super::memory::live;

/// A tracker's settings: as few connections as make it give some up, times of token events kept.
pub fn config(max_connections: usize) -> TrackerConfig {
    TrackerConfig {
        gap_bounds: MetricsConfig::default().buckets.gap.into(),
        chunk_times: true,
        max_connections,
        ..TrackerConfig::default()
    }
}

/// Takes what a tracker says, and checks each record as it comes.
#[derive(Default)]
pub struct Records {
    /// All so far.
    pub all: Vec<RequestRecord>,
    /// Requests of other kinds.
    pub others: u64,
    /// Bytes that this holds.
    pub held: isize,
    opaque: HashSet<(Cookie, OpaqueReason)>,
}

impl Sink for Records {
    fn request(&mut self, record: RequestRecord) {
        let before = live();
        sound(&record);
        self.all.push(record.clone());
        self.held += live() - before;
    }

    fn other_request(&mut self, _: &ConnectionInfo) {
        self.others += 1;
    }

    fn opaque(&mut self, connection: &ConnectionInfo, reason: OpaqueReason) {
        let before = live();
        self.opaque.insert((connection.cookie, reason));
        self.held += live() - before;
    }

    fn joined_mid_request(&mut self, _: &ConnectionInfo) {}

    fn gap(&mut self, _: Direction, bytes: u64) {
        assert!(bytes > 0);
    }

    fn uncaptured(&mut self, _: Direction, bytes: u64) {
        assert!(bytes > 0);
    }

    fn unparsed(&mut self, _: Direction, bytes: u64) {
        assert!(bytes > 0);
    }
}

/// A record is incomplete for a reason, or its points are in the order of their definitions and what is counted of
/// its stream agrees.
pub fn sound(record: &RequestRecord) {
    assert_eq!(record.outcome == Outcome::Incomplete, record.incomplete.is_some(), "{record:#?}");
    assert!(record.finish_reasons.len() <= 16);
    assert!(record.cancelled_work.is_none() || record.outcome == Outcome::Cancelled);
    assert!(record.chunk_unsent.iter().all(|index| (*index as usize) < record.chunk_times.len()));
    if record.outcome == Outcome::Incomplete {
        return;
    }
    let line = &record.timeline;
    assert!(line.read.is_some() && line.end.is_some(), "{record:#?}");
    assert_eq!(line.arrival_unknown, line.arrive.is_none());
    let sorted = |points: &[Option<KernelTime>]| points.iter().flatten().is_sorted();
    assert!(sorted(&[line.arrive, line.read, line.ready, line.header, line.first, line.last, line.end]), "{record:#?}");
    assert!(sorted(&[line.first, line.first_content, line.last]), "{record:#?}");
    assert_eq!(line.first.is_some(), line.last.is_some(), "{record:#?}");
    // A client that left takes back what was measured after that.
    assert!(record.status.is_some() || line.header.is_none(), "{record:#?}");
    if let Some(turn) = line.head_of_line_until {
        assert!(line.start() < Some(turn) && Some(turn) <= line.header.or(line.end), "{record:#?}");
    }
    assert_eq!(record.gaps.buckets.iter().map(|count| u64::from(*count)).sum::<u64>(), record.gaps.count);
    assert!(record.gaps.max <= record.gaps.sum);
    // One who left may have left before the last of them.
    if record.outcome != Outcome::Cancelled {
        let time = line.first.zip(line.last).map(|(first, last)| last.saturating_since(first));
        assert_eq!(record.gaps.sum, time.unwrap_or_default(), "{record:#?}");
    } else if line.first.is_none() {
        assert_eq!(record.gaps.count, 0, "{record:#?}");
    }
    if let Some(events) = record.token_events {
        assert_eq!(record.chunk_times.len() as u64, events);
        assert!(record.chunk_times.is_sorted());
        let between = record.gaps.count + record.coalesced;
        assert!(between <= events.saturating_sub(1), "{record:#?}");
        if record.outcome != Outcome::Cancelled {
            assert_eq!(between, events.saturating_sub(1), "{record:#?}");
            assert_eq!(events > 0, line.first.is_some(), "{record:#?}");
        }
    } else {
        // Some were hidden, and when those that were not came is known all the same.
        assert!(record.coalesced == 0 && record.chunk_times.is_empty(), "{record:#?}");
    }
}

thread_local! {
    /// Made once, because that takes longer than most inputs.
    static METRICS: RefCell<(Arc<Metrics>, RequestRecorder)> = {
        let few = MetricsConfig { max_models: 2, ..MetricsConfig::default() };
        let metrics = Metrics::new(&few, &[]);
        let recorder = metrics.recorder();
        RefCell::new((metrics, recorder))
    };
}

/// What the metrics make of `records`: an incomplete one enters no histogram of times; each other one enters that of
/// durations, and those of its points, once.
pub fn measured(records: &[RequestRecord]) {
    if records.is_empty() {
        return;
    }
    METRICS.with_borrow_mut(|(metrics, recorder)| {
        let (incomplete, complete): (Vec<_>, Vec<_>) =
            records.iter().partition(|record| record.outcome == Outcome::Incomplete);
        let before = samples(metrics);
        incomplete.iter().for_each(|record| recorder.record(record));
        assert_eq!(samples(metrics), before, "a time of an incomplete request");
        complete.iter().for_each(|record| recorder.record(record));
        let after = samples(metrics);
        let added = |family: &Family| after[family.name] - before.get(family.name).unwrap_or(&0);
        let count = |has: fn(&RequestRecord) -> bool| complete.iter().filter(|record| has(record)).count() as u64;
        assert_eq!(added(&family::DURATION), complete.len() as u64);
        assert_eq!(added(&family::TTFB), count(|record| record.timeline.header.is_some()));
        assert_eq!(added(&family::GAP), complete.iter().map(|record| record.gaps.count).sum::<u64>());
        assert!(added(&family::TTFT) <= count(|record| record.timeline.first.is_some()));
        assert!(added(&family::FIRST_CONTENT) <= count(|record| record.timeline.first_content.is_some()));
        assert!(added(&family::TPOT) <= added(&family::TTFT));
    });
}

/// Samples of each family of times.
fn samples(metrics: &Metrics) -> HashMap<&'static str, u64> {
    let timed = |family: &&Family| matches!(family.kind, Type::Histogram(set) if set != BucketSet::Tokens);
    families::requests::ALL
        .iter()
        .copied()
        .filter(timed)
        .map(|family| {
            let mut sum = 0;
            metrics.histograms(family, |_, histogram| sum += histogram.count());
            (family.name, sum)
        })
        .collect()
}
