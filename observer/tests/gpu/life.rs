//! Letting go of the driver and taking it back; drivers that change underneath; totals.

use std::{collections::BTreeMap, fs};

use fake_nvml::control::Fake;
use observer::gpu::{State, nvml::Options};

use crate::harness::{Folder, Host, SOON, TIMING, count};

#[test]
fn released_nothing_of_the_driver_is_left() {
    let mut host = Host::new(&[("gpu0.energy_mj", "1000"), ("gpu0.gpm2", "50"), ("gpu0.xid", "31")]);
    host.until_value("gpu_sm_active_ratio{gpu=\"0\"}", 0.5);
    host.until_value("gpu_xid_errors_total{gpu=\"0\",xid=\"31\"}", 1.0);
    assert!(host.is_loaded());
    assert_eq!(host.gpus.release(SOON), Ok(State::Released));
    assert!(!host.is_loaded(), "a driver can be unloaded only if nobody has its library open");
    let scrape = host.scrape();
    assert_eq!((scrape["gpu_available"], scrape["gpu_driver_unresponsive"]), (0.0, 0.0));
    assert_eq!((count(&scrape, "gpu_up"), count(&scrape, "gpu_energy_joules_total")), (0, 0));
    assert_eq!(host.value("gpu_xid_errors_total{gpu=\"0\",xid=\"31\"}"), Some(1.0));
    // Again: it is so already. And it stays so.
    assert_eq!(host.gpus.release(SOON), Ok(State::Released));
    std::thread::sleep(TIMING.absent * 3);
    assert!(!host.is_loaded());
    host.set(&[("gpu0.energy_mj", "4000"), ("gpu0.xid", "")]);
    assert_eq!(host.gpus.acquire(SOON), Ok(State::Up));
    assert_eq!(host.value("gpu_energy_joules_total{gpu=\"0\"}"), Some(4.0));
    assert_eq!(host.gpus.acquire(SOON), Ok(State::Up), "it was not let go");
}

/// As seen from a container that has the host's root mounted: the driver is another container's.
#[test]
fn the_library_of_a_driver_container_is_found() {
    let folder = Folder::new();
    let root = folder.path().to_owned();
    let place = root.join("run/nvidia/driver/usr/lib/x86_64-linux-gnu");
    fs::create_dir_all(&place).expect("a folder");
    let mut fake = Fake::new(&place).expect("a fake");
    fake.set(&[("gpu0.procs", "8:1"), ("gpu0.gpm2", "50")]).expect("a state");
    let library = fake.library().to_owned();
    let options = Options { library: None, host_root: Some(root), processes: false, gpm: false };
    let host = Host::with(folder, fake, TIMING, options);
    host.until_up();
    let view = host.gpus.view();
    assert_eq!(view.snapshot.driver.as_ref().map(|driver| &driver.library), Some(&library));
    // What costs and was left out has no sample.
    host.settle();
    let scrape = host.scrape();
    assert_eq!(count(&scrape, "gpu_process_memory_bytes") + count(&scrape, "gpu_sm_active_ratio"), 0);
}

#[test]
fn what_comes_of_taking_back_is_said() {
    let mut host = Host::new(&[]);
    host.until_up();
    assert_eq!(host.gpus.release(SOON), Ok(State::Released));
    host.set(&[("init.ret", "9")]);
    assert!(matches!(host.gpus.acquire(SOON), Ok(State::Absent(_))));
    host.set(&[("init.ret", "")]);
    host.until_up();
}

/// The loaded library is of the old driver and answers nothing any more; only when it is unloaded, with all that came
/// of it, is the new one loaded.
#[test]
fn a_driver_upgrade_under_a_live_handle() {
    let mut host = Host::new(&[("driver", "570.124.06"), ("gpu0.gpm2", "50"), ("gpu0.energy_mj", "9000")]);
    host.until_value("gpu_sm_active_ratio{gpu=\"0\"}", 0.5);
    host.set(&[("driver", "580.95.05"), ("gpu0.energy_mj", "10")]);
    host.until("the new driver", |scrape| scrape.keys().any(|series| series.contains("driver=\"580.95.05\"")));
    assert!(!host.scrape().keys().any(|series| series.contains("driver=\"570")));
    assert_eq!(host.value("gpu_energy_joules_total{gpu=\"0\"}"), Some(9.01), "its energy began anew, ours goes on");
}

