//! Which hooks see reads and writes: found by trial, and in place only while there is a workload.
//!
//! The kernel's own functions (trampolines) cost no other call anything. Where they cannot all be hooked, every system
//! call of the host can be (`signals.io = on`). Half of one and half of the other would count some calls twice.

use std::any::Any;

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{BtfTracePoint, FEntry, FExit, ProgramError},
};

use super::{
    attach::{Loading, attach},
    clock,
    error::{KernelError, chain, map_error},
    loader::Kernel,
    probes::{Mechanism, PROBES, Probe, ProbeReport, Status},
    shed,
    signal::Signal,
};
use crate::config::{IoMode, Signals};

/// An attached program: detached when dropped.
pub(super) type Link = Box<dyn Any + Send + Sync>;

/// What is in place now.
#[derive(Default)]
pub(super) struct Hooked {
    /// There is a workload.
    asked: bool,
    /// `None`: not known, since the last change failed half way.
    wanted: Option<bool>,
    /// By the probe's name.
    links: Vec<(&'static str, Link)>,
    /// Probes that could be attached once, and could not the last time.
    failed: Vec<&'static str>,
}

impl Hooked {
    /// Whether a probe is in place now.
    pub(super) fn has(&self, name: &str) -> bool {
        self.links.iter().any(|(linked, _)| *linked == name)
    }
}

/// Whether a probe is in place only while there is a workload.
pub(super) const fn is_on_demand(probe: &Probe) -> bool {
    matches!(probe.signal, Some(Signal::Io | Signal::PageCache))
}

/// Whether a probe only notes when calls begin.
fn is_timer(mechanism: Mechanism, target: &str) -> bool {
    mechanism == Mechanism::Fentry || target == "sys_enter"
}

/// Of a probe of reads and writes: why it is not even tried, with those before it in the table tried.
pub(super) fn not_tried(probe: &Probe, signals: Signals, before: &[ProbeReport]) -> Option<String> {
    if is_timer(probe.mechanism, probe.target) && !signals.io_latency {
        return Some("signals.io_latency = false".to_owned());
    }
    let failed = functions(before).find(|report| !report.status.is_as_wanted());
    match (probe.mechanism.is_trampoline(), failed) {
        (true, Some(failed)) => Some(format!("since {} cannot be hooked", failed.target)),
        (true, None) => None,
        (false, None) => Some("the kernel's own functions are hooked".to_owned()),
        (false, Some(_)) if signals.io == IoMode::Auto => Some(
            "signals.io = auto: with it, every system call of the host would pay; signals.io = on counts files and \
             pipes so"
                .to_owned(),
        ),
        (false, Some(_)) => None,
    }
}

/// Makes all of the kernel's functions hooked or none, when all are tried. That they cannot be is as wanted where it is
/// known what to do instead.
pub(super) fn settle(signals: Signals, reports: &mut [ProbeReport]) {
    let Some(failed) = functions(reports).find(|report| !report.status.is_as_wanted()).map(|report| report.target)
    else {
        return;
    };
    let calls = by_calls(reports);
    for report in reports.iter_mut().filter(|report| is_function(report)) {
        report.status = match &report.status {
            Status::Attached => Status::Off(format!("since {failed} cannot be hooked")),
            Status::Unsupported(reason) if calls || signals.io == IoMode::Auto => Status::Off(reason.clone()),
            status => status.clone(),
        };
    }
}

/// Whether reads and writes are seen at the system call, instead of in the kernel's own functions.
pub(super) fn by_calls(reports: &[ProbeReport]) -> bool {
    reports.iter().any(|report| report.name == "syscall_exit" && report.is_attached())
}

pub(super) fn is_function(report: &ProbeReport) -> bool {
    report.signal == Some(Signal::Io) && report.mechanism.is_trampoline()
}

fn functions(reports: &[ProbeReport]) -> impl Iterator<Item = &ProbeReport> {
    reports.iter().filter(|report| is_function(report))
}

/// Attaches a loaded program.
pub(super) fn hook(ebpf: &mut Ebpf, probe: &Probe) -> Result<Link, ProgramError> {
    let program = ebpf.program_mut(probe.program).ok_or(ProgramError::NotLoaded)?;
    Ok(match probe.mechanism {
        Mechanism::Fentry => {
            let program: &mut FEntry = program.try_into()?;
            let id = program.attach()?;
            Box::new(program.take_link(id)?)
        }
        Mechanism::Fexit => {
            let program: &mut FExit = program.try_into()?;
            let id = program.attach()?;
            Box::new(program.take_link(id)?)
        }
        Mechanism::BtfTracepoint => {
            let program: &mut BtfTracePoint = program.try_into()?;
            let id = program.attach()?;
            Box::new(program.take_link(id)?)
        }
        Mechanism::Iterator => return Err(ProgramError::NotLoaded),
    })
}

impl Kernel {
    /// Whether functions of the kernel can be hooked: what became of the first one, which is tried now if it is not
    /// wanted otherwise.
    ///
    /// # Errors
    /// If the kernel's type information cannot be read.
    pub(super) fn try_trampoline(&mut self, signals: Signals) -> Result<Status, KernelError> {
        let tried = functions(&self.reports).next().filter(|_| signals.io != IoMode::Off);
        if let Some(report) = tried {
            return Ok(match &report.status {
                Status::Off(reason) => Status::Unsupported(reason.clone()),
                status => status.clone(),
            });
        }
        let Some(probe) =
            PROBES.iter().find(|probe| probe.mechanism.is_trampoline() && probe.signal == Some(Signal::Io))
        else {
            return Ok(Status::Broken("there is no such probe".to_owned()));
        };
        let btf = aya::Btf::from_sys_fs().map_err(|error| KernelError::Load { reason: chain(&error) })?;
        Ok(attach(&mut self.ebpf, Loading { btf: &btf, as_written: None }, probe).0)
    }

