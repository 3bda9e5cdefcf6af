//! What is not captured makes a request incomplete or is skipped by arithmetic; it is never guessed.

use observer::{
    event::{Data, Direction, StateChange},
    request::record::{IncompleteReason, Outcome},
};

use crate::harness::{END, Host, STREAM_HEAD, chat, chunk, content, delta, done, event, request};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// The call's payload was not captured.
fn blind<'a>(call: Data<'a>) -> Data<'a> {
    Data { head: &[], tail: &[], ..call }
}

fn reason(host: &Host) -> Option<IncompleteReason> {
    let record = host.record();
    assert_eq!(record.outcome == Outcome::Incomplete, record.incomplete.is_some());
    assert!(record.incomplete.is_none_or(|_| record.token_events.is_none()), "an unknown count is none: {record:?}");
    record.incomplete
}

#[test]
fn a_lost_token_write_hides_chunk_boundaries() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(1.0, format!("{STREAM_HEAD}{}", content("a")));
    host.data(&blind(host.call(Direction::Send, 2.0, content("b").as_bytes())));
    host.write(3.0, content("c"));
    host.write(4.0, format!("{}{END}", done()));
    assert!(host.said.records.is_empty(), "where it ends cannot be told");
    assert_eq!(host.in_flight(), 0, "nor that it is still under way");
    host.read(10.0, chat(true));
    assert_eq!(reason(&host), Some(IncompleteReason::FramingGap));
    assert_eq!(host.in_flight(), 1);
    host.write(11.0, format!("{STREAM_HEAD}{}{END}", content("a")));
    assert_eq!((host.said.records[1].outcome, host.said.records[1].token_events), (Outcome::Ok, Some(1)));
    assert_eq!(host.said.uncaptured[1], content("b").len() as u64);
}

