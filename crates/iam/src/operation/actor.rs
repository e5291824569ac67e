//! Who asks.

use std::sync::Arc;

use capstan_engine::PathBuf;

use super::{Narrowing, Session};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Whoever holds the machine.
    Operator,
    /// An identity that has proved who it is.
    Identity {
        /// Its path.
        id: PathBuf,
        /// Its verified e-mail address, if it has one.
        email: Option<String>,
        /// What its credential gives beside role bindings.
        session: Option<Arc<Session>>,
        /// What its credential is held to.
        narrowing: Option<Arc<Narrowing>>,
    },
}

impl Actor {
    /// An identity without a verified address, whose credential gives nothing.
    #[must_use]
    pub const fn identity(id: PathBuf) -> Self {
        Self::Identity { id, email: None, session: None, narrowing: None }
    }

    /// What its credential gives; `None` for nothing.
    pub(crate) fn session(&self) -> Option<&Session> {
        match self {
            Self::Operator => None,
            Self::Identity { session, .. } => session.as_deref(),
        }
    }

    /// What its credential is held to; `None` for nothing.
    #[must_use]
    pub fn narrowing(&self) -> Option<&Narrowing> {
        match self {
            Self::Operator => None,
            Self::Identity { narrowing, .. } => narrowing.as_deref(),
        }
    }

    /// Its path; `None` for the operator.
    #[must_use]
    pub const fn id(&self) -> Option<&PathBuf> {
        match self {
            Self::Operator => None,
            Self::Identity { id, .. } => Some(id),
        }
    }
}
