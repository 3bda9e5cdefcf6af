//! Comparisons of times, on machines that others use, too.

/// How often a comparison is made at most.
const TRIES: usize = 3;

/// Makes a comparison of times until it holds, at most three times.
///
/// Whatever runs beside a test can take the CPU between any two stamps, and where the machine is a virtual one not even
/// its kernel can tell. What the observer does wrong, it does each time; such a pause does not come each time. What is
/// counted must be right the first time: where that is wrong, `compare` panics.
///
/// # Panics
/// With what `compare` said the last time.
pub fn settles(mut compare: impl FnMut() -> Result<(), String>) {
    for number in 1..=TRIES {
        match compare() {
            Ok(()) => return,
            Err(error) => println!("comparison {number} of at most {TRIES}: {error}"),
        }
    }
    panic!("none of {TRIES} comparisons held: see above");
}

/// Whether a time is within this share of what was told, or this many seconds.
///
/// # Errors
/// Names both.
pub fn near(what: &str, seen: f64, told: f64, share: f64, slack: f64) -> Result<(), String> {
    println!("{what}: seen {seen:.6}, told {told:.6}, {:+.1} %", 100.0 * (seen / told - 1.0));
    holds((seen - told).abs() <= (share * told).max(slack), || format!("{what}: seen {seen}, told {told}"))
}

/// An error, if this does not hold.
///
/// # Errors
/// Then.
pub fn holds(condition: bool, error: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(error()) }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::{TRIES, holds, near, settles};

    #[test]
    fn holds_in_the_end_or_fails() {
        let mut count = 0;
        settles(|| {
            count += 1;
            holds(count == TRIES, || "too early".to_owned())
        });
        assert_eq!(count, TRIES);
        assert!(catch_unwind(|| settles(|| near("time", 1.03, 1.0, 0.02, 0.0))).is_err());
        assert_eq!(near("time", 1.03, 1.0, 0.02, 0.05), Ok(()));
    }
}
