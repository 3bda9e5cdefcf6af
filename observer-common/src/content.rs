//! What the bytes of connections on candidate ports are that never become events: slots of the kernel side's byte
//! counters. What becomes events is counted where events are read.

/// Older than the observer's sight of it: what it speaks cannot be told yet.
pub const UNDECIDED: u32 = 0;
/// Neither HTTP/1 nor anything that is opaque: left alone.
pub const NOT_HTTP: u32 = 1;
/// TLS.
pub const TLS: u32 = 2;
/// TLS whose records the kernel makes (kTLS).
pub const KTLS: u32 = 3;
/// HTTP/2 with prior knowledge.
pub const HTTP2: u32 = 4;
/// Multipath TCP.
pub const MPTCP: u32 = 5;
/// Moved by calls whose buffers cannot be seen (io_uring, splice).
pub const UNREADABLE: u32 = 6;
/// How many there are.
pub const CONTENTS: u32 = 7;

/// Slots: one for each content and direction (`DIRECTION_*`).
pub const SLOTS: u32 = CONTENTS * 2;

/// The slot of a content and direction.
#[must_use]
pub const fn slot(content: u32, direction: u8) -> u32 {
    content * 2 + direction as u32
}
const _: () = assert!(slot(UNREADABLE, crate::event::DIRECTION_RECEIVE) == SLOTS - 1);
