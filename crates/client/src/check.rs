//! The question and the answer of [`Client::check`](crate::Client::check).

use std::time::{Duration, SystemTime};

use capstan_proto::v1::Reason;

use crate::properties::Properties;

/// A question: does this identity have this capability at this resource?
#[derive(Clone, Copy, Debug)]
#[must_use = "a check does nothing until it is passed to a client"]
pub struct Check<'a> {
    pub(crate) identity: &'a str,
    pub(crate) capability: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) properties: Option<&'a Properties>,
    pub(crate) consistency: Consistency,
    pub(crate) timeout: Option<Duration>,
}

/// The requirement on the revision of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// Any revision that the server has.
    Any,
    AtLeast(u64),
    Full,
}

impl<'a> Check<'a> {
    /// A check without properties, at any revision, with the client's default timeout.
    ///
    /// `identity` and `resource` are paths of at most 1,024 bytes; `capability` is the name of a capability
    /// of the policy's catalog, at most 128 bytes.
    pub const fn new(identity: &'a str, capability: &'a str, resource: &'a str) -> Self {
        Self {
            identity,
            capability,
            resource,
            properties: None,
            consistency: Consistency::Any,
            timeout: None,
        }
    }

    /// Supplies attributes that conditions can test.
    pub const fn properties(mut self, properties: &'a Properties) -> Self {
        self.properties = Some(properties);
        self
    }

    /// Requires an answer at this revision or a later one, for example the revision of a write that the
    /// answer must reflect. The call fails if the server does not reach it before the deadline.
    pub const fn at_least(mut self, revision: u64) -> Self {
        self.consistency = Consistency::AtLeast(revision);
        self
    }

    /// Requires an answer that reflects every write acknowledged before this call.
    pub const fn fully_consistent(mut self) -> Self {
        self.consistency = Consistency::Full;
        self
    }

    /// The timeout of this call instead of [`Options::timeout`](crate::Options::timeout); at most
    /// [`TIME_MAX`](crate::limits::TIME_MAX).
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// The answer to a [`Check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a decision must be enforced"]
pub struct Decision {
    /// Whether the identity has the capability. True if and only if the reason is GRANTED.
    pub allowed: bool,
    /// The reason. [`Reason::Unspecified`] is a denial for a reason that this version of the client does not
    /// know.
    pub reason: Reason,
    /// The revision of the policy that made the decision.
    pub revision: u64,
    /// When the last of the granting bindings expires. `None` on a denial, and if one of them never expires.
    pub valid_until: Option<SystemTime>,
}
