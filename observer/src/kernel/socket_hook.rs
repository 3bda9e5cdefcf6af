//! Where reads and writes of sockets are seen: found by trial, never by the kernel's version. One kind of hook is in
//! place, since two would see each call twice.

use super::{
    error::KernelError,
    loader::{Kernel, Options},
    probes::{Probe, ProbeReport, Status},
};
use crate::config::SocketHook;

/// When a row of the table is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tried {
    /// Whenever its signal is on.
    Always,
    /// Only with this hook for sockets.
    With(SocketHook),
    /// Only where another row, which comes before it, is not attached.
    Without(&'static str),
}

/// What to try first, and what after it. Trampolines cost other calls nothing; the end of every system call is last.
const fn candidates(setting: SocketHook) -> (SocketHook, &'static [SocketHook]) {
    match setting {
        SocketHook::Auto => (SocketHook::Tracepoint, &[SocketHook::Fexit, SocketHook::SysExit]),
        named => (named, &[]),
    }
}

/// Loads the kernel side and attaches its probes, with the first hook that this kernel takes; with the last one that was
/// tried, if it takes none. `prepare` comes between loading and attaching.
pub(super) fn attach(
    options: Options,
    prepare: impl Fn(&mut Kernel) -> Result<(), KernelError>,
) -> Result<Kernel, KernelError> {
    let one = |hook, is_last| {
        let mut kernel = Kernel::load(options, hook)?;
        prepare(&mut kernel)?;
        kernel.attach_probes(is_last)?;
        Ok(kernel)
    };
    first(options.socket_hook, one, |kernel| &mut kernel.reports)
}

/// The first hook that sees calls, or the last. `one` tries one, and is told whether it is the last; it is dropped before
/// the next is tried.
fn first<T>(
    setting: SocketHook,
    mut one: impl FnMut(SocketHook, bool) -> Result<T, KernelError>,
    reports: impl Fn(&mut T) -> &mut Vec<ProbeReport>,
) -> Result<T, KernelError> {
    let mut failed = Vec::new();
    let (mut hook, mut rest) = candidates(setting);
    loop {
        let mut tried = one(hook, rest.is_empty())?;
        let found = reports(&mut tried);
        let Some((next, others)) = rest.split_first().filter(|_| !is_seeing(found)) else {
            tell(found, failed, hook);
            return Ok(tried);
        };
        failed.extend(found.drain(..).filter(|report| report.required && !report.is_attached()));
        (hook, rest) = (*next, others);
    }
}

/// Why a row is not tried, with those before it in the table tried.
pub(super) fn not_tried(probe: &Probe, hook: SocketHook, before: &[ProbeReport]) -> Option<String> {
    match probe.tried {
        Tried::With(other) if other != hook => Some(format!("kernel.socket_hook: {} is in use", hook.as_str())),
        Tried::Without(other) if before.iter().any(|report| report.name == other && report.is_attached()) => {
            Some(format!("{other} is attached"))
        }
        _ => None,
    }
}

/// What was tried in vain is as wanted if something else took its place.
pub(super) fn settle(reports: &mut [ProbeReport], probes: &[Probe]) {
    for probe in probes {
        let Tried::Without(other) = probe.tried else { continue };
        if reports.iter().any(|report| report.name == probe.name && report.is_attached())
            && let Some(report) = reports.iter_mut().find(|report| report.name == other)
            && let Status::Unsupported(reason) = &report.status
        {
            report.status = Status::Off(format!("{reason}; {} is hooked instead", probe.target));
        }
    }
}

/// Notes what became of the hooks that were tried before this one.
fn tell(reports: &mut [ProbeReport], failed: Vec<ProbeReport>, hook: SocketHook) {
    let seeing = is_seeing(reports);
    for failure in failed {
        let Some(report) = reports.iter_mut().find(|report| report.name == failure.name) else { continue };
        *report = match &failure.status {
            Status::Unsupported(reason) | Status::NotPermitted(reason) | Status::Broken(reason) if seeing => {
                let status = Status::Off(format!("{reason}; {} is in use", hook.as_str()));
                ProbeReport { required: false, status, ..failure }
            }
            _ => failure,
        };
    }
}

/// Whether reads and writes are seen.
pub(super) fn is_seeing(reports: &[ProbeReport]) -> bool {
    let mut required = reports.iter().filter(|report| report.required).peekable();
    required.peek().is_some() && required.all(ProbeReport::is_attached)
}

/// Demands that reads and writes are seen.
pub(super) fn check(reports: &[ProbeReport], setting: SocketHook) -> Result<(), KernelError> {
    if is_seeing(reports) {
        return Ok(());
    }
    let reason = |report: &ProbeReport| match &report.status {
        Status::Unsupported(reason) | Status::NotPermitted(reason) | Status::Broken(reason) | Status::Off(reason) => {
            Some(format!("{} {}: {reason}", report.mechanism.as_str(), report.target))
        }
        Status::Attached => None,
    };
    let reasons: Vec<String> = reports.iter().filter(|report| report.required).filter_map(reason).collect();
    Err(KernelError::NoSocketHook { hook: setting.as_str(), reasons: reasons.join("; ") })
}

impl Kernel {
    /// Where reads and writes of sockets are seen.
    #[must_use]
    pub const fn socket_hook(&self) -> SocketHook {
        self.hook
    }

    /// Whether they are.
    pub(super) fn sees_calls(&self) -> bool {
        is_seeing(&self.reports)
    }

