//! Which operation a request asks for, by its method and path; where those do not tell, by the keys of its body.

use super::{DIALECTS, Dialect, json::TEXT_MAX, operation::Operation};
use crate::protocol::http1_head::Method;

/// An operation of a dialect.
#[derive(Clone, Copy)]
pub struct Route {
    /// What a path ends with, in whole segments; `*` is any one. Gateways put anything before it. `/` is the root alone.
    pattern: &'static str,
    /// The operation.
    pub operation: Operation,
    /// How it is worded.
    pub dialect: &'static dyn Dialect,
    /// Where others use such paths, too: the request's body has one of these keys at its root.
    needs: &'static [&'static str],
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Route").field(&self.pattern).field(&self.dialect.name()).finish()
    }
}

impl Route {
    /// Without `/v1`, because gateways replace it and some servers need none.
    #[must_use]
    pub const fn new(pattern: &'static str, operation: Operation, dialect: &'static dyn Dialect) -> Self {
        Self { pattern, operation, dialect, needs: &[] }
    }

    /// Others use this path, too: only a body with one of these keys at its root is meant.
    #[must_use]
    pub const fn needs(self, needs: &'static [&'static str]) -> Self {
        Self { needs, ..self }
    }

    /// Whether the path alone tells.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.needs.is_empty()
    }

    /// The route of the same path that is meant by a body with this key at its root.
    #[must_use]
    pub fn by_key(&'static self, key: &[u8]) -> Option<&'static Self> {
        let means = |route: &&'static Self| route.needs.iter().any(|needed| needed.as_bytes() == key);
        Some(self).filter(means).or_else(|| all().filter(|route| route.pattern == self.pattern).find(means))
    }

    /// The model that the path names, where the route has it there.
    #[must_use]
    pub fn model<'t>(&self, target: &'t str) -> Option<&'t str> {
        let wanted = self.pattern.rsplit('/').zip(self.pattern.rsplit('/').skip(1));
        let mut segments = wanted.zip(path_of(target).rsplit('/'));
        let (_, name) = segments.find(|(step, _)| *step == ("*", "models"))?;
        Some(name).filter(|name| name.len() <= TEXT_MAX)
    }

    fn fits(&self, path: &str) -> bool {
        if self.pattern == "/" {
            return path.is_empty() || path == "/";
        }
        let (mut wanted, mut found) = (self.pattern.rsplit('/'), path.rsplit('/'));
        // The pattern begins with a slash: its last piece, from the back, is empty.
        self.pattern.bytes().filter(|byte| *byte == b'/').all(|_| match (wanted.next(), found.next()) {
            (Some("*"), Some(segment)) => !segment.is_empty(),
            (wanted, found) => wanted == found,
        }) && found.next().is_some()
    }

    fn segments(&self) -> usize {
        self.pattern.bytes().filter(|byte| *byte == b'/').count()
    }
}

fn all() -> impl DoubleEndedIterator<Item = &'static Route> {
    DIALECTS.iter().flat_map(|routes| routes.iter())
}

/// The route that a request takes, the first of those with the longest pattern; `None`: it asks for no known operation of
/// a language model.
#[must_use]
pub fn find(method: Method, target: &str) -> Option<&'static Route> {
    if method != Method::Post {
        return None;
    }
    let path = path_of(target);
    // Of equals the last is taken: the first in the table.
    all().rev().filter(|route| route.fits(path)).max_by_key(|route| route.segments())
}

