//! How servers read requests.

use observer_e2e::{
    clock::timed,
    raw::{
        Socket,
        socket::{Taken, pause, whole},
        uring::{Mode, Ring},
    },
    require,
    traffic::{self, ASKED, Answer},
};

use super::{Expected, TOKENS, exchange, exchange_with, finish, observed, respond};

observer_e2e::with_each_socket_hook! {
    twenty_four_bytes_and_then_the_rest,
    one_byte_at_a_time,
    one_byte_in_the_background,
    peeking_consumes_nothing,
    scattered_into_vectors_and_messages,
    long_body_in_many_reads,
    discarded_body_is_not_read_from_the_buffer,
    unseen_requests_are_not_guessed,
    expect_continue,
}

/// hyper looks for the HTTP/2 preface first.
fn twenty_four_bytes_and_then_the_rest() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    for id in ["hyper-first", "hyper-second"] {
        let expected = exchange_with(&link, id, |server| {
            server.take_with(|socket, so_far| socket.recv(if so_far == 0 { 24 } else { 65_536 }))
        });
        assert!(expected.read.to <= expected.ready.from);
        expected.seen_by(&observer);
    }
    finish(observer);
}

fn one_byte_at_a_time() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let byte = |server: &Socket| server.take_with(|socket, _| socket.recv(1));
    exchange_with(&link, "bytes-first", byte).seen_by(&observer);
    exchange_with(&link, "bytes-second", byte).seen_by(&observer);
    exchange(&link, "bytes-plain").seen_by(&observer);
    finish(observer);
}

/// Go's server reads one byte in the background, to learn of a client that leaves; it belongs to the next request.
fn one_byte_in_the_background() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let background = |server: &Socket| {
        server.take_with(|socket, so_far| if so_far == 0 { socket.read(1) } else { socket.read(4096) })
    };
    exchange(&link, "go-first").seen_by(&observer);
    exchange_with(&link, "go-second", background).seen_by(&observer);

    // The byte of the fourth request is read while the third is being answered.
    let third = traffic::chat("go-third");
    let arrive = link.client.send(&third);
    let taken = link.server.take();
    let answer = Answer::new(TOKENS, 10);
    link.server.send(&answer.head);
    let fourth = traffic::chat("go-fourth");
    let fourth_arrive = link.client.send(&fourth);
    let (byte, fourth_read) = timed(|| link.server.read(1));
    assert_eq!(byte, b"P");
    link.client.drain(answer.head.len());
    let rest = Answer { head: Vec::new(), ..answer.clone() };
    link.server.send(&rest.bytes());
    link.client.drain(rest.bytes().len());
    let (_, fourth_ready) = timed(|| assert_eq!(link.server.read(4096).len(), fourth.len() - 1));
    let sent = respond(&link, &answer);

    let line = observer.line("go-third");
    assert_eq!((line.outcome.as_str(), line.token_events), ("ok", Some(TOKENS as u64)), "{line:#?}");
    assert_eq!(line.request_bytes, Some(third.len() as u64), "{line:#?}");
    assert!(line.t_arrive_ns.is_some_and(|time| time >= arrive.from), "{line:#?}");
    taken.last.expect(line.t_ready_ns, "ready");
    let expected = Expected {
        id: "go-fourth".to_owned(),
        arrive: fourth_arrive,
        read: fourth_read,
        ready: fourth_ready,
        sent,
        request_bytes: fourth.len(),
        response_bytes: answer.bytes().len(),
    };
    expected.seen_by(&observer);
    finish(observer);
}

/// Looking is not reading.
fn peeking_consumes_nothing() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    for (id, size) in [("peek-1", 1), ("peek-24", 24), ("peek-all", 65_536)] {
        let expected = exchange_with(&link, id, |server| {
            for _ in 0..3 {
                assert!(!server.recv_with(size, libc::MSG_PEEK).expect("data waits").is_empty());
            }
            pause(5);
            server.take()
        });
        expected.seen_by(&observer);
    }
    finish(observer);
}

fn scattered_into_vectors_and_messages() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let many: Vec<usize> = (0..40).map(|index| 1 + index % 23).chain([65_536]).collect();
    for (name, sizes) in [("six", vec![10, 1, 100, 7, 50, 65_536]), ("forty", many)] {
        let readv = |server: &Socket| server.take_with(|socket, _| socket.readv(&sizes));
        exchange_with(&link, &format!("readv-{name}"), readv).seen_by(&observer);
        let recvmsg = |server: &Socket| server.take_with(|socket, _| socket.recvmsg(&sizes));
        exchange_with(&link, &format!("recvmsg-{name}"), recvmsg).seen_by(&observer);
        let read = |server: &Socket| server.take_with(|socket, _| socket.read(65_536));
        exchange_with(&link, &format!("read-{name}"), read).seen_by(&observer);
    }
    finish(observer);
}

