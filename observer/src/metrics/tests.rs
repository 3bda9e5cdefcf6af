use std::collections::{BTreeSet, HashSet};

use super::{
    fixture::{at, connection, request},
    *,
};
use crate::{
    config::ObjectiveKind,
    event::{Content, Direction, OpaqueReason},
    export::openmetrics::{Format, encode},
    request::record::{IncompleteReason, Outcome, RequestRecord, Role},
};

/// Metrics with a clock that tests move.
struct Bench {
    metrics: Arc<Metrics>,
    recorder: RequestRecorder,
    seconds: Arc<AtomicU64>,
}

fn bench(config: &MetricsConfig, objectives: &[Objective]) -> Bench {
    let seconds = Arc::new(AtomicU64::new(1000));
    let clock = Arc::clone(&seconds);
    let metrics = Metrics::with_clock(config, objectives, Box::new(move || Duration::from_secs(clock.load(Relaxed))));
    let recorder = metrics.recorder();
    Bench { metrics, recorder, seconds }
}

impl Bench {
    /// Samples as `name{labels} value` lines, without those of families named `observer_*`.
    fn lines(&self) -> Vec<String> {
        encode(&self.metrics.gather(), Format::Text)
            .lines()
            .filter(|line| !line.starts_with('#') && !line.starts_with("observer_"))
            .map(str::to_owned)
            .collect()
    }

    fn text(&self) -> String {
        encode(&self.metrics.gather(), Format::Text)
    }

