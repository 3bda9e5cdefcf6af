//! Takes the text out of heads of HTTP/1 messages and out of the framing of chunks, byte by byte: what is left is as
//! long, as valid and as invalid, and says the same of framing, route and content.

use super::words::{Matcher, Words};

const TEXT: u8 = b'x';
/// In place of a field's name: never the beginning of one that is known.
const NAME: u8 = b'#';

/// Methods; the segments of paths that tell routes apart; fields and what stays of them.
#[cfg(test)]
pub(super) const LISTS: [&Words; 3] = [METHODS, SEGMENTS, FIELDS];
const METHODS: &Words = &["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
const SEGMENTS: &Words = &[
    "*",
    "api",
    "audio",
    "beta",
    "chat",
    "classify",
    "completion",
    "completions",
    "compute",
    "count",
    "count_tokens",
    "decode",
    "deployments",
    "detokenize",
    "embed",
    "embed_all",
    "embed_sparse",
    "embedding",
    "embeddings",
    "encode",
    "engines",
    "extras",
    "generate",
    "generate_stream",
    "health",
    "http:",
    "https:",
    "infer",
    "inference",
    "infill",
    "input_tokens",
    "invocations",
    "messages",
    "metrics",
    "models",
    "openai",
    "pooling",
    "predict",
    "ps",
    "pull",
    "rerank",
    "reranking",
    "responses",
    "score",
    "show",
    "similarity",
    "tags",
    "tokenize",
    "v1",
    "v2",
    "v3",
    "v4",
    "version",
    "versions",
];
const VERSIONS: &Words = &["HTTP/1.0", "HTTP/1.1"];
const FIELDS: &Words = &[
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "traceparent",
    "transfer-encoding",
    "upgrade",
    "x-compute-tokens",
    "x-generated-tokens",
    "x-prompt-tokens",
    "x-request-id",
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Value {
    /// Nothing stays.
    Blank,
    /// Digits stay.
    Number,
    /// Tokens of a header: lists of codings, media types without their parameters.
    Token,
    /// Ids that are exported as they are.
    Id,
}

fn value_of(field: &str) -> Value {
    match field {
        "content-length" | "x-compute-tokens" | "x-generated-tokens" | "x-prompt-tokens" => Value::Number,
        "traceparent" | "x-request-id" => Value::Id,
        _ => Value::Token,
    }
}

/// What came before a segment of a path: behind `/v2/models/` stands a model's name, which is exported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Before {
    Other,
    Version,
    Model,
}

impl Before {
    fn then(self, segment: Option<&str>) -> Self {
        match (self, segment) {
            (_, Some("v2")) => Self::Version,
            (Self::Version, Some("models")) => Self::Model,
            _ => Self::Other,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Method(Matcher),
    /// `first`: the byte behind the method, by which a request is told from what is none.
    Target {
        first: bool,
        connect: bool,
        query: bool,
        segment: Matcher,
        before: Before,
    },
    Version(Matcher),
    /// A response's version, then its status.
    ResponseVersion(Matcher),
    /// After so many digits.
    Status(u8),
    Reason,
    LineStart,
    Name(Matcher),
    /// `begun`: something other than blanks came.
    Value {
        value: Value,
        begun: bool,
    },
}

/// The blanker of heads, one after another.
#[derive(Debug)]
pub(super) struct Head {
    request: bool,
    state: State,
    /// Of the line before, which the next may continue.
    value: Value,
    /// Nothing but CR on this line so far.
    blank: bool,
    over: bool,
    /// Names of further fields whose values stay, in lower case.
    kept: Box<[Box<str>]>,
    name: Vec<u8>,
}

impl Head {
    /// `kept`: fields whose values stay, besides those that every recording keeps.
    pub(super) fn new(request: bool, kept: &[String]) -> Self {
        let mut head = Self {
            request,
            state: State::LineStart,
            value: Value::Blank,
            blank: false,
            over: false,
            kept: kept.iter().map(|name| name.to_ascii_lowercase().into()).collect(),
            name: Vec::new(),
        };
        head.reset();
        head
    }

    /// A message begins.
    pub(super) fn reset(&mut self) {
        self.state = match self.request {
            true => State::Method(Matcher::new(METHODS)),
            false => State::ResponseVersion(Matcher::new(VERSIONS)),
        };
        (self.value, self.blank, self.over) = (Value::Blank, false, false);
        self.name.clear();
    }

    /// What `input` is without its text. Behind the head's end nothing but line ends stays.
    pub(super) fn feed(&mut self, input: &[u8], out: &mut [u8]) {
        for (byte, out) in input.iter().zip(out) {
            *out = match byte {
                b'\r' | b'\n' if self.over => *byte,
                _ if self.over => TEXT,
                _ => self.byte(*byte),
            };
        }
    }

    fn byte(&mut self, byte: u8) -> u8 {
        match byte {
            b'\n' => {
                self.over = self.blank;
                self.blank = true;
                self.state = State::LineStart;
                return byte;
            }
            // Between lines; elsewhere it is no part of any text.
            b'\r' => return byte,
            _ => self.blank = false,
        }
        let (next, out) = self.step(byte);
        self.state = next;
        out
    }

    fn step(&mut self, byte: u8) -> (State, u8) {
        match self.state {
            State::Method(matcher) if byte == b' ' => {
                let connect = matcher.word(METHODS) == Some(0);
                (
                    State::Target {
                        first: true,
                        connect,
                        query: false,
                        segment: Matcher::new(SEGMENTS),
                        before: Before::Other,
                    },
                    byte,
                )
            }
            State::Method(mut matcher) => {
                let known = matcher.push(METHODS, byte);
                let out = match byte {
                    _ if known => byte,
                    b'A'..=b'Z' | b'-' => b'X',
                    _ => TEXT,
                };
                (State::Method(matcher), out)
            }
            State::Target { first: false, .. } if byte == b' ' => (State::Version(Matcher::new(VERSIONS)), byte),
            State::Target { connect, mut query, mut segment, mut before, first } => {
                query |= matches!(byte, b'?' | b'#');
                let out = match byte {
                    b'?' | b'#' | b'/' if !connect => {
                        before = before.then(segment.word(SEGMENTS).map(|index| SEGMENTS[index]));
                        segment = Matcher::new(SEGMENTS);
                        if query && byte == b'/' { TEXT } else { byte }
                    }
                    // So that it begins a request no more and no less than before.
                    b'H' if first => byte,
                    _ if segment.push(SEGMENTS, byte) && !query && !connect => byte,
                    _ if before == Before::Model && !query => byte,
                    _ => blank(byte),
                };
                (State::Target { first: false, connect, query, segment, before }, out)
            }
            State::Version(mut matcher) | State::ResponseVersion(mut matcher)
                if byte != b' ' || matches!(self.state, State::Version(_)) =>
            {
                let out = if matcher.push(VERSIONS, byte) { byte } else { blank(byte) };
                match self.state {
                    State::Version(_) => (State::Version(matcher), out),
                    _ => (State::ResponseVersion(matcher), out),
                }
            }
            // A status is one only behind a version.
            State::ResponseVersion(matcher) if matcher.word(VERSIONS).is_some() => (State::Status(0), byte),
            State::ResponseVersion(_) | State::Version(_) => (State::Reason, byte),
            State::Status(digits @ 0..3) if byte.is_ascii_digit() => (State::Status(digits + 1), byte),
            State::Status(_) => (State::Reason, if byte == b' ' { byte } else { blank(byte) }),
            State::Reason => (State::Reason, blank(byte)),
            // The line before goes on.
            State::LineStart if matches!(byte, b' ' | b'\t') => {
                (State::Value { value: self.value, begun: false }, byte)
            }
            State::LineStart => {
                self.name.clear();
                self.state = State::Name(Matcher::new(FIELDS));
                self.step(byte)
            }
            State::Name(matcher) if byte == b':' => {
                let known = matcher.word(FIELDS).map(|index| value_of(FIELDS[index]));
                let kept = || self.kept.iter().any(|name| name.as_bytes() == self.name).then_some(Value::Id);
                self.value = known.or_else(kept).unwrap_or(Value::Blank);
                (State::Value { value: self.value, begun: false }, byte)
            }
            State::Name(mut matcher) => {
                let lower = byte.to_ascii_lowercase();
                self.name.push(lower);
                // Blanks before the colon belong to no name.
                let known =
                    matcher.push(FIELDS, lower) || self.kept.iter().any(|name| name.as_bytes().starts_with(&self.name));
                let out = match byte {
                    _ if known => byte,
                    // What may not be in a name must not be in what stands for it.
                    0x80.. => 0x80,
                    _ if byte.is_ascii_alphanumeric() => NAME,
                    _ => byte,
                };
                (State::Name(matcher), out)
            }
            State::Value { begun: false, .. } if matches!(byte, b' ' | b'\t') => (self.state, byte),
            State::Value { mut value, .. } => {
                let out = match value {
                    Value::Number if byte.is_ascii_digit() || matches!(byte, b',' | b' ') => byte,
                    Value::Token if byte.is_ascii_alphanumeric() => byte,
                    Value::Token if matches!(byte, b'-' | b'+' | b'/' | b'.' | b',' | b' ' | b'*') => byte,
                    Value::Token if byte == b';' => {
                        value = Value::Blank;
                        byte
                    }
                    Value::Id => byte,
                    _ => blank(byte),
                };
                (State::Value { value, begun: true }, out)
            }
        }
    }
}

/// Control characters are no text, and are what is wrong where they are.
fn blank(byte: u8) -> u8 {
    if byte < b' ' || byte == 0x7f { byte } else { TEXT }
}

/// The framing of chunks: sizes stay; extensions and trailers go.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chunks {
    extension: bool,
    /// A digit other than zero came on this line.
    some: bool,
    digit: bool,
    trailers: bool,
}

impl Chunks {
    pub(super) fn feed(&mut self, input: &[u8], out: &mut [u8]) {
        for (byte, out) in input.iter().zip(out) {
            *out = self.byte(*byte);
        }
    }

    fn byte(&mut self, byte: u8) -> u8 {
        match byte {
            b'\n' => {
                self.trailers |= self.digit && !self.some;
                *self = Self { trailers: self.trailers, ..Self::default() };
                byte
            }
            b'\r' => byte,
            _ if self.extension || self.trailers => TEXT,
            b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' => {
                self.digit = true;
                self.some |= byte != b'0';
                byte
            }
            b';' | b' ' | b'\t' => {
                self.extension = true;
                byte
            }
            _ => TEXT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blank(request: bool, text: &str) -> String {
        let (mut head, mut out) = (Head::new(request, &["X-Tenant".to_owned()]), vec![b'x'; text.len()]);
        head.feed(text.as_bytes(), &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn what_is_read_stays() {
        assert_eq!(
            blank(
                true,
                "POST /acme/v1/chat/completions?k=v HTTP/1.1\r\nHost: h\r\nx-tenant: a b\r\nCookie: c\r\n\r\nbody"
            ),
            "POST /xxme/v1/chat/completions?xxx HTTP/1.1\r\n####: x\r\nx-tenant: a b\r\nCo####: x\r\n\r\nxxxx"
                .replace("xxme", "axxx"),
        );
        assert_eq!(
            blank(true, "POST /v2/models/acme-7b/versions/3/generate HTTP/1.1\r\n"),
            "POST /v2/models/acme-7b/versions/x/generate HTTP/1.1\r\n",
        );
        assert_eq!(blank(true, "POST /models/acme HTTP/1.1\r\n"), "POST /models/axxx HTTP/1.1\r\n");
        assert_eq!(
            blank(false, "HTTP/1.1 503 Loading model\r\nContent-Length: 12\r\nServer: s\r\n folded\r\n\r\n"),
            "HTTP/1.1 503 xxxxxxxxxxxxx\r\nContent-Length: 12\r\n######: x\r\n xxxxxx\r\n\r\n",
        );
    }

    #[test]
    fn what_is_no_head_has_no_status() {
        assert_eq!(blank(false, " 3098, 5"), " xxxxxxx");
        assert_eq!(blank(false, "HTTP/3 3098"), "HTTP/x xxxx");
        assert_eq!(blank(false, "HTTP/1.1 3098"), "HTTP/1.1 309x");
    }

    #[test]
    fn sizes_of_chunks_stay() {
        let (mut chunks, text) = (Chunks::default(), b"1A;ext=1\r\n\r\n0\r\nDate: 1\r\n\r\n");
        let mut out = vec![b'x'; text.len()];
        chunks.feed(text, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "1A;xxxxx\r\n\r\n0\r\nxxxxxxx\r\n\r\n");
    }
}
