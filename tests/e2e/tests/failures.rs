//! Servers that fail: llmposter and aimock, which do it on purpose, and what the observer makes of each failure.

use std::process::Command;

use observer_e2e::{
    clients::{Ask, Library, Seen, ask},
    expected::Expected,
    observer::Observer,
    process::Process,
    request_log::RequestLine,
    require,
    scratch::Scratch,
    servers::{Server, Stack},
    wait::{self, SOON},
};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const MODEL: &str = "acme-1";

/// Nine token events of at most six characters.
const LONG: &str = "alpha beta gamma delta omega alpha beta gamma delta omega";

/// Each message of a user has its way to fail.
const LLMPOSTER: &str = r#"
fixtures:
  - match: { user_message: "whole" }
    response: { content: "alpha beta gamma delta omega" }
    streaming: { latency: 10, chunk_size: 6 }
  - match: { user_message: "short" }
    response: { content: "alpha beta gamma delta omega" }
    streaming: { latency: 10, chunk_size: 6 }
    failure: { truncate_after_frames: 4 }
  - match: { user_message: "reset" }
    response: { content: "alpha beta gamma delta omega alpha beta gamma delta omega" }
    streaming: { latency: 50, chunk_size: 6 }
    failure: { disconnect_after_ms: 230 }
  - match: { user_message: "corrupt" }
    response: { content: "alpha" }
    failure: { corrupt_body: true }
  - match: { user_message: "twice" }
    response: { content: "alpha beta gamma delta omega" }
    streaming: { latency: 5, chunk_size: 6 }
    failure: { duplicate_frames: true }
  - match: { user_message: "late" }
    response: { content: "alpha beta gamma delta omega" }
    streaming: { latency: 10, chunk_size: 6 }
    failure: { latency_ms: 300 }
  - match: { user_message: "stuck" }
    response: { content: "alpha beta gamma delta omega" }
    streaming: { latency: 900, chunk_size: 6 }
  - match: { user_message: "deaf" }
    response: { content: "alpha" }
    failure: { latency_ms: 20000 }
  - match: { user_message: "limited" }
    error: { status: 429, message: "Rate limit exceeded", headers: { retry-after: "60" } }
  - match: { user_message: "overloaded" }
    error: { status: 503, message: "Loading model" }
"#;

fn chat(message: &str, stream: bool) -> Value {
    json!({"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": message}]})
}

fn one(server: &Server, ask_it: Ask) -> Seen {
    ask(Library::Aiohttp, &server.url(), &[ask_it]).remove(0)
}

/// What the server cut: that much was sent, and there is no latency of it.
fn expect_truncated(line: &RequestLine, seen: &Seen, events: u64) {
    assert_eq!((line.outcome.as_str(), line.status, line.stream), ("truncated", Some(200), Some(true)), "{line:#?}");
    assert_eq!(line.token_events, Some(events), "{line:#?} {seen:#?}");
    assert!(seen.error.is_some(), "the client noticed nothing: {seen:#?}");
    assert_eq!((line.output_tokens, &line.finish_reasons[..]), (None, &[][..]), "{line:#?}");
}

