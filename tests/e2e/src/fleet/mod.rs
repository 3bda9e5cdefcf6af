//! A fleet from one observer: what it says, served as many nodes, and written as hours of many nodes.
//!
//! - [`recording`]: what a real observer says under load, and how fast each sample grows.
//! - [`nodes`]: that as the `/metrics` of any number of nodes.
//! - [`live`]: a real Prometheus that scrapes those, and what it takes.
//! - [`history`]: that as blocks of a Prometheus, its recording rules, and how long queries take over both.

pub mod history;
pub mod live;
pub mod nodes;
pub mod recording;
