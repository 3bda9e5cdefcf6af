//! What the network saw of requests and token events: TCP reassembly, HTTP/1.1 and server-sent events, only as far
//! as the tests' own traffic goes. It shares no code with the observer and panics at what it does not know.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{http::header, pcap::Packet};

/// One direction of a connection: its bytes, and when each passed first.
#[derive(Debug, Default)]
struct Stream {
    /// Sequence number of the first byte.
    first: Option<u32>,
    bytes: Vec<u8>,
    /// Offset after the last byte of a segment, and when it passed; ascending.
    segments: Vec<(usize, u64)>,
    /// Segments beyond the end so far, by offset.
    waiting: BTreeMap<usize, (Vec<u8>, u64)>,
}

impl Stream {
    fn add(&mut self, packet: &Packet) {
        if packet.syn {
            self.first = Some(packet.sequence.wrapping_add(1));
        }
        if packet.data.is_empty() {
            return;
        }
        // A capture begins before its connections do.
        let first = self.first.expect("the capture holds the connection's begin");
        let offset = packet.sequence.wrapping_sub(first) as usize;
        self.waiting.entry(offset).or_insert_with(|| (packet.data.clone(), packet.time));
        while let Some((offset, (data, time))) = self.waiting.pop_first() {
            if offset > self.bytes.len() {
                self.waiting.insert(offset, (data, time));
                break;
            }
            // What passed before passed at that time; only what is new counts.
            let known = self.bytes.len() - offset;
            if known < data.len() {
                self.bytes.extend_from_slice(&data[known..]);
                self.segments.push((self.bytes.len(), time));
            }
        }
    }

    /// When the byte at `offset` passed.
    fn time(&self, offset: usize) -> u64 {
        let index = self.segments.partition_point(|(end, _)| *end <= offset);
        self.segments[index].1
    }
}

/// A request and its answer, as the packets tell. Times are nanoseconds of `CLOCK_REALTIME`.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The client's port.
    pub client_port: u16,
    /// Its place among the requests of its connection.
    pub index: usize,
    /// `x-request-id` of the request.
    pub request_id: Option<String>,
    /// When the packet with the request's first byte passed.
    pub arrive: u64,
    /// Status of the answer.
    pub status: u16,
    /// When the packet with the answer's first byte passed.
    pub header: u64,
    /// When the packet with the last byte of each token event passed.
    pub tokens: Vec<u64>,
    /// When the packet with the answer's last byte passed.
    pub end: u64,
    /// Completion tokens that the server reported.
    pub output_tokens: Option<u64>,
}

fn find(bytes: &[u8], mark: &[u8], from: usize) -> Option<usize> {
    bytes[from..].windows(mark.len()).position(|window| window == mark).map(|at| from + at)
}

/// Offset after the header block that begins at `from`, and the block.
fn head(bytes: &[u8], from: usize) -> Option<(usize, String)> {
    let end = find(bytes, b"\r\n\r\n", from)? + 4;
    Some((end, String::from_utf8(bytes[from..end].to_vec()).expect("headers are text")))
}

fn is_token(event: &Value) -> bool {
    let text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let choices = event["choices"].as_array().map_or(&[][..], Vec::as_slice);
    choices.iter().any(|choice| {
        let delta = &choice["delta"];
        let calls = delta["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
        let called = |call: &Value| text(&call["function"]["name"]) || text(&call["function"]["arguments"]);
        text(&delta["content"])
            || text(&delta["reasoning"])
            || text(&delta["reasoning_content"])
            || text(&choice["text"])
            || calls.iter().any(called)
    })
}

/// An answer's body without its transfer coding: each byte with its offset on the wire. And the offset after it.
fn body(bytes: &[u8], from: usize, head: &str) -> Option<(Vec<u8>, Vec<usize>, usize)> {
    let (mut data, mut places) = (Vec::new(), Vec::new());
    let mut take = |from: usize, size: usize| {
        data.extend_from_slice(bytes.get(from..from + size)?);
        places.extend(from..from + size);
        Some(from + size)
    };
    let mut at = from;
    if header(head, "transfer-encoding").is_some() {
        loop {
            let line = find(bytes, b"\r\n", at)?;
            let size = std::str::from_utf8(&bytes[at..line]).expect("a chunk size is text");
            let size = usize::from_str_radix(size.trim(), 16).expect("a chunk size is a number");
            at = take(line + 2, size)? + 2;
            if size == 0 {
                break;
            }
        }
        (at <= bytes.len()).then_some((data, places, at))
    } else {
        let length = header(head, "content-length").expect("an answer of known length").parse().expect("a number");
        at = take(at, length)?;
        Some((data, places, at))
    }
}

fn answer(stream: &Stream, from: usize, exchange: &mut Exchange) -> Option<usize> {
    let (body_at, head) = head(&stream.bytes, from)?;
    exchange.status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    exchange.header = stream.time(from);
    let (data, places, end) = body(&stream.bytes, body_at, &head)?;
    exchange.end = stream.time(end - 1);
    let mut note = |value: &Value| {
        exchange.output_tokens = value["usage"]["completion_tokens"].as_u64().or(exchange.output_tokens);
    };
    if header(&head, "content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
        let mut begin = 0;
        while let Some(blank) = find(&data, b"\n\n", begin) {
            let lines = std::str::from_utf8(&data[begin..blank]).expect("events are text").lines();
            let said: String = lines.filter_map(|line| line.strip_prefix("data:")).map(str::trim).collect();
            if let Ok(value) = serde_json::from_str(&said) {
                note(&value);
                if is_token(&value) {
                    exchange.tokens.push(stream.time(places[blank + 1]));
                }
            }
            begin = blank + 2;
        }
    } else if let Ok(value) = serde_json::from_slice(&data) {
        note(&value);
    }
    Some(end)
}

/// All exchanges with a server's port that are whole, in the order of client port and place; GET requests left out.
///
/// # Panics
/// If a connection's begin was not captured, or its bytes are not the tests' own traffic.
#[must_use]
pub fn exchanges(packets: &[Packet], server_port: u16) -> Vec<Exchange> {
    let mut connections: BTreeMap<u16, (Stream, Stream)> = BTreeMap::new();
    let mut done = Vec::new();
    for packet in packets {
        let to_server = packet.destination.port() == server_port;
        let port = if to_server { packet.source.port() } else { packet.destination.port() };
        if to_server && packet.syn {
            // The port's former connection is over.
            done.extend(connections.remove(&port).map(|former| (port, former)));
        }
        let (up, down) = connections.entry(port).or_default();
        if to_server { up } else { down }.add(packet);
    }
    done.extend(connections);
    done.sort_by_key(|(port, _)| *port);
    done.iter().flat_map(|(port, (up, down))| connection(*port, up, down)).collect()
}

fn connection(client_port: u16, up: &Stream, down: &Stream) -> Vec<Exchange> {
    let (mut from, mut answered, mut exchanges) = (0, 0, Vec::new());
    while let Some((body_at, head)) = head(&up.bytes, from) {
        let length = header(&head, "content-length").map_or(0, |length| length.parse().expect("a number"));
        let mut exchange = Exchange {
            client_port,
            index: exchanges.len(),
            request_id: header(&head, "x-request-id").map(str::to_owned),
            arrive: up.time(from),
            status: 0,
            header: 0,
            tokens: Vec::new(),
            end: 0,
            output_tokens: None,
        };
        from = body_at + length;
        let Some(end) = answer(down, answered, &mut exchange) else { break };
        answered = end;
        if head.starts_with("POST") {
            exchanges.push(exchange);
        }
    }
    exchanges
}
