//! Requests answered from one snapshot at one time: what the gRPC services and the command line
//! both call.
//!
//! **Invariant**: nothing here waits, locks or logs.

use capstan_engine::{Attributes, Decision, Question, Snapshot, Timestamp};
use capstan_proto::v1;

use crate::RequestError;
use crate::grpc::convert;
use crate::grpc::page::Page;
use crate::limits::BATCH_CHECKS_MAX;

/// May this identity do this here?
///
/// # Errors
///
/// A malformed path, or a capability that the catalog lacks.
pub fn check(
    snapshot: &Snapshot,
    request: &v1::CheckRequest,
    now: Timestamp,
) -> Result<v1::CheckResponse, RequestError> {
    let v1::CheckRequest { identity, capability, resource, properties, .. } = request;
    let attributes = convert::attributes(properties.as_ref());
    check_names(snapshot, [identity, capability, resource], &attributes, now)
}

/// May this identity do this here, by these names?
///
/// # Errors
///
/// As [`check`].
pub(crate) fn check_names(
    snapshot: &Snapshot,
    [identity, capability, resource]: [&str; 3],
    attributes: &Attributes,
    now: Timestamp,
) -> Result<v1::CheckResponse, RequestError> {
    let question = convert::question(identity, capability, resource, attributes)?;
    let decision = decide(snapshot, &question, now)?;
    Ok(convert::check_response(decision, snapshot.revision()))
}

/// Many checks at one time; an item that cannot be answered gets its own error.
///
/// # Errors
///
/// More than [`BATCH_CHECKS_MAX`] checks.
pub fn batch_check(
    snapshot: &Snapshot,
    request: &v1::BatchCheckRequest,
    now: Timestamp,
) -> Result<v1::BatchCheckResponse, RequestError> {
    let properties = request.checks.iter().map(|item| item.properties.as_ref());
    let attributes: Vec<_> = properties.map(convert::attributes).collect();
    let names = request.checks.iter().map(|item| {
        let v1::CheckItem { identity, capability, resource, .. } = item;
        [identity, capability, resource].map(String::as_str)
    });
    batch_check_names(snapshot, names.zip(attributes.iter().map(|one| &**one)), now)
}

/// The same by names, each with what the request supplies for conditions.
///
/// # Errors
///
/// As [`batch_check`].
pub(crate) fn batch_check_names<'r>(
    snapshot: &Snapshot,
    checks: impl ExactSizeIterator<Item = ([&'r str; 3], &'r Attributes)>,
    now: Timestamp,
) -> Result<v1::BatchCheckResponse, RequestError> {
    let length = checks.len();
    if length > BATCH_CHECKS_MAX {
        return Err(too_many(length));
    }
    let mut results = vec![v1::CheckResult::default(); length];
    let mut questions = Vec::with_capacity(length);
    let mut places = Vec::with_capacity(length);
    for (([identity, capability, resource], attributes), result) in checks.zip(&mut results) {
        match convert::question(identity, capability, resource, attributes) {
            Ok(question) => {
                questions.push(question);
                places.push(result);
            }
            Err(error) => result.error = Some(error.item()),
        }
    }
    let mut asked = questions.iter().zip(places);
    snapshot.check_batch(&questions, now, |_, decision| {
        let Some((question, result)) = asked.next() else { return };
        match decision {
            Ok(decision) => *result = convert::check_result(decision),
            Err(_) => {
                let unknown = unknown_capability(snapshot, question.capability);
                result.error = Some(unknown.item());
            }
        }
    });
    drop(asked);
    Ok(v1::BatchCheckResponse { results, revision: snapshot.revision() })
}

/// The error of a batch of so many checks.
pub(crate) fn too_many(checks: usize) -> RequestError {
    let problem = format!("{checks} checks, more than {BATCH_CHECKS_MAX}: send several batches");
    RequestError::field("checks", problem)
}

fn decide(
    snapshot: &Snapshot,
    question: &Question<'_>,
    now: Timestamp,
) -> Result<Decision, RequestError> {
    snapshot.check(question, now).map_err(|_| unknown_capability(snapshot, question.capability))
}

/// What can this identity do here?
///
/// # Errors
///
/// A malformed path.
pub fn list_capabilities(
    snapshot: &Snapshot,
    request: &v1::ListCapabilitiesRequest,
    now: Timestamp,
) -> Result<v1::ListCapabilitiesResponse, RequestError> {
    let identity = convert::path("identity", &request.identity)?;
    let resource = convert::path("resource", &request.resource)?;
    let attributes = convert::attributes(request.properties.as_ref());
    let found = snapshot.list_capabilities(identity, resource, &attributes, now);
    let names = found.capabilities.iter().filter_map(|at| snapshot.catalog().capability_name(at));
    Ok(v1::ListCapabilitiesResponse {
        capabilities: names.map(Into::into).collect(),
        grants: found.grants.into_iter().map(convert::grant).collect(),
        revision: snapshot.revision(),
    })
}

