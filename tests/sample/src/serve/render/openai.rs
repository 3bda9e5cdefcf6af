//! OpenAI's chat completions and completions, in the key order of vLLM.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Content, Frames, Stamp, THOUGHT, content, data, each_word, thoughts};
use crate::{api::Api, serve::behaviour::Plan};

fn id(plan: &Plan, stamp: &Stamp) -> String {
    format!("{}-sample-{:08x}", if plan.api == Api::Chat { "chatcmpl" } else { "cmpl" }, stamp.index)
}

pub(super) fn frames(plan: &Plan, stamp: &Stamp) -> Frames {
    let chat = plan.api == Api::Chat;
    let object = if chat { "chat.completion.chunk" } else { "text_completion" };
    let (id, model, created) = (id(plan, stamp), Value::from(plan.model.as_str()), stamp.created);
    // By hand: serde_json's map would sort the keys.
    let frame = |choices: &str, usage: &str| {
        data(&format!(
            "{{\"id\":\"{id}\",\"object\":\"{object}\",\"created\":{created},\"model\":{model},\
             \"choices\":[{choices}]{usage}}}"
        ))
    };
    let choice = |inner: &str, finish: &str| {
        frame(&format!("{{\"index\":0,{inner},\"logprobs\":null,\"finish_reason\":{finish}}}"), "")
    };
    let word = |word: &str| {
        let delta = if chat { format!("\"delta\":{{\"content\":\"{word}\"}}") } else { format!("\"text\":\"{word}\"") };
        choice(&delta, "null")
    };
    let finish = format!("\"{}\"", plan.finish_reason);
    let mut closing = vec![choice(if chat { "\"delta\":{}" } else { "\"text\":\"\"" }, &finish)];
    closing.extend(plan.usage.then(|| frame("", &format!(",\"usage\":{}", usage(plan)))));
    let done = Bytes::from_static(b"data: [DONE]\n\n");
    closing.push(done.clone());
    Frames {
        opening: chat.then(|| choice("\"delta\":{\"role\":\"assistant\",\"content\":\"\"}", "null")),
        reasoning: (plan.reasoning > 0)
            .then(|| choice(&format!("\"delta\":{{\"reasoning_content\":\"{THOUGHT}\"}}"), "null")),
        turning: None,
        content: Content::Words(each_word(word)),
        closing,
        error: data("{\"error\":{\"message\":\"asked to fail\",\"type\":\"sample_error\",\"code\":500}}"),
        after_error: Some(done),
    }
}

pub(super) fn whole(plan: &Plan, stamp: &Stamp) -> String {
    let mut choice = json!({"index": 0, "logprobs": null, "finish_reason": plan.finish_reason});
    let object = if plan.api == Api::Chat {
        choice["message"] = json!({"role": "assistant", "content": content(plan)});
        if plan.reasoning > 0 {
            choice["message"]["reasoning_content"] = thoughts(plan).into();
        }
        "chat.completion"
    } else {
        choice["text"] = content(plan).into();
        "text_completion"
    };
    json!({
        "id": id(plan, stamp), "object": object, "created": stamp.created, "model": plan.model,
        "choices": [choice], "usage": usage(plan),
    })
    .to_string()
}

fn usage(plan: &Plan) -> Value {
    let mut usage = json!({
        "prompt_tokens": plan.prompt_tokens,
        "completion_tokens": plan.output_tokens(),
        "total_tokens": plan.prompt_tokens + plan.output_tokens(),
        "prompt_tokens_details": {"cached_tokens": plan.cached_tokens()},
    });
    if plan.reasoning > 0 {
        usage["completion_tokens_details"] = json!({"reasoning_tokens": plan.reasoning_tokens()});
    }
    usage
}
