//! The life of TCP connections: listening, established, closed; and when their bytes arrive.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, fentry},
    programs::{BtfTracePointContext, FEntryContext},
};
use aya_log_ebpf::{info, warn};
use observer_common::{
    config::{PORT_CANDIDATE, SCOPE_PORTS},
    event::{
        FAMILY_INET, FAMILY_INET6, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_CLOSING, TCP_ESTABLISHED, TCP_FIN_WAIT1,
        TCP_LAST_ACK, TCP_LISTEN, TCP_SYN_RECV, TCP_SYN_SENT,
    },
};

use crate::{
    emit, filter,
    kernel::{Sock, Transport, now},
    maps::{PORTS, config, port_state, scope},
    socket::{self, KNOWN, LEFT_ALONE},
    tcp,
};

/// `void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`, since 4.16.
/// LISTEN and SYN_SENT come in the context of the process that listens or connects, most others do not.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn obs_sock_state(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock::typed(ctx.arg(0));
    let (old_state, new_state): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if sock.transport() != Some(Transport::Tcp) {
        return 0;
    }
    if new_state == i32::from(TCP_LISTEN) {
        listen(&ctx, sock);
    } else if new_state == i32::from(TCP_ESTABLISHED) {
        if old_state == i32::from(TCP_SYN_RECV) {
            established(&ctx, sock);
        } else if old_state == i32::from(TCP_SYN_SENT) {
            connected(sock);
        }
    } else if new_state == i32::from(TCP_SYN_SENT) {
        connecting(sock);
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
    emit::listen(now(), port);
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
    socket.established = now();
    socket.arrived = tcp.rcv_nxt();
    socket.local_port = local_port;
}

/// A client asks for a connection: the last moment at which its process is known for sure, and too early for its port.
#[inline(always)]
fn connecting(sock: Sock) {
    if port_state(u32::from(sock.remote_port())) != PORT_CANDIDATE || filter::is_own_process() {
        return;
    }
    socket::set_client(sock, (bpf_get_current_pid_tgid() >> 32) as u32);
}

/// Tells who the client of a candidate's new connection is, before the server can read a byte from it.
#[inline(always)]
fn connected(sock: Sock) {
    if port_state(u32::from(sock.remote_port())) != PORT_CANDIDATE {
        return;
    }
    if let Some(tgid) = socket::take_client(sock) {
        emit::connect(sock, now(), tgid);
    }
}

#[inline(always)]
fn changed(sock: Sock, old_state: i32, new_state: i32) {
    let Some(socket) = socket::get(sock) else { return };
    let new_state = new_state as u8;
    if !matches!(new_state, TCP_CLOSE_WAIT | TCP_CLOSE | TCP_FIN_WAIT1 | TCP_LAST_ACK | TCP_CLOSING) {
        return;
    }
    if new_state == TCP_CLOSE {
        tcp::closed(sock, socket);
    }
    let time = now();
    if matches!(new_state, TCP_CLOSE_WAIT | TCP_CLOSING) && socket.fin_time == 0 {
        socket.fin_time = time;
    }
    if socket.is_tracked() || socket.has(KNOWN) {
        emit::state(sock, socket.cookie, time, old_state as u8, new_state, sock.error());
    } else if socket.verdict != LEFT_ALONE {
        // Its first read may be still to come: a client that gave up while it waited to be accepted.
        if new_state == TCP_CLOSE_WAIT {
            socket.fin_pending = 1;
        } else if new_state == TCP_CLOSE {
            socket.end_error = sock.error();
            socket.end_time = time;
        }
    }
}

/// `void sk_data_ready(const struct sock *sk)`, since 6.2. Bytes were queued; the socket's lock is held.
#[btf_tracepoint(function = "sk_data_ready")]
pub fn obs_data_ready(ctx: BtfTracePointContext) -> i32 {
    data_ready(Sock::typed(ctx.arg(0)));
    0
}

/// `void sock_def_readable(struct sock *sk)`: what `sk_data_ready` lies in, where there is such a tracepoint.
#[fentry(function = "sock_def_readable")]
pub fn obs_readable(ctx: FEntryContext) -> i32 {
    data_ready(Sock::typed(ctx.arg(0)));
    0
}

#[inline(always)]
fn data_ready(sock: Sock) {
    let family = sock.family();
    if family != FAMILY_INET && family != FAMILY_INET6 {
        return;
    }
    let Some(socket) = socket::get(sock) else { return };
    if socket.verdict == LEFT_ALONE {
        return;
    }
    let Some(tcp) = sock.tcp() else { return };
    // TCP's clock is of the packet that it is about.
    socket.arrive(tcp.rcv_nxt(), tcp.clock(now()));
}
