//! Signals.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{RunError, cannot};

/// Signals that are waited for.
pub(super) struct Signals {
    /// Ctrl-C.
    pub(super) interrupt: Signal,
    /// What a service manager sends.
    pub(super) terminate: Signal,
    /// To reload.
    pub(super) hangup: Signal,
}

impl Signals {
    /// From here on they end nothing by themselves.
    pub(super) fn catch() -> Result<Self, RunError> {
        let catch = |kind| signal(kind).map_err(cannot("handle signals"));
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hangup: catch(SignalKind::hangup())?,
        })
    }
}
