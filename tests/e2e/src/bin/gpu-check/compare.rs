//! Whether what one says lies within what the other said around that time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A value, and when it was known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    pub(crate) value: f64,
}

/// Values by GPU (its UUID) and by name.
pub(crate) type Series = BTreeMap<(String, String), Vec<Sample>>;

/// Of values that were looked at: how many there were, and those that lie outside, with the bounds.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) checked: usize,
    pub(crate) outside: Vec<(f64, f64, f64)>,
}

impl Verdict {
    /// One in twenty may be outside: the two do not look at the same moments.
    pub(crate) fn passes(&self) -> bool {
        self.checked > 0 && self.outside.len() * 20 <= self.checked
    }
}

const MIB: f64 = 1_048_576.0;

/// By how much a value may differ, in its unit and as a part of itself: what changes within a moment differs between two
/// that look in turn. Counters and what hardly ever changes may not.
pub(crate) fn tolerance(name: &str) -> (f64, f64) {
    match name.split('{').next().unwrap_or_default() {
        "gpu_utilization_ratio" | "gpu_memory_bandwidth_utilization_ratio" => (0.05, 0.0),
        "gpu_process_sm_utilization_ratio" => (0.1, 0.0),
        // Not the same stretch of time.
        "gpu_sm_active_ratio" | "gpu_sm_occupancy_ratio" | "gpu_tensor_active_ratio" | "gpu_dram_active_ratio" => {
            (0.15, 0.0)
        }
        "gpu_power_watts" => (5.0, 0.05),
        "gpu_clock_hertz" => (30e6, 0.05),
        "gpu_temperature_celsius" => (2.0, 0.0),
        "gpu_memory_used_bytes" | "gpu_process_memory_bytes" => (64.0 * MIB, 0.0),
        "gpu_memory_total_bytes" => (MIB, 0.0),
        "gpu_power_limit_watts" => (0.01, 0.0),
        _ => (1e-6, 1e-9),
    }
}

/// Who is slow at telling is waited for this long, so that a counter has a bound on either side.
const SLOWLY: Duration = Duration::from_secs(2);

/// Looks at each of `seen`: whether it lies within what was told from `back` before it to `ahead` after it, and next before
/// and after that. Where nothing was, it is passed over.
pub(crate) fn compare(name: &str, seen: &[Sample], told: &[Sample], back: Duration, ahead: Duration) -> Verdict {
    let (absolute, relative) = tolerance(name);
    let mut verdict = Verdict::default();
    for sample in seen {
        let (from, to) = (sample.at.checked_sub(back), sample.at + ahead);
        let is_before = |other: &&Sample| from.is_some_and(|from| other.at < from);
        let before = told.iter().rfind(is_before).filter(|other| other.at + back + SLOWLY >= sample.at);
        let after = told.iter().find(|other| other.at > to).filter(|other| other.at <= to + SLOWLY);
        let within = told.iter().filter(|other| !is_before(other) && other.at <= to);
        let near: Vec<f64> = within.chain(before).chain(after).map(|other| other.value).collect();
        let (low, high) = near.iter().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
        if near.is_empty() {
            continue;
        }
        verdict.checked += 1;
        let room = absolute + relative * high.abs();
        if sample.value < low - room || sample.value > high + room {
            verdict.outside.push((sample.value, low, high));
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(begin: Instant, values: &[(u64, f64)]) -> Vec<Sample> {
        values.iter().map(|(ms, value)| Sample { at: begin + Duration::from_millis(*ms), value: *value }).collect()
    }

    #[test]
    fn a_value_of_a_moment_ago_is_right_and_an_older_one_is_not() {
        let begin = Instant::now();
        let told = samples(begin, &[(0, 100.0), (1000, 200.0), (2000, 300.0), (3000, 400.0)]);
        let seen = samples(begin, &[(2500, 300.0), (2600, 200.0), (3000, 100.0), (3000, 401.0), (9000, 1.0)]);
        let (back, ahead) = (Duration::from_millis(1700), Duration::from_millis(100));
        let verdict = compare("gpu_energy_joules_total", &seen, &told, back, ahead);
        assert_eq!(verdict, Verdict { checked: 4, outside: vec![(100.0, 200.0, 400.0), (401.0, 200.0, 400.0)] });
        assert!(!verdict.passes());
    }

    #[test]
    fn a_counter_is_bound_by_what_is_told_late() {
        let begin = Instant::now();
        let told = samples(begin, &[(0, 100.0), (1500, 200.0), (3000, 300.0)]);
        let seen = samples(begin, &[(2000, 230.0), (2000, 310.0)]);
        let verdict =
            compare("gpu_energy_joules_total", &seen, &told, Duration::from_millis(100), Duration::from_millis(100));
        assert_eq!(verdict, Verdict { checked: 2, outside: vec![(310.0, 200.0, 300.0)] });
    }

    #[test]
    fn what_changes_has_room_and_what_counts_has_none() {
        let begin = Instant::now();
        let (seen, told) = (samples(begin, &[(0, 104.0)]), samples(begin, &[(0, 100.0)]));
        let passes = |name| compare(name, &seen, &told, Duration::ZERO, Duration::ZERO).passes();
        assert!(passes("gpu_power_watts") && !passes("gpu_energy_joules_total") && !passes("gpu_temperature_celsius"));
        assert!(!Verdict::default().passes(), "nothing was looked at");
    }

    #[test]
    fn one_in_twenty_may_be_outside() {
        let verdict = |checked, outside| Verdict { checked, outside: vec![(0.0, 1.0, 1.0); outside] };
        assert!(verdict(20, 1).passes() && !verdict(19, 1).passes() && !verdict(40, 3).passes());
    }
}
