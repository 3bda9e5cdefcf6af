//! Responses, as the server writes them.

use super::{Context, SEND_LAG, Session, account, reason};
use crate::{
    connection::stream::{Chunk, Segment},
    event::{Content, Direction, OpaqueReason},
    protocol::{
        Loss,
        http1::Frame,
        http1_head::{Kind, Method, Response, ResponseHead},
    },
    request::{
        record::IncompleteReason,
        timeline::{Ending, Keep, Write},
        tracker::{Sink, TrackerConfig},
    },
    time::KernelTime,
};

impl Session {
    /// Reads what the server wrote. Leaves bytes of `segment` where a response begins whose request was not seen, or not to
    /// its end.
    pub(super) fn write(&mut self, segment: &mut Segment<'_>, context: &mut Context<'_, impl Sink>) {
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
        let write = Write { time: segment.time, unsent: segment.unsent > 0, call: self.call, lost: segment.lost };
        loop {
            let mut chunk = segment.front();
            if let Some(content) = self.opaque {
                return self.pass(content, Direction::Send, segment, context);
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
                } else if self.responses.at_boundary() && !segment.lost && (!expected || self.is_early()) {
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
            if frame.is_none() && self.responses.at_boundary() {
                self.interim_is_over();
            }
            match frame {
                None if segment.is_empty() => return,
                None => {}
                Some(Frame::Begin) => self.response_begins(&write),
                Some(Frame::Head(head)) => self.response_head(&head, &write, context),
                Some(Frame::Body(chunk)) => {
                    if self.coded_response {
                        self.count(Content::Compressed, Direction::Send, chunk.len(), context);
                    }
                    let keep = keep(context.config, self.client_left);
                    if let Some(front) = self.exchanges.front_mut() {
                        self.reader.body(chunk, front, &write, &keep, context.scratch);
                    }
                }
                Some(Frame::End) => {
                    // When bytes were written that no call was seen for cannot be told.
                    if let Some(front) = self.exchanges.front_mut().filter(|_| segment.lost) {
                        front.incomplete(IncompleteReason::FramingGap);
                        front.end_lost = true;
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
                let (seen, attempt) = (segment.time, Some(segment.time));
                self.finish_all(Ending::ClientGone { left, seen, attempt, written: self.written }, context);
            }
            _ => {}
        }
    }

    fn response_begins(&mut self, write: &Write) {
        let mut exchanges = self.exchanges.iter();
        let front = exchanges.next();
        let head = self.requests.in_head().then_some(self.begun.read);
        let next = exchanges.next().map_or(head, |exchange| exchange.timeline.read);
        // The client asked again, some time ago.
        let asked_again = next.is_some_and(|read| read + SEND_LAG < write.time)
            && front.is_some_and(|front| next > front.timeline.ready);
        let may_have = front.is_some_and(|front| front.incomplete.is_none())
            && (self.hidden_requests || self.receive_lost || self.receive.is_holding());
        // Where a stream begins may not be known. Then nobody can tell that bytes are missing before its first ones, and
        // this may as well be a later response.
        if !self.seen_response && (asked_again || may_have) {
            self.response_lost(Loss::FramingGap, write.time);
        }
        self.pipelines |= asked_again;
        self.seen_response = true;
        self.response_begun = Some(*write);
    }

    fn response_head(&mut self, head: &ResponseHead, write: &Write, context: &mut Context<'_, impl Sink>) {
        if head.tunnel {
            let (reason, content) = match head.status {
                101 => (OpaqueReason::Upgrade, Content::Upgrade),
                _ => (OpaqueReason::Connect, Content::Connect),
            };
            self.opaque = Some(content);
            context.sink.opaque(&self.info, reason);
            if let Some(exchange) = self.exchanges.pop_front() {
                context.hops.over(&self.info, &exchange);
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
        front.counted(head.prompt_tokens, head.generated_tokens);
        self.reader.begin(head, front);
        self.coded_response = head.coded && front.route.is_some();
        if self.coded_response && !std::mem::replace(&mut self.compressed, true) {
            context.sink.opaque(&self.info, OpaqueReason::Compressed);
        }
    }

    /// An interim response comes before the end of its request by nature; the final one is waited for again.
    fn interim_is_over(&mut self) {
        if let Some(front) = self.exchanges.front_mut() {
            front.answered_early = false;
        }
    }

    pub(super) fn response_end(&mut self, write: &Write, context: &mut Context<'_, impl Sink>) {
        let keep = keep(context.config, self.client_left);
        if let Some(front) = self.exchanges.front_mut() {
            front.measured(write);
            self.reader.end(front, write, &keep, context.scratch);
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
