//! Server and load generator against each other: what was asked for is what the client's log says.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use sample_llm::{
    api::Api,
    load::{Line, Outcome, Summary},
};

const BINARY: &str = env!("CARGO_BIN_EXE_sample-llm");

/// A running server; ended when dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(BINARY).arg("serve").args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").expect("the server says where it listens").to_owned();
        Self { child, address }
    }

    fn load(&self, name: &str, args: &[&str]) -> (Summary, Vec<Line>) {
        let url = format!("http://{}", self.address);
        load(name, &[&["--url", &url], args].concat())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn temporary(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()))
}

fn load(name: &str, args: &[&str]) -> (Summary, Vec<Line>) {
    let log = temporary(name);
    let output = Command::new(BINARY).arg("load").args(args).arg("--log").arg(&log).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary: Summary = serde_json::from_slice(&output.stdout).unwrap();
    let lines: Vec<Line> =
        std::fs::read_to_string(&log).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    std::fs::remove_file(log).unwrap();
    assert_eq!(summary.requests, lines.len() as u64);
    assert_eq!(summary.token_events, lines.iter().map(|line| line.token_events).sum::<u64>());
    (summary, lines)
}

fn count(lines: &[Line], outcome: Outcome) -> usize {
    lines.iter().filter(|line| line.outcome == outcome).count()
}

#[test]
fn streams_bring_every_token_and_usage_at_the_chosen_pace() {
    let server = Server::start(&["--ttft", "60ms", "--token-interval", "5ms"]);
    let (summary, lines) = server.load("streams", &["--requests", "12", "--concurrency", "4", "--tokens", "10"]);
    assert_eq!(summary.ok, 12);
    assert_eq!(summary.token_events, 120);
    assert_eq!(summary.output_tokens, 120);
    let mut ids: Vec<_> = lines.iter().map(|line| line.request_id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 12, "each id is used once");
    for line in &lines {
        assert_eq!((line.status, line.token_events, line.output_tokens), (Some(200), 10, Some(10)));
        // The role-only event comes at once: it must not count as the first token.
        assert!(line.ttft_ns.unwrap() >= 60_000_000, "{line:?}");
        assert!(line.total_ns >= 105_000_000, "{line:?}");
    }
    let ports: std::collections::BTreeSet<_> = lines.iter().map(|line| line.port).collect();
    assert_eq!(ports.len(), 4, "connections are used again");
}

#[test]
fn whole_answers_and_both_routes_work() {
    let server = Server::start(&["--ttft", "1ms", "--token-interval", "0ms", "--tokens", "7"]);
    let args = ["--requests", "40", "--stream", "mixed", "--route", "mixed", "--keep-alive", "false"];
    let (summary, lines) = server.load("mixed", &args);
    assert_eq!((summary.ok, summary.output_tokens), (40, 280));
    let ports: std::collections::BTreeSet<_> = lines.iter().map(|line| line.port).collect();
    assert_eq!(ports.len(), 40, "no connection is used again");
    for (stream, path) in
        [true, false].iter().flat_map(|s| ["/v1/chat/completions", "/v1/completions"].map(|p| (*s, p)))
    {
        let some: Vec<_> = lines.iter().filter(|line| line.stream == stream && line.path == path).collect();
        assert!(!some.is_empty(), "{path}, stream: {stream}");
        assert!(some.iter().all(|line| line.token_events == if stream { 7 } else { 0 }), "{some:?}");
    }
}

#[test]
fn every_api_says_what_it_generated() {
    let server = Server::start(&["--ttft", "1ms", "--token-interval", "1ms", "--tokens", "9"]);
    let sample = r#"{"reasoning":3,"model":"real"}"#;
    let args = ["--requests", "400", "--concurrency", "16", "--stream", "mixed", "--route", "all", "--sample", sample];
    let (summary, lines) = server.load("all", &args);
    assert_eq!(summary.ok, 400);
    for (api, stream) in Api::ALL.iter().flat_map(|api| [(*api, true), (*api, false)]) {
        let some: Vec<_> = lines.iter().filter(|line| (line.api, line.stream) == (api, stream)).collect();
        assert_eq!(some.is_empty(), stream && !api.streams(), "{api:?}, stream: {stream}");
        let reasons = matches!(api, Api::Chat | Api::Responses | Api::Messages | Api::OllamaChat | Api::OllamaGenerate);
        let tokens = if reasons { 12 } else { 9 };
        for line in some {
            assert_eq!(line.token_events, if stream { tokens } else { 0 }, "{line:?}");
            assert!(line.response_bytes > 0 && !line.error, "{line:?}");
            assert_eq!(line.model.is_some(), api.names_model() || api == Api::Triton, "{line:?}");
            let names = !matches!(api, Api::Tgi | Api::Sglang);
            assert_eq!(line.response_model.as_deref(), names.then_some("real"), "{line:?}");
            let counts = api.streams() && api != Api::Triton;
            assert_eq!(line.output_tokens, counts.then_some(tokens), "{line:?}");
            assert_eq!(line.input_tokens.is_some(), api != Api::Triton, "{line:?}");
            assert_eq!(line.finish_reason.is_some(), counts && api != Api::Responses, "{line:?}");
        }
    }
    for sample in [r#"{"stream_error_after":3}"#, r#"{"stream_error_after":0}"#] {
        let args = ["--requests", "100", "--concurrency", "16", "--route", "all", "--sample", sample];
        let (_, lines) = server.load("all-errors", &args);
        for line in lines.iter().filter(|line| line.stream) {
            assert_eq!((line.outcome, line.status), (Outcome::ErrorInStream, Some(200)), "{line:?}");
        }
    }
}

