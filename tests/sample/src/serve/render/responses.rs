//! OpenAI's responses: typed events.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Content, Frames, Stamp, THOUGHT, content, each_word, named};
use crate::serve::behaviour::Plan;

pub(super) fn frames(plan: &Plan, stamp: &Stamp) -> Frames {
    let event = |kind: &str, mut value: Value| {
        value["type"] = kind.into();
        named(kind, &value)
    };
    let delta = |kind: &str, word: &str| {
        event(kind, json!({"item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": word}))
    };
    let opening = [
        event("response.created", json!({"response": response(plan, stamp, "in_progress", false)})),
        event("response.in_progress", json!({"response": response(plan, stamp, "in_progress", false)})),
        event(
            "response.output_item.added",
            json!({"output_index": 0, "item": {"id": "msg_1", "type": "message", "role": "assistant", "content": []}}),
        ),
    ];
    let text = content(plan);
    Frames {
        opening: Some(Bytes::from(opening.concat())),
        reasoning: (plan.reasoning > 0).then(|| delta("response.reasoning_text.delta", THOUGHT)),
        turning: None,
        content: Content::Words(each_word(|word| delta("response.output_text.delta", word))),
        closing: vec![
            event("response.output_text.done", json!({"item_id": "msg_1", "output_index": 0, "text": text})),
            event("response.completed", json!({"response": response(plan, stamp, "completed", true)})),
        ],
        error: event("error", json!({"code": "server_error", "message": "asked to fail", "param": null})),
        after_error: None,
    }
}

pub(super) fn whole(plan: &Plan, stamp: &Stamp) -> String {
    response(plan, stamp, "completed", true).to_string()
}

fn response(plan: &Plan, stamp: &Stamp, status: &str, done: bool) -> Value {
    let mut response = json!({
        "id": format!("resp_{:08x}", stamp.index), "object": "response", "created_at": stamp.created,
        "model": plan.model, "status": status, "error": null, "output": [], "usage": null,
    });
    if done {
        let message = json!({"type": "output_text", "text": content(plan), "annotations": []});
        response["output"] = json!([{"id": "msg_1", "type": "message", "role": "assistant", "content": [message]}]);
        response["usage"] = json!({
            "input_tokens": plan.prompt_tokens,
            "input_tokens_details": {"cached_tokens": plan.cached_tokens()},
            "output_tokens": plan.output_tokens(),
            "output_tokens_details": {"reasoning_tokens": plan.reasoning_tokens()},
            "total_tokens": plan.prompt_tokens + plan.output_tokens(),
        });
    }
    response
}
