//! What the observer gives up once its probes are attached: privileges, by thread, that nothing needs any more.
//!
//! | file | what it is |
//! |---|---|
//! | `capabilities` | which a thread keeps; which it needs, by trial |
//! | `filter` | system calls that are refused from now on (seccomp) |
//! | `files` | where a thread may write, if anywhere (Landlock) |
//!
//! All of it is of one thread and of those that it starts: [`Sandbox::confine`] is the first thing that a thread does.
//! A kernel that lacks a part is no reason not to start: what is in force is told.
//!
//! Landlock is no use for threads that look at other processes: whoever is in such a domain is refused the links in
//! `/proc/PID` of all processes outside of it, whatever its capabilities.

mod capabilities;
mod files;
mod filter;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

pub use self::capabilities::{Capability, Held, held, least};

/// What a thread is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Looks at processes of this host, and at maps of the kernel.
    General,
    /// Serves HTTP: it neither opens a file nor connects anywhere.
    Http,
    /// Appends to this file, which is opened anew when it was moved away; `None`: nothing is opened.
    RequestLog {
        /// The file.
        path: Option<PathBuf>,
        /// Only with the capability to override permissions can it be opened anew.
        overrides: bool,
    },
    /// Enters network namespaces.
    Namespaces,
    /// Turns BPF run statistics on and off, and hooks programs in and out.
    Governor,
    /// Calls the GPU driver.
    Gpu {
        /// Reads performance counters, which drivers may keep for administrators.
        counters: bool,
    },
}

/// What threads are to be confined to.
#[derive(Clone, Debug)]
pub struct Sandbox {
    on: bool,
    /// What talking to the kernel side's maps and hooks takes, besides what everybody keeps.
    kernel: Vec<Capability>,
}

/// Why a thread could not be confined.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} ({reason}): security.sandbox = false does without")]
pub struct SandboxError {
    what: &'static str,
    reason: String,
}

/// What is in force for a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confined {
    kept: Held,
    dropped: Held,
    /// Refused system calls, or why none.
    filter: Option<String>,
    /// Version of Landlock's interface, 0: the kernel has none. `None`: it was not asked for.
    landlock: Option<u32>,
}

impl Sandbox {
    /// `kernel`: capabilities that every thread keeps, since the kernel side cannot be used without.
    #[must_use]
    pub fn new(on: bool, kernel: Vec<Capability>) -> Self {
        Self { on, kernel }
    }

    /// Whether threads are confined.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.on
    }

    /// Capabilities that a thread may keep, if it has them.
    fn wanted(&self, duty: &Duty) -> Vec<Capability> {
        let mut wanted = match duty {
            Duty::General => {
                // The links in `/proc/PID`; files that only their owner may read.
                let mut wanted = vec![Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];
                wanted.extend(&self.kernel);
                wanted
            }
            Duty::Http => Vec::new(),
            Duty::RequestLog { overrides, .. } => {
                overrides.then_some(Capability::CAP_DAC_OVERRIDE).into_iter().collect()
            }
            Duty::Namespaces | Duty::Governor => {
                let mut wanted = vec![Capability::CAP_SYS_ADMIN];
                wanted.extend(&self.kernel);
                wanted
            }
            Duty::Gpu { counters } => {
                // A driver's library is looked for below `/proc/1/root`.
                let mut wanted = vec![Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];
                wanted.extend(counters.then_some(Capability::CAP_SYS_ADMIN));
                wanted
            }
        };
        wanted.dedup();
        wanted
    }

    /// Whether `path` can be opened for appending, and made anew if it is moved away, with no capability at all. Nothing is
    /// opened or made for that.
    #[must_use]
    pub fn can_append_without_overriding(&self, path: &Path) -> bool {
        !self.on || least(&[], &[&[]], || files::can_append(path)).is_some()
    }

    /// Confines this thread and those that it will start. Nothing happens where the sandbox is off.
    ///
    /// # Errors
    /// If the kernel refuses what every kernel has.
    pub fn confine(&self, duty: &Duty) -> Result<Option<Confined>, SandboxError> {
        if !self.on {
            return Ok(None);
        }
        let failed = |what| move |reason: String| SandboxError { what, reason };
        capabilities::no_new_privileges().map_err(failed("forbid new privileges"))?;
        // Before capabilities go: neither needs one, now. What fails does not keep the rest from being given up.
        let landlock = match duty {
            Duty::Http => Some(files::restrict(None)),
            Duty::RequestLog { path, .. } => Some(files::restrict(path.as_deref())),
            Duty::General | Duty::Namespaces | Duty::Governor | Duty::Gpu { .. } => None,
        };
        let filter = filter::apply(&filter::Allowed {
            namespaces: *duty == Duty::Namespaces,
            statistics: *duty == Duty::Governor,
            writing: matches!(duty, Duty::RequestLog { path: Some(_), .. } | Duty::Gpu { .. }),
        });
        let (kept, dropped) = capabilities::keep(&self.wanted(duty)).map_err(failed("drop capabilities"))?;
        let landlock = landlock.transpose().map_err(failed("restrict files (Landlock)"))?;
        Ok(Some(Confined { kept, dropped, filter: filter.err(), landlock }))
    }

    /// [`Self::confine`] for a thread that goes on in any case; what is wrong goes to the log.
    pub fn confine_or_warn(&self, duty: &Duty) {
        match self.confine(duty) {
            Ok(Some(confined)) if confined.filter.is_some() || confined.landlock == Some(0) => {
                tracing::warn!("{} is confined in part only: {confined}", duty.name());
            }
            Ok(Some(confined)) => tracing::debug!("{}: {confined}", duty.name()),
            Ok(None) => {}
            Err(error) => tracing::warn!("{} is not confined: {error}", duty.name()),
        }
    }
}

impl Duty {
    /// The thread, for the log.
    const fn name(&self) -> &'static str {
        match self {
            Self::General => "most threads",
            Self::Http => "the HTTP thread",
            Self::RequestLog { .. } => "the request log's thread",
            Self::Namespaces => "the thread that enters network namespaces",
            Self::Governor => "the governor's thread",
            Self::Gpu { .. } => "the GPU thread",
        }
    }
}

impl std::fmt::Display for Confined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = format!("capabilities kept: {}; dropped: {}; no new privileges", self.kept, self.dropped);
        match &self.filter {
            None => text.push_str("; system calls filtered"),
            Some(reason) => {
                let _ = write!(text, "; no filter of system calls ({reason})");
            }
        }
        match self.landlock {
            Some(0) => text.push_str("; no Landlock in this kernel"),
            Some(version) => {
                let _ = write!(text, "; Landlock {version}");
            }
            None => {}
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests;
