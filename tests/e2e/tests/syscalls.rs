//! The system calls of servers that are not at hand, made one by one: what each stack reads and writes, and in which
//! pieces, from traces of the real ones. Both ends are this test's, so each stamp must lie within its call.

use std::thread;

use observer_e2e::{
    clock::Mark,
    expected::Expected,
    observer::Observer,
    raw::{
        Link, Listener, Socket,
        messages::cut,
        socket::{Taken, pause},
    },
    request_log::RequestLine,
    require,
    traffic::{self, ANSWERED, ASKED, Answer, INPUT_TOKENS},
    wait::SOON,
};

observer_e2e::with_each_socket_hook! {
    hyper_reads_24_bytes_first,
    go_reads_one_byte_in_the_background,
    cpp_httplib_serves_on_another_thread,
    llama_server_half_closes_after_a_stream,
    a_long_prompt_read_by_many_threads,
    http_1_0,
}

const TOKENS: usize = 5;

fn observed() -> (Listener, Observer) {
    let listener = Listener::v4();
    let observer = Observer::start(&[listener.port()]);
    (listener, observer)
}

fn expected() -> Expected<'static> {
    let base = Expected::ok("openai", "chat").streamed(TOKENS as u64).usage(INPUT_TOKENS, 2 * TOKENS as u64);
    Expected { request_model: Some(ASKED), response_model: Some(ANSWERED), finish: &["stop"], ..base }
}

/// Demands the values, and each moment within the call that it is of.
fn check(line: &RequestLine, taken: &Taken, first: Mark, last: Mark, end: Mark) {
    expected().check(line);
    line.expect_order(true);
    taken.first.expect(line.t_read_ns, "read");
    taken.last.expect(line.t_ready_ns, "ready");
    first.expect(line.t_first_ns, "first");
    last.expect(line.t_last_ns, "last");
    end.expect(line.t_end_ns, "end");
    assert_eq!(line.request_bytes, Some(taken.bytes.len() as u64), "{line:#?}");
}

/// Writes a part of an answer; the client reads it at once.
fn part(link: &Link, bytes: &[u8]) -> Mark {
    let mark = link.server.send(bytes);
    assert_eq!(link.client.drain(bytes.len()), bytes);
    mark
}

/// hyper looks for an HTTP/2 preface first: 24 bytes, then the rest. It writes size, data and line end of a chunk as
/// three vectors of one call, and several events in one.
fn hyper_reads_24_bytes_first() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    for id in ["hyper-1", "hyper-2"] {
        let request = traffic::chat(id);
        link.client.send(&request);
        let mut sizes = [24, 8192].into_iter();
        let taken = link.server.take_with(|socket, _| socket.recv(sizes.next().expect("two reads")));
        assert_eq!((taken.bytes.len(), sizes.next()), (request.len(), None), "two reads, the first of 24 bytes");
        let answer = Answer::new(TOKENS, 10);
        let write = |events: &[&[u8]]| {
            // Of each chunk: its size, its data, its end.
            let vectors: Vec<&[u8]> = events
                .iter()
                .flat_map(|event| {
                    let size = event.iter().position(|byte| *byte == b'\n').expect("a chunk") + 1;
                    let data = event.len() - 2;
                    [&event[..size], &event[size..data], &event[data..]]
                })
                .collect();
            let mark = link.server.writev(&vectors);
            link.client.drain(events.iter().map(|event| event.len()).sum());
            mark
        };
        part(&link, &answer.head);
        write(&[&answer.role]);
        let first = write(&[&answer.tokens[0]]);
        write(&[&answer.tokens[1], &answer.tokens[2]]);
        let last = write(&[&answer.tokens[3], &answer.tokens[4]]);
        part(&link, &answer.tail);
        let end = link.server.writev(&[&answer.done, &answer.end]);
        link.client.drain(answer.done.len() + answer.end.len());
        let line = observer.line(id);
        check(&line, &taken, first, last, end);
        // Two events of one call left at one moment.
        assert_eq!((line.chunk_times_ns[1], line.chunk_times_ns[3]), (line.chunk_times_ns[2], line.chunk_times_ns[4]));
    }
}

