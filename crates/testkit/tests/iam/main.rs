//! The privilege rules: tables of what is allowed, refused and how, and attacks that must gain nothing.

mod attack;
mod common;
mod cover;
mod escalation;
mod faults;
mod identities;
mod isolation;
mod seeds;
mod settled;
mod visible;
