//! One connection: two ordered streams, parsers on both, requests answered in order.

mod receive;
mod send;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    hops::Hops,
    record::{ConnectionInfo, IncompleteReason, RequestRecord},
    response::{Reader, Scratch},
    timeline::{Ending, Exchange, PreviousEnd, Write},
    tracker::{Sink, TrackerConfig},
};
use crate::{
    connection::{
        arrivals,
        stream::{Chunk, Segment, Stream},
    },
    event::{Arrivals, Content, Data, Direction, Open, State, StateChange},
    llm::{RequestFacts, json::Scanner},
    protocol::{
        Loss,
        http1::{RequestParser, ResponseParser},
        http1_head::{Kind, Request, Response},
    },
    time::KernelTime,
};

/// Most requests that wait for their responses on one connection.
const PIPELINE_MAX: usize = 64;
/// Most changes of state that wait for held calls.
const STATES_MAX: usize = 8;
/// A write's time is taken so long after its first packet left, at most: the client may have asked again by then.
const SEND_LAG: Duration = Duration::from_micros(200);

/// What a session needs from outside, for the time of one call.
#[derive(Debug)]
pub(super) struct Context<'a, S> {
    pub(super) config: &'a TrackerConfig,
    pub(super) sink: &'a mut S,
    pub(super) scratch: &'a mut Scratch,
    pub(super) hops: &'a mut Hops,
}

/// Whether a connection lives on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Alive,
    Over,
}

/// A request whose head is being read.
#[derive(Clone, Copy, Debug, Default)]
struct Begun {
    read: KernelTime,
    arrive: Option<KernelTime>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) info: Arc<ConnectionInfo>,
    /// It is in the tracker's list of those that wait.
    pub(super) listed: bool,
    late: bool,
    /// From establishment to the first read, until a record tells of it.
    first_read: Option<Duration>,
    receive: Stream,
    send: Stream,
    arrivals: arrivals::Arrivals,
    requests: RequestParser,
    responses: ResponseParser,
    /// Where messages begin is not known: until a call that begins with one.
    receive_lost: bool,
    send_lost: bool,
    /// What is written belongs to a request that was not seen.
    joined: bool,
    /// A request was seen.
    seen_request: bool,
    /// Requests may have gone unseen since the last time that none was under way.
    hidden_requests: bool,
    /// A response was seen, or what is missing before the first one would be: where the stream begins is known.
    seen_response: bool,
    /// The client does not wait for a response before it asks again.
    pipelines: bool,
    /// Which response answers which request cannot be told any more.
    ambiguous: bool,
    /// What follows cannot be read.
    opaque: Option<Content>,
    /// It was said that content is compressed.
    compressed: bool,
    /// The body that is being read is of a request to a language model, and compressed; that of the response.
    coded_request: bool,
    coded_response: bool,
    /// Bytes of the segment in delivery that are not plain.
    apart: u64,
    begun: Begun,
    /// The body of the last request is being read.
    reading: bool,
    request_json: Scanner,
    request_facts: RequestFacts,
    /// Under way, oldest first.
    exchanges: VecDeque<Exchange>,
    /// The first write of the response that is being read.
    response_begun: Option<Write>,
    reader: Reader,
    call: u64,
    written: KernelTime,
    /// The last write, in vain or not; `None`: it was lost.
    attempt: Option<KernelTime>,
    blocked: Option<KernelTime>,
    previous_end: Option<PreviousEnd>,
    client_left: Option<KernelTime>,
    server_fin: bool,
    states: VecDeque<State>,
}

impl Session {
    pub(super) fn new(info: Arc<ConnectionInfo>, open: &Open, config: &TrackerConfig) -> Self {
        let stream = |sequence: Option<u32>| {
            let mut stream = Stream::default();
            // Inside a request no position begins a message.
            if let (Some(sequence), false) = (sequence, open.mid_request) {
                stream.start_at(sequence);
            }
            stream
        };
        Self {
            info,
            listed: false,
            late: open.late,
            // What is joined late was read before.
            first_read: open
                .established
                .filter(|_| !open.late)
                .map(|established| open.time.saturating_since(established)),
            receive: stream(open.receive_sequence),
            send: stream(open.send_sequence),
            arrivals: arrivals::Arrivals::default(),
            requests: RequestParser::wanting(config.labels.headers()),
            responses: ResponseParser::default(),
            receive_lost: open.mid_request,
            send_lost: open.mid_request,
            joined: open.mid_request,
            seen_request: false,
            hidden_requests: false,
            seen_response: open.send_sequence.is_some() && !open.mid_request,
            pipelines: false,
            ambiguous: false,
            opaque: None,
            compressed: false,
            coded_request: false,
            coded_response: false,
            apart: 0,
            begun: Begun::default(),
            reading: false,
            request_json: Scanner::default(),
            request_facts: RequestFacts::default(),
            exchanges: VecDeque::new(),
            response_begun: None,
            reader: Reader::default(),
            call: 0,
            written: KernelTime::default(),
            attempt: None,
            blocked: None,
            previous_end: None,
            client_left: None,
            server_fin: false,
            states: VecDeque::new(),
        }
    }

