//! What leaves the process: metrics, health, summary, request log.

pub mod http;
pub mod jsonl;
pub mod openmetrics;
pub mod report;
pub mod sampler;
pub mod summary;
