//! A server seen through events, for the tests of the tracker.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use observer::{
    event::{Arrival, Arrivals, Content, Cookie, Data, Direction, Event, OpaqueReason, Open, State, StateChange},
    request::{
        record::{ConnectionInfo, RequestRecord},
        tracker::{EventNames, Sink, Tracker, TrackerConfig},
    },
    time::KernelTime,
};

use crate::tape::Tape;

/// Milliseconds since boot, some minutes after it.
pub(crate) fn at(milliseconds: f64) -> KernelTime {
    KernelTime::from_nanos(1_000_000_000_000 + (milliseconds * 1e6).round() as u64)
}

/// All that a tracker said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    pub(crate) records: Vec<RequestRecord>,
    pub(crate) others: usize,
    pub(crate) opaque: Vec<OpaqueReason>,
    pub(crate) bytes: BTreeMap<(Content, &'static str), u64>,
    pub(crate) joined: usize,
    pub(crate) gap: [u64; 2],
    pub(crate) uncaptured: [u64; 2],
    pub(crate) unparsed: [u64; 2],
}

impl Said {
    /// The only record.
    pub(crate) fn record(&self) -> &RequestRecord {
        assert_eq!(self.records.len(), 1, "{self:#?}");
        &self.records[0]
    }
}

impl Sink for Said {
    fn request(&mut self, record: RequestRecord) {
        self.records.push(record);
    }
    fn other_request(&mut self, _: &ConnectionInfo) {
        self.others += 1;
    }
    fn opaque(&mut self, _: &ConnectionInfo, reason: OpaqueReason) {
        self.opaque.push(reason);
    }
    fn bytes(&mut self, content: Content, direction: Direction, bytes: u64) {
        assert!(bytes > 0);
        let direction = if direction == Direction::Send { "send" } else { "receive" };
        *self.bytes.entry((content, direction)).or_default() += bytes;
    }
    fn joined_mid_request(&mut self, _: &ConnectionInfo) {
        self.joined += 1;
    }
    fn gap(&mut self, direction: Direction, bytes: u64) {
        self.gap[direction as usize] += bytes;
    }
    fn uncaptured(&mut self, direction: Direction, bytes: u64) {
        self.uncaptured[direction as usize] += bytes;
    }
    fn unparsed(&mut self, direction: Direction, bytes: u64) {
        self.unparsed[direction as usize] += bytes;
    }
}

pub(crate) const BOUNDS: [f64; 3] = [0.005, 0.05, 0.5];

pub(crate) fn config() -> TrackerConfig {
    TrackerConfig { gap_bounds: Arc::new(BOUNDS), chunk_times: true, ..TrackerConfig::default() }
}

/// One connection of a server, and the tracker that sees it.
pub(crate) struct Host {
    pub(crate) tracker: Tracker,
    pub(crate) said: Said,
    pub(crate) cookie: u64,
    pub(crate) received: u32,
    pub(crate) sent: u32,
    pub(crate) tape: Tape,
}

impl Drop for Host {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.tape.compare(&self.said);
        }
    }
}

impl Host {
    pub(crate) fn new() -> Self {
        let mut host = Self::bare();
        host.open(|_| {});
        host
    }

    pub(crate) fn bare() -> Self {
        Self {
            tracker: Tracker::new(config()),
            said: Said::default(),
            cookie: 7,
            received: u32::MAX - 40,
            sent: 12345,
            tape: Tape::new(),
        }
    }

    pub(crate) fn event(&mut self, event: &Event<'_>) {
        self.tape.event(event);
        self.tracker.event(event, &mut EventNames, &mut self.said);
    }

    pub(crate) fn open(&mut self, change: impl FnOnce(&mut Open)) {
        let mut open = Open {
            cookie: Cookie(self.cookie),
            time: at(0.0),
            established: None,
            pid: 42,
            server: Some(([127, 0, 0, 1], 8000).into()),
            client: Some(([127, 0, 0, 1], 50000).into()),
            cgroup: 1,
            send_sequence: None,
            receive_sequence: None,
            comm: "vllm".to_owned(),
            late: false,
            mid_request: false,
            opaque: None,
        };
        change(&mut open);
        self.event(&Event::Open(open));
    }

