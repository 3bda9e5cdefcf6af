//! Answers as bytes. A stream's frames are rendered once, when it begins: sending one is a reference count.

mod anthropic;
mod engines;
mod ollama;
mod openai;
mod plain;
mod responses;

use bytes::Bytes;
use serde_json::Value;

use super::behaviour::Plan;
use crate::api::Api;

/// What the model says, over and over.
const WORDS: [&str; 8] = [" the", " kernel", " saw", " every", " token", " leave", " in", " time"];
/// What it says to itself.
const THOUGHT: &str = " hmm";

/// Who asks, and when: what identifies one answer.
#[derive(Clone, Debug)]
struct Stamp {
    /// Unique in this server.
    index: u64,
    /// Unix time in seconds.
    created: u64,
}

/// All frames of one stream.
#[derive(Debug)]
pub(super) struct Frames {
    /// Before the first token event; not a token.
    pub(super) opening: Option<Bytes>,
    reasoning: Option<Bytes>,
    /// The first content event after reasoning, where it is not like the others.
    turning: Option<Bytes>,
    content: Content,
    /// After the last token event, one write each.
    pub(super) closing: Vec<Bytes>,
    /// An error, in place of what would have come.
    pub(super) error: Bytes,
    /// After an error.
    pub(super) after_error: Option<Bytes>,
}

#[derive(Debug)]
enum Content {
    /// Each event holds what is new.
    Words(Vec<Bytes>),
    /// Each event holds all text so far.
    Growing(engines::Growing),
}

impl Frames {
    /// `index` makes the answer's id unique in this server; `created` is Unix time in seconds.
    pub(super) fn new(plan: &Plan, index: u64, created: u64) -> Self {
        let stamp = Stamp { index, created };
        match plan.api {
            Api::Chat | Api::Completions => openai::frames(plan, &stamp),
            Api::Responses => responses::frames(plan, &stamp),
            Api::Messages => anthropic::frames(plan, &stamp),
            Api::OllamaChat | Api::OllamaGenerate => ollama::frames(plan),
            Api::Tgi | Api::Sglang | Api::LlamaCpp | Api::Triton => engines::frames(plan, &stamp),
            // Never streamed.
            Api::Embeddings | Api::Rerank => Self::of_words(Vec::new(), Bytes::new()),
        }
    }

    fn of_words(content: Vec<Bytes>, error: Bytes) -> Self {
        Self {
            opening: None,
            reasoning: None,
            turning: None,
            content: Content::Words(content),
            closing: Vec::new(),
            error,
            after_error: None,
        }
    }

    /// The `index`-th token event.
    pub(super) fn event(&self, plan: &Plan, index: u32) -> Bytes {
        if let Some(frame) = self.reasoning.as_ref().filter(|_| index < plan.reasoning) {
            return frame.clone();
        }
        let word = index - plan.reasoning.min(index);
        match (&self.turning, &self.content) {
            (Some(turning), _) if word == 0 && plan.reasoning > 0 => turning.clone(),
            (_, Content::Words(frames)) => frames[word as usize % frames.len()].clone(),
            (_, Content::Growing(growing)) => growing.event(plan, index),
        }
    }
}

/// The answer as one JSON document.
pub(super) fn whole(plan: &Plan, index: u64, created: u64) -> String {
    let stamp = Stamp { index, created };
    match plan.api {
        Api::Chat | Api::Completions => openai::whole(plan, &stamp),
        Api::Responses => responses::whole(plan, &stamp),
        Api::Messages => anthropic::whole(plan, &stamp),
        Api::OllamaChat | Api::OllamaGenerate => ollama::whole(plan),
        Api::Tgi | Api::Sglang | Api::LlamaCpp | Api::Triton => engines::whole(plan, &stamp),
        Api::Embeddings | Api::Rerank => plain::whole(plan),
    }
}

/// The first `count` words.
fn text(count: u32) -> String {
    WORDS.iter().copied().cycle().take(count as usize).collect()
}

/// Content of the whole answer.
fn content(plan: &Plan) -> String {
    text(plan.events - plan.reasoning)
}

/// Reasoning of the whole answer.
fn thoughts(plan: &Plan) -> String {
    THOUGHT.repeat(plan.reasoning as usize)
}

/// One frame for each word.
fn each_word(frame: impl Fn(&str) -> Bytes) -> Vec<Bytes> {
    WORDS.iter().map(|word| frame(word)).collect()
}

/// A server-sent event without a name.
fn data(data: &str) -> Bytes {
    Bytes::from(format!("data: {data}\n\n"))
}

/// A server-sent event with one.
fn named(event: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {event}\ndata: {data}\n\n"))
}
