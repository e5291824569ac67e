//! Responses to requests of the schema, from one snapshot at one time.
//!
//! **Invariant**: nothing here waits. Every decision comes from [`Ask`], which counts and logs it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;

use capstan_engine::{Attributes, Listed, Path, Scope, Snapshot, Timestamp};
use capstan_proto::v1;
use prost::Message;

use super::page::{List, Page, PageKey};
use super::{convert, page};
use crate::RequestError;
use crate::ask::{self, Ask, Basis, Names};
use crate::limits::PAGE_CONDITIONS_BYTES;

/// Check: may this identity do this here?
///
/// # Errors
///
/// A malformed path, or a capability that the catalog lacks.
pub fn check(
    ask: &Ask,
    basis: Basis<'_>,
    request: &v1::CheckRequest,
) -> Result<v1::CheckResponse, RequestError> {
    let v1::CheckRequest { identity, capability, resource, properties, .. } = request;
    let names = [&**identity, &**capability, &**resource];
    let attributes = convert::attributes(properties.as_ref());
    let attributes = attributes.map_err(|error| ask.refuse(basis, names, error))?;
    let decision = ask.check(basis, names, &attributes)?;
    Ok(convert::check_response(decision, basis.snapshot.revision()))
}

/// BatchCheck: many checks at one time. A malformed check gets its own error.
///
/// # Errors
///
/// More than [`BATCH_CHECKS_MAX`](crate::limits::BATCH_CHECKS_MAX) checks.
pub fn batch_check(
    ask: &Ask,
    basis: Basis<'_>,
    checks: &[v1::CheckItem],
) -> Result<v1::BatchCheckResponse, RequestError> {
    let properties = checks.iter().map(|item| item.properties.as_ref());
    let attributes: Vec<_> = properties.map(convert::attributes).collect();
    let names = checks.iter().map(|item| {
        let v1::CheckItem { identity, capability, resource, .. } = item;
        [identity, capability, resource].map(String::as_str)
    });
    batch_check_names(ask, basis, names.zip(attributes.iter().map(|one| one.as_deref())))
}

/// A batch of borrowed names, each with its attributes.
///
/// # Errors
///
/// As [`batch_check`].
pub(super) fn batch_check_names<'r>(
    ask: &Ask,
    basis: Basis<'_>,
    checks: impl ExactSizeIterator<Item = (Names<'r>, Result<&'r Attributes, &'r RequestError>)>,
) -> Result<v1::BatchCheckResponse, RequestError> {
    let mut results = vec![v1::CheckResult::default(); checks.len()];
    ask.batch(basis, checks, |at, decision| {
        if let Some(result) = results.get_mut(at) {
            *result = match decision {
                Ok(decision) => convert::check_result(decision),
                Err(error) => v1::CheckResult { error: Some(error.item()), ..Default::default() },
            };
        }
    })?;
    Ok(v1::BatchCheckResponse { results, revision: basis.snapshot.revision() })
}

/// Explain: why is this allowed, or which roles would allow it?
///
/// # Errors
///
/// As [`check`].
pub fn explain(
    ask: &Ask,
    basis: Basis<'_>,
    request: &v1::ExplainRequest,
) -> Result<v1::ExplainResponse, RequestError> {
    let v1::ExplainRequest { identity, capability, resource, properties, .. } = request;
    let names = [&**identity, &**capability, &**resource];
    let attributes = convert::attributes(properties.as_ref());
    let attributes = attributes.map_err(|error| ask.refuse(basis, names, error))?;
    let mut found = ask.explain(basis, names, &attributes)?;
    if let Some(within) = basis.within {
        // What is beside the path of the question may be outside.
        found.elsewhere.retain(|grant| is_within(grant.scope, within));
        found.similar.clear();
    }
    Ok(convert::explain_response(found, capability, basis.snapshot.revision()))
}

/// Whether a scope is at or below a path.
fn is_within(scope: &str, within: Path<'_>) -> bool {
    Path::parse(scope).is_ok_and(|scope| within.contains(scope))
}

/// ListCapabilities: what can this identity do here?
///
/// # Errors
///
/// A malformed path.
pub fn list_capabilities(
    snapshot: &Snapshot,
    request: &v1::ListCapabilitiesRequest,
    now: Timestamp,
) -> Result<v1::ListCapabilitiesResponse, RequestError> {
    let identity = ask::path("identity", &request.identity)?;
    let resource = ask::path("resource", &request.resource)?;
    let attributes = convert::attributes(request.properties.as_ref())?;
    let found = snapshot.list_capabilities(identity, resource, &attributes, now);
    Ok(convert::capabilities_response(found, snapshot))
}

