//! The kernel side, seen from here: what this kernel permits, the one table of probes, loading and attaching, the
//! ring, the scope, the clock.

mod btf;
pub mod capabilities;
pub mod clock;
pub mod loader;
pub mod probes;
pub mod ring;
mod scope;

pub use loader::{Kernel, KernelError, Options};
pub use ring::Ring;
