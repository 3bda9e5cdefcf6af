//! Fields of kernel structures, at offsets that the loader took from the kernel's BTF.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::{
    bpf_ktime_get_ns,
    generated::{bpf_get_socket_cookie, bpf_probe_read_kernel, bpf_skc_to_tcp_sock},
};
use observer_common::event::{FAMILY_INET, FAMILY_INET6, FAMILY_UNIX};

use crate::maps::{config, host};

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
pub unsafe fn field<T: Copy>(pointer: *const u8, offset: u32) -> T {
    // SAFETY: the caller gives a trusted pointer and an offset from the kernel's own BTF; the verifier checks both.
    unsafe { core::ptr::read_volatile(pointer.add(offset as usize).cast()) }
}

/// Reads kernel memory that may be gone.
#[inline(always)]
pub unsafe fn peek<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: as many bytes as the value has; the helper says if it cannot. The caller names a type of any bits.
    let failed = unsafe {
        bpf_probe_read_kernel((&raw mut value).cast::<c_void>(), size_of::<T>() as u32, address as *const c_void)
    };
    (failed == 0).then_some(value)
}

/// Reads kernel memory that may be gone: then zeros, which the helper leaves in place of what it could not read. No branch,
/// or the verifier would follow each of them both ways.
#[inline(always)]
unsafe fn peek_or_zero<T: Copy>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: as many bytes as the value has, all of which the helper writes. The caller names a type of any bits.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast::<c_void>(), size_of::<T>() as u32, address as *const c_void);
        value.assume_init()
    }
}

/// A structure of the kernel.
#[derive(Clone, Copy)]
struct Structure {
    pointer: *const u8,
    /// The verifier knows its type. Else its address comes from where there are none, and each read may fail. Always a
    /// constant where it is asked for.
    typed: bool,
}

impl Structure {
    /// A member; 0 where it cannot be read.
    #[inline(always)]
    unsafe fn field<T: Copy>(self, offset: u32) -> T {
        // SAFETY: the caller's, as for `field` and `peek`.
        unsafe {
            if self.typed { field(self.pointer, offset) } else { peek_or_zero(self.pointer as u64 + u64::from(offset)) }
        }
    }
}

/// What carries a socket's bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Transport {
    Tcp,
    Mptcp,
    Unix,
}

/// An address: network order, IPv4 in the first word. No array, which would be copied by calls.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Address(u32, u32, u32, u32);

impl Address {
    /// # Safety
    /// Room for four words, at a multiple of 4.
    #[inline(always)]
    pub unsafe fn write(self, to: *mut u32) {
        // SAFETY: the caller's.
        unsafe {
            to.write(self.0);
            to.add(1).write(self.1);
            to.add(2).write(self.2);
            to.add(3).write(self.3);
        }
    }
}

/// A `struct sock`.
#[derive(Clone, Copy)]
pub struct Sock {
    structure: Structure,
    /// Address of its inode, where its type is not known.
    inode: u64,
}

impl Sock {
    /// One that the verifier knows by type.
    #[inline(always)]
    pub fn typed(pointer: *const u8) -> Self {
        Self { structure: Structure { pointer, typed: true }, inode: 0 }
    }

    /// One that belongs to an open file, by address. No helper takes it.
    #[inline(always)]
    pub fn at(address: u64, inode: u64) -> Self {
        Self { structure: Structure { pointer: address as *const u8, typed: false }, inode }
    }

    #[inline(always)]
    pub fn is_typed(self) -> bool {
        self.structure.typed
    }

    /// Its address; 0, where the verifier keeps that for itself.
    #[inline(always)]
    pub fn address(self) -> u64 {
        if self.is_typed() { 0 } else { self.structure.pointer as u64 }
    }

    /// Address of its inode; 0, where its type is known.
    #[inline(always)]
    pub fn inode(self) -> u64 {
        self.inode
    }

    #[inline(always)]
    pub fn as_ptr(self) -> *mut c_void {
        self.structure.pointer.cast_mut().cast()
    }

    #[inline(always)]
    unsafe fn field<T: Copy>(self, offset: u32) -> T {
        // SAFETY: the caller's.
        unsafe { self.structure.field(offset) }
    }

    #[inline(always)]
    pub fn family(self) -> u16 {
        // SAFETY: see `field`.
        unsafe { self.field(config!(sock_family)) }
    }

