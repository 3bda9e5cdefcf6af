//! Copies a call's bytes out of user memory: the head, and the tail of what is longer.

use core::arch::asm;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use observer_common::{
    event::{SocketData, SocketDataLarge, SocketDataMedium, SocketDataRecord, SocketDataSmall},
    limits::{CAPTURE_MEDIUM, CAPTURE_SMALL, HEAD_MAX, IOVECS_MAX, TAIL_MAX},
};

/// How much was copied: head bytes at 0, tail bytes right behind them.
#[derive(Clone, Copy, Default)]
pub struct Captured {
    pub head: u64,
    pub tail: u64,
    /// Bytes that the call was asked to move.
    pub requested: u64,
    pub fault: bool,
}

/// `value`, at most `limit`. The compiler must not compare another copy of the value than the one that is used: kernels
/// before 6.8 do not know that a register and the place on the stack it was loaded from are the same. So it becomes one
/// that the compiler knows nothing of, in a register: `black_box` would pass it through memory.
#[inline(always)]
pub fn clamp(mut value: u64, limit: u64) -> u64 {
    // SAFETY: copies a register to itself.
    unsafe { asm!("{value} = {value}", value = inout(reg) value, options(pure, nomem, nostack)) };
    if value > limit { limit } else { value }
}

/// Copies `length` bytes from `source`.
#[inline(always)]
unsafe fn copy(target: *mut u8, length: u64, source: u64) -> bool {
    // SAFETY: the caller's promise that `target` has room; the helper checks `source`.
    unsafe { bpf_probe_read_user(target.cast(), length as u32, source as *const _) == 0 }
}

/// Captures from one stretch of memory that holds `total` bytes of the call.
///
/// # Safety
/// `target` has room for `CAPACITY` bytes, and for `HEAD_MAX + TAIL_MAX` if `CAPACITY` is at least `HEAD_MAX`.
#[inline(always)]
pub unsafe fn one<const CAPACITY: usize>(target: *mut u8, base: u64, requested: u64, total: u64) -> Captured {
    let limit = if CAPACITY >= HEAD_MAX { HEAD_MAX } else { CAPACITY } as u64;
    let head = clamp(total, limit);
    let mut captured = Captured { head, tail: 0, requested, fault: false };
    // SAFETY: at most `limit` bytes.
    if !unsafe { copy(target, head, base) } {
        return Captured { head: 0, fault: true, ..captured };
    }
    if CAPACITY >= HEAD_MAX && total > HEAD_MAX as u64 {
        let tail = clamp(total - HEAD_MAX as u64, TAIL_MAX as u64);
        // SAFETY: `HEAD_MAX + TAIL_MAX` bytes of room.
        if unsafe { copy(target.add(HEAD_MAX), tail, base.wrapping_add(total).wrapping_sub(tail)) } {
            captured.tail = tail;
        } else {
            captured.fault = true;
        }
    }
    captured
}

/// What a gather carries from iovec to iovec. It lives at the beginning of the reserved record, where the event's
/// fixed part comes later.
#[repr(C)]
struct Gather {
    cursor: u64,
    end: u64,
    /// Bytes of the call.
    total: u64,
    /// Bytes of the call before `cursor`.
    position: u64,
    head: u64,
    tail: u64,
    requested: u64,
    fault: u64,
}
const _: () = assert!(size_of::<Gather>() <= size_of::<SocketData>());