    /// There are workloads whose I/O is to be measured, or none any more. Probes that did not attach are tried again;
    /// none are in place while the signal is shed.
    ///
    /// # Errors
    /// If the map cannot be written. A probe that does not attach any more says so in its report.
    pub fn measure_io(&mut self, wanted: bool) -> Result<(), KernelError> {
        self.hooked.asked = wanted;
        self.settle_io()
    }

    /// Puts in place what is wanted now, or takes it away.
    pub(super) fn settle_io(&mut self) -> Result<(), KernelError> {
        const MAP: &str = "IO_SINCE";
        let wanted = self.hooked.asked && !self.is_shed(Signal::Io);
        if self.hooked.wanted == Some(wanted) && (!wanted || self.hooked.failed.is_empty()) {
            return Ok(());
        }
        self.hooked.wanted = None;
        if wanted {
            self.hook();
        } else {
            self.hooked.links.clear();
        }
        // Of calls that began before, nobody noted when.
        let since = if wanted { clock::now().as_nanos() } else { 0 };
        let mut map: Array<&mut MapData, u64> =
            Array::try_from(self.map(MAP)?).map_err(|error| map_error(MAP, &error))?;
        map.set(0, since, 0).map_err(|error| map_error(MAP, &error))?;
        self.hooked.wanted = Some(wanted);
        Ok(())
    }

    /// Attaches one probe that comes and goes, and detaches it; where there is none, one that can be shed the other way
    /// round.
    pub(super) fn try_hook(&mut self) -> Result<(), KernelError> {
        let failed = |error| KernelError::Look { what: "attaching a probe", reason: chain(&error) };
        let is_attached =
            |probe: &&Probe| self.reports.iter().any(|report| report.name == probe.name && report.is_attached());
        if let Some(probe) = PROBES.iter().filter(|probe| is_on_demand(probe)).find(is_attached) {
            return hook(&mut self.ebpf, probe).map(drop).map_err(failed);
        }
        let Some(probe) = PROBES.iter().filter(|probe| shed::comes_and_goes(probe)).find(is_attached) else {
            return Ok(());
        };
        self.links.retain(|(name, _)| *name != probe.name);
        let link = hook(&mut self.ebpf, probe).map_err(failed)?;
        self.links.push((probe.name, link));
        Ok(())
    }

    /// Attaches what is not in place. Of reads and writes that is all or nothing: half of it would count half.
    fn hook(&mut self) {
        let before = std::mem::take(&mut self.hooked.failed);
        for probe in PROBES.iter().filter(|probe| is_on_demand(probe)) {
            let Some(report) = self.reports.iter_mut().find(|report| report.name == probe.name) else { continue };
            let is_meant_to = report.is_attached() || before.contains(&probe.name);
            if !is_meant_to || self.hooked.links.iter().any(|(name, _)| *name == probe.name) {
                continue;
            }
            match hook(&mut self.ebpf, probe) {
                Ok(link) => {
                    self.hooked.links.push((probe.name, link));
                    report.status = Status::Attached;
                }
                Err(error) => {
                    report.status = Status::Broken(chain(&error));
                    self.hooked.failed.push(probe.name);
                }
            }
        }
        let failed = &self.hooked.failed;
        let of_io = |name: &str| PROBES.iter().any(|probe| probe.name == name && probe.signal == Some(Signal::Io));
        if failed.iter().any(|name| of_io(name)) {
            self.hooked.links.retain(|(name, _)| !of_io(name));
        }
    }

    /// Whether bytes of sockets are counted.
    #[must_use]
    pub fn sees_sockets(&self) -> bool {
        self.counts_sockets && self.sees_calls()
    }

    /// Whether calls that read or write are timed.
    #[must_use]
    pub fn times_io(&self) -> bool {
        let timer = |report: &ProbeReport| is_timer(report.mechanism, report.target);
        self.measures(Signal::Io)
            && self
                .reports()
                .iter()
                .any(|report| report.signal == Some(Signal::Io) && report.is_attached() && timer(report))
    }

