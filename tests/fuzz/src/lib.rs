//! What fuzz targets share. Each target is one file in `bin`: a plain function over bytes, which libFuzzer drives here
//! and a test of the observer (`tests/corpus.rs`) drives with the committed corpus on a stable compiler.

pub mod api;
pub mod conversation;
pub mod events;
pub mod memory;
pub mod records;
pub mod stream;
pub mod traffic;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;
