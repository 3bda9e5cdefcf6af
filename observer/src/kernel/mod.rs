//! The kernel side, seen from here: what this kernel permits, the one table of probes, loading and attaching, the
//! ring, the scope, the clock.

mod as_written;
mod attach;
mod block;
mod btf;
mod bytes;
pub mod capabilities;
pub mod clock;
mod constants;
mod error;
pub mod hook_cost;
mod host;
mod io;
pub mod loader;
mod others;
pub mod probes;
pub mod ring;
mod scope;
mod shed;
pub mod signal;
mod socket_hook;
pub mod statistics;
mod tcp_sockets;

pub use error::KernelError;
pub use loader::{Kernel, Options};
pub use others::{HeldProgram, Holder, OtherObserver, holders, other_observers};
pub use ring::Ring;
pub use scope::{check_cgroups, is_running};
pub use tcp_sockets::TcpSockets;
