//! Reads the content of a response: stream events or one JSON answer.

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
        http1_head::{Content, ResponseHead},
        sse,
    },
};

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Mode {
    #[default]
    Ignore,
    Events,
    Answer,
}

/// What reading one stream event takes. Nothing of it outlives the event, so that all connections share one: it stays
/// in the caches, and connections stay small.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    json: Scanner,
    facts: Facts,
}

/// Reader of one connection's responses, one after another.
#[derive(Debug, Default)]
pub(super) struct Reader {
    mode: Mode,
    events: sse::Parser,
    /// Of an answer that is not streamed.
    json: Scanner,
    facts: Facts,
}

impl Reader {
    /// A response begins.
    pub(super) fn begin(&mut self, head: &ResponseHead, exchange: &mut Exchange) {
        exchange.stream = Some(head.content == Content::EventStream);
        self.mode = match head.content {
            _ if head.coded || exchange.route.is_none() => Mode::Ignore,
            Content::EventStream => Mode::Events,
            Content::Json => Mode::Answer,
            Content::Other => Mode::Ignore,
        };
        exchange.counts_tokens = self.mode == Mode::Events;
        self.events.reset();
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
        match self.mode {
            Mode::Ignore => {}
            Mode::Events => {
                while let Some(frame) = self.events.step(&mut chunk) {
                    match frame {
                        sse::Frame::Event(event) => {
                            read_event(&event, dialect, scratch, exchange, write, keep);
                        }
                        // Whatever was under way, and any event hidden in the gap, may have been a token.
                        sse::Frame::Gap => {
                            exchange.incomplete(IncompleteReason::TokenGap);
                            exchange.counts_tokens = false;
                        }
                    }
                }
            }
            Mode::Answer => {
                let facts = &mut self.facts;
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
        match self.mode {
            Mode::Ignore => {}
            Mode::Events => {
                if let Some(event) = self.events.finish() {
                    read_event(&event, dialect, scratch, exchange, write, keep);
                }
            }
            Mode::Answer => exchange.learn(&mut self.facts),
        }
        self.mode = Mode::Ignore;
        // A large event's buffer is not kept while the connection idles.
        self.events.reset();
    }
}

fn read_event(
    event: &sse::Event<'_>,
    dialect: &dyn Dialect,
    scratch: &mut Scratch,
    exchange: &mut Exchange,
    write: &Write,
    keep: &Keep<'_>,
) {
    if dialect.is_done(event.data) {
        exchange.done = true;
        return;
    }
    let Scratch { json, facts } = scratch;
    json.reset();
    facts.reset();
    if let Some(model) = exchange.response_model() {
        facts.expect_model(model);
    }
    let mut visit = |path: &Path<'_>, value: Value<'_>| dialect.event(path, &value, facts);
    json.feed(event.data, &mut visit);
    json.end(&mut visit);
    if event.name == b"error" {
        exchange.error();
    }
    if facts.content || facts.reasoning {
        exchange.token(write, facts.content, keep);
    } else if event.partial {
        exchange.incomplete(IncompleteReason::TokenGap);
        exchange.counts_tokens = false;
    }
    exchange.learn(facts);
}
