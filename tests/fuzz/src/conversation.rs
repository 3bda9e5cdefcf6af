//! Whole conversations of one connection, whose every time is known beforehand, and what the kernel side may fail to
//! tell of them.

use std::{fmt, time::Duration};

use observer::{
    event::{Arrival, Arrivals, Cookie, Data, Direction, Event, Open, State, StateChange},
    request::{
        record::RequestRecord,
        tracker::{EventNames, Tracker},
    },
    time::KernelTime,
};

use super::{
    api::Api,
    records::{self, Records},
};

const COOKIE: Cookie = Cookie(7);
/// Where the two directions begin: both wrap.
const FIRST: [u32; 2] = [u32::MAX - 40, u32::MAX - 300];

/// A request and its response.
#[derive(Default)]
pub struct Exchange {
    /// The request, as sent.
    pub request: Vec<u8>,
    /// The response, as far as it went.
    pub response: Vec<u8>,
    /// Where the final response begins in `response`.
    pub header: usize,
    /// Where each token event ends in `response`, and whether it is content.
    pub tokens: Vec<(usize, bool)>,
    /// It asks a language model, and its response is whole.
    pub whole: bool,
    /// It asks a language model.
    pub asks: bool,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let whole = if self.whole { "whole" } else { "not whole" };
        write!(f, "{:?} -> {:?} ({whole})", text(&self.request), text(&self.response))
    }
}

/// How an exchange goes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A stream of so many token events.
    Stream {
        /// Two events of reasoning come before.
        reasoning: bool,
        /// Events of content.
        tokens: u8,
    },
    /// One JSON answer.
    Answer {
        /// An interim response comes before it.
        interim: bool,
    },
    /// 404.
    Refused,
    /// 200, then an error event.
    Failed,
    /// A stream that only the connection's end ends.
    UntilClose,
    /// A stream that stops.
    CutShort,
    /// Not a language model.
    Other,
}

impl Exchange {
    /// The `serial`th of a connection, which names it in its head.
    pub fn new(api: Api, kind: Kind, serial: usize, chunked: bool) -> Self {
        let api = if matches!(kind, Kind::Answer { .. }) { Api::OpenAi } else { api };
        let mut exchange = Self { asks: !matches!(kind, Kind::Other), ..Self::default() };
        exchange.whole = exchange.asks && !matches!(kind, Kind::CutShort | Kind::UntilClose);
        let (path, body) = api.request();
        let line = format!("POST {path} HTTP/1.1\r\nx-request-id: {serial}\r\n");
        exchange.request = match kind {
            Kind::Other => b"GET /health HTTP/1.1\r\n\r\n".to_vec(),
            _ if chunked => {
                let (front, back) = body.split_at(20);
                format!("{line}transfer-encoding: chunked\r\n\r\n{}{}0\r\n\r\n", chunk(front), chunk(back)).into_bytes()
            }
            _ => format!("{line}content-length: {}\r\n\r\n{body}", body.len()).into_bytes(),
        };
        match kind {
            Kind::Answer { interim } => exchange.answer(interim),
            Kind::Refused => exchange.add("HTTP/1.1 404 Not Found\r\ncontent-length: 20\r\n\r\nthere is no such one"),
            Kind::Other => exchange.add("HTTP/1.1 204 No Content\r\n\r\n"),
            _ => exchange.stream(api, kind),
        }
        exchange
    }

