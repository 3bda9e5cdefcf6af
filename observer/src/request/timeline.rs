//! One request and its response while they are under way: measured points become a record.

use std::{sync::Arc, time::Duration};

use super::{
    hidden::{Before, Content, Hidden},
    record::{
        ConnectionInfo, Gaps, HeaderLabel, IncompleteReason, Operation, Outcome, RequestRecord, Role, Timeline, Usage,
    },
};
use crate::{
    llm::{FINISH_REASONS, Facts, Finish, parts::Parts, route::Route},
    protocol::http1_head::Method,
    time::KernelTime,
};

/// Most token events whose times are kept.
pub(super) const CHUNK_TIMES_MAX: usize = 1_000_000;

/// The write that handed some bytes over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    pub(super) time: KernelTime,
    /// Bytes had not left for the network then.
    pub(super) unsent: bool,
    /// Which one, of this connection.
    pub(super) call: u64,
    /// No call was seen for these bytes: there may have been several, at any time before.
    pub(super) lost: bool,
}

/// How the end of a request came.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    /// The last byte of the response was handed over.
    Complete(KernelTime),
    /// The client had left at `left`, seen for certain at `seen`; `attempt` was the server's last write, in vain or
    /// not (`None`: it was lost), and `written` the last that succeeded.
    ClientGone { left: KernelTime, seen: KernelTime, attempt: Option<KernelTime>, written: KernelTime },
    /// The server closed the connection.
    ServerClosed(KernelTime),
    /// Nothing more will be known.
    Unknown(IncompleteReason),
}

/// When the response before a request ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct PreviousEnd {
    pub(super) time: KernelTime,
    /// It was lost: `time` is a later moment.
    pub(super) lost: bool,
}

/// How gaps between token events are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep<'a> {
    pub(super) gap_bounds: &'a [f64],
    pub(super) chunk_times: bool,
    /// When the client left, if it did.
    pub(super) left: Option<KernelTime>,
}

/// A request under way.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    pub(super) route: Option<&'static Route>,
    /// The route holds, beyond its path.
    confirmed: bool,
    /// Nothing was generated, nor was that asked for.
    control: bool,
    /// What the body says of the operation.
    pub(super) operation: Option<Operation>,
    /// Which of the requests under way it is, to `Hops`.
    pub(super) flight: u64,
    pub(super) method: Method,
    /// Its response began before the request was read to its end: that was waited for.
    pub(super) answered_early: bool,
    pub(super) timeline: Timeline,
    pub(super) request_model: Option<Arc<str>>,
    pub(super) request_id: Option<Box<str>>,
    pub(super) trace_id: Option<Box<str>>,
    pub(super) labels: Box<[HeaderLabel]>,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) status: Option<u16>,
    pub(super) stream: Option<bool>,
    pub(super) write_blocked: Duration,
    pub(super) incomplete: Option<IncompleteReason>,
    /// What belongs to its response cannot be told any more: it ends with the next request or the connection.
    pub(super) response_lost: bool,
    /// The end of its response was lost; only a later moment is known.
    pub(super) end_lost: bool,
    /// Its stream's events are being counted.
    pub(super) counts_tokens: bool,
    /// The stream said that it is complete.
    pub(super) done: bool,
    error: bool,
    hidden: Hidden,
    /// How far generation came, where events say that.
    progress: u64,
    /// The number of the last event, where they have one.
    sequence: Option<u64>,
    token_events: u64,
    coalesced: u64,
    gaps: Gaps,
    /// The bucket of the last gap.
    gap_bucket: usize,
    chunk_times: Vec<KernelTime>,
    chunk_unsent: Vec<u32>,
    unsent_stamps: u64,
    unsent_call: Option<u64>,
    token_call: Option<u64>,
    reasoning_first: bool,
    /// `timeline.last` and `gaps` when the client left, once there are token events after that.
    before_left: Option<(Option<KernelTime>, Gaps)>,
    response_model: Option<Arc<str>>,
    usage: Usage,
    parts: Parts,
    finish: Vec<Finish>,
}

impl Exchange {
    /// A request that begins.
    pub(super) fn new(route: Option<&'static Route>, method: Method) -> Self {
        let confirmed = route.is_some_and(Route::is_certain);
        Self { route, confirmed, method, ..Self::default() }
    }

    /// The request's body has this key at its root.
    pub(super) fn has_key(&mut self, key: &[u8]) {
        if !self.confirmed
            && let Some(route) = self.route.and_then(|route| route.by_key(key))
        {
            (self.route, self.confirmed) = (Some(route), true);
        }
    }

