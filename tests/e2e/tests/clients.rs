//! Clients as users run them: how each writes its requests, and how each leaves.

use std::process::Command;

use observer_e2e::{
    clients::{Ask, Library, ask},
    expected::Expected,
    http::{Client, header},
    observer::Observer,
    process::Process,
    request_log::RequestLine,
    require,
    servers::{Server, Stack},
    traffic::post,
    wait::SOON,
};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const MODEL: &str = "acme/some-model";
const INPUT: u64 = 11;

fn chat(stream: bool, sample: Value) -> Value {
    json!({"messages": [{"role": "user", "content": "hello"}], "model": MODEL, "stream": stream, "sample": sample})
}

fn expected(stream: bool, tokens: u64) -> Expected<'static> {
    let base = Expected::ok("openai", "chat").model(MODEL).usage(INPUT, tokens);
    let base = if stream { base.streamed(tokens) } else { base };
    Expected { cached: Some(3), reasoning: Some(0), finish: &["length"], ..base }
}

fn by_every_client(stack: Stack) {
    let server = Server::engines(stack);
    let mut observer = Observer::start(&[server.port()]);
    let mut requests = 0;
    for library in [Library::Httpx, Library::Aiohttp, Library::Fetch] {
        let kinds = [(true, 7), (false, 5), (true, 1), (false, 9)];
        let id = |number: usize| format!("{library:?}-{number}");
        let wanted = |(number, (stream, tokens)): (usize, (bool, u64))| {
            let ask = Ask::new(&id(number), CHAT, chat(stream, json!({"tokens": tokens, "ttft_ms": 30})));
            if library == Library::Aiohttp && number > 1 { ask.expect() } else { ask }
        };
        let wanted: Vec<Ask> = kinds.into_iter().enumerate().map(wanted).collect();
        requests += wanted.len();
        for (seen, (stream, tokens)) in ask(library, &server.url(), &wanted).iter().zip(kinds) {
            let tokens_seen = stream.then_some(("word0 ", "word"));
            assert_eq!(seen.count("word"), tokens, "{seen:#?}");
            expected(stream, tokens).check_seen(&observer.line(&seen.id), seen, tokens_seen);
        }
    }
    assert_eq!(observer.lines_when(requests, SOON).len(), requests);
    let ok = observer.metrics().sum("llm_requests_total", &[("outcome", "ok")]);
    assert_eq!(ok, requests as f64);
    observer.stop(libc::SIGTERM);
}

#[test]
fn by_every_client_to_uvloop_and_httptools() {
    require!(kernel, python, node);
    by_every_client(Stack::Uvloop);
}

#[test]
fn by_every_client_to_asyncio_and_h11() {
    require!(kernel, python, node);
    by_every_client(Stack::H11);
}

/// A cancelled request: counted once, with the tokens that had been sent; over once the client had left.
fn expect_cancelled(line: &RequestLine, seen: u64, planned: u64) {
    assert_eq!((line.outcome.as_str(), line.status, line.stream), ("cancelled", Some(200), Some(true)), "{line:#?}");
    let events = line.token_events.unwrap_or_else(|| panic!("no count: {line:#?}"));
    assert!((seen..planned).contains(&events), "{seen} were seen of {planned}: {line:#?}");
    assert_eq!((line.output_tokens, &line.finish_reasons[..]), (None, &[][..]), "{line:#?}");
    assert!(line.t_first_ns.is_some() && line.t_end_ns >= line.t_first_ns, "{line:#?}");
}

