//! `cargo xtask gpu-check` without a card: against the fake driver it passes, and what differs makes it fail.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command, time::Duration};

use fake_nvml::control::Fake;
use observer_e2e::{process::Process, require, scratch::Scratch};

/// Two GPUs with all that there is; the first one's energy grows with its power.
const RICH: [(&str, &str); 22] = [
    ("gpu0.energy_auto", "1"),
    ("gpu0.power_mw", "350000"),
    ("gpu0.util", "90"),
    ("gpu0.mem_util", "35"),
    ("gpu0.mem_used", "50000000000"),
    ("gpu0.violation0_ns", "1500000000"),
    ("gpu0.field197", "123456"),
    ("gpu0.field198", "654321"),
    ("gpu0.field138.link0", "7"),
    ("gpu0.field138.link1", "8"),
    ("gpu0.field139.link0", "1"),
    ("gpu0.field139.link1", "2"),
    ("gpu0.field270", "250000000"),
    ("gpu0.ecc_cor", "3"),
    ("gpu0.remap_cor", "1"),
    ("gpu0.gpm2", "55"),
    ("gpu0.gpm3", "30"),
    ("gpu0.gpm5", "20"),
    ("gpu0.gpm10", "40"),
    ("gpu1.gpm", "0"),
    ("gpu1.temp", "70"),
    ("gpu1.nvmlDeviceGetTotalEccErrors.ret", "3"),
];

fn library(fake: &Fake) -> &str {
    fake.library().to_str().expect("a plain path")
}

/// Runs it with this driver, whose first GPU the load's worker gets on; `others`: drivers with the same on it.
fn check(fake: &mut Fake, others: &mut [&mut Fake], binary: Option<&Path>) -> (bool, Vec<String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-check"));
    command.args(["--no-load", "--seconds", "8", "--library", library(fake), "--python"]).arg(require::python());
    command.envs(binary.map(|path| ("OBSERVER_BIN", path)));
    let mut process = Process::spawn("gpu-check", command);
    let line = process.line(Duration::from_secs(60), |line| line.starts_with("load: "));
    let worker = line.split("worker ").nth(1).and_then(|rest| rest.split(',').next()).expect("its process id");
    let busy = [("gpu0.procs", &*format!("{worker}:2000000000")), ("gpu0.proc_util", &*format!("{worker}:88:30"))];
    fake.set(&busy).expect("a state");
    others.iter_mut().for_each(|other| other.set(&busy).expect("a state"));
    let status = process.wait(Duration::from_secs(90));
    (status.success(), process.settled_output())
}

#[test]
fn a_check_that_passes_says_what_it_left_out() {
    require!(kernel, python);
    let scratch = Scratch::new();
    let mut fake = Fake::new(scratch.path()).expect("a fake");
    fake.set(&RICH).expect("a state");
    let (passed, said) = check(&mut fake, &mut [], None);
    let all = said.join("\n");
    println!("{all}");
    assert!(passed && !all.contains("FAIL"), "{all}");
    let has = |start: &str| assert!(said.iter().any(|line| line.starts_with(start)), "no {start}: {all}");
    has("pass  observer and NVML, gpu_energy_joules_total: ");
    has("pass  observer and NVML, gpu_sm_active_ratio: ");
    has("pass  observer and NVML, gpu_nvlink_bytes_total{direction=\"transmit\"}: ");
    has("pass  observer and NVML, gpu_throttle_seconds_total{reason=\"hw_thermal\"}: ");
    has("pass  observer and NVML, gpu_process_sm_utilization_ratio: ");
    has("pass  join: workload ");
    has("pass  energy of the workload: ");
    has("pass  requests and output tokens: ");
    has("pass  request log: ");
    has("pass  release: ");
    has("      nvmlDeviceGetPowerUsage ");
    // What needs a card.
    has("left out  load: --no-load");
    has("left out  gpu_xid_errors_total: ");
    if require::tool("nvidia-smi").is_none() {
        has("left out  nvidia-smi: ");
    }
}

/// The observer is given another driver than the one that it is compared with.
#[test]
fn a_check_fails_for_what_differs_and_for_nothing_else() {
    require!(kernel, python);
    let (scratch, other_scratch) = (Scratch::new(), Scratch::new());
    let mut fake = Fake::new(scratch.path()).expect("a fake");
    let mut other = Fake::new(other_scratch.path()).expect("a fake");
    fake.set(&RICH).expect("a state");
    other.set(&RICH).expect("a state");
    // A wrong value, one that is missing, one that is invented.
    let differs = [
        ("gpu1.power_mw", "95000"),
        ("gpu0.nvmlDeviceGetTemperature.ret", "3"),
        ("gpu1.field197", "5"),
        ("gpu0.ecc_cor", "4"),
    ];
    other.set(&differs).expect("a state");
    let script = scratch.write(
        "observer",
        &format!(
            "#!/bin/sh\nOBSERVER_GPU_LIBRARY='{}' exec '{}' \"$@\"\n",
            library(&other),
            require::observer().display()
        ),
    );
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("executable");
    let (passed, said) = check(&mut fake, &mut [&mut other], Some(&script));
    let all = said.join("\n");
    println!("{all}");
    assert!(!passed, "{all}");
    let failed = |line: &str| Some(line.strip_prefix("FAIL  observer and NVML, ")?.rsplit_once(": ")?.0.to_owned());
    let failed: Vec<_> = said.iter().filter_map(|line| failed(line)).collect();
    let expected = [
        "gpu_ecc_errors_total{type=\"corrected\"}",
        "gpu_pcie_bytes_total{direction=\"transmit\"}",
        "gpu_power_watts",
        "gpu_temperature_celsius",
    ];
    assert_eq!(failed, expected, "{all}");
    assert_eq!(said.iter().filter(|line| line.starts_with("FAIL")).count(), expected.len(), "{all}");
    assert!(all.contains("95 where NVML says 70 to 70") && all.contains("NVML has it, observer does not"), "{all}");
}
