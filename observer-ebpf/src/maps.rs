//! Every map, and the constants of the load.

use aya_ebpf::{
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, Queue, RingBuf},
};
use observer_common::{
    block::{BlockConfig, BlockStats, REQUESTS, Request, TARGETS, Target},
    config::{KernelConfig, Scope},
    content::{self, SLOTS},
    host::{
        HostConfig, MEMBERS as MEMBERS_MAX, Member, SERVED_PORTS as SERVED_PORTS_MAX, SchedulerStats, TCP_PROGRAMS,
        TcpCounts, TcpWrites, WORKLOADS,
    },
    io::IoStats,
    limits::{ENDED_MAX, RING_BYTES, SCOPE_CGROUPS, SCOPE_PIDS, SOCKETS_BY_COOKIE as SOCKETS_BY_COOKIE_MAX},
    loss::{COUNTERS, Counter},
};

use crate::{
    socket::Socket,
    task::{TaskStorage, Thread},
};

/// All events, in the order of their reservation. The loader may set another size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Cookies of tracked connections whose end found no room among the events.
#[map]
pub static ENDED: Queue<u64> = Queue::with_max_entries(ENDED_MAX, 0);

/// One slot per [`Counter`].
#[map]
pub static COUNTERS_MAP: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

/// Bytes that become no events, by [`content::slot`].
#[map]
pub static BYTES: PerCpuArray<u64> = PerCpuArray::with_max_entries(SLOTS, 0);

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

/// Processes of measured workloads by thread group id: written by user space, and by fork and exit.
#[map]
pub static MEMBERS: HashMap<u32, Member> = HashMap::with_max_entries(MEMBERS_MAX, 1 /* BPF_F_NO_PREALLOC */);

/// By slot of a workload.
#[map]
pub static SCHEDULER: PerCpuArray<SchedulerStats> = PerCpuArray::with_max_entries(WORKLOADS, 0);

/// Since when threads have been looked at without a gap; 0: always.
#[map]
pub static SCHEDULER_SINCE: Array<u64> = Array::with_max_entries(1, 0);

/// By slot of a workload.
#[map]
pub static IO: PerCpuArray<IoStats> = PerCpuArray::with_max_entries(WORKLOADS, 0);

/// Since when there have been workloads whose I/O is to be measured, and hooks for it; 0: there are none.
#[map]
pub static IO_SINCE: Array<u64> = Array::with_max_entries(1, 0);

/// Ports on which workloads serve language models, by `served_port`.
#[map]
pub static SERVED_PORTS: HashMap<u32, u32> = HashMap::with_max_entries(SERVED_PORTS_MAX, 0);

/// By slot of a workload.
#[map]
pub static TCP_WRITES: PerCpuArray<TcpWrites> = PerCpuArray::with_max_entries(WORKLOADS, 0);

/// By slot of a workload, and program: `slot * TCP_PROGRAMS + program`.
#[map]
pub static TCP_COUNTS: PerCpuArray<TcpCounts> = PerCpuArray::with_max_entries(WORKLOADS * TCP_PROGRAMS, 0);

/// What was last seen of the threads of workloads; the kernel frees it with the thread.
#[btf_map]
pub static THREADS: TaskStorage<Thread> = TaskStorage::new();

/// Requests of workloads to block devices that are under way, by the address of the kernel's `struct request`. Room for
/// all from the start: nothing can be allocated where some of them are made.
#[map]
pub static BLOCK_REQUESTS: HashMap<u64, Request> = HashMap::with_max_entries(REQUESTS, 0);

/// What block devices did for workloads. Only the program of their completion counts here, and it does not interrupt
/// itself.
#[map]
pub static BLOCK_TARGETS: PerCpuHashMap<Target, BlockStats> = PerCpuHashMap::with_max_entries(TARGETS, 0);

/// State of candidate connections; the kernel frees it with the socket.
#[btf_map]
pub static SOCKETS: SkStorage<Socket> = SkStorage::new();

/// The same where sockets are known by address only, by what tells them apart (`Socket::cookie`). The kernel drops
/// what was not used for longest when there is no more room. The loader gives it room only then.
#[map]
pub static SOCKETS_BY_COOKIE: LruHashMap<u64, Socket> = LruHashMap::with_max_entries(SOCKETS_BY_COOKIE_MAX, 0);

/// What such state is when it is new, which is too large for a program's stack: zeros.
#[map]
pub static NEW_SOCKET: Array<Socket> = Array::with_max_entries(1, 0);

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
    tcp_ulp: 0,
    task_tgid: 0,
    task_pid: 0,
    task_signal: 0,
    signal_live: 0,
    log: 0,
    sockets_by_cookie: 0,
    sock_cookie: 0,
    socket_sock: 0,
    file_private: 0,
    inode_number: 0,
    tcp_recvmsg_arguments: 0,
};

/// Constants of the load for what is measured of workloads, in `.rodata`.
#[unsafe(no_mangle)]
pub static HOST: HostConfig = HostConfig::ZERO;

/// Offsets of this kernel for block devices, in `.rodata`.
#[unsafe(no_mangle)]
pub static BLOCK: BlockConfig = BlockConfig::ZERO;

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

/// One field of [`HOST`].
macro_rules! host {
    ($field:ident) => {
        $crate::maps::constant(&raw const $crate::maps::HOST.$field)
    };
}
pub(crate) use host;

/// One field of [`BLOCK`].
macro_rules! block {
    ($field:ident) => {
        $crate::maps::constant(&raw const $crate::maps::BLOCK.$field)
    };
}
pub(crate) use block;

/// Adds one to a counter.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(slot) = COUNTERS_MAP.get_ptr_mut(counter.slot()) {
        // SAFETY: this CPU's own slot. A tracing program that interrupts another one on this CPU may lose an
        // increment; it cannot corrupt the value.
        unsafe { *slot += 1 };
    }
}

/// Adds bytes that become no event.
#[inline(always)]
pub fn count_bytes(content: u32, direction: u8, bytes: u32) {
    if let Some(slot) = BYTES.get_ptr_mut(content::slot(content, direction)) {
        // SAFETY: as above.
        unsafe { *slot += u64::from(bytes) };
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
