//! Requests answered from one snapshot at one time: what the gRPC services and the command line
//! both call.
//!
//! **Invariant**: nothing here waits, locks or logs.

use capstan_engine::{Snapshot, Timestamp};
use capstan_proto::v1;

use crate::limits::BATCH_CHECKS_MAX;
use crate::page::Page;
use crate::{RequestError, convert};

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
    let (identity, capability, resource) =
        (&request.identity, &request.capability, &request.resource);
    let decision = decide(snapshot, identity, capability, resource, now)?;
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
    let length = request.checks.len();
    if length > BATCH_CHECKS_MAX {
        let problem =
            format!("{length} checks, more than {BATCH_CHECKS_MAX}: send several batches");
        return Err(RequestError::field("checks", problem));
    }
    let answer = |item: &v1::CheckItem| match decide(
        snapshot,
        &item.identity,
        &item.capability,
        &item.resource,
        now,
    ) {
        Ok(decision) => convert::check_result(decision),
        Err(error) => v1::CheckResult { error: Some(error.item()), ..Default::default() },
    };
    let results = request.checks.iter().map(answer).collect();
    Ok(v1::BatchCheckResponse { results, revision: snapshot.revision() })
}

fn decide(
    snapshot: &Snapshot,
    identity: &str,
    capability: &str,
    resource: &str,
    now: Timestamp,
) -> Result<capstan_engine::Decision, RequestError> {
    let question = convert::question(identity, capability, resource)?;
    snapshot.check(&question, now).map_err(|_| unknown_capability(snapshot, capability))
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
    let found = snapshot.list_capabilities(identity, resource, now);
    let names = found.capabilities.iter().filter_map(|at| snapshot.catalog().capability_name(at));
    Ok(v1::ListCapabilitiesResponse {
        capabilities: names.map(Into::into).collect(),
        grants: found.grants.into_iter().map(convert::grant).collect(),
        revision: snapshot.revision(),
    })
}

/// The roles that the policy knows.
///
/// # Errors
///
/// A negative page size, or a token of another list.
pub fn list_roles(
    snapshot: &Snapshot,
    request: &v1::ListRolesRequest,
) -> Result<v1::ListRolesResponse, RequestError> {
    let list = ("ListRoles", snapshot.revision());
    let page = Page::parse(request.page_size, &request.page_token, list)?;
    let (catalog, roles) = (snapshot.catalog(), snapshot.roles());
    let here = roles.iter().skip(page.start).take(page.size);
    Ok(v1::ListRolesResponse {
        catalog: catalog.name().into(),
        roles: here.map(|role| convert::role(catalog, role)).collect(),
        next_page_token: page.next(roles.len()),
        revision: snapshot.revision(),
    })
}

fn unknown_capability(snapshot: &Snapshot, name: &str) -> RequestError {
    let shown: String = name.chars().take(128).flat_map(char::escape_debug).collect();
    let catalog = snapshot.catalog().name();
    RequestError::field("capability", format!("catalog `{catalog}` has no capability `{shown}`"))
}
