//! Bytes to items. Any bytes: nothing that they say is trusted before its checksum was seen, and nothing is larger than
//! the format allows.

use std::io::{self, Read};

use thiserror::Error;

use super::{
    Item, codec,
    format::{
        BLOCK_ITEMS, BLOCK_MAX, BLOCK_START, BLOCK_TRAILER, FIELDS_MAX, HEADER_START, Header, LZ4, MAGIC, MAJOR,
        STORED, Trailer,
    },
    wire::{Clock, Cursor},
};
use crate::event::Arrival;

/// Why a recording cannot be read, or not further. What was read before is good.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It begins with something else.
    #[error("this is no recording: it does not begin as `observer record` writes")]
    NotARecording,
    /// A later observer wrote it.
    #[error("the recording has format {found}, and this observer reads format {MAJOR}: use a newer observer")]
    Version {
        /// Its format.
        found: u16,
    },
    /// It ends before its end.
    #[error(
        "the recording is cut short at byte {offset}, {what}: the recorder was killed, or the file not copied whole; \
         what is before it was read"
    )]
    Truncated {
        /// Length of what is there.
        offset: u64,
        /// Where that is.
        what: &'static str,
    },
    /// It is not what was written.
    #[error("the recording is damaged at byte {offset}: {what}; what is before it was read")]
    Corrupt {
        /// Where what is wrong begins.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// It cannot be read.
    #[error("cannot read the recording at byte {offset}: {error}")]
    Io {
        /// Bytes read before.
        offset: u64,
        /// Why.
        error: io::Error,
    },
}

