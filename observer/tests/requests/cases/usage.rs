//! How many tokens: cases 13 to 16.

use crate::{
    harness::{END, STREAM_HEAD, at, chat, content, done, event, request},
    splits::Script,
};

fn counted(usage: &str) -> String {
    event(format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"ab"}}}}],"usage": {usage}}}"#))
}

fn stream(events: impl IntoIterator<Item = String>) -> (f64, Script) {
    let script = Script::default().read(0.0, chat(true)).write(1.0, STREAM_HEAD);
    let write = |(time, script): (f64, Script), event| (time + 10.0, script.write(time + 10.0, event));
    events.into_iter().fold((0.0, script), write)
}

#[test]
fn case_13_events_are_not_tokens() {
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":400,"completion_tokens_details":{"reasoning_tokens":7}}}"#;
    let (time, script) = stream((0..100).map(|_| content("abcd")));
    let script = script.write(time + 1.0, event(usage)).write(time + 2.0, [&*done(), END].concat());
    // A hundred events at every byte take long: here at some, and below three of them at every one.
    let said = script.splits_at(|length| (1..length).step_by(37).collect());
    let record = said.record();
    assert_eq!((record.usage.input, record.usage.output, record.usage.reasoning_output), (Some(9), Some(400), Some(7)));
    assert_eq!((record.token_events, record.gaps.count), (Some(100), 99));
    assert_eq!((record.timeline.first, record.timeline.last), (Some(at(10.0)), Some(at(1000.0))));

    let (time, script) = stream((0..3).map(|_| content("abcd")));
    let said = script.write(time + 1.0, event(usage)).write(time + 2.0, [&*done(), END].concat()).every_split();
    assert_eq!((said.record().token_events, said.record().usage.output), (Some(3), Some(400)));
}

#[test]
fn case_14_null_usage_on_all_but_the_last() {
    let (time, script) = stream((0..3).map(|_| counted("null ")));
    let last = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage" : { "prompt_tokens" : 9 , "completion_tokens" : 4 } }"#;
    let said = script.write(time + 1.0, event(last)).write(time + 2.0, END).every_split();
    let record = said.record();
    assert_eq!((record.usage.input, record.usage.output, record.token_events), (Some(9), Some(4), Some(3)));
    assert_eq!((record.usage.cached_input, record.usage.reasoning_output), (None, None));

    let (time, script) = stream((0..3).map(|_| counted(" null")));
    let said = script.write(time + 2.0, END).every_split();
    assert_eq!((said.record().usage.input, said.record().usage.output), (None, None), "absent is not zero");
}

#[test]
fn case_15_the_last_of_continuous_counts() {
    let usage = |n: u32| counted(&format!(r#"{{"prompt_tokens":9,"completion_tokens":{n}}}"#));
    let (time, script) = stream([1, 2, 5].map(usage));
    let said = script.write(time + 2.0, END).every_split();
    assert_eq!((said.record().usage.input, said.record().usage.output), (Some(9), Some(5)));
}

#[test]
fn case_16_last_token_usage_done_and_the_end() {
    let (time, script) = stream([content("a"), content("b")]);
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}"#;
    let said = script.write(time + 5.0, event(usage)).write(time + 6.0, done()).write(time + 7.0, END).every_split();
    let record = said.record();
    assert_eq!((record.timeline.last, record.timeline.end), (Some(at(20.0)), Some(at(27.0))));
    assert_eq!((record.token_events, record.usage.output), (Some(2), Some(2)));
}

#[test]
fn counts_in_the_head_of_an_answer() {
    let body = r#"{"generated_text":"ab"}"#;
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-prompt-tokens: 9\r\nx-generated-tokens: 4\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let asked = request("/generate", r#"{"inputs":"x"}"#);
    let said = Script::default().read(0.0, asked).write(1.0, head).write(2.0, body).every_split();
    let record = said.record();
    assert_eq!((record.api, record.usage.input, record.usage.output), ("tgi", Some(9), Some(4)));
    assert_eq!((record.stream, record.token_events), (Some(false), None));
}