    /// Whether the moment at which bytes arrive is noted, so that times count from there.
    #[must_use]
    pub fn sees_arrivals(&self) -> bool {
        self.runs("socket_state") && (self.runs("data_ready") || self.runs("data_ready_function"))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::probes::{Mechanism, PROBES},
        *,
    };

    /// What becomes of the table's rows without a signal, as [`attach`] goes about it.
    fn tried(setting: SocketHook, trial: impl Fn(&Probe) -> Status) -> Vec<ProbeReport> {
        let one = |hook, _| {
            let mut reports = Vec::new();
            for probe in PROBES.iter().filter(|probe| probe.signal.is_none()) {
                let mut report = ProbeReport::new(probe, Status::Attached);
                match not_tried(probe, hook, &reports) {
                    Some(reason) => (report.required, report.status) = (false, Status::Off(reason)),
                    None => report.status = trial(probe),
                }
                reports.push(report);
            }
            settle(&mut reports, PROBES);
            Ok(reports)
        };
        first(setting, one, |reports| reports).expect("a trial is no error")
    }

    /// The mechanisms by which sockets' calls are seen.
    fn seen_by(reports: &[ProbeReport]) -> Vec<(&'static str, &'static str)> {
        let of_sockets = |name| PROBES.iter().any(|probe| probe.name == name && matches!(probe.tried, Tried::With(_)));
        reports
            .iter()
            .filter(|report| report.is_attached() && of_sockets(report.name))
            .map(|report| (report.mechanism.as_str(), report.target))
            .collect()
    }

    fn old(probe: &Probe) -> Status {
        let is_new = ["sock_send_length", "sock_recv_length", "sk_data_ready"].contains(&probe.target);
        if is_new { Status::Unsupported("this kernel has no such tracepoint".into()) } else { Status::Attached }
    }

    fn old_without_trampolines(probe: &Probe) -> Status {
        if probe.mechanism.is_trampoline() { Status::Unsupported("refused".into()) } else { old(probe) }
    }

    #[test]
    fn the_first_that_loads_is_the_only_one() {
        let tracepoints = [("btf_tracepoint", "sock_send_length"), ("btf_tracepoint", "sock_recv_length")];
        let newest = tried(SocketHook::Auto, |_| Status::Attached);
        assert_eq!(seen_by(&newest), tracepoints);
        let older = tried(SocketHook::Auto, old);
        assert!(seen_by(&older).iter().all(|(mechanism, _)| *mechanism == "fexit"), "{older:?}");
        assert!(seen_by(&older).contains(&("fexit", "tcp_recvmsg")));
        let last = tried(SocketHook::Auto, old_without_trampolines);
        assert_eq!(seen_by(&last), [("btf_tracepoint", "sys_exit")]);
        for (reports, which) in [(&newest, "newest"), (&older, "older")] {
            assert!(reports.iter().all(|report| report.status.is_as_wanted()), "{which}: {reports:?}");
            check(reports, SocketHook::Auto).expect(which);
        }
        // Here arrivals are unknown, which is said; that other hooks failed is no matter of its own.
        let missing: Vec<_> =
            last.iter().filter(|report| !report.status.is_as_wanted()).map(|report| report.name).collect();
        assert_eq!(missing, ["data_ready", "data_ready_function"]);
        check(&last, SocketHook::Auto).expect("the last one");
        let status = |name| &last.iter().find(|report| report.name == name).expect("a row").status;
        assert_eq!(*status("tcp_send"), Status::Off("refused; sys-exit is in use".into()));
    }

    #[test]
    fn half_of_a_hook_is_none() {
        let no_receiving = |probe: &Probe| {
            if probe.target == "sock_recv_length" { Status::Broken("busy".into()) } else { Status::Attached }
        };
        let reports = tried(SocketHook::Auto, no_receiving);
        assert!(seen_by(&reports).iter().all(|(mechanism, _)| *mechanism == "fexit"), "{reports:?}");
        let refused = reports.iter().find(|report| report.name == "socket_receive").expect("a row");
        assert_eq!(refused.status, Status::Off("busy; fexit is in use".into()), "why it is not the better one");
        // AF_UNIX may be a module that is not there.
        let no_unix = |probe: &Probe| {
            if probe.target.starts_with("unix_") { Status::Unsupported("no function".into()) } else { old(probe) }
        };
        let reports = tried(SocketHook::Auto, no_unix);
        assert_eq!(seen_by(&reports).len(), 3, "{reports:?}");
    }

    #[test]
    fn a_named_one_is_not_replaced() {
        for (setting, mechanism) in
            [(SocketHook::Fexit, Mechanism::Fexit), (SocketHook::Tracepoint, Mechanism::BtfTracepoint)]
        {
            let reports = tried(setting, old_without_trampolines);
            assert!(seen_by(&reports).iter().all(|(other, _)| *other == mechanism.as_str()), "{reports:?}");
            let error = check(&reports, setting).expect_err("it cannot be had").to_string();
            assert!(error.contains(&format!("kernel.socket_hook = {}", setting.as_str())), "{error}");
        }
        assert_eq!(seen_by(&tried(SocketHook::SysExit, |_| Status::Attached)), [("btf_tracepoint", "sys_exit")]);
    }

    #[test]
    fn where_none_loads_each_says_why() {
        let reports = tried(SocketHook::Auto, |probe| Status::Unsupported(format!("no {}", probe.target)));
        let error = check(&reports, SocketHook::Auto).expect_err("nothing is seen").to_string();
        for target in ["sock_send_length", "tcp_sendmsg", "sys_exit"] {
            assert!(error.contains(&format!("no {target}")), "{error}");
        }
    }
}
