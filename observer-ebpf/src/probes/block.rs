//! Requests of workloads to block devices: made, given to the device, completed.
//!
//! A request belongs to who made it, and that is known only then: completions come in interrupts of whoever runs, and
//! devices get requests from kernel threads too. Everything is counted at its end, once.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::btf_tracepoint, programs::BtfTracePointContext};
use observer_common::{
    block::{BlockStats, NAME_WORDS, OPERATIONS, Operation, Request, Target},
    host::Histogram,
    loss::Counter,
};

use crate::{
    kernel::{field, now},
    maps::{BLOCK_REQUESTS, BLOCK_TARGETS, block, count},
    task::member,
};

/// `BPF_NOEXIST`.
const ONLY_NEW: u64 = 1;

/// What a new entry begins with; too large for the stack.
static NOTHING: BlockStats = BlockStats::ZERO;

/// `void block_io_start(struct request *rq)`, since 6.5: in the context of the thread whose I/O it is, before the
/// request goes anywhere.
#[btf_tracepoint(function = "block_io_start")]
pub fn obs_block_start(ctx: BtfTracePointContext) -> i32 {
    let request: *const u8 = ctx.arg(0);
    // Of an earlier request at this address the end was not seen.
    if forget(request) {
        count(Counter::BlockEnd);
    }
    let member = member((bpf_get_current_pid_tgid() >> 32) as u32);
    // SAFETY: a trusted request; offsets from the kernel's own BTF.
    let made = member.and_then(|member| unsafe { made(request, member.slot) });
    if let Some(made) = made
        && has_room(&made.target)
        && BLOCK_REQUESTS.insert(request as u64, made, 0).is_err()
    {
        count(Counter::BlockRequestInsert);
    }
    0
}

/// Whether there is a place to count what the device does for the workload; made if there is none.
#[inline(always)]
fn has_room(target: &Target) -> bool {
    let nothing = &NOTHING;
    let has = BLOCK_TARGETS.get_ptr(target).is_some()
        || BLOCK_TARGETS.insert(target, nothing, ONLY_NEW).is_ok()
        // Another CPU may have been faster.
        || BLOCK_TARGETS.get_ptr(target).is_some();
    if !has {
        count(Counter::BlockTargetInsert);
    }
    has
}

/// Whether there was anything to forget.
#[inline(always)]
fn forget(request: *const u8) -> bool {
    // Most requests are nobody's, and a look takes no lock.
    BLOCK_REQUESTS.get_ptr(request as u64).is_some() && BLOCK_REQUESTS.remove(request as u64).is_ok()
}

#[inline(always)]
unsafe fn made(request: *const u8, slot: u32) -> Option<Request> {
    // SAFETY: a trusted request, as the caller says; pointers read from one may be followed after a null check.
    unsafe {
        let operation = Operation::of(field(request, block!(request_flags)), field(request, block!(request_bytes)))?;
        let queue: *const u8 = field(request, block!(request_queue));
        if queue.is_null() {
            return None;
        }
        let disk: *const u8 = field(queue, block!(queue_disk));
        if disk.is_null() {
            return None;
        }
        let mut target = Target { slot, disk: [0; NAME_WORDS] };
        let mut word = 0;
        while word < NAME_WORDS {
            target.disk[word] = field(disk, block!(disk_name) + 4 * word as u32);
            word += 1;
        }
        Some(Request { target, operation: operation as u32, started: now(), issued: 0 })
    }
}

/// What is known of a request, if it is a workload's.
#[inline(always)]
fn known(request: *const u8) -> Option<&'static mut Request> {
    // SAFETY: a map value. Nobody else has it: the kernel does one thing after another with a request.
    BLOCK_REQUESTS.get_ptr_mut(request as u64).map(|known| unsafe { &mut *known })
}

/// `void block_rq_issue(struct request *rq)`, since 5.11. Again, if the device had no room, or did only a part.
#[btf_tracepoint(function = "block_rq_issue")]
pub fn obs_block_issue(ctx: BtfTracePointContext) -> i32 {
    if let Some(request) = known(ctx.arg(0)) {
        request.issued = now();
    }
    0
}

/// `void block_rq_merge(struct request *rq)`, since 5.11: it becomes a part of another one, which has its bytes from now
/// on.
#[btf_tracepoint(function = "block_rq_merge")]
pub fn obs_block_merge(ctx: BtfTracePointContext) -> i32 {
    let _known = forget(ctx.arg(0));
    0
}

/// `void block_rq_complete(struct request *rq, blk_status_t error, unsigned int nr_bytes)`; before 5.16 the error was an
/// `int`. Of the whole request, or of its first bytes; not subtracted from what is left yet.
#[btf_tracepoint(function = "block_rq_complete")]
pub fn obs_block_done(ctx: BtfTracePointContext) -> i32 {
    let request: *const u8 = ctx.arg(0);
    let (error, bytes): (u32, u32) = (ctx.arg(1), ctx.arg(2));
    let Some(known) = known(request) else { return 0 };
    // SAFETY: a trusted request; an offset from the kernel's own BTF.
    let ends = bytes >= unsafe { field::<u32>(request, block!(request_bytes)) };
    if let Some(stats) = BLOCK_TARGETS.get_ptr_mut(known.target) {
        // SAFETY: this CPU's own value, which only this program writes; and it does not interrupt itself.
        let stats: &mut BlockStats = unsafe { &mut *stats };
        let operation = known.operation as usize;
        if operation < OPERATIONS {
            if error == 0 {
                stats.bytes[operation] += u64::from(bytes);
            }
            if ends {
                ended(stats, operation, known);
            }
        }
    }
    if ends {
        let _gone = BLOCK_REQUESTS.remove(request as u64);
    }
    0
}

#[inline(always)]
fn ended(stats: &mut BlockStats, operation: usize, request: &Request) {
    // What empties the device's cache is no request to its driver, but waits for one of the kernel's own.
    let given = if request.issued == 0 { request.started } else { request.issued };
    add(&mut stats.device[operation], now().saturating_sub(given));
    if request.issued != 0 {
        add(&mut stats.queue, request.issued.saturating_sub(request.started));
    }
}

#[inline(always)]
fn add(histogram: &mut Histogram, nanoseconds: u64) {
    histogram.nanoseconds += nanoseconds;
    if let Some(count) = histogram.counts.get_mut(Histogram::bucket(nanoseconds)) {
        *count += 1;
    }
}
