//! The APIs that server and client speak: each family's usual route, words and stream.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// An API.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's completions.
    Completions,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Messages,
    /// Ollama's chat.
    OllamaChat,
    /// Ollama's generate.
    OllamaGenerate,
    /// Text Generation Inference.
    Tgi,
    /// SGLang's own, whose events repeat all text so far.
    Sglang,
    /// llama.cpp's own.
    LlamaCpp,
    /// Triton's generate extension.
    Triton,
    /// OpenAI's embeddings: never streamed, no tokens.
    Embeddings,
    /// Rerank as Jina, Cohere and vLLM have it: never streamed, no tokens.
    Rerank,
}

impl Api {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Chat,
        Self::Completions,
        Self::Responses,
        Self::Messages,
        Self::OllamaChat,
        Self::OllamaGenerate,
        Self::Tgi,
        Self::Sglang,
        Self::LlamaCpp,
        Self::Triton,
        Self::Embeddings,
        Self::Rerank,
    ];

    /// Where it is asked.
    #[must_use]
    pub const fn path(self, stream: bool) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
            Self::OllamaChat => "/api/chat",
            Self::OllamaGenerate => "/api/generate",
            Self::Tgi if stream => "/generate_stream",
            Self::Tgi | Self::Sglang => "/generate",
            Self::LlamaCpp => "/completion",
            Self::Triton if stream => "/v2/models/sample/generate_stream",
            Self::Triton => "/v2/models/sample/generate",
            Self::Embeddings => "/v1/embeddings",
            Self::Rerank => "/v1/rerank",
        }
    }

    /// Whether answers can be streamed.
    #[must_use]
    pub const fn streams(self) -> bool {
        !matches!(self, Self::Embeddings | Self::Rerank)
    }

    /// Whether a stream's events are lines of JSON, and not server-sent events.
    #[must_use]
    pub const fn is_lines(self) -> bool {
        matches!(self, Self::OllamaChat | Self::OllamaGenerate)
    }

    /// Whether requests' bodies name a model.
    #[must_use]
    pub const fn names_model(self) -> bool {
        !matches!(self, Self::Tgi | Self::Sglang | Self::LlamaCpp | Self::Triton)
    }
}