    pub(crate) fn call<'a>(&self, direction: Direction, time: f64, bytes: &'a [u8]) -> Data<'a> {
        Data {
            cookie: Cookie(self.cookie),
            time: at(time),
            direction,
            sequence: if direction == Direction::Receive { self.received } else { self.sent },
            length: bytes.len() as u32,
            requested: None,
            errno: 0,
            unsent: 0,
            head: bytes,
            tail: &[],
            pid: 42,
        }
    }

    /// Gives a call to the tracker, and moves its direction's position on.
    pub(crate) fn data(&mut self, data: &Data<'_>) {
        match data.direction {
            Direction::Receive => self.received = self.received.wrapping_add(data.length),
            Direction::Send => self.sent = self.sent.wrapping_add(data.length),
        }
        self.event(&Event::Data(*data));
    }

    pub(crate) fn read(&mut self, time: f64, bytes: impl AsRef<[u8]>) {
        self.data(&self.call(Direction::Receive, time, bytes.as_ref()));
    }

    pub(crate) fn write(&mut self, time: f64, bytes: impl AsRef<[u8]>) {
        self.data(&self.call(Direction::Send, time, bytes.as_ref()));
    }

    /// As the kernel side captures long calls: 4096 bytes of head and 512 of tail.
    pub(crate) fn captured(&mut self, direction: Direction, time: f64, bytes: &[u8]) {
        let call = self.call(direction, time, bytes);
        let head = bytes.len().min(4096);
        let tail = (bytes.len() - head).min(512);
        self.data(&Data { head: &bytes[..head], tail: &bytes[bytes.len() - tail..], ..call });
    }

    pub(crate) fn failed_write(&mut self, time: f64, errno: i32) {
        self.data(&Data { errno, ..self.call(Direction::Send, time, b"") });
    }

    /// `length` bytes that the next read returns were queued.
    pub(crate) fn arrive(&mut self, time: f64, length: usize) {
        let stamps = [Arrival {
            begin: self.received,
            end: self.received.wrapping_add(length as u32),
            time: at(time).as_nanos(),
        }];
        self.event(&Event::Arrivals(Arrivals { cookie: Cookie(self.cookie), stamps: &stamps }));
    }

    pub(crate) fn state(&mut self, time: f64, change: StateChange) {
        self.event(&Event::State(State {
            cookie: Cookie(self.cookie),
            time: at(time),
            change,
            write_sequence: self.sent,
            receive_sequence: self.received,
        }));
    }

    pub(crate) fn tick(&mut self, time: f64) {
        self.tick_at(at(time));
    }

    pub(crate) fn tick_at(&mut self, now: KernelTime) {
        self.tape.tick(now);
        self.tracker.tick(now, &mut self.said);
    }

    pub(crate) fn ended(&mut self) {
        self.tape.ended(Cookie(self.cookie));
        self.tracker.ended(Cookie(self.cookie), &mut self.said);
    }

    /// The only record so far.
    pub(crate) fn record(&self) -> &RequestRecord {
        self.said.record()
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.tracker.in_flight().map(|(_, count)| count).sum()
    }
}

pub(crate) fn ms(milliseconds: f64) -> Duration {
    Duration::from_nanos((milliseconds * 1e6).round() as u64)
}

pub(crate) fn request(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(crate) fn chat(stream: bool) -> String {
    let body = format!(r#"{{"model":"asked","messages":[{{"role":"user","content":"hi"}}],"stream":{stream}}}"#);
    request("/v1/chat/completions", &body)
}

pub(crate) const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
pub(crate) const END: &str = "0\r\n\r\n";

/// One chunk of the chunked coding.
pub(crate) fn chunk(data: impl AsRef<str>) -> String {
    format!("{:x}\r\n{}\r\n", data.as_ref().len(), data.as_ref())
}

/// An event, as a chunk of its own.
pub(crate) fn event(json: impl AsRef<str>) -> String {
    chunk(format!("data: {}\n\n", json.as_ref()))
}

pub(crate) fn delta(delta: &str) -> String {
    format!(
        r#"{{"id":"c","object":"chat.completion.chunk","model":"served","choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#
    )
}

pub(crate) fn content(text: &str) -> String {
    event(delta(&format!(r#"{{"content":"{text}"}}"#)))
}

pub(crate) fn role() -> String {
    event(delta(r#"{"role":"assistant","content":""}"#))
}

pub(crate) fn finish() -> String {
    event(r#"{"model":"served","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#)
}

pub(crate) fn done() -> String {
    event("[DONE]")
}
