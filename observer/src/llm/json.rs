//! An incremental JSON scanner that keeps nothing but where it is: bytes in, (path, value) out. It knows what it did
//! not see: a string cut by a gap says so, and after a gap it takes up reading only at a key that cannot be text.

mod value;
mod whole;

use crate::protocol::swar;
use value::Level;
pub use value::{Path, Value};

/// Deepest level whose keys are known; what is deeper is skipped.
const DEPTH_MAX: usize = 24;
/// Longest key that can match.
const KEY_MAX: usize = 64;
/// Most bytes kept of a scalar; of longer strings only the length is known.
pub const TEXT_MAX: usize = 256;
/// Longest key of an [`Anchor`].
const WORD_MAX: usize = 24;

/// A key to take up reading at after a gap, and where it stands: `path` ends with the key, `*` is an element of an
/// array. Sound because a quote inside a JSON string is always escaped: `"key":` with bare quotes is never text.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    /// From the root, the key last.
    pub path: &'static [&'static str],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Value,
    /// After `[`: a value or the end.
    FirstValue,
    /// After `{`: a key or the end.
    FirstKey,
    Key,
    Colon,
    After,
    /// In a string.
    Text {
        key: bool,
    },
    Escape {
        key: bool,
    },
    Unicode {
        key: bool,
        digits: u8,
        code: u16,
    },
    /// In a number or a word.
    Bare,
    /// After a gap.
    Search(Search),
    /// Not JSON, or over.
    Dead,
}

/// Looking for an anchor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Search {
    /// What precedes is known well enough to tell whether a quote is escaped.
    known: bool,
    /// An odd number of backslashes precedes.
    escaped: bool,
    /// Since the last bare quote, `text` holds all.
    word: bool,
    /// `text` was an anchor's key and its quote closed.
    found: Option<u8>,
}

/// The scanner.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    levels: Vec<Level>,
    keys: Vec<u8>,
    /// Levels below those known, one bit each: whether it is an object.
    deeper: u32,
    deeper_objects: u128,
    text: Vec<u8>,
    text_cut: bool,
    /// The first half of a surrogate pair.
    surrogate: u16,
    anchors: &'static [Anchor],
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            state: State::Value,
            levels: Vec::new(),
            keys: Vec::new(),
            deeper: 0,
            deeper_objects: 0,
            text: Vec::new(),
            text_cut: false,
            surrogate: 0,
            anchors: &[],
        }
    }
}

impl Scanner {
    /// Forgets all, for a new document; buffers stay.
    pub fn reset(&mut self) {
        self.state = State::Value;
        self.levels.clear();
        self.keys.clear();
        self.text.clear();
        (self.deeper, self.deeper_objects, self.text_cut, self.surrogate) = (0, 0, false, 0);
    }