/// Go reads one byte in the background while a handler runs: the first one of the next request, and then the rest.
/// Headers and first chunk leave in one write.
fn go_reads_one_byte_in_the_background() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let first_request = traffic::chat("go-0");
    link.client.send(&first_request);
    let mut taken = link.server.take_with(|socket, _| socket.read(4096));
    for number in 0..4 {
        let id = format!("go-{number}");
        // The background read waits, in a thread of its own, for the byte that the next request begins with.
        let background = link.server.another();
        let waiting = thread::spawn(move || observer_e2e::clock::timed(|| background.read(1)));
        let answer = Answer::new(TOKENS, 10);
        pause(5);
        part(&link, &answer.head);
        let first = part(&link, &[&answer.role[..], &answer.tokens[0]].concat());
        let mut last = first;
        answer.tokens[1..].iter().for_each(|token| last = part(&link, token));
        part(&link, &[&answer.tail[..], &answer.done].concat());
        let end = part(&link, &answer.end);
        let line = observer.line(&id);
        check(&line, &taken, first, last, end);

        let next = traffic::chat(&format!("go-{}", number + 1));
        let sent = link.client.send(&next);
        let (byte, read) = waiting.join().expect("the background read");
        assert_eq!(byte, b"P");
        let mut rest = link.server.take_rest(byte);
        rest.first = read;
        assert_eq!(rest.bytes, next);
        assert!(sent.from <= rest.first.to);
        taken = rest;
    }
    // The server hangs up on the last one, which it has read.
    link.server.close();
    let line = observer.line("go-4");
    assert_eq!((line.outcome.as_str(), line.status), ("truncated", None), "{line:#?}");
}

/// cpp-httplib accepts on one thread and serves on another, and ends a stream with two sends.
fn cpp_httplib_serves_on_another_thread() {
    require!(kernel);
    let (listener, observer) = observed();
    for id in ["httplib-1", "httplib-2"] {
        // This thread has accepted.
        let Link { client, server, from } = listener.link();
        client.send(&traffic::chat(id));
        let serve = move || {
            let taken = server.take();
            let link = Link { client, server, from };
            let answer = Answer::new(TOKENS, 10);
            // Role and first content are one chunk of two lines.
            let data = |chunk: &[u8]| {
                let begin = chunk.iter().position(|byte| *byte == b'\n').expect("a chunk") + 1;
                String::from_utf8_lossy(&chunk[begin..chunk.len() - 2]).into_owned()
            };
            part(&link, &answer.head);
            let both = traffic::chunk(&(data(&answer.role) + &data(&answer.tokens[0])));
            let first = part(&link, &both);
            let mut last = first;
            answer.tokens[1..].iter().for_each(|token| last = part(&link, token));
            part(&link, &answer.tail);
            part(&link, &answer.done);
            part(&link, b"0\r\n");
            (taken, first, last, part(&link, b"\r\n"), link)
        };
        let (taken, first, last, end, _link) = thread::spawn(serve).join().expect("the serving thread");
        check(&observer.line(id), &taken, first, last, end);
    }
}

/// llama-server half-closes after each streamed answer although it says keep-alive, and drops what comes after.
fn llama_server_half_closes_after_a_stream() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    link.client.send(&traffic::chat("llama"));
    let taken = link.server.take();
    let answer = Answer::new(TOKENS, 10);
    part(&link, &answer.head);
    part(&link, &answer.role);
    let tokens: Vec<Mark> = answer.tokens.iter().map(|token| part(&link, token)).collect();
    part(&link, &answer.tail);
    part(&link, &answer.done);
    let end = part(&link, &answer.end);
    link.server.finish();
    pause(5);
    // The client takes it for a connection that it may use again. Nobody will read this.
    link.client.send(&traffic::chat("dropped"));
    pause(5);
    drop(link);
    check(&observer.line("llama"), &taken, tokens[0], tokens[TOKENS - 1], end);
    observer.settle();
    let lines = observer.lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let metrics = observer.metrics();
    assert_eq!(metrics.sum("llm_requests_total", &[]), 1.0);
    assert_eq!(metrics.sum("llm_requests_in_flight", &[]), 0.0);
}

