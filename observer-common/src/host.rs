//! What the kernel side measures of workloads besides their requests, added up in per-CPU arrays that are indexed by
//! the workload's slot; and the constants that this takes.

use core::mem::size_of;

/// Most workloads that are measured at a time: slots.
pub const WORKLOADS: u32 = 64;
/// Most processes of measured workloads.
pub const MEMBERS: u32 = 65_536;
/// Buckets of a [`Histogram`].
pub const BUCKETS: usize = 26;
/// Base 2 logarithm of the first bucket's bound, in nanoseconds.
pub const FIRST_BOUND: u32 = 10;

/// A value of a kernel map, read by user space as it lies in memory.
///
/// # Safety
/// Integers only, no padding: any bytes are a valid value.
pub unsafe trait Plain: Copy + Default + 'static {}

// SAFETY: an integer.
unsafe impl Plain for u64 {}

/// What a process belongs to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Slot of its workload.
    pub slot: u32,
    /// Zero.
    pub padding: u32,
    /// When its workload got the slot, `CLOCK_MONOTONIC` nanoseconds: of threads that are older, only what they do
    /// after the first look at them counts.
    pub since: u64,
}
const _: () = assert!(size_of::<Member>() == 16);
// SAFETY: integers only, explicit padding.
unsafe impl Plain for Member {}

/// Times by bucket: bucket 0 holds what is below 2^[`FIRST_BOUND`] ns, each further one up to twice as much, the last
/// one the rest.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Counts; not cumulative.
    pub counts: [u64; BUCKETS],
    /// Sum of all times.
    pub nanoseconds: u64,
}
const _: () = assert!(size_of::<Histogram>() == 8 * (BUCKETS + 1));
// SAFETY: integers only.
unsafe impl Plain for Histogram {}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], nanoseconds: 0 }
    }
}

impl Histogram {
    /// The bucket of a time.
    #[must_use]
    #[inline(always)]
    pub const fn bucket(nanoseconds: u64) -> usize {
        let bits = u64::BITS - nanoseconds.leading_zeros();
        let bucket = bits.saturating_sub(FIRST_BOUND) as usize;
        if bucket < BUCKETS { bucket } else { BUCKETS - 1 }
    }

    /// What is below the bound of bucket `index`, in nanoseconds; `None`: the last one has none.
    #[must_use]
    pub const fn bound(index: usize) -> Option<u64> {
        if index + 1 < BUCKETS { Some(1 << (FIRST_BOUND as usize + index)) } else { None }
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.wrapping_add(more);
        }
        self.nanoseconds = self.nanoseconds.wrapping_add(other.nanoseconds);
    }

    /// Takes away what an earlier look at the same one counted.
    pub fn subtract(&mut self, earlier: &Self) {
        for (count, less) in self.counts.iter_mut().zip(earlier.counts) {
            *count = count.saturating_sub(less);
        }
        self.nanoseconds = self.nanoseconds.saturating_sub(earlier.nanoseconds);
    }
}

/// What the scheduler did with the threads of one workload.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerStats {
    /// Time from runnable (woken or preempted) to running.
    pub run_queue: Histogram,
    /// Time running.
    pub on_cpu: u64,
    /// Time neither running nor runnable.
    pub off_cpu: u64,
    /// Page faults that needed no I/O.
    pub minor_faults: u64,
    /// Page faults that did.
    pub major_faults: u64,
}
const _: () = assert!(size_of::<SchedulerStats>() == size_of::<Histogram>() + 32);
// SAFETY: integers only, no padding.
unsafe impl Plain for SchedulerStats {}

impl SchedulerStats {
    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        self.run_queue.add(&other.run_queue);
        for (value, more) in
            self.counters().into_iter().zip([other.on_cpu, other.off_cpu, other.minor_faults, other.major_faults])
        {
            *value = value.wrapping_add(more);
        }
    }

    /// Takes away what an earlier look at the same one counted.
    pub fn subtract(&mut self, earlier: &Self) {
        self.run_queue.subtract(&earlier.run_queue);
        for (value, less) in self.counters().into_iter().zip([
            earlier.on_cpu,
            earlier.off_cpu,
            earlier.minor_faults,
            earlier.major_faults,
        ]) {
            *value = value.saturating_sub(less);
        }
    }

    fn counters(&mut self) -> [&mut u64; 4] {
        [&mut self.on_cpu, &mut self.off_cpu, &mut self.minor_faults, &mut self.major_faults]
    }
}

/// What writes of one workload's TCP connections found.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpWrites {
    /// Smoothed round-trip times.
    pub rtt: Histogram,
    /// Times that the client's window was found closed.
    pub zero_windows: u64,
}
const _: () = assert!(size_of::<TcpWrites>() == size_of::<Histogram>() + 8);
// SAFETY: integers only, no padding.
unsafe impl Plain for TcpWrites {}

impl TcpWrites {
    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        self.rtt.add(&other.rtt);
        self.zero_windows = self.zero_windows.wrapping_add(other.zero_windows);
    }

    /// Takes away what an earlier look at the same one counted.
    pub fn subtract(&mut self, earlier: &Self) {
        self.rtt.subtract(&earlier.rtt);
        self.zero_windows = self.zero_windows.saturating_sub(earlier.zero_windows);
    }
}

/// What one program counted of a workload's TCP connections. Each program has values of its own: one of them may
/// interrupt another on the same CPU, but not itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpCounts {
    /// Segments sent again.
    pub retransmits: u64,
    /// Times that the client's window was found closed.
    pub zero_windows: u64,
}
const _: () = assert!(size_of::<TcpCounts>() == 16);
// SAFETY: integers only, no padding.
unsafe impl Plain for TcpCounts {}

