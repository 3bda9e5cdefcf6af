//! Server-sent events. Input: a stream as in `observer_fuzz::stream`.

#![cfg_attr(fuzzing, no_main)]

use observer::{
    connection::stream::Chunk,
    protocol::sse::{EVENT_MAX, Event, Frame, Parser},
};
use observer_fuzz::stream;

#[derive(PartialEq, Debug)]
enum Seen {
    Event { name: Vec<u8>, data: Vec<u8>, partial: bool },
    Gap,
}

/// However the bytes are cut, the parser finds the same events; they are those that the standard's own steps find,
/// up to a gap; what it keeps of one is bounded.
pub(crate) fn target(data: &[u8]) {
    let chunks = stream::decode(data);
    let whole = parse(&chunks);
    for seed in [0, 1, 0xfeed] {
        let cut = stream::cut(&chunks, seed);
        assert_eq!(parse(&cut), whole, "cut as {cut:?}");
    }
    if data.len() < EVENT_MAX
        && let [Chunk::Data(bytes), rest @ ..] = chunks.as_slice()
    {
        // Before the first gap no event is dispatched but by a blank line.
        let first_gap = whole.iter().position(|seen| *seen == Seen::Gap);
        assert_eq!(whole[..first_gap.unwrap_or(whole.len())], dispatched(bytes, rest.is_empty()));
    }
}

fn parse(chunks: &[Chunk<'_>]) -> Vec<Seen> {
    let (mut parser, mut seen) = (Parser::default(), Vec::new());
    for chunk in chunks {
        let (mut rest, mut steps) = (*chunk, 0);
        while let Some(frame) = parser.step(&mut rest) {
            steps += 1;
            assert!(steps <= chunk.len(), "no end of frames");
            seen.push(match frame {
                Frame::Event(event) => copy(&event),
                Frame::Gap => Seen::Gap,
            });
        }
        assert!(rest.is_empty(), "more was asked for than there is, but not all was taken");
    }
    seen.extend(parser.finish().map(|event| copy(&event)));
    seen
}

fn copy(event: &Event<'_>) -> Seen {
    assert!(event.data.len() <= EVENT_MAX && event.name.len() <= 64);
    Seen::Event { name: event.name.to_vec(), data: event.data.to_vec(), partial: event.partial }
}

/// By the steps of WHATWG HTML, 9.2.6, line by line, and what the end of a stream may cut off: an event whose blank
/// line is missing counts. A byte order mark is not looked for.
fn dispatched(bytes: &[u8], ends: bool) -> Vec<Seen> {
    let mut seen = Vec::new();
    let (mut name, mut data) = (Vec::new(), None::<Vec<u8>>);
    let mut rest = bytes;
    loop {
        let length = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let line = &rest[..length.unwrap_or(rest.len())];
        if length.is_none() && (line.is_empty() || !ends) {
            break;
        }
        rest = length.map_or(&[], |length| match &rest[length..] {
            [b'\r', b'\n', after @ ..] | [_, after @ ..] => after,
            [] => &[],
        });
        let colon = line.iter().position(|byte| *byte == b':');
        let value = colon.map_or(&[][..], |colon| &line[colon + 1..]);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon.unwrap_or(line.len())] {
            [] if line.is_empty() => {
                let name = std::mem::take(&mut name);
                seen.extend(data.take().map(|data| Seen::Event { name, data, partial: false }));
            }
            b"event" => name = value[..value.len().min(64)].to_vec(),
            b"data" => match &mut data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => data = Some(value.to_vec()),
            },
            _ => {}
        }
    }
    if ends {
        seen.extend(data.map(|data| Seen::Event { name, data, partial: false }));
    }
    seen
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| target(data));
