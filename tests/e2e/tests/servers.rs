//! Real servers and real clients, on the stacks that LLM servers and their users run on.

use std::process::Command;

use observer_e2e::{
    observer::Observer,
    process::Process,
    request_log::RequestLine,
    require,
    servers::{self, Server, Stack},
    traffic,
    wait::SOON,
};
use serde_json::{Value, json};

const MODEL: &str = "acme/some-model";
const TTFT_MS: u64 = 40;
const INTERVAL_MS: u64 = 5;

/// One request, and what the observer must say of it.
struct Wanted {
    id: String,
    chat: bool,
    stream: bool,
    tokens: u64,
}

impl Wanted {
    /// Chat and text completions, streamed and not, twice over one connection.
    fn all(prefix: &str) -> Vec<Self> {
        let kinds = [(true, true), (true, false), (false, true), (false, false)];
        let wanted = |(number, (chat, stream)): (usize, &(bool, bool))| Self {
            id: format!("{prefix}-{number}"),
            chat: *chat,
            stream: *stream,
            tokens: 5 + number as u64,
        };
        kinds.iter().chain(&kinds).enumerate().map(wanted).collect()
    }

    fn sample(&self) -> Value {
        json!({"ttft_ms": TTFT_MS, "interval_ms": INTERVAL_MS, "tokens": self.tokens})
    }

    fn check(&self, line: &RequestLine, server: &Server) {
        let said = format!("{line:#?}");
        let operation = if self.chat { "chat" } else { "text_completion" };
        assert_eq!((line.outcome.as_str(), line.operation.as_str()), ("ok", operation), "{said}");
        assert_eq!((line.status, line.stream), (Some(200), Some(self.stream)), "{said}");
        assert_eq!(line.request_model.as_deref(), Some(MODEL), "{said}");
        assert_eq!(line.response_model.as_deref(), Some(MODEL), "{said}");
        assert_eq!(line.server, Some(server.address.to_string()), "{said}");
        assert_eq!(line.output_tokens, Some(self.tokens), "{said}");
        assert!(line.input_tokens.is_some() && line.finish_reasons.len() == 1, "{said}");
        assert!(line.workload.ends_with(&format!(":{}", server.port())), "{said}");
        assert!(!line.comm.is_empty() && line.wall_time.is_some(), "{said}");
        line.expect_order(self.stream);
        let since = |time: Option<u64>| (time.unwrap_or(0) - line.t_arrive_ns.unwrap_or(0)) / 1_000_000;
        if self.stream {
            assert_eq!(line.token_events, Some(self.tokens), "{said}");
            // Timers may fire a millisecond early; how late they fire is the machine's affair.
            assert!((TTFT_MS - 2..TTFT_MS + 2000).contains(&since(line.t_first_ns)), "{said}");
        }
        assert!(since(line.t_end_ns) >= TTFT_MS - 2, "{said}");
    }
}

fn openai(server: &Server, wanted: &[Wanted]) {
    let describe = |one: &Wanted| json!({"id": one.id, "chat": one.chat, "stream": one.stream, "model": MODEL, "sample": one.sample()});
    let requests = Value::from_iter(wanted.iter().map(describe));
    let mut command = Command::new(require::python());
    command.current_dir(servers::scripts()).env("PYTHONDONTWRITEBYTECODE", "1");
    command.args(["client.py", &format!("http://{}/v1", server.address), &requests.to_string()]);
    let mut client = Process::spawn("openai-python", command);
    let status = client.wait(6 * SOON);
    assert!(status.success(), "{:#?}", client.output());
    // What the client itself saw.
    let said: Vec<Value> = client.output().iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(said.len(), wanted.len(), "{:#?}", client.output());
    for (said, wanted) in said.iter().zip(wanted) {
        assert_eq!(said["output"], wanted.tokens);
        assert!(!wanted.stream || said["events"] == wanted.tokens, "{said}");
    }
}

