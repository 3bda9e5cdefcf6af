//! `observer` measures every request to the LLM servers of a host from the kernel.
//!
//! Data flows one way; a module imports only from those above it:
//!
//! | module | what it is |
//! |---|---|
//! | [`time`], [`event`] | the kernel's clock; events as the pipeline sees them |
//! | [`config`] | settings: defaults < file < environment < flags |
//! | [`connection`] | socket cookie -> connection; each direction a byte stream with explicit gaps |
//! | [`protocol`] | sans-IO parsers: bytes in, frames out |
//! | [`llm`] | which operation is this; what in this frame is a token, a model, usage, an error |
//! | [`request`] | the state machine of a connection; a finished request |
//! | [`export`] | HTTP, request log |

pub mod config;
pub mod connection;
pub mod event;
pub mod export;
pub mod llm;
pub mod protocol;
pub mod request;
pub mod time;
