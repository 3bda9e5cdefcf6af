//! What is kept with each candidate connection.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE},
    helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get},
};
use observer_common::{event::Arrival, limits::ARRIVALS, loss::Counter};

use crate::{
    kernel::{Sock, Tcp},
    maps::{CLIENTS, NEW_SOCKET, SOCKETS, SOCKETS_BY_COOKIE, config, count},
};

/// Not decided yet. All zeros, as new storage is.
pub const UNDECIDED: u32 = 0;
/// HTTP/1 as far as its first bytes tell: every call is an event.
pub const TRACKED: u32 = 1;
/// So few bytes that HTTP/1 is possible and not sure: every call is an event, and the next read decides.
pub const PROVISIONAL: u32 = 2;
/// Something else, or opaque: never looked at again.
pub const LEFT_ALONE: u32 = 3;

/// [`Socket::flags`]: its establishment was not seen.
pub const LATE: u32 = 1;
/// [`Socket::flags`]: user space knows of it.
pub const ANNOUNCED: u32 = 2;
/// [`Socket::flags`]: the last write failed for lack of room.
pub const BLOCKED: u32 = 4;
/// [`Socket::flags`]: it was said that a request was under way when it was first seen.
pub const MID_REQUEST: u32 = 8;
/// Either: user space keeps something for it, and wants to hear of its end.
pub const KNOWN: u32 = ANNOUNCED | MID_REQUEST;

/// [`Socket::cookie`]: the rest is the number of the socket's inode, since it had no cookie.
const COOKIE_OF_INODE: u64 = 1 << 63;

/// State of one connection.
#[repr(C)]
pub struct Socket {
    /// What user space knows it by: the socket's cookie, or the like.
    pub cookie: u64,
    pub verdict: u32,
    pub flags: u32,
    /// Generation of the scope for which `in_scope` holds; 0: never judged.
    pub generation: u32,
    pub in_scope: u32,
    /// First bytes of the request while PROVISIONAL, little endian, `prefix_length` of them.
    pub prefix: u64,
    pub prefix_length: u32,
    /// Reads that did not begin like HTTP/1, on a connection joined late.
    pub misses: u32,
    pub established: u64,
    /// While UNDECIDED or LEFT_ALONE: what it carries, one of `content`.
    pub content: u32,
    pub padding: u32,
    /// Bytes received and sent since it became known; used where there are no sequence numbers.
    pub received: u32,
    pub sent: u32,
    /// Up to where arrivals are stamped.
    pub arrived: u32,
    /// Next stamp to write. Only the kernel's receive path, under the socket's lock, moves it.
    pub arrivals_head: u32,
    /// Next stamp to report. Only readers move it.
    pub arrivals_tail: u32,
    /// The server's port; the socket itself forgets it when it is reset. 0 for AF_UNIX.
    pub local_port: u32,
    pub arrivals: [Arrival; ARRIVALS],
    /// When the client's FIN came; 0: it did not. Only changes of state write this and the next three.
    pub fin_time: u64,
    /// 1: `fin_time` is still to be reported, since user space did not know of the connection then.
    pub fin_pending: u32,
    /// `sk_err` at `end_time`.
    pub end_error: i32,
    /// When it closed before user space knew of it, which is still to be reported; 0: it did not.
    pub end_time: u64,
    /// When its round-trip time was last looked at. Writers of the server write this and the next one.
    pub looked: u64,
    /// Thread group id of who writes to it.
    pub writer: u32,
    /// 1: the client's window was closed at the last look.
    pub window_closed: u32,
    /// Times that it was found closed and that are not counted yet.
    pub zero_windows: u32,
    /// Segments sent again that are counted. Only who holds the socket's lock writes this.
    pub retransmits: u32,
}

/// The state of `sock`, if it has one.
#[inline(always)]
pub fn get(sock: Sock) -> Option<&'static mut Socket> {
    if is_by_cookie(sock) { by_cookie(sock) } else { storage(sock, 0) }
}

/// The state of `sock`, made if there is none.
#[inline(always)]
pub fn get_or_create(sock: Sock) -> Option<&'static mut Socket> {
    let socket = if is_by_cookie(sock) {
        by_cookie(sock).or_else(|| create_by_cookie(sock))
    } else {
        let mut socket = storage(sock, u64::from(BPF_SK_STORAGE_GET_F_CREATE));
        if let Some(socket) = &mut socket
            && socket.cookie == 0
        {
            socket.cookie = sock.cookie();
        }
        socket
    };
    if socket.is_none() {
        count(Counter::StateStorage);
    }
    socket
}

