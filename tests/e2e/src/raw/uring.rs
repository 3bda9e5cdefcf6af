//! io_uring, as much of it as one send or receive at a time needs.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::socket::{Socket, poll};

const ENTRIES: u32 = 4;
const OFFSET_SQES: i64 = 0x1000_0000;
const OFFSET_CQ: i64 = 0x0800_0000;
const SEND: u8 = 26;
const RECV: u8 = 27;
/// The kernel's `IOSQE_ASYNC`: a worker of the kernel's own makes the call.
const ASYNC: u8 = 1 << 4;

/// `struct io_sqring_offsets` and `struct io_cqring_offsets`.
type Offsets = [u32; 10];

/// `struct io_uring_params`.
#[repr(C)]
#[derive(Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    reserved: [u32; 3],
    submission: Offsets,
    completion: Offsets,
}
const _: () = assert!(size_of::<Params>() == 120);

/// `struct io_uring_sqe`.
#[repr(C)]
struct Submission {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    offset: u64,
    address: u64,
    length: u32,
    call_flags: u32,
    user_data: u64,
    rest: [u64; 3],
}
const _: () = assert!(size_of::<Submission>() == 64);

#[derive(Debug)]
struct Mapping(*mut u8, usize);

impl Mapping {
    fn new(fd: i32, offset: i64, size: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a descriptor that is ours, at an address of the kernel's choice.
        let at = unsafe { libc::mmap(ptr::null_mut(), size, protection, libc::MAP_SHARED, fd, offset) };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(at.cast(), size)) }
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        assert!(offset as usize + 4 <= self.1);
        // SAFETY: within the mapping, aligned as the kernel's offsets are, shared with the kernel and thus atomic.
        unsafe { AtomicU32::from_ptr(self.0.add(offset as usize).cast()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no reference to it outlives it.
        unsafe { libc::munmap(self.0.cast(), self.1) };
    }
}

/// Which call, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// At once if possible, else when the socket is ready, as work inside some call of this thread.
    Inline,
    /// By a worker thread of the kernel.
    Worker,
}

/// A ring.
#[derive(Debug)]
pub struct Ring {
    fd: OwnedFd,
    submission: Mapping,
    completion: Mapping,
    entries: Mapping,
    /// `sq_off`: tail, ring_mask, array; `cq_off`: head, tail, ring_mask, cqes.
    offsets: [u32; 7],
}

impl Ring {
    /// A new ring.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn new() -> io::Result<Self> {
        let mut params = Params::default();
        // SAFETY: the parameters are valid and writable.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, &raw mut params) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let (submission, completion) = (params.submission, params.completion);
        let sizes = (
            submission[6] as usize + params.sq_entries as usize * 4,
            completion[5] as usize + params.cq_entries as usize * 16,
            params.sq_entries as usize * size_of::<Submission>(),
        );
        Ok(Self {
            submission: Mapping::new(fd.as_raw_fd(), 0, sizes.0)?,
            completion: Mapping::new(fd.as_raw_fd(), OFFSET_CQ, sizes.1)?,
            entries: Mapping::new(fd.as_raw_fd(), OFFSET_SQES, sizes.2)?,
            offsets: [
                submission[1],
                submission[2],
                submission[6],
                completion[0],
                completion[1],
                completion[2],
                completion[5],
            ],
            fd,
        })
    }

    fn submit(&self, opcode: u8, mode: Mode, socket: &Socket, address: u64, length: usize) {
        let [tail, mask, array, ..] = self.offsets;
        let place = self.submission.word(tail).load(Ordering::Acquire);
        let index = place & self.submission.word(mask).load(Ordering::Relaxed);
        let entry = Submission {
            opcode,
            flags: if mode == Mode::Worker { ASYNC } else { 0 },
            priority: 0,
            fd: socket.as_raw_fd(),
            offset: 0,
            address,
            length: length as u32,
            call_flags: 0,
            user_data: 0,
            rest: [0; 3],
        };
        // SAFETY: the index is masked to the ring's size; the kernel reads it only after the tail has moved.
        unsafe { self.entries.0.cast::<Submission>().add(index as usize).write(entry) };
        self.submission.word(array + index * 4).store(index, Ordering::Relaxed);
        self.submission.word(tail).store(place.wrapping_add(1), Ordering::Release);
        // SAFETY: no signal set is given; the buffer named by the entry lives until it is completed (see callers).
        let taken = unsafe {
            libc::syscall(libc::SYS_io_uring_enter, self.fd.as_raw_fd(), 1, 0, 0, ptr::null::<libc::sigset_t>(), 0)
        };
        assert_eq!(taken, 1, "io_uring_enter: {}", io::Error::last_os_error());
    }

    /// Waits for a completion and returns its result.
    ///
    /// # Panics
    /// If none comes within five seconds.
    fn complete(&self) -> i32 {
        let [_, _, _, head, tail, mask, entries] = self.offsets;
        let place = self.completion.word(head).load(Ordering::Relaxed);
        if self.completion.word(tail).load(Ordering::Acquire) == place {
            assert!(poll(self.fd.as_raw_fd(), libc::POLLIN, Duration::from_secs(5)), "io_uring completes nothing");
        }
        let index = place & self.completion.word(mask).load(Ordering::Relaxed);
        let result = self.completion.word(entries + index * 16 + 8).load(Ordering::Acquire);
        self.completion.word(head).store(place.wrapping_add(1), Ordering::Release);
        result.cast_signed()
    }

    /// Sends all bytes.
    ///
    /// # Panics
    /// If the kernel takes fewer.
    pub fn send(&self, socket: &Socket, bytes: &[u8], mode: Mode) {
        self.submit(SEND, mode, socket, bytes.as_ptr() as u64, bytes.len());
        assert_eq!(self.complete(), bytes.len() as i32, "a short send by io_uring");
    }

    /// Begins to receive, runs `meanwhile` (which must make data come), and returns what came: at most `count` bytes.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn recv(&self, socket: &Socket, count: usize, mode: Mode, meanwhile: impl FnOnce()) -> Vec<u8> {
        // The kernel writes into it until the completion: leaked rather than freed if anything panics before that.
        let mut buffer = std::mem::ManuallyDrop::new(vec![0_u8; count]);
        self.submit(RECV, mode, socket, buffer.as_mut_ptr() as u64, count);
        meanwhile();
        let result = self.complete();
        let mut buffer = std::mem::ManuallyDrop::into_inner(buffer);
        buffer.truncate(usize::try_from(result).unwrap_or_else(|_| panic!("io_uring receive: {result}")));
        buffer
    }
}
