//! What a server's process belongs to: a container, else a systemd unit, else a process tree; and the name that people
//! know it by. `docs/workloads.md` tells how.
//!
//! [`Resolver`] is for the thread that handles events: it keeps what it has seen and reads a few small files for each
//! process that it has not. [`Places::members`] lists a workload's processes, on any thread.

mod cgroup;
#[cfg(test)]
mod cgroup_tests;
mod command;
#[cfg(test)]
mod fixture;
mod members;
mod names;
#[cfg(test)]
mod names_tests;
mod process;
mod root;
#[cfg(test)]
mod tests;
mod tree;

use std::{fmt, fs, io, ops::RangeInclusive, path::Path, sync::Arc, time::Duration};

use hashbrown::HashMap;

use self::{
    cgroup::{Container, Place},
    names::Origin,
    process::{Proc, Stat, read_text},
    root::Root,
    tree::Serving,
};
use crate::{kernel::capabilities, time::KernelTime};

/// What was found of a process holds for so long without another look: it may move, or replace its program.
const FRESH: Duration = Duration::from_secs(10);
/// Most processes remembered, and most that are known to serve.
const PROCESSES: usize = 4096;
/// Most workloads remembered.
const WORKLOADS: usize = 1024;
/// Most ancestors between a container's process and the container's keeper.
const MOST_LEVELS: usize = 32;
/// Ports that the kernel hands out, where it does not say.
const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;

/// What makes a workload the same as one seen before.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Key {
    /// A container's id: 64 hexadecimal digits.
    Container(Arc<str>),
    /// The cgroup of a systemd unit. It is the same after a restart.
    Unit(Arc<str>),
    /// The root of a process tree: its id, and its start in clock ticks since boot.
    Tree {
        /// Process id, the host's.
        pid: u32,
        /// Clock ticks from boot to its start.
        start: u64,
    },
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(id) => write!(f, "container {id}"),
            Self::Unit(cgroup) => write!(f, "unit {cgroup}"),
            Self::Tree { pid, start } => write!(f, "process {pid} since {start}"),
        }
    }
}

/// A workload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// What makes it the same.
    pub key: Key,
    /// The name that people know it by, the same after a restart. Two workloads may share it.
    pub name: Arc<str>,
    /// Id of its container.
    pub container_id: Option<Box<str>>,
    /// Its cgroup: the container's or the unit's, else that of the process seen first.
    pub cgroup: Box<str>,
    /// Hierarchy of `cgroup`: empty for v2, else the controllers as `/proc/PID/cgroup` has them.
    pub hierarchy: Box<str>,
    /// Its systemd service, or the one around its container.
    pub unit: Option<Box<str>>,
    /// Program and first words of the root process's command line, without options.
    pub command: Box<str>,
    /// Uid of its Kubernetes pod.
    pub pod_uid: Option<Box<str>>,
    /// Name of the root process's program.
    program: Arc<str>,
}

/// Where processes and files of the host are found.
#[derive(Clone, Debug)]
pub struct Places {
    proc: Proc,
    host: Root,
}

impl Places {
    /// A `proc` whose process ids are the host's, and the root of the host's files.
    #[must_use]
    pub fn new(proc: &Path, host: &Path) -> Self {
        Self { proc: Proc::new(proc), host: Root::new(host) }
    }

    /// Those of this host. `host_root`: where its root is mounted; empty: found by itself. `None`: there is no `/proc`
    /// with the host's process ids here.
    #[must_use]
    pub fn find(host_root: &Path) -> Option<Self> {
        let is_set = !host_root.as_os_str().is_empty();
        if capabilities::in_host_pid_namespace() {
            let of_init = Path::new("/proc/1/root");
            let found = if fs::read_dir(of_init).is_ok() { of_init } else { Path::new("/") };
            return Some(Self::new(Path::new("/proc"), if is_set { host_root } else { found }));
        }
        let proc = host_root.join("proc");
        (is_set && capabilities::is_host_proc(&proc)).then(|| Self::new(&proc, host_root))
    }

