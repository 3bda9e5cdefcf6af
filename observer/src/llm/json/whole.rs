//! The scanner's short way: members and elements that lie whole in what is fed, which is nearly all of them, are read
//! where they lie. Whatever is not plain (an escape, a cut, a long key) is left to the byte-wise way, which knows all.

use super::{KEY_MAX, Level, Path, Scanner, State, TEXT_MAX, Value, is_bare};
use crate::protocol::swar;

impl Scanner {
    /// Reads as far as it can; what is returned goes the byte-wise way, at least its first byte.
    pub(super) fn whole<'b>(&mut self, bytes: &'b [u8], visit: &mut impl FnMut(&Path<'_>, Value<'_>)) -> &'b [u8] {
        let mut rest = bytes;
        while self.deeper == 0 && !self.levels.is_empty() {
            let mut key = None;
            match self.state {
                State::Value | State::FirstValue => {}
                State::Key | State::FirstKey => {
                    rest = skip_blanks(rest);
                    let Some((name, after)) = read_key(rest) else { return rest };
                    (key, rest) = (Some(name), after);
                    self.forget_key();
                }
                State::After => {
                    rest = skip_blanks(rest);
                    self.state = match rest.first() {
                        Some(b',') => self.next_element(),
                        Some(b'}') if self.in_object() == Some(true) => self.close(),
                        Some(b']') if self.in_object() == Some(false) => self.close(),
                        _ => return rest,
                    };
                    rest = &rest[1..];
                    continue;
                }
                _ => return rest,
            }
            rest = skip_blanks(rest);
            if let Some((value, after)) = read_scalar(rest) {
                visit(&self.path(key), value);
                self.state = State::After;
                rest = after;
                continue;
            }
            if let Some(key) = key {
                self.keys.extend_from_slice(key);
                self.state = State::Value;
            }
            self.state = match rest.first() {
                Some(b'{') => self.open(true, visit),
                Some(b'[') => self.open(false, visit),
                _ => return rest,
            };
            rest = &rest[1..];
        }
        rest
    }

    /// Where the current value stands. `key`: the last key, where it is not among those kept.
    pub(super) fn path<'a>(&'a self, key: Option<&'a [u8]>) -> Path<'a> {
        let kept = || self.levels.last().map_or(&[][..], |level| &self.keys[level.key as usize..]);
        Path { levels: &self.levels, keys: &self.keys, last: key.unwrap_or_else(kept) }
    }

    pub(super) fn forget_key(&mut self) {
        if let Some(Level { key, cut, .. }) = self.levels.last_mut() {
            *cut = false;
            self.keys.truncate(*key as usize);
        }
    }
}

fn skip_blanks(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [b' ' | b'\t' | b'\r' | b'\n', after @ ..] = rest {
        rest = after;
    }
    rest
}

/// A key and its colon; what follows them.
#[inline]
fn read_key(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (text, rest) = read_text(bytes)?;
    match rest {
        [b':', rest @ ..] if text.len() <= KEY_MAX => Some((text, rest)),
        _ => None,
    }
}

/// A string without escapes, to its end.
#[inline]
fn read_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let [b'"', bytes @ ..] = bytes else { return None };
    let (text, rest) = bytes.split_at_checked(swar::plain_text(bytes))?;
    match rest {
        [b'"', rest @ ..] => Some((text, rest)),
        _ => None,
    }
}

/// A scalar that is known to be over; what follows it.
#[inline]
fn read_scalar(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    if let [b'"', ..] = bytes {
        let (text, rest) = read_text(bytes)?;
        return (text.len() <= TEXT_MAX).then_some((Value::String { text, whole: true, some: !text.is_empty() }, rest));
    }
    // It ends with what follows it: without that, more of it may come.
    let (bare, rest) = bytes.split_at(bytes.iter().position(|byte| !is_bare(*byte))?);
    let value = match bare {
        b"null" => Value::Null,
        b"true" => Value::Bool(true),
        b"false" => Value::Bool(false),
        [b'-' | b'0'..=b'9', ..] if bare.len() <= TEXT_MAX => Value::Number(bare),
        _ => return None,
    };
    Some((value, rest))
}
