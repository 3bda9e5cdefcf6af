//! What users touch: settings from the environment, the HTTP interface, `observer top`.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use observer_e2e::{
    http::{self, Client, header},
    metrics::Metrics,
    net::{free_address, free_port},
    observer::{self, Observer},
    process::Process,
    require,
    scratch::Scratch,
    servers::Server,
    traffic,
    wait::{self, SOON},
};
use serde_json::Value;

const TTFT_MS: u64 = 40;
const INTERVAL_MS: u64 = 10;
const TOKENS: u64 = 20;

/// The sample server's own load generator, with these further arguments.
fn load(server: &Server, arguments: &[&str]) -> Process {
    let sample = format!("{{\"ttft_ms\": {TTFT_MS}, \"interval_ms\": {INTERVAL_MS}, \"tokens\": {TOKENS}}}");
    let mut command = Command::new(require::sample());
    command.args(["load", "--url", &format!("http://{}", server.address), "--sample", &sample]).args(arguments);
    Process::spawn("sample-llm load", command)
}

fn ask(server: &Server, id: &str) {
    let mut client = Client::connect(server.address).expect("it listens");
    let request = traffic::sample_chat(id, TTFT_MS, INTERVAL_MS, TOKENS);
    assert_eq!(client.ask(&request).expect("an answer").status, 200);
}

fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)))
}

/// Values of a line of `observer top --plain`, by key.
fn values(line: &str) -> BTreeMap<&str, &str> {
    line.split(' ').filter_map(|word| word.split_once('=')).collect()
}

#[test]
fn top_shows_the_load() {
    require!(kernel, sample);
    let server = Server::sample(&[]);
    let observer = Observer::start(&[server.port()]);
    let mut load = load(&server, &["--concurrency", "4", "--for", "8s"]);
    // Rates need two samples of the observer's own.
    thread::sleep(Duration::from_secs(3));
    let begun = Instant::now();
    let mut command = observer::command();
    command.args(["top", "--plain", "--for", "2s", "--url", &format!("http://{}", observer.address())]);
    let (status, said) = observer::run(command);
    let took = begun.elapsed();
    assert!(status.success(), "{status}: {said:#?}");
    assert!((Duration::from_secs(2)..Duration::from_secs(6)).contains(&took), "{took:?}");
    let port = server.port().to_string();
    let mine: Vec<_> = said.iter().filter(|line| values(line).get("port") == Some(&port.as_str())).collect();
    assert!(mine.len() >= 2, "one line a second: {said:#?}");
    let last = values(mine[mine.len() - 1]);
    let number = |key: &str| last[key].parse::<f64>().unwrap_or_else(|error| panic!("{key}: {error} in {last:?}"));
    assert_eq!(last["workload"], format!("sample-llm:{port}"));
    // Four streams of 40 + 19 * 10 ms are 17 requests and 350 tokens a second, on an idle machine.
    assert!((1.0..=20.0).contains(&number("requests_per_second")), "{last:?}");
    assert!((20.0..=400.0).contains(&number("token_events_per_second")), "{last:?}");
    assert!((20.0..=400.0).contains(&number("output_tokens_per_second")), "{last:?}");
    assert!((1.0..=4.0).contains(&number("in_flight")), "{last:?}");
    assert!((0.02..=0.5).contains(&number("ttft_p50_seconds")), "{last:?}");
    assert!((0.005..=0.1).contains(&number("inter_chunk_p50_seconds")), "{last:?}");
    assert!(number("ok") >= 4.0 && number("incomplete") == 0.0 && number("truncated") == 0.0, "{last:?}");
    let own = said.iter().rfind(|line| line.contains(" observer version=")).expect("a line about the observer");
    let own = values(own);
    assert_eq!((own["lost"], own["opaque"]), ("0", "0"), "{own:?}");
    load.wait(Duration::from_secs(30));
}