/// Whether state is kept by cookie: where one program knows sockets by address only, the others have to follow it.
#[inline(always)]
fn is_by_cookie(sock: Sock) -> bool {
    !sock.is_typed() || config!(sockets_by_cookie) != 0
}

/// What the kernel keeps with the socket.
#[inline(always)]
fn storage(sock: Sock, flags: u64) -> Option<&'static mut Socket> {
    // SAFETY: the helper returns null or a value that lives as long as this program runs.
    unsafe {
        bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), sock.as_ptr(), ptr::null_mut(), flags)
            .cast::<Socket>()
            .as_mut()
    }
}

/// A socket that somebody else gives a cookie later stays known by its inode.
#[inline(always)]
fn by_cookie(sock: Sock) -> Option<&'static mut Socket> {
    let cookie = sock.known_cookie();
    if cookie != 0
        && let Some(socket) = kept(cookie)
    {
        return Some(socket);
    }
    if sock.is_typed() { None } else { kept(sock.inode_number() | COOKIE_OF_INODE) }
}

#[inline(always)]
fn create_by_cookie(sock: Sock) -> Option<&'static mut Socket> {
    let cookie = match sock.known_cookie() {
        0 if sock.is_typed() => sock.cookie(),
        0 => sock.inode_number() | COOKIE_OF_INODE,
        cookie => cookie,
    };
    SOCKETS_BY_COOKIE.insert(cookie, NEW_SOCKET.get(0)?, u64::from(BPF_NOEXIST)).ok()?;
    let socket = kept(cookie)?;
    socket.cookie = cookie;
    Some(socket)
}

#[inline(always)]
fn kept(cookie: u64) -> Option<&'static mut Socket> {
    // SAFETY: a map value.
    SOCKETS_BY_COOKIE.get_ptr_mut(cookie).map(|socket| unsafe { &mut *socket })
}

/// Notes who asked for the connection of a client's `sock`. The server's end of it is another socket.
#[inline(always)]
pub fn set_client(sock: Sock, mut tgid: u32) {
    // SAFETY: the helper takes a first value of the map's type, and returns null or a value that lives as long as this
    // program runs.
    let slot = unsafe {
        bpf_sk_storage_get(
            (&raw const CLIENTS).cast_mut().cast(),
            sock.as_ptr(),
            (&raw mut tgid).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
        .cast::<u32>()
        .as_mut()
    };
    match slot {
        Some(slot) => *slot = tgid,
        None => count(Counter::ClientStorage),
    }
}

/// Who asked for the connection of a client's `sock`; forgotten with that.
#[inline(always)]
pub fn take_client(sock: Sock) -> Option<u32> {
    let map = (&raw const CLIENTS).cast_mut().cast();
    // SAFETY: as above; the value is copied before it is deleted.
    unsafe {
        let tgid = *bpf_sk_storage_get(map, sock.as_ptr(), ptr::null_mut(), 0).cast::<u32>().as_ref()?;
        bpf_sk_storage_delete(map, sock.as_ptr());
        Some(tgid)
    }
}

impl Socket {
    #[inline(always)]
    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    #[inline(always)]
    pub fn is_tracked(&self) -> bool {
        self.verdict == TRACKED || self.verdict == PROVISIONAL
    }

    /// Position after the last byte that was read. The client's FIN takes one position, and the read that reaches it
    /// passes it.
    #[inline(always)]
    pub fn read_end(&self, tcp: Tcp) -> u32 {
        let end = tcp.copied_seq();
        if self.fin_time != 0 && end == tcp.rcv_nxt() { end.wrapping_sub(1) } else { end }
    }

    /// Notes that bytes up to `end` are queued. Never "clear on read": what a short read leaves behind gets no second
    /// wake-up, so stamps stay until their bytes are read.
    #[inline(always)]
    pub fn arrive(&mut self, end: u32, time: u64) {
        let begin = self.arrived;
        if (end.wrapping_sub(begin) as i32) <= 0 {
            return;
        }
        self.arrived = end;
        let head = self.arrivals_head;
        if head.wrapping_sub(self.arrivals_tail) >= ARRIVALS as u32 {
            // These bytes stay without a stamp: unknown, not wrong.
            if self.is_tracked() {
                count(Counter::Unstamped);
            }
            return;
        }
        let slot = (head as usize) & (ARRIVALS - 1);
        self.arrivals[slot] = Arrival { begin, end, time };
        self.arrivals_head = head.wrapping_add(1);
    }
}
