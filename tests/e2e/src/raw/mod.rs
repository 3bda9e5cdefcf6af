//! Both sides of a connection, by the system calls that real servers make and by those that few do.
//! All calls are bounded by the sockets' own timeouts.

pub mod calls;
pub mod messages;
pub mod socket;
pub mod uring;

pub use socket::{Link, Listener, Socket};
