//! What TCP did for the connections of workloads: looked at when a server writes, when a segment is sent again, when a
//! connection closes, and when somebody asks for all sockets.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use observer_common::host::{Histogram, TCP_CLOSED, TCP_PROGRAMS, TcpCounts, TcpWrites, served_port};

use crate::{
    kernel::{Sock, Tcp},
    maps::{SERVED_PORTS, TCP_COUNTS, TCP_WRITES, host},
    socket::Socket,
    task::member,
};

/// Least time between two looks at one connection's round-trip time.
const BETWEEN_NS: u64 = 100_000_000;

/// A connection was joined late: what was sent again before is not ours.
#[inline(always)]
pub fn found(socket: &mut Socket, tcp: Tcp) {
    if host!(tcp) != 0 {
        socket.retransmits = tcp.retransmits();
    }
}

/// The server wrote, or tried to. Most of the time there is nothing to do.
#[inline(always)]
pub fn wrote(socket: &mut Socket, tcp: Tcp, time: u64) {
    if host!(tcp) == 0 {
        return;
    }
    let closed = (tcp.send_window() == 0) as u32;
    if closed != socket.window_closed || time.wrapping_sub(socket.looked) >= BETWEEN_NS {
        obs_tcp_wrote(socket, time, tcp.rtt(), closed);
    }
}

/// A function of its own with global linkage: the verifier checks it once, and not once for each way that leads to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn obs_tcp_wrote(socket: *mut Socket, time: u64, rtt: u32, closed: u32) -> u32 {
    // SAFETY: null, or a reference from `wrote`.
    let Some(socket) = (unsafe { socket.as_mut() }) else { return 0 };
    socket.writer = (bpf_get_current_pid_tgid() >> 32) as u32;
    window(socket, closed);
    let due = time.wrapping_sub(socket.looked) >= BETWEEN_NS;
    if due {
        socket.looked = time;
    }
    let Some(slot) = slot(socket) else { return 0 };
    let Some(stats) = TCP_WRITES.get_ptr_mut(slot) else { return 0 };
    // SAFETY: this CPU's own value, which only this program writes; and it does not interrupt itself.
    let stats: &mut TcpWrites = unsafe { &mut *stats };
    stats.zero_windows += u64::from(socket.zero_windows);
    socket.zero_windows = 0;
    if due && rtt != 0 {
        let nanoseconds = u64::from(rtt) * 1000;
        stats.rtt.nanoseconds += nanoseconds;
        if let Some(count) = stats.rtt.counts.get_mut(Histogram::bucket(nanoseconds)) {
            *count += 1;
        }
    }
    1
}

/// Notes whether the client's window is closed now.
#[inline(always)]
fn window(socket: &mut Socket, closed: u32) {
    if closed != socket.window_closed {
        socket.window_closed = closed;
        socket.zero_windows += closed;
    }
}

/// The workload's slot, if the connection is one to a language model of its.
#[inline(always)]
pub fn slot(socket: &Socket) -> Option<u32> {
    let slot = member(socket.writer)?.slot;
    SERVED_PORTS.get_ptr(served_port(slot, socket.local_port))?;
    Some(slot)
}

/// A connection closes, under its lock: what is not counted yet.
#[inline(always)]
pub fn closed(sock: Sock, socket: &mut Socket) {
    if host!(tcp) != 0
        && socket.is_tracked()
        && let Some(tcp) = sock.tcp()
    {
        count(socket, tcp, TCP_CLOSED);
    }
}

/// Counts what `program` found, which holds the socket's lock: of a workload that is not known yet, somebody later
/// will. The connection's slot.
#[inline(always)]
pub fn count(socket: &mut Socket, tcp: Tcp, program: u32) -> Option<u32> {
    let total = tcp.retransmits();
    let slot = slot(socket)?;
    let counts = TCP_COUNTS.get_ptr_mut(slot * TCP_PROGRAMS + program)?;
    // SAFETY: this CPU's own value, which only this program writes; and it does not interrupt itself.
    let counts: &mut TcpCounts = unsafe { &mut *counts };
    counts.retransmits += u64::from(total.wrapping_sub(socket.retransmits));
    socket.retransmits = total;
    counts.zero_windows += u64::from(socket.zero_windows);
    socket.zero_windows = 0;
    Some(slot)
}

/// As [`count`], where the client's window is of interest as well.
#[inline(always)]
pub fn count_all(socket: &mut Socket, tcp: Tcp, program: u32) -> Option<u32> {
    window(socket, (tcp.send_window() == 0) as u32);
    count(socket, tcp, program)
}