#[test]
fn a_request_chooses_its_own_end() {
    let server = Server::start(&["--ttft", "1ms", "--token-interval", "1ms", "--tokens", "20"]);
    let ends = [
        (r#"{"status":429}"#, Outcome::HttpError, Some(429), 0, None),
        (r#"{"stream_error_after":3}"#, Outcome::ErrorInStream, Some(200), 3, None),
        (r#"{"stream_error_after":0}"#, Outcome::ErrorInStream, Some(200), 0, None),
        (r#"{"cut_after":5}"#, Outcome::Truncated, Some(200), 5, None),
        (r#"{"tokens":6,"cut_after":6}"#, Outcome::Truncated, Some(200), 6, None),
        (r#"{"reasoning":4,"tokens":6,"tokens_per_event":3}"#, Outcome::Ok, Some(200), 10, Some(30)),
        (r#"{"tokens":0}"#, Outcome::Ok, Some(200), 0, Some(0)),
        (r#"{"tokens":12,"events_per_write":4,"ttft_ms":2,"interval_ms":2}"#, Outcome::Ok, Some(200), 12, Some(12)),
        (r#"{"role_ms":10,"ttft_ms":5}"#, Outcome::Ok, Some(200), 20, Some(20)),
    ];
    for (number, (sample, outcome, status, events, output)) in ends.into_iter().enumerate() {
        let args = ["--requests", "3", "--concurrency", "1", "--sample", sample];
        let (_, lines) = server.load(&format!("end-{number}"), &args);
        for line in lines {
            let got = (line.outcome, line.status, line.token_events, line.output_tokens);
            assert_eq!(got, (outcome, status, events, output), "{sample}");
        }
    }
}

#[test]
fn clients_leave_when_they_were_told_to() {
    let server = Server::start(&["--ttft", "20ms", "--token-interval", "5ms", "--tokens", "40"]);
    let args = ["--requests", "60", "--concurrency", "20", "--cancel-rate", "0.5"];
    let (summary, lines) = server.load("leave", &args);
    let meant = lines.iter().filter(|line| line.meant_to_leave).count();
    assert!((10..50).contains(&meant), "{meant} of 60 at 50 %");
    assert_eq!(summary.cancelled, meant as u64);
    assert_eq!(summary.ok, 60 - meant as u64);
    assert!(lines.iter().all(|line| (line.outcome == Outcome::Cancelled) == line.meant_to_leave));
    assert!(lines.iter().filter(|line| line.meant_to_leave).all(|line| line.token_events < 40));

    let args = ["--requests", "6", "--concurrency", "2", "--cancel-rate", "1", "--cancel-after", "3"];
    let (_, lines) = server.load("leave-after", &args);
    // On a busy machine one read may hold more of them.
    let after = |line: &Line| (3..40).contains(&line.token_events) && line.outcome == Outcome::Cancelled;
    assert!(lines.iter().all(after), "{lines:?}");
    let (_, lines) = server.load("leave-whole", &[&args[..], &["--stream", "false"]].concat());
    assert_eq!(count(&lines, Outcome::Cancelled), 6, "{lines:?}");
}

#[test]
fn errors_come_at_their_rates_and_repeat_for_a_seed() {
    let outcomes = || {
        let rates = ["--error-rate", "0.3", "--stream-error-rate", "0.3", "--ttft", "0ms", "--token-interval", "0ms"];
        let server = Server::start(&rates);
        let (_, lines) = server.load("rates", &["--requests", "200", "--concurrency", "1"]);
        lines.into_iter().map(|line| line.outcome).collect::<Vec<_>>()
    };
    let first = outcomes();
    let count = |outcome| first.iter().filter(|other| **other == outcome).count();
    assert!((40..80).contains(&count(Outcome::HttpError)), "{first:?}");
    assert!((25..65).contains(&count(Outcome::ErrorInStream)), "{first:?}");
    assert_eq!(first, outcomes());
}

#[test]
fn a_run_is_bounded_in_time_and_rate() {
    let server = Server::start(&["--ttft", "1ms", "--token-interval", "0ms", "--tokens", "1"]);
    let (summary, _) = server.load("rate", &["--for", "1s", "--rate", "50"]);
    assert!((40..=51).contains(&summary.requests), "{summary:?}");
    // Requests that would outlast the run are cancelled soon after its end.
    let endless = r#"{"tokens":100000,"interval_ms":10}"#;
    let args = ["--for", "200ms", "--concurrency", "3", "--timeout", "300ms", "--sample", endless];
    let (summary, _) = server.load("time", &args);
    assert_eq!((summary.cancelled, summary.ok), (summary.requests, 0), "{summary:?}");
    assert!(summary.seconds < 1.0, "{summary:?}");
}

#[test]
fn a_unix_socket_serves_the_same() {
    let path = temporary("socket");
    let path = path.to_str().unwrap();
    let args = ["--unix", path, "--ttft", "1ms", "--token-interval", "0ms", "--tokens", "5"];
    drop(Server::start(&args));
    // The file of the first server is in the way, and replaced.
    let server = Server::start(&args);
    assert_eq!(server.address, format!("unix:{path}"));
    let (summary, lines) = load("unix", &["--unix", path, "--requests", "10"]);
    assert_eq!((summary.ok, summary.token_events), (10, 50));
    assert!(lines.iter().all(|line| line.port == 0));
    drop(server);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn load_goes_to_loopback_only() {
    let output =
        Command::new(BINARY).args(["load", "--url", "http://192.0.2.1:8000", "--requests", "1"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a loopback address"), "{output:?}");
}

#[test]
fn a_load_without_a_bound_is_refused() {
    let output = Command::new(BINARY).args(["load", "--url", "http://127.0.0.1:9"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let output = Command::new(BINARY).args(["load", "--requests", "2", "--url", &url]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no connection succeeded"), "{output:?}");
}

/// One request by hand; the whole response.
fn raw(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

fn post(server: &Server, path: &str, body: &str) -> String {
    let length = body.len();
    raw(
        server,
        &format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"),
    )
}

#[test]
fn the_wire_looks_like_the_openai_api() {
    let server = Server::start(&["--ttft", "1ms", "--token-interval", "1ms", "--tokens", "2", "--model", "m \"1\""]);
    let stream = post(&server, "/v1/chat/completions", r#"{"stream":true,"stream_options":{"include_usage":true}}"#);
    let data: Vec<_> = stream.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(data.len(), 6, "{stream}");
    let event = |at: usize| serde_json::from_str::<serde_json::Value>(data[at]).unwrap();
    assert_eq!(event(0)["choices"][0]["delta"], serde_json::json!({"role": "assistant", "content": ""}));
    assert_eq!(event(1)["choices"][0]["delta"], serde_json::json!({"content": " the"}));
    assert_eq!(event(1)["model"], "m \"1\"");
    assert_eq!(event(3)["choices"][0]["finish_reason"], "stop");
    assert_eq!(event(4)["choices"], serde_json::json!([]));
    assert_eq!(event(4)["usage"]["completion_tokens"], 2);
    assert_eq!(data[5], "[DONE]");

    let whole = post(&server, "/v1/completions", r#"{"max_tokens":3,"model":"other"}"#);
    let (head, body) = whole.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("application/json"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["choices"][0]["text"], " the kernel saw");
    assert_eq!((&body["choices"][0]["finish_reason"], &body["model"]), (&"length".into(), &"other".into()));

    let alias = post(&server, "/v1/chat/completions", r#"{"model":"alias","sample":{"model":"real"}}"#);
    assert!(alias.contains(r#""model":"real""#), "{alias}");
    assert!(post(&server, "/v1/chat/completions", "no JSON").starts_with("HTTP/1.1 400"));
    assert!(post(&server, "/v1/chat/completions", r#"{"sample":{"typo":1}}"#).starts_with("HTTP/1.1 400"));
    let get = |path: &str| raw(&server, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
    assert!(get("/health").starts_with("HTTP/1.1 200"));
    assert!(get("/v1/models").contains(r#""id":"m \"1\"""#));
}
