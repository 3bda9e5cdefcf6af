//! Answers as bytes. A stream's frames are rendered once, when it begins: sending one is a reference count.

use bytes::Bytes;
use serde_json::{Value, json};

use super::behaviour::{Api, Plan};

/// What the model says, over and over.
const WORDS: [&str; 8] = [" the", " kernel", " saw", " every", " token", " leave", " in", " time"];

/// All frames of one answer.
#[derive(Debug)]
pub(super) struct Renderer {
    id: String,
    created: u64,
    /// The role-only event; none for text completions.
    pub(super) role: Option<Bytes>,
    content: Vec<Bytes>,
    reasoning: Option<Bytes>,
    /// The last event, with the finish reason.
    pub(super) finish: Bytes,
    /// The usage event, where asked for.
    pub(super) usage: Option<Bytes>,
}

/// The end of every stream.
pub(super) const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");
/// An error inside a stream.
pub(super) const ERROR: Bytes =
    Bytes::from_static(b"data: {\"error\":{\"message\":\"asked to fail\",\"type\":\"sample_error\",\"code\":500}}\n\n");

impl Renderer {
    /// `index` makes the answer's id unique in this server; `created` is Unix time in seconds.
    pub(super) fn new(plan: &Plan, index: u64, created: u64) -> Self {
        let (prefix, object) = match plan.api {
            Api::Chat => ("chatcmpl", "chat.completion.chunk"),
            Api::Text => ("cmpl", "text_completion"),
        };
        let id = format!("{prefix}-sample-{index:08x}");
        let model = Value::from(plan.model.as_str());
        // By hand in the key order of vLLM: serde_json's map would sort the keys.
        let frame = |choices: &str, usage: &str| {
            Bytes::from(format!(
                "data: {{\"id\":\"{id}\",\"object\":\"{object}\",\"created\":{created},\"model\":{model},\
                 \"choices\":[{choices}]{usage}}}\n\n"
            ))
        };
        let choice = |inner: &str, finish: &str| {
            frame(&format!("{{\"index\":0,{inner},\"logprobs\":null,\"finish_reason\":{finish}}}"), "")
        };
        let event = |word: &str| match plan.api {
            Api::Chat => choice(&format!("\"delta\":{{\"content\":\"{word}\"}}"), "null"),
            Api::Text => choice(&format!("\"text\":\"{word}\""), "null"),
        };
        let finish = format!("\"{}\"", plan.finish_reason);
        Self {
            role: (plan.api == Api::Chat)
                .then(|| choice("\"delta\":{\"role\":\"assistant\",\"content\":\"\"}", "null")),
            content: WORDS.iter().map(|word| event(word)).collect(),
            reasoning: (plan.reasoning > 0).then(|| choice("\"delta\":{\"reasoning_content\":\" hmm\"}", "null")),
            finish: match plan.api {
                Api::Chat => choice("\"delta\":{}", &finish),
                Api::Text => choice("\"text\":\"\"", &finish),
            },
            usage: plan.usage.then(|| frame("", &format!(",\"usage\":{}", usage(plan)))),
            id,
            created,
        }
    }

    /// The `index`-th token event.
    pub(super) fn event(&self, plan: &Plan, index: u32) -> Bytes {
        match &self.reasoning {
            Some(frame) if index < plan.reasoning => frame.clone(),
            _ => self.content[(index - plan.reasoning) as usize % WORDS.len()].clone(),
        }
    }

    /// The answer as one JSON document.
    pub(super) fn whole(&self, plan: &Plan) -> String {
        let words = (plan.events - plan.reasoning) as usize;
        let text: String = WORDS.iter().copied().cycle().take(words).collect();
        let mut choice = json!({"index": 0, "logprobs": null, "finish_reason": plan.finish_reason});
        let object = match plan.api {
            Api::Chat => {
                choice["message"] = json!({"role": "assistant", "content": text});
                if plan.reasoning > 0 {
                    choice["message"]["reasoning_content"] = " hmm".repeat(plan.reasoning as usize).into();
                }
                "chat.completion"
            }
            Api::Text => {
                choice["text"] = text.into();
                "text_completion"
            }
        };
        json!({
            "id": self.id, "object": object, "created": self.created, "model": plan.model,
            "choices": [choice], "usage": usage(plan),
        })
        .to_string()
    }
}

fn usage(plan: &Plan) -> Value {
    let output = u64::from(plan.events) * u64::from(plan.tokens_per_event);
    let mut usage = json!({
        "prompt_tokens": plan.prompt_tokens,
        "completion_tokens": output,
        "total_tokens": plan.prompt_tokens + output,
    });
    if plan.reasoning > 0 {
        let reasoning = u64::from(plan.reasoning) * u64::from(plan.tokens_per_event);
        usage["completion_tokens_details"] = json!({"reasoning_tokens": reasoning});
    }
    usage
}
