//! Errors are states: of a call, of a GPU, of the driver.

use std::fs;

use fake_nvml::control::Fake;
use observer::gpu::State;

use crate::harness::{Folder, Host, TIMING, count};

#[test]
fn no_library_and_then_there_is_one() {
    let folder = Folder::new();
    let fake = Fake::new(folder.path()).expect("a fake");
    let aside = folder.path().join("aside");
    fs::rename(fake.library(), &aside).expect("moved");
    let host = Host::of(folder, fake, TIMING);
    let state = host.until_state("absence", |state| matches!(state, State::Absent(_)));
    assert!(state.reason().contains("libnvidia-ml.so.1"), "{state:?}");
    let scrape = host.scrape();
    let expected = [("gpu_available".to_owned(), 0.0), ("gpu_driver_unresponsive".to_owned(), 0.0)];
    assert_eq!(scrape.into_iter().collect::<Vec<_>>(), expected);
    fs::rename(&aside, host.fake.library()).expect("moved");
    host.until_up();
}

#[test]
fn a_driver_that_is_not_loaded_is_absent_and_a_mismatch_is_a_failure() {
    let mut host = Host::new(&[("init.ret", "9")]);
    host.until_state("absence", |state| matches!(state, State::Absent(_)));
    assert_eq!(host.value("gpu_available"), Some(0.0));
    host.set(&[("init.ret", "18")]);
    let state = host.until_state("a failure", |state| matches!(state, State::Failed(_)));
    assert!(state.reason().contains("version mismatch") && state.reason().contains("upgraded"), "{state:?}");
    host.set(&[("init.ret", "28")]);
    let state = host.until_state("absence", |state| matches!(state, State::Absent(_)));
    assert!(state.reason().contains("no GPU"), "{state:?}");
    host.set(&[("init.ret", ""), ("gpus", "0")]);
    host.settle_state();
    host.set(&[("gpus", "2")]);
    host.until_up();
}

impl Host {
    /// A few attempts, all of which end in absence.
    fn settle_state(&self) {
        std::thread::sleep(TIMING.absent * 3);
        assert!(matches!(self.gpus.view().snapshot.state, State::Absent(_)));
    }
}

#[test]
fn a_lost_gpu_leaves_the_others_and_comes_back() {
    let mut host = Host::new(&[("gpus", "8"), ("gpu5.energy_mj", "5000"), ("gpu5.gpm2", "50")]);
    host.until_value("gpu_sm_active_ratio{gpu=\"5\"}", 0.5);
    host.set(&[("gpu5.ret", "15"), ("gpu4.power_mw", "81000")]);
    host.until_value("gpu_up{gpu=\"5\"}", 0.0);
    let scrape = host.until("polls of the others", |scrape| {
        scrape
            .iter()
            .any(|(series, value)| series.starts_with("gpu_power_watts{gpu=\"4\"") && (value - 81.0).abs() < 1e-9)
    });
    let of_lost: Vec<_> = scrape.keys().filter(|series| series.contains("gpu=\"5\"")).collect();
    let kept = |series: &&&String| series.starts_with("gpu_up{") || series.starts_with("gpu_xid_errors_total{");
    assert!(of_lost.iter().all(|series| kept(&series)), "{of_lost:#?}");
    assert_eq!((count(&scrape, "gpu_power_watts"), count(&scrape, "gpu_up")), (7, 8));
    assert_eq!(scrape["gpu_available"], 1.0);
    // The driver is opened anew again and again meanwhile: the row stays.
    std::thread::sleep(TIMING.lost.1 * 2);
    assert_eq!(host.value("gpu_up{gpu=\"5\"}"), Some(0.0));
    assert_eq!(count(&host.scrape(), "gpu_power_watts"), 7);
    // Reset: its energy begins anew, and so does nothing of ours.
    host.set(&[("gpu5.ret", ""), ("gpu5.energy_mj", "700")]);
    host.until_value("gpu_up{gpu=\"5\"}", 1.0);
    assert_eq!(host.value("gpu_energy_joules_total{gpu=\"5\"}"), Some(5.7));
}

/// As after an uncorrectable error of memory: the GPU answers nothing until it is reset.
#[test]
fn a_gpu_that_must_be_reset_is_lost() {
    let mut host = Host::new(&[]);
    host.until_value("gpu_up{gpu=\"1\"}", 1.0);
    host.set(&[("gpu1.ret", "16")]);
    host.until_value("gpu_up{gpu=\"1\"}", 0.0);
    assert_eq!(host.value("gpu_up{gpu=\"0\"}"), Some(1.0));
    host.set(&[("gpu1.ret", "")]);
    host.until_value("gpu_up{gpu=\"1\"}", 1.0);
}

