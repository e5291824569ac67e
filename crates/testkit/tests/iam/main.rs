//! x
mod common;
mod seeds;
mod settled;