#[test]
fn top_without_an_observer() {
    require!(observer);
    let address = free_address().to_string();
    let mut command = observer::command();
    command.args(["top", "--plain", "--for", "2s", "--url", &format!("http://{address}")]);
    let (status, said) = observer::run(command);
    assert_eq!(status.code(), Some(1), "{said:#?}");
    assert_eq!(said.len(), 1, "one clear line: {said:#?}");
    assert!(said[0].contains(&address) && said[0].contains("observer run"), "{said:#?}");
}

#[test]
fn settings_from_the_environment() {
    require!(kernel, sample);
    let (inside, outside) = (Server::sample(&[]), Server::sample(&[]));
    let port = inside.port().to_string();
    let observer = Observer::by_environment(&[
        ("OBSERVER_PORTS", &port),
        ("OBSERVER_LOG_FORMAT", "json"),
        ("OBSERVER_LOG_LEVEL", "debug"),
        ("OBSERVER_REQUEST_LOG_CHUNKS", "true"),
        ("OBSERVER_METRICS_BUCKETS_TTFT", "0.001,20"),
        ("OBSERVER_SLO_OBJECTIVES", "quick:ttft:0.001,slow:ttft:20"),
        // As compose files have it for what is not set.
        ("OBSERVER_CONFIG", ""),
    ]);
    ask(&outside, "outside");
    ask(&inside, "inside");
    let line = observer.line("inside");
    assert_eq!(line.chunk_times_ns.len() as u64, TOKENS, "{line:#?}");
    observer.settle();
    assert_eq!(observer.lines().len(), 1, "{:#?}", observer.lines());
    let metrics = observer.metrics();
    let bounds: Vec<_> = metrics
        .select("gen_ai_server_time_to_first_token_seconds_bucket", &[("server_port", &port)])
        .iter()
        .filter_map(|sample| Some((sample.labels.iter().find(|(name, _)| name == "le")?.1.clone(), sample.value)))
        .collect();
    let expected = [("0.001", 0.0), ("20", 1.0), ("+Inf", 1.0)];
    let same = |(own, expected): (&(String, f64), &(&str, f64))| {
        own.1 == expected.1 && own.0.parse::<f64>().ok() == expected.0.parse().ok()
    };
    assert!(bounds.len() == 3 && bounds.iter().zip(&expected).all(same), "{bounds:?}");
    for (slo, result) in [("quick", "bad"), ("slow", "good")] {
        assert_eq!(metrics.sum("llm_slo_requests_total", &[("slo", slo), ("result", result)]), 1.0, "{slo}");
    }
    assert!(observer.output().iter().all(|line| line.starts_with('{')), "{:#?}", observer.output());
}

/// Later sources win: file, environment, flags.
#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    require!(kernel, sample);
    let scratch = Scratch::new();
    let servers = [(); 3].map(|()| Server::sample(&[]));
    let [file, variable, flag] = servers.each_ref().map(|server| server.port().to_string());
    let config = scratch.write("observer.toml", &format!("[scope]\nports = [{file}]\n"));
    let config = config.to_str().expect("a plain path");
    let environment = [("OBSERVER_CONFIG", config), ("OBSERVER_PORTS", &variable)];
    let named = ["--ports", flag.as_str()];
    let cases = [(&[][..], &environment[..1]), (&[], &environment), (&named, &environment)];
    for (expected, (arguments, settings)) in cases.into_iter().enumerate() {
        let observer = Observer::tuned(arguments, settings);
        for (number, server) in servers.iter().enumerate() {
            ask(server, &number.to_string());
        }
        observer.line(&expected.to_string());
        observer.settle();
        assert_eq!(observer.lines().len(), 1, "{:#?}", observer.lines());
    }
}

