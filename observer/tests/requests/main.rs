//! From events to finished requests, through the tracker as a whole.

mod answers;
mod cases;
mod ends;
mod harness;
mod holes;
mod loss;
mod order;
mod properties;
mod splits;
