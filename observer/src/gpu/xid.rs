//! XID errors: what the driver reports when a GPU, or what runs on it, fails. They are counted here, by whichever thread
//! hears of them, and stay when the GPU is lost.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::snapshot::{Identity, XidCount};

/// Those that alerts ask for: there from the start, at zero, since the increase of a counter that appears is not seen.
/// Of the GPU, its memory and its links; then of applications.
pub(super) const ASKED_FOR: [u64; 15] = [48, 62, 64, 74, 79, 94, 95, 119, 120, 13, 31, 43, 45, 68, 109];
/// Most distinct numbers of one GPU.
const MOST: usize = 64;

type Counts = BTreeMap<Arc<str>, (Arc<Identity>, BTreeMap<u64, u64>)>;

/// XID errors since the start, by GPU.
#[derive(Debug, Default)]
pub struct Xids(Mutex<Counts>);

impl Xids {
    /// Events of this GPU are waited for from now on.
    pub fn watch(&self, identity: &Arc<Identity>) {
        self.with(identity, |counts| {
            for xid in ASKED_FOR {
                counts.entry(xid).or_default();
            }
        });
    }

    /// Counts one.
    pub fn add(&self, identity: &Arc<Identity>, xid: u64) {
        self.with(identity, |counts| {
            if counts.contains_key(&xid) || counts.len() < MOST {
                *counts.entry(xid).or_default() += 1;
            }
        });
    }

    fn with(&self, identity: &Arc<Identity>, change: impl FnOnce(&mut BTreeMap<u64, u64>)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = all.entry(Arc::clone(&identity.uuid)).or_insert_with(|| (Arc::clone(identity), BTreeMap::new()));
        entry.0 = Arc::clone(identity);
        change(&mut entry.1);
    }

    /// All of them.
    #[must_use]
    pub fn counts(&self) -> Vec<XidCount> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_gpu = |(identity, counts): &(Arc<Identity>, BTreeMap<u64, u64>)| {
            let count = |(xid, count): (&u64, &u64)| XidCount { identity: identity.clone(), xid: *xid, count: *count };
            counts.iter().map(count).collect::<Vec<_>>()
        };
        all.values().flat_map(of_gpu).collect()
    }
}
