//! Sizes and bounds that both sides rely on.

/// Most bytes captured from the beginning of one call.
pub const HEAD_MAX: usize = 4096;
/// Most bytes captured from the end of one call that is longer than [`HEAD_MAX`].
pub const TAIL_MAX: usize = 512;
/// Payload capacity of the smallest of the three data records.
///
/// A gather from iovecs fills at most half of a record: the verifier bounds the offset and the length of each copy
/// apart, and their largest sum must fit.
pub const CAPTURE_SMALL: usize = 512;
/// Payload capacity of the middle one.
pub const CAPTURE_MEDIUM: usize = 1536;
/// Payload capacity of the largest.
pub const CAPTURE_LARGE: usize = 2 * HEAD_MAX;
/// Most iovecs gathered from one call; bytes beyond them are a gap.
pub const IOVECS_MAX: usize = 64;
/// Arrival stamps kept per socket until the server reads. A power of two.
pub const ARRIVALS: usize = 16;
/// Length of a task's name, with its terminating zero.
pub const COMM_LEN: usize = 16;
/// Deepest cgroup level that a scope can name.
pub const CGROUP_LEVELS: u32 = 16;
/// Default size of the ring, in bytes.
pub const RING_BYTES: u32 = 8 << 20;
/// Most connections whose end could not be told as an event and is yet to be read.
pub const ENDED_MAX: u32 = 65_536;
/// Most connections whose state is kept where sockets are known by address only.
pub const SOCKETS_BY_COOKIE: u32 = 16_384;
/// Most process ids in the scope.
pub const SCOPE_PIDS: u32 = 65_536;
/// Most cgroups in the scope.
pub const SCOPE_CGROUPS: u32 = 256;
