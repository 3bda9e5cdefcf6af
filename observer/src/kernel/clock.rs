//! The kernel's monotonic clock against the wall clock.

use std::time::{Duration, SystemTime};

use crate::time::KernelTime;

/// Reads one of the kernel's clocks, nanoseconds.
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid pointer; these clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Now, on the clock of all events.
#[must_use]
pub fn now() -> KernelTime {
    KernelTime::from_nanos(read(libc::CLOCK_MONOTONIC))
}

/// CPU time of this thread.
#[must_use]
pub fn thread_time() -> Duration {
    Duration::from_nanos(read(libc::CLOCK_THREAD_CPUTIME_ID))
}

/// The wall-clock time of a kernel time, by the clocks' present distance. Call it soon after the event: the wall
/// clock may be set or slewed.
#[must_use]
pub fn wall_time(time: KernelTime) -> SystemTime {
    let before = read(libc::CLOCK_MONOTONIC);
    let wall = read(libc::CLOCK_REALTIME);
    let after = read(libc::CLOCK_MONOTONIC);
    let offset = i128::from(wall) - i128::from(before.midpoint(after));
    let nanoseconds = u64::try_from(i128::from(time.as_nanos()) + offset).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_of_now_is_now() {
        let (a, b) = (wall_time(now()), SystemTime::now());
        let distance = b.duration_since(a).unwrap_or_else(|error| error.duration());
        assert!(distance < Duration::from_millis(50), "{distance:?}");
        assert!(wall_time(now() + Duration::from_secs(10)) > a + Duration::from_secs(9));
    }
}
