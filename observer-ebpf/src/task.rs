//! Threads: what is kept with each, and to which workload it belongs.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE, bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE},
    helpers::generated::bpf_task_storage_get,
};
use observer_common::{host::Member, loss::Counter};

use crate::maps::{MEMBERS, THREADS, count};

/// A map of values that live with threads, as the loader wants it declared.
#[repr(C)]
pub struct TaskStorage<T> {
    r#type: *const [i32; BPF_MAP_TYPE_TASK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: a declaration that the loader reads; its pointers are never followed.
unsafe impl<T> Sync for TaskStorage<T> {}

impl<T> TaskStorage<T> {
    pub const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }
}

/// What was seen of a thread when it left the CPU.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Seen {
    /// When that was; 0: never.
    pub time: u64,
    /// Time running, so far.
    pub execution: u64,
    /// Time runnable and not running, so far.
    pub run_delay: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
}

/// What is kept with a thread. All zeros when it is new.
#[repr(C)]
pub struct Thread {
    /// At the last look.
    pub seen: Seen,
    /// Set when it exits: to what it belonged, which its last look needs to know.
    pub exited: Member,
    /// 1: it exited.
    pub has_exited: u64,
    /// What it reads and writes.
    pub io: Io,
}

/// What is kept of a thread's reads and writes.
#[repr(C)]
pub struct Io {
    /// When the call under way began; 0: there is none, or it is nobody's.
    pub began: u64,
    /// Slot of its workload.
    pub slot: u64,
    /// The last file that was judged, if it was a regular one: its address, that of its dentry, and what stands for its
    /// name there. Each may belong to another file by now, but not all of them.
    pub file: u64,
    pub dentry: u64,
    pub name: u64,
    /// 1: it is weights.
    pub weights: u64,
}

/// What is kept with a thread; made if there is nothing.
#[inline(always)]
pub unsafe fn thread(task: *const u8) -> Option<&'static mut Thread> {
    // SAFETY: the caller gives a trusted task.
    let thread = unsafe { storage(task, u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE)) };
    if thread.is_none() {
        count(Counter::ThreadStorage);
    }
    thread
}

/// What is kept with a thread, if there is anything.
#[inline(always)]
pub unsafe fn known_thread(task: *const u8) -> Option<&'static mut Thread> {
    // SAFETY: the caller gives a trusted task.
    unsafe { storage(task, 0) }
}

/// Notes what a thread that exits belongs to.
#[inline(always)]
pub unsafe fn exits(task: *const u8, member: Member) {
    // SAFETY: the caller gives a trusted task.
    if let Some(thread) = unsafe { thread(task) } {
        thread.exited = member;
        thread.has_exited = 1;
    }
}

/// What a thread that has exited belonged to.
#[inline(always)]
pub unsafe fn exited(task: *const u8) -> Option<Member> {
    // SAFETY: the caller gives a trusted task.
    let thread = unsafe { storage(task, 0) }?;
    (thread.has_exited == 1).then_some(thread.exited)
}

#[inline(always)]
unsafe fn storage(task: *const u8, flags: u64) -> Option<&'static mut Thread> {
    // SAFETY: the caller gives a trusted task; the helper returns null or a value that lives as long as this program
    // runs.
    unsafe {
        bpf_task_storage_get((&raw const THREADS).cast_mut().cast(), task.cast_mut().cast(), ptr::null_mut(), flags)
            .cast::<Thread>()
            .as_mut()
    }
}

/// What the process with this thread group id belongs to, if it is measured.
#[inline(always)]
pub fn member(tgid: u32) -> Option<Member> {
    // SAFETY: a map value.
    MEMBERS.get_ptr(tgid).map(|member| unsafe { *member })
}
