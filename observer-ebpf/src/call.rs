//! One call that read or wrote a socket: is it ours, what is it a part of, and what is said of it.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use observer_common::{
    config::{PORT_IGNORED, Scope},
    content,
    event::{
        DATA_TCP, DIRECTION_RECEIVE, DIRECTION_SEND, OPEN_HTTP2, OPEN_LATE, OPEN_MID_REQUEST, OPEN_MPTCP, OPEN_TLS,
        OPEN_UNREADABLE, STATE_OUT_OF_SCOPE, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_ESTABLISHED,
    },
    io::{READ, WRITE},
    loss::Counter,
};

use crate::{
    capture::clamp,
    emit::{self, Call},
    filter::{self, FirstBytes},
    io,
    kernel::{Sock, Transport, now},
    maps::{count, count_bytes, port_state, scope},
    registers::Buffers,
    socket::{self, ANNOUNCED, BLOCKED, KNOWN, LATE, LEFT_ALONE, MID_REQUEST, PROVISIONAL, Socket, TRACKED, UNDECIDED},
    tcp,
};

const EAGAIN: i32 = -11;
const EPIPE: i32 = -32;
const ECONNRESET: i32 = -104;
const MSG_PEEK: i32 = 0x2;
const MSG_TRUNC: i32 = 0x20;
const MSG_ERRQUEUE: i32 = 0x2000;
/// Calls without a request line after which a connection that was joined late is left alone. A large body takes some
/// tens of reads.
const MISSES_MAX: u32 = 256;

/// Most time from TCP's clock to the device, cold caches included, that a stamp allows for.
const SENDING_MAX_NS: u64 = 20_000;

/// Whether a result says anything. Floods of EAGAIN end here; so do restarts (-512..-516). Only what says that a client
/// left, or that a write waits for room, goes on.
#[inline(always)]
pub fn is_told(result: i32, direction: u8) -> bool {
    result >= 0 || result == ECONNRESET || result == EPIPE || (direction == DIRECTION_SEND && result == EAGAIN)
}

/// A call read from a socket, or wrote to it: the one core behind every hook that sees a socket and a result. `buffers`
/// are asked for at most once.
#[inline(always)]
pub fn moved(sock: Sock, result: i32, flags: i32, direction: u8, buffers: impl Fn() -> Buffers) {
    if filter::is_own_process() {
        return;
    }
    if direction == DIRECTION_SEND || flags & (MSG_PEEK | MSG_ERRQUEUE) == 0 {
        io::socket(if direction == DIRECTION_SEND { WRITE } else { READ }, result);
    }
    let Some(transport) = sock.transport() else { return };
    if !is_told(result, direction) {
        return;
    }
    // Neither consumes anything of the stream.
    if direction == DIRECTION_RECEIVE && flags & (MSG_PEEK | MSG_ERRQUEUE) != 0 {
        return;
    }
    let Some(scope) = scope() else { return };
    let Some(socket) = find(sock, transport, scope, result) else { return };
    let left_alone = socket.verdict == LEFT_ALONE;
    if left_alone && (result <= 0 || !is_counted(socket, transport)) {
        return;
    }
    let time = now();
    if !in_scope(sock, socket, transport, scope, time) {
        return;
    }
    if left_alone {
        return pass(sock, socket, direction, result as u32);
    }
    let call_buffers =
        if direction == DIRECTION_RECEIVE && flags & MSG_TRUNC != 0 { Buffers::unknown() } else { buffers() };
    let seen = Seen {
        sock: sock.address(),
        inode: sock.inode(),
        time,
        buffers: call_buffers,
        result,
        transport,
        direction: u32::from(direction),
        padding: 0,
    };
    let told = socket.verdict == TRACKED
        || if sock.is_typed() { decide(sock, socket, &seen) } else { obs_decide_at(&seen, socket) != 0 };
    if !told {
        if result > 0 && is_counted(socket, transport) {
            count_bytes(socket.content, direction, result as u32);
        }
    } else if sock.is_typed() {
        report(sock, socket, &seen);
    } else {
        obs_report_at(&seen, socket);
    }
}

