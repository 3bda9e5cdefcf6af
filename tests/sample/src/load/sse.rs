//! Counts what a body says: token events, usage, errors.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};

/// Most bytes of an answer that is not streamed, or of one event, that are kept to be read.
const KEEP_MAX: usize = 16 << 20;

/// What a body said so far.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// An event as far as it came, or the whole body if it is not a stream.
    pending: Vec<u8>,
    /// Events that carry content, reasoning or tool calls.
    pub(super) tokens: u64,
    /// Completion tokens by `usage`.
    pub(super) output_tokens: Option<u64>,
    /// There was an error.
    pub(super) error: bool,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
    usage: Option<Usage>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
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
    completion_tokens: Option<u64>,
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

impl Events {
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
            if let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(&body) {
                self.note(&chunk);
            }
        }
    }

    /// One line of a stream. Every server known writes an event's data in one line.
    fn line(&mut self, line: &[u8]) {
        let Some(data) = line.strip_prefix(b"data:") else { return };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            return;
        }
        if let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) {
            self.tokens += u64::from(chunk.choices.iter().any(Choice::is_token));
            self.note(&chunk);
        }
    }

    fn note(&mut self, chunk: &Chunk<'_>) {
        if let Some(usage) = &chunk.usage {
            self.output_tokens = usage.completion_tokens;
        }
        self.error |= chunk.error.is_some();
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
            let mut events = Events::default();
            STREAM.chunks(step).for_each(|piece| events.push(piece, true));
            assert_eq!((events.tokens, events.output_tokens, events.error), (2, Some(9), false), "step {step}");
        }
    }

    #[test]
    fn an_error_event_is_seen() {
        let mut events = Events::default();
        events.push(b"data: {\"error\":{\"message\":\"x\"}}\n\n", true);
        assert!(events.error);
    }

    #[test]
    fn usage_of_a_whole_answer_is_read() {
        let mut events = Events::default();
        events.push(b"{\"choices\":[{\"message\":{\"content\":\"x\"}}],", false);
        events.push(b"\"usage\":{\"completion_tokens\":3}}", false);
        events.finish(false);
        assert_eq!((events.tokens, events.output_tokens), (0, Some(3)));
    }
}
