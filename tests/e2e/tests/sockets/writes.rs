//! How servers write answers.

use std::{fs::File, io, time::Duration};

use observer_e2e::{
    clock::{Mark, timed},
    observer::Observer,
    raw::{
        Link,
        messages::cut,
        socket::pause,
        uring::{Mode, Ring},
    },
    request_log::RequestLine,
    require,
    traffic::{self, Answer},
    wait::{self, SOON},
};

use super::{Expected, Sent, TOKENS, exchange, finish, observed, respond_with};

observer_e2e::with_each_socket_hook! {
    gathered_from_vectors_and_messages,
    gathered_from_very_many_vectors,
    events_across_writes,
    slow_reader,
    held_back_bytes_are_marked,
}

/// One exchange in which everything but the server's writing is plain.
fn written(link: &Link, id: &str, answer: &Answer, write: impl FnOnce(&Link) -> Sent) -> Expected {
    let request = traffic::chat(id);
    let arrive = link.client.send(&request);
    let taken = link.server.take();
    assert_eq!(taken.bytes, request);
    let sent = write(link);
    let (request_bytes, response_bytes) = (request.len(), answer.bytes().len());
    Expected { id: id.to_owned(), arrive, read: taken.first, ready: taken.last, sent, request_bytes, response_bytes }
}

/// The answer in one call: everything happens within it.
fn at_once(link: &Link, answer: &Answer, write: impl FnOnce(&[u8]) -> Mark) -> Sent {
    let bytes = answer.bytes();
    let mark = write(&bytes);
    assert_eq!(link.client.drain(bytes.len()), bytes);
    Sent { header: mark, tokens: vec![mark; answer.tokens.len()], end: mark }
}

fn gathered_from_vectors_and_messages() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let answer = Answer::new(TOKENS, 10);
    for count in [1, 3, 6, 40] {
        // Each part of the answer in a call of its own, cut into as many vectors.
        let id = format!("writev-{count}");
        let parts = |bytes: &[u8]| count.min(bytes.len());
        written(&link, &id, &answer, |link| {
            respond_with(link, &answer, |socket, bytes| socket.writev(&cut(bytes, parts(bytes))))
        })
        .seen_by(&observer);
        let id = format!("sendmsg-{count}");
        written(&link, &id, &answer, |link| {
            respond_with(link, &answer, |socket, bytes| socket.sendmsg(&cut(bytes, parts(bytes))))
        })
        .seen_by(&observer);
        // The whole answer in one call.
        let id = format!("writev-whole-{count}");
        let expected =
            written(&link, &id, &answer, |link| at_once(link, &answer, |bytes| link.server.writev(&cut(bytes, count))));
        let line = expected.seen_by(&observer);
        assert!(line.chunk_times_ns.iter().all(|time| *time == line.chunk_times_ns[0]), "one call, one moment");
    }
    finish(observer);
}

/// More vectors than are gathered: what lies beyond is a gap.
fn gathered_from_very_many_vectors() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let answer = Answer::new(TOKENS, 10);
    for count in [65, 200, 1000] {
        let expected = written(&link, &format!("many-{count}"), &answer, |link| {
            at_once(link, &answer, |bytes| link.server.writev(&cut(bytes, count)))
        });
        expected.seen_or_incomplete(&observer);
        exchange(&link, &format!("after-many-{count}")).seen_by(&observer);
    }
    finish(observer);
}

/// An event may be spread over writes, and a write may hold the end of one and the begin of the next.
fn events_across_writes() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let answer = Answer::new(TOKENS, 10);
    for size in [1, 7, 100, 333] {
        let expected = written(&link, &format!("across-{size}"), &answer, |link| {
            let bytes = answer.bytes();
            let mut marks = Vec::new();
            for part in bytes.chunks(size) {
                marks.extend(vec![link.server.write(part); part.len()]);
                assert_eq!(link.client.drain(part.len()), part);
            }
            // An event is handed over with its last byte; what follows it is the chunk's own end.
            let mut at = answer.head.len() + answer.role.len();
            let place = |token: &Vec<u8>| {
                at += token.len();
                marks[at - b"\r\n".len() - 1]
            };
            let tokens = answer.tokens.iter().map(place).collect();
            Sent { header: marks[0], tokens, end: marks[bytes.len() - 1] }
        });
        expected.seen_by(&observer);
    }
    finish(observer);
}

/// Calls that show no bytes: what they carried is a gap of known length, and the next request is plain again. Not all hooks
/// see that there was a call: `docs/kernel-support.md`.
#[test]
fn unseen_answers_are_not_guessed() {
    require!(kernel, io_uring);
    let (listener, observer) = observed();
    let ring = Ring::new().expect("required");
    let link = listener.link();
    let answer = Answer::new(TOKENS, 10);
    let path = observer.scratch().file("answer");
    for way in ["sendmmsg", "sendfile", "splice", "uring-inline", "uring-worker"] {
        let send = |bytes: &[u8]| match way {
            "sendmmsg" => link.server.sendmmsg(&cut(bytes, 2)),
            "sendfile" => {
                std::fs::write(&path, bytes).expect("a file of the test's own");
                link.server.sendfile(&File::open(&path).expect("just written"), bytes.len())
            }
            "splice" => link.server.splice(bytes),
            "uring-inline" => timed(|| ring.send(&link.server, bytes, Mode::Inline)).1,
            _ => timed(|| ring.send(&link.server, bytes, Mode::Worker)).1,
        };
        // All of it unseen, then only two token events in the middle.
        let all = written(&link, &format!("{way}-all"), &answer, |link| at_once(link, &answer, send));
        all.seen_or_incomplete(&observer);
        exchange(&link, &format!("after-{way}-all")).seen_by(&observer);
        let some = written(&link, &format!("{way}-some"), &answer, |link| {
            respond_with(
                link,
                &answer,
                |socket, bytes| {
                    if bytes == answer.tokens[2] { send(bytes) } else { socket.send(bytes) }
                },
            )
        });
        some.seen_or_incomplete(&observer);
        exchange(&link, &format!("after-{way}-some")).seen_by(&observer);
        whole_body(&link, &observer, &format!("{way}-body"), send);
    }
    finish(observer);
}

