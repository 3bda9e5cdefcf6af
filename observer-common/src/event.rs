//! What the ring carries. Each record begins with an [`EventHeader`]; `kind` tells which payload
//! type it heads. All times are `CLOCK_MONOTONIC` in nanoseconds.

use core::mem::{offset_of, size_of};

use crate::limits::{CAPTURE_LARGE, CAPTURE_MEDIUM, CAPTURE_SMALL, COMM_LEN};

/// Value of [`EventHeader::kind`] for [`SocketData`].
pub const KIND_DATA: u16 = 1;
/// Value of [`EventHeader::kind`] for [`SocketOpen`].
pub const KIND_OPEN: u16 = 2;
/// Value of [`EventHeader::kind`] for [`SocketState`].
pub const KIND_STATE: u16 = 3;
/// Value of [`EventHeader::kind`] for [`SocketArrivals`].
pub const KIND_ARRIVALS: u16 = 4;
/// Value of [`EventHeader::kind`] for [`PortListen`].
pub const KIND_LISTEN: u16 = 5;
/// Value of [`EventHeader::kind`] for [`SocketConnect`].
pub const KIND_CONNECT: u16 = 6;

/// [`SocketData::direction`]: the server wrote, to its client.
pub const DIRECTION_SEND: u8 = 0;
/// [`SocketData::direction`]: the server read, from its client.
pub const DIRECTION_RECEIVE: u8 = 1;

/// The bytes were not captured: the registers were not this call's (io_uring, splice, sendfile,
/// recvmmsg, a 32-bit call), or they were discarded by the kernel (`MSG_TRUNC`). Length and time hold.
pub const DATA_NO_PAYLOAD: u8 = 1;
/// Reading the user's memory failed part of the way: `captured` says how far.
pub const DATA_FAULT: u8 = 2;
/// `sequence` is a TCP sequence number. Without it (AF_UNIX), it counts the bytes seen on this
/// socket and direction since it became known, modulo 2^32.
pub const DATA_TCP: u8 = 4;

/// [`SocketOpen::flags`]: the connection is older than the observer's sight of it: its earlier
/// bytes were not seen.
pub const OPEN_LATE: u16 = 1;
/// [`SocketOpen::flags`]: what was first seen of it was the server writing, so a request was under way.
pub const OPEN_MID_REQUEST: u16 = 2;
/// [`SocketOpen::flags`]: TLS; `opaque`, no data events follow.
pub const OPEN_TLS: u16 = 4;
/// [`SocketOpen::flags`]: HTTP/2 with prior knowledge; `opaque`, no data events follow.
pub const OPEN_HTTP2: u16 = 8;
/// [`SocketOpen::flags`]: Multipath TCP; `opaque`, no data events follow.
pub const OPEN_MPTCP: u16 = 16;
/// [`SocketOpen::flags`]: the first bytes were moved by a call whose buffer cannot be seen (io_uring, splice);
/// `opaque`, no data events follow.
pub const OPEN_UNREADABLE: u16 = 32;
/// Any of the flags that make a connection opaque.
pub const OPEN_OPAQUE: u16 = OPEN_TLS | OPEN_HTTP2 | OPEN_MPTCP | OPEN_UNREADABLE;

/// [`SocketState::new_state`]: not a TCP state: the scope no longer holds this socket, no more
/// events follow.
pub const STATE_OUT_OF_SCOPE: u8 = 255;
/// TCP_ESTABLISHED of the kernel's `enum` in `net/tcp_states.h`, as are the next ones.
pub const TCP_ESTABLISHED: u8 = 1;
/// A client has asked for a connection.
pub const TCP_SYN_SENT: u8 = 2;
/// A server was asked for one.
pub const TCP_SYN_RECV: u8 = 3;
/// The server closed first and waits for the client.
pub const TCP_FIN_WAIT1: u8 = 4;
/// Closed, by both sides or by a reset.
pub const TCP_CLOSE: u8 = 7;
/// The client closed first.
pub const TCP_CLOSE_WAIT: u8 = 8;
/// The client closed first, and then the server.
pub const TCP_LAST_ACK: u8 = 9;
/// A listening socket.
pub const TCP_LISTEN: u8 = 10;
/// Both sides closed at once.
pub const TCP_CLOSING: u8 = 11;

