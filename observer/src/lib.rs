//! `observer` measures every request to the LLM servers of a host from the kernel.
//!
//! Data flows one way; a module imports only from those above it:
//!
//! | module | what it is |
//! |---|---|
//! | [`time`], [`event`] | the kernel's clock; events as the pipeline sees them |
//! | [`config`], [`cli`] | settings: defaults < file < environment < flags; commands |
//! | [`kernel`] | what this kernel permits, probes, loading, ring to typed events, scope, clock |
//! | [`connection`] | socket cookie to connection; each direction a byte stream in which a gap is a value |
//! | [`protocol`] | sans-IO parsers |
//! | [`llm`] | which operation is this; what in this frame is a token, a model, usage, an error |
//! | [`request`] | the state machine of a connection; a finished request |
//! | [`recording`] | a stream of typed events in a file, payload blanked; the same events back from it |
//! | [`metrics`] | every family declared once |
//! | [`export`] | HTTP, request log |
//! | [`doctor`], [`top`] | what can be seen here; a running observer's summary on a terminal |
//! | [`pipeline`] | composition root: threads, channels, reload, shutdown |

pub mod cli;
pub mod config;
pub mod connection;
#[cfg(test)]
mod docs;
pub mod doctor;
pub mod event;
pub mod export;
pub mod kernel;
pub mod llm;
pub mod metrics;
pub mod pipeline;
pub mod protocol;
pub mod recording;
pub mod request;
pub mod time;
pub mod top;
