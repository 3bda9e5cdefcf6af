//! Connections and their two byte streams, in which a gap is a value and not a surprise.

pub mod arrivals;
pub mod stream;
pub mod table;
