//! Whether functions of the kernel can be hooked.

use super::{Finding, Level, finding};
use crate::{
    config::{IoMode, Signals},
    kernel::{
        io,
        probes::{ProbeReport, Status},
    },
};

/// What became of the trial, and what follows for reads and writes of files and pipes.
pub(super) fn trampolines(trial: &Status, probes: &[ProbeReport], signals: Signals) -> Finding {
    const SUBJECT: &str = "trampolines";
    let reason = match trial {
        Status::Attached | Status::Off(_) => {
            return finding(SUBJECT, Level::Ok, "functions of the kernel can be hooked (fentry, fexit)", "");
        }
        Status::Unsupported(reason) | Status::NotPermitted(reason) | Status::Broken(reason) => reason,
    };
    if signals.io == IoMode::Off {
        return finding(SUBJECT, Level::Ok, format!("{reason}; nothing wanted needs them: signals.io = off"), "");
    }
    if io::by_calls(probes) {
        let found = format!("{reason}: reads and writes of files and pipes are seen at system calls instead");
        return finding(SUBJECT, Level::Ok, found, "");
    }
    finding(
        SUBJECT,
        Level::Warning,
        format!("{reason}: reads and writes of files and pipes of workloads are not counted"),
        "signals.io = on counts them at system calls, at a cost to every call of the host (docs/overhead.md); \
         signals.io = off, if they are not wanted",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_matters_only_where_they_are_wanted() {
        let refused = Status::Unsupported("refused".into());
        let with = |trial: &Status, io| trampolines(trial, &[], Signals { io, ..Signals::default() }).level;
        assert_eq!(with(&refused, IoMode::Off), Level::Ok);
        assert_eq!(with(&refused, IoMode::Auto), Level::Warning);
        assert_eq!(with(&Status::Attached, IoMode::Auto), Level::Ok);
    }
}