/// Who can do this here?
///
/// # Errors
///
/// A malformed path, a capability that the catalog lacks, a negative page size, or a token of
/// another list.
pub fn list_identities(
    snapshot: &Snapshot,
    request: &v1::ListIdentitiesRequest,
    now: Timestamp,
) -> Result<v1::ListIdentitiesResponse, RequestError> {
    let resource = convert::path("resource", &request.resource)?;
    let attributes = convert::attributes(request.properties.as_ref());
    let list = ("ListIdentities", &request.capability, &request.resource, &*attributes);
    let page = Page::parse(request.page_size, &request.page_token, list, snapshot, now)?;
    let found = snapshot.list_identities(&request.capability, resource, &attributes, page.now);
    let found = found.map_err(|_| unknown_capability(snapshot, &request.capability))?;
    Ok(v1::ListIdentitiesResponse {
        identities: page.of(&found).iter().map(|identity| (*identity).into()).collect(),
        next_page_token: page.next(found.len()),
        revision: snapshot.revision(),
    })
}

/// Where can this identity do this?
///
/// # Errors
///
/// As [`list_identities`]; and properties of a resource, which the question leaves open.
pub fn list_scopes(
    snapshot: &Snapshot,
    request: &v1::ListScopesRequest,
    now: Timestamp,
) -> Result<v1::ListScopesResponse, RequestError> {
    let identity = convert::path("identity", &request.identity)?;
    if request.properties.as_ref().is_some_and(|properties| !properties.resource.is_empty()) {
        let problem = "tests on the resource are left open here, so nothing can be said of it";
        return Err(RequestError::field("properties.resource", problem));
    }
    let attributes = convert::attributes(request.properties.as_ref());
    let list = ("ListScopes", &request.capability, &request.identity, &*attributes);
    let page = Page::parse(request.page_size, &request.page_token, list, snapshot, now)?;
    let found = snapshot.list_scopes(identity, &request.capability, &attributes, page.now);
    let found = found.map_err(|_| unknown_capability(snapshot, &request.capability))?;
    Ok(v1::ListScopesResponse {
        scopes: page.of(&found).iter().copied().map(convert::scope).collect(),
        next_page_token: page.next(found.len()),
        revision: snapshot.revision(),
    })
}

/// Why may this identity do this here, or what would let it?
///
/// # Errors
///
/// As [`check`].
pub fn explain(
    snapshot: &Snapshot,
    request: &v1::ExplainRequest,
    now: Timestamp,
) -> Result<v1::ExplainResponse, RequestError> {
    let v1::ExplainRequest { identity, capability, resource, properties, .. } = request;
    let attributes = convert::attributes(properties.as_ref());
    let question = convert::question(identity, capability, resource, &attributes)?;
    let found = snapshot.explain(&question, now);
    let found = found.map_err(|_| unknown_capability(snapshot, capability))?;
    Ok(convert::explain_response(found, capability, snapshot.revision()))
}

/// The roles that the policy knows.
///
/// # Errors
///
/// A negative page size, or a token of another list.
pub fn list_roles(
    snapshot: &Snapshot,
    request: &v1::ListRolesRequest,
    now: Timestamp,
) -> Result<v1::ListRolesResponse, RequestError> {
    let (size, token) = (request.page_size, &request.page_token);
    let page = Page::parse(size, token, "ListRoles", snapshot, now)?;
    let (catalog, roles) = (snapshot.catalog(), snapshot.roles());
    Ok(v1::ListRolesResponse {
        catalog: catalog.name().into(),
        roles: page.of(roles).iter().map(|role| convert::role(catalog, role)).collect(),
        next_page_token: page.next(roles.len()),
        revision: snapshot.revision(),
    })
}

/// The revision that a page token was given out at, so that the list can go on there.
#[must_use]
pub fn page_revision(token: &str) -> Option<u64> {
    Page::revision(token)
}

fn unknown_capability(snapshot: &Snapshot, name: &str) -> RequestError {
    let shown: String = name.chars().take(128).flat_map(char::escape_debug).collect();
    let catalog = snapshot.catalog().name();
    RequestError::field("capability", format!("catalog `{catalog}` has no capability `{shown}`"))
}