    /// Whether something waits for earlier calls.
    pub(super) fn is_waiting(&self) -> bool {
        self.receive.is_holding() || self.send.is_holding() || !self.states.is_empty()
    }

    pub(super) fn is_unix(&self) -> bool {
        self.info.server.is_none()
    }

    pub(super) fn in_flight(&self) -> u64 {
        let counts = |exchange: &&Exchange| exchange.is_llm() && !exchange.response_lost;
        self.exchanges.iter().filter(counts).count() as u64
    }

    pub(super) fn arrivals(&mut self, arrivals: &Arrivals<'_>) -> Fate {
        for stamp in arrivals.stamps {
            let begin = self.receive.unwrap_position(stamp.begin);
            let length = stamp.end.wrapping_sub(stamp.begin);
            // Longer than half the number space: not a stretch of bytes.
            if length < 1 << 31 {
                self.arrivals.insert(begin, begin + u64::from(length), KernelTime::from_nanos(stamp.time));
            }
        }
        Fate::Alive
    }

    pub(super) fn data(&mut self, data: &Data<'_>, context: &mut Context<'_, impl Sink>) -> Fate {
        match data.direction {
            Direction::Receive if data.length == 0 => {
                if matches!(data.errno, 0 | libc::ECONNRESET) {
                    self.left(data.time);
                }
            }
            Direction::Receive => {
                let starts = self.receive_lost || Request::is_plausible(data.head);
                if let Some(mut segment) = self.receive.accept(data, starts) {
                    self.deliver_receive(&mut segment, context);
                }
            }
            Direction::Send => {
                let starts = self.send_lost || data.length == 0 || Response::is_plausible(data.head);
                if let Some(mut segment) = self.send.accept(data, starts) {
                    self.deliver_send(&mut segment, context);
                }
            }
        }
        self.pump(context);
        while self.receive.is_full() || self.send.is_full() {
            self.give_up(context);
        }
        self.settle(None, context)
    }

    pub(super) fn state(&mut self, state: &State, context: &mut Context<'_, impl Sink>) -> Fate {
        if matches!(state.change, StateChange::ClientFin | StateChange::Reset) {
            self.left(state.time);
        }
        if state.change != StateChange::ClientFin && self.states.len() < STATES_MAX {
            self.states.push_back(*state);
        }
        self.settle(None, context)
    }

    /// `now`: what is overdue by then is given up.
    pub(super) fn expire(&mut self, now: KernelTime, context: &mut Context<'_, impl Sink>) -> Fate {
        let hold = context.config.reorder_hold;
        while self.receive.is_overdue(now, hold) || self.send.is_overdue(now, hold) {
            self.give_up(context);
        }
        self.settle(Some(now), context)
    }

    /// It is given up: its requests are incomplete, unless their client is known to have left.
    pub(super) fn abandon(mut self, context: &mut Context<'_, impl Sink>) {
        match self.client_left {
            Some(left) => self.client_gone(left, context),
            None => self.finish_all(Ending::Unknown(IncompleteReason::Abandoned), context),
        }
    }

    /// It ended, and how was lost, perhaps with the end of its response: nobody knows whether the client left early.
    pub(super) fn lose(mut self, context: &mut Context<'_, impl Sink>) {
        self.finish_all(Ending::Unknown(IncompleteReason::Abandoned), context);
        context.hops.disconnect(&self.info);
    }

    fn left(&mut self, time: KernelTime) {
        self.client_left = Some(self.client_left.map_or(time, |earlier| earlier.min(time)));
    }

