//! aimock, a Node server that others wrote, in its four shapes: OpenAI's chat and responses, Anthropic's messages,
//! Ollama's chat. Asked by Node's own fetch, streamed and not.

use observer_e2e::{
    clients::{Ask, Library, ask},
    expected::Expected,
    observer::Observer,
    require,
    scratch::Scratch,
    servers::Server,
    wait::SOON,
};
use serde_json::{Value, json};

const MODEL: &str = "o3-mini";
/// Characters of an event.
const SIZE: usize = 6;
const INPUT: u64 = 21;
const OUTPUT: u64 = 9;

fn fixtures() -> Value {
    let usage = json!({"prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT,
                       "input_tokens": INPUT, "output_tokens": OUTPUT});
    json!({"fixtures": [
        {"match": {"userMessage": "words"}, "response": {"content": "alpha beta gamma delta omega", "usage": usage}},
        {"match": {"userMessage": "think"},
         "response": {"content": "alpha beta gamma", "reasoning": "I consider it", "usage": usage}},
        {"match": {"userMessage": "call"},
         "response": {"toolCalls": [{"name": "get_weather", "arguments": {"city": "Berlin", "unit": "celsius"}}], "usage": usage}},
        {"match": {"inputText": "vector"}, "response": {"embedding": [0.25, -0.5, 0.125]}},
    ]})
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Chat,
    Responses,
    Messages,
    Ollama,
}

impl Shape {
    const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
            Self::Ollama => "/api/chat",
        }
    }

    const fn api(self) -> &'static str {
        match self {
            Self::Chat => "openai",
            Self::Responses => "openai_responses",
            Self::Messages => "anthropic",
            Self::Ollama => "ollama",
        }
    }

    fn body(self, message: &str, stream: bool) -> Value {
        let mut body = json!({"model": MODEL, "stream": stream});
        if self == Self::Responses {
            body["input"] = message.into();
        } else {
            body["messages"] = json!([{"role": "user", "content": message}]);
        }
        match self {
            Self::Chat => body["stream_options"] = json!({"include_usage": true}),
            Self::Messages => body["max_tokens"] = 99.into(),
            Self::Responses | Self::Ollama => {}
        }
        body
    }

    /// Ollama's shape reports zeroes, whatever the fixture says.
    const fn usage(self) -> (u64, u64) {
        if matches!(self, Self::Ollama) { (0, 0) } else { (INPUT, OUTPUT) }
    }

    const fn finish(self, called: bool) -> &'static [&'static str] {
        match self {
            Self::Chat if called => &["tool_calls"],
            Self::Chat | Self::Ollama => &["stop"],
            Self::Responses => &["completed"],
            Self::Messages if called => &["tool_use"],
            Self::Messages => &["end_turn"],
        }
    }
}

struct Case {
    message: &'static str,
    stream: bool,
    /// Token events.
    events: u64,
    /// Texts of the first and of the last one, as they stand in the JSON.
    tokens: (&'static str, &'static str),
    /// Text of the first one that is no reasoning.
    content: Option<&'static str>,
}

/// Text of 28 characters is five events, reasoning of 13 three, arguments of 34 six.
fn cases(shape: Shape) -> Vec<Case> {
    let words = |stream| Case { message: "words", stream, events: 5, tokens: ("alpha ", "\"mega\""), content: None };
    let arguments = ("{\\\"city", "us\\\"}\"");
    let (events, tokens) = match shape {
        // The name is an event of its own.
        Shape::Chat | Shape::Responses => (7, ("get_weather", arguments.1)),
        Shape::Messages => (6, arguments),
        Shape::Ollama => (1, ("get_weather", "get_weather")),
    };
    let call = |stream| Case { message: "call", stream, events, tokens, content: None };
    let mut all = vec![words(true), words(false), call(true), call(false)];
    // Ollama's own word for reasoning is another one than aimock's.
    if shape != Shape::Ollama {
        let content = Some("alpha ");
        all.push(Case { message: "think", stream: true, events: 6, tokens: ("I cons", "\"amma\""), content });
    }
    all
}

