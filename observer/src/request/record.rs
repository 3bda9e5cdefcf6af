//! A finished request: everything that metrics and logs may know of it. No text of a prompt or a
//! completion is ever in it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

pub use crate::llm::operation::{Operation, Usage};
use crate::{event::Cookie, time::KernelTime, workload::Identity};

/// What is known of a connection from its first sight on; shared by its requests.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Its identity.
    pub cookie: Cookie,
    /// The server's address; `None`: AF_UNIX.
    pub server: Option<SocketAddr>,
    /// The client's address; `None`: AF_UNIX.
    pub client: Option<SocketAddr>,
    /// The server's process, as of the first call seen.
    pub pid: u32,
    /// The server's program name.
    pub comm: Arc<str>,
    /// Name of the workload that it belongs to: see `docs/workloads.md`.
    pub workload: Arc<str>,
    /// That workload; `None`: no more is known of it than its name.
    pub identity: Option<Arc<Identity>>,
}

impl ConnectionInfo {
    /// Value of the `server_port` label: the port, or `unix`.
    #[must_use]
    pub fn server_port(&self) -> String {
        self.server.map_or_else(|| "unix".to_owned(), |address| address.port().to_string())
    }
}

/// What a server's process was to a request, where several on one host pass it on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Role {
    /// Its server, as far as this host shows.
    #[default]
    Server,
    /// It asked another server on this host in turn.
    Proxy,
    /// It was asked by a proxy on this host.
    Backend,
}

impl Role {
    /// Its value of the `role` label: empty, so that there is none, for [`Self::Server`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "",
            Self::Proxy => "proxy",
            Self::Backend => "backend",
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// 2xx, complete.
    Ok,
    /// 4xx, 5xx (and 3xx).
    HttpError,
    /// 200, then an error event inside the stream.
    ErrorInStream,
    /// The client left before the response was complete, and it never completed.
    Cancelled,
    /// The server closed before the response was complete.
    Truncated,
    /// The timeline has a gap: counted, never timed.
    Incomplete,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Ok, Self::HttpError, Self::ErrorInStream, Self::Cancelled, Self::Truncated, Self::Incomplete];

    /// Its value of the `outcome` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::HttpError => "http_error",
            Self::ErrorInStream => "error_in_stream",
            Self::Cancelled => "cancelled",
            Self::Truncated => "truncated",
            Self::Incomplete => "incomplete",
        }
    }
}

/// Why a request is [`Outcome::Incomplete`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IncompleteReason {
    /// Bytes of the request's or response's head were not captured.
    HeadGap,
    /// Bytes were not captured that hide where chunks begin and end.
    FramingGap,
    /// Bytes of a stream were not captured that may hold tokens.
    TokenGap,
    /// The bytes are not HTTP/1.
    Unparsable,
    /// Its events stopped: the connection vanished, left the scope, or was dropped to bound memory.
    Abandoned,
}

impl IncompleteReason {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::HeadGap, Self::FramingGap, Self::TokenGap, Self::Unparsable, Self::Abandoned];

    /// Its value of the `reason` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HeadGap => "head_gap",
            Self::FramingGap => "framing_gap",
            Self::TokenGap => "token_gap",
            Self::Unparsable => "unparsable",
            Self::Abandoned => "abandoned",
        }
    }
}

/// The measured points of one request, all on the server's side of the connection. `None`: not reached, or unknown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timeline {
    /// The segment that holds the request's first byte was queued on the server's socket.
    pub arrive: Option<KernelTime>,
    /// The request's first byte was returned to the server.
    pub read: Option<KernelTime>,
    /// Its last byte was returned to the server. Unknown if the response began before (early response).
    pub ready: Option<KernelTime>,
    /// The response's first byte was handed to the socket (interim 1xx responses do not count).
    pub header: Option<KernelTime>,
    /// The first token event was handed to the socket, whole.
    pub first: Option<KernelTime>,
    /// The first token event that is not reasoning, where reasoning came first; else `None`.
    pub first_content: Option<KernelTime>,
    /// The last token event was handed to the socket, whole.
    pub last: Option<KernelTime>,
    /// The last byte of the HTTP message was handed to the socket, or the moment of the cancellation.
    pub end: Option<KernelTime>,
    /// End of the previous response on this connection, if that was after `arrive`: until then the request waited
    /// for its turn (head of line).
    pub head_of_line_until: Option<KernelTime>,
    /// When the previous response ended was lost, and it may have been after `arrive`: then no phase is known.
    pub turn_unknown: bool,
    /// `arrive` could not be known (AF_UNIX, a connection older than the observer): `read` stands in for it.
    pub arrival_unknown: bool,
}