#[test]
fn unknown_and_broken_variables() {
    require!(observer);
    let port = free_port().to_string();
    for (name, value, words) in [
        ("OBSERVER_PROTS", "1", &["OBSERVER_PROTS", "OBSERVER_PORTS"][..]),
        ("OBSERVER_REQUESTLOG_PATH", "x", &["OBSERVER_REQUESTLOG_PATH", "OBSERVER_REQUEST_LOG_PATH"]),
        ("OBSERVER_SCOPE_PORTS", "1", &["OBSERVER_SCOPE_PORTS", "OBSERVER_PORTS"]),
        ("OBSERVER_PORTS", "many", &["OBSERVER_PORTS", "many"]),
        ("OBSERVER_KERNEL_RING_BYTES", "1000", &["OBSERVER_KERNEL_RING_BYTES", "65536"]),
    ] {
        let mut command = observer::command();
        command.env("OBSERVER_PORTS", &port).env(name, value).args(["run", "--for", "1s"]);
        command.args(["--listen", &free_address().to_string()]);
        let (status, said) = observer::run(command);
        assert_eq!(status.code(), Some(2), "{name}: {said:#?}");
        assert_eq!(said.len(), 1, "{name}: one clear line: {said:#?}");
        assert!(words.iter().all(|word| said[0].contains(word)), "{name}: {said:#?}");
    }
}

