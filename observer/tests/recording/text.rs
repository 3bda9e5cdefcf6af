//! No text stays, wherever it stood, however calls cut it and whatever was lost; and what stays says the same.

use observer::{
    event::{Data, Direction, Event, OpaqueReason},
    recording::{Header, Item, Reader, RecordOptions, Recorder},
    request::{
        record::{ConnectionInfo, RequestRecord},
        tracker::{EventNames, Sink, Tracker, TrackerConfig},
    },
    time::KernelTime,
};
use proptest::{prelude::*, sample::Index};

use crate::{Memory, at, open};

/// Text of users. No three characters of it are in any word of any protocol.
const SECRET: &str = "QZJVKW";
/// Numbers of users: the bytes of a text, say.
const NUMBERS: &str = "[8675, 3098, 67530]";

#[derive(Debug, Default)]
struct Said {
    records: Vec<RequestRecord>,
    others: usize,
    opaque: Vec<OpaqueReason>,
    bytes: [[u64; 2]; 3],
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
    fn joined_mid_request(&mut self, _: &ConnectionInfo) {}
    fn gap(&mut self, direction: Direction, bytes: u64) {
        self.bytes[0][direction as usize] += bytes;
    }
    fn uncaptured(&mut self, direction: Direction, bytes: u64) {
        self.bytes[1][direction as usize] += bytes;
    }
    fn unparsed(&mut self, direction: Direction, bytes: u64) {
        self.bytes[2][direction as usize] += bytes;
    }
}

