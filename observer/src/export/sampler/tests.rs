use super::*;
use crate::{
    metrics::{
        InFlight, KernelStats, RequestRecorder,
        fixture::{connection, gaps, request},
    },
    request::record::{Outcome, RequestRecord},
};

fn close(found: Option<f64>, expected: f64) -> bool {
    found.is_some_and(|found| (found - expected).abs() < 1e-9)
}

#[test]
fn quantiles_are_those_of_histogram_quantile() {
    let bounds = [0.1, 0.5, 1.0];
    assert_eq!(quantile(0.5, &bounds, &[0, 0, 0, 0]), None);
    assert_eq!(quantile(0.5, &bounds, &[]), None);
    // In the first bucket: from zero.
    assert!(close(quantile(0.5, &bounds, &[10, 0, 0, 0]), 0.05));
    // Rank 5 of 10: 4 lie below 0.1, so a sixth of the way from 0.1 to 0.5.
    assert!(close(quantile(0.5, &bounds, &[4, 6, 0, 0]), 0.1 + 0.4 / 6.0));
    // At the edge of a bucket.
    assert!(close(quantile(0.5, &bounds, &[5, 0, 5, 0]), 0.1));
    // Above the last bound: that bound.
    assert!(close(quantile(0.99, &bounds, &[1, 0, 0, 99]), 1.0));
    assert!(close(quantile(0.95, &bounds, &[0, 0, 100, 0]), 0.975));
}

#[test]
fn growth_survives_a_reset() {
    assert_eq!(grown(&[3, 5], Some(&[1, 5])), [2, 0]);
    assert_eq!(grown(&[3, 5], None), [3, 5]);
    assert_eq!(grown(&[3, 0], Some(&[1, 5])), [3, 0], "it began again");
    assert_eq!((grown_one(5, 3), grown_one(2, 3)), (2, 2));
}

struct Bench {
    sampler: Sampler,
    recorder: RequestRecorder,
}

fn bench() -> Bench {
    let metrics = Metrics::new(&MetricsConfig::default(), &[]);
    let recorder = metrics.recorder();
    let sampler = Sampler::new(metrics, &MetricsConfig::default(), "ports 8000".to_owned());
    // Times below are given: forget the sample of the real clock.
    *sampler.history.lock().unwrap() = History::default();
    Bench { sampler, recorder }
}

impl Bench {
    fn sample(&self, seconds: u64) {
        self.sampler.keep(self.sampler.now(Duration::from_secs(seconds)));
    }
    fn summary(&self, seconds: u64) -> Summary {
        self.sampler.summary_of(&self.sampler.now(Duration::from_secs(seconds)))
    }
}

#[test]
fn rates_and_quantiles_are_of_the_window() {
    let mut bench = bench();
    bench.sample(0);
    // These are older than the window at the end, and slow.
    for _ in 0..50 {
        let mut record = request();
        record.timeline.first = record.timeline.last;
        bench.recorder.record(&record);
    }
    for at in (5..=60).step_by(5) {
        bench.sample(at);
    }
    for _ in 0..30 {
        bench.recorder.record(&request());
    }
    bench.recorder.record(&RequestRecord { outcome: Outcome::HttpError, status: Some(500), ..request() });
    for at in (65..=100).step_by(5) {
        bench.sample(at);
    }
    // The window begins at the sample at 40 s.
    let summary = bench.summary(102);
    assert_eq!(summary.window_seconds, 62.0);
    assert_eq!(summary.uptime_seconds, 102.0);
    let server = &summary.servers[0];
    assert_eq!(
        (server.workload.as_str(), server.server_port.as_str(), server.model.as_str()),
        ("vllm:8000", "8000", "m")
    );
    assert!((server.requests_per_second - 31.0 / 62.0).abs() < 1e-9);
    assert!((server.token_events_per_second - 31.0 * 11.0 / 62.0).abs() < 1e-9);
    assert!(close(server.output_tokens_per_second, 31.0 * 21.0 / 62.0));
    // 30 samples of 0.1 s, in the bucket from 0.08 to 0.1.
    assert_eq!(server.ttft.count, 30);
    assert!(close(server.ttft.p50, 0.09) && close(server.ttft.p95, 0.099), "{:?}", server.ttft);
    // 31 times 9 gaps in the bucket from 0.1 to 0.15.
    assert_eq!(server.inter_chunk.count, 31 * 9);
    assert!(close(server.inter_chunk.p50, 0.125), "{:?}", server.inter_chunk);
    assert_eq!(server.outcomes, BTreeMap::from([("ok".to_owned(), 80), ("http_error".to_owned(), 1)]));
}

