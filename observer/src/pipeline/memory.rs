//! Memory that a burst took, and that nothing uses any more, goes back to the system. glibc would keep it: threads
//! allocate from arenas of their own, it learns from the largest block that was freed how much to keep at the top of
//! each, and what is free below the top it never gives back unless it is asked to.

use std::time::Duration;

use crate::metrics::ProcessStats;

/// How often memory is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// Growth, as a share, from which on it is worth a walk over all that is free: a millisecond or so.
const WORTH: f64 = 0.03;

/// Blocks from this size on are mapped for themselves, and free memory of this size at the top of an arena is given
/// back, in bytes: glibc's own first values, which it would change.
#[cfg(target_env = "gnu")]
const KEPT_MOST: libc::c_int = 128 * 1024;

/// Has the allocator keep little. To be called before there are threads.
pub(super) fn keep_little() {
    #[cfg(target_env = "gnu")]
    for name in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: no pointers, and the only thread. A refusal leaves what there was.
        unsafe { libc::mallopt(name, KEPT_MOST) };
    }
}

/// Gives back what is free.
pub(super) fn release() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers; the allocator locks itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives back what is free whenever memory has grown.
pub(super) async fn follow() {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut last = resident();
    loop {
        ticks.tick().await;
        let before = last;
        let looked = tokio::task::spawn_blocking(move || {
            let now = resident();
            if now <= before * (1.0 + WORTH) {
                // What was given back otherwise may be taken again once.
                return now.min(before);
            }
            release();
            resident()
        });
        last = looked.await.unwrap_or(before);
    }
}

/// Resident memory in bytes; 0 where it cannot be told, so that nothing is released for it.
fn resident() -> f64 {
    ProcessStats::read().map_or(0.0, |stats| stats.resident_bytes as f64)
}
