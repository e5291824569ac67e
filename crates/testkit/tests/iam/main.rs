//! The privilege rules: tables of what is allowed, refused and how, and attacks that must gain nothing.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "all of this is test code"
)]

mod account_associations;
mod attack;
mod common;
mod cover;
mod escalation;
mod faults;
mod group_invites;
mod group_role_mappings;
mod identities;
mod identity_providers;
mod isolation;
mod narrowed;
mod pull_tokens;
mod seeds;
mod sessions;
mod settled;
mod subscriptions;
mod texts;
mod visible;
