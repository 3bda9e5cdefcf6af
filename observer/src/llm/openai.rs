//! OpenAI's chat and text completions, as its many implementations word them.

use super::{
    Dialect, Facts, RequestFacts,
    json::{Anchor, Path, Value},
    operation::Operation,
    route::Route,
};

/// The dialect.
#[derive(Debug)]
pub struct OpenAi;

pub(super) const ROUTES: &[Route] = &[
    Route::new("/chat/completions", Operation::Chat, &OpenAi),
    Route::new("/completions", Operation::TextCompletion, &OpenAi),
];

/// What may stand after a hole in a long answer. No other key of an answer has these names.
const ANCHORS: &[Anchor] =
    &[Anchor { path: &["usage"] }, Anchor { path: &["model"] }, Anchor { path: &["choices", "*", "finish_reason"] }];

impl Dialect for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

    fn request(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut RequestFacts) {
        if path.depth() != 1 {
            return;
        }
        if path.is(&["model"]) {
            facts.model = value.text().filter(|text| !text.is_empty()).map(Into::into);
        } else if path.is(&["stream"])
            && let Value::Bool(stream) = value
        {
            facts.stream = Some(*stream);
        }
    }

    fn event(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        // The key first: it tells nearly all values apart from those that matter.
        let Some(key) = path.key() else { return };
        match key {
            // `{"error": …}`; older vLLM: `{"object": "error", …}`.
            b"error" if path.depth() == 1 => facts.error |= !matches!(value, Value::Null | Value::Bool(false)),
            b"object" if path.depth() == 1 => facts.error |= value.is(b"error"),
            // Text completions.
            b"text" => facts.content |= value.has_text() && path.is(&["choices", "*", "text"]),
            b"content" => facts.content |= value.has_text() && path.is(&["choices", "*", "delta", "content"]),
            b"refusal" => facts.content |= value.has_text() && path.is(&["choices", "*", "delta", "refusal"]),
            b"reasoning" => facts.reasoning |= value.has_text() && path.is(&["choices", "*", "delta", "reasoning"]),
            b"reasoning_content" => {
                facts.reasoning |= value.has_text() && path.is(&["choices", "*", "delta", "reasoning_content"]);
            }
            b"name" => facts.content |= value.has_text() && is_call(path, "name"),
            b"arguments" => facts.content |= value.has_text() && is_call(path, "arguments"),
            _ => self.answer(path, value, facts),
        }
    }

    fn answer(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        let Some(key) = path.key() else { return };
        match key {
            b"model" if path.depth() == 1 => facts.set_model(value),
            b"prompt_tokens" if path.is(&["usage", "prompt_tokens"]) => set(&mut facts.usage.input, value),
            b"completion_tokens" if path.is(&["usage", "completion_tokens"]) => set(&mut facts.usage.output, value),
            b"cached_tokens" if path.is(&["usage", "prompt_tokens_details", "cached_tokens"]) => {
                set(&mut facts.usage.cached_input, value);
            }
            b"reasoning_tokens" if path.is(&["usage", "completion_tokens_details", "reasoning_tokens"]) => {
                set(&mut facts.usage.reasoning_output, value);
            }
            b"finish_reason" if path.is(&["choices", "*", "finish_reason"]) => {
                facts.finished(path.index(1).unwrap_or(0), value);
            }
            b"index" if path.is(&["choices", "*", "index"]) => facts.choice_index(path.index(1).unwrap_or(0), value),
            _ => {}
        }
    }

    fn anchors(&self) -> &'static [Anchor] {
        ANCHORS
    }
}

/// Whether it is `key` of a call of a tool, or of a function as they were called once.
fn is_call(path: &Path<'_>, key: &str) -> bool {
    path.is(&["choices", "*", "delta", "tool_calls", "*", "function", key])
        || path.is(&["choices", "*", "delta", "function_call", key])
}

/// `null` says nothing and takes nothing back.
fn set(count: &mut Option<u64>, value: &Value<'_>) {
    *count = value.unsigned().or(*count);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::json::Scanner;

    fn event(json: &str) -> Facts {
        let (mut scanner, mut facts) = (Scanner::default(), Facts::default());
        scanner.feed(json.as_bytes(), &mut |path, value| OpenAi.event(path, &value, &mut facts));
        facts
    }

    fn kind(json: &str) -> (bool, bool) {
        let facts = event(json);
        (facts.content, facts.reasoning)
    }

    #[test]
    fn what_is_a_token_and_what_is_not() {
        let delta =
            |delta: &str| kind(&format!(r#"{{"choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#));
        for none in [
            r#"{"role":"assistant","content":""}"#,
            r#"{"role":"assistant"}"#,
            r#"{"role":"assistant","content":null}"#,
            r#"{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"","arguments":""}}]}"#,
            r#"{"reasoning_content":null,"refusal":null}"#,
            "{}",
        ] {
            assert_eq!(delta(none), (false, false), "{none}");
        }
        for content in [
            r#"{"role":"assistant","content":"a"}"#,
            r#"{"reasoning_content":null,"content":" "}"#,
            r#"{"content":"\u0000"}"#,
            r#"{"refusal":"no"}"#,
            r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":""}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}"#,
            r#"{"function_call":{"arguments":"{"}}"#,
        ] {
            assert_eq!(delta(content), (true, false), "{content}");
        }
        assert_eq!(delta(r#"{"reasoning":"hm"}"#), (false, true));
        assert_eq!(delta(r#"{"reasoning_content":"hm","content":""}"#), (false, true));
        assert_eq!(kind(r#"{"choices":[{"index":0,"text":"a","logprobs":null}]}"#), (true, false));
        assert_eq!(kind(r#"{"choices":[{"index":0,"text":""}]}"#), (false, false));
        assert_eq!(kind(r#"{"choices":[],"usage":{"prompt_tokens":1}}"#), (false, false));
        assert_eq!(
            kind(
                r#"{"prompt_progress":{"total":9,"cache":0,"processed":3},"choices":[{"delta":{"role":"assistant","content":null}}]}"#
            ),
            (false, false)
        );
    }

    #[test]
    fn usage_finish_reasons_and_errors() {
        let facts = event(
            r#"{"model":"m","usage":{"prompt_tokens":7,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":5},
            "completion_tokens_details":{"reasoning_tokens":2}},"choices":[{"finish_reason":"stop","index":3},
            {"index":1,"finish_reason":"length"},{"finish_reason":null,"index":2}]}"#,
        );
        let usage = (facts.usage.input, facts.usage.output, facts.usage.cached_input, facts.usage.reasoning_output);
        assert_eq!(usage, (Some(7), Some(4), Some(5), Some(2)));
        assert_eq!(facts.model().map(|model| &**model), Some("m"));
        let finish: Vec<_> = facts.finish.iter().map(|finish| (finish.index, &*finish.reason)).collect();
        assert_eq!(finish, [(3, "stop"), (1, "length")]);
        assert!(!facts.error);
        assert!(event(r#"{"error":{"message":"x"}}"#).error && event(r#"{"error":"x"}"#).error);
        assert!(event(r#"{"object":"error","message":"x"}"#).error);
        assert!(!event(r#"{"error":null,"choices":[]}"#).error);
        assert_eq!(event(r#"{"usage" : null}"#).usage.input, None);
    }
}