/// Programs that keep [`TcpCounts`]: a segment is sent again.
pub const TCP_RETRANSMIT: u32 = 0;
/// A connection closes.
pub const TCP_CLOSED: u32 = 1;
/// Somebody asks for all sockets.
pub const TCP_ASKED: u32 = 2;
/// How many there are.
pub const TCP_PROGRAMS: u32 = 3;

/// Most pairs of a workload and a port on which it serves language models.
pub const SERVED_PORTS: u32 = 1024;

/// Key of such a pair.
#[must_use]
#[inline(always)]
pub const fn served_port(slot: u32, port: u32) -> u32 {
    slot << 16 | port & 0xffff
}

/// [`SeenSocket::slot`] of a listening socket, whose workload its port tells.
pub const LISTENING: u32 = u32::MAX;

/// One socket, when somebody asked for all: a listening one that has dropped something, or a connection with bytes
/// that are not sent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeenSocket {
    /// Its identity.
    pub cookie: u64,
    /// The connection's workload, or [`LISTENING`].
    pub slot: u32,
    /// Its local port.
    pub port: u32,
    /// Bytes not sent, or connections dropped so far (modulo 2^32).
    pub value: u32,
    /// Zero.
    pub padding: u32,
}
const _: () = assert!(size_of::<SeenSocket>() == 24 && core::mem::offset_of!(SeenSocket, value) == 16);

impl SeenSocket {
    /// Reads one as it lies in memory.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; size_of::<Self>()]) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = *bytes;
        let word = |at: usize| u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let cookie = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        Self { cookie, slot: word(0), port: word(4), value: word(8), padding: word(12) }
    }
}

macro_rules! constants {
    ($($(#[doc = $doc:literal])+ $field:ident;)+) => {
        /// Constants of one load, in `.rodata`: which signals are on, and offsets in bytes into structures of the
        /// running kernel, 0 where it has no such member (then the signal that needs it is off).
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default)]
        pub struct HostConfig { $($(#[doc = $doc])+ pub $field: u32),+ }

        impl HostConfig {
            /// How many there are.
            pub const WORDS: usize = size_of::<Self>() / 4;
            /// Zeros, which the load replaces.
            pub const ZERO: Self = Self { $($field: 0),+ };

            /// The same, as the words that lie in memory.
            #[must_use]
            pub const fn words(&self) -> [u32; Self::WORDS] { [$(self.$field),+] }
        }
    };
}

constants! {
    /// 1: the scheduler's signal is on.
    scheduler;
    /// `struct task_struct`: `__state`.
    task_state;
    /// `struct task_struct`: `start_time`.
    task_start_time;
    /// `struct task_struct`: `se.sum_exec_runtime`.
    task_execution;
    /// `struct task_struct`: `sched_info.run_delay`.
    task_run_delay;
    /// `struct task_struct`: `min_flt`.
    task_minor_faults;
    /// `struct task_struct`: `maj_flt`.
    task_major_faults;
    /// 1: TCP's signal is on.
    tcp;
    /// `struct sock`: `__sk_common.skc_state`.
    sock_state;
    /// `struct sock`: `sk_drops`.
    sock_drops;
    /// `struct tcp_sock`: `srtt_us`.
    tcp_srtt;
    /// `struct tcp_sock`: `snd_wnd`.
    tcp_send_window;
    /// `struct tcp_sock`: `total_retrans`.
    tcp_retransmits;
    /// 1: the signal of I/O is on, and its sockets count.
    io;
    /// 1: calls are timed.
    io_latency;
    /// `struct task_struct`: `files`.
    task_files;
    /// `struct files_struct`: `fdt`.
    files_table;
    /// `struct fdtable`: `max_fds`.
    table_size;
    /// `struct fdtable`: `fd`.
    table_files;
    /// `struct file`: `f_inode`.
    file_inode;
    /// `struct file`: `f_path.dentry`.
    file_dentry;
    /// `struct inode`: `i_mode`.
    inode_mode;
    /// `struct inode`: `i_dentry`.
    inode_dentries;
    /// `struct dentry`: `d_name`, of which `hash_len` is the first, and `name` after it.
    dentry_name;
    /// `struct dentry`: `d_parent`.
    dentry_parent;
    /// `struct dentry`: `d_u.d_alias`.
    dentry_alias;
    /// `struct folio`: `mapping`.
    folio_mapping;
    /// `struct folio`: `flags`.
    folio_flags;
    /// `struct folio`: base 2 logarithm of the pages of a large one, its lowest byte.
    folio_order;
    /// `enum pageflags`: `PG_head`, of a large folio.
    page_head;
    /// `struct address_space`: `host`.
    mapping_host;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_the_bucket_of_its_bounds() {
        for time in [0, 1, 1023, 1024, 1025, 2047, 2048, 1 << 20, (1 << 34) - 1, 1 << 34, 1 << 35, u64::MAX] {
            let bucket = Histogram::bucket(time);
            assert!(Histogram::bound(bucket).is_none_or(|bound| time < bound), "{time}");
            assert!(bucket == 0 || Histogram::bound(bucket - 1).is_some_and(|bound| time >= bound), "{time}");
        }
        assert_eq!(Histogram::bound(0), Some(1024));
        assert_eq!(Histogram::bound(BUCKETS - 1), None);
    }

    #[test]
    fn later_less_earlier_is_what_was_added_between() {
        let mut total = SchedulerStats::default();
        let mut step = SchedulerStats { on_cpu: 5, off_cpu: 7, minor_faults: 1, major_faults: 2, ..total };
        step.run_queue.counts[3] = 4;
        step.run_queue.nanoseconds = 40_000;
        total.add(&step);
        let earlier = total;
        total.add(&step);
        total.subtract(&earlier);
        assert_eq!(total, step);
    }
}
