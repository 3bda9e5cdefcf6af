//! JSON documents, one a line (NDJSON, JSON Lines). Lines end with LF, CR or CRLF; blank ones say nothing.

use super::{
    events::{EVENT_MAX, Event, Frame},
    swar,
};
use crate::connection::stream::Chunk;

/// Parser of one stream.
#[derive(Debug, Default)]
pub struct Parser {
    /// Of the current line, what was seen since the last gap.
    line: Vec<u8>,
    partial: bool,
    /// A gap came: where the current line began is not known.
    adrift: bool,
    /// What is handed out follows a gap.
    rest: bool,
    /// The line was handed out: it is dropped at the next step.
    dispatched: bool,
}

impl Parser {
    /// Forgets all, for a new stream; the buffer stays, unless it is large.
    pub fn reset(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        line.shrink_to(1 << 10);
        *self = Self { line, ..Self::default() };
    }

    /// Consumes from `input` up to the next frame; `None`: all was consumed, more is needed.
    pub fn step<'p, 'i: 'p>(&'p mut self, input: &mut Chunk<'i>) -> Option<Frame<'p>> {
        self.drop_dispatched();
        let bytes = match input {
            Chunk::Gap(0) => return None,
            Chunk::Gap(length) => {
                *length = 0;
                self.rest = std::mem::replace(&mut self.adrift, true);
                return Some(Frame::Gap(self.dispatch()));
            }
            Chunk::Data(bytes) => bytes,
        };
        loop {
            let (line, after) = bytes.split_at(swar::line(bytes));
            let Some((_, after)) = after.split_first() else {
                self.append(line);
                *bytes = after;
                return None;
            };
            *bytes = after;
            if self.adrift {
                self.append(line);
                (self.adrift, self.rest) = (false, true);
                return Some(Frame::Event(self.dispatch()));
            }
            // Nearly all lines lie whole in one call.
            if self.line.is_empty() && (1..=EVENT_MAX).contains(&line.len()) && !line.trim_ascii().is_empty() {
                return Some(Frame::Event(Event { name: &[], data: line, partial: false, rest: false }));
            }
            self.append(line);
            if !self.line.trim_ascii().is_empty() {
                return Some(Frame::Event(self.dispatch()));
            }
            self.line.clear();
        }
    }

    /// The stream is complete: a last line needs no end.
    pub fn finish(&mut self) -> Option<Event<'_>> {
        self.drop_dispatched();
        self.rest = std::mem::take(&mut self.adrift);
        (self.rest || !self.line.trim_ascii().is_empty()).then(|| self.dispatch())
    }

    fn append(&mut self, line: &[u8]) {
        let room = EVENT_MAX - self.line.len();
        self.partial |= line.len() > room;
        self.line.extend_from_slice(&line[..line.len().min(room)]);
    }

    fn dispatch(&mut self) -> Event<'_> {
        self.dispatched = true;
        Event { name: &[], data: &self.line, partial: self.partial, rest: self.rest }
    }

    fn drop_dispatched(&mut self) {
        if std::mem::take(&mut self.dispatched) {
            self.line.clear();
            (self.partial, self.rest) = (false, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(chunks: &[Chunk<'_>]) -> Vec<String> {
        let (mut parser, mut out) = (Parser::default(), Vec::new());
        for chunk in chunks {
            let mut chunk = *chunk;
            while let Some(frame) = parser.step(&mut chunk) {
                out.push(match frame {
                    Frame::Gap(event) => format!("GAP {}", show(&event)),
                    Frame::Event(event) => show(&event),
                });
            }
            assert!(chunk.is_empty());
        }
        if let Some(event) = parser.finish() {
            out.push(format!("end {}", show(&event)));
        }
        out
    }

    fn show(event: &Event<'_>) -> String {
        let data = String::from_utf8_lossy(event.data);
        format!("{}{}{}", if event.rest { "…" } else { "" }, data.trim(), if event.partial { "~" } else { "" })
    }

    const STREAM: &[u8] = b"{\"a\":1}\n\n{\"b\":2}\r\n  \n{\"c\":\"\\n\"}\n{\"d\":4}";

    #[test]
    fn lines_blank_lines_and_the_last() {
        assert_eq!(parse(&[Chunk::Data(STREAM)]), [r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":"\n"}"#, r#"end {"d":4}"#]);
        assert_eq!(parse(&[Chunk::Data(b"\n\n"), Chunk::Gap(0)]), [""; 0]);
    }

    #[test]
    fn around_gaps() {
        let chunks = [Chunk::Data(b"1\n2"), Chunk::Gap(3), Chunk::Data(b"3\n4\n5")];
        assert_eq!(parse(&chunks), ["1", "GAP 2", "…3", "4", "end 5"]);
        let chunks = [Chunk::Gap(3), Chunk::Data(b"1"), Chunk::Gap(1), Chunk::Data(b"2\n3\n"), Chunk::Gap(1)];
        assert_eq!(parse(&chunks), ["GAP ", "GAP …1", "…2", "3", "GAP ", "end …"]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let long = [vec![b'x'; 2 * EVENT_MAX], b"\ny\n".to_vec()].concat();
        let lines = parse(&[Chunk::Data(&long)]);
        assert_eq!((lines.len(), lines[0].len(), &*lines[1]), (2, EVENT_MAX + 1, "y"));
        for length in EVENT_MAX - 1..=EVENT_MAX + 1 {
            let line = [vec![b'x'; length], b"\n".to_vec()].concat();
            let (front, back) = line.split_at(10);
            assert_eq!(parse(&[Chunk::Data(&line)]), parse(&[Chunk::Data(front), Chunk::Data(back)]), "{length}");
        }
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same(cuts in proptest::collection::vec(0..STREAM.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let chunks: Vec<_> = cuts.windows(2).map(|w| Chunk::Data(&STREAM[w[0]..w[1]])).collect();
            prop_assert_eq!(parse(&chunks), parse(&[Chunk::Data(STREAM)]));
        }
    }
}
