//! What dashboards show and a test host has no samples of: the one list of it. Tests of every other query demand some.

/// A family without samples.
pub(crate) struct Absent {
    /// Its name.
    pub(crate) family: &'static str,
    /// Whether the table of families has it.
    pub(crate) registered: bool,
    /// Why there are none.
    pub(crate) reason: &'static str,
}

const fn absent(family: &'static str, registered: bool, reason: &'static str) -> Absent {
    Absent { family, registered, reason }
}

/// All of them.
pub(crate) static ABSENT: &[Absent] = &[
    absent("observer_probe_runs_total", true, "the kernel's BPF statistics are off, and not for a test to turn on"),
    absent("observer_probe_run_seconds_total", true, "as observer_probe_runs_total"),
];
