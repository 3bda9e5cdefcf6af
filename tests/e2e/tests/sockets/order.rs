//! Connections: older than the observer, pipelined, shared by threads, of every family.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::mpsc,
    thread,
    time::Duration,
};

use observer_e2e::{
    clock::timed,
    observer::Observer,
    raw::{Link, Listener},
    require,
    scratch::Scratch,
    servers::Server,
    traffic::{self, ASKED, Answer},
    wait::SOON,
};

use super::{Expected, Sent, TOKENS, exchange, finish, observed, respond};

observer_e2e::with_each_socket_hook! {
    connection_older_than_the_observer,
    request_older_than_the_observer,
    pipelined_in_one_write,
    reader_and_writer_on_different_threads,
    many_connections_at_once,
    descriptors_are_reused,
    every_family,
    unix_socket,
    other_requests_on_the_same_connection,
}

fn connection_older_than_the_observer() {
    require!(kernel);
    let listener = Listener::v4();
    let (used, idle) = (listener.link(), listener.link());
    exchange(&used, "unseen");
    let observer = Observer::start(&[listener.port()]);
    for (name, link) in [("used", &used), ("idle", &idle)] {
        let expected = exchange(link, &format!("{name}-1"));
        let line = observer.line(&expected.id);
        expected.check_from_read(&line);
        // Its arrival may have gone unseen; if it was seen, it is right.
        assert!(line.t_arrive_ns.is_none_or(|time| time >= expected.arrive.from && time <= expected.read.to));
        exchange(link, &format!("{name}-2")).seen_by(&observer);
    }
    assert!(observer.lines_of("unseen").is_empty());
    finish(observer);
}

/// A request under way when the observer starts is not timed; the one after it is.
fn request_older_than_the_observer() {
    require!(kernel);
    let listener = Listener::v4();
    let link = listener.link();
    link.client.send(&traffic::chat("under-way"));
    assert!(!link.server.take().bytes.is_empty());
    let answer = Answer::new(TOKENS, 10);
    let (before, after) = answer.tokens.split_at(3);
    let before = [answer.head.as_slice(), &answer.role, &before.concat()].concat();
    let after = [after.concat().as_slice(), &answer.tail, &answer.done, &answer.end].concat();
    link.server.send(&before);
    let observer = Observer::start(&[listener.port()]);
    link.server.send(&after);
    link.client.drain(before.len() + after.len());
    exchange(&link, "next").seen_by(&observer);
    let others: Vec<_> = observer.lines().into_iter().filter(|line| line.outcome == "ok").collect();
    assert_eq!(others.len(), 1, "a request seen from its middle has no times: {others:#?}");
    finish(observer);
}

fn pipelined_in_one_write() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let ids = ["pipe-1", "pipe-2", "pipe-3"];
    let requests = ids.map(traffic::chat);
    let arrive = link.client.send(&requests.concat());
    let (bytes, read) = timed(|| link.server.recv(65_536));
    assert_eq!(bytes, requests.concat());
    let answer = Answer::new(TOKENS, 10);
    let mut expected = Vec::new();
    for (id, request) in ids.into_iter().zip(&requests) {
        let sent = respond(&link, &answer);
        let (request_bytes, response_bytes) = (request.len(), answer.bytes().len());
        let id = id.to_owned();
        expected.push(Expected { id, arrive, read, ready: read, sent, request_bytes, response_bytes });
    }
    expected.iter().for_each(|expected| drop(expected.seen_by(&observer)));
    let lines = observer.lines();
    assert!(lines.iter().map(|line| line.request_id.as_deref()).eq(ids.map(Some)), "in order: {lines:#?}");
    // One turn each: the head of the line moves.
    let phase = [("phase", "head_of_line")];
    assert_eq!(observer.metrics().sum("llm_request_phase_seconds_count", &phase), 2.0);
    finish(observer);
}

/// The event of a read can overtake that of the write before it: order is the stream's, not the ring's.
fn reader_and_writer_on_different_threads() {
    require!(kernel);
    const REQUESTS: usize = 300;
    let (listener, observer) = observed();
    let Link { client, server, .. } = listener.link();
    let answer = Answer::new(TOKENS, 10);
    let (to_writer, requests) = mpsc::channel();
    let (writer, for_writer) = (server.another(), answer.clone());
    let reading = thread::spawn(move || {
        for _ in 0..REQUESTS {
            to_writer.send(server.take()).expect("the writer lives");
        }
    });
    let writing = thread::spawn(move || {
        let mut sent = Vec::new();
        for taken in requests {
            let header = writer.send(&for_writer.head);
            writer.send(&for_writer.role);
            let tokens = for_writer.tokens.iter().map(|token| writer.send(token)).collect();
            let end = writer.send(&[for_writer.tail.as_slice(), &for_writer.done, &for_writer.end].concat());
            sent.push((taken, Sent { header, tokens, end }));
        }
        sent
    });
    let (mut arrivals, response_bytes) = (Vec::new(), answer.bytes().len());
    for number in 0..REQUESTS {
        arrivals.push(client.send(&traffic::chat(&format!("thread-{number}"))));
        assert_eq!(client.drain(response_bytes).len(), response_bytes);
    }
    reading.join().expect("the reader");
    let sent = writing.join().expect("the writer");
    assert_eq!(sent.len(), REQUESTS);
    let lines = observer.lines_when(REQUESTS, SOON);
    assert_eq!(lines.len(), REQUESTS);
    for (number, ((taken, sent), arrive)) in sent.into_iter().zip(arrivals).enumerate() {
        let id = format!("thread-{number}");
        assert_eq!(lines[number].request_id.as_ref(), Some(&id));
        // The first read of a request may have been waiting since before the request was sent.
        let (read, ready, request_bytes) = (taken.first, taken.last, taken.bytes.len());
        Expected { id, arrive, read, ready, sent, request_bytes, response_bytes }.check(&lines[number]);
    }
    finish(observer);
}

