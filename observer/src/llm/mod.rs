//! What the servers of large language models say over HTTP. A dialect is one file that implements [`Dialect`], has its
//! `ROUTES`, and is named in one line below.

use std::sync::Arc;

pub mod json;
pub mod operation;
pub mod parts;
pub mod route;

use json::{Anchor, Path, Value};
use operation::{Operation, Usage};
use route::Route;

macro_rules! dialects {
    ($($(#[$about:meta])* $dialect:ident,)+) => {
        $($(#[$about])* pub mod $dialect;)+
        /// Of each dialect.
        static DIALECTS: &[&[Route]] = &[$($dialect::ROUTES),+];
    };
}

// Where two dialects have the same path, the first is taken until the request's body tells.
dialects! {
    openai,
    openai_responses,
    anthropic,
    ollama,
    sglang,
    tgi,
    llamacpp,
    triton,
    plain,
}

/// Most reasons to finish that one frame or answer reports.
pub const FINISH_REASONS: usize = 16;
/// Longest reason to finish that is taken for one.
const FINISH_REASON_MAX: usize = 64;

/// How one family of servers words requests, stream events and answers. All methods that take a path and a value see the
/// scalars (and the openings of objects and arrays) of a JSON document, one by one, in order.
pub trait Dialect: Sync {
    /// Its name, as the request log shows it.
    fn name(&self) -> &'static str;
    /// Of a request's body: model, streaming, operation. Nearly all name them so.
    fn request(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut RequestFacts) {
        if path.depth() != 1 {
            return;
        }
        if path.is(&["model"]) {
            facts.model = value.text().filter(|text| !text.is_empty()).map(Into::into);
        } else if path.is(&["stream"])
            && let Value::Bool(stream) = value
        {
            facts.stream = Some(*stream);
        }
    }
    /// Of one event of a stream: is it a token, the model, usage, an error, the last one.
    fn event(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts);
    /// Of an answer that is not streamed: the model, usage, an error.
    fn answer(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts);
    /// Keys to take up reading at after a gap in an answer or an event.
    fn anchors(&self) -> &'static [Anchor] {
        &[]
    }
    /// Whether each event repeats all that came before, so that its text alone does not make it a token.
    fn repeats(&self) -> bool {
        false
    }
    /// Whether an event's data (no JSON then) says that the stream is complete.
    fn is_done(&self, data: &[u8]) -> bool {
        data.trim_ascii() == b"[DONE]"
    }
}

/// What a request's body says.
#[derive(Debug, Default)]
pub struct RequestFacts {
    /// The model asked for.
    pub model: Option<Arc<str>>,
    /// Whether a stream was asked for.
    pub stream: Option<bool>,
    /// The operation, where the path does not tell.
    pub operation: Option<Operation>,
}

/// What one stream event, or one answer, says.
#[derive(Debug, Default)]
pub struct Facts {
    /// It holds generated text that is not reasoning: content, a tool call, a refusal.
    pub content: bool,
    /// It holds generated reasoning.
    pub reasoning: bool,
    /// It reports an error.
    pub error: bool,
    /// It is the stream's last: all that was asked for is there.
    pub done: bool,
    /// Nothing was generated, nor was that asked for: a model was loaded, say.
    pub control: bool,
    /// How far generation came, where each event repeats all that came before: with content, the event is a token if
    /// this grew since the last one of the same [`Self::part`].
    pub progress: Option<u64>,
    /// Which of several prompts this event answers, where each has a stream of its own in this one.
    pub part: Option<u64>,
    /// Its number, where each event of a stream has the next one, from 0 on.
    pub sequence: Option<u64>,
    /// The model that was named last, in this or in an earlier one, so that the same name is not allocated again.
    model: Option<Arc<str>>,
    /// This one named it.
    named: bool,
    /// Token counts; only what was reported.
    pub usage: Usage,
    /// Where `usage.input` is reported in parts that add up: they, the latest of each. Without the first there is no sum.
    pub input_parts: [Option<u64>; 3],
    /// Of an event that says its type: what its text is. Type and text come in either order.
    kind: Option<Kind>,
    /// It has text.
    text: bool,
    /// Its counts are sums over the elements of an array.
    sums: bool,
    /// Bytes of it were not seen.
    missed: bool,
    /// Reasons to finish.
    pub finish: Vec<Finish>,
    /// The latest choice's slot and index.
    choice: Option<(u32, u64)>,
}

/// What the text of an event is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Generated content.
    Content,
    /// Generated reasoning.
    Reasoning,
    /// Nothing new: it is no token, or was sent before.
    Other,
}

/// Why one choice finished.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finish {
    slot: u32,
    /// Which choice.
    pub index: u64,
    /// As the server said.
    pub reason: Arc<str>,
}

impl Facts {
    /// Forgets all; buffers stay.
    pub fn reset(&mut self) {
        (self.content, self.reasoning, self.error, self.named) = (false, false, false, false);
        (self.done, self.control, self.progress, self.part, self.sequence) = (false, false, None, None, None);
        (self.usage, self.input_parts) = (Usage::default(), [None; 3]);
        (self.kind, self.text, self.sums, self.missed) = (None, false, false, false);
        self.finish.clear();
        self.choice = None;
    }

    /// What its text is, if it has any.
    pub fn typed(&mut self, kind: Kind) {
        self.kind = Some(kind);
        self.judge();
    }

    /// It has text; what that is, its type says.
    pub fn has_text(&mut self) {
        self.text = true;
        self.judge();
    }

    fn judge(&mut self) {
        if let Some(kind) = self.kind {
            self.content |= self.text && kind == Kind::Content;
            self.reasoning |= self.text && kind == Kind::Reasoning;
        }
    }

    /// Whether it is known to be no token, whatever of it was not seen: its type says so.
    #[must_use]
    pub fn is_no_token(&self) -> bool {
        self.kind == Some(Kind::Other)
    }

    /// Bytes of it were not seen.
    pub fn missed(&mut self) {
        self.missed = true;
    }

    /// Its counts. None where a sum lacks what was not seen.
    #[must_use]
    pub fn counts(&self) -> Usage {
        if self.sums && self.missed { Usage::default() } else { self.usage }
    }

    /// Whether it reports counts.
    #[must_use]
    pub fn has_counts(&self) -> bool {
        self.counts() != Usage::default() || self.input_parts != [None; 3]
    }

    /// A count; `more`: one of several that add up, of elements of an array.
    fn count(&mut self, which: fn(&mut Usage) -> &mut Option<u64>, value: &Value<'_>, more: bool) {
        self.sums |= more;
        let Some(number) = value.unsigned() else { return };
        let count = which(&mut self.usage);
        let before = count.filter(|_| more).unwrap_or_default();
        *count = Some(before.saturating_add(number));
    }

    /// The choice in `slot` of its array finished.
    pub fn finished(&mut self, slot: u32, value: &Value<'_>) {
        let Some(reason) = value.text().filter(|text| (1..=FINISH_REASON_MAX).contains(&text.len())) else { return };
        if self.finish.len() < FINISH_REASONS {
            let index = self.choice.filter(|choice| choice.0 == slot).map_or(u64::from(slot), |choice| choice.1);
            self.finish.push(Finish { slot, index, reason: reason.into() });
        }
    }

    /// The choice in `slot` of its array says which one it is; that may come before or after its reason.
    pub fn choice_index(&mut self, slot: u32, value: &Value<'_>) {
        let Some(index) = value.unsigned() else { return };
        self.choice = Some((slot, index));
        self.finish.iter_mut().filter(|finish| finish.slot == slot).for_each(|finish| finish.index = index);
    }

    /// The model that generated it.
    #[must_use]
    pub fn model(&self) -> Option<&Arc<str>> {
        self.model.as_ref().filter(|_| self.named)
    }

    /// The model is likely `name`.
    pub fn expect_model(&mut self, name: &Arc<str>) {
        if !self.model.as_ref().is_some_and(|model| Arc::ptr_eq(model, name)) {
            self.model = Some(Arc::clone(name));
        }
    }

    /// The model is `value`.
    pub fn set_model(&mut self, value: &Value<'_>) {
        if !self.model.as_deref().is_some_and(|model| value.is(model.as_bytes())) {
            let Some(text) = value.text().filter(|text| !text.is_empty()) else { return };
            self.model = Some(text.into());
        }
        self.named = true;
    }
}

/// `null` says nothing and takes nothing back.
fn set(count: &mut Option<u64>, value: &Value<'_>) {
    *count = value.unsigned().or(*count);
}

/// Whether what stands under `error` is one.
fn is_error(value: &Value<'_>) -> bool {
    !matches!(value, Value::Null | Value::Bool(false)) && !value.is(b"")
}

#[cfg(test)]
mod fixture {
    //! Reads documents as the tracker does.

    use super::{
        Dialect, Facts, RequestFacts,
        json::{Path, Scanner, Value},
    };

    /// `…` stands for bytes that were not seen.
    fn read(dialect: &dyn Dialect, json: &str, of: fn(&dyn Dialect, &Path<'_>, &Value<'_>, &mut Facts)) -> Facts {
        let (mut scanner, mut facts) = (Scanner::default(), Facts::default());
        for (n, piece) in json.split('…').enumerate() {
            if n > 0 {
                facts.missed();
                scanner.gap(dialect.anchors(), &mut |path, value| of(dialect, path, &value, &mut facts));
            }
            scanner.feed(piece.as_bytes(), &mut |path, value| of(dialect, path, &value, &mut facts));
        }
        scanner.end(&mut |path, value| of(dialect, path, &value, &mut facts));
        facts
    }

    pub(super) fn event(dialect: &dyn Dialect, json: &str) -> Facts {
        read(dialect, json, |dialect, path, value, facts| dialect.event(path, value, facts))
    }

    pub(super) fn answer(dialect: &dyn Dialect, json: &str) -> Facts {
        read(dialect, json, |dialect, path, value, facts| dialect.answer(path, value, facts))
    }

    /// Content, reasoning.
    pub(super) fn kind(dialect: &dyn Dialect, json: &str) -> (bool, bool) {
        let facts = event(dialect, json);
        (facts.content, facts.reasoning)
    }

    pub(super) fn request(dialect: &dyn Dialect, json: &str) -> RequestFacts {
        let (mut scanner, mut facts) = (Scanner::default(), RequestFacts::default());
        scanner.feed(json.as_bytes(), &mut |path, value| dialect.request(path, &value, &mut facts));
        facts
    }

    pub(super) fn finish(facts: &Facts) -> Vec<(u64, &str)> {
        facts.finish.iter().map(|finish| (finish.index, &*finish.reason)).collect()
    }

    /// Input, output, cached, reasoning.
    pub(super) fn usage(facts: &Facts) -> [Option<u64>; 4] {
        let usage = facts.counts();
        [usage.input, usage.output, usage.cached_input, usage.reasoning_output]
    }
}
