//! Other observers that run on this host: by the programs that the kernel holds, and the processes that hold them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    net::SocketAddr,
};

use aya::programs::loaded_programs;
use procfs::{
    net::TcpState,
    process::{FDTarget, Process, all_processes},
};
use serde::Serialize;

use super::probes::{PROBES, Probe};

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

/// One of its programs, as the kernel holds it.
#[derive(Clone, Copy, Debug)]
pub struct HeldProgram {
    /// The kernel's number of it.
    pub id: u32,
    /// Its row of the table.
    pub probe: &'static Probe,
    /// Whether it is hooked in now.
    pub attached: bool,
}

/// One that runs, and its programs, in the table's order.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Who.
    pub observer: OtherObserver,
    /// What it has loaded.
    pub programs: Vec<HeldProgram>,
}

/// Others than this process. Call it before anything is loaded here: what a program was loaded by is not told.
#[must_use]
pub fn other_observers() -> Vec<OtherObserver> {
    match holders() {
        Ok(found) => found.into_iter().map(|holder| holder.observer).collect(),
        Err(_) => by_name(),
    }
}

/// The same, with their programs; where some are loaded and no process is seen to hold them, one without a process.
///
/// # Errors
/// If programs may not be listed, which takes `CAP_SYS_ADMIN`.
pub fn holders() -> io::Result<Vec<Holder>> {
    let programs = programs()?;
    if programs.is_empty() {
        return Ok(Vec::new());
    }
    let mut found: Vec<Holder> = others()
        .filter_map(|process| {
            let held = held(&process, &programs);
            (!held.is_empty()).then(|| Holder { observer: observer(&process), programs: held })
        })
        .collect();
    if found.is_empty() {
        let observer = OtherObserver { pid: None, listens: Vec::new() };
        found.push(Holder { observer, programs: Vec::new() });
    }
    Ok(found)
}

/// Loaded programs with names of ours, by id.
fn programs() -> io::Result<HashMap<u32, &'static Probe>> {
    let of_ours = |name: &str| PROBES.iter().find(|probe| kept(probe.program) == name);
    let mut programs = HashMap::new();
    for program in loaded_programs() {
        match program {
            Ok(program) => {
                if let Some(probe) = program.name_as_str().and_then(of_ours) {
                    programs.insert(program.id(), probe);
                }
            }
            // One that is gone by now is no error.
            Err(error) if programs.is_empty() => return Err(io::Error::other(error.to_string())),
            Err(_) => {}
        }
    }
    Ok(programs)
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

/// Which of these programs a process holds, by themselves or by a link to them, which hooks them in.
fn held(process: &Process, programs: &HashMap<u32, &'static Probe>) -> Vec<HeldProgram> {
    let is_bpf = |target: &FDTarget| matches!(target, FDTarget::AnonInode(kind) if kind.contains("bpf"));
    let mut attached: BTreeMap<u32, bool> = BTreeMap::new();
    for descriptor in process.fd().into_iter().flatten().flatten().filter(|descriptor| is_bpf(&descriptor.target)) {
        let Ok(text) = fs::read_to_string(format!("/proc/{}/fdinfo/{}", process.pid(), descriptor.fd)) else {
            continue;
        };
        let id = text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
        if let Some(id) = id {
            *attached.entry(id).or_default() |= text.lines().any(|line| line.starts_with("link_type:"));
        }
    }
    let row = |probe: &Probe| PROBES.iter().position(|other| other.name == probe.name);
    let mut held: Vec<HeldProgram> = attached
        .into_iter()
        .filter_map(|(id, attached)| Some(HeldProgram { id, probe: programs.get(&id)?, attached }))
        .collect();
    held.sort_by_key(|program| row(program.probe));
    held
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
