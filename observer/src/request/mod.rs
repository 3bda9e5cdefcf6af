//! The state machine of a connection, and what it yields: finished requests.

pub mod record;