#[test]
fn clients_that_leave_mid_stream() {
    require!(kernel, python, node, curl);
    const PLANNED: u64 = 400;
    let server = Server::engines(Stack::Uvloop);
    let mut observer = Observer::start(&[server.port()]);
    let body = || chat(true, json!({"tokens": PLANNED, "ttft_ms": 10, "interval_ms": 5}));
    let mut cancelled = 0;
    for (library, hows) in [
        (Library::Httpx, &["close", "reset"][..]),
        (Library::Aiohttp, &["close", "reset"][..]),
        (Library::Fetch, &["abort"][..]),
    ] {
        let wanted = |how: &&str| Ask::new(&format!("{library:?}-{how}"), CHAT, body()).leave("word", 4, how);
        let wanted: Vec<Ask> = hows.iter().map(wanted).collect();
        for seen in ask(library, &server.url(), &wanted) {
            let line = observer.line(&seen.id);
            expect_cancelled(&line, seen.count("word"), PLANNED);
            // It left then, and not when the server noticed.
            let late = line.t_end_ns.unwrap_or(0).abs_diff(seen.end_ns);
            assert!(late < 300_000_000, "{late} ns from the client's leaving: {line:#?}");
            cancelled += 1;
        }
    }
    let mut curl = Command::new(require::tool("curl").expect("required"));
    curl.args(["--silent", "--no-buffer", "--noproxy", "*", "--max-time", "0.4"]);
    curl.args(["-H", "content-type: application/json", "-H", "x-request-id: curl", "--data", &body().to_string()]);
    let mut curl = Process::spawn("curl", {
        curl.arg(format!("{}{CHAT}", server.url()));
        curl
    });
    assert_eq!(curl.wait(SOON).code(), Some(28), "{:#?}", curl.settled_output());
    let words = curl.settled_output().iter().filter(|line| line.contains("word")).count();
    assert!(words > 10, "{:#?}", curl.settled_output());
    expect_cancelled(&observer.line("curl"), words as u64, PLANNED);
    cancelled += 1;
    assert_eq!(observer.lines_when(cancelled, SOON).len(), cancelled);
    let metrics = observer.metrics();
    assert_eq!(metrics.sum("llm_requests_total", &[("outcome", "cancelled")]), cancelled as f64);
    assert_eq!(metrics.sum("llm_requests_total", &[]), cancelled as f64);
    assert_eq!(metrics.sum("llm_requests_in_flight", &[]), 0.0);
    observer.stop(libc::SIGTERM);
}

/// A client that does not read: the server's writes are held up, and that is told; what it sends is sent in the end.
#[test]
fn a_client_that_stalls() {
    require!(kernel, python);
    const TOKENS: u64 = 2500;
    const STALL_MS: u64 = 600;
    let body = || chat(true, json!({"tokens": TOKENS, "ttft_ms": 10, "interval_ms": 0, "padding": 3000}));
    for stack in [Stack::Uvloop, Stack::H11] {
        let server = Server::engines(stack);
        let observer = Observer::start(&[server.port()]);
        let seen = ask(Library::Httpx, &server.url(), &[Ask::new("stalls", CHAT, body()).stall(STALL_MS)]);
        let line = observer.line("stalls");
        assert_eq!(seen[0].count("word"), TOKENS);
        let blocked = line.write_blocked_ns.unwrap_or(0) / 1_000_000;
        println!("{stack}: {blocked} ms, {:?} {:?}", line.outcome, line.incomplete_reason);
        assert!((STALL_MS / 3..STALL_MS + 3000).contains(&blocked), "{stack} was blocked for {blocked} ms");
        if stack == Stack::Uvloop {
            expected(true, TOKENS).check(&line);
            assert!(line.response_bytes >= Some(TOKENS * 3000), "{line:#?}");
        } else {
            // asyncio sends what has gathered in one call: more than is captured, and chunk sizes are in between. So
            // the count is unknown and there is no latency, but nothing is made up.
            let outcome = (line.outcome.as_str(), line.incomplete_reason.as_deref());
            assert_eq!(outcome, ("incomplete", Some("framing_gap")), "{line:#?}");
            assert!(line.output_tokens.is_none() && line.token_events < Some(TOKENS), "{line:#?}");
            assert_eq!(observer.metrics().sum("gen_ai_server_time_to_first_token_seconds_count", &[]), 0.0);
        }
        // A client that reads at once blocks nobody.
        let quick = chat(true, json!({"tokens": 20}));
        let _seen = ask(Library::Httpx, &server.url(), &[Ask::new("reads", CHAT, quick)]);
        assert_eq!(observer.line("reads").write_blocked_ns, Some(0));
    }
}

