//! Keeps what optional probes cost below a budget: which signal to shed and which to restore, from samples of their cost.
//!
//! A state machine: it neither measures nor acts, and knows no clock but the one that it is told. A cost above the
//! budget counts if the next sample, taken at once, says the same. Then one signal goes, and the next sample says
//! whether that is enough. A signal comes back once it was away for some time and the others leave room; it is sampled
//! at once, and if it is too much, it goes for twice as long.

use std::time::Duration;

use serde::Serialize;

use crate::kernel::signal::Signal;

/// What can be shed, in this order: what costs most where it costs anything comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Optional {
    /// Files, pipes, what comes into the page cache (`signals.io`). Bytes of sockets go on.
    Io,
    /// Requests to block devices (`signals.block`).
    Block,
    /// Running, waiting, page faults (`signals.scheduler`).
    Scheduler,
    /// Looks at all TCP sockets (`signals.tcp`): unsent bytes, listen-queue overflows. The rest of TCP goes on.
    Tcp,
}

impl Optional {
    /// All of them, in the order in which they go.
    pub const ALL: [Self; 4] = [Self::Io, Self::Block, Self::Scheduler, Self::Tcp];

    /// Its value of the label `signal`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Block => "block",
            Self::Scheduler => "scheduler",
            Self::Tcp => "tcp",
        }
    }

    /// What it is to the kernel side.
    #[must_use]
    pub const fn signal(self) -> Signal {
        match self {
            Self::Io => Signal::Io,
            Self::Block => Signal::Block,
            Self::Scheduler => Signal::Scheduler,
            Self::Tcp => Signal::Tcp,
        }
    }
}

/// What it goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Share of one core that all optional probes may take.
    pub budget: f64,
    /// From one sample to the next, when all is well.
    pub interval: Duration,
    /// How long a signal is away at least; twice as long whenever it was too much again.
    pub restore_after: Duration,
}

/// A signal comes back only if the others take less than this part of the budget.
const ROOM: f64 = 0.8;
/// What takes less than this part of the budget is not shed before what takes more.
const MATTERS: f64 = 0.1;
/// How often the time away is doubled at most.
const DOUBLINGS: u32 = 5;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take its probes away.
    Shed(Optional),
    /// Put them back.
    Restore(Optional),
}

impl Action {
    /// Its value of the label `action`, and the signal.
    #[must_use]
    pub const fn parts(self) -> (&'static str, Optional) {
        match self {
            Self::Shed(signal) => ("shed", signal),
            Self::Restore(signal) => ("restore", signal),
        }
    }
}

/// What follows from a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What to do; `None`: nothing.
    pub action: Option<Action>,
    /// When to take the next sample.
    pub next: Next,
}

/// When to take the next sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once.
    Now,
    /// After [`Policy::interval`].
    Later,
}

/// What a second cost, as a share of one core, in the order of [`Optional::ALL`]; `None`: nothing of it is in place.
pub type Costs = [Option<f64>; Optional::ALL.len()];

/// One signal.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct State {
    /// `Some`: shed, until then at least.
    away: Option<Duration>,
    /// When it came back the last time.
    back: Option<Duration>,
    /// How often its time away was doubled.
    doublings: u32,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Governor {
    policy: Policy,
    states: [State; Optional::ALL.len()],
    /// The last sample was above the budget.
    above: bool,
    /// Restored by the last verdict.
    trial: Option<Optional>,
}

impl Governor {
    /// One that has shed nothing.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, states: [State::default(); Optional::ALL.len()], above: false, trial: None }
    }

    /// Takes in a sample that was taken at `now`, on any clock that only goes forward.
    pub fn sample(&mut self, now: Duration, costs: &Costs) -> Verdict {
        let total: f64 = costs.iter().flatten().sum();
        let trial = self.trial.take();
        if total > self.policy.budget {
            let confirmed = std::mem::replace(&mut self.above, true) || trial.is_some();
            let victim = trial.or_else(|| self.victim(costs)).filter(|_| confirmed);
            if let Some(signal) = victim {
                self.above = false;
                self.send_away(signal, now);
                return Verdict { action: Some(Action::Shed(signal)), next: Next::Now };
            }
            // Once confirmed, there is nothing left to shed.
            return Verdict { action: None, next: if confirmed { Next::Later } else { Next::Now } };
        }
        self.above = false;
        if total <= ROOM * self.policy.budget
            && let Some(signal) = self.candidate(now)
        {
            let state = self.state(signal);
            (state.away, state.back) = (None, Some(now));
            self.trial = Some(signal);
            return Verdict { action: Some(Action::Restore(signal)), next: Next::Now };
        }
        Verdict { action: None, next: Next::Later }
    }

    /// A signal could not be restored: it is away as before, for some time more.
    pub fn failed(&mut self, signal: Optional, now: Duration) {
        self.trial = None;
        self.send_away(signal, now);
    }

    /// Whether a signal is shed.
    #[must_use]
    pub fn is_shed(&self, signal: Optional) -> bool {
        self.states[signal as usize].away.is_some()
    }

    fn state(&mut self, signal: Optional) -> &mut State {
        &mut self.states[signal as usize]
    }

    /// The first in order that matters; else the costliest.
    fn victim(&self, costs: &Costs) -> Option<Optional> {
        let here = || {
            let all = Optional::ALL.into_iter().zip(costs);
            all.filter_map(|(signal, cost)| Some((signal, (*cost)?))).filter(|(signal, _)| !self.is_shed(*signal))
        };
        let first = here().find(|(_, cost)| *cost >= MATTERS * self.policy.budget);
        first.or_else(|| here().max_by(|one, other| one.1.total_cmp(&other.1))).map(|(signal, _)| signal)
    }

    /// The last in order that was away for long enough.
    fn candidate(&self, now: Duration) -> Option<Optional> {
        let ready = |signal: &Optional| self.states[*signal as usize].away.is_some_and(|until| now >= until);
        Optional::ALL.into_iter().rev().find(ready)
    }

    fn send_away(&mut self, signal: Optional, now: Duration) {
        let restore_after = self.policy.restore_after;
        let state = self.state(signal);
        // What stayed for as long as it had been away begins anew.
        let away = restore_after * 2_u32.pow(state.doublings);
        let relapsed = state.back.is_some_and(|back| now.saturating_sub(back) < away);
        state.doublings = if relapsed { (state.doublings + 1).min(DOUBLINGS) } else { 0 };
        state.away = Some(now + restore_after * 2_u32.pow(state.doublings));
    }
}

#[cfg(test)]
mod tests;
