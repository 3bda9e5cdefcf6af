//! What the parsers of event streams have in common.

use observer::{
    connection::stream::Chunk,
    protocol::events::{EVENT_MAX, Event, Frame},
};

use super::stream;

/// A frame, with bytes of its own.
#[derive(PartialEq, Debug)]
pub struct Seen {
    /// Bytes were not captured; the rest is of the event that they cut.
    pub gap: bool,
    /// Its `event` field.
    pub name: Vec<u8>,
    /// Its data.
    pub data: Vec<u8>,
    /// They are a prefix.
    pub partial: bool,
    /// They follow a gap.
    pub rest: bool,
}

impl Seen {
    /// A whole event.
    pub fn whole(name: Vec<u8>, data: Vec<u8>) -> Self {
        Self { gap: false, name, data, partial: false, rest: false }
    }

    /// A frame as a parser hands it out.
    pub fn of(frame: &Frame<'_>) -> Self {
        let (gap, event) = match frame {
            Frame::Event(event) => (false, event),
            Frame::Gap(event) => (true, event),
        };
        let Event { name, data, partial, rest } = *event;
        assert!(data.len() <= EVENT_MAX && name.len() <= 64);
        Self { gap, name: name.to_vec(), data: data.to_vec(), partial, rest }
    }
}

/// All frames of a chunk: `step` is a parser's.
pub fn steps<'a>(chunk: &Chunk<'a>, mut step: impl FnMut(&mut Chunk<'a>) -> Option<Seen>) -> Vec<Seen> {
    let (mut rest, mut seen) = (*chunk, Vec::new());
    while let Some(frame) = step(&mut rest) {
        seen.push(frame);
        assert!(seen.len() as u64 <= chunk.len(), "no end of frames");
    }
    assert!(rest.is_empty(), "more was asked for than there is, but not all was taken");
    seen
}

/// However the bytes are cut, `parse` finds the same events; up to the first gap they are those that `expected` finds,
/// which is told whether the stream ends there.
pub fn check(data: &[u8], parse: fn(&[Chunk<'_>]) -> Vec<Seen>, expected: fn(&[u8], bool) -> Vec<Seen>) {
    let chunks = stream::decode(data);
    let whole = parse(&chunks);
    for seed in [0, 1, 0xfeed] {
        let cut = stream::cut(&chunks, seed);
        assert_eq!(parse(&cut), whole, "cut as {cut:?}");
    }
    if data.len() < EVENT_MAX
        && let [Chunk::Data(bytes), rest @ ..] = chunks.as_slice()
    {
        let first_gap = whole.iter().position(|seen| seen.gap);
        assert_eq!(whole[..first_gap.unwrap_or(whole.len())], expected(bytes, rest.is_empty()));
    }
}
