//! The management plane without I/O: objects, operations, and the rules of who may do what.
//!
//! ```text
//!   State: the engine's Snapshot + Objects (whole, from the store's view)
//!   Actor ──┐   │
//! Operation ─▶ judge ──▶ Outcome: objects before and after, changes of the engine, response
//!   Context ┘   └──────▶ Refusal: what the caller is told, and what the audit keeps
//! ```
//!
//! **Invariants**: an operation is judged on the state before it, wholly. Nobody gains by any sequence of operations
//! what they and the identities they control did not hold together before (`rules`). This crate does no I/O and has
//! no clock; the time is an argument.
//!
//! Read `object` and `operation`, then `rules`, then `judge`.

pub mod audit;
mod authentication;
pub mod fields;
mod judge;
pub mod limits;
mod object;
mod operation;
mod read;
pub mod record;
mod refusal;
mod rights;
mod rules;
mod secret;
mod state;
mod view;

pub use authentication::{
    ALGORITHM_NAMES, Algorithm, Authentication, AuthenticationError, ClaimMatch, ClientCertificate,
    KEY_TYPES, Match, PatternError, SECRET_MEMBERS, StaticKeys, anchored, check_algorithms,
    check_anchored, check_claim, check_dns_name, check_key_set, check_spiffe_id, compile_pattern,
    derived_identity_id,
};
pub use judge::judge;
pub use object::{
    AccountAssociation, Accounts, Aws, Azure, Github, Google, Group, GroupInvite, GroupRoleMapping,
    Identity, IdentityProvider, Incarnation, Kind, Meta, Object, Oidc, PULL_TOKEN, Reference,
    Resource, Role, RoleBinding, Subscription, USER, check_email, check_event_type,
    check_external_group, check_issuer, check_sink,
};
pub use operation::{
    AcceptGroupInvite, AccountAssociationUpdate, Actor, BatchCreateRoleBindings,
    BatchDeleteRoleBindings, Context, CreateAccountAssociation, CreateGroup, CreateGroupInvite,
    CreateGroupRoleMapping, CreateIdentity, CreateIdentityProvider, CreatePullToken,
    CreateResource, CreateRole, CreateRoleBinding, CreateSubscription, Delete,
    IdentityProviderUpdate, IdentityUpdate, Narrowing, NewRoleBinding, ObjectChange, Operation,
    Outcome, PullToken, RemoveMember, Response, Session, SessionGrant, SetSubscriptionState,
    SubscriptionState, UpdateAccountAssociation, UpdateGroup, UpdateGroupInvite,
    UpdateGroupRoleMapping, UpdateIdentity, UpdateIdentityProvider, UpdateResource, UpdateRole,
    UpdateRoleBinding, UpdateSubscription,
};
pub use read::{Reader, Shown};
pub use refusal::{Cause, Code, JudgeError, Refusal};
pub use rules::grant::manages_access;
pub use rules::{Rule, RuleSet};
pub use secret::{Credential, InviteCode, Secret, SecretHash, SecretKind};
pub use state::{Objects, ObjectsError, State};
