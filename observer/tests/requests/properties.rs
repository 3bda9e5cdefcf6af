//! What holds for every way that the same bytes, or any bytes, may be seen.

use observer::{
    event::{Arrival, Arrivals, Cookie, Data, Direction, Event, State, StateChange},
    request::{
        record::{Outcome, RequestRecord},
        tracker::EventNames,
    },
    time::KernelTime,
};
use proptest::prelude::*;

use crate::harness::{END, Host, STREAM_HEAD, chat, chunk, content, delta, done, event, finish, request, role};

/// Three requests on one connection.
fn conversation() -> Vec<(Vec<u8>, Vec<u8>)> {
    let reasoning = event(delta(r#"{"reasoning_content":"hm"}"#));
    let usage = event(r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":400}}"#);
    let stream = [
        STREAM_HEAD,
        &role(),
        &chunk(": ping\n\n"),
        &reasoning,
        &content("a"),
        &content("b"),
        &finish(),
        &usage,
        &done(),
        END,
    ];
    let answer = r#"{"model":"served","choices":[{"index":0,"text":"hi","finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    );
    vec![
        (chat(true).into_bytes(), stream.concat().into_bytes()),
        (request("/x/v1/completions", r#"{"model":"asked"}"#).into_bytes(), answer.into_bytes()),
        (b"GET /health HTTP/1.1\r\n\r\n".to_vec(), b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
    ]
}

/// What must not depend on how bytes are split over calls: all but times.
fn digest(record: &RequestRecord) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {} {} {:?} {}",
        record.operation,
        record.request_model,
        record.response_model,
        record.stream,
        record.outcome,
        record.status,
        record.token_events,
        record.usage,
        record.finish_reasons,
        record.request_bytes,
        record.response_bytes,
        record.incomplete,
        record.coalesced + record.gaps.count,
    )
}

fn monotone(record: &RequestRecord) -> Result<(), TestCaseError> {
    let t = &record.timeline;
    let points = [t.arrive, t.read, t.ready, t.header, t.first, t.last, t.end];
    let known: Vec<_> = points.into_iter().flatten().collect();
    prop_assert!(known.is_sorted(), "{record:#?}");
    let content = [t.first, t.first_content, t.last];
    prop_assert!(content.into_iter().flatten().collect::<Vec<_>>().is_sorted(), "{record:#?}");
    if let Some(until) = t.head_of_line_until {
        prop_assert!(
            t.start().is_some_and(|start| start < until) && t.end.is_some_and(|end| until <= end),
            "{record:#?}"
        );
    }
    prop_assert_eq!(t.first.is_some(), t.last.is_some());
    Ok(())
}

fn consistent(record: &RequestRecord) -> Result<(), TestCaseError> {
    prop_assert_eq!(record.outcome == Outcome::Incomplete, record.incomplete.is_some());
    prop_assert!(record.finish_reasons.len() <= 16);
    if record.outcome != Outcome::Incomplete {
        prop_assert!(record.timeline.read.is_some() && record.timeline.end.is_some());
        monotone(record)?;
        if let Some(events) = record.token_events {
            prop_assert_eq!(record.chunk_times.len() as u64, events);
            let between = record.gaps.count + record.coalesced;
            // What was written after the client had left is counted, and its gaps are nobody's wait.
            let all = between == events.saturating_sub(1);
            prop_assert!(all || record.outcome == Outcome::Cancelled && between < events, "{record:#?}");
            prop_assert_eq!(record.gaps.buckets.iter().map(|n| u64::from(*n)).sum::<u64>(), record.gaps.count);
        }
    }
    Ok(())
}

fn split<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).chain([0, bytes.len()]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect()
}

fn any_event() -> impl Strategy<Value = (u8, i32, u16, u32, u8, u8, u16)> {
    (
        0..12_u8,
        -3_000_000..3_000_000_i32,
        any::<u16>(),
        prop_oneof![0..2000_u32, any::<u32>()],
        any::<u8>(),
        any::<u8>(),
        any::<u16>(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_split_and_order_gives_the_same_requests(
        cuts in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..10), 6),
        swaps in prop::collection::vec(any::<bool>(), 40),
    ) {
        let (mut whole, mut cut) = (Host::new(), Host::new());
        let mut time = 0.0;
        let mut swaps = swaps.into_iter().cycle();
        for (n, (asked, answered)) in conversation().iter().enumerate() {
            whole.read(time, asked);
            whole.write(time + 1.0, answered);
            for (direction, bytes, cuts) in
                [(Direction::Receive, asked, &cuts[2 * n]), (Direction::Send, answered, &cuts[2 * n + 1])]
            {
                let mut calls = Vec::new();
                for part in split(bytes, cuts) {
                    time += 0.01;
                    calls.push(cut.call(direction, time, part));
                    match direction {
                        Direction::Receive => cut.received = cut.received.wrapping_add(part.len() as u32),
                        Direction::Send => cut.sent = cut.sent.wrapping_add(part.len() as u32),
                    }
                }
                // The very first call of a direction tells where its stream begins.
                for pair in calls[1..].chunks_mut(2) {
                    if swaps.next() == Some(true) {
                        pair.reverse();
                    }
                }
                for call in &calls {
                    cut.event(&Event::Data(*call));
                    cut.tick(time);
                }
            }
            time += 10.0;
        }
        let digests = |host: &Host| host.said.records.iter().map(digest).collect::<Vec<_>>();
        prop_assert_eq!(digests(&whole).len(), 2);
        prop_assert_eq!(digests(&whole), digests(&cut));
        prop_assert_eq!((cut.said.others, cut.said.gap, cut.said.unparsed), (1, [0, 0], [0, 0]));
        for record in whole.said.records.iter().chain(&cut.said.records) {
            consistent(record)?;
        }
    }

    #[test]
    fn lost_calls_never_make_a_wrong_record(
        cuts in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..10), 6),
        lost in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..4),
    ) {
        let mut truth = Host::new();
        let mut host = Host::new();
        let conversation = conversation();
        let mut calls = Vec::new();
        let mut time = 0.0;
        for (n, (asked, answered)) in conversation.iter().enumerate() {
            for (direction, bytes, cuts) in
                [(Direction::Receive, asked, &cuts[2 * n]), (Direction::Send, answered, &cuts[2 * n + 1])]
            {
                for part in split(bytes, cuts) {
                    time += 0.5;
                    let call = truth.call(direction, time, part);
                    truth.data(&call);
                    calls.push(call);
                }
            }
            time += 50.0;
        }
        let lost: Vec<_> = lost.iter().map(|(index, blind)| (index.index(calls.len()), *blind)).collect();
        // Where a direction's stream begins is known from its first call: whether that one is missing cannot be, and
        // the loss of the whole next request besides leaves no trace of the mistake.
        let first = calls.iter().position(|call| call.direction == Direction::Send);
        prop_assume!(lost.len() == 1 || lost.iter().all(|(index, blind)| *blind || Some(*index) != first));
        for (n, call) in calls.iter().enumerate() {
            match lost.iter().find(|(index, _)| *index == n) {
                Some((_, true)) => host.event(&Event::Data(Data { head: &[], tail: &[], ..*call })),
                Some(_) => {}
                None => host.event(&Event::Data(*call)),
            }
            host.tick_at(call.time);
        }
        (host.received, host.sent) = (truth.received, truth.sent);
        host.state(time + 1.0, StateChange::Closed);
        host.tick(time + 100.0);
        prop_assert_eq!(host.tracker.connections(), 0);
        for record in &host.said.records {
            consistent(record)?;
            if record.outcome == Outcome::Incomplete {
                continue;
            }
            // What is measured is what was: at least its times, if not all that a hole may hide.
            let same = truth.said.records.iter().find(|other| other.timeline.end == record.timeline.end);
            let Some(same) = same else {
                // A request whose response came to nothing.
                prop_assert!(record.outcome == Outcome::Truncated, "{record:#?}");
                continue;
            };
            let points = |r: &RequestRecord| {
                let t = &r.timeline;
                [t.read, t.ready, t.header, t.first, t.first_content, t.last]
            };
            let mut expected = points(same);
            if record.timeline.ready.is_none() {
                // The lost call was the end of the request: to us, the response was an early one.
                expected[1] = None;
            }
            prop_assert_eq!(expected, points(record));
            prop_assert_eq!(same.token_events, record.token_events);
        }
    }

    #[test]
    fn any_events_in_any_order_are_survived(events in prop::collection::vec(any_event(), 0..120)) {
        let mut host = Host::new();
        let texts = conversation();
        let base = 1_000_000_000_000_i64;
        let mut now = base;
        for (kind, shift, offset, position, a, b, c) in events {
            now += i64::from(shift).abs() / 4;
            let time = KernelTime::from_nanos((now + i64::from(shift)) as u64);
            let text = &texts[usize::from(a) % 3];
            let text = if b % 2 == 0 { &text.0 } else { &text.1 };
            let start = usize::from(offset) % text.len() * usize::from(c % 3 == 0);
            let bytes = &text[start..];
            let bytes = &bytes[..bytes.len().min(usize::from(c) % 900)];
            let direction = if kind % 2 == 0 { Direction::Receive } else { Direction::Send };
            let here = if direction == Direction::Receive { &mut host.received } else { &mut host.sent };
            let call = Data {
                cookie: Cookie(7), time, direction, sequence: *here, length: bytes.len() as u32,
                requested: Some(c.into()), errno: 0, unsent: u32::from(b), head: bytes, tail: &[], pid: 1,
            };
            match kind {
                0..=5 => {
                    *here = here.wrapping_add(call.length);
                    host.event(&Event::Data(call));
                }
                6 | 7 => host.event(&Event::Data(Data { sequence: position, length: u32::from(c), ..call })),
                8 => {
                    let errno = [0, libc::EAGAIN, libc::EPIPE, libc::ECONNRESET][usize::from(b) % 4];
                    let direction = if a % 2 == 0 { Direction::Receive } else { Direction::Send };
                    host.event(&Event::Data(Data { length: 0, head: &[], errno, direction, ..call }));
                }
                9 => {
                    let stamps = [Arrival { begin: position, end: position.wrapping_add(c.into()), time: time.as_nanos() },
                        Arrival { begin: host.received, end: host.received.wrapping_add(c.into()), time: time.as_nanos() }];
                    host.event(&Event::Arrivals(Arrivals { cookie: Cookie(7), stamps: &stamps }));
                }
                10 => {
                    let changes = [StateChange::ClientFin, StateChange::Reset, StateChange::ServerFin,
                        StateChange::Closed, StateChange::OutOfScope];
                    let write_sequence = if b % 3 == 0 { position } else { host.sent };
                    host.event(&Event::State(State {
                        cookie: Cookie(7), time, change: changes[usize::from(a) % 5], write_sequence,
                        receive_sequence: position,
                    }));
                    if b % 2 == 0 {
                        host.open(|open| (open.time, open.late) = (time, a % 2 == 0));
                    }
                }
                _ => host.tick_at(KernelTime::from_nanos(now as u64)),
            }
            prop_assert!(host.tracker.connections() <= 1);
            prop_assert!(host.in_flight() <= 64);
        }
        host.tape.off();
        host.tracker.finish(KernelTime::from_nanos(now as u64), &mut host.said);
        for record in &host.said.records {
            consistent(record)?;
        }
        host.tracker.event(&Event::Listen(observer::event::Listen { time: KernelTime::default(), pid: 1, port: 1 }), &mut EventNames, &mut host.said);
    }
}
