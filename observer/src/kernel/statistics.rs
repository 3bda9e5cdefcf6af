//! What programs cost, as the kernel counts it while somebody has it do so.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};

use super::error::chain;

/// 1: they are on for everybody, whoever holds them or not.
const SETTING: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// One program's cost, counted while statistics are on; recursion misses always are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeCost {
    /// Times it ran.
    pub runs: u64,
    /// Nanoseconds it took in all.
    pub nanoseconds: u64,
    /// Times it was skipped, since it would have interrupted itself.
    pub recursion_misses: u64,
}

impl ProbeCost {
    /// What was added since an earlier look.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            runs: self.runs.saturating_sub(earlier.runs),
            nanoseconds: self.nanoseconds.saturating_sub(earlier.nanoseconds),
            recursion_misses: self.recursion_misses.saturating_sub(earlier.recursion_misses),
        }
    }

    fn parse(fdinfo: &str) -> Self {
        let value = |key: &str| {
            fdinfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')?.trim().parse().ok()).unwrap_or(0)
        };
        Self { runs: value("run_cnt"), nanoseconds: value("run_time_ns"), recursion_misses: value("recursion_misses") }
    }
}

/// Of an open program: from its `fdinfo`, since aya has no accessor for recursion misses.
///
/// # Errors
/// If that cannot be read.
pub fn read(program: BorrowedFd<'_>) -> io::Result<ProbeCost> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    Ok(ProbeCost::parse(&text))
}

/// Of loaded programs with these ids, whoever loaded them, in the order of `ids`; `None`: it is gone.
///
/// # Errors
/// If programs may not be listed or opened, which takes `CAP_SYS_ADMIN`.
pub fn of_programs(ids: &[u32]) -> io::Result<Vec<Option<ProbeCost>>> {
    let failed = |error: &dyn std::error::Error| io::Error::other(chain(error));
    let mut costs = vec![None; ids.len()];
    for program in loaded_programs() {
        let program = program.map_err(|error| failed(&error))?;
        let Some(at) = ids.iter().position(|id| *id == program.id()) else { continue };
        // It may have gone since it was listed.
        if let Ok(fd) = program.fd() {
            costs[at] = Some(read(std::os::fd::AsFd::as_fd(&fd))?);
        }
    }
    Ok(costs)
}

/// Statistics, on for as long as this lives (`BPF_ENABLE_STATS`, since Linux 5.8): the kernel counts who holds them, so
/// that they end with the process at the latest, and the sysctl is left alone.
#[derive(Debug)]
pub struct Statistics(#[expect(dead_code, reason = "held, and closed at the end")] OwnedFd);

impl Statistics {
    /// Turns them on.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`, or before Linux 5.8.
    pub fn enable() -> io::Result<Self> {
        enable_stats(Stats::RunTime).map(Self).map_err(|error| error.io_error)
    }
}

/// Whether the sysctl keeps them on.
#[must_use]
pub fn are_on_for_everybody() -> bool {
    fs::read_to_string(SETTING).is_ok_and(|text| text.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_fdinfo_and_subtracted() {
        let text =
            "pos:\t0\nprog_type:\t26\nrun_time_ns:\t5120\nrun_cnt:\t40\nrecursion_misses:\t3\nverified_insns:\t9\n";
        let cost = ProbeCost::parse(text);
        assert_eq!(cost, ProbeCost { runs: 40, nanoseconds: 5120, recursion_misses: 3 });
        let earlier = ProbeCost { runs: 10, nanoseconds: 1120, recursion_misses: 3 };
        assert_eq!(cost.since(earlier), ProbeCost { runs: 30, nanoseconds: 4000, recursion_misses: 0 });
        assert_eq!(ProbeCost::parse(""), ProbeCost::default());
    }
}
