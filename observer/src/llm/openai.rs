//! OpenAI's chat and text completions, as its many implementations word them.

use super::{
    Dialect, Facts, is_error,
    json::{Anchor, Path, Value},
    operation::Operation,
    route::Route,
    set,
};

/// The dialect.
#[derive(Debug)]
pub struct OpenAi;

pub(super) const ROUTES: &[Route] = &[
    Route::new("/chat/completions", Operation::Chat, &OpenAi),
    Route::new("/completions", Operation::TextCompletion, &OpenAi),
    Route::new("/invocations", Operation::Chat, &OpenAi).needs(&["messages"]),
    Route::new("/invocations", Operation::TextCompletion, &OpenAi).needs(&["prompt"]),
];

/// What may stand after a hole in a long answer. No other key of an answer has these names.
const ANCHORS: &[Anchor] =
    &[Anchor { path: &["usage"] }, Anchor { path: &["model"] }, Anchor { path: &["choices", "*", "finish_reason"] }];

impl Dialect for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

    fn event(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        // The key first: it tells nearly all values apart from those that matter.
        let Some(key) = path.key() else { return };
        match key {
            b"content" => facts.content |= value.has_text() && is_content(path),
            // Text completions; a part of a content that has several.
            b"text" => {
                if value.has_text() {
                    facts.content |= path.is(&["choices", "*", "text"]) || is_delta(path, &["content", "*", "text"]);
                    facts.reasoning |= is_delta(path, &["content", "*", "thinking", "*", "text"])
                        || is_delta(path, &["reasoning_details", "*", "text"]);
                }
            }
            b"refusal" => facts.content |= value.has_text() && is_delta(path, &["refusal"]),
            b"reasoning" => facts.reasoning |= value.has_text() && is_delta(path, &["reasoning"]),
            b"reasoning_content" => facts.reasoning |= value.has_text() && is_delta(path, &["reasoning_content"]),
            b"summary" => facts.reasoning |= value.has_text() && is_delta(path, &["reasoning_details", "*", "summary"]),
            b"name" => facts.content |= value.has_text() && is_call(path, "name"),
            b"arguments" => facts.content |= value.has_text() && is_call(path, "arguments"),
            b"input" => facts.content |= value.has_text() && is_call(path, "input"),
            b"data" => facts.content |= value.has_text() && is_delta(path, &["audio", "data"]),
            b"transcript" => facts.content |= value.has_text() && is_delta(path, &["audio", "transcript"]),
            _ => self.answer(path, value, facts),
        }
    }

    fn answer(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        let Some(key) = path.key() else { return };
        match key {
            b"model" if path.depth() == 1 => facts.set_model(value),
            // `{"error": …}`; older vLLM: `{"object": "error", …}`.
            b"error" if path.depth() == 1 => facts.error |= is_error(value),
            b"object" if path.depth() == 1 => facts.error |= value.is(b"error"),
            b"prompt_tokens" if is_usage(path, &["prompt_tokens"]) => set(&mut facts.usage.input, value),
            b"completion_tokens" if is_usage(path, &["completion_tokens"]) => set(&mut facts.usage.output, value),
            b"cached_tokens"
                if is_usage(path, &["prompt_tokens_details", "cached_tokens"])
                    || is_usage(path, &["cached_tokens"]) =>
            {
                set(&mut facts.usage.cached_input, value);
            }
            // DeepSeek.
            b"prompt_cache_hit_tokens" if is_usage(path, &["prompt_cache_hit_tokens"]) => {
                set(&mut facts.usage.cached_input, value);
            }
            b"reasoning_tokens"
                if is_usage(path, &["completion_tokens_details", "reasoning_tokens"])
                    || is_usage(path, &["reasoning_tokens"]) =>
            {
                set(&mut facts.usage.reasoning_output, value);
            }
            // llama.cpp, also where no usage was asked for. What its cache had is no part of `prompt_n`.
            b"cache_n" if path.is(&["timings", "cache_n"]) => {
                set(&mut facts.input_parts[0], value);
                set(&mut facts.usage.cached_input, value);
            }
            b"prompt_n" if path.is(&["timings", "prompt_n"]) => set(&mut facts.input_parts[1], value),
            b"predicted_n" if path.is(&["timings", "predicted_n"]) => {
                facts.usage.output = facts.usage.output.or(value.unsigned());
            }
            // Its `/completions` is its own `/completion`.
            b"tokens_evaluated" if path.depth() == 1 => set(&mut facts.usage.input, value),
            b"tokens_predicted" if path.depth() == 1 => set(&mut facts.usage.output, value),
            b"stop_type" if path.depth() == 1 => facts.finished(0, value),
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

fn is_delta(path: &Path<'_>, tail: &[&str]) -> bool {
    path.ends(&["choices", "*", "delta"], tail)
}

/// Chat; at the root: what llama.cpp sends for `/completions`.
fn is_content(path: &Path<'_>) -> bool {
    is_delta(path, &["content"]) || path.depth() == 1
}

/// Whether it is `key` of a call of a tool, or of a function as they were called once.
fn is_call(path: &Path<'_>, key: &str) -> bool {
    is_delta(path, &["tool_calls", "*", "function", key])
        || is_delta(path, &["tool_calls", "*", "custom", key])
        || is_delta(path, &["function_call", key])
}

/// Whether it is a count of the usage; Moonshot has one in a choice, Groq one of its own.
fn is_usage(path: &Path<'_>, tail: &[&str]) -> bool {
    path.ends(&["usage"], tail) || path.ends(&["choices", "*", "usage"], tail) || path.ends(&["x_groq", "usage"], tail)
}

#[cfg(test)]
mod tests {
    use super::{
        super::fixture::{self, answer, finish, usage},
        *,
    };

    fn event(json: &str) -> Facts {
        fixture::event(&OpenAi, json)
    }

    fn kind(json: &str) -> (bool, bool) {
        fixture::kind(&OpenAi, json)
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
            r#"{"reasoning_details":[{"type":"reasoning.encrypted","data":"x"}]}"#,
            r#"{"annotations":[{"type":"url_citation","url_citation":{"content":"x","title":"y"}}]}"#,
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
            r#"{"tool_calls":[{"index":0,"type":"custom","custom":{"input":"x"}}]}"#,
            r#"{"audio":{"id":"audio_1","transcript":"Hi"}}"#,
            r#"{"audio":{"data":"UklGR"}}"#,
            r#"{"content":[{"type":"text","text":"a"}]}"#,
        ] {
            assert_eq!(delta(content), (true, false), "{content}");
        }
        for reasoning in [
            r#"{"reasoning":"hm"}"#,
            r#"{"content":"","reasoning_details":[{"type":"reasoning.text","text":"hm","signature":null}]}"#,
            r#"{"reasoning_details":[{"type":"reasoning.summary","summary":"hm"}]}"#,
            r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]}]}"#,
        ] {
            assert_eq!(delta(reasoning), (false, true), "{reasoning}");
        }
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

    #[test]
    fn usage_where_others_have_it() {
        for (json, expected) in [
            (
                r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop","usage":{"prompt_tokens":9,"completion_tokens":3,"cached_tokens":4}}]}"#,
                [Some(9), Some(3), Some(4), None],
            ),
            (r#"{"x_groq":{"id":"req_1","usage":{"prompt_tokens":9,"completion_tokens":3}}}"#, [Some(9), Some(3), None, None]),
            (
                r#"{"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_cache_hit_tokens":8,"prompt_cache_miss_tokens":1}}"#,
                [Some(9), Some(3), Some(8), None],
            ),
            // SGLang.
            (r#"{"usage":{"prompt_tokens":9,"completion_tokens":3,"reasoning_tokens":2,"prompt_tokens_details":null}}"#, [Some(9), Some(3), None, Some(2)]),
        ] {
            assert_eq!((usage(&event(json)), usage(&answer(&OpenAi, json))), (expected, expected), "{json}");
        }
    }

    #[test]
    fn llama_cpp() {
        let facts = event(
            r#"{"choices":[{"finish_reason":"stop","index":0,"delta":{}}],"model":"m","object":"chat.completion.chunk",
            "timings":{"cache_n":236,"prompt_n":1,"prompt_ms":30.9,"predicted_n":35,"predicted_ms":661.0}}"#,
        );
        assert_eq!((facts.input_parts, usage(&facts)), ([Some(236), Some(1), None], [None, Some(35), Some(236), None]));
        // Its `/completions` without `/v1`.
        let facts = event(
            r#"{"index":0,"content":"a","stop":true,"tokens_predicted":2,"tokens_evaluated":5,"stop_type":"eos","timings":{"predicted_n":3}}"#,
        );
        assert_eq!((facts.content, usage(&facts), finish(&facts)), (true, [Some(5), Some(2), None, None], vec![(0, "eos")]));
    }
}
