//! Ports that speak something else, and peers that break off anywhere: the observer lives on, in bounded memory, and
//! counts what it could not read.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use observer_e2e::{
    observer::Observer,
    process,
    raw::{Link, Listener},
    require,
    traffic::{self, Answer, STREAM_HEAD, delta},
    wait::{self, SOON},
};
use serde_json::json;

/// Resident memory may never be above this.
const RESIDENT_MAX_KIB: u64 = 128 * 1024;
const BIG: usize = 64 << 20;

const TLS_HELLO: &[u8] = b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03\x5b\x90\x9d\x9b\x72\x0b\xbc\x0c\xbc\x2b\x92";
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// What one side says and the other answers.
fn talk(link: &Link, said: &[u8], answer: &[u8]) {
    link.client.send(said);
    assert_eq!(link.server.drain(said.len()), said);
    link.server.send(answer);
    assert_eq!(link.client.drain(answer.len()), answer);
}

/// An ordinary request is seen as ever.
fn expect_working(listener: &Listener, observer: &mut Observer, id: &str) {
    let link = listener.link();
    talk(&link, &traffic::chat(id), &Answer::new(4, 10).bytes());
    let line = observer.line(id);
    assert_eq!((line.outcome.as_str(), line.token_events), ("ok", Some(4)), "{line:#?}");
    observer.expect_alive();
    let resident = process::status_kib(observer.pid(), "VmHWM");
    assert!(resident < RESIDENT_MAX_KIB, "{resident} KiB resident at the most");
}

