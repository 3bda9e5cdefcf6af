//! An HTTP/1.1 response, read piece by piece.

use anyhow::{Context as _, Result, bail};

/// Longest response head.
const HEAD_MAX: usize = 64 << 10;

/// How the body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// After this many bytes.
    Length(u64),
    /// With an empty chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Head,
    /// In a body of known length, or one that ends with the connection.
    Body {
        left: u64,
    },
    /// In a chunk's size line.
    Size,
    Chunk {
        left: u64,
    },
    /// In the line end after a chunk.
    ChunkEnd,
    /// In the lines after the last chunk.
    Trailer,
    Complete,
}

/// One response.
#[derive(Debug, Default)]
pub(super) struct Response {
    state: State,
    /// The head, or a line of the chunked framing, as far as it came.
    line: Vec<u8>,
    status: Option<u16>,
    framing: Option<Framing>,
    stream: bool,
    close: bool,
    begun: bool,
}

impl Response {
    /// A byte has come.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    /// Its status, once the head is complete.
    pub(super) fn status(&self) -> Option<u16> {
        self.status
    }

    /// How its body ends, once the head is complete.
    pub(super) fn framing(&self) -> Option<Framing> {
        self.framing
    }

    /// The body is a stream of events.
    pub(super) fn is_stream(&self) -> bool {
        self.stream
    }

    /// The connection can carry another request.
    pub(super) fn keeps_alive(&self) -> bool {
        !self.close && self.state == State::Complete && self.framing != Some(Framing::UntilClose)
    }

    /// Takes the next bytes; `body` gets each piece of the body, and whether it is a stream of events. True: the
    /// response is complete.
    ///
    /// # Errors
    /// This is no HTTP/1.1 response, or bytes follow its end.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut body: impl FnMut(&[u8], bool)) -> Result<bool> {
        self.begun |= !bytes.is_empty();
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Head => self.head(bytes)?,
                State::Body { left } => {
                    let (piece, rest) = bytes.split_at(bytes.len().min(usize::try_from(left)?));
                    body(piece, self.stream);
                    let left = left - piece.len() as u64;
                    self.state = if left == 0 { State::Complete } else { State::Body { left } };
                    rest
                }
                State::Chunk { left } => {
                    let (piece, rest) = bytes.split_at(bytes.len().min(usize::try_from(left)?));
                    body(piece, self.stream);
                    let left = left - piece.len() as u64;
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk { left } };
                    rest
                }
                State::Size | State::ChunkEnd | State::Trailer => self.framing_line(bytes)?,
                State::Complete => bail!("{} bytes after the end of the response", bytes.len()),
            };
        }
        Ok(self.state == State::Complete)
    }

    fn head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        // The end may straddle two pieces.
        let seen = self.line.len();
        self.line.extend_from_slice(bytes);
        let from = seen.saturating_sub(3);
        let Some(at) = self.line[from..].windows(4).position(|window| window == b"\r\n\r\n") else {
            if self.line.len() > HEAD_MAX {
                bail!("the head is longer than {HEAD_MAX} bytes");
            }
            return Ok(&[]);
        };
        let end = from + at + 4;
        let rest = &bytes[end - seen..];
        self.line.truncate(end);
        let head = std::mem::take(&mut self.line);
        self.read_head(std::str::from_utf8(&head).context("the head is not text")?)?;
        Ok(rest)
    }

    fn read_head(&mut self, head: &str) -> Result<()> {
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default();
        let status = start
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| start.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse::<u16>().ok())
            .with_context(|| format!("not a status line: {start:?}"))?;
        if (100..200).contains(&status) {
            return Ok(());
        }
        self.close = start.starts_with("HTTP/1.0 ");
        let mut framing = Framing::UntilClose;
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').with_context(|| format!("not a header: {line:?}"))?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") && framing != Framing::Chunked {
                framing = Framing::Length(value.parse().with_context(|| format!("content-length {value:?}"))?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
                framing = Framing::Chunked;
            } else if name.eq_ignore_ascii_case("content-type") {
                let kind = value.to_ascii_lowercase();
                self.stream = kind.starts_with("text/event-stream") || kind.starts_with("application/x-ndjson");
            } else if name.eq_ignore_ascii_case("connection") {
                self.close |= value.eq_ignore_ascii_case("close");
            }
        }
        if matches!(status, 204 | 304) {
            framing = Framing::Length(0);
        }
        self.status = Some(status);
        self.framing = Some(framing);
        self.state = match framing {
            Framing::Length(0) => State::Complete,
            Framing::Length(left) => State::Body { left },
            Framing::UntilClose => State::Body { left: u64::MAX },
            Framing::Chunked => State::Size,
        };
        Ok(())
    }

    /// One line of the chunked framing, as far as it is there.
    fn framing_line<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let Some(at) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.line.extend_from_slice(bytes);
            if self.line.len() > HEAD_MAX {
                bail!("a framing line is longer than {HEAD_MAX} bytes");
            }
            return Ok(&[]);
        };
        let (piece, rest) = bytes.split_at(at + 1);
        self.line.extend_from_slice(piece);
        let line = std::str::from_utf8(&self.line).context("a framing line is not text")?.trim_end();
        self.state = match self.state {
            State::Size => {
                let digits = line.split(';').next().unwrap_or_default().trim();
                match u64::from_str_radix(digits, 16).with_context(|| format!("not a chunk size: {line:?}"))? {
                    0 => State::Trailer,
                    left => State::Chunk { left },
                }
            }
            State::ChunkEnd if line.is_empty() => State::Size,
            State::Trailer if line.is_empty() => State::Complete,
            State::Trailer => State::Trailer,
            _ => bail!("a chunk is longer than its size says"),
        };
        self.line.clear();
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `wire` in pieces of `step` bytes; returns the body, and after how many bytes the response was complete.
    fn feed(wire: &[u8], step: usize) -> (Response, Vec<u8>, Option<usize>) {
        let mut response = Response::default();
        let (mut body, mut fed) = (Vec::new(), 0);
        for piece in wire.chunks(step) {
            fed += piece.len();
            if response.push(piece, |bytes, _| body.extend_from_slice(bytes)).unwrap() {
                return (response, body, Some(fed));
            }
        }
        (response, body, None)
    }

    #[test]
    fn any_cut_of_a_chunked_response_gives_the_same_body() {
        let wire =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\
            Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n10;ext=1\r\n, chunked world!\r\n0\r\nx: y\r\n\r\n";
        for step in 1..=wire.len() {
            let (response, body, end) = feed(wire, step);
            assert_eq!(body, b"hello, chunked world!", "step {step}");
            assert_eq!(end, Some(wire.len()), "step {step}");
            assert!(response.is_stream() && response.keeps_alive(), "step {step}");
        }
    }

    #[test]
    fn a_length_ends_the_body() {
        let (response, body, end) = feed(b"HTTP/1.1 503 No\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno", 3);
        assert_eq!((response.status(), body.as_slice(), end.is_some()), (Some(503), b"no".as_slice(), true));
        assert!(!response.keeps_alive());
    }

    #[test]
    fn nothing_but_the_terminator_completes() {
        let wire = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        assert_eq!(feed(&wire[..wire.len() - 2], 7).2, None);
    }

    #[test]
    fn what_is_no_response_is_refused() {
        let mut response = Response::default();
        assert!(response.push(b"SSH-2.0\r\n\r\n", |_, _| ()).is_err());
        let mut response = Response::default();
        assert!(response.push(b"HTTP/1.1 204 No Content\r\n\r\nextra", |_, _| ()).is_err());
    }
}
