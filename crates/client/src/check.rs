//! A question and its answer, in the words of whoever asks.

use std::time::{Duration, SystemTime};

use capstan_proto::v1::Reason;

use crate::properties::Properties;

/// May this identity do this here?
#[derive(Clone, Copy, Debug)]
#[must_use = "a question does nothing until a client is asked"]
pub struct Check<'a> {
    pub(crate) identity: &'a str,
    pub(crate) capability: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) properties: Option<&'a Properties>,
    pub(crate) consistency: Consistency,
    pub(crate) timeout: Option<Duration>,
}

/// How recent the policy must be that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// Whatever is held.
    Any,
    AtLeast(u64),
    Full,
}

impl<'a> Check<'a> {
    /// Identity and resource are paths, the capability is one of the policy's catalog.
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

    /// Supplies attributes for conditions.
    pub const fn properties(mut self, properties: &'a Properties) -> Self {
        self.properties = Some(properties);
        self
    }

    /// Wants an answer at this revision or a later one, such as that of a write that the answer must
    /// have seen. If the server does not reach it in time, the call fails.
    pub const fn at_least(mut self, revision: u64) -> Self {
        self.consistency = Consistency::AtLeast(revision);
        self
    }

    /// Wants an answer that has seen every write acknowledged before this call.
    pub const fn fully_consistent(mut self) -> Self {
        self.consistency = Consistency::Full;
        self
    }

    /// Fails the call if there is no answer in this time, instead of
    /// [`Options::timeout`](crate::Options::timeout).
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an answer that nobody looks at protects nothing"]
pub struct Decision {
    /// Whether the identity may. True if and only if the reason is GRANTED.
    pub allowed: bool,
    /// Why. [`Reason::Unspecified`] is a denial for a reason that this client does not know yet.
    pub reason: Reason,
    /// The revision of the policy that the answer was made at.
    pub revision: u64,
    /// When the last of the bindings that grant ends; nothing if one of them has no end, or on a
    /// denial.
    pub valid_until: Option<SystemTime>,
}
