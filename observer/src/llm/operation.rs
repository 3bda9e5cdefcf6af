//! What can be asked of a language model, and what it reports of the work.

/// The operation of a request. Named as OpenTelemetry's `gen_ai.operation.name` does where it has a name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// Chat: OpenAI's chat completions and responses, Anthropic's messages, Ollama's chat.
    Chat,
    /// Completion of a text: OpenAI's completions, and what servers' own `generate` routes do.
    TextCompletion,
    /// Embeddings.
    Embeddings,
    /// Documents by relevance.
    Rerank,
    /// Likeness of texts.
    Score,
    /// Classification.
    Classify,
    /// Pooled hidden states.
    Pooling,
    /// Text to tokens.
    Tokenize,
    /// Tokens to text.
    Detokenize,
    /// How many tokens a prompt has.
    CountTokens,
}

impl Operation {
    /// Its value of the `gen_ai_operation_name` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::TextCompletion => "text_completion",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
            Self::Score => "score",
            Self::Classify => "classify",
            Self::Pooling => "pooling",
            Self::Tokenize => "tokenize",
            Self::Detokenize => "detokenize",
            Self::CountTokens => "count_tokens",
        }
    }
}

impl Operation {
    /// Whether it yields generated tokens.
    #[must_use]
    pub const fn generates(self) -> bool {
        matches!(self, Self::Chat | Self::TextCompletion)
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