/// Captures from `count` iovecs at `vector` that hold `total` bytes of the call.
///
/// # Safety
/// `record` is a reserved `SocketDataRecord<CAPACITY>`; its fixed part is overwritten.
#[inline(always)]
pub unsafe fn many<const CAPACITY: usize>(record: *mut u8, vector: u64, count: u64, total: u64) -> Captured {
    let gather = record.cast::<Gather>();
    // SAFETY: room for it, as asserted above. The steps keep to the record.
    unsafe {
        gather.write(Gather {
            cursor: vector,
            end: vector.wrapping_add(count.wrapping_mul(16)),
            total,
            position: 0,
            head: 0,
            tail: 0,
            requested: 0,
            fault: 0,
        });
        let mut index = 0;
        while index < IOVECS_MAX {
            let ended = match CAPACITY {
                CAPTURE_SMALL => obs_gather_small(record.cast()),
                CAPTURE_MEDIUM => obs_gather_medium(record.cast()),
                _ => obs_gather_large(record.cast()),
            };
            if ended != 0 {
                break;
            }
            index += 1;
        }
        let Gather { position, head, tail, requested, fault, .. } = gather.read_volatile();
        // A tail counts only if it is whole and stands right behind a whole head.
        let tail = if head < HEAD_MAX as u64 || position < total { 0 } else { tail };
        Captured { head, tail, requested, fault: fault != 0 }
    }
}

/// One iovec into a small record; 1 ends the loop. A function of its own with global linkage: the verifier follows every
/// way through it once, and not once for each iovec and each way that leads to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn obs_gather_small(record: *mut SocketDataSmall) -> u32 {
    // SAFETY: `many` gives its record.
    if record.is_null() { 1 } else { unsafe { step(record) } }
}

/// See [`obs_gather_small`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn obs_gather_medium(record: *mut SocketDataMedium) -> u32 {
    // SAFETY: as there.
    if record.is_null() { 1 } else { unsafe { step(record) } }
}

/// See [`obs_gather_small`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn obs_gather_large(record: *mut SocketDataLarge) -> u32 {
    // SAFETY: as there.
    if record.is_null() { 1 } else { unsafe { step(record) } }
}

/// One iovec; 1 ends the loop.
#[inline(always)]
unsafe fn step<const CAPACITY: usize>(record: *mut SocketDataRecord<CAPACITY>) -> u32 {
    let half = (CAPACITY / 2) as u64;
    // SAFETY: the caller's record, which begins with `Gather`; the payload follows the fixed part.
    let (gather, target) = unsafe { (&mut *record.cast::<Gather>(), record.cast::<u8>().add(size_of::<SocketData>())) };
    if gather.cursor >= gather.end {
        return 1;
    }
    let mut iovec = [0u64; 2];
    // SAFETY: 16 bytes into 16 bytes.
    if !unsafe { copy((&raw mut iovec).cast(), 16, gather.cursor) } {
        gather.fault = 1;
        return 1;
    }
    gather.cursor += 16;
    let [base, length] = iovec;
    gather.requested = gather.requested.wrapping_add(length);
    let (position, total) = (gather.position, gather.total);
    if position >= total {
        return 0;
    }
    let rest = total - position;
    let length = if length < rest { length } else { rest };
    // A hole in the head ends it: what follows would be at the wrong place.
    if gather.head == position && position < half {
        let room = half - position;
        let size = clamp(if length < room { length } else { room }, half);
        let offset = clamp(position, half - 1);
        // SAFETY: `offset` and `size` are at most half of the room each.
        if !unsafe { copy(target.add(offset as usize), size, base) } {
            gather.fault = 1;
            return 1;
        }
        gather.head += size;
    }
    if CAPACITY / 2 >= HEAD_MAX && total > HEAD_MAX as u64 {
        let tail_begin = if total > (HEAD_MAX + TAIL_MAX) as u64 { total - TAIL_MAX as u64 } else { HEAD_MAX as u64 };
        if position + length > tail_begin {
            let begin = if position > tail_begin { position } else { tail_begin };
            let size = clamp(position + length - begin, TAIL_MAX as u64);
            let offset = clamp(begin - tail_begin, TAIL_MAX as u64 - 1);
            // SAFETY: `HEAD_MAX + TAIL_MAX + TAIL_MAX` bytes are within the room of `2 * HEAD_MAX`.
            if !unsafe { copy(target.add(HEAD_MAX + offset as usize), size, base.wrapping_add(begin - position)) } {
                gather.fault = 1;
                return 1;
            }
            gather.tail += size;
        }
    }
    gather.position = position + length;
    0
}