/// A call on a socket in scope.
#[repr(C)]
pub struct Seen {
    /// Address of the `struct sock`, and of its inode where the verifier does not know the type.
    sock: u64,
    inode: u64,
    time: u64,
    buffers: Buffers,
    result: i32,
    transport: Transport,
    direction: u32,
    padding: u32,
}

impl Seen {
    #[inline(always)]
    fn direction(&self) -> u8 {
        self.direction as u8
    }
}

/// [`decide`] for a socket by address. A function of its own with global linkage, which the verifier checks once, and not
/// once for each way that leads to it; pointers that it trusts cannot be handed to one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn obs_decide_at(seen: *const Seen, socket: *mut Socket) -> u32 {
    // SAFETY: null, or references from `moved`.
    let (Some(seen), Some(socket)) = (unsafe { (seen.as_ref(), socket.as_mut()) }) else { return 0 };
    u32::from(decide(Sock::at(seen.sock, seen.inode), socket, seen))
}

/// [`report`] for a socket by address; see [`obs_decide_at`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn obs_report_at(seen: *const Seen, socket: *mut Socket) -> u32 {
    // SAFETY: null, or references from `moved`.
    let (Some(seen), Some(socket)) = (unsafe { (seen.as_ref(), socket.as_mut()) }) else { return 0 };
    report(Sock::at(seen.sock, seen.inode), socket, seen);
    1
}

/// Whether bytes of this socket that become no events are counted. AF_UNIX sockets of any kind are looked at, and both
/// ends look alike: there, only what is opaque is.
#[inline(always)]
fn is_counted(socket: &Socket, transport: Transport) -> bool {
    match socket.content {
        content::UNDECIDED => transport != Transport::Unix && socket.verdict == UNDECIDED,
        content::NOT_HTTP => transport != Transport::Unix,
        _ => true,
    }
}

/// Bytes of a connection that is left alone.
#[inline(always)]
fn pass(sock: Sock, socket: &mut Socket, direction: u8, bytes: u32) {
    // The handshake is the server's own, and comes first.
    if socket.content == content::TLS && sock.tcp().is_some_and(|tcp| tcp.has_upper_protocol()) {
        socket.content = content::KTLS;
    }
    count_bytes(socket.content, direction, bytes);
}

/// The state of a socket that may be ours, made at its first use.
#[inline(always)]
fn find(sock: Sock, transport: Transport, scope: &Scope, result: i32) -> Option<&'static mut Socket> {
    if let Some(socket) = socket::get(sock) {
        return Some(socket);
    }
    let local_port = if transport == Transport::Unix { 0 } else { u32::from(sock.local_port()) };
    if result <= 0 || !filter::is_candidate(transport, local_port, scope) || !sock.has_file() {
        return None;
    }
    let socket = socket::get_or_create(sock)?;
    socket.flags = LATE;
    socket.local_port = local_port;
    if let Some(tcp) = sock.tcp() {
        // What is queued by now has no stamp; what comes next will.
        socket.arrived = tcp.rcv_nxt();
        tcp::found(socket, tcp);
    }
    Some(socket)
}

/// Whether a socket is in scope, by the verdict kept with it where no list has changed since.
#[inline(always)]
fn in_scope(sock: Sock, socket: &mut Socket, transport: Transport, scope: &Scope, time: u64) -> bool {
    let candidate = filter::is_candidate(transport, socket.local_port, scope);
    if socket.generation != scope.generation {
        socket.generation = scope.generation;
        socket.in_scope = filter::process_in_scope(scope) as u32;
    }
    if socket.in_scope != 0 && candidate {
        return true;
    }
    if !candidate && port_state(socket.local_port) == PORT_IGNORED {
        count(Counter::IgnoredPort);
    }
    forget(sock, socket, time);
    if socket.is_tracked() {
        socket.verdict = UNDECIDED;
        socket.misses = 0;
    }
    false
}

