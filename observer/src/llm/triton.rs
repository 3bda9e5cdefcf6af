//! Triton's generate extension, as the backends for language models use it.

use super::{
    Dialect, Facts, is_error,
    json::{Anchor, Path, Value},
    operation::Operation,
    route::Route,
    set,
};

/// The dialect.
#[derive(Debug)]
pub struct Triton;

// A Triton server serves models of any kind: a language model's input has this name.
const NEEDS: &[&str] = &["text_input"];

pub(super) const ROUTES: &[Route] = &[
    Route::new("/v2/models/*/generate", Operation::TextCompletion, &Triton).needs(NEEDS),
    Route::new("/v2/models/*/generate_stream", Operation::TextCompletion, &Triton).needs(NEEDS),
    Route::new("/v2/models/*/versions/*/generate", Operation::TextCompletion, &Triton).needs(NEEDS),
    Route::new("/v2/models/*/versions/*/generate_stream", Operation::TextCompletion, &Triton).needs(NEEDS),
];

const ANCHORS: &[Anchor] = &[Anchor { path: &["model_name"] }, Anchor { path: &["num_output_tokens"] }];

impl Dialect for Triton {
    fn name(&self) -> &'static str {
        "triton"
    }

    fn event(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        match path.key() {
            Some(b"text_output") => facts.content |= value.has_text() && path.depth() == 1,
            // Of this event alone, or of all so far: backends differ.
            Some(b"num_output_tokens") => {}
            // Of a batch: `text_output` is an array.
            None if path.is(&["text_output", "*"]) => facts.content |= value.has_text(),
            _ => self.answer(path, value, facts),
        }
    }

    fn answer(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        let Some(key) = path.key().filter(|_| path.depth() == 1) else { return };
        match key {
            b"model_name" => facts.set_model(value),
            b"error" => facts.error |= is_error(value),
            b"finish_reason" => facts.finished(0, value),
            b"num_input_tokens" => set(&mut facts.usage.input, value),
            b"num_output_tokens" => set(&mut facts.usage.output, value),
            _ => {}
        }
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
        let token = r#"{"model_name":"ensemble","model_version":"1","sequence_end":false,"sequence_id":0,"sequence_start":false,"text_output":" learning"}"#;
        let facts = event(&Triton, token);
        assert!(facts.content && !facts.done && !facts.error);
        assert_eq!(facts.model().map(|model| &**model), Some("ensemble"));
        assert_eq!(kind(&Triton, r#"{"model_name":"m","text_output":["","a"]}"#), (true, false));
        for none in [r#"{"model_name":"m","text_output":""}"#, r#"{"error":"failed to generate"}"#, r#"{"text_output":[""]}"#] {
            assert_eq!(kind(&Triton, none), (false, false), "{none}");
        }
        assert!(event(&Triton, r#"{"error":"failed to generate"}"#).error);
    }

    #[test]
    fn an_answer() {
        let facts = answer(
            &Triton,
            r#"{"finish_reason":"length","model_name":"vllm_model","model_version":"1","num_input_tokens":5,"num_output_tokens":9,"text_output":"abc"}"#,
        );
        assert_eq!((usage(&facts), finish(&facts)), ([Some(5), Some(9), None, None], vec![(0, "length")]));
        let streamed = event(&Triton, r#"{"num_output_tokens":1,"text_output":"a"}"#);
        assert_eq!(usage(&streamed), [None; 4]);
    }
}
