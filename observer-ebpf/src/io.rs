//! Which file a call is on, and where it counts.

use core::arch::asm;

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_get_current_task_btf};
use observer_common::{
    host::{Histogram, Member},
    io::{FILE, Flow, IoStats, PIPE, READ, SOCKET, can_be_blob, flow, is_blobs, is_weights},
};

use crate::{
    kernel::{field, now, peek},
    maps::{IO, IO_SINCE, host},
    task::{Io, known_thread, member, thread},
};

const S_IFMT: u16 = 0o170_000;
const S_IFIFO: u16 = 0o010_000;
const S_IFBLK: u16 = 0o060_000;
const S_IFREG: u16 = 0o100_000;
const S_IFSOCK: u16 = 0o140_000;

/// Since when I/O is measured; 0: it is not, since there is no workload.
#[inline(always)]
fn since() -> u64 {
    IO_SINCE.get(0).copied().unwrap_or(0)
}

/// What the current process belongs to.
#[inline(always)]
pub fn current_member() -> Option<Member> {
    member((bpf_get_current_pid_tgid() >> 32) as u32)
}

#[inline(always)]
fn task() -> *const u8 {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_task_btf() }.cast::<u8>()
}

/// Notes when a call began, if it is a workload's.
#[inline(always)]
pub fn begins() {
    if let Some(member) = current_member()
        // SAFETY: the current task is trusted.
        && let Some(thread) = unsafe { thread(task()) }
    {
        thread.io.slot = u64::from(member.slot);
        thread.io.began = now();
    }
}

/// The end of a workload's call.
pub struct Call {
    io: &'static mut Io,
    slot: u32,
    /// 0: not known.
    began: u64,
}

impl Call {
    /// The current one. Whose it is was noted at its beginning, where that is hooked.
    #[inline(always)]
    pub fn ends() -> Option<Self> {
        if host!(io_latency) == 0 {
            let slot = current_member()?.slot;
            // SAFETY: the current task is trusted.
            return unsafe { thread(task()) }.map(|thread| Self { io: &mut thread.io, slot, began: 0 });
        }
        // SAFETY: as above.
        let io = unsafe { &mut known_thread(task())?.io };
        let (began, slot) = (io.began, io.slot as u32);
        if began == 0 {
            return None;
        }
        io.began = 0;
        // Left over by a call whose end was not hooked.
        if began < since() {
            return None;
        }
        Some(Self { io, slot, began })
    }

    /// Counts it, on a `struct file` that the verifier trusts.
    #[inline(always)]
    pub unsafe fn on_file(mut self, file: *const u8, direction: u32, bytes: u64) {
        // SAFETY: see `field`; pointers read from a trusted structure may be followed after a null check.
        unsafe {
            let inode: *const u8 = field(file, host!(file_inode));
            let dentry: *const u8 = field(file, host!(file_dentry));
            if inode.is_null() || dentry.is_null() {
                return;
            }
            let Some(kind) = kind(field(inode, host!(inode_mode))) else { return };
            // Hash and length: verifiers before 6.8 refuse one load across both.
            let (hash, length): (u32, u32) = (field(dentry, host!(dentry_name)), field(dentry, host!(dentry_name) + 4));
            let name = u64::from(length) << 32 | u64::from(hash);
            let (file, dentry) = (file as u64, dentry as u64);
            if kind == FILE && !(self.judged(file, dentry) && name == self.io.name) {
                self.judge(file, dentry, name);
            }
            self.count(kind, direction, bytes);
        }
    }

    /// Counts it, on a descriptor of the current process.
    #[inline(always)]
    pub fn on_descriptor(mut self, descriptor: u32, direction: u32, bytes: u64) {
        if let Some(kind) = self.find(descriptor) {
            self.count(kind, direction, bytes);
        }
    }

    /// The kind of file behind a descriptor. Most of the time goes into reads that may fail: there are as few as can be.
    #[inline(always)]
    fn find(&mut self, descriptor: u32) -> Option<u32> {
        let file = open_file(descriptor)?;
        // SAFETY: reads that may fail.
        unsafe {
            let dentry: u64 = peek(file + u64::from(host!(file_dentry)))?;
            let name: u64 = peek(dentry + u64::from(host!(dentry_name)))?;
            if self.judged(file, dentry) && name == self.io.name {
                return Some(FILE);
            }
            let kind = kind(mode(inode_of(file)?)?)?;
            if kind == FILE {
                self.judge(file, dentry, name);
            }
            Some(kind)
        }
    }

    /// Whether it is the file that was judged last, if its name is the same, too.
    #[inline(always)]
    fn judged(&self, file: u64, dentry: u64) -> bool {
        file == self.io.file && dentry == self.io.dentry
    }

    /// Judges a regular file, and keeps the verdict. Those without a name in a folder are not told from others later.
    #[inline(always)]
    fn judge(&mut self, file: u64, dentry: u64, name: u64) {
        let hashed = name as u32 != 0;
        self.io.file = if hashed { file } else { 0 };
        self.io.dentry = dentry;
        self.io.name = name;
        self.io.weights = u64::from(names_weights(dentry));
    }