#[test]
fn a_young_observer_has_a_short_window() {
    let mut bench = bench();
    let summary = bench.summary(0);
    assert_eq!((summary.window_seconds, summary.servers.len()), (0.0, 0));
    bench.sample(0);
    bench.recorder.record(&request());
    let summary = bench.summary(2);
    assert_eq!((summary.window_seconds, summary.servers[0].requests_per_second), (2.0, 0.5));
    assert_eq!(summary.observer.scope, "ports 8000");
}

#[test]
fn the_heatmap_has_a_column_for_each_interval_and_ten_minutes() {
    let mut bench = bench();
    bench.sample(0);
    for at in 1..=130_u64 {
        if at == 129 {
            bench.recorder.record(&request());
            bench.recorder.record(&RequestRecord { connection: connection("b", 9), ..request() });
        }
        bench.sample(at * 5);
    }
    let heatmap = bench.summary(651).ttft_heatmap;
    assert_eq!((heatmap.columns.len(), heatmap.column_seconds), (COLUMNS, 5.0));
    assert!(heatmap.columns.iter().all(|column| column.len() == heatmap.bounds.len() + 1));
    assert_eq!(heatmap.columns[COLUMNS - 2][8], 2);
    assert_eq!(heatmap.columns.iter().flatten().sum::<u64>(), 2);
    assert!(bench.sampler.history.lock().unwrap().samples.len() <= 14, "history is bounded");
}

#[test]
fn servers_are_busiest_first_and_in_flight_ones_are_there() {
    let mut bench = bench();
    bench.sampler.metrics.set_live_view(|| {
        let entry = |workload: &str, requests| InFlight {
            workload: workload.into(),
            identity: None,
            server_port: "9".into(),
            requests,
        };
        vec![entry("b", 3), entry("new", 1), entry("idle", 0)]
    });
    bench.sampler.metrics.set_kernel_stats(|| KernelStats {
        events: vec![("data".into(), 120)],
        lost: vec![
            ("data".into(), "ring_full".into(), 1),
            ("open".into(), "ring_full".into(), 2),
            ("x".into(), "y".into(), 0),
        ],
        ..KernelStats::default()
    });
    let before = bench.sampler.now(Duration::ZERO);
    bench.sampler.keep(Sample { events: 20, ..before });
    let without_usage = RequestRecord {
        connection: connection("a", 9),
        usage: <_>::default(),
        response_model: Some("other".into()),
        gaps: gaps(&[], Duration::ZERO),
        ..request()
    };
    bench.recorder.record(&without_usage);
    for _ in 0..2 {
        bench.recorder.record(&RequestRecord { connection: connection("b", 9), ..request() });
    }
    let summary = bench.summary(10);
    let found: Vec<_> = summary.servers.iter().map(|s| (s.workload.as_str(), s.model.as_str(), s.in_flight)).collect();
    assert_eq!(found, [("b", "m", 3), ("a", "other", 0), ("new", "", 1)]);
    assert_eq!(summary.servers[1].output_tokens_per_second, None);
    assert_eq!(summary.servers[1].inter_chunk.p50, None);
    assert_eq!((summary.observer.events, summary.observer.events_per_second), (120, 10.0));
    assert_eq!(summary.observer.lost, BTreeMap::from([("ring_full".to_owned(), 3)]));
}
