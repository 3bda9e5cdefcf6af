//! From the configured scope to what the kernel side compares: ports, thread group ids, cgroup ids.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, btree_map::Entry},
    fs, io,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use observer_common::limits::CGROUP_LEVELS;
use procfs::{
    ProcError, net,
    process::{FDTarget, Process, all_processes},
};

use super::{clock, error::KernelError};
use crate::{config::Scope, event::Connect};

/// A cgroup as the kernel side knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cgroup {
    pub(super) id: u64,
    pub(super) level: u32,
}

/// Why a cgroup of the scope cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CgroupError {
    #[error("no cgroup v2 hierarchy is mounted")]
    NoHierarchy,
    #[error("{error}")]
    Unreadable { error: io::Error },
    #[error("it is not below {}, where the cgroup v2 hierarchy is mounted", root.display())]
    Outside { root: PathBuf },
    #[error("it lies {level} levels deep, and at most {} are supported", CGROUP_LEVELS - 1)]
    TooDeep { level: u32 },
}

/// Where the cgroup v2 hierarchy is mounted.
pub(super) fn cgroup_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// Id and level of a cgroup directory: an absolute path, or one from the root of the hierarchy, as in
/// `/proc/PID/cgroup`.
fn cgroup(path: &Path) -> Result<Cgroup, CgroupError> {
    let root = cgroup_root().ok_or(CgroupError::NoHierarchy)?;
    let relative = path.strip_prefix("/").unwrap_or(path);
    let candidates = [path.to_owned(), root.join(relative)];
    let found = candidates.iter().find(|candidate| candidate.is_absolute() && candidate.starts_with(&root));
    let Some(directory) = found.filter(|candidate| candidate.exists()).or(candidates.get(1)) else {
        return Err(CgroupError::Outside { root });
    };
    let directory = directory.canonicalize().map_err(|error| CgroupError::Unreadable { error })?;
    let Ok(below) = directory.strip_prefix(&root) else { return Err(CgroupError::Outside { root }) };
    let level = u32::try_from(below.components().count()).unwrap_or(u32::MAX);
    if level >= CGROUP_LEVELS {
        return Err(CgroupError::TooDeep { level });
    }
    // The id of a cgroup is the inode number of its directory.
    let id = fs::metadata(&directory).map_err(|error| CgroupError::Unreadable { error })?.ino();
    Ok(Cgroup { id, level })
}

/// Ids and levels of the scope's cgroups.
///
/// # Errors
/// Names the first that cannot be observed.
pub(super) fn resolve(scope: &Scope) -> Result<Vec<Cgroup>, KernelError> {
    let resolve = |path: &PathBuf| {
        cgroup(path).map_err(|error| KernelError::Cgroup { path: path.clone(), reason: error.to_string() })
    };
    scope.cgroups.iter().map(resolve).collect()
}

/// Whether the scope's cgroups can be observed.
///
/// # Errors
/// Names the first that cannot.
pub fn check_cgroups(scope: &Scope) -> Result<(), KernelError> {
    resolve(scope).map(drop)
}

/// The listed processes and all their descendants that run now, each with the listed one that it descends from.
pub(super) fn with_descendants(roots: &[u32]) -> BTreeMap<u32, u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for process in processes() {
        if let Ok(stat) = process.stat()
            && let (Ok(parent), Ok(pid)) = (u32::try_from(stat.ppid), u32::try_from(stat.pid))
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = BTreeMap::new();
    let mut open: Vec<(u32, u32)> = roots.iter().map(|root| (*root, *root)).collect();
    while let Some((pid, root)) = open.pop() {
        if let Entry::Vacant(entry) = found.entry(pid) {
            entry.insert(root);
            open.extend(children.get(&pid).into_iter().flatten().map(|child| (*child, root)));
        }
    }
    found
}

/// Whether a process runs and has not begun to end.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    const PF_EXITING: u32 = 4;
    let stat = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok()?.stat().ok());
    // The first thread may end before others.
    stat.is_some_and(|stat| stat.flags & PF_EXITING == 0 || stat.num_threads > 1)
}

/// Ports on which processes listen that `in_scope` accepts, in every network namespace that a process of this host
/// uses. `None` in place of the test: every listening port.
pub(super) fn listening_ports(in_scope: Option<&dyn Fn(&Process) -> bool>) -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    let mut namespaces: BTreeMap<u64, BTreeMap<u64, u16>> = BTreeMap::new();
    // The observer's own listener is nothing to observe.
    let observer = Process::myself().map(|process| sockets(&process)).unwrap_or_default();
    for process in processes() {
        if in_scope.is_some_and(|in_scope| !in_scope(&process)) {
            continue;
        }
        let Ok(namespace) = fs::metadata(format!("/proc/{}/ns/net", process.pid())).map(|data| data.ino()) else {
            continue;
        };
        let listening = namespaces.entry(namespace).or_insert_with(|| listeners(&process));
        if in_scope.is_none() {
            ports.extend(listening.iter().filter(|(inode, _)| !observer.contains(inode)).map(|(_, port)| *port));
            continue;
        }
        let own = sockets(&process);
        ports.extend(listening.iter().filter(|(inode, _)| own.contains(inode)).map(|(_, port)| *port));
    }
    ports
}

