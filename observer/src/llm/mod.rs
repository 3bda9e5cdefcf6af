//! What the servers of large language models say over HTTP. A dialect is one file that implements [`Dialect`], has its
//! `ROUTES`, and is named in one line below.

use std::sync::Arc;

pub mod json;
pub mod operation;
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
    /// Of a request's body: model, streaming, operation.
    fn request(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut RequestFacts);
    /// Of one event of a stream: is it a token, the model, usage, an error, the last one.
    fn event(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts);
    /// Of an answer that is not streamed: the model, usage, an error.
    fn answer(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts);
    /// Keys to take up reading at after a gap in an answer or an event.
    fn anchors(&self) -> &'static [Anchor] {
        &[]
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
    /// How far generation came, where each event repeats all that came before: the event is a token if this grew.
    pub progress: Option<u64>,
    /// The model that was named last, in this or in an earlier one, so that the same name is not allocated again.
    model: Option<Arc<str>>,
    /// This one named it.
    named: bool,
    /// Token counts; only what was reported.
    pub usage: Usage,
    /// Reasons to finish.
    pub finish: Vec<Finish>,
    /// The latest choice's slot and index.
    choice: Option<(u32, u64)>,
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
        (self.done, self.control, self.progress) = (false, false, None);
        self.usage = Usage::default();
        self.finish.clear();
        self.choice = None;
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
