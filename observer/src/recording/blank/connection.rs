//! One connection as the blanker sees it: calls put in order, parsers on both directions, and what each byte is. It
//! follows `request::session` in what is held back, given up and taken up again, because what that cannot read need
//! not be kept, and what it can must be.

use std::{collections::VecDeque, time::Duration};

use super::{
    Counts, Window,
    half::{Body, Call, Half, distance},
    head::Head,
    sse::{Lines, Sse},
};
use crate::{
    connection::stream::{Chunk, HELD_SEGMENTS},
    event::{Direction, Open},
    llm::route::{self, Route},
    protocol::{
        Loss,
        http1::Frame,
        http1_head::{Content, Kind, Method, Request, Response, request_line},
    },
    time::KernelTime,
};

/// As a session's.
const PIPELINE_MAX: usize = 64;
const SEND_LAG: Duration = Duration::from_micros(200);

/// A request whose response is to come.
#[derive(Clone, Copy, Debug)]
struct Asked {
    method: Method,
    route: Option<&'static Route>,
    read: KernelTime,
    /// When it was read whole, and when its response began.
    ready: Option<KernelTime>,
    header: Option<KernelTime>,
    /// Its response began before it was read to its end: that was waited for.
    answered_early: bool,
    /// Its response cannot be told from others.
    lost: bool,
    incomplete: bool,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    receive: Half<Request>,
    send: Half<Response>,
    events: Sse,
    lines: Lines,
    exchanges: VecDeque<Asked>,
    begun: KernelTime,
    written: KernelTime,
    /// The body of the last request is being read.
    reading: bool,
    opaque: bool,
    /// As a session's: what is known of requests that went unseen, and of which response answers which request.
    hidden_requests: bool,
    seen_response: bool,
    pipelines: bool,
    ambiguous: bool,
    response_begun: KernelTime,
}

