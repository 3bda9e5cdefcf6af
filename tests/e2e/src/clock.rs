//! Clocks, and moments between two readings of them.

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid, writable timespec.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "clock_gettime failed");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// `CLOCK_MONOTONIC` in nanoseconds: the clock of the request log.
#[must_use]
pub fn monotonic() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// `CLOCK_REALTIME` in nanoseconds: the clock of packet stamps.
#[must_use]
pub fn realtime() -> u64 {
    read(libc::CLOCK_REALTIME)
}

/// `CLOCK_REALTIME - CLOCK_MONOTONIC`, from the tightest of many readings, and half that reading's width: both in
/// nanoseconds.
#[must_use]
pub fn offset() -> (i64, u64) {
    let mut best = (0, u64::MAX);
    for _ in 0..200 {
        let before = monotonic();
        let real = realtime();
        let after = monotonic();
        let half = (after - before) / 2;
        if half < best.1 {
            best = (real as i64 - (before + half) as i64, half);
        }
    }
    best
}

/// When a call was made: its begin and its end on `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Read before the call.
    pub from: u64,
    /// Read after the call.
    pub to: u64,
}

impl Mark {
    /// Whether the moment lies within the call.
    #[must_use]
    pub fn holds(&self, time: u64) -> bool {
        (self.from..=self.to).contains(&time)
    }

    /// Demands that a stamp is there and lies within the call.
    ///
    /// # Panics
    /// If it does not, naming `what`.
    pub fn expect(&self, time: Option<u64>, what: &str) {
        let time = time.unwrap_or_else(|| panic!("{what}: no stamp, expected {self:?}"));
        let late = time as i64 - self.to as i64;
        let early = self.from as i64 - time as i64;
        assert!(self.holds(time), "{what}: {time} is not within {self:?} (early by {early}, late by {late} ns)");
    }
}

/// Runs `call` between two readings of the clock.
pub fn timed<T>(call: impl FnOnce() -> T) -> (T, Mark) {
    let from = monotonic();
    let value = call();
    (value, Mark { from, to: monotonic() })
}
