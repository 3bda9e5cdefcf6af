//! Looks for bytes eight at a time, as one integer.

const ONES: u64 = u64::MAX / 0xff;
const HIGHS: u64 = ONES << 7;

/// The high bit of each byte that is zero. Bytes above the lowest such one may be marked too.
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

/// The high bit of each byte below `limit` (at most 128), as [`zeros`].
const fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(ONES * limit as u64) & !word & HIGHS
}

const fn equal(word: u64, byte: u8) -> u64 {
    zeros(word ^ (ONES * byte as u64))
}

/// Bytes before the first that `marks` marks. It never marks `A`.
#[inline]
fn before(bytes: &[u8], marks: impl Fn(u64) -> u64) -> usize {
    let (words, last) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let found = marks(u64::from_le_bytes(*word));
        if found != 0 {
            return 8 * index + (found.trailing_zeros() / 8) as usize;
        }
    }
    let mut word = [b'A'; 8];
    word[..last.len()].copy_from_slice(last);
    match marks(u64::from_le_bytes(word)) {
        0 => bytes.len(),
        found => 8 * words.len() + (found.trailing_zeros() / 8) as usize,
    }
}

/// Bytes before the first LF or CR.
#[must_use]
pub fn line(bytes: &[u8]) -> usize {
    // Lines are long: the compiler makes vector instructions of this.
    let (blocks, _) = bytes.as_chunks::<32>();
    let ends = |block: &[u8; 32]| block.iter().fold(false, |end, byte| end | (*byte == b'\n') | (*byte == b'\r'));
    let clear = 32 * blocks.iter().position(ends).unwrap_or(blocks.len());
    clear + before(&bytes[clear..], |word| equal(word, b'\n') | equal(word, b'\r'))
}

/// Bytes of a JSON string before the first that means something: a quote, a backslash, a control character.
#[must_use]
pub fn plain_text(bytes: &[u8]) -> usize {
    before(bytes, |word| equal(word, b'"') | equal(word, b'\\') | below(word, 0x20))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_is_found(bytes in proptest::collection::vec(prop_oneof![
            4 => any::<u8>(), 4 => Just(b'a'), 1 => prop::sample::select(&b"\n\r\"\\!#[]\x1f\x20\x7f\x80\x8a\x8d\xa2\xdc"[..])
        ], 0..40)) {
            let naive = |hit: fn(&u8) -> bool| bytes.iter().position(hit).unwrap_or(bytes.len());
            prop_assert_eq!(line(&bytes), naive(|byte| matches!(byte, b'\n' | b'\r')));
            prop_assert_eq!(plain_text(&bytes), naive(|byte| matches!(byte, b'"' | b'\\' | 0..=31)));
        }
    }
}
