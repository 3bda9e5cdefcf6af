//! Anthropic's messages: named events, content in blocks.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Content, Frames, Stamp, THOUGHT, content, each_word, named, thoughts};
use crate::serve::behaviour::Plan;

pub(super) fn frames(plan: &Plan, stamp: &Stamp) -> Frames {
    let event = |kind: &str, mut value: Value| {
        value["type"] = kind.into();
        named(kind, &value)
    };
    let thinks = plan.reasoning > 0;
    let block = u32::from(thinks);
    let start = |index: u32, thinking: bool| {
        let block =
            if thinking { json!({"type": "thinking", "thinking": ""}) } else { json!({"type": "text", "text": ""}) };
        event("content_block_start", json!({"index": index, "content_block": block}))
    };
    let stop = |index: u32| event("content_block_stop", json!({"index": index}));
    let word = |word: &str| {
        event("content_block_delta", json!({"index": block, "delta": {"type": "text_delta", "text": word}}))
    };
    let words = each_word(word);
    let mut message = message(plan, stamp, Vec::new());
    message["stop_reason"] = Value::Null;
    message["usage"]["output_tokens"] = 1.into();
    let opening =
        [event("message_start", json!({"message": message})), event("ping", json!({})), start(0, thinks)].concat();
    Frames {
        opening: Some(opening.into()),
        reasoning: thinks.then(|| {
            event("content_block_delta", json!({"index": 0, "delta": {"type": "thinking_delta", "thinking": THOUGHT}}))
        }),
        turning: Some(Bytes::from([stop(0), start(1, false), words[0].clone()].concat())),
        content: Content::Words(words),
        closing: vec![
            stop(block),
            event(
                "message_delta",
                json!({
                    "delta": {"stop_reason": stop_reason(plan), "stop_sequence": null},
                    "usage": {"output_tokens": plan.output_tokens()},
                }),
            ),
            event("message_stop", json!({})),
        ],
        error: event("error", json!({"error": {"type": "overloaded_error", "message": "asked to fail"}})),
        after_error: None,
    }
}

pub(super) fn whole(plan: &Plan, stamp: &Stamp) -> String {
    let mut blocks = Vec::new();
    if plan.reasoning > 0 {
        blocks.push(json!({"type": "thinking", "thinking": thoughts(plan), "signature": ""}));
    }
    blocks.push(json!({"type": "text", "text": content(plan)}));
    message(plan, stamp, blocks).to_string()
}

fn stop_reason(plan: &Plan) -> &'static str {
    if plan.finish_reason == "length" { "max_tokens" } else { "end_turn" }
}

fn message(plan: &Plan, stamp: &Stamp, content: Vec<Value>) -> Value {
    json!({
        "id": format!("msg_{:08x}", stamp.index), "type": "message", "role": "assistant", "model": plan.model,
        "content": content, "stop_reason": stop_reason(plan), "stop_sequence": null,
        "usage": {
            "input_tokens": plan.prompt_tokens - plan.cached_tokens(),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": plan.cached_tokens(),
            "output_tokens": plan.output_tokens(),
        },
    })
}
