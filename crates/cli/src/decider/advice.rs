//! Advice on a capability that the catalog lacks: similar names, and the command that lists all.
//!
//! The names are those that the roles give, which a server lists, too. So both deciders give the same advice, and a
//! refused question costs a server nothing.

use std::collections::{BTreeMap, BTreeSet};

use capstan_engine::{SUGGESTIONS_MAX, did_you_mean};
use capstan_policy::Catalogs;

use super::Decider;
use crate::answers::RoleList;

/// The start of the error of an unknown capability, and of no other error: the name of the field (contract, section 7).
const UNKNOWN: &str = "capability: ";

/// Gives advice, and remembers it: a file of questions may have the same mistake in every line.
#[derive(Debug, Default)]
pub(crate) struct Advice {
    /// Asked for at the first mistake.
    catalog: Option<Known>,
    /// For each unknown capability that was compared, at most [`SUGGESTIONS_MAX`].
    similar: BTreeMap<String, String>,
}

/// What is known of the decider's catalog.
#[derive(Debug)]
struct Known {
    capabilities: BTreeSet<String>,
    /// How to list them all.
    list: String,
}

/// Whether this is the error of a capability that the catalog lacks.
pub(super) fn is_unknown_capability(error: &str) -> bool {
    error.starts_with(UNKNOWN)
}

impl Advice {
    /// The error, with advice behind it.
    pub(super) async fn on(&mut self, decider: &Decider, error: &str, capability: &str) -> String {
        let catalog = match &mut self.catalog {
            Some(catalog) => catalog,
            None => self.catalog.insert(Known::of(decider.list_roles().await.ok())),
        };
        if self.similar.len() < SUGGESTIONS_MAX && !self.similar.contains_key(capability) {
            let names = catalog.capabilities.iter().map(String::as_str);
            self.similar.insert(capability.to_owned(), did_you_mean(capability, names));
        }
        let list = &catalog.list;
        match self.similar.get(capability).map_or("", String::as_str) {
            "" => format!("{error}; {list}"),
            similar => format!("{error}{similar} {list}"),
        }
    }
}

impl Known {
    /// Without roles, because the server does not list them, no name is similar.
    fn of(roles: Option<RoleList>) -> Self {
        let catalog = roles.as_ref().map_or("", |list| &*list.catalog);
        let list = if Catalogs::default().get(catalog).is_some() {
            format!("`capstan catalog capabilities --catalog {catalog}` lists all")
        } else {
            "`capstan catalog capabilities` lists all, with the same --policy or --addr".into()
        };
        let roles = roles.into_iter().flat_map(|list| list.roles);
        Self { capabilities: roles.flat_map(|role| role.capabilities).collect(), list }
    }
}
