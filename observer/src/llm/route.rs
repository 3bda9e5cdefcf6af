//! Which operation a request asks for, by its method and path; where those do not tell, by the keys of its body.

use super::{DIALECTS, Dialect, operation::Operation};
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
    let path = target.split(['?', '#']).next().unwrap_or_default();
    // Absolute form.
    let path = match path.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |slash| &rest[slash..]),
        None => path,
    };
    let path = path.strip_suffix('/').unwrap_or(path);
    // Of equals the last is taken: the first in the table.
    all().rev().filter(|route| route.fits(path)).max_by_key(|route| route.segments())
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
        for target in
            ["/health", "/v1/models", "/?/v1/completions", "/v1/chat/completions/id", "/v1/uncompletions", "*"]
        {
            assert_eq!(operation(target), None, "{target}");
        }
        assert!(find(Method::Other, "/v1/chat/completions").is_none(), "a GET or a preflight asks for no tokens");
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
}
