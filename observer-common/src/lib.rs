//! The contract between the kernel side (`observer-ebpf`) and the user side (`observer`).
//!
//! - [`event`]: what the ring carries, byte for byte.
//! - [`config`]: what the loader writes into the kernel side: `.rodata` and the scope.
//! - [`content`]: what bytes are that become no events, by which they are counted.
//! - [`host`]: what is added up per workload, and which processes belong to one.
//! - [`io`]: the same of what they read and write.
//! - [`block`]: the same of block devices.
//! - [`loss`]: the counters behind the promise that nothing is lost silently.
//! - [`limits`]: sizes and bounds that both sides rely on.
//!
//! Layouts are `#[repr(C)]` with fixed-width integers and explicit padding; a size and an offset
//! assertion stands beside each, so that a change that breaks the contract does not compile.
#![no_std]

pub mod block;
pub mod config;
pub mod content;
pub mod event;
pub mod host;
pub mod io;
pub mod limits;
pub mod loss;
