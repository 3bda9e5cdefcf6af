//! The processes of a workload, now.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Identity, Key, Places, cgroup::Place, key_of, process::read_text, tree};

/// Most directories of one workload's cgroup.
const MOST_CGROUPS: usize = 4096;
/// Most bytes of a list of processes or of mounts.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

impl Places {
    /// The processes of a workload that run now, in the host's numbers and in no order; without the observer itself.
    ///
    /// Of a container or a unit those that are in its cgroup or below, but for those of containers within; of a
    /// process tree the root with all its descendants, but for those of containers and units; none once the root has
    /// ended. It reads a file per process of the host in the latter case: nothing for a thread that has no time.
    #[must_use]
    pub fn members(&self, identity: &Identity) -> Vec<u32> {
        self.members_now(identity, &mut None)
    }

    /// [`Self::members`] of several workloads, with one look at the host's processes. A tree whose root is part of
    /// another of them by now has none: it was found before it was known what it is part of.
    #[must_use]
    pub fn members_of(&self, identities: &[Arc<Identity>]) -> Vec<Vec<u32>> {
        let mut children = None;
        let mut all: Vec<Vec<u32>> = identities.iter().map(|one| self.members_now(one, &mut children)).collect();
        for (index, identity) in identities.iter().enumerate() {
            let Key::Tree { pid, .. } = &identity.key else { continue };
            let is_within = |(other, members): (usize, &Vec<u32>)| {
                other != index && identities[other].key != identity.key && members.contains(pid)
            };
            if all.iter().enumerate().any(is_within) {
                all[index].clear();
            }
        }
        all
    }

    fn members_now(&self, identity: &Identity, children: &mut Option<tree::Children>) -> Vec<u32> {
        let mut members = match &identity.key {
            Key::Tree { pid, start } => {
                let is_elsewhere = |pid| self.key(pid).is_none_or(|key| key.is_some());
                let runs = self.proc.stat(*pid).is_some_and(|stat| stat.start == *start);
                let children = children.get_or_insert_with(|| tree::children(&self.proc));
                if runs { tree::descendants(children, *pid, is_elsewhere) } else { Vec::new() }
            }
            key => self.listed(identity).unwrap_or_else(|| {
                self.proc.all().filter(|pid| self.key(*pid).flatten().as_ref() == Some(key)).collect()
            }),
        };
        members.retain(|pid| *pid != std::process::id());
        members
    }

    /// What a process's cgroup makes it part of; `None`: it is gone.
    fn key(&self, pid: u32) -> Option<Option<Key>> {
        Some(key_of(&Place::parse(&self.proc.cgroup(pid)?)))
    }

    /// By the lists that the kernel keeps for each cgroup; `None`: they are not here, or in other numbers.
    fn listed(&self, identity: &Identity) -> Option<Vec<u32>> {
        let path = identity.cgroup.strip_prefix('/').filter(|path| !path.is_empty() && !path.contains(".."))?;
        let mount = self.mount(&identity.hierarchy)?;
        let mut found = Vec::new();
        let mut open = vec![PathBuf::from(path)];
        let mut seen = 0;
        while let Some(folder) = open.pop() {
            seen += 1;
            let list = read_text(&mount.join(&folder).join("cgroup.procs"), MOST_BYTES);
            match list {
                Some(list) => {
                    let pids = list.lines().map(str::parse).collect::<Result<Vec<u32>, _>>().ok()?;
                    // 0: in a PID namespace that is not below ours.
                    if pids.contains(&0) {
                        return None;
                    }
                    found.extend(pids);
                }
                // A threaded cgroup has no such list; another may just be gone.
                None if seen == 1 => return None,
                None => {}
            }
            let below = fs::read_dir(mount.join(&folder)).into_iter().flatten().flatten();
            let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let below = below.map(|entry| folder.join(entry.file_name()));
            let is_ours = |folder: &PathBuf| {
                let place = Place::parse(&format!("0::/{}", folder.display()));
                key_of(&place).is_some_and(|key| key == identity.key)
            };
            open.extend(below.filter(is_ours).take(MOST_CGROUPS.saturating_sub(seen + open.len())));
        }
        Some(found)
    }

    /// Where a hierarchy is mounted here, from its root.
    fn mount(&self, hierarchy: &str) -> Option<PathBuf> {
        let mounts = read_text(Path::new("/proc/self/mountinfo"), MOST_BYTES)?;
        mounts.lines().find_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mut mount = mount.split(' ').skip(3);
            let (root, point) = (mount.next()?, mount.next()?);
            let mut file_system = file_system.split(' ');
            let (kind, options) = (file_system.next()?, file_system.nth(1)?);
            let is_it = match hierarchy {
                "" => kind == "cgroup2",
                controllers => {
                    kind == "cgroup"
                        && controllers.split(',').all(|name| options.split(',').any(|option| option == name))
                }
            };
            (root == "/" && is_it).then(|| PathBuf::from(point))
        })
    }
}
