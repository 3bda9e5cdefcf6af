//! Waits that end: no test may hang.

use std::{
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

/// How long to wait for something that should happen at once.
pub const SOON: Duration = Duration::from_secs(10);

/// How many times as long as usual to wait, where everything is slow: emulated machines set it.
static PATIENCE: LazyLock<u32> = LazyLock::new(|| {
    let value = std::env::var("OBSERVER_PATIENCE").unwrap_or_else(|_| "1".to_owned());
    value.parse().unwrap_or_else(|_| panic!("OBSERVER_PATIENCE={value} is no whole number"))
});

/// How many times as slow as usual everything is here; 1 but on emulated machines.
#[must_use]
pub fn slowness() -> u32 {
    *PATIENCE
}

/// Polls until `poll` yields a value; `None` once `limit` has passed.
pub fn try_until<T>(limit: Duration, mut poll: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit * *PATIENCE;
    loop {
        if let Some(value) = poll() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Polls until `poll` yields a value.
///
/// # Panics
/// Once `limit` has passed, naming `what` was awaited.
pub fn until<T>(what: &str, limit: Duration, poll: impl FnMut() -> Option<T>) -> T {
    try_until(limit, poll).unwrap_or_else(|| panic!("waited {limit:?} in vain for {what}"))
}