/// `AF_UNIX` of [`SocketOpen::family`].
pub const FAMILY_UNIX: u16 = 1;
/// `AF_INET`.
pub const FAMILY_INET: u16 = 2;
/// `AF_INET6`; v4-mapped addresses stay mapped here.
pub const FAMILY_INET6: u16 = 10;

/// Begins each record.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EventHeader {
    /// One of the `KIND_*` values.
    pub kind: u16,
    /// Meaning by kind; zero where none is given.
    pub flags: u16,
    /// The CPU that wrote it.
    pub cpu: u32,
    /// When it happened, `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// The kernel's socket cookie: identity of the connection, never reused. Zero for [`PortListen`].
    pub cookie: u64,
}
const _: () = assert!(size_of::<EventHeader>() == 24 && offset_of!(EventHeader, cookie) == 16);

/// One successful read or write, or one failed write, of a tracked connection. The captured bytes
/// follow: `captured_head` bytes from the beginning, then `captured_tail` bytes that end where the
/// call's data end. What lies between them is a gap of known length.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SocketData {
    /// `kind` is [`KIND_DATA`].
    pub header: EventHeader,
    /// Thread group id (what user space calls pid) of the caller.
    pub tgid: u32,
    /// Thread id of the caller.
    pub tid: u32,
    /// Position of the first byte in its direction's stream, see [`DATA_TCP`].
    pub sequence: u32,
    /// Bytes that the call moved; 0 for a failed write and for the end of the stream on a read.
    pub length: u32,
    /// Bytes that the call asked to move, 0 where unknown. Only for writes.
    pub requested: u32,
    /// 0, or the negative errno of a failed call.
    pub result: i32,
    /// Bytes handed to the socket but not yet to the network when `time` was taken (writes, TCP):
    /// above 0 the packets left later than `time`.
    pub unsent: u32,
    /// Bytes captured from the beginning.
    pub captured_head: u16,
    /// Bytes captured from the end.
    pub captured_tail: u16,
    /// [`DIRECTION_SEND`] or [`DIRECTION_RECEIVE`].
    pub direction: u8,
    /// `DATA_*` bits.
    pub flags: u8,
    /// Zero.
    pub padding: [u8; 6],
}
const _: () = assert!(size_of::<SocketData>() == 64 && offset_of!(SocketData, captured_head) == 52);

/// A [`SocketData`] with room for `N` captured bytes; user space reads only those captured.
#[repr(C)]
pub struct SocketDataRecord<const N: usize> {
    /// The fixed part.
    pub data: SocketData,
    /// The captured bytes: head, then tail.
    pub payload: [u8; N],
}
/// The smallest data record.
pub type SocketDataSmall = SocketDataRecord<CAPTURE_SMALL>;
/// The middle one.
pub type SocketDataMedium = SocketDataRecord<CAPTURE_MEDIUM>;
/// The largest.
pub type SocketDataLarge = SocketDataRecord<CAPTURE_LARGE>;
const _: () = assert!(offset_of!(SocketDataLarge, payload) == 64 && size_of::<SocketDataLarge>() == 64 + CAPTURE_LARGE);

