//! Lists of processes: races, junk, and layouts that drivers changed.

use std::fs;

use crate::harness::{Folder, Host, TIMING, count};
use fake_nvml::control::Fake;

#[test]
fn a_list_that_grows_while_it_is_fetched() {
    let mut host = Host::new(&[("gpu0.procs", "10:1,11:2"), ("gpu0.procs_burst", "5")]);
    // As many more as there is room for.
    host.until("seven processes", |scrape| count(scrape, "gpu_process_memory_bytes") == 7);
    // More than that, each time: not known, rather than wrong.
    host.set(&[("gpu0.procs_burst", "20")]);
    host.until("no processes", |scrape| count(scrape, "gpu_process_memory_bytes") == 0);
    assert_eq!(host.value("gpu_power_watts{gpu=\"0\"}"), Some(70.0), "the rest is there");
    host.set(&[("gpu0.procs_burst", "")]);
    host.until("two processes", |scrape| count(scrape, "gpu_process_memory_bytes") == 2);
}

#[test]
fn junk_among_utilizations_is_left_out() {
    let utilization = "4242:71:30,99:50:1,4243:101:0";
    let stamp = u64::MAX - 5;
    let mut host = Host::new(&[
        ("gpu0.procs", "4242:1,4243:2,4244:3"),
        ("gpu0.proc_util", utilization),
        ("gpu0.proc_util_ts", &stamp.to_string()),
    ]);
    let series = |pid: u32| {
        let workload = if pid == 4242 { ",workload=\"vllm:8000\"" } else { "" };
        format!("gpu_process_sm_utilization_ratio{{gpu=\"0\",pid=\"{pid}\"{workload}}}")
    };
    // It is told once, and holds for a moment: what is not newer was told before. Of the third nothing is told: it ran
    // nothing. What is told of the second cannot be.
    host.until_value(&series(4242), 0.71);
    host.settle();
    assert_eq!([4242, 4243, 4244, 99].map(|pid| host.value(&series(pid))), [Some(0.71), None, Some(0.0), None]);
    host.until_value(&series(4242), 0.0);
    host.set(&[("gpu0.proc_util_ts", &(stamp + 1).to_string()), ("gpu0.proc_util", "4242:70:30,99:50:1,4243:101:0")]);
    host.until_value(&series(4242), 0.7);
    let told = host.scrape();
    assert_eq!(count(&told, "gpu_process_sm_utilization_ratio"), 2, "{told:#?}");
    assert_eq!(count(&told, "gpu_process_memory_bytes"), 3);
}

/// Entries are 32 bytes long there where we have room for 24: the list must not be asked for at all.
#[test]
fn the_longer_entries_of_535_are_never_asked_for() {
    for driver in ["535.43.02", "535.54.03", "535.86.10"] {
        let folder = Folder::new();
        let log = folder.path().join("calls");
        let mut fake = Fake::new(folder.path()).expect("a fake");
        let values = [("driver", driver), ("gpu0.procs", "4242:5,4243:6"), ("log", log.to_str().expect("plain"))];
        fake.set(&values).expect("a state");
        let host = Host::of(folder, fake, TIMING);
        host.until_value("gpu_process_memory_bytes{gpu=\"0\",pid=\"4243\"}", 6.0);
        let calls = fs::read_to_string(log).expect("a log");
        assert!(calls.contains("nvmlDeviceGetComputeRunningProcesses_v2\n"), "{driver}");
        assert!(!calls.contains("nvmlDeviceGetComputeRunningProcesses_v3\n"), "{driver}");
    }
}

#[test]
fn a_driver_without_the_third_list_is_asked_for_the_second() {
    let host =
        Host::without(&["nvmlDeviceGetComputeRunningProcesses_v3"], &[("driver", "535.98"), ("gpu1.procs", "9:8")]);
    host.until_value("gpu_process_memory_bytes{gpu=\"1\",pid=\"9\"}", 8.0);
}

/// Who holds a GPU and computes nothing has no share of it; where nobody computes, all have 0.
#[test]
fn processes_that_run_nothing_have_0() {
    let mut host = Host::new(&[("gpu0.procs", "8:1,9:2"), ("gpu0.proc_util", "9:40:1")]);
    let value = |host: &Host, pid| host.value(&format!("gpu_process_sm_utilization_ratio{{gpu=\"0\",pid=\"{pid}\"}}"));
    host.until_value("gpu_process_sm_utilization_ratio{gpu=\"0\",pid=\"9\"}", 0.4);
    assert_eq!(value(&host, 8), Some(0.0));
    host.set(&[("gpu0.proc_util", "")]);
    host.until_value("gpu_process_sm_utilization_ratio{gpu=\"0\",pid=\"9\"}", 0.0);
    // A driver that does not say has no value.
    host.set(&[("gpu0.nvmlDeviceGetProcessUtilization.ret", "3")]);
    host.until("no value", |scrape| count(scrape, "gpu_process_sm_utilization_ratio") == 0);
    assert_eq!(count(&host.scrape(), "gpu_process_memory_bytes"), 2);
}
