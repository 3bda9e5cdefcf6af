//! One connection: two ordered streams, parsers on both, requests answered in order.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    record::{ConnectionInfo, IncompleteReason},
    response::Reader,
    timeline::{Ending, Exchange, Keep, Write},
    tracker::{Sink, TrackerConfig},
};
use crate::{
    connection::{
        arrivals,
        stream::{Chunk, Segment, Stream},
    },
    event::{Arrivals, Data, Direction, OpaqueReason, Open, State, StateChange},
    llm::{
        RequestFacts,
        json::{Path, Scanner, Value},
        route,
    },
    protocol::{
        Loss,
        http1::{Frame, RequestParser, ResponseParser},
        http1_head::{Kind, Method, Request, RequestHead, Response, ResponseHead, request_line},
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
    /// A response was seen.
    seen_response: bool,
    /// The client does not wait for a response before it asks again.
    pipelines: bool,
    /// Which response answers which request cannot be told any more.
    ambiguous: bool,
    opaque: bool,
    compressed: bool,
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
    blocked: Option<KernelTime>,
    previous_end: Option<KernelTime>,
    client_left: Option<KernelTime>,
    states: VecDeque<State>,
}

impl Session {
    pub(super) fn new(info: Arc<ConnectionInfo>, open: &Open) -> Self {
        Self {
            info,
            listed: false,
            late: open.late,
            receive: Stream::default(),
            send: Stream::default(),
            arrivals: arrivals::Arrivals::default(),
            requests: RequestParser::default(),
            responses: ResponseParser::default(),
            receive_lost: false,
            send_lost: open.mid_request,
            joined: open.mid_request,
            seen_request: false,
            hidden_requests: false,
            seen_response: false,
            pipelines: false,
            ambiguous: false,
            opaque: false,
            compressed: false,
            begun: Begun::default(),
            reading: false,
            request_json: Scanner::default(),
            request_facts: RequestFacts::default(),
            exchanges: VecDeque::new(),
            response_begun: None,
            reader: Reader::default(),
            call: 0,
            written: KernelTime::default(),
            blocked: None,
            previous_end: None,
            client_left: None,
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
        let counts = |exchange: &&Exchange| exchange.route.is_some() && !exchange.response_lost;
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

    fn left(&mut self, time: KernelTime) {
        self.client_left = Some(self.client_left.map_or(time, |earlier| earlier.min(time)));
    }

    fn deliver_receive(&mut self, segment: &mut Segment<'_>, context: &mut Context<'_, impl Sink>) {
        self.read(segment, context);
        self.receive.delivered(segment);
        self.arrivals.forget_before(segment.position);
    }

    fn deliver_send(&mut self, segment: &mut Segment<'_>, context: &mut Context<'_, impl Sink>) {
        self.write(segment, context);
        self.send.delivered(segment);
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

    /// Whether the held write that is next begins a response whose request was not seen yet.
    fn must_wait(&self) -> bool {
        let begins = !self.opaque && !self.send_lost && self.responses.at_boundary();
        begins && self.send.ready().is_some_and(|time| !self.is_expected(time))
    }

    /// Whether a response may begin at `time`: never before its request was read.
    fn is_expected(&self, time: KernelTime) -> bool {
        let next = self.exchanges.iter().find(|exchange| !exchange.response_lost);
        next.is_some_and(|exchange| exchange.timeline.read <= Some(time))
    }

    /// Stops waiting for what is missing first, on each stream that waits.
    fn give_up(&mut self, context: &mut Context<'_, impl Sink>) {
        if let Some(mut gap) = self.receive.give_up() {
            self.deliver_receive(&mut gap, context);
        }
        self.pump(context);
        if self.must_wait() {
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
            let missing = self.send.missing_before(state.write_sequence);
            // The server's own FIN takes one position.
            let caught_up = missing <= 1 && !self.receive.is_holding() && !self.send.is_holding();
            if !caught_up && !overdue {
                return Fate::Alive;
            }
            while self.receive.is_holding() || self.send.is_holding() {
                self.give_up(context);
            }
            let missing = self.send.missing_before(state.write_sequence);
            if let (2.., Some(next)) = (missing, self.send.next()) {
                let time = state.time.max(self.send.clock());
                self.deliver_send(&mut Segment::lost(next, missing, time), context);
            }
            self.states.pop_front();
            self.apply(&state, context);
            if state.change != StateChange::ServerFin {
                return Fate::Over;
            }
        }
        Fate::Alive
    }

    fn apply(&mut self, state: &State, context: &mut Context<'_, impl Sink>) {
        match state.change {
            StateChange::ClientFin => {}
            StateChange::Reset => self.client_gone(state.time, context),
            StateChange::OutOfScope => self.finish_all(Ending::Unknown(IncompleteReason::Abandoned), context),
            StateChange::ServerFin | StateChange::Closed => {
                // What only the connection's end ends is complete, unless the client left while it was being written.
                let left_before = self.client_left.is_some_and(|left| left < self.written);
                if !self.send_lost && !left_before && self.responses.close() {
                    let write = Write { time: self.written, unsent: false, call: self.call };
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
        let ending = Ending::ClientGone { left, seen, attempt: self.send.clock(), written: self.written };
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
        self.reading &= !self.exchanges.is_empty();
        if let (Some(since), Ending::ClientGone { left, .. }) = (self.blocked, ending) {
            exchange.write_blocked += left.saturating_since(since);
        }
        if self.exchanges.is_empty() {
            self.blocked = None;
        }
        if exchange.route.is_none() {
            if !matches!(ending, Ending::Unknown(_)) && !exchange.response_lost {
                context.sink.other_request(&self.info);
            }
        } else if let Some(record) = exchange.finish(ending, self.previous_end, &self.info) {
            context.sink.request(record);
        }
        if let Ending::Complete(end) = ending {
            self.previous_end = Some(end);
        }
    }

    /// Reads what the server read.
    fn read(&mut self, segment: &mut Segment<'_>, context: &mut Context<'_, impl Sink>) {
        loop {
            let mut chunk = segment.front();
            if self.opaque {
                segment.advance(u64::MAX);
                return;
            }
            if self.receive_lost && !chunk.is_empty() {
                let begins = matches!(chunk, Chunk::Data(bytes) if segment.begins_call && Request::is_plausible(bytes));
                if !begins {
                    account(Direction::Receive, &chunk, segment.lost, true, context);
                    segment.advance(chunk.len());
                    continue;
                }
                self.receive_lost = false;
                self.requests.reset();
            }
            let whole = chunk;
            let frame = self.requests.step(&mut chunk, Method::Other);
            let mut used = whole;
            let used = used.split_to(whole.len() - chunk.len());
            let unparsable = frame == Some(Frame::Lost(Loss::Unparsable));
            account(Direction::Receive, &used, segment.lost, unparsable, context);
            segment.advance(used.len());
            match frame {
                None if segment.is_empty() => break,
                None => {}
                Some(Frame::Begin) => {
                    let arrive = self.arrivals.at(segment.position).map(|time| time.min(segment.time));
                    self.begun = Begun { read: segment.time, arrive };
                }
                Some(Frame::Head(head)) => self.request_head(head, context),
                Some(Frame::Body(chunk)) => self.request_body(chunk),
                Some(Frame::End) => self.request_end(segment),
                Some(Frame::Lost(loss)) => self.request_lost(loss, used.len(), context),
            }
        }
        if self.reading
            && let Some(exchange) = self.exchanges.back_mut()
        {
            exchange.request_bytes = self.requests.message_bytes();
        }
    }

    fn request_head(&mut self, head: RequestHead, context: &mut Context<'_, impl Sink>) {
        let route = route::find(head.method, &head.target);
        self.request_facts = RequestFacts::default();
        self.request_json.reset();
        if head.coded || route.is_none() {
            self.request_json.end(&mut |_: &Path<'_>, _: Value<'_>| {});
        }
        let RequestHead { method, request_id, trace_id, .. } = head;
        let mut exchange = Exchange::new(route, method);
        (exchange.request_id, exchange.trace_id) = (request_id, trace_id);
        self.begin_exchange(exchange, context);
        self.reading = true;
    }

    fn begin_exchange(&mut self, mut exchange: Exchange, context: &mut Context<'_, impl Sink>) {
        self.seen_request = true;
        let lost = self.finish_lost(context);
        self.pipelines |= self.exchanges.back().is_some_and(|back| back.timeline.ready >= Some(self.begun.read));
        self.ambiguous |= (lost > 1 && self.pipelines) || (self.hidden_requests && !self.exchanges.is_empty());
        self.hidden_requests &= !self.exchanges.is_empty();
        if self.exchanges.len() >= PIPELINE_MAX {
            self.ambiguous = true;
            self.finish_all(Ending::Unknown(IncompleteReason::Abandoned), context);
            self.send_lost = true;
        }
        let Begun { read, arrive } = self.begun;
        (exchange.timeline.read, exchange.timeline.arrive) = (Some(read), arrive);
        exchange.request_bytes = self.requests.message_bytes();
        if self.ambiguous {
            exchange.incomplete(IncompleteReason::FramingGap);
        }
        self.exchanges.push_back(exchange);
    }

    /// A client asks again after it was answered: what was lost of earlier responses is over. Returns how many.
    fn finish_lost(&mut self, context: &mut Context<'_, impl Sink>) -> usize {
        let before = self.exchanges.len();
        while self.exchanges.front().is_some_and(|front| front.response_lost) {
            self.finish_front(Ending::Unknown(IncompleteReason::FramingGap), context);
        }
        before - self.exchanges.len()
    }

    fn request_body(&mut self, chunk: Chunk<'_>) {
        let Some(exchange) = self.exchanges.back_mut().filter(|_| self.reading) else { return };
        let Some(dialect) = exchange.route.map(|route| route.dialect) else { return };
        let facts = &mut self.request_facts;
        let mut visit = |path: &Path<'_>, value: Value<'_>| dialect.request(path, &value, facts);
        match chunk {
            Chunk::Data(bytes) => self.request_json.feed(bytes, &mut visit),
            // What is behind a hole might be text that looks like a key.
            Chunk::Gap(_) => self.request_json.end(&mut visit),
        }
        if facts.model.is_some() && facts.stream.is_some() {
            self.request_json.end(&mut |_: &Path<'_>, _: Value<'_>| {});
        }
        if let Some(model) = &facts.model
            && exchange.request_model.is_none()
        {
            exchange.request_model = Some(Arc::clone(model));
        }
    }

    fn request_end(&mut self, segment: &Segment<'_>) {
        let time = segment.time;
        if let Some(exchange) = self.exchanges.back_mut().filter(|_| self.reading) {
            exchange.request_bytes = self.requests.message_bytes();
            if segment.lost {
                exchange.incomplete(IncompleteReason::FramingGap);
            }
            // A response that began before needs no more of the request: an early one.
            if exchange.timeline.header.is_none_or(|header| header >= time) {
                exchange.timeline.ready = Some(time);
            }
        }
        self.reading = false;
    }

    fn request_lost(&mut self, loss: Loss, used: u64, context: &mut Context<'_, impl Sink>) {
        let reason = reason(loss);
        self.receive_lost = true;
        if std::mem::take(&mut self.reading) {
            if let Some(exchange) = self.exchanges.back_mut() {
                exchange.incomplete(reason);
            }
        } else {
            let earlier = self.requests.message_bytes().saturating_sub(used);
            if loss == Loss::Unparsable && earlier > 0 {
                context.sink.unparsed(Direction::Receive, earlier);
            }
            // Its line may tell what it was, and that a response will come.
            if let Some((method, target)) = request_line(self.requests.head_bytes()) {
                let mut exchange = Exchange::new(route::find(method, target), method);
                exchange.incomplete(reason);
                self.begin_exchange(exchange, context);
            }
        }
        self.hidden_requests |= loss != Loss::Unparsable;
    }

    /// Reads what the server wrote. Leaves bytes of `segment` where a response begins whose request was not seen.
    fn write(&mut self, segment: &mut Segment<'_>, context: &mut Context<'_, impl Sink>) {
        if segment.is_empty() {
            return self.failed_write(segment, context);
        }
        if segment.begins_call {
            self.call += 1;
            if let (Some(since), Some(front)) = (self.blocked.take(), self.exchanges.front_mut()) {
                front.write_blocked += segment.time.saturating_since(since);
            }
            self.blocked = segment.short.then_some(segment.time);
        }
        let write = Write { time: segment.time, unsent: segment.unsent > 0, call: self.call };
        loop {
            let mut chunk = segment.front();
            if self.opaque {
                segment.advance(u64::MAX);
                return;
            }
            if !chunk.is_empty() {
                let expected = self.is_expected(segment.time);
                if self.send_lost {
                    let begins = matches!(chunk, Chunk::Data(bytes)
                        if bytes.len() >= 7 && segment.begins_call && Response::is_plausible(bytes));
                    if !(begins && expected) {
                        self.skip(&chunk, segment, expected, context);
                        continue;
                    }
                    (self.send_lost, self.joined) = (false, false);
                    self.responses.reset();
                    self.finish_lost(context);
                } else if self.responses.at_boundary() && !expected && !segment.lost {
                    return;
                }
                if !segment.lost {
                    self.written = segment.time;
                }
            }
            let answers = self.exchanges.front().map_or(Method::Other, |front| front.method);
            let whole = chunk;
            let frame = self.responses.step(&mut chunk, answers);
            let mut used = whole;
            let used = used.split_to(whole.len() - chunk.len());
            let unparsable = frame == Some(Frame::Lost(Loss::Unparsable));
            account(Direction::Send, &used, segment.lost, unparsable, context);
            segment.advance(used.len());
            if let Some(front) = self.exchanges.front_mut().filter(|_| self.response_begun.is_some()) {
                front.response_bytes = self.responses.message_bytes();
            }
            match frame {
                None if segment.is_empty() => return,
                None => {}
                Some(Frame::Begin) => self.response_begins(&write),
                Some(Frame::Head(head)) => self.response_head(&head, &write, context),
                Some(Frame::Body(chunk)) => {
                    let keep = keep(context.config, self.client_left);
                    if let Some(front) = self.exchanges.front_mut() {
                        self.reader.body(chunk, front, &write, &keep);
                    }
                }
                Some(Frame::End) => {
                    // When bytes were written that no call was seen for cannot be told.
                    if let Some(front) = self.exchanges.front_mut().filter(|_| segment.lost) {
                        front.incomplete(IncompleteReason::FramingGap);
                    }
                    self.response_end(&write, context);
                }
                Some(Frame::Lost(loss)) => self.response_lost(loss, segment.time),
            }
        }
    }

    /// Passes over bytes of no known message.
    fn skip(
        &mut self,
        chunk: &Chunk<'_>,
        segment: &mut Segment<'_>,
        expected: bool,
        context: &mut Context<'_, impl Sink>,
    ) {
        account(Direction::Send, chunk, segment.lost, !self.joined, context);
        if !segment.lost {
            self.written = segment.time;
        }
        segment.advance(chunk.len());
        // They may have been, or hidden, the response that comes next.
        if expected {
            self.response_lost(Loss::FramingGap, segment.time);
        }
    }

    fn failed_write(&mut self, segment: &Segment<'_>, context: &mut Context<'_, impl Sink>) {
        match segment.errno {
            libc::EAGAIN if !self.exchanges.is_empty() => {
                self.blocked.get_or_insert(segment.time);
            }
            libc::EPIPE | libc::ECONNRESET | libc::ETIMEDOUT => {
                // Before `delivered` is told: this attempt is the server's last.
                self.left(segment.time);
                let left = self.client_left.unwrap_or(segment.time);
                let (seen, attempt) = (segment.time, segment.time);
                self.finish_all(Ending::ClientGone { left, seen, attempt, written: self.written }, context);
            }
            _ => {}
        }
    }

    fn response_begins(&mut self, write: &Write) {
        let mut exchanges = self.exchanges.iter().map(|exchange| &exchange.timeline);
        if let (Some(front), Some(next)) = (exchanges.next(), exchanges.next())
            && next.read > front.ready
            && next.read.is_some_and(|read| read + SEND_LAG < write.time)
        {
            // The client asked again, some time ago. Of a stream's first bytes nobody can tell that others are
            // missing before them: this may as well be the second response.
            if !self.seen_response {
                self.response_lost(Loss::FramingGap, write.time);
            }
            self.pipelines = true;
        }
        self.seen_response = true;
        self.response_begun = Some(*write);
    }

    fn response_head(&mut self, head: &ResponseHead, write: &Write, context: &mut Context<'_, impl Sink>) {
        if head.tunnel {
            let reason = if head.status == 101 { OpaqueReason::Upgrade } else { OpaqueReason::Connect };
            self.opaque = true;
            context.sink.opaque(&self.info, reason);
            if self.exchanges.pop_front().is_some() {
                context.sink.other_request(&self.info);
            }
            self.finish_all(Ending::Unknown(IncompleteReason::Abandoned), context);
            return;
        }
        let Some(front) = self.exchanges.front_mut() else { return };
        let begun = self.response_begun.unwrap_or(*write);
        front.measured(&begun);
        front.timeline.header = Some(begun.time);
        front.timeline.ready = front.timeline.ready.filter(|ready| *ready <= begun.time);
        front.status = Some(head.status);
        self.reader.begin(head, front);
        if head.coded && front.route.is_some() && !std::mem::replace(&mut self.compressed, true) {
            context.sink.opaque(&self.info, OpaqueReason::Compressed);
        }
    }

    fn response_end(&mut self, write: &Write, context: &mut Context<'_, impl Sink>) {
        let keep = keep(context.config, self.client_left);
        if let Some(front) = self.exchanges.front_mut() {
            front.measured(write);
            self.reader.end(front, write, &keep);
        }
        self.response_begun = None;
        self.finish_front(Ending::Complete(write.time), context);
    }

    /// No response to a request that was read by `time` can be told from another any more.
    fn response_lost(&mut self, loss: Loss, time: KernelTime) {
        self.send_lost = true;
        self.response_begun = None;
        for exchange in self.exchanges.iter_mut().take_while(|exchange| exchange.timeline.read <= Some(time)) {
            exchange.incomplete(reason(loss));
            exchange.response_lost = true;
            exchange.counts_tokens = false;
        }
    }
}

fn keep(config: &TrackerConfig, left: Option<KernelTime>) -> Keep<'_> {
    Keep { gap_bounds: &config.gap_bounds, chunk_times: config.chunk_times, left }
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
