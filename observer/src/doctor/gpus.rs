//! What is said of GPUs.

use crate::{
    config::{GpuMode, GpuSettings},
    gpu::Examination,
    kernel::capabilities::{self, Finding, Level},
};

/// The driver, each GPU, and their processes.
pub(super) fn findings(gpu: Option<&Examination>, settings: &GpuSettings) -> Vec<Finding> {
    let finding =
        |subject, level, found: String, advice: &str| Finding { subject, level, found, advice: advice.into() };
    let Some(gpu) = gpu else {
        return vec![finding("GPU driver", Level::Ok, "not asked: gpu.mode is off".to_owned(), "")];
    };
    let Some(driver) = &gpu.driver else {
        let level = match (settings.mode, gpu.failed) {
            (GpuMode::Require, _) => Level::Error,
            (_, true) => Level::Warning,
            (_, false) => Level::Ok,
        };
        let found = format!("none is open: {}", gpu.trouble.as_deref().unwrap_or("no reason was given"));
        let advice = "if this host has GPUs: install NVIDIA's driver, give the container access to it, or name \
                      libnvidia-ml.so.1 by gpu.library";
        return vec![finding("GPU driver", level, found, if level == Level::Ok { "" } else { advice })];
    };
    let cuda = gpu.cuda.as_ref().map(|cuda| format!(", CUDA up to {cuda}")).unwrap_or_default();
    let library = gpu.library.as_deref().unwrap_or_default();
    let mut findings = vec![finding("GPU driver", Level::Ok, format!("{driver}{cuda}, library {library}"), "")];
    for gpu in &gpu.gpus {
        let name = format!("GPU {}, {} ({})", gpu.index, gpu.name, gpu.uuid);
        if !gpu.up {
            let advice = "see the kernel's log for XID errors; it may need a reset";
            findings.push(finding("GPU", Level::Warning, format!("{name} does not answer"), advice));
        } else if gpu.missing.is_empty() {
            findings.push(finding("GPU", Level::Ok, format!("{name}: every family"), ""));
        } else {
            let (has, missing) = (gpu.families.len(), gpu.missing.join(", "));
            findings.push(finding("GPU", Level::Ok, format!("{name}: {has} families; none now of {missing}"), ""));
        }
    }
    findings.push(if !settings.processes {
        let found = "not asked: gpu.processes is off, so they cannot be joined with the servers they belong to";
        finding("GPU processes", Level::Ok, found.to_owned(), "")
    } else if capabilities::in_host_pid_namespace() {
        let found = "processes on GPUs have the ids that they have here";
        finding("GPU processes", Level::Ok, found.to_owned(), "")
    } else {
        let found = "not this PID namespace's: they cannot be joined with the servers they belong to";
        finding("GPU processes", Level::Warning, found.to_owned(), "run in the host's PID namespace")
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu;

    #[test]
    fn says_which_families_a_gpu_lacks_and_that_no_driver_is_no_error() {
        let gpu = |up, missing| gpu::ExaminedGpu {
            index: "0".into(),
            uuid: "GPU-1".into(),
            name: "H100".into(),
            up,
            families: vec!["gpu_power_watts"],
            missing,
        };
        let mut examination = Examination {
            driver: Some("580.95.05".into()),
            cuda: Some("13.0".into()),
            library: Some("libnvidia-ml.so.1".into()),
            gpus: vec![gpu(true, vec!["gpu_nvlink_bytes_total"]), gpu(true, vec![]), gpu(false, vec![])],
            ..Examination::default()
        };
        let with = |mode| GpuSettings { mode, ..GpuSettings::default() };
        let said = findings(Some(&examination), &with(GpuMode::Auto));
        let found: Vec<_> = said.iter().map(|finding| finding.found.as_str()).collect();
        assert_eq!(found[0], "580.95.05, CUDA up to 13.0, library libnvidia-ml.so.1");
        assert_eq!(found[1], "GPU 0, H100 (GPU-1): 1 families; none now of gpu_nvlink_bytes_total");
        assert_eq!(found[2], "GPU 0, H100 (GPU-1): every family");
        assert_eq!((found[3], said[3].level), ("GPU 0, H100 (GPU-1) does not answer", Level::Warning));

        examination = Examination { trouble: Some("no library".into()), ..Examination::default() };
        assert_eq!(findings(Some(&examination), &with(GpuMode::Auto))[0].level, Level::Ok);
        assert_eq!(findings(Some(&examination), &with(GpuMode::Require))[0].level, Level::Error);
        examination.failed = true;
        assert_eq!(findings(Some(&examination), &with(GpuMode::Auto))[0].level, Level::Warning);
    }
}
