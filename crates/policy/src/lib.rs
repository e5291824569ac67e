//! The documents of Capstan: policies, catalogs, policy tests and route tables, in YAML or JSON,
//! read into the engine's facts.
//!
//! ```text
//! bytes ──Reader──▶ facts, as far as they can be read ──engine rules──▶ Policy, Catalog
//!          │                                              │
//!          └── shape errors ──▶ Diagnostics ◀── rule violations, located in the text
//! ```
//!
//! The text is walked once, event by event: no tree of it is ever built, nothing recurses on input,
//! and everything wrong is reported at once with line and column (section 3 of the contract). Only
//! a document with violations is walked again, to find where they stand.
//!
//! **Invariant**: a document either loads whole or gives nothing but diagnostics.

mod built_in;
mod catalog;
mod credentials;
mod diagnostics;
mod locate;
mod policy;
mod policy_test;
mod reader;
mod routes;
mod scalar;

pub use built_in::BUILT_IN;
pub use catalog::Catalogs;
pub use credentials::{Credential, Credentials, SecretHash};
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

/// Most bytes in a document, unless the operator says otherwise.
pub const DOCUMENT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Most bytes in a name, description or purpose.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Most collections inside one another; ours need six.
pub const NESTING_MAX: usize = 32;
