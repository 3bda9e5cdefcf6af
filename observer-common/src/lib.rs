//! The contract between the kernel side (`observer-ebpf`) and the user side (`observer`).
//!
//! - [`event`]: what the ring carries, byte for byte.
//! - [`config`]: what the loader writes into the kernel side: `.rodata` and the scope.
//! - [`loss`]: the counters behind the promise that nothing is lost silently.
//! - [`limits`]: sizes and bounds that both sides rely on.
//!
//! Layouts are `#[repr(C)]` with fixed-width integers and explicit padding; a size and an offset
//! assertion stands beside each, so that a change that breaks the contract does not compile.
#![no_std]

pub mod config;
pub mod event;
pub mod limits;
pub mod loss;
