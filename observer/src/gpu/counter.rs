//! Totals that survive a driver that starts over.

/// How many lower readings in a row are believed: a single one is a slip of the driver, and taking it for a new start
/// would count everything twice.
const BELIEVED: u32 = 3;

/// A total made of a counter that may begin at zero again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// What was counted before the counter began again.
    base: u64,
    last: Option<u64>,
    /// Lower readings in a row.
    lower: u32,
}

impl Total {
    /// Takes a reading of a counter that begins again with the driver; gives the total, which never falls.
    pub fn read(&mut self, reading: u64) -> u64 {
        let Some(last) = self.last else { return self.accept(reading) };
        if reading >= last {
            return self.accept(reading);
        }
        self.lower += 1;
        if self.lower < BELIEVED { self.base.saturating_add(last) } else { self.start_over(reading) }
    }

    /// Takes a reading of a counter that wraps often: lower is later. What it counted until it wrapped is not known, and
    /// left out.
    pub fn read_wrapping(&mut self, reading: u64) -> u64 {
        if self.last.is_some_and(|last| reading < last) { self.start_over(reading) } else { self.accept(reading) }
    }

    /// The driver was opened anew: a lower reading is a new start.
    pub fn reopened(&mut self) {
        self.lower = BELIEVED;
    }

    fn start_over(&mut self, reading: u64) -> u64 {
        self.base = self.base.saturating_add(self.last.unwrap_or(0));
        self.accept(reading)
    }

    fn accept(&mut self, reading: u64) -> u64 {
        self.last = Some(reading);
        self.lower = 0;
        self.base.saturating_add(reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_changes_nothing() {
        let mut total = Total::default();
        assert_eq!([100, 0, 110, 3, 4, 120].map(|reading| total.read(reading)), [100, 100, 110, 110, 110, 120]);
    }

    #[test]
    fn a_new_start_adds_up() {
        let mut total = Total::default();
        assert_eq!([100, 1, 2, 3, 10].map(|reading| total.read(reading)), [100, 100, 100, 103, 110]);
        total.reopened();
        assert_eq!([4, 6].map(|reading| total.read(reading)), [114, 116]);
        total.reopened();
        assert_eq!(total.read(7), 117, "a driver that went on is no new start");
    }

    #[test]
    fn a_wrapped_counter_goes_on() {
        let mut total = Total::default();
        assert_eq!([5, 9, 2, 4].map(|reading| total.read_wrapping(reading)), [5, 9, 11, 13]);
    }
}
