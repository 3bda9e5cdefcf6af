//! From events to finished requests, through the tracker as a whole.

mod answers;
mod cases;
mod ends;
mod harness;
mod holes;
mod hops;
mod labels;
mod loss;
mod order;
mod properties;
mod splits;
mod tape;
