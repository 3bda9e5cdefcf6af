//! What the driver says reaches the families, in their units; what it does not say has no sample.

use observer::metrics::families::{self, Family};

use crate::harness::{Host, count};

/// A GPU that has everything.
const RICH: &[(&str, &str)] = &[
    ("gpus", "8"),
    ("gpu3.util", "87"),
    ("gpu3.mem_util", "41"),
    ("gpu3.mem_total", "85520809984"),
    ("gpu3.mem_used", "70000000000"),
    ("gpu3.power_mw", "412500"),
    ("gpu3.power_limit_mw", "650000"),
    ("gpu3.energy_mj", "123456789"),
    ("gpu3.temp", "63"),
    ("gpu3.sm_clock", "1755"),
    ("gpu3.mem_clock", "2619"),
    ("gpu3.violation0_ns", "2500000000"),
    ("gpu3.violation1_ns", "1000000"),
    // In the numbering of 580.82 and later.
    ("gpu3.field270", "500000000"),
    ("gpu3.field197", "1000"),
    ("gpu3.field198", "2000"),
    ("gpu3.field138.all", "3"),
    ("gpu3.field139.all", "5"),
    ("gpu3.ecc_cor", "7"),
    ("gpu3.ecc_unc", "1"),
    ("gpu3.ecc_unc_volatile", "99"),
    ("gpu3.remap_cor", "2"),
    ("gpu3.remap_unc", "1"),
    ("gpu3.remap_pending", "1"),
    ("gpu3.gpm2", "63.5"),
    ("gpu3.gpm3", "40"),
    ("gpu3.gpm5", "12.25"),
    ("gpu3.gpm10", "55"),
    ("gpu3.procs", "4242:17179869184,4243:none"),
    ("gpu3.proc_util", "4242:71:30,4243:16:4"),
];

#[test]
fn every_family_of_a_gpu_has_its_value_in_its_unit() {
    let host = Host::new(RICH);
    host.until_value("gpu_sm_active_ratio{gpu=\"3\"}", 0.635);
    let cases = [
        ("gpu_up{gpu=\"3\"}", 1.0),
        ("gpu_info{gpu=\"3\",name=\"NVIDIA H100 80GB HBM3\",driver=\"580.95.05\",cuda=\"13.0\"}", 1.0),
        ("gpu_utilization_ratio{gpu=\"3\"}", 0.87),
        ("gpu_memory_bandwidth_utilization_ratio{gpu=\"3\"}", 0.41),
        ("gpu_memory_used_bytes{gpu=\"3\"}", 7e10),
        ("gpu_memory_total_bytes{gpu=\"3\"}", 85_520_809_984.0),
        ("gpu_power_watts{gpu=\"3\"}", 412.5),
        ("gpu_power_limit_watts{gpu=\"3\"}", 650.0),
        ("gpu_energy_joules_total{gpu=\"3\"}", 123_456.789),
        ("gpu_temperature_celsius{gpu=\"3\"}", 63.0),
        ("gpu_clock_hertz{gpu=\"3\",clock=\"sm\"}", 1.755e9),
        ("gpu_clock_hertz{gpu=\"3\",clock=\"memory\"}", 2.619e9),
        ("gpu_throttle_seconds_total{gpu=\"3\",reason=\"power\"}", 2.5),
        ("gpu_throttle_seconds_total{gpu=\"3\",reason=\"thermal\"}", 0.001),
        ("gpu_throttle_seconds_total{gpu=\"3\",reason=\"hw_thermal\"}", 0.5),
        ("gpu_pcie_bytes_total{gpu=\"3\",direction=\"transmit\"}", 1000.0),
        ("gpu_pcie_bytes_total{gpu=\"3\",direction=\"receive\"}", 2000.0),
        ("gpu_nvlink_bytes_total{gpu=\"3\",direction=\"transmit\"}", 3.0 * 1024.0),
        ("gpu_nvlink_bytes_total{gpu=\"3\",direction=\"receive\"}", 5.0 * 1024.0),
        ("gpu_xid_errors_total{gpu=\"3\",xid=\"79\"}", 0.0),
        ("gpu_ecc_errors_total{gpu=\"3\",type=\"corrected\"}", 7.0),
        ("gpu_ecc_errors_total{gpu=\"3\",type=\"uncorrected\"}", 1.0),
        ("gpu_row_remaps_total{gpu=\"3\",type=\"correctable\"}", 2.0),
        ("gpu_row_remaps_total{gpu=\"3\",type=\"uncorrectable\"}", 1.0),
        ("gpu_row_remap_pending{gpu=\"3\"}", 1.0),
        ("gpu_row_remap_failed{gpu=\"3\"}", 0.0),
        ("gpu_sm_active_ratio{gpu=\"3\"}", 0.635),
        ("gpu_sm_occupancy_ratio{gpu=\"3\"}", 0.4),
        ("gpu_tensor_active_ratio{gpu=\"3\"}", 0.1225),
        ("gpu_dram_active_ratio{gpu=\"3\"}", 0.55),
        ("gpu_process_memory_bytes{gpu=\"3\",pid=\"4242\",workload=\"vllm:8000\"}", 17_179_869_184.0),
        ("gpu_process_sm_utilization_ratio{gpu=\"3\",pid=\"4242\",workload=\"vllm:8000\"}", 0.71),
        ("gpu_process_sm_utilization_ratio{gpu=\"3\",pid=\"4243\"}", 0.16),
        ("gpu_available", 1.0),
        ("gpu_driver_unresponsive", 0.0),
    ];
    for (series, expected) in cases {
        assert_eq!(host.value(series), Some(expected), "{series}");
    }
    let tested = |family: &&Family| cases.iter().any(|(series, _)| series.split('{').next() == Some(family.name));
    assert!(families::gpu::ALL.iter().all(tested), "a family has no case here");
    // Not known is not zero.
    assert_eq!(host.value("gpu_process_memory_bytes{gpu=\"3\",pid=\"4243\"}"), None);
    assert_eq!(host.value("gpu_pcie_bytes_total{gpu=\"2\",direction=\"transmit\"}"), None);
    assert_eq!(host.value("gpu_sm_active_ratio{gpu=\"2\"}"), None);
    let scrape = host.scrape();
    assert_eq!((count(&scrape, "gpu_up"), count(&scrape, "gpu_power_watts")), (8, 8));
    assert!(scrape.contains_key("gpu_up{gpu=\"7\",uuid=\"GPU-fa4e0000-0000-0000-0000-000000000007\"}"));
}

