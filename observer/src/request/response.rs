//! Reads the content of a response: stream events or one JSON answer.
//!
//! Of long calls only head and tail are captured. Such a hole hides bytes that this one call handed over, at its one
//! time: if the call held a token event for certain, hidden ones change nothing but their number. What an event shows
//! before a hole counts when it ends, and what is behind one is read from keys that are known (see `Dialect::anchors`).

use super::{
    record::IncompleteReason,
    timeline::{Exchange, Keep, Write},
};
use crate::{
    connection::stream::Chunk,
    llm::{
        Dialect, Facts,
        json::{Path, Scanner, Value},
    },
    protocol::{
        events::{Event, Frame},
        http1_head::{Content, ResponseHead},
        ndjson, sse,
    },
};

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Mode {
    #[default]
    Ignore,
    Events,
    Lines,
    Answer,
}

/// What reading one stream event takes. Nothing of it outlives the event, so that all connections share one: it stays
/// in the caches, and connections stay small.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    json: Scanner,
    facts: Facts,
}

/// An event that a hole cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// The call with the hole.
    call: u64,
    /// Before the hole it shows that it is a token; whether as content.
    token: Option<bool>,
    /// It is the stream's last: no other begins in the hole.
    last: bool,
}

/// Reader of one connection's responses, one after another.
#[derive(Debug, Default)]
pub(super) struct Reader {
    mode: Mode,
    events: sse::Parser,
    lines: ndjson::Parser,
    cut: Option<Cut>,
    /// Of an answer that is not streamed.
    json: Scanner,
    /// What it says, or what an event says before a hole.
    facts: Facts,
}

impl Reader {
    /// A response begins.
    pub(super) fn begin(&mut self, head: &ResponseHead, exchange: &mut Exchange) {
        exchange.stream = Some(matches!(head.content, Content::EventStream | Content::Ndjson));
        self.mode = match head.content {
            _ if head.coded || exchange.route.is_none() => Mode::Ignore,
            Content::EventStream => Mode::Events,
            Content::Ndjson => Mode::Lines,
            Content::Json => Mode::Answer,
            Content::Other => Mode::Ignore,
        };
        exchange.counts_tokens = matches!(self.mode, Mode::Events | Mode::Lines);
        self.events.reset();
        self.lines.reset();
        self.cut = None;
        self.json.reset();
        self.facts.reset();
    }

    /// Content that `write` handed over.
    pub(super) fn body(
        &mut self,
        mut chunk: Chunk<'_>,
        exchange: &mut Exchange,
        write: &Write,
        keep: &Keep<'_>,
        scratch: &mut Scratch,
    ) {
        let Some(dialect) = exchange.route.map(|route| route.dialect) else { return };
        let (cut, before) = (&mut self.cut, &mut self.facts);
        let mut stream = Stream { dialect, scratch, exchange, write, keep, cut, before };
        match self.mode {
            Mode::Ignore => {}
            Mode::Events => {
                while let Some(frame) = self.events.step(&mut chunk) {
                    stream.frame(&frame);
                }
            }
            Mode::Lines => {
                while let Some(frame) = self.lines.step(&mut chunk) {
                    stream.frame(&frame);
                }
            }
            Mode::Answer => {
                let facts = &mut self.facts;
                if let Chunk::Gap(1..) = chunk {
                    facts.missed();
                }
                let mut visit = |path: &Path<'_>, value: Value<'_>| dialect.answer(path, &value, facts);
                match chunk {
                    Chunk::Data(bytes) => self.json.feed(bytes, &mut visit),
                    Chunk::Gap(_) => self.json.gap(dialect.anchors(), &mut visit),
                }
            }
        }
    }

    /// The response is complete; `write` handed its last byte over.
    pub(super) fn end(&mut self, exchange: &mut Exchange, write: &Write, keep: &Keep<'_>, scratch: &mut Scratch) {
        let Some(dialect) = exchange.route.map(|route| route.dialect) else { return };
        let last = match self.mode {
            Mode::Ignore => None,
            Mode::Events => self.events.finish(),
            Mode::Lines => self.lines.finish(),
            Mode::Answer => {
                exchange.learn(&mut self.facts);
                None
            }
        };
        if let Some(event) = last {
            let (cut, before) = (&mut self.cut, &mut self.facts);
            Stream { dialect, scratch, exchange, write, keep, cut, before }.event(&event);
        }
        self.mode = Mode::Ignore;
        // A large event's buffer is not kept while the connection idles.
        self.events.reset();
        self.lines.reset();
    }
}

/// What the events that one call handed over are read with.
struct Stream<'a> {
    dialect: &'static dyn Dialect,
    scratch: &'a mut Scratch,
    exchange: &'a mut Exchange,
    write: &'a Write,
    keep: &'a Keep<'a>,
    cut: &'a mut Option<Cut>,
    /// What the event that a hole cut says before it. It counts once the event ended.
    before: &'a mut Facts,
}

