//! Calls that are seen late, early, twice or not at all, and the connection's life.

use std::time::Duration;

use observer::{
    event::{Data, Direction, Event, StateChange},
    request::{
        record::{IncompleteReason, Outcome},
        tracker::{Tracker, TrackerConfig},
    },
};

use crate::harness::{END, Host, STREAM_HEAD, at, chat, config, content, done, ms};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn reordered_writes_are_put_in_order() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    let parts = [STREAM_HEAD.to_owned(), content("a"), content("b"), format!("{}{END}", done())];
    let mut calls = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        calls.push(host.call(Direction::Send, 1.0 + n as f64, part.as_bytes()));
        host.sent = host.sent.wrapping_add(part.len() as u32);
    }
    for n in [0, 2, 3, 1] {
        host.event(&Event::Data(calls[n]));
    }
    let record = host.record();
    assert_eq!((record.outcome, record.token_events), (Outcome::Ok, Some(2)));
    assert_eq!((record.timeline.first, record.timeline.last), (Some(at(2.0)), Some(at(3.0))));
    assert_eq!(host.said.gap, [0, 0]);
}

#[test]
fn the_next_request_may_be_seen_before_the_response() {
    let mut host = Host::new();
    host.read(0.0, chat(false));
    let response = host.call(Direction::Send, 1.00, OK.as_bytes());
    host.read(1.02, chat(false));
    host.data(&response);
    host.write(2.0, OK);
    let ends: Vec<_> = host.said.records.iter().map(|record| record.timeline.end).collect();
    assert_eq!(ends, [Some(at(1.0)), Some(at(2.0))]);
    assert_eq!(host.said.records[1].timeline.read, Some(at(1.02)));
}

/// The read of a request's end is told of late, also where an interim response was waited for in vain before.
#[test]
fn a_response_waits_for_the_end_of_its_request() {
    for interim in [false, true] {
        let mut host = Host::new();
        let text = chat(false);
        let (front, back) = text.split_at(text.len() - 10);
        host.read(0.0, front);
        if interim {
            host.write(1.0, "HTTP/1.1 100 Continue\r\n\r\n");
            // The body takes longer than anything is waited for.
            host.tick(30.0);
        }
        let end = host.call(Direction::Receive, 40.0, back.as_bytes());
        host.write(41.0, OK);
        assert!(host.said.records.is_empty(), "it might be early");
        host.tick(42.0);
        host.data(&end);
        let timeline = &host.record().timeline;
        assert_eq!((timeline.ready, timeline.header), (Some(at(40.0)), Some(at(41.0))));
    }
    let mut host = Host::new();
    let text = chat(false);
    host.read(0.0, &text[..text.len() - 10]);
    host.write(1.0, OK);
    host.tick(30.0);
    assert_eq!((host.record().timeline.ready, host.record().timeline.end), (None, Some(at(1.0))), "it is early");
}

#[test]
fn a_response_waits_for_its_request() {
    let mut host = Host::new();
    let text = chat(false);
    let request = host.call(Direction::Receive, 0.0, text.as_bytes());
    host.write(1.0, OK);
    host.tick(2.0);
    host.data(&request);
    assert_eq!((host.record().outcome, host.record().timeline.header), (Outcome::Ok, Some(at(1.0))));
}

#[test]
fn a_response_never_answers_a_later_request() {
    let mut host = Host::new();
    host.read(0.0, chat(false));
    host.write(1.0, OK);
    // A request that was not seen was answered at 5.
    host.write(5.0, OK);
    host.read(6.0, chat(false));
    host.tick(20.0);
    host.write(30.0, OK);
    let ends: Vec<_> = host.said.records.iter().map(|record| record.timeline.end).collect();
    assert_eq!(ends, [Some(at(1.0)), Some(at(30.0))]);
    assert_eq!(host.said.unparsed[Direction::Send as usize], OK.len() as u64);
}