/// Takes back what user space was told of a connection.
#[inline(always)]
fn forget(sock: Sock, socket: &mut Socket, time: u64) {
    if socket.has(KNOWN) {
        emit::state(sock, socket.cookie, time, 0, STATE_OUT_OF_SCOPE, 0);
        socket.flags = LATE;
    }
}

/// First sight: whether this call is to be reported. Says to user space what became known.
#[inline(always)]
fn decide(sock: Sock, socket: &mut Socket, seen: &Seen) -> bool {
    let (transport, direction, result, time) = (seen.transport, seen.direction(), seen.result, seen.time);
    if result <= 0 {
        return socket.verdict == PROVISIONAL;
    }
    if transport == Transport::Mptcp {
        leave_alone(sock, socket, time, OPEN_MPTCP, content::MPTCP);
        return false;
    }
    // Joined late, with the handshake done: what is read and written is text, and what TCP counts is not.
    if socket.has(LATE) && sock.tcp().is_some_and(|tcp| tcp.has_upper_protocol()) {
        leave_alone(sock, socket, time, OPEN_TLS, content::KTLS);
        return false;
    }
    if direction == DIRECTION_SEND {
        if socket.verdict == PROVISIONAL {
            return true;
        }
        return decide_by_write(sock, socket, seen);
    }
    let (word, length) = peek(seen.buffers, result as u32);
    let (prefix, prefix_length) = if socket.verdict == PROVISIONAL {
        let known = socket.prefix_length & 7;
        ((socket.prefix & filter::mask(known)) | word << (8 * known), known + length)
    } else {
        (word, length)
    };
    let late = socket.has(LATE);
    match filter::first_bytes(prefix, prefix_length) {
        FirstBytes::Http1 => {
            if announce(sock, socket, time, result as u32) {
                socket.verdict = TRACKED;
            }
            true
        }
        FirstBytes::Undecided if length > 0 => {
            if announce(sock, socket, time, result as u32) {
                socket.verdict = PROVISIONAL;
                socket.prefix = prefix;
                socket.prefix_length = prefix_length;
            }
            true
        }
        FirstBytes::Tls if !late || socket.misses == 0 => {
            leave_alone(sock, socket, time, OPEN_TLS, content::TLS);
            false
        }
        FirstBytes::Http2 => {
            leave_alone(sock, socket, time, OPEN_HTTP2, content::HTTP2);
            false
        }
        _ if late && transport == Transport::Tcp && filter::can_be_tls_data(word, length) => {
            leave_alone(sock, socket, time, OPEN_TLS, content::TLS);
            false
        }
        _ if late => {
            // The middle of something: a request line may yet come.
            if socket.verdict == PROVISIONAL {
                forget(sock, socket, time);
                socket.verdict = UNDECIDED;
            }
            miss(sock, socket, time);
            // What looked like the beginning of a request was not; this read may be one.
            if socket.verdict == UNDECIDED
                && prefix_length > length
                && filter::first_bytes(word, length) == FirstBytes::Http1
                && announce(sock, socket, time, result as u32)
            {
                socket.verdict = TRACKED;
                return true;
            }
            false
        }
        // A server within the kernel, such as that of NFS, has sockets without files.
        FirstBytes::Undecided if sock.has_file() => {
            leave_alone(sock, socket, time, OPEN_UNREADABLE, content::UNREADABLE);
            false
        }
        _ => {
            forget(sock, socket, time);
            not_http(socket);
            false
        }
    }
}

/// One more call without a request line, on a connection that may be in the middle of something.
#[inline(always)]
fn miss(sock: Sock, socket: &mut Socket, time: u64) {
    socket.misses += 1;
    if socket.misses > MISSES_MAX {
        forget(sock, socket, time);
        not_http(socket);
    }
}

