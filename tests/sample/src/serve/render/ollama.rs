//! Ollama's own API: lines of JSON.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Frames, THOUGHT, content, each_word, thoughts};
use crate::{api::Api, serve::behaviour::Plan};

const CREATED: &str = "2026-01-01T00:00:00.000000Z";

fn line(plan: &Plan, content: &str, thinking: Option<&str>) -> Value {
    let mut line = json!({"model": plan.model, "created_at": CREATED, "done": false});
    let part = if plan.api == Api::OllamaChat {
        line["message"] = json!({"role": "assistant", "content": content});
        &mut line["message"]
    } else {
        line["response"] = content.into();
        &mut line
    };
    if let Some(thinking) = thinking {
        part["thinking"] = thinking.into();
    }
    line
}

fn bytes(line: &Value) -> Bytes {
    Bytes::from(format!("{line}\n"))
}

fn last(plan: &Plan, mut line: Value) -> Value {
    line["done"] = true.into();
    line["done_reason"] = plan.finish_reason.into();
    line["total_duration"] = 1.into();
    line["prompt_eval_count"] = plan.prompt_tokens.into();
    line["eval_count"] = plan.output_tokens().into();
    line
}

pub(super) fn frames(plan: &Plan) -> Frames {
    let words = each_word(|word| bytes(&line(plan, word, None)));
    Frames {
        reasoning: (plan.reasoning > 0).then(|| bytes(&line(plan, "", Some(THOUGHT)))),
        closing: vec![bytes(&last(plan, line(plan, "", None)))],
        ..Frames::of_words(words, Bytes::from_static(b"{\"error\":\"asked to fail\"}\n"))
    }
}

pub(super) fn whole(plan: &Plan) -> String {
    let thoughts = (plan.reasoning > 0).then(|| thoughts(plan));
    last(plan, line(plan, &content(plan), thoughts.as_deref())).to_string()
}
