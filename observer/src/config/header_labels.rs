//! Request headers whose values become labels.

use serde::{Deserialize, Serialize};

use super::{ConfigError, MetricsConfig};

/// Most of them: series multiply with each.
pub const MOST: usize = 3;
/// Most distinct values that one may be given.
const VALUES_MAX: usize = 1000;

/// A request header whose value becomes a label of all families of requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderLabel {
    /// Name of the header; upper and lower case are the same.
    pub header: String,
    /// Name of the label; empty: the header's, in lower case, with `_` for what labels may not have.
    #[serde(default)]
    pub label: String,
    /// Most distinct values; more become `_other`.
    #[serde(default = "max_values")]
    pub max_values: usize,
    /// Whether a hash stands in for the value.
    #[serde(default)]
    pub hash: bool,
}

fn max_values() -> usize {
    32
}

impl HeaderLabel {
    /// With all else at its default.
    #[must_use]
    pub fn of(header: &str) -> Self {
        Self { header: header.to_owned(), label: String::new(), max_values: max_values(), hash: false }
    }

    /// Name of the label.
    #[must_use]
    pub fn name(&self) -> String {
        if self.label.is_empty() {
            let valid = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
            self.header.chars().map(valid).collect()
        } else {
            self.label.clone()
        }
    }
}

/// Shortest key of a hash, in bytes.
const KEY_MIN: usize = 16;

impl MetricsConfig {
    /// Reads the key of hashed labels; `None`: they have none.
    ///
    /// # Errors
    /// If the file cannot be read, or its key is too short to be one.
    pub fn hash_key(&self) -> Result<Option<Vec<u8>>, ConfigError> {
        let Some(path) = &self.hash_key_file else { return Ok(None) };
        let invalid = |message| ConfigError::Invalid {
            place: path.display().to_string(),
            key: "metrics.hash_key_file".to_owned(),
            message,
        };
        let mut key = std::fs::read(path)
            .map_err(|error| invalid(format!("cannot read it: {error}; check the path and its permissions")))?;
        key.truncate(key.len() - key.iter().rev().take_while(|byte| matches!(byte, b'\r' | b'\n')).count());
        if key.len() < KEY_MIN {
            let message = format!(
                "a key of {} bytes is too short; `head -c 32 /dev/urandom | base64` makes one that does",
                key.len()
            );
            return Err(invalid(message));
        }
        Ok(Some(key))
    }
}

/// Labels that a header's may not be named like: those of our own families, of the text formats and those that
/// Prometheus gives to every series.
pub(crate) const TAKEN: &[&str] = &[
    "action",
    "cause",
    "cgroup",
    "clock",
    "command",
    "container_id",
    "content",
    "cuda",
    "device",
    "direction",
    "driver",
    "error_type",
    "estimated",
    "finish_reason",
    "gen_ai_operation_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
    "gen_ai_token_type",
    "gpu",
    "http_response_status_code",
    "instance",
    "job",
    "kind",
    "label",
    "le",
    "map",
    "mechanism",
    "name",
    "operation",
    "outcome",
    "phase",
    "pid",
    "pod_uid",
    "probe",
    "quantile",
    "reason",
    "request_id",
    "result",
    "role",
    "server_port",
    "signal",
    "slo",
    "source",
    "trace_id",
    "type",
    "unit",
    "uuid",
    "version",
    "workload",
    "xid",
];

/// Headers that carry secrets, although their names do not say so.
const SECRET_HEADERS: &[&str] = &["x-auth", "x-amzn-oidc-data"];
/// Headers with this in their name carry secrets.
const SECRET_PARTS: &[&str] = &[
    "apikey",
    "api_key",
    "assertion",
    "authorization",
    "bearer",
    "cookie",
    "credential",
    "jwt",
    "passphrase",
    "passwd",
    "password",
    "secret",
    "session",
    "signature",
    "token",
];
/// Headers with this word in their name carry secrets: `api-key`, `x-goog-api-key`, `ocp-apim-subscription-key`.
const SECRET_WORDS: &[&str] = &["key", "keys", "otp", "sig"];
/// Headers that are different for each request.
const UNIQUE_HEADERS: &[&str] = &["traceparent", "x-request-id"];

fn is_secret(header: &str) -> bool {
    SECRET_HEADERS.contains(&header)
        || SECRET_PARTS.iter().any(|part| header.contains(part))
        || header.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| SECRET_WORDS.contains(&word))
}