impl Timeline {
    /// t0 of all latencies: `arrive` where the kernel offers it, else `read`.
    #[must_use]
    pub fn start(&self) -> Option<KernelTime> {
        self.arrive.or(self.read)
    }
}

/// Gaps between successive token events of one stream, already sorted into the buckets of
/// `llm_inter_chunk_latency_seconds`: a stream of any length takes constant memory.
#[derive(Clone, Debug, Default)]
pub struct Gaps {
    /// One count for each bucket bound, and a last one for what lies above them; empty while there is no gap.
    pub buckets: Box<[u32]>,
    /// Gaps in all.
    pub count: u64,
    /// Sum of all gaps.
    pub sum: Duration,
    /// The longest.
    pub max: Duration,
}

/// A request header that became a label.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeaderLabel {
    /// Name of the label.
    pub name: Arc<str>,
    /// What it shows: the header's value, or its hash. `None`: there was none, or none that can be shown.
    pub value: Option<Arc<str>>,
}

/// A finished request.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// The connection that carried it.
    pub connection: Arc<ConnectionInfo>,
    /// What was asked for.
    pub operation: Operation,
    /// The dialect that it was worded in.
    pub api: &'static str,
    /// What the server's process was to it.
    pub role: Role,
    /// Model named in the request, if it could be read.
    pub request_model: Option<Arc<str>>,
    /// Model named in the response.
    pub response_model: Option<Arc<str>>,
    /// Whether the response was streamed; `None`: there was no response.
    pub stream: Option<bool>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, if the outcome is [`Outcome::Incomplete`].
    pub incomplete: Option<IncompleteReason>,
    /// HTTP status; `None`: there was no response.
    pub status: Option<u16>,
    /// When what happened.
    pub timeline: Timeline,
    /// Token events seen (events, not tokens); `None`: unknown.
    pub token_events: Option<u64>,
    /// Token events that shared a write with an earlier one.
    pub coalesced: u64,
    /// Gaps between token events.
    pub gaps: Gaps,
    /// Time of each token event; only filled where the configuration asks for it, and bounded there.
    pub chunk_times: Vec<KernelTime>,
    /// Indexes into `chunk_times` of events whose packets had not left when the time was taken (Nagle, a full
    /// window).
    pub chunk_unsent: Vec<u32>,
    /// Writes of measured points whose bytes had not all left when the time was taken.
    pub unsent_stamps: u64,
    /// Token counts as reported.
    pub usage: Usage,
    /// Reasons to finish as the server said, one per choice, bounded.
    pub finish_reasons: Vec<Arc<str>>,
    /// Size of the request: head and body as on the wire.
    pub request_bytes: u64,
    /// Size of the response: head and body as on the wire, as far as it went.
    pub response_bytes: u64,
    /// Time in which the response could not be handed over because the client read slowly.
    pub write_blocked: Duration,
    /// The client's FIN or reset to the server's last write of this request, for cancelled ones.
    pub cancelled_work: Option<Duration>,
    /// Time from the connection's establishment to the server's first read of it: in the first record of a connection whose
    /// establishment was seen.
    pub first_read: Option<Duration>,
    /// `x-request-id` of the request, at most 128 bytes, printable.
    pub request_id: Option<Box<str>>,
    /// Trace id of the request's `traceparent`: 32 hex digits.
    pub trace_id: Option<Box<str>>,
    /// Labels from headers of the request, as configured, in that order.
    pub labels: Box<[HeaderLabel]>,
}
