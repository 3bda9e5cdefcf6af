//! Server-sent events (WHATWG HTML, 9.2): lines end with LF, CR or CRLF; a blank line dispatches.

pub use super::events::{EVENT_MAX, Event, Frame};
use super::swar;
use crate::connection::stream::Chunk;

/// Parser of one stream.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    name: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    partial: bool,
    /// The last byte was a CR: a LF that follows belongs to it.
    after_cr: bool,
    /// A gap came: until the next blank line, `data` holds bytes as they come.
    adrift: bool,
    /// What is handed out follows a gap.
    rest: bool,
    /// The current line has a byte, or may have one, kept or not.
    line_begun: bool,
    /// The last event was handed out: it is dropped at the next step.
    dispatched: bool,
}

impl Parser {
    /// Forgets all, for a new stream; buffers stay.
    pub fn reset(&mut self) {
        let mut parser = std::mem::take(self);
        for buffer in [&mut parser.line, &mut parser.name, &mut parser.data] {
            buffer.clear();
            buffer.shrink_to(1 << 10);
        }
        *self = Self { line: parser.line, name: parser.name, data: parser.data, ..Self::default() };
    }

    /// Consumes from `input` up to the next frame; `None`: all was consumed, more is needed.
    pub fn step<'p, 'i: 'p>(&'p mut self, input: &mut Chunk<'i>) -> Option<Frame<'p>> {
        self.drop_dispatched();
        let bytes = match input {
            Chunk::Gap(0) => return None,
            Chunk::Gap(length) => {
                *length = 0;
                if !self.adrift {
                    self.end_field(true);
                }
                self.rest = std::mem::replace(&mut self.adrift, true);
                (self.line_begun, self.after_cr) = (true, false);
                return Some(Frame::Gap(self.dispatch()));
            }
            Chunk::Data(bytes) => bytes,
        };
        if self.is_between_events()
            && let Some((data, rest)) = whole_event(bytes)
        {
            *bytes = rest;
            return Some(Frame::Event(Event { name: &[], data, partial: false, rest: false }));
        }
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                *bytes = &bytes[1..];
                continue;
            }
            let (line, rest) = bytes.split_at(swar::line(bytes));
            self.append(line);
            *bytes = rest;
            let Some((terminator, rest)) = rest.split_first() else { break };
            *bytes = rest;
            self.after_cr = *terminator == b'\r';
            if self.end_line() {
                return Some(Frame::Event(self.dispatch()));
            }
        }
        None
    }

    /// The stream is complete: what a last blank line would have dispatched.
    pub fn finish(&mut self) -> Option<Event<'_>> {
        self.drop_dispatched();
        if !self.line.is_empty() {
            self.end_line();
        }
        self.rest = std::mem::take(&mut self.adrift);
        self.dispatched = true;
        (self.has_data || self.rest).then(|| self.dispatch())
    }

    fn dispatch(&mut self) -> Event<'_> {
        self.dispatched = true;
        Event { name: &self.name, data: &self.data, partial: self.partial, rest: self.rest }
    }

    /// Nothing of an event, or of a line, was seen yet.
    fn is_between_events(&self) -> bool {
        !(self.line_begun || self.has_data || self.after_cr || self.adrift || self.partial) && self.name.is_empty()
    }

    fn append(&mut self, line: &[u8]) {
        self.line_begun |= !line.is_empty();
        let room = EVENT_MAX.saturating_sub(self.line.len() + self.data.len());
        self.partial |= line.len() > room;
        let kept = if self.adrift { &mut self.data } else { &mut self.line };
        kept.extend_from_slice(&line[..line.len().min(room)]);
    }

    /// Whether the line was blank and ends an event that has data, or one that a gap cut.
    fn end_line(&mut self) -> bool {
        let begun = std::mem::take(&mut self.line_begun);
        if self.adrift {
            if begun {
                self.append(b"\n");
            } else {
                (self.adrift, self.rest) = (false, true);
            }
            self.line_begun = false;
            return !begun;
        }
        if !begun {
            let dispatch = self.has_data;
            if !dispatch {
                self.drop_event();
            }
            return dispatch;
        }
        self.end_field(false);
        false
    }

    /// Takes in the current line; `cut`: a gap follows.
    fn end_field(&mut self, cut: bool) {
        // Nothing came, or all of it was cut off.
        if self.line.is_empty() {
            return;
        }
        let colon = self.line.iter().position(|byte| *byte == b':').unwrap_or(self.line.len());
        let (field, value) = self.line.split_at(colon);
        let value = value.get(1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                self.has_data = true;
            }
            b"event" if !cut => {
                self.name.clear();
                self.name.extend_from_slice(&value[..value.len().min(64)]);
            }
            // Comments have an empty field; `id`, `retry` and unknown ones say nothing here.
            _ => {}
        }
        self.line.clear();
    }

    fn drop_dispatched(&mut self) {
        if std::mem::take(&mut self.dispatched) {
            self.drop_event();
        }
    }

    fn drop_event(&mut self) {
        self.data.clear();
        self.name.clear();
        (self.has_data, self.partial, self.rest) = (false, false, false);
    }
}