#[test]
fn a_long_event_without_a_hole_is_a_token() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(1.0, STREAM_HEAD);
    let long = event(delta(&format!(r#"{{"content":"{}"}}"#, "x".repeat(100_000))));
    for part in long.as_bytes().chunks(4000) {
        host.write(2.0, part);
    }
    host.write(3.0, END);
    assert_eq!((host.record().outcome, host.record().token_events), (Outcome::Ok, Some(1)));

    // What is kept of it does not show whether it is one.
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(1.0, STREAM_HEAD);
    let long = event(format!(r#"{{"x":"{}","choices":[]}}"#, "x".repeat(100_000)));
    for part in long.as_bytes().chunks(4000) {
        host.write(2.0, part);
    }
    host.write(3.0, END);
    assert_eq!(reason(&host), Some(IncompleteReason::TokenGap));
}

#[test]
fn a_hole_in_the_response_head() {
    let mut host = Host::new();
    host.read(0.0, chat(false));
    host.data(&blind(host.call(Direction::Send, 2.0, OK.as_bytes())));
    host.state(3.0, StateChange::Closed);
    assert_eq!(reason(&host), Some(IncompleteReason::HeadGap));
    assert_eq!(host.record().status, None);
}

#[test]
fn a_hole_in_the_request_head() {
    let mut host = Host::new();
    let long = format!("POST /v1/completions HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(9000));
    host.captured(Direction::Receive, 0.0, long.as_bytes());
    assert_eq!(host.in_flight(), 1);
    host.write(2.0, OK);
    assert_eq!(reason(&host), Some(IncompleteReason::HeadGap));
    assert_eq!(host.record().status, Some(200));
}

#[test]
fn a_request_without_payload_takes_nothing_with_it() {
    let mut host = Host::new();
    host.read(0.0, chat(false));
    host.write(1.0, OK);
    host.data(&blind(host.call(Direction::Receive, 10.0, chat(false).as_bytes())));
    host.write(11.0, OK);
    host.tick(20.0);
    host.read(30.0, chat(false));
    host.write(31.0, OK);
    assert_eq!(host.said.records.len(), 2);
    assert!(host.said.records.iter().all(|record| record.outcome == Outcome::Ok));
}

#[test]
fn lost_framing_of_a_chunked_request() {
    let mut host = Host::new();
    let head = "POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    host.read(0.0, format!("{head}{}", chunk("{\"model\":\"asked\",")));
    host.data(&blind(host.call(Direction::Receive, 1.0, chunk("1}").as_bytes())));
    host.read(2.0, END);
    host.write(3.0, OK);
    assert_eq!(reason(&host), Some(IncompleteReason::FramingGap));
    host.read(4.0, chat(false));
    host.write(5.0, OK);
    assert_eq!(host.said.records[1].outcome, Outcome::Ok);
}

#[test]
fn pipelining_and_loss_leave_nothing_to_trust() {
    let mut host = Host::new();
    host.read(0.0, [chat(false), chat(false)].concat());
    host.data(&blind(host.call(Direction::Send, 1.0, OK.as_bytes())));
    host.write(2.0, OK);
    host.read(3.0, chat(false));
    host.write(4.0, OK);
    assert_eq!(host.said.records.len(), 3);
    assert!(host.said.records.iter().all(|record| record.outcome == Outcome::Incomplete));
}

#[test]
fn a_response_that_is_not_http() {
    let mut host = Host::new();
    host.read(0.0, chat(false));
    host.write(1.0, "garbage");
    host.write(2.0, "HTTP/1.1 nonsense");
    host.tick(10.0);
    host.state(11.0, StateChange::Closed);
    assert_eq!(reason(&host), Some(IncompleteReason::Unparsable));
    assert_eq!(host.said.unparsed[Direction::Send as usize], 24);
}

#[test]
fn garbage_is_counted_and_passed_over() {
    let mut host = Host::new();
    let garbage = "\u{16}\u{3}\u{1}garbage POST /v1/completions HTTP/1.1\r\n\r\n";
    host.read(0.0, garbage);
    host.tick(10.0);
    host.read(11.0, "PO");
    host.read(12.0, "x");
    assert_eq!(host.said.unparsed, [garbage.len() as u64 + 3, 0]);
    host.read(20.0, request("/v1/completions", "{}"));
    host.write(21.0, OK);
    assert_eq!(host.record().outcome, Outcome::Ok);
}

/// What a hole leaves of an event tells some counts, and not how many tokens there were in the end.
#[test]
fn a_hole_in_the_last_event_leaves_no_earlier_count() {
    let event = |text: &str, tokens: u32| {
        let meta =
            format!(r#"{{"finish_reason":null,"prompt_tokens":9,"completion_tokens":{tokens},"cached_tokens":0}}"#);
        event(format!(r#"{{"text":"{text}","meta_info":{meta}}}"#))
    };
    for (tail, output) in [(60, None), (80, Some(2))] {
        let mut host = Host::new();
        host.read(0.0, request("/generate", r#"{"text":"hi","stream":true}"#));
        host.write(1.0, format!("{STREAM_HEAD}{}", event("one", 1)));
        let last = [event("one two", 2), done(), END.to_owned()].concat();
        let call = host.call(Direction::Send, 2.0, last.as_bytes());
        host.data(&Data { head: &last.as_bytes()[..10], tail: &last.as_bytes()[last.len() - tail..], ..call });
        assert_eq!(host.record().usage.output, output, "{tail}");
    }
}

/// The next one waited for that end: when its turn came is not known.
#[test]
fn a_lost_end_of_a_response_leaves_the_next_ones_turn_unknown() {
    let mut host = Host::bare();
    let (received, sent) = (host.received, host.sent);
    host.open(|open| (open.receive_sequence, open.send_sequence) = (Some(received), Some(sent)));
    host.read(0.0, chat(false));
    host.read(1.0, chat(false));
    host.write(5.0, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nn");
    // The last byte is lost.
    host.sent = host.sent.wrapping_add(1);
    host.write(30.0, OK);
    host.tick(40.0);
    let [first, second] = host.said.records.as_slice() else { panic!("{:#?}", host.said.records) };
    assert_eq!((first.outcome, second.outcome), (Outcome::Incomplete, Outcome::Ok));
    assert!(second.timeline.turn_unknown && second.timeline.head_of_line_until.is_none());
}

/// Even if the client had left before its turn was told.
#[test]
fn a_lost_end_leaves_the_turn_of_one_who_left_unknown() {
    let mut host = Host::bare();
    let (received, sent) = (host.received, host.sent);
    host.open(|open| (open.receive_sequence, open.send_sequence) = (Some(received), Some(sent)));
    host.read(0.0, chat(false));
    host.read(1.0, chat(false));
    host.write(5.0, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nn");
    host.sent = host.sent.wrapping_add(1);
    host.state(29.0, StateChange::ClientFin);
    host.write(30.0, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
    host.state(31.0, StateChange::Reset);
    host.tick(40.0);
    let second = &host.said.records[1];
    assert_eq!(second.outcome, Outcome::Cancelled);
    assert!(second.timeline.turn_unknown && second.timeline.head_of_line_until.is_none(), "{second:#?}");
}

/// A client that asks again before it is answered: no byte is missing where the stream is known from its beginning.
#[test]
fn a_pipelined_first_response_is_measured_where_the_beginning_is_known() {
    let mut host = Host::bare();
    let (received, sent) = (host.received, host.sent);
    host.open(|open| (open.receive_sequence, open.send_sequence) = (Some(received), Some(sent)));
    host.read(0.0, chat(false));
    host.read(1.0, chat(false));
    host.write(20.0, OK);
    host.write(30.0, OK);
    assert!(host.said.records.iter().all(|record| record.outcome == Outcome::Ok), "{:#?}", host.said.records);
    assert_eq!(host.said.records.len(), 2);
}

/// The server's FIN takes a position, but after the change of state that tells of it.
#[test]
fn a_last_write_of_one_byte_is_missed() {
    let mut host = Host::new();
    host.read(0.0, chat(false));
    host.write(5.0, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nn");
    host.sent = host.sent.wrapping_add(1);
    host.state(6.0, StateChange::ServerFin);
    host.sent = host.sent.wrapping_add(1);
    host.state(7.0, StateChange::Closed);
    host.tick(40.0);
    assert_eq!(reason(&host), Some(IncompleteReason::FramingGap));
    assert_eq!(host.said.gap[Direction::Send as usize], 1);
}

/// Known first positions show a loss that leaves no other trace.
#[test]
fn a_lost_first_response_and_second_request_do_not_pair_the_rest_wrongly() {
    let mut host = Host::bare();
    let (received, sent) = (host.received, host.sent);
    host.open(|open| (open.receive_sequence, open.send_sequence) = (Some(received), Some(sent)));
    host.read(0.0, chat(false));
    // The first response and the second request are lost; the second response is seen.
    host.sent = host.sent.wrapping_add(OK.len() as u32);
    host.received = host.received.wrapping_add(chat(false).len() as u32);
    host.write(20.0, OK);
    host.tick(40.0);
    let complete = host.said.records.iter().filter(|record| record.outcome == Outcome::Ok).count();
    assert_eq!(complete, 0, "{:#?}", host.said.records);
    assert_eq!(host.said.gap[1], OK.len() as u64);
}