/// 300 KB of prompt arrive in pieces that several threads read, one after the other.
fn a_long_prompt_read_by_many_threads() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let messages = serde_json::json!([{"role": "user", "content": "say \"model\":\"evil\" ".repeat(15_000)}]);
    // As clients write it: the messages first, then what is wanted, then long tools.
    let tools = serde_json::json!([{"type": "function", "function": {"name": "f", "description": "x".repeat(50_000)}}]);
    let body = format!(r#"{{"messages":{messages},"model":"{ASKED}","stream":true,"tools":{tools}}}"#);
    let request = traffic::post("/v1/chat/completions", "long", "", &body);
    assert!(request.len() > 300_000);
    let mut taken: Option<Taken> = None;
    for piece in cut(&request, 12) {
        let sender = link.client.another();
        let (piece, count) = (piece.to_vec(), piece.len());
        let sent = thread::spawn(move || sender.send(&piece));
        let reader = link.server.another();
        let read = thread::spawn(move || observer_e2e::clock::timed(|| reader.drain(count)));
        let (bytes, mark) = read.join().expect("the reader");
        sent.join().expect("the sender");
        let so_far = taken.get_or_insert_with(|| Taken { bytes: Vec::new(), first: mark, last: mark });
        so_far.bytes.extend(bytes);
        so_far.last = mark;
    }
    let taken = taken.expect("twelve pieces");
    assert_eq!(taken.bytes, request);
    let answer = Answer::new(TOKENS, 10);
    part(&link, &answer.head);
    part(&link, &answer.role);
    let tokens: Vec<Mark> = answer.tokens.iter().map(|token| part(&link, token)).collect();
    part(&link, &answer.tail);
    part(&link, &answer.done);
    let end = part(&link, &answer.end);
    let line = observer.line("long");
    assert_ne!(line.request_model.as_deref(), Some("evil"));
    assert!(line.request_model.as_deref().is_none_or(|model| model == ASKED), "{line:#?}");
    let known = RequestLine { request_model: Some(ASKED.to_owned()), ..line };
    check(&known, &taken, tokens[0], tokens[TOKENS - 1], end);
}

/// An HTTP/1.0 answer ends with the connection.
fn http_1_0() {
    require!(kernel);
    let (listener, observer) = observed();
    let link = listener.link();
    let request = String::from_utf8(traffic::chat("old")).expect("text").replace("HTTP/1.1", "HTTP/1.0");
    link.client.send(request.as_bytes());
    let taken = link.server.take();
    part(&link, b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
    let event = |value: &str| traffic::delta(&serde_json::json!({"content": value}), None);
    let tokens: Vec<Mark> = (0..TOKENS).map(|_| part(&link, event("word ").as_bytes())).collect();
    part(&link, b"data: [DONE]\n\n");
    let end = link.server.close();
    let line = observer.line("old");
    let base = Expected::ok("openai", "chat").streamed(TOKENS as u64);
    Expected { request_model: Some(ASKED), response_model: Some(ANSWERED), ..base }.check(&line);
    taken.last.expect(line.t_ready_ns, "ready");
    tokens[0].expect(line.t_first_ns, "first");
    tokens[TOKENS - 1].expect(line.t_last_ns, "last");
    assert!(line.t_end_ns >= line.t_last_ns && line.t_end_ns <= Some(end.to + SOON.as_nanos() as u64), "{line:#?}");
    // The client sees the end, too.
    assert_eq!(Socket::recv(&link.client, 10), b"");
}
