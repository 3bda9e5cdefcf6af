//! Server-sent events. Input: a stream as in `observer_fuzz::stream`.

#![cfg_attr(fuzzing, no_main)]

use observer::{
    connection::stream::Chunk,
    protocol::{events::Frame, sse::Parser},
};
use observer_fuzz::events::{self, Seen};

/// However the bytes are cut, the parser finds the same events; they are those that the standard's own steps find,
/// up to a gap; what it keeps of one is bounded.
pub(crate) fn target(data: &[u8]) {
    events::check(data, parse, dispatched);
}

fn parse(chunks: &[Chunk<'_>]) -> Vec<Seen> {
    let (mut parser, mut seen) = (Parser::default(), Vec::new());
    for chunk in chunks {
        seen.extend(events::steps(chunk, |rest| parser.step(rest).map(|frame| Seen::of(&frame))));
    }
    seen.extend(parser.finish().map(|event| Seen::of(&Frame::Event(event))));
    seen
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
                seen.extend(data.take().map(|data| Seen::whole(name, data)));
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
        seen.extend(data.map(|data| Seen::whole(name, data)));
    }
    seen
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| target(data));
