//! Which process a server belongs to: the root of its process tree.
//!
//! Servers of language models are several processes: workers that share a socket, engines and workers that serve no
//! socket at all, a manager with a child for each model. From the process that owns a connection the way leads up to
//! the highest ancestor that
//! - holds a listening socket that the process holds too, or one on the connection's port (pre-forked workers, also
//!   those that are handed connections only), or
//! - serves requests to language models itself (Ollama and its runners), or
//! - runs the same program and made it by `fork` alone, in the same process group (workers that each open a socket of
//!   their own), or
//! - is a launcher that is known to start a server and its engines side by side.
//!
//! The way ends at processes that start things on behalf of people or of the system, at those that run tests, and where
//! the cgroup says that another container or unit begins.

use std::collections::{BTreeMap, HashMap};

use super::process::{Proc, Stat};

/// Most ancestors looked at.
const MOST_LEVELS: usize = 16;

/// Names of processes that start other things and belong to none of them: the system's and containers' own, people's,
/// and those that run tests and builds.
const STARTERS: [&str; 3] = [
    "systemd init containerd conmon dockerd docker-init crio podman runc crun tini dumb-init catatonit s6-svscan \
     s6-supervise runsv runsvdir supervisord circusd slurmd slurmstepd cron crond atd kubelet",
    "sh bash dash zsh fish ash busybox ksh tcsh csh pwsh nu sshd sshd-session login su sudo doas screen SCREEN script \
     gdb strace timeout nohup setsid nice xargs parallel watch code ipython",
    "pytest py.test tox nox make cargo cargo-nextest npm bazel gradle",
];
/// Names that may have something behind them: `containerd-shim-runc-v2` is cut off at 15 characters.
const STARTER_PREFIXES: [&str; 3] = ["containerd-shim", "tmux", "jupyter-"];
/// Modules and scripts of Python that run tests, notebooks or builds, as in `python -m NAME`.
const STARTER_MODULES: &str = "pytest unittest tox nox jupyter IPython ipykernel_launcher notebook supervisord";
/// Files that start a server and its engines as siblings.
const LAUNCHERS: &[&str] = &["text-generation-launcher"];

/// Processes that serve language models, with the times of their starts.
pub(super) type Serving = HashMap<u32, u64>;

/// The root of a process tree.
#[derive(Clone, Debug)]
pub(super) struct Root {
    pub(super) pid: u32,
    pub(super) stat: Stat,
    /// Ports of the listening TCP sockets that it holds.
    pub(super) ports: Vec<u16>,
}

/// Finds the root of the tree of `pid`, whose own `stat` is given.
///
/// `port`: of the connection. `serving`: processes that serve language models. `is_elsewhere`: whether a process is in
/// another container or unit.
pub(super) fn root(
    proc: &Proc,
    (pid, stat): (u32, &Stat),
    port: Option<u16>,
    serving: &Serving,
    is_elsewhere: impl Fn(u32) -> bool,
) -> Root {
    let listeners = proc.listeners(pid);
    let own = proc.held(pid, &listeners);
    let shared: BTreeMap<u64, u16> = listeners
        .iter()
        .filter(|(inode, listening)| own.contains_key(inode) || Some(**listening) == port)
        .map(|(inode, port)| (*inode, *port))
        .collect();
    let mut root = (pid, stat.clone());
    let mut below = (pid, stat.clone());
    for _ in 0..MOST_LEVELS {
        let parent = below.1.parent;
        // The first process starts everything. One that began after its child is another of the same number.
        let Some(stat) = (parent > 1).then(|| proc.stat(parent)).flatten() else { break };
        if stat.start > below.1.start || is_starter(proc, parent, &stat) || is_elsewhere(parent) {
            break;
        }
        let is_forked = || root.0 == below.0 && made_by_fork(proc, &below, (parent, &stat));
        if serving.get(&parent) == Some(&stat.start)
            || !proc.held(parent, &shared).is_empty()
            || is_launcher(proc, parent)
            || is_forked()
        {
            root = (parent, stat.clone());
        }
        below = (parent, stat);
    }
    let mut ports: Vec<u16> = match root.0 == pid {
        true => own.into_values().collect(),
        // Perhaps in a network namespace of its own.
        false => proc.held(root.0, &proc.listeners(root.0)).into_values().collect(),
    };
    ports.sort_unstable();
    ports.dedup();
    Root { pid: root.0, stat: root.1, ports }
}

fn is_starter(proc: &Proc, pid: u32, stat: &Stat) -> bool {
    let name = &*stat.comm;
    // A login shell is `-bash`.
    STARTERS.iter().any(|names| has_word(names, name.trim_start_matches('-')))
        || STARTER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || module(&proc.command_line(pid)).is_some_and(|module| has_word(STARTER_MODULES, module))
}

fn has_word(words: &str, word: &str) -> bool {
    words.split_ascii_whitespace().any(|known| known == word)
}

/// `NAME` of `python … -m NAME …`, or the file name of the script that it runs.
fn module(words: &[String]) -> Option<&str> {
    let program = words.first()?;
    if !file_name(program).starts_with("python") {
        return None;
    }
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-m" => return words.next()?.split('.').next(),
            "-W" | "-X" => drop(words.next()),
            "-c" => return None,
            option if option.starts_with('-') => {}
            script => return Some(file_name(script)),
        }
    }
    None
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn is_launcher(proc: &Proc, pid: u32) -> bool {
    proc.program(pid).is_some_and(|program| {
        program.file_name().and_then(|name| name.to_str()).is_some_and(|name| LAUNCHERS.contains(&name))
    })
}

/// Whether `child` is its parent's own program, without another having been started: the same file and either the same
/// command line, or that of Python's multiprocessing.
fn made_by_fork(proc: &Proc, (child, its): &(u32, Stat), (parent, stat): (u32, &Stat)) -> bool {
    let program = proc.program(*child);
    if its.group != stat.group || program.is_none() || program != proc.program(parent) {
        return false;
    }
    let words = proc.command_line(*child);
    let multiprocessing = |word: &String| word == "--multiprocessing-fork" || word.starts_with("from multiprocessing.");
    !words.is_empty() && (words.iter().any(multiprocessing) || words == proc.command_line(parent))
}

/// Children of all processes that run now.
pub(super) type Children = BTreeMap<u32, Vec<u32>>;

/// Who is whose child.
pub(super) fn children(proc: &Proc) -> Children {
    let mut children = Children::new();
    for pid in proc.all() {
        if let Some(stat) = proc.stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    children
}

/// All descendants of `root` and itself. `is_elsewhere`: those are left out, with their descendants.
pub(super) fn descendants(children: &Children, root: u32, is_elsewhere: impl Fn(u32) -> bool) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        // No process is its own ancestor, but `/proc` is not read in one moment.
        let fresh = |child: &u32| !found.contains(child) && !is_elsewhere(*child);
        let below: Vec<u32> = children.get(&pid).into_iter().flatten().copied().filter(fresh).collect();
        found.extend(below);
    }
    found
}