    /// Whether it is known to be for a language model.
    pub(super) fn is_llm(&self) -> bool {
        self.confirmed && !self.control
    }

    /// The first reason to call it incomplete stands.
    pub(super) fn incomplete(&mut self, reason: IncompleteReason) {
        self.incomplete.get_or_insert(reason);
    }

    /// A point of the timeline was measured at `write`.
    pub(super) fn measured(&mut self, write: &Write) {
        if write.unsent && self.unsent_call.replace(write.call) != Some(write.call) {
            self.unsent_stamps += 1;
        }
    }

    /// What the response's head says of tokens.
    pub(super) fn counted(&mut self, input: Option<u64>, output: Option<u64>) {
        (self.usage.input, self.usage.output) = (input, output);
    }

    /// What a stream event or an answer says.
    pub(super) fn learn(&mut self, facts: &mut Facts) {
        self.error |= facts.error;
        self.done |= facts.done;
        self.control |= facts.control;
        if let Some(model) = facts.model()
            && !self.response_model.as_ref().is_some_and(|known| Arc::ptr_eq(known, model))
            && self.response_model.as_deref() != Some(&**model)
        {
            self.response_model = Some(Arc::clone(model));
        }
        if facts.has_counts() {
            // What came before stays as it was; the output's count grows, and of several prompts each has its own.
            self.hidden.usage &= facts.counts().output.is_none() || facts.part.is_some();
            self.confirmed |= self.route.is_some();
            self.parts.learn(facts, &mut self.usage);
        }
        for finish in facts.finish.drain(..) {
            let known = |seen: &Finish| seen.index == finish.index && seen.reason == finish.reason;
            if self.finish.len() < FINISH_REASONS && !self.finish.iter().any(known) {
                self.finish.push(finish);
            }
        }
    }

    /// The model that answers, where it is known.
    pub(super) fn response_model(&self) -> Option<&Arc<str>> {
        self.response_model.as_ref()
    }

    /// Whether nothing but the end of the message follows.
    pub(super) fn is_last(&self) -> bool {
        self.done || self.error
    }

    /// Whether generation came farther with an event that `write` handed over. `None`: it came farther, perhaps with
    /// what an earlier call hid.
    pub(super) fn advances(&mut self, facts: &Facts, write: &Write) -> Option<bool> {
        let farther = match self.parts.progress(facts) {
            Some(progress) => {
                let before = self.progress;
                self.progress = progress.max(before);
                progress > before
            }
            None => true,
        };
        let known = self.hidden.progress.is_none_or(|call| call == write.call);
        // Of several prompts, others may have come farther in the hole than this one.
        if facts.part.is_none() {
            self.hidden.progress = None;
        }
        if farther && !known { None } else { Some(farther) }
    }

    /// Whether there were token events, or may have been.
    pub(super) fn may_have_tokens(&self) -> bool {
        self.token_events > 0 || self.hidden.progress.is_some()
    }

    /// `write` may have handed over token events, any number of them.
    pub(super) fn may_hold_tokens(&mut self, write: &Write) {
        self.counts_tokens = false;
        if self.token_call != Some(write.call) {
            self.doubt(Some(write.call));
        }
        let first_content = self.timeline.first_content.is_some();
        if self.token_events == 0 {
            self.hidden.content = Content::Unknown;
        } else if self.reasoning_first && !first_content && self.hidden.content == Content::Known {
            self.hidden.content = Content::In(write.call);
        }
    }

    /// `write` handed over bytes that may have held any events.
    pub(super) fn hides(&mut self, write: &Write) {
        self.may_hold_tokens(write);
        self.hides_end();
        self.hidden.progress.get_or_insert(write.call);
    }

    /// Bytes may have held an error, or the mark that the stream is complete.
    pub(super) fn hides_end(&mut self) {
        (self.hidden.error, self.hidden.done) = (true, true);
    }

    /// A hole follows. To be called before what it hides is told.
    pub(super) fn before_hole(&mut self) {
        let Hidden { token, error, done, content, .. } = self.hidden;
        self.hidden.before = Some(Before { counts_tokens: self.counts_tokens, token, error, done, content });
    }

    /// What the last hole hid matters, even if it is of one event only.
    pub(super) fn hides_something(&mut self) {
        self.hidden.before = None;
    }

