//! Chat completions as they differ between engines, and bytes that cannot be read: what is known is told, the rest is
//! absent, never guessed.

use std::process::Command;

use observer_e2e::{
    clients::{Ask, Library, Seen, ask},
    expected::Expected,
    observer::Observer,
    process::Process,
    request_log::RequestLine,
    require,
    scratch::Scratch,
    servers::{Server, Stack, scripts},
    wait::{self, SOON},
};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const MODEL: &str = "acme/some-model";
const INPUT: u64 = 11;
const WORDS: Option<(&str, &str)> = Some(("word0 ", "word"));

fn chat(stream: bool, sample: Value) -> Value {
    json!({"messages": [{"role": "user", "content": "hello"}], "model": MODEL, "stream": stream, "sample": sample})
}

fn expected(events: u64, output: u64) -> Expected<'static> {
    let base = Expected::ok("openai", "chat").model(MODEL).usage(INPUT, output).streamed(events);
    Expected { cached: Some(3), reasoning: Some(0), finish: &["length"], ..base }
}

fn observed() -> (Server, Observer) {
    let server = Server::engines(Stack::Uvloop);
    let observer = Observer::start(&[server.port()]);
    (server, observer)
}

fn one(server: &Server, wanted: Ask) -> Seen {
    ask(Library::Httpx, &server.url(), &[wanted]).remove(0)
}

#[test]
fn what_engines_add_to_a_stream() {
    require!(kernel, python);
    let (server, observer) = observed();
    let two = Expected { finish: &["length", "length"], ..expected(12, 12) };
    let called = Expected { finish: &["tool_calls"], ..expected(7, 7) };
    let thought = Expected { reasoning: Some(4), ..expected(10, 10) };
    let unreported = Expected { input: None, output: None, cached: None, reasoning: None, ..expected(5, 0) };
    let cases = [
        ("continuous", json!({"tokens": 6, "usage": "continuous"}), expected(6, 6), WORDS),
        ("null", json!({"tokens": 5, "usage": "null"}), expected(5, 5), WORDS),
        ("no-usage", json!({"tokens": 5, "usage": "never"}), unreported, WORDS),
        ("two-choices", json!({"tokens": 6, "choices": 2}), two, WORDS),
        ("pings", json!({"tokens": 4, "pings": 5}), expected(4, 4), WORDS),
        ("tool", json!({"tokens": 7, "tool": true}), called, WORDS),
        ("thoughts", json!({"tokens": 6, "thoughts": 4}), thought, Some(("thought0 ", "word"))),
    ];
    let wanted: Vec<Ask> = cases.iter().map(|case| Ask::new(case.0, CHAT, chat(true, case.1.clone()))).collect();
    for (seen, (id, _, expected, tokens)) in ask(Library::Httpx, &server.url(), &wanted).iter().zip(&cases) {
        let line = observer.line(id);
        expected.check_seen(&line, seen, *tokens);
        let content = (*id == "thoughts").then(|| seen.arrival("word0 ", false) + 2_000_000);
        assert_eq!(line.t_first_content_ns.is_some(), content.is_some(), "{line:#?}");
        assert!(line.t_first_content_ns <= content, "{line:#?}");
    }
    let metrics = observer.metrics();
    assert_eq!(metrics.sum("llm_time_to_first_content_seconds_count", &[]), 1.0);
    assert_eq!(
        metrics.sum("llm_tokens_total", &[("gen_ai_token_type", "output")]),
        6.0 + 5.0 + 12.0 + 4.0 + 7.0 + 10.0
    );
}

/// Log probabilities make an event larger than what is captured of a call: its middle is not seen. When it was written
/// is, so the times are whole; and a token that cannot be proved is not made up.
#[test]
fn events_larger_than_a_capture() {
    require!(kernel, python);
    let (server, observer) = observed();
    const TOKENS: u64 = 12;
    let body = chat(true, json!({"tokens": TOKENS, "logprobs": 150}));
    let seen = one(&server, Ask::new("large", CHAT, body));
    assert!(seen.body.len() as u64 > TOKENS * 5000, "{}", seen.body.len());
    let line = observer.line("large");
    assert_eq!((line.outcome.as_str(), line.incomplete_reason.as_deref()), ("ok", None), "{line:#?}");
    assert_eq!((line.output_tokens, &line.finish_reasons[..]), (Some(TOKENS), &["length".to_owned()][..]), "{line:#?}");
    assert!(line.token_events.is_none_or(|events| events == TOKENS), "{line:#?}");
    for (name, at, text) in [("first", line.t_first_ns, "word0 "), ("last", line.t_last_ns, "word11 ")] {
        let seen_at = seen.arrival(text, false);
        assert!(at.is_some_and(|at| (seen.sent_ns..=seen_at + 2_000_000).contains(&at)), "{name} {seen_at}: {line:#?}");
    }
    assert_eq!(observer.metrics().sum("gen_ai_server_time_to_first_token_seconds_count", &[]), 1.0);
}

