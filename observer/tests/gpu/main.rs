//! GPUs by the real nvml-wrapper, from a fake library whose answers each test gives (`tests/fake-nvml`).

mod errors;
mod hangs;
mod harness;
mod life;
mod processes;
mod values;