/// An answer of known length whose body is not seen: its end is known all the same, what it said is not.
fn whole_body(link: &Link, observer: &Observer, id: &str, send: impl Fn(&[u8]) -> Mark) {
    let bytes = traffic::whole_answer("some text", 7);
    let body = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let request = traffic::chat(id);
    link.client.send(&request);
    let taken = link.server.take();
    let header = link.server.send(&bytes[..body]);
    let end = send(&bytes[body..]);
    assert_eq!(link.client.drain(bytes.len()), bytes);
    let line = observer.line(id);
    assert_eq!((line.outcome.as_str(), line.status, line.stream), ("ok", Some(200), Some(false)), "{line:#?}");
    taken.last.expect(line.t_ready_ns, "ready");
    header.expect(line.t_header_ns, "header");
    end.expect(line.t_end_ns, "end");
    assert_eq!(line.response_bytes, Some(bytes.len() as u64), "{line:#?}");
    assert!(line.output_tokens.is_none_or(|count| count == 7), "{line:#?}");
    exchange(link, &format!("after-{id}")).seen_by(observer);
}

/// A client that reads slowly: short writes and EAGAIN. Only what the kernel took counts, and the time of waiting is
/// told.
fn slow_reader() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    link.client.set_receive_buffer(16_384);
    link.server.set_send_buffer(16_384);
    link.server.set_nonblocking();
    let answer = Answer::new(300, 700);
    let mut blocked = (0_u64, 0_u64);
    let expected = written(&link, "slow", &answer, |link| {
        let (bytes, mut marks, mut received) = (answer.bytes(), Vec::new(), Vec::new());
        let mut waiting: Option<Mark> = None;
        while marks.len() < bytes.len() {
            // No more than is captured of one call, so that nothing is unknown.
            let some = &bytes[marks.len()..bytes.len().min(marks.len() + 4000)];
            let (sent, mark) = timed(|| link.server.try_send(some));
            match sent {
                Ok(count) => {
                    if let Some(since) = waiting.take() {
                        blocked = (blocked.0 + mark.from - since.to, blocked.1 + mark.to - since.from);
                    }
                    waiting = (count < some.len()).then_some(mark);
                    marks.extend(vec![mark; count]);
                }
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    waiting = waiting.or(Some(mark));
                    pause(5);
                    // What the client reads makes room for packets that wait, and those for more writes.
                    wait::until("room in the socket", SOON, || {
                        while let Ok(some) = link.client.recv_with(65_536, libc::MSG_DONTWAIT) {
                            received.extend(some);
                        }
                        link.server.writable(Duration::from_millis(1)).then_some(())
                    });
                }
            }
        }
        received.extend(link.client.drain(bytes.len() - received.len()));
        assert_eq!(received, bytes);
        let mut at = answer.head.len() + answer.role.len();
        let place = |token: &Vec<u8>| {
            at += token.len();
            marks[at - b"\r\n".len() - 1]
        };
        let tokens = answer.tokens.iter().map(place).collect();
        Sent { header: marks[0], tokens, end: marks[bytes.len() - 1] }
    });
    let line = expected.seen_by(&observer);
    let told = line.write_blocked_ns.expect("a number");
    println!("blocked for {told} ns, between {} and {}", blocked.0, blocked.1);
    let slack = Duration::from_millis(1).as_nanos() as u64;
    assert!(blocked.0 > 0 && told + slack >= blocked.0 && told <= blocked.1 + slack);
    finish(observer);
}

/// Bytes that the kernel holds back have no packet yet: their stamps are marked.
fn held_back_bytes_are_marked() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let marked = |line: &RequestLine| line.chunk_unsent.clone();
    let line = exchange(&link, "sent").seen_by(&observer);
    assert_eq!(marked(&line), [0_usize; 0], "{line:#?}");
    let answer = Answer::new(TOKENS, 10);
    let expected = written(&link, "corked", &answer, |link| {
        respond_with(link, &answer, |socket, bytes| {
            let cork = bytes == answer.tokens[3];
            socket.set_cork(cork);
            let mark = socket.send(bytes);
            if cork {
                pause(2);
                socket.set_cork(false);
            }
            mark
        })
    });
    let line = expected.seen_by(&observer);
    // All token events are equal, so all of them were corked.
    assert_eq!(marked(&line), (0..TOKENS).collect::<Vec<_>>(), "{line:#?}");
    assert!(line.unsent_stamps.is_some_and(|count| count >= 1), "{line:#?}");
    finish(observer);
}
