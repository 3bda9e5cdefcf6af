//! Odd traffic: every way to read and write a socket that servers use, and those that none uses yet. Both ends of
//! each connection are this test's, so that every moment is known: a stamp must lie within the call that it is of.
//!
//! What the observer sees whole it must tell exactly. What it cannot see (calls whose registers are not theirs, bytes
//! that the kernel throws away) makes a request incomplete, or a count unknown: never a wrong value.

mod ends;
mod multipath;
mod order;
mod reads;
mod writes;

use observer_e2e::{
    clock::Mark,
    observer::Observer,
    raw::{Link, Listener, Socket, socket::Taken},
    request_log::RequestLine,
    traffic::{self, ANSWERED, ASKED, Answer, INPUT_TOKENS},
};

/// Token events of most answers here.
const TOKENS: usize = 6;

/// When the parts of an answer were written.
struct Sent {
    header: Mark,
    tokens: Vec<Mark>,
    end: Mark,
}

/// What the observer must say of one request.
struct Expected {
    id: String,
    arrive: Mark,
    read: Mark,
    ready: Mark,
    sent: Sent,
    request_bytes: usize,
    response_bytes: usize,
}

/// A listener, and an observer of it.
fn observed() -> (Listener, Observer) {
    let listener = Listener::v4();
    let observer = Observer::start(&[listener.port()]);
    (listener, observer)
}

/// Writes an answer, each part in one `send`. The client reads each at once: small packets that nobody acknowledges
/// would soon hold back those after them.
fn respond(link: &Link, answer: &Answer) -> Sent {
    respond_with(link, answer, Socket::send)
}

/// Writes an answer, each part in one call of `writer`.
fn respond_with(link: &Link, answer: &Answer, writer: impl Fn(&Socket, &[u8]) -> Mark) -> Sent {
    let part = |bytes: &[u8]| {
        let mark = writer(&link.server, bytes);
        assert_eq!(link.client.drain(bytes.len()), bytes);
        mark
    };
    let header = part(&answer.head);
    part(&answer.role);
    let tokens = answer.tokens.iter().map(|token| part(token)).collect();
    part(&answer.tail);
    part(&answer.done);
    Sent { header, tokens, end: part(&answer.end) }
}

/// One exchange in which everything but the server's reading is plain.
fn exchange_with(link: &Link, id: &str, take: impl FnOnce(&Socket) -> Taken) -> Expected {
    let request = traffic::chat(id);
    let arrive = link.client.send(&request);
    let taken = take(&link.server);
    assert_eq!(taken.bytes, request);
    let answer = Answer::new(TOKENS, 10);
    let sent = respond(link, &answer);
    let (read, ready) = (taken.first, taken.last);
    let (request_bytes, response_bytes) = (request.len(), answer.bytes().len());
    Expected { id: id.to_owned(), arrive, read, ready, sent, request_bytes, response_bytes }
}

/// One plain exchange.
fn exchange(link: &Link, id: &str) -> Expected {
    exchange_with(link, id, Socket::take)
}

impl Expected {
    /// Demands everything but the arrival.
    fn check_from_read(&self, line: &RequestLine) {
        let said = format!("{line:#?}");
        assert_eq!(line.outcome, "ok", "{said}");
        assert_eq!((line.status, line.stream, line.operation.as_str()), (Some(200), Some(true), "chat"), "{said}");
        assert_eq!(line.request_model.as_deref(), Some(ASKED), "{said}");
        assert_eq!(line.response_model.as_deref(), Some(ANSWERED), "{said}");
        let tokens = self.sent.tokens.len();
        assert_eq!(line.token_events, Some(tokens as u64), "{said}");
        assert_eq!((line.input_tokens, line.output_tokens), (Some(INPUT_TOKENS), Some(2 * tokens as u64)), "{said}");
        assert_eq!(line.finish_reasons, ["stop"], "{said}");
        assert_eq!(line.request_bytes, Some(self.request_bytes as u64), "{said}");
        assert_eq!(line.response_bytes, Some(self.response_bytes as u64), "{said}");
        assert_eq!(line.pid, std::process::id(), "{said}");
        self.read.expect(line.t_read_ns, "read");
        self.ready.expect(line.t_ready_ns, "ready");
        self.sent.header.expect(line.t_header_ns, "header");
        self.sent.tokens[0].expect(line.t_first_ns, "first");
        self.sent.tokens[tokens - 1].expect(line.t_last_ns, "last");
        self.sent.end.expect(line.t_end_ns, "end");
        assert_eq!(line.chunk_times_ns.len(), tokens, "{said}");
        let stamps = line.chunk_times_ns.iter().zip(&self.sent.tokens);
        stamps.for_each(|(stamp, mark)| mark.expect(Some(*stamp), "token event"));
    }