fn many_connections_at_once() {
    require!(kernel);
    let (listener, observer) = observed();
    let links: Vec<Link> = (0..50).map(|_| listener.link()).collect();
    for round in 0..3 {
        let ids = (0..links.len()).map(|number| format!("many-{round}-{number}"));
        let expected: Vec<Expected> = links.iter().zip(ids).map(|(link, id)| exchange(link, &id)).collect();
        for (expected, link) in expected.iter().zip(&links) {
            let line = expected.seen_by(&observer);
            assert_eq!(line.client, Some(link.from.to_string()));
        }
    }
    finish(observer);
}

/// New connections take the descriptors of closed ones: state belongs to the socket.
fn descriptors_are_reused() {
    require!(kernel);
    let (listener, observer) = observed();
    for round in 0..20 {
        let link = listener.link();
        // Left in the middle of a request.
        link.client.send(&traffic::chat("half")[..40 + round]);
        assert!(!link.server.recv(65_536).is_empty());
        drop(link);
        let link = listener.link();
        exchange(&link, &format!("whole-{round}")).seen_by(&observer);
    }
    finish(observer);
}

fn every_family() {
    require!(kernel);
    let listeners = [Listener::v4(), Listener::v6(), Listener::mapped()];
    let observer = Observer::start(&listeners.each_ref().map(Listener::port));
    for (name, listener) in ["v4", "v6", "mapped"].into_iter().zip(&listeners) {
        let link = listener.link();
        for round in 0..2 {
            let line = exchange(&link, &format!("{name}-{round}")).seen_by(&observer);
            // v4-mapped addresses are written as the IPv4 addresses that they are.
            assert_eq!(line.server, Some(listener.address().to_string()));
            assert_eq!(line.client, Some(link.from.to_string()));
        }
    }
    finish(observer);
}

fn unix_socket() {
    require!(kernel, sample);
    let scratch = Scratch::new();
    let path = scratch.file("server.sock");
    let server = Server::sample_unix(&path);
    let observer = Observer::with(&["--pids", &server.pid().to_string()]);
    let mut client = UnixStream::connect(&path).expect("it listens");
    client.set_read_timeout(Some(SOON)).expect("a bound");
    for round in 0..3 {
        let id = format!("unix-{round}");
        client.write_all(&traffic::sample_chat(&id, 20, 5, 10)).expect("it reads");
        let mut answer = Vec::new();
        while !answer.ends_with(b"0\r\n\r\n") {
            let mut some = [0; 4096];
            let count = client.read(&mut some).expect("an answer");
            assert!(count > 0, "the server left");
            answer.extend(&some[..count]);
        }
        let line = observer.line(&id);
        assert_eq!((line.outcome.as_str(), line.status), ("ok", Some(200)), "{line:#?}");
        assert_eq!((line.token_events, line.output_tokens), (Some(10), Some(10)), "{line:#?}");
        assert_eq!((line.server.as_ref(), line.client.as_ref()), (None, None), "{line:#?}");
        assert_eq!(line.pid, server.pid());
        assert_eq!(line.request_model.as_deref(), Some(ASKED));
        let first = line.t_first_ns.expect("a token") - line.t_read_ns.expect("a read");
        assert!(Duration::from_nanos(first) >= Duration::from_millis(19), "{line:#?}");
    }
    assert_eq!(observer.metrics().sum("llm_requests_total", &[("server_port", "unix")]), 3.0);
}

/// HEAD has no body whatever its length says; control routes are no requests of ours.
fn other_requests_on_the_same_connection() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let others = [
        ("GET /health HTTP/1.1\r\nhost: l\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        ("HEAD /v1/models HTTP/1.1\r\nhost: l\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n"),
        ("GET /v1/models HTTP/1.1\r\nhost: l\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET /v1/models HTTP/1.1\r\nhost: l\r\n\r\n", "HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n"),
        (
            "HEAD /v1/chat/completions HTTP/1.1\r\nhost: l\r\n\r\n",
            "HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 31\r\n\r\n",
        ),
    ];
    for (number, (request, answer)) in others.into_iter().enumerate() {
        link.client.send(request.as_bytes());
        assert_eq!(link.server.recv(65_536), request.as_bytes());
        link.server.send(answer.as_bytes());
        assert_eq!(link.client.drain(answer.len()), answer.as_bytes());
        exchange(&link, &format!("after-other-{number}")).seen_by(&observer);
    }
    // At most the HEAD of a route that generates counts, as the error that it was.
    let strange = observer.lines().into_iter().filter(|line| line.request_id.is_none()).collect::<Vec<_>>();
    assert!(strange.len() <= 1 && strange.iter().all(|line| line.status == Some(405)), "{strange:#?}");
    finish(observer);
}
