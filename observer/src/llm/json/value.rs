//! What the scanner hands out: values, and where they stand.

/// A value, or the opening of one that has parts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value<'a> {
    /// `{`.
    Object,
    /// `[`.
    Array,
    /// A string.
    String {
        /// Its text, escapes decoded: a prefix if not `whole`.
        text: &'a [u8],
        /// Whether it was seen to its end and fits.
        whole: bool,
        /// Whether it is known to have at least one character.
        some: bool,
    },
    /// A number, as written.
    Number(&'a [u8]),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

impl<'a> Value<'a> {
    /// A whole string's text.
    #[must_use]
    pub fn text(&self) -> Option<&'a str> {
        match self {
            Self::String { text, whole: true, .. } => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    /// Whether it is a string, whole, with this text.
    #[must_use]
    pub fn is(&self, expected: &[u8]) -> bool {
        matches!(self, Self::String { text, whole: true, .. } if *text == expected)
    }

    /// A number that is a count.
    #[must_use]
    pub fn unsigned(&self) -> Option<u64> {
        match self {
            Self::Number(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// Whether it is a string with at least one character.
    #[must_use]
    pub fn has_text(&self) -> bool {
        matches!(self, Self::String { some: true, .. })
    }
}

/// One object or array that the scanner is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    /// Index of the current element; `None`: an object.
    pub(super) index: Option<u32>,
    /// Where the current key begins among the keys kept.
    pub(super) key: u32,
    /// The key was longer than what is kept.
    pub(super) cut: bool,
}

/// Where a value stands.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    pub(super) levels: &'a [Level],
    /// The keys of all levels, or of all but the last.
    pub(super) keys: &'a [u8],
    /// The last level's key. By itself, because most are looked at once and never kept.
    pub(super) last: &'a [u8],
}

impl Path<'_> {
    /// Whether it is `pattern`, in which `*` is any element of an array.
    #[must_use]
    pub fn is(&self, pattern: &[&str]) -> bool {
        self.levels.len() == pattern.len() && self.matches(0, pattern)
    }

    /// Whether it is `head` and then `tail`.
    #[must_use]
    pub fn ends(&self, head: &[&str], tail: &[&str]) -> bool {
        // The last keys differ most often.
        self.levels.len() == head.len() + tail.len() && self.matches(head.len(), tail) && self.matches(0, head)
    }

    fn matches(&self, from: usize, pattern: &[&str]) -> bool {
        let levels = self.levels.iter().enumerate().skip(from).zip(pattern);
        levels.rev().all(|((depth, level), step)| match level.index {
            Some(_) => *step == "*",
            None => !level.cut && self.key_at(depth) == step.as_bytes(),
        })
    }

    /// The key of the value itself: what [`Self::is`] compares last. `None`: it is an element of an array, or the root.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.levels.last().filter(|level| level.index.is_none() && !level.cut).map(|_| self.last)
    }

    /// Index of the current element of the array at `depth`.
    #[must_use]
    pub fn index(&self, depth: usize) -> Option<u32> {
        self.levels.get(depth)?.index
    }

    /// Levels to the root.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.levels.len()
    }

    pub(super) fn key_at(&self, depth: usize) -> &[u8] {
        match self.levels.get(depth + 1) {
            Some(next) => &self.keys[self.levels[depth].key as usize..next.key as usize],
            None => self.last,
        }
    }
}