/// Requests cut anywhere: byte by byte, headers and body apart, two in one send, an interim answer between.
#[test]
fn requests_in_pieces() {
    require!(kernel, python);
    for stack in [Stack::Uvloop, Stack::H11] {
        let server = Server::engines(stack);
        let mut observer = Observer::start(&[server.port()]);
        let request = |id: &str, stream, tokens, headers: &str| {
            post(CHAT, id, headers, &chat(stream, json!({"tokens": tokens, "ttft_ms": 5})).to_string())
        };
        let mut client = Client::connect(server.address).expect("it listens");
        let mut said = Vec::new();
        let bytes = request("bytes", true, 4, "");
        bytes.chunks(1).for_each(|byte| client.send(byte).expect("it reads"));
        said.push(("bytes", true, 4, bytes.len(), client.receive().expect("an answer")));

        let apart = request("apart", false, 5, "");
        let body = apart.windows(4).position(|window| window == b"\r\n\r\n").expect("a body") + 4;
        for part in [&apart[..body], &apart[body..]] {
            client.send(part).expect("it reads");
            std::thread::sleep(std::time::Duration::from_millis(15));
        }
        said.push(("apart", false, 5, apart.len(), client.receive().expect("an answer")));

        let interim = request("interim", true, 6, "expect: 100-continue\r\n");
        let body = interim.windows(4).position(|window| window == b"\r\n\r\n").expect("a body") + 4;
        client.send(&interim[..body]).expect("it reads");
        let head = client.receive_head().expect("an interim answer");
        assert!(head.starts_with("HTTP/1.1 100 "), "{head}");
        client.send(&interim[body..]).expect("it reads");
        // It is no part of the answer.
        said.push(("interim", true, 6, interim.len(), client.receive().expect("an answer")));

        let both = [request("first", true, 3, ""), request("second", false, 8, "")];
        client.send(&both.concat()).expect("it reads");
        said.push(("first", true, 3, both[0].len(), client.receive().expect("an answer")));
        said.push(("second", false, 8, both[1].len(), client.receive().expect("an answer")));

        for (id, stream, tokens, sent, answer) in &said {
            let line = observer.line(id);
            expected(*stream, *tokens).check(&line);
            line.expect_order(*stream);
            assert_eq!(answer.status, 200);
            assert_eq!(line.request_bytes, Some(*sent as u64), "{stack} {line:#?}");
            assert_eq!(line.response_bytes, Some(answer.wire as u64), "{stack} {line:#?}");
            assert_eq!(line.client, Some(client.local().expect("an address").to_string()));
        }
        let (first, second) = (observer.line("first"), observer.line("second"));
        assert!(first.t_end_ns <= second.t_header_ns, "answered in order: {first:#?} {second:#?}");
        assert_eq!(observer.lines_when(said.len(), SOON).len(), said.len());
        observer.stop(libc::SIGTERM);
    }
}

/// Answers without a body, and requests that are none of a model, do not shift what follows them on the connection.
#[test]
fn answers_without_a_body() {
    require!(kernel, python);
    let server = Server::engines(Stack::Uvloop);
    let observer = Observer::start(&[server.port()]);
    let mut client = Client::connect(server.address).expect("it listens");
    let mut ask = |head: &str| {
        client.send(format!("{head} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).expect("it reads");
        client.receive_head().expect("a head")
    };
    // A HEAD's answer has the length of the body that it does not have.
    let head = ask("HEAD /health");
    assert_eq!(header(&head, "content-length"), Some("2"), "{head}");
    let head = ask(&format!("OPTIONS {CHAT}"));
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    for number in 0..2 {
        let id = format!("after-{number}");
        let request = post(CHAT, &id, "", &chat(number == 0, json!({"tokens": 4})).to_string());
        let answer = client.ask(&request).expect("an answer");
        let line = observer.line(&id);
        expected(number == 0, 4).check(&line);
        assert_eq!(line.response_bytes, Some(answer.wire as u64), "{line:#?}");
        line.expect_order(number == 0);
    }
    let lines = observer.lines_when(2, SOON);
    assert!(lines.iter().all(|line| line.operation == "chat" && line.status == Some(200)), "{lines:#?}");
}