    /// `None`: not a byte stream of ours.
    #[inline(always)]
    pub fn transport(self) -> Option<Transport> {
        let family = self.family();
        // SAFETY: see `field`; both fields are 16 bits wide since 5.6.
        let (kind, protocol): (u16, u16) =
            unsafe { (self.field(config!(sock_type)), self.field(config!(sock_protocol))) };
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
        if !self.is_typed() {
            return true;
        }
        // SAFETY: see `field`; pointers read from a trusted structure may be followed after a null check.
        unsafe {
            let socket: *const u8 = field(self.structure.pointer, config!(sock_socket));
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
        unsafe { self.field(config!(sock_local_port)) }
    }

    #[inline(always)]
    pub fn remote_port(self) -> u16 {
        // SAFETY: see `field`.
        u16::from_be(unsafe { self.field(config!(sock_remote_port)) })
    }

    /// Local and remote address.
    #[inline(always)]
    pub fn addresses(self) -> (Address, Address) {
        // SAFETY: see `field`.
        unsafe {
            if self.family() == FAMILY_INET {
                let one = |offset| Address(self.field(offset), 0, 0, 0);
                return (one(config!(sock_local_v4)), one(config!(sock_remote_v4)));
            }
            let one = |offset| {
                Address(self.field(offset), self.field(offset + 4), self.field(offset + 8), self.field(offset + 12))
            };
            (one(config!(sock_local_v6)), one(config!(sock_remote_v6)))
        }
    }

    /// `TCP_*`.
    #[inline(always)]
    pub fn state(self) -> u8 {
        // SAFETY: see `field`.
        unsafe { self.field(host!(sock_state)) }
    }

    /// Of a listening socket: connections that it dropped, modulo 2^32.
    #[inline(always)]
    pub fn drops(self) -> u32 {
        // SAFETY: see `field`.
        unsafe { self.field(host!(sock_drops)) }
    }

    #[inline(always)]
    pub fn error(self) -> i32 {
        // SAFETY: see `field`.
        unsafe { self.field(config!(sock_error)) }
    }

    /// Its cookie, made if it has none.
    #[inline(always)]
    pub fn cookie(self) -> u64 {
        // SAFETY: a trusted socket, as the helper demands.
        unsafe { bpf_get_socket_cookie(self.as_ptr()) }
    }

    /// Its cookie; 0: nobody has asked for one.
    #[inline(always)]
    pub fn known_cookie(self) -> u64 {
        // SAFETY: see `field`.
        unsafe { self.field(config!(sock_cookie)) }
    }

    /// Number of its inode, which no other socket has while that is open, and few have later. Of sockets by address.
    #[inline(always)]
    pub fn inode_number(self) -> u64 {
        // SAFETY: a read that may fail.
        unsafe { peek(self.inode + u64::from(config!(inode_number))) }.unwrap_or(0)
    }

    /// The TCP view of it; `None` if it is none.
    #[inline(always)]
    pub fn tcp(self) -> Option<Tcp> {
        if !self.is_typed() {
            // Of byte streams, the only ones that are looked at, none else has this protocol.
            // SAFETY: see `field`.
            let protocol: u16 = unsafe { self.field(config!(sock_protocol)) };
            return (protocol == IPPROTO_TCP).then_some(Tcp(self.structure));
        }
        // SAFETY: a trusted socket, as the helper demands.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.as_ptr()) }.cast::<u8>();
        if tcp.is_null() { None } else { Some(Tcp::typed(tcp)) }
    }
}

/// A `struct tcp_sock`.
#[derive(Clone, Copy)]
pub struct Tcp(Structure);

impl Tcp {
    /// One that the verifier knows by type.
    #[inline(always)]
    pub fn typed(pointer: *const u8) -> Self {
        Self(Structure { pointer, typed: true })
    }

    #[inline(always)]
    pub fn write_seq(self) -> u32 {
        // SAFETY: see `field`.
        unsafe { self.0.field(config!(tcp_write_seq)) }
    }

    #[inline(always)]
    pub fn snd_nxt(self) -> u32 {
        // SAFETY: see `field`.
        unsafe { self.0.field(config!(tcp_snd_nxt)) }
    }

    #[inline(always)]
    pub fn copied_seq(self) -> u32 {
        // SAFETY: see `field`.
        unsafe { self.0.field(config!(tcp_copied_seq)) }
    }

    #[inline(always)]
    pub fn rcv_nxt(self) -> u32 {
        // SAFETY: see `field`.
        unsafe { self.0.field(config!(tcp_rcv_nxt)) }
    }

    /// As a `struct sock`, which it begins with.
    #[inline(always)]
    pub fn sock(self) -> Sock {
        Sock { structure: self.0, inode: 0 }
    }

    /// Smoothed round-trip time, in microseconds; 0: not measured yet.
    #[inline(always)]
    pub fn rtt(self) -> u32 {
        // SAFETY: see `field`. The kernel keeps eighths.
        unsafe { self.0.field::<u32>(host!(tcp_srtt)) >> 3 }
    }

    /// Bytes that the peer has room for, past what it has acknowledged.
    #[inline(always)]
    pub fn send_window(self) -> u32 {
        // SAFETY: see `field`.
        unsafe { self.0.field(host!(tcp_send_window)) }
    }

    /// Segments sent again, modulo 2^32.
    #[inline(always)]
    pub fn retransmits(self) -> u32 {
        // SAFETY: see `field`.
        unsafe { self.0.field(host!(tcp_retransmits)) }
    }

    /// Whether a protocol of the kernel's own lies upon it: of a connection that began with TLS, kTLS.
    #[inline(always)]
    pub fn has_upper_protocol(self) -> bool {
        let offset = config!(tcp_ulp);
        if offset == 0 {
            return false;
        }
        // SAFETY: see `field`.
        let operations: *const u8 = unsafe { self.0.field(offset) };
        !operations.is_null()
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
        let time: u64 = unsafe { self.0.field(offset) };
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
