//! A stream of typed events in a file, and the same events back from it.
//!
//! A recording holds everything that the pipeline needs to come to the same results on any other host: events, the
//! moments at which the tracker was told that all events up to then were given, connections given up, and the names of
//! the servers. `docs/recording.md` describes the format.
//!
//! - [`Recorder`] takes items on the drain thread and hands blocks of them to a thread that blanks, compresses and writes.
//! - `blank` takes the text out of what was captured and leaves what the parsers need.
//! - [`Reader`] reads any bytes: a recording, a damaged one, or none at all.

mod blank;
mod codec;
mod format;
mod reader;
mod recorder;
mod wire;

use std::sync::Arc;

pub use self::{
    format::{End, Header, Trailer},
    reader::{ReadError, Reader},
    recorder::{RecordError, RecordOptions, Recorder, Summary},
};
use crate::{
    event::{Cookie, Event},
    request::tracker::ConnectionNames,
    time::KernelTime,
};

/// Names of the server behind a connection, as its measurements carry them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names {
    /// The server's program.
    pub comm: Arc<str>,
    /// The workload that it belongs to.
    pub workload: Arc<str>,
}

impl From<ConnectionNames> for Names {
    fn from(names: ConnectionNames) -> Self {
        let ConnectionNames { comm, workload, .. } = names;
        Self { comm, workload }
    }
}

impl From<Names> for ConnectionNames {
    fn from(names: Names) -> Self {
        let Names { comm, workload } = names;
        Self { comm, workload, identity: None }
    }
}

/// One thing that happened, in the order in which the pipeline was told.
#[derive(Clone, Debug)]
pub enum Item<'a> {
    /// An event of the kernel side; the opening of a connection comes with its names.
    Event(Event<'a>, Option<Names>),
    /// All events up to this moment were given.
    Tick(KernelTime),
    /// A connection ended, and the event of that was lost.
    Ended(Cookie),
    /// So many events are missing here: the recording could not keep up.
    Lost(u64),
    /// Of a kind that this version does not know.
    Unknown(u8),
}