/// Without query, authority and a slash at its end.
fn path_of(target: &str) -> &str {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    // Absolute form.
    let path = match path.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |slash| &rest[slash..]),
        None => path,
    };
    path.strip_suffix('/').unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        let operation = |target| find(Method::Post, target).map(|route| route.operation);
        for target in [
            "/v1/chat/completions",
            "/openai/v1/chat/completions",
            "/openai/deployments/gpt/chat/completions?api-version=1",
            "/v1/chat/completions/",
            "/chat/completions",
            "http://host:1/v1/chat/completions",
        ] {
            assert_eq!(operation(target), Some(Operation::Chat), "{target}");
        }
        assert_eq!(operation("/v1/completions?x=/v1/chat/completions"), Some(Operation::TextCompletion));
        for target in ["/v1/chat/completions/id", "/v1/uncompletions", "*", "/chat"] {
            assert_eq!(operation(target), None, "{target}");
        }
        assert!(find(Method::Other, "/v1/chat/completions").is_none(), "a GET or a preflight asks for no tokens");
        assert!(find(Method::Post, "/?/v1/completions").is_some_and(|route| !route.is_certain()), "the root, as TGI's");
    }

    #[test]
    fn no_control_route_is_one() {
        let paths = [
            "/health",
            "/health_generate",
            "/healthz",
            "/ping",
            "/metrics",
            "/info",
            "/version",
            "/load",
            "/props",
            "/slots",
            "/v1/models",
            "/v1/models/m",
            "/models",
            "/api/tags",
            "/api/ps",
            "/api/show",
            "/api/pull",
            "/api/push",
            "/api/create",
            "/api/copy",
            "/api/version",
            "/get_model_info",
            "/get_server_info",
            "/flush_cache",
            "/v2/health/ready",
            "/v2/models/m/ready",
            "/v2/models/m/infer",
            "/v2/repository/index",
            "/apply-template",
            "/lora-adapters",
            "/v1/load_lora_adapter",
            "/v1/files",
            "/v1/batches",
            "/v1/responses/resp_1",
            "/v1/responses/resp_1/cancel",
            "/v1/messages/batches",
            "/sleep",
            "/wake_up",
        ];
        for prefix in ["", "/openai", "/gateway/team", "http://host:8000"] {
            for path in paths {
                let target = format!("{prefix}{path}");
                assert!(find(Method::Post, &target).is_none(), "{target}");
            }
        }
    }

    #[test]
    fn each_server() {
        let taken = |target: &str, key: &str| {
            let route = find(Method::Post, target)?;
            let route = if route.is_certain() { Some(route) } else { route.by_key(key.as_bytes()) };
            route.map(|route| (route.dialect.name(), route.operation))
        };
        use Operation::{
            Chat, Classify, CountTokens, Detokenize, Embeddings, Pooling, Rerank, Score, TextCompletion, Tokenize,
        };
        for (path, key, dialect, operation) in [
            ("/v1/chat/completions", "", "openai", Chat),
            ("/v1/completions", "", "openai", TextCompletion),
            ("/invocations", "messages", "openai", Chat),
            ("/invocations", "prompt", "openai", TextCompletion),
            ("/invocations", "inputs", "tgi", TextCompletion),
            ("/v1/responses", "input", "openai_responses", Chat),
            ("/v1/responses/input_tokens", "", "plain", CountTokens),
            ("/v1/messages", "max_tokens", "anthropic", Chat),
            ("/v1/messages/count_tokens", "", "plain", CountTokens),
            ("/api/chat", "model", "ollama", Chat),
            ("/api/generate", "model", "ollama", TextCompletion),
            ("/api/embed", "model", "ollama", Embeddings),
            ("/api/embeddings", "model", "ollama", Embeddings),
            ("/generate", "text", "sglang", TextCompletion),
            ("/generate", "input_ids", "sglang", TextCompletion),
            ("/generate", "inputs", "tgi", TextCompletion),
            ("/generate_stream", "inputs", "tgi", TextCompletion),
            ("/completion", "prompt", "llamacpp", TextCompletion),
            ("/infill", "input_suffix", "llamacpp", TextCompletion),
            ("/v2/models/ensemble/generate", "text_input", "triton", TextCompletion),
            ("/v2/models/m/versions/1/generate_stream", "text_input", "triton", TextCompletion),
            ("/v1/embeddings", "", "plain", Embeddings),
            ("/embed", "inputs", "plain", Embeddings),
            ("/v2/rerank", "query", "plain", Rerank),
            ("/v1/score", "text_1", "plain", Score),
            ("/classify", "input", "plain", Classify),
            ("/pooling", "input", "plain", Pooling),
            ("/tokenize", "prompt", "plain", Tokenize),
            ("/detokenize", "tokens", "plain", Detokenize),
        ] {
            for prefix in ["", "/gateway/team"] {
                assert_eq!(taken(&format!("{prefix}{path}"), key), Some((dialect, operation)), "{prefix}{path}");
            }
        }
        assert_eq!(taken("/", "inputs"), Some(("tgi", TextCompletion)));
        for (path, key) in [
            // vLLM's example server: each event repeats all, and says no count.
            ("/generate", "prompt"),
            ("/", "text"),
            ("/gateway", "inputs"),
            ("/v2/models/yolo/generate", "image"),
            ("/v1/messages", "to"),
            ("/api/chat", "message"),
        ] {
            assert_eq!(taken(path, key), None, "{path} {key}");
        }
    }

    #[test]
    fn patterns() {
        let fits = |pattern, path| Route::new(pattern, Operation::Chat, &super::super::openai::OpenAi).fits(path);
        assert!(fits("/v2/models/*/generate", "/x/v2/models/m/generate"));
        assert!(!fits("/v2/models/*/generate", "/v2/models//generate"));
        assert!(!fits("/v2/models/*/generate", "v2/models/m/generate"), "a path begins with a slash");
        assert!(!fits("/generate", "/regenerate") && !fits("/generate", "generate"));
        assert!(fits("/", "") && !fits("/", "/x"));
    }

    #[test]
    fn a_model_in_the_path() {
        let model = |target| find(Method::Post, target).and_then(|route| route.model(target));
        assert_eq!(model("/x/v2/models/llama/versions/1/generate_stream?a=/models/b/"), Some("llama"));
        assert_eq!(model("/models/other/v2/models/llama/generate/"), Some("llama"));
        assert_eq!(model("/models/m/v1/chat/completions"), None, "any prefix may look so");
    }
}