    /// Names of histograms with their own label, and the number and sum of their samples.
    fn histograms(&self) -> Vec<(String, u64, f64)> {
        let mut all = Vec::new();
        for family in families::all() {
            self.metrics.histograms(family, |labels, histogram| {
                let own = labels.get(families::COMMON.len()).map_or(String::new(), |own| format!(":{own}"));
                let name = family.name.trim_start_matches("gen_ai_server_").trim_start_matches("llm_");
                all.push((format!("{name}{own}"), histogram.count(), histogram.sum));
            });
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

fn after(record: &RequestRecord) -> Vec<(String, u64, f64)> {
    let mut bench = bench(&MetricsConfig::default(), &[]);
    bench.recorder.record(record);
    bench.histograms()
}

fn names(record: &RequestRecord) -> String {
    after(record).into_iter().map(|(name, ..)| name).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_streamed_request_enters_every_histogram_once() {
    let expected = [
        ("completion_tokens", 1, 21.0),
        ("inter_chunk_latency_seconds", 9, 1.0),
        ("prompt_tokens", 1, 50.0),
        ("request_duration_seconds:", 1, 1.101),
        ("request_phase_seconds:decode", 1, 1.0),
        ("request_phase_seconds:finish", 1, 0.001),
        ("request_phase_seconds:queue_and_prefill", 1, 0.095),
        ("request_phase_seconds:receive", 1, 0.003),
        ("request_phase_seconds:socket_wait", 1, 0.002),
        ("time_per_output_token_seconds", 1, 0.05),
        ("time_to_first_byte_seconds", 1, 0.01),
        ("time_to_first_content_seconds", 1, 0.3),
        ("time_to_first_token_seconds", 1, 0.1),
    ];
    let found = after(&request());
    let found: Vec<_> = found.iter().map(|(name, count, sum)| (name.as_str(), *count, *sum)).collect();
    assert_eq!(found, expected);
}

#[test]
fn outcomes_decide_which_histograms_a_request_enters() {
    let tokens = "completion_tokens";
    let common = "inter_chunk_latency_seconds prompt_tokens";
    let phases = "request_phase_seconds:decode request_phase_seconds:finish request_phase_seconds:queue_and_prefill \
                  request_phase_seconds:receive request_phase_seconds:socket_wait";
    let latencies = "time_per_output_token_seconds time_to_first_byte_seconds time_to_first_content_seconds \
                     time_to_first_token_seconds";
    let all = |error: &str| format!("{tokens} {common} request_duration_seconds:{error} {phases} {latencies}");
    let failed =
        |error: &str| format!("{tokens} {common} request_duration_seconds:{error} {phases} time_to_first_byte_seconds");
    let cases: [(Outcome, u16, String); 6] = [
        (Outcome::Ok, 200, all("")),
        (Outcome::Cancelled, 200, all("cancelled")),
        (Outcome::HttpError, 503, failed("503")),
        (Outcome::ErrorInStream, 200, failed("error_in_stream")),
        (Outcome::Truncated, 200, failed("truncated")),
        (Outcome::Incomplete, 200, format!("{tokens} prompt_tokens")),
    ];
    for (outcome, status, expected) in cases {
        let record = RequestRecord { outcome, status: Some(status), ..request() };
        assert_eq!(names(&record), expected, "{outcome:?}");
    }
}

#[test]
fn what_was_not_reached_has_no_sample() {
    // Cancelled before the first token.
    let mut record =
        RequestRecord { outcome: Outcome::Cancelled, gaps: <_>::default(), usage: <_>::default(), ..request() };
    record.timeline.first = None;
    record.timeline.first_content = None;
    record.timeline.last = None;
    let expected = "request_duration_seconds:cancelled request_phase_seconds:receive request_phase_seconds:socket_wait \
                    time_to_first_byte_seconds";
    assert_eq!(names(&record), expected);

    // Not streamed: there is no token event, and usage alone makes no time per token.
    let record = RequestRecord { stream: Some(false), outcome: Outcome::Ok, ..record };
    assert_eq!(names(&record), expected.replace(":cancelled", ":"));

    // Answered before it was read whole.
    let mut record = RequestRecord { outcome: Outcome::HttpError, status: Some(413), ..record };
    record.timeline.ready = None;
    assert_eq!(names(&record), "request_duration_seconds:413 time_to_first_byte_seconds");

    // No response, no end: nothing at all.
    let mut record = RequestRecord { outcome: Outcome::Truncated, ..record };
    record.timeline.header = None;
    record.timeline.end = None;
    assert_eq!(names(&record), "");

    // One output token has no time per output token; without usage there is none, either.
    for output in [Some(1), Some(0), None] {
        let mut record = request();
        record.usage.output = output;
        assert!(!names(&record).contains("time_per_output_token"), "{output:?}");
    }

    // Times that run backwards are nobody's latency.
    let mut record = request();
    record.timeline.first = at(4);
    let found = names(&record);
    assert!(!found.contains("queue_and_prefill") && found.contains("decode"), "{found}");
}

#[test]
fn t0_is_the_read_where_arrival_is_unknown() {
    let mut record = request();
    record.timeline.arrive = None;
    record.timeline.arrival_unknown = true;
    let found = after(&record);
    let get = |name: &str| found.iter().find(|entry| entry.0 == name).map(|entry| entry.2);
    assert_eq!(get("time_to_first_token_seconds"), Some(0.098));
    assert_eq!(get("request_phase_seconds:socket_wait"), None);
    assert_eq!(get("request_phase_seconds:receive"), Some(0.003));
}

#[test]
fn time_before_its_turn_is_head_of_line_and_nothing_else() {
    // Pipelined: read with the previous request, which ended at 40 ms.
    let mut record = request();
    record.timeline.head_of_line_until = at(40);
    let found = after(&record);
    let get = |name: &str| found.iter().find(|entry| entry.0 == format!("request_phase_seconds:{name}")).unwrap().2;
    assert_eq!(get("head_of_line"), 0.04);
    assert_eq!((get("socket_wait"), get("receive")), (0.0, 0.0));
    assert_eq!(get("queue_and_prefill"), 0.06);
    // All phases together are the duration.
    let sum: f64 = found.iter().filter(|entry| entry.0.contains("phase")).map(|entry| entry.2).sum();
    assert!((sum - 1.101).abs() < 1e-9, "{sum}");

    // Queued while the previous response was written, read after it.
    record.timeline.head_of_line_until = at(1);
    let found = after(&record);
    let get = |name: &str| found.iter().find(|entry| entry.0 == format!("request_phase_seconds:{name}")).unwrap().2;
    assert_eq!((get("head_of_line"), get("socket_wait"), get("receive")), (0.001, 0.001, 0.003));
}

#[test]
fn counters_of_a_request() {
    let mut bench = bench(&MetricsConfig::default(), &[]);
    let record = RequestRecord {
        outcome: Outcome::Cancelled,
        cancelled_work: Some(Duration::from_millis(2500)),
        write_blocked: Duration::from_millis(30),
        unsent_stamps: 3,
        finish_reasons: vec!["stop".into(), "length".into(), "stop".into()],
        ..request()
    };
    bench.recorder.record(&record);
    bench.recorder.record(&record);
    let text = bench.text();
    let common = r#"workload="vllm:8000",server_port="8000",gen_ai_operation_name="chat",gen_ai_request_model="m""#;
    for line in [
        format!(r#"llm_requests_total{{{common},outcome="cancelled",http_response_status_code="200"}} 2"#),
        format!(r#"llm_tokens_total{{{common},gen_ai_token_type="input"}} 100"#),
        format!(r#"llm_tokens_total{{{common},gen_ai_token_type="output"}} 42"#),
        format!(r#"llm_tokens_total{{{common},gen_ai_token_type="cached_input"}} 32"#),
        format!(r#"llm_tokens_total{{{common},gen_ai_token_type="reasoning_output"}} 10"#),
        format!(r#"llm_finish_reasons_total{{{common},finish_reason="stop"}} 4"#),
        format!(r#"llm_finish_reasons_total{{{common},finish_reason="length"}} 2"#),
        format!("llm_cancelled_work_seconds_total{{{common}}} 5"),
        format!("llm_write_blocked_seconds_total{{{common}}} 0.06"),
        format!("llm_output_chunks_total{{{common}}} 22"),
        format!("llm_coalesced_chunks_total{{{common}}} 2"),
        "observer_unsent_at_stamp_total 6".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("gen_ai_response_model="), "it equals the request's");
}

#[test]
fn hops_are_told_apart() {
    let mut bench = bench(&MetricsConfig::default(), &[]);
    for (role, count) in [(Role::Server, 1), (Role::Proxy, 2), (Role::Backend, 3)] {
        (0..count).for_each(|_| bench.recorder.record(&RequestRecord { role, ..request() }));
    }
    let lines = bench.lines();
    let counted = |part: &str| {
        let mut found = lines.iter().filter(|line| line.starts_with("llm_requests_total{") && line.contains(part));
        let value = found.next().and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        (value, found.count())
    };
    assert_eq!(counted(r#",role="proxy","#), (Some(2), 0));
    assert_eq!(counted(r#",role="backend","#), (Some(3), 0));
    assert_eq!(counted(r#"gen_ai_request_model="m",outcome"#), (Some(1), 0), "no such label: {lines:#?}");
    // All families of requests have it, histograms among them.
    let of_backends = |line: &&String| line.contains(r#"role="backend""#);
    let names: BTreeSet<_> = lines.iter().filter(of_backends).map(|line| line.split('{').next()).collect();
    assert!(names.len() > 20, "{names:?}");
}

#[test]
fn unknown_counts_have_no_series() {
    let mut bench = bench(&MetricsConfig::default(), &[]);
    bench.recorder.record(&RequestRecord {
        usage: <_>::default(),
        token_events: None,
        finish_reasons: Vec::new(),
        status: None,
        outcome: Outcome::Cancelled,
        ..request()
    });
    let lines = bench.lines().join("\n");
    for name in ["llm_tokens_total", "llm_output_chunks_total", "finish_reason", "llm_cancelled_work", "status_code"] {
        assert!(!lines.contains(name), "{name} is in\n{lines}");
    }
}

#[test]
fn incomplete_requests_are_counted_by_reason() {
    let mut bench = bench(&MetricsConfig::default(), &[]);
    for reason in IncompleteReason::ALL {
        let outcome = Outcome::Incomplete;
        bench.recorder.record(&RequestRecord { outcome, incomplete: Some(reason), ..request() });
    }
    let text = bench.text();
    for reason in IncompleteReason::ALL {
        assert_eq!(bench.metrics.own().incomplete(reason).get(), 1, "order of IncompleteReason::ALL");
        assert!(text.contains(&format!("observer_incomplete_requests_total{{reason=\"{}\"}} 1\n", reason.as_str())));
    }
    assert!(text.contains(r#"outcome="incomplete",http_response_status_code="200"} 5"#), "{text}");
}

#[test]
fn own_counters_are_there_from_the_start_and_named_right() {
    let bench = bench(&MetricsConfig::default(), &[]);
    let own = bench.metrics.own();
    for (index, reason) in OpaqueReason::ALL.into_iter().enumerate() {
        own.opaque(reason).add(index as u64);
    }
    for (index, content) in Content::ALL.into_iter().enumerate() {
        own.traffic(content, Direction::Send).add(index as u64);
    }
    own.unparsed_bytes(Direction::Send).set_total(9);
    own.connections.set(4);
    let text = bench.text();
    for line in [
        r#"observer_opaque_connections_total{reason="tls"} 0"#,
        r#"observer_opaque_connections_total{reason="compressed"} 5"#,
        r#"observer_traffic_bytes_total{content="plain",direction="send"} 0"#,
        r#"observer_traffic_bytes_total{content="compressed",direction="send"} 8"#,
        r#"observer_traffic_bytes_total{content="undecided",direction="send"} 10"#,
        r#"observer_unparsed_bytes_total{direction="send"} 9"#,
        r#"observer_unparsed_bytes_total{direction="receive"} 0"#,
        "observer_connections 4",
        "observer_joined_mid_request_total 0",
        r#"observer_request_log_dropped_total{reason="queue_full"} 0"#,
        r#"observer_series_dropped_total{label="gen_ai_request_model"} 0"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("observer_resident_memory_bytes ") && text.contains("observer_cpu_seconds_total "));
    for absent in ["observer_gpu_join_available", "observer_ring_used_ratio", "llm_requests_in_flight"] {
        assert!(!text.contains(absent), "{absent} is not known yet");
    }
}

#[test]
fn the_kernel_side_is_asked_at_the_scrape() {
    let bench = bench(&MetricsConfig::default(), &[]);
    bench.metrics.set_kernel_stats(|| KernelStats {
        events: vec![("data".into(), 10), ("open".into(), 2)],
        lost: vec![("data".into(), "ring_full".into(), 1)],
        bytes: vec![(Content::Tls, Direction::Send, 70), (Content::NotHttp, Direction::Receive, 8)],
        maps: vec![MapStats { name: "ports".into(), entries: Some(3), capacity: Some(64), insert_failures: None }],
        probes: vec![ProbeStats {
            name: "send".into(),
            mechanism: "btf_tracepoint".into(),
            attached: true,
            runs: Some(12),
            run_time: Some(Duration::from_micros(3)),
        }],
        ring_wakeups: Some(2),
        left_alone: Some(3),
        ignored_calls: Some(4),
        unstamped: Some(5),
        ring_used_ratio: Some(0.25),
        arrival_time_available: Some(true),
        ..KernelStats::default()
    });
    let text = bench.text();
    for line in [
        r#"observer_events_total{source="data"} 10"#,
        r#"observer_events_lost_total{source="data",reason="ring_full"} 1"#,
        r#"observer_map_entries{map="ports"} 3"#,
        r#"observer_map_capacity{map="ports"} 64"#,
        r#"observer_probe_attached{probe="send",mechanism="btf_tracepoint"} 1"#,
        r#"observer_probe_runs_total{probe="send"} 12"#,
        r#"observer_probe_run_seconds_total{probe="send"} 0.000003"#,
        "observer_ring_used_ratio 0.25",
        "observer_arrival_time_available 1",
        r#"observer_traffic_bytes_total{content="tls",direction="send"} 70"#,
        r#"observer_traffic_bytes_total{content="tls",direction="receive"} 0"#,
        r#"observer_traffic_bytes_total{content="not_http",direction="receive"} 8"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("observer_map_insert_failures_total"));
    assert!(!text.contains("observer_signal_shed") && !text.contains("observer_governor"), "there is none");
}

#[test]
fn in_flight_is_what_the_live_view_says_and_zero_on_idle_ports() {
    let mut bench = bench(&MetricsConfig::default(), &[]);
    bench.recorder.record(&request());
    bench.metrics.set_live_view(|| {
        let entry = |workload: &str, requests| InFlight {
            workload: workload.into(),
            identity: None,
            server_port: "9".into(),
            requests,
        };
        vec![entry("a", 2), entry("a", 1), entry("idle", 0)]
    });
    let lines: Vec<_> = bench.lines().into_iter().filter(|line| line.contains("in_flight")).collect();
    let expected = [
        r#"llm_requests_in_flight{workload="a",server_port="9"} 3"#,
        r#"llm_requests_in_flight{workload="idle",server_port="9"} 0"#,
        r#"llm_requests_in_flight{workload="vllm:8000",server_port="8000"} 0"#,
    ];
    assert_eq!(lines, expected);
}

#[test]
fn names_beyond_the_cap_become_other_and_are_counted() {
    let mut bench = bench(&MetricsConfig { max_models: 2, ..MetricsConfig::default() }, &[]);
    for model in ["a", "b", "c", "d", "a"] {
        let name = Some(Arc::from(model));
        bench.recorder.record(&RequestRecord { request_model: name, response_model: None, ..request() });
    }
    let mut found = Vec::new();
    bench.metrics.counters(&families::requests::REQUESTS, |labels, count| found.push((labels[3].to_string(), count)));
    found.sort();
    assert_eq!(found, [("_other".to_owned(), 2), ("a".to_owned(), 2), ("b".to_owned(), 1)]);
    let text = bench.text();
    assert!(text.contains("observer_series_dropped_total{label=\"gen_ai_request_model\"} 2\n"), "{text}");
    assert!(text.contains("observer_series_dropped_total{label=\"gen_ai_response_model\"} 0\n"), "{text}");

    let long = Some(Arc::from("x".repeat(1000)));
    bench.recorder.record(&RequestRecord { request_model: None, response_model: long, ..request() });
    bench.recorder.record(&RequestRecord { status: Some(999), outcome: Outcome::HttpError, ..request() });
    let text = bench.text();
    assert!(text.contains(r#"gen_ai_response_model="_other""#) && text.contains(r#"status_code="_other""#), "{text}");
    assert!(text.contains(r#"error_type="_other""#));
}

#[test]
fn series_go_with_their_workload_and_return_from_zero() {
    let mut bench = bench(&MetricsConfig { max_models: 1, ..MetricsConfig::default() }, &[]);
    let other =
        RequestRecord { connection: connection("other:1", 1), request_model: None, response_model: None, ..request() };
    for _ in 0..3 {
        bench.recorder.record(&request());
    }
    bench.seconds.store(1000 + 300, Relaxed);
    bench.recorder.record(&other);
    bench.seconds.store(1000 + 600, Relaxed);
    assert!(bench.text().contains("vllm:8000"), "ten minutes are not over");
    bench.seconds.store(1000 + 601, Relaxed);
    let text = bench.text();
    assert!(!text.contains("vllm:8000") && text.contains("other:1"), "{text}");

    // The recorder still knows the old series; what it adds now must not vanish with them. The model has its
    // place again.
    bench.recorder.record(&RequestRecord { request_model: Some("n".into()), response_model: None, ..request() });
    bench.recorder.record(&other);
    let text = bench.text();
    assert!(text.contains(r#"gen_ai_request_model="n",outcome="ok",http_response_status_code="200"} 1"#), "{text}");
    assert!(text.contains(r#"workload="other:1",server_port="1",gen_ai_operation_name="chat",outcome="ok",http_response_status_code="200"} 2"#), "{text}");
}

#[test]
fn what_is_in_flight_keeps_its_workload() {
    let mut bench = bench(&MetricsConfig::default(), &[]);
    bench.recorder.record(&request());
    bench.metrics.set_live_view(|| {
        vec![InFlight { workload: "vllm:8000".into(), identity: None, server_port: "8000".into(), requests: 1 }]
    });
    for minute in 0..30 {
        bench.seconds.store(1000 + minute * 60, Relaxed);
        assert!(bench.text().contains("outcome=\"ok\""), "minute {minute}");
    }
}

#[test]
fn a_sweep_and_a_recorder_at_once_lose_nothing() {
    // What was just recorded is there: on top of what was, or alone, after the old series vanished whole.
    let mut bench = bench(&MetricsConfig { series_ttl: Duration::from_secs(10), ..MetricsConfig::default() }, &[]);
    let done = std::sync::atomic::AtomicBool::new(false);
    let (metrics, seconds) = (Arc::clone(&bench.metrics), Arc::clone(&bench.seconds));
    let wrong = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                metrics.sweep();
            }
        });
        let (mut before, mut vanished) = (0, 0);
        let wrong = (0..2000).find(|_| {
            seconds.fetch_add(11, Relaxed);
            bench.recorder.record(&request());
            let mut count = 0;
            metrics.counters(&families::requests::REQUESTS, |_, value| count += value);
            vanished += u64::from(count == 1);
            let right = count == before + 1 || count == 1;
            before = count;
            !right
        });
        done.store(true, Relaxed);
        (wrong, vanished > 0)
    });
    assert_eq!(wrong, (None, true));
}

#[test]
fn objectives_judge_what_reached_them() {
    let objective = |name: &str, kind, seconds| Objective { name: name.to_owned(), kind, seconds };
    let objectives = [
        objective("first", ObjectiveKind::Ttft, 0.1),
        objective("token", ObjectiveKind::Tpot, 0.04),
        objective("whole", ObjectiveKind::Duration, 1.0),
    ];
    let mut bench = bench(&MetricsConfig::default(), &objectives);
    bench.recorder.record(&request());
    bench.recorder.record(&RequestRecord { outcome: Outcome::Cancelled, ..request() });
    bench.recorder.record(&RequestRecord { outcome: Outcome::HttpError, status: Some(500), ..request() });
    bench.recorder.record(&RequestRecord { outcome: Outcome::Incomplete, ..request() });
    let mut found = Vec::new();
    bench.metrics.counters(&families::requests::SLO, |labels, count| {
        let [slo, result] = &labels[families::COMMON.len()..] else { panic!("{labels:?}") };
        found.push(format!("{slo} {result} {count}"));
    });
    found.sort();
    assert_eq!(found, ["first good 2", "token bad 2", "whole bad 1"]);
}

#[test]
fn gaps_in_other_buckets_are_refused() {
    let mut bench = bench(&MetricsConfig::default(), &[]);
    let mut record = request();
    record.gaps.buckets = Box::new([1, 2]);
    bench.recorder.record(&record);
    assert_eq!(bench.histograms().iter().find(|entry| entry.0.starts_with("inter_chunk")).unwrap().1, 0);
}

mod labels;
mod table;
