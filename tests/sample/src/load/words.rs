//! How the APIs other than OpenAI's completions word what an answer says. Written from their references and not from the
//! observer, whose reading is compared with this one.

use serde_json::Value;

use super::answer::Said;
use crate::api::Api;

/// Notes what an event or a whole answer says. True: it carries generated text.
pub(super) fn read(api: Api, value: &Value, said: &mut Said) -> bool {
    let error = &value["error"];
    said.error |= error.is_object() || error.is_string() || value["type"] == "error";
    match api {
        Api::Chat | Api::Completions | Api::Embeddings | Api::Rerank => {
            model(&value["model"], said);
            set(&mut said.input_tokens, &value["usage"]["prompt_tokens"]);
            false
        }
        Api::Responses => responses(value, said),
        Api::Messages => messages(value, said),
        Api::OllamaChat | Api::OllamaGenerate => ollama(value, said),
        Api::Tgi => {
            let details = &value["details"];
            set(&mut said.output_tokens, &details["generated_tokens"]);
            set(&mut said.input_tokens, &details["input_length"]);
            reason(&details["finish_reason"], said);
            let token = &value["token"];
            token["special"] == false && has_text(&token["text"])
        }
        Api::Sglang => {
            let meta = &value["meta_info"];
            set(&mut said.input_tokens, &meta["prompt_tokens"]);
            set(&mut said.output_tokens, &meta["completion_tokens"]);
            set(&mut said.cached_input_tokens, &meta["cached_tokens"]);
            reason(&meta["finish_reason"]["type"], said);
            let length = value["text"].as_str().map_or(0, str::len);
            length > std::mem::replace(&mut said.length, length)
        }
        Api::LlamaCpp => {
            model(&value["model"], said);
            set(&mut said.input_tokens, &value["tokens_evaluated"]);
            set(&mut said.output_tokens, &value["tokens_predicted"]);
            set(&mut said.cached_input_tokens, &value["timings"]["cache_n"]);
            reason(&value["stop_type"], said);
            has_text(&value["content"])
        }
        Api::Triton => {
            model(&value["model_name"], said);
            has_text(&value["text_output"])
        }
    }
}

fn responses(value: &Value, said: &mut Said) -> bool {
    let kind = value["type"].as_str().unwrap_or_default();
    // A whole answer is what an event holds under `response`.
    let response = if value["object"] == "response" { value } else { &value["response"] };
    model(&response["model"], said);
    let usage = &response["usage"];
    set(&mut said.input_tokens, &usage["input_tokens"]);
    set(&mut said.output_tokens, &usage["output_tokens"]);
    set(&mut said.cached_input_tokens, &usage["input_tokens_details"]["cached_tokens"]);
    set(&mut said.reasoning_output_tokens, &usage["output_tokens_details"]["reasoning_tokens"]);
    kind.ends_with(".delta") && has_text(&value["delta"])
}

fn messages(value: &Value, said: &mut Said) -> bool {
    for message in [value, &value["message"]] {
        model(&message["model"], said);
        let usage = &message["usage"];
        if let Some(fresh) = usage["input_tokens"].as_u64() {
            let read = usage["cache_read_input_tokens"].as_u64();
            let written = usage["cache_creation_input_tokens"].as_u64();
            said.input_tokens = Some(fresh + read.unwrap_or(0) + written.unwrap_or(0));
            said.cached_input_tokens = read;
        }
        // What a stream begins with is no count of what was generated.
        if value["type"] != "message_start" {
            set(&mut said.output_tokens, &usage["output_tokens"]);
        }
        reason(&message["stop_reason"], said);
    }
    let delta = &value["delta"];
    reason(&delta["stop_reason"], said);
    let texts = ["text", "thinking", "partial_json"];
    value["type"] == "content_block_delta" && texts.iter().any(|key| has_text(&delta[*key]))
}

fn ollama(value: &Value, said: &mut Said) -> bool {
    model(&value["model"], said);
    set(&mut said.input_tokens, &value["prompt_eval_count"]);
    set(&mut said.output_tokens, &value["eval_count"]);
    reason(&value["done_reason"], said);
    let message = &value["message"];
    [&value["response"], &value["thinking"], &message["content"], &message["thinking"]].into_iter().any(has_text)
}

fn has_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}

fn model(value: &Value, said: &mut Said) {
    if let Some(name) = value.as_str() {
        said.model = Some(name.to_owned());
    }
}

fn reason(value: &Value, said: &mut Said) {
    if let Some(reason) = value.as_str() {
        said.finish_reason = Some(reason.to_owned());
    }
}

fn set(count: &mut Option<u64>, value: &Value) {
    *count = value.as_u64().or(*count);
}
