//! Reads and writes of sockets.

use aya_ebpf::{
    helpers::{bpf_ktime_get_ns, generated::bpf_probe_read_user},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use observer_common::{
    config::Scope,
    event::{
        DATA_TCP, DIRECTION_RECEIVE, DIRECTION_SEND, OPEN_HTTP2, OPEN_LATE, OPEN_MID_REQUEST, OPEN_MPTCP, OPEN_TLS,
        OPEN_UNREADABLE, STATE_OUT_OF_SCOPE,
    },
    loss::Counter,
};

use crate::{
    emit::{self, Call},
    filter::{self, FirstBytes},
    kernel::{Sock, Transport},
    maps::{count, scope},
    registers::{Buffers, buffers},
    socket::{self, ANNOUNCED, BLOCKED, LATE, LEFT_ALONE, MID_REQUEST, PROVISIONAL, Socket, TRACKED, UNDECIDED},
};

const EAGAIN: i32 = -11;
const EPIPE: i32 = -32;
const ECONNRESET: i32 = -104;
const MSG_PEEK: i32 = 0x2;
const MSG_TRUNC: i32 = 0x20;
/// Reads without a request line after which a connection that was joined late is left alone. A large body takes some
/// tens of reads.
const MISSES_MAX: u32 = 256;

/// Most time from TCP's clock to the device, cold caches included, that a stamp allows for.
const SENDING_MAX_NS: u64 = 20_000;

/// `void sock_send_length(struct sock *sk, int ret, int flags)`, since 6.3.
#[btf_tracepoint(function = "sock_send_length")]
pub fn obs_sock_send(ctx: BtfTracePointContext) -> i32 {
    socket_io(Sock(ctx.arg(0)), ctx.arg(1), ctx.arg(2), DIRECTION_SEND);
    0
}

/// `void sock_recv_length(struct sock *sk, int ret, int flags)`, since 6.3.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn obs_sock_recv(ctx: BtfTracePointContext) -> i32 {
    socket_io(Sock(ctx.arg(0)), ctx.arg(1), ctx.arg(2), DIRECTION_RECEIVE);
    0
}

/// The one core behind every mechanism that sees a socket, a result and a system call's registers.
#[inline(always)]
fn socket_io(sock: Sock, result: i32, flags: i32, direction: u8) {
    if filter::is_own_process() {
        return;
    }
    let Some(transport) = sock.transport() else { return };
    // Floods of EAGAIN end here; so do restarts (-512..-516). Only what says that a client left, or that a write
    // waits for room, goes on.
    if result < 0 && result != ECONNRESET && result != EPIPE && (direction == DIRECTION_RECEIVE || result != EAGAIN) {
        return;
    }
    if direction == DIRECTION_RECEIVE && flags & MSG_PEEK != 0 {
        return;
    }
    let Some(scope) = scope() else { return };
    let Some(socket) = find(sock, transport, scope, result) else { return };
    if socket.verdict == LEFT_ALONE {
        return;
    }
    let time = unsafe { bpf_ktime_get_ns() };
    if !in_scope(sock, socket, transport, scope, time) {
        return;
    }
    let mut call_buffers = buffers(direction);
    if direction == DIRECTION_RECEIVE && flags & MSG_TRUNC != 0 {
        call_buffers = Buffers::Unknown;
    }
    if socket.verdict != TRACKED && !decide(sock, socket, transport, direction, result, call_buffers, time) {
        return;
    }
    report(sock, socket, transport, direction, result, call_buffers, time);
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
    if socket.is_tracked() {
        emit::state(sock, time, 0, STATE_OUT_OF_SCOPE);
        socket.verdict = UNDECIDED;
        socket.flags = LATE;
        socket.misses = 0;
    }
    false
}

