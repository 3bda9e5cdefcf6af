//! llama.cpp's own `completion` and `infill`.

use super::{
    Dialect, Facts, is_error,
    json::{Anchor, Path, Value},
    operation::{Operation, Usage},
    route::Route,
};

/// The dialect.
#[derive(Debug)]
pub struct LlamaCpp;

pub(super) const ROUTES: &[Route] = &[
    Route::new("/completion", Operation::TextCompletion, &LlamaCpp).needs(&["prompt"]),
    Route::new("/infill", Operation::TextCompletion, &LlamaCpp).needs(&["input_prefix", "input_suffix"]),
];

/// What stands behind the text and its ids, and behind the prompt.
const ANCHORS: &[Anchor] = &[
    Anchor { path: &["tokens_predicted"] },
    Anchor { path: &["stop_type"] },
    Anchor { path: &["tokens_cached"] },
    Anchor { path: &["timings"] },
];

impl Dialect for LlamaCpp {
    fn name(&self) -> &'static str {
        "llamacpp"
    }

    fn event(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        match path.key() {
            Some(b"content") => facts.content |= value.has_text() && path.depth() == 1,
            // Of several prompts.
            Some(b"index") if path.depth() == 1 => {
                facts.part = value.unsigned();
                facts.choice_index(0, value);
            }
            Some(b"stop") if path.depth() == 1 => facts.done |= *value == Value::Bool(true),
            _ => self.answer(path, value, facts),
        }
    }

    fn answer(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        let Some(key) = path.key() else { return };
        // Several prompts are answered by an array.
        let slot = path.index(0);
        let is = |tail: &[&str]| path.ends(if slot.is_some() { &["*"] } else { &[] }, tail);
        let count: fn(&mut Usage) -> &mut Option<u64> = match key {
            b"model" if is(&["model"]) => return facts.set_model(value),
            b"error" if path.depth() == 1 => {
                facts.error |= is_error(value);
                return;
            }
            b"stop_type" if is(&["stop_type"]) && !value.is(b"none") => {
                return facts.finished(slot.unwrap_or(0), value);
            }
            // As it once was; only true says so.
            b"stopped_eos" | b"stopped_limit" | b"stopped_word"
                if path.depth() == 1 && *value == Value::Bool(true) =>
            {
                let text = &key["stopped_".len()..];
                return facts.finished(0, &Value::String { text, whole: true, some: true });
            }
            b"tokens_evaluated" if is(&["tokens_evaluated"]) => |usage| &mut usage.input,
            b"tokens_predicted" if is(&["tokens_predicted"]) => |usage| &mut usage.output,
            // Not `tokens_cached`: that is what the cache has now.
            b"cache_n" if is(&["timings", "cache_n"]) => |usage| &mut usage.cached_input,
            _ => return,
        };
        facts.count(count, value, slot.is_some());
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

    const LAST: &str = r#"{"index":0,"content":"","tokens":[],"id_slot":0,"stop":true,"model":"m.gguf","tokens_predicted":8,
        "tokens_evaluated":5,"generation_settings":{"stop":[],"model":"other","seed":1},"prompt":"<s> Hello…","has_new_line":false,
        "truncated":false,"stop_type":"limit","stopping_word":"","tokens_cached":12,
        "timings":{"cache_n":2,"prompt_n":3,"prompt_ms":40.4,"predicted_n":8,"predicted_ms":90.1}}"#;

    #[test]
    fn what_is_a_token_and_what_is_not() {
        let facts = event(
            &LlamaCpp,
            r#"{"index":0,"content":" there","tokens":[1070],"stop":false,"id_slot":0,"tokens_predicted":2,"tokens_evaluated":5}"#,
        );
        assert!(facts.content && !facts.done && facts.progress.is_none());
        assert_eq!(usage(&facts), [Some(5), Some(2), None, None]);
        for none in [
            LAST,
            r#"{"index":0,"content":"","tokens":[],"stop":false,"tokens_predicted":0,"tokens_evaluated":900,"prompt_progress":{"total":900,"cache":0,"processed":512,"time_ms":9}}"#,
            r#"{"error":{"code":500,"message":"x","type":"server_error"}}"#,
        ] {
            assert_eq!(kind(&LlamaCpp, none), (false, false), "{none}");
        }
    }

    #[test]
    fn the_last_event_and_errors() {
        let facts = event(&LlamaCpp, LAST);
        assert_eq!((usage(&facts), finish(&facts)), ([Some(5), Some(8), Some(2), None], vec![(0, "limit")]));
        assert_eq!((facts.done, facts.model().map(|model| &**model)), (true, Some("m.gguf")));
        assert!(event(&LlamaCpp, r#"{"error":{"code":400,"message":"x"}}"#).error);
        let older = r#"{"content":"","stop":true,"stopped_eos":false,"stopped_limit":true,"stopped_word":false}"#;
        assert_eq!(finish(&event(&LlamaCpp, older)), [(0, "limit")]);
        let unfinished = event(&LlamaCpp, r#"{"content":"a","stop":false,"stop_type":"none"}"#);
        assert!(unfinished.finish.is_empty() && !unfinished.done);
    }

    #[test]
    fn answers() {
        let one = LAST.replace("<s> Hello", "<s> …");
        assert_eq!(usage(&answer(&LlamaCpp, &one)), [Some(5), Some(8), Some(2), None]);
        let two = format!("[{LAST},{}]", LAST.replace("limit", "eos"));
        let facts = answer(&LlamaCpp, &two.replace('…', ""));
        assert_eq!(usage(&facts), [Some(10), Some(16), Some(4), None]);
        assert_eq!(finish(&facts), [(0, "limit"), (1, "eos")]);
        assert_eq!(usage(&answer(&LlamaCpp, &two)), [None; 4], "a sum that lacks a part is none");
    }
}
