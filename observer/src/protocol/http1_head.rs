//! Heads of HTTP/1.x messages: what of them matters here.

/// A request's method, as far as it changes how messages are read.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Method {
    /// Its response has no body.
    Head,
    /// A successful response turns the connection into a tunnel.
    Connect,
    /// What operations are asked for with.
    Post,
    /// Any other.
    #[default]
    Other,
}

impl Method {
    fn from_name(name: &str) -> Self {
        match name {
            "POST" => Self::Post,
            "HEAD" => Self::Head,
            "CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }
}

/// Where a body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// There is none, and this is not the final response.
    Interim,
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// As its chunks say.
    Chunked,
    /// With the connection.
    UntilClose,
    /// What follows is not HTTP.
    Tunnel,
}

/// A head and what it says of the body.
#[derive(Debug)]
pub struct Parsed<H> {
    /// The head.
    pub head: H,
    /// Where the body ends.
    pub framing: Framing,
}

/// Requests or responses.
pub trait Kind {
    /// What is kept of a head.
    type Head;
    /// [`Self::is_plausible`] judges as many bytes.
    const PREFIX: usize;
    /// Whether a message may begin so.
    fn is_plausible(prefix: &[u8]) -> bool;
    /// Reads a whole head. `None`: it is not one. `wanted`: further headers of a request to keep.
    fn parse(bytes: &[u8], answers: Method, wanted: &[Box<str>]) -> Option<Parsed<Self::Head>>;
}

/// Marks requests.
#[derive(Debug)]
pub struct Request;
/// Marks responses.
#[derive(Debug)]
pub struct Response;

/// What is kept of a request's head.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RequestHead {
    /// Its method.
    pub method: Method,
    /// Its target, as sent.
    pub target: Box<str>,
    /// Its body has a content coding.
    pub coded: bool,
    /// `x-request-id`: at most 128 bytes, printable.
    pub request_id: Option<Box<str>>,
    /// The trace id of `traceparent`: 32 hex digits.
    pub trace_id: Option<Box<str>>,
    /// Values of the headers that were wanted besides, in their order: at most 128 bytes, printable. Empty if none
    /// were.
    pub wanted: Box<[Option<Box<str>>]>,
}

/// What is kept of a response's head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResponseHead {
    /// Its status.
    pub status: u16,
    /// The connection is no longer HTTP after it.
    pub tunnel: bool,
    /// What its body is.
    pub content: Content,
    /// Its body has a content coding.
    pub coded: bool,
    /// Tokens of the prompt: `x-prompt-tokens` of text-generation-inference, `x-compute-tokens` of its sibling for
    /// embeddings.
    pub prompt_tokens: Option<u64>,
    /// Tokens generated: `x-generated-tokens`.
    pub generated_tokens: Option<u64>,
}

/// The kinds of content that matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// `text/event-stream`.
    EventStream,
    /// `application/x-ndjson` and its other names: one JSON document a line.
    Ndjson,
    /// `application/json` and its relatives.
    Json,
    /// Any other, or not said.
    Other,
}

/// Longest method that is taken for one.
const METHOD_MAX: usize = 16;

impl Kind for Request {
    type Head = RequestHead;
    const PREFIX: usize = METHOD_MAX + 2;

    fn is_plausible(prefix: &[u8]) -> bool {
        let method = prefix.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
        match prefix.get(method..) {
            Some([]) => method <= METHOD_MAX,
            Some([b' ']) => (1..=METHOD_MAX).contains(&method),
            // Origin, absolute, asterisk form; an authority only for CONNECT.
            Some([b' ', target, ..]) => {
                (1..=METHOD_MAX).contains(&method)
                    && (matches!(target, b'/' | b'*' | b'h' | b'H') || prefix.starts_with(b"CONNECT "))
            }
            _ => false,
        }
    }

    fn parse(bytes: &[u8], _answers: Method, wanted: &[Box<str>]) -> Option<Parsed<RequestHead>> {
        with_headers(|headers| {
            let mut request = httparse::Request::new(headers);
            if !request.parse(bytes)?.is_complete() {
                return Ok(None);
            }
            let method = Method::from_name(request.method.unwrap_or_default());
            let Some(fields) = Fields::read(request.headers) else { return Ok(None) };
            let framing = match fields {
                Fields { transfer_coding: true, chunked: false, .. } => return Ok(None),
                Fields { chunked: true, .. } => Framing::Chunked,
                Fields { length: Some(length), .. } => Framing::Length(length),
                _ => Framing::None,
            };
            let head = RequestHead {
                method,
                target: request.path.unwrap_or_default().into(),
                coded: fields.coded,
                request_id: value(request.headers, "x-request-id").and_then(printable),
                trace_id: value(request.headers, "traceparent").and_then(trace_id),
                wanted: wanted.iter().map(|name| value(request.headers, name).and_then(printable)).collect(),
            };
            Ok(Some(Parsed { head, framing }))
        })
    }
}

impl Kind for Response {
    type Head = ResponseHead;
    const PREFIX: usize = 8;

    fn is_plausible(prefix: &[u8]) -> bool {
        prefix.iter().zip(b"HTTP/1.").all(|(byte, expected)| byte == expected)
    }

