use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Command, Stdio},
};

use super::*;
use crate::{
    config::MetricsConfig,
    metrics::{InFlight, KernelStats, Metrics, ProbeStats, fixture::request},
    request::record::RequestRecord,
};

#[test]
fn bounds_are_printed_as_every_prometheus_has_them() {
    for (value, expected) in [
        (1.0, "1.0"),
        (0.5, "0.5"),
        (0.0005, "0.0005"),
        (0.000_05, "5e-05"),
        (2560.0, "2560.0"),
        (81.92, "81.92"),
        (262_144.0, "262144.0"),
        (1_048_576.0, "1.048576e+06"),
        (1e6, "1e+06"),
        (2.5e21, "2.5e+21"),
    ] {
        assert_eq!(float(value), expected);
    }
}

#[test]
fn negotiation() {
    let open = Format::OpenMetrics("1.0.0");
    let old = Format::OpenMetrics("0.0.1");
    for (accept, expected) in [
        (None, Format::Text),
        (Some(""), Format::Text),
        (Some("*/*"), Format::Text),
        (Some("text/plain"), Format::Text),
        (Some("text/html"), Format::Text),
        (Some("application/openmetrics-text"), open),
        (Some("Application/OpenMetrics-Text; Version=1.0.0"), Format::OpenMetrics("1.0.0")),
        (Some("application/openmetrics-text;version=2.0.0"), Format::Text),
        // Prometheus 2.42, then 3.x.
        (
            Some(
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            ),
            open,
        ),
        (
            Some(
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            ),
            open,
        ),
        (Some("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"), old),
        (Some("application/openmetrics-text;q=0.2, text/plain;q=0.9"), Format::Text),
        (Some("application/openmetrics-text;q=0, text/plain;q=0.1"), Format::Text),
        (Some("application/openmetrics-text;q=0"), Format::Text),
        (Some("application/openmetrics-text;q=broken, */*;q=0.1"), Format::Text),
        (Some("text/plain;version=0.0.4, application/openmetrics-text"), Format::Text),
        (Some("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8"), Format::Text),
    ] {
        // Names of parameters are case-insensitive, too, but no scraper makes use of it.
        let accept = accept.map(|accept: &str| accept.replace("Version", "version"));
        assert_eq!(Format::negotiate(accept.as_deref()), expected, "{accept:?}");
    }
}

/// Metrics with a sample in nearly every family, and names that need escaping.
fn full() -> std::sync::Arc<Metrics> {
    let metrics = Metrics::new(&MetricsConfig::default(), &[]);
    metrics.set_live_view(|| {
        vec![InFlight { workload: "vllm:8000".into(), identity: None, server_port: "8000".into(), requests: 2 }]
    });
    metrics.set_kernel_stats(|| KernelStats {
        events: vec![("data".into(), 10)],
        lost: vec![("data".into(), "ring_full".into(), 1)],
        probes: vec![ProbeStats {
            name: "send".into(),
            mechanism: "tp".into(),
            attached: true,
            ..ProbeStats::default()
        }],
        ring_used_ratio: Some(0.25),
        arrival_time_available: Some(true),
        ..KernelStats::default()
    });
    let mut recorder = metrics.recorder();
    recorder.record(&request());
    recorder.record(&RequestRecord {
        request_model: Some("evil\"} 1\nllm_requests_total{a=\"\\".into()),
        cancelled_work: Some(std::time::Duration::from_secs(1)),
        ..request()
    });
    metrics
}

/// A parser of what the encoder may write: name and labels of each sample, with its value.
fn parse(text: &str) -> BTreeMap<(String, BTreeMap<String, String>), f64> {
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let end = line.find(['{', ' ']).unwrap();
        let (name, mut rest) = line.split_at(end);
        let mut labels = BTreeMap::new();
        if rest.starts_with('{') {
            loop {
                let (label, after) = rest[1..].split_once("=\"").unwrap();
                let mut value = String::new();
                let mut characters = after.char_indices();
                let quote = loop {
                    match characters.next().unwrap() {
                        (index, '"') => break index,
                        (_, '\\') => value.push(match characters.next().unwrap().1 {
                            'n' => '\n',
                            other => other,
                        }),
                        (_, other) => value.push(other),
                    }
                };
                assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
                rest = &after[quote + 1..];
                if rest.starts_with('}') {
                    rest = &rest[1..];
                    break;
                }
                assert!(rest.starts_with(','), "{line}");
            }
        }
        let value = rest.strip_prefix(' ').unwrap().parse().unwrap();
        assert!(samples.insert((name.to_owned(), labels), value).is_none(), "twice: {line}");
    }
    samples
}

