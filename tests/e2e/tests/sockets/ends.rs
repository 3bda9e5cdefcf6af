//! How requests end.

use observer_e2e::{
    clock::{Mark, monotonic, timed},
    observer::Observer,
    raw::{Link, Listener, Socket, socket::pause},
    request_log::RequestLine,
    require,
    traffic::{self, Answer, STREAM_HEAD, chunk, delta, event},
    wait::{self, SOON},
};
use serde_json::json;

use super::{exchange, finish, observed, respond};

observer_e2e::with_each_socket_hook! {
    client_resets_mid_stream,
    client_closes_mid_stream,
    client_closes_before_the_first_token,
    client_half_closes_and_waits,
    client_closes_after_the_whole_answer,
    server_closes_mid_stream,
    error_in_the_stream,
    http_errors,
    answered_before_the_request_was_whole,
    answer_delimited_by_close,
    what_never_was_tracked_is_forgotten,
    client_resets_before_the_server_reads,
    body_and_fin_in_one_read,
}

/// Sends a request and answers it with the first `tokens` token events; the client has read them all.
fn begin(link: &Link, id: &str, tokens: usize) -> Answer {
    let answer = Answer::new(tokens + 3, 10);
    link.client.send(&traffic::chat(id));
    assert!(!link.server.take().bytes.is_empty());
    for part in answer.parts().into_iter().take(2 + tokens) {
        link.server.send(part);
        assert_eq!(link.client.drain(part.len()), part);
    }
    answer
}

/// Writes one more token event every millisecond until the kernel refuses; says how many it took.
fn write_until_refused(server: &Socket, token: &[u8]) -> u64 {
    for taken in 0..100 {
        if server.try_send(token).is_err() {
            return taken;
        }
        pause(1);
    }
    panic!("the kernel never refused");
}

/// A cancelled request: counted once, its tokens too; over at the client's leaving or after it, never before.
fn expect_cancelled(observer: &Observer, id: &str, tokens: std::ops::RangeInclusive<u64>, left: Mark) -> RequestLine {
    let line = observer.line(id);
    assert_eq!((line.outcome.as_str(), line.status, line.stream), ("cancelled", Some(200), Some(true)), "{line:#?}");
    assert!(line.token_events.is_some_and(|seen| tokens.contains(&seen)), "{tokens:?} {line:#?}");
    let end = line.t_end_ns.expect("an end");
    assert!(left.from <= end && end <= monotonic(), "{left:?} {line:#?}");
    assert!(line.t_first_ns.is_some() && line.output_tokens.is_none(), "{line:#?}");
    line
}

fn client_resets_mid_stream() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let answer = begin(&link, "reset", 3);
    pause(5);
    let left = link.client.reset();
    // The server learns of it only at its next write.
    pause(20);
    assert_eq!(write_until_refused(&link.server, &answer.tokens[0]), 0);
    expect_cancelled(&observer, "reset", 3..=3, left);
    drop(link.server);
    finish(observer);
}

fn client_closes_mid_stream() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let answer = begin(&link, "close", 3);
    let left = link.client.close();
    pause(20);
    // The first write after the FIN is taken; its packet is answered by a reset.
    let taken = write_until_refused(&link.server, &answer.tokens[0]);
    drop(link.server);
    let line = expect_cancelled(&observer, "close", 3..=3 + taken, left);
    assert!(line.t_last_ns <= line.t_end_ns, "{line:#?}");
    let wasted = observer.metrics().sum("llm_cancelled_work_seconds_total", &[]);
    assert!((0.015..5.0).contains(&wasted), "20 ms from the FIN to the last write, told were {wasted} s");
    finish(observer);
}

/// The client closes while the server generates its first token; nothing is ever written.
fn client_closes_before_the_first_token() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    link.client.send(&traffic::chat("early"));
    assert!(!link.server.take().bytes.is_empty());
    let left = link.client.close();
    pause(10);
    assert_eq!(link.server.recv(100), b"");
    drop(link.server);
    let line = observer.line("early");
    assert_eq!((line.outcome.as_str(), line.status), ("cancelled", None), "{line:#?}");
    assert!(line.t_first_ns.is_none() && line.t_end_ns >= Some(left.from), "{line:#?}");
    assert_eq!(observer.metrics().sum("gen_ai_server_time_to_first_token_seconds_count", &[]), 0.0);
    finish(observer);
}

