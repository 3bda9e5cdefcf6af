//! What this kernel permits, found by trial and not by version: for `observer doctor`.

use std::{fs, path::PathBuf};

use serde::Serialize;

use super::{
    btf,
    error::KernelError,
    loader::{Kernel, Options},
    probes::ProbeReport,
    scope,
};
use crate::config::Scope;

/// The inode number that every kernel gives its initial PID namespace.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// How grave a finding is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Something is missing, and the rest works.
    Warning,
    /// Nothing can be observed.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What.
    pub subject: &'static str,
    /// How grave.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where nothing is to do.
    pub advice: String,
}

/// Everything that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Capabilities {
    /// Surroundings.
    pub findings: Vec<Finding>,
    /// Each probe, tried.
    pub probes: Vec<ProbeReport>,
    /// Whether `observer run` would observe.
    pub ready: bool,
}

/// Looks at everything; attaches each probe and detaches it again. Nothing is observed meanwhile.
#[must_use]
pub fn examine() -> Capabilities {
    let mut findings = vec![
        kernel_release(),
        type_information(),
        privileges(),
        lockdown(),
        cgroups(),
        pid_namespace(),
        other_processes(),
    ];
    let tried = try_probes();
    let probes = match tried {
        Ok(probes) => probes,
        Err(error) => {
            findings.push(Finding {
                subject: "BPF object",
                level: Level::Error,
                found: error.to_string(),
                advice: String::new(),
            });
            Vec::new()
        }
    };
    let ready = !probes.is_empty() && probes.iter().all(|probe| !probe.required || probe.is_attached());
    Capabilities { findings, probes, ready }
}

fn try_probes() -> Result<Vec<ProbeReport>, KernelError> {
    let mut kernel = Kernel::load(Options { ring_bytes: 1 << 16, wakeup_ratio: 0.5, log: false })?;
    // A list of ports in force, of a port that nobody serves: no connection is ours.
    kernel.set_scope(&Scope { ports: vec![1], ..Scope::default() })?;
    kernel.attach_probes()?;
    Ok(kernel.reports().to_vec())
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn finding(subject: &'static str, level: Level, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { subject, level, found: found.into(), advice: advice.into() }
}

fn kernel_release() -> Finding {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    finding("kernel", Level::Ok, format!("Linux {release}, {}", std::env::consts::ARCH), "")
}

fn type_information() -> Finding {
    match fs::metadata(btf::PATH) {
        Ok(data) => finding("type information", Level::Ok, format!("{} bytes at {}", data.len(), btf::PATH), ""),
        Err(error) => finding(
            "type information",
            Level::Error,
            format!("{}: {error}", btf::PATH),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (all current distributions), and mount /sys",
        ),
    }
}

fn effective_capabilities() -> u64 {
    read("/proc/self/status")
        .and_then(|status| {
            let line =
                status.lines().find_map(|line| line.strip_prefix("CapEff:").map(str::trim).map(str::to_owned))?;
            u64::from_str_radix(&line, 16).ok()
        })
        .unwrap_or(0)
}

fn privileges() -> Finding {
    let effective = effective_capabilities();
    let has = |capability: u32| effective & (1 << capability) != 0;
    let list = [("CAP_BPF", CAP_BPF), ("CAP_PERFMON", CAP_PERFMON), ("CAP_SYS_ADMIN", CAP_SYS_ADMIN)];
    let held: Vec<&str> = list.iter().filter(|(_, capability)| has(*capability)).map(|(name, _)| *name).collect();
    let found = if held.is_empty() { "no capability for BPF".to_owned() } else { held.join(", ") };
    if has(CAP_SYS_ADMIN) || (has(CAP_BPF) && has(CAP_PERFMON)) {
        finding("privileges", Level::Ok, found, "")
    } else {
        finding("privileges", Level::Error, found, "run as root, or with CAP_BPF and CAP_PERFMON")
    }
}

fn lockdown() -> Finding {
    let state = read("/sys/kernel/security/lockdown");
    let current = state.as_deref().and_then(|state| state.split(['[', ']']).nth(1)).map(str::to_owned);
    match current.as_deref() {
        Some("confidentiality") => finding(
            "lockdown",
            Level::Error,
            "confidentiality",
            "the kernel lets no program read user memory in this mode: boot with lockdown=integrity or none",
        ),
        Some(mode) => finding("lockdown", Level::Ok, mode, ""),
        None => finding("lockdown", Level::Ok, "not in use, or not visible", ""),
    }
}

fn cgroups() -> Finding {
    scope::cgroup_root().map_or_else(
        || {
            finding(
                "cgroup v2",
                Level::Warning,
                "not mounted",
                "without it --cgroups cannot be used; mount it at /sys/fs/cgroup",
            )
        },
        |root: PathBuf| finding("cgroup v2", Level::Ok, format!("mounted at {}", root.display()), ""),
    )
}

/// Whether this process is in the host's PID namespace, so that its process ids are the kernel's.
#[must_use]
pub fn in_host_pid_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == INITIAL_PID_NAMESPACE)
}

/// Whether this process may look into others: at their sockets and their network namespaces.
#[must_use]
pub fn sees_other_processes() -> bool {
    let held = effective_capabilities();
    let has = |capability: u32| held & (1 << capability) != 0;
    has(CAP_SYS_PTRACE) && (has(CAP_DAC_READ_SEARCH) || has(CAP_DAC_OVERRIDE))
}

fn other_processes() -> Finding {
    if sees_other_processes() {
        finding("other processes", Level::Ok, "their sockets can be listed", "")
    } else {
        finding(
            "other processes",
            Level::Warning,
            "their sockets cannot be listed: servers that already run are found only in this network namespace, and not \
             by --pids or --cgroups",
            "add CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, or name the servers' ports with --ports",
        )
    }
}

fn pid_namespace() -> Finding {
    match fs::read_link("/proc/self/ns/pid") {
        Ok(_) if in_host_pid_namespace() => finding("PID namespace", Level::Ok, "the host's", ""),
        Ok(_) => finding(
            "PID namespace",
            Level::Warning,
            "a container's: process ids differ from the kernel's",
            "run in the host's (docker run --pid=host, Kubernetes hostPID: true): without it --pids means nothing, and \
             servers have no names",
        ),
        Err(error) => finding("PID namespace", Level::Warning, error.to_string(), "mount /proc"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_says_what_to_do_or_names_its_cause() {
        for finding in examine().findings {
            assert!(!finding.found.is_empty(), "{}", finding.subject);
            if finding.level != Level::Ok && finding.subject != "BPF object" {
                assert!(!finding.advice.is_empty(), "{}", finding.subject);
            }
        }
    }
}
