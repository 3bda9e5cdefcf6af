//! HTTP/1.x messages of one direction of a connection (RFC 9112): heads, bodies, ends, one after another.

use std::sync::Arc;

use super::{
    Loss, chunked,
    http1_head::{Framing, Kind, Method, Parsed, Request, Response},
};
use crate::connection::stream::Chunk;

/// Most bytes of a head.
pub const HEAD_MAX: usize = 64 << 10;
/// A larger head's buffer is not kept for the next one.
const HEAD_KEEP: usize = 2 << 10;

/// What the parser found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame<'a, H> {
    /// The next byte of the input is the first of a message. Interim responses (1xx) begin too, but nothing else of
    /// them is seen.
    Begin,
    /// The head is complete.
    Head(H),
    /// Content, without its transfer coding.
    Body(Chunk<'a>),
    /// The last byte of the message was consumed.
    End,
    /// The parser is lost and knows nothing of the message any more: the next byte given to it must begin a message.
    Lost(Loss),
}

#[derive(Clone, Copy, Debug)]
enum State {
    Boundary,
    /// `blank`: nothing but CR on this line so far.
    Head {
        blank: bool,
    },
    Length(u64),
    Chunked(chunked::Decoder),
    UntilClose,
    /// Not HTTP any more.
    Tunnel,
}

/// Parser of the messages of one direction.
#[derive(Debug)]
pub struct Parser<K> {
    state: State,
    head: Vec<u8>,
    bytes: u64,
    wanted: Option<Arc<[Box<str>]>>,
    kind: std::marker::PhantomData<K>,
}

/// Parser of requests.
pub type RequestParser = Parser<Request>;
/// Parser of responses.
pub type ResponseParser = Parser<Response>;

impl<K> Default for Parser<K> {
    fn default() -> Self {
        Self { state: State::Boundary, head: Vec::new(), bytes: 0, wanted: None, kind: std::marker::PhantomData }
    }
}

