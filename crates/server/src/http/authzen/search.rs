//! Searches: which subjects, resources or actions would be permitted, page by page.

use std::sync::Arc;

use capstan_engine::{Attributes, Cursor, Path, Snapshot, Timestamp};
use serde::Serialize;

use super::call::{Answered, json};
use super::names;
use super::request::{Page as Wanted, Search, parse, required};
use crate::RequestError;
use crate::ask::hold;
use crate::feed::{Current, Freshness, Published};
use crate::grpc::page::{self, List, Page, PageKey};
use crate::limits::SEARCH_EVALUATED_MAX;
use crate::methods::Rpc;

/// One page of results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Found {
    /// The revision that answers: that of the first page.
    #[serde(skip)]
    revision: u64,
    page: FoundPage,
    results: Vec<FoundEntity>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct FoundPage {
    /// Empty at the end.
    next_token: String,
    count: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum FoundEntity {
    Entity {
        #[serde(rename = "type")]
        kind: String,
        id: String,
    },
    Action {
        name: String,
    },
}

impl Found {
    /// # Errors
    ///
    /// Never: see [`json`].
    pub(super) fn answer(&self) -> Result<Answered, RequestError> {
        json(self.revision, self)
    }
}

/// What a search is made with.
pub(super) struct Searching<'a> {
    pub(super) published: &'a Published,
    pub(super) current: &'a Arc<Current>,
    pub(super) freshness: Freshness,
    pub(super) key: &'a PageKey,
    pub(super) now: Timestamp,
    /// What the caller may ask about.
    pub(super) within: Option<Path<'a>>,
}

/// Entries of a page, in order, the last one that was looked at, and whether there are more behind it.
struct Entries {
    entries: Vec<String>,
    last: Option<String>,
    has_more: bool,
}

impl Entries {
    const NONE: Self = Self { entries: vec![], last: None, has_more: false };
}

