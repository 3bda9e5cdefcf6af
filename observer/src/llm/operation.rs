//! What can be asked of a language model, and what it reports of the work.

/// The operation of a request, named as OpenTelemetry's `gen_ai.operation.name` does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    TextCompletion,
}

impl Operation {
    /// Its value of the `gen_ai_operation_name` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::TextCompletion => "text_completion",
        }
    }
}

/// Token counts as the server reported them; never counted by us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Prompt tokens.
    pub input: Option<u64>,
    /// Completion tokens.
    pub output: Option<u64>,
    /// The part of `input` that came from a prefix cache.
    pub cached_input: Option<u64>,
    /// The part of `output` that was reasoning.
    pub reasoning_output: Option<u64>,
}
