//! The engines' own APIs: Text Generation Inference, SGLang, llama.cpp, Triton.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Content, Frames, Stamp, content, data, each_word, text};
use crate::{api::Api, serve::behaviour::Plan};

/// Events that repeat all text so far.
#[derive(Debug)]
pub(super) struct Growing {
    index: u64,
}

impl Growing {
    pub(super) fn event(&self, plan: &Plan, index: u32) -> Bytes {
        data(&sglang(plan, self.index, index + 1, false).to_string())
    }
}

pub(super) fn frames(plan: &Plan, stamp: &Stamp) -> Frames {
    let done = Bytes::from_static(b"data: [DONE]\n\n");
    match plan.api {
        Api::Sglang => Frames {
            content: Content::Growing(Growing { index: stamp.index }),
            closing: vec![data(&sglang(plan, stamp.index, plan.events, true).to_string()), done.clone()],
            after_error: Some(done),
            ..Frames::of_words(Vec::new(), data("{\"error\":{\"message\":\"asked to fail\"}}"))
        },
        Api::Tgi => {
            let event = |word: &str, special: bool, end: Option<Value>| {
                let token = json!({"id": 5, "text": word, "logprob": -0.5, "special": special});
                let generated = end.as_ref().map(|_| content(plan));
                data(&json!({"index": 1, "token": token, "generated_text": generated, "details": end}).to_string())
            };
            Frames {
                // The end of the sequence is a token of its own, which says nothing.
                closing: vec![event("</s>", true, Some(tgi_details(plan)))],
                ..Frames::of_words(
                    each_word(|word| event(word, false, None)),
                    data("{\"error\":\"asked to fail\",\"error_type\":\"generation\"}"),
                )
            }
        }
        Api::LlamaCpp => {
            let event =
                |word: &str| data(&json!({"index": 0, "content": word, "tokens": [5], "stop": false}).to_string());
            Frames {
                closing: vec![data(&llama_cpp(plan, "").to_string())],
                ..Frames::of_words(
                    each_word(event),
                    data("{\"error\":{\"code\":500,\"message\":\"asked to fail\",\"type\":\"server_error\"}}"),
                )
            }
        }
        _ => Frames::of_words(
            each_word(|word| data(&triton(plan, word).to_string())),
            data("{\"error\":\"asked to fail\"}"),
        ),
    }
}

pub(super) fn whole(plan: &Plan, stamp: &Stamp) -> String {
    match plan.api {
        Api::Sglang => sglang(plan, stamp.index, plan.events, true),
        Api::Tgi => json!({"generated_text": content(plan), "details": tgi_details(plan)}),
        Api::LlamaCpp => llama_cpp(plan, &content(plan)),
        _ => triton(plan, &content(plan)),
    }
    .to_string()
}

fn sglang(plan: &Plan, index: u64, events: u32, end: bool) -> Value {
    let finish = if end { json!({"type": plan.finish_reason, "length": plan.output_tokens()}) } else { Value::Null };
    json!({
        "text": text(events),
        "meta_info": {
            "id": format!("{index:032x}"), "finish_reason": finish, "prompt_tokens": plan.prompt_tokens,
            "completion_tokens": u64::from(events) * u64::from(plan.tokens_per_event),
            "cached_tokens": plan.cached_tokens(), "e2e_latency": 0.5,
        },
    })
}

fn tgi_details(plan: &Plan) -> Value {
    let reason = if plan.finish_reason == "length" { "length" } else { "eos_token" };
    json!({"finish_reason": reason, "generated_tokens": plan.output_tokens(), "input_length": plan.prompt_tokens, "seed": null})
}

fn llama_cpp(plan: &Plan, content: &str) -> Value {
    let kind = if plan.finish_reason == "length" { "limit" } else { "eos" };
    json!({
        "index": 0, "content": content, "tokens": [], "stop": true, "model": plan.model,
        "tokens_predicted": plan.output_tokens(), "tokens_evaluated": plan.prompt_tokens, "stop_type": kind,
        "timings": {"cache_n": plan.cached_tokens(), "prompt_n": plan.prompt_tokens - plan.cached_tokens(), "predicted_n": plan.output_tokens()},
    })
}

fn triton(plan: &Plan, content: &str) -> Value {
    json!({"model_name": plan.model, "model_version": "1", "sequence_end": false, "text_output": content})
}