    fn deliver_receive(&mut self, segment: &mut Segment<'_>, context: &mut Context<'_, impl Sink>) {
        let left = segment.len();
        self.read(segment, context);
        self.count_plain(Direction::Receive, left - segment.len(), context);
        self.receive.delivered(segment);
        self.arrivals.forget_before(segment.position);
    }

    fn deliver_send(&mut self, segment: &mut Segment<'_>, context: &mut Context<'_, impl Sink>) {
        let left = segment.len();
        self.write(segment, context);
        self.count_plain(Direction::Send, left - segment.len(), context);
        self.attempt = (!segment.lost).then_some(segment.time);
        self.send.delivered(segment);
    }

    /// Passes over a segment of a connection that cannot be read any more.
    fn pass(
        &mut self,
        content: Content,
        direction: Direction,
        segment: &mut Segment<'_>,
        context: &mut Context<'_, impl Sink>,
    ) {
        self.count(content, direction, segment.len(), context);
        segment.advance(u64::MAX);
    }

    /// Counts bytes that are not plain.
    fn count(&mut self, content: Content, direction: Direction, bytes: u64, context: &mut Context<'_, impl Sink>) {
        if bytes > 0 {
            self.apart += bytes;
            context.sink.bytes(content, direction, bytes);
        }
    }

    /// Counts the rest of `delivered` bytes.
    fn count_plain(&mut self, direction: Direction, delivered: u64, context: &mut Context<'_, impl Sink>) {
        let plain = delivered.saturating_sub(std::mem::take(&mut self.apart));
        if plain > 0 {
            context.sink.bytes(Content::Plain, direction, plain);
        }
    }

    /// Delivers what is next in order, requests first.
    fn pump(&mut self, context: &mut Context<'_, impl Sink>) {
        while let Some(held) = self.receive.pop() {
            self.deliver_receive(&mut held.segment(), context);
        }
        while !self.must_wait() {
            let Some(held) = self.send.pop() else { return };
            self.deliver_send(&mut held.segment(), context);
        }
    }

    /// Whether the held write that is next begins a response whose request was not seen yet, or not to its end.
    fn must_wait(&self) -> bool {
        let begins = self.opaque.is_none() && !self.send_lost && self.responses.at_boundary();
        begins && self.send.ready().is_some_and(|time| !self.is_expected(time) || self.is_early())
    }

    /// Whether a response may begin at `time`: never before its request was read.
    fn is_expected(&self, time: KernelTime) -> bool {
        let next = self.exchanges.iter().find(|exchange| !exchange.response_lost);
        next.is_some_and(|exchange| exchange.timeline.read <= Some(time))
    }

    /// Whether the response that comes next is to a request that is still being read. That is seldom so: more likely the
    /// read of its end is told of late, and with it what the request is.
    fn is_early(&self) -> bool {
        let mut waiting = self.exchanges.iter().filter(|exchange| !exchange.response_lost);
        self.reading && waiting.next().is_some_and(|next| !next.answered_early) && waiting.next().is_none()
    }

    /// Stops waiting for what is missing first, on each stream that waits.
    fn give_up(&mut self, context: &mut Context<'_, impl Sink>) {
        if let Some(mut gap) = self.receive.give_up() {
            self.deliver_receive(&mut gap, context);
        }
        self.pump(context);
        if self.must_wait() && self.send.ready().is_some_and(|time| self.is_expected(time)) {
            if let Some(next) = self.exchanges.iter_mut().find(|exchange| !exchange.response_lost) {
                next.answered_early = true;
            }
        } else if self.must_wait() {
            // A response to a request that was never seen.
            if self.late && !self.seen_request && !self.joined {
                self.joined = true;
                context.sink.joined_mid_request(&self.info);
            }
            self.send_lost = true;
        } else if let Some(mut gap) = self.send.give_up() {
            self.deliver_send(&mut gap, context);
        }
        self.pump(context);
    }

