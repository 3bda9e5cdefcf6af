//! What engines other than OpenAI's say, on the stack that carries most of them: each value of the request log against
//! what was asked for and what the client saw.

use observer_e2e::{
    clients::{Ask, Library, Seen, ask},
    expected::Expected,
    observer::Observer,
    require,
    servers::{Server, Stack},
    wait::SOON,
};
use serde_json::{Value, json};

const MODEL: &str = "acme/some-model";
const INPUT: u64 = 11;
const CACHED: Option<u64> = Some(3);
const WORDS: Option<(&str, &str)> = Some(("word0 ", "word"));

/// One request, and what shall be said of it.
struct Case {
    ask: Ask,
    expected: Expected<'static>,
    /// Texts of its first and last token, if it is streamed.
    tokens: Option<(&'static str, &'static str)>,
    /// Text of its first token that is no reasoning.
    content: Option<&'static str>,
}

fn case(id: &str, path: &str, body: Value, expected: Expected<'static>) -> Case {
    let tokens = if expected.stream { WORDS } else { None };
    Case { ask: Ask::new(id, path, body), expected, tokens, content: None }
}

/// Asks for all of them on one client, and checks each.
fn observe(library: Library, cases: &[Case]) -> (Vec<Seen>, Observer) {
    let server = Server::engines(Stack::Uvloop);
    let observer = Observer::start(&[server.port()]);
    let wanted: Vec<Ask> = cases.iter().map(|case| case.ask.clone()).collect();
    let seen = ask(library, &server.url(), &wanted);
    for (seen, case) in seen.iter().zip(cases) {
        let line = observer.line(&seen.id);
        case.expected.check_seen(&line, seen, case.tokens);
        let content = case.content.map(|text| seen.arrival(text, false));
        assert_eq!(line.t_first_content_ns.is_some(), content.is_some(), "{line:#?}");
        assert!(line.t_first_content_ns <= content.map(|time| time + 2_000_000), "{line:#?}");
        assert!(content.is_none() || line.t_first_content_ns > line.t_first_ns, "{line:#?}");
    }
    let lines = observer.lines_when(cases.len(), SOON);
    assert_eq!(lines.len(), cases.len(), "{lines:#?}");
    let metrics = observer.metrics();
    for stream in [true, false] {
        let wanted = |case: &&Case| case.expected.stream == stream && case.expected.outcome == "ok";
        let count = cases.iter().filter(wanted).count() as f64;
        if stream {
            assert_eq!(metrics.sum("gen_ai_server_time_to_first_token_seconds_count", &[]), count);
        }
    }
    assert_eq!(metrics.sum("observer_events_lost_total", &[]), 0.0);
    let log = std::fs::read_to_string(&observer.log().0).expect("the log");
    assert!(!log.contains("hello") && !log.contains("word") && !log.contains("thought"), "text left the parser");
    (seen, observer)
}

fn sample(tokens: u64) -> Value {
    json!({"tokens": tokens, "ttft_ms": 25})
}

#[test]
fn tgi() {
    require!(kernel, python);
    let body = |stream: bool, tokens| json!({"inputs": "hello", "parameters": {"details": true}, "stream": stream, "sample": sample(tokens)});
    let streamed = |tokens| {
        Expected { finish: &["length"], ..Expected::ok("tgi", "text_completion") }.streamed(tokens).usage(INPUT, tokens)
    };
    // The prompt's count stands in the head of the answer alone.
    let whole = |tokens| Expected { stream: false, events: None, ..streamed(tokens) };
    let mut failing = body(true, 9);
    failing["sample"]["error_at"] = 4.into();
    let error = Expected { outcome: "error_in_stream", ..Expected::ok("tgi", "text_completion") }.streamed(4);
    let (_, _observer) = observe(
        Library::Httpx,
        &[
            case("generate", "/generate", body(false, 6), whole(6)),
            case("stream", "/generate_stream", body(true, 7), streamed(7)),
            case("root", "/", body(false, 5), whole(5)),
            case("root-stream", "/", body(true, 8), streamed(8)),
            case("error", "/generate_stream", failing, error),
        ],
    );
}

