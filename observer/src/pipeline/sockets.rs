//! Looks at all TCP sockets of the network namespaces that workloads are in.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use super::{SharedKernel, lock};
use crate::{host::Slots, kernel::clock::thread_time, workload::Places};

/// Looks take at most one of so many parts of a core: a host may have very many sockets.
const SHARE: u32 = 100;

/// When it was done, and when it may be done again.
#[derive(Debug, Default)]
pub(super) struct SocketLooks {
    next: Option<Instant>,
    /// CPU time that it took so far.
    took: Duration,
    /// It was said that it cannot be done.
    warned: bool,
}

impl SocketLooks {
    /// Whether another look costs little enough by now.
    pub(super) fn is_due(&self) -> bool {
        self.next.is_none_or(|next| Instant::now() >= next)
    }

    /// CPU time that looks took so far.
    pub(super) const fn took(&self) -> Duration {
        self.took
    }

    /// Looks. `servers`: a process of each slot's workload.
    pub(super) fn look(
        &mut self,
        slots: &mut Slots,
        servers: &HashMap<u32, u32>,
        places: &Places,
        kernel: &SharedKernel,
    ) {
        // What others did with the CPU meanwhile is no cost of ours.
        let begun = thread_time();
        let mut namespaces: BTreeMap<u64, (File, Vec<u32>)> = BTreeMap::new();
        let mut unknown = Vec::new();
        for (slot, pid) in servers {
            match places.network(*pid).and_then(|file| Ok((file.metadata()?.ino(), file))) {
                Ok((namespace, file)) => {
                    namespaces.entry(namespace).or_insert_with(|| (file, Vec::new())).1.push(*slot);
                }
                Err(_) => unknown.push(*slot),
            }
        }
        let own = File::open("/proc/self/ns/net").and_then(|file| Ok(file.metadata()?.ino())).ok();
        slots.sockets(&unknown, None);
        for (namespace, (file, mut members)) in namespaces {
            members.sort_unstable();
            let other = (own != Some(namespace)).then_some(&file);
            let sockets = lock(kernel).as_mut().map_or(Ok(None), |kernel| kernel.tcp_sockets(other));
            let seen = sockets.map_err(|error| error.to_string()).and_then(|sockets| {
                sockets.map(|sockets| sockets.look().map_err(|error| format!("cannot read them: {error}"))).transpose()
            });
            match seen {
                Ok(Some(seen)) => slots.sockets(&members, Some(&seen)),
                Ok(None) => slots.sockets(&members, None),
                Err(error) => {
                    slots.sockets(&members, None);
                    if !std::mem::replace(&mut self.warned, true) {
                        tracing::warn!(
                            "unsent bytes and listen-queue overflows are missing of some workloads: {error}"
                        );
                    }
                }
            }
        }
        let took = thread_time().saturating_sub(begun);
        self.took += took;
        self.next = Some(Instant::now() + took * SHARE);
    }
}