    /// Applies changes of state whose turn has come: all before them was delivered, or they are overdue.
    fn settle(&mut self, now: Option<KernelTime>, context: &mut Context<'_, impl Sink>) -> Fate {
        while let Some(state) = self.states.front().copied() {
            let overdue = now.is_some_and(|now| state.time + context.config.reorder_hold <= now);
            let missing = self.missing_before(&state);
            let caught_up = missing == 0 && !self.receive.is_holding() && !self.send.is_holding();
            if !caught_up && !overdue {
                return Fate::Alive;
            }
            while self.receive.is_holding() || self.send.is_holding() {
                self.give_up(context);
            }
            let missing = self.missing_before(&state);
            if let (1.., Some(next)) = (missing, self.send.next()) {
                let time = state.time.max(self.send.clock());
                self.deliver_send(&mut Segment::lost(next, missing, time), context);
            }
            self.states.pop_front();
            self.apply(&state, context);
            if state.change != StateChange::ServerFin {
                return Fate::Over;
            }
            self.server_fin = true;
        }
        Fate::Alive
    }

    /// Bytes written before `state` that were never seen.
    fn missing_before(&self, state: &State) -> u64 {
        // The server's own FIN takes one position, after the change that tells of it.
        self.send.missing_before(state.write_sequence).saturating_sub(u64::from(self.server_fin))
    }

    fn apply(&mut self, state: &State, context: &mut Context<'_, impl Sink>) {
        if matches!(state.change, StateChange::Reset | StateChange::Closed) {
            context.hops.disconnect(&self.info);
        }
        match state.change {
            StateChange::ClientFin => {}
            StateChange::Reset => self.client_gone(state.time, context),
            StateChange::OutOfScope => self.finish_all(Ending::Unknown(IncompleteReason::Abandoned), context),
            StateChange::ServerFin | StateChange::Closed => {
                // What only the connection's end ends is complete, unless the client left while it was being written.
                let left_before = self.client_left.is_some_and(|left| left < self.written);
                if !self.send_lost && !left_before && self.responses.close() {
                    let write = Write { time: self.written, unsent: false, call: self.call, lost: false };
                    self.response_end(&write, context);
                }
                match self.client_left {
                    Some(_) => self.client_gone(state.time, context),
                    None => self.finish_all(Ending::ServerClosed(state.time.max(self.written)), context),
                }
            }
        }
    }

    fn client_gone(&mut self, seen: KernelTime, context: &mut Context<'_, impl Sink>) {
        self.left(seen);
        let left = self.client_left.unwrap_or(seen);
        let ending = Ending::ClientGone { left, seen, attempt: self.attempt, written: self.written };
        self.finish_all(ending, context);
    }

    fn finish_all(&mut self, ending: Ending, context: &mut Context<'_, impl Sink>) {
        while !self.exchanges.is_empty() {
            self.finish_front(ending, context);
        }
        // What is still being written has no request any more.
        self.send_lost |= !self.responses.at_boundary();
    }

    fn finish_front(&mut self, ending: Ending, context: &mut Context<'_, impl Sink>) {
        let Some(mut exchange) = self.exchanges.pop_front() else { return };
        let lost = exchange.end_lost;
        self.reading &= !self.exchanges.is_empty();
        if let (Some(since), Ending::ClientGone { left, .. }) = (self.blocked, ending) {
            exchange.write_blocked += left.saturating_since(since);
        }
        if self.exchanges.is_empty() {
            self.blocked = None;
        }
        let role = context.hops.over(&self.info, &exchange);
        if !exchange.is_llm() {
            if !matches!(ending, Ending::Unknown(_)) && !exchange.response_lost {
                context.sink.other_request(&self.info);
            }
        } else if let Some(record) = exchange.finish(ending, self.previous_end, &self.info) {
            context.sink.request(RequestRecord { role, first_read: self.first_read.take(), ..record });
        }
        if let Ending::Complete(time) = ending {
            self.previous_end = Some(PreviousEnd { time, lost });
        }
    }
}

fn reason(loss: Loss) -> IncompleteReason {
    match loss {
        Loss::HeadGap => IncompleteReason::HeadGap,
        Loss::FramingGap => IncompleteReason::FramingGap,
        Loss::Unparsable => IncompleteReason::Unparsable,
    }
}

/// Counts bytes that nobody could read.
fn account(direction: Direction, chunk: &Chunk<'_>, lost: bool, unparsed: bool, context: &mut Context<'_, impl Sink>) {
    match chunk {
        Chunk::Gap(0) => {}
        Chunk::Gap(bytes) if lost => context.sink.gap(direction, *bytes),
        Chunk::Gap(bytes) => context.sink.uncaptured(direction, *bytes),
        Chunk::Data(bytes) if unparsed && !bytes.is_empty() => context.sink.unparsed(direction, bytes.len() as u64),
        Chunk::Data(_) => {}
    }
}
