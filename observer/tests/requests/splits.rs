//! A conversation as calls, and the same with every call in two, at every byte: what is reported must be the same.

use observer::{
    event::{Data, Direction, StateChange},
    request::record::RequestRecord,
};

use crate::harness::{Host, Said};

/// What happens on one connection, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Call { direction: Direction, time: f64, bytes: Vec<u8> },
    Failed { time: f64, errno: i32 },
    Arrive { time: f64, length: usize },
    State { time: f64, change: StateChange },
}

impl Script {
    /// The server reads; nothing: the end of the stream.
    pub(crate) fn read(self, time: f64, bytes: impl AsRef<[u8]>) -> Self {
        self.step(Step::Call { direction: Direction::Receive, time, bytes: bytes.as_ref().to_vec() })
    }

    /// The server writes.
    pub(crate) fn write(self, time: f64, bytes: impl AsRef<[u8]>) -> Self {
        self.step(Step::Call { direction: Direction::Send, time, bytes: bytes.as_ref().to_vec() })
    }

    /// The server writes in vain.
    pub(crate) fn failed_write(self, time: f64, errno: i32) -> Self {
        self.step(Step::Failed { time, errno })
    }

    /// `length` bytes that the next reads return were queued.
    pub(crate) fn arrive(self, time: f64, length: usize) -> Self {
        self.step(Step::Arrive { time, length })
    }

    pub(crate) fn state(self, time: f64, change: StateChange) -> Self {
        self.step(Step::State { time, change })
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// As it is, compared with every call in two halves at the same time, at each byte; with each read byte by byte;
    /// and with all calls byte by byte.
    pub(crate) fn every_split(&self) -> Said {
        self.splits_at(|length| (1..length).collect())
    }

    /// As [`Self::every_split`], at the bytes of a call that `cuts` selects, given its length.
    pub(crate) fn splits_at(&self, cuts: impl Fn(usize) -> Vec<usize>) -> Said {
        let whole = self.run(|_, bytes| vec![bytes]);
        let expected = digest(&whole);
        let compare = |how: &str, said: &Said| {
            let found = digest(said);
            assert_eq!(expected, found, "{how}");
        };
        for (n, step) in self.steps.iter().enumerate() {
            let Step::Call { direction, bytes, .. } = step else { continue };
            for cut in cuts(bytes.len()) {
                let halves = |index: usize, bytes| if index == n { halves(bytes, cut) } else { vec![bytes] };
                compare(&format!("step {n} ({direction:?}) in two at {cut}"), &self.run(halves));
            }
            if *direction == Direction::Receive {
                let each = |index: usize, bytes| if index == n { each_byte(bytes) } else { vec![bytes] };
                compare(&format!("step {n} byte by byte"), &self.run(each));
            }
        }
        compare("all byte by byte", &self.run(|_, bytes| each_byte(bytes)));
        whole
    }

    fn run<'a>(&'a self, parts: impl Fn(usize, &'a [u8]) -> Vec<&'a [u8]>) -> Said {
        let mut host = Host::new();
        for (n, step) in self.steps.iter().enumerate() {
            match step {
                Step::Call { direction, time, bytes } => {
                    for part in parts(n, bytes) {
                        host.data(&host.call(*direction, *time, part));
                    }
                    host.tick(*time);
                }
                Step::Failed { time, errno } => {
                    host.data(&Data { errno: *errno, ..host.call(Direction::Send, *time, b"") });
                }
                Step::Arrive { time, length } => host.arrive(*time, *length),
                Step::State { time, change } => host.state(*time, *change),
            }
        }
        host.said.clone()
    }
}

fn halves(bytes: &[u8], cut: usize) -> Vec<&[u8]> {
    let (front, back) = bytes.split_at(cut);
    vec![front, back]
}

fn each_byte(bytes: &[u8]) -> Vec<&[u8]> {
    // The end of the stream is a call of its own.
    if bytes.is_empty() { vec![bytes] } else { bytes.chunks(1).collect() }
}

/// All that was said. Events that shared a write and do not any more have a gap of zero instead: as such they are
/// counted here in either case.
fn digest(said: &Said) -> String {
    let records: Vec<_> = said
        .records
        .iter()
        .map(|record| {
            let coalesced = record.coalesced;
            let mut record = RequestRecord { coalesced: 0, ..record.clone() };
            record.gaps.count += coalesced;
            if coalesced > 0 && record.gaps.buckets.is_empty() {
                record.gaps.buckets = vec![0; crate::harness::BOUNDS.len() + 1].into_boxed_slice();
            }
            if let Some(least) = record.gaps.buckets.first_mut() {
                *least += u32::try_from(coalesced).unwrap_or(u32::MAX);
            }
            record
        })
        .collect();
    format!("{:#?}", Said { records, ..said.clone() })
}
