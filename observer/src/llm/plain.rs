//! Operations that generate no tokens, by whichever server: embeddings, scores, tokens of a text.

use super::{
    Dialect, Facts, is_error,
    json::{Anchor, Path, Value},
    operation::Operation,
    route::Route,
    set,
};

/// The dialect.
#[derive(Debug)]
pub struct Plain;

const fn route(pattern: &'static str, operation: Operation) -> Route {
    Route::new(pattern, operation, &Plain)
}

// OpenAI, vLLM, SGLang, llama.cpp, text-embeddings-inference, Cohere and Jina, in their words.
pub(super) const ROUTES: &[Route] = &[
    route("/embeddings", Operation::Embeddings),
    route("/embedding", Operation::Embeddings).needs(&["content", "input"]),
    route("/embed", Operation::Embeddings).needs(&["inputs", "texts"]),
    route("/embed_all", Operation::Embeddings).needs(&["inputs"]),
    route("/embed_sparse", Operation::Embeddings).needs(&["inputs"]),
    route("/encode", Operation::Embeddings).needs(&["text", "input_ids"]),
    route("/rerank", Operation::Rerank).needs(&["query", "documents", "texts"]),
    route("/reranking", Operation::Rerank).needs(&["query", "documents"]),
    route("/score", Operation::Score).needs(&["text_1", "text_2", "query", "items", "queries", "documents", "data_1"]),
    route("/similarity", Operation::Score).needs(&["inputs"]),
    route("/classify", Operation::Classify).needs(&["input", "text", "input_ids", "messages"]),
    route("/predict", Operation::Classify).needs(&["inputs"]),
    route("/pooling", Operation::Pooling).needs(&["input", "messages", "data"]),
    route("/tokenize", Operation::Tokenize).needs(&["prompt", "messages", "inputs", "content"]),
    route("/detokenize", Operation::Detokenize).needs(&["tokens"]),
    route("/decode", Operation::Detokenize).needs(&["ids"]),
    route("/extras/tokenize", Operation::Tokenize).needs(&["input"]),
    route("/extras/detokenize", Operation::Detokenize).needs(&["tokens"]),
    route("/extras/tokenize/count", Operation::CountTokens).needs(&["input"]),
    route("/messages/count_tokens", Operation::CountTokens),
    route("/responses/input_tokens", Operation::CountTokens),
];

const ANCHORS: &[Anchor] = &[Anchor { path: &["usage"] }, Anchor { path: &["model"] }];

impl Dialect for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn event(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        self.answer(path, value, facts);
    }

    fn answer(&self, path: &Path<'_>, value: &Value<'_>, facts: &mut Facts) {
        let Some(key) = path.key() else { return };
        let usage = &mut facts.usage;
        // Not what count_tokens or tokenize count: no model worked on those.
        match key {
            b"model" if path.depth() == 1 => facts.set_model(value),
            b"error" if path.depth() == 1 => facts.error |= is_error(value),
            b"object" if path.depth() == 1 => facts.error |= value.is(b"error"),
            b"prompt_tokens" if path.is(&["usage", "prompt_tokens"]) => set(&mut usage.input, value),
            // Where it stands alone; nothing is generated.
            b"total_tokens" if path.is(&["usage", "total_tokens"]) => usage.input = usage.input.or(value.unsigned()),
            b"cached_tokens" if path.is(&["usage", "prompt_tokens_details", "cached_tokens"]) => {
                set(&mut usage.cached_input, value);
            }
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
        super::fixture::{answer, kind, usage},
        *,
    };

    #[test]
    fn usage_and_model() {
        let facts = answer(
            &Plain,
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.01,-0.2…0.3]}],"model":"e5",
            "usage":{"prompt_tokens":8,"total_tokens":8}}"#,
        );
        assert_eq!((usage(&facts), facts.model().map(|model| &**model)), ([Some(8), None, None, None], Some("e5")));
        let ranked = r#"{"id":"score-1","model":"bge","usage":{"total_tokens":56},"results":[{"index":0,"document":{"text":"a"},"relevance_score":0.9}]}"#;
        assert_eq!(usage(&answer(&Plain, ranked)), [Some(56), None, None, None]);
        let ordered = r#"{"usage":{"total_tokens":9,"prompt_tokens":8}}"#;
        assert_eq!(usage(&answer(&Plain, ordered)), [Some(8), None, None, None]);
        for none in ["[[0.1,0.2]]", r#"{"input_tokens":14}"#, r#"{"count":5,"max_model_len":2048,"tokens":[1,2]}"#] {
            assert_eq!(usage(&answer(&Plain, none)), [None; 4], "{none}");
        }
    }

    #[test]
    fn errors_and_no_tokens() {
        assert!(answer(&Plain, r#"{"error":"batch size","error_type":"Validation"}"#).error);
        assert!(answer(&Plain, r#"{"object":"error","message":"x","code":400}"#).error);
        assert!(!answer(&Plain, r#"{"object":"list","error":null}"#).error);
        assert_eq!(kind(&Plain, r#"{"choices":[{"delta":{"content":"a"}}]}"#), (false, false));
    }
}