    /// The network namespace of a process.
    ///
    /// # Errors
    /// If the process is gone, or may not be looked into.
    pub fn network(&self, pid: u32) -> io::Result<fs::File> {
        fs::File::open(self.proc.file(pid, "ns/net"))
    }
}

/// A process, as it was last looked at.
#[derive(Debug)]
struct Seen {
    stat: Stat,
    cgroup: String,
    checked: KernelTime,
    identity: Arc<Identity>,
}

/// Finds the workloads of processes, and keeps them.
#[derive(Debug)]
pub struct Resolver {
    places: Places,
    processes: HashMap<u32, Seen>,
    workloads: HashMap<Key, Arc<Identity>>,
    serving: Serving,
    ephemeral: RangeInclusive<u16>,
    /// Most workloads remembered.
    room: usize,
}

impl Resolver {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(places: Places) -> Self {
        let ephemeral = read_text(Path::new("/proc/sys/net/ipv4/ip_local_port_range"), 100).and_then(|text| {
            let mut ports = text.split_ascii_whitespace().map(|port| port.parse().ok());
            Some(ports.next()??..=ports.next()??)
        });
        Self {
            places,
            processes: HashMap::new(),
            workloads: HashMap::new(),
            serving: Serving::new(),
            ephemeral: ephemeral.unwrap_or(EPHEMERAL),
            room: WORKLOADS,
        }
    }

    /// The workload of the process that serves a connection on `port` (`None`: not of TCP), and the name of its program,
    /// not of a thread. `None`: the process is gone.
    pub fn resolve(&mut self, pid: u32, port: Option<u16>, now: KernelTime) -> Option<(Arc<Identity>, Arc<str>)> {
        if let Some(seen) = self.processes.get(&pid)
            && now.saturating_since(seen.checked) < FRESH
        {
            return Some((seen.identity.clone(), seen.stat.comm.clone()));
        }
        let Some(stat) = self.places.proc.stat(pid) else {
            self.exited(pid);
            return None;
        };
        let cgroup = self.places.proc.cgroup(pid).unwrap_or_default();
        if let Some(seen) = self.processes.get_mut(&pid)
            && (&seen.stat, &seen.cgroup) == (&stat, &cgroup)
        {
            seen.checked = now;
            return Some((seen.identity.clone(), stat.comm));
        }
        let identity = self.identify(pid, &stat, &cgroup, port);
        if self.processes.len() >= PROCESSES {
            self.processes.clear();
        }
        let comm = stat.comm.clone();
        self.processes.insert(pid, Seen { stat, cgroup, checked: now, identity: identity.clone() });
        Some((identity, comm))
    }

    /// A process was seen to serve a language model: children that do so, too, are parts of its workload from now on.
    /// Whether that is new.
    pub fn serves(&mut self, pid: u32) -> bool {
        let known = self.processes.get(&pid).map(|seen| seen.stat.start);
        let Some(start) = known.or_else(|| Some(self.places.proc.stat(pid)?.start)) else { return false };
        if self.serving.get(&pid) == Some(&start) {
            return false;
        }
        if self.serving.len() >= PROCESSES {
            self.serving.clear();
        }
        self.serving.insert(pid, start);
        // Its children may have been taken for workloads of their own.
        self.processes.clear();
        true
    }

    /// A process replaced its program, or moved: it is looked at anew.
    pub fn changed(&mut self, pid: u32) {
        self.processes.remove(&pid);
    }

    /// A process ended.
    pub fn exited(&mut self, pid: u32) {
        self.processes.remove(&pid);
        self.serving.remove(&pid);
    }

