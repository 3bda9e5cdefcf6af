//! A wall clock that is set, on a machine of the test's own.

use std::{io, thread, time::Duration};

use observer_e2e::{clock, require};

use super::scene::{Scene, losses};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Sets the wall clock by so many seconds.
fn step(seconds: i64) {
    let now = clock::realtime() as i64 + seconds * 1_000_000_000;
    let time = libc::timespec { tv_sec: now / 1_000_000_000, tv_nsec: now % 1_000_000_000 };
    // SAFETY: a valid time.
    let result = unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) };
    assert_eq!(result, 0, "setting the clock: {}", io::Error::last_os_error());
}

/// No time that is measured follows the wall clock, and what the log says of it does.
#[test]
fn the_wall_clock_is_set() {
    // It is everybody's: `cargo xtask vm` has machines whose clock is the test's.
    require!(own_clock, kernel, sample);
    let mut scene = Scene::new();
    let before = scene.observer.metrics().sum("llm_requests_total", &[]);
    let load = scene.load(&["--concurrency", "4", "--for", "8s"]);
    let mut set = 0;
    for seconds in [HOUR, -2 * HOUR, 2 * DAY, -DAY] {
        thread::sleep(Duration::from_millis(1500));
        step(seconds);
        set += seconds;
    }
    let clients = load.lines();
    let tally = scene.compare_whole(&clients);
    let metrics = scene.observer.metrics();
    assert!(losses(&metrics).is_empty());
    let told = scene.lines().iter().filter_map(|line| line.wall_time.as_ref()?.as_str().map(str::to_owned)).next_back();
    let told = humantime::parse_rfc3339(&told.expect("a time")).expect("RFC 3339");
    let ago = std::time::SystemTime::now().duration_since(told).unwrap_or_default();
    println!("the last of them is {ago:?} old by the wall clock");
    // A day is longer than series stay without use.
    assert_eq!(metrics.sum("llm_requests_total", &[]), before + tally.asked as f64);
    scene.ends(&format!("set by {set} s in all, {} requests measured, none missing", tally.measured));
    step(-set);
}