/// Reads a recording.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Bytes read.
    offset: u64,
    header: Header,
    stored: Vec<u8>,
    raw: Vec<u8>,
    /// Bytes of `raw` that were handed out.
    position: usize,
    /// Where the block begins in the file.
    block: u64,
    clock: Clock,
    stamps: Vec<Arrival>,
    trailer: Option<Trailer>,
    unknown: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// If there is none, or one of a later format.
    pub fn new(mut input: R) -> Result<Self, ReadError> {
        let mut offset = 0;
        let mut bytes = vec![0; HEADER_START];
        let read = fill(&mut input, &mut bytes, &mut offset)?;
        if !bytes.starts_with(&MAGIC[..read.min(MAGIC.len())]) {
            return Err(ReadError::NotARecording);
        }
        let truncated = |offset| ReadError::Truncated { offset, what: "in its header" };
        if read < HEADER_START {
            return Err(truncated(offset));
        }
        let major = u16::from_le_bytes([bytes[8], bytes[9]]);
        if major != MAJOR {
            return Err(ReadError::Version { found: major });
        }
        let length = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
        let corrupt = |what| ReadError::Corrupt { offset: 0, what };
        if length > FIELDS_MAX {
            return Err(corrupt("the header claims to be larger than any"));
        }
        bytes.resize(HEADER_START + length + 4, 0);
        if fill(&mut input, &mut bytes[HEADER_START..], &mut offset)? < length + 4 {
            return Err(truncated(offset));
        }
        let (header, sum) = bytes.split_at(HEADER_START + length);
        if crc32fast::hash(header).to_le_bytes() != *sum {
            return Err(corrupt("the header's checksum is wrong"));
        }
        let header =
            Header::from_fields(&header[HEADER_START..]).ok_or_else(|| corrupt("the header's fields are none"))?;
        Ok(Self {
            input,
            offset,
            header,
            stored: Vec::new(),
            raw: Vec::new(),
            position: 0,
            block: offset,
            clock: Clock::default(),
            stamps: Vec::new(),
            trailer: None,
            unknown: 0,
            ended: false,
        })
    }

    /// What it says of itself at its beginning.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What it says of itself at its end, once that was reached.
    #[must_use]
    pub fn trailer(&self) -> Option<&Trailer> {
        self.trailer.as_ref()
    }

    /// Items and blocks passed over, being of kinds that this version does not know.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// The next item; `None`: that was the last one, and the recording is whole.
    ///
    /// # Errors
    /// Once; after an error there is nothing more.
    #[expect(clippy::should_implement_trait, reason = "items borrow from the reader, which no iterator allows")]
    pub fn next(&mut self) -> Result<Option<Item<'_>>, ReadError> {
        while self.position >= self.raw.len() {
            if self.ended {
                return Ok(None);
            }
            if let Err(error) = self.next_block() {
                self.ended = true;
                (self.position, self.raw) = (0, Vec::new());
                return Err(error);
            }
        }
        let mut cursor = Cursor::new(&self.raw[self.position..]);
        match codec::take(&mut cursor, &mut self.clock, &mut self.stamps) {
            Some(item) => {
                self.position = self.raw.len() - cursor.len();
                self.unknown += u64::from(matches!(item, Item::Unknown(_)));
                Ok(Some(item))
            }
            None => {
                self.ended = true;
                self.position = self.raw.len();
                Err(ReadError::Corrupt { offset: self.block, what: "an item of this block is none" })
            }
        }
    }

    fn next_block(&mut self) -> Result<(), ReadError> {
        (self.position, self.block, self.clock) = (0, self.offset, Clock::default());
        self.raw.clear();
        let offset = self.offset;
        let mut start = [0; BLOCK_START];
        match fill(&mut self.input, &mut start, &mut self.offset)? {
            0 if self.trailer.is_some() => {
                self.ended = true;
                return Ok(());
            }
            0 => {
                return Err(ReadError::Truncated {
                    offset: self.offset,
                    what: "where a block or the end should follow",
                });
            }
            _ if self.trailer.is_some() => {
                return Err(ReadError::Corrupt { offset, what: "something follows its end" });
            }
            BLOCK_START => {}
            _ => return Err(ReadError::Truncated { offset: self.offset, what: "in the beginning of a block" }),
        }
        let corrupt = |what| ReadError::Corrupt { offset, what };
        let number = |at: usize| u32::from_le_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]]);
        let (kind, coding, length, raw_length) = (start[0], start[1], number(4) as usize, number(8) as usize);
        if length > BLOCK_MAX || raw_length > BLOCK_MAX {
            return Err(corrupt("a block claims to be larger than any"));
        }
        self.stored.resize(length, 0);
        if fill(&mut self.input, &mut self.stored, &mut self.offset)? < length {
            return Err(ReadError::Truncated { offset: self.offset, what: "in a block" });
        }
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&start[..12]);
        hasher.update(&self.stored);
        if hasher.finalize() != number(12) {
            return Err(corrupt("a block's checksum is wrong"));
        }
        match coding {
            STORED => std::mem::swap(&mut self.raw, &mut self.stored),
            LZ4 => {
                self.raw.resize(raw_length, 0);
                let written = lz4_flex::block::decompress_into(&self.stored, &mut self.raw);
                if written.ok() != Some(raw_length) {
                    return Err(corrupt("a block cannot be decompressed"));
                }
            }
            _ => return Err(corrupt("a block is compressed in a way that this observer does not know")),
        }
        if self.raw.len() != raw_length {
            return Err(corrupt("a block is not as long as it claims"));
        }
        match kind {
            BLOCK_ITEMS => {}
            BLOCK_TRAILER => {
                let trailer = Trailer::from_bytes(&self.raw).ok_or_else(|| corrupt("the end's fields are none"))?;
                self.trailer = Some(trailer);
                self.raw.clear();
            }
            _ => {
                self.unknown += 1;
                self.raw.clear();
            }
        }
        Ok(())
    }
}

/// Reads until `into` is full or the input ends; how much that was.
fn fill(input: &mut impl Read, into: &mut [u8], offset: &mut u64) -> Result<usize, ReadError> {
    let mut read = 0;
    while read < into.len() {
        match input.read(&mut into[read..]) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ReadError::Io { offset: *offset + read as u64, error }),
        }
    }
    *offset += read as u64;
    Ok(read)
}