/// It speaks something else.
#[inline(always)]
fn not_http(socket: &mut Socket) {
    socket.verdict = LEFT_ALONE;
    socket.content = content::NOT_HTTP;
    count(Counter::NotHttp);
}

/// First sight by a write: a server does not speak first in HTTP.
#[inline(always)]
fn decide_by_write(sock: Sock, socket: &mut Socket, seen: &Seen) -> bool {
    let (transport, time) = (seen.transport, seen.time);
    if !socket.has(LATE) {
        not_http(socket);
        return false;
    }
    let (word, length) = peek(seen.buffers, seen.result as u32);
    if length >= 8 && filter::first_bytes(word, length) == FirstBytes::Http1 {
        // Who writes a request line is a client: AF_UNIX ends look alike, and a port number can be anyone's.
        socket.verdict = LEFT_ALONE;
    } else if transport == Transport::Tcp && filter::can_be_tls_data(word, length) {
        leave_alone(sock, socket, time, OPEN_TLS, content::TLS);
    } else if transport == Transport::Tcp && filter::can_be_response(word, length) {
        if !socket.has(KNOWN) && emit::open(sock, socket, time, 0, OPEN_LATE | OPEN_MID_REQUEST) {
            socket.flags |= MID_REQUEST;
        }
    } else {
        miss(sock, socket, time);
    }
    false
}

/// Tells user space of a connection, once: before the first read that it hears of, which returned `length` bytes.
/// False: there was no room to say so. It is then as one that was joined late, and the next request makes it known.
#[inline(always)]
fn announce(sock: Sock, socket: &mut Socket, time: u64, length: u32) -> bool {
    if socket.has(ANNOUNCED) {
        return true;
    }
    let late = if socket.has(LATE) { OPEN_LATE } else { 0 };
    let announced = emit::open(sock, socket, time, length, late);
    socket.flags |= if announced { ANNOUNCED } else { LATE };
    announced
}

/// An opaque connection: announced, and never looked at again.
#[inline(always)]
fn leave_alone(sock: Sock, socket: &mut Socket, time: u64, reason: u16, content: u32) {
    socket.verdict = LEFT_ALONE;
    socket.content = content;
    let late = if socket.has(LATE) { OPEN_LATE } else { 0 };
    let _counted = emit::open(sock, socket, time, 0, late | reason);
}

/// First bytes of a call.
#[repr(C)]
pub struct First {
    /// Little endian.
    word: u64,
    /// How many: up to 8.
    length: u64,
}

/// Up to 8 first bytes of a call that moved `total`, and how many.
#[inline(always)]
fn peek(buffers: Buffers, total: u32) -> (u64, u32) {
    let mut first = First { word: 0, length: 0 };
    obs_peek(&mut first, buffers.kind, buffers.address, buffers.count, total);
    (first.word, clamp(first.length, 8) as u32)
}

/// Of the first iovecs, if there are several. A function of its own with global linkage, as [`obs_decide_at`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn obs_peek(first: *mut First, kind: u64, address: u64, count: u64, total: u32) -> u32 {
    // SAFETY: null, or a reference from `peek`.
    let Some(first) = (unsafe { first.as_mut() }) else { return 0 };
    let total = u64::from(total);
    match kind {
        Buffers::ONE => {
            let (word, length) = peek_one(address, total);
            (first.word, first.length) = (word, u64::from(length));
            return 1;
        }
        Buffers::MANY => {}
        _ => return 0,
    }
    let (mut word, mut length, mut vector, mut index) = (0u64, 0u64, address, 0u64);
    while index < 4 {
        let mut iovec = [0u64; 2];
        // SAFETY: 16 bytes into 16 bytes.
        if index >= count || unsafe { bpf_probe_read_user((&raw mut iovec).cast(), 16, vector as *const _) } != 0 {
            break;
        }
        let rest = total - length;
        let (part, size) = peek_one(iovec[0], if iovec[1] < rest { iovec[1] } else { rest });
        word |= part << (8 * (length & 7));
        length += u64::from(size);
        if length >= 8 || length >= total {
            break;
        }
        vector += 16;
        index += 1;
    }
    (first.word, first.length) = (word, length);
    1
}

