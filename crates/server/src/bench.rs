//! Load: worlds to measure on, and what measures.

pub mod workload;
