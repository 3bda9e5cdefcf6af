//! The JSON scanner. Input: a stream as in `observer_fuzz::stream`, whose gaps it takes up reading after.

#![cfg_attr(fuzzing, no_main)]

use std::fmt;

use observer::{
    connection::stream::Chunk,
    llm::json::{Anchor, Path, Scanner, TEXT_MAX, Value},
};
use observer_fuzz::stream;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

const ANCHORS: &[Anchor] =
    &[Anchor { path: &["usage"] }, Anchor { path: &["model"] }, Anchor { path: &["choices", "*", "finish_reason"] }];

/// Deepest path whose values the scanner shows.
const DEPTH: usize = 24;
/// Longest key it can match.
const KEY: usize = 64;

/// However the bytes are cut, the scanner shows the same values. Of a document that is JSON they are those that
/// `serde_json` reads, in order, each at its path (but for documents with numbers of more than 256 bytes).
pub(crate) fn target(data: &[u8]) {
    let chunks = stream::decode(data);
    let whole = scan(&chunks);
    for seed in [0, 1, 0xfeed] {
        let cut = stream::cut(&chunks, seed);
        assert_eq!(scan(&cut), whole, "cut as {cut:?}");
    }
    let mut expected = Vec::new();
    let mut path = Vec::new();
    let mut document = serde_json::Deserializer::from_slice(data);
    let is_json = (Walk { path: &mut path, found: &mut expected }).deserialize(&mut document).is_ok();
    // Nobody counts with numbers of that length: the scanner stops there.
    let long =
        data.split(|byte| !byte.is_ascii_alphanumeric() && !b"+-.".contains(byte)).any(|word| word.len() > TEXT_MAX);
    if is_json && document.end().is_ok() && !long {
        compare(data, &expected);
    }
}

/// All values as text.
fn scan(chunks: &[Chunk<'_>]) -> Vec<String> {
    let (mut scanner, mut seen) = (Scanner::default(), Vec::new());
    let mut visit = |path: &Path<'_>, value: Value<'_>| {
        assert!(path.depth() <= DEPTH);
        if let Value::String { text, whole, some } = value {
            assert!(text.len() <= TEXT_MAX && (some || text.is_empty()));
            assert!(!whole || some != text.is_empty());
        }
        let place: Vec<_> = (0..path.depth()).map(|depth| path.index(depth)).collect();
        let anchors: Vec<_> = ANCHORS.iter().map(|anchor| path.is(anchor.path)).collect();
        seen.push(format!("{place:?} {anchors:?} {:?} {value:?}", path.key()));
    };
    for chunk in chunks {
        match chunk {
            Chunk::Data(bytes) => scanner.feed(bytes, &mut visit),
            Chunk::Gap(_) => scanner.gap(ANCHORS, &mut visit),
        }
    }
    scanner.end(&mut visit);
    assert!(scanner.is_dead());
    seen
}

/// A step to a value: an object's key, or an array's index.
#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Index(u32),
}

#[derive(Clone, Debug)]
enum Found {
    Object,
    Array,
    String(String),
    Number(f64),
    Bool(bool),
    Null,
}

fn compare(document: &[u8], expected: &[(Vec<Step>, Found)]) {
    let mut expected = expected.iter();
    let mut scanner = Scanner::default();
    let mut visit = |path: &Path<'_>, value: Value<'_>| {
        let Some((steps, found)) = expected.next() else { panic!("a value that is not there: {value:?}") };
        assert_eq!(path.depth(), steps.len());
        let pattern: Vec<_> = steps
            .iter()
            .map(|step| match step {
                Step::Key(key) => key.as_str(),
                Step::Index(_) => "*",
            })
            .collect();
        let known = steps.iter().all(|step| !matches!(step, Step::Key(key) if key.len() > KEY));
        assert_eq!(path.is(&pattern), known, "{steps:?}");
        for (depth, step) in steps.iter().enumerate() {
            let index = match step {
                Step::Key(_) => None,
                Step::Index(index) => Some(*index),
            };
            assert_eq!(path.index(depth), index, "{steps:?}");
        }
        match (value, found) {
            (Value::Object, Found::Object) | (Value::Array, Found::Array) | (Value::Null, Found::Null) => {}
            (Value::Bool(value), Found::Bool(expected)) => assert_eq!(value, *expected),
            (Value::Number(digits), Found::Number(expected)) => {
                let value: f64 =
                    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).expect("digits");
                // serde_json rounds differently in the last place.
                assert!((value - expected).abs() <= value.abs() * 1e-14, "{value} {expected}");
            }
            (Value::String { text, whole, some }, Found::String(expected)) => {
                assert_eq!(whole, expected.len() <= TEXT_MAX);
                assert_eq!(text, &expected.as_bytes()[..expected.len().min(TEXT_MAX)]);
                assert_eq!(some, !expected.is_empty());
            }
            (value, found) => panic!("{value:?} is not {found:?}"),
        }
    };
    scanner.feed(document, &mut visit);
    scanner.end(&mut visit);
    assert!(expected.next().is_none(), "a value was not shown");
}

/// Lists values in the document's order, an object or array before its parts.
struct Walk<'a> {
    path: &'a mut Vec<Step>,
    found: &'a mut Vec<(Vec<Step>, Found)>,
}

impl Walk<'_> {
    fn add(&mut self, found: Found) {
        if self.path.len() <= DEPTH {
            self.found.push((self.path.clone(), found));
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(mut self, value: bool) -> Result<(), E> {
        self.add(Found::Bool(value));
        Ok(())
    }

    fn visit_unit<E>(mut self) -> Result<(), E> {
        self.add(Found::Null);
        Ok(())
    }

    fn visit_f64<E>(mut self, value: f64) -> Result<(), E> {
        self.add(Found::Number(value));
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_str<E>(mut self, value: &str) -> Result<(), E> {
        self.add(Found::String(value.to_owned()));
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.add(Found::Object);
        while let Some(key) = map.next_key::<String>()? {
            self.path.push(Step::Key(key));
            map.next_value_seed(Walk { path: &mut *self.path, found: &mut *self.found })?;
            self.path.pop();
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut sequence: A) -> Result<(), A::Error> {
        self.add(Found::Array);
        for index in 0.. {
            self.path.push(Step::Index(index));
            let more = sequence.next_element_seed(Walk { path: &mut *self.path, found: &mut *self.found })?;
            self.path.pop();
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| target(data));