    fn answer(&mut self, interim: bool) {
        if interim {
            self.add("HTTP/1.1 100 Continue\r\n\r\n");
        }
        self.header = self.response.len();
        let choice = r#"{"index":0,"message":{"content":"some more text than nothing"},"finish_reason":"stop"}"#;
        let usage = r#"{"prompt_tokens":9,"completion_tokens":40}"#;
        let answer = format!(r#"{{"model":"served","choices":[{choice}],"usage":{usage}}}"#);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
        self.add(&format!("{head}{}\r\n\r\n{answer}", answer.len()));
    }

    fn stream(&mut self, api: Api, kind: Kind) {
        let chunked = !matches!(kind, Kind::UntilClose);
        let coding = if chunked { "transfer-encoding: chunked\r\n" } else { "" };
        self.add(&format!("HTTP/1.1 200 OK\r\ncontent-type: {}\r\n{coding}\r\n", api.content_type()));
        let line_end = if chunked { 2 } else { 0 };
        let part = |text: &str| if chunked { chunk(text) } else { text.to_owned() };
        let (reasoning, content) = match kind {
            Kind::Stream { reasoning, tokens } => (2 * usize::from(reasoning), usize::from(tokens)),
            _ => (0, 3),
        };
        api.begin().iter().for_each(|event| self.add(&part(event)));
        for index in 0..reasoning + content {
            let (event, content) = api.token(index, index < reasoning);
            self.add(&part(&event));
            self.tokens.push((self.response.len() - line_end - 1, content));
        }
        if !matches!(kind, Kind::CutShort) {
            let end = api.end(reasoning + content, matches!(kind, Kind::Failed));
            end.iter().for_each(|event| self.add(&part(event)));
            self.add(if chunked { "0\r\n\r\n" } else { "" });
        }
    }

    fn add(&mut self, text: &str) {
        self.response.extend_from_slice(text.as_bytes());
    }
}

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// What becomes of a call on its way to the tracker.
#[derive(Clone, Copy, Default, Debug)]
pub struct Fate {
    /// It is not told of.
    pub lost: bool,
    /// Its arrival stamps are not told of.
    pub unstamped: bool,
    /// Bytes captured of its head and its tail; `None`: all.
    pub captured: Option<(u8, u8)>,
    /// It is told of twice.
    pub twice: bool,
    /// It is told of after so many others that come later.
    pub delay: u8,
}

/// A call of the server.
#[derive(Clone, Copy)]
pub struct Call {
    /// Which way.
    pub direction: Direction,
    /// When, in nanoseconds.
    pub time: u64,
    /// When its bytes had arrived.
    pub arrived: u64,
    /// Which exchange's bytes.
    pub exchange: usize,
    /// Where they begin in its request or response.
    pub begin: usize,
    /// Where they end there.
    pub end: usize,
    /// Position in its direction's stream.
    pub sequence: u32,
    /// What becomes of it.
    pub fate: Fate,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { direction, time, exchange, begin, end, fate, .. } = self;
        write!(f, "{time} {direction:?} {exchange}: {begin}..{end} {fate:?}")
    }
}

/// How the connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It does not.
    Open,
    /// The server closes it.
    Server,
    /// The client leaves.
    Client {
        /// Calls of the server after that, less one.
        late: usize,
    },
    /// The client leaves and resets it.
    Reset {
        /// Calls of the server after that, less one.
        late: usize,
    },
    /// Nobody tells how.
    Lost,
    /// The scope changes.
    OutOfScope,
}

/// All that happens on a connection.
#[derive(Debug)]
pub struct Conversation {
    /// In order.
    pub exchanges: Vec<Exchange>,
    /// In order of time.
    pub calls: Vec<Call>,
    /// How it ends.
    pub end: End,
}

impl Conversation {
    /// Everything that a tracker says of it, told with `fates` or (false) as it was.
    pub fn told(&self, fates: bool) -> Records {
        let mut tracker = Tracker::new(records::config(4));
        let mut said = Records::default();
        tracker.event(&Event::Open(open()), &mut EventNames, &mut said);
        let left = match self.end {
            End::Client { late } | End::Reset { late } => Some(self.calls.len().saturating_sub(late + 1)),
            _ => None,
        };
        let mut delayed: Vec<(usize, &Call)> = Vec::new();
        let mut now = 0;
        for (index, call) in self.calls.iter().enumerate() {
            if left == Some(index) {
                let change = StateChange::ClientFin;
                tracker.event(&self.state(change, call.time - 1, index), &mut EventNames, &mut said);
            }
            let fate = if fates { call.fate } else { Fate::default() };
            if call.direction == Direction::Receive && !fate.unstamped {
                let end = call.sequence.wrapping_add((call.end - call.begin) as u32);
                let stamps = [Arrival { begin: call.sequence, end, time: call.arrived }];
                tracker.event(
                    &Event::Arrivals(Arrivals { cookie: COOKIE, stamps: &stamps }),
                    &mut EventNames,
                    &mut said,
                );
            }
            now = now.max(call.time);
            if fate.delay > 0 && !fate.lost {
                delayed.push((index + usize::from(fate.delay), call));
            } else {
                self.tell(&mut tracker, &mut said, call, fate);
            }
            delayed.retain(|(until, call)| {
                let due = *until <= index;
                if due {
                    self.tell(&mut tracker, &mut said, call, call.fate);
                }
                !due
            });
            tracker.tick(KernelTime::from_nanos(now), &mut said);
        }
        for (_, call) in delayed {
            self.tell(&mut tracker, &mut said, call, call.fate);
        }
        let over = now + 100_000;
        let count = self.calls.len();
        let changes: &[StateChange] = match self.end {
            End::Open | End::Lost => &[],
            End::Server => &[StateChange::ServerFin, StateChange::Closed],
            End::Client { .. } => &[StateChange::Closed],
            End::Reset { .. } => &[StateChange::Reset],
            End::OutOfScope => &[StateChange::OutOfScope],
        };
        for change in changes {
            tracker.event(&self.state(*change, over, count), &mut EventNames, &mut said);
        }
        if self.end == End::Lost {
            tracker.ended(COOKIE, &mut said);
        }
        tracker.tick(KernelTime::from_nanos(over) + Duration::from_secs(1), &mut said);
        tracker.finish(KernelTime::from_nanos(over) + Duration::from_secs(1), &mut said);
        said
    }