/// ListCapabilities for a caller that may ask about one subtree: grants above it are not named.
///
/// # Errors
///
/// As [`list_capabilities`].
pub(crate) fn list_capabilities_within(
    snapshot: &Snapshot,
    request: &v1::ListCapabilitiesRequest,
    now: Timestamp,
    within: Option<Path<'_>>,
) -> Result<v1::ListCapabilitiesResponse, RequestError> {
    let mut found = list_capabilities(snapshot, request, now)?;
    if let Some(within) = within {
        found.grants.retain(|grant| is_within(&grant.scope, within));
    }
    Ok(found)
}

/// Refuses conditional grants to a caller with a subtree: they may be above.
///
/// # Errors
///
/// Such a caller asks for them.
pub(crate) fn no_conditional(
    within: Option<Path<'_>>,
    include_conditional: bool,
) -> Result<(), RequestError> {
    match within {
        Some(within) if include_conditional => {
            let problem = format!("it may ask about {within}, and conditional grants may be above");
            Err(RequestError::CallerNotAllowed { problem })
        }
        _ => Ok(()),
    }
}

/// ListIdentities: who can do this here, and on request who could with further properties? One page.
///
/// # Errors
///
/// A malformed path, a capability that the catalog lacks, a negative page size, or a page token of
/// another list or of a revision that is no longer kept.
pub fn list_identities(
    key: &PageKey,
    snapshot: &Snapshot,
    request: &v1::ListIdentitiesRequest,
    now: Timestamp,
) -> Result<v1::ListIdentitiesResponse, RequestError> {
    let v1::ListIdentitiesRequest { capability, page_size, page_token, .. } = request;
    let resource = ask::path("resource", &request.resource)?;
    let attributes = convert::attributes(request.properties.as_ref())?;
    let fields = [&**capability, &*request.resource];
    let conditional = request.include_conditional;
    let list = List { method: "ListIdentities", fields, attributes: &attributes, conditional };
    let page = Page::parse(key, *page_size, page_token, &list, snapshot, now)?;
    let (now, cursor, revision) = (page.now, page.cursor(), snapshot.revision());
    let unknown = |_| ask::unknown_capability(snapshot, capability);
    if !conditional {
        let found = snapshot.list_identities_page(capability, resource, &attributes, now, cursor);
        let found = found.map_err(unknown)?;
        return Ok(v1::ListIdentitiesResponse {
            next_page_token: page.next_token(found.entries.last().copied(), found.has_more),
            identities: found.entries.into_iter().map(Into::into).collect(),
            revision,
            conditional: vec![],
        });
    }
    let found =
        snapshot.conditional_identities_page(capability, resource, &attributes, now, cursor);
    let (entries, has_more) = fitting(found.map_err(unknown)?, |identity, grants| {
        v1::ConditionalIdentity { identity: (*identity).into(), grants }
    });
    let held = entries.iter().filter(|(_, holds, _)| *holds);
    Ok(v1::ListIdentitiesResponse {
        next_page_token: page.next_token(entries.last().map(|(id, ..)| *id), has_more),
        identities: held.map(|(id, ..)| (*id).into()).collect(),
        revision,
        conditional: entries.into_iter().filter_map(|(.., conditional)| conditional).collect(),
    })
}

/// ListScopes: where can this identity do this, and on request where could it with further properties? One page.
///
/// # Errors
///
/// As [`list_identities`]; or properties of a resource, because the question names no resource.
pub fn list_scopes(
    key: &PageKey,
    snapshot: &Snapshot,
    request: &v1::ListScopesRequest,
    now: Timestamp,
) -> Result<v1::ListScopesResponse, RequestError> {
    let v1::ListScopesRequest { capability, page_size, page_token, .. } = request;
    let (identity, attributes) = scopes_question(request)?;
    let conditional = request.include_conditional;
    let list = scopes_list(request, &attributes);
    let page = Page::parse(key, *page_size, page_token, &list, snapshot, now)?;
    let (now, cursor, revision) = (page.now, page.cursor(), snapshot.revision());
    let unknown = |_| ask::unknown_capability(snapshot, capability);
    if !conditional {
        let found = snapshot.list_scopes_page(identity, capability, &attributes, now, cursor);
        let found = found.map_err(unknown)?;
        let last = found.entries.last().map(|found| found.scope);
        return Ok(v1::ListScopesResponse {
            next_page_token: page.next_token(last, found.has_more),
            scopes: found.entries.into_iter().map(convert::scope).collect(),
            revision,
            conditional: vec![],
        });
    }
    let found = snapshot.conditional_scopes_page(identity, capability, &attributes, now, cursor);
    let (entries, has_more) = fitting(found.map_err(unknown)?, |found, grants| {
        v1::ConditionalScope { scope: found.scope.into(), grants }
    });
    let held = entries.iter().filter(|(_, holds, _)| *holds);
    Ok(v1::ListScopesResponse {
        next_page_token: page.next_token(entries.last().map(|(it, ..)| it.scope), has_more),
        scopes: held.map(|(found, ..)| convert::scope(*found)).collect(),
        revision,
        conditional: entries.into_iter().filter_map(|(.., conditional)| conditional).collect(),
    })
}

