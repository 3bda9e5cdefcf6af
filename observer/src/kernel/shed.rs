//! Takes the probes of a signal away while observing, and puts them back.
//!
//! Their programs stay loaded, so that neither takes more than attaching does. What a gap leaves behind must not be
//! measured afterwards: the scheduler's last look at each thread, requests to block devices whose end went by.

use aya::maps::{Array, MapData};

use super::{
    clock,
    error::{KernelError, chain, map_error},
    hook_cost::HookKind,
    io,
    loader::Kernel,
    probes::{Mechanism, PROBES, Probe, ProbeReport},
    signal::Signal,
    statistics::ProbeCost,
};

/// What comes and goes with a signal: what comes into the page cache is a part of I/O.
const fn of(signal: Signal) -> Signal {
    match signal {
        Signal::PageCache => Signal::Io,
        other => other,
    }
}

/// Rows whose probes come and go with a signal. Iterators hook nothing, and of TCP nothing else is to be taken away:
/// segments that are sent again are few.
fn rows(signal: Signal) -> impl DoubleEndedIterator<Item = &'static Probe> {
    PROBES.iter().filter(move |probe| probe.signal.map(of) == Some(of(signal)) && comes_and_goes(probe))
}

/// Whether a probe is taken away and put back with its signal.
pub(super) fn comes_and_goes(probe: &Probe) -> bool {
    probe.mechanism != Mechanism::Iterator && probe.signal.is_some_and(|signal| signal != Signal::Tcp)
}

impl Kernel {
    /// Whether the probes of a signal are taken away for now; of TCP, whether its sockets are not looked at.
    #[must_use]
    pub fn is_shed(&self, signal: Signal) -> bool {
        self.shed.contains(&of(signal))
    }

    /// Whether a probe is not in place because its signal is shed.
    #[must_use]
    pub fn is_away(&self, report: &ProbeReport) -> bool {
        report.signal.is_some_and(|signal| {
            let is_one = report.mechanism == Mechanism::Iterator || rows(signal).any(|probe| probe.name == report.name);
            is_one && self.is_shed(signal)
        })
    }

    /// Takes the probes of a signal away.
    ///
    /// # Errors
    /// If a map cannot be written.
    pub fn shed(&mut self, signal: Signal) -> Result<(), KernelError> {
        if !self.is_shed(signal) {
            self.shed.push(of(signal));
        }
        self.links.retain(|(name, _)| !rows(signal).any(|probe| probe.name == *name));
        self.settle_io()
    }

    /// Puts them back.
    ///
    /// # Errors
    /// What is not permitted any more: then they stay away.
    pub fn restore(&mut self, signal: Signal) -> Result<(), KernelError> {
        match of(signal) {
            Signal::Block => self.forget_block_requests()?,
            Signal::Scheduler => self.forget_threads()?,
            Signal::Io | Signal::PageCache | Signal::Tcp => {}
        }
        if of(signal) != Signal::Io {
            self.put_back(signal)?;
        }
        self.shed.retain(|shed| *shed != of(signal));
        self.settle_io()
    }

    /// From the last to the first: nothing is followed before its end can be seen.
    fn put_back(&mut self, signal: Signal) -> Result<(), KernelError> {
        for probe in rows(signal).rev() {
            let is_attached = self.reports.iter().any(|report| report.name == probe.name && report.is_attached());
            if !is_attached || self.links.iter().any(|(name, _)| *name == probe.name) {
                continue;
            }
            match io::hook(&mut self.ebpf, probe) {
                Ok(link) => self.links.push((probe.name, link)),
                Err(error) => {
                    self.links.retain(|(name, _)| !rows(signal).any(|probe| probe.name == *name));
                    return Err(KernelError::Look { what: "attaching a probe again", reason: chain(&error) });
                }
            }
        }
        Ok(())
    }

    /// Of threads that were looked at before now, the next look counts nothing.
    fn forget_threads(&mut self) -> Result<(), KernelError> {
        const MAP: &str = "SCHEDULER_SINCE";
        let mut map: Array<&mut MapData, u64> =
            Array::try_from(self.map(MAP)?).map_err(|error| map_error(MAP, &error))?;
        map.set(0, clock::now().as_nanos(), 0).map_err(|error| map_error(MAP, &error))
    }

    /// What the hooked-in probes of a signal took between two looks at all costs, in nanoseconds, the constants of their
    /// hooks included; `None`: there are none in place.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of a second")]
    pub fn signal_cost(
        &self,
        signal: Signal,
        before: &[(&'static str, ProbeCost)],
        after: &[(&'static str, ProbeCost)],
    ) -> Option<f64> {
        let find = |costs: &[(&'static str, ProbeCost)], probe: &Probe| {
            costs.iter().find(|(name, _)| *name == probe.name).map(|(_, cost)| *cost)
        };
        let in_place = rows(signal).filter(|probe| self.is_in_place(probe.name)).map(|probe| {
            let cost = find(after, probe)
                .zip(find(before, probe))
                .map_or_else(ProbeCost::default, |(after, before)| after.since(before));
            let hook = HookKind::of(probe).map_or(0.0, HookKind::documented);
            cost.nanoseconds as f64 + cost.runs as f64 * hook
        });
        in_place.reduce(|sum, more| sum + more)
    }

    /// Whether a probe is hooked in at this moment.
    fn is_in_place(&self, name: &str) -> bool {
        self.links.iter().any(|(linked, _)| *linked == name) || self.hooked.has(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_is_of_signals_only() {
        let names = |signal| rows(signal).map(|probe| probe.name).collect::<Vec<_>>();
        assert_eq!(names(Signal::Scheduler), ["scheduler_switch"]);
        assert_eq!(names(Signal::Block), ["block_start", "block_issue", "block_merge", "block_complete"]);
        assert!(names(Signal::Tcp).is_empty());
        assert!(names(Signal::Io).contains(&"page_cache_fill") && names(Signal::Io) == names(Signal::PageCache));
        for name in ["socket_send", "data_ready", "process_exit"] {
            assert!(PROBES.iter().any(|probe| probe.name == name && probe.signal.is_none()));
        }
    }
}
