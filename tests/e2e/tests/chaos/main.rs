//! Faults, on the real kernel: what goes wrong around an observer, and what must hold after each. Every loss is counted
//! by its reason; nothing incomplete is measured; the next load is measured to the last request; memory and descriptors
//! are what they were; and once the observer is gone, nothing of it is left.
//!
//! Each test is one fault, in a short form here and in a long one in `cargo xtask chaos`. `scene` has what they share,
//! `truth` compares the observer's log with the clients'.

mod clock;
mod connections;
mod consumer;
mod disk;
mod life;
mod names;
mod order;
mod processes;
mod scene;
mod scrapes;
mod servers;
mod storage;
mod truth;

/// Whether faults are to be long (`OBSERVER_CHAOS=long`), as `cargo xtask chaos` has them.
fn is_long() -> bool {
    match std::env::var("OBSERVER_CHAOS").as_deref() {
        Ok("long") => true,
        Ok(other) if !other.is_empty() => panic!("OBSERVER_CHAOS={other}: long, or not set"),
        _ => false,
    }
}

/// How long, or how much: in the short form, in the long one.
fn form<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}
