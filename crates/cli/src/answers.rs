//! Answers of commands, from a policy file in this process or from a server.
//!
//! As JSON (`--output json`) an answer has the field names of the response message of the API. An
//! optional field that is absent has no key. Times are RFC 3339.

use serde::Serialize;

/// The answer to Check: a decision line of the contract, section 8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Decision {
    pub(crate) allowed: bool,
    /// The name in the schema without `REASON_`, such as `NO_BINDING`.
    pub(crate) reason: &'static str,
    pub(crate) revision: u64,
    /// When the last of the granting bindings expires. `None` on a denial, and if one never expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) valid_until: Option<String>,
}

/// The answer to ListCapabilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Capabilities {
    pub(crate) capabilities: Vec<String>,
    /// The bindings that give them, from the topmost scope down.
    pub(crate) grants: Vec<Grant>,
    pub(crate) revision: u64,
}

/// A role binding that gives at least one capability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Grant {
    /// The path of the binding.
    pub(crate) binding: String,
    pub(crate) role: String,
    pub(crate) scope: String,
    /// `None` if it never expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<String>,
}

/// The answer to Explain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Explanation {
    pub(crate) allowed: bool,
    /// As in [`Decision::reason`].
    pub(crate) reason: &'static str,
    /// The granting binding that expires last; `None` on a denial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) witness: Option<Grant>,
    /// The missing capability; empty if allowed.
    pub(crate) missing: Vec<String>,
    /// On a denial, the roles that have the missing capability.
    pub(crate) roles: Vec<String>,
    pub(crate) revision: u64,
}

/// The answer to ListIdentities, all pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Identities {
    pub(crate) identities: Vec<String>,
    pub(crate) revision: u64,
}

/// The answer to ListScopes, all pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Scopes {
    pub(crate) scopes: Vec<Scope>,
    pub(crate) revision: u64,
}

/// A scope at which an identity has a capability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Scope {
    pub(crate) scope: String,
    /// Whether it depends on properties of the resource.
    pub(crate) conditional: bool,
}

/// The answer to ListRoles, all pages (contract, section 8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RoleList {
    /// The name of the catalog.
    pub(crate) catalog: String,
    pub(crate) roles: Vec<Role>,
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Role {
    /// A built-in role's name, or a custom role's path.
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) family: String,
    pub(crate) capabilities: Vec<String>,
}