fn message(first: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("{first}\r\n{fields}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn request(path: &str, body: &str) -> Vec<u8> {
    let first = format!("POST /{SECRET}{path}?key={SECRET} HTTP/1.1");
    let fields = format!(
        "Host: {SECRET}\r\nAuthorization: Bearer {SECRET}\r\nCookie: a={SECRET}\r\nX-{SECRET}: {SECRET}\r\n\
         Content-Type: application/json; {SECRET}\r\nx-request-id: r-1\r\n"
    );
    message(&first, &fields, body)
}

fn stream(kind: &str, events: &[String]) -> Vec<u8> {
    let mut out = format!(
        "HTTP/1.1 200 {SECRET}\r\nserver: {SECRET}\r\ncontent-type: {kind}; a={SECRET}\r\n\
         transfer-encoding: chunked\r\ntrailer: {SECRET}\r\n\r\n"
    );
    for event in events {
        out.push_str(&format!("{:X};ext={SECRET}\r\n{event}\r\n", event.len()));
    }
    out.push_str(&format!("0;{SECRET}\r\n{SECRET}: {SECRET}\r\n\r\n"));
    out.into_bytes()
}

fn answer(kind: &str, body: &str) -> Vec<u8> {
    message(&format!("HTTP/1.1 200 {SECRET}"), &format!("X-{SECRET}: {SECRET}\r\ncontent-type: {kind}\r\n"), body)
}

fn event(data: &str) -> String {
    format!(": {SECRET}\nid: {SECRET}\n{SECRET}: {SECRET}\ndata: {data}\n\n")
}

/// What users say and are told, in every shape. `name`: a key of theirs. Behind a hole the tracker takes one that is
/// named like the model for the model, and exports it: then so does the recording.
fn exchanges(name: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let tools = format!(
        r#"{{"type":"{SECRET}","{name}":"{SECRET}","status":"{SECRET}","event":"{SECRET}","usage":{{"{name}":"{SECRET}"}},"{SECRET}":[true,null,"\u0051{SECRET}\\",-8675.3098e7,{NUMBERS}]}}"#
    );
    let prompt = format!(
        r#"{{"messages":[{{"role":"{SECRET}","content":"{SECRET} \"model\":\"{SECRET}\", \\\\\" {SECRET}"}}],"input":{tools},"metadata":{tools},"prompt":"{SECRET}","inputs":"{SECRET}","max_tokens":77,"text":{{"type":"{SECRET}"}},"tools":[{tools}],"model":"asked","stream":true,"stop":["{SECRET}"]}}"#
    );
    let delta = |delta: &str| {
        event(&format!(
            r#"{{"id":"{SECRET}","object":"chat.completion.chunk","model":"served","choices":[{{"index":0,"delta":{delta},"logprobs":{{"content":[{{"token":"{SECRET}","bytes":{NUMBERS}}}]}},"finish_reason":null}}],"{SECRET}":"{SECRET}"}}"#
        ))
    };
    let chat = [
        delta(r#"{"role":"assistant","content":""}"#),
        delta(&format!(r#"{{"reasoning_content":"{SECRET}"}}"#)),
        delta(&format!(r#"{{"content":"{SECRET}\n{SECRET}"}}"#)),
        delta(&format!(
            r#"{{"tool_calls":[{{"index":0,"id":"{SECRET}","function":{{"name":"{SECRET}","arguments":"{{\"{SECRET}"}}}}]}}"#
        )),
        event(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#),
        event(r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":400}}"#),
        event(&format!(r#"{{"error":{{"message":"{SECRET}","type":"{SECRET}","code":{NUMBERS}}}}}"#)),
        event(SECRET),
        event("[DONE]"),
    ];
    let messages = [
        format!(
            "event: message_start\n{}",
            event(&format!(
                r#"{{"type":"message_start","message":{{"id":"{SECRET}","model":"claude","usage":{{"input_tokens":5}}}}}}"#
            ))
        ),
        event(&format!(
            r#"{{"type":"content_block_start","content_block":{{"type":"tool_use","name":"{SECRET}","input":{tools}}}}}"#
        )),
        event(&format!(
            r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{SECRET}"}}}}"#
        )),
        format!(
            "event: {SECRET}\n{}",
            event(r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":3}}"#)
        ),
        event(r#"{"type":"message_stop"}"#),
    ];
    let lines = [
        format!(
            "{{\"model\":\"llama\",\"message\":{{\"role\":\"assistant\",\"content\":\"{SECRET}\"}},\"done\":false}}\n"
        ),
        format!(
            "{{\"model\":\"llama\",\"message\":{{\"content\":\"\",\"tool_calls\":[{{\"function\":{{\"name\":\"{SECRET}\",\"arguments\":{tools}}}}}]}},\"done\":false}}\n"
        ),
        format!("{SECRET}\n"),
        format!(
            "{{\"done\":true,\"done_reason\":\"stop\",\"context\":{NUMBERS},\"eval_count\":4,\"prompt_eval_count\":3}}\n"
        ),
    ];
    let whole = format!(
        r#"{{"id":"{SECRET}","choices":[{{"index":0,"message":{{"role":"assistant","content":"{SECRET} \"usage\":{{\"prompt_tokens\":9}}","{SECRET}":{tools}}},"finish_reason":"length"}}],"output":[{tools}],"model":"served","usage":{{"prompt_tokens":3,"completion_tokens":4}}}}"#
    );
    vec![
        (request("/v1/chat/completions", &prompt), stream("text/event-stream", &chat)),
        (request("/v1/messages", &prompt), stream("text/event-stream", &messages)),
        (request("/api/chat", &prompt), stream("application/x-ndjson", &lines)),
        (request("/v1/completions", &prompt), answer("application/json", &whole)),
        (request("/v1/chat/completions", SECRET), answer("text/html", &format!("<b>{SECRET}</b>"))),
        (
            request("/v1/chat/completions", &prompt),
            answer("application/json", &format!("{{\"a\":{SECRET}, \"b\":\"{SECRET}\"}}")),
        ),
        // Nothing of a language model.
        (request("/people", &tools), answer("application/json", &tools)),
        (request("/v1/models", &tools), stream("text/event-stream", &[event(&tools)])),
    ]
}

/// Calls as they are told of: in pieces, captured in part, swapped, lost.
struct Told {
    cuts: Vec<Vec<Index>>,
    captured: usize,
    swaps: Vec<bool>,
    lost: Vec<bool>,
}

impl Told {
    fn events(&self, exchanges: &[(Vec<u8>, Vec<u8>)], mut each: impl FnMut(Result<&Event<'_>, KernelTime>)) {
        each(Ok(&Event::Open(open(7))));
        let (mut time, mut positions, mut count) = (10, [u32::MAX - 500, 77_u32], 0);
        for (number, (asked, answered)) in exchanges.iter().enumerate() {
            for (direction, bytes) in [(Direction::Receive, asked), (Direction::Send, answered)] {
                let cuts = &self.cuts[(2 * number + direction as usize) % self.cuts.len()];
                let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).chain([0, bytes.len()]).collect();
                cuts.sort_unstable();
                cuts.dedup();
                let mut calls = Vec::new();
                for part in cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]) {
                    time += 1;
                    let head = part.len().min(self.captured);
                    let tail = (part.len() - head).min(self.captured / 4);
                    calls.push(Data {
                        cookie: open(7).cookie,
                        time: at(time),
                        direction,
                        sequence: positions[direction as usize],
                        length: part.len() as u32,
                        requested: None,
                        errno: 0,
                        unsent: 0,
                        head: &part[..head],
                        tail: &part[part.len() - tail..],
                        pid: 42,
                    });
                    positions[direction as usize] = positions[direction as usize].wrapping_add(part.len() as u32);
                }
                // Where a stream begins is known from its first call.
                let first = usize::from(number == 0).min(calls.len());
                for pair in calls[first..].chunks_mut(2) {
                    count += 1;
                    if self.swaps[count % self.swaps.len()] {
                        pair.reverse();
                    }
                }
                for call in &calls {
                    count += 1;
                    if !self.lost[count % self.lost.len()] {
                        each(Ok(&Event::Data(*call)));
                    }
                }
                each(Err(at(time)));
            }
            time += 20;
            each(Err(at(time)));
        }
    }
}

/// One exchange, one of its messages in two calls.
struct Halves<'a> {
    exchange: &'a (Vec<u8>, Vec<u8>),
    request: bool,
    front: &'a [u8],
    back: &'a [u8],
}

impl Halves<'_> {
    fn events(&self, mut each: impl FnMut(Result<&Event<'_>, KernelTime>)) {
        each(Ok(&Event::Open(open(7))));
        let (halves, whole) = ([self.front, self.back], |bytes| [bytes, &[][..]]);
        let asked = if self.request { halves } else { whole(self.exchange.0.as_slice()) };
        let answered = if self.request { whole(self.exchange.1.as_slice()) } else { halves };
        for (direction, parts) in [(Direction::Receive, asked), (Direction::Send, answered)] {
            let (mut position, mut time) = (5, 10 + 10 * direction as u64);
            for part in parts.into_iter().filter(|part| !part.is_empty()) {
                let call = Data {
                    cookie: open(7).cookie,
                    time: at(time),
                    direction,
                    sequence: position,
                    length: part.len() as u32,
                    requested: None,
                    errno: 0,
                    unsent: 0,
                    head: part,
                    tail: &[],
                    pid: 42,
                };
                each(Ok(&Event::Data(call)));
                position += part.len() as u32;
                time += 1;
            }
            each(Err(at(time)));
        }
    }
}

/// What a tracker says of it as it happened and of its recording, and what stayed in that.
fn twice(told: &Told, exchanges: &[(Vec<u8>, Vec<u8>)]) -> (String, String, Vec<u8>) {
    twice_of(|each| told.events(exchanges, each))
}

type Each<'a> = &'a mut dyn FnMut(Result<&Event<'_>, KernelTime>);

fn twice_of(events: impl FnOnce(Each<'_>)) -> (String, String, Vec<u8>) {
    let config =
        || TrackerConfig { gap_bounds: [0.005, 0.05].as_slice().into(), chunk_times: true, ..Default::default() };
    let (mut tracker, mut said) = (Tracker::new(config()), Said::default());
    let memory = Memory::default();
    let header = Header { payload: false, kernel: at(0), wall: 0, version: "0".to_owned() };
    let options = RecordOptions { header, max_bytes: 1 << 30, kept_fields: Vec::new() };
    let mut recorder = Recorder::start(memory.clone(), options).expect("a header in memory");
    events(&mut |event| match event {
        Ok(event) => {
            recorder.event(event, None);
            tracker.event(event, &mut EventNames, &mut said);
        }
        Err(now) => {
            recorder.tick(now);
            tracker.tick(now, &mut said);
        }
    });
    recorder.finish().expect("an end in memory");

    let bytes = memory.0.lock().expect("nobody panicked with it");
    let mut reader = Reader::new(bytes.as_slice()).expect("a header");
    let (mut tracker, mut again, mut kept) = (Tracker::new(config()), Said::default(), Vec::new());
    while let Some(item) = reader.next().expect("it is whole") {
        match item {
            Item::Event(event, _) => {
                if let Event::Data(data) = &event {
                    kept.extend_from_slice(data.head);
                    kept.push(b'|');
                    kept.extend_from_slice(data.tail);
                    kept.push(b'|');
                }
                tracker.event(&event, &mut EventNames, &mut again);
            }
            Item::Tick(now) => tracker.tick(now, &mut again),
            item => panic!("{item:?}"),
        }
    }
    (format!("{said:#?}"), format!("{again:#?}"), kept)
}

/// All that was said, but for what answers to requests that are incomplete say.
fn certain(said: &str) -> String {
    let mut records: Vec<String> = said.split("RequestRecord {").map(str::to_owned).collect();
    for record in records.iter_mut().filter(|record| record.contains("outcome: Incomplete")) {
        for (begin, end) in [("response_model: ", "outcome: "), ("token_events: ", "request_bytes: ")] {
            if let (Some(begin), Some(end)) = (record.find(begin), record.find(end)) {
                record.replace_range(begin..end, "");
            }
        }
    }
    records.concat()
}

fn difference(said: &str, again: &str) -> String {
    let differing = said.lines().zip(again.lines()).filter(|(one, other)| one != other).take(20);
    let lines: Vec<_> = differing.map(|(one, other)| format!("live {one}, again {other}")).collect();
    format!("{} and {} lines: {}", said.lines().count(), again.lines().count(), lines.join("; "))
}

fn holds_text(kept: &[u8]) -> Option<String> {
    let texts = ["QZJ", "ZJV", "JVK", "VKW", "8675", "3098", "67530", "sk-"];
    let found = texts.iter().find_map(|text| kept.windows(text.len()).position(|window| window == text.as_bytes()))?;
    Some(String::from_utf8_lossy(&kept[found.saturating_sub(200)..(found + 20).min(kept.len())]).into_owned())
}

fn cuts() -> impl Strategy<Value = Vec<Vec<Index>>> {
    prop::collection::vec(prop::collection::vec(any::<Index>(), 0..12), 16)
}

#[test]
fn whole_calls() {
    let told = Told { cuts: vec![Vec::new()], captured: usize::MAX, swaps: vec![false], lost: vec![false] };
    let (said, again, kept) = twice(&told, &exchanges("model"));
    assert_eq!(holds_text(&kept), None);
    assert!(said == again, "{}", difference(&said, &again));
    // What is kept is what was meant to be.
    for word in [
        "asked",
        "served",
        "claude",
        "llama",
        "r-1",
        "\"prompt_tokens\":9",
        "[DONE]",
        "end_turn",
        "content_block_delta",
    ] {
        assert!(kept.windows(word.len()).any(|window| window == word.as_bytes()), "{word}");
    }
    assert_eq!(said.matches("outcome: Ok").count(), 5, "{said}");
}

#[test]
fn every_call_in_two_at_every_byte() {
    for exchange in exchanges("model") {
        let exchange = [exchange];
        for part in [&exchange[0].0, &exchange[0].1] {
            let request = std::ptr::eq(part, &exchange[0].0);
            for at in 1..part.len() {
                let (front, back) = part.split_at(at);
                let told = Halves { exchange: &exchange[0], request, front, back };
                let (said, again, kept) = twice_of(|each| told.events(each));
                assert_eq!(holds_text(&kept), None, "at {at}");
                assert!(said == again, "at {at}: {}", difference(&said, &again));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn however_calls_are_cut_and_ordered(cuts in cuts(), swaps in prop::collection::vec(any::<bool>(), 40)) {
        let told = Told { cuts, captured: usize::MAX, swaps, lost: vec![false] };
        let (said, again, kept) = twice(&told, &exchanges("model"));
        prop_assert_eq!(holds_text(&kept), None);
        prop_assert!(said == again, "{}", difference(&said, &again));
    }

    #[test]
    fn whatever_is_lost_or_not_captured(
        cuts in cuts(),
        captured in prop_oneof![0..64_usize, 64..2000_usize],
        swaps in prop::collection::vec(any::<bool>(), 40),
        lost in prop::collection::vec(prop::bool::weighted(0.1), 40),
    ) {
        let told = Told { cuts, captured, swaps, lost };
        let (said, again, kept) = twice(&told, &exchanges("name"));
        prop_assert_eq!(holds_text(&kept), None);
        // Which request an answer was taken for decides what of it stays: of requests that are incomplete, that may go.
        let (said, again) = (certain(&said), certain(&again));
        prop_assert!(said == again, "{}", difference(&said, &again));
    }
}
