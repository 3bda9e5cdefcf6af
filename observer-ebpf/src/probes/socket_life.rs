//! The life of TCP connections: listening, established, closed; and when their bytes arrive.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::{info, warn};
use observer_common::{
    config::{PORT_CANDIDATE, SCOPE_PORTS},
    event::{
        FAMILY_INET, FAMILY_INET6, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_CLOSING, TCP_ESTABLISHED, TCP_FIN_WAIT1,
        TCP_LAST_ACK, TCP_LISTEN,
    },
};

use crate::{
    emit, filter,
    kernel::{Sock, Transport},
    maps::{PORTS, config, port_state, scope},
    socket::{self, ANNOUNCED, LEFT_ALONE, MID_REQUEST},
};

const TCP_SYN_RECV: i32 = 3;

/// `void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`, since 4.16.
/// LISTEN comes in the listening process's context, most others do not.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn obs_sock_state(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock(ctx.arg(0));
    let (old_state, new_state): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if sock.transport() != Some(Transport::Tcp) {
        return 0;
    }
    if new_state == i32::from(TCP_LISTEN) {
        listen(&ctx, sock);
    } else if new_state == i32::from(TCP_ESTABLISHED) {
        if old_state == TCP_SYN_RECV {
            established(&ctx, sock);
        }
    } else {
        changed(sock, old_state, new_state);
    }
    0
}

#[inline(always)]
fn listen(ctx: &BtfTracePointContext, sock: Sock) {
    let Some(scope) = scope() else { return };
    if scope.flags & SCOPE_PORTS != 0 || filter::is_own_process() || !filter::process_in_scope(scope) {
        return;
    }
    let port = sock.local_port();
    if port == 0 {
        return;
    }
    if let Some(slot) = PORTS.get_ptr_mut(u32::from(port)) {
        // SAFETY: a map value.
        unsafe { *slot = PORT_CANDIDATE };
    }
    emit::listen(unsafe { bpf_ktime_get_ns() }, port);
    if config!(log) != 0 {
        info!(ctx, "port {} is listened on, its connections are looked at", port);
    }
}

/// Prepares a server's new connection before any byte of it arrives, so that its first request has its arrival too.
#[inline(always)]
fn established(ctx: &BtfTracePointContext, sock: Sock) {
    let local_port = u32::from(sock.local_port());
    if port_state(local_port) != PORT_CANDIDATE {
        return;
    }
    let Some(tcp) = sock.tcp() else { return };
    let Some(socket) = socket::get_or_create(sock) else {
        if config!(log) != 0 {
            warn!(ctx, "no memory for the state of a connection to port {}", sock.local_port());
        }
        return;
    };
    socket.established = unsafe { bpf_ktime_get_ns() };
    socket.arrived = tcp.rcv_nxt();
    socket.local_port = local_port;
}

#[inline(always)]
fn changed(sock: Sock, old_state: i32, new_state: i32) {
    let Some(socket) = socket::get(sock) else { return };
    // Whatever user space was told of, tracked by now or not: it would keep it for ever.
    if !socket.has(ANNOUNCED | MID_REQUEST) {
        return;
    }
    let new_state = new_state as u8;
    if matches!(new_state, TCP_CLOSE_WAIT | TCP_CLOSE | TCP_FIN_WAIT1 | TCP_LAST_ACK | TCP_CLOSING) {
        emit::state(sock, unsafe { bpf_ktime_get_ns() }, old_state as u8, new_state);
    }
}

/// `void sk_data_ready(const struct sock *sk)`, since 6.2. Bytes were queued; the socket's lock is held.
#[btf_tracepoint(function = "sk_data_ready")]
pub fn obs_data_ready(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock(ctx.arg(0));
    let family = sock.family();
    if family != FAMILY_INET && family != FAMILY_INET6 {
        return 0;
    }
    let Some(socket) = socket::get(sock) else { return 0 };
    if socket.verdict == LEFT_ALONE {
        return 0;
    }
    let Some(tcp) = sock.tcp() else { return 0 };
    // TCP's clock is of the packet that it is about.
    socket.arrive(tcp.rcv_nxt(), tcp.clock(unsafe { bpf_ktime_get_ns() }));
    0
}
