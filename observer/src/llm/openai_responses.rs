//! OpenAI's responses: each event of a stream says its type.

use super::{
    Dialect, Facts, Kind, is_error,
    json::{Anchor, Path, Value},
    operation::Operation,
    route::Route,
    set,
};

/// The dialect.
#[derive(Debug)]
pub struct OpenAiResponses;

pub(super) const ROUTES: &[Route] = &[Route::new("/responses", Operation::Chat, &OpenAiResponses).needs(&[
    "input",
    "prompt",
    "previous_response_id",
    "conversation",
    "instructions",
])];

/// `model` is none of them: tools have models, too; nor is `status`, which each item has.
const ANCHORS: &[Anchor] = &[Anchor { path: &["usage"] }, Anchor { path: &["sequence_number"] }];

impl Dialect for OpenAiResponses {
    fn name(&self) -> &'static str {
        "openai_responses"
    }

    fn event(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        let Some(key) = path.key() else { return };
        match (path.depth(), key) {
            (1, b"delta") if value.has_text() => facts.has_text(),
            // The name of a function or tool to call: generated, and sent before its arguments.
            (2, b"name") if value.has_text() && path.is(&["item", "name"]) => facts.has_text(),
            (1, b"type") => {
                let Some(name) = value.text() else { return };
                facts.typed(kind(name));
                facts.error |= matches!(name, "error" | "response.failed");
                facts.done |= matches!(name, "response.completed" | "response.incomplete" | "response.failed");
            }
            (1, b"sequence_number") => facts.sequence = value.unsigned(),
            // The rest is the response as in an answer, under a key of its own; or behind a gap.
            (1, _) => facts.error |= key == b"error" && is_error(value),
            _ => of_response(path, value, facts),
        }
    }

    fn answer(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        of_response(path, value, facts);
    }

    fn anchors(&self) -> &'static [Anchor] {
        ANCHORS
    }
}

fn kind(name: &str) -> Kind {
    // Of text, refusals, arguments, code, audio and whatever else comes: `response.THING.delta`.
    match name.strip_suffix("delta") {
        Some(thing) if thing.contains("reasoning") => Kind::Reasoning,
        Some(_) => Kind::Content,
        None if name == "response.output_item.added" => Kind::Content,
        None => Kind::Other,
    }
}

