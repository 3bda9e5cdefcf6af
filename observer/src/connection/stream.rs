//! One direction of a connection as a byte stream: calls ordered by position, overlaps trimmed, gaps of exact size.

use std::{collections::VecDeque, time::Duration};

use crate::{event::Data, time::KernelTime};

/// Most calls held back per direction while an earlier one is missing.
pub const HELD_SEGMENTS: usize = 128;
/// Most captured bytes held back per direction.
pub const HELD_BYTES: usize = 256 << 10;

/// A piece of a byte stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chunk<'a> {
    /// Bytes as they were.
    Data(&'a [u8]),
    /// So many bytes that were not captured.
    Gap(u64),
}

impl<'a> Chunk<'a> {
    /// Bytes of the stream that it stands for.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Data(bytes) => bytes.len() as u64,
            Self::Gap(length) => *length,
        }
    }

    /// Whether nothing is left of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes and returns its first `length` bytes, or all of it.
    #[must_use]
    pub fn split_to(&mut self, length: u64) -> Self {
        match self {
            Self::Data(bytes) => {
                let (front, rest) = bytes.split_at(usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len()));
                *bytes = rest;
                Self::Data(front)
            }
            Self::Gap(rest) => {
                let front = length.min(*rest);
                *rest -= front;
                Self::Gap(front)
            }
        }
    }
}

/// One call's bytes, or what is left of them: captured head, hole, captured tail.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Position of its first byte, not wrapped.
    pub position: u64,
    /// When the call handed its bytes over.
    pub time: KernelTime,
    /// Bytes that had not left for the network then.
    pub unsent: u32,
    /// Positive errno of a failed call.
    pub errno: i32,
    /// The call moved fewer bytes than it was asked to.
    pub short: bool,
    /// Nothing of the call was consumed yet.
    pub begins_call: bool,
    /// No call was seen for these bytes at all.
    pub lost: bool,
    head: &'a [u8],
    hole: u64,
    tail: &'a [u8],
}

impl<'a> Segment<'a> {
    fn new(position: u64, data: &Data<'a>) -> Self {
        let length = data.length as usize;
        // What a source claims beyond the call's length does not exist.
        let head = data.head.get(..length).unwrap_or(data.head);
        let tail = &data.tail[data.tail.len().saturating_sub(length - head.len())..];
        Self {
            position,
            time: data.time,
            unsent: data.unsent,
            errno: data.errno,
            short: data.requested.is_some_and(|requested| data.length < requested),
            begins_call: true,
            lost: false,
            head,
            hole: (length - head.len() - tail.len()) as u64,
            tail,
        }
    }

    /// Bytes that no call was seen for.
    #[must_use]
    pub fn lost(position: u64, length: u64, time: KernelTime) -> Self {
        Self {
            position,
            time,
            unsent: 0,
            errno: 0,
            short: false,
            begins_call: false,
            lost: true,
            head: &[],
            hole: length,
            tail: &[],
        }
    }

    /// Bytes left.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.head.len() as u64 + self.hole + self.tail.len() as u64
    }

    /// Whether no bytes are left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes left that were not captured.
    #[must_use]
    pub fn hole(&self) -> u64 {
        self.hole
    }

    /// The uniform piece that it begins with; empty at its end.
    #[must_use]
    pub fn front(&self) -> Chunk<'a> {
        if !self.head.is_empty() {
            Chunk::Data(self.head)
        } else if self.hole > 0 {
            Chunk::Gap(self.hole)
        } else {
            Chunk::Data(self.tail)
        }
    }

    /// Drops the first `length` bytes, or all.
    pub fn advance(&mut self, length: u64) {
        let mut rest = length.min(self.len());
        self.position += rest;
        self.begins_call &= rest == 0;
        let cut = |bytes: &mut &'a [u8], rest: &mut u64| {
            let n = usize::try_from(*rest).unwrap_or(usize::MAX).min(bytes.len());
            *bytes = &bytes[n..];
            *rest -= n as u64;
        };
        cut(&mut self.head, &mut rest);
        let n = rest.min(self.hole);
        self.hole -= n;
        rest -= n;
        cut(&mut self.tail, &mut rest);
    }
}

/// A [`Segment`] that owns its bytes.
#[derive(Debug)]
pub struct Held {
    segment: Segment<'static>,
    bytes: Box<[u8]>,
    head: usize,
}

impl Held {
    fn new(segment: &Segment<'_>) -> Self {
        Self {
            segment: Segment { head: &[], tail: &[], ..*segment },
            bytes: [segment.head, segment.tail].concat().into_boxed_slice(),
            head: segment.head.len(),
        }
    }

