//! `observer` measures every request to the LLM servers of a host from the kernel.
//!
//! Data flows one way; a module imports only from those above it:
//!
//! | module | what it is |
//! |---|---|
//! | [`time`], [`event`] | the kernel's clock; events as the pipeline sees them |
//! | [`config`], [`cli`] | settings: defaults < file < environment < flags; commands |
//! | [`sandbox`] | what is given up once probes are attached |
//! | [`kernel`] | what this kernel permits, probes, loading, ring to typed events, scope, clock |
//! | [`governor`] | which optional probes to shed above their budget, and when to restore them |
//! | [`workload`] | what a server's process belongs to: container, unit or process tree; its name and members |
//! | [`host`] | what kernel maps have added up of each workload |
//! | [`connection`] | socket cookie to connection; each direction a byte stream in which a gap is a value |
//! | [`protocol`] | sans-IO parsers |
//! | [`llm`] | which operation is this; what in this frame is a token, a model, usage, an error |
//! | [`request`] | the state machine of a connection; a finished request |
//! | [`recording`] | a stream of typed events in a file, payload blanked; the same events back from it |
//! | [`gpu`] | a thread that asks the driver about GPUs; the last values as plain types |
//! | [`correlate`] | the one join: workloads with what the GPUs of their processes did |
//! | [`metrics`] | every family declared once |
//! | [`export`] | HTTP, request log |
//! | [`top`] | a running observer's summary on a terminal |
//! | [`doctor`] | what can be seen here, what cannot, and what to do about it |
//! | [`overhead`] | what a running observer costs, measured from outside |
//! | [`control`] | commands to a running observer |
//! | [`pipeline`] | composition root: threads, channels, reload, shutdown |

pub mod cli;
pub mod config;
pub mod connection;
pub mod control;
pub mod correlate;
#[cfg(test)]
mod docs;
pub mod doctor;
pub mod event;
pub mod export;
pub mod governor;
pub mod gpu;
pub mod host;
pub mod kernel;
pub mod llm;
pub mod metrics;
pub mod overhead;
pub mod pipeline;
pub mod protocol;
pub mod recording;
pub mod request;
pub mod sandbox;
pub mod time;
pub mod top;
pub mod workload;
