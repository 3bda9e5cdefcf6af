//! Where a system call keeps its buffers. x86-64.

use aya_ebpf::{
    bindings::pt_regs,
    helpers::generated::{bpf_get_current_task_btf, bpf_probe_read_user, bpf_task_pt_regs},
};
use observer_common::event::DIRECTION_SEND;

const READ: u64 = 0;
const WRITE: u64 = 1;
const READV: u64 = 19;
const WRITEV: u64 = 20;
const SENDTO: u64 = 44;
const RECVFROM: u64 = 45;
const SENDMSG: u64 = 46;
const RECVMSG: u64 = 47;
/// `-ENOSYS`, which the entry code leaves in `ax` until a call's own result replaces it.
const NOT_RETURNED: u64 = -38_i64 as u64;
/// Selector of 64-bit user code.
const USER_CODE_64: u64 = 0x33;

/// Memory of the caller that holds, or takes, a call's bytes.
#[derive(Clone, Copy)]
pub enum Buffers {
    /// The registers are not this call's: see `DATA_NO_PAYLOAD`.
    Unknown,
    /// One stretch: address and length.
    One(u64, u64),
    /// `struct iovec`s: address and count.
    Many(u64, u64),
}

/// The buffers of the system call under way, if it moves bytes in `direction`.
#[inline(always)]
pub fn buffers(direction: u8) -> Buffers {
    // SAFETY: the helpers take no more than the current task; the verifier knows the result as `struct pt_regs`.
    unsafe {
        let regs = bpf_task_pt_regs(bpf_get_current_task_btf().cast()) as *const pt_regs;
        let number = (*regs).orig_rax as u64;
        if (*regs).rax as u64 != NOT_RETURNED || (*regs).cs as u64 != USER_CODE_64 {
            return Buffers::Unknown;
        }
        let (second, third) = ((*regs).rsi as u64, (*regs).rdx as u64);
        if direction == DIRECTION_SEND {
            match number {
                WRITE | SENDTO => Buffers::One(second, third),
                WRITEV => Buffers::Many(second, third),
                SENDMSG => message(second),
                _ => Buffers::Unknown,
            }
        } else {
            match number {
                READ | RECVFROM => Buffers::One(second, third),
                READV => Buffers::Many(second, third),
                RECVMSG => message(second),
                _ => Buffers::Unknown,
            }
        }
    }
}

/// `msg_iov` and `msg_iovlen` of a `struct user_msghdr`.
#[inline(always)]
fn message(header: u64) -> Buffers {
    let mut vector = [0u64; 2];
    // SAFETY: reads 16 bytes of user memory into 16 bytes of ours.
    let failed = unsafe { bpf_probe_read_user((&raw mut vector).cast(), 16, (header + 16) as *const _) };
    if failed != 0 { Buffers::Unknown } else { Buffers::Many(vector[0], vector[1]) }
}