/// Demands what the schema demands of objects: that the properties are there, and of lists' items alike.
fn conforms(value: &Value, schema: &Value, document: &Value, place: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#'));
        let target = target.unwrap_or_else(|| panic!("{place}: {reference} leads nowhere"));
        return conforms(value, target, document, place);
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let inner = value.get(name).unwrap_or_else(|| panic!("{place}: no {name} in {value}"));
        conforms(inner, &schema["properties"][name], document, &format!("{place}.{name}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        conforms(item, &schema["items"], document, &format!("{place}[{index}]"));
    }
}

#[test]
fn the_http_interface() {
    require!(kernel, sample);
    let server = Server::sample(&[]);
    let observer = Observer::start(&[server.port()]);
    let port = server.port().to_string();
    for number in 0..3 {
        ask(&server, &format!("surface-{number}"));
        observer.line(&format!("surface-{number}"));
    }
    // Every route that the document names is there, and is what it says.
    let document = json(&http::get(observer.address(), "/openapi.json").expect("an answer").body);
    let paths = document["paths"].as_object().expect("paths");
    for (path, route) in paths {
        let answer = http::get(observer.address(), path).expect("an answer");
        if route.get("get").is_none() {
            assert_eq!(answer.status, 405, "{path} changes something: it must be posted");
            continue;
        }
        assert_eq!(answer.status, 200, "{path}");
        let content = &route["get"]["responses"]["200"]["content"];
        let kind = header(&answer.head, "content-type").expect("a content type").split(';').next().expect("a part");
        let schema = &content.get(kind).unwrap_or_else(|| panic!("{path}: {kind} is not in {content}"))["schema"];
        if kind == "application/json" {
            conforms(&json(&answer.body), schema, &document, path);
        }
    }
    for path in ["/", "/healthz", "/readyz", "/metrics", "/api/v1/summary", "/api/v1/gpu", "/openapi.json"] {
        assert!(paths.contains_key(path), "{path} is not in the document");
    }
    assert_eq!(http::get(observer.address(), "/nothing").expect("an answer").status, 404);
    let page = http::get(observer.address(), "/").expect("an answer").text();
    assert!(page.contains("<html") && page.contains(&port) && page.contains("/metrics"), "{page}");

    let summary = wait::until("the summary to know the server", SOON, || {
        let summary = json(&http::get(observer.address(), "/api/v1/summary").expect("an answer").body);
        let known = summary["servers"].as_array().is_some_and(|servers| servers.len() == 1);
        known.then_some(summary)
    });
    let mine = &summary["servers"][0];
    assert_eq!(mine["server_port"], port.as_str(), "{mine}");
    assert_eq!(mine["workload"], format!("sample-llm:{port}"), "{mine}");
    assert_eq!(mine["outcomes"]["ok"], 3, "{mine}");
    let lost = summary["observer"]["lost"].as_object().expect("reasons");
    assert!(lost.values().all(|count| count == 0), "{lost:?}");
    assert!(summary["observer"]["scope"].as_str().is_some_and(|scope| scope.contains(&port)), "{summary}");
}

/// As Prometheus 3 asks, as Prometheus 2 does without OpenMetrics, and as `curl` does.
#[test]
fn exposition_formats() {
    require!(kernel, sample);
    let server = Server::sample(&[]);
    let observer = Observer::start(&[server.port()]);
    ask(&server, "one");
    observer.line("one");
    let accept = "accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                  application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.3\r\n";
    let mut counts = Vec::new();
    for (headers, kind, open) in [
        (accept, "application/openmetrics-text; version=1.0.0", true),
        ("accept: text/plain;version=0.0.4\r\n", "text/plain; version=0.0.4", false),
        ("", "text/plain; version=0.0.4", false),
    ] {
        let answer = http::get_with(observer.address(), "/metrics", headers).expect("an answer");
        assert_eq!(answer.status, 200);
        let said = header(&answer.head, "content-type").expect("a content type");
        assert!(said.starts_with(kind), "{headers}: {said}");
        let text = answer.text();
        assert_eq!(text.ends_with("# EOF\n"), open, "{headers}");
        // OpenMetrics names a counter's family without `_total`, the older format with it.
        assert_eq!(text.contains("# TYPE llm_requests counter\n"), open, "{headers}");
        assert_eq!(text.contains("# TYPE llm_requests_total counter\n"), !open, "{headers}");
        let metrics = Metrics::parse(&text);
        assert_eq!(metrics.sum("llm_requests_total", &[("outcome", "ok")]), 1.0);
        counts.push(metrics.sum("llm_inter_chunk_latency_seconds_count", &[]));
    }
    assert_eq!(counts, [TOKENS as f64 - 1.0; 3]);
}

/// Whoever scrapes far too often disturbs nothing.
#[test]
fn scrapes_lose_nothing() {
    require!(kernel, sample);
    const REQUESTS: usize = 600;
    let server = Server::sample(&[]);
    let observer = Observer::start(&[server.port()]);
    let done = AtomicBool::new(false);
    let (scrapes, longest) = thread::scope(|scope| {
        let scraper = scope.spawn(|| {
            let (mut scrapes, mut longest, mut before) = (0_u32, Duration::ZERO, 0.0);
            let begun = Instant::now();
            while !done.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let requests = observer.metrics().sum("llm_requests_total", &[]);
                longest = longest.max(asked.elapsed());
                assert!(requests >= before, "a counter went back from {before} to {requests}");
                before = requests;
                scrapes += 1;
                // Fifty a second, and no more to make up for slow ones.
                thread::sleep((begun + scrapes * Duration::from_millis(20)).saturating_duration_since(Instant::now()));
            }
            (scrapes, longest)
        });
        let mut load = load(&server, &["--concurrency", "32", "--requests", &REQUESTS.to_string()]);
        let status = load.wait(Duration::from_secs(60));
        done.store(true, Ordering::Relaxed);
        assert!(status.success(), "{:#?}", load.output());
        scraper.join().expect("scraping")
    });
    println!("{scrapes} scrapes, the longest took {longest:?}");
    assert!(scrapes >= 20, "the load was over before it was scraped: {scrapes}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    let lines = observer.lines_when(REQUESTS, SOON);
    assert_eq!(lines.len(), REQUESTS);
    for line in &lines {
        assert_eq!((line.outcome.as_str(), line.token_events), ("ok", Some(TOKENS)), "{line:#?}");
    }
    let metrics = observer.metrics();
    assert_eq!(metrics.sum("llm_requests_total", &[("outcome", "ok")]), REQUESTS as f64);
    for lost in ["observer_events_lost_total", "observer_request_log_dropped_total"] {
        assert_eq!(metrics.sum(lost, &[]), 0.0, "{lost}: {:?}", metrics.select(lost, &[]));
    }
}