    /// An event has the number `sequence`, or none. If it is the next one, or still the same, the last hole hid no
    /// event: all is as it was before it. Whether that is so.
    pub(super) fn in_sequence(&mut self, sequence: Option<u64>) -> bool {
        let before = self.hidden.before.take();
        let Some(sequence) = sequence else { return false };
        let last = self.sequence.replace(sequence);
        let follows = last == Some(sequence) || last.map_or(Some(0), |last| last.checked_add(1)) == Some(sequence);
        let Some(Before { counts_tokens, token, error, done, content }) = before.filter(|_| follows) else {
            return false;
        };
        self.counts_tokens = counts_tokens;
        // Unless it is known by now that the call handed one over.
        let token = self.hidden.token.and(token);
        self.hidden = Hidden { token, error, done, content, ..self.hidden };
        true
    }

    /// Bytes may have held newer token counts.
    pub(super) fn hides_counts(&mut self) {
        self.hidden.usage = true;
    }

    /// What follows would not follow an error; nor the mark that the stream is complete, unless it may be that itself.
    pub(super) fn goes_on(&mut self, may_be_last: bool) {
        self.hidden.error = false;
        self.hidden.done &= may_be_last;
    }

    /// `call`, if any, may have handed over a token event: so did, for certain, any earlier one that may have, or the
    /// timeline is not known.
    fn doubt(&mut self, call: Option<u64>) {
        let earlier = std::mem::replace(&mut self.hidden.token, call);
        if earlier.is_some_and(|earlier| call != Some(earlier)) {
            self.incomplete(IncompleteReason::TokenGap);
        }
    }

    /// A token event was handed over, whole, by `write`.
    pub(super) fn token(&mut self, write: &Write, content: bool, keep: &Keep<'_>) {
        self.measured(write);
        if self.hidden.token.is_some() {
            self.doubt(Some(write.call));
            self.hidden.token = None;
        }
        if keep.left.is_some_and(|left| write.time > left) {
            self.before_left.get_or_insert_with(|| (self.timeline.last, self.gaps.clone()));
        }
        if self.token_events == 0 {
            self.timeline.first = Some(write.time);
            self.reasoning_first = !content;
        } else if content && self.reasoning_first && self.hidden.content.may_be_in(write.call) {
            self.timeline.first_content.get_or_insert(write.time);
        }
        // A call that is told of again, longer, has another time.
        let same_time = self.timeline.last == Some(write.time);
        if self.token_call.replace(write.call) == Some(write.call) && same_time {
            self.coalesced += 1;
        } else if let Some(last) = self.timeline.last {
            self.gap(write.time.saturating_since(last), keep.gap_bounds);
        }
        self.timeline.last = Some(write.time);
        self.token_events += 1;
        if keep.chunk_times && self.chunk_times.len() < CHUNK_TIMES_MAX {
            if write.unsent {
                // Below CHUNK_TIMES_MAX, so it fits.
                self.chunk_unsent.push(self.chunk_times.len() as u32);
            }
            self.chunk_times.push(write.time);
        }
    }

    fn gap(&mut self, gap: Duration, bounds: &[f64]) {
        if self.gaps.buckets.is_empty() {
            self.gaps.buckets = vec![0; bounds.len() + 1].into_boxed_slice();
        }
        let seconds = gap.as_secs_f64();
        // A stream's gaps are alike: most fall where the last one fell.
        let last = self.gap_bucket;
        let above = last.checked_sub(1).is_none_or(|below| bounds.get(below).is_some_and(|bound| *bound < seconds));
        let bucket = match bounds.get(last) {
            Some(bound) if above && *bound >= seconds => last,
            _ => bounds.partition_point(|bound| *bound < seconds),
        };
        self.gap_bucket = bucket;
        self.gaps.buckets[bucket] = self.gaps.buckets[bucket].saturating_add(1);
        self.gaps.count += 1;
        self.gaps.sum = self.gaps.sum.saturating_add(gap);
        self.gaps.max = self.gaps.max.max(gap);
    }

