//! Every map, and the constants of the load.

use aya_ebpf::{
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, PerCpuArray, Queue, RingBuf},
};
use observer_common::{
    config::{KernelConfig, Scope},
    limits::{ENDED_MAX, RING_BYTES, SCOPE_CGROUPS, SCOPE_PIDS},
    loss::{COUNTERS, Counter},
};

use crate::socket::Socket;

/// All events, in the order of their reservation. The loader may set another size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Cookies of tracked connections whose end found no room among the events.
#[map]
pub static ENDED: Queue<u64> = Queue::with_max_entries(ENDED_MAX, 0);

/// One slot per [`Counter`].
#[map]
pub static COUNTERS_MAP: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

/// What is ours, written by user space.
#[map]
pub static SCOPE: Array<Scope> = Array::with_max_entries(1, 0);

/// By local port, host order: `PORT_*`. An array, since a lookup in it is inlined into the program.
#[map]
pub static PORTS: Array<u32> = Array::with_max_entries(65_536, 0);

/// Thread group ids of the pid scope: those listed and their descendants, each with the listed one that it comes from.
#[map]
pub static PIDS: HashMap<u32, u32> = HashMap::with_max_entries(SCOPE_PIDS, 1 /* BPF_F_NO_PREALLOC */);

/// Ids of the cgroup scope.
#[map]
pub static CGROUPS: HashMap<u64, u32> = HashMap::with_max_entries(SCOPE_CGROUPS, 0);

/// State of candidate connections; the kernel frees it with the socket.
#[btf_map]
pub static SOCKETS: SkStorage<Socket> = SkStorage::new();

/// By a client's socket, the thread group id of who asked for its connection, until that is established.
#[btf_map]
pub static CLIENTS: SkStorage<u32> = SkStorage::new();

/// Constants of the load, in `.rodata`.
#[unsafe(no_mangle)]
pub static CONFIG: KernelConfig = KernelConfig {
    own_tgid: 0,
    wakeup_bytes: 0,
    sock_family: 0,
    sock_local_port: 0,
    sock_remote_port: 0,
    sock_local_v4: 0,
    sock_remote_v4: 0,
    sock_local_v6: 0,
    sock_remote_v6: 0,
    sock_protocol: 0,
    sock_type: 0,
    sock_error: 0,
    sock_socket: 0,
    socket_file: 0,
    tcp_write_seq: 0,
    tcp_snd_nxt: 0,
    tcp_copied_seq: 0,
    tcp_rcv_nxt: 0,
    tcp_clock: 0,
    task_tgid: 0,
    task_pid: 0,
    task_signal: 0,
    signal_live: 0,
    log: 0,
};

/// Reads a constant of the load; volatile, so that the compiler does not fold the zeros above.
#[inline(always)]
pub fn constant(pointer: *const u32) -> u32 {
    // SAFETY: only `config!` calls it, with a field of a valid static.
    unsafe { core::ptr::read_volatile(pointer) }
}

/// One field of [`CONFIG`].
macro_rules! config {
    ($field:ident) => {
        $crate::maps::constant(&raw const $crate::maps::CONFIG.$field)
    };
}
pub(crate) use config;

/// Adds one to a counter.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(slot) = COUNTERS_MAP.get_ptr_mut(counter.slot()) {
        // SAFETY: this CPU's own slot. A tracing program that interrupts another one on this CPU may lose an
        // increment; it cannot corrupt the value.
        unsafe { *slot += 1 };
    }
}

/// The scope in force.
#[inline(always)]
pub fn scope() -> Option<&'static Scope> {
    SCOPE.get(0)
}

/// What user space or LISTEN said of a local port.
#[inline(always)]
pub fn port_state(port: u32) -> u32 {
    PORTS.get(port).copied().unwrap_or(0)
}