/// A half-closed client still wants its answer.
fn client_half_closes_and_waits() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    link.client.send(&traffic::chat("half"));
    link.client.finish();
    assert!(!link.server.take().bytes.is_empty());
    pause(10);
    let answer = Answer::new(5, 10);
    let sent = respond(&link, &answer);
    let line = observer.line("half");
    assert_eq!((line.outcome.as_str(), line.token_events), ("ok", Some(5)), "{line:#?}");
    sent.end.expect(line.t_end_ns, "end");
    drop(link);
    finish(observer);
}

/// openai-python closes after `[DONE]`, before it has read the terminator: that is no cancel.
fn client_closes_after_the_whole_answer() {
    require!(kernel);
    let (listener, observer) = observed();
    for (id, unread) in [("done-read", 0), ("done-unread", 5)] {
        let link = listener.link();
        link.client.send(&traffic::chat(id));
        assert!(!link.server.take().bytes.is_empty());
        let answer = Answer::new(5, 10).bytes();
        link.server.send(&answer);
        link.client.drain(answer.len() - unread);
        // With bytes unread, this is a reset.
        link.client.close();
        drop(link.server);
        let line = observer.line(id);
        assert_eq!((line.outcome.as_str(), line.token_events), ("ok", Some(5)), "{line:#?}");
    }
    finish(observer);
}

fn server_closes_mid_stream() {
    require!(kernel);
    let (listener, observer) = observed();
    for (id, reset) in [("cut", false), ("cut-hard", true)] {
        let link = listener.link();
        begin(&link, id, 4);
        let left = if reset { link.server.reset() } else { link.server.close() };
        let line = observer.line(id);
        assert_eq!((line.outcome.as_str(), line.status), ("truncated", Some(200)), "{line:#?}");
        assert_eq!(line.token_events, Some(4), "{line:#?}");
        assert!(line.t_end_ns.is_none_or(|end| end <= left.to.max(monotonic())), "{line:#?}");
    }
    // Truncated answers have no place among the latencies.
    assert_eq!(observer.metrics().sum("gen_ai_server_time_to_first_token_seconds_count", &[]), 0.0);
    finish(observer);
}

fn error_in_the_stream() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let mut answer = Answer::new(4, 10);
    answer.tail = chunk(&event(&json!({"error": {"message": "out of memory", "code": 500}})));
    for id in ["error-1", "error-2"] {
        link.client.send(&traffic::chat(id));
        assert!(!link.server.take().bytes.is_empty());
        let sent = respond(&link, &answer);
        let line = observer.line(id);
        assert_eq!((line.outcome.as_str(), line.status), ("error_in_stream", Some(200)), "{line:#?}");
        assert_eq!(line.token_events, Some(4), "{line:#?}");
        sent.end.expect(line.t_end_ns, "end");
    }
    exchange(&link, "after-error").seen_by(&observer);
    finish(observer);
}

fn http_errors() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    for status in ["400 Bad Request", "404 Not Found", "422 Unprocessable Entity", "429 Too Many Requests"]
        .into_iter()
        .chain(["500 Internal Server Error", "503 Service Unavailable"])
    {
        let id = format!("http-{}", &status[..3]);
        link.client.send(&traffic::chat(&id));
        let taken = link.server.take();
        let answer = traffic::plain_answer(status, r#"{"error":{"message":"no","type":"x"}}"#);
        let sent = link.server.send(&answer);
        link.client.drain(answer.len());
        let line = observer.line(&id);
        assert_eq!((line.outcome.as_str(), line.status), ("http_error", status[..3].parse().ok()), "{line:#?}");
        assert!(line.t_first_ns.is_none() && line.output_tokens.is_none(), "{line:#?}");
        taken.last.expect(line.t_ready_ns, "ready");
        sent.expect(line.t_header_ns, "header");
        sent.expect(line.t_end_ns, "end");
    }
    exchange(&link, "after-errors").seen_by(&observer);
    finish(observer);
}

/// The answer precedes the request's end: that end is unknown, and no phase is negative.
fn answered_before_the_request_was_whole() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let request = traffic::post("/v1/chat/completions", "too-large", "", &"x".repeat(100_000));
    link.client.send(&request[..1000]);
    let (_, read) = timed(|| assert_eq!(link.server.recv(65_536).len(), 1000));
    let sent = link.server.send(&traffic::plain_answer("413 Payload Too Large", "{}"));
    link.server.close();
    let line = observer.line("too-large");
    assert_eq!((line.outcome.as_str(), line.status), ("http_error", Some(413)), "{line:#?}");
    read.expect(line.t_read_ns, "read");
    sent.expect(line.t_header_ns, "header");
    assert_eq!(line.t_ready_ns, None, "{line:#?}");
    finish(observer);
}

