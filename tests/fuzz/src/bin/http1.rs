//! HTTP/1 messages of one direction, chunked bodies and all. Input: one byte that chooses the direction and the method
//! that responses answer, then a stream as in `observer_fuzz::stream`.

#![cfg_attr(fuzzing, no_main)]

use observer::{
    connection::stream::Chunk,
    protocol::{
        http1::{Frame, HEAD_MAX, Parser},
        http1_head::{Kind, Method, Request, Response},
    },
};
use observer_fuzz::stream;

/// What a stream was read as: all frames up to a loss, pieces of a body joined.
#[derive(PartialEq, Debug)]
enum Seen {
    Begin(u64),
    Head(String),
    Body(Vec<u8>, u64),
    End(u64),
    Lost(String),
}

/// However the bytes are cut, the parser finds the same messages; it consumes all it is given, in no more steps than
/// there are bytes; a message's size is the distance of its ends; what it keeps of a head is bounded.
pub(crate) fn target(data: &[u8]) {
    let Some((choice, input)) = data.split_first() else { return };
    let chunks = stream::decode(input);
    match choice % 5 {
        0 => all::<Request>(&chunks, Method::Other),
        1 => all::<Response>(&chunks, Method::Other),
        2 => all::<Response>(&chunks, Method::Post),
        3 => all::<Response>(&chunks, Method::Head),
        _ => all::<Response>(&chunks, Method::Connect),
    }
}

fn all<K: Kind<Head: std::fmt::Debug>>(chunks: &[Chunk<'_>], answers: Method) {
    let whole = parse::<K>(chunks, answers);
    for seed in [0, 1, 0xfeed] {
        let cut = stream::cut(chunks, seed);
        assert_eq!(parse::<K>(&cut, answers), whole, "cut as {cut:?}");
    }
}

fn parse<K: Kind<Head: std::fmt::Debug>>(chunks: &[Chunk<'_>], answers: Method) -> Vec<Seen> {
    let mut parser = Parser::<K>::default();
    let (mut seen, mut position, mut begun) = (Vec::new(), 0_u64, 0);
    for chunk in chunks {
        let (mut rest, mut steps) = (*chunk, 0);
        loop {
            let before = rest.len();
            let frame = parser.step(&mut rest, answers);
            position = position.saturating_add(before - rest.len());
            assert!(parser.head_bytes().len() <= HEAD_MAX);
            steps += 1;
            // At most a beginning, a head, a body and an end for each byte.
            assert!(steps <= 4 * (chunk.len().min(1 << 20) + 1), "no end of frames");
            match frame {
                None => break,
                Some(Frame::Begin) => {
                    begun = position;
                    seen.push(Seen::Begin(position));
                }
                Some(Frame::Head(head)) => seen.push(Seen::Head(format!("{head:?}"))),
                Some(Frame::Body(body)) => add(&mut seen, body),
                Some(Frame::End) => {
                    assert!(parser.at_boundary());
                    assert_eq!(parser.message_bytes(), position - begun, "size of a message");
                    seen.push(Seen::End(position));
                }
                Some(Frame::Lost(loss)) => {
                    assert!(parser.at_boundary() && rest.is_empty());
                    seen.push(Seen::Lost(format!("{loss:?}")));
                    return seen;
                }
            }
        }
        assert!(rest.is_empty(), "more was asked for than there is, but not all was taken");
    }
    seen
}

/// Bytes, and how many of them were not captured.
fn add(seen: &mut Vec<Seen>, body: Chunk<'_>) {
    assert!(!body.is_empty() || matches!(body, Chunk::Data(_)));
    if !matches!(seen.last(), Some(Seen::Body(..))) {
        seen.push(Seen::Body(Vec::new(), 0));
    }
    if let Some(Seen::Body(bytes, gaps)) = seen.last_mut() {
        match body {
            Chunk::Data(data) => bytes.extend_from_slice(data),
            Chunk::Gap(length) => *gaps = gaps.saturating_add(length),
        }
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| target(data));
