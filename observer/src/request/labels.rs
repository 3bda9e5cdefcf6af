//! Request headers that become labels: values as they may be shown.

use std::{fmt::Write as _, sync::Arc};

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::record::HeaderLabel;
use crate::config;

/// Hex digits of a hash: 64 bits, so that a thousand values do not collide.
const DIGITS: usize = 16;

/// The headers of requests that become labels; by default none.
#[derive(Clone, Debug, Default)]
pub struct HeaderLabels {
    /// Names of the headers; `None`: there are none.
    headers: Option<Arc<[Box<str>]>>,
    rules: Arc<[Rule]>,
}

#[derive(Debug)]
struct Rule {
    name: Arc<str>,
    hash: Option<Hash>,
}

/// The same for the same value and key, wherever and whenever.
enum Hash {
    Plain,
    Keyed(Hmac<Sha256>),
}

impl std::fmt::Debug for Hash {
    // The key is nobody's business.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            Self::Keyed(_) => "Keyed",
        })
    }
}

impl Hash {
    fn new(key: Option<&[u8]>) -> Self {
        // An HMAC takes a key of any length.
        key.and_then(|key| Hmac::new_from_slice(key).ok()).map_or(Self::Plain, Self::Keyed)
    }

    fn of(&self, value: &str) -> String {
        let bytes = match self {
            Self::Plain => Sha256::digest(value),
            Self::Keyed(mac) => mac.clone().chain_update(value).finalize().into_bytes(),
        };
        let mut text = String::with_capacity(DIGITS);
        for byte in bytes.iter().take(DIGITS / 2) {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

impl HeaderLabels {
    /// Those that `labels` asks for; `key` is that of hashes.
    #[must_use]
    pub fn new(labels: &[config::HeaderLabel], key: Option<&[u8]>) -> Self {
        let rule =
            |label: &config::HeaderLabel| Rule { name: label.name().into(), hash: label.hash.then(|| Hash::new(key)) };
        Self {
            headers: (!labels.is_empty()).then(|| labels.iter().map(|label| label.header.as_str().into()).collect()),
            rules: labels.iter().map(rule).collect(),
        }
    }

    /// Names of the headers; `None`: there are none.
    pub(super) fn headers(&self) -> Option<Arc<[Box<str>]>> {
        self.headers.clone()
    }

    /// The labels of a request whose headers have these values, in the order of [`Self::headers`]. Values that are
    /// missing are unknown.
    pub(super) fn of(&self, values: &[Option<Box<str>>]) -> Box<[HeaderLabel]> {
        let value = |index: usize| values.get(index)?.as_deref();
        let label = |(index, rule): (usize, &Rule)| HeaderLabel {
            name: Arc::clone(&rule.name),
            value: value(index)
                .map(|value| rule.hash.as_ref().map_or_else(|| value.into(), |hash| hash.of(value).into())),
        };
        self.rules.iter().enumerate().map(label).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(key: Option<&[u8]>, value: &str) -> String {
        let labels = [config::HeaderLabel { hash: true, ..config::HeaderLabel::of("x-tenant") }];
        let labels = HeaderLabels::new(&labels, key).of(&[Some(value.into())]);
        labels[0].value.as_deref().unwrap().to_owned()
    }

    #[test]
    fn hashes_are_those_of_the_standard() {
        // FIPS 180-2, example B.1; RFC 4231, test case 2.
        assert_eq!(value(None, "abc"), "ba7816bf8f01cfea");
        assert_eq!(value(Some(b"Jefe"), "what do ya want for nothing?"), "5bdcc146bf60754e");
    }

    #[test]
    fn values_are_in_order_and_what_is_missing_is_unknown() {
        let labels = ["x-a", "X-B"].map(config::HeaderLabel::of);
        let labels = HeaderLabels::new(&labels, None);
        assert_eq!(labels.headers().unwrap()[1], "X-B".into());
        let told = |values: &[Option<Box<str>>]| {
            let labels = labels.of(values);
            labels.iter().map(|label| format!("{}={:?}", label.name, label.value.as_deref())).collect::<Vec<_>>()
        };
        assert_eq!(told(&[None, Some("b".into())]), ["x_a=None", "x_b=Some(\"b\")"]);
        assert_eq!(told(&[]), ["x_a=None", "x_b=None"]);
        let none = HeaderLabels::default();
        assert!(none.headers().is_none() && none.of(&[]).is_empty());
    }

    #[test]
    fn keys_are_not_told() {
        let labels = [config::HeaderLabel { hash: true, ..config::HeaderLabel::of("x-tenant") }];
        let text = format!("{:?}", HeaderLabels::new(&labels, Some(b"0123456789abcdef")));
        assert!(text.contains("hash: Some(Keyed)") && !text.contains("48"), "{text}");
    }
}
