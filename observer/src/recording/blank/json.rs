//! Takes the text out of JSON as it streams by: same length, same structure, same emptiness of strings, and what is not
//! JSON stays none. It steps as `llm::json`'s scanner does, so that the scanner finds the same values at the same
//! places in what is left; `json_tests` holds them against each other. The one difference: a string that a hole cuts inside
//! its very first escape has a character afterwards.

use super::words::{KEYS, Matcher, Rule, VOCABULARY, in_vocabulary, rule};
use crate::llm::json::{Anchor, TEXT_MAX};

/// In place of text. A key is blanked by something else, so that it never turns into one that is known.
const TEXT: u8 = b'x';
const KEY: u8 = b'#';
/// What is no JSON where it stands, and goes on with no word or number before it.
const END: u8 = b':';
/// Nobody nests deeper in earnest; the scanner gives up there.
const DEPTH_MAX: usize = 24 + 128;
/// Words that are values, and the one of `[DONE]`.
const BARE: &[&str] = &["DONE", "false", "null", "true"];

/// How the current string is blanked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Text {
    Key(Matcher),
    Blank,
    /// So many bytes stayed.
    Name(usize),
    Words(Matcher),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Value,
    FirstValue,
    FirstKey,
    Key,
    Colon,
    After,
    Text(Text),
    Escape(Text),
    Unicode(Text, u8),
    Number {
        length: usize,
        keep: bool,
    },
    Word {
        matcher: Matcher,
        whole: bool,
    },
    Search(Search),
    /// Behind `[DONE]`, which is no JSON, and is looked for as a whole, blanks aside.
    Done,
    Dead,
}

/// Looking for an anchor, as the scanner does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Search {
    known: bool,
    escaped: bool,
    /// Since the last bare quote: which anchors' keys still begin so, one bit each; 0: no bare quote, or none.
    candidates: u32,
    length: usize,
    found: Option<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    object: bool,
    /// Rules hold in it.
    walk: bool,
    /// It stands where a name may stand: its type is that name.
    named: bool,
}

/// The blanker of one document.
#[derive(Debug)]
pub(super) struct Json {
    state: State,
    levels: Vec<Level>,
    /// Of the value that comes next.
    rule: Rule,
    /// What clients send: rules hold at the root only.
    request: bool,
    anchors: &'static [Anchor],
}

impl Default for Json {
    fn default() -> Self {
        Self { state: State::Value, levels: Vec::new(), rule: Rule::Walk, request: false, anchors: &[] }
    }
}

impl Json {
    /// A new document. `request`: one that a client sends.
    pub(super) fn reset(&mut self, request: bool) {
        (self.state, self.rule, self.request) = (State::Value, Rule::Walk, request);
        self.levels.clear();
    }

    /// Everything that follows is text.
    pub(super) fn end(&mut self) {
        self.state = State::Dead;
    }

    /// Bytes were not captured.
    pub(super) fn gap(&mut self, anchors: &'static [Anchor]) {
        if self.state == State::Dead || anchors.is_empty() {
            self.state = State::Dead;
            return;
        }
        self.anchors = anchors;
        self.state = State::Search(Search::default());
    }

    /// What `input` is without its text.
    pub(super) fn feed(&mut self, input: &[u8], out: &mut [u8]) {
        for (byte, out) in input.iter().zip(out) {
            *out = self.byte(*byte);
        }
    }

    /// What stands in place of one byte.
    pub(super) fn byte(&mut self, byte: u8) -> u8 {
        if self.state == State::Dead {
            return TEXT;
        }
        if let State::Number { .. } | State::Word { .. } = self.state {
            if is_bare(byte) {
                return self.bare(byte);
            }
            let done = matches!(self.state, State::Word { matcher, .. } if matcher.word(BARE) == Some(0));
            self.end_bare();
            if done && byte == b']' {
                self.state = State::Done;
                return byte;
            }
            if self.state == State::Dead {
                return END;
            }
        }
        let (next, out) = self.step(byte);
        self.state = next;
        out
    }

