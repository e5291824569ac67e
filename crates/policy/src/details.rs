//! What a document says of an object beside what decides anything: descriptions, and how identities authenticate.
//!
//! **Invariant**: an index needs none of it, and facts have none of it. Whoever imports a document stores it.

mod authentication;
mod keys;

use capstan_iam::Authentication;

pub(crate) use authentication::read_authentication;

use crate::reader::{Node, Reader};

/// What a document says of one object beside its facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// What it is for; empty if the document does not say it, and for custom roles, whose facts have it.
    pub description: String,
    /// How it proves who it is: of identities only.
    pub authentication: Option<Authentication>,
}

/// The details of one list of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListDetails(Vec<(usize, Details)>);

impl ListDetails {
    /// The details of the fact at this position of its list, if the document has any.
    #[must_use]
    pub fn get(&self, position: usize) -> Option<&Details> {
        let at = self.0.binary_search_by_key(&position, |(at, _)| *at).ok()?;
        self.0.get(at).map(|(_, details)| details)
    }

    /// The number of facts with details.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no fact has details.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The details of a policy, by the lists of its facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyDetails {
    /// Of the groups.
    pub groups: ListDetails,
    /// Of the identities.
    pub identities: ListDetails,
    /// Of the role bindings.
    pub role_bindings: ListDetails,
    /// Of the resources.
    pub resources: ListDetails,
}

/// Appends the facts of a list, and their details.
pub(crate) fn read_list<'t, T>(
    reader: &mut Reader<'t>,
    node: Node<'t>,
    expected: &str,
    (facts, details): (&mut Vec<T>, &mut ListDetails),
    read: fn(&mut Reader<'t>, Node<'t>) -> Option<(T, Details)>,
) {
    let mut position = facts.len();
    reader.list(facts, node, expected, |reader, node| {
        let (fact, found) = read(reader, node)?;
        if found != Details::default() {
            details.0.push((position, found));
        }
        position += 1;
        Some(fact)
    });
}