#[test]
fn what_is_written_can_be_read_back() {
    let metrics = full();
    let text = encode(&metrics.gather(), Format::Text);
    let samples = parse(&text);
    let families = metrics.gather();
    let mut found = 0;
    for family in &families {
        for metric in family.get_metric() {
            let mut labels: BTreeMap<_, _> = metric
                .get_label()
                .iter()
                .filter(|label| !label.value().is_empty())
                .map(|label| (label.name().to_owned(), label.value().to_owned()))
                .collect();
            if family.get_field_type() == MetricType::HISTOGRAM {
                let histogram = metric.get_histogram();
                #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                let count = histogram.get_sample_count() as f64;
                assert_eq!(samples[&(format!("{}_count", family.name()), labels.clone())], count);
                assert_eq!(samples[&(format!("{}_sum", family.name()), labels.clone())], histogram.get_sample_sum());
                labels.insert("le".to_owned(), "+Inf".to_owned());
                assert_eq!(samples[&(format!("{}_bucket", family.name()), labels)], count);
                found += 3 + histogram.get_bucket().len();
            } else {
                assert!(samples.contains_key(&(family.name().to_owned(), labels)), "{}", family.name());
                found += 1;
            }
        }
    }
    assert_eq!(found, samples.len());
    assert!(text.contains("le=\"1.0\"") && !text.contains("le=\"1\""));
}

#[test]
fn buckets_are_cumulative() {
    let text = encode(&full().gather(), Format::Text);
    let buckets: Vec<f64> = text
        .lines()
        .filter(|line| {
            line.starts_with("gen_ai_server_time_to_first_token_seconds_bucket") && line.contains("request_model=\"m\"")
        })
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    // 0.1 s lies in the ninth bucket, whose bound it equals.
    let expected: Vec<_> = (0..27).map(|index| if index < 8 { 0.0 } else { 1.0 }).collect();
    assert_eq!(buckets, expected);
}

#[test]
fn openmetrics_names_families_without_total_and_ends() {
    let text = encode(&full().gather(), Format::OpenMetrics("1.0.0"));
    assert!(text.ends_with("\n# EOF\n"));
    assert!(text.contains("# TYPE llm_requests counter\n") && text.contains("\nllm_requests_total{"));
    assert!(text.contains("# UNIT llm_write_blocked_seconds seconds\n"));
    let classic = encode(&full().gather(), Format::Text);
    assert!(classic.contains("# TYPE llm_requests_total counter\n"));
    assert!(!classic.contains("# EOF") && !classic.contains("# UNIT"));
    let strip = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(strip(&text), strip(&classic));
}

#[test]
fn exemplars_stand_behind_their_buckets_in_openmetrics_only() {
    let metrics = full();
    let mut recorder = metrics.recorder();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    recorder.record(&RequestRecord {
        trace_id: Some(trace.into()),
        request_id: Some("a \"b\" \\".into()),
        ..request()
    });
    let text = scrape(&metrics, Format::OpenMetrics("1.0.0"));
    let with: Vec<_> = text.lines().filter(|line| line.contains(" # ")).filter(|line| !line.starts_with('#')).collect();
    // Each latency once, of which there are ten.
    assert_eq!(with.len(), 10, "{with:#?}");
    for line in &with {
        assert!(line.contains("_seconds_bucket{") && line.contains("le=\""), "{line}");
    }
    let first = with.iter().find(|line| line.starts_with("gen_ai_server_time_to_first_token_seconds")).unwrap();
    let (sample, exemplar) = first.split_once(" # ").unwrap();
    assert!(sample.ends_with("le=\"0.1\"} 2"), "{first}");
    let labels = format!("{{trace_id=\"{trace}\",request_id=\"a \\\"b\\\" \\\\\"}} 0.1 ");
    let time = exemplar.strip_prefix(&labels).unwrap_or_else(|| panic!("{exemplar} does not begin with {labels}"));
    assert!(time.parse::<f64>().unwrap() > 0.0 && time.split('.').nth(1).unwrap().len() == 3, "{time}");
    // Told again, it is the same: Prometheus would take another time for another exemplar.
    let again = scrape(&metrics, Format::OpenMetrics("1.0.0"));
    assert!(again.lines().any(|line| line == *first), "{first}");
    assert!(!scrape(&metrics, Format::Text).contains(trace));
}

#[test]
fn promtool_has_no_complaint() {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else { return };
    child.stdin.take().unwrap().write_all(encode(&full().gather(), Format::Text).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && complaint.is_empty(), "{complaint}");
}

#[test]
fn a_scrape_tells_how_long_the_previous_one_took() {
    let metrics = full();
    assert!(!scrape(&metrics, Format::Text).contains("observer_scrape_duration_seconds"));
    assert!(scrape(&metrics, Format::Text).contains("observer_scrape_duration_seconds 0.0"));
}
