//! What `nvidia-smi` says.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context as _, Result, bail};

/// What it is asked for, by our names, with the factor to our units.
const QUERIES: [(&str, &str, f64); 11] = [
    ("utilization.gpu", "gpu_utilization_ratio", 0.01),
    ("utilization.memory", "gpu_memory_bandwidth_utilization_ratio", 0.01),
    ("memory.total", "gpu_memory_total_bytes", 1_048_576.0),
    ("memory.used", "gpu_memory_used_bytes", 1_048_576.0),
    ("power.draw", "gpu_power_watts", 1.0),
    ("enforced.power.limit", "gpu_power_limit_watts", 1.0),
    ("temperature.gpu", "gpu_temperature_celsius", 1.0),
    ("clocks.sm", "gpu_clock_hertz{clock=\"sm\"}", 1e6),
    ("clocks.mem", "gpu_clock_hertz{clock=\"memory\"}", 1e6),
    ("ecc.errors.corrected.aggregate.total", "gpu_ecc_errors_total{type=\"corrected\"}", 1.0),
    ("ecc.errors.uncorrected.aggregate.total", "gpu_ecc_errors_total{type=\"uncorrected\"}", 1.0),
];

/// Values by our names, by UUID. What a GPU does not have is left out.
pub(crate) type Told = BTreeMap<String, BTreeMap<String, f64>>;

/// Asks it.
pub(crate) fn ask() -> Result<Told> {
    let queries: Vec<_> = ["uuid"].into_iter().chain(QUERIES.map(|(query, ..)| query)).collect();
    let mut command = Command::new("nvidia-smi");
    command.arg(format!("--query-gpu={}", queries.join(","))).arg("--format=csv,noheader,nounits");
    let output = command.output().context("start nvidia-smi")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("nvidia-smi ended with {}: {}", output.status, text.trim());
    }
    parse(&text)
}

/// Reads a line for each GPU.
fn parse(text: &str) -> Result<Told> {
    let mut told = Told::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let fields: Vec<_> = line.split(',').map(str::trim).collect();
        let [uuid, values @ ..] = &fields[..] else { bail!("nvidia-smi says {line:?}") };
        if values.len() != QUERIES.len() || !uuid.starts_with("GPU-") {
            bail!("nvidia-smi says {line:?}, which is not a UUID and {} values", QUERIES.len());
        }
        let mut of_gpu = BTreeMap::new();
        for (text, (query, name, factor)) in values.iter().zip(QUERIES) {
            // [N/A], [Not Supported], [Unknown Error] and the like.
            if text.starts_with('[') || *text == "N/A" {
                continue;
            }
            let value: f64 = text.parse().with_context(|| format!("nvidia-smi says {text:?} for {query}"))?;
            of_gpu.insert(name.to_owned(), value * factor);
        }
        told.insert((*uuid).to_owned(), of_gpu);
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As an H100's driver and a workstation's print it: the latter has no ECC, no power limit, and a fan's worth of
    /// words for that.
    const SAID: &str = "\
GPU-2c5a4b0e-1f2d-6d2e-8a55-0f4a3c9b7d10, 97, 41, 81559, 70211, 412.53, 700.00, 63, 1755, 2619, 7, 0
GPU-9d0c7f1e-77aa-41c5-b1b6-3b9a0c2f5e44, 0, 0, 24576, 1, [N/A], [Not Supported], 31, 210, 405, [N/A], [N/A]

";

    #[test]
    fn values_are_in_our_units() {
        let told = parse(SAID).unwrap();
        let first = &told["GPU-2c5a4b0e-1f2d-6d2e-8a55-0f4a3c9b7d10"];
        assert_eq!(first.len(), QUERIES.len());
        let near = |name: &str, value: f64| (first[name] - value).abs() < 1e-6;
        assert!(near("gpu_utilization_ratio", 0.97) && near("gpu_power_watts", 412.53), "{first:?}");
        assert!(near("gpu_memory_used_bytes", 73_621_569_536.0), "{first:?}");
        assert!(near("gpu_clock_hertz{clock=\"sm\"}", 1.755e9), "{first:?}");
        assert!(near("gpu_ecc_errors_total{type=\"corrected\"}", 7.0), "{first:?}");
    }

    #[test]
    fn what_a_gpu_does_not_have_is_left_out() {
        let told = parse(SAID).unwrap();
        let second = &told["GPU-9d0c7f1e-77aa-41c5-b1b6-3b9a0c2f5e44"];
        assert_eq!(second.len(), QUERIES.len() - 4, "{second:?}");
        assert!(!second.contains_key("gpu_power_watts"));
    }

    #[test]
    fn other_words_are_errors() {
        assert!(parse("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.").is_err());
        assert!(parse("GPU-1, 2, 3").is_err());
        assert!(parse(&SAID.replace("412.53", "many")).is_err());
    }
}
