//! Workloads and their GPUs: a real tree of processes, whose workers a fake driver has on its GPUs.

mod host;
mod load;
mod recipes;
mod tree;