/// Bytes without any pattern, the same in every run.
fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn other_protocols() {
    require!(kernel);
    let listener = Listener::v4();
    let mut observer = Observer::start(&[listener.port()]);
    const EACH: usize = 5;
    for round in 0..EACH {
        talk(&listener.link(), TLS_HELLO, b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03");
        talk(&listener.link(), HTTP2_PREFACE, b"\x00\x00\x00\x04\x00\x00\x00\x00\x00");
        // The preface in the read of 24 bytes that hyper makes.
        let link = listener.link();
        link.client.send(HTTP2_PREFACE);
        assert_eq!(link.server.recv(24).len(), 24);
        assert!(!link.server.recv(100).is_empty());
        // The server speaks first.
        let link = listener.link();
        link.server.send(b"220 mail ESMTP\r\n");
        link.client.drain(16);
        talk(&link, b"EHLO localhost\r\n", b"250 OK\r\n");
        talk(&link, b"POST is a word that may begin a line\r\n", b"500 what?\r\n");
        for size in [1, 2, 17, 1000, 60_000] {
            let seed = (round * 100_000 + size) as u64;
            talk(&listener.link(), &noise(size, seed), &noise(size, seed + 1));
        }
        // Noise that begins as a request does.
        let mut said = b"POST /v1/chat/completions HTTP/1.1\r\n".to_vec();
        said.extend(noise(20_000, 7 + round as u64));
        talk(&listener.link(), &said, &noise(300, 9));
        talk(&listener.link(), &[0; 5000], &[0xff; 5000]);
        talk(&listener.link(), &b"A".repeat(50_000), b"B");
        talk(&listener.link(), b"\r\n\r\n\r\n\r\n", b"\r\n");
        talk(&listener.link(), b"POST /v1/chat/completions HTTP/9.9\r\ncontent-length: x\r\n\r\n", b"huh");
    }
    wait::until("both opaque protocols to be counted", SOON, || {
        let metrics = observer.metrics();
        let count = |reason| metrics.sum("observer_opaque_connections_total", &[("reason", reason)]);
        (count("tls") == EACH as f64 && count("http2") == 2.0 * EACH as f64).then_some(())
    });
    observer.settle();
    // What never was a request may be told as incomplete where it began as one; it has no other line.
    let lines = observer.lines();
    assert!(
        lines.iter().all(|line| ["incomplete", "cancelled", "truncated"].contains(&line.outcome.as_str())),
        "{lines:#?}"
    );
    assert!(lines.len() <= 2 * EACH, "{lines:#?}");
    assert_eq!(observer.metrics().sum("gen_ai_server_time_to_first_token_seconds_count", &[]), 0.0);
    expect_working(&listener, &mut observer, "after-garbage");
}

/// Peers that leave after each single byte of a request and of an answer, one way and the other.
#[test]
fn closed_at_every_stage() {
    require!(kernel);
    let listener = Listener::v4();
    let mut observer = Observer::start(&[listener.port()]);
    let request = traffic::chat("stage");
    // Once `[DONE]` is written, leaving is no cancel.
    let answer = Answer { done: Vec::new(), end: Vec::new(), ..Answer::new(2, 5) }.bytes();
    let mut requests = 0;
    for cut in 0..request.len() {
        let link = listener.link();
        if cut > 0 {
            link.client.send(&request[..cut]);
            link.server.drain(cut);
        }
        if cut % 2 == 0 {
            link.client.close()
        } else {
            link.client.reset()
        };
    }
    for cut in (0..answer.len()).step_by(3) {
        let link = listener.link();
        link.client.send(&request);
        link.server.drain(request.len());
        if cut > 0 {
            link.server.send(&answer[..cut]);
            link.client.drain(cut);
        }
        // Each way takes one end; the other end is closed after it.
        let _when = match cut % 4 {
            0 => link.client.close(),
            1 => link.client.reset(),
            2 => link.server.close(),
            _ => link.server.reset(),
        };
        requests += 1;
    }
    let lines = observer.lines_when(requests, SOON);
    for line in &lines {
        assert!(["cancelled", "truncated"].contains(&line.outcome.as_str()), "{line:#?}");
        assert!(line.token_events.is_none_or(|seen| seen <= 2), "{line:#?}");
    }
    // Each that was asked whole, and at most each whose head was whole.
    assert!(lines.len() <= requests + request.len(), "{} lines", lines.len());
    wait::until("all connections to be forgotten", SOON, || {
        (observer.metrics().sum("observer_connections", &[]) == 0.0).then_some(())
    });
    expect_working(&listener, &mut observer, "after-stages");
}

/// Runs the two sides in threads of their own while the observer's memory is watched.
fn carried(listener: &Listener, observer: &Observer, said: &[u8], answer: &[u8]) {
    let link = listener.link();
    let done = AtomicBool::new(false);
    let peak = thread::scope(|scope| {
        scope.spawn(|| {
            link.client.set_receive_buffer(4 << 20);
            for part in said.chunks(1 << 20) {
                link.client.send(part);
            }
            link.client.drain(answer.len());
            done.store(true, Ordering::Release);
        });
        scope.spawn(|| {
            link.server.drain(said.len());
            for part in answer.chunks(1 << 20) {
                link.server.send(part);
            }
        });
        let mut peak = 0;
        let limit = Duration::from_secs(60);
        let finished = wait::try_until(limit, || {
            peak = peak.max(process::status_kib(observer.pid(), "VmRSS"));
            done.load(Ordering::Acquire).then_some(())
        });
        assert!(finished.is_some(), "the transfer did not end");
        peak
    });
    assert!(peak < RESIDENT_MAX_KIB, "{peak} KiB resident");
}

#[test]
fn very_large_bodies() {
    require!(kernel);
    let listener = Listener::v4();
    let mut observer = Observer::start(&[listener.port()]);
    let prompt = "p".repeat(BIG);
    let body = json!({"messages": [{"role": "user", "content": prompt}], "model": traffic::ASKED}).to_string();
    let request = traffic::post("/v1/chat/completions", "big", "", &body);
    let answer = traffic::whole_answer(&"a".repeat(BIG), 7);
    carried(&listener, &observer, &request, &answer);
    let line = observer.line("big");
    assert_eq!((line.outcome.as_str(), line.status), ("ok", Some(200)), "{line:#?}");
    assert_eq!(line.request_bytes, Some(request.len() as u64), "{line:#?}");
    assert_eq!(line.response_bytes, Some(answer.len() as u64), "{line:#?}");
    assert!(line.output_tokens.is_none_or(|count| count == 7), "{line:#?}");

    // One event of 64 MiB in one chunk, and 64 MiB of a stream without any end of an event.
    let event = traffic::chunk(&delta(&json!({"content": "a".repeat(BIG)}), None));
    let answer = [STREAM_HEAD.as_bytes(), &event, &Answer::new(0, 0).end].concat();
    carried(&listener, &observer, &traffic::chat("big-event"), &answer);
    let line = observer.line("big-event");
    assert!(["ok", "incomplete"].contains(&line.outcome.as_str()), "{line:#?}");
    assert!(line.token_events.is_none_or(|seen| seen <= 1), "{line:#?}");
    let endless = traffic::chunk(&"data: x".repeat(BIG / 7));
    let answer = [STREAM_HEAD.as_bytes(), &endless, &Answer::new(0, 0).end].concat();
    carried(&listener, &observer, &traffic::chat("endless"), &answer);
    let line = observer.line("endless");
    assert!(["ok", "incomplete"].contains(&line.outcome.as_str()), "{line:#?}");

    // Heads that never end.
    let said = [b"POST /v1/chat/completions HTTP/1.1\r\nx: ".as_slice(), &b"y".repeat(8 << 20)].concat();
    carried(&listener, &observer, &said, b"HTTP/1.1 431 Too Large\r\ncontent-length: 0\r\n\r\n");
    expect_working(&listener, &mut observer, "after-large");
}