/// An answer without a length ends with the connection: by the server's FIN it is whole.
fn answer_delimited_by_close() {
    require!(kernel);
    let (listener, observer) = observed();
    let head = STREAM_HEAD.replace("transfer-encoding: chunked\r\n", "connection: close\r\n");
    let tokens = [0; 4].map(|_| delta(&json!({"content": "x"}), None));
    for (id, whole) in [("until-close", true), ("until-client-left", false)] {
        let link = listener.link();
        link.client.send(&traffic::chat(id));
        assert!(!link.server.take().bytes.is_empty());
        for part in [&head].into_iter().chain(&tokens) {
            link.server.send(part.as_bytes());
            link.client.drain(part.len());
        }
        let line = if whole {
            link.server.send(b"data: [DONE]\n\n");
            link.server.close();
            let line = observer.line(id);
            assert_eq!(line.outcome, "ok", "{line:#?}");
            line
        } else {
            let left = link.client.close();
            pause(10);
            let taken = write_until_refused(&link.server, tokens[0].as_bytes());
            drop(link.server);
            expect_cancelled(&observer, id, 4..=4 + taken, left)
        };
        assert!(line.token_events >= Some(4), "{line:#?}");
    }
    finish(observer);
}

/// A connection that was joined inside its only request, and one that began as HTTP and went on as something else:
/// neither is ever tracked. The first is forgotten when it closes, the other at once.
fn what_never_was_tracked_is_forgotten() {
    require!(kernel);
    let listener = Listener::v4();
    let early = listener.link();
    early.client.send(&traffic::chat("early"));
    assert!(!early.server.take().bytes.is_empty());
    let observer = Observer::start(&[listener.port()]);
    respond(&early, &Answer::new(3, 10));
    let undecided = listener.link();
    for word in [&b"PO"[..], b"P3 is no HTTP\r\n"] {
        undecided.client.send(word);
        assert_eq!(undecided.server.drain(word.len()), word);
    }
    let connections = || observer.metrics().sum("observer_connections", &[]);
    let left_alone = || observer.metrics().sum("observer_left_alone_connections_total", &[]);
    wait::until("one to be left alone", SOON, || (left_alone() == 1.0).then_some(()));
    wait::until("the other one to be known", SOON, || (connections() == 1.0).then_some(()));
    drop((early, undecided));
    wait::until("both to be forgotten", SOON, || (connections() == 0.0).then_some(()));
    let joined = observer.metrics().sum("observer_joined_mid_request_total", &[]);
    assert_eq!((joined, observer.lines().len()), (1.0, 0));
}

/// Clients that give up in the accept queue: the server reads and answers what is of use to nobody.
fn client_resets_before_the_server_reads() {
    require!(kernel);
    let (listener, observer) = observed();
    for (id, answers) in [("unanswered", false), ("answered", true)] {
        let link = listener.link();
        link.client.send(&traffic::chat(id));
        pause(10);
        link.client.reset();
        pause(10);
        assert!(!link.server.take().bytes.is_empty());
        if answers {
            assert!(link.server.try_send(b"HTTP/1.1 200 OK\r\n").is_err());
        }
        drop(link.server);
        let line = observer.line(id);
        assert_eq!((line.outcome.as_str(), line.status), ("cancelled", None), "{line:#?}");
        assert!(line.server.is_some_and(|server| server.ends_with(&format!(":{}", listener.port()))));
    }
    assert_eq!(observer.metrics().sum("llm_requests_in_flight", &[]), 0.0);
    finish(observer);
}

/// The FIN takes a position of its own, which the read that reaches it passes.
fn body_and_fin_in_one_read() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let request = traffic::chat("with-fin");
    let (head, body) = request.split_at(request.len() - 20);
    link.client.send(head);
    assert_eq!(link.server.drain(head.len()), head);
    link.client.send(body);
    link.client.finish();
    pause(20);
    assert_eq!(link.server.recv(65_536), body);
    respond(&link, &Answer::new(5, 10));
    let line = observer.line("with-fin");
    assert_eq!((line.outcome.as_str(), line.token_events), ("ok", Some(5)), "{line:#?}");
    assert_eq!(observer.metrics().sum("observer_stream_gap_bytes_total", &[]), 0.0);
    drop(link);
    finish(observer);
}
