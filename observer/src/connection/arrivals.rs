//! When received bytes were queued on the server's socket, by position in the stream.

use std::collections::VecDeque;

use crate::time::KernelTime;

/// Most stamps kept per connection: the kernel side keeps fewer per socket.
pub const STAMPS: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Stamp {
    begin: u64,
    end: u64,
    time: KernelTime,
}

/// The stamps of bytes that were not delivered yet.
#[derive(Debug, Default)]
pub struct Arrivals {
    stamps: VecDeque<Stamp>,
}

impl Arrivals {
    /// Bytes `[begin, end)` were queued at `time`.
    pub fn insert(&mut self, begin: u64, end: u64, time: KernelTime) {
        if begin >= end {
            return;
        }
        if self.stamps.len() >= STAMPS {
            self.stamps.pop_front();
        }
        let index = self.stamps.partition_point(|stamp| stamp.begin <= begin);
        self.stamps.insert(index, Stamp { begin, end, time });
    }

    /// When the byte at `position` was queued, if that is known.
    #[must_use]
    pub fn at(&self, position: u64) -> Option<KernelTime> {
        self.stamps.iter().find(|stamp| (stamp.begin..stamp.end).contains(&position)).map(|stamp| stamp.time)
    }

    /// Forgets what lies wholly before `position`.
    pub fn forget_before(&mut self, position: u64) {
        while self.stamps.front().is_some_and(|stamp| stamp.end <= position) {
            self.stamps.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_is_that_of_the_segment_which_holds_the_byte() {
        let time = KernelTime::from_nanos;
        let mut arrivals = Arrivals::default();
        arrivals.insert(10, 20, time(2));
        arrivals.insert(0, 10, time(1));
        assert_eq!(arrivals.at(0), Some(time(1)));
        assert_eq!(arrivals.at(9), Some(time(1)));
        assert_eq!(arrivals.at(10), Some(time(2)));
        assert_eq!(arrivals.at(20), None);
        arrivals.forget_before(10);
        assert_eq!(arrivals.at(9), None);
        for n in 0..1000 {
            arrivals.insert(n, n + 1, time(n));
        }
        assert!(arrivals.stamps.len() <= STAMPS);
    }
}
