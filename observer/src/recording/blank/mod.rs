//! Takes the text out of blocks of frames. What stays is decided byte by byte, in stream order: heads without the
//! values of fields that nobody reads, the framing of chunks and events, and JSON without its strings. Everything is
//! blank until somebody says otherwise, so that what cannot be placed is blank.
//!
//! Calls that came early wait for earlier ones, as in the tracker; a block is kept until the next one was looked at.

mod connection;
mod half;
mod head;
mod json;
mod sse;
mod words;

use std::{collections::VecDeque, ops::Range};

use self::{connection::Connection, half::Call, head::Head};
use super::{
    Item, codec,
    wire::{Clock, Cursor},
};
use crate::{
    connection::table::Table,
    event::{Cookie, Direction, Event, Open, StateChange},
    protocol::http1_head::{Kind, Request, Response},
    time::KernelTime,
};

/// As the tracker's.
const MAX_CONNECTIONS: usize = 65_536;
/// Blocks that calls may wait for.
const BLOCKS: usize = 2;

/// What could not be placed, and is therefore blank as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Counts {
    /// Calls.
    pub(super) calls: u64,
    /// Captured bytes of these.
    pub(super) bytes: u64,
}

impl Counts {
    fn add(&mut self, call: &Call) {
        self.calls += 1;
        self.bytes += (call.head.len() + call.tail.len()) as u64;
    }
}

struct Block {
    raw: Vec<u8>,
    out: Vec<u8>,
}

/// The blocks that are being looked at.
pub(super) struct Window {
    blocks: VecDeque<Block>,
    /// Number of the first.
    first: u64,
}

impl Window {
    /// Captured bytes, and what is written in their place. Nothing of a block that is gone.
    fn part(&mut self, block: u64, range: Range<usize>) -> (&[u8], &mut [u8]) {
        let index = block.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some(Block { raw, out }) = index.and_then(|index| self.blocks.get_mut(index)) else {
            return (&[], &mut []);
        };
        (raw.get(range.clone()).unwrap_or_default(), out.get_mut(range).unwrap_or_default())
    }
}

enum Step {
    Open(Box<Open>),
    Call(Cookie, Call),
    Over(Cookie),
    Tick(KernelTime),
}

/// Blanks one recording.
pub(super) struct Blanker {
    kept: Vec<String>,
    window: Window,
    connections: Table<Connection>,
    waiting: Vec<Cookie>,
    /// Connections that are over, and the block that said so.
    over: VecDeque<(u64, Cookie)>,
    now: KernelTime,
    counts: Counts,
}

impl Blanker {
    /// `kept`: names of request fields whose values stay, besides those that every recording keeps.
    pub(super) fn new(kept: &[String]) -> Self {
        let never = |name: &&String| {
            !["authorization", "proxy-authorization", "cookie"].iter().any(|secret| name.eq_ignore_ascii_case(secret))
        };
        Self {
            kept: kept.iter().filter(never).cloned().collect(),
            window: Window { blocks: VecDeque::new(), first: 0 },
            connections: Table::new(MAX_CONNECTIONS),
            waiting: Vec::new(),
            over: VecDeque::new(),
            now: KernelTime::default(),
            counts: Counts::default(),
        }
    }

    /// What could not be placed so far.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes a block of frames; returns an earlier one, blanked.
    pub(super) fn push(&mut self, raw: Vec<u8>) -> Option<Vec<u8>> {
        let number = self.window.first + self.window.blocks.len() as u64;
        let mut out = raw.clone();
        let (steps, length) = steps(&raw, number, &mut out);
        out.truncate(length);
        self.window.blocks.push_back(Block { raw, out });
        for step in steps {
            self.step(step, number);
        }
        (self.window.blocks.len() >= BLOCKS).then(|| self.release()).flatten()
    }

    /// The blocks that are left, in order: call until there is none.
    pub(super) fn flush(&mut self) -> Option<Vec<u8>> {
        // Nothing more comes: what waits, waits in vain.
        self.tick(KernelTime::from_nanos(u64::MAX));
        self.release()
    }

    fn release(&mut self) -> Option<Vec<u8>> {
        let block = self.window.blocks.pop_front()?;
        self.window.first += 1;
        let first = self.window.first;
        for cookie in &self.waiting {
            if let Some(connection) = self.connections.get_mut(*cookie) {
                connection.forget_before(first, &mut self.counts);
            }
        }
        while let Some((_, cookie)) = self.over.pop_front_if(|(said, _)| *said < first) {
            self.connections.remove(cookie);
        }
        Some(block.out)
    }