/// The data of an event that is one line and the blank one after it, and what follows: such events, nearly all there
/// are, are handed out where they lie.
fn whole_event(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let value = bytes.strip_prefix(b"data:")?;
    let length = swar::line(value);
    let rest = value[length..].strip_prefix(b"\n\n")?;
    let data = &value[..length];
    (length <= EVENT_MAX - b"data:".len()).then_some((data.strip_prefix(b" ").unwrap_or(data), rest))
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
        let text = String::from_utf8_lossy;
        let cut = if event.partial { "~" } else { "" };
        let rest = if event.rest { "…" } else { "" };
        format!("{}|{rest}{}{cut}", text(event.name), text(event.data))
    }

    const STREAM: &[u8] =
        b": ping\n\ndata: a\n\n:\n\nevent: x\ndata:b\r\ndata: c\r\n\r\ndata\n\nid: 7\n\n\rdata: d\r\rdata: [DONE]\n\n";

    #[test]
    fn events_comments_and_line_ends() {
        assert_eq!(parse(&[Chunk::Data(STREAM)]), ["|a", "x|b\nc", "|", "|d", "|[DONE]"]);
        assert_eq!(parse(&[Chunk::Data(b"data: x\n")]), ["end |x"]);
    }

    #[test]
    fn after_a_gap_the_next_blank_line_counts() {
        let chunks = [Chunk::Data(b"data: a\n\ndata: b"), Chunk::Gap(3), Chunk::Data(b"\ndata: c\n\ndata: d\n\n")];
        assert_eq!(parse(&chunks), ["|a", "GAP |b", "|…\ndata: c\n", "|d"]);
        let chunks = [Chunk::Data(b"event: x\ndata: a\nevent: y"), Chunk::Gap(3), Chunk::Data(b"b"), Chunk::Gap(1)];
        assert_eq!(parse(&chunks), ["GAP x|a", "GAP |…b", "end |…"]);
        let chunks = [Chunk::Gap(1), Chunk::Data(b"\r\n\r\n:\r\n\r\ndata: a\r\n\r\n"), Chunk::Gap(2)];
        assert_eq!(parse(&chunks), ["GAP |", "|…\n", "|a", "GAP |", "end |…"]);
    }

    #[test]
    fn what_follows_a_gap_is_bounded() {
        let long = [vec![b'x'; 2 * EVENT_MAX], b"\n".repeat(2), b"data: y\n\n".to_vec()].concat();
        let events = parse(&[Chunk::Gap(1), Chunk::Data(&long)]);
        assert_eq!((events[1].len(), &*events[2]), ("|…~".len() + EVENT_MAX, "|y"));
    }

    #[test]
    fn an_event_without_end_is_cut() {
        let long = [b"data: ".as_slice(), &vec![b'x'; 2 * EVENT_MAX], b"\n\ndata: y\n\n"].concat();
        let events = parse(&[Chunk::Data(&long)]);
        assert_eq!(events.len(), 2);
        assert!(events[0].ends_with("x~") && events[0].len() < EVENT_MAX + 8);
        assert_eq!(events[1], "|y");
        for length in EVENT_MAX - 8..EVENT_MAX + 4 {
            let event = [b"data: ".as_slice(), &vec![b'x'; length], b"\n\n"].concat();
            let (front, back) = event.split_at(10);
            assert_eq!(parse(&[Chunk::Data(&event)]), parse(&[Chunk::Data(front), Chunk::Data(back)]), "{length}");
        }
        let many_lines = [b"data: 1\n".repeat(EVENT_MAX), b"\ndata: y\n\n".to_vec()].concat();
        let events = parse(&[Chunk::Data(&many_lines)]);
        assert_eq!(events.len(), 2);
        assert_eq!(events[1], "|y");
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