/// Codes that mean the driver and not a GPU, from any call: everything is dropped, the library too, and opened anew.
#[test]
fn a_driver_that_is_lost_is_opened_anew() {
    // Not initialized, not loaded, another version, no GPU.
    for code in ["1", "9", "18", "28"] {
        let folder = Folder::new();
        let log = folder.path().join("calls");
        let mut fake = Fake::new(folder.path()).expect("a fake");
        fake.set(&[("gpu0.energy_mj", "5000"), ("log", log.to_str().expect("plain"))]).expect("a state");
        let mut host = Host::of(folder, fake, TIMING);
        host.until_value("gpu_energy_joules_total{gpu=\"0\"}", 5.0);
        host.set(&[("nvmlDeviceGetTemperature.ret", code)]);
        host.until_value("gpu_available", 0.0);
        let state = host.gpus.view().snapshot.state.clone();
        assert!(matches!(&state, State::Failed(reason) if reason.contains("driver is lost")), "{code}: {state:?}");
        assert_eq!(host.value("gpu_up{gpu=\"0\"}"), Some(0.0), "{code}");
        host.set(&[("nvmlDeviceGetTemperature.ret", ""), ("gpu0.energy_mj", "7000")]);
        host.until_value("gpu_energy_joules_total{gpu=\"0\"}", 7.0);
        let calls = fs::read_to_string(log).expect("a log");
        let times = |name| calls.lines().filter(|call| *call == name).count();
        assert!(times("nvmlInit_v2") > 1 && times("nvmlShutdown") == times("nvmlInit_v2") - 1, "{code}");
    }
}

#[test]
fn all_lost_is_a_failure_that_ends() {
    let mut host = Host::new(&[]);
    host.until_up();
    host.set(&[("all.ret", "15")]);
    host.until_value("gpu_available", 0.0);
    host.until_value("gpu_up{gpu=\"1\"}", 0.0);
    assert_eq!(count(&host.scrape(), "gpu_power_watts"), 0);
    host.set(&[("all.ret", "")]);
    host.until_up();
    host.until_value("gpu_up{gpu=\"1\"}", 1.0);
}

#[test]
fn xid_79_is_counted_although_the_gpu_is_gone_with_it() {
    let mut host = Host::new(&[]);
    host.until_value("gpu_xid_errors_total{gpu=\"1\",xid=\"79\"}", 0.0);
    host.set(&[("gpu1.xid", "79"), ("gpu1.ret", "15")]);
    host.until_value("gpu_xid_errors_total{gpu=\"1\",xid=\"79\"}", 1.0);
    host.until_value("gpu_up{gpu=\"1\"}", 0.0);
    // One of the other, while the first is still gone; its number is not among those that are asked for.
    host.set(&[("gpu0.xid", "122")]);
    host.until_value("gpu_xid_errors_total{gpu=\"0\",xid=\"122\"}", 1.0);
    assert_eq!(host.value("gpu_xid_errors_total{gpu=\"1\",xid=\"79\"}"), Some(1.0));
}

#[test]
fn a_driver_that_lacks_what_is_newer_gives_the_rest() {
    let symbols = [
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetProcessUtilization",
        "nvmlGpmQueryDeviceSupport",
        "nvmlGpmSampleFree",
        "nvmlEventSetFree",
    ];
    let values = [
        ("driver", "450.80.02"),
        ("gpu0.mem_used", "100"),
        ("gpu0.mem_reserved", "11"),
        ("gpu0.procs", "8:9"),
        ("gpu0.throttle", "64"),
    ];
    let host = Host::without(&symbols, &values);
    // The older call counts what the driver keeps for itself, too.
    host.until_value("gpu_memory_used_bytes{gpu=\"0\"}", 111.0);
    assert_eq!(host.value("gpu_process_memory_bytes{gpu=\"0\",pid=\"8\"}"), Some(9.0));
    assert_eq!(host.value("gpu_ecc_errors_total{gpu=\"0\",type=\"corrected\"}"), Some(0.0));
    let view = host.gpus.view();
    assert!(view.snapshot.gpus[0].fast.slowdown.is_some_and(observer::gpu::snapshot::Slowdown::is_throttled));
    let scrape = host.scrape();
    for name in ["gpu_pcie_bytes_total", "gpu_row_remap_pending", "gpu_sm_active_ratio", "gpu_xid_errors_total"] {
        assert_eq!(count(&scrape, name), 0, "{name}");
    }
}

/// The wrapper would end the process where the first two are missing.
#[test]
fn a_library_without_an_end_is_not_used() {
    for symbol in ["nvmlShutdown", "nvmlInit_v2"] {
        let host = Host::without(&[symbol], &[]);
        let state = host.until_state("absence", |state| matches!(state, State::Absent(_)));
        assert!(state.reason().contains(symbol), "{state:?}");
    }
}

/// In a container that was given some of the host's GPUs.
#[test]
fn gpus_of_others_are_no_rows() {
    let folder = Folder::new();
    let log = folder.path().join("calls");
    let mut fake = Fake::new(folder.path()).expect("a fake");
    let denied = ("gpu1.nvmlDeviceGetHandleByIndex_v2.ret", "4");
    fake.set(&[("gpus", "3"), denied, ("log", log.to_str().expect("plain"))]).expect("a state");
    let mut host = Host::of(folder, fake, TIMING);
    host.until_up();
    assert_eq!((host.value("gpu_up{gpu=\"0\"}"), host.value("gpu_up{gpu=\"2\"}")), (Some(1.0), Some(1.0)));
    assert_eq!(count(&host.scrape(), "gpu_up"), 2);
    std::thread::sleep(TIMING.lost.1 * 2);
    let calls = fs::read_to_string(log).expect("a log");
    assert_eq!(calls.lines().filter(|call| *call == "nvmlInit_v2").count(), 1, "nothing is looked for");
    host.set(&[("all.ret", "1"), ("nvmlDeviceGetHandleByIndex_v2.ret", "4")]);
    host.until_state("a failure", |state| state.reason().contains("none of 3 GPUs may be asked"));
}
