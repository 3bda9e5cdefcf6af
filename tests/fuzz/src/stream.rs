//! A byte stream with gaps, as fuzz input: every byte stands for itself, but for a NUL, which makes the byte after it
//! a gap. So seeds are the traffic itself.

use observer::connection::stream::Chunk;

/// The stream that `input` stands for: captured bytes and gaps by turns.
pub fn decode(input: &[u8]) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        let plain = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        let (data, after) = rest.split_at(plain);
        if !data.is_empty() {
            chunks.push(Chunk::Data(data));
        }
        // 1 to 192 bytes, then powers of two: no call moves more.
        let gap = after.get(1).map(|code| match code {
            0..192 => u64::from(*code) + 1,
            _ => 1 << ((code - 192) / 2),
        });
        chunks.extend(gap.map(Chunk::Gap));
        rest = after.get(2..).unwrap_or_default();
    }
    chunks
}

/// The same stream, its captured bytes cut at random places that `seed` chooses; 0: between all of them.
pub fn cut<'a>(chunks: &[Chunk<'a>], seed: u32) -> Vec<Chunk<'a>> {
    let mut cut = Vec::new();
    let mut random = seed;
    for chunk in chunks {
        let mut rest = *chunk;
        while let Chunk::Data(bytes) = rest
            && bytes.len() > 1
        {
            let length = if seed == 0 {
                1
            } else {
                random ^= random << 13;
                random ^= random >> 17;
                random ^= random << 5;
                // Short ones more often than long ones.
                random >> (24 + random % 8)
            };
            cut.push(rest.split_to(u64::from(length)));
        }
        cut.push(rest);
    }
    cut
}

/// Bytes of the stream.
pub fn length(chunks: &[Chunk<'_>]) -> u64 {
    chunks.iter().fold(0, |sum, chunk| sum.saturating_add(chunk.len()))
}
