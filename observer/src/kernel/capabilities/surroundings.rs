//! Where this process runs: namespaces, cgroups, mounts.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use super::{
    super::scope,
    Finding, Level, finding, in_host_pid_namespace, is_host_proc,
    privileges::{CAP_SYS_ADMIN, CAP_SYS_PTRACE, effective, has},
    read,
};

/// The inode number of the hierarchy's real root.
const ROOT_CGROUP: u64 = 1;

/// The inode number that kernels from 6.18 on give their initial network namespace; others give any.
const INITIAL_NETWORK_NAMESPACE: &str = "net:[4026531833]";

/// Where file systems of a kind are mounted, and their options.
fn mounts(kind: &str) -> Vec<(PathBuf, String)> {
    of_kind(&read("/proc/self/mountinfo").unwrap_or_default(), kind)
}

fn of_kind(mountinfo: &str, kind: &str) -> Vec<(PathBuf, String)> {
    let mount = |line: &str| {
        let (mount, source) = line.split_once(" - ")?;
        let mut source = source.split(' ');
        let is_it = source.next() == Some(kind);
        let place = mount.split(' ').nth(4)?;
        is_it.then(|| (PathBuf::from(place), source.nth(1).unwrap_or_default().to_owned()))
    };
    mountinfo.lines().filter_map(mount).collect()
}

pub(super) fn cgroups() -> Finding {
    const SUBJECT: &str = "cgroups";
    let old = mounts("cgroup");
    let root = scope::cgroup_root();
    let (level, mut found, mut advice) = match (&root, old.is_empty()) {
        (Some(root), true) => (Level::Ok, format!("v2, mounted at {}", root.display()), ""),
        (Some(root), false) => {
            (Level::Ok, format!("hybrid: v2 mounted at {}, {} hierarchies of v1", root.display(), old.len()), "")
        }
        (None, false) => (
            Level::Warning,
            format!("v1 alone, {} hierarchies: --cgroups cannot be used", old.len()),
            "mount v2 beside it: mount -t cgroup2 none /sys/fs/cgroup/unified; or name servers by --ports or --pids",
        ),
        (None, true) => (
            Level::Warning,
            "not mounted: --cgroups cannot be used".to_owned(),
            "mount v2 at /sys/fs/cgroup; or name servers by --ports or --pids",
        ),
    };
    // The kernel side counts levels from there.
    if root.is_some_and(|root| fs::metadata(root).is_ok_and(|data| data.ino() != ROOT_CGROUP)) {
        found.push_str(", but only a part of the hierarchy: --cgroups cannot be used");
        advice = "to use it, run in the host's cgroup namespace (docker run --cgroupns=host)";
    }
    finding(SUBJECT, level, found, advice)
}

/// The kernel's file system for tracepoints and kprobes: none of the hooks is made through it.
pub(super) fn tracefs() -> Finding {
    let found = match mounts("tracefs").first() {
        Some((place, _)) => format!("mounted at {}; no hook needs it", place.display()),
        None => "not mounted; no hook needs it".to_owned(),
    };
    finding("tracefs", Level::Ok, found, "")
}

pub(super) fn pid_namespace() -> Finding {
    const SUBJECT: &str = "PID namespace";
    match fs::read_link("/proc/self/ns/pid") {
        Ok(_) if in_host_pid_namespace() => finding(SUBJECT, Level::Ok, "the host's", ""),
        Ok(_) => finding(
            SUBJECT,
            Level::Warning,
            "a container's: process ids differ from the kernel's, so that --pids means nothing, servers are named by \
             their threads and not by container or unit, workloads have no signals but their requests, and processes \
             on GPUs are not joined with them",
            "run in the host's (docker run --pid=host, Kubernetes hostPID: true)",
        ),
        Err(error) => finding(SUBJECT, Level::Warning, error.to_string(), "mount /proc"),
    }
}

/// Connections are seen in every network namespace, from any; what is asked of the kernel about one takes entering it.
pub(super) fn network_namespaces() -> Finding {
    const SUBJECT: &str = "network namespaces";
    let own = fs::read_link("/proc/self/ns/net").ok();
    let host = is_host_proc("/proc".as_ref()).then(|| fs::read_link("/proc/1/ns/net").ok()).flatten();
    let this = match host {
        Some(_) if own == host => "in the host's; ",
        None if own.is_some_and(|own| own.as_os_str() == INITIAL_NETWORK_NAMESPACE) => "in the host's; ",
        Some(_) => "in one of its own; ",
        None => "",
    };
    let held = effective();
    if has(held, CAP_SYS_ADMIN) && has(held, CAP_SYS_PTRACE) {
        let found = format!("{this}connections are seen in all, and those of containers can be entered");
        finding(SUBJECT, Level::Ok, found, "")
    } else {
        finding(
            SUBJECT,
            Level::Warning,
            format!(
                "{this}connections are seen in all, but those of containers cannot be entered: their workloads have \
                 no unsent bytes and no listen-queue overflows"
            ),
            "add CAP_SYS_ADMIN and CAP_SYS_PTRACE to have these",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_kind() {
        let text = "24 30 0:22 / /sys/kernel/tracing rw,nosuid - tracefs none rw\n\
                    30 1 0:26 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
                    31 1 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let places = |kind| of_kind(text, kind).into_iter().map(|(place, _)| place).collect::<Vec<_>>();
        assert_eq!(places("tracefs"), [PathBuf::from("/sys/kernel/tracing")]);
        assert_eq!(places("cgroup"), [PathBuf::from("/sys/fs/cgroup/cpu")]);
        assert_eq!(places("cgroup2"), [PathBuf::from("/sys/fs/cgroup/unified")]);
        assert!(places("debugfs").is_empty());
    }
}
