//! What servers put on the wire, case by case.

use crate::harness::{END, Host, STREAM_HEAD, at, chat, chunk, content, delta, done, event, finish, ms, request, role};
use observer::{
    event::{Data, Direction, OpaqueReason},
    request::record::{Operation, Outcome, RequestRecord},
};

fn ttft(record: &RequestRecord) -> std::time::Duration {
    let (start, first) = (record.timeline.start(), record.timeline.first);
    first.zip(start).and_then(|(first, start)| first.since(start)).unwrap_or(std::time::Duration::MAX)
}

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
fn case_01_first_read_is_24_bytes() {
    let mut host = Host::new();
    let request = request("/openai/v1/chat/completions?x=1", r#"{"model":"asked","stream":true}"#);
    host.read(1.0, &request[..24]);
    host.read(2.0, &request[24..]);
    host.write(3.0, format!("{STREAM_HEAD}{}{}{END}", content("a"), done()));
    let record = host.record();
    assert_eq!((record.operation, record.outcome), (Operation::Chat, Outcome::Ok));
    assert_eq!((record.timeline.read, record.timeline.ready), (Some(at(1.0)), Some(at(2.0))));
    assert_eq!((record.timeline.header, record.timeline.first), (Some(at(3.0)), Some(at(3.0))));
}

#[test]
fn case_02_headers_and_body_in_many_reads_on_several_threads() {
    let mut host = Host::new();
    let body = format!(r#"{{"messages":[{{"content":"{}"}}],"model":"asked","stream":true}}"#, "x".repeat(60_000));
    let request = request("/v1/chat/completions", &body);
    let split = request.find("\r\n\r\n").unwrap() + 4;
    let mut calls: Vec<_> = Vec::new();
    host.read(1.0, &request[..split]);
    let base = host.received;
    for (n, part) in request.as_bytes()[split..].chunks(4000).enumerate() {
        let mut call = host.call(Direction::Receive, 2.0 + n as f64 / 10.0, part);
        call.sequence = base.wrapping_add(4000 * n as u32);
        calls.push(call);
    }
    let last = calls.last().unwrap().time;
    // Threads reserve out of order.
    for pair in calls.chunks_mut(2) {
        pair.reverse();
    }
    for call in &calls {
        host.data(call);
    }
    host.write(10.0, format!("{STREAM_HEAD}{}{END}", content("a")));
    let record = host.record();
    assert_eq!(record.outcome, Outcome::Ok);
    assert_eq!(record.request_model.as_deref(), Some("asked"));
    assert_eq!(record.timeline.ready, Some(last));
    assert_eq!(record.request_bytes, request.len() as u64);
}

#[test]
fn case_03_model_and_stream_in_a_hole() {
    let mut host = Host::new();
    let body = format!(
        r#"{{"messages":[{{"content":"{}"}}],"model":"asked","stream":true,"tools":["{}"]}}"#,
        "x".repeat(300_000),
        "y".repeat(50_000)
    );
    let request = request("/v1/chat/completions", &body);
    for part in request.as_bytes().chunks(65_536) {
        host.captured(Direction::Receive, 1.0, part);
    }
    host.write(2.0, format!("{STREAM_HEAD}{}{}{END}", content("a"), done()));
    let record = host.record();
    assert_eq!((record.outcome, record.stream), (Outcome::Ok, Some(true)));
    assert_eq!(record.request_model, None);
    assert_eq!(record.response_model.as_deref(), Some("served"));
    assert_eq!(record.request_bytes, request.len() as u64);
}

#[test]
fn case_04_a_model_in_user_text_is_never_used() {
    let mut host = Host::new();
    let evil = r#"\"model\":\"evil\",\"stream\":true,"#.repeat(400);
    let body = format!(r#"{{"messages":[{{"content":"{evil}","x":{{"model":"evil"}}}}],"model":"asked"}}"#);
    let request = request("/v1/chat/completions", &body);
    host.read(1.0, &request);
    host.write(2.0, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    host.captured(Direction::Receive, 3.0, request.as_bytes());
    host.write(4.0, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(host.said.records[0].request_model.as_deref(), Some("asked"));
    assert_eq!(host.said.records[1].request_model, None);
}

#[test]
fn case_05_and_06_the_role_is_no_token() {
    for (role_at, token_at) in [(2000.0, 2000.2), (5.0, 900.0)] {
        let mut host = Host::new();
        host.read(0.0, chat(true));
        host.write(1.0, STREAM_HEAD);
        host.write(role_at, role());
        host.write(token_at, content("a"));
        host.write(token_at, format!("{}{END}", done()));
        let record = host.record();
        assert_eq!(ttft(record), ms(token_at));
        assert_eq!(record.timeline.header, Some(at(1.0)));
        assert_eq!((record.token_events, record.gaps.count), (Some(1), 0));
    }
}

#[test]
fn case_07_role_and_content_in_every_delta() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(1.0, STREAM_HEAD);
    for n in 0..3 {
        host.write(5.0 + f64::from(n), event(delta(r#"{"role":"assistant","content":"a"}"#)));
    }
    host.write(9.0, END);
    assert_eq!(ttft(host.record()), ms(5.0));
    assert_eq!(host.record().token_events, Some(3));
}

#[test]
fn case_08_pings_are_neither_tokens_nor_gaps() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(1.0, STREAM_HEAD);
    host.write(2.0, chunk(": ping\n\n"));
    host.write(10.0, content("a"));
    host.write(11.0, chunk(":\n\n"));
    host.write(20.0, content("b"));
    host.write(30.0, END);
    let record = host.record();
    assert_eq!((ttft(record), record.token_events), (ms(10.0), Some(2)));
    assert_eq!((record.gaps.count, record.gaps.sum), (1, ms(10.0)));
}

#[test]
fn case_09_prefill_progress_is_no_token() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(1.0, STREAM_HEAD);
    let progress = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":null}}],"prompt_progress":{"total":9,"processed":1}}"#;
    host.write(2.0, event(progress));
    host.write(10.0, content("a"));
    host.write(30.0, END);
    assert_eq!((ttft(host.record()), host.record().token_events), (ms(10.0), Some(1)));
}

#[test]
fn case_10_two_events_in_one_write() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(1.0, STREAM_HEAD);
    host.write(5.0, content("a"));
    host.write(9.0, [content("b"), content("c")].concat());
    host.write(30.0, END);
    let record = host.record();
    assert_eq!((record.token_events, record.coalesced), (Some(3), 1));
    assert_eq!((record.gaps.count, record.gaps.sum), (1, ms(4.0)));
    assert_eq!(record.chunk_times, [5.0, 9.0, 9.0].map(at));
}

#[test]
fn case_11_reasoning_comes_first() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(1.0, STREAM_HEAD);
    for n in 0..180 {
        let key = if n % 2 == 0 { "reasoning" } else { "reasoning_content" };
        host.write(10.0 + 1000.0 * f64::from(n), event(delta(&format!(r#"{{"{key}":"hm","content":null}}"#))));
    }
    host.write(180_000.0, content("a"));
    host.write(180_001.0, content("b"));
    host.write(180_002.0, END);
    let record = host.record();
    assert_eq!((ttft(record), record.timeline.first_content), (ms(10.0), Some(at(180_000.0))));
    assert_eq!(record.token_events, Some(182));
}

#[test]
fn case_12_tool_calls_only() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(1.0, STREAM_HEAD);
    host.write(2.0, role());
    host.write(10.0, event(delta(r#"{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":""}}]}"#)));
    host.write(12.0, event(delta(r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\""}}]}"#)));
    host.write(13.0, event(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#));
    host.write(30.0, END);
    let record = host.record();
    assert_eq!((ttft(record), record.token_events, record.timeline.first_content), (ms(10.0), Some(2), None));
    assert_eq!(&*record.finish_reasons[0], "tool_calls");
}

#[test]
fn case_13_to_16_usage_is_the_servers() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(1.0, STREAM_HEAD);
    let usage =
        |usage: &str| event(format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"ab"}}}}],"usage": {usage}}}"#));
    for n in 1..=100 {
        let reported =
            if n % 2 == 0 { "null ".to_owned() } else { format!(r#"{{"prompt_tokens":9,"completion_tokens":{n}}}"#) };
        host.write(10.0 * f64::from(n), usage(&reported));
    }
    let last = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":400,"completion_tokens_details":{"reasoning_tokens":7}}}"#;
    host.write(2000.0, event(last));
    host.write(2001.0, done());
    host.write(2002.0, END);
    let record = host.record();
    assert_eq!((record.usage.input, record.usage.output, record.usage.reasoning_output), (Some(9), Some(400), Some(7)));
    assert_eq!(record.token_events, Some(100));
    assert_eq!((record.timeline.last, record.timeline.end), (Some(at(1000.0)), Some(at(2002.0))));
}

#[test]
fn case_17_the_end_in_one_send_or_three() {
    for parts in [vec![done(), "0\r\n".into(), "\r\n".into()], vec![[&*done(), END].concat()]] {
        let mut host = Host::new();
        host.read(0.0, chat(true));
        host.write(1.0, format!("{STREAM_HEAD}{}", content("a")));
        let mut time = 5.0;
        for part in parts {
            assert!(host.said.records.is_empty());
            time += 1.0;
            host.write(time, part);
        }
        assert_eq!((host.record().outcome, host.record().timeline.end), (Outcome::Ok, Some(at(time))));
    }
}

#[test]
fn case_18_an_error_in_the_stream() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(1.0, format!("{STREAM_HEAD}{}", content("a")));
    host.write(2.0, event(r#"{"error":{"message":"x","code":500}}"#));
    host.write(3.0, format!("{}{END}", done()));
    let record = host.record();
    assert_eq!((record.outcome, record.status, record.token_events), (Outcome::ErrorInStream, Some(200), Some(1)));
}

#[test]
fn case_21_a_one_byte_read_begins_the_next_request() {
    let mut host = Host::new();
    for start in [0.0, 100.0] {
        let request = chat(true);
        host.read(start, &request[..1]);
        host.read(start + 1.0, &request[1..]);
        host.write(start + 2.0, format!("{STREAM_HEAD}{}{END}", content("a")));
    }
    assert_eq!(host.said.records.len(), 2);
    assert_eq!(host.said.records[1].timeline.read, Some(at(100.0)));
    assert_eq!(host.said.records[1].outcome, Outcome::Ok);
}

#[test]
fn case_22_pipelined_requests_are_answered_in_order() {
    let mut host = Host::new();
    let two = [chat(true), request("/v1/completions", r#"{"model":"second"}"#)].concat();
    host.arrive(0.5, two.len());
    host.read(1.0, &two);
    assert_eq!(host.in_flight(), 2);
    host.write(5.0, format!("{STREAM_HEAD}{}{END}", content("a")));
    assert_eq!(host.in_flight(), 1);
    host.write(9.0, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
    let [first, second] = &host.said.records[..] else { panic!("{:?}", host.said) };
    assert_eq!((first.operation, first.timeline.head_of_line_until), (Operation::Chat, None));
    assert_eq!((second.operation, second.timeline.head_of_line_until), (Operation::TextCompletion, Some(at(5.0))));
    assert_eq!(second.request_model.as_deref(), Some("second"));
    assert_eq!((second.timeline.arrive, second.timeline.end), (Some(at(0.5)), Some(at(9.0))));
}

#[test]
fn case_23_an_interim_response_is_not_the_response() {
    let mut host = Host::new();
    let body = r#"{"model":"asked"}"#;
    host.read(
        0.0,
        format!("POST /v1/completions HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len()),
    );
    host.write(1.0, "HTTP/1.1 100 Continue\r\n\r\n");
    host.read(2.0, body);
    host.write(3.0, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let record = host.record();
    assert_eq!(
        (record.status, record.timeline.header, record.timeline.ready),
        (Some(200), Some(at(3.0)), Some(at(2.0)))
    );
    assert_eq!(record.request_model.as_deref(), Some("asked"));
}

#[test]
fn case_25_partial_writes_and_blocked_ones() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(1.0, STREAM_HEAD);
    let token = content("a");
    let (front, rest) = token.split_at(20);
    host.data(&Data { requested: Some(token.len() as u32), ..host.call(Direction::Send, 2.0, front.as_bytes()) });
    host.failed_write(2.5, libc::EAGAIN);
    host.write(7.0, rest);
    host.failed_write(8.0, libc::EAGAIN);
    host.failed_write(8.5, libc::EAGAIN);
    host.write(9.0, content("b"));
    host.write(10.0, END);
    let record = host.record();
    assert_eq!((ttft(record), record.token_events, record.write_blocked), (ms(7.0), Some(2), ms(6.0)));
}

#[test]
fn case_25_what_cannot_be_read_is_opaque() {
    let mut host = Host::bare();
    host.open(|open| open.opaque = Some(OpaqueReason::Tls));
    assert_eq!((host.said.opaque.as_slice(), host.tracker.connections()), ([OpaqueReason::Tls].as_slice(), 0));

    let mut host = Host::new();
    host.read(0.0, "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n");
    host.write(1.0, "HTTP/1.1 101 Switching Protocols\r\n\r\n\u{1}\u{2}");
    host.read(2.0, "POST /v1/completions HTTP/1.1\r\n\r\n");
    assert_eq!((host.said.opaque.as_slice(), host.said.others), ([OpaqueReason::Upgrade].as_slice(), 1));
    assert_eq!(host.in_flight(), 0);

    let mut host = Host::new();
    for time in [0.0, 10.0] {
        host.read(time, chat(true));
        let head = STREAM_HEAD.replacen("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n", 1);
        host.write(time + 1.0, head);
        host.write(time + 2.0, chunk("\u{1f}binary"));
        host.write(time + 3.0, END);
    }
    assert_eq!(host.said.opaque, [OpaqueReason::Compressed]);
    let record = &host.said.records[1];
    assert_eq!((record.outcome, record.token_events, record.timeline.first), (Outcome::Ok, None, None));
    assert_eq!((record.status, record.timeline.end), (Some(200), Some(at(13.0))));
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