    fn step(&mut self, byte: u8) -> (State, u8) {
        match (self.state, byte) {
            (State::Text(text), _) => self.text(text, byte),
            (State::Escape(text), b'u') => (State::Unicode(text, 0), escaped(text, byte)),
            (State::Escape(text), b'n' | b't' | b'r' | b'b' | b'f' | b'"' | b'\\' | b'/') => {
                (State::Text(text), escaped(text, byte))
            }
            (State::Unicode(text, digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let next = if digits < 3 { State::Unicode(text, digits + 1) } else { State::Text(text) };
                (next, escaped(text, byte))
            }
            // The scanner dies of a bad escape, and must die of what is left of it, too: `\x` is one.
            (State::Escape(Text::Name(_)) | State::Unicode(Text::Name(_), _), _) => (State::Dead, TEXT),
            (State::Escape(_) | State::Unicode(..), _) => (State::Dead, b'\\'),
            (State::Search(search), _) => self.search(search, byte),
            (state, b' ' | b'\t' | b'\r' | b'\n') => (state, byte),
            (State::Value | State::FirstValue, b'{' | b'[') => self.open(byte),
            (State::FirstValue, b']') | (State::FirstKey, b'}') => self.close(byte),
            (State::Value | State::FirstValue, b'"') => {
                let text = match self.rule {
                    Rule::Name => Text::Name(0),
                    Rule::Words => Text::Words(Matcher::new(VOCABULARY)),
                    Rule::Key | Rule::Walk | Rule::Count => Text::Blank,
                };
                (State::Text(text), byte)
            }
            (State::Value | State::FirstValue, b'-' | b'0'..=b'9') => {
                self.state = State::Number { length: 0, keep: self.rule == Rule::Count };
                let out = self.bare(byte);
                (self.state, out)
            }
            (State::Value | State::FirstValue, _) if is_bare(byte) => {
                self.state = State::Word { matcher: Matcher::new(BARE), whole: true };
                let out = self.bare(byte);
                (self.state, out)
            }
            (State::FirstKey | State::Key, b'"') => (State::Text(Text::Key(Matcher::new(KEYS))), byte),
            (State::Colon, b':') => (State::Value, byte),
            (State::After, b',') => match self.levels.last() {
                Some(Level { object: true, .. }) => (State::Key, byte),
                Some(_) => (State::Value, byte),
                None => (State::Dead, END),
            },
            (State::After, b'}') if self.in_object() == Some(true) => self.close(byte),
            (State::After, b']') if self.in_object() == Some(false) => self.close(byte),
            // A colon may stand there.
            (State::Colon, _) => (State::Dead, TEXT),
            _ => (State::Dead, END),
        }
    }

    fn text(&mut self, text: Text, byte: u8) -> (State, u8) {
        match (text, byte) {
            (Text::Key(matcher), b'"') => {
                let level = self.levels.last();
                self.rule = match matcher.word(KEYS) {
                    Some(index) if level.is_some_and(|level| level.walk) => match rule(KEYS[index]) {
                        Rule::Words if level.is_some_and(|level| level.named) => Rule::Name,
                        rule => rule,
                    },
                    _ => Rule::Key,
                };
                (State::Colon, byte)
            }
            (_, b'"') => (State::After, byte),
            (Text::Key(mut matcher), b'\\') => {
                // No key of ours has an escape.
                matcher.push(KEYS, b'\\');
                (State::Escape(Text::Key(matcher)), KEY)
            }
            (Text::Name(length), b'\\') if length >= TEXT_MAX => (State::Escape(Text::Blank), TEXT),
            (Text::Name(length), b'\\') => (State::Escape(Text::Name(length + 1)), byte),
            (Text::Words(_), b'\\') => (State::Escape(Text::Blank), TEXT),
            (Text::Blank, b'\\') => (State::Escape(text), TEXT),
            (Text::Key(mut matcher), _) => {
                let out = if matcher.push(KEYS, byte) { byte } else { KEY };
                (State::Text(Text::Key(matcher)), out)
            }
            (Text::Name(length), _) => {
                let out = if length < TEXT_MAX { byte } else { TEXT };
                (State::Text(Text::Name(length.saturating_add(1))), out)
            }
            (Text::Words(mut matcher), _) => {
                let out = if in_vocabulary(&mut matcher, byte) { byte } else { TEXT };
                (State::Text(Text::Words(matcher)), out)
            }
            (Text::Blank, _) => (State::Text(text), TEXT),
        }
    }

    fn in_object(&self) -> Option<bool> {
        self.levels.last().map(|level| level.object)
    }

    fn open(&mut self, byte: u8) -> (State, u8) {
        if self.levels.len() >= DEPTH_MAX {
            return (State::Dead, TEXT);
        }
        let object = byte == b'{';
        let walk = match self.levels.last() {
            None => true,
            Some(level) => {
                // An element of an array is what the array is.
                let walks = !level.object || matches!(self.rule, Rule::Walk | Rule::Name | Rule::Words);
                level.walk && walks && !self.request
            }
        };
        self.levels.push(Level { object, walk, named: self.rule == Rule::Name });
        self.rule = Rule::Key;
        (if object { State::FirstKey } else { State::FirstValue }, byte)
    }

    fn close(&mut self, byte: u8) -> (State, u8) {
        self.levels.pop();
        self.rule = Rule::Key;
        (if self.levels.is_empty() { State::Dead } else { State::After }, byte)
    }

    fn bare(&mut self, byte: u8) -> u8 {
        match &mut self.state {
            State::Number { length, keep } => {
                *length = length.saturating_add(1);
                match byte {
                    b'0'..=b'9' if !*keep => b'1',
                    b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E' => byte,
                    _ => TEXT,
                }
            }
            State::Word { matcher, whole } => {
                *whole = matcher.push(BARE, byte);
                if *whole { byte } else { TEXT }
            }
            _ => TEXT,
        }
    }

    fn end_bare(&mut self) {
        let valid = match self.state {
            State::Number { length, .. } => length <= TEXT_MAX,
            State::Word { matcher, .. } => matcher.word(BARE).is_some_and(|word| word > 0),
            _ => false,
        };
        self.state = if valid && !self.levels.is_empty() { State::After } else { State::Dead };
    }

    /// As many anchors as there are bits; no dialect has more.
    fn indexes(&self) -> std::ops::Range<u8> {
        0..self.anchors.len().min(32) as u8
    }

    fn key(&self, index: u8) -> &'static str {
        self.anchors.get(usize::from(index)).and_then(|anchor| anchor.path.last()).copied().unwrap_or_default()
    }

