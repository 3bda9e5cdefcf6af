//! One request over a socket, plain or TLS. Small on purpose: the answer comes from an observer, mostly on this host.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use super::{DEFAULT_PORT, TopError, trust::Trust};
use crate::export::summary::Summary;

const PATH: &str = "/api/v1/summary";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// More than the summary of a thousand servers; what is longer is something else.
const LONGEST_ANSWER: usize = 4 << 20;

/// Why there is no summary.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Looking up, connecting, sending or reading failed.
    #[error("{}", words(.0))]
    Io(io::Error),
    /// The answer was not complete in time.
    #[error("no complete answer within {0:?}")]
    Slow(Duration),
    /// The connection ended inside the answer.
    #[error("connection closed after {0} bytes of an incomplete answer")]
    CutOff(usize),
    /// The bytes are not an HTTP/1 response.
    #[error("the answer is not HTTP/1: {0}")]
    NotHttp(&'static str),
    /// More than an observer would ever say.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// An answer other than 200.
    #[error("HTTP status {code}")]
    Status {
        /// As answered.
        code: u16,
    },
    /// A 200 with another body.
    #[error("its answer is no summary: {0}")]
    NotSummary(serde_json::Error),
}

/// `connection refused` rather than `Connection refused (os error 111)`, where the kind says it all.
fn words(error: &io::Error) -> String {
    if error.raw_os_error().is_some() { error.kind().to_string() } else { error.to_string() }
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Name or address, an IPv6 one without its brackets.
    host: String,
    port: u16,
    tls: bool,
    /// What goes before [`PATH`]; no slash at its end.
    prefix: String,
}

impl Endpoint {
    pub(crate) fn parse(url: &str) -> Result<Self, TopError> {
        let refuse = |reason| TopError::Url { url: url.to_owned(), reason };
        let (tls, rest) = match url.trim().split_once("://") {
            None => (false, url.trim()),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some(_) => return Err(refuse("only http and https are spoken")),
        };
        if rest.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#' | '@')) {
            return Err(refuse(
                "it holds more than a host, a port and a path; a password goes into a file (--user-file)",
            ));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => {
                let (host, after) = bracketed.split_once(']').ok_or_else(|| refuse("its `[` is not closed"))?;
                (host, if after.is_empty() { None } else { Some(after.strip_prefix(':').unwrap_or(after)) })
            }
            None => match authority.split_once(':') {
                Some((_, port)) if port.contains(':') => return Err(refuse("an IPv6 address goes into [ ]")),
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() {
            return Err(refuse("it names no host"));
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => match port.parse() {
                Ok(0) | Err(_) => return Err(refuse("its port is no number from 1 to 65535")),
                Ok(port) => port,
            },
        };
        // People paste the whole address of the summary, too.
        let prefix = path.trim_end_matches('/');
        let prefix = prefix.strip_suffix(PATH).unwrap_or(prefix);
        Ok(Self { host: host.to_owned(), port, tls, prefix: prefix.to_owned() })
    }

    /// Whether TLS is to be spoken.
    pub(crate) const fn is_tls(&self) -> bool {
        self.tls
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

/// Asks one observer; a connection for each request, so that a restarted observer is met like a new one.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    endpoint: Endpoint,
    trust: Trust,
    connect_timeout: Duration,
    answer_timeout: Duration,
}

impl Client {
    pub(crate) fn new(endpoint: Endpoint, trust: Trust) -> Self {
        Self { endpoint, trust, connect_timeout: CONNECT_TIMEOUT, answer_timeout: ANSWER_TIMEOUT }
    }

    pub(crate) fn with_answer_timeout(self, answer_timeout: Duration) -> Self {
        Self { answer_timeout, ..self }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The summary as of now.
    pub(super) fn fetch(&self) -> Result<Summary, FetchError> {
        let response = self.ask("GET", PATH, "")?;
        if response.code != 200 {
            return Err(FetchError::Status { code: response.code });
        }
        serde_json::from_slice(&response.body).map_err(FetchError::NotSummary)
    }

    /// The answer to a request without a body. `fields`: more of its head, each with its end of line.
    pub(crate) fn ask(&self, method: &str, path: &str, fields: &str) -> Result<Response, FetchError> {
        let socket = self.connect()?;
        let deadline = Instant::now() + self.answer_timeout;
        let authorization = match &self.trust.authorization {
            Some(value) => format!("Authorization: {value}\r\n"),
            None => String::new(),
        };
        let request = format!(
            "{method} {}{path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: observer-top/{}\r\nAccept: application/json\r\n\
             {authorization}{fields}Connection: close\r\n\r\n",
            self.endpoint.prefix,
            self.endpoint.authority(),
            env!("CARGO_PKG_VERSION"),
        );
        socket.set_write_timeout(Some(self.answer_timeout)).map_err(FetchError::Io)?;
        // A handshake reads, too.
        socket.set_read_timeout(Some(self.answer_timeout)).map_err(FetchError::Io)?;
        let mut stream: Box<dyn Stream> = match self.endpoint.tls {
            false => Box::new(socket.try_clone().map_err(FetchError::Io)?),
            true => {
                let stream = socket.try_clone().and_then(|socket| self.trust.wrap(&self.endpoint.host, socket));
                Box::new(stream.map_err(FetchError::Io)?)
            }
        };
        stream.write_all(request.as_bytes()).map_err(|error| self.failed(error))?;

        let mut received = Vec::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            // The timeout of one read is what is left of the whole: a trickle does not prolong it.
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(FetchError::Slow(self.answer_timeout));
            }
            socket.set_read_timeout(Some(left)).map_err(FetchError::Io)?;
            let count = match stream.read(&mut piece) {
                Ok(count) => count,
                // TLS that ended without saying so: what came must be whole by its own account.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(error)),
            };
            received.extend_from_slice(&piece[..count]);
            if let Some(response) = parse(&received, count == 0)? {
                return Ok(response);
            }
            if count == 0 {
                return Err(FetchError::CutOff(received.len()));
            }
            if received.len() > LONGEST_ANSWER {
                return Err(FetchError::TooLong(LONGEST_ANSWER));
            }
        }
    }

    /// The first of the host's addresses that accepts: `localhost` is often two, of which one is served.
    fn connect(&self) -> Result<TcpStream, FetchError> {
        let addresses = (self.endpoint.host.as_str(), self.endpoint.port).to_socket_addrs().map_err(FetchError::Io)?;
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, self.connect_timeout) {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(FetchError::Io(failure))
    }

    fn failed(&self, error: io::Error) -> FetchError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => FetchError::Slow(self.answer_timeout),
            _ => FetchError::Io(error),
        }
    }
}

