//! Takes the text out of server-sent events, line by line as `protocol::sse` reads them. A raw line end never lies in
//! a JSON string, so that after a gap the next blank line is a place that is known.

use crate::llm::json::Anchor;

use super::{
    json::Json,
    words::{Matcher, VOCABULARY, in_vocabulary},
};

const TEXT: u8 = b'x';
const FIELDS: &[&str] = &["data", "event", "id", "retry"];
const DATA: usize = 0;
const EVENT: usize = 1;

#[derive(Clone, Copy, Debug)]
enum Line {
    /// The name of a field.
    Field(Matcher),
    /// Behind the colon, where one space does not count.
    Data {
        first: bool,
    },
    Event {
        first: bool,
        matcher: Matcher,
    },
    /// A comment, or a field that says nothing.
    Other,
}

/// The blanker of one stream.
#[derive(Debug)]
pub(super) struct Sse {
    line: Line,
    begun: bool,
    has_data: bool,
    after_cr: bool,
    /// Nothing is known until the next blank line.
    adrift: bool,
    json: Json,
}

impl Default for Sse {
    fn default() -> Self {
        Self {
            line: Line::Field(Matcher::new(FIELDS)),
            begun: false,
            has_data: false,
            after_cr: false,
            adrift: false,
            json: Json::default(),
        }
    }
}

impl Sse {
    /// A new stream.
    pub(super) fn reset(&mut self) {
        let json = std::mem::take(&mut self.json);
        *self = Self { json, ..Self::default() };
        self.json.reset(false);
    }

    /// Bytes were not captured. Until the next blank line the parser reads on at one of `anchors`.
    pub(super) fn gap(&mut self, anchors: &'static [Anchor]) {
        (self.adrift, self.begun, self.after_cr) = (true, true, false);
        self.json.reset(false);
        self.json.gap(anchors);
    }

    /// What `input` is without its text.
    pub(super) fn feed(&mut self, input: &[u8], out: &mut [u8]) {
        for (byte, out) in input.iter().zip(out) {
            *out = self.byte(*byte);
        }
    }

    fn byte(&mut self, byte: u8) -> u8 {
        if std::mem::take(&mut self.after_cr) && byte == b'\n' {
            return byte;
        }
        if matches!(byte, b'\r' | b'\n') {
            self.after_cr = byte == b'\r';
            self.end_line();
            return byte;
        }
        self.begun = true;
        if self.adrift {
            return self.json.byte(byte);
        }
        match &mut self.line {
            Line::Field(matcher) if byte == b':' => {
                self.line = match matcher.word(FIELDS) {
                    Some(DATA) => {
                        self.begin_data();
                        Line::Data { first: true }
                    }
                    Some(EVENT) => Line::Event { first: true, matcher: Matcher::new(VOCABULARY) },
                    _ => Line::Other,
                };
                byte
            }
            Line::Field(matcher) => {
                if matcher.push(FIELDS, byte) {
                    byte
                } else {
                    TEXT
                }
            }
            Line::Data { first } => match std::mem::take(first) && byte == b' ' {
                true => byte,
                false => self.json.byte(byte),
            },
            Line::Event { first, matcher } => match std::mem::take(first) && byte == b' ' {
                true => byte,
                false if in_vocabulary(matcher, byte) => byte,
                false => TEXT,
            },
            Line::Other => TEXT,
        }
    }

    fn begin_data(&mut self) {
        if std::mem::replace(&mut self.has_data, true) {
            self.json.byte(b'\n');
        }
    }

    fn end_line(&mut self) {
        let begun = std::mem::take(&mut self.begun);
        let line = std::mem::replace(&mut self.line, Line::Field(Matcher::new(FIELDS)));
        if self.adrift && begun {
            self.json.byte(b'\n');
            return;
        }
        if std::mem::take(&mut self.adrift) {
            // The next event is whole.
        } else if begun {
            // A field without a colon has an empty value.
            if matches!(line, Line::Field(matcher) if matcher.word(FIELDS) == Some(DATA)) {
                self.begin_data();
            }
            return;
        }
        self.has_data = false;
        self.json.reset(false);
    }
}

/// The blanker of JSON documents, one a line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    json: Json,
}

impl Lines {
    /// A new stream.
    pub(super) fn reset(&mut self) {
        self.json.reset(false);
    }

    /// Bytes were not captured. Until the end of the line the parser reads on at one of `anchors`.
    pub(super) fn gap(&mut self, anchors: &'static [Anchor]) {
        self.json.reset(false);
        self.json.gap(anchors);
    }

    /// What `input` is without its text.
    pub(super) fn feed(&mut self, input: &[u8], out: &mut [u8]) {
        for (byte, out) in input.iter().zip(out) {
            *out = match byte {
                b'\r' | b'\n' => {
                    self.json.reset(false);
                    *byte
                }
                _ => self.json.byte(*byte),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blank(pieces: &[&[u8]]) -> String {
        let mut sse = Sse::default();
        sse.reset();
        let mut out = String::new();
        for piece in pieces {
            if piece.is_empty() {
                sse.gap(ANCHORS);
                out.push('|');
                continue;
            }
            let mut part = vec![b'x'; piece.len()];
            sse.feed(piece, &mut part);
            out.push_str(std::str::from_utf8(&part).unwrap());
        }
        out
    }

    const ANCHORS: &[Anchor] = &[Anchor { path: &["usage"] }];
    const STREAM: &str = ": secret\n\nevent: response.output_secret\r\nid: secret\r\ndata: {\"type\":\"message_stop\",\r\n\
        data: \"secret\":\"secret\"}\r\n\r\ndata: [DONE]\n\nsecret\n\ndata:secret [DONE]\n\n";
    const BLANK: &str = ":xxxxxxx\n\nevent: response.output_sexxxx\r\nid:xxxxxxx\r\ndata: {\"type\":\"message_stop\",\r\n\
        data: \"s#####\":\"xxxxxx\"}\r\n\r\ndata: [DONE]\n\nxxxxxx\n\ndata:xxxxxx xxxxxx\n\n";

    #[test]
    fn lines_stay_and_text_goes() {
        let blanked = blank(&[STREAM.as_bytes()]);
        assert!(!blanked.contains("secret"), "{blanked}");
        for kept in ["event: response.output_", "{\"type\":\"message_stop\",", "data: [DONE]\n\n"] {
            assert!(blanked.contains(kept), "{blanked}");
        }
        assert_eq!(blanked.len(), BLANK.len());
    }

    #[test]
    fn after_a_gap_the_next_blank_line_counts() {
        let pieces: [&[u8]; 3] =
            [b"data: {\"a\":\"sec", b"", b"ret\"}\ndata: {\"type\":\"secret\"}\n\ndata: {\"index\":1}\n\n"];
        let blanked = blank(&pieces);
        assert!(!blanked.contains("sec") && blanked.ends_with("\n\ndata: {\"index\":1}\n\n"), "{blanked}");
        let pieces: [&[u8]; 3] =
            [b"data: {\"a\":\"sec", b"", b"ret\",\"usage\":{\"prompt_tokens\":3},\"z\":\"secret\"}\n\n"];
        let blanked = blank(&pieces);
        assert!(!blanked.contains("sec") && blanked.contains("\"usage\":{\"prompt_tokens\":3}"), "{blanked}");
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same(cut in 1..STREAM.len()) {
            let (front, back) = STREAM.as_bytes().split_at(cut);
            prop_assert_eq!(blank(&[front, back]), blank(&[STREAM.as_bytes()]));
        }
    }
}
