//! The thread that waits for XID errors.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nvml_wrapper::{
    Device, EventSet, Nvml as Library, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError,
};

use crate::gpu::{Xids, snapshot::Identity};

/// One wait, in milliseconds: so long the end of the session may have to wait.
const WAIT: u32 = 250;
/// Between two attempts at waiting.
const AGAIN: Duration = Duration::from_secs(1);

/// A GPU whose errors are waited for.
pub(super) type Watched<'nvml> = (Arc<Identity>, Device<'nvml>);

/// Counts XID errors until `over`.
pub(super) fn watch(library: &Library, gpus: &[Watched<'_>], over: &AtomicBool, xids: &Xids) {
    let raw = library.lib();
    // Letting go of a set of events without the last one would end this process.
    if raw.nvmlEventSetCreate.is_err() || raw.nvmlEventSetWait_v2.is_err() || raw.nvmlEventSetFree.is_err() {
        tracing::info!("XID errors are not counted: the driver is too old");
        return;
    }
    let is_over = || over.load(Ordering::Acquire);
    while !is_over() {
        if let Some(set) = register(library, gpus, xids) {
            while !is_over() {
                match set.wait(WAIT) {
                    Ok(event) => {
                        let Some(error) = event.event_data else { continue };
                        let xid = match error {
                            XidError::Value(xid) => xid,
                            XidError::Unknown => 999,
                        };
                        // By its handle: a GPU that is lost does not tell its name any more.
                        if let Some((identity, _)) = gpus.iter().find(|(_, gpu)| same(gpu, &event.device)) {
                            tracing::warn!("XID error {xid} on GPU {}", identity.index);
                            xids.add(identity, xid);
                        }
                    }
                    Err(NvmlError::Timeout) => {}
                    // A GPU of the set is lost, or the driver: without it, again.
                    Err(_) => break,
                }
            }
        }
        let mut left = AGAIN;
        while !is_over() && !left.is_zero() {
            let nap = left.min(Duration::from_millis(100));
            thread::sleep(nap);
            left -= nap;
        }
    }
}

fn same(one: &Device<'_>, other: &Device<'_>) -> bool {
    // SAFETY: the handles are compared, not used.
    unsafe { one.handle() == other.handle() }
}

/// A set with the events of all GPUs that have them.
fn register<'nvml>(library: &'nvml Library, gpus: &[Watched<'nvml>], xids: &Xids) -> Option<EventSet<'nvml>> {
    let has = |(_, gpu): &&Watched<'nvml>| {
        gpu.supported_event_types().is_ok_and(|types| types.contains(EventTypes::CRITICAL_XID_ERROR))
    };
    let mut left: Vec<_> = gpus.iter().filter(has).collect();
    // One that refuses takes the set with it.
    while !left.is_empty() {
        let set = library.create_event_set().ok()?;
        let add = |set, (index, (_, gpu)): (usize, &&Watched<'nvml>)| {
            gpu.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|_| index)
        };
        match left.iter().enumerate().try_fold(set, add) {
            Ok(set) => {
                left.iter().for_each(|(identity, _)| xids.watch(identity));
                return Some(set);
            }
            Err(refused) => {
                left.remove(refused);
            }
        }
    }
    None
}
