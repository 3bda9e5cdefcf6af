//! Which operation a request asks for, by its method and path.

use super::{Dialect, openai::OpenAi, operation::Operation};
use crate::protocol::http1_head::Method;

/// An operation of a dialect.
#[derive(Clone, Copy)]
pub struct Route {
    /// What a path ends with; gateways put anything before it.
    suffix: &'static str,
    /// The operation.
    pub operation: Operation,
    /// How it is worded.
    pub dialect: &'static dyn Dialect,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Route").field(&self.suffix).finish()
    }
}

/// The first that fits counts. Without `/v1`, because gateways replace it and llama.cpp needs none.
const ROUTES: &[Route] = &[
    Route { suffix: "/chat/completions", operation: Operation::Chat, dialect: &OpenAi },
    Route { suffix: "/completions", operation: Operation::TextCompletion, dialect: &OpenAi },
];

/// The route that a request takes; `None`: it asks for no known operation of a language model.
#[must_use]
pub fn find(method: Method, target: &str) -> Option<&'static Route> {
    if method != Method::Post {
        return None;
    }
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let path = path.strip_suffix('/').unwrap_or(path);
    ROUTES.iter().find(|route| path.ends_with(route.suffix))
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
        for target in ["/health", "/v1/models", "/v1/embeddings", "/?/v1/completions", "/v1/chat/completions/id", "/"] {
            assert_eq!(operation(target), None, "{target}");
        }
        assert!(find(Method::Other, "/v1/chat/completions").is_none(), "a GET or a preflight asks for no tokens");
    }
}