/// Up to 8 bytes at `base`.
#[inline(always)]
fn peek_one(base: u64, available: u64) -> (u64, u32) {
    let length = clamp(available, 8);
    if length == 0 {
        return (0, 0);
    }
    let mut word = 0u64;
    // SAFETY: at most 8 bytes into 8 bytes.
    if unsafe { bpf_probe_read_user((&raw mut word).cast(), length as u32, base as *const _) } != 0 {
        return (0, 0);
    }
    (word, length as u32)
}

/// When bytes left that TCP began to send at `begun` and had sent by `now`: halfway, since the network device got them
/// in between. A long way to `now` was spent on something else, such as waiting for the CPU.
#[inline(always)]
fn left_at(begun: u64, now: u64) -> u64 {
    let half = (now - begun) / 2;
    begun + if half < SENDING_MAX_NS { half } else { SENDING_MAX_NS }
}

/// Sends the events of one call on a tracked connection.
#[inline(always)]
fn report(sock: Sock, socket: &mut Socket, seen: &Seen) {
    let (direction, result, time) = (seen.direction(), seen.result, seen.time);
    let length = if result > 0 { result as u32 } else { 0 };
    let send = direction == DIRECTION_SEND;
    if send {
        if result == EAGAIN {
            if socket.has(BLOCKED) {
                return;
            }
            socket.flags |= BLOCKED;
        } else {
            socket.flags &= !BLOCKED;
        }
    }
    let mut call = Call {
        time,
        cookie: socket.cookie,
        sequence: 0,
        length,
        result: if result < 0 { result } else { 0 },
        unsent: 0,
        direction,
        flags: 0,
    };
    if seen.transport == Transport::Tcp {
        let Some(tcp) = sock.tcp() else { return };
        call.flags = DATA_TCP;
        if send {
            tcp::wrote(socket, tcp, time);
            let end = tcp.write_seq();
            call.sequence = end.wrapping_sub(length);
            let unsent = end.wrapping_sub(tcp.snd_nxt());
            call.unsent = if (unsent as i32) < 0 { 0 } else { unsent };
            if length > 0 && call.unsent == 0 {
                call.time = left_at(tcp.clock(time), time);
            }
        } else {
            let end = socket.read_end(tcp);
            call.sequence = end.wrapping_sub(length);
            emit::obs_emit_arrivals(socket, time, end);
        }
    } else {
        let counter = if send { &mut socket.sent } else { &mut socket.received };
        call.sequence = *counter;
        *counter = counter.wrapping_add(length);
    }
    emit::data(&call, seen.buffers);
    catch_up(sock, socket, send || length == 0);
}

/// Reports what became of the connection before user space knew of it, once all that had arrived by then is read, or the
/// server goes on (`now`).
#[inline(always)]
fn catch_up(sock: Sock, socket: &mut Socket, now: bool) {
    if socket.fin_pending == 0 && socket.end_time == 0 {
        return;
    }
    let Some(tcp) = sock.tcp() else { return };
    if !now && tcp.copied_seq() != tcp.rcv_nxt() {
        return;
    }
    if socket.fin_pending != 0 {
        socket.fin_pending = 0;
        emit::state(sock, socket.cookie, socket.fin_time, TCP_ESTABLISHED, TCP_CLOSE_WAIT, 0);
    }
    if socket.end_time != 0 {
        emit::state(sock, socket.cookie, socket.end_time, TCP_CLOSE_WAIT, TCP_CLOSE, socket.end_error);
        socket.end_time = 0;
        // No more changes of state will come.
        socket.verdict = LEFT_ALONE;
    }
}
