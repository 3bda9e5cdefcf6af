//! Requests, as the server reads them.

use std::sync::Arc;

use super::{Begun, Context, PIPELINE_MAX, Session, account, reason};
use crate::{
    connection::stream::{Chunk, Segment},
    event::{Content, Direction},
    llm::{
        RequestFacts,
        json::{Path, Value},
        route,
    },
    protocol::{
        Loss,
        http1::Frame,
        http1_head::{Kind, Method, Request, RequestHead, request_line},
    },
    request::{
        record::IncompleteReason,
        timeline::{Ending, Exchange},
        tracker::Sink,
    },
};

impl Session {
    /// Reads what the server read.
    pub(super) fn read(&mut self, segment: &mut Segment<'_>, context: &mut Context<'_, impl Sink>) {
        loop {
            let mut chunk = segment.front();
            if let Some(content) = self.opaque {
                return self.pass(content, Direction::Receive, segment, context);
            }
            if self.receive_lost && !chunk.is_empty() {
                let begins = matches!(chunk, Chunk::Data(bytes) if segment.begins_call && Request::is_plausible(bytes));
                if !begins {
                    account(Direction::Receive, &chunk, segment.lost, !self.joined, context);
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
                Some(Frame::Body(chunk)) => {
                    if self.coded_request {
                        self.count(Content::Compressed, Direction::Receive, chunk.len(), context);
                    }
                    self.request_body(chunk);
                }
                Some(Frame::End) => self.request_end(segment, context),
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
        self.coded_request = head.coded && route.is_some();
        if head.coded || route.is_none() {
            self.request_json.end(&mut |_: &Path<'_>, _: Value<'_>| {});
        }
        let RequestHead { method, request_id, trace_id, wanted, target, .. } = head;
        let mut exchange = Exchange::new(route, method);
        (exchange.request_id, exchange.trace_id) = (request_id, trace_id);
        exchange.request_model = route.and_then(|route| route.model(&target)).map(Into::into);
        exchange.labels = context.config.labels.of(&wanted);
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
        // Seen late, when bytes were passed over that may have been the response.
        exchange.response_lost = self.send_lost && self.written >= read;
        if self.ambiguous || exchange.response_lost {
            exchange.incomplete(IncompleteReason::FramingGap);
        }
        context.hops.begun(&self.info, &mut exchange);
        self.exchanges.push_back(exchange);
    }

    /// A client asks again after it was answered: what was lost of earlier responses is over. Returns how many.
    pub(super) fn finish_lost(&mut self, context: &mut Context<'_, impl Sink>) -> usize {
        let before = self.exchanges.len();
        while self.exchanges.front().is_some_and(|front| front.response_lost) {
            self.finish_front(Ending::Unknown(IncompleteReason::FramingGap), context);
        }
        before - self.exchanges.len()
    }

    fn request_body(&mut self, chunk: Chunk<'_>) {
        let Some(exchange) = self.exchanges.back_mut().filter(|_| self.reading) else { return };
        if exchange.route.is_none() {
            return;
        }
        let facts = &mut self.request_facts;
        let mut visit = |path: &Path<'_>, value: Value<'_>| {
            if path.depth() == 1
                && let Some(key) = path.key()
            {
                exchange.has_key(key);
            }
            if let Some(route) = exchange.route {
                route.dialect.request(path, &value, facts);
            }
        };
        match chunk {
            Chunk::Data(bytes) => self.request_json.feed(bytes, &mut visit),
            // What is behind a hole might be text that looks like a key.
            Chunk::Gap(_) => self.request_json.end(&mut visit),
        }
        exchange.operation = facts.operation;
        if facts.model.is_some() && facts.stream.is_some() && exchange.is_llm() {
            self.request_json.end(&mut |_: &Path<'_>, _: Value<'_>| {});
        }
        if let Some(model) = &facts.model
            && exchange.request_model.is_none()
        {
            exchange.request_model = Some(Arc::clone(model));
        }
    }

    fn request_end(&mut self, segment: &Segment<'_>, context: &mut Context<'_, impl Sink>) {
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
            context.hops.asked(&self.info, exchange);
            if exchange.is_llm() {
                context.sink.asked(&self.info);
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
                exchange.labels = context.config.labels.of(&[]);
                self.begin_exchange(exchange, context);
            }
        }
        self.hidden_requests |= loss != Loss::Unparsable;
    }
}
