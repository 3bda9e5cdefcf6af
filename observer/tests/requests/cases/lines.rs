//! Lines of JSON: case 24.

use observer::{
    event::StateChange,
    request::record::{Operation, Outcome},
};

use super::ttft;
use crate::{
    harness::{END, at, chunk, ms, request},
    splits::Script,
};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nTransfer-Encoding: chunked\r\n\r\n";

fn line(rest: &str) -> String {
    chunk(format!("{{\"model\":\"llama3.2\",\"created_at\":\"2026-01-01T00:00:00.1Z\",{rest}}}\n"))
}

fn message(content: &str) -> String {
    line(&format!(r#""message":{{"role":"assistant","content":"{content}"}},"done":false"#))
}

const LAST: &str = r#""message":{"role":"assistant","content":""},"done_reason":"stop","done":true,"total_duration":9,"prompt_eval_count":26,"prompt_eval_duration":130079000,"eval_count":298,"eval_duration":43"#;

#[test]
fn case_24_lines_without_a_stream_key() {
    let said = Script::default()
        .read(0.0, request("/api/chat", r#"{"model":"asked","messages":[{"role":"user","content":"hi"}]}"#))
        // Go writes head and first chunk at once.
        .write(10.0, format!("{HEAD}{}", message("The")))
        .write(20.0, message(" sky"))
        .write(30.0, [message(" is"), message(" \\\"blue\\\"\\n")].concat())
        .write(31.0, line(LAST))
        .write(32.0, END)
        .every_split();
    let record = said.record();
    assert_eq!((record.api, record.operation, record.outcome), ("ollama", Operation::Chat, Outcome::Ok));
    assert_eq!((record.stream, record.token_events, record.coalesced), (Some(true), Some(4), 1));
    assert_eq!((ttft(record), record.timeline.last, record.timeline.end), (ms(10.0), Some(at(30.0)), Some(at(32.0))));
    assert_eq!((record.usage.input, record.usage.output), (Some(26), Some(298)));
    assert_eq!((record.request_model.as_deref(), record.response_model.as_deref()), (Some("asked"), Some("llama3.2")));
    assert_eq!(&*record.finish_reasons[0], "stop");
}

#[test]
fn case_24_the_last_line_is_the_end_for_the_client() {
    let script = Script::default()
        .read(0.0, request("/api/chat", r#"{"model":"asked","messages":[]}"#))
        .write(10.0, format!("{HEAD}{}", message("The")));
    let done =
        script.clone().write(31.0, line(LAST)).state(31.5, StateChange::ClientFin).failed_write(32.0, libc::EPIPE);
    assert_eq!(done.every_split().record().outcome, Outcome::Ok);
    let left = script.clone().state(31.5, StateChange::ClientFin).failed_write(32.0, libc::EPIPE);
    assert_eq!(left.every_split().record().outcome, Outcome::Cancelled);
    let failed = script.write(20.0, chunk("{\"error\":\"model runner has unexpectedly stopped\"}\n")).write(21.0, END);
    assert_eq!(failed.every_split().record().outcome, Outcome::ErrorInStream);
}

#[test]
fn case_24_a_load_is_no_generation() {
    let answer = r#"{"model":"asked","created_at":"x","response":"","done":true,"done_reason":"load"}"#;
    for kind in ["application/x-ndjson", "application/json; charset=utf-8"] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", answer.len());
        let said = Script::default()
            .read(0.0, request("/api/generate", r#"{"model":"asked"}"#))
            .write(500.0, [&*head, answer].concat())
            .read(1000.0, request("/api/generate", r#"{"model":"asked","prompt":"hi"}"#))
            .write(1500.0, format!("{HEAD}{}{}{END}", line(r#""response":"The","done":false"#), line(LAST)))
            .every_split();
        assert_eq!(said.others, 1, "it is asked for as text is, and is a control");
        let record = said.record();
        assert_eq!((record.operation, record.token_events), (Operation::TextCompletion, Some(1)));
        assert_eq!((ttft(record), record.usage.output), (ms(500.0), Some(298)));
    }
}

/// The ids that an answer of `generate` ends with are longer than what is captured of a call.
#[test]
fn case_24_a_long_last_line_is_the_last() {
    let context = ["12345"; 2000].join(",");
    let last = line(&format!(
        r#""response":"","done":true,"done_reason":"stop","context":[{context}],"total_duration":9,"prompt_eval_count":26,"eval_count":2"#
    ));
    let mut host = crate::harness::Host::new();
    host.read(0.0, request("/api/generate", r#"{"model":"asked","prompt":"hi"}"#));
    host.write(10.0, format!("{HEAD}{}", line(r#""response":"The","done":false"#)));
    host.write(20.0, line(r#""response":" sky","done":false"#));
    host.captured(observer::event::Direction::Send, 30.0, last.as_bytes());
    host.write(31.0, END);
    let record = host.record();
    assert_eq!((record.outcome, record.token_events, record.timeline.last), (Outcome::Ok, Some(2), Some(at(20.0))));
    assert_eq!((record.usage.input, record.usage.output), (Some(26), Some(2)));
}
