//! One direction of a connection: calls put in order, as `connection::stream` does, and a parser over where they lie.

use std::{collections::VecDeque, ops::Range, time::Duration};

use super::{
    Window,
    head::{Chunks, Head},
    json::Json,
};
use crate::{
    connection::stream::Chunk,
    event::Direction,
    protocol::{
        http1::{Frame, Parser},
        http1_head::{Kind, Method},
    },
    time::KernelTime,
};

/// As the tracker's.
const HOLD: Duration = Duration::from_millis(5);

/// One call, and where its captured bytes lie.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) block: u64,
    pub(super) direction: Direction,
    pub(super) time: KernelTime,
    pub(super) sequence: u32,
    pub(super) length: u32,
    pub(super) errno: i32,
    pub(super) head: Range<usize>,
    pub(super) tail: Range<usize>,
    /// Bytes dealt with.
    pub(super) done: u32,
    /// No call was seen for them at all.
    pub(super) lost: bool,
    /// Some of them could not be placed.
    pub(super) unplaced: bool,
}

impl Call {
    /// What a source claims beyond the call's length does not exist.
    pub(super) fn clip(mut self) -> Self {
        let length = self.length as usize;
        self.head.end = self.head.end.min(self.head.start + length);
        let room = length - self.head.len();
        self.tail.start = self.tail.start.max(self.tail.end.saturating_sub(room));
        self
    }

    pub(super) fn position(&self) -> u32 {
        self.sequence.wrapping_add(self.done)
    }

    pub(super) fn left(&self) -> u32 {
        self.length - self.done
    }

    pub(super) fn advance(&mut self, length: u64) {
        self.done += u32::try_from(length).unwrap_or(u32::MAX).min(self.left());
    }

    /// The uniform piece that is next: where it lies, or so many bytes that were not captured.
    pub(super) fn front(&self) -> Result<Range<usize>, u64> {
        let (done, head) = (self.done as usize, self.head.len());
        let tail_begins = self.length as usize - self.tail.len();
        if done < head {
            Ok(self.head.start + done..self.head.end)
        } else if done < tail_begins {
            Err((tail_begins - done) as u64)
        } else {
            Ok(self.tail.start + (done - tail_begins)..self.tail.end)
        }
    }
}

/// What the content of the current message is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    Text,
    Json,
    Events,
    Lines,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Half<K> {
    pub(super) parser: Parser<K>,
    pub(super) head: Head,
    pub(super) chunks: Chunks,
    pub(super) body: Body,
    pub(super) json: Json,
    /// Where messages begin is not known: until a call that begins with one.
    pub(super) lost: bool,
    pub(super) next: Option<u32>,
    pub(super) held: VecDeque<Call>,
    pub(super) clock: KernelTime,
}

pub(super) fn distance(to: u32, from: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

impl<K: Kind> Half<K> {
    pub(super) fn new(head: Head, next: Option<u32>, lost: bool) -> Self {
        Self {
            parser: Parser::default(),
            head,
            chunks: Chunks::default(),
            body: Body::Text,
            json: Json::default(),
            lost,
            next: next.filter(|_| !lost),
            held: VecDeque::new(),
            clock: KernelTime::default(),
        }
    }

    pub(super) fn accept(&mut self, call: Call, starts: bool) -> Option<Call> {
        if self.next.is_none() && starts && self.held.is_empty() {
            self.next = Some(call.position());
        }
        let is_next = |call: &Call| self.next.is_some_and(|next| distance(call.position(), next) <= 0);
        if is_next(&call) && !self.held.front().is_some_and(is_next) {
            return self.trim(call);
        }
        let base = self.next.unwrap_or_else(|| call.position());
        let key = |call: &Call| (distance(call.position(), base), call.time);
        let index = self.held.partition_point(|held| key(held) <= key(&call));
        self.held.insert(index, call);
        None
    }

    /// Cuts off what was there before; `None`: that is all of it.
    fn trim(&mut self, mut call: Call) -> Option<Call> {
        let empty = call.left() == 0;
        if let Some(next) = self.next {
            call.advance(u64::try_from(distance(next, call.position())).unwrap_or(0));
        }
        call.time = call.time.max(self.clock);
        (empty || call.left() > 0).then_some(call)
    }

    pub(super) fn pop(&mut self) -> Option<Call> {
        loop {
            let front = self.held.front()?;
            if distance(front.position(), self.next?) > 0 {
                return None;
            }
            let call = self.held.pop_front()?;
            if let Some(call) = self.trim(call) {
                return Some(call);
            }
        }
    }

    pub(super) fn delivered(&mut self, call: &Call) {
        self.next = Some(call.position());
        self.clock = self.clock.max(call.time);
    }

    /// The gap before the first held call, if there is one.
    pub(super) fn gap(&mut self) -> Option<Call> {
        let front = self.held.front()?;
        let next = *self.next.get_or_insert(front.position());
        let length = u32::try_from(distance(front.position(), next)).ok().filter(|length| *length > 0)?;
        let time = front.time.max(self.clock);
        let none = Call { errno: 0, head: 0..0, tail: 0..0, unplaced: false, ..front.clone() };
        Some(Call { sequence: next, length, done: 0, time, lost: true, ..none })
    }

    pub(super) fn is_overdue(&self, now: KernelTime) -> bool {
        self.held.iter().any(|held| held.time + HOLD <= now)
    }

    /// One step of the parser over the front of a call. What is not body is dealt with.
    pub(super) fn step<'w>(
        &mut self,
        call: &mut Call,
        window: &'w mut Window,
        answers: Method,
    ) -> (Option<Frame<'w, K::Head>>, &'w mut [u8]) {
        let in_head = self.parser.in_head();
        let (mut chunk, out) = match call.front() {
            Ok(range) => {
                let (raw, out) = window.part(call.block, range);
                (Chunk::Data(raw), out)
            }
            Err(gap) => (Chunk::Gap(gap), &mut [][..]),
        };
        let whole = chunk;
        let frame = self.parser.step(&mut chunk, answers);
        let used = whole.len() - chunk.len();
        call.advance(used);
        let (Chunk::Data(raw), Ok(used)) = (whole, usize::try_from(used)) else { return (frame, out) };
        let (raw, out) = (raw.get(..used).unwrap_or_default(), out.get_mut(..used).unwrap_or_default());
        if in_head {
            self.head.feed(raw, out);
            return (frame, out);
        }
        match &frame {
            Some(Frame::Lost(_)) => (frame, out),
            Some(Frame::Body(Chunk::Data(body))) => {
                let framing = used - body.len();
                let (before, out) = out.split_at_mut(framing);
                self.chunks.feed(&raw[..framing], before);
                (frame, out)
            }
            _ => {
                self.chunks.feed(raw, out);
                (frame, out)
            }
        }
    }

    pub(super) fn begin(&mut self) {
        self.head.reset();
        self.chunks = Chunks::default();
    }
}
