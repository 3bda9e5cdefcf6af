//! What is a token: cases 5 to 12.

use observer::request::record::Outcome;

use super::ttft;
use crate::{
    harness::{END, STREAM_HEAD, at, chat, chunk, content, delta, done, event, ms, request, role},
    splits::Script,
};

fn stream() -> Script {
    Script::default().read(0.0, chat(true)).write(1.0, STREAM_HEAD)
}

#[test]
fn case_05_and_06_the_role_is_no_token() {
    for (role_at, token_at) in [(2000.0, 2000.2), (5.0, 900.0)] {
        let script = stream().write(role_at, role()).write(token_at, content("a"));
        let said = script.write(token_at, format!("{}{END}", done())).every_split();
        let record = said.record();
        assert_eq!(ttft(record), ms(token_at));
        assert_eq!(record.timeline.header, Some(at(1.0)));
        assert_eq!((record.token_events, record.gaps.count), (Some(1), 0));
    }
}

#[test]
fn case_07_role_and_content_in_every_delta() {
    let token = event(delta(r#"{"role":"assistant","content":"a"}"#));
    let said = stream().write(5.0, &token).write(6.0, &token).write(7.0, &token).write(9.0, END).every_split();
    assert_eq!((ttft(said.record()), said.record().token_events), (ms(5.0), Some(3)));

    // As TGI words it: the end of the sequence is no text.
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let token = |text: &str, special: bool, rest: &str| {
        event(format!(r#"{{"index":1,"token":{{"id":2,"text":"{text}","logprob":-0.1,"special":{special}}},{rest}}}"#))
    };
    let last = r#""generated_text":"ab","details":{"finish_reason":"eos_token","generated_tokens":3,"input_length":5}"#;
    let said = Script::default()
        .read(0.0, request("/generate_stream", r#"{"inputs":"hi"}"#))
        .write(5.0, format!("{head}{}", token("a", false, r#""generated_text":null,"details":null"#)))
        .write(6.0, token("b", false, r#""generated_text":null,"details":null"#))
        .write(8.0, token("</s>", true, last))
        .write(9.0, END)
        .every_split();
    let record = said.record();
    assert_eq!((record.api, ttft(record), record.token_events), ("tgi", ms(5.0), Some(2)));
    assert_eq!((record.timeline.last, record.usage.input, record.usage.output), (Some(at(6.0)), Some(5), Some(3)));
}

#[test]
fn case_08_pings_are_neither_tokens_nor_gaps() {
    let said = stream()
        .write(2.0, chunk(": ping\n\n"))
        .write(10.0, content("a"))
        .write(11.0, chunk(":\n\n"))
        .write(20.0, content("b"))
        .write(30.0, END)
        .every_split();
    let record = said.record();
    assert_eq!((ttft(record), record.token_events), (ms(10.0), Some(2)));
    assert_eq!((record.gaps.count, record.gaps.sum), (1, ms(10.0)));
}

/// Pings as events; the first content block opens long before the first delta; no `[DONE]`.
#[test]
fn case_08_pings_of_anthropic() {
    let event = |name: &str, rest: &str| chunk(format!("event: {name}\ndata: {{\"type\":\"{name}\"{rest}}}\n\n"));
    let body =
        r#"{"max_tokens":9,"messages":[{"role":"user","content":"hi"}],"model":"asked","stream":true,"system":"x"}"#;
    let start = r#","message":{"id":"m","model":"served","content":[],"usage":{"input_tokens":25,"output_tokens":1}}"#;
    let text = |text: &str| {
        event("content_block_delta", &format!(r#","index":0,"delta":{{"type":"text_delta","text":"{text}"}}"#))
    };
    let said = Script::default()
        .read(0.0, request("/v1/messages", body))
        .write(1.0, format!("{STREAM_HEAD}{}", event("message_start", start)))
        .write(2.0, event("content_block_start", r#","index":0,"content_block":{"type":"text","text":""}"#))
        .write(3.0, event("ping", ""))
        .write(10.0, text("a"))
        .write(11.0, event("ping", ""))
        .write(20.0, text("b"))
        .write(21.0, event("content_block_stop", r#","index":0"#))
        .write(22.0, event("message_delta", r#","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}"#))
        .write(23.0, event("message_stop", ""))
        .write(24.0, END)
        .every_split();
    let record = said.record();
    assert_eq!((record.api, record.outcome, ttft(record)), ("anthropic", Outcome::Ok, ms(10.0)));
    assert_eq!((record.token_events, record.timeline.last), (Some(2), Some(at(20.0))));
    assert_eq!((record.usage.input, record.usage.output), (Some(25), Some(15)));
    assert_eq!((record.request_model.as_deref(), record.response_model.as_deref()), (Some("asked"), Some("served")));
}

#[test]
fn case_09_prefill_progress_is_no_token() {
    let progress = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":null}}],"prompt_progress":{"total":9,"processed":1}}"#;
    let said = stream().write(2.0, event(progress)).write(10.0, content("a")).write(30.0, END).every_split();
    assert_eq!((ttft(said.record()), said.record().token_events), (ms(10.0), Some(1)));
}

#[test]
fn case_10_two_events_in_one_write() {
    let said = stream()
        .write(5.0, content("a"))
        .write(9.0, [content("b"), content("c")].concat())
        .write(30.0, END)
        .every_split();
    let record = said.record();
    assert_eq!((record.token_events, record.coalesced), (Some(3), 1));
    assert_eq!((record.gaps.count, record.gaps.sum), (1, ms(4.0)));
    assert_eq!(record.chunk_times, [5.0, 9.0, 9.0].map(at));
}

#[test]
fn case_11_reasoning_comes_first() {
    let mut script = stream();
    for n in 0..9 {
        let key = if n % 2 == 0 { "reasoning" } else { "reasoning_content" };
        let reasoning = event(delta(&format!(r#"{{"{key}":"hm","content":null}}"#)));
        script = script.write(10.0 + 20_000.0 * f64::from(n), reasoning);
    }
    let said = script.write(180_000.0, content("a")).write(180_001.0, content("b")).write(180_002.0, END).every_split();
    let record = said.record();
    assert_eq!((ttft(record), record.timeline.first_content), (ms(10.0), Some(at(180_000.0))));
    assert_eq!(record.token_events, Some(11));
}

#[test]
fn case_12_tool_calls_only() {
    let call = |call: &str| event(delta(&format!(r#"{{"tool_calls":[{{"index":0,{call}}}]}}"#)));
    let said = stream()
        .write(2.0, role())
        .write(10.0, call(r#""id":"c","function":{"name":"f","arguments":""}"#))
        .write(12.0, call(r#""function":{"arguments":"{\""}"#))
        .write(13.0, event(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#))
        .write(30.0, END)
        .every_split();
    let record = said.record();
    assert_eq!((ttft(record), record.token_events, record.timeline.first_content), (ms(10.0), Some(2), None));
    assert_eq!(&*record.finish_reasons[0], "tool_calls");
}

/// SGLang repeats the text from its beginning, in the last event without any more of it.
#[test]
fn an_event_that_repeats_the_text_is_no_token() {
    let text = |text: &str, tokens: u32, finish: &str| {
        event(format!(
            r#"{{"text":"{text}","meta_info":{{"id":"x","finish_reason":{finish},"prompt_tokens":5,"completion_tokens":{tokens}}}}}"#
        ))
    };
    let script = Script::default()
        .read(0.0, request("/generate", r#"{"text":"hi","stream":true}"#))
        .write(1.0, STREAM_HEAD)
        .write(2.0, text("", 0, "null"))
        .write(10.0, text("a", 1, "null"))
        .write(20.0, text("a b", 3, "null"))
        .write(30.0, text("a b", 3, r#"{"type":"stop","matched":2}"#))
        .write(31.0, [&*done(), END].concat());
    let said = script.every_split();
    let record = said.record();
    assert_eq!((record.api, record.outcome, record.token_events), ("sglang", Outcome::Ok, Some(2)));
    assert_eq!((ttft(record), record.timeline.last, record.usage.output), (ms(10.0), Some(at(20.0)), Some(3)));
    assert_eq!(&*record.finish_reasons[0], "stop");
}
