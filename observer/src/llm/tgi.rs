//! Hugging Face's text-generation-inference: its own routes.

use super::{
    Dialect, Facts, Kind, is_error,
    json::{Anchor, Path, Value},
    operation::Operation,
    route::Route,
    set,
};

/// The dialect.
#[derive(Debug)]
pub struct Tgi;

const NEEDS: &[&str] = &["inputs"];

pub(super) const ROUTES: &[Route] = &[
    Route::new("/generate", Operation::TextCompletion, &Tgi).needs(NEEDS),
    Route::new("/generate_stream", Operation::TextCompletion, &Tgi).needs(NEEDS),
    Route::new("/invocations", Operation::TextCompletion, &Tgi).needs(NEEDS),
    Route::new("/", Operation::TextCompletion, &Tgi).needs(NEEDS),
];

const ANCHORS: &[Anchor] = &[Anchor { path: &["details"] }];

impl Dialect for Tgi {
    fn name(&self) -> &'static str {
        "tgi"
    }

    fn event(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        match path.key() {
            Some(b"text") if value.has_text() && path.is(&["token", "text"]) => facts.has_text(),
            // The end of the sequence, say: no part of the text.
            Some(b"special") if path.is(&["token", "special"]) => {
                facts.typed(if *value == Value::Bool(true) { Kind::Other } else { Kind::Content });
            }
            _ => self.answer(path, value, facts),
        }
    }

    fn answer(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        let Some(key) = path.key() else { return };
        // The root route answers with an array of one.
        let is = |tail: &[&str]| path.is(tail) || path.ends(&["*"], tail);
        match key {
            b"error" if path.depth() == 1 => facts.error |= is_error(value),
            // The stream's last event has the whole text.
            b"generated_text" if path.depth() == 1 => facts.done |= matches!(value, Value::String { .. }),
            b"generated_tokens" if is(&["details", "generated_tokens"]) => set(&mut facts.usage.output, value),
            b"input_length" if is(&["details", "input_length"]) => set(&mut facts.usage.input, value),
            b"finish_reason" if is(&["details", "finish_reason"]) => facts.finished(0, value),
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

    const LAST: &str = r#"{"index":20,"token":{"id":13,"text":" end","logprob":-0.2,"special":false},"generated_text":"all of it, end",
        "details":{"finish_reason":"length","generated_tokens":20,"seed":null,"input_length":5}}"#;

    #[test]
    fn what_is_a_token_and_what_is_not() {
        let token = |token: &str| {
            kind(&Tgi, &format!(r#"{{"index":1,"token":{token},"generated_text":null,"details":null}}"#))
        };
        assert_eq!(token(r#"{"id":5,"text":" is","logprob":-0.5,"special":false}"#), (true, false));
        assert_eq!(token(r#"{"special":false,"id":5,"text":" is"}"#), (true, false));
        for none in [
            r#"{"id":2,"text":"</s>","logprob":-0.5,"special":true}"#,
            r#"{"special":true,"id":2,"text":"</s>"}"#,
            r#"{"id":9,"text":"","logprob":-0.5,"special":false}"#,
        ] {
            assert_eq!(token(none), (false, false), "{none}");
        }
        assert_eq!(kind(&Tgi, LAST), (true, false), "it holds a token of its own");
        assert_eq!(kind(&Tgi, r#"{"error":"Input validation error","error_type":"validation"}"#), (false, false));
    }

    #[test]
    fn the_last_event_and_errors() {
        let facts = event(&Tgi, LAST);
        assert_eq!((usage(&facts), finish(&facts)), ([Some(5), Some(20), None, None], vec![(0, "length")]));
        assert!(facts.done && !facts.error);
        let facts = event(&Tgi, r#"{"index":1,"token":{"id":5,"text":"a","special":false},"generated_text":null,"details":null}"#);
        assert!(!facts.done);
        assert!(event(&Tgi, r#"{"error":"Request failed during generation","error_type":"generation"}"#).error);
    }

    #[test]
    fn answers() {
        let details = r#""details":{"finish_reason":"eos_token","generated_tokens":7,"seed":null,"prefill":[],"tokens":[{"id":1,"text":"a…"#;
        for answered in [
            format!(r#"{{"generated_text":"ab…c",{details}"#),
            format!(r#"{{"generated_text":"abc",{details}"#),
            format!(r#"[{{"generated_text":"abc",{details}"#),
        ] {
            let facts = answer(&Tgi, &answered);
            assert_eq!((usage(&facts), finish(&facts)), ([None, Some(7), None, None], vec![(0, "eos_token")]), "{answered}");
        }
        assert_eq!(usage(&answer(&Tgi, r#"[{"generated_text":"abc"}]"#)), [None; 4]);
    }
}
