//! A cgroup of the test's own.

use std::path::{Path, PathBuf};

use crate::wait;

/// Where the cgroup v2 hierarchy is mounted.
#[must_use]
pub fn root() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(point))
    })
}

/// Where a hierarchy of cgroup v1 with this controller is mounted.
#[must_use]
pub fn root_of(controller: &str) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup" && options.split(',').any(|option| option == controller)).then(|| PathBuf::from(point))
    })
}

/// A new cgroup below the root; removed with its owner, when its processes have ended.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes a cgroup whose name holds `name` and this process's id.
    ///
    /// # Panics
    /// If there is no hierarchy, or it cannot be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::at(&root().expect("cgroup v2 is mounted"), name)
    }

    /// As [`Self::new`], in the hierarchy that is mounted there.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn at(root: &Path, name: &str) -> Self {
        let path = root.join(format!("observer-e2e-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap_or_else(|error| panic!("creating {}: {error}", path.display()));
        Self(path)
    }

    /// A new cgroup below this one; it must go first.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn below(&self, name: &str) -> Self {
        let path = self.0.join(name);
        std::fs::create_dir(&path).unwrap_or_else(|error| panic!("creating {}: {error}", path.display()));
        Self(path)
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Moves a process into it.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn add(&self, pid: u32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("the process can be moved");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes that have just been reaped may be counted for a moment.
        let removed = wait::try_until(wait::SOON, || std::fs::remove_dir(&self.0).ok());
        if removed.is_none() {
            println!("{} could not be removed", self.0.display());
        }
    }
}
