//! Loads Capstan's documents (policies, catalogs, policy tests, route tables, callers), in YAML or JSON,
//! into the engine's facts.
//!
//! ```text
//! bytes ──Reader──▶ drafts: the readable facts ──engine rules──▶ Policy, Catalog
//!          │                                       │
//!          └── shape errors ──▶ Diagnostics ◀── rule violations, with positions
//! ```
//!
//! A policy in JSON can be read item by item instead ([`stream_policy`]), without diagnostics. [`PolicyWriter`] writes
//! a policy, item by item, too.
//!
//! The reader consumes YAML events in one pass. It builds no syntax tree and does not recurse. All
//! errors of a document are reported together, each with line and column (section 3 of the
//! contract). Only a document with rule violations is parsed a second time, to find their
//! positions.
//!
//! **Invariant**: a document loads completely, or yields diagnostics only.

mod built_in;
mod callers;
mod catalog;
mod credentials;
mod details;
mod diagnostics;
mod locate;
mod policy;
mod policy_test;
mod reader;
mod routes;
mod scalar;
pub mod schema;
mod stream;
mod syntax;
mod write;

pub use built_in::BUILT_IN;
pub use callers::{Asks, CALLERS_MAX, Caller, Callers, Proves, load_callers};
pub use catalog::Catalogs;
pub use credentials::{Credential, Credentials, SecretHash};
pub use details::{Details, ListDetails, PolicyDetails};
pub use diagnostics::{DIAGNOSTICS_MAX, Diagnostic, Diagnostics};
pub use policy::{Policy, load_policy};
pub use policy_test::{Expectation, PolicyTest, PolicyTests, load_policy_tests};
pub use routes::{
    CHALLENGE_BYTES_MAX, Form, IdentitySources, JwtSource, Method, Piece, QueryParameter,
    REQUIREMENTS_MAX, ROUTE_HOSTS_MAX, ROUTE_PARAMETERS_MAX, ROUTE_PATH_BYTES_MAX, ROUTE_QUERY_MAX,
    ROUTE_SEGMENTS_MAX, ROUTES_MAX, Requirement, ResourceTemplate, Route, Routes, Segment,
    Template, is_canonical_segment, is_host, load_routes,
};
pub use scalar::{format_timestamp, parse_timestamp, whole};
pub use stream::{NotStreamed, Streamed, stream_policy};
pub use write::{PolicyWriter, Style};

/// Default limit of a document's size in bytes (256 MiB); `--max-document-bytes` changes it.
pub const DOCUMENT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Largest size of a name, description, purpose or type, in bytes.
pub const TEXT_BYTES_MAX: usize = capstan_iam::limits::TEXT_BYTES_MAX;
/// Largest nesting depth of collections. Capstan's own documents need six levels.
pub const NESTING_MAX: usize = 32;
