//! Anthropic's messages, and what other servers offer under that name.

use super::{
    Dialect, Facts, Kind, is_error,
    json::{Anchor, Path, Value},
    operation::Operation,
    route::Route,
    set,
};

/// The dialect.
#[derive(Debug)]
pub struct Anthropic;

// A path that messengers have, too.
pub(super) const ROUTES: &[Route] =
    &[Route::new("/messages", Operation::Chat, &Anthropic).needs(&["max_tokens", "messages", "anthropic_version"])];

/// The model stands before what is long.
const ANCHORS: &[Anchor] = &[Anchor { path: &["stop_reason"] }, Anchor { path: &["usage"] }];

impl Dialect for Anthropic {
    fn name(&self) -> &'static str {
        "anthropic"
    }

    fn event(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        let Some(key) = path.key() else { return };
        match key {
            b"type" if path.depth() == 1 => {
                facts.error |= value.is(b"error");
                facts.done |= value.is(b"message_stop");
                // The texts of blocks that come whole, such as results of a search, are not generated.
                facts.typed(if value.is(b"content_block_delta") { Kind::Content } else { Kind::Other });
            }
            b"text" | b"partial_json" if path.depth() == 2 => {
                if value.has_text() && (path.is(&["delta", "text"]) || path.is(&["delta", "partial_json"])) {
                    facts.has_text();
                }
            }
            b"thinking" if path.is(&["delta", "thinking"]) => facts.reasoning |= value.has_text(),
            b"model" if path.is(&["message", "model"]) => facts.set_model(value),
            b"stop_reason" if path.is(&["delta", "stop_reason"]) => facts.finished(0, value),
            // The few that a stream begins with are no count of what was generated.
            b"output_tokens" if path.depth() == 3 => {}
            _ => {
                if !input(path, value, facts) {
                    self.answer(path, value, facts);
                }
            }
        }
    }

    fn answer(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        let Some(key) = path.key() else { return };
        match key {
            b"model" if path.depth() == 1 => facts.set_model(value),
            b"error" if path.depth() == 1 => facts.error |= is_error(value),
            b"stop_reason" if path.depth() == 1 => facts.finished(0, value),
            b"output_tokens" if path.is(&["usage", "output_tokens"]) => set(&mut facts.usage.output, value),
            b"thinking_tokens" if path.is(&["usage", "output_tokens_details", "thinking_tokens"]) => {
                set(&mut facts.usage.reasoning_output, value);
            }
            _ => {
                input(path, value, facts);
            }
        }
    }

    fn anchors(&self) -> &'static [Anchor] {
        ANCHORS
    }
}

/// Prompt tokens that no cache had a part in, that one gave, that one took: three counts.
fn input(path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) -> bool {
    let (part, key) = match path.key() {
        Some(b"input_tokens") => (0, "input_tokens"),
        Some(b"cache_read_input_tokens") => (1, "cache_read_input_tokens"),
        Some(b"cache_creation_input_tokens") => (2, "cache_creation_input_tokens"),
        _ => return false,
    };
    if path.is(&["usage", key]) || path.is(&["message", "usage", key]) {
        set(&mut facts.input_parts[part], value);
        if part == 1 {
            set(&mut facts.usage.cached_input, value);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::{
        super::fixture::{answer, event, finish, kind, usage},
        *,
    };

    const START: &str = r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],
        "model":"claude","stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":25,"cache_creation_input_tokens":3,
        "cache_read_input_tokens":12,"output_tokens":1,"service_tier":"standard"}}}"#;

    #[test]
    fn what_is_a_token_and_what_is_not() {
        let delta = |delta: &str| {
            kind(&Anthropic, &format!(r#"{{"type":"content_block_delta","index":0,"delta":{delta}}}"#))
        };
        assert_eq!(delta(r#"{"type":"text_delta","text":"Hello"}"#), (true, false));
        assert_eq!(delta(r#"{"type":"input_json_delta","partial_json":"{\"loc"}"#), (true, false));
        assert_eq!(delta(r#"{"type":"thinking_delta","thinking":"hm"}"#), (false, true));
        for none in [
            r#"{"type":"input_json_delta","partial_json":""}"#,
            r#"{"type":"text_delta","text":""}"#,
            r#"{"type":"signature_delta","signature":"EqQB"}"#,
            r#"{"type":"citations_delta","citation":{"type":"char_location","cited_text":"x"}}"#,
        ] {
            assert_eq!(delta(none), (false, false), "{none}");
        }
        for none in [
            START,
            r#"{"type":"ping"}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_1","name":"f","input":{}}}"#,
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"message_stop"}"#,
        ] {
            assert_eq!(kind(&Anthropic, none), (false, false), "{none}");
            assert!(event(&Anthropic, none).is_no_token(), "{none}");
        }
        for reordered in [
            r#"{"delta":{"text":"a","type":"text_delta"},"index":0,"type":"content_block_delta"}"#,
            r#"{"delta":{"thinking":"a"},"type":"content_block_delta"}"#,
        ] {
            assert_ne!(kind(&Anthropic, reordered), (false, false), "{reordered}");
        }
    }

    #[test]
    fn usage_model_and_ends() {
        let facts = event(&Anthropic, START);
        assert_eq!((facts.input_parts, usage(&facts)), ([Some(25), Some(12), Some(3)], [None, None, Some(12), None]));
        assert_eq!(facts.model().map(|model| &**model), Some("claude"));
        assert!(finish(&facts).is_empty() && !facts.done && !facts.error);
        let facts = event(
            &Anthropic,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":15}}"#,
        );
        assert_eq!((usage(&facts), finish(&facts)), ([None, Some(15), None, None], vec![(0, "end_turn")]));
        let facts = event(
            &Anthropic,
            r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"input_tokens":36,"cache_creation_input_tokens":1043,
            "cache_read_input_tokens":0,"output_tokens":45,"output_tokens_details":{"thinking_tokens":7},
            "cache_creation":{"ephemeral_5m_input_tokens":1043}}}"#,
        );
        assert_eq!(
            (facts.input_parts, usage(&facts)),
            ([Some(36), Some(0), Some(1043)], [None, Some(45), Some(0), Some(7)])
        );
        assert!(event(&Anthropic, r#"{"type":"message_stop"}"#).done);
        let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
        assert!(event(&Anthropic, error).error && answer(&Anthropic, error).error);
    }

    #[test]
    fn an_answer() {
        let facts = answer(
            &Anthropic,
            r#"{"model":"claude","id":"msg_1","type":"message","role":"assistant","content":[{"type":"text","text":"Hi … bye"}],
            "stop_reason":"max_tokens","stop_sequence":null,"usage":{"input_tokens":9,"cache_read_input_tokens":null,"output_tokens":10}}"#,
        );
        assert_eq!((facts.input_parts, usage(&facts)), ([Some(9), None, None], [None, Some(10), None, None]));
        assert_eq!((finish(&facts), facts.model().map(|model| &**model)), (vec![(0, "max_tokens")], Some("claude")));
    }
}