/// ListScopes for a caller that may ask about one subtree. A scope above it is shown as the subtree itself: what is granted there counts
/// in all of it.
///
/// # Errors
///
/// As [`list_scopes`]; or conditional grants are asked for, which may be above the subtree.
pub(crate) fn list_scopes_within(
    key: &PageKey,
    snapshot: &Snapshot,
    request: &v1::ListScopesRequest,
    now: Timestamp,
    within: Path<'_>,
) -> Result<v1::ListScopesResponse, RequestError> {
    no_conditional(Some(within), request.include_conditional)?;
    let (identity, attributes) = scopes_question(request)?;
    let v1::ListScopesRequest { capability, page_size, page_token, .. } = request;
    let page = Page::parse(
        key,
        *page_size,
        page_token,
        &scopes_list(request, &attributes),
        snapshot,
        now,
    )?;
    let found = snapshot.list_scopes(identity, capability, &attributes, page.now);
    let found = found.map_err(|_| ask::unknown_capability(snapshot, capability))?;
    let mut shown: BTreeMap<&str, bool> = BTreeMap::new();
    for Scope { scope, conditional } in found {
        let Ok(path) = Path::parse(scope) else { continue };
        let scope = if within.contains(path) {
            scope
        } else if path.contains(within) {
            within.as_str()
        } else {
            continue;
        };
        *shown.entry(scope).or_insert(true) &= conditional;
    }
    let behind = page.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = shown.range::<str, _>((behind, Bound::Unbounded));
    let entries: Vec<_> = rest.by_ref().take(page.size).collect();
    let last = entries.last().map(|(scope, _)| **scope);
    Ok(v1::ListScopesResponse {
        next_page_token: page.next_token(last, rest.next().is_some()),
        scopes: entries
            .into_iter()
            .map(|(scope, conditional)| convert::scope(Scope { scope, conditional: *conditional }))
            .collect(),
        revision: snapshot.revision(),
        conditional: vec![],
    })
}

/// The identity and the properties of ListScopes.
fn scopes_question(
    request: &v1::ListScopesRequest,
) -> Result<(Path<'_>, Cow<'_, Attributes>), RequestError> {
    let identity = ask::path("identity", &request.identity)?;
    if request.properties.as_ref().is_some_and(|properties| !properties.resource.is_empty()) {
        let problem = "tests on the resource are left open here, so nothing can be said of it";
        return Err(RequestError::field("properties.resource", problem));
    }
    Ok((identity, convert::attributes(request.properties.as_ref())?))
}

fn scopes_list<'r>(request: &'r v1::ListScopesRequest, attributes: &'r Attributes) -> List<'r> {
    let fields = [&*request.capability, &*request.identity];
    List { method: "ListScopes", fields, attributes, conditional: request.include_conditional }
}

/// The entries of a page, each with whether it holds, and its conditions as a message if it has any. The page ends when
/// the messages have [`PAGE_CONDITIONS_BYTES`]. Then, too, there are more.
fn fitting<T, M: Message>(
    page: capstan_engine::Page<Listed<'_, T>>,
    message: impl Fn(&T, Vec<v1::ConditionalGrant>) -> M,
) -> (Vec<(T, bool, Option<M>)>, bool) {
    let (mut entries, mut bytes) = (Vec::with_capacity(page.entries.len()), 0);
    for listed in page.entries {
        if bytes >= PAGE_CONDITIONS_BYTES {
            return (entries, true);
        }
        let grants: Vec<_> = listed.conditional().map(convert::conditional_grant).collect();
        let Listed { entry, holds, .. } = listed;
        let conditional = (!grants.is_empty()).then(|| message(&entry, grants));
        bytes += conditional.as_ref().map_or(0, Message::encoded_len);
        entries.push((entry, holds, conditional));
    }
    (entries, page.has_more)
}

/// The revision in a page token, for the next page; `None` if the text is no token. The token is
/// not verified.
#[must_use]
pub fn page_revision(token: &str) -> Option<u64> {
    page::revision(token)
}