fn shape(shape: Shape) {
    let scratch = Scratch::new();
    let server = Server::aimock(&scratch.write("fixtures.json", &fixtures().to_string()), 8, SIZE);
    let mut observer = Observer::start(&[server.port()]);
    let cases = cases(shape);
    let id = |number: usize| format!("{shape:?}-{number}");
    let wanted =
        |(number, case): (usize, &Case)| Ask::new(&id(number), shape.path(), shape.body(case.message, case.stream));
    let wanted: Vec<Ask> = cases.iter().enumerate().map(wanted).collect();
    for (seen, case) in ask(Library::Fetch, &server.url(), &wanted).iter().zip(&cases) {
        let line = observer.line(&seen.id);
        let (input, output) = shape.usage();
        let base = Expected::ok(shape.api(), "chat").model(MODEL).usage(input, output);
        let base = if case.stream { base.streamed(case.events) } else { base };
        let tokens = case.stream.then_some(case.tokens);
        Expected { finish: shape.finish(case.message == "call"), ..base }.check_seen(&line, seen, tokens);
        let content = case.content.map(|text| seen.arrival(text, false) + 2_000_000);
        assert_eq!(line.t_first_content_ns.is_some(), content.is_some(), "{line:#?}");
        assert!(line.t_first_content_ns <= content, "{line:#?}");
    }
    assert_eq!(observer.lines_when(cases.len(), SOON).len(), cases.len());
    let metrics = observer.metrics();
    let streamed = cases.iter().filter(|case| case.stream).count();
    assert_eq!(metrics.sum("llm_requests_total", &[("outcome", "ok")]), cases.len() as f64);
    assert_eq!(metrics.sum("gen_ai_server_time_to_first_token_seconds_count", &[]), streamed as f64);
    let log = std::fs::read_to_string(&observer.log().0).expect("the log");
    for text in ["alpha", "consider", "Berlin", "get_weather"] {
        assert!(!log.contains(text), "{text} left the parser");
    }
    observer.stop(libc::SIGTERM);
}

#[test]
fn openai_chat() {
    require!(kernel, aimock);
    shape(Shape::Chat);
}

#[test]
fn openai_responses() {
    require!(kernel, aimock);
    shape(Shape::Responses);
}

#[test]
fn anthropic_messages() {
    require!(kernel, aimock);
    shape(Shape::Messages);
}

#[test]
fn ollama_chat() {
    require!(kernel, aimock);
    shape(Shape::Ollama);
}

#[test]
fn embeddings() {
    require!(kernel, aimock);
    let scratch = Scratch::new();
    let server = Server::aimock(&scratch.write("fixtures.json", &fixtures().to_string()), 0, SIZE);
    let observer = Observer::start(&[server.port()]);
    let body = || json!({"model": MODEL, "input": "a vector of this"});
    let wanted = [Ask::new("openai", "/v1/embeddings", body()), Ask::new("ollama", "/api/embed", body())];
    for (seen, api) in ask(Library::Fetch, &server.url(), &wanted).iter().zip(["plain", "ollama"]) {
        let line = observer.line(&seen.id);
        seen.expect_times(&line, None);
        assert_eq!((line.operation.as_str(), line.api.as_str()), ("embeddings", api), "{line:#?}");
        assert_eq!((line.outcome.as_str(), line.status), ("ok", seen.status), "{line:#?}");
        assert_eq!(line.request_model.as_deref(), Some(MODEL));
        assert_eq!((line.token_events.unwrap_or(0), line.output_tokens, line.t_first_ns), (0, None, None), "{line:#?}");
        let told = seen.count(MODEL) > 0;
        assert_eq!(line.response_model.is_some(), told, "{line:#?}");
    }
}
