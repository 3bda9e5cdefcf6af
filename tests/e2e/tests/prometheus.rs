//! A real Prometheus scrapes the observer, and its own queries yield what is known of the traffic.

use std::{
    io::Write,
    ops::RangeInclusive,
    process::{Command, Stdio},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use observer_e2e::{
    clock,
    http::{self, Client},
    noise,
    observer::Observer,
    prometheus::{Prometheus, encode},
    require,
    servers::Server,
    traffic, wait,
};
use serde_json::Value;

const REQUESTS: u64 = 40;
const TOKENS: u64 = 10;

fn between(what: &str, value: f64, range: RangeInclusive<f64>) -> Result<(), String> {
    noise::holds(range.contains(&value), || format!("{what}: {value} s is not in {range:?}"))
}

#[test]
fn quantiles_are_the_traffics_own() {
    require!(kernel, sample, prometheus);
    noise::settles(|| {
        let server = Server::sample(&[]);
        let observer = Observer::start(&[server.port()]);
        let prometheus = Prometheus::scraping(observer.address());
        // Between the bucket edges 0.1 and 0.15, and 0.01 and 0.015.
        thread::scope(|scope| {
            for thread in 0..4 {
                let address = server.address;
                scope.spawn(move || {
                    let mut client = Client::connect(address).expect("it listens");
                    for number in 0..REQUESTS / 4 {
                        let request = traffic::sample_chat(&format!("p{thread}-{number}"), 115, 12, TOKENS);
                        assert_eq!(client.ask(&request).expect("an answer").status, 200);
                    }
                });
            }
        });
        let port = server.port();
        let count = format!("sum(gen_ai_server_time_to_first_token_seconds_count{{server_port=\"{port}\"}})");
        wait::until("Prometheus to have scraped every request", Duration::from_secs(20), || {
            (prometheus.value(&count) == Some(REQUESTS as f64)).then_some(())
        });
        assert_eq!(prometheus.value("sum(llm_requests_total{outcome=\"ok\"})"), Some(REQUESTS as f64));
        assert_eq!(prometheus.value("sum(llm_output_chunks_total)"), Some((REQUESTS * TOKENS) as f64));
        assert_eq!(prometheus.value("up{job=\"observer\"}"), Some(1.0));
        assert_eq!(prometheus.value("scrape_samples_scraped > bool 0"), Some(1.0));
        let quantile = |q: f64, family: &str| {
            let expression =
                format!("histogram_quantile({q}, sum by (le) ({family}_bucket{{server_port=\"{port}\"}}))");
            prometheus.value(&expression).unwrap_or_else(|| panic!("{expression} yields nothing"))
        };
        let first = quantile(0.5, "gen_ai_server_time_to_first_token_seconds");
        between("median time to first token", first, 0.1..=0.15)?;
        let gap = quantile(0.5, "llm_inter_chunk_latency_seconds");
        between("median gap", gap, 0.01..=0.02)?;
        let duration = quantile(0.5, "gen_ai_server_request_duration_seconds");
        between("median duration", duration, 0.2..=0.3)?;
        let mean =
            "sum(gen_ai_server_time_to_first_token_seconds_sum) / sum(gen_ai_server_time_to_first_token_seconds_count)";
        let mean = prometheus.value(mean).expect("a mean");
        between("mean time to first token", mean, 0.113..=0.15)
    });
}

/// All exemplars of the last minutes of the series that `selector` selects.
fn exemplars(prometheus: &Prometheus, selector: &str) -> Vec<Value> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let (start, end) = (now - 600, now + 600);
    let path = format!("query_exemplars?query={}&start={start}&end={end}", encode(selector));
    let value = prometheus.api(&path).expect("Prometheus answers");
    let series = value["data"].as_array().expect("series");
    series.iter().flat_map(|series| series["exemplars"].as_array().expect("exemplars").clone()).collect()
}