    fn identify(&mut self, pid: u32, stat: &Stat, cgroup: &str, port: Option<u16>) -> Arc<Identity> {
        let place = Place::parse(cgroup);
        let by_cgroup = key_of(&place);
        if let Some(known) = by_cgroup.as_ref().and_then(|key| self.workloads.get(key)) {
            return known.clone();
        }
        let proc = &self.places.proc;
        let is_elsewhere = |other: u32| {
            proc.cgroup(other).is_none_or(|text| {
                let other = Place::parse(&text);
                (other.container, other.unit) != (place.container.clone(), place.unit.clone())
            })
        };
        let root = tree::root(proc, (pid, stat), port, &self.serving, is_elsewhere);
        let key = by_cgroup.unwrap_or(Key::Tree { pid: root.pid, start: root.stat.start });
        let program = root.stat.comm.clone();
        if let Some(known) = self.workloads.get(&key)
            && known.program == program
        {
            return known.clone();
        }
        let name = place.container.as_ref().and_then(|container| self.container_name(pid, container, &place.cgroup));
        let name = name.or_else(|| place.unit.as_deref().map(str::to_owned)).unwrap_or_else(|| {
            self.port(&root.ports, port).map_or_else(|| format!("{program}:unix"), |port| format!("{program}:{port}"))
        });
        let identity = Arc::new(Identity {
            key: key.clone(),
            name: name.into(),
            command: command::shown(&self.places.proc.command_line(root.pid)).into(),
            container_id: place.container.as_ref().map(|container| container.id.clone()),
            pod_uid: place.container.and_then(|container| container.pod_uid),
            cgroup: place.cgroup,
            hierarchy: place.hierarchy,
            unit: place.unit,
            program,
        });
        if self.workloads.len() >= self.room {
            self.workloads.clear();
        }
        self.workloads.insert(key, identity.clone());
        identity
    }

    /// The port that names a tree. The one of the connection seen first would change with who asks first, and the
    /// smallest one with what the kernel hands out: so the smallest that somebody chose.
    fn port(&self, listening: &[u16], connection: Option<u16>) -> Option<u16> {
        let chosen = listening.iter().find(|port| !self.ephemeral.contains(port));
        let its = connection.filter(|port| listening.contains(port));
        chosen.copied().or(its).or(listening.first().copied()).or(connection)
    }

    fn container_name(&self, pid: u32, container: &Container, cgroup: &str) -> Option<String> {
        let proc = &self.places.proc;
        let holds = |pid: u32| {
            let place = Place::parse(&proc.cgroup(pid).unwrap_or_default());
            place.container.is_some_and(|its| its.id == container.id)
        };
        let parent = |pid: &u32| proc.stat(*pid).map(|stat| stat.parent).filter(|pid| *pid > 0);
        let ancestors = std::iter::successors(parent(&pid), parent).take(MOST_LEVELS);
        // It runs where the runtime does: of a container within a container that is the outer one.
        let keeper = ancestors.into_iter().find(|pid| !holds(*pid));
        let mut users: Vec<u32> = cgroup
            .split('/')
            .filter_map(|part| part.strip_prefix("user-")?.strip_suffix(".slice")?.parse().ok())
            .chain(keeper.and_then(|keeper| proc.uid(keeper)))
            .filter(|user| *user != 0)
            .collect();
        users.dedup();
        let of_keeper = keeper.map(|keeper| Root::new(proc.file(keeper, "root")));
        let origin = Origin {
            roots: of_keeper.into_iter().chain([self.places.host.clone()]).collect(),
            users,
            keeper: keeper.map(|keeper| proc.command_line(keeper)).unwrap_or_default(),
        };
        names::container(&container.id, &origin)
    }
}

/// What a process's place alone makes it part of; `None`: its tree decides.
fn key_of(place: &Place) -> Option<Key> {
    match (&place.container, &place.unit) {
        (Some(container), _) => Some(Key::Container((&*container.id).into())),
        (None, Some(_)) => Some(Key::Unit((&*place.cgroup).into())),
        (None, None) => None,
    }
}