    /// It, borrowed.
    #[must_use]
    pub fn segment(&self) -> Segment<'_> {
        let (head, tail) = self.bytes.split_at(self.head);
        Segment { head, tail, ..self.segment }
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub struct Stream {
    /// Something that positions were near to, for unwrapping.
    reference: Option<u64>,
    /// Position of the next byte to deliver.
    next: Option<u64>,
    held: VecDeque<Held>,
    held_bytes: usize,
    clock: KernelTime,
}

impl Stream {
    /// Sets the position of the first byte, where that is known before any call is.
    pub fn start_at(&mut self, sequence: u32) {
        self.next = Some(self.unwrap_position(sequence));
    }

    /// `sequence`, unwrapped next to what was seen before.
    pub fn unwrap_position(&mut self, sequence: u32) -> u64 {
        let Some(reference) = self.next.or(self.reference) else {
            // Far enough from zero for positions before the first one seen.
            let position = (1 << 32) + u64::from(sequence);
            self.reference = Some(position);
            return position;
        };
        let distance = i64::from(sequence.wrapping_sub(reference as u32).cast_signed());
        reference.saturating_add_signed(distance)
    }

    /// Position of the next byte to deliver; `None` until it is known.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.next
    }

    /// Latest time delivered: times of a stream never run backwards.
    #[must_use]
    pub fn clock(&self) -> KernelTime {
        self.clock
    }

