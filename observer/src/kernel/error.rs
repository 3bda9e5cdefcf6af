//! Why nothing can be observed: what was attempted, on what, and what to do about it.

use std::{io, path::PathBuf};

use aya::maps::MapError;

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
    /// No hook for reads and writes of sockets.
    #[error(
        "cannot see reads and writes of sockets (kernel.socket_hook = {hook}): {reasons}; auto takes the first hook that \
         this kernel has, and `observer doctor` tells more"
    )]
    NoSocketHook {
        /// The setting.
        hook: &'static str,
        /// What was tried, and why it failed.
        reasons: String,
    },
    /// A map of the object could not be used.
    #[error("cannot use map {map}: {reason}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        reason: String,
    },
    /// Objects of the kernel cannot be looked at.
    #[error("cannot look at {what}: {reason}; those of other network namespaces take CAP_SYS_ADMIN")]
    Look {
        /// Which.
        what: &'static str,
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

/// An error with all its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// What became of a removal; that somebody else was first is no error. aya passes on the system call's own.
pub(super) fn removed(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

pub(super) fn missing(map: &'static str) -> KernelError {
    KernelError::Map { map, reason: "it is not in the object".into() }
}

pub(super) fn map_error(map: &'static str, error: &MapError) -> KernelError {
    KernelError::Map { map, reason: chain(error) }
}

#[cfg(test)]
mod tests {
    use std::io;

    use aya::sys::SyscallError;

    use super::*;

    #[test]
    fn what_somebody_else_removed_is_removed() {
        let failed = |code| {
            let io_error = io::Error::from_raw_os_error(code);
            Err(MapError::SyscallError(SyscallError { call: "bpf_map_delete_elem", io_error }))
        };
        assert!(removed(failed(libc::ENOENT)).is_ok() && removed(Err(MapError::KeyNotFound)).is_ok());
        assert!(removed(failed(libc::EPERM)).is_err());
    }
}
