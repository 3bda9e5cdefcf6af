//! Settings: defaults < file < environment < flags.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What to observe; an empty list is no restriction, all lists that are not empty must be satisfied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scope {
    /// Local (server) TCP ports.
    pub ports: Vec<u16>,
    /// Processes, with all their descendants.
    pub pids: Vec<u32>,
    /// Cgroup directories, with everything below them.
    pub cgroups: Vec<PathBuf>,
}
