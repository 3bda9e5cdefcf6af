//! Which times of a request may be told, and what they are: the rules of every latency family.

use std::time::Duration;

use crate::{
    request::record::{Outcome, RequestRecord, Timeline},
    time::KernelTime,
};

/// Values of the `phase` label.
pub(super) const PHASES: [&str; 6] =
    ["head_of_line", "socket_wait", "receive", "queue_and_prefill", "decode", "finish"];

/// The times of one request that is not incomplete. `None`: unknown, or not to be told for its outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// t_end - t0.
    pub(super) duration: Option<Duration>,
    /// t_first - t0.
    pub(super) ttft: Option<Duration>,
    /// (t_last - t_first) / (output tokens - 1).
    pub(super) tpot: Option<Duration>,
    /// t_header - t0.
    pub(super) ttfb: Option<Duration>,
    /// First content after reasoning - t0.
    pub(super) first_content: Option<Duration>,
    /// In the order of [`PHASES`].
    pub(super) phases: [Option<Duration>; PHASES.len()],
}

impl Times {
    /// Those of `record`; none if it is incomplete.
    #[must_use]
    pub(super) fn of(record: &RequestRecord) -> Self {
        if record.outcome == Outcome::Incomplete {
            return Self::default();
        }
        let line = &record.timeline;
        let from_start = |moment: Option<KernelTime>| moment?.since(line.start()?);
        // Tokens of a request that failed tell nothing about how fast the server serves.
        let tokens = record.stream == Some(true) && matches!(record.outcome, Outcome::Ok | Outcome::Cancelled);
        let told = |time: Option<Duration>| time.filter(|_| tokens);
        Self {
            duration: from_start(line.end),
            ttft: told(from_start(line.first)),
            tpot: told(per_output_token(line, record.usage.output)),
            ttfb: from_start(line.header),
            first_content: told(from_start(line.first_content)),
            phases: phases(line),
        }
    }
}

fn per_output_token(line: &Timeline, output: Option<u64>) -> Option<Duration> {
    let gaps = output?.checked_sub(1).filter(|gaps| *gaps > 0)?;
    let nanoseconds = line.last?.since(line.first?)?.as_nanos() / u128::from(gaps);
    u64::try_from(nanoseconds).ok().map(Duration::from_nanos)
}

fn phases(line: &Timeline) -> [Option<Duration>; PHASES.len()] {
    // Answered before it was read whole: its phases overlap. Or nobody knows until when it waited for its turn.
    if line.ready.is_none() || line.turn_unknown {
        return [None; PHASES.len()];
    }
    // Until its turn came, a request was in no other phase, even if it was read meanwhile.
    let turn = line.head_of_line_until;
    let phase = |from: Option<KernelTime>, to: Option<KernelTime>| {
        let (from, to) = (from?, to?);
        to.since(from)?;
        match turn {
            Some(turn) => to.max(turn).since(from.max(turn)),
            None => to.since(from),
        }
    };
    [
        turn.and_then(|turn| turn.since(line.arrive?)),
        phase(line.arrive, line.read),
        phase(line.read, line.ready),
        phase(line.ready, line.first),
        phase(line.first, line.last),
        phase(line.last, line.end),
    ]
}
