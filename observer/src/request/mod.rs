//! The state machine of a connection, and what it yields: finished requests.

mod hidden;
pub mod hops;
pub mod labels;
pub mod record;
mod response;
mod session;
mod timeline;
pub mod tracker;
