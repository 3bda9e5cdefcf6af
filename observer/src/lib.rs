//! `observer` measures every request to the LLM servers of a host from the kernel.
//!
//! Data flows one way; a module imports only from those above it:
//!
//! | module | what it is |
//! |---|---|
//! | [`time`], [`event`] | the kernel's clock; events as the pipeline sees them |
//! | [`config`], [`cli`] | settings: defaults < file < environment < flags; commands |
//! | [`request`] | the state machine of a connection; a finished request |
//! | [`metrics`] | every family declared once |
//! | [`export`] | HTTP, request log |

pub mod cli;
pub mod config;
#[cfg(test)]
mod docs;
pub mod event;
pub mod export;
pub mod metrics;
pub mod request;
pub mod time;