#[test]
fn llmposter() {
    require!(kernel, python, llmposter, curl);
    let scratch = Scratch::new();
    let server = Server::llmposter(&scratch.write("fixtures.yaml", LLMPOSTER));
    let mut observer = Observer::start(&[server.port()]);
    let ask = |message: &str| {
        let seen = one(&server, Ask::new(message, CHAT, chat(message, true)));
        (observer.line(message), seen)
    };

    let whole = Expected { finish: &["stop"], ..Expected::ok("openai", "chat").model(MODEL).streamed(5) };
    let (line, seen) = ask("whole");
    whole.check_seen(&line, &seen, Some(("alpha ", "mega")));

    // The stream ends before the model's answer does; the HTTP message is whole.
    let (line, seen) = ask("short");
    Expected { finish: &[], ..whole.clone() }.streamed(3).check_seen(&line, &seen, Some(("alpha ", "amma d")));

    // The connection ends within the message.
    let (line, seen) = ask("reset");
    let sent = seen.count(r#""content":"#);
    assert!((1..9).contains(&sent), "{seen:#?} of {LONG}");
    expect_truncated(&line, &seen, sent);

    // Not one event of it is JSON.
    let (line, seen) = ask("corrupt");
    assert_eq!(seen.body, "data: overloaded\n\n");
    assert_eq!((line.outcome.as_str(), line.status, line.token_events), ("ok", Some(200), Some(0)), "{line:#?}");
    assert_eq!((line.t_first_ns, line.output_tokens, line.response_model), (None, None, None));

    // Each event comes twice, and counts twice: what was on the wire is told.
    let (line, seen) = ask("twice");
    assert_eq!(seen.count("alpha "), 2);
    assert_eq!((line.outcome.as_str(), line.token_events), ("ok", Some(10)), "{line:#?}");

    let (line, seen) = ask("late");
    whole.check_seen(&line, &seen, Some(("alpha ", "mega")));
    let first = line.t_first_ns.unwrap_or(0) - line.t_arrive_ns.unwrap_or(0);
    assert!(first >= 300_000_000, "{line:#?}");

    for (message, status) in [("limited", 429), ("overloaded", 503)] {
        let (line, seen) = ask(message);
        assert_eq!(seen.status, Some(status));
        assert_eq!((line.outcome.as_str(), line.status), ("http_error", Some(status)), "{line:#?}");
        assert_eq!(line.request_model.as_deref(), Some(MODEL), "{line:#?}");
        assert_eq!((line.t_first_ns, line.token_events.unwrap_or(0), line.output_tokens), (None, 0, None), "{line:#?}");
        seen.expect_times(&line, None);
    }

    // Clients that give up: on a stream that is stuck after its first token, and on one that never begins.
    for (message, begun) in [("stuck", true), ("deaf", false)] {
        let mut curl = Command::new(require::tool("curl").expect("required"));
        curl.args(["--silent", "--noproxy", "*", "--max-time", if begun { "1.3" } else { "0.4" }]);
        curl.args(["-H", "content-type: application/json", "-H", &format!("x-request-id: {message}")]);
        curl.args(["--data", &chat(message, true).to_string(), &format!("{}{CHAT}", server.url())]);
        let mut curl = Process::spawn("curl", curl);
        assert_eq!(curl.wait(SOON).code(), Some(28), "{:#?}", curl.settled_output());
        let line = observer.line(message);
        assert_eq!(line.outcome, "cancelled", "{line:#?}");
        assert_eq!((line.status.is_some(), line.t_first_ns.is_some()), (begun, begun), "{line:#?}");
    }

    let metrics = observer.metrics();
    for (outcome, count) in [("ok", 5.0), ("truncated", 1.0), ("http_error", 2.0), ("cancelled", 2.0)] {
        assert_eq!(metrics.sum("llm_requests_total", &[("outcome", outcome)]), count, "{outcome}");
    }
    assert_eq!(metrics.sum("llm_requests_total", &[]), 10.0);
    // Of what is whole, or was cancelled after its first token: not of what has no token or was cut.
    assert_eq!(metrics.sum("gen_ai_server_time_to_first_token_seconds_count", &[]), 5.0);
    observer.stop(libc::SIGTERM);
}

/// The number behind the last `"name":` that came.
fn reported(seen: &Seen, name: &str) -> Option<u64> {
    let rest = &seen.body[seen.body.rfind(name)? + name.len()..];
    rest[..rest.find(|character: char| !character.is_ascii_digit())?].parse().ok()
}

/// llmposter's other shapes, whole and cut.
#[test]
fn llmposter_in_other_shapes() {
    require!(kernel, python, llmposter);
    let scratch = Scratch::new();
    let server = Server::llmposter(&scratch.write("fixtures.yaml", LLMPOSTER));
    let observer = Observer::start(&[server.port()]);
    let messages = |message: &str| {
        let mut body = chat(message, true);
        body["max_tokens"] = 99.into();
        body
    };
    let responses = |message: &str| json!({"model": MODEL, "stream": true, "input": message});
    for (api, path, body, delta, finish) in [
        ("anthropic", "/v1/messages", &messages as &dyn Fn(&str) -> Value, "\"text_delta\"", "end_turn"),
        ("openai_responses", "/v1/responses", &responses, "event: response.output_text.delta", "completed"),
    ] {
        let id = |name: &str| format!("{api}-{name}");
        let wanted = ["whole", "reset", "limited"].map(|name| Ask::new(&id(name), path, body(name)));
        let seen = ask(Library::Httpx, &server.url(), &wanted);
        let whole = Expected {
            input: reported(&seen[0], "\"input_tokens\":"),
            output: reported(&seen[0], "\"output_tokens\":"),
            cached: reported(&seen[0], "\"cache_read_input_tokens\":"),
            finish: &[finish],
            ..Expected::ok(api, "chat").model(MODEL).streamed(5)
        };
        assert!(whole.input > Some(0) && whole.output > Some(0), "{:#?}", seen[0]);
        whole.check_seen(&observer.line(&id("whole")), &seen[0], Some(("alpha ", "\"mega\"")));
        let sent = seen[1].count(delta);
        assert!((1..9).contains(&sent), "{:#?}", seen[1]);
        let line = observer.line(&id("reset"));
        assert_eq!((line.outcome.as_str(), line.token_events), ("truncated", Some(sent)), "{line:#?} {:#?}", seen[1]);
        let line = observer.line(&id("limited"));
        assert_eq!((line.outcome.as_str(), line.status), ("http_error", Some(429)), "{line:#?}");
    }
}

#[test]
fn aimock_cuts_and_refuses() {
    require!(kernel, aimock);
    let scratch = Scratch::new();
    let content = json!({"content": LONG});
    let refusal = json!({"error": {"message": "Rate limited", "type": "rate_limit_error"}, "status": 429});
    let fixtures = json!({"fixtures": [
        {"match": {"userMessage": "cut"}, "response": content, "truncateAfterChunks": 5},
        {"match": {"userMessage": "limited"}, "response": refusal},
    ]});
    let server = Server::aimock(&scratch.write("fixtures.json", &fixtures.to_string()), 10, 6);
    let observer = Observer::start(&[server.port()]);
    let wanted = [
        Ask::new("cut", CHAT, chat("cut", true)),
        Ask::new("limited", CHAT, chat("limited", true)),
        Ask::new("unknown", CHAT, chat("what no fixture has", false)),
    ];
    let seen = ask(Library::Fetch, &server.url(), &wanted);
    // How many of its chunks leave before it destroys the connection is Node's affair.
    let sent = seen[0].count(r#"{"content":""#);
    assert!((1..5).contains(&sent), "{:#?}", seen[0]);
    expect_truncated(&observer.line("cut"), &seen[0], sent);
    for seen in &seen[1..] {
        let line = observer.line(&seen.id);
        assert_eq!((line.outcome.as_str(), line.status), ("http_error", seen.status), "{line:#?}");
        seen.expect_times(&line, None);
    }
    assert_eq!(seen[1].status, Some(429));
}

/// An error within an answer that began well, and one before it.
#[test]
fn errors_of_an_engine() {
    require!(kernel, python);
    let server = Server::engines(Stack::Uvloop);
    let observer = Observer::start(&[server.port()]);
    let body = |stream: bool, sample: Value| {
        let mut body = chat("hello", stream);
        body["sample"] = sample;
        body
    };
    let wanted = [
        Ask::new("within", CHAT, body(true, json!({"tokens": 9, "error_at": 5}))),
        Ask::new("at-once", CHAT, body(true, json!({"tokens": 9, "error_at": 0}))),
        Ask::new("422", CHAT, body(false, json!({"status": 422}))),
        Ask::new("503", CHAT, body(false, json!({"status": 503}))),
    ];
    let seen = ask(Library::Httpx, &server.url(), &wanted);
    for (seen, events) in seen.iter().zip([5, 0]) {
        let line = observer.line(&seen.id);
        let error = Expected {
            outcome: "error_in_stream",
            response_model: None,
            ..Expected::ok("openai", "chat").model(MODEL)
        };
        Expected { response_model: Some(MODEL), ..error }.streamed(events).check(&line);
        assert_eq!(seen.count("word"), events, "{seen:#?}");
    }
    for seen in &seen[2..] {
        let line = observer.line(&seen.id);
        let error =
            Expected { outcome: "http_error", response_model: None, ..Expected::ok("openai", "chat").model(MODEL) };
        Expected { status: seen.id.parse().expect("a status"), ..error }.check_seen(&line, seen, None);
    }
    let metrics = observer.metrics();
    assert_eq!(metrics.sum("llm_requests_total", &[("outcome", "error_in_stream")]), 2.0);
    assert_eq!(metrics.sum("gen_ai_server_time_to_first_token_seconds_count", &[]), 0.0);
}

/// A server that is killed while it answers.
#[test]
fn a_server_that_dies() {
    require!(kernel, python);
    let mut server = Server::engines(Stack::Uvloop);
    let observer = Observer::start(&[server.port()]);
    let mut body = chat("hello", true);
    body["sample"] = json!({"tokens": 1000, "interval_ms": 5});
    let url = server.url();
    let client = std::thread::spawn(move || ask(Library::Httpx, &url, &[Ask::new("orphan", CHAT, body)]).remove(0));
    let chunks = || observer.metrics().sum("llm_requests_in_flight", &[]);
    wait::until("the request to be in flight", 2 * SOON, || (chunks() == 1.0).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(300));
    server.process.signal(libc::SIGKILL);
    let seen = client.join().expect("the client");
    let line = observer.line("orphan");
    expect_truncated(&line, &seen, seen.count("word"));
    wait::until("nothing to be in flight", SOON, || (chunks() == 0.0).then_some(()));
}
