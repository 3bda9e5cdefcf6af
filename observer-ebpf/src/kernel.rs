//! Fields of kernel structures, at offsets that the loader took from the kernel's BTF.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_ktime_get_ns,
    generated::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock},
};
use observer_common::event::{FAMILY_INET, FAMILY_INET6, FAMILY_UNIX};

use crate::maps::config;

const SOCK_STREAM: u16 = 1;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;

/// Now, `CLOCK_MONOTONIC` nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Reads a `T` at `offset` of a structure that the verifier knows by type.
#[inline(always)]
unsafe fn field<T: Copy>(pointer: *const u8, offset: u32) -> T {
    // SAFETY: the caller gives a trusted pointer and an offset from the kernel's own BTF; the verifier checks both.
    unsafe { core::ptr::read_volatile(pointer.add(offset as usize).cast()) }
}

/// What carries a socket's bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Mptcp,
    Unix,
}

/// A `struct sock` that the verifier trusts.
#[derive(Clone, Copy)]
pub struct Sock(pub *const u8);

impl Sock {
    #[inline(always)]
    pub fn as_ptr(self) -> *mut c_void {
        self.0.cast_mut().cast()
    }

    #[inline(always)]
    pub fn family(self) -> u16 {
        // SAFETY: see `field`.
        unsafe { field(self.0, config!(sock_family)) }
    }

    /// `None`: not a byte stream of ours.
    #[inline(always)]
    pub fn transport(self) -> Option<Transport> {
        let family = self.family();
        // SAFETY: see `field`; both fields are 16 bits wide since 5.6.
        let (kind, protocol): (u16, u16) =
            unsafe { (field(self.0, config!(sock_type)), field(self.0, config!(sock_protocol))) };
        if kind != SOCK_STREAM {
            return None;
        }
        if family == FAMILY_INET || family == FAMILY_INET6 {
            return match protocol {
                IPPROTO_TCP => Some(Transport::Tcp),
                IPPROTO_MPTCP => Some(Transport::Mptcp),
                _ => None,
            };
        }
        if family == FAMILY_UNIX { Some(Transport::Unix) } else { None }
    }

    /// Sockets that the kernel made for itself have no file.
    #[inline(always)]
    pub fn has_file(self) -> bool {
        // SAFETY: see `field`; pointers read from a trusted structure may be followed after a null check.
        unsafe {
            let socket: *const u8 = field(self.0, config!(sock_socket));
            if socket.is_null() {
                return false;
            }
            let file: *const u8 = field(socket, config!(socket_file));
            !file.is_null()
        }
    }

    #[inline(always)]
    pub fn local_port(self) -> u16 {
        // SAFETY: see `field`.
        unsafe { field(self.0, config!(sock_local_port)) }
    }

    #[inline(always)]
    pub fn remote_port(self) -> u16 {
        // SAFETY: see `field`.
        u16::from_be(unsafe { field(self.0, config!(sock_remote_port)) })
    }

    /// Local and remote address, network order, IPv4 in the first four bytes.
    #[inline(always)]
    pub fn addresses(self) -> ([u32; 4], [u32; 4]) {
        // SAFETY: see `field`.
        unsafe {
            if self.family() == FAMILY_INET {
                let local: u32 = field(self.0, config!(sock_local_v4));
                let remote: u32 = field(self.0, config!(sock_remote_v4));
                return ([local, 0, 0, 0], [remote, 0, 0, 0]);
            }
            let local = config!(sock_local_v6);
            let remote = config!(sock_remote_v6);
            (
                [field(self.0, local), field(self.0, local + 4), field(self.0, local + 8), field(self.0, local + 12)],
                [
                    field(self.0, remote),
                    field(self.0, remote + 4),
                    field(self.0, remote + 8),
                    field(self.0, remote + 12),
                ],
            )
        }
    }

    #[inline(always)]
    pub fn error(self) -> i32 {
        // SAFETY: see `field`.
        unsafe { field(self.0, config!(sock_error)) }
    }

    #[inline(always)]
    pub fn cookie(self) -> u64 {
        // SAFETY: a trusted socket, as the helper demands.
        unsafe { bpf_get_socket_cookie(self.as_ptr()) }
    }

    /// The TCP view of it; `None` if it is none.
    #[inline(always)]
    pub fn tcp(self) -> Option<Tcp> {
        // SAFETY: a trusted socket, as the helper demands.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.as_ptr()) }.cast::<u8>();
        if tcp.is_null() { None } else { Some(Tcp(tcp)) }
    }
}

/// A `struct tcp_sock` that the verifier trusts.
#[derive(Clone, Copy)]
pub struct Tcp(*const u8);

impl Tcp {
    #[inline(always)]
    pub fn write_seq(self) -> u32 {
        // SAFETY: see `field`.
        unsafe { field(self.0, config!(tcp_write_seq)) }
    }

    #[inline(always)]
    pub fn snd_nxt(self) -> u32 {
        // SAFETY: see `field`.
        unsafe { field(self.0, config!(tcp_snd_nxt)) }
    }

    #[inline(always)]
    pub fn copied_seq(self) -> u32 {
        // SAFETY: see `field`.
        unsafe { field(self.0, config!(tcp_copied_seq)) }
    }

    #[inline(always)]
    pub fn rcv_nxt(self) -> u32 {
        // SAFETY: see `field`.
        unsafe { field(self.0, config!(tcp_rcv_nxt)) }
    }

    /// When TCP last sent or began to receive a packet of this connection: `tcp_clock_cache`, on the same clock as
    /// `now`, which it is no later than. `now`, where this kernel has no such field.
    #[inline(always)]
    pub fn clock(self, now: u64) -> u64 {
        let offset = config!(tcp_clock);
        if offset == 0 {
            return now;
        }
        // SAFETY: see `field`.
        let time: u64 = unsafe { field(self.0, offset) };
        if time == 0 || time > now { now } else { time }
    }
}

/// Thread group id and thread id of a `struct task_struct` that the verifier trusts.
#[inline(always)]
pub unsafe fn task_ids(task: *const u8) -> (u32, u32) {
    // SAFETY: see `field`.
    unsafe { (field(task, config!(task_tgid)), field(task, config!(task_pid))) }
}

/// Threads of a task's process that have not begun to exit.
#[inline(always)]
pub unsafe fn live_threads(task: *const u8) -> u32 {
    // SAFETY: see `field`; pointers read from a trusted structure may be followed after a null check.
    unsafe {
        let signal: *const u8 = field(task, config!(task_signal));
        if signal.is_null() { 0 } else { field(signal, config!(signal_live)) }
    }
}
