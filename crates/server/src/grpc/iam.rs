//! The management services of package `capstan.iam.v1`.
//!
//! ```text
//! authenticated: who calls ─▶ services ─▶ group, role, ... : request to operation ─▶ service ─▶ writer of the store
//!                                 ├─▶ get, list ─▶ reading: what the caller may see ─▶ objects: message
//!                                 └─▶ policy: documents and the audit log
//! ```
//!
//! **Invariants**: hidden and absent are one error. A filter and a page token show nothing that the caller may not see.
//!
//! Read `service`, `services`, `reading`, `get` and `list`, then `fields`, `mask`, `filter`, `page` and `kinds`.

mod account_association;
mod audit;
mod auth;
pub(crate) mod authenticated;
mod fields;
mod filter;
mod get;
mod group;
mod group_invite;
mod group_role_mapping;
mod identity;
mod identity_provider;
pub(crate) mod json;
mod kinds;
mod list;
mod mask;
mod objects;
mod page;
mod pieces;
mod policy;
mod pull_token;
mod reading;
mod resource;
mod role;
mod role_binding;
pub(crate) mod service;
mod services;
pub(crate) mod shown;
mod subscription;
mod watch;
