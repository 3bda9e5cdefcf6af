//! Numbers and texts as bytes: variable-length integers (LEB128), everything else after its length.

use crate::time::KernelTime;

/// Bytes being read. Every method is `None` where they are not what they should be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes left.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(front)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // Bits beyond the 64th are no number of ours.
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A number that fits `T`.
    pub(super) fn small<T: TryFrom<u64>>(&mut self) -> Option<T> {
        T::try_from(self.number()?).ok()
    }

    /// Bytes after their length.
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.small()?;
        self.take(length)
    }

    /// Text of at most `limit` bytes.
    pub(super) fn text(&mut self, limit: usize) -> Option<&'a str> {
        let bytes = self.bytes()?;
        (bytes.len() <= limit).then(|| std::str::from_utf8(bytes).ok()).flatten()
    }

    /// A number that may be absent: 0, or the number plus one.
    pub(super) fn option(&mut self) -> Option<Option<u64>> {
        Some(self.number()?.checked_sub(1))
    }
}

pub(super) fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The largest value of all cannot be told from one less.
pub(super) fn put_option(out: &mut Vec<u8>, value: Option<u64>) {
    put_number(out, value.map_or(0, |value| value.saturating_add(1)));
}

/// Times as differences from the one before: most are small.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Clock {
    last: u64,
}

impl Clock {
    pub(super) fn put(&mut self, out: &mut Vec<u8>, time: KernelTime) {
        let difference = time.as_nanos().wrapping_sub(self.last).cast_signed();
        put_number(out, ((difference << 1) ^ (difference >> 63)).cast_unsigned());
        self.last = time.as_nanos();
    }

    pub(super) fn take(&mut self, from: &mut Cursor<'_>) -> Option<KernelTime> {
        let number = from.number()?;
        let difference = (number >> 1) ^ (number & 1).wrapping_neg();
        self.last = self.last.wrapping_add(difference);
        Some(KernelTime::from_nanos(self.last))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_and_times_come_back(values in proptest::collection::vec(any::<u64>(), 0..20), shift in 0_u32..64) {
            let mut out = Vec::new();
            let mut clock = Clock::default();
            for value in &values {
                put_number(&mut out, value >> shift);
                put_option(&mut out, Some(value >> 1));
                clock.put(&mut out, KernelTime::from_nanos(*value));
            }
            put_option(&mut out, None);
            let (mut cursor, mut clock) = (Cursor::new(&out), Clock::default());
            for value in &values {
                prop_assert_eq!(cursor.number(), Some(value >> shift));
                prop_assert_eq!(cursor.option(), Some(Some(value >> 1)));
                prop_assert_eq!(clock.take(&mut cursor), Some(KernelTime::from_nanos(*value)));
            }
            prop_assert_eq!(cursor.option(), Some(None));
            prop_assert!(cursor.is_empty());
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        assert_eq!(Cursor::new(&[0x80]).number(), None);
        assert_eq!(Cursor::new(&[0xff; 10]).number(), None);
        assert_eq!(Cursor::new(&[0x80; 20]).number(), None);
        assert_eq!(Cursor::new(&[5, 1]).bytes(), None);
        assert_eq!(Cursor::new(&[2, b'a', b'b']).text(1), None);
    }
}