/// Of a compressed answer the observer knows when and how much, not what.
#[test]
fn compressed_answers() {
    require!(kernel, python);
    let (server, observer) = observed();
    for stream in [true, false] {
        let id = format!("gzip-{stream}");
        let seen = one(&server, Ask::new(&id, CHAT, chat(stream, json!({"tokens": 9, "gzip": true}))));
        assert!(seen.body.starts_with("\u{1f}\u{8b}"), "not compressed: {seen:#?}");
        let line = observer.line(&id);
        assert_eq!(
            (line.outcome.as_str(), line.status, line.operation.as_str()),
            ("ok", Some(200), "chat"),
            "{line:#?}"
        );
        assert_eq!((line.stream, line.request_model.as_deref()), (Some(stream), Some(MODEL)), "{line:#?}");
        assert_eq!((line.token_events, line.input_tokens, line.output_tokens), (None, None, None), "{line:#?}");
        assert_eq!((line.t_first_ns, line.t_last_ns, &line.response_model), (None, None, &None), "{line:#?}");
        assert!(line.response_bytes >= Some(seen.body.len() as u64), "{line:#?}");
        seen.expect_times(&line, None);
    }
    let metrics = observer.metrics();
    assert_eq!(metrics.sum("llm_requests_total", &[("outcome", "ok")]), 2.0);
    assert_eq!(metrics.sum("observer_opaque_connections_total", &[("reason", "compressed")]), 2.0);
    assert_eq!(metrics.sum("gen_ai_server_time_to_first_token_seconds_count", &[]), 0.0);
}

/// Of a compressed request it is the answer that tells the model. The text in a raw zstd block could be read: it is not.
#[test]
fn compressed_requests() {
    require!(kernel, python);
    let (server, observer) = observed();
    for (id, coding, stream) in [("gzip", "gzip", true), ("zstd", "zstd", true), ("gzip-whole", "gzip", false)] {
        let sample = json!({"tokens": 6, "stream": stream}).to_string();
        let wanted = Ask::new(id, CHAT, chat(stream, json!({}))).coding(coding).header("x-sample", &sample);
        let seen = one(&server, wanted);
        let model = if coding == "zstd" { "unnamed" } else { MODEL };
        let streamed = Expected { request_model: None, response_model: Some(model), ..expected(6, 6) };
        let whole = Expected { stream: false, events: None, ..streamed.clone() };
        let tokens = if stream { WORDS } else { None };
        let line = observer.line(id);
        (if stream { streamed } else { whole }).check_seen(&line, &seen, tokens);
        assert!(line.request_bytes > Some(150), "{line:#?}");
    }
}

/// Sends `curl` to the chat route with these further arguments, and tells what it got.
fn curl(server: &Server, id: &str, further: &[&str]) -> String {
    let mut command = Command::new(require::tool("curl").expect("required"));
    command.args(["--silent", "--noproxy", "*", "--max-time", "5"]).args(further);
    command.args(["-H", "content-type: application/json", "-H", &format!("x-request-id: {id}")]);
    command.args(["--data", &chat(false, json!({"tokens": 2})).to_string(), &format!("{}{CHAT}", server.url())]);
    let mut curl = Process::spawn("curl", command);
    let _whatever = curl.wait(SOON);
    curl.settled_output().join("\n")
}

fn opaque(observer: &Observer, reason: &str) -> f64 {
    observer.metrics().sum("observer_opaque_connections_total", &[("reason", reason)])
}

/// A client that speaks HTTP/2 at once, and one that offers it: the first is opaque, the second goes on with HTTP/1.
#[test]
fn http_2() {
    require!(kernel, python, curl);
    let (server, observer) = observed();
    let _refused = curl(&server, "prior", &["--http2-prior-knowledge"]);
    wait::until("the connection to be counted", SOON, || (opaque(&observer, "http2") == 1.0).then_some(()));
    let answer: Value = serde_json::from_str(&curl(&server, "offered", &["--http2"])).expect("an answer");
    let line = observer.line("offered");
    assert_eq!((line.outcome.as_str(), line.status), ("ok", Some(200)), "{line:#?}");
    assert_eq!(line.output_tokens, answer["usage"]["completion_tokens"].as_u64(), "{line:#?}");
    assert_eq!((observer.lines().len(), opaque(&observer, "http2")), (1, 1.0));
}

/// A connection that becomes a WebSocket is opaque from then on; the server's other connections are not.
#[test]
fn websocket() {
    require!(kernel, python, aimock);
    let scratch = Scratch::new();
    let fixture = json!({"fixtures": [{"match": {"userMessage": "words"}, "response": {"content": "alpha beta"}}]});
    let server = Server::aimock(&scratch.write("fixtures.json", &fixture.to_string()), 1, 6);
    let observer = Observer::start(&[server.port()]);
    let mut command = Command::new(require::python());
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(scripts().join("websocket.py"));
    command.arg(format!("ws://{}/v1/responses", server.address));
    let mut client = Process::spawn("websocket.py", command);
    assert!(client.wait(3 * SOON).success(), "{:#?}", client.settled_output());
    assert!(client.settled_output().iter().any(|line| line.contains("response.completed")));
    wait::until("the connection to be counted", SOON, || (opaque(&observer, "upgrade") == 1.0).then_some(()));
    let body = json!({"model": MODEL, "messages": [{"role": "user", "content": "words"}]});
    let seen = ask(Library::Fetch, &server.url(), &[Ask::new("after", CHAT, body)]);
    let line: RequestLine = observer.line("after");
    assert_eq!((line.outcome.as_str(), line.status), ("ok", seen[0].status), "{line:#?}");
    assert_eq!(observer.lines_when(1, SOON).len(), 1);
    assert_eq!(observer.metrics().sum("llm_requests_in_flight", &[]), 0.0);
}
