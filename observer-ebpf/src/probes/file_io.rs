//! Reads and writes of workloads: at the kernel's own functions, or at every system call.
//!
//! Both see the same calls: `read`, `pread`, `readv`, `preadv` and their opposites. What moves bytes between files without
//! passing them to the process (`sendfile`, `splice`, `copy_file_range`), io_uring and 32-bit programs are not seen.

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, fexit},
    programs::{BtfTracePointContext, FEntryContext, FExitContext},
};
use observer_common::io::{READ, WRITE};

use crate::{
    io::{self, Call},
    registers::{Registers, file_call},
};

/// A pair of programs on one function, which has `$arguments` arguments, the first one a `struct file *`.
macro_rules! function {
    ($(#[doc = $doc:literal])+ $target:literal, $arguments:literal, $direction:ident, $begin:ident, $end:ident) => {
        $(#[doc = $doc])+
        #[fentry(function = $target)]
        pub fn $begin(_ctx: FEntryContext) -> i32 {
            io::begins();
            0
        }

        $(#[doc = $doc])+
        #[fexit(function = $target)]
        pub fn $end(ctx: FExitContext) -> i32 {
            // What it returns comes after its arguments.
            let result: i64 = ctx.arg($arguments);
            if let Some(call) = Call::ends()
                && result >= 0
            {
                // SAFETY: a trusted file.
                unsafe { call.on_file(ctx.arg(0), $direction, result as u64) };
            }
            0
        }
    };
}

function! {
    /// `ssize_t vfs_read(struct file *file, char __user *buf, size_t count, loff_t *pos)`: `read` and `pread`.
    "vfs_read", 4, READ, obs_read_begin, obs_read_end
}
function! {
    /// `ssize_t vfs_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)`: `write` and `pwrite`.
    "vfs_write", 4, WRITE, obs_write_begin, obs_write_end
}
function! {
    /// `ssize_t vfs_readv(struct file *file, const struct iovec __user *vec, unsigned long vlen, loff_t *pos, rwf_t
    /// flags)`: `readv` and `preadv`.
    "vfs_readv", 5, READ, obs_readv_begin, obs_readv_end
}
function! {
    /// `ssize_t vfs_writev(struct file *file, const struct iovec __user *vec, unsigned long vlen, loff_t *pos, rwf_t
    /// flags)`: `writev` and `pwritev`.
    "vfs_writev", 5, WRITE, obs_writev_begin, obs_writev_end
}

/// `void sys_enter(struct pt_regs *regs, long id)`.
#[btf_tracepoint(function = "sys_enter")]
pub fn obs_sys_enter(ctx: BtfTracePointContext) -> i32 {
    let number: u64 = ctx.arg(1);
    if file_call(number).is_some() {
        io::begins();
    }
    0
}

/// `void sys_exit(struct pt_regs *regs, long ret)`.
#[btf_tracepoint(function = "sys_exit")]
pub fn obs_sys_exit(ctx: BtfTracePointContext) -> i32 {
    let (registers, result): (Registers, i64) = (Registers(ctx.arg(0)), ctx.arg(1));
    if let Some(direction) = file_call(registers.number())
        && let Some(call) = Call::ends()
        && result >= 0
        && registers.is_64_bit()
    {
        call.on_descriptor(registers.argument(0) as u32, direction, result as u64);
    }
    0
}