fn curl(server: &Server, wanted: &Wanted, further: &[&str]) {
    let route = if wanted.chat { "chat/completions" } else { "completions" };
    let prompt = if wanted.chat { json!([{"role": "user", "content": "hello"}]) } else { json!("hello") };
    let body = json!({
        if wanted.chat { "messages" } else { "prompt" }: prompt,
        "model": MODEL,
        "stream": wanted.stream,
        "stream_options": {"include_usage": true},
        "sample": wanted.sample(),
    });
    let mut command = Command::new(require::tool("curl").expect("required"));
    command.args(["--silent", "--no-buffer", "--noproxy", "*", "--max-time", "30", "--fail"]).args(further);
    command.args(["-H", "content-type: application/json", "-H", &format!("x-request-id: {}", wanted.id)]);
    command.args(["--data", &body.to_string(), &format!("http://{}/v1/{route}", server.address)]);
    let mut client = Process::spawn("curl", command);
    let status = client.wait(4 * SOON);
    assert!(status.success(), "{status}: {:#?}", client.output());
}

fn observe(server: &Server) {
    let mut observer = Observer::start(&[server.port()]);
    let by_openai = Wanted::all("openai");
    if require::missing("python").is_none() {
        openai(server, &by_openai);
        by_openai.iter().for_each(|wanted| wanted.check(&observer.line(&wanted.id), server));
    }
    let by_curl = Wanted::all("curl");
    let further: [&[&str]; 3] = [&[], &["-H", "expect: 100-continue"], &["--http1.0"]];
    if require::missing("curl").is_none() {
        for (number, wanted) in by_curl.iter().enumerate() {
            // HTTP/1.0 has no chunks: a stream's end is the connection's.
            curl(server, wanted, further[number % further.len()]);
            wanted.check(&observer.line(&wanted.id), server);
        }
    }
    // Control routes are no requests of ours.
    let health = observer_e2e::http::get(server.address, "/health").expect("it answers");
    assert!(health.status < 500);
    let wanted = by_openai.len() + by_curl.len();
    let lines = observer.lines_when(wanted, SOON);
    assert_eq!(lines.len(), wanted, "{lines:#?}");
    let metrics = observer.metrics();
    let ok = metrics.sum("llm_requests_total", &[("outcome", "ok"), ("http_response_status_code", "200")]);
    assert_eq!(ok, wanted as f64);
    let streamed = lines.iter().filter(|line| line.stream == Some(true)).count();
    let first = metrics.sum("gen_ai_server_time_to_first_token_seconds_count", &[("gen_ai_request_model", MODEL)]);
    assert_eq!(first, streamed as f64);
    let events: u64 = lines.iter().filter(|line| line.stream == Some(true)).filter_map(|line| line.token_events).sum();
    assert_eq!(metrics.sum("llm_output_chunks_total", &[]), events as f64);
    let output: u64 = lines.iter().filter_map(|line| line.output_tokens).sum();
    assert_eq!(metrics.sum("llm_tokens_total", &[("gen_ai_token_type", "output")]), output as f64);
    assert_eq!(metrics.sum("llm_requests_in_flight", &[]), 0.0);
    assert_eq!(metrics.sum("observer_events_lost_total", &[]), 0.0);
    // What was said is nowhere to be found.
    let log = std::fs::read_to_string(&observer.log().0).expect("the log");
    assert!(!log.contains("hello") && !log.contains("word"), "text left the parser");
    observer.stop(libc::SIGTERM);
}

#[test]
fn axum() {
    require!(kernel, sample, python, curl);
    observe(&Server::sample(&[]));
}

#[test]
fn uvicorn_with_uvloop_and_httptools() {
    require!(kernel, python, curl);
    observe(&Server::python(Stack::Uvloop));
}

#[test]
fn uvicorn_with_asyncio_and_h11() {
    require!(kernel, python, curl);
    observe(&Server::python(Stack::H11));
}

/// In flight is what has begun and not ended, counted while it lasts.
#[test]
fn requests_in_flight() {
    require!(kernel, sample);
    let server = Server::sample(&[]);
    let observer = Observer::start(&[server.port()]);
    let mut clients: Vec<_> =
        (0..5).map(|_| observer_e2e::http::Client::connect(server.address).expect("it listens")).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&traffic::sample_chat(&format!("flight-{number}"), 1500, 5, 3)).expect("it reads");
    }
    let in_flight = |count: f64| {
        observer_e2e::wait::until(&format!("{count} requests in flight"), SOON, || {
            (observer.metrics().sum("llm_requests_in_flight", &[]) == count).then_some(())
        });
    };
    in_flight(5.0);
    assert!(observer.lines().is_empty());
    clients.iter_mut().for_each(|client| drop(client.receive().expect("an answer")));
    in_flight(0.0);
    assert_eq!(observer.lines_when(5, SOON).len(), 5);
}