/// A connection became known: tracked from here on, or opaque (see [`OPEN_OPAQUE`] in the header's flags).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SocketOpen {
    /// `kind` is [`KIND_OPEN`], `flags` are `OPEN_*` bits.
    pub header: EventHeader,
    /// The server process: who made the first call seen on it.
    pub tgid: u32,
    /// The thread that made that call.
    pub tid: u32,
    /// `AF_*`.
    pub family: u16,
    /// The server's port, host order; 0 for AF_UNIX.
    pub local_port: u16,
    /// The client's port, host order; 0 for AF_UNIX.
    pub remote_port: u16,
    /// Zero.
    pub padding: u16,
    /// Network order; IPv4 in the first four bytes.
    pub local_address: [u8; 16],
    /// Network order; IPv4 in the first four bytes.
    pub remote_address: [u8; 16],
    /// When the connection was established, 0 where unknown.
    pub established: u64,
    /// The cgroup (v2) id of the caller.
    pub cgroup: u64,
    /// Position of the next byte that the server writes.
    pub send_sequence: u32,
    /// Position of the first byte of the first read that is reported.
    pub receive_sequence: u32,
    /// Name of the calling thread.
    pub comm: [u8; COMM_LEN],
}
const _: () = assert!(size_of::<SocketOpen>() == 112 && offset_of!(SocketOpen, established) == 72);

/// A tracked TCP connection changed its state.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SocketState {
    /// `kind` is [`KIND_STATE`].
    pub header: EventHeader,
    /// TCP state before.
    pub old_state: u8,
    /// TCP state after, or [`STATE_OUT_OF_SCOPE`].
    pub new_state: u8,
    /// Zero.
    pub padding: u16,
    /// `sk_err`: the positive errno pending on the socket; `ECONNRESET` or `EPIPE` after the client's reset.
    pub error: i32,
    /// Position after the last byte that the server wrote.
    pub write_sequence: u32,
    /// Position after the last byte that arrived from the client.
    pub receive_sequence: u32,
}
const _: () = assert!(size_of::<SocketState>() == 40 && offset_of!(SocketState, receive_sequence) == 36);

/// When one stretch of received bytes was queued on the server's socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival {
    /// Position of its first byte.
    pub begin: u32,
    /// Position after its last byte.
    pub end: u32,
    /// When it was queued.
    pub time: u64,
}
const _: () = assert!(size_of::<Arrival>() == 16);

/// Most stamps in one [`SocketArrivals`].
pub const ARRIVALS_PER_EVENT: usize = crate::limits::ARRIVALS;

/// Arrival stamps of bytes that the next read of this connection returns; precedes that read in the ring.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SocketArrivals {
    /// `kind` is [`KIND_ARRIVALS`].
    pub header: EventHeader,
    /// How many of `arrivals` are filled.
    pub count: u32,
    /// Zero.
    pub padding: u32,
    /// In stream order.
    pub arrivals: [Arrival; ARRIVALS_PER_EVENT],
}
const _: () =
    assert!(size_of::<SocketArrivals>() == 32 + 16 * ARRIVALS_PER_EVENT && offset_of!(SocketArrivals, arrivals) == 32);

/// A process in scope began to listen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PortListen {
    /// `kind` is [`KIND_LISTEN`].
    pub header: EventHeader,
    /// Who listens.
    pub tgid: u32,
    /// Host order.
    pub port: u16,
    /// Zero.
    pub padding: u16,
}
const _: () = assert!(size_of::<PortListen>() == 32);

/// A process of this host connected to a candidate port. Port and address are the other end's of those that the
/// server's [`SocketOpen`] calls local and remote.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SocketConnect {
    /// `kind` is [`KIND_CONNECT`]; the cookie is the client's socket's.
    pub header: EventHeader,
    /// Who connected.
    pub tgid: u32,
    /// `AF_*`.
    pub family: u16,
    /// The client's port, host order.
    pub local_port: u16,
    /// The server's port, host order.
    pub remote_port: u16,
    /// Zero.
    pub padding: [u16; 3],
    /// The client's. Network order; IPv4 in the first four bytes.
    pub local_address: [u8; 16],
    /// The server's. Network order; IPv4 in the first four bytes.
    pub remote_address: [u8; 16],
}
const _: () = assert!(size_of::<SocketConnect>() == 72 && offset_of!(SocketConnect, local_address) == 40);
