//! What servers report of tokens and of the end, in the words of each API, must be in the metrics.

use observer_e2e::{http::Client, observer::Observer, require, servers::Server, traffic};
use serde_json::json;

const CONTENT: u64 = 6;
const REASONING: u64 = 4;

/// One request, and what the metrics must say of it.
struct Case {
    path: &'static str,
    stream: bool,
    finish: &'static str,
    /// A part of the prompt came from a cache, which the API tells.
    cached: bool,
    /// There is reasoning, and the API tells how much.
    reasoning: bool,
}

const fn case(path: &'static str, stream: bool, finish: &'static str, cached: bool, reasoning: bool) -> Case {
    Case { path, stream, finish, cached, reasoning }
}

const CASES: &[Case] = &[
    case("/v1/chat/completions", true, "stop", true, true),
    case("/v1/chat/completions", false, "stop", true, true),
    case("/v1/completions", true, "stop", true, false),
    case("/v1/responses", true, "completed", true, true),
    case("/v1/responses", false, "completed", true, true),
    case("/v1/messages", true, "end_turn", true, false),
    case("/v1/messages", false, "end_turn", true, false),
    case("/api/chat", true, "stop", false, false),
    case("/api/chat", false, "stop", false, false),
    case("/generate_stream", true, "eos_token", false, false),
    case("/generate", true, "stop", true, false),
    case("/completion", true, "eos", true, false),
];

#[test]
fn reports_of_every_api_are_in_the_metrics() {
    require!(kernel, sample);
    // A server each: its port tells one request's samples from another's.
    let servers: Vec<_> = CASES.iter().map(|_| Server::sample(&[])).collect();
    let observer = Observer::start(&servers.iter().map(Server::port).collect::<Vec<_>>());
    let mut expected = Vec::new();
    for (index, (case, server)) in CASES.iter().zip(&servers).enumerate() {
        let mut body = json!({
            "model": "asked", "stream": case.stream, "stream_options": {"include_usage": true},
            "messages": [{"role": "user", "content": "as long as it takes to have some tokens"}],
            "sample": {"ttft_ms": 5, "interval_ms": 1, "tokens": CONTENT},
        });
        if case.path == "/generate_stream" {
            body["inputs"] = "Say it.".into();
        }
        if case.reasoning {
            body["sample"]["reasoning"] = REASONING.into();
        }
        let body = body.to_string();
        let mut client = Client::connect(server.address).expect("it listens");
        let answer = client.ask(&traffic::post(case.path, &index.to_string(), "", &body)).expect("an answer");
        assert_eq!(answer.status, 200, "{}: {}", case.path, answer.text());
        // The sample server counts four bytes as a token, and half of them as cached.
        let input = body.len() as u64 / 4;
        let output = CONTENT + if case.reasoning { REASONING } else { 0 };
        let cached = case.cached.then_some(input / 2);
        expected.push([Some(input), Some(output), cached, case.reasoning.then_some(REASONING)]);
    }
    for (index, case) in CASES.iter().enumerate() {
        assert_eq!(observer.line(&index.to_string()).outcome, "ok", "{}", case.path);
    }
    let metrics = observer.metrics();
    for ((case, server), tokens) in CASES.iter().zip(&servers).zip(expected) {
        let port = server.port().to_string();
        let said = format!("{} (stream: {})", case.path, case.stream);
        for (kind, count) in ["input", "output", "cached_input", "reasoning_output"].into_iter().zip(tokens) {
            let samples = metrics.select("llm_tokens_total", &[("server_port", &port), ("gen_ai_token_type", kind)]);
            let values: Vec<_> = samples.iter().map(|sample| sample.value).collect();
            let count: Vec<_> = count.into_iter().map(|count| count as f64).collect();
            assert_eq!(values, count, "{said}: {kind}: what nobody told is absent");
        }
        let reasons = metrics.select("llm_finish_reasons_total", &[("server_port", &port)]);
        assert_eq!(reasons.len(), 1, "{said}: {reasons:?}");
        let named = metrics.sum("llm_finish_reasons_total", &[("server_port", &port), ("finish_reason", case.finish)]);
        assert_eq!(named, 1.0, "{said}: {reasons:?}");
        for (family, count) in [("llm_prompt_tokens", tokens[0]), ("llm_completion_tokens", tokens[1])] {
            let get = |suffix: &str| metrics.sum(&format!("{family}_{suffix}"), &[("server_port", &port)]);
            assert_eq!((get("count"), get("sum")), (1.0, count.expect("told") as f64), "{said}: {family}");
        }
    }
}
