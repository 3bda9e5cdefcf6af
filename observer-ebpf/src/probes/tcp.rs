//! Segments that are sent again; and all TCP sockets of a network namespace, when user space asks.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_seq_write, bpf_skc_to_tcp_sock},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use observer_common::{
    config::PORT_CANDIDATE,
    event::{TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_LISTEN},
    host::{LISTENING, SeenSocket, TCP_ASKED, TCP_RETRANSMIT},
};

use crate::{
    kernel::{Sock, Tcp},
    maps::{config, port_state},
    socket, tcp,
};

/// `void tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb, …)`, since 4.15. The socket's lock is held,
/// and its count is up to date.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn obs_retransmit(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock::typed(ctx.arg(0));
    if let Some(socket) = socket::get(sock)
        && socket.is_tracked()
        && let Some(tcp) = sock.tcp()
    {
        tcp::count(socket, tcp, TCP_RETRANSMIT);
    }
    0
}

/// `struct bpf_iter_meta`.
#[repr(C)]
struct Meta {
    seq: *mut c_void,
    session: u64,
    number: u64,
}

/// `struct bpf_iter__tcp`.
#[repr(C)]
pub struct IterTcp {
    meta: *const Meta,
    sock: *mut c_void,
}

/// `int bpf_iter_tcp(struct bpf_iter_meta *meta, struct sock_common *sk_common, uid_t uid)`, since 5.9: each TCP socket
/// of a network namespace, its lock held since 6.5. Nothing is written of most.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub extern "C" fn obs_tcp_sockets(ctx: *const IterTcp) -> i32 {
    // SAFETY: the context of this kind of program.
    let (meta, any) = unsafe { ((*ctx).meta, (*ctx).sock) };
    if any.is_null() {
        return 0;
    }
    // SAFETY: a trusted socket of any kind, as the helper demands: what waits for its handshake, or for its time to be
    // over, is none of TCP's here.
    let tcp = unsafe { bpf_skc_to_tcp_sock(any) }.cast::<u8>();
    if tcp.is_null() {
        return 0;
    }
    let (tcp, sock) = (Tcp::typed(tcp), Sock::typed(any.cast()));
    if let Some(seen) = look(tcp, sock) {
        // SAFETY: a trusted file, and all bytes of a value without padding.
        unsafe {
            bpf_seq_write((*meta).seq.cast(), (&raw const seen).cast_mut().cast(), size_of::<SeenSocket>() as u32)
        };
    }
    0
}

#[inline(always)]
fn look(tcp: Tcp, sock: Sock) -> Option<SeenSocket> {
    let state = tcp.sock().state();
    if state == TCP_LISTEN {
        let port = u32::from(tcp.sock().local_port());
        let drops = tcp.sock().drops();
        let told = drops != 0 && port_state(port) == PORT_CANDIDATE;
        return told.then(|| SeenSocket { cookie: sock.cookie(), slot: LISTENING, port, value: drops, padding: 0 });
    }
    if config!(sockets_by_cookie) != 0 && port_state(u32::from(tcp.sock().local_port())) == PORT_CANDIDATE {
        // So that other probes, too, know a connection by it that was there before them.
        let _cookie = sock.cookie();
    }
    let socket = socket::get(sock)?;
    if !socket.is_tracked() {
        return None;
    }
    let slot = tcp::count_all(socket, tcp, TCP_ASKED)?;
    let unsent = tcp.write_seq().wrapping_sub(tcp.snd_nxt());
    let open = state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT;
    if !open || unsent as i32 <= 0 {
        return None;
    }
    Some(SeenSocket { cookie: sock.cookie(), slot, port: socket.local_port, value: unsent, padding: 0 })
}