/// What the response itself says: the root of an answer, `response` of an event.
fn of_response(path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
    let Some(key) = path.key() else { return };
    let is = |tail: &[&str]| path.is(tail) || path.ends(&["response"], tail);
    match key {
        b"model" if is(&["model"]) => facts.set_model(value),
        b"error" if is(&["error"]) => facts.error |= is_error(value),
        b"status" if is(&["status"]) => {
            facts.error |= value.is(b"failed");
            // Why it is incomplete, it says elsewhere.
            if matches!(value.text(), Some("completed" | "failed" | "cancelled")) {
                facts.finished(0, value);
            }
        }
        b"reason" if is(&["incomplete_details", "reason"]) => facts.finished(0, value),
        b"input_tokens" if is(&["usage", "input_tokens"]) => set(&mut facts.usage.input, value),
        b"output_tokens" if is(&["usage", "output_tokens"]) => set(&mut facts.usage.output, value),
        b"cached_tokens" if is(&["usage", "input_tokens_details", "cached_tokens"]) => {
            set(&mut facts.usage.cached_input, value);
        }
        b"reasoning_tokens" if is(&["usage", "output_tokens_details", "reasoning_tokens"]) => {
            set(&mut facts.usage.reasoning_output, value);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::fixture::{answer, event, finish, kind, usage},
        *,
    };

    #[test]
    fn what_is_a_token_and_what_is_not() {
        let kind = |json: &str| kind(&OpenAiResponses, json);
        for none in [
            r#"{"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response","status":"in_progress","error":null,"model":"m","output":[],"instructions":"delta","usage":null}}"#,
            r#"{"type":"response.output_item.added","output_index":0,"item":{"id":"msg_1","type":"message","status":"in_progress","role":"assistant","content":[]}}"#,
            r#"{"type":"response.content_part.added","item_id":"msg_1","part":{"type":"output_text","text":"","annotations":[]}}"#,
            r#"{"type":"response.output_text.delta","delta":""}"#,
            r#"{"type":"response.output_text.done","text":"all of it"}"#,
            r#"{"type":"response.function_call_arguments.done","name":"f","arguments":"{}"}"#,
            r#"{"type":"response.output_item.done","item":{"type":"function_call","name":"f","arguments":"{}"}}"#,
            r#"{"delta":"x"}"#,
        ] {
            assert_eq!(kind(none), (false, false), "{none}");
        }
        for content in [
            r#"{"type":"response.output_text.delta","item_id":"msg_1","output_index":0,"content_index":0,"delta":"Hi","logprobs":[]}"#,
            r#"{"content_index":0,"delta":"Hi","item_id":"msg_1","type":"response.output_text.delta"}"#,
            r#"{"type":"response.refusal.delta","delta":"no"}"#,
            r#"{"type":"response.function_call_arguments.delta","delta":"{\""}"#,
            r#"{"type":"response.custom_tool_call_input.delta","delta":"x"}"#,
            r#"{"type":"response.mcp_call_arguments.delta","delta":"{"}"#,
            r#"{"type":"response.code_interpreter_call_code.delta","delta":"import"}"#,
            r#"{"type":"response.output_item.added","item":{"id":"fc_1","type":"function_call","name":"f","arguments":""}}"#,
            r#"{"item":{"id":"fc_1","type":"function_call","name":"f"},"type":"response.output_item.added"}"#,
        ] {
            assert_eq!(kind(content), (true, false), "{content}");
        }
        for reasoning in [
            r#"{"type":"response.reasoning_text.delta","delta":"hm"}"#,
            r#"{"delta":"hm","type":"response.reasoning_summary_text.delta"}"#,
        ] {
            assert_eq!(kind(reasoning), (false, true), "{reasoning}");
        }
    }

    #[test]
    fn the_last_event() {
        let facts = event(
            &OpenAiResponses,
            r#"{"type":"response.completed","response":{"status":"completed","error":null,"incomplete_details":null,"model":"m",
            "output":[{"type":"message","status":"incomplete","content":[{"type":"output_text","text":"all"}]}],
            "usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":8},"output_tokens":87,
            "output_tokens_details":{"reasoning_tokens":64},"total_tokens":123}}}"#,
        );
        assert_eq!(usage(&facts), [Some(36), Some(87), Some(8), Some(64)]);
        assert_eq!((finish(&facts), facts.model().map(|m| &**m)), (vec![(0, "completed")], Some("m")));
        assert!(facts.done && !facts.error && facts.is_no_token() && !facts.content);
        let facts = event(
            &OpenAiResponses,
            r#"{"type":"response.incomplete","response":{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}}}"#,
        );
        assert_eq!((finish(&facts), facts.done, facts.error), (vec![(0, "max_output_tokens")], true, false));
        let failed = r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error"}}}"#;
        assert!(event(&OpenAiResponses, failed).error && event(&OpenAiResponses, failed).done);
        assert!(event(&OpenAiResponses, r#"{"type":"error","code":"x","message":"y"}"#).error);
        assert!(event(&OpenAiResponses, r#"{"error":{"message":"y"}}"#).error);
        assert!(!event(&OpenAiResponses, r#"{"type":"response.output_text.delta","delta":"a"}"#).is_no_token());
    }

    #[test]
    fn an_answer() {
        let facts = answer(
            &OpenAiResponses,
            r#"{"id":"resp_1","object":"response","status":"completed","error":null,"model":"m","output":[{"content":[{"text":"…"
            }]}],"tools":[{"type":"image_generation","model":"other"}],"usage":{"input_tokens":3,"output_tokens":4,
            "output_tokens_details":{"reasoning_tokens":0}},"user":null}"#,
        );
        assert_eq!(usage(&facts), [Some(3), Some(4), None, Some(0)]);
        assert_eq!((finish(&facts), facts.model().map(|m| &**m)), (vec![(0, "completed")], Some("m")));
    }
}