/// First sight: whether this call is to be reported. Says to user space what became known.
#[inline(always)]
fn decide(
    sock: Sock,
    socket: &mut Socket,
    transport: Transport,
    direction: u8,
    result: i32,
    call_buffers: Buffers,
    time: u64,
) -> bool {
    if result <= 0 {
        return socket.verdict == PROVISIONAL;
    }
    if transport == Transport::Mptcp {
        leave_alone(sock, socket, time, OPEN_MPTCP);
        return false;
    }
    if direction == DIRECTION_SEND {
        if socket.verdict == PROVISIONAL {
            return true;
        }
        return decide_by_write(sock, socket, transport, result, call_buffers, time);
    }
    let (word, length) = peek(call_buffers, result as u32);
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
            leave_alone(sock, socket, time, OPEN_TLS);
            false
        }
        FirstBytes::Http2 => {
            leave_alone(sock, socket, time, OPEN_HTTP2);
            false
        }
        _ if late => {
            // The middle of something: a request line may yet come.
            socket.misses += 1;
            if socket.misses > MISSES_MAX {
                socket.verdict = LEFT_ALONE;
                count(Counter::NotHttp);
            }
            false
        }
        FirstBytes::Undecided => {
            leave_alone(sock, socket, time, OPEN_UNREADABLE);
            false
        }
        _ => {
            let provisional = socket.verdict == PROVISIONAL;
            socket.verdict = LEFT_ALONE;
            count(Counter::NotHttp);
            // What user space was told in good faith is taken back after this read, which it needs to see that.
            provisional
        }
    }
}

/// First sight by a write: a server does not speak first in HTTP.
#[inline(always)]
fn decide_by_write(
    sock: Sock,
    socket: &mut Socket,
    transport: Transport,
    result: i32,
    call_buffers: Buffers,
    time: u64,
) -> bool {
    if !socket.has(LATE) {
        socket.verdict = LEFT_ALONE;
        count(Counter::NotHttp);
        return false;
    }
    if transport == Transport::Unix {
        // Both ends look alike: who writes a request line is the client's.
        let (word, length) = peek(call_buffers, result as u32);
        if length >= 8 && filter::first_bytes(word, length) == FirstBytes::Http1 {
            socket.verdict = LEFT_ALONE;
        }
        return false;
    }
    if !socket.has(MID_REQUEST) && emit::open(sock, socket, time, 0, OPEN_LATE | OPEN_MID_REQUEST) {
        socket.flags |= MID_REQUEST;
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
fn leave_alone(sock: Sock, socket: &mut Socket, time: u64, reason: u16) {
    socket.verdict = LEFT_ALONE;
    let late = if socket.has(LATE) { OPEN_LATE } else { 0 };
    emit::open(sock, socket, time, 0, late | reason);
}

/// Up to 8 first bytes of a call, little endian.
#[inline(always)]
fn peek(call_buffers: Buffers, total: u32) -> (u64, u32) {
    let (base, available) = match call_buffers {
        Buffers::One(base, _) => (base, u64::from(total)),
        Buffers::Many(vector, _) => {
            let mut iovec = [0u64; 2];
            // SAFETY: 16 bytes into 16 bytes.
            if unsafe { bpf_probe_read_user((&raw mut iovec).cast(), 16, vector as *const _) } != 0 {
                return (0, 0);
            }
            (iovec[0], if iovec[1] < u64::from(total) { iovec[1] } else { u64::from(total) })
        }
        Buffers::Unknown => return (0, 0),
    };
    let length = core::hint::black_box(if available < 8 { available } else { 8 });
    if length == 0 || length > 8 {
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
fn report(
    sock: Sock,
    socket: &mut Socket,
    transport: Transport,
    direction: u8,
    result: i32,
    call_buffers: Buffers,
    time: u64,
) {
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
        cookie: sock.cookie(),
        sequence: 0,
        length,
        result: if result < 0 { result } else { 0 },
        unsent: 0,
        direction,
        flags: 0,
    };
    if transport == Transport::Tcp {
        let Some(tcp) = sock.tcp() else { return };
        call.flags = DATA_TCP;
        if send {
            let end = tcp.write_seq();
            call.sequence = end.wrapping_sub(length);
            let unsent = end.wrapping_sub(tcp.snd_nxt());
            call.unsent = if (unsent as i32) < 0 { 0 } else { unsent };
            if length > 0 && call.unsent == 0 {
                call.time = left_at(tcp.clock(time), time);
            }
        } else {
            let end = tcp.copied_seq();
            call.sequence = end.wrapping_sub(length);
            emit::arrivals(socket, call.cookie, time, end);
        }
    } else {
        let counter = if send { &mut socket.sent } else { &mut socket.received };
        call.sequence = *counter;
        *counter = counter.wrapping_add(length);
    }
    emit::data(&call, call_buffers);
}
