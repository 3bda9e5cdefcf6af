//! Long calls are captured in part. A hole in a call that was seen hides what happened, and not when: what is reported
//! in spite of it is what a run without holes reports.

use std::cell::Cell;

use observer::{
    event::{Data, Direction, StateChange},
    request::record::{IncompleteReason, Outcome, RequestRecord},
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::harness::{Host, STREAM_HEAD, at, chat, chunk, content, delta, done, event, finish, ms, request};

const LINES_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
const END: &str = crate::harness::END;

/// A content event as with `logprobs` and many alternatives: longer than what is captured of one call.
fn long(delta_text: &str, more: &str) -> String {
    let logprobs = r#"{"token":"abc","logprob":-1.5,"bytes":[97,98,99]},"#.repeat(200);
    event(format!(
        r#"{{"id":"c","model":"served","choices":[{{"index":0,"delta":{delta_text},"logprobs":{{"content":[{logprobs}{{}}]}}{more}}}]}}"#
    ))
}

fn begin(head: &str) -> Host {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(1.0, head);
    host
}

fn write(host: &mut Host, time: f64, bytes: impl AsRef<[u8]>) {
    host.captured(Direction::Send, time, bytes.as_ref());
}

fn assert_token_gap(host: &Host, why: &str) {
    assert_eq!(host.record().incomplete, Some(IncompleteReason::TokenGap), "{why}");
    assert_eq!((host.record().token_events, host.record().coalesced), (None, 0), "{why}");
}

#[test]
fn events_longer_than_what_is_captured_have_exact_times() {
    let mut host = begin(STREAM_HEAD);
    for n in 0..4 {
        write(&mut host, 10.0 + 10.0 * f64::from(n), long(r#"{"content":"a"}"#, ""));
    }
    write(&mut host, 50.0, content("b"));
    write(&mut host, 60.0, long(r#"{"content":"a"}"#, r#","finish_reason":"stop""#));
    write(&mut host, 61.0, event(r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":6}}"#));
    write(&mut host, 62.0, [&*done(), END].concat());
    let record = host.record();
    assert_eq!((record.outcome, record.token_events), (Outcome::Ok, None), "how many events is not known");
    assert_eq!((record.timeline.first, record.timeline.last), (Some(at(10.0)), Some(at(60.0))));
    assert_eq!((record.gaps.count, record.gaps.sum, record.gaps.max), (5, ms(50.0), ms(10.0)));
    assert_eq!((record.usage.input, record.usage.output), (Some(3), Some(6)));
    assert_eq!(record.finish_reasons.iter().map(|reason| &**reason).collect::<Vec<_>>(), ["stop"]);
    assert_eq!((record.coalesced, record.chunk_times.len()), (0, 0));
    assert_eq!(record.response_bytes, u64::from(host.sent.wrapping_sub(12345)));
}

#[test]
fn a_call_that_may_hold_a_token_and_may_not() {
    let prompt = event(format!(
        r#"{{"choices":[{{"index":0,"delta":{{"role":"assistant","content":""}}}}],"prompt_token_ids":[{}]}}"#,
        ["1234"; 2000].join(",")
    ));
    let rest = [content("b"), finish(), done(), END.to_owned()].concat();
    let mut host = begin(STREAM_HEAD);
    write(&mut host, 2.0, &prompt);
    write(&mut host, 3.0, &rest);
    assert_token_gap(&host, "the first token may be in the hole");

    let mut host = begin(STREAM_HEAD);
    write(&mut host, 2.0, content("a"));
    write(&mut host, 3.0, &prompt);
    write(&mut host, 4.0, &rest);
    assert_token_gap(&host, "it may split a gap");

    let mut host = begin(STREAM_HEAD);
    write(&mut host, 2.0, content("a"));
    write(&mut host, 3.0, &prompt);
    host.state(4.0, StateChange::Reset);
    assert_token_gap(&host, "it may be the last");

    for burst in [[content("a"), prompt.clone()], [prompt.clone(), content("a")]] {
        let mut host = begin(STREAM_HEAD);
        write(&mut host, 2.0, burst.concat());
        write(&mut host, 3.0, &rest);
        let record = host.record();
        assert_eq!((record.outcome, record.token_events), (Outcome::Ok, None));
        assert_eq!((record.timeline.first, record.timeline.last), (Some(at(2.0)), Some(at(3.0))));
        assert_eq!(record.gaps.count, 1);
    }
}

#[test]
fn an_event_that_goes_on_in_later_calls() {
    let token = long(r#"{"content":"a"}"#, "");
    let split = token.len() - 2000;
    let mut host = begin(STREAM_HEAD);
    write(&mut host, 2.0, &token[..split]);
    write(&mut host, 3.0, &token[split..]);
    write(&mut host, 4.0, [finish(), done(), END.to_owned()].concat());
    assert_token_gap(&host, "it may have ended in the hole, or after it");

    // The hole is in the call that ends it, whichever event that is.
    let mut host = begin(STREAM_HEAD);
    write(&mut host, 2.0, &token[..2000]);
    write(&mut host, 3.0, &token[2000..]);
    write(&mut host, 4.0, [finish(), done(), END.to_owned()].concat());
    assert_eq!((host.record().outcome, host.record().timeline.first), (Outcome::Ok, Some(at(3.0))));

    let mut host = begin(STREAM_HEAD);
    host.data(&Data {
        head: &token.as_bytes()[..4096],
        tail: &[],
        ..host.call(Direction::Send, 2.0, token.as_bytes())
    });
    write(&mut host, 4.0, [finish(), done(), END.to_owned()].concat());
    assert_eq!(host.record().outcome, Outcome::Incomplete, "its end was not seen");
}

#[test]
fn what_a_hole_may_hide_at_the_end() {
    let token = long(r#"{"content":"a"}"#, "");
    for (last, outcome, why) in [
        (END.to_owned(), Outcome::Incomplete, "an error may be hidden"),
        ([&*done(), END].concat(), Outcome::Incomplete, "that ends so, too"),
        ([&*content("b"), END].concat(), Outcome::Ok, "no token comes after an error"),
        ([&*finish(), END].concat(), Outcome::Ok, "nor a reason to finish"),
        ([&*event(r#"{"error":{"message":"x"}}"#), END].concat(), Outcome::ErrorInStream, "it is there"),
    ] {
        let mut host = begin(STREAM_HEAD);
        write(&mut host, 2.0, &token);
        write(&mut host, 3.0, last);
        assert_eq!(host.record().outcome, outcome, "{why}");
    }
    // A long error is the last event, and its beginning tells what it is.
    let mut host = begin(STREAM_HEAD);
    write(&mut host, 2.0, content("a"));
    write(&mut host, 3.0, event(format!(r#"{{"error":{{"message":"{}","code":500}}}}"#, "x".repeat(9000))));
    write(&mut host, 4.0, [&*done(), END].concat());
    let record = host.record();
    assert_eq!(
        (record.outcome, record.token_events, record.timeline.last),
        (Outcome::ErrorInStream, Some(1), Some(at(2.0)))
    );
}

#[test]
fn token_counts_that_may_be_old_are_none() {
    let counted = |n: u64| {
        let usage = format!(r#"{{"prompt_tokens":9,"completion_tokens":{n}}}"#);
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"ab\"}}}}],\"usage\":{usage}}}\n\n")
    };
    let burst = chunk((2..200).map(counted).collect::<String>());
    for (last, output) in [(finish(), None), (chunk(counted(200)), Some(200))] {
        let mut host = begin(STREAM_HEAD);
        write(&mut host, 2.0, chunk(counted(1)));
        let call = host.call(Direction::Send, 3.0, burst.as_bytes());
        host.data(&Data { head: &burst.as_bytes()[..1000], tail: b"\n\n\r\n", ..call });
        write(&mut host, 4.0, [&*last, END].concat());
        assert_eq!((host.record().outcome, host.record().timeline.last.is_some()), (Outcome::Ok, true));
        assert_eq!(host.record().usage.output, output);
    }
}

/// The first events of OpenAI's responses repeat instructions and tools of the request. Numbers show that the holes are
/// inside of them.
#[test]
fn numbered_events_show_that_none_is_hidden() {
    let echo = format!(r#""response":{{"model":"served","instructions":"{}","error":null}}"#, "x".repeat(20_000));
    let named = |name: &str, rest: &str, n: u64, name_first: bool| {
        let (name, n) = (format!(r#""type":"response.{name}""#), format!(r#""sequence_number":{n}"#));
        let fields = if name_first { [&*name, &*n, rest] } else { [rest, &*n, &*name] };
        format!("data: {{{}}}\n\n", fields.join(","))
    };
    for name_first in [true, false] {
        for coalesced in [false, true] {
            let delta = |n| named("output_text.delta", r#""delta":"a""#, n, name_first);
            let mut host = Host::new();
            host.read(0.0, request("/v1/responses", r#"{"input":"x","stream":true}"#));
            host.write(1.0, STREAM_HEAD);
            write(&mut host, 2.0, chunk(named("created", &echo, 0, name_first)));
            let mut begun = named("in_progress", &echo, 1, name_first);
            if coalesced {
                // The end of the call is another event's, and the hole has a third.
                begun += &(delta(2) + &named("content_part.added", &echo, 3, name_first));
            }
            write(&mut host, 3.0, chunk(begun));
            let next = if coalesced { 4 } else { 2 };
            for n in next..next + 3 {
                write(&mut host, 10.0 * n as f64, chunk(delta(n)));
            }
            let usage = r#""response":{"error":null,"usage":{"input_tokens":9,"output_tokens":4}}"#;
            write(&mut host, 99.0, chunk(named("completed", usage, next + 3, name_first)));
            write(&mut host, 100.0, END);
            if coalesced {
                assert_token_gap(&host, "a token event is in the hole");
                continue;
            }
            let record = host.record();
            assert_eq!((record.api, record.outcome, record.token_events), ("openai_responses", Outcome::Ok, Some(3)));
            assert_eq!((record.timeline.first, record.timeline.last), (Some(at(20.0)), Some(at(40.0))));
            assert_eq!((record.usage.input, record.usage.output), (Some(9), Some(4)));
        }
    }
}

#[test]
fn a_lost_call_has_no_time() {
    let mut host = begin(STREAM_HEAD);
    let token = chunk("data: {\"choices\":[{\"delta\":{\"content\":\"aaaaaaaaaa\"}}]}\n\n");
    let (front, rest) = token.split_at(30);
    write(&mut host, 2.0, front);
    host.sent = host.sent.wrapping_add(10);
    write(&mut host, 9.0, &rest[10..]);
    host.tick(100.0);
    write(&mut host, 101.0, [finish(), done(), END.to_owned()].concat());
    assert_token_gap(&host, "when it was handed over is not known");
}

#[test]
fn lines_with_holes() {
    let line = |text: &str| chunk(delta(text) + "\n");
    let padding = format!(r#""context":[{}]"#, ["123"; 3000].join(","));
    let mut host = begin(LINES_HEAD);
    write(&mut host, 2.0, line(&format!(r#"{{"content":"a",{padding}}}"#)));
    write(&mut host, 3.0, line(r#"{"content":"b"}"#));
    write(&mut host, 4.0, END);
    let record = host.record();
    assert_eq!((record.outcome, record.stream, record.token_events), (Outcome::Ok, Some(true), None), "{record:?}");
    assert_eq!((record.timeline.first, record.timeline.last), (Some(at(2.0)), Some(at(3.0))));
}

/// Kind, length of its text, usage or none.
type Part = (u8, usize, Option<u64>);

#[derive(Clone, Copy, PartialEq, Debug)]
enum Api {
    /// OpenAI's chat, as events and as lines.
    Events,
    Lines,
    /// OpenAI's responses: numbered events.
    Numbered,
    /// SGLang: each event repeats all text.
    Cumulative,
}

impl Api {
    fn request(self) -> String {
        match self {
            Self::Events | Self::Lines => chat(true),
            Self::Numbered => request("/v1/responses", r#"{"input":"x"}"#),
            Self::Cumulative => request("/generate", r#"{"text":"x"}"#),
        }
    }

    fn parts(self, parts: &[Part]) -> Vec<String> {
        let (mut number, mut tokens) = (0, 0);
        let parts = parts.iter().filter_map(|(kind, length, usage)| {
            let text = "ab\\n".repeat(length / 4);
            if *kind == 3 {
                return Some(if self == Self::Lines { "\n".to_owned() } else { format!(": ping {text}\n\n") });
            }
            let json = match self {
                Self::Events | Self::Lines if *kind == 8 => "[DONE]".to_owned(),
                Self::Events | Self::Lines => chat_part(*kind, &text, *usage),
                Self::Numbered => {
                    number += 1;
                    numbered_part(*kind, &text, number - 1, *usage)?
                }
                Self::Cumulative if *kind == 8 => "[DONE]".to_owned(),
                Self::Cumulative => {
                    // No progress now and then.
                    tokens += if matches!(kind, 1 | 2 | 9) { usage.unwrap_or(1) % 4 } else { 0 };
                    cumulative_part(*kind, &text, tokens)
                }
            };
            match self {
                Self::Lines if *kind == 8 => None,
                Self::Lines => Some(format!("{json}\n")),
                _ => Some(format!("data: {json}\n\n")),
            }
        });
        parts.collect()
    }
}

fn chat_part(kind: u8, text: &str, usage: Option<u64>) -> String {
    let usage = usage.map_or("null".to_owned(), |n| format!(r#"{{"prompt_tokens":9,"completion_tokens":{n}}}"#));
    let choice = |delta: String, finish: &str| {
        format!(
            r#"{{"model":"served","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}],"usage":{usage}}}"#
        )
    };
    match kind {
        0 => choice(format!(r#"{{"role":"assistant","content":"","padding":"{text}"}}"#), "null"),
        1 | 2 => choice(format!(r#"{{"reasoning":"hm{text}"}}"#), "null"),
        4 => choice(format!(r#"{{"reasoning":"hm","content":"x{text}"}}"#), "null"),
        5 => choice("{}".to_owned(), "\"stop\""),
        6 => format!(r#"{{"choices":[],"usage":{usage}}}"#),
        7 => format!(r#"{{"error":{{"message":"x{text}","code":500}}}}"#),
        _ => choice(format!(r#"{{"content":"x{text}"}}"#), "null"),
    }
}

fn numbered_part(kind: u8, text: &str, number: u64, usage: Option<u64>) -> Option<String> {
    let usage = usage.map_or("null".to_owned(), |n| format!(r#"{{"input_tokens":9,"output_tokens":{n}}}"#));
    let echo = format!(r#""response":{{"instructions":"{text}","error":null,"usage":{usage}}}"#);
    let (name, rest) = match kind {
        0 => ("response.in_progress", format!(r#""response":{{"instructions":"{text}","error":null,"usage":null}}"#)),
        1 | 2 => ("response.reasoning_text.delta", format!(r#""delta":"hm{text}""#)),
        4 => ("response.content_part.added", format!(r#""part":{{"text":"{text}"}}"#)),
        5 => ("response.output_item.done", format!(r#""item":{{"text":"{text}"}}"#)),
        6 => ("response.completed", echo),
        7 => ("error", format!(r#""message":"x{text}""#)),
        8 => return None,
        _ => ("response.output_text.delta", format!(r#""delta":"x{text}""#)),
    };
    let name = format!(r#""type":"{name}""#);
    // In either order, as servers have it.
    Some(if text.len().is_multiple_of(8) {
        format!(r#"{{{name},"sequence_number":{number},{rest}}}"#)
    } else {
        format!(r#"{{{rest},"sequence_number":{number},{name}}}"#)
    })
}

fn cumulative_part(kind: u8, text: &str, tokens: u64) -> String {
    let finish = if kind == 5 { r#"{"type":"stop"}"# } else { "null" };
    let text = if tokens > 0 { format!("x{text}") } else { String::new() };
    match kind {
        7 => r#"{"error":{"message":"x"}}"#.to_owned(),
        _ => format!(
            r#"{{"text":"{text}","meta_info":{{"id":"x","finish_reason":{finish},"prompt_tokens":5,"completion_tokens":{tokens}}}}}"#
        ),
    }
}

#[derive(Clone, Debug)]
struct Script {
    api: Api,
    parts: Vec<Part>,
    /// Events in each call, and whether it is cut anywhere rather than between events.
    calls: Vec<(usize, Option<prop::sample::Index>)>,
    /// Head and tail that are captured of each call.
    captured: Vec<(usize, usize)>,
    chunked: bool,
    /// How it ends, and after which call.
    ending: u8,
    until: prop::sample::Index,
}

fn script() -> impl Strategy<Value = Script> {
    let usage = || prop::option::weighted(0.3, 1..1000_u64);
    let body = prop::collection::vec(
        (0..5_u8, 0..300_usize, usage()).prop_map(|(kind, length, usage)| {
            // Content more often than anything else.
            (if kind == 0 && length > 100 { 9 } else { kind }, length, usage)
        }),
        1..12,
    );
    let tokens = prop::collection::vec((Just(9_u8), 0..300_usize, usage()), 0..8);
    let end = prop_oneof![
        3 => Just(vec![5, 6, 8]), 1 => Just(vec![5, 8]), 1 => Just(vec![8]), 1 => Just(vec![]), 1 => Just(vec![7, 8]),
        1 => Just(vec![7]), 1 => Just(vec![5]),
    ];
    let end = (end, 0..300_usize, usage())
        .prop_map(|(kinds, length, usage)| kinds.into_iter().map(|kind| (kind, length, usage)).collect::<Vec<_>>());
    let calls = prop::collection::vec((1..5_usize, prop::option::weighted(0.2, any::<prop::sample::Index>())), 1..24);
    let api = prop::sample::select(&[Api::Events, Api::Lines, Api::Numbered, Api::Cumulative][..]);
    let captured = prop::collection::vec((0..400_usize, 0..160_usize), 1..12);
    (api, body, tokens, end, calls, captured, any::<bool>(), 0..6_u8, any::<prop::sample::Index>()).prop_map(
        |(api, body, tokens, end, calls, captured, chunked, ending, until)| {
            let parts = [body, tokens, end].concat();
            Script { api, parts, calls, captured, chunked, ending, until }
        },
    )
}

impl Script {
    /// The response's content, call by call.
    fn content(&self) -> Vec<String> {
        let mut parts = self.api.parts(&self.parts).into_iter();
        let (mut calls, mut carried) = (Vec::new(), String::new());
        for (events, cut) in self.calls.iter().cycle() {
            let begun = calls.len();
            let call = std::mem::take(&mut carried) + &parts.by_ref().take(*events).collect::<String>();
            if call.is_empty() {
                break;
            }
            match cut {
                Some(cut) if call.len() > 1 => {
                    let (front, back) = call.split_at(1 + cut.index(call.len() - 1));
                    calls.push(front.to_owned());
                    back.clone_into(&mut carried);
                }
                _ => calls.push(call),
            }
            assert!(calls.len() > begun);
        }
        calls
    }

    fn run(&self, whole: bool) -> RequestRecord {
        let content = self.content();
        let length: usize = content.iter().map(String::len).sum();
        let kind = if self.api == Api::Lines { "application/x-ndjson" } else { "text/event-stream" };
        let framing =
            if self.chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {length}") };
        let mut host = Host::new();
        host.read(0.0, self.api.request());
        host.write(1.0, format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n"));
        let mut calls: Vec<_> =
            if self.chunked { content.iter().map(chunk).chain([END.to_owned()]).collect() } else { content };
        if self.ending > 2 {
            calls.truncate(self.until.index(calls.len()).max(1));
        }
        let mut time = 2.0;
        for (n, call) in calls.iter().enumerate() {
            time += 1.0 + (n * 7 % 5) as f64;
            let bytes = call.as_bytes();
            let (head, tail) = self.captured[n % self.captured.len()];
            let head = if whole { bytes.len() } else { head.min(bytes.len()) };
            let tail = tail.min(bytes.len() - head);
            let data = host.call(Direction::Send, time, bytes);
            host.data(&Data { head: &bytes[..head], tail: &bytes[bytes.len() - tail..], ..data });
        }
        match self.ending {
            4 => host.state(time + 1.0, StateChange::Reset),
            5 => {
                host.state(time + 0.5, StateChange::ClientFin);
                host.state(time + 1.0, StateChange::Closed);
            }
            _ => host.state(time + 1.0, StateChange::ServerFin),
        }
        host.state(time + 2.0, StateChange::Closed);
        host.record().clone()
    }
}

#[test]
fn whatever_a_hole_hides_nothing_wrong_is_reported() {
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    let [cut, told] = [const { Cell::new(0) }; 2];
    let check = |script: Script| {
        let (truth, record) = (script.run(true), script.run(false));
        prop_assert_ne!(truth.outcome, Outcome::Incomplete);
        if record.outcome == Outcome::Incomplete {
            prop_assert!(record.token_events.is_none() || record.incomplete == Some(IncompleteReason::TokenGap));
            return Ok(());
        }
        let hidden = record.token_events.is_none();
        cut.set(cut.get() + usize::from(hidden));
        told.set(told.get() + usize::from(hidden && record.gaps.count > 0));
        let line = |record: &RequestRecord| {
            let t = &record.timeline;
            format!("{:?} {:?} {:?} {:?} {:?} {:?}", t.header, t.first, t.last, t.end, record.gaps, record.outcome)
        };
        prop_assert_eq!(line(&truth), line(&record));
        // What could not be told is absent.
        let known = |found: Option<u64>, truth: Option<u64>| found.is_none() || found == truth;
        prop_assert!(
            record.timeline.first_content.is_none() || record.timeline.first_content == truth.timeline.first_content
        );
        prop_assert!(known(record.usage.input, truth.usage.input) && known(record.usage.output, truth.usage.output));
        prop_assert!(known(record.token_events, truth.token_events));
        prop_assert!(hidden || record.coalesced == truth.coalesced);
        prop_assert!(record.response_model.is_none() || record.response_model == truth.response_model);
        prop_assert!(record.finish_reasons.iter().all(|reason| truth.finish_reasons.contains(reason)));
        Ok(())
    };
    runner.run(&script(), check).unwrap();
    assert!(cut.get() > 200 && told.get() > 100, "few runs tell anything: {cut:?}, {told:?}");
}
