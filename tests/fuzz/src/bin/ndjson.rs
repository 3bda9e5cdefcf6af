//! One JSON document a line. Input: a stream as in `observer_fuzz::stream`.

#![cfg_attr(fuzzing, no_main)]

use observer::{
    connection::stream::Chunk,
    protocol::{events::Frame, ndjson::Parser},
};
use observer_fuzz::events::{self, Seen};

/// However the bytes are cut, the parser finds the same lines; up to a gap they are all that are not blank; what it
/// keeps of one is bounded.
pub(crate) fn target(data: &[u8]) {
    events::check(data, parse, lines);
}

fn parse(chunks: &[Chunk<'_>]) -> Vec<Seen> {
    let (mut parser, mut seen) = (Parser::default(), Vec::new());
    for chunk in chunks {
        seen.extend(events::steps(chunk, |rest| parser.step(rest).map(|frame| Seen::of(&frame))));
    }
    seen.extend(parser.finish().map(|event| Seen::of(&Frame::Event(event))));
    seen
}

fn lines(bytes: &[u8], ends: bool) -> Vec<Seen> {
    let mut lines: Vec<_> = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).collect();
    if !ends {
        lines.pop();
    }
    let lines = lines.into_iter().filter(|line| !line.trim_ascii().is_empty());
    lines.map(|line| Seen::whole(Vec::new(), line.to_vec())).collect()
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| target(data));
