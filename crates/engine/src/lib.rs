//! The decision engine of Capstan: facts in, decisions out.
//!
//! ```text
//! Facts ──Model::new──▶ Model ──Snapshot::build──▶ Snapshot ──check, list_capabilities──▶ answer
//! (what is declared)    (proved consistent)        (indexed, immutable)
//! ```
//!
//! An **identity** (a person, a service, a pull token) is bound to a **role** (a named set of
//! **capabilities** such as `repo.list`) at a **scope** (the path of a group or of a registered
//! resource). The binding gives the role's capabilities at the scope and everything below it, never
//! above. Nothing else gives anything: no deny rules, no wildcards, no anonymous identity.
//!
//! Suppose `alice` is bound to `viewer` at `acme/platform`, and `viewer` holds `repo.list`:
//!
//! ```text
//! acme                          alice may nothing here
//! └── platform   ◀── viewer     alice may repo.list here
//!     └── images                and here
//!         └── nginx             and here, whether or not anything is registered under that path
//! ```
//!
//! A check is two look-ups and a bit test: identity to its bindings; role to one row of the
//! capability matrix; is the bit set, is the scope an ancestor of the resource or the resource
//! itself, and is the binding in time? Paths carry their own ancestry, so no tree is walked.
//!
//! **Invariant**: this crate does no I/O, has no clock, no async, no protobuf and no logging. The
//! time is an argument. A denial is an answer, never an error.
//!
//! ```
//! use std::sync::Arc;
//! use capstan_engine::*;
//!
//! let catalog = Catalog::new(CatalogFacts {
//!     name: "records".into(),
//!     resources: vec![CatalogResource {
//!         name: "record".into(),
//!         purpose: String::new(),
//!         actions: vec!["read".into(), "write".into()],
//!     }],
//!     roles: vec![CatalogRole { name: "reader".into(), capabilities: vec!["record.read".into()],
//!                               ..CatalogRole::default() }],
//!     ..CatalogFacts::default()
//! })
//! .unwrap();
//! let facts = Facts {
//!     groups: vec![Group { id: "acme".parse().unwrap(), name: String::new() }],
//!     identities: vec![Identity::named("alice".parse().unwrap())],
//!     role_bindings: vec![RoleBinding {
//!         id: None,
//!         identity: "alice".parse().unwrap(),
//!         role: "reader".into(),
//!         scope: "acme".parse().unwrap(),
//!         expires_at: None,
//!         when: vec![],
//!     }],
//!     ..Facts::default()
//! };
//! let model = Model::new(Arc::new(catalog), facts).unwrap();
//! let snapshot = Snapshot::build(&model, 1).unwrap();
//! let question = Question {
//!     identity: Path::parse("alice").unwrap(),
//!     capability: "record.read",
//!     resource: Path::parse("acme/contracts/7").unwrap(),
//!     attributes: Attributes::NONE,
//! };
//! let decision = snapshot.check(&question, Timestamp::UNIX_EPOCH).unwrap();
//! assert_eq!(decision.reason, Reason::Granted);
//! ```

mod change;
mod decide;
mod index;
#[cfg(feature = "measure")]
pub mod measure;
mod model;
mod rules;

pub use change::{Change, Refused};
pub use decide::capabilities::{Capabilities, Grant};
pub use decide::check::{Decision, Question, Reason, UnknownCapability};
pub use decide::explain::Explanation;
pub use decide::list::{Cursor, Page, Scope};
pub use decide::self_check::{SelfCheckError, self_check};
pub use index::build::TooLarge;
pub use index::roles::Role;
pub use index::snapshot::Snapshot;
pub use index::writer::Writer;
pub use model::capabilities::{CapabilityIx, CapabilitySet};
pub use model::catalog::{Catalog, CatalogFacts, CatalogResource, CatalogRole, Family};
pub use model::condition::{
    Attributes, CONDITIONS_MAX, Condition, Of, Properties, Value, parse_attribute,
};
pub use model::facts::{CustomRole, Facts, Group, Identity, RegisteredResource, RoleBinding};
pub use model::name::{NAME_BYTES_MAX, ParseNameError, parse_name, quote};
pub use model::path::{
    PATH_BYTES_MAX, PATH_SEGMENTS_MAX, ParsePathError, Path, PathBuf, SEGMENT_BYTES_MAX,
};
pub use model::timestamp::Timestamp;
pub use model::violation::{VIOLATIONS_MAX, Violation, Violations};
pub use rules::{Model, violations};

/// Hash tables of the index: seeded per process, and keys are always verified on a match.
pub(crate) type Map<K, V> = hashbrown::HashMap<K, V>;
