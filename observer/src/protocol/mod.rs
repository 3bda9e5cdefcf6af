//! Sans-IO parsers: chunks of a stream in, frames out; no clock, no socket, no map.

pub mod chunked;
pub mod events;
pub mod http1;
pub mod http1_head;
pub mod ndjson;
pub mod sse;
pub mod swar;

/// Why a parser does not know where it stands any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// Bytes of a head were not captured.
    HeadGap,
    /// Bytes were not captured that hide where chunks begin and end.
    FramingGap,
    /// The bytes are not what the protocol demands.
    Unparsable,
}
