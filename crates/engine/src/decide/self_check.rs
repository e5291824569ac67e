//! Self-check: a snapshot proves a sample of itself before it may answer anyone.
//!
//! Three things are compared, for identities and scopes spread evenly over the index:
//!
//! ```text
//! references   every number, fingerprint, position and count that leads from one table to another
//! rules        the rules between facts (`rules.rs`), applied to the facts that the index has
//! answers      Check against section 5 of the contract in its plainest form, over names only
//! ```
//!
//! So a wrong number, flag, order or matrix row shows as an error, whether the index was built from a
//! document or grew change by change. Nothing but the index is needed.

mod answers;
mod references;
#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::{Decision, Snapshot, Timestamp};

/// The index is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelfCheckError {
    /// Check and the contract's rules answer a question differently.
    #[error(
        "the index answers {indexed:?} and the rules {ruled:?} to: may `{identity}` `{capability}` \
         at `{resource}`"
    )]
    Answer {
        /// Who.
        identity: String,
        /// What.
        capability: String,
        /// Where.
        resource: String,
        /// What Check says; `None` if it does not know the capability.
        indexed: Option<Decision>,
        /// What the rules say.
        ruled: Decision,
    },
    /// Parts of the index contradict each other, or a fact in it breaks a rule.
    #[error("`{id}` is corrupt in the index: {problem}")]
    Corrupt {
        /// The identity, scope, role or binding. Empty for the index as a whole.
        id: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl SelfCheckError {
    fn corrupt(id: &str, problem: impl Into<String>) -> Box<Self> {
        Box::new(Self::Corrupt { id: id.into(), problem: problem.into() })
    }
}

/// Checks up to about `sample` identities and as many scopes, spread evenly over the index. Returns the
/// number of questions whose answers were compared: at each of the identity's scopes, right beside and
/// right below it, for each of the catalog's capabilities in turn.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn self_check(
    snapshot: &Snapshot,
    sample: usize,
    now: Timestamp,
) -> Result<usize, Box<SelfCheckError>> {
    let index = snapshot.index();
    references::check_roles(index)?;
    for scope in index.sample_scopes(sample) {
        references::check_scope(index, scope)?;
    }
    for id in index.sample_binding_ids(sample) {
        references::check_binding_id(index, id)?;
    }
    let mut compared = 0;
    let names: Vec<&str> = snapshot.catalog().capabilities().collect();
    let mut names = names.iter().copied().cycle();
    for identity in index.sample_identities(sample) {
        let bindings = references::check_identity(index, identity)?;
        compared += answers::compare(snapshot, identity.key(), &bindings, &mut names, now)?;
    }
    Ok(compared)
}
