//! x
mod attack;
mod common;
mod escalation;
mod seeds;
mod settled;
