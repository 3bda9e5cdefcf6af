//! Memory that a burst took, and that nothing uses any more, goes back to the system. glibc would keep it: threads
//! allocate from arenas of their own, it learns from the largest block that was freed how much to keep at the top of
//! each, and what is free below the top it never gives back unless it is asked to.

use std::time::Duration;

/// How often what is free is given back.
const RELEASE: Duration = Duration::from_secs(10);
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

/// Gives back what is free, now and then. Whether there is any, only the allocator could tell, and telling costs what
/// giving back costs: well below a millisecond.
pub(super) async fn follow() {
    let mut ticks = tokio::time::interval(RELEASE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        // One that failed is missing; the next one is due all the same.
        let _released = tokio::task::spawn_blocking(release).await;
    }
}
