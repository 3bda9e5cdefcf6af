//! The chunked transfer coding (RFC 9112, 7.1), with extensions and trailers; a bare LF ends a line too.

use super::Loss;
use crate::connection::stream::Chunk;

/// Most bytes of a size line, and of all trailers.
const LINE_MAX: u32 = 64 << 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// In a size line, before any extension.
    Size {
        size: u64,
        digits: u8,
    },
    /// In the rest of a size line.
    SizeRest {
        size: u64,
        read: u32,
    },
    Data {
        rest: u64,
    },
    /// Between the data and its line end.
    DataEnd {
        cr: bool,
    },
    /// In the trailers; `blank`: nothing but CR on this line so far.
    Trailer {
        blank: bool,
        read: u32,
    },
    Done,
}

/// What the decoder found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// Content.
    Data(Chunk<'a>),
    /// The last byte of the body, trailers and all, was consumed.
    End,
    /// The decoder is lost.
    Lost(Loss),
}

/// Decoder of one body.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    state: State,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Size { size: 0, digits: 0 } }
    }
}

impl Decoder {
    /// Consumes from `input` up to the next frame; `None`: all was consumed, more is needed.
    pub fn step<'a>(&mut self, input: &mut Chunk<'a>) -> Option<Frame<'a>> {
        while !input.is_empty() {
            if let State::Data { rest } = self.state {
                // A gap that reaches beyond this chunk and its line end hides the next size.
                if matches!(input, Chunk::Gap(length) if *length > rest.saturating_add(2)) {
                    return Some(lose(input, Loss::FramingGap));
                }
                let data = input.split_to(rest);
                let rest = rest - data.len();
                self.state = if rest == 0 { State::DataEnd { cr: false } } else { State::Data { rest } };
                return Some(Frame::Data(data));
            }
            let byte = match input {
                Chunk::Gap(length) => match (self.state, *length) {
                    (State::DataEnd { cr: false }, 1) => b'\r',
                    (State::DataEnd { cr: false }, 2) | (State::DataEnd { cr: true }, 1) => {
                        *input = Chunk::Gap(1);
                        b'\n'
                    }
                    _ => return Some(lose(input, Loss::FramingGap)),
                },
                Chunk::Data(bytes) => bytes[0],
            };
            let Some(next) = self.next(byte) else { return Some(lose(input, Loss::Unparsable)) };
            let _consumed = input.split_to(1);
            self.state = next;
            if next == State::Done {
                return Some(Frame::End);
            }
        }
        None
    }

    fn next(&self, byte: u8) -> Option<State> {
        Some(match (self.state, byte) {
            (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 16 => {
                let digit = char::from(byte).to_digit(16)?;
                State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { size, digits: 1.. }, b'\n') => after_size(size),
            (State::Size { size, digits: 1.. }, b'\r' | b' ' | b'\t' | b';') => State::SizeRest { size, read: 0 },
            (State::SizeRest { size, .. }, b'\n') => after_size(size),
            (State::SizeRest { size, read }, _) if read < LINE_MAX => State::SizeRest { size, read: read + 1 },
            (State::DataEnd { cr: false }, b'\r') => State::DataEnd { cr: true },
            (State::DataEnd { .. }, b'\n') => State::Size { size: 0, digits: 0 },
            (State::Trailer { blank: true, .. }, b'\n') => State::Done,
            (State::Trailer { read, .. }, b'\n') => State::Trailer { blank: true, read: read + 1 },
            (State::Trailer { blank, read }, b'\r') if read < LINE_MAX => State::Trailer { blank, read: read + 1 },
            (State::Trailer { read, .. }, _) if read < LINE_MAX => State::Trailer { blank: false, read: read + 1 },
            _ => return None,
        })
    }
}

fn after_size(size: u64) -> State {
    if size == 0 { State::Trailer { blank: true, read: 0 } } else { State::Data { rest: size } }
}

fn lose<'a>(input: &mut Chunk<'a>, loss: Loss) -> Frame<'a> {
    let _rest = input.split_to(u64::MAX);
    Frame::Lost(loss)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Content (gaps as `?`) and how it ended.
    fn decode(chunks: &[Chunk<'_>]) -> (Vec<u8>, Option<Result<(), Loss>>) {
        let (mut decoder, mut content) = (Decoder::default(), Vec::new());
        for chunk in chunks {
            let mut chunk = *chunk;
            while let Some(frame) = decoder.step(&mut chunk) {
                match frame {
                    Frame::Data(Chunk::Data(bytes)) => content.extend_from_slice(bytes),
                    Frame::Data(Chunk::Gap(n)) => content.extend(std::iter::repeat_n(b'?', n as usize)),
                    Frame::End => return (content, Some(Ok(()))),
                    Frame::Lost(loss) => return (content, Some(Err(loss))),
                }
            }
        }
        (content, None)
    }

    const BODY: &[u8] = b"5;name=\"v\"\r\nhello\r\n1\n \nA \r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";

    #[test]
    fn extensions_trailers_and_bare_lf() {
        assert_eq!(decode(&[Chunk::Data(BODY)]), (b"hello 0123456789".to_vec(), Some(Ok(()))));
        assert_eq!(decode(&[Chunk::Data(&BODY[..BODY.len() - 1])]).1, None);
    }

    #[test]
    fn a_gap_inside_a_chunk_is_arithmetic() {
        let chunks = [Chunk::Data(b"a\r\nab"), Chunk::Gap(6), Chunk::Data(b"ij\r\n0\r\n\r\n")];
        assert_eq!(decode(&chunks), (b"ab??????ij".to_vec(), Some(Ok(()))));
        let with_line_end = [Chunk::Data(b"a\r\nab"), Chunk::Gap(10), Chunk::Data(b"0\r\n\r\n")];
        assert_eq!(decode(&with_line_end), (b"ab????????".to_vec(), Some(Ok(()))));
        let with_half_of_it = [Chunk::Data(b"a\r\nab"), Chunk::Gap(9), Chunk::Data(b"\n0\r\n\r\n")];
        assert_eq!(decode(&with_half_of_it), (b"ab????????".to_vec(), Some(Ok(()))));
    }

    #[test]
    fn a_gap_over_a_boundary_is_a_loss() {
        for chunks in [
            [Chunk::Data(b"a\r\nab".as_slice()), Chunk::Gap(11)],
            [Chunk::Data(b"a"), Chunk::Gap(1)],
            [Chunk::Data(b"1\r\na\r\n0\r\n"), Chunk::Gap(2)],
        ] {
            assert_eq!(decode(&chunks).1, Some(Err(Loss::FramingGap)), "{chunks:?}");
        }
    }

    #[test]
    fn what_is_not_chunked_is_unparsable() {
        for body in [b"xyz\r\n".as_slice(), b"\r\n", b"1\r\nab", b"11111111111111111\r\n", b"-1\r\n"] {
            assert_eq!(decode(&[Chunk::Data(body)]).1, Some(Err(Loss::Unparsable)), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same(cuts in proptest::collection::vec(0..BODY.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.extend([0, BODY.len()]);
            cuts.sort_unstable();
            let chunks: Vec<_> = cuts.windows(2).map(|w| Chunk::Data(&BODY[w[0]..w[1]])).collect();
            prop_assert_eq!(decode(&chunks), decode(&[Chunk::Data(BODY)]));
        }
    }
}
