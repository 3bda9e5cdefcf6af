//! Events as the pipeline sees them: what `kernel::ring` decodes and what a recording will replay.
//! Payload is borrowed from its source and lives for one call.

use std::net::SocketAddr;

pub use observer_common::event::Arrival;

use crate::time::KernelTime;

/// Identity of a connection: the kernel's socket cookie, never reused while the host is up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Cookie(pub u64);

/// One event of the kernel side.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A connection became known.
    Open(Open),
    /// The server read or wrote.
    Data(Data<'a>),
    /// Arrival stamps of bytes that a later read returns.
    Arrivals(Arrivals<'a>),
    /// A TCP connection changed its state.
    State(State),
    /// A process in scope began to listen.
    Listen(Listen),
    /// A process of this host connected to a server in scope.
    Connect(Connect),
}

/// Why a connection's bytes say nothing to us.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OpaqueReason {
    /// A TLS handshake came first.
    Tls,
    /// The HTTP/2 preface came first.
    Http2,
    /// Multipath TCP: subflows can share a cookie.
    Mptcp,
    /// `101 Switching Protocols`.
    Upgrade,
    /// `CONNECT` was answered with success.
    Connect,
    /// A content coding that we do not decode.
    Compressed,
    /// The server reads by calls whose buffers cannot be seen (io_uring, splice).
    Unreadable,
}

impl OpaqueReason {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Tls, Self::Http2, Self::Mptcp, Self::Upgrade, Self::Connect, Self::Compressed, Self::Unreadable];

    /// Its value of the `reason` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http2 => "http2",
            Self::Mptcp => "mptcp",
            Self::Upgrade => "upgrade",
            Self::Connect => "connect",
            Self::Compressed => "compressed",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What bytes of connections on candidate ports are. Each byte is one of these.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Content {
    /// HTTP/1 that is read.
    Plain,
    /// TLS.
    Tls,
    /// TLS whose records the kernel makes (kTLS).
    Ktls,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Multipath TCP.
    Mptcp,
    /// Moved by calls whose buffers cannot be seen (io_uring, splice).
    Unreadable,
    /// After `101 Switching Protocols`.
    Upgrade,
    /// Through a tunnel that `CONNECT` opened.
    Connect,
    /// Bodies of LLM requests and responses, in a content coding that we do not decode.
    Compressed,
    /// Something else, which is left alone.
    NotHttp,
    /// Of connections older than the observer, of which it cannot be told yet what they speak.
    Undecided,
}

impl Content {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Plain,
        Self::Tls,
        Self::Ktls,
        Self::Http2,
        Self::Mptcp,
        Self::Unreadable,
        Self::Upgrade,
        Self::Connect,
        Self::Compressed,
        Self::NotHttp,
        Self::Undecided,
    ];

    /// Its value of the `content` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "tls",
            Self::Ktls => "ktls",
            Self::Http2 => "http2",
            Self::Mptcp => "mptcp",
            Self::Unreadable => "unreadable",
            Self::Upgrade => "upgrade",
            Self::Connect => "connect",
            Self::Compressed => "compressed",
            Self::NotHttp => "not_http",
            Self::Undecided => "undecided",
        }
    }
}

/// A connection became known.
#[derive(Clone, Debug)]
pub struct Open {
    /// Of this connection.
    pub cookie: Cookie,
    /// When it became known.
    pub time: KernelTime,
    /// When it was established, where that was seen.
    pub established: Option<KernelTime>,
    /// The server's process: who made the first call seen on it.
    pub pid: u32,
    /// The server's address; v4-mapped ones as IPv4. `None`: AF_UNIX.
    pub server: Option<SocketAddr>,
    /// The client's address. `None`: AF_UNIX.
    pub client: Option<SocketAddr>,
    /// The server's cgroup (v2) id.
    pub cgroup: u64,
    /// Position of the next byte that the server writes, where known.
    pub send_sequence: Option<u32>,
    /// Position of the first byte of the first read that is reported, where known.
    pub receive_sequence: Option<u32>,
    /// Name of the thread that made the first call.
    pub comm: String,
    /// Earlier bytes of it were not seen.
    pub late: bool,
    /// The first thing seen was the server writing: a request was under way.
    pub mid_request: bool,
    /// No data events will follow.
    pub opaque: Option<OpaqueReason>,
}

/// Which way bytes go, seen from the server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// From the client: requests.
    Receive,
    /// To the client: responses.
    Send,
}

/// The server read or wrote, or tried to.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// Of this connection.
    pub cookie: Cookie,
    /// When the call's data were handed over.
    pub time: KernelTime,
    /// Which way.
    pub direction: Direction,
    /// Position of the first byte in its direction's stream, modulo 2^32.
    pub sequence: u32,
    /// Bytes moved. 0: a failed write (`errno` says why), or the end of the stream on a read.
    pub length: u32,
    /// Bytes that a write asked to move, where known: `length < requested` is a short write.
    pub requested: Option<u32>,
    /// Positive errno of a failed call, 0 if it succeeded.
    pub errno: i32,
    /// Bytes handed to the socket that had not left for the network at `time` (writes).
    pub unsent: u32,
    /// The first bytes of the call.
    pub head: &'a [u8],
    /// Its last bytes; between them and `head` lie `length - head.len() - tail.len()` bytes that were not captured.
    pub tail: &'a [u8],
    /// The calling process.
    pub pid: u32,
}

/// Arrival stamps of bytes that a later read returns.
#[derive(Clone, Copy, Debug)]
pub struct Arrivals<'a> {
    /// Of this connection.
    pub cookie: Cookie,
    /// In stream order; `time` in nanoseconds of [`KernelTime`]'s clock.
    pub stamps: &'a [Arrival],
}

/// A TCP connection changed its state.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// Of this connection.
    pub cookie: Cookie,
    /// When.
    pub time: KernelTime,
    /// What happened.
    pub change: StateChange,
    /// Position after the last byte that the server wrote, modulo 2^32.
    pub write_sequence: u32,
    /// Position after the last byte that arrived from the client, modulo 2^32.
    pub receive_sequence: u32,
}

/// What a change of TCP state means to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StateChange {
    /// The client sent FIN first: it closed or half-closed.
    ClientFin,
    /// The client (or a timeout) reset the connection.
    Reset,
    /// The server closed or half-closed first.
    ServerFin,
    /// The connection is over, both sides having closed.
    Closed,
    /// The scope no longer holds this connection: no more events follow.
    OutOfScope,
}

/// A process in scope began to listen.
#[derive(Clone, Copy, Debug)]
pub struct Listen {
    /// When.
    pub time: KernelTime,
    /// Who.
    pub pid: u32,
    /// Where.
    pub port: u16,
}

/// A process of this host connected to a server in scope: what it asks there may be what it was asked itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connect {
    /// When the connection was established.
    pub time: KernelTime,
    /// Who connected.
    pub pid: u32,
    /// Its end: the client's address as the server sees it. v4-mapped ones as IPv4.
    pub local: SocketAddr,
    /// The server's address.
    pub remote: SocketAddr,
}
