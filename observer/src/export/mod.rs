//! What leaves the process: metrics, health, summary, request log.

pub mod summary;