#[test]
fn a_call_that_one_gpu_does_not_support_is_absent_there_alone() {
    let host = Host::new(&[
        ("gpu0.nvmlDeviceGetPowerUsage.ret", "3"),
        ("gpu0.nvmlDeviceGetUtilizationRates.ret", "3"),
        ("gpu0.nvmlDeviceGetFieldValues.ret", "3"),
        ("gpu0.nvmlDeviceGetTotalEccErrors.ret", "3"),
        ("gpu0.nvmlDeviceGetComputeRunningProcesses_v3.ret", "4"),
        ("gpu0.gpm", "0"),
        ("gpu1.gpm2", "10"),
        ("gpu1.procs", "7:1"),
    ]);
    host.until_value("gpu_sm_active_ratio{gpu=\"1\"}", 0.1);
    let scrape = host.scrape();
    assert_eq!(count(&scrape, "gpu_up"), 2);
    for name in ["gpu_power_watts", "gpu_utilization_ratio", "gpu_memory_bandwidth_utilization_ratio"] {
        assert_eq!(count(&scrape, name), 1, "{name}");
    }
    assert_eq!(count(&scrape, "gpu_ecc_errors_total"), 2);
    assert_eq!(count(&scrape, "gpu_process_memory_bytes"), 1);
    assert_eq!(host.value("gpu_energy_joules_total{gpu=\"0\"}"), Some(1000.0), "the rest is there");
}

#[test]
fn links_without_a_sum_are_summed() {
    let links: Vec<_> = (0..4).map(|link| (format!("gpu0.field138.link{link}"), format!("{}", 10 + link))).collect();
    let mut values: Vec<_> = links.iter().map(|(key, value)| (&**key, &**value)).collect();
    let receive: Vec<_> = (0..4).map(|link| format!("gpu0.field139.link{link}")).collect();
    values.extend(receive.iter().map(|key| (&**key, "1")));
    let host = Host::new(&values);
    host.until_value("gpu_nvlink_bytes_total{gpu=\"0\",direction=\"transmit\"}", 46.0 * 1024.0);
    assert_eq!(host.value("gpu_nvlink_bytes_total{gpu=\"0\",direction=\"receive\"}"), Some(4.0 * 1024.0));
    assert_eq!(host.value("gpu_nvlink_bytes_total{gpu=\"1\",direction=\"receive\"}"), None);
}

#[test]
fn fields_are_numbered_as_the_driver_does() {
    let host = Host::new(&[("driver", "570.124.06"), ("gpu0.field252", "3000000000"), ("gpu0.field270", "1")]);
    host.until_value("gpu_throttle_seconds_total{gpu=\"0\",reason=\"hw_thermal\"}", 3.0);
}

#[test]
fn mig_devices_are_rows_of_their_own() {
    let mut host = Host::new(&[
        ("gpus", "1"),
        ("gpu0.mig", "2"),
        ("gpu0.procs", "1:1"),
        ("gpu0.mig0.mem_total", "10"),
        ("gpu0.mig0.mem_used", "4"),
        ("gpu0.mig1.mem_total", "20"),
        ("gpu0.mig1.procs", "4242:5"),
        ("gpu0.mig1.gpm2", "25"),
    ]);
    host.until_value("gpu_sm_active_ratio{gpu=\"0:1\"}", 0.25);
    assert_eq!(host.value("gpu_memory_used_bytes{gpu=\"0:0\"}"), Some(4.0));
    assert_eq!(host.value("gpu_memory_total_bytes{gpu=\"0:1\"}"), Some(20.0));
    assert_eq!(host.value("gpu_process_memory_bytes{gpu=\"0:1\",pid=\"4242\",workload=\"vllm:8000\"}"), Some(5.0));
    assert_eq!(host.value("gpu_utilization_ratio{gpu=\"0\"}"), None, "the driver has none for a divided GPU");
    assert_eq!(host.value("gpu_power_watts{gpu=\"0\"}"), Some(70.0));
    assert_eq!(host.value("gpu_power_watts{gpu=\"0:0\"}"), None);
    let scrape = host.scrape();
    assert_eq!((count(&scrape, "gpu_up"), count(&scrape, "gpu_process_memory_bytes")), (3, 1));
    // Divided anew.
    host.set(&[("gpu0.mig", "1")]);
    host.until_gone("gpu_up{gpu=\"0:1\"}");
    assert_eq!(host.value("gpu_up{gpu=\"0:0\"}"), Some(1.0));
    host.set(&[("gpu0.mig", ""), ("gpu0.util", "9")]);
    host.until_gone("gpu_up{gpu=\"0:0\"}");
    assert_eq!(host.value("gpu_utilization_ratio{gpu=\"0\"}"), Some(0.09));
    assert_eq!(count(&host.scrape(), "gpu_up"), 1);
}
