//! Counts what a body says: token events, usage, the model, reasons to finish, errors.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::words;
use crate::api::Api;

/// Most bytes of an answer that is not streamed, or of one event, that are kept to be read.
const KEEP_MAX: usize = 16 << 20;

/// What a body said so far.
#[derive(Debug)]
pub(super) struct Answer {
    api: Api,
    /// An event as far as it came, or the whole body if it is not a stream.
    pending: Vec<u8>,
    /// Events that carry content, reasoning or tool calls.
    pub(super) tokens: u64,
    pub(super) said: Said,
}

/// What an answer says of itself; only what was reported.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Said {
    pub(super) model: Option<String>,
    pub(super) input_tokens: Option<u64>,
    pub(super) output_tokens: Option<u64>,
    pub(super) cached_input_tokens: Option<u64>,
    pub(super) reasoning_output_tokens: Option<u64>,
    pub(super) finish_reason: Option<String>,
    /// There was an error.
    pub(super) error: bool,
    /// Length of the text so far, where each event repeats it.
    pub(super) length: usize,
}

/// OpenAI's chunks, which loads consist of: read without a tree of values.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    usage: Option<Usage>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reasoning_content: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reasoning: Option<Cow<'a, str>>,
    tool_calls: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

impl Choice<'_> {
    fn is_token(&self) -> bool {
        let some = |text: &Option<Cow<'_, str>>| text.as_ref().is_some_and(|text| !text.is_empty());
        some(&self.text)
            || self.delta.as_ref().is_some_and(|delta| {
                some(&delta.content)
                    || some(&delta.reasoning_content)
                    || some(&delta.reasoning)
                    || delta.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty())
            })
    }
}

impl Said {
    fn chunk(&mut self, chunk: &Chunk<'_>) {
        if let Some(model) = &chunk.model
            && self.model.as_deref() != Some(model)
        {
            self.model = Some(model.to_string());
        }
        if let Some(reason) = chunk.choices.iter().find_map(|choice| choice.finish_reason.as_ref()) {
            self.finish_reason = Some(reason.to_string());
        }
        if let Some(usage) = &chunk.usage {
            self.input_tokens = usage.prompt_tokens;
            self.output_tokens = usage.completion_tokens;
            self.cached_input_tokens = usage.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens);
            self.reasoning_output_tokens =
                usage.completion_tokens_details.as_ref().and_then(|details| details.reasoning_tokens);
        }
        self.error |= chunk.error.is_some();
    }
}

impl Answer {
    pub(super) fn new(api: Api) -> Self {
        Self { api, pending: Vec::new(), tokens: 0, said: Said::default() }
    }

    /// The next bytes of the body.
    pub(super) fn push(&mut self, mut bytes: &[u8], stream: bool) {
        if !stream {
            if self.pending.len() + bytes.len() <= KEEP_MAX {
                self.pending.extend_from_slice(bytes);
            }
            return;
        }
        while let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(at + 1);
            bytes = rest;
            // Whole lines, the usual case, are read where they lie.
            if self.pending.is_empty() {
                self.line(line);
            } else {
                self.pending.extend_from_slice(line);
                let line = std::mem::take(&mut self.pending);
                self.line(&line);
            }
        }
        if self.pending.len() + bytes.len() <= KEEP_MAX {
            self.pending.extend_from_slice(bytes);
        }
    }

    /// The body is complete.
    pub(super) fn finish(&mut self, stream: bool) {
        if !stream {
            let body = std::mem::take(&mut self.pending);
            self.document(&body);
        }
    }

    /// One line of a stream. Every server known writes an event's data in one line.
    fn line(&mut self, line: &[u8]) {
        let data = if self.api.is_lines() { Some(line) } else { line.strip_prefix(b"data:") };
        let Some(data) = data.map(<[u8]>::trim_ascii) else { return };
        if !data.is_empty() && data != b"[DONE]" {
            let token = self.document(data);
            self.tokens += u64::from(token);
        }
    }

    /// Whether it is a token event.
    fn document(&mut self, data: &[u8]) -> bool {
        if matches!(self.api, Api::Chat | Api::Completions) {
            let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else { return false };
            self.said.chunk(&chunk);
            return chunk.choices.iter().any(Choice::is_token);
        }
        serde_json::from_slice::<Value>(data).is_ok_and(|value| words::read(self.api, &value, &mut self.said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
        : ping\n\n\
        data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}],\"usage\":null}\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"a\\n\"}}]}\n\n\
        data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
        data: {\"choices\":[],\"usage\":{\"completion_tokens\":9}}\n\ndata: [DONE]\n\n";

    #[test]
    fn role_pings_finish_and_usage_are_no_tokens_at_any_cut() {
        for step in 1..STREAM.len() {
            let mut answer = Answer::new(Api::Chat);
            STREAM.chunks(step).for_each(|piece| answer.push(piece, true));
            let said = &answer.said;
            assert_eq!((answer.tokens, said.output_tokens, said.error), (2, Some(9), false), "step {step}");
            assert_eq!(said.finish_reason.as_deref(), Some("stop"));
        }
    }

    #[test]
    fn an_error_event_is_seen() {
        let mut answer = Answer::new(Api::Chat);
        answer.push(b"data: {\"error\":{\"message\":\"x\"}}\n\n", true);
        assert!(answer.said.error);
    }

    #[test]
    fn usage_of_a_whole_answer_is_read() {
        let mut answer = Answer::new(Api::Chat);
        answer.push(b"{\"choices\":[{\"message\":{\"content\":\"x\"}}],", false);
        answer.push(b"\"usage\":{\"completion_tokens\":3}}", false);
        answer.finish(false);
        assert_eq!((answer.tokens, answer.said.output_tokens), (0, Some(3)));
    }
}
