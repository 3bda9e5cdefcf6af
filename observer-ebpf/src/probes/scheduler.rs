//! Running, waiting to run, and page faults of the threads of workloads.
//!
//! The kernel itself keeps these totals with each thread. One look whenever a thread leaves the CPU turns them into
//! the workload's: no look at wake-ups, none at faults.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use observer_common::host::{Histogram, Member, SchedulerStats};

use crate::{
    kernel::{field, now, task_ids},
    maps::{SCHEDULER, SCHEDULER_SINCE, host},
    task::{Seen, exited, member, thread},
};

/// `TASK_DEAD`, in every kernel since 2.6.
const TASK_DEAD: u32 = 0x80;

/// `void sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int prev_state)`.
#[btf_tracepoint(function = "sched_switch")]
pub fn obs_switch(ctx: BtfTracePointContext) -> i32 {
    let task: *const u8 = ctx.arg(1);
    // SAFETY: a trusted task.
    let (tgid, _) = unsafe { task_ids(task) };
    let member = member(tgid).or_else(|| {
        // SAFETY: as above. Most threads here belong to no workload, so only a last switch is looked at twice.
        unsafe { if field::<u32>(task, host!(task_state)) & TASK_DEAD != 0 { exited(task) } else { None } }
    });
    if let Some(member) = member {
        // SAFETY: as above.
        unsafe { look(task, member) };
    }
    0
}

/// Adds what a thread did since the last look to its workload.
#[inline(always)]
unsafe fn look(task: *const u8, member: Member) {
    let now = now();
    // SAFETY: a trusted task, as the caller says; offsets from the kernel's own BTF.
    let (seen, start, thread) = unsafe {
        let seen = Seen {
            time: now,
            execution: field(task, host!(task_execution)),
            run_delay: field(task, host!(task_run_delay)),
            minor_faults: field(task, host!(task_minor_faults)),
            major_faults: field(task, host!(task_major_faults)),
        };
        (seen, field::<u64>(task, host!(task_start_time)), thread(task))
    };
    let Some(thread) = thread else { return };
    let last = &mut thread.seen;
    let gap = SCHEDULER_SINCE.get(0).copied().unwrap_or(0);
    if last.time == 0 {
        if start < member.since || start < gap {
            // What it did before is not of this slot, or nobody looked.
            *last = seen;
            return;
        }
        last.time = start;
    } else if last.time < gap {
        *last = seen;
        return;
    }
    let execution = seen.execution.wrapping_sub(last.execution);
    let run_delay = seen.run_delay.wrapping_sub(last.run_delay);
    let minor_faults = seen.minor_faults.wrapping_sub(last.minor_faults);
    let major_faults = seen.major_faults.wrapping_sub(last.major_faults);
    // The two clocks may differ a little.
    let off_cpu = now.saturating_sub(last.time).saturating_sub(execution).saturating_sub(run_delay);
    *last = seen;
    let Some(stats) = SCHEDULER.get_ptr_mut(member.slot) else { return };
    // SAFETY: this CPU's own slot, and nothing interrupts the scheduler's switch.
    let stats: &mut SchedulerStats = unsafe { &mut *stats };
    stats.on_cpu += execution;
    stats.off_cpu += off_cpu;
    stats.minor_faults += minor_faults;
    stats.major_faults += major_faults;
    stats.run_queue.nanoseconds += run_delay;
    if let Some(count) = stats.run_queue.counts.get_mut(Histogram::bucket(run_delay)) {
        *count += 1;
    }
}
