//! Answers as a whole: streamed, in one piece, long, early, refused; and what a request's head says.

use crate::harness::{END, Host, STREAM_HEAD, at, chat, content, done, finish, ms, role};
use observer::{
    event::{Data, Direction},
    request::record::{Operation, Outcome},
};

#[test]
fn a_streamed_answer() {
    let mut host = Host::new();
    let request = chat(true);
    host.arrive(0.5, request.len());
    host.read(1.0, &request);
    assert_eq!(host.in_flight(), 1);
    host.write(100.0, STREAM_HEAD);
    host.write(100.5, role());
    host.write(101.0, content("a"));
    host.write(111.0, content("b"));
    host.write(131.0, content("c"));
    host.write(132.0, finish());
    host.write(133.0, done());
    assert!(host.said.records.is_empty());
    host.write(134.0, END);
    assert_eq!(host.in_flight(), 0);
    let record = host.record();
    assert_eq!((record.operation, record.outcome, record.status), (Operation::Chat, Outcome::Ok, Some(200)));
    let timeline = &record.timeline;
    let points =
        [timeline.arrive, timeline.read, timeline.ready, timeline.header, timeline.first, timeline.last, timeline.end];
    assert_eq!(points, [0.5, 1.0, 1.0, 100.0, 101.0, 131.0, 134.0].map(|time| Some(at(time))));
    assert!(!timeline.arrival_unknown && timeline.first_content.is_none() && timeline.head_of_line_until.is_none());
    assert_eq!((record.token_events, record.coalesced, record.stream), (Some(3), 0, Some(true)));
    assert_eq!(&*record.gaps.buckets, [0, 2, 0, 0]);
    assert_eq!((record.gaps.count, record.gaps.sum, record.gaps.max), (2, ms(30.0), ms(20.0)));
    assert_eq!(record.chunk_times, [101.0, 111.0, 131.0].map(at));
    assert_eq!(record.request_model.as_deref(), Some("asked"));
    assert_eq!(record.response_model.as_deref(), Some("served"));
    assert_eq!(record.finish_reasons.iter().map(|reason| &**reason).collect::<Vec<_>>(), ["stop"]);
    assert_eq!(record.request_bytes, request.len() as u64);
    assert_eq!(record.response_bytes, u64::from(host.sent.wrapping_sub(12345)));
    assert_eq!((&*record.connection.workload, record.connection.pid), ("vllm:8000", 42));
}

#[test]
fn an_answer_in_one_piece() {
    let body = r#"{"id":"x","object":"chat.completion","model":"served","choices":[{"index":0,"message":{"role":"assistant","content":"hi \"usage\":{\"prompt_tokens\":9}"},"finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":1}}}"#;
    let mut host = Host::new();
    host.read(1.0, chat(false));
    host.write(
        5.0,
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len()),
    );
    host.write(6.0, body);
    let record = host.record();
    assert_eq!((record.outcome, record.stream, record.token_events), (Outcome::Ok, Some(false), None));
    assert_eq!((record.usage.input, record.usage.output, record.usage.cached_input), (Some(3), Some(4), Some(1)));
    assert_eq!(record.response_model.as_deref(), Some("served"));
    assert_eq!(&*record.finish_reasons[0], "length");
    assert_eq!((record.timeline.first, record.timeline.last), (None, None));
    assert_eq!((record.timeline.header, record.timeline.end), (Some(at(5.0)), Some(at(6.0))));
    assert!(record.timeline.arrival_unknown);
}

#[test]
fn a_long_answer_with_a_hole() {
    let text = "word \\\"usage\\\":{ ".repeat(2000);
    let body = format!(
        r#"{{"choices":[{{"index":0,"message":{{"content":"{text}"}},"finish_reason":"stop"}}],"model":"served","usage":{{"prompt_tokens":3,"completion_tokens":4}}}}"#
    );
    let mut host = Host::new();
    host.read(1.0, chat(false));
    let response =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    host.captured(Direction::Send, 5.0, response.as_bytes());
    let record = host.record();
    assert_eq!((record.outcome, record.usage.input, record.usage.output), (Outcome::Ok, Some(3), Some(4)));
    assert_eq!(record.response_model.as_deref(), Some("served"));
    assert_eq!(&*record.finish_reasons[0], "stop");
    assert_eq!(host.said.uncaptured[Direction::Send as usize], response.len() as u64 - 4608);
    assert_eq!(host.said.gap, [0, 0]);
}

#[test]
fn errors_and_other_requests() {
    let mut host = Host::new();
    host.read(0.0, "GET /health HTTP/1.1\r\n\r\n");
    host.write(1.0, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    host.read(2.0, chat(true));
    host.write(3.0, "HTTP/1.1 503 Loading\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
    assert_eq!(host.said.others, 1);
    assert_eq!((host.record().outcome, host.record().status), (Outcome::HttpError, Some(503)));
}

#[test]
fn an_early_response_has_no_ready() {
    let mut host = Host::new();
    host.read(0.0, "POST /v1/completions HTTP/1.1\r\nContent-Length: 100\r\n\r\n{");
    host.write(1.0, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    host.read(2.0, [b'x'; 99]);
    let record = host.record();
    assert_eq!((record.outcome, record.timeline.ready), (Outcome::HttpError, None));
    host.read(3.0, chat(false));
    host.write(4.0, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(host.said.records[1].outcome, Outcome::Ok);
}

#[test]
fn unsent_stamps_are_counted_by_write() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    let first = format!("{STREAM_HEAD}{}{}", content("a"), content("b"));
    host.data(&Data { unsent: 9, ..host.call(Direction::Send, 1.0, first.as_bytes()) });
    host.write(2.0, content("c"));
    host.data(&Data { unsent: 9, ..host.call(Direction::Send, 3.0, END.as_bytes()) });
    assert_eq!((host.record().unsent_stamps, host.record().chunk_unsent.as_slice()), (2, [0, 1].as_slice()));
}

#[test]
fn ids_of_the_request() {
    let mut host = Host::new();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    host.read(
        0.0,
        format!(
            "POST /v1/completions HTTP/1.1\r\nX-Request-Id: r-1\r\ntraceparent: 00-{trace}-00f067aa0ba902b7-01\r\n\r\n"
        ),
    );
    host.write(1.0, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((host.record().request_id.as_deref(), host.record().trace_id.as_deref()), (Some("r-1"), Some(trace)));
}