    fn state(&self, change: StateChange, time: u64, calls: usize) -> Event<'static> {
        let position = |direction: Direction| {
            let bytes = self.calls[..calls].iter().filter(|call| call.direction == direction);
            bytes.fold(FIRST[direction as usize], |sum, call| sum.wrapping_add((call.end - call.begin) as u32))
        };
        Event::State(State {
            cookie: COOKIE,
            time: KernelTime::from_nanos(time),
            change,
            write_sequence: position(Direction::Send),
            receive_sequence: position(Direction::Receive),
        })
    }

    fn tell(&self, tracker: &mut Tracker, said: &mut Records, call: &Call, fate: Fate) {
        if fate.lost {
            return;
        }
        let exchange = &self.exchanges[call.exchange];
        let bytes = match call.direction {
            Direction::Receive => &exchange.request[call.begin..call.end],
            Direction::Send => &exchange.response[call.begin..call.end],
        };
        let (head, tail) = fate.captured.map_or((bytes.len(), 0), |(head, tail)| (head.into(), tail.into()));
        let head = head.min(bytes.len());
        let data = Data {
            cookie: COOKIE,
            time: KernelTime::from_nanos(call.time),
            direction: call.direction,
            sequence: call.sequence,
            length: bytes.len() as u32,
            requested: None,
            errno: 0,
            unsent: 0,
            head: &bytes[..head],
            tail: &bytes[bytes.len() - tail.min(bytes.len() - head)..],
            pid: 1,
        };
        for _ in 0..1 + u8::from(fate.twice) {
            tracker.event(&Event::Data(data), &mut EventNames, said);
        }
    }

    /// Adds the calls that move an exchange's request or response, cut at `cuts`.
    pub fn moves(&mut self, exchange: usize, direction: Direction, cuts: &[u8], mut time: impl FnMut() -> u64) {
        let length = match direction {
            Direction::Receive => self.exchanges[exchange].request.len(),
            Direction::Send => self.exchanges[exchange].response.len(),
        };
        let mut cuts: Vec<_> = cuts.iter().map(|cut| usize::from(*cut) * length / 256).chain([0, length]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        for ends in cuts.windows(2) {
            let before = self.calls.iter().rfind(|call| call.direction == direction);
            let sequence = before
                .map_or(FIRST[direction as usize], |call| call.sequence.wrapping_add((call.end - call.begin) as u32));
            let (begin, end, arrived, time) = (ends[0], ends[1], time(), time());
            self.calls.push(Call { direction, time, arrived, exchange, begin, end, sequence, fate: Fate::default() });
        }
    }

    /// Whether the client asks again before it is answered.
    pub fn pipelines(&self) -> bool {
        let mut pairs = self.calls.iter().zip(self.calls.iter().skip(1));
        pairs.any(|(call, next)| next.exchange != call.exchange && call.direction == next.direction)
    }

    /// When the byte at `offset` of an exchange's request or response was moved.
    pub fn moved(&self, exchange: usize, direction: Direction, offset: usize) -> Option<KernelTime> {
        let moves = |call: &&Call| {
            call.exchange == exchange && call.direction == direction && (call.begin..call.end).contains(&offset)
        };
        self.calls.iter().find(moves).map(|call| KernelTime::from_nanos(call.time))
    }
}

/// The exchange that a record is of, by what names it.
pub fn serial(record: &RequestRecord) -> Option<usize> {
    record.request_id.as_deref()?.parse().ok()
}

fn open() -> Open {
    Open {
        cookie: COOKIE,
        time: KernelTime::default(),
        established: None,
        pid: 1,
        server: Some(([127, 0, 0, 1], 8000).into()),
        client: Some(([127, 0, 0, 1], 50_000).into()),
        cgroup: 1,
        send_sequence: Some(FIRST[Direction::Send as usize]),
        receive_sequence: Some(FIRST[Direction::Receive as usize]),
        comm: "vllm".to_owned(),
        late: false,
        mid_request: false,
        opaque: None,
    }
}
