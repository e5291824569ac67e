//! Answers of commands, from a policy file in this process or from a server.
//!
//! As JSON (`--output json`) an answer has the field names of the response message of the API. An
//! optional field that is absent has no key. Times are RFC 3339.

use capstan_proto::iam::v1 as iam;
use serde::Serialize;
use serde_json::Value;

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
    /// On a denial, the bindings on the path that have the capability and do not count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) uncounted: Vec<Uncounted>,
    /// With NO_BINDING, bindings of the identity elsewhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) elsewhere: Vec<Grant>,
    /// With NO_BINDING, the deepest declared path at or above the resource; empty if there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) declared: String,
    /// Declared paths that are similar to what is not declared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) similar: Vec<String>,
    /// Whether the identity is disabled.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) disabled: bool,
}

/// A binding that has the capability and does not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Uncounted {
    pub(crate) grant: Grant,
    pub(crate) expired: bool,
    pub(crate) failed: Vec<FailedTest>,
}

/// A test of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Test {
    pub(crate) attribute: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) equals: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_equals: Option<Value>,
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { attribute, equals, not_equals } = self;
        write!(f, "{attribute} must ")?;
        match (equals, not_equals) {
            (Some(wanted), _) => write!(f, "be {wanted}"),
            (None, Some(refused)) => write!(f, "be there and not be {refused}"),
            (None, None) => write!(f, "meet a test"),
        }
    }
}

/// A test that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FailedTest {
    #[serde(flatten)]
    pub(crate) test: Test,
    /// `None` if the attribute is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seen: Option<Value>,
}

impl std::fmt::Display for FailedTest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.seen {
            Some(seen) => write!(f, "{}, and is {seen}", self.test),
            None => write!(f, "{}, and is absent", self.test),
        }
    }
}

/// A binding that counts if its open tests are met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ConditionalGrant {
    pub(crate) grant: Grant,
    pub(crate) open: Vec<Test>,
}

/// The answer to ListIdentities, all pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Identities {
    pub(crate) identities: Vec<String>,
    /// Those that would have the capability if the question had further properties.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) conditional: Vec<ConditionalIdentity>,
    pub(crate) revision: u64,
}

/// An identity that has a capability only under conditions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ConditionalIdentity {
    pub(crate) identity: String,
    pub(crate) grants: Vec<ConditionalGrant>,
}

/// The answer to ListScopes, all pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Scopes {
    pub(crate) scopes: Vec<Scope>,
    /// Those at which every granting binding has an open test; some of them are among the scopes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) conditional: Vec<ConditionalScope>,
    pub(crate) revision: u64,
}

/// A scope at which an identity has a capability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Scope {
    pub(crate) scope: String,
    /// Whether it depends on properties of the resource.
    pub(crate) conditional: bool,
}

/// A scope at which an identity has a capability only under conditions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ConditionalScope {
    pub(crate) scope: String,
    pub(crate) grants: Vec<ConditionalGrant>,
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

impl From<iam::Role> for Role {
    fn from(role: iam::Role) -> Self {
        let iam::Role { id: name, description, family, capabilities, .. } = role;
        Self { name, description, family, capabilities }
    }
}
