//! Why nothing can be observed: what was attempted, on what, and what to do about it.

use std::{io, path::PathBuf};

/// Why nothing can be observed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Built without the kernel side.
    #[error("this binary was built without its BPF object: build it with `cargo xtask build`")]
    NoObject,
    /// The kernel publishes no type information.
    #[error(
        "cannot read the kernel's type information at /sys/kernel/btf/vmlinux ({error}): observer needs a kernel built \
         with CONFIG_DEBUG_INFO_BTF=y, and /sys mounted"
    )]
    NoBtf {
        /// What reading it gave.
        error: io::Error,
    },
    /// Its type information is of an unknown layout.
    #[error("cannot understand the kernel's type information at /sys/kernel/btf/vmlinux: please report this kernel")]
    BadBtf,
    /// A structure of this kernel differs from all that we know.
    #[error("this kernel's struct {structure} has no member {path}: please report this kernel")]
    NoMember {
        /// Its name.
        structure: &'static str,
        /// The member's path.
        path: &'static str,
    },
    /// Not allowed.
    #[error("not permitted to load BPF programs ({reason}): run as root, or with CAP_BPF and CAP_PERFMON")]
    NotPermitted {
        /// What the kernel said.
        reason: String,
    },
    /// The object did not load.
    #[error("cannot load the BPF object: {reason}")]
    Load {
        /// What the kernel or loader said.
        reason: String,
    },
    /// A required probe did not attach.
    #[error("cannot attach probe {probe} ({target}): {reason}; `observer doctor` tells more")]
    RequiredProbe {
        /// Its name.
        probe: &'static str,
        /// What it is hooked to.
        target: &'static str,
        /// Why.
        reason: String,
    },
    /// A map of the object could not be used.
    #[error("cannot use map {map}: {reason}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        reason: String,
    },
    /// A cgroup of the scope cannot be observed.
    #[error("cannot observe cgroup {}: {reason}; give a directory of the cgroup v2 hierarchy", path.display())]
    Cgroup {
        /// As configured.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}