/// Connections that processes of this host have to these ports, at most `limit`, in every network namespace that one of
/// them uses. Looks at descriptors only where there is such a connection, and only until all are found.
pub(super) fn clients(ports: &BTreeSet<u16>, limit: usize) -> Vec<Connect> {
    let time = clock::now();
    let mut found = Vec::new();
    let mut namespaces: BTreeMap<u64, HashMap<u64, Ends>> = BTreeMap::new();
    let own = std::process::id();
    for process in processes() {
        let Some(pid) = u32::try_from(process.pid()).ok().filter(|pid| *pid != own) else { continue };
        let Ok(namespace) = fs::metadata(format!("/proc/{pid}/ns/net")).map(|data| data.ino()) else { continue };
        let open = namespaces.entry(namespace).or_insert_with(|| connections_to(&process, ports));
        if open.is_empty() {
            continue;
        }
        for inode in sockets(&process) {
            if found.len() >= limit {
                return found;
            }
            if let Some((local, remote)) = open.remove(&inode) {
                found.push(Connect { time, pid, local, remote });
            }
        }
    }
    found
}

/// Both ends of a connection, the nearer first.
type Ends = (SocketAddr, SocketAddr);

/// Socket inode to ends of all established TCP connections to these ports in a process's network namespace.
fn connections_to(process: &Process, ports: &BTreeSet<u16>) -> HashMap<u64, Ends> {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    [process.tcp(), process.tcp6()]
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.state == net::TcpState::Established && ports.contains(&entry.remote_address.port()))
        .map(|entry| (entry.inode, (canonical(entry.local_address), canonical(entry.remote_address))))
        .collect()
}

/// Inodes of a process's sockets.
fn sockets(process: &Process) -> HashSet<u64> {
    let descriptors = process.fd().into_iter().flatten().flatten();
    descriptors
        .filter_map(|descriptor| match descriptor.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        })
        .collect()
}

/// Socket inode to port of all listening TCP sockets in a process's network namespace.
fn listeners(process: &Process) -> BTreeMap<u64, u16> {
    let mut found = BTreeMap::new();
    let tables = [process.tcp(), process.tcp6()];
    for entry in tables.into_iter().flatten().flatten() {
        if entry.state == net::TcpState::Listen {
            found.insert(entry.inode, entry.local_address.port());
        }
    }
    found
}

fn processes() -> impl Iterator<Item = Process> {
    all_processes().into_iter().flatten().filter_map(|process: Result<Process, ProcError>| process.ok())
}

/// Whether a process lies in one of these cgroups or below.
pub(super) fn in_cgroups(process: &Process, cgroups: &[PathBuf]) -> bool {
    let Ok(own) = fs::read_to_string(format!("/proc/{}/cgroup", process.pid())) else { return false };
    let Some(own) = own.lines().find_map(|line| line.strip_prefix("0::")) else { return false };
    let own = Path::new(own);
    let root = cgroup_root();
    cgroups.iter().any(|cgroup| {
        let relative = root.as_ref().and_then(|root| cgroup.strip_prefix(root).ok()).unwrap_or(cgroup);
        own.strip_prefix("/").unwrap_or(own).starts_with(relative.strip_prefix("/").unwrap_or(relative))
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn descendants_include_children_and_exclude_strangers() {
        let mut child = Command::new("sleep").arg("20").stdout(Stdio::null()).spawn().expect("sleep runs");
        let own = std::process::id();
        let all = with_descendants(&[own]);
        assert_eq!((all.get(&own), all.get(&child.id())), (Some(&own), Some(&own)));
        assert!(!all.contains_key(&1));
        assert!(is_running(own) && is_running(child.id()));
        child.kill().expect("our own child");
        child.wait().expect("our own child");
        assert!(!is_running(child.id()));
    }

    #[test]
    fn own_listener_is_found_and_only_by_its_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let own = i32::try_from(std::process::id()).expect("pids are small");
        assert!(listening_ports(Some(&|process: &Process| process.pid() == own)).contains(&port));
        assert!(!listening_ports(Some(&|process: &Process| process.pid() == 1)).contains(&port));
        assert!(!listening_ports(None).contains(&port), "the observer's own");
    }

    #[test]
    fn connections_of_others_are_found_with_their_processes() {
        // Of the test's own process there is nothing to be found: it stands for the observer here.
        let mut found = Vec::new();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = std::net::TcpListener::bind(address).expect("loopback");
            let server = listener.local_addr().expect("bound");
            let script = "import socket,sys; s=socket.create_connection((sys.argv[1],int(sys.argv[2]))); s.recv(1)";
            let mut child = Command::new("python3")
                .args(["-c", script, &server.ip().to_string(), &server.port().to_string()])
                .spawn()
                .expect("python3 runs");
            let (stream, client) = listener.accept().expect("the child connects");
            found = clients(&[server.port()].into(), 10);
            drop(stream);
            child.wait().expect("our own child");
            let ends: Vec<_> = found.iter().map(|connect| (connect.pid, connect.local, connect.remote)).collect();
            assert_eq!(ends, [(child.id(), client, server)]);
            assert!(clients(&[server.port()].into(), 10).is_empty(), "it is over");
        }
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn a_missing_cgroup_says_so() {
        assert!(cgroup(Path::new("/no/such/cgroup")).is_err());
    }
}