#[test]
fn a_missing_read_is_waited_for_and_then_given_up() {
    let mut host = Host::new();
    let text = chat(false);
    let (front, rest) = text.split_at(40);
    host.read(0.0, front);
    host.received = host.received.wrapping_add(10);
    host.read(1.0, &rest[10..]);
    host.tick(5.9);
    assert_eq!(host.said.gap, [0, 0]);
    host.tick(6.0);
    assert_eq!(host.said.gap[Direction::Receive as usize], 10);
    host.write(7.0, OK);
    assert_eq!(
        (host.record().outcome, host.record().incomplete),
        (Outcome::Incomplete, Some(IncompleteReason::HeadGap))
    );
    host.read(8.0, chat(false));
    host.write(9.0, OK);
    assert_eq!(host.said.records[1].outcome, Outcome::Ok);
}

/// Told twice while its request is not: the second one must not keep the next response waiting.
#[test]
fn a_response_seen_twice_does_not_hold_up_the_next() {
    let mut host = Host::bare();
    let (received, sent) = (host.received, host.sent);
    host.open(|open| (open.receive_sequence, open.send_sequence) = (Some(received), Some(sent)));
    let (asked, answered) = (chat(false), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let request = host.call(Direction::Receive, 1.0, asked.as_bytes());
    host.received = host.received.wrapping_add(request.length);
    let response = host.call(Direction::Send, 2.0, answered.as_bytes());
    host.event(&Event::Data(response));
    host.data(&response);
    host.event(&Event::Data(request));
    host.read(3.0, &asked);
    host.write(4.0, answered);
    assert_eq!(host.said.records.len(), 2);
    assert!(host.said.records.iter().all(|record| record.outcome == Outcome::Ok), "{:#?}", host.said.records);
}

#[test]
fn what_is_seen_twice_counts_once() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(1.0, STREAM_HEAD);
    let token = content("a");
    let call = host.call(Direction::Send, 2.0, token.as_bytes());
    host.data(&call);
    host.event(&Event::Data(call));
    host.write(3.0, END);
    assert_eq!((host.record().token_events, host.record().outcome), (Some(1), Outcome::Ok));
}

#[test]
fn a_change_of_state_waits_for_writes_before_it() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(1.0, format!("{STREAM_HEAD}{}", content("a")));
    let end = host.call(Direction::Send, 2.0, END.as_bytes());
    host.sent = host.sent.wrapping_add(END.len() as u32);
    host.state(2.1, StateChange::ServerFin);
    host.state(2.2, StateChange::Closed);
    assert!(host.said.records.is_empty());
    host.event(&Event::Data(end));
    assert_eq!((host.record().outcome, host.record().timeline.end), (Outcome::Ok, Some(at(2.0))));
    assert_eq!(host.tracker.connections(), 0);
}

#[test]
fn writes_missing_before_the_close_are_a_gap() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(1.0, format!("{STREAM_HEAD}{}", content("a")));
    host.sent = host.sent.wrapping_add(100);
    host.state(2.0, StateChange::Closed);
    assert_eq!(host.tracker.connections(), 1);
    host.tick(7.0);
    assert_eq!(
        (host.record().outcome, host.record().incomplete),
        (Outcome::Incomplete, Some(IncompleteReason::FramingGap))
    );
    assert_eq!((host.said.gap, host.tracker.connections()), ([0, 100], 0));
}

#[test]
fn arrival_is_that_of_the_segment_with_the_first_byte() {
    let mut host = Host::new();
    let text = chat(false);
    host.arrive(0.1, 1);
    host.arrive(9.0, 0);
    host.read(0.2, &text[..1]);
    host.arrive(0.3, text.len());
    // The rest, and the first byte of the next request.
    host.read(1.0, [&text[1..], "P"].concat());
    host.write(2.0, OK);
    host.arrive(3.0, text.len() - 1);
    host.read(3.5, &text[1..]);
    host.write(4.0, OK);
    let arrivals: Vec<_> = host.said.records.iter().map(|record| record.timeline.arrive).collect();
    assert_eq!(arrivals, [Some(at(0.1)), Some(at(0.3))]);
    assert_eq!(host.said.records[1].timeline.head_of_line_until, Some(at(2.0)));
}

