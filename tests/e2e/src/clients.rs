//! Clients as users run them, and what each itself saw of its requests.

use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{process::Process, request_log::RequestLine, require, servers, wait::SOON};

/// What sends the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// httpx: headers and body go out in two sends.
    Httpx,
    /// aiohttp.
    Aiohttp,
    /// Anthropic's own client. It parses: [`Seen::body`] is the events that it made, a line each.
    Anthropic,
    /// Node's `fetch`.
    Fetch,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Its `x-request-id`.
    pub id: String,
    path: String,
    body: Value,
    further: Value,
}

impl Ask {
    /// `POST path` with this JSON body.
    #[must_use]
    pub fn new(id: &str, path: &str, body: Value) -> Self {
        Self { id: id.to_owned(), path: path.to_owned(), body, further: json!({}) }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.further["headers"][name] = value.into();
        self
    }

    /// With `Expect: 100-continue`.
    #[must_use]
    pub fn expect(mut self) -> Self {
        self.further["expect"] = true.into();
        self
    }

    /// Leaves once `text` has come `count` times: by `close` or by `reset`.
    #[must_use]
    pub fn leave(mut self, text: &str, count: u64, how: &str) -> Self {
        self.further["leave"] = json!({"text": text, "count": count, "how": how});
        self
    }

    /// Stops reading for so long after the headers.
    #[must_use]
    pub fn stall(mut self, milliseconds: u64) -> Self {
        self.further["stall_ms"] = milliseconds.into();
        self
    }

    /// With its body in this coding: `gzip` or `zstd`. By httpx only.
    #[must_use]
    pub fn coding(mut self, coding: &str) -> Self {
        self.further["coding"] = coding.into();
        self
    }

    fn json(&self) -> Value {
        let mut value = self.further.clone();
        value["id"] = self.id.as_str().into();
        value["path"] = self.path.as_str().into();
        value["body"] = self.body.clone();
        value
    }
}

/// What the client saw of one request. Times are `CLOCK_MONOTONIC`, which is the observer's clock.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    /// Its `x-request-id`.
    pub id: String,
    /// Status of the answer.
    pub status: Option<u16>,
    /// What the library said, if it did not like it.
    pub error: Option<String>,
    /// Before it was sent.
    pub sent_ns: u64,
    /// When the library gave the headers.
    pub header_ns: Option<u64>,
    /// When it was over.
    pub end_ns: u64,
    /// Body as far as it came; one character is one byte.
    pub body: String,
    /// The body is what the library made of it.
    #[serde(default)]
    pub parsed: bool,
    /// When parts of the body came, and its length by then.
    chunks: Vec<(u64, usize)>,
}

/// A stamp may be so much later than what the client saw: on loopback the receiver's work precedes the sender's return
/// from its system call.
const SLACK_NS: u64 = 2_000_000;

impl Seen {
    /// How often `text` came.
    #[must_use]
    pub fn count(&self, text: &str) -> u64 {
        self.body.matches(text).count() as u64
    }

    /// When the first or the last `text` had come.
    ///
    /// # Panics
    /// If none came.
    #[must_use]
    pub fn arrival(&self, text: &str, last: bool) -> u64 {
        let at = if last { self.body.rfind(text) } else { self.body.find(text) };
        let end = text.len() + at.unwrap_or_else(|| panic!("no {text} came: {self:#?}"));
        let chunk = self.chunks.iter().find(|(_, length)| *length >= end);
        chunk.unwrap_or_else(|| panic!("{self:#?}")).0
    }

    /// Demands that the observer's times agree with the client's: nothing before it was sent, nothing after it was
    /// seen. `tokens`: texts in the first and in the last token.
    ///
    /// # Panics
    /// If they do not, or a time is not there.
    pub fn expect_times(&self, line: &RequestLine, tokens: Option<(&str, &str)>) {
        let said = format!("{line:#?}\n{:?}", (self.sent_ns, self.header_ns, &self.chunks, self.end_ns));
        let time = |time: Option<u64>, what: &str| time.unwrap_or_else(|| panic!("no {what}: {said}"));
        let within = |at: Option<u64>, until: u64, what: &str| {
            let at = time(at, what);
            assert!((self.sent_ns..=until + SLACK_NS).contains(&at), "{what} by the client at {until}: {said}");
        };
        line.expect_order(tokens.is_some());
        within(line.t_arrive_ns, time(self.header_ns, "header"), "arrive");
        within(line.t_header_ns, time(self.header_ns, "header"), "header");
        within(line.t_end_ns, self.end_ns, "end");
        if let Some((first, last)) = tokens {
            within(line.t_first_ns, self.arrival(first, false), "first");
            within(line.t_last_ns, self.arrival(last, true), "last");
            // What the observer calls time to first token is what the user waited, but for what a client takes to
            // connect, to wake up and to parse.
            let observed = line.t_first_ns.unwrap_or(0) - line.t_arrive_ns.unwrap_or(0);
            let waited = self.arrival(first, false) - self.sent_ns;
            assert!(waited + SLACK_NS >= observed && waited < observed + 250_000_000, "{waited} {observed} ns: {said}");
        }
    }
}

/// Sends the requests one after the other on a client of its own, to its end.
///
/// # Panics
/// If the client fails, or tells not of all.
#[must_use]
pub fn ask(library: Library, base: &str, wanted: &[Ask]) -> Vec<Seen> {
    let requests = Value::from_iter(wanted.iter().map(Ask::json)).to_string();
    let mut command = match library {
        Library::Fetch => {
            let mut command = Command::new(require::tool("node").expect("required"));
            command.arg(servers::node_scripts().join("ask.mjs"));
            command
        }
        other => {
            let mut command = Command::new(require::python());
            command.env("PYTHONDONTWRITEBYTECODE", "1").arg(servers::scripts().join("ask.py"));
            command.arg(format!("{other:?}").to_lowercase());
            command
        }
    };
    command.args([base, &requests]);
    for (name, _) in std::env::vars().filter(|(name, _)| name.to_lowercase().ends_with("_proxy")) {
        command.env_remove(name);
    }
    let mut client = Process::spawn(&format!("{library:?}"), command);
    let status = client.wait(6 * SOON);
    assert!(status.success(), "{:#?}", client.output());
    let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
    let output = client.settled_output();
    let mut seen: Vec<Seen> = output.iter().filter(|line| line.starts_with('{')).map(parse).collect();
    assert_eq!(seen.len(), wanted.len(), "{output:#?}");
    seen.iter_mut().for_each(|seen| seen.parsed = library == Library::Anthropic);
    seen
}