impl<K: Kind> Parser<K> {
    /// A parser that keeps the values of these headers of requests, too.
    #[must_use]
    pub fn wanting(wanted: Option<Arc<[Box<str>]>>) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// Whether the next byte begins a message.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        matches!(self.state, State::Boundary)
    }

    /// Whether a message has begun and its head is not complete.
    #[must_use]
    pub fn in_head(&self) -> bool {
        matches!(self.state, State::Head { .. })
    }

    /// Whether the connection's end ends the message.
    #[must_use]
    pub fn is_until_close(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }

    /// Bytes of the current message so far, or of the last one: head and body as on the wire.
    #[must_use]
    pub fn message_bytes(&self) -> u64 {
        self.bytes
    }

    /// The bytes of the current head so far. After a loss within a head: what was read of it.
    #[must_use]
    pub fn head_bytes(&self) -> &[u8] {
        &self.head
    }

    /// Consumes from `input` up to the next frame; `None`: all was consumed, more is needed. `answers` is the method
    /// of the request that a response answers.
    pub fn step<'a>(&mut self, input: &mut Chunk<'a>, answers: Method) -> Option<Frame<'a, K::Head>> {
        loop {
            match self.state {
                State::Boundary => {
                    match input {
                        Chunk::Gap(0) => return None,
                        Chunk::Gap(_) => {
                            self.head.clear();
                            self.bytes = 0;
                            return Some(self.lose(input, Loss::HeadGap));
                        }
                        // Blank lines before a message are tolerated, as servers do.
                        Chunk::Data(bytes) => {
                            let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                            *bytes = &bytes[blank..];
                            if bytes.is_empty() {
                                return None;
                            }
                        }
                    }
                    self.bytes = 0;
                    self.head.clear();
                    self.state = State::Head { blank: false };
                    return Some(Frame::Begin);
                }
                State::Head { blank } => {
                    let before = input.len();
                    let step = self.head_step(input, blank, answers);
                    self.bytes += before - input.len();
                    if let Some(frame) = step {
                        return Some(frame);
                    }
                    if matches!(self.state, State::Head { .. }) {
                        return None;
                    }
                }
                State::Length(0) => {
                    self.state = State::Boundary;
                    return Some(Frame::End);
                }
                State::Length(rest) => {
                    let data = self.count(input, rest)?;
                    self.state = State::Length(rest - data.len());
                    return Some(Frame::Body(data));
                }
                State::Chunked(ref mut decoder) => {
                    let before = input.len();
                    let step = decoder.step(input);
                    self.bytes += before - input.len();
                    return match step? {
                        chunked::Frame::Data(data) => Some(Frame::Body(data)),
                        chunked::Frame::End => {
                            self.state = State::Boundary;
                            Some(Frame::End)
                        }
                        chunked::Frame::Lost(loss) => Some(self.lose(input, loss)),
                    };
                }
                State::UntilClose => return self.count(input, u64::MAX).map(Frame::Body),
                State::Tunnel => {
                    self.count(input, u64::MAX);
                    return None;
                }
            }
        }
    }

    /// The sender closed its direction: whether that ends the message.
    pub fn close(&mut self) -> bool {
        let ends = self.is_until_close();
        if ends {
            self.state = State::Boundary;
        }
        ends
    }

    /// Forgets the message: the next byte begins one.
    pub fn reset(&mut self) {
        *self = Self { head: std::mem::take(&mut self.head), wanted: self.wanted.take(), ..Self::default() };
        self.head.clear();
    }

    fn count<'a>(&mut self, input: &mut Chunk<'a>, limit: u64) -> Option<Chunk<'a>> {
        let data = input.split_to(limit);
        self.bytes += data.len();
        (!data.is_empty()).then_some(data)
    }

    fn lose<'a>(&mut self, input: &mut Chunk<'_>, loss: Loss) -> Frame<'a, K::Head> {
        let _rest = input.split_to(u64::MAX);
        self.state = State::Boundary;
        Frame::Lost(loss)
    }

    fn head_step<'a>(&mut self, input: &mut Chunk<'_>, mut blank: bool, answers: Method) -> Option<Frame<'a, K::Head>> {
        let bytes: &[u8] = match input {
            Chunk::Gap(0) => return None,
            Chunk::Gap(_) => return Some(self.lose(input, Loss::HeadGap)),
            Chunk::Data(bytes) => bytes,
        };
        let end = bytes.iter().position(|byte| match byte {
            b'\n' if blank => true,
            b'\n' => {
                blank = true;
                false
            }
            b'\r' => false,
            _ => {
                blank = false;
                false
            }
        });
        let length = end.map_or(bytes.len(), |end| end + 1);
        let room = HEAD_MAX - self.head.len();
        let unchecked = self.head.len() < K::PREFIX;
        self.head.extend_from_slice(&bytes[..length.min(room)]);
        if length > room || (unchecked && !K::is_plausible(&self.head)) {
            return Some(self.lose(input, Loss::Unparsable));
        }
        let _consumed = input.split_to(length as u64);
        if end.is_none() {
            self.state = State::Head { blank };
            return None;
        }
        let Some(Parsed { head, framing }) = K::parse(&self.head, answers, self.wanted.as_deref().unwrap_or_default())
        else {
            return Some(self.lose(input, Loss::Unparsable));
        };
        if self.head.capacity() > HEAD_KEEP {
            self.head = Vec::new();
        }
        self.head.clear();
        self.state = match framing {
            Framing::Interim => {
                self.state = State::Boundary;
                return None;
            }
            Framing::None => State::Length(0),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(chunked::Decoder::default()),
            Framing::UntilClose => State::UntilClose,
            Framing::Tunnel => State::Tunnel,
        };
        Some(Frame::Head(head))
    }
}

#[cfg(test)]
#[path = "http1_tests.rs"]
mod tests;