    fn parse(bytes: &[u8], answers: Method, _wanted: &[Box<str>]) -> Option<Parsed<ResponseHead>> {
        with_headers(|headers| {
            let mut response = httparse::Response::new(headers);
            let mut config = httparse::ParserConfig::default();
            config
                .allow_spaces_after_header_name_in_responses(true)
                .allow_obsolete_multiline_headers_in_responses(true);
            if !config.parse_response(&mut response, bytes)?.is_complete() {
                return Ok(None);
            }
            let (Some(status), Some(fields)) = (response.code, Fields::read(response.headers)) else { return Ok(None) };
            let framing = match (status, answers) {
                (101, _) | (200..=299, Method::Connect) => Framing::Tunnel,
                (100..=199, _) => Framing::Interim,
                (204 | 304, _) | (_, Method::Head) => Framing::None,
                _ if fields.chunked => Framing::Chunked,
                _ if fields.transfer_coding => Framing::UntilClose,
                _ => fields.length.map_or(Framing::UntilClose, Framing::Length),
            };
            let content = value(response.headers, "content-type").map_or(Content::Other, content);
            let count = |name| std::str::from_utf8(value(response.headers, name)?).ok()?.parse().ok();
            let head = ResponseHead {
                status,
                tunnel: framing == Framing::Tunnel,
                content,
                coded: fields.coded,
                prompt_tokens: count("x-prompt-tokens").or_else(|| count("x-compute-tokens")),
                generated_tokens: count("x-generated-tokens"),
            };
            Ok(Some(Parsed { head, framing }))
        })
    }
}

/// Calls `parse` with room for headers, and once more with much room where it does not do.
fn with_headers<'b, H>(
    parse: impl Fn(&mut [httparse::Header<'b>]) -> Result<Option<Parsed<H>>, httparse::Error>,
) -> Option<Parsed<H>> {
    match parse(&mut [httparse::EMPTY_HEADER; 48]) {
        Err(httparse::Error::TooManyHeaders) => parse(&mut [httparse::EMPTY_HEADER; 512]).ok().flatten(),
        other => other.ok().flatten(),
    }
}

/// The fields that frame a body.
struct Fields {
    transfer_coding: bool,
    chunked: bool,
    length: Option<u64>,
    coded: bool,
}

impl Fields {
    /// `None`: they contradict each other, so that nobody can tell where the body ends.
    fn read(headers: &[httparse::Header<'_>]) -> Option<Self> {
        let mut fields = Self { transfer_coding: false, chunked: false, length: None, coded: false };
        for header in headers {
            if header.name.eq_ignore_ascii_case("transfer-encoding") {
                for coding in list(header.value).filter(|coding| !coding.is_empty()) {
                    let identity = coding.eq_ignore_ascii_case(b"identity");
                    fields.transfer_coding |= !identity;
                    fields.chunked = coding.eq_ignore_ascii_case(b"chunked");
                }
            } else if header.name.eq_ignore_ascii_case("content-length") {
                for length in list(header.value) {
                    let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
                    let length = digits.then(|| std::str::from_utf8(length).ok()?.parse().ok())??;
                    if fields.length.is_some_and(|earlier| earlier != length) {
                        return None;
                    }
                    fields.length = Some(length);
                }
            } else if header.name.eq_ignore_ascii_case("content-encoding") {
                fields.coded |=
                    list(header.value).any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
            }
        }
        Some(fields)
    }
}

fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

fn value<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value.trim_ascii())
}

const NDJSON: [&[u8]; 4] =
    [b"application/x-ndjson", b"application/ndjson", b"application/jsonl", b"application/x-jsonlines"];

fn content(value: &[u8]) -> Content {
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if essence.eq_ignore_ascii_case(b"text/event-stream") {
        Content::EventStream
    } else if NDJSON.iter().any(|name| essence.eq_ignore_ascii_case(name)) {
        Content::Ndjson
    } else if essence.eq_ignore_ascii_case(b"application/json") || essence.to_ascii_lowercase().ends_with(b"+json") {
        Content::Json
    } else {
        Content::Other
    }
}

/// A short value without anything odd.
fn printable(value: &[u8]) -> Option<Box<str>> {
    let printable = (1..=128).contains(&value.len()) && value.iter().all(|byte| (b' '..=b'~').contains(byte));
    printable.then(|| std::str::from_utf8(value).ok().map(Box::from)).flatten()
}

/// Of `version-traceid-parentid-flags` (W3C Trace Context). All zeros is no trace id.
fn trace_id(value: &[u8]) -> Option<Box<str>> {
    let mut parts = value.split(|byte| *byte == b'-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let hex = |bytes: &[u8]| bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let valid = version.len() == 2 && hex(version) && version != b"ff" && trace.len() == 32 && hex(trace);
    (valid && trace.iter().any(|byte| *byte != b'0')).then(|| std::str::from_utf8(trace).ok().map(Box::from)).flatten()
}

/// Method and target of a head of which only the beginning was captured, if its first line was.
#[must_use]
pub fn request_line(head: &[u8]) -> Option<(Method, &str)> {
    let line = head.get(..head.iter().position(|byte| *byte == b'\n')?)?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    version.starts_with("HTTP/1.").then_some((Method::from_name(method), target))
}