    /// Whether calls are seen at the system call, where those on sockets are timed, too.
    #[must_use]
    pub fn times_sockets(&self) -> bool {
        self.times_io() && self.runs("syscall_exit")
    }
}

#[cfg(test)]
mod tests {
    use super::{super::host::is_measured, *};

    fn tried(signals: Signals, trial: impl Fn(&Probe) -> Status) -> Vec<(&'static str, Status)> {
        reports(signals, trial).into_iter().map(|report| (report.name, report.status)).collect()
    }

    fn reports(signals: Signals, trial: impl Fn(&Probe) -> Status) -> Vec<ProbeReport> {
        let mut reports: Vec<ProbeReport> = Vec::new();
        for probe in PROBES.iter().filter(|probe| probe.signal == Some(Signal::Io)) {
            let status = not_tried(probe, signals, &reports).map_or_else(|| trial(probe), Status::Off);
            reports.push(ProbeReport::new(probe, status));
        }
        settle(signals, &mut reports);
        reports
    }

    fn attached(reports: &[(&'static str, Status)]) -> Vec<&'static str> {
        reports.iter().filter(|(_, status)| *status == Status::Attached).map(|(name, _)| *name).collect()
    }

    const ON: Signals = Signals { scheduler: true, tcp: true, io: IoMode::On, io_latency: true, block: true };

    fn refused(probe: &Probe) -> Status {
        if probe.mechanism.is_trampoline() { Status::Unsupported("refused".into()) } else { Status::Attached }
    }

    #[test]
    fn functions_come_before_system_calls() {
        for io in [IoMode::Auto, IoMode::On] {
            let reports = tried(Signals { io, ..ON }, |_| Status::Attached);
            assert_eq!(attached(&reports).len(), 8, "{reports:?}");
            assert!(attached(&reports).iter().all(|name| !name.starts_with("syscall")));
            let untimed = tried(Signals { io, io_latency: false, ..ON }, |_| Status::Attached);
            assert_eq!(attached(&untimed), ["file_read", "file_write", "file_readv", "file_writev"]);
        }
    }

    #[test]
    fn where_they_are_refused_system_calls_are_only_hooked_if_wanted() {
        let reports = tried(ON, refused);
        assert_eq!(attached(&reports), ["syscall_enter", "syscall_exit"]);
        assert!(reports.iter().all(|(_, status)| status.is_as_wanted()), "{reports:?}");
        assert_eq!(attached(&tried(Signals { io_latency: false, ..ON }, refused)), ["syscall_exit"]);
        let reports = tried(Signals { io: IoMode::Auto, ..ON }, refused);
        assert!(attached(&reports).is_empty() && reports.iter().all(|(_, status)| status.is_as_wanted()));
        let said = |name: &str, what: &str| {
            let (_, status) = reports.iter().find(|(found, _)| *found == name).expect("a row");
            assert!(matches!(status, Status::Off(reason) if reason.contains(what)), "{status:?}");
        };
        said("file_read", "refused");
        said("syscall_exit", "signals.io = on");
    }

    #[test]
    fn no_call_is_seen_by_both() {
        // One that was inlined, say.
        let inlined = |probe: &Probe| {
            if probe.target == "vfs_writev" { Status::Unsupported("inlined".into()) } else { Status::Attached }
        };
        let reports = tried(ON, inlined);
        assert_eq!(attached(&reports), ["syscall_enter", "syscall_exit"], "{reports:?}");
        let nothing = tried(ON, |_| Status::Unsupported("nothing".into()));
        assert!(nothing.iter().any(|(_, status)| !status.is_as_wanted()), "nobody sees them, and that is said");
        let broken = tried(ON, |probe| {
            if probe.mechanism.is_trampoline() { Status::Broken("a defect".into()) } else { Status::Attached }
        });
        assert!(broken.iter().any(|(_, status)| matches!(status, Status::Broken(_))), "a defect stays one");
    }

    #[test]
    fn what_system_calls_replace_need_not_be_hooked() {
        let measured = |signals, trial: &dyn Fn(&Probe) -> Status| is_measured(&reports(signals, trial), Signal::Io);
        let broken = |what: &'static str| {
            move |probe: &Probe| {
                if probe.target == what { Status::Broken("busy".into()) } else { Status::Attached }
            }
        };
        let refused_to_us = |probe: &Probe| {
            if probe.mechanism.is_trampoline() { Status::NotPermitted("no".into()) } else { Status::Attached }
        };
        assert!(measured(ON, &|_| Status::Attached));
        assert!(measured(ON, &refused) && measured(ON, &refused_to_us) && measured(ON, &broken("vfs_writev")));
        assert!(!measured(Signals { io: IoMode::Auto, ..ON }, &broken("vfs_writev")), "nothing is counted");
        let no_times = |probe: &Probe| {
            if probe.target == "sys_enter" { Status::Broken("busy".into()) } else { refused_to_us(probe) }
        };
        assert!(!measured(ON, &no_times), "without a beginning no call counts");
        assert!(!measured(ON, &|probe| if probe.target == "sys_exit" {
            Status::Broken("busy".into())
        } else {
            refused(probe)
        }));
    }
}
