//! A real Prometheus scrapes the observer, and its own queries yield what is known of the traffic.

use std::{
    io::Write,
    net::SocketAddr,
    process::{Command, Stdio},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use observer_e2e::{
    clock,
    http::{self, Client},
    net::free_address,
    observer::Observer,
    process::Process,
    require,
    scratch::Scratch,
    servers::Server,
    traffic, wait,
};
use serde_json::Value;

const REQUESTS: u64 = 40;
const TOKENS: u64 = 10;

fn encode(expression: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    expression.bytes().map(encode).collect()
}

/// The value of an instant query that yields one sample; `None`: it yields none (yet).
fn query(prometheus: SocketAddr, expression: &str) -> Option<f64> {
    let answer = http::get(prometheus, &format!("/api/v1/query?query={}", encode(expression))).ok()?;
    let value: Value = serde_json::from_slice(&answer.body).ok()?;
    assert!(answer.status != 400, "{expression}: {value}");
    value["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

fn start_prometheus(scratch: &Scratch, target: SocketAddr) -> (Process, SocketAddr) {
    let address = free_address();
    let config = scratch.write(
        "prometheus.yml",
        &format!(
            "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: observer\n    static_configs:\n      \
             - targets: ['{target}']\n"
        ),
    );
    let mut command = Command::new(require::tool("prometheus").expect("required"));
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", scratch.file("tsdb").display()));
    command.args([&format!("--web.listen-address={address}"), "--log.level=warn", "--enable-feature=exemplar-storage"]);
    let process = Process::spawn("prometheus", command);
    wait::until("Prometheus", Duration::from_secs(30), || {
        http::get(address, "/-/ready").ok().filter(|answer| answer.status == 200)
    });
    (process, address)
}

#[test]
fn quantiles_are_the_traffics_own() {
    require!(kernel, sample, prometheus);
    let scratch = Scratch::new();
    let server = Server::sample(&[]);
    let observer = Observer::start(&[server.port()]);
    let (mut process, prometheus) = start_prometheus(&scratch, observer.address());
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
        (query(prometheus, &count) == Some(REQUESTS as f64)).then_some(())
    });
    let quantile = |q: f64, family: &str| {
        let expression = format!("histogram_quantile({q}, sum by (le) ({family}_bucket{{server_port=\"{port}\"}}))");
        query(prometheus, &expression).unwrap_or_else(|| panic!("{expression} yields nothing"))
    };
    let first = quantile(0.5, "gen_ai_server_time_to_first_token_seconds");
    assert!((0.1..=0.15).contains(&first), "median time to first token {first}");
    let gap = quantile(0.5, "llm_inter_chunk_latency_seconds");
    assert!((0.01..=0.02).contains(&gap), "median gap {gap}");
    let duration = quantile(0.5, "gen_ai_server_request_duration_seconds");
    assert!((0.2..=0.3).contains(&duration), "median duration {duration}");
    let mean =
        "sum(gen_ai_server_time_to_first_token_seconds_sum) / sum(gen_ai_server_time_to_first_token_seconds_count)";
    let mean = query(prometheus, mean).expect("a mean");
    assert!((0.113..0.15).contains(&mean), "mean time to first token {mean}");
    assert_eq!(query(prometheus, "sum(llm_requests_total{outcome=\"ok\"})"), Some(REQUESTS as f64));
    assert_eq!(query(prometheus, "sum(llm_output_chunks_total)"), Some((REQUESTS * TOKENS) as f64));
    assert_eq!(query(prometheus, "up{job=\"observer\"}"), Some(1.0));
    assert_eq!(query(prometheus, "scrape_samples_scraped > bool 0"), Some(1.0));
    process.stop(libc::SIGTERM, Duration::from_secs(10));
}

/// All exemplars of the last minutes of the series that `selector` selects.
fn exemplars(prometheus: SocketAddr, selector: &str) -> Vec<Value> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let (start, end) = (now - 600, now + 600);
    let path = format!("/api/v1/query_exemplars?query={}&start={start}&end={end}", encode(selector));
    let answer = http::get(prometheus, &path).expect("Prometheus answers");
    let value: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(answer.status, 200, "{selector}: {value}");
    let series = value["data"].as_array().expect("series");
    series.iter().flat_map(|series| series["exemplars"].as_array().expect("exemplars").clone()).collect()
}

#[test]
fn exemplars_lead_to_requests() {
    require!(kernel, sample, prometheus);
    let scratch = Scratch::new();
    let server = Server::sample(&[]);
    let observer = Observer::start(&[server.port()]);
    let (mut process, prometheus) = start_prometheus(&scratch, observer.address());
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
        (exemplars(prometheus, &ttft).len() >= requests.len()).then_some(())
    });
    // Scraped again and again, they stay the same.
    thread::sleep(Duration::from_secs(4));
    let found = exemplars(prometheus, &ttft);
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
        assert!(!exemplars(prometheus, &selector(family)).is_empty(), "{family} has no exemplar");
    }
    assert!(exemplars(prometheus, &selector("llm_inter_chunk_latency_seconds")).is_empty());
    let own = http::get(prometheus, "/metrics").expect("Prometheus answers").text();
    let refused = "prometheus_tsdb_exemplar_out_of_order_exemplars_total 0";
    assert!(own.lines().any(|line| line == refused), "Prometheus refused exemplars");
    assert_eq!(query(prometheus, "up{job=\"observer\"}"), Some(1.0));
    process.stop(libc::SIGTERM, Duration::from_secs(10));
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