/// What is written to and read from.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A whole response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// Status.
    pub(crate) code: u16,
    /// Without its transfer coding.
    pub(crate) body: Vec<u8>,
}

/// What the bytes received so far hold: a whole response, not yet one (`None`), or something else. `ended`: no more
/// will come.
pub(super) fn parse(bytes: &[u8], ended: bool) -> Result<Option<Response>, FetchError> {
    /// The first byte of what a TLS server says to who speaks HTTP to it.
    const TLS_ALERT: u8 = 0x15;
    const START: &[u8] = b"HTTP/1.";
    if bytes.first() == Some(&TLS_ALERT) {
        return Err(FetchError::NotHttp("it speaks TLS: the URL begins with https://"));
    }
    if !bytes.starts_with(&START[..START.len().min(bytes.len())]) {
        return Err(FetchError::NotHttp("it does not begin with a status line"));
    }
    let Some(head_length) = find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = str::from_utf8(&bytes[..head_length]).map_err(|_| FetchError::NotHttp("its head is not text"))?;
    let rest = &bytes[head_length + 4..];
    let mut lines = head.split("\r\n");
    let code: u16 = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or(FetchError::NotHttp("its status line has no status"))?;
    if (100..200).contains(&code) {
        return parse(rest, ended);
    }

    let mut chunked = false;
    let mut length = None;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(FetchError::NotHttp("a header has no colon"))?;
        if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.trim().eq_ignore_ascii_case("chunked");
            if !chunked {
                return Err(FetchError::NotHttp("its transfer encoding was not asked for"));
            }
        } else if name.eq_ignore_ascii_case("content-length") {
            let value: usize =
                value.trim().parse().map_err(|_| FetchError::NotHttp("its content length is no number"))?;
            length = Some(value);
        }
    }
    let body = match length {
        _ if chunked => unchunk(rest)?,
        Some(length) if length > LONGEST_ANSWER => return Err(FetchError::TooLong(LONGEST_ANSWER)),
        Some(length) => rest.get(..length).map(<[u8]>::to_vec),
        None => ended.then(|| rest.to_vec()),
    };
    Ok(body.map(|body| Response { code, body }))
}

/// The chunks of `bytes` joined; `None`: the last one is not there yet.
fn unchunk(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, FetchError> {
    let mut body = Vec::new();
    loop {
        let Some(end) = find(bytes, b"\r\n") else {
            return Ok(None);
        };
        let size = str::from_utf8(&bytes[..end])
            .ok()
            .and_then(|line| line.split(';').next())
            .and_then(|size| usize::from_str_radix(size.trim(), 16).ok())
            .ok_or(FetchError::NotHttp("the size of a chunk is no number"))?;
        if size > LONGEST_ANSWER {
            return Err(FetchError::TooLong(LONGEST_ANSWER));
        }
        if size == 0 {
            // The size's own line end, then trailers (which say nothing to us), then an empty line.
            return Ok(find(&bytes[end..], b"\r\n\r\n").map(|_| body));
        }
        let Some(chunk) = bytes.get(end + 2..end + 2 + size + 2) else {
            return Ok(None);
        };
        let Some(data) = chunk.strip_suffix(b"\r\n") else {
            return Err(FetchError::NotHttp("a chunk is longer than its size"));
        };
        body.extend_from_slice(data);
        bytes = &bytes[end + 2 + chunk.len()..];
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