    fn step(&mut self, step: Step, number: u64) {
        match step {
            Step::Open(open) => {
                self.now = self.now.max(open.time);
                if open.opaque.is_some() {
                    self.connections.remove(open.cookie);
                    return;
                }
                self.connections.make_room(drop);
                self.connections.insert(open.cookie, Connection::new(&open, &self.kept), open.time);
            }
            Step::Call(cookie, call) => {
                let Some(connection) = self.connections.touch(cookie, call.time) else {
                    self.counts.add(&call);
                    return;
                };
                connection.call(call, &mut self.window, &mut self.counts);
                if connection.is_waiting() && !self.waiting.contains(&cookie) {
                    self.waiting.push(cookie);
                }
            }
            Step::Over(cookie) => self.over.push_back((number, cookie)),
            Step::Tick(now) => self.tick(now),
        }
    }

    fn tick(&mut self, now: KernelTime) {
        let (connections, window, counts) = (&mut self.connections, &mut self.window, &mut self.counts);
        self.waiting.retain(|cookie| {
            let Some(connection) = connections.get_mut(*cookie) else { return false };
            connection.expire(now, window, counts);
            connection.is_waiting()
        });
    }
}

/// A call that may begin a message stays one that may, and no other becomes one: by that a stream that was lost is taken
/// up again. What stays is the beginning of `HTTP/1.`, or a method and the byte that makes a target of what follows.
fn keep_beginning(direction: Direction, raw: &[u8], out: &mut [u8]) {
    match direction {
        Direction::Send if Response::is_plausible(raw) => {
            let length = raw.len().min(b"HTTP/1.".len());
            out[..length].copy_from_slice(&raw[..length]);
        }
        Direction::Receive if Request::is_plausible(raw) => {
            let method = raw.iter().take_while(|byte| **byte != b' ').count();
            let length = raw.len().min(method + 2);
            Head::new(true, &[]).feed(&raw[..length], &mut out[..length]);
        }
        Direction::Send | Direction::Receive => {}
    }
}

/// What a block says, and its payload blanked in `out`; how much of it is known to be free of text: all, unless there
/// are frames in it that we would not read back.
fn steps(raw: &[u8], number: u64, out: &mut [u8]) -> (Vec<Step>, usize) {
    let (mut cursor, mut clock, mut steps) = (Cursor::new(raw), Clock::default(), Vec::new());
    while !cursor.is_empty() {
        let (begin, mut stamps) = (raw.len() - cursor.len(), Vec::new());
        let Some(item) = codec::take(&mut cursor, &mut clock, &mut stamps) else { return (steps, begin) };
        steps.push(match item {
            Item::Tick(now) => Step::Tick(now),
            Item::Ended(cookie) => Step::Over(cookie),
            Item::Event(Event::Open(open), _) => Step::Open(Box::new(open)),
            Item::Event(Event::State(state), _) => match state.change {
                StateChange::ClientFin | StateChange::ServerFin => continue,
                StateChange::Reset | StateChange::Closed | StateChange::OutOfScope => Step::Over(state.cookie),
            },
            Item::Event(Event::Data(data), _) => {
                // Both lie in `raw`.
                let range = |part: &[u8]| {
                    let start = part.as_ptr().addr().saturating_sub(raw.as_ptr().addr());
                    start..start + part.len()
                };
                let (head, tail) = (range(data.head), range(data.tail));
                for part in [head.clone(), tail.clone()] {
                    out[part].fill(b'x');
                }
                keep_beginning(data.direction, data.head, &mut out[head.clone()]);
                let call = Call {
                    block: number,
                    direction: data.direction,
                    time: data.time,
                    sequence: data.sequence,
                    length: data.length,
                    errno: data.errno,
                    head,
                    tail,
                    done: 0,
                    lost: false,
                    unplaced: false,
                };
                Step::Call(data.cookie, call.clip())
            }
            Item::Event(Event::Arrivals(_) | Event::Listen(_) | Event::Connect(_), _)
            | Item::Lost(_)
            | Item::Unknown(_) => continue,
        });
    }
    (steps, raw.len())
}
