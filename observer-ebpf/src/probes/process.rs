//! Keeps the pid scope, and the processes of workloads, closed under descent.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use observer_common::{config::SCOPE_PIDS, loss::Counter};

use crate::{
    kernel::{live_threads, task_ids},
    maps::{MEMBERS, PIDS, count, host, scope},
    task::{exits, member},
};

/// `void sched_process_fork(struct task_struct *parent, struct task_struct *child)`.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn obs_fork(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: both are trusted tasks.
    let ((parent, _), (child, _)) = unsafe { (task_ids(ctx.arg(0)), task_ids(ctx.arg(1))) };
    if parent == child {
        return 0;
    }
    if let Some(member) = member(parent)
        && MEMBERS.insert(child, member, 0).is_err()
    {
        count(Counter::MemberInsert);
    }
    if scope().is_none_or(|scope| scope.flags & SCOPE_PIDS == 0) {
        return 0;
    }
    if let Some(root) = PIDS.get_ptr(parent) {
        // SAFETY: a map value.
        let root = unsafe { *root };
        if PIDS.insert(child, root, 0).is_err() {
            count(Counter::ScopePidInsert);
        }
    }
    0
}

/// `void sched_process_exit(struct task_struct *task, …)`.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn obs_exit(ctx: BtfTracePointContext) -> i32 {
    let task: *const u8 = ctx.arg(0);
    // SAFETY: a trusted task.
    let ((tgid, _), live) = unsafe { (task_ids(task), live_threads(task)) };
    if host!(scheduler) != 0
        && let Some(member) = member(tgid)
    {
        // SAFETY: as above. It leaves the CPU for the last time only later, when its process may be nobody's.
        unsafe { exits(task, member) };
    }
    // The last thread, and not the first one: that may end before others, or be replaced by one that calls exec.
    if live > 0 {
        return 0;
    }
    // Absent for most processes.
    let _absent = MEMBERS.remove(tgid);
    if scope().is_some_and(|scope| scope.flags & SCOPE_PIDS != 0) {
        let _absent = PIDS.remove(tgid);
    }
    0
}
