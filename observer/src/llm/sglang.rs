//! SGLang's `generate`: each event repeats the text from its beginning.

use super::{
    Dialect, Facts, is_error,
    json::{Anchor, Path, Value},
    operation::{Operation, Usage},
    route::Route,
    set,
};

/// The dialect.
#[derive(Debug)]
pub struct Sglang;

pub(super) const ROUTES: &[Route] = &[Route::new("/generate", Operation::TextCompletion, &Sglang).needs(&[
    "text",
    "input_ids",
    "input_embeds",
])];

/// What stands behind the text and the ids; and behind the log probabilities, which stand in the middle.
const ANCHORS: &[Anchor] = &[
    Anchor { path: &["meta_info"] },
    Anchor { path: &["meta_info", "completion_tokens"] },
    Anchor { path: &["meta_info", "cached_tokens"] },
];

impl Dialect for Sglang {
    fn name(&self) -> &'static str {
        "sglang"
    }

    fn event(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        let Some(key) = path.key() else { return };
        match key {
            // Ids that make no text yet are no progress. A server without a tokenizer sends ids alone.
            b"text" if path.depth() == 1 => {
                (facts.text, facts.content) = (true, value.has_text());
                facts.progress = facts.progress.filter(|_| facts.content);
            }
            // Not the text's length: its end may not have been seen.
            b"completion_tokens" if path.is(&["meta_info", "completion_tokens"]) => {
                if facts.content || !facts.text {
                    facts.progress = value.unsigned();
                    facts.content = facts.progress > Some(0);
                }
                set(&mut facts.usage.output, value);
            }
            b"index" if path.depth() == 1 => {
                facts.part = value.unsigned();
                facts.choice_index(0, value);
            }
            _ => self.answer(path, value, facts),
        }
    }

    fn answer(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        let Some(key) = path.key() else { return };
        // Several prompts are answered by an array.
        let slot = path.index(0);
        let is = |tail: &[&str]| path.ends(if slot.is_some() { &["*", "meta_info"] } else { &["meta_info"] }, tail);
        let count: fn(&mut Usage) -> &mut Option<u64> = match key {
            b"error" if path.depth() == 1 => {
                facts.error |= is_error(value);
                return;
            }
            b"type" if is(&["finish_reason", "type"]) => {
                facts.error |= value.is(b"abort");
                facts.finished(slot.unwrap_or(0), value);
                return;
            }
            // As it once was.
            b"finish_reason" if is(&["finish_reason"]) => {
                facts.finished(slot.unwrap_or(0), value);
                return;
            }
            b"prompt_tokens" if is(&["prompt_tokens"]) => |usage| &mut usage.input,
            b"completion_tokens" if is(&["completion_tokens"]) => |usage| &mut usage.output,
            b"cached_tokens" if is(&["cached_tokens"]) => |usage| &mut usage.cached_input,
            b"reasoning_tokens" if is(&["reasoning_tokens"]) => |usage| &mut usage.reasoning_output,
            _ => return,
        };
        facts.count(count, value, slot.is_some());
    }

    fn repeats(&self) -> bool {
        true
    }

    fn anchors(&self) -> &'static [Anchor] {
        ANCHORS
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
        let text = r#"{"text":" Paris","output_ids":[12366],"meta_info":{"id":"a1","finish_reason":null,"prompt_tokens":6,
            "weight_version":"default","completion_tokens":1,"cached_tokens":0,"e2e_latency":0.02}}"#;
        let facts = event(&Sglang, text);
        assert!(facts.content && !facts.reasoning && !facts.done && !facts.error);
        assert_eq!((facts.progress, facts.part, usage(&facts)), (Some(1), None, [Some(6), Some(1), Some(0), None]));
        let reordered = event(&Sglang, r#"{"meta_info":{"completion_tokens":2},"text":" Paris"}"#);
        assert_eq!((reordered.content, reordered.progress), (true, Some(2)));
        let cut = event(&Sglang, r#"{"text":" Paris is…"meta_info":{"finish_reason":null,"completion_tokens":900}}"#);
        assert_eq!((cut.progress, usage(&cut)), (Some(900), [None, Some(900), None, None]));
        for none in [
            r#"{"text":"","meta_info":{"id":"a1","finish_reason":null,"prompt_tokens":6,"completion_tokens":1}}"#,
            r#"{"meta_info":{"completion_tokens":1},"text":""}"#,
            r#"{"output_ids":[],"meta_info":{"completion_tokens":0}}"#,
            r#"{"error":{"message":"input is too long"}}"#,
        ] {
            assert_eq!(kind(&Sglang, none), (false, false), "{none}");
            assert!(event(&Sglang, none).progress.unwrap_or_default() == 0, "{none}");
        }
        let ids = r#"{"output_ids":[12366],"meta_info":{"id":"a1","finish_reason":null,"completion_tokens":1}}"#;
        assert_eq!(kind(&Sglang, ids), (true, false));
        let of_several = event(&Sglang, r#"{"text":"a","meta_info":{"finish_reason":{"type":"stop","matched":2},"completion_tokens":4},"index":3}"#);
        assert_eq!((of_several.part, of_several.progress, finish(&of_several)), (Some(3), Some(4), vec![(3, "stop")]));
    }

    #[test]
    fn finish_reasons_and_errors() {
        let finished = |reason: &str| {
            event(&Sglang, &format!(r#"{{"text":"a","meta_info":{{"finish_reason":{reason},"completion_tokens":4}}}}"#))
        };
        assert_eq!(finish(&finished(r#"{"type":"length","length":16}"#)), [(0, "length")]);
        assert_eq!(finish(&finished(r#""stop""#)), [(0, "stop")]);
        let aborted = finished(r#"{"type":"abort","message":"x","status_code":400,"err_type":"BadRequestError"}"#);
        assert!(aborted.error && !finished("null").error && event(&Sglang, r#"{"error":{"message":"x"}}"#).error);
    }

    #[test]
    fn answers() {
        let one = r#"{"text":"…","meta_info":{"id":"a1","finish_reason":{"type":"length","length":16},"prompt_tokens":6,
            "input_token_logprobs":[[null,1,null]…],"completion_tokens":16,"cached_tokens":2}}"#;
        let facts = answer(&Sglang, one);
        assert_eq!((usage(&facts), finish(&facts)), ([Some(6), Some(16), Some(2), None], vec![(0, "length")]));
        let element = |output| {
            format!(
                r#"{{"text":"a","meta_info":{{"finish_reason":{{"type":"stop"}},"prompt_tokens":6,"completion_tokens":{output}}}}}"#
            )
        };
        let facts = answer(&Sglang, &format!("[{},{}]", element(5), element(7)));
        assert_eq!((usage(&facts), finish(&facts)), ([Some(12), Some(12), None, None], vec![(0, "stop"), (1, "stop")]));
        let facts = answer(&Sglang, &format!("[{},…{}]", element(5), element(7)));
        assert_eq!(usage(&facts), [None; 4], "a sum that lacks a part is none");
    }
}
