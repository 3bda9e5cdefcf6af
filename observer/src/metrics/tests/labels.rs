//! Labels from request headers, and exemplars.

use super::*;
use crate::{config::HeaderLabel, request::record::HeaderLabel as Labelled};

/// The request of a tenant, of a team.
fn of(tenant: Option<&str>, team: &str) -> RequestRecord {
    let label = |name: &str, value: Option<&str>| Labelled { name: name.into(), value: value.map(Arc::from) };
    RequestRecord { labels: Box::new([label("tenant", tenant), label("x_team", Some(team))]), ..request() }
}

fn with_headers() -> Bench {
    let tenant = HeaderLabel { label: "tenant".to_owned(), max_values: 2, ..HeaderLabel::of("x-tenant") };
    let header_labels = vec![tenant, HeaderLabel::of("X-Team")];
    bench(&MetricsConfig { header_labels, ..MetricsConfig::default() }, &[])
}

#[test]
fn headers_become_labels_of_all_families_of_requests_and_of_no_other() {
    let mut bench = with_headers();
    bench.recorder.record(&RequestRecord {
        cancelled_work: Some(Duration::from_secs(1)),
        write_blocked: Duration::from_secs(1),
        ..of(Some("acme"), "blue")
    });
    let families = bench.metrics.gather();
    let mut seen = 0;
    for family in families::all() {
        let Some(found) = families.iter().find(|found| found.name() == family.name) else { continue };
        for metric in found.get_metric() {
            let labels: Vec<_> = metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
            if family.of_requests {
                seen += 1;
                assert_eq!(labels[labels.len() - 2..], [("tenant", "acme"), ("x_team", "blue")], "{}", family.name);
                assert_eq!(labels.len(), family.labels().count() + 2);
            } else {
                assert!(labels.iter().all(|(name, _)| *name != "tenant" && *name != "x_team"), "{}", family.name);
            }
        }
    }
    assert!(seen >= families::requests::ALL.len() - 1, "all but objectives, of which there are none: {seen}");
    let text = bench.text();
    let own_first = r#"outcome="ok",http_response_status_code="200",tenant="acme",x_team="blue"} 1"#;
    assert!(text.contains(own_first), "{text}");
}

#[test]
fn values_of_headers_have_a_cap_and_may_be_missing() {
    let mut bench = with_headers();
    for (tenant, team) in [("a", "x"), ("b", "x"), ("c", "x"), ("d", "x"), ("a", "y"), ("a", "x")] {
        bench.recorder.record(&of(Some(tenant), team));
    }
    bench.recorder.record(&of(None, "x"));
    // Its head could not be read.
    bench.recorder.record(&request());
    let mut found = Vec::new();
    bench.metrics.counters(&families::requests::REQUESTS, |labels, count| {
        let [.., tenant, team] = labels else { panic!("{labels:?}") };
        found.push(format!("{tenant} {team} {count}"));
    });
    found.sort();
    assert_eq!(found, ["  1", " x 1", "_other x 2", "a x 2", "a y 1", "b x 1"]);
    let text = bench.text();
    assert!(text.contains("observer_series_dropped_total{label=\"tenant\"} 2\n"), "{text}");
    assert!(text.contains("observer_series_dropped_total{label=\"x_team\"} 0\n"), "{text}");
    assert!(text.contains(r#"http_response_status_code="200",x_team="x"} 1"#), "absent is not empty: {text}");
}

#[test]
fn places_of_values_come_free_with_their_series() {
    let mut bench = with_headers();
    bench.recorder.record(&of(Some("a"), "x"));
    bench.recorder.record(&of(Some("b"), "x"));
    bench.seconds.store(1000 + 601, Relaxed);
    assert!(!bench.text().contains("tenant="));
    bench.recorder.record(&of(Some("c"), "x"));
    assert!(bench.text().contains("tenant=\"c\""));
}

#[test]
fn only_latencies_of_requests_with_ids_have_exemplars() {
    let mut bench = bench(&MetricsConfig::default(), &[]);
    bench.recorder.record(&request());
    assert_eq!(format!("{:?}", bench.metrics.exemplars()), "Exemplars({})", "nothing is kept without ids");
    bench.recorder.record(&RequestRecord { request_id: Some("r1".into()), ..request() });
    let exemplars = bench.metrics.exemplars();
    let mut found = Vec::new();
    for family in bench.metrics.gather() {
        for metric in family.get_metric() {
            let buckets = exemplars.of(family.name(), metric.get_label().iter().map(|pair| pair.value()));
            let named: Vec<_> = buckets.iter().flatten().collect();
            if let [exemplar] = named[..] {
                assert_eq!(exemplar.ids.labels().collect::<Vec<_>>(), [("request_id", "r1")]);
                let own = metric.get_label().get(families::COMMON.len()).map_or("", |label| label.value());
                found.push(format!("{} {own} {}", family.name(), exemplar.value));
            }
            assert!(named.len() <= 1);
        }
    }
    let expected = [
        "gen_ai_server_request_duration_seconds  1.101",
        "gen_ai_server_time_per_output_token_seconds  0.05",
        "gen_ai_server_time_to_first_token_seconds  0.1",
        "llm_request_phase_seconds decode 1",
        "llm_request_phase_seconds finish 0.001",
        "llm_request_phase_seconds queue_and_prefill 0.095",
        "llm_request_phase_seconds receive 0.003",
        "llm_request_phase_seconds socket_wait 0.002",
        "llm_time_to_first_byte_seconds  0.01",
        "llm_time_to_first_content_seconds  0.3",
    ];
    assert_eq!(found, expected);
    // What is in no histogram has no exemplar.
    bench.recorder.record(&RequestRecord { request_id: Some("r2".into()), outcome: Outcome::Incomplete, ..request() });
    assert!(!format!("{:?}", bench.metrics.exemplars()).contains("r2"));
}

#[test]
fn reasons_to_finish_have_a_cap() {
    let mut bench = bench(&MetricsConfig::default(), &[]);
    let reasons = || (0..40).map(|number| format!("reason {number}").into());
    bench.recorder.record(&RequestRecord { finish_reasons: reasons().collect(), ..request() });
    let mut found = BTreeSet::new();
    bench.metrics.counters(&families::requests::FINISH_REASONS, |labels, count| {
        let [.., reason] = labels else { panic!("{labels:?}") };
        found.insert((reason.to_string(), count));
    });
    let mut expected: BTreeSet<_> = (0..32).map(|number| (format!("reason {number}"), 1)).collect();
    expected.insert(("_other".to_owned(), 8));
    assert_eq!(found, expected);
    assert!(bench.text().contains("observer_series_dropped_total{label=\"finish_reason\"} 8\n"));
}