#[test]
fn joined_mid_request() {
    for mid_request in [true, false] {
        let mut host = Host::bare();
        host.open(|open| (open.late, open.mid_request) = (true, mid_request));
        host.write(1.0, content("a"));
        host.tick(10.0);
        host.write(11.0, content("b"));
        host.write(12.0, END);
        host.read(20.0, chat(true));
        host.write(21.0, format!("{STREAM_HEAD}{}{END}", content("c")));
        assert_eq!((host.said.joined, host.said.records.len()), (1, 1), "{:?}", host.said);
        assert_eq!((host.record().outcome, host.record().token_events), (Outcome::Ok, Some(1)));
    }
}

#[test]
fn the_idlest_connection_makes_room() {
    let mut host = Host::bare();
    host.tape.off();
    host.tracker = Tracker::new(TrackerConfig { max_connections: 2, ..config() });
    for cookie in 1..=3 {
        host.cookie = cookie;
        (host.received, host.sent) = (0, 0);
        host.open(|open| open.time = at(cookie as f64));
        host.read(10.0 * cookie as f64, chat(true));
    }
    assert_eq!((host.tracker.connections(), host.in_flight()), (2, 2));
    assert_eq!(host.record().incomplete, Some(IncompleteReason::Abandoned));
    assert_eq!(host.record().connection.cookie.0, 1);
}

#[test]
fn only_unix_connections_time_out() {
    for unix in [true, false] {
        let mut host = Host::bare();
        // Hours of ticks at once are more than a recording takes.
        host.tape.off();
        host.open(|open| {
            if unix {
                (open.server, open.client) = (None, None);
            }
        });
        host.read(0.0, chat(true));
        for second in 0..700 {
            host.tick(1000.0 * f64::from(second));
        }
        assert_eq!(host.tracker.connections(), usize::from(!unix));
        if unix {
            assert_eq!(host.record().incomplete, Some(IncompleteReason::Abandoned));
            assert_eq!(&*host.record().connection.workload, "vllm:unix");
        }
    }
}

#[test]
fn out_of_scope_and_the_end_of_observation() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.state(1.0, StateChange::OutOfScope);
    assert_eq!(host.record().incomplete, Some(IncompleteReason::Abandoned));
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.tape.off();
    host.tracker.finish(at(1.0), &mut host.said);
    assert_eq!((host.said.records.len(), host.tracker.connections()), (0, 0));
}

#[test]
fn too_many_pipelined_requests_are_bounded() {
    let mut host = Host::new();
    for _ in 0..200 {
        host.read(0.0, chat(false));
    }
    assert!(host.in_flight() <= 64);
    for _ in 0..200 {
        host.write(1.0, OK);
    }
    assert!(host.said.records.iter().all(|record| record.outcome == Outcome::Incomplete));
}

#[test]
fn held_calls_are_bounded() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(1.0, STREAM_HEAD);
    host.sent = host.sent.wrapping_add(1);
    for _ in 0..1000 {
        host.write(2.0, content("a"));
    }
    assert_eq!(host.said.gap[Direction::Send as usize], 1, "without any tick");
    host.state(3.0, StateChange::Closed);
    assert_eq!(host.record().incomplete, Some(IncompleteReason::FramingGap));
}

#[test]
fn a_call_of_an_unknown_connection_is_a_gap() {
    let mut host = Host::bare();
    host.data(&Data { length: 9, ..host.call(Direction::Send, 0.0, b"") });
    assert_eq!(host.said.gap, [0, 9]);
}

#[test]
fn a_hold_of_zero_gives_up_at_the_next_tick() {
    let mut host = Host::bare();
    host.tape.off();
    host.tracker = Tracker::new(TrackerConfig { reorder_hold: Duration::ZERO, ..config() });
    host.open(|_| {});
    host.write(1.0, OK);
    host.tick(1.0);
    assert_eq!(host.said.unparsed[Direction::Send as usize], OK.len() as u64);
    assert_eq!(ms(1.0), Duration::from_millis(1));
}
