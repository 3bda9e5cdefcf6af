//! Where a system call keeps its number, its arguments and its buffers: all that differs between processors.
//!
//! x86-64 is what runs here; the layout for arm64 follows the kernel's sources and has been built, not run.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_probe_read_user, bpf_task_pt_regs};
use observer_common::{
    event::{DIRECTION_RECEIVE, DIRECTION_SEND},
    io::{READ as TO_PROCESS, WRITE as FROM_PROCESS},
};

use self::arch::{
    PREAD, PREADV, PREADV2, PWRITE, PWRITEV, PWRITEV2, READ, READV, RECVFROM, RECVMSG, SENDMSG, SENDTO, WRITE, WRITEV,
};
use crate::kernel::field;

#[cfg(bpf_target_arch = "x86_64")]
mod arch {
    use core::mem::offset_of;

    use aya_ebpf::bindings::pt_regs;

    use super::Registers;

    pub const READ: u64 = 0;
    pub const WRITE: u64 = 1;
    pub const PREAD: u64 = 17;
    pub const PWRITE: u64 = 18;
    pub const READV: u64 = 19;
    pub const WRITEV: u64 = 20;
    pub const SENDTO: u64 = 44;
    pub const RECVFROM: u64 = 45;
    pub const SENDMSG: u64 = 46;
    pub const RECVMSG: u64 = 47;
    pub const PREADV: u64 = 295;
    pub const PWRITEV: u64 = 296;
    pub const PREADV2: u64 = 327;
    pub const PWRITEV2: u64 = 328;

    /// Of the first four arguments of a call.
    pub const ARGUMENTS: [usize; 4] =
        [offset_of!(pt_regs, rdi), offset_of!(pt_regs, rsi), offset_of!(pt_regs, rdx), offset_of!(pt_regs, r10)];
    /// `-ENOSYS`, which the entry code leaves in `ax` until a call's own result replaces it.
    const NOT_RETURNED: u64 = -38_i64 as u64;
    /// Selector of 64-bit user code.
    const USER_CODE_64: u16 = 0x33;

    impl Registers {
        #[inline(always)]
        pub fn number(self) -> u64 {
            self.at(offset_of!(pt_regs, orig_rax))
        }

        /// Whether the call has no result yet: so the registers are those of a call that is under way.
        #[inline(always)]
        pub fn is_under_way(self) -> bool {
            self.at::<u64>(offset_of!(pt_regs, rax)) == NOT_RETURNED
        }

        /// Whether the caller is 64-bit code, whose numbers these are. With FRED more stands beside the selector.
        #[inline(always)]
        pub fn is_64_bit(self) -> bool {
            self.at::<u16>(offset_of!(pt_regs, cs)) == USER_CODE_64
        }
    }
}

#[cfg(bpf_target_arch = "aarch64")]
mod arch {
    use super::Registers;

    pub const READ: u64 = 63;
    pub const WRITE: u64 = 64;
    pub const READV: u64 = 65;
    pub const WRITEV: u64 = 66;
    pub const PREAD: u64 = 67;
    pub const PWRITE: u64 = 68;
    pub const PREADV: u64 = 69;
    pub const PWRITEV: u64 = 70;
    pub const SENDTO: u64 = 206;
    pub const RECVFROM: u64 = 207;
    pub const SENDMSG: u64 = 211;
    pub const RECVMSG: u64 = 212;
    pub const PREADV2: u64 = 286;
    pub const PWRITEV2: u64 = 287;

    // `struct pt_regs` of arm64: `u64 regs[31], sp, pc, pstate, orig_x0; s32 syscallno;`.
    const X0: usize = 0;
    const PSTATE: usize = 33 * 8;
    const ORIGINAL_X0: usize = 34 * 8;
    const NUMBER: usize = 35 * 8;
    /// In `pstate`: 32-bit code.
    const MODE_32: u64 = 0x10;

    /// Of the first four arguments of a call: the result takes the place of the first one.
    pub const ARGUMENTS: [usize; 4] = [ORIGINAL_X0, 8, 16, 24];

    impl Registers {
        #[inline(always)]
        pub fn number(self) -> u64 {
            u64::from(self.at::<u32>(NUMBER))
        }

        /// Whether the call has no result yet. There is no mark for that as on x86-64: a call whose result equals its first
        /// argument looks the same once it has returned.
        #[inline(always)]
        pub fn is_under_way(self) -> bool {
            self.at::<u64>(X0) == self.at::<u64>(ORIGINAL_X0)
        }

        /// Whether the caller is 64-bit code, whose numbers these are.
        #[inline(always)]
        pub fn is_64_bit(self) -> bool {
            self.at::<u64>(PSTATE) & MODE_32 == 0
        }
    }
}