#[test]
fn exemplars_lead_to_requests() {
    require!(kernel, sample, prometheus);
    let server = Server::sample(&[]);
    let observer = Observer::start(&[server.port()]);
    let prometheus = Prometheus::scraping(observer.address());
    // Each in a bucket of its own: bounds are 0.02, 0.04, 0.06, 0.08, 0.1, 0.15 seconds.
    let requests = [("e0", 25), ("e1", 65), ("e2", 120)];
    let trace = |number: usize| format!("{:032x}", 0x0af7_6519_16cd_43dd_0000_u128 + number as u128);
    let mut client = Client::connect(server.address).expect("it listens");
    for (number, (id, ttft)) in requests.into_iter().enumerate() {
        let traceparent = format!("traceparent: 00-{}-b7ad6b7169203331-01\r\n", trace(number));
        let body = traffic::sample_body(true, ttft, 5, TOKENS).to_string();
        let request = traffic::post("/v1/chat/completions", id, &traceparent, &body);
        assert_eq!(client.ask(&request).expect("an answer").status, 200);
    }
    let port = server.port();
    let selector = |family: &str| format!("{family}_bucket{{server_port=\"{port}\"}}");
    let ttft = selector("gen_ai_server_time_to_first_token_seconds");
    wait::until("Prometheus to have every exemplar", Duration::from_secs(20), || {
        (exemplars(&prometheus, &ttft).len() >= requests.len()).then_some(())
    });
    // Scraped again and again, they stay the same.
    thread::sleep(Duration::from_secs(4));
    let found = exemplars(&prometheus, &ttft);
    assert_eq!(found.len(), requests.len(), "{found:#?}");
    for (number, (id, _)) in requests.into_iter().enumerate() {
        let line = observer.line(id);
        let named = |exemplar: &&Value| exemplar["labels"]["request_id"] == id;
        let exemplar = found.iter().find(named).unwrap_or_else(|| panic!("{id} is not in {found:#?}"));
        assert_eq!(exemplar["labels"]["trace_id"], trace(number), "{exemplar}");
        let number = |value: &Value| match value {
            Value::String(text) => text.parse::<f64>().expect("a number"),
            value => value.as_f64().expect("a number"),
        };
        let seconds = |from: Option<u64>, to: Option<u64>| (to.expect("known") - from.expect("known")) as f64 / 1e9;
        let value = number(&exemplar["value"]);
        assert!((value - seconds(line.t_arrive_ns, line.t_first_ns)).abs() < 1e-9, "{exemplar}, {line:#?}");
        let age = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
            - number(&exemplar["timestamp"]);
        let of_log = (clock::monotonic() - line.t_end_ns.expect("known")) as f64 / 1e9;
        assert!((age - of_log).abs() < 0.05, "it ended {of_log} s ago: {exemplar}");
    }
    for family in [
        "gen_ai_server_request_duration_seconds",
        "gen_ai_server_time_per_output_token_seconds",
        "llm_time_to_first_byte_seconds",
        "llm_request_phase_seconds",
    ] {
        assert!(!exemplars(&prometheus, &selector(family)).is_empty(), "{family} has no exemplar");
    }
    assert!(exemplars(&prometheus, &selector("llm_inter_chunk_latency_seconds")).is_empty());
    let own = http::get(prometheus.address(), "/metrics").expect("Prometheus answers").text();
    let refused = "prometheus_tsdb_exemplar_out_of_order_exemplars_total 0";
    assert!(own.lines().any(|line| line == refused), "Prometheus refused exemplars");
    assert_eq!(prometheus.value("up{job=\"observer\"}"), Some(1.0));
    prometheus.stop();
}

#[test]
fn promtool_finds_nothing_to_say() {
    require!(kernel, sample, promtool);
    let server = Server::sample(&[]);
    let observer = Observer::start(&[server.port()]);
    let mut client = Client::connect(server.address).expect("it listens");
    assert_eq!(client.ask(&traffic::sample_chat("lint", 5, 2, 5)).expect("an answer").status, 200);
    assert_eq!(observer.line("lint").outcome, "ok");
    let scrape = http::get(observer.address(), "/metrics").expect("it answers");
    assert!(http::header(&scrape.head, "content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    let mut command = Command::new(require::tool("promtool").expect("required"));
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool runs");
    let mut input = child.stdin.take().expect("piped");
    // It reads all of its input before it says anything.
    thread::spawn(move || drop(input.write_all(&scrape.body)));
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}
