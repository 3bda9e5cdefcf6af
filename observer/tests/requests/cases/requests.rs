//! How requests are read: cases 1 to 4 and 20 to 23.

use observer::{
    event::{Data, Direction},
    request::record::{Operation, Outcome},
};

use crate::{
    harness::{END, Host, STREAM_HEAD, at, chat, content, done, request},
    splits::Script,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn answer() -> String {
    format!("{STREAM_HEAD}{}{}{END}", content("a"), done())
}

#[test]
fn case_01_first_read_is_24_bytes() {
    let request = request("/openai/v1/chat/completions?x=1", r#"{"model":"asked","stream":true}"#);
    let said = Script::default().read(1.0, &request[..24]).read(2.0, &request[24..]).write(3.0, answer()).every_split();
    let record = said.record();
    assert_eq!((record.operation, record.outcome), (Operation::Chat, Outcome::Ok));
    assert_eq!((record.timeline.read, record.timeline.ready), (Some(at(1.0)), Some(at(2.0))));
    assert_eq!((record.timeline.header, record.timeline.first), (Some(at(3.0)), Some(at(3.0))));
}

#[test]
fn case_02_head_and_body_in_many_reads_on_several_threads() {
    let mut host = Host::new();
    let body = format!(r#"{{"messages":[{{"content":"{}"}}],"model":"asked","stream":true}}"#, "x".repeat(60_000));
    let long = request("/v1/chat/completions", &body);
    let split = long.find("\r\n\r\n").unwrap() + 4;
    let mut calls: Vec<_> = Vec::new();
    host.read(1.0, &long[..split]);
    let base = host.received;
    for (n, part) in long.as_bytes()[split..].chunks(4000).enumerate() {
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
    host.write(10.0, answer());
    let record = host.record();
    assert_eq!((record.outcome, record.request_model.as_deref()), (Outcome::Ok, Some("asked")));
    assert_eq!((record.timeline.ready, record.request_bytes), (Some(last), long.len() as u64));

    let request = chat(true);
    let split = request.find("\r\n\r\n").unwrap() + 4;
    let mut script = Script::default().read(1.0, &request[..split]);
    for (n, part) in request.as_bytes()[split..].chunks(20).enumerate() {
        script = script.read(2.0 + n as f64, part);
    }
    let said = script.write(50.0, answer()).every_split();
    assert_eq!((said.record().timeline.read, said.record().request_model.as_deref()), (Some(at(1.0)), Some("asked")));
}

#[test]
fn case_03_model_and_stream_in_a_hole() {
    let body = format!(
        r#"{{"messages":[{{"content":"{}"}}],"model":"asked","stream":true,"tools":["{}"]}}"#,
        "x".repeat(300_000),
        "y".repeat(50_000)
    );
    let request = request("/v1/chat/completions", &body);
    let run = |calls: &[&[u8]]| {
        let mut host = Host::new();
        for part in calls {
            host.captured(Direction::Receive, 1.0, part);
        }
        host.write(2.0, answer());
        let record = host.record();
        assert_eq!((record.outcome, record.stream, record.request_model.as_deref()), (Outcome::Ok, Some(true), None));
        assert_eq!(record.response_model.as_deref(), Some("served"));
        assert_eq!(record.request_bytes, request.len() as u64);
        assert_eq!((record.timeline.read, record.timeline.ready), (Some(at(1.0)), Some(at(1.0))));
    };
    let calls: Vec<_> = request.as_bytes().chunks(65_536).collect();
    run(&calls);
    // What is captured of a call depends on where it begins; what is not known stays so.
    for (n, call) in calls.iter().enumerate() {
        let ends = [1, 511, 512, 513, 4095, 4096, 4097, 4607, 4608, 4609];
        let cuts = ends.into_iter().flat_map(|end| [end, call.len() - end]).chain((1..call.len()).step_by(4999));
        for cut in cuts.filter(|cut| n > 0 || *cut > 200) {
            let (front, back) = call.split_at(cut);
            run(&[&calls[..n], &[front, back], &calls[n + 1..]].concat());
        }
    }
}

#[test]
fn case_04_a_model_in_user_text_is_never_used() {
    let evil = r#"\"model\":\"evil\",\"stream\":true,"#;
    let body =
        |evil: &str| format!(r#"{{"messages":[{{"content":"{evil}","x":{{"model":"evil"}}}}],"model":"asked"}}"#);
    let said = Script::default().read(1.0, request("/v1/chat/completions", &body(evil))).write(2.0, OK).every_split();
    assert_eq!(said.record().request_model.as_deref(), Some("asked"));

    // Not captured as a whole: rather none than that.
    let request = request("/v1/chat/completions", &body(&evil.repeat(400)));
    for head in (200..4096).step_by(7) {
        let mut host = Host::new();
        let call = host.call(Direction::Receive, 3.0, request.as_bytes());
        let tail = head / 8;
        host.data(&Data { head: &call.head[..head], tail: &call.head[call.head.len() - tail..], ..call });
        host.write(4.0, OK);
        assert_eq!((host.record().outcome, host.record().request_model.as_deref()), (Outcome::Ok, None));
    }
}

/// The kernel side tells nothing of a `MSG_PEEK` (the end-to-end test `peeking_consumes_nothing`); and bytes that are seen
/// twice, as by a probe that fires again, are read once.
#[test]
fn case_20_a_peek_consumes_nothing() {
    let request = chat(true);
    for peeked in [1, 24, request.len()] {
        let mut host = Host::new();
        let peek = host.call(Direction::Receive, 0.5, &request.as_bytes()[..peeked]);
        host.event(&observer::event::Event::Data(peek));
        host.read(1.0, &request);
        host.write(3.0, answer());
        let record = host.record();
        assert_eq!((record.outcome, record.request_bytes), (Outcome::Ok, request.len() as u64));
        assert_eq!((host.said.gap, host.said.unparsed), ([0, 0], [0, 0]));
    }
}

#[test]
fn case_21_a_one_byte_read_begins_the_next_request() {
    let body = r#"{"model":"asked","messages":[],"stream":false}"#;
    let requests = [chat(true), request("/api/chat", body)];
    let mut script = Script::default();
    for (start, request) in [0.0, 100.0].into_iter().zip(&requests) {
        script = script.read(start, &request[..1]).read(start + 1.0, &request[1..]).write(start + 2.0, OK);
    }
    let said = script.every_split();
    let [first, second] = &said.records[..] else { panic!("{said:?}") };
    assert_eq!((first.api, second.api), ("openai", "ollama"));
    assert_eq!((second.timeline.read, second.timeline.ready), (Some(at(100.0)), Some(at(101.0))));
    assert_eq!((second.outcome, second.request_bytes), (Outcome::Ok, requests[1].len() as u64));
}

#[test]
fn case_22_pipelined_requests_are_answered_in_order() {
    let two = [chat(true), request("/v1/completions", r#"{"model":"second"}"#)].concat();
    let said = Script::default()
        .arrive(0.5, two.len())
        .read(1.0, &two)
        .write(5.0, format!("{STREAM_HEAD}{}{END}", content("a")))
        .write(9.0, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        .every_split();
    let [first, second] = &said.records[..] else { panic!("{said:?}") };
    assert_eq!((first.operation, first.timeline.head_of_line_until), (Operation::Chat, None));
    assert_eq!((second.operation, second.timeline.head_of_line_until), (Operation::TextCompletion, Some(at(5.0))));
    assert_eq!(second.request_model.as_deref(), Some("second"));
    assert_eq!((second.timeline.arrive, second.timeline.end), (Some(at(0.5)), Some(at(9.0))));
}

#[test]
fn case_22_nothing_of_one_request_is_left_for_the_next() {
    let failed = r#"{"error":{"message":"x"}}"#;
    let said = Script::default()
        .read(0.0, chat(true))
        .write(1.0, format!("{STREAM_HEAD}{}{}{END}", content("a"), crate::harness::event(failed)))
        .read(10.0, request("/v1/completions", "{}"))
        .write(
            11.0,
            format!("HTTP/1.1 429 Slow\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n{failed}"),
        )
        .read(20.0, request("/v1/completions", "{}"))
        .write(21.0, OK)
        .every_split();
    let [first, second, third] = &said.records[..] else { panic!("{said:?}") };
    assert_eq!(
        [first.outcome, second.outcome, third.outcome],
        [Outcome::ErrorInStream, Outcome::HttpError, Outcome::Ok]
    );
    assert_eq!((first.token_events, third.token_events, third.stream), (Some(1), None, Some(false)));
    assert_eq!((&third.request_model, &third.response_model, third.timeline.first), (&None, &None, None));

    // The descriptor is used again, by another connection: the cookie is another.
    let mut host = Host::new();
    host.read(0.0, &chat(true)[..100]);
    host.cookie += 1;
    (host.received, host.sent) = (7, 7);
    host.open(|_| {});
    host.read(10.0, chat(false));
    host.write(11.0, OK);
    assert_eq!((host.record().outcome, host.record().connection.cookie.0), (Outcome::Ok, host.cookie));
}

#[test]
fn case_23_an_interim_response_is_not_the_response() {
    let body = r#"{"model":"asked"}"#;
    let head =
        format!("POST /v1/completions HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len());
    let said = Script::default()
        .read(0.0, head)
        .write(1.0, "HTTP/1.1 100 Continue\r\n\r\n")
        .read(2.0, body)
        .write(2.5, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        .write(3.0, OK)
        .every_split();
    let record = said.record();
    assert_eq!(
        (record.status, record.timeline.header, record.timeline.ready),
        (Some(200), Some(at(3.0)), Some(at(2.0)))
    );
    assert_eq!(record.request_model.as_deref(), Some("asked"));
}
