//! The file's frame: a header, blocks, a trailer. Whole numbers of fixed width are little-endian.

use super::wire::{Cursor, put_bytes, put_number};
use crate::time::KernelTime;

/// The first bytes of a recording: not text, and broken by whatever changes line ends.
pub(super) const MAGIC: [u8; 8] = *b"\x89OBSREC\n";
/// Readers refuse other ones.
pub(super) const MAJOR: u16 = 1;
/// Readers pass over what a newer one added.
pub(super) const MINOR: u16 = 0;
/// Magic, versions and the length of the fields.
pub(super) const HEADER_START: usize = 16;
/// Most bytes of the header's fields, and of a trailer.
pub(super) const FIELDS_MAX: usize = 64 << 10;
/// What precedes a block: kind, coding, two bytes of zero, stored length, raw length, checksum.
pub(super) const BLOCK_START: usize = 16;
/// Most bytes of a block, before and after decompression.
pub(super) const BLOCK_MAX: usize = 1 << 20;

/// Kinds of blocks; a reader passes over others.
pub(super) const BLOCK_ITEMS: u8 = 1;
pub(super) const BLOCK_TRAILER: u8 = 2;
/// Codings of blocks.
pub(super) const STORED: u8 = 0;
pub(super) const LZ4: u8 = 1;

/// What a recording says of itself at its beginning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Captured bytes are there as they were; else their text is blanked.
    pub payload: bool,
    /// A moment on the kernel's clock.
    pub kernel: KernelTime,
    /// The wall clock's time at that moment, nanoseconds since 1970 in UTC.
    pub wall: u64,
    /// Version of the observer that recorded.
    pub version: String,
}

impl Header {
    /// Wall-clock time of a kernel time, nanoseconds since 1970 in UTC.
    #[must_use]
    pub fn wall_time(&self, time: KernelTime) -> u64 {
        self.wall.saturating_add(time.as_nanos()).saturating_sub(self.kernel.as_nanos())
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        put_number(&mut fields, u64::from(self.payload));
        put_number(&mut fields, self.kernel.as_nanos());
        put_number(&mut fields, self.wall);
        put_bytes(&mut fields, self.version.as_bytes());
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&MAJOR.to_le_bytes());
        out.extend_from_slice(&MINOR.to_le_bytes());
        out.extend_from_slice(&(fields.len() as u32).to_le_bytes());
        out.extend_from_slice(&fields);
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    pub(super) fn from_fields(fields: &[u8]) -> Option<Self> {
        let mut fields = Cursor::new(fields);
        Some(Self {
            payload: fields.number()? & 1 != 0,
            kernel: KernelTime::from_nanos(fields.number()?),
            wall: fields.number()?,
            version: fields.text(256)?.to_owned(),
        })
    }
}

/// Why a recording ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It was stopped.
    Stopped,
    /// The file reached its largest size.
    Limit,
    /// A reason that this version does not know.
    Other,
}

/// What a recording says of itself at its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// Why it ends.
    pub end: End,
    /// Events in it.
    pub events: u64,
    /// Events that are missing because writing could not keep up.
    pub lost: u64,
    /// Calls blanked as a whole because where they belong, or what they are, could not be told.
    pub unplaced: u64,
    /// Captured bytes of these.
    pub unplaced_bytes: u64,
}

impl Trailer {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.push(match self.end {
            End::Stopped => 0,
            End::Limit => 1,
            End::Other => u8::MAX,
        });
        for value in [self.events, self.lost, self.unplaced, self.unplaced_bytes] {
            put_number(&mut out, value);
        }
        out
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Cursor::new(bytes);
        let end = match bytes.byte()? {
            0 => End::Stopped,
            1 => End::Limit,
            _ => End::Other,
        };
        let mut next = || bytes.number();
        Some(Self { end, events: next()?, lost: next()?, unplaced: next()?, unplaced_bytes: next()? })
    }
}

/// Appends a block: compressed where that makes it smaller.
pub(super) fn put_block(out: &mut Vec<u8>, kind: u8, raw: &[u8]) {
    let compressed = lz4_flex::block::compress(raw);
    let (coding, stored) = if compressed.len() < raw.len() { (LZ4, compressed.as_slice()) } else { (STORED, raw) };
    let start = out.len();
    out.extend_from_slice(&[kind, coding, 0, 0]);
    out.extend_from_slice(&(stored.len() as u32).to_le_bytes());
    out.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&out[start..]);
    hasher.update(stored);
    out.extend_from_slice(&hasher.finalize().to_le_bytes());
    out.extend_from_slice(stored);
}
