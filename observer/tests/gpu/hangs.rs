//! Calls that do not return: they hold up nobody else, and when they return all is as it was.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use fake_nvml::control::Fake;
use observer::gpu::{NoAnswer, State};

use crate::harness::{Folder, Host, SOON, TIMING, count};

/// Longer than any test.
const FOR_EVER: &str = "30000";

#[test]
fn a_hanging_call_drops_the_gauges_and_holds_up_nobody() {
    let mut host = Host::new(&[("gpus", "8"), ("gpu0.xid", "31")]);
    host.until_value("gpu_xid_errors_total{gpu=\"0\",xid=\"31\"}", 1.0);
    host.until("GPUs", |scrape| count(scrape, "gpu_power_watts") == 8);
    host.set(&[("nvmlDeviceGetPowerUsage.delay_ms", FOR_EVER)]);
    let mut times = Vec::new();
    let start = Instant::now();
    loop {
        let before = Instant::now();
        let scrape = host.scrape();
        times.push(before.elapsed());
        if scrape["gpu_driver_unresponsive"] == 1.0 {
            break;
        }
        assert!(start.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(start.elapsed() > TIMING.unresponsive / 2, "not before its time");
    times.sort();
    // Any of them may have waited for a CPU; none did for the driver. End-to-end tests are stricter.
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    assert!(median < Duration::from_millis(20) && slowest < Duration::from_secs(2), "{median:?} {slowest:?}");
    let scrape = host.scrape();
    assert_eq!((scrape["gpu_available"], count(&scrape, "gpu_up")), (0.0, 8));
    assert_eq!(host.value("gpu_up{gpu=\"3\"}"), Some(0.0));
    assert_eq!(count(&scrape, "gpu_power_watts") + count(&scrape, "gpu_energy_joules_total"), 0);
    assert_eq!(host.value("gpu_xid_errors_total{gpu=\"0\",xid=\"31\"}"), Some(1.0));
    assert_eq!(host.gpus.release(Duration::from_millis(100)), Err(NoAnswer));
    // It returns: first what was asked for meanwhile, then all is as it was.
    host.set(&[("nvmlDeviceGetPowerUsage.delay_ms", "")]);
    host.until_state("release", |state| *state == State::Released);
    assert_eq!(host.gpus.acquire(SOON), Ok(State::Up));
    host.until_value("gpu_driver_unresponsive", 0.0);
    host.until("gauges", |scrape| count(scrape, "gpu_power_watts") == 8);
}

/// Every call that a poll makes, as the library was asked for them: whichever hangs, it is the same.
#[test]
fn whichever_call_of_a_poll_hangs() {
    let folder = Folder::new();
    let log = folder.path().join("calls");
    let mut fake = Fake::new(folder.path()).expect("a fake");
    let rich = [("gpu0.gpm2", "50"), ("gpu0.procs", "4242:1"), ("gpu0.proc_util", "4242:7:7"), ("gpu1.procs", "7:1")];
    fake.set(&rich).expect("a state");
    let mut host = Host::of(folder, fake, TIMING);
    host.until_value("gpu_sm_active_ratio{gpu=\"0\"}", 0.5);
    // From here on only polls, of both groups.
    host.set(&[("log", log.to_str().expect("plain"))]);
    std::thread::sleep(TIMING.slow_interval * 2);
    host.settle();
    host.set(&[("log", "")]);
    let calls = fs::read_to_string(log).expect("a log");
    // That one is waited in by the thread of XID errors.
    let calls: BTreeSet<_> = calls.lines().filter(|call| *call != "nvmlEventSetWait_v2").collect();
    assert!(calls.len() >= 18 && calls.contains("nvmlGpmSampleGet"), "{calls:#?}");
    for call in calls {
        let delay = format!("{call}.delay_ms");
        host.set(&[(&delay, FOR_EVER)]);
        let scrape = host.until(&format!("word of {call}"), |scrape| scrape["gpu_driver_unresponsive"] == 1.0);
        let values = scrape.keys().filter(|series| !series.starts_with("gpu_up{") && series.contains("gpu=\""));
        assert!(values.clone().all(|series| series.starts_with("gpu_xid_errors_total{")), "{call}: {scrape:#?}");
        host.set(&[(&delay, "")]);
        host.until_value("gpu_driver_unresponsive", 0.0);
        host.until_value("gpu_sm_active_ratio{gpu=\"0\"}", 0.5);
    }
}

/// The thread of XID errors is another one: values go on. Only letting the driver go has to wait for it.
#[test]
fn a_wait_for_xid_errors_that_hangs() {
    let mut host = Host::new(&[("gpu0.power_mw", "1000")]);
    host.until_value("gpu_xid_errors_total{gpu=\"0\",xid=\"79\"}", 0.0);
    host.set(&[("nvmlEventSetWait_v2.delay_ms", FOR_EVER)]);
    std::thread::sleep(TIMING.unresponsive * 2);
    host.set(&[("gpu0.power_mw", "2000")]);
    host.until_value("gpu_power_watts{gpu=\"0\"}", 2.0);
    assert_eq!(host.value("gpu_driver_unresponsive"), Some(0.0));
    assert_eq!(host.gpus.release(Duration::from_millis(200)), Err(NoAnswer));
    host.until_value("gpu_driver_unresponsive", 1.0);
    host.set(&[("nvmlEventSetWait_v2.delay_ms", "")]);
    host.until_state("release", |state| *state == State::Released);
    assert!(!host.is_loaded());
    assert_eq!(host.gpus.acquire(SOON), Ok(State::Up));
}

/// No call takes too long, and all of them together do.
#[test]
fn a_driver_that_is_far_too_slow_has_no_values() {
    let mut host = Host::new(&[("gpus", "8")]);
    host.until("GPUs", |scrape| count(scrape, "gpu_power_watts") == 8);
    host.set(&[("nvmlDeviceGetPowerUsage.delay_ms", "250")]);
    host.until_value("gpu_driver_unresponsive", 1.0);
    assert_eq!(count(&host.scrape(), "gpu_power_watts"), 0);
    host.set(&[("nvmlDeviceGetPowerUsage.delay_ms", "")]);
    host.until("GPUs", |scrape| count(scrape, "gpu_power_watts") == 8);
}

#[test]
fn an_end_does_not_wait_for_a_hanging_call() {
    for call in ["nvmlDeviceGetUtilizationRates", "nvmlEventSetWait_v2", "nvmlShutdown"] {
        let mut host = Host::new(&[]);
        host.until_value("gpu_xid_errors_total{gpu=\"0\",xid=\"79\"}", 0.0);
        let delay = format!("{call}.delay_ms");
        host.set(&[(&delay, FOR_EVER)]);
        std::thread::sleep(TIMING.interval * 3);
        let start = Instant::now();
        assert!(!host.gpus.stop(Duration::from_millis(200)), "{call}: it was left behind");
        assert!(start.elapsed() < Duration::from_millis(400), "{call}");
        host.set(&[(&delay, "")]);
    }
}