    /// Whether nothing more will come of this document.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state == State::Dead
    }

    /// Scans more of the document; what is not JSON ends it.
    pub fn feed(&mut self, bytes: &[u8], visit: &mut impl FnMut(&Path<'_>, Value<'_>)) {
        let mut rest = bytes;
        loop {
            rest = self.whole(rest, visit);
            let Some((byte, after)) = rest.split_first() else { return };
            if let State::Text { key } = self.state {
                let plain = swar::plain_text(rest);
                if plain > 0 {
                    self.keep(&rest[..plain], key);
                    rest = &rest[plain..];
                    continue;
                }
            }
            if self.state == State::Dead {
                return;
            }
            // A number ends only with what follows it, which is then looked at again.
            if self.state == State::Bare && !is_bare(*byte) {
                self.end_bare(visit);
                continue;
            }
            self.state = self.byte(*byte, visit);
            rest = after;
        }
    }

    /// The document ends here, or what follows is not captured: hands out what is under way, as a partial value.
    pub fn end(&mut self, visit: &mut impl FnMut(&Path<'_>, Value<'_>)) {
        match self.state {
            State::Text { key: false } | State::Escape { key: false } | State::Unicode { key: false, .. } => {
                if self.state != (State::Text { key: false }) {
                    self.text_cut = true;
                }
                self.visit(visit, |text, _| Value::String { text, whole: false, some: !text.is_empty() });
            }
            // A number at the root may be over; elsewhere its last digits may be missing.
            State::Bare if self.levels.is_empty() => self.end_bare(visit),
            _ => {}
        }
        self.state = State::Dead;
    }

    /// Bytes were not captured: goes on at the next of `anchors`.
    pub fn gap(&mut self, anchors: &'static [Anchor], visit: &mut impl FnMut(&Path<'_>, Value<'_>)) {
        let dead = self.is_dead();
        self.end(visit);
        if !dead && !anchors.is_empty() {
            self.anchors = anchors;
            self.state = State::Search(Search::default());
        }
    }

    fn byte(&mut self, byte: u8, visit: &mut impl FnMut(&Path<'_>, Value<'_>)) -> State {
        match (self.state, byte) {
            (State::Search(search), _) => self.search(search, byte),
            (State::Text { key }, b'"') => {
                if key {
                    return State::Colon;
                }
                self.visit(visit, |text, cut| Value::String { text, whole: !cut, some: cut || !text.is_empty() });
                State::After
            }
            (State::Text { key }, b'\\') => State::Escape { key },
            (State::Escape { key }, b'u') => State::Unicode { key, digits: 0, code: 0 },
            (State::Escape { key }, _) => {
                let decoded = match byte {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'b' => 8,
                    b'f' => 12,
                    b'"' | b'\\' | b'/' => byte,
                    _ => return State::Dead,
                };
                self.keep(&[decoded], key);
                State::Text { key }
            }
            (State::Unicode { key, digits, code }, _) => {
                let Some(digit) = char::from(byte).to_digit(16) else { return State::Dead };
                let code = code << 4 | digit as u16;
                if digits < 3 {
                    return State::Unicode { key, digits: digits + 1, code };
                }
                self.keep_unit(code, key);
                State::Text { key }
            }
            (state, b' ' | b'\t' | b'\r' | b'\n') if !matches!(state, State::Text { .. }) => state,
            (State::Value | State::FirstValue, b'{') => self.open(true, visit),
            (State::Value | State::FirstValue, b'[') => self.open(false, visit),
            (State::FirstValue, b']') | (State::FirstKey, b'}') => self.close(),
            (State::Value | State::FirstValue, b'"') => {
                self.begin_text();
                State::Text { key: false }
            }
            (State::Value | State::FirstValue, _) if is_bare(byte) => {
                self.begin_text();
                self.keep(&[byte], false);
                State::Bare
            }
            (State::Bare, _) => {
                self.keep(&[byte], false);
                State::Bare
            }
            (State::FirstKey | State::Key, b'"') => {
                if self.deeper == 0 {
                    self.forget_key();
                }
                self.surrogate = 0;
                State::Text { key: true }
            }
            (State::Colon, b':') => State::Value,
            (State::After, b',') => self.next_element(),
            (State::After, b'}') if self.in_object() == Some(true) => self.close(),
            (State::After, b']') if self.in_object() == Some(false) => self.close(),
            _ => State::Dead,
        }
    }

    fn in_object(&self) -> Option<bool> {
        match self.deeper {
            0 => self.levels.last().map(|level| level.index.is_none()),
            deeper => Some(self.deeper_objects >> (deeper - 1) & 1 == 1),
        }
    }

    fn next_element(&mut self) -> State {
        match self.in_object() {
            Some(true) => State::Key,
            Some(false) => {
                if self.deeper == 0
                    && let Some(Level { index: Some(index), .. }) = self.levels.last_mut()
                {
                    *index = index.saturating_add(1);
                }
                State::Value
            }
            None => State::Dead,
        }
    }

    fn open(&mut self, object: bool, visit: &mut impl FnMut(&Path<'_>, Value<'_>)) -> State {
        self.begin_text();
        self.visit(visit, |_, _| if object { Value::Object } else { Value::Array });
        if self.levels.len() < DEPTH_MAX {
            let index = if object { None } else { Some(0) };
            self.levels.push(Level { index, key: self.keys.len() as u32, cut: false });
        } else {
            // As many levels as there are bits; nobody nests deeper in earnest.
            let Some(bit) = 1_u128.checked_shl(self.deeper) else { return State::Dead };
            self.deeper_objects = if object { self.deeper_objects | bit } else { self.deeper_objects & !bit };
            self.deeper += 1;
        }
        if object { State::FirstKey } else { State::FirstValue }
    }

    fn close(&mut self) -> State {
        if self.deeper > 0 {
            self.deeper -= 1;
        } else if let Some(level) = self.levels.pop() {
            self.keys.truncate(level.key as usize);
        }
        if self.levels.is_empty() { State::Dead } else { State::After }
    }

    fn begin_text(&mut self) {
        self.text.clear();
        self.text_cut = false;
        self.surrogate = 0;
    }

    fn keep(&mut self, bytes: &[u8], key: bool) {
        self.surrogate = 0;
        if !key {
            let room = TEXT_MAX - self.text.len();
            self.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
            self.text_cut |= bytes.len() > room;
        } else if self.deeper == 0
            && let Some(level) = self.levels.last_mut()
        {
            let room = KEY_MAX - (self.keys.len() - level.key as usize);
            self.keys.extend_from_slice(&bytes[..bytes.len().min(room)]);
            level.cut |= bytes.len() > room;
        }
    }

    /// One UTF-16 unit of a `\u` escape.
    fn keep_unit(&mut self, unit: u16, key: bool) {
        let first = self.surrogate;
        let decoded = match unit {
            0xd800..=0xdbff => {
                // Not kept by itself, but it makes the text longer than nothing.
                self.text_cut |= !key && first != 0;
                self.surrogate = unit;
                return;
            }
            0xdc00..=0xdfff if first != 0 => {
                char::from_u32(0x10000 + (u32::from(first & 0x3ff) << 10 | u32::from(unit & 0x3ff)))
            }
            _ => char::from_u32(u32::from(unit)),
        };
        let mut buffer = [0; 4];
        let text = decoded.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut buffer);
        self.keep(text.as_bytes(), key);
    }

    fn end_bare(&mut self, visit: &mut impl FnMut(&Path<'_>, Value<'_>)) {
        let valid = match self.text.as_slice() {
            b"true" | b"false" | b"null" => true,
            [b'-' | b'0'..=b'9', ..] => !self.text_cut,
            _ => false,
        };
        if !valid {
            self.state = State::Dead;
            return;
        }
        self.visit(visit, |text, _| match text {
            b"true" => Value::Bool(true),
            b"false" => Value::Bool(false),
            b"null" => Value::Null,
            digits => Value::Number(digits),
        });
        self.state = if self.levels.is_empty() { State::Dead } else { State::After };
    }

    fn visit(
        &mut self,
        visit: &mut impl FnMut(&Path<'_>, Value<'_>),
        value: impl for<'a> Fn(&'a [u8], bool) -> Value<'a>,
    ) {
        if self.surrogate != 0 {
            self.text_cut = true;
        }
        if self.deeper == 0 {
            visit(&self.path(None), value(&self.text, self.text_cut));
        }
    }

    fn search(&mut self, mut search: Search, byte: u8) -> State {
        if let Some(found) = search.found {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => return State::Search(search),
                b':' => {
                    self.take_up(self.anchors[usize::from(found)].path);
                    return State::Value;
                }
                _ => search.found = None,
            }
        }
        match byte {
            b'"' if search.known && !search.escaped => {
                if search.word {
                    let is = |anchor: &Anchor| anchor.path.last().is_some_and(|key| key.as_bytes() == self.text);
                    search.found = self.anchors.iter().position(is).and_then(|index| u8::try_from(index).ok());
                }
                // It may have closed a string, or opened one.
                search.word = true;
                self.text.clear();
            }
            b'"' | b'\\' => search.word = false,
            _ if search.word && self.text.len() < WORD_MAX => self.text.push(byte),
            _ => search.word = false,
        }
        search.escaped = byte == b'\\' && !search.escaped;
        search.known |= byte != b'\\';
        State::Search(search)
    }

    fn take_up(&mut self, path: &[&str]) {
        self.reset();
        for step in path {
            let key = self.keys.len() as u32;
            let index = if *step == "*" { Some(0) } else { None };
            if index.is_none() {
                self.keys.extend_from_slice(step.as_bytes());
            }
            self.levels.push(Level { index, key, cut: false });
        }
    }
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