    /// The record of the request that ended so. `previous`: the end of the response before it.
    pub(super) fn finish(
        mut self,
        ending: Ending,
        previous: Option<PreviousEnd>,
        connection: &Arc<ConnectionInfo>,
    ) -> Option<RequestRecord> {
        let route = self.route.filter(|_| self.is_llm())?;
        self.doubt(None);
        let left = matches!(ending, Ending::ClientGone { .. });
        if !self.error && (self.hidden.error || (left && self.hidden.done && !self.done)) {
            self.incomplete(IncompleteReason::TokenGap);
        }
        if self.hidden.usage {
            self.usage = Usage::default();
        }
        if !self.counts_tokens {
            (self.coalesced, self.chunk_times, self.chunk_unsent) = (0, Vec::new(), Vec::new());
        }
        let mut cancelled_work = None;
        let outcome = match ending {
            Ending::Unknown(reason) => {
                self.incomplete(reason);
                Outcome::Incomplete
            }
            Ending::Complete(end) => self.complete(end),
            // The client had all it wanted: nobody has to read the last chunk.
            Ending::ClientGone { written, .. } if self.done || self.error => self.complete(written),
            Ending::ClientGone { left, seen, attempt, .. } => {
                cancelled_work = match self.timeline.header {
                    Some(_) => attempt.map(|attempt| attempt.saturating_since(left)),
                    None => Some(Duration::ZERO),
                };
                self.cancel(left.min(seen));
                Outcome::Cancelled
            }
            Ending::ServerClosed(end) => {
                self.timeline.end = self.latest().max(Some(end));
                if self.error { Outcome::ErrorInStream } else { Outcome::Truncated }
            }
        };
        let outcome = if self.incomplete.is_some() { Outcome::Incomplete } else { outcome };
        let timeline = &mut self.timeline;
        timeline.arrival_unknown = timeline.arrive.is_none();
        let previous = previous.filter(|previous| timeline.start().is_some_and(|start| previous.time > start));
        timeline.turn_unknown = previous.is_some_and(|previous| previous.lost);
        let known = previous.filter(|previous| !previous.lost).map(|previous| previous.time);
        timeline.head_of_line_until =
            known.filter(|previous| timeline.header.or(timeline.end).is_none_or(|next| *previous <= next));
        self.finish.sort_by_key(|finish| finish.index);
        Some(RequestRecord {
            connection: Arc::clone(connection),
            operation: self.operation.unwrap_or(route.operation),
            api: route.dialect.name(),
            role: Role::default(),
            request_model: self.request_model,
            response_model: self.response_model,
            stream: self.stream,
            outcome,
            incomplete: self.incomplete,
            status: self.status,
            timeline: self.timeline,
            token_events: self.counts_tokens.then_some(self.token_events),
            coalesced: self.coalesced,
            gaps: self.gaps,
            chunk_times: self.chunk_times,
            chunk_unsent: self.chunk_unsent,
            unsent_stamps: self.unsent_stamps,
            usage: self.usage,
            finish_reasons: self.finish.into_iter().map(|finish| finish.reason).collect(),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            write_blocked: self.write_blocked,
            cancelled_work: cancelled_work.filter(|_| outcome == Outcome::Cancelled),
            first_read: None,
            request_id: self.request_id,
            trace_id: self.trace_id,
            labels: self.labels,
        })
    }

    /// The latest point so far: events taken on several CPUs may lie microseconds off their order.
    fn latest(&self) -> Option<KernelTime> {
        let timeline = &self.timeline;
        timeline.read.max(timeline.ready).max(timeline.header).max(timeline.last)
    }

    fn complete(&mut self, end: KernelTime) -> Outcome {
        self.timeline.end = self.latest().max(Some(end));
        match self.status {
            Some(200..=299) if self.error => Outcome::ErrorInStream,
            Some(200..=299) => Outcome::Ok,
            _ => Outcome::HttpError,
        }
    }

    /// The request was over at `end`: what the server did after that was in vain and is not on the timeline.
    fn cancel(&mut self, end: KernelTime) {
        let timeline = &mut self.timeline;
        // The client may have left before the server read a byte.
        let end = end.max(timeline.read.unwrap_or_default());
        timeline.end = Some(end);
        if let Some((last, gaps)) = self.before_left.take() {
            timeline.last = last;
            self.gaps = gaps;
        }
        for point in [&mut timeline.ready, &mut timeline.header, &mut timeline.first, &mut timeline.first_content] {
            *point = point.filter(|time| *time <= end);
        }
        // An event whose time was taken around the client's leaving, and was seen before that was known.
        timeline.last = timeline.last.map(|last| last.min(end)).filter(|_| timeline.first.is_some());
        // The end is no earlier than the read: tokens between the client's leaving and that went to nobody.
        for point in [&mut timeline.first, &mut timeline.first_content] {
            *point = point.filter(|time| Some(*time) <= timeline.last);
        }
        if timeline.first.is_none() {
            self.gaps = Gaps::default();
        }
    }
}