/// Memory of the caller that holds, or takes, a call's bytes. No `enum`: where a variant has no fields, registers that no
/// instruction has written would stand for them, which the verifier refuses to see moved.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Buffers {
    pub kind: u64,
    pub address: u64,
    /// Bytes of [`Buffers::ONE`], `struct iovec`s of [`Buffers::MANY`].
    pub count: u64,
}

impl Buffers {
    /// The registers are not this call's: see `DATA_NO_PAYLOAD`.
    pub const UNKNOWN: u64 = 0;
    /// One stretch.
    pub const ONE: u64 = 1;
    /// `struct iovec`s.
    pub const MANY: u64 = 2;

    #[inline(always)]
    pub const fn unknown() -> Self {
        Self { kind: Self::UNKNOWN, address: 0, count: 0 }
    }

    #[inline(always)]
    pub const fn one(address: u64, length: u64) -> Self {
        Self { kind: Self::ONE, address, count: length }
    }

    #[inline(always)]
    pub const fn many(vector: u64, count: u64) -> Self {
        Self { kind: Self::MANY, address: vector, count }
    }
}

/// A `struct pt_regs` that the verifier trusts: user registers, as a system call saved them.
#[derive(Clone, Copy)]
pub struct Registers(pub *const u8);

impl Registers {
    /// Those of the current task.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helpers take no more than the current task; the verifier knows the result as `struct pt_regs`.
        Self(unsafe { bpf_task_pt_regs(bpf_get_current_task_btf().cast()) } as *const u8)
    }

    #[inline(always)]
    fn at<T: Copy>(self, offset: usize) -> T {
        // SAFETY: see `field`.
        unsafe { field(self.0, offset as u32) }
    }

    /// An argument of the call, from 0.
    #[inline(always)]
    pub fn argument(self, index: usize) -> u64 {
        self.at(arch::ARGUMENTS[index])
    }

    /// Where the call keeps its bytes, if it moves some in `direction`.
    #[inline(always)]
    pub fn buffers(self, direction: u8) -> Buffers {
        let number = self.number();
        if socket_call(number) != Some(direction) {
            return Buffers::unknown();
        }
        let (second, third) = (self.argument(1), self.argument(2));
        match number {
            READV | WRITEV => Buffers::many(second, third),
            RECVMSG | SENDMSG => message(second),
            _ => Buffers::one(second, third),
        }
    }

    /// `MSG_*` that the call was given.
    #[inline(always)]
    pub fn message_flags(self) -> i32 {
        match self.number() {
            RECVFROM | SENDTO => self.argument(3) as i32,
            RECVMSG | SENDMSG => self.argument(2) as i32,
            _ => 0,
        }
    }
}

/// The buffers of the system call under way, if it moves bytes in `direction`.
#[inline(always)]
pub fn buffers(direction: u8) -> Buffers {
    let registers = Registers::current();
    if registers.is_under_way() && registers.is_64_bit() { registers.buffers(direction) } else { Buffers::unknown() }
}

/// `msg_iov` and `msg_iovlen` of a `struct user_msghdr`.
#[inline(always)]
fn message(header: u64) -> Buffers {
    let mut vector = [0u64; 2];
    // SAFETY: reads 16 bytes of user memory into 16 bytes of ours.
    let failed = unsafe { bpf_probe_read_user((&raw mut vector).cast(), 16, (header + 16) as *const _) };
    if failed != 0 { Buffers::unknown() } else { Buffers::many(vector[0], vector[1]) }
}

/// Direction of a call that moves bytes of one message or stretch of a stream; `None`: another call.
#[inline(always)]
pub fn socket_call(number: u64) -> Option<u8> {
    match number {
        READ | RECVFROM | READV | RECVMSG => Some(DIRECTION_RECEIVE),
        WRITE | SENDTO | WRITEV | SENDMSG => Some(DIRECTION_SEND),
        _ => None,
    }
}

/// Direction of a call that reads or writes a descriptor, its first argument; `None`: another call.
#[inline(always)]
pub fn file_call(number: u64) -> Option<u32> {
    match number {
        READ | PREAD | READV | PREADV | PREADV2 | RECVFROM | RECVMSG => Some(TO_PROCESS),
        WRITE | PWRITE | WRITEV | PWRITEV | PWRITEV2 | SENDTO | SENDMSG => Some(FROM_PROCESS),
        _ => None,
    }
}

/// Whether the current process is in a system call that writes a file. In a page fault it is in none; what a send reads
/// of mapped memory is fetched.
#[inline(always)]
pub fn is_writing() -> bool {
    let registers = Registers::current();
    registers.is_under_way() && matches!(registers.number(), WRITE | PWRITE | WRITEV | PWRITEV | PWRITEV2)
}