    fn search(&mut self, mut search: Search, byte: u8) -> (State, u8) {
        if let Some(found) = search.found {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => return (State::Search(search), byte),
                b':' => return (self.take_up(found), byte),
                _ => search.found = None,
            }
        }
        let out = match byte {
            b'"' if search.known && !search.escaped => {
                let (candidates, length) = (search.candidates, search.length);
                let whole = |index: &u8| candidates >> *index & 1 == 1 && self.key(*index).len() == length;
                search.found = self.indexes().find(whole);
                (search.candidates, search.length) = (u32::MAX, 0);
                byte
            }
            b'"' | b'\\' => {
                search.candidates = 0;
                TEXT
            }
            _ => {
                let fits = |index: &u8| self.key(*index).as_bytes().get(search.length) == Some(&byte);
                search.candidates &= self.indexes().filter(fits).fold(0, |bits, index| bits | 1 << index);
                search.length += 1;
                if search.candidates == 0 { KEY } else { byte }
            }
        };
        search.escaped = byte == b'\\' && !search.escaped;
        search.known |= byte != b'\\';
        (State::Search(search), out)
    }

    /// Goes on behind an anchor's colon.
    fn take_up(&mut self, found: u8) -> State {
        self.levels.clear();
        let path = self.anchors.get(usize::from(found)).map_or(&[][..], |anchor| anchor.path);
        let mut walk = true;
        for step in path {
            self.levels.push(Level { object: *step != "*", walk, named: false });
            if *step != "*" {
                self.rule = if KEYS.binary_search(step).is_ok() && walk { rule(step) } else { Rule::Key };
                walk &= matches!(self.rule, Rule::Walk | Rule::Name | Rule::Words);
            }
        }
        State::Value
    }
}

/// What stays of a byte of an escape.
fn escaped(text: Text, byte: u8) -> u8 {
    match text {
        Text::Key(_) => KEY,
        Text::Name(_) => byte,
        Text::Blank | Text::Words(_) => TEXT,
    }
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
