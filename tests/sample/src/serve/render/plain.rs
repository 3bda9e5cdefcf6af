//! Answers without generated tokens.

use serde_json::json;

use crate::{api::Api, serve::behaviour::Plan};

pub(super) fn whole(plan: &Plan) -> String {
    let usage = json!({"prompt_tokens": plan.prompt_tokens, "total_tokens": plan.prompt_tokens});
    let answer = if plan.api == Api::Embeddings {
        let vector: Vec<f64> = (0..64).map(|place| f64::from(place) / 64.0).collect();
        json!({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": vector}], "model": plan.model, "usage": usage})
    } else {
        json!({"id": "rerank-1", "model": plan.model, "results": [{"index": 0, "relevance_score": 0.5}], "usage": usage})
    };
    answer.to_string()
}
