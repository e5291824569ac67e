//! The privilege rules: who may do what to whom. Each rule has its number, so that texts, audit and tests name it.
//!
//! ```text
//! judge/*.rs: what an operation needs and does ──▶ rules/*.rs: the rules ──▶ Refusal
//! ```
//!
//! **Invariant**: no path goes past these functions. The operator is bound by the structural rules (R4, R11, R12,
//! R13), not by the others. R15 has no function: nothing here sees a state but the one before the operation.

pub(crate) mod access;
pub(crate) mod control;
pub(crate) mod grant;
mod owner;
mod references;
mod resolve;
mod session;
mod take;

use std::fmt;

/// A rule of privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// R1: granting needs what is granted.
    Grant,
    /// R2: creating a role needs what it holds.
    RoleCreate,
    /// R3: changing a role needs what is added and what is removed.
    RoleUpdate,
    /// R4: a role is bound at or below its home.
    RoleScope,
    /// R5: an update of a binding is a delete and a create.
    BindingUpdate,
    /// R6: an invite promises what its creator holds, now and when it is accepted; one that manages access is for one address.
    Invite,
    /// R7: a pull token has a role that manages no access, and that its maker holds.
    PullToken,
    /// R8: changing how an identity authenticates, or properties that conditions test.
    CredentialChange,
    /// R9: identity providers, their mappings and account associations.
    IdentityProvider,
    /// R11: an organization keeps an owner.
    LastOwner,
    /// R12: the operator makes organizations, with an owner.
    Organization,
    /// R13: nothing crosses organizations but root identities and built-in roles.
    AcrossOrganizations,
    /// R14: what is granted ends when the granter's right ends.
    Duration,
    /// R16: an identity may give up its own bindings, and sees itself.
    Own,
    /// R17: taking away needs what is taken.
    Delete,
    /// R18: what is shown follows the `.list` capabilities.
    Visibility,
    /// R19: only capabilities of the catalog exist.
    ClosedCatalog,
    /// R21: what a credential is narrowed to holds.
    Narrowed,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 18] = [
        Self::Grant,
        Self::RoleCreate,
        Self::RoleUpdate,
        Self::RoleScope,
        Self::BindingUpdate,
        Self::Invite,
        Self::PullToken,
        Self::CredentialChange,
        Self::IdentityProvider,
        Self::LastOwner,
        Self::Organization,
        Self::AcrossOrganizations,
        Self::Duration,
        Self::Own,
        Self::Delete,
        Self::Visibility,
        Self::ClosedCatalog,
        Self::Narrowed,
    ];

    /// Its number.
    #[must_use]
    pub const fn number(self) -> &'static str {
        match self {
            Self::Grant => "R1",
            Self::RoleCreate => "R2",
            Self::RoleUpdate => "R3",
            Self::RoleScope => "R4",
            Self::BindingUpdate => "R5",
            Self::Invite => "R6",
            Self::PullToken => "R7",
            Self::CredentialChange => "R8",
            Self::IdentityProvider => "R9",
            Self::LastOwner => "R11",
            Self::Organization => "R12",
            Self::AcrossOrganizations => "R13",
            Self::Duration => "R14",
            Self::Own => "R16",
            Self::Delete => "R17",
            Self::Visibility => "R18",
            Self::ClosedCatalog => "R19",
            Self::Narrowed => "R21",
        }
    }

    /// What it says, for texts of refusals.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Grant => {
                "who grants a role holds all of it at that scope, and `role_bindings.delete` if the role manages \
                 access"
            }
            Self::RoleCreate => "who creates a role holds all of it at its group",
            Self::RoleUpdate => "who changes a role holds what is added or removed at its group",
            Self::RoleScope => "a custom role is bound at or below the group that owns it",
            Self::BindingUpdate => "changing a binding is deleting it and creating another",
            Self::Invite => {
                "an invite promises what its creator holds there, when it is made and when it is accepted"
            }
            Self::PullToken => {
                "a pull token has a role that manages no access, all of which its maker holds there"
            }
            Self::CredentialChange => {
                "who changes how an identity authenticates, or properties that conditions test, holds what they give"
            }
            Self::IdentityProvider => {
                "who decides whom an identity provider, a mapping or an account association resolves to holds all that these \
                 have"
            }
            Self::LastOwner => "an organization keeps an owner",
            Self::Organization => "organizations are made by the operator, each with an owner",
            Self::AcrossOrganizations => {
                "only root identities and built-in roles are shared by organizations"
            }
            Self::Duration => "what is granted ends when the granter's own right ends",
            Self::Own => "an identity may give up its own bindings",
            Self::Delete => "who takes something away holds it there",
            Self::Visibility => "what is shown follows the `.list` capabilities",
            Self::ClosedCatalog => {
                "only capabilities of the catalog exist, and what no role holds only the operator does"
            }
            Self::Narrowed => "a narrowed credential can what it was narrowed to, and nothing else",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.number())
    }
}

/// The rules that are kept: all of them. Only a test can leave one out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleSet {
    /// A bit for each rule that is left out.
    left_out: u32,
}

impl RuleSet {
    /// All rules.
    pub const FULL: Self = Self { left_out: 0 };

    /// All rules but one, so that a test can show that it finds the rule missing.
    #[cfg(any(test, feature = "mask-rules"))]
    #[must_use]
    pub const fn without(self, rule: Rule) -> Self {
        Self { left_out: self.left_out | 1 << rule as u32 }
    }

    /// Whether a rule is kept.
    pub(crate) const fn keeps(self, rule: Rule) -> bool {
        self.left_out & 1 << rule as u32 == 0
    }
}