impl Stream<'_> {
    fn frame(&mut self, frame: &Frame<'_>) {
        match frame {
            Frame::Event(event) => self.event(event),
            // When what was lost was handed over is not known, either.
            Frame::Gap(_) if self.write.lost => {
                self.exchange.incomplete(IncompleteReason::TokenGap);
                self.exchange.counts_tokens = false;
                *self.cut = None;
            }
            Frame::Gap(event) => self.gap(event),
        }
    }

    /// An event ended.
    fn event(&mut self, event: &Event<'_>) {
        if !event.rest && self.dialect.is_done(event.data) {
            self.exchange.done = true;
            return;
        }
        let shown = self.scan(event, false);
        let mut token = shown;
        let cut = self.cut.take().filter(|_| event.rest);
        let same_call = cut.is_some_and(|cut| cut.call == self.write.call);
        let sequence = self.scratch.facts.sequence;
        let alone = match cut {
            // A later event may tell.
            Some(_) if same_call && sequence.is_none() => false,
            _ => {
                // It goes on elsewhere, or is another event than the one before the hole.
                let other = self.before.sequence.is_some_and(|before| Some(before) != sequence);
                if cut.is_some() && (!same_call || other) {
                    self.exchange.hides_something();
                }
                self.exchange.in_sequence(sequence)
            }
        };
        let mut last = self.scratch.facts.done || self.scratch.facts.error;
        if let Some(cut) = cut {
            last |= cut.last;
            self.exchange.learn(self.before);
            if self.before.done {
                self.exchange.goes_on(false);
            }
            if !cut.last {
                self.exchange.hides_counts();
            }
            if cut.last || same_call {
                // Whichever event showed it, it ended here or, in the hole, at this very time.
                token = cut.token.or(token);
            }
            let no_token = self.before.is_no_token() || self.scratch.facts.is_no_token();
            if token.is_none() && !last && !(same_call && no_token) {
                // Its text may be in the hole, or that it is an error.
                self.exchange.hides_something();
                self.exchange.hides_end();
                if alone || !same_call {
                    self.exchange.may_hold_tokens(self.write);
                }
            }
        }
        let facts = &mut self.scratch.facts;
        if let Some(content) = token {
            self.exchange.token(self.write, content, self.keep);
        } else if event.partial && !last && !facts.is_no_token() {
            self.exchange.incomplete(IncompleteReason::TokenGap);
            self.exchange.counts_tokens = false;
        }
        let normal = shown.is_some() || facts.done || !facts.finish.is_empty() || facts.has_counts();
        if normal && !facts.error {
            self.exchange.goes_on(event.rest && shown.is_none());
        }
        self.exchange.learn(facts);
    }

    /// A hole, in which the event that is under way may end, and others begin and end.
    fn gap(&mut self, event: &Event<'_>) {
        let shown = self.scan(event, true);
        let facts = &mut self.scratch.facts;
        let earlier = self.cut.take();
        let was_last = earlier.is_some_and(|earlier| earlier.last);
        let last = was_last || self.exchange.is_last() || facts.done || facts.error;
        if facts.sequence.is_some() {
            self.exchange.in_sequence(facts.sequence);
        }
        self.exchange.hides_counts();
        if !last {
            self.exchange.before_hole();
            self.exchange.hides(self.write);
        } else if !self.exchange.is_last() {
            // Until it is known to have ended.
            self.exchange.hides_end();
        }
        if !was_last {
            std::mem::swap(self.before, facts);
        }
        let token = earlier.filter(|earlier| last || earlier.call == self.write.call).and_then(|earlier| earlier.token);
        *self.cut = Some(Cut { call: self.write.call, token: token.or(shown), last });
    }

    /// Whether it shows that it is a token; whether as content. All else that it says is in `facts`. `cut`: a hole
    /// follows.
    fn scan(&mut self, event: &Event<'_>, cut: bool) -> Option<bool> {
        let Scratch { json, facts } = &mut *self.scratch;
        json.reset();
        facts.reset();
        if let Some(model) = self.exchange.response_model() {
            facts.expect_model(model);
        }
        if event.rest || cut {
            facts.missed();
        }
        let dialect = self.dialect;
        let mut visit = |path: &Path<'_>, value: Value<'_>| dialect.event(path, &value, facts);
        if event.rest {
            json.gap(dialect.anchors(), &mut visit);
        }
        json.feed(event.data, &mut visit);
        json.end(&mut visit);
        facts.error |= event.name == b"error";
        if facts.progress.is_some() {
            let advances = self.exchange.advances(facts, self.write);
            if advances.is_none() {
                self.exchange.may_hold_tokens(self.write);
            }
            facts.content &= advances == Some(true);
        } else if dialect.repeats() && (cut || event.rest || event.partial) && self.exchange.may_have_tokens() {
            // Text that was sent before, or not.
            facts.content = false;
        }
        (facts.content || facts.reasoning).then_some(facts.content)
    }
}
