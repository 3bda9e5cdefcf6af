//! `observer` measures every request to the LLM servers of a host from the kernel.
//!
//! Data flows one way; a module imports only from those above it:
//!
//! | module | what it is |
//! |---|---|
//! | [`time`], [`event`] | the kernel's clock; events as the pipeline sees them |
//! | [`config`] | settings: defaults < file < environment < flags |
//! | [`request`] | the state machine of a connection; a finished request |
//! | [`export`] | HTTP, request log |
//! | [`top`] | a running observer's summary on a terminal |

pub mod config;
pub mod doctor;
pub mod event;
pub mod export;
pub mod kernel;
pub mod request;
pub mod time;
pub mod top;