/// A long prompt comes first: neither model nor streaming is where a glance would find it, and the prompt lies.
fn long_body_in_many_reads() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let prompt = r#"\"model\":\"evil\",\"stream\":false,"#.repeat(300_000 / 32);
    let tools = r#"{"type":"function","function":{"name":"f","description":"model"}}"#;
    let tools = vec![tools; 50_000 / tools.len()].join(",");
    let body = format!(
        r#"{{"messages":[{{"role":"user","content":"{prompt}"}}],"model":"{ASKED}","stream":true,"tools":[{tools}]}}"#
    );
    let request = traffic::post("/v1/chat/completions", "long", "", &body);
    let mut unsent = request.as_slice();
    let mut feed = || {
        let (some, rest) = unsent.split_at(unsent.len().min(20_000));
        unsent = rest;
        link.client.send(some)
    };
    let arrive = feed();
    let mut reads = 0;
    let taken = link.server.take_with(|socket, so_far| {
        // Nothing is read before it was sent: this thread plays both sides.
        if so_far > 0 {
            feed();
        }
        reads += 1;
        socket.recv(65_536)
    });
    assert!(reads > 10 && taken.bytes == request);
    let answer = Answer::new(TOKENS, 10);
    let sent = respond(&link, &answer);
    let line = observer.line("long");
    assert!(line.request_model.as_deref().is_none_or(|model| model == ASKED), "{line:#?}");
    let mut known = line.clone();
    known.request_model = Some(ASKED.to_owned());
    let (request_bytes, response_bytes) = (request.len(), answer.bytes().len());
    let (read, ready) = (taken.first, taken.last);
    Expected { id: "long".to_owned(), arrive, read, ready, sent, request_bytes, response_bytes }.check(&known);
    finish(observer);
}

/// `MSG_TRUNC` moves bytes out of the socket without copying them: the buffer still holds what was there before.
fn discarded_body_is_not_read_from_the_buffer() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let decoy = br#""model":"evil","stream":false}"#;
    let expected = exchange_with(&link, "discard", |server| {
        let request = server.recv_with(65_536, libc::MSG_PEEK).expect("data waits");
        let body = request.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let (_, first) = timed(|| server.drain(body + 10));
        let (_, last) = timed(|| server.discard(request.len() - body - 10, decoy));
        Taken { bytes: request, first, last }
    });
    let mut line = observer.line("discard");
    assert!(line.request_model.as_deref().is_none_or(|model| model == ASKED), "{line:#?}");
    line.request_model = Some(ASKED.to_owned());
    expected.check(&line);
    exchange(&link, "after-discard").seen_by(&observer);
    finish(observer);
}

/// `recvmmsg` and io_uring: the registers are not the read's, so there are no bytes to be had. What was asked is
/// unknown, and must not be guessed; what follows is plain again.
fn unseen_requests_are_not_guessed() {
    require!(kernel, io_uring);
    let (listener, observer) = observed();
    let ring = Ring::new().expect("required");
    let link = listener.link();
    exchange(&link, "seen-0").seen_by(&observer);
    let ways = ["recvmmsg", "uring-inline", "uring-worker", "uring-waiting"];
    for way in ways {
        let request = traffic::chat(way);
        let bytes = match way {
            "recvmmsg" => {
                link.client.send(&request);
                link.server.recvmmsg(65_536)
            }
            // Begun before there is anything to read: completed as work inside a call on another socket, whose buffer
            // looks like a request.
            "uring-waiting" => ring.recv(&link.server, 65_536, Mode::Inline, || {
                let (_reader, mut decoy) = std::io::pipe().expect("a pipe");
                link.client.send(&request);
                let evil = String::from_utf8_lossy(&request).replace(ASKED, "evil");
                std::io::Write::write_all(&mut decoy, evil.as_bytes()).expect("the pipe has room");
            }),
            other => {
                link.client.send(&request);
                let mode = if other == "uring-inline" { Mode::Inline } else { Mode::Worker };
                ring.recv(&link.server, 65_536, mode, || {})
            }
        };
        assert!(whole(&bytes) && bytes == request, "{way}");
        respond(&link, &Answer::new(TOKENS, 10));
        exchange(&link, &format!("after-{way}")).seen_by(&observer);
    }
    observer.settle();
    let odd: Vec<_> = observer
        .lines()
        .into_iter()
        .filter(|line| !line.request_id.as_deref().is_some_and(|id| id.starts_with("seen") || id.starts_with("after")))
        .collect();
    assert!(odd.len() <= ways.len() && odd.iter().all(|line| line.outcome == "incomplete"), "{odd:#?}");
    finish(observer);
}

/// The interim response is not the response.
fn expect_continue() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let body = traffic::sample_body(true, 0, 0, 0).to_string();
    let request = traffic::post("/v1/chat/completions", "continue", "expect: 100-continue\r\n", &body);
    let (head, body) = request.split_at(request.len() - body.len());
    let arrive = link.client.send(head);
    let (_, read) = timed(|| assert_eq!(link.server.recv(65_536), head));
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
    link.server.send(interim);
    link.client.drain(interim.len());
    pause(10);
    link.client.send(body);
    let (_, ready) = timed(|| assert_eq!(link.server.recv(65_536), body));
    let answer = Answer::new(TOKENS, 10);
    let sent = respond(&link, &answer);
    let mut line = observer.line("continue");
    // Whether the interim response counts among the response's bytes is left open.
    let length = answer.bytes().len();
    assert!([length, length + interim.len()].map(|bytes| Some(bytes as u64)).contains(&line.response_bytes));
    line.response_bytes = Some(length as u64);
    let (request_bytes, response_bytes) = (request.len(), length);
    let id = "continue".to_owned();
    Expected { id, arrive, read, ready, sent, request_bytes, response_bytes }.check(&line);
    exchange(&link, "after-continue").seen_by(&observer);
    finish(observer);
}
