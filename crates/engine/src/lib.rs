//! The decision engine of Capstan: facts in, decisions out.
//!
//! ```text
//! Facts ──Model::new──▶ Model ──Snapshot::build──▶ Snapshot ──check, list_capabilities──▶ answer
//! (what is declared)    (keeps all rules)          (indexed, immutable)
//! facts, one by one ─────────────────▶ Loader ────▶ the same, without keeping their texts
//!                       Snapshot ─────▶ Difference ─▶ the same, sharing what stays
//!                                                      │  ▲
//!                                             Writer::new  publish
//!                                                      ▼  │
//!                              Change ─────────apply─▶ Writer
//! ```
//!
//! An **identity** (a person, a service, a pull token) is bound to a **role** (a named set of
//! **capabilities** such as `repo.list`) at a **scope** (the path of a group or of a registered
//! resource). The binding gives the role's capabilities at the scope and everything below it, never
//! above. There are no deny rules, no wildcards and no anonymous identity.
//!
//! Suppose `alice` is bound to `viewer` at `acme/platform`, and `viewer` holds `repo.list`:
//!
//! ```text
//! acme                          alice can do nothing here
//! └── platform   ◀── viewer     alice can repo.list here
//!     └── images                and here
//!         └── nginx             and here, whether or not this path is registered
//! ```
//!
//! A check looks up the identity, and reads its bindings from the record that it finds. A binding grants if its
//! scope is the resource or an ancestor of it, its role's row of the capability matrix has the bit, it is in
//! time and its conditions hold. A path contains the paths of its ancestors, so no tree is walked.
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

pub use change::{ApplyError, Change, ChangeError};
pub use decide::access::{AccessChange, AccessChanges, AccessDifference, open_conditions};
pub use decide::capabilities::{Capabilities, Grant};
pub use decide::check::{Decision, Question, Reason, UnknownCapabilityError};
pub use decide::conditional::{ConditionalGrant, Listed};
pub use decide::explain::{EXPLAINED_BINDINGS_MAX, Explanation, Uncounted};
pub use decide::held::Held;
pub use decide::list::{Cursor, Page, Scope};
pub use decide::objects::{IdentityState, ScopeState};
pub use decide::scan::IdRange;
pub use decide::self_check::{SelfCheckError, self_check};
pub use index::build::TooLargeError;
pub use index::difference::{Difference, DifferenceError};
pub use index::load::{LoadError, Loader};
pub use index::roles::Role;
pub use index::snapshot::Snapshot;
pub use index::writer::Writer;
pub use model::capabilities::{CapabilityIx, CapabilitySet};
pub use model::catalog::{Catalog, CatalogFacts, CatalogResource, CatalogRole, Family};
pub use model::condition::{
    AttributeCategory, Attributes, CONDITIONS_MAX, Condition, Properties, Value, parse_attribute,
};
pub use model::facts::{
    CustomRole, FactSink, Facts, Group, Identity, RegisteredResource, RoleBinding, USER,
};
pub use model::name::{NAME_BYTES_MAX, ParseNameError, parse_capability_name, parse_name, quote};
pub use model::path::{
    PATH_BYTES_MAX, PATH_SEGMENTS_MAX, ParsePathError, Path, PathBuf, SEGMENT_BYTES_MAX,
};
pub use model::similar::{SIMILAR_MAX, SUGGESTIONS_MAX, did_you_mean, similar};
pub use model::timestamp::Timestamp;
pub use model::violation::{FactsError, VIOLATIONS_MAX, Violation};
pub use rules::{Model, check_facts, is_derived_identity};

/// Hash maps for building and checking: seeded randomly in each process.
pub(crate) type Map<K, V> = hashbrown::HashMap<K, V>;