impl Searching<'_> {
    /// Subjects of a type that may do something.
    ///
    /// # Errors
    ///
    /// The request is malformed, or its token is of another search.
    pub(super) fn subjects(&self, body: &[u8]) -> Result<Found, RequestError> {
        let search: Search = parse(body)?;
        let kind = required("subject", &search.subject)?.kind("subject")?;
        let action = required("action", &search.action)?.name()?;
        let resource = required("resource", &search.resource)?.identified("resource")?;
        self.hold(resource.1)?;
        let fields = [kind, action, resource.0, resource.1];
        let entity = |id| FoundEntity::Entity { kind: kind.to_owned(), id };
        self.page((Rpc::SEARCH_SUBJECT, &fields), &search, entity, |snapshot, attributes, page| {
            let mut capability = String::new();
            let Ok(path) = names::resource_of(snapshot, resource) else { return Entries::NONE };
            if names::capability_of(snapshot, resource.0, action, &mut capability).is_err() {
                return Entries::NONE;
            }
            let mut after = page.after.clone();
            let (mut found, mut evaluated) = (vec![], 0_usize);
            loop {
                let limit = page.size - found.len();
                let cursor = Cursor { after: after.as_deref(), limit };
                let some = (&*capability, path, attributes);
                let Ok(some) =
                    snapshot.list_identities_page(some.0, some.1, some.2, page.now, cursor)
                else {
                    return Entries::NONE;
                };
                evaluated = evaluated.saturating_add(some.evaluated);
                let is_of_kind = |id: &&&str| {
                    let path = capstan_engine::Path::parse(id);
                    path.is_ok_and(|path| snapshot.identity_kind(path) == Some(kind))
                };
                after = some.entries.last().map(|id| (*id).to_owned()).or(after);
                found.extend(some.entries.iter().filter(is_of_kind).map(|id| (*id).to_owned()));
                let is_full = found.len() >= page.size || evaluated >= SEARCH_EVALUATED_MAX;
                if !some.has_more || is_full {
                    return Entries { entries: found, last: after, has_more: some.has_more };
                }
            }
        })
    }

    /// Registered resources of a type that a subject may do something with.
    ///
    /// # Errors
    ///
    /// As [`Self::subjects`].
    pub(super) fn resources(&self, body: &[u8]) -> Result<Found, RequestError> {
        let search: Search = parse(body)?;
        let subject = required("subject", &search.subject)?.identified("subject")?;
        let action = required("action", &search.action)?.name()?;
        let kind = required("resource", &search.resource)?.kind("resource")?;
        let fields = [subject.0, subject.1, action, kind];
        let entity = |id| FoundEntity::Entity { kind: kind.to_owned(), id };
        self.page((Rpc::SEARCH_RESOURCE, &fields), &search, entity, |snapshot, attributes, page| {
            let mut capability = String::new();
            let Ok(path) = names::subject_of(snapshot, subject) else { return Entries::NONE };
            if names::capability_of(snapshot, kind, action, &mut capability).is_err() {
                return Entries::NONE;
            }
            let of = (kind, self.within);
            let found = snapshot.list_resources_page(
                path,
                &capability,
                of,
                attributes,
                page.now,
                page.cursor(),
            );
            found.map_or(Entries::NONE, |found| Entries {
                entries: found.entries.iter().map(|id| (*id).to_owned()).collect(),
                last: found.entries.last().map(|id| (*id).to_owned()),
                has_more: found.has_more,
            })
        })
    }

    /// Actions of a resource's type that a subject may do.
    ///
    /// # Errors
    ///
    /// As [`Self::subjects`].
    pub(super) fn actions(&self, body: &[u8]) -> Result<Found, RequestError> {
        let search: Search = parse(body)?;
        let subject = required("subject", &search.subject)?.identified("subject")?;
        let resource = required("resource", &search.resource)?.identified("resource")?;
        self.hold(resource.1)?;
        let fields = [subject.0, subject.1, resource.0, resource.1];
        let entity = |name| FoundEntity::Action { name };
        self.page((Rpc::SEARCH_ACTION, &fields), &search, entity, |snapshot, attributes, page| {
            let (Ok(identity), Ok(path)) =
                (names::subject_of(snapshot, subject), names::resource_of(snapshot, resource))
            else {
                return Entries::NONE;
            };
            let catalog = snapshot.catalog();
            let of_kind = catalog.resources().iter().find(|one| one.name == resource.0);
            let Some(of_kind) = of_kind else { return Entries::NONE };
            let can = snapshot.list_capabilities(identity, path, attributes, page.now).capabilities;
            let is_held = |action: &&String| {
                let name = format!("{}.{action}", of_kind.name);
                catalog.capability(&name).is_some_and(|at| can.contains(at))
            };
            let mut actions: Vec<_> = of_kind.actions.iter().filter(is_held).cloned().collect();
            actions.sort_unstable();
            actions.retain(|one| page.after.as_ref().is_none_or(|after| one > after));
            let has_more = actions.len() > page.size;
            actions.truncate(page.size);
            Entries { last: actions.last().cloned(), entries: actions, has_more }
        })
    }

    /// Whether the caller may ask about a resource. What is no path is answered as for others: it is nothing's.
    ///
    /// # Errors
    ///
    /// It may not.
    fn hold(&self, resource: &str) -> Result<(), RequestError> {
        Path::parse(resource).map_or(Ok(()), |resource| hold(self.within, resource))
    }

    /// One page of a search.
    fn page(
        &self,
        (rpc, fields): (Rpc, &[&str]),
        search: &Search,
        entity: impl Fn(String) -> FoundEntity,
        find: impl FnOnce(&Snapshot, &Attributes, &Page) -> Entries,
    ) -> Result<Found, RequestError> {
        let attributes = search.attributes()?;
        let Wanted { token, limit } = search.page.as_ref().unwrap_or(&Wanted::NONE);
        let (token, limit) = (token.as_deref().unwrap_or_default(), limit.unwrap_or_default());
        // A token goes on with the revision of its first page, if that is still kept. The limit is no part of the search.
        let first = page::revision(token).and_then(|revision| self.published.kept(revision));
        let current = first.as_ref().unwrap_or(self.current);
        let all = serde_json::to_string(fields).unwrap_or_default();
        let list = List {
            method: rpc.name(),
            fields: [&all, ""],
            attributes: &attributes,
            conditional: false,
        };
        let page = Page::parse(self.key, limit, token, &list, &current.snapshot, self.now);
        let page = page.map_err(in_page)?;
        let revision = current.snapshot.revision();
        if let Freshness::AtLeast(wanted) = self.freshness
            && revision < wanted
        {
            return Err(RequestError::PageTooOld { revision, wanted });
        }
        let Entries { entries, last, has_more } = find(&current.snapshot, &attributes, &page);
        let next_token = page.next_token(last.as_deref(), has_more);
        self.published.keep_for(current, &next_token);
        let count = entries.len();
        let results = entries.into_iter().map(entity).collect();
        Ok(Found { revision, page: FoundPage { next_token, count }, results })
    }
}

impl Wanted {
    const NONE: Self = Self { token: None, limit: None };
}

/// The names of the fields here.
fn in_page(error: RequestError) -> RequestError {
    match error {
        RequestError::Field { field, problem } if field == "page_size" => {
            RequestError::field("page.limit", problem)
        }
        RequestError::Field { field, problem } if field == "page_token" => {
            RequestError::field("page.token", problem)
        }
        other => other,
    }
}