    #[inline(always)]
    fn count(self, kind: u32, direction: u32, bytes: u64) {
        let Some(stats) = IO.get_ptr_mut(self.slot) else { return };
        // SAFETY: this CPU's own values; every access is an atomic one.
        unsafe {
            let place = &raw mut (*stats).flows[flow(kind, direction)];
            // Their bytes and calls are counted where every socket's are, whoever moves them.
            if kind != SOCKET {
                moved(place, bytes);
            }
            if kind == FILE && direction == READ {
                let weights = self.io.weights != 0;
                add(if weights { &raw mut (*stats).weights_read } else { &raw mut (*stats).others_read }, bytes);
            }
            if self.began != 0 {
                let duration = now().saturating_sub(self.began);
                add(&raw mut (*place).latency.counts[Histogram::bucket(duration)], 1);
                add(&raw mut (*place).latency.nanoseconds, duration);
            }
        }
    }
}

/// Address of the `struct file` behind a descriptor of the current process.
#[inline(always)]
pub fn open_file(descriptor: u32) -> Option<u64> {
    // SAFETY: see `field`; pointers read from a trusted structure may be followed after a null check. Another thread may
    // change the table or close the file meanwhile: then the call is taken for one on another file, or for none; but
    // every read beyond the table is one that may fail.
    unsafe {
        let files: *const u8 = field(task(), host!(task_files));
        if files.is_null() {
            return None;
        }
        let table: *const u8 = field(files, host!(files_table));
        if table.is_null() || descriptor >= field::<u32>(table, host!(table_size)) {
            return None;
        }
        let list: u64 = field(table, host!(table_files));
        peek(list + u64::from(descriptor) * 8)
    }
}

/// Address of a file's `struct inode`.
#[inline(always)]
pub fn inode_of(file: u64) -> Option<u64> {
    // SAFETY: a read that may fail.
    unsafe { peek(file + u64::from(host!(file_inode))) }
}

#[inline(always)]
fn mode(inode: u64) -> Option<u16> {
    // SAFETY: a read that may fail.
    unsafe { peek(inode + u64::from(host!(inode_mode))) }
}

/// Whether it is a socket's.
#[inline(always)]
pub fn is_socket(inode: u64) -> bool {
    mode(inode).is_some_and(|mode| mode & S_IFMT == S_IFSOCK)
}

#[inline(always)]
fn kind(mode: u16) -> Option<u32> {
    match mode & S_IFMT {
        S_IFREG | S_IFBLK => Some(FILE),
        S_IFIFO => Some(PIPE),
        S_IFSOCK => Some(SOCKET),
        _ => None,
    }
}

/// The length and the last 16 bytes of a dentry's name.
#[inline(always)]
unsafe fn name(dentry: u64) -> Option<(u32, [u64; 2])> {
    // SAFETY: reads that may fail. Before a short name lies what belongs to the same structure.
    unsafe {
        let [hash_length, text]: [u64; 2] = peek(dentry + u64::from(host!(dentry_name)))?;
        let length = (hash_length >> 32) as u32;
        Some((length, peek((text + u64::from(length)).wrapping_sub(16))?))
    }
}

/// Whether a dentry is that of weights: see `is_weights`; or of a model store's blob.
#[inline(always)]
pub fn names_weights(dentry: u64) -> bool {
    // SAFETY: reads that may fail.
    unsafe {
        let Some((length, last)) = name(dentry) else { return false };
        if is_weights(length, last) {
            return true;
        }
        if !can_be_blob(length) {
            return false;
        }
        let Some(folder) = peek(dentry + u64::from(host!(dentry_parent))) else { return false };
        name(folder).is_some_and(|(length, last)| is_blobs(length, last))
    }
}

/// Bytes of a socket, if the current process is a workload's.
#[inline(always)]
pub fn socket(direction: u32, result: i32) {
    // Every socket of the host comes by.
    if host!(io) == 0 || result < 0 || since() == 0 {
        return;
    }
    if let Some(member) = current_member()
        && let Some(stats) = IO.get_ptr_mut(member.slot)
    {
        // SAFETY: as above.
        unsafe { moved(&raw mut (*stats).flows[flow(SOCKET, direction)], result as u64) };
    }
}

/// What came into the page cache.
#[inline(always)]
pub fn filled(member: Member, weights: bool, bytes: u64) {
    if let Some(stats) = IO.get_ptr_mut(member.slot) {
        // SAFETY: as above.
        unsafe {
            let stats: *mut IoStats = stats;
            add(if weights { &raw mut (*stats).weights_filled } else { &raw mut (*stats).others_filled }, bytes);
        }
    }
}

#[inline(always)]
unsafe fn moved(flow: *mut Flow, bytes: u64) {
    // SAFETY: the caller's.
    unsafe {
        add(&raw mut (*flow).bytes, bytes);
        add(&raw mut (*flow).operations, 1);
    }
}

/// Adds to this CPU's value. Atomic, since these programs may be preempted by one another.
#[inline(always)]
unsafe fn add(value: *mut u64, more: u64) {
    // SAFETY: a map value, aligned; the caller says so. The core library has no such addition for this target.
    unsafe { asm!("lock *(u64 *)({value} + 0) += {more}", value = in(reg) value, more = in(reg) more) };
}
