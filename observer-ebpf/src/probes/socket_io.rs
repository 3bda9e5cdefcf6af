//! Reads and writes of sockets: the hooks that see them, of which one kind is in place. All lead to `call`.

use core::arch::asm;

use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, fexit},
    programs::{BtfTracePointContext, FExitContext},
};
use observer_common::event::{DIRECTION_RECEIVE, DIRECTION_SEND};

use crate::{
    call::{is_told, moved},
    filter, io,
    kernel::{Sock, field, peek},
    maps::config,
    registers::{Registers, buffers, socket_call},
};

/// `void sock_send_length(struct sock *sk, int ret, int flags)`, since 6.3.
#[btf_tracepoint(function = "sock_send_length")]
pub fn obs_sock_send(ctx: BtfTracePointContext) -> i32 {
    sent(Sock::typed(ctx.arg(0)), ctx.arg(1));
    0
}

/// `void sock_recv_length(struct sock *sk, int ret, int flags)`, since 6.3.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn obs_sock_recv(ctx: BtfTracePointContext) -> i32 {
    received(Sock::typed(ctx.arg(0)), ctx.arg(1), ctx.arg(2));
    0
}

/// `int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)`.
#[fexit(function = "tcp_sendmsg")]
pub fn obs_tcp_send(ctx: FExitContext) -> i32 {
    sent(Sock::typed(ctx.arg(0)), ctx.arg(3));
    0
}

/// Arguments of a function that receives, by their numbers of this kernel: what comes after them is what it returned. Each
/// place is read by an instruction of its own, since the compiler would compute one address for all of them, which the
/// verifier refuses.
macro_rules! argument {
    ($ctx:expr, $number:literal) => {{
        let value: u64;
        // SAFETY: the verifier checks that the function has as many.
        unsafe {
            asm!("{value} = *(u64 *)({ctx} + {at})", value = out(reg) value, ctx = in(reg) $ctx.as_ptr(), at = const 8 * $number)
        };
        value as i32
    }};
}

/// `flags` and the result of a protocol's `int recvmsg(struct sock *sk, struct msghdr *msg, size_t len, [int nonblock,]
/// int flags[, int *addr_len])`; `nonblock` until 5.18.
#[inline(always)]
fn recvmsg_result(ctx: &FExitContext) -> (i32, i32) {
    match config!(tcp_recvmsg_arguments) {
        4 => (argument!(ctx, 3), argument!(ctx, 4)),
        5 => (argument!(ctx, 3), argument!(ctx, 5)),
        _ => (argument!(ctx, 4), argument!(ctx, 6)),
    }
}

/// See [`recvmsg_result`].
#[fexit(function = "tcp_recvmsg")]
pub fn obs_tcp_recv(ctx: FExitContext) -> i32 {
    let (flags, result) = recvmsg_result(&ctx);
    received(Sock::typed(ctx.arg(0)), result, flags);
    0
}

/// See [`recvmsg_result`]. What such a socket is, its first read tells.
#[fexit(function = "mptcp_recvmsg")]
pub fn obs_mptcp_recv(ctx: FExitContext) -> i32 {
    let (flags, result) = recvmsg_result(&ctx);
    received(Sock::typed(ctx.arg(0)), result, flags);
    0
}

/// `int unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)`.
#[fexit(function = "unix_stream_sendmsg")]
pub fn obs_unix_send(ctx: FExitContext) -> i32 {
    if let Some(sock) = sock_of(ctx.arg(0)) {
        sent(sock, ctx.arg(3));
    }
    0
}

/// `int unix_stream_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags)`.
#[fexit(function = "unix_stream_recvmsg")]
pub fn obs_unix_recv(ctx: FExitContext) -> i32 {
    if let Some(sock) = sock_of(ctx.arg(0)) {
        received(sock, ctx.arg(4), ctx.arg(3));
    }
    0
}

/// The `struct sock` of a trusted `struct socket`.
#[inline(always)]
fn sock_of(socket: *const u8) -> Option<Sock> {
    // SAFETY: see `field`; pointers read from a trusted structure may be followed after a null check.
    let sock: *const u8 = unsafe { field(socket, config!(socket_sock)) };
    if sock.is_null() { None } else { Some(Sock::typed(sock)) }
}

/// `void sys_exit(struct pt_regs *regs, long ret)`: every system call of the host comes by. The socket is found by the
/// descriptor, which another thread may have given to another one meanwhile.
#[btf_tracepoint(function = "sys_exit")]
pub fn obs_sock_exit(ctx: BtfTracePointContext) -> i32 {
    let registers = Registers(ctx.arg(0));
    let Some(direction) = socket_call(registers.number()) else { return 0 };
    let result: i32 = ctx.arg(1);
    if !is_told(result, direction) || !registers.is_64_bit() || filter::is_own_process() {
        return 0;
    }
    if let Some(sock) = sock_at(registers.argument(0) as u32) {
        moved(sock, result, registers.message_flags(), direction, || registers.buffers(direction));
    }
    0
}

/// The socket behind a descriptor of the current process.
#[inline(always)]
fn sock_at(descriptor: u32) -> Option<Sock> {
    let file = io::open_file(descriptor)?;
    let inode = io::inode_of(file)?;
    if !io::is_socket(inode) {
        return None;
    }
    // SAFETY: reads that may fail.
    unsafe {
        let socket: u64 = peek(file + u64::from(config!(file_private)))?;
        let sock: u64 = peek(socket + u64::from(config!(socket_sock)))?;
        (sock != 0).then(|| Sock::at(sock, inode))
    }
}

#[inline(always)]
fn sent(sock: Sock, result: i32) {
    moved(sock, result, 0, DIRECTION_SEND, || buffers(DIRECTION_SEND));
}

#[inline(always)]
fn received(sock: Sock, result: i32, flags: i32) {
    moved(sock, result, flags, DIRECTION_RECEIVE, || buffers(DIRECTION_RECEIVE));
}