    /// Takes a call. Returns it if it is next in order, else holds it back (or drops what was delivered before).
    /// `starts`: it may be the first of the stream, so that the position is known from it.
    pub fn accept<'a>(&mut self, data: &Data<'a>, starts: bool) -> Option<Segment<'a>> {
        let mut segment = Segment::new(self.unwrap_position(data.sequence), data);
        if self.next.is_none() && starts && self.held.is_empty() {
            self.next = Some(segment.position);
        }
        if self.next.is_some_and(|next| segment.position <= next)
            && self.held.front().is_none_or(|held| Some(held.segment.position) > self.next)
        {
            return self.trim(&mut segment).then_some(segment);
        }
        self.hold(&segment);
        None
    }

    /// Cuts off what was delivered before; false if nothing is left.
    fn trim(&mut self, segment: &mut Segment<'_>) -> bool {
        let empty = segment.is_empty();
        if let Some(next) = self.next {
            segment.advance(next.saturating_sub(segment.position));
        }
        segment.time = segment.time.max(self.clock);
        empty || !segment.is_empty()
    }

    fn hold(&mut self, segment: &Segment<'_>) {
        let key = |s: &Segment<'_>| (s.position, s.time);
        let index = self.held.partition_point(|held| key(&held.segment) <= key(segment));
        self.held_bytes += segment.head.len() + segment.tail.len();
        self.held.insert(index, Held::new(segment));
    }

    /// Records that bytes up to `segment`'s position were delivered, and holds back what is left of it.
    pub fn delivered(&mut self, segment: &Segment<'_>) {
        self.next = Some(segment.position);
        self.clock = self.clock.max(segment.time);
        if !segment.is_empty() {
            self.held_bytes += segment.head.len() + segment.tail.len();
            self.held.push_front(Held::new(segment));
        }
    }

    /// Takes the held call that is next in order. To be followed by [`Self::delivered`].
    pub fn pop(&mut self) -> Option<Held> {
        loop {
            let front = self.held.front()?;
            if self.next.is_none_or(|next| front.segment.position > next) {
                return None;
            }
            let mut held = self.held.pop_front()?;
            self.held_bytes -= held.bytes.len();
            let mut segment = held.segment();
            if self.trim(&mut segment) {
                if segment.position != held.segment.position {
                    held = Held::new(&segment);
                }
                held.segment.time = held.segment.time.max(self.clock);
                return Some(held);
            }
        }
    }

    /// The time of the held call with bytes that [`Self::pop`] would return.
    #[must_use]
    pub fn ready(&self) -> Option<KernelTime> {
        let next = self.next?;
        // What was delivered before is passed over.
        let news = |segment: &Segment<'_>| segment.is_empty() || segment.position.saturating_add(segment.len()) > next;
        let front = self.held.iter().map(Held::segment).find(news)?;
        (front.position <= next && !front.is_empty()).then_some(front.time.max(self.clock))
    }

    /// Whether calls are held back.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether a bound is exceeded, so that the oldest gap is to be given up at once.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.held.len() > HELD_SEGMENTS || self.held_bytes > HELD_BYTES
    }

    /// Whether some call was held back for longer than `hold`.
    #[must_use]
    pub fn is_overdue(&self, now: KernelTime, hold: Duration) -> bool {
        self.held.iter().any(|held| held.segment.time + hold <= now)
    }

    /// Gives up waiting for what is before the first held call: returns the gap, if there is one. To be followed by
    /// [`Self::delivered`], like a call.
    pub fn give_up(&mut self) -> Option<Segment<'static>> {
        let front = self.held.front()?;
        let (position, time) = (front.segment.position, front.segment.time.max(self.clock));
        let next = *self.next.get_or_insert(position);
        (position > next).then(|| Segment::lost(next, position - next, time))
    }

    /// The bytes up to `sequence` that were never seen, where nothing is held back.
    #[must_use]
    pub fn missing_before(&self, sequence: u32) -> u64 {
        self.next.map_or(0, |next| u64::try_from(sequence.wrapping_sub(next as u32).cast_signed()).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Cookie, Direction};

    fn call(sequence: u32, time: u64, head: &[u8]) -> Data<'_> {
        Data {
            cookie: Cookie(1),
            time: KernelTime::from_nanos(time),
            direction: Direction::Receive,
            sequence,
            length: head.len() as u32,
            requested: None,
            errno: 0,
            unsent: 0,
            head,
            tail: &[],
            pid: 1,
        }
    }

    fn deliver(stream: &mut Stream, data: &Data<'_>, out: &mut Vec<u8>) {
        if let Some(mut segment) = stream.accept(data, true) {
            take(&mut segment, out);
            stream.delivered(&segment);
        }
        drain(stream, out);
    }

    fn drain(stream: &mut Stream, out: &mut Vec<u8>) {
        while let Some(held) = stream.pop() {
            let mut segment = held.segment();
            take(&mut segment, out);
            stream.delivered(&segment);
        }
    }

    fn take(segment: &mut Segment<'_>, out: &mut Vec<u8>) {
        while !segment.is_empty() {
            match segment.front() {
                Chunk::Data(bytes) => out.extend_from_slice(bytes),
                Chunk::Gap(n) => out.extend(std::iter::repeat_n(b'?', n as usize)),
            }
            segment.advance(segment.front().len());
        }
    }

    #[test]
    fn calls_are_ordered_by_position_across_the_wrap() {
        let mut stream = Stream::default();
        let mut out = Vec::new();
        deliver(&mut stream, &call(u32::MAX - 1, 1, b"abc"), &mut out);
        deliver(&mut stream, &call(4, 2, b"gh"), &mut out);
        assert!(stream.is_holding());
        deliver(&mut stream, &call(1, 3, b"def"), &mut out);
        assert_eq!(out, b"abcdefgh");
        assert!(!stream.is_holding());
        assert_eq!(stream.clock(), KernelTime::from_nanos(3), "times do not run backwards");
    }

    #[test]
    fn overlaps_are_trimmed_and_gaps_have_their_size() {
        let mut stream = Stream::default();
        let mut out = Vec::new();
        deliver(&mut stream, &call(10, 1, b"abcd"), &mut out);
        deliver(&mut stream, &call(12, 1, b"cdef"), &mut out);
        deliver(&mut stream, &call(10, 1, b"abcd"), &mut out);
        deliver(&mut stream, &call(20, 5, b"xy"), &mut out);
        assert_eq!(out, b"abcdef");
        assert!(!stream.is_overdue(KernelTime::from_nanos(9), Duration::from_nanos(5)));
        assert!(stream.is_overdue(KernelTime::from_nanos(10), Duration::from_nanos(5)));
        let mut gap = stream.give_up().unwrap();
        assert_eq!((gap.len(), gap.lost), (4, true));
        gap.advance(4);
        stream.delivered(&gap);
        drain(&mut stream, &mut out);
        assert_eq!(out, b"abcdefxy");
    }

    #[test]
    fn a_call_is_head_hole_and_tail() {
        let data = Data { length: 10, tail: b"yz", ..call(0, 0, b"abc") };
        let mut segment = Segment::new(0, &data);
        assert_eq!(segment.hole(), 5);
        segment.advance(1);
        assert_eq!(segment.front(), Chunk::Data(b"bc"));
        segment.advance(3);
        assert_eq!(segment.front(), Chunk::Gap(4));
        segment.advance(5);
        assert_eq!(segment.front(), Chunk::Data(b"z"));
        let claims_too_much = Data { length: 2, tail: b"yz", ..call(0, 0, b"abc") };
        assert_eq!(Segment::new(0, &claims_too_much).len(), 2);
    }
}