/// What is wrong with them.
pub(super) fn check(labels: &[HeaderLabel]) -> Result<(), String> {
    if labels.len() > MOST {
        return Err(format!("{} headers are too many: series multiply with each, so at most {MOST}", labels.len()));
    }
    for (index, label) in labels.iter().enumerate() {
        let header = label.header.to_ascii_lowercase();
        check_header(&header).map_err(|what| format!("header `{}` {what}", label.header))?;
        let name = label.name();
        check_name(&name).map_err(|what| format!("header `{}`: label `{name}` {what}", label.header))?;
        let earlier = &labels[..index];
        if earlier.iter().any(|earlier| earlier.header.eq_ignore_ascii_case(&header)) {
            return Err(format!("header `{}` stands there twice", label.header));
        }
        if earlier.iter().any(|earlier| earlier.name() == name) {
            return Err(format!("label `{name}` stands there twice: give each header a label of its own"));
        }
        if !(1..=VALUES_MAX).contains(&label.max_values) {
            return Err(format!("header `{}`: max_values must be from 1 to {VALUES_MAX}", label.header));
        }
    }
    Ok(())
}

fn check_header(header: &str) -> Result<(), &'static str> {
    // RFC 9110, 5.6.2.
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if header.is_empty() || !header.chars().all(is_token) {
        return Err("is not a name of a header, for example x-tenant");
    }
    if is_secret(header) {
        return Err("may carry a secret, which no label shows, hashed or not; name another, for example one that a \
                    gateway sets to the name of the tenant");
    }
    if UNIQUE_HEADERS.contains(&header) {
        return Err("is different for each request; it is in the request log and in exemplars already");
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !name.chars().all(valid) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("is not a name of a label: letters, digits and _, no digit first; set label = \"…\"");
    }
    if name.starts_with("__") {
        return Err("begins with __, which Prometheus keeps for itself; set label = \"…\"");
    }
    if TAKEN.contains(&name) {
        return Err("is taken by another label; set label = \"…\"");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(headers: &[&str]) -> String {
        check(&headers.iter().map(|header| HeaderLabel::of(header)).collect::<Vec<_>>()).unwrap_err()
    }

    #[test]
    fn secrets_are_refused_however_they_are_spelled() {
        for header in [
            "authorization",
            "Authorization",
            "proxy-authorization",
            "cookie",
            "Set-Cookie",
            "cookie2",
            "x-api-key",
            "api-key",
            "X-Goog-Api-Key",
            "ocp-apim-subscription-key",
            "apikey",
            "x_api_key",
            "x-amz-security-token",
            "x-amzn-oidc-data",
            "x-auth",
            "x-auth-token",
            "x-client-secret",
            "x-password",
            "x-session-id",
            "x-hub-signature-256",
            "cf-access-jwt-assertion",
        ] {
            let hashed = [HeaderLabel { hash: true, label: "tenant".to_owned(), ..HeaderLabel::of(header) }];
            for message in [complaint(&[header]), check(&hashed).unwrap_err()] {
                assert!(message.starts_with(&format!("header `{header}` may carry a secret")), "{message}");
            }
        }
        for header in ["x-tenant", "X-Organization", "openai-organization", "x-keyboard", "user-agent", "x-author"] {
            check(&[HeaderLabel::of(header)]).unwrap();
        }
    }

    #[test]
    fn names_are_valid_free_and_distinct() {
        for (headers, expected) in [
            (&["a", "b", "c", "d"][..], "4 headers are too many"),
            (&[""], "is not a name of a header"),
            (&["x tenant"], "is not a name of a header"),
            (&["x-ténant"], "is not a name of a header"),
            (&["x-tenant:"], "is not a name of a header"),
            (&["traceparent"], "different for each request"),
            (&["X-Request-Id"], "different for each request"),
            (&["3scale"], "label `3scale` is not a name of a label"),
            (&["--x"], "label `__x` begins with __"),
            (&["Workload"], "label `workload` is taken"),
            (&["le"], "label `le` is taken"),
            (&["x-tenant", "X-Tenant"], "stands there twice"),
            (&["x-tenant", "x.tenant"], "label `x_tenant` stands there twice"),
        ] {
            let message = complaint(headers);
            assert!(message.contains(expected), "{headers:?}: {message}");
        }
        for label in ["x-tenant", "9", "__name__", "quantile", "ténant"] {
            let labels = [HeaderLabel { label: label.to_owned(), ..HeaderLabel::of("x-tenant") }];
            assert!(check(&labels).unwrap_err().contains(&format!("label `{label}`")));
        }
        for max_values in [0, 1001] {
            let labels = [HeaderLabel { max_values, ..HeaderLabel::of("x-tenant") }];
            assert!(check(&labels).unwrap_err().contains("from 1 to 1000"));
        }
        check(&["a", "b", "c"].map(HeaderLabel::of)).unwrap();
        assert_eq!(HeaderLabel::of("X-Tenant.Id").name(), "x_tenant_id");
    }
}