impl Connection {
    pub(super) fn new(open: &Open, kept: &[String]) -> Self {
        Self {
            receive: Half::new(Head::new(true, kept), open.receive_sequence, open.mid_request),
            send: Half::new(Head::new(false, &[]), open.send_sequence, open.mid_request),
            events: Sse::default(),
            lines: Lines::default(),
            exchanges: VecDeque::new(),
            begun: KernelTime::default(),
            written: KernelTime::default(),
            reading: false,
            opaque: false,
            hidden_requests: false,
            seen_response: open.send_sequence.is_some() && !open.mid_request,
            pipelines: false,
            ambiguous: false,
            response_begun: KernelTime::default(),
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !(self.receive.held.is_empty() && self.send.held.is_empty())
    }

    /// Takes a call, in the order of the ring.
    pub(super) fn call(&mut self, call: Call, window: &mut Window, counts: &mut Counts) {
        let (raw, _) = window.part(call.block, call.head.clone());
        match call.direction {
            Direction::Receive if call.length == 0 => {}
            Direction::Receive => {
                let starts = self.receive.lost || Request::is_plausible(raw);
                if let Some(call) = self.receive.accept(call, starts) {
                    self.deliver_receive(call, window, counts);
                }
            }
            Direction::Send => {
                let starts = self.send.lost || call.length == 0 || Response::is_plausible(raw);
                if let Some(call) = self.send.accept(call, starts) {
                    self.deliver_send(call, window, counts);
                }
            }
        }
        self.pump(window, counts);
        while self.receive.held.len() > HELD_SEGMENTS || self.send.held.len() > HELD_SEGMENTS {
            self.give_up(window, counts);
        }
    }

    /// Stops waiting for what is overdue.
    pub(super) fn expire(&mut self, now: KernelTime, window: &mut Window, counts: &mut Counts) {
        while self.receive.is_overdue(now) || self.send.is_overdue(now) {
            self.give_up(window, counts);
        }
    }

    /// Forgets held calls of blocks before `block`: their bytes are written as they are, blank.
    pub(super) fn forget_before(&mut self, block: u64, counts: &mut Counts) {
        for held in [&mut self.receive.held, &mut self.send.held] {
            held.retain(|call| {
                let keep = call.block >= block;
                if !keep {
                    counts.add(call);
                }
                keep
            });
        }
    }

    fn deliver_receive(&mut self, mut call: Call, window: &mut Window, counts: &mut Counts) {
        self.read(&mut call, window);
        self.receive.delivered(&call);
        if call.unplaced {
            counts.add(&call);
        }
    }

    fn deliver_send(&mut self, mut call: Call, window: &mut Window, counts: &mut Counts) {
        self.write(&mut call, window);
        self.send.delivered(&call);
        if call.left() > 0 {
            self.send.held.push_front(call);
        } else if call.unplaced {
            counts.add(&call);
        }
    }

    fn pump(&mut self, window: &mut Window, counts: &mut Counts) {
        while let Some(call) = self.receive.pop() {
            self.deliver_receive(call, window, counts);
        }
        while !self.must_wait() {
            let Some(call) = self.send.pop() else { return };
            self.deliver_send(call, window, counts);
        }
    }

    /// Whether the held write that is next begins a response whose request was not seen yet, or not to its end.
    fn must_wait(&self) -> bool {
        let begins = !self.opaque && !self.send.lost && self.send.parser.at_boundary();
        let Some(front) = self.send.held.front().filter(|_| begins) else { return false };
        let is_next = self.send.next.is_some_and(|next| distance(front.position(), next) <= 0);
        is_next && front.left() > 0 && (!self.is_expected(front.time.max(self.send.clock)) || self.is_early())
    }

    fn is_expected(&self, time: KernelTime) -> bool {
        self.exchanges.iter().find(|asked| !asked.lost).is_some_and(|asked| asked.read <= time)
    }

    /// Whether the response that comes next is to a request that is still being read.
    fn is_early(&self) -> bool {
        let mut waiting = self.exchanges.iter().filter(|asked| !asked.lost);
        self.reading && waiting.next().is_some_and(|next| !next.answered_early) && waiting.next().is_none()
    }

    fn give_up(&mut self, window: &mut Window, counts: &mut Counts) {
        if let Some(gap) = self.receive.gap() {
            self.deliver_receive(gap, window, counts);
        }
        self.pump(window, counts);
        let begun = self.send.held.front().map(|front| front.time.max(self.send.clock));
        if self.must_wait() && begun.is_some_and(|time| self.is_expected(time)) {
            if let Some(next) = self.exchanges.iter_mut().find(|asked| !asked.lost) {
                next.answered_early = true;
            }
        } else if self.must_wait() {
            self.send.lost = true;
        } else if let Some(gap) = self.send.gap() {
            self.deliver_send(gap, window, counts);
        }
        self.pump(window, counts);
    }

    fn read(&mut self, call: &mut Call, window: &mut Window) {
        loop {
            if self.opaque {
                pass_all(call);
                return;
            }
            if self.receive.lost && call.left() > 0 {
                let begins = call.done == 0
                    && call.front().is_ok_and(|range| Request::is_plausible(window.part(call.block, range).0));
                if !begins {
                    pass(call);
                    continue;
                }
                self.receive.lost = false;
                self.receive.parser.reset();
            }
            let (frame, out) = self.receive.step(call, window, Method::Other);
            match frame {
                None if call.left() == 0 => return,
                None => {}
                Some(Frame::Begin) => {
                    self.begun = call.time;
                    self.receive.begin();
                }
                Some(Frame::Head(head)) => {
                    let route = route::find(head.method, &head.target);
                    self.receive.body = if head.coded || route.is_none() { Body::Text } else { Body::Json };
                    self.receive.json.reset(true);
                    self.ask(head.method, route, false);
                    self.reading = true;
                }
                Some(Frame::Body(chunk)) => match (chunk, self.receive.body) {
                    (Chunk::Data(bytes), Body::Json) => self.receive.json.feed(bytes, out),
                    (Chunk::Gap(_), Body::Json) => self.receive.json.end(),
                    _ => {}
                },
                Some(Frame::End) => {
                    if let Some(back) = self.exchanges.back_mut().filter(|_| self.reading) {
                        back.incomplete |= call.lost;
                        back.ready = Some(call.time).filter(|time| back.header.is_none_or(|header| header >= *time));
                    }
                    self.reading = false;
                }
                Some(Frame::Lost(loss)) => {
                    call.unplaced |= loss == Loss::Unparsable;
                    self.receive.lost = true;
                    if std::mem::take(&mut self.reading) {
                        if let Some(back) = self.exchanges.back_mut() {
                            back.incomplete = true;
                        }
                    } else if let Some((method, target)) = request_line(self.receive.parser.head_bytes()) {
                        // A response will come.
                        let route = route::find(method, target);
                        self.ask(method, route, true);
                    }
                    self.hidden_requests |= loss != Loss::Unparsable;
                }
            }
        }
    }

    fn ask(&mut self, method: Method, route: Option<&'static Route>, incomplete: bool) {
        let gone = self.finish_lost();
        self.pipelines |= self.exchanges.back().is_some_and(|back| back.ready >= Some(self.begun));
        self.ambiguous |= (gone > 1 && self.pipelines) || (self.hidden_requests && !self.exchanges.is_empty());
        self.hidden_requests &= !self.exchanges.is_empty();
        if self.exchanges.len() >= PIPELINE_MAX {
            self.ambiguous = true;
            self.exchanges.clear();
            self.send.lost = true;
        }
        let lost = self.send.lost && self.written >= self.begun;
        let incomplete = incomplete || lost || self.ambiguous;
        self.exchanges.push_back(Asked {
            method,
            route,
            read: self.begun,
            ready: None,
            header: None,
            answered_early: false,
            lost,
            incomplete,
        });
    }

    fn finish_lost(&mut self) -> usize {
        let before = self.exchanges.len();
        while self.exchanges.front().is_some_and(|front| front.lost) {
            self.exchanges.pop_front();
        }
        before - self.exchanges.len()
    }

    /// As a session does, where this may as well be a later request's response.
    fn response_begins(&mut self, time: KernelTime) {
        let mut exchanges = self.exchanges.iter();
        let front = exchanges.next();
        let head = self.receive.parser.in_head().then_some(self.begun);
        let next = exchanges.next().map_or(head, |asked| Some(asked.read));
        let asked_again =
            next.is_some_and(|read| read + SEND_LAG < time) && front.is_some_and(|front| next > front.ready);
        let may_have = front.is_some_and(|front| !front.incomplete)
            && (self.hidden_requests || self.receive.lost || !self.receive.held.is_empty());
        if !self.seen_response && (asked_again || may_have) {
            self.response_lost(time);
        }
        self.pipelines |= asked_again;
        self.seen_response = true;
        self.response_begun = time;
    }

    /// Leaves bytes of `call` where a response begins whose request was not seen.
    fn write(&mut self, call: &mut Call, window: &mut Window) {
        if call.length == 0 && matches!(call.errno, libc::EPIPE | libc::ECONNRESET | libc::ETIMEDOUT) {
            self.exchanges.clear();
            self.send.lost |= !self.send.parser.at_boundary();
        }
        if call.left() == 0 {
            return;
        }
        loop {
            if self.opaque {
                pass_all(call);
                return;
            }
            let expected = self.is_expected(call.time);
            let more = call.left() > 0;
            if more && self.send.lost {
                let begins = call.done == 0
                    && call.front().is_ok_and(|range| {
                        let raw = window.part(call.block, range).0;
                        raw.len() >= 7 && Response::is_plausible(raw)
                    });
                if !(begins && expected) {
                    pass(call);
                    self.wrote(call);
                    if expected {
                        self.response_lost(call.time);
                    }
                    continue;
                }
                self.send.lost = false;
                self.send.parser.reset();
                self.finish_lost();
            } else if more && self.send.parser.at_boundary() && !call.lost && (!expected || self.is_early()) {
                return;
            }
            if more {
                self.wrote(call);
            }
            let answers = self.exchanges.front().map_or(Method::Other, |front| front.method);
            let route = self.exchanges.front().and_then(|front| front.route);
            let anchors = route.map_or(&[][..], |route| route.dialect.anchors());
            let (frame, out) = self.send.step(call, window, answers);
            if frame.is_none()
                && self.send.parser.at_boundary()
                && let Some(front) = self.exchanges.front_mut()
            {
                front.answered_early = false;
            }
            match frame {
                None if call.left() == 0 => return,
                None => {}
                Some(Frame::Begin) => {
                    self.send.begin();
                    self.response_begins(call.time);
                }
                Some(Frame::Head(head)) => {
                    self.opaque = head.tunnel;
                    let begun = self.response_begun;
                    if let Some(front) = self.exchanges.front_mut() {
                        front.header = Some(begun);
                        front.ready = front.ready.filter(|ready| *ready <= begun);
                    }
                    self.send.body = match head.content {
                        _ if head.coded || route.is_none() => Body::Text,
                        Content::EventStream => Body::Events,
                        Content::Ndjson => Body::Lines,
                        Content::Json => Body::Json,
                        Content::Other => Body::Text,
                    };
                    self.send.json.reset(false);
                    self.events.reset();
                    self.lines.reset();
                }
                Some(Frame::Body(chunk)) => match (chunk, self.send.body) {
                    (_, Body::Text) => {}
                    (Chunk::Data(bytes), Body::Json) => self.send.json.feed(bytes, out),
                    (Chunk::Gap(_), Body::Json) => self.send.json.gap(anchors),
                    (Chunk::Data(bytes), Body::Lines) => self.lines.feed(bytes, out),
                    (Chunk::Gap(_), Body::Lines) => self.lines.gap(anchors),
                    (Chunk::Data(bytes), Body::Events) => self.events.feed(bytes, out),
                    (Chunk::Gap(_), Body::Events) => self.events.gap(anchors),
                },
                Some(Frame::End) => {
                    self.exchanges.pop_front();
                }
                Some(Frame::Lost(loss)) => {
                    call.unplaced |= loss == Loss::Unparsable;
                    self.response_lost(call.time);
                }
            }
        }
    }

    fn wrote(&mut self, call: &Call) {
        if !call.lost {
            self.written = call.time;
        }
    }

    fn response_lost(&mut self, time: KernelTime) {
        self.send.lost = true;
        for asked in self.exchanges.iter_mut().take_while(|asked| asked.read <= time) {
            (asked.lost, asked.incomplete) = (true, true);
        }
    }
}

/// Passes over what is left of a call: nobody reads it.
fn pass_all(call: &mut Call) {
    call.unplaced |= call.left() > 0;
    call.done = call.length;
}

/// Passes over what is next in a call, whatever it is.
fn pass(call: &mut Call) {
    let (length, captured) = match call.front() {
        Ok(range) => (range.len() as u64, true),
        Err(gap) => (gap, false),
    };
    call.advance(length);
    call.unplaced |= captured;
}