/// Each event carries all of the text.
#[test]
fn sglang() {
    require!(kernel, python);
    let body = |stream: bool, tokens, padding| json!({"text": "hello", "stream": stream, "sample": {"tokens": tokens, "ttft_ms": 25, "padding": padding}});
    let streamed = |tokens| {
        let base = Expected::ok("sglang", "text_completion").usage(INPUT, tokens).streamed(tokens);
        Expected { finish: &["length"], cached: CACHED, ..base }
    };
    let (_, _observer) = observe(
        Library::Aiohttp,
        &[
            case("whole", "/generate", body(false, 6, 0), Expected { stream: false, events: None, ..streamed(6) }),
            case("stream", "/generate", body(true, 7, 0), streamed(7)),
        ],
    );
    // A long one's events are larger than what is captured of a call: how many are tokens may be unknown, when the
    // first and the last were sent is not.
    let server = Server::engines(Stack::Uvloop);
    let observer = Observer::start(&[server.port()]);
    let seen = ask(Library::Aiohttp, &server.url(), &[Ask::new("long", "/generate", body(true, 30, 600))]).remove(0);
    assert!(seen.body.len() > 30 * 600 * 15);
    let line = observer.line("long");
    let events = line.token_events;
    assert!(events.is_none_or(|events| events == 30), "{line:#?}");
    Expected { events, ..streamed(30) }.check(&line);
    for (name, at, text) in [("first", line.t_first_ns, "word0 "), ("last", line.t_last_ns, "word29 ")] {
        let came = seen.arrival(text, false);
        assert!(at.is_some_and(|at| (seen.sent_ns..=came + 2_000_000).contains(&at)), "{name} by {came}: {line:#?}");
    }
    assert!(line.t_last_ns.unwrap_or(0) - line.t_first_ns.unwrap_or(0) > 29 * 2_000_000, "{line:#?}");
}

#[test]
fn llamacpp() {
    require!(kernel, python);
    let body = |stream: bool, progress: bool, tokens| {
        let asked = json!({"prompt": "hello", "stream": stream, "return_progress": progress, "n_predict": tokens});
        let mut body = asked;
        body["input_prefix"] = "hello".into();
        body["input_suffix"] = "hello".into();
        body["model"] = MODEL.into();
        body["sample"] = sample(tokens);
        body
    };
    let streamed = |tokens| {
        let base = Expected::ok("llamacpp", "text_completion").model(MODEL).usage(INPUT, tokens).streamed(tokens);
        Expected { finish: &["limit"], cached: CACHED, ..base }
    };
    let whole = |tokens| Expected { stream: false, events: None, ..streamed(tokens) };
    let (seen, _observer) = observe(
        Library::Fetch,
        &[
            case("whole", "/completion", body(false, false, 6), whole(6)),
            case("stream", "/completion", body(true, false, 7), streamed(7)),
            case("progress", "/completion", body(true, true, 8), streamed(8)),
            case("infill", "/infill", body(true, false, 5), streamed(5)),
            case("infill-whole", "/infill", body(false, false, 4), whole(4)),
        ],
    );
    assert_eq!(seen[2].count("prompt_progress"), 4);
}

#[test]
fn triton() {
    require!(kernel, python);
    let body = |tokens| json!({"text_input": "hello", "max_tokens": tokens, "sample": sample(tokens)});
    let expected = Expected {
        request_model: Some("ensemble"),
        response_model: Some("ensemble"),
        ..Expected::ok("triton", "text_completion")
    };
    // The client counts what the server does not.
    let (_, _observer) = observe(
        Library::Aiohttp,
        &[
            case("whole", "/v2/models/ensemble/generate", body(6), expected.clone()),
            case("stream", "/v2/models/ensemble/generate_stream", body(7), expected.streamed(7)),
        ],
    );
}

#[test]
fn anthropic() {
    require!(kernel, python);
    let body = |stream: bool, sample: Value| {
        json!({"max_tokens": 99, "messages": [{"role": "user", "content": "hello"}], "model": MODEL, "stream": stream,
               "system": "hello", "sample": sample})
    };
    let streamed = |tokens| {
        // Fresh, from the cache and into the cache are counted apart; input is all of them.
        let base = Expected::ok("anthropic", "chat").model(MODEL).usage(INPUT + 3, tokens).streamed(tokens);
        Expected { finish: &["max_tokens"], cached: CACHED, ..base }
    };
    let failing = json!({"tokens": 9, "error_at": 5});
    let error = Expected { outcome: "error_in_stream", output: None, finish: &[], ..streamed(5) };
    let thinking = json!({"tokens": 6, "thoughts": 4, "ttft_ms": 25});
    let cases = |prefix: &str| {
        let id = |name: &str| format!("{prefix}-{name}");
        let whole = Expected { stream: false, events: None, ..streamed(6) };
        vec![
            case(&id("whole"), "/v1/messages", body(false, sample(6)), whole),
            case(&id("stream"), "/v1/messages", body(true, sample(7)), streamed(7)),
            Case {
                tokens: Some(("thought0 ", "word")),
                content: Some("word0 "),
                ..case(&id("thinking"), "/v1/messages", body(true, thinking.clone()), streamed(10))
            },
        ]
    };
    let (_, _observer) = observe(Library::Anthropic, &cases("library"));
    let mut by_httpx = cases("httpx");
    by_httpx.push(case("error", "/v1/messages", body(true, failing), error));
    let (seen, _observer) = observe(Library::Httpx, &by_httpx);
    assert_eq!(seen[1].count("event: ping"), 1);
}