    /// Demands everything.
    fn check(&self, line: &RequestLine) {
        self.check_from_read(line);
        // The packet is queued within the client's call, unless the kernel had to defer its soft interrupt.
        let arrive = line.t_arrive_ns.unwrap_or_else(|| panic!("no arrival: {line:#?}"));
        assert!(self.arrive.from <= arrive && Some(arrive) <= line.t_read_ns, "{:?} {line:#?}", self.arrive);
    }

    /// Demands that the observer saw it, and all of it.
    fn seen_by(&self, observer: &Observer) -> RequestLine {
        let line = observer.line(&self.id);
        self.check(&line);
        line
    }

    /// Demands that the observer saw it whole, or says that it did not.
    fn seen_or_incomplete(&self, observer: &Observer) {
        observer.settle();
        let lines = observer.lines_of(&self.id);
        assert!(lines.len() <= 1, "{lines:#?}");
        match lines.first() {
            Some(line) if line.outcome == "incomplete" => {
                println!("{}: incomplete, {:?}", self.id, line.incomplete_reason);
                let tokens = self.sent.tokens.len() as u64;
                assert!(line.token_events.is_none_or(|seen| seen <= tokens), "{line:#?}");
                let reported = line.output_tokens.is_none_or(|count| count == 2 * tokens);
                assert!(reported && line.request_model.as_deref().is_none_or(|model| model == ASKED), "{line:#?}");
            }
            Some(line) => self.check(line),
            None => println!("{}: no line of its own", self.id),
        }
    }
}

/// Demands of whatever an observer has seen that it is consistent, and ends the observer.
fn finish(mut observer: Observer) {
    observer.settle();
    let (lines, metrics) = (observer.lines(), observer.metrics());
    for line in &lines {
        assert_eq!(line.outcome == "incomplete", line.incomplete_reason.is_some(), "{line:#?}");
        for model in [&line.request_model, &line.response_model].into_iter().flatten() {
            assert!([ASKED, ANSWERED].contains(&model.as_str()), "a model that nobody named: {line:#?}");
        }
    }
    for outcome in ["ok", "http_error", "error_in_stream", "cancelled", "truncated", "incomplete"] {
        let logged = lines.iter().filter(|line| line.outcome == outcome).count();
        let counted = metrics.sum("llm_requests_total", &[("outcome", outcome)]);
        assert_eq!(counted, logged as f64, "{outcome}: {lines:#?}");
    }
    let timed = |line: &&RequestLine| {
        ["ok", "cancelled"].contains(&line.outcome.as_str()) && line.stream == Some(true) && line.t_first_ns.is_some()
    };
    let timed = lines.iter().filter(timed).count();
    let counted = metrics.sum("gen_ai_server_time_to_first_token_seconds_count", &[]);
    assert_eq!(counted, timed as f64, "only complete timelines make latencies: {lines:#?}");
    assert_eq!(metrics.sum("observer_events_lost_total", &[]), 0.0, "events were lost");
    observer.expect_alive();
    observer.stop(libc::SIGTERM);
}
