//! Tests of the journals from outside: against a naive model, and of stores in directories.

mod common;
mod model;
