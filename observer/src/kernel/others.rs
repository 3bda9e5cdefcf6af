//! Other observers that run on this host: by the programs that the kernel holds, and the processes that hold them.

use std::{collections::HashSet, fs, net::SocketAddr};

use aya::programs::loaded_programs;
use procfs::{
    net::TcpState,
    process::{FDTarget, Process, all_processes},
};
use serde::Serialize;

use super::probes::PROBES;

/// What the kernel keeps of a program's name.
const NAME_MAX: usize = 15;

/// One that runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OtherObserver {
    /// Its process; `None`: it is not in this PID namespace, or may not be looked into.
    pub pid: Option<u32>,
    /// Where it listens, if it is in this network namespace.
    pub listens: Vec<SocketAddr>,
}

/// Others than this process. Call it before anything is loaded here: what a program was loaded by is not told.
#[must_use]
pub fn other_observers() -> Vec<OtherObserver> {
    let Some(programs) = programs() else { return by_name() };
    if programs.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<OtherObserver> =
        others().filter(|process| holds(process, &programs)).map(|process| observer(&process)).collect();
    if found.is_empty() {
        found.push(OtherObserver { pid: None, listens: Vec::new() });
    }
    found
}

/// Ids of loaded programs with names of ours; `None`: they may not be listed.
fn programs() -> Option<HashSet<u32>> {
    let is_ours = |name: &str| PROBES.iter().any(|probe| kept(probe.program) == name);
    let mut ids = HashSet::new();
    for program in loaded_programs() {
        // One that is gone by now is no error.
        let Ok(program) = program else {
            if ids.is_empty() {
                return None;
            }
            continue;
        };
        if program.name_as_str().is_some_and(is_ours) {
            ids.insert(program.id());
        }
    }
    Some(ids)
}

fn kept(name: &str) -> &str {
    &name[..name.len().min(NAME_MAX)]
}

/// Where programs cannot be listed: processes that look like it.
fn by_name() -> Vec<OtherObserver> {
    let runs = |process: &Process| {
        let observes = |word: &String| matches!(word.as_str(), "run" | "record");
        process.stat().is_ok_and(|stat| stat.comm == "observer")
            && process.cmdline().is_ok_and(|words| words.iter().any(observes))
    };
    others().filter(runs).map(|process| observer(&process)).collect()
}

fn others() -> impl Iterator<Item = Process> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    all_processes().into_iter().flatten().flatten().filter(move |process| process.pid() != own)
}

/// Whether a process holds one of these programs, by itself or by a link to it.
fn holds(process: &Process, programs: &HashSet<u32>) -> bool {
    let is_bpf = |target: &FDTarget| matches!(target, FDTarget::AnonInode(kind) if kind.contains("bpf"));
    let descriptors = process.fd().into_iter().flatten().flatten().filter(|descriptor| is_bpf(&descriptor.target));
    descriptors
        .filter_map(|descriptor| fs::read_to_string(format!("/proc/{}/fdinfo/{}", process.pid(), descriptor.fd)).ok())
        .any(|text| {
            let id = text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
            id.is_some_and(|id| programs.contains(&id))
        })
}

fn observer(process: &Process) -> OtherObserver {
    let namespace = |path: String| fs::read_link(path).ok();
    let is_here = namespace(format!("/proc/{}/ns/net", process.pid())) == namespace("/proc/self/ns/net".to_owned());
    let listens = if is_here { listens(process) } else { Vec::new() };
    OtherObserver { pid: u32::try_from(process.pid()).ok(), listens }
}

fn listens(process: &Process) -> Vec<SocketAddr> {
    let sockets: HashSet<u64> = process
        .fd()
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|descriptor| match descriptor.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        })
        .collect();
    let tables = [process.tcp(), process.tcp6()].into_iter().flatten().flatten();
    tables
        .filter(|entry| entry.state == TcpState::Listen && sockets.contains(&entry.inode))
        .map(|entry| entry.local_address)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_the_kernel_keeps_them() {
        assert_eq!(kept("obs_sock_send"), "obs_sock_send");
        assert_eq!(kept("obs_a_very_long_name"), "obs_a_very_long");
    }

    #[test]
    fn this_process_is_no_other() {
        let own = std::process::id();
        assert!(other_observers().iter().all(|other| other.pid != Some(own)));
    }
}