#[test]
fn ollama() {
    require!(kernel, python);
    let chat =
        |sample: Value| json!({"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "sample": sample});
    let generate = |sample: Value| json!({"model": MODEL, "prompt": "hello", "sample": sample});
    let whole = |mut body: Value| {
        body["stream"] = false.into();
        body
    };
    let streamed = |operation, tokens| {
        let base = Expected::ok("ollama", operation).model(MODEL).usage(INPUT, tokens).streamed(tokens);
        Expected { finish: &["length"], ..base }
    };
    let not_streamed = |operation, tokens| Expected { stream: false, events: None, ..streamed(operation, tokens) };
    let thinking = json!({"tokens": 6, "thoughts": 4, "ttft_ms": 25});
    let failing = json!({"tokens": 9, "error_at": 3});
    let error = Expected { outcome: "error_in_stream", input: None, output: None, finish: &[], ..streamed("chat", 3) };
    let (seen, _observer) = observe(
        Library::Aiohttp,
        &[
            // Nobody asked for a stream: it is the default.
            case("chat", "/api/chat", chat(sample(7)), streamed("chat", 7)),
            case("chat-whole", "/api/chat", whole(chat(sample(5))), not_streamed("chat", 5)),
            case("generate", "/api/generate", generate(sample(8)), streamed("text_completion", 8)),
            case("generate-whole", "/api/generate", whole(generate(sample(4))), not_streamed("text_completion", 4)),
            Case {
                tokens: Some(("thought0 ", "word")),
                content: Some("word0 "),
                ..case("thinking", "/api/chat", chat(thinking), streamed("chat", 10))
            },
            case("error", "/api/chat", chat(failing), error),
        ],
    );
    assert_eq!(seen[0].count("\n"), 8, "lines of JSON");
}

/// Loading a model is no generation, whoever asks.
#[test]
fn ollama_loads_a_model() {
    require!(kernel, python);
    let server = Server::engines(Stack::Uvloop);
    let observer = Observer::start(&[server.port()]);
    let wanted = [
        Ask::new("load-1", "/api/generate", json!({"model": MODEL})),
        Ask::new("load-2", "/api/chat", json!({"model": MODEL, "messages": []})),
        Ask::new("after", "/api/generate", json!({"model": MODEL, "prompt": "hello", "sample": sample(3)})),
    ];
    let seen = ask(Library::Aiohttp, &server.url(), &wanted);
    assert!(seen[..2].iter().all(|seen| seen.count("done_reason\":\"load") == 1), "{seen:#?}");
    assert_eq!(observer.line("after").token_events, Some(3));
    let metrics = observer.metrics();
    assert_eq!(metrics.sum("gen_ai_server_time_to_first_token_seconds_count", &[]), 1.0);
    assert_eq!(metrics.sum("llm_requests_total", &[]), 1.0, "{:#?}", observer.lines());
}

#[test]
fn work_that_generates_nothing() {
    require!(kernel, python);
    let body = |more: Value| {
        let mut body = json!({"model": MODEL, "sample": {"tokens": 2, "ttft_ms": 5}});
        let (all, more) = (body.as_object_mut().expect("an object"), more.as_object().expect("an object").clone());
        all.extend(more);
        body
    };
    let known = |api, operation| Expected { input: Some(INPUT), ..Expected::ok(api, operation).model(MODEL) };
    let unknown = |operation| Expected { response_model: None, input: None, ..known("plain", operation) };
    let query = || json!({"query": "hello", "documents": ["hello"], "texts": ["hello"]});
    let cases = [
        ("/v1/embeddings", json!({"input": "hello"}), known("plain", "embeddings")),
        ("/api/embed", json!({"input": "hello"}), known("ollama", "embeddings")),
        ("/v1/rerank", query(), known("plain", "rerank")),
        ("/rerank", query(), unknown("rerank")),
        ("/v1/score", json!({"text_1": "hello", "text_2": "hello"}), known("plain", "score")),
        ("/classify", json!({"input": "hello"}), known("plain", "classify")),
        ("/pooling", json!({"input": "hello"}), known("plain", "pooling")),
        ("/tokenize", json!({"prompt": "hello"}), unknown("tokenize")),
        ("/detokenize", json!({"tokens": [1, 2]}), unknown("detokenize")),
        ("/v1/messages/count_tokens", json!({"messages": []}), unknown("count_tokens")),
    ]
    .map(|(path, more, expected)| case(path, path, body(more), expected));
    let (_, observer) = observe(Library::Httpx, &cases);
    let metrics = observer.metrics();
    for operation in ["chat", "text_completion"] {
        assert_eq!(metrics.sum("llm_requests_total", &[("gen_ai_operation_name", operation)]), 0.0);
    }
    assert_eq!(metrics.sum("llm_requests_total", &[]), cases.len() as f64);
}
