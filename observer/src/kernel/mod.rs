//! The kernel side, seen from here: what this kernel permits, the one table of probes, loading and attaching, the
//! ring, the scope, the clock.

mod btf;
pub mod capabilities;
pub mod clock;
mod error;
pub mod loader;
pub mod probes;
pub mod ring;
mod scope;

pub use error::KernelError;
pub use loader::{Kernel, Options};
pub use ring::Ring;