#[test]
fn a_driver_that_is_unloaded_and_loaded() {
    let mut host = Host::new(&[]);
    host.until_up();
    host.set(&[("all.ret", "9"), ("nvmlDeviceGetCount_v2.ret", "9"), ("init.ret", "9")]);
    host.until_state("absence", |state| matches!(state, State::Absent(_)));
    assert_eq!(host.value("gpu_up{gpu=\"0\"}"), Some(0.0));
    host.set(&[("all.ret", ""), ("nvmlDeviceGetCount_v2.ret", ""), ("init.ret", "")]);
    host.until_up();
}

#[test]
fn a_gpu_that_is_added_and_one_that_is_taken_away() {
    let mut host = Host::new(&[("gpus", "2")]);
    host.until_up();
    host.set(&[("gpus", "3")]);
    host.until_value("gpu_up{gpu=\"2\"}", 1.0);
    host.set(&[("gpus", "2"), ("gpu2.ret", "15")]);
    host.set(&[("nvmlDeviceGetCount_v2.ret", "1")]);
    host.until_value("gpu_available", 0.0);
    host.set(&[("nvmlDeviceGetCount_v2.ret", "")]);
    host.until_up();
    assert_eq!(host.value("gpu_up{gpu=\"2\"}"), Some(0.0), "one that was there is missed");
    assert_eq!(host.value("gpu_up{gpu=\"1\"}"), Some(1.0));
}

/// Whatever happens to the driver, no counter is ever lower than before.
#[test]
fn counters_never_fall() {
    let counters =
        ["energy_mj", "violation0_ns", "field269", "field197", "field138.all", "ecc_cor", "ecc_unc", "remap_cor"];
    let all = |value: u64| -> Vec<(String, String)> {
        let of = |gpu: u32| counters.map(|name| (format!("gpu{gpu}.{name}"), (value + u64::from(gpu)).to_string()));
        (0..2).flat_map(of).collect()
    };
    let mut host = Host::new(&[]);
    let mut highest = BTreeMap::<String, f64>::new();
    let mut falls = Vec::new();
    let mut step = |host: &mut Host, values: &[(&str, &str)], counted: u64| {
        let counted = all(counted);
        let mut all: Vec<(&str, &str)> = counted.iter().map(|(key, value)| (&**key, &**value)).collect();
        all.extend(values);
        host.set(&all);
        let start = std::time::Instant::now();
        while start.elapsed() < std::time::Duration::from_millis(900) {
            for (series, value) in host.scrape().into_iter().filter(|(series, _)| series.contains("_total{")) {
                let before = highest.entry(series.clone()).or_insert(value);
                if value < *before {
                    falls.push(format!("{series}: {before} to {value}"));
                }
                *before = before.max(value);
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    step(&mut host, &[], 5_000_000);
    step(&mut host, &[], 6_000_000);
    // A slip, a lost GPU, a lost driver, an upgrade, a release.
    step(&mut host, &[], 1000);
    step(&mut host, &[("gpu1.ret", "15")], 7_000_000);
    step(&mut host, &[("gpu1.ret", "")], 2000);
    step(&mut host, &[("all.ret", "1")], 9_000_000);
    step(&mut host, &[("all.ret", "")], 3000);
    step(&mut host, &[("driver", "590.10")], 100);
    host.gpus.release(SOON).expect("an answer");
    step(&mut host, &[], 10);
    host.gpus.acquire(SOON).expect("an answer");
    step(&mut host, &[], 20);
    assert!(falls.is_empty(), "{falls:#?}");
    let energy = highest.iter().find(|(series, _)| series.starts_with("gpu_energy_joules_total{gpu=\"1\""));
    assert!(energy.is_some_and(|(_, joules)| *joules > 6000.0), "{energy:?}");
    assert!(highest.len() > 2 * 9, "{highest:#?}");
}
