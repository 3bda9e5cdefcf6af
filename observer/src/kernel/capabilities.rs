//! What this kernel permits, found by trial and not by version: for `observer doctor`.

mod hooks;
mod privileges;
mod surroundings;

use std::{fs, path::Path};

use serde::Serialize;

use super::{
    btf,
    error::KernelError,
    loader::{Kernel, Options},
    probes::ProbeReport,
    socket_hook,
};
use crate::config::{Scope, Signals, SocketHook};

/// The oldest Linux with all helpers that the required programs call.
const MINIMUM: (u32, u32, &str) = (5, 15, "5.15");

/// The inode number that every kernel gives its initial PID namespace.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

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

/// Looks at everything with these settings; attaches each probe and detaches it again. Nothing is observed meanwhile.
#[must_use]
pub fn examine(signals: Signals, socket_hook: SocketHook) -> Capabilities {
    let mut findings = vec![
        kernel_release(),
        type_information(),
        lockdown(),
        privileges::capabilities(),
        privileges::seccomp(),
        privileges::memory_lock(),
        surroundings::tracefs(),
        surroundings::cgroups(),
        surroundings::pid_namespace(),
        other_processes(),
        surroundings::network_namespaces(),
    ];
    let tried = try_probes(signals, socket_hook);
    let probes = match tried {
        Ok((kernel, trampolines)) => {
            findings.push(sockets(&kernel, socket_hook));
            findings.push(trampolines);
            kernel.reports().to_vec()
        }
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

/// Tries all probes, and trampolines even if no probe is to use them.
fn try_probes(signals: Signals, socket_hook: SocketHook) -> Result<(Kernel, Finding), KernelError> {
    let options = Options { ring_bytes: 1 << 16, wakeup_ratio: 0.5, log: false, signals, socket_hook };
    // A list of ports in force, of a port that nobody serves: no connection is ours.
    let mut kernel =
        socket_hook::attach(options, |kernel| kernel.set_scope(&Scope { ports: vec![1], ..Scope::default() }))?;
    let trampolines = hooks::trampolines(&kernel.try_trampoline(signals)?, kernel.reports(), signals);
    Ok((kernel, trampolines))
}

/// Where reads and writes of sockets are seen, and what that means.
fn sockets(kernel: &Kernel, setting: SocketHook) -> Finding {
    const SUBJECT: &str = "socket hook";
    if let Err(error) = socket_hook::check(kernel.reports(), setting) {
        let advice =
            format!("observer is made for Linux {} and later; its BPF needs CAP_BPF and CAP_PERFMON", MINIMUM.2);
        return finding(SUBJECT, Level::Error, error.to_string(), advice);
    }
    let named = if setting == SocketHook::Auto { "found by trial" } else { "named by kernel.socket_hook" };
    let found = format!("{}, {named}", kernel.socket_hook().as_str());
    if kernel.socket_hook() == SocketHook::SysExit {
        let advice = "each system call of the host pays for it: prefer Linux 6.3 or later, or a kernel that lets BPF hook \
                      its functions";
        return finding(SUBJECT, Level::Warning, found, advice);
    }
    finding(SUBJECT, Level::Ok, found, "")
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn finding(subject: &'static str, level: Level, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { subject, level, found: found.into(), advice: advice.into() }
}

fn kernel_release() -> Finding {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    let found = format!("Linux {release}, {}", std::env::consts::ARCH);
    if is_older(&release) {
        let advice =
            format!("observer is made for Linux {} and later: some or all probes below may not load", MINIMUM.2);
        return finding("kernel", Level::Warning, found, advice);
    }
    finding("kernel", Level::Ok, found, "")
}

/// Whether a release is older than the oldest that observer is made for. What loads is tried all the same.
fn is_older(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) < (MINIMUM.0, MINIMUM.1),
        _ => false,
    }
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

fn lockdown() -> Finding {
    let state = read("/sys/kernel/security/lockdown");
    let current = state.as_deref().and_then(|state| state.split(['[', ']']).nth(1)).map(str::to_owned);
    match current.as_deref() {
        Some("confidentiality") => finding(
            "lockdown",
            Level::Warning,
            "confidentiality: no BPF program may read the kernel's memory (bpf_probe_read, bpf_probe_read_kernel); calls \
             of sockets and their bytes are still seen, with CAP_SYS_ADMIN. Not measured: files and pipes of workloads, and what comes into \
             the page cache",
            "to have these as well, boot with lockdown=integrity or none",
        ),
        Some(mode) => finding("lockdown", Level::Ok, mode, ""),
        None => finding("lockdown", Level::Ok, "not in use, or not visible", ""),
    }
}

/// Whether this process is in the host's PID namespace, so that its process ids are the kernel's.
#[must_use]
pub fn in_host_pid_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == INITIAL_PID_NAMESPACE)
}

/// Whether the process ids of this `/proc` are the host's, whatever namespace this process is in.
#[must_use]
pub fn is_host_proc(proc: &Path) -> bool {
    fs::read_link(proc.join("1/ns/pid")).is_ok_and(|link| link.as_os_str() == INITIAL_PID_NAMESPACE)
}

/// Whether this process may look into others: at their sockets and their network namespaces.
#[must_use]
pub fn sees_other_processes() -> bool {
    let held = privileges::effective();
    let has = |capability| privileges::has(held, capability);
    has(privileges::CAP_SYS_PTRACE) && (has(privileges::CAP_DAC_READ_SEARCH) || has(privileges::CAP_DAC_OVERRIDE))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_told() {
        for (release, is_old) in [
            ("5.14.0-70-generic", true),
            ("4.18.0", true),
            ("5.15.0-91-generic", false),
            ("5.16", false),
            ("6.1.0-9-amd64", false),
        ] {
            assert_eq!(is_older(release), is_old, "{release}");
        }
        assert!(!is_older("unknown"));
    }

    #[test]
    fn every_error_says_what_to_do_or_names_its_cause() {
        for finding in examine(Signals::default(), SocketHook::Auto).findings {
            assert!(!finding.found.is_empty(), "{}", finding.subject);
            if finding.level != Level::Ok && finding.subject != "BPF object" {
                assert!(!finding.advice.is_empty(), "{}", finding.subject);
            }
        }
    }
}
