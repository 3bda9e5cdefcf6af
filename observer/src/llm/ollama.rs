//! Ollama's own API: lines of JSON, streamed unless the request says otherwise.

use super::{
    Dialect, Facts, is_error,
    json::{Anchor, Path, Value},
    operation::Operation,
    route::Route,
    set,
};

/// The dialect.
#[derive(Debug)]
pub struct Ollama;

pub(super) const ROUTES: &[Route] = &[
    Route::new("/api/chat", Operation::Chat, &Ollama).needs(&["model"]),
    Route::new("/api/generate", Operation::TextCompletion, &Ollama).needs(&["model"]),
    Route::new("/api/embed", Operation::Embeddings, &Ollama).needs(&["model"]),
    Route::new("/api/embeddings", Operation::Embeddings, &Ollama).needs(&["model"]),
];

/// What stands behind the text, the context and the embeddings. A tool's arguments may have any key: none of these.
const ANCHORS: &[Anchor] = &[
    Anchor { path: &["done_reason"] },
    Anchor { path: &["total_duration"] },
    Anchor { path: &["prompt_eval_count"] },
    Anchor { path: &["eval_count"] },
];

impl Dialect for Ollama {
    fn name(&self) -> &'static str {
        "ollama"
    }

    fn event(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        let Some(key) = path.key() else { return };
        match key {
            b"response" => facts.content |= value.has_text() && path.depth() == 1,
            b"content" => facts.content |= value.has_text() && path.is(&["message", "content"]),
            // Its arguments come with it.
            b"name" => facts.content |= value.has_text() && path.is(&["message", "tool_calls", "*", "function", "name"]),
            b"thinking" => {
                facts.reasoning |= value.has_text() && (path.depth() == 1 || path.is(&["message", "thinking"]));
            }
            _ => self.answer(path, value, facts),
        }
    }

    fn answer(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        let Some(key) = path.key().filter(|_| path.depth() == 1) else { return };
        match key {
            b"model" => facts.set_model(value),
            b"error" => facts.error |= is_error(value),
            b"done" => facts.done |= *value == Value::Bool(true),
            b"done_reason" if value.is(b"load") || value.is(b"unload") => facts.control = true,
            b"done_reason" => facts.finished(0, value),
            b"prompt_eval_count" => set(&mut facts.usage.input, value),
            b"eval_count" => set(&mut facts.usage.output, value),
            _ => {}
        }
    }

    fn anchors(&self) -> &'static [Anchor] {
        ANCHORS
    }

    fn is_done(&self, _: &[u8]) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::fixture::{answer, event, finish, kind, request, usage},
        *,
    };

    #[test]
    fn what_is_a_token_and_what_is_not() {
        let kind = |json: &str| kind(&Ollama, json);
        for content in [
            r#"{"model":"llama3.2","created_at":"2023-08-04T08:52:19.385406455-07:00","message":{"role":"assistant","content":"The","images":null},"done":false}"#,
            r#"{"model":"llama3.2","created_at":"2023-08-04T08:52:19.385406455-07:00","response":"The","done":false}"#,
            r#"{"model":"llama3.2","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"content":"x"}}}]},"done":false}"#,
        ] {
            assert_eq!(kind(content), (true, false), "{content}");
        }
        for reasoning in [
            r#"{"model":"m","response":"","thinking":"Need","done":false}"#,
            r#"{"model":"m","message":{"role":"assistant","content":"","thinking":"Need"},"done":false}"#,
        ] {
            assert_eq!(kind(reasoning), (false, true), "{reasoning}");
        }
        for none in [
            r#"{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","eval_count":3}"#,
            r#"{"model":"m","response":"","done":false}"#,
            r#"{"error":"model not found"}"#,
        ] {
            assert_eq!(kind(none), (false, false), "{none}");
        }
    }

    #[test]
    fn the_last_line() {
        let facts = event(
            &Ollama,
            r#"{"model":"llama3.2","created_at":"2023-08-04T19:22:45.499127Z","response":"","done":true,"done_reason":"stop",
            "context":[1,2,3],"total_duration":10706818083,"load_duration":6338219291,"prompt_eval_count":26,
            "prompt_eval_duration":130079000,"eval_count":259,"eval_duration":4232710000}"#,
        );
        assert_eq!((usage(&facts), finish(&facts)), ([Some(26), Some(259), None, None], vec![(0, "stop")]));
        assert!(facts.done && !facts.control && !facts.error);
        assert_eq!(facts.model().map(|model| &**model), Some("llama3.2"));
        let not_done = event(&Ollama, r#"{"model":"m","response":"a","done":false}"#);
        assert!(!not_done.done);
        for reason in ["load", "unload"] {
            let facts =
                answer(&Ollama, &format!(r#"{{"model":"m","response":"","done":true,"done_reason":"{reason}"}}"#));
            assert!(facts.control && facts.finish.is_empty(), "{reason}");
        }
        assert!(event(&Ollama, r#"{"error":"an error was encountered while running the model"}"#).error);
    }

    #[test]
    fn an_answer_and_a_request() {
        let facts = answer(
            &Ollama,
            r#"{"model":"m","created_at":"x","response":"abc…def","done":true,"done_reason":"length","context":[1,2],
            "total_duration":1,"prompt_eval_count":4,"eval_count":5}"#,
        );
        assert_eq!((usage(&facts), finish(&facts)), ([Some(4), Some(5), None, None], vec![(0, "length")]));
        let embedded = r#"{"model":"m","embeddings":[[0.01,…0.02]],"total_duration":14143917,"load_duration":1019500,"prompt_eval_count":8}"#;
        assert_eq!(usage(&answer(&Ollama, embedded)), [Some(8), None, None, None]);
        let asked = request(&Ollama, r#"{"model":"m","messages":[{"model":"no","stream":true}],"stream":false}"#);
        assert_eq!((asked.model.as_deref(), asked.stream), (Some("m"), Some(false)));
    }
}
