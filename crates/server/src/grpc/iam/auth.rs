//! `AuthService`: who calls.

use capstan_proto::iam::v1;
use capstan_proto::iam::v1::auth_service_server::AuthService;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::reading::{Reading, Viewer};
use super::service::{Iam, caller};
use crate::RequestError;
use crate::authn::caller::CallerKind;
use crate::feed::Freshness;
use crate::grpc::convert::timestamp;
use crate::limits::PAGE_REST_BYTES;

#[tonic::async_trait]
impl AuthService for Iam {
    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let kind = caller(&request)?.kind;
        // A policy file has no callers.
        if kind == CallerKind::Nobody || self.management.is_none() {
            return Err(RequestError::AuthnFailed.into());
        }
        let (authentication, expires_at) = (kind.authentication().to_owned(), kind.expires_at());
        let reading = self.reading_as(kind, Freshness::Any).await?;
        let revision = reading.revision();
        let identity = reading.identity().map(ToString::to_string).unwrap_or_default();
        let bytes_max = self.message_bytes_max.saturating_sub(PAGE_REST_BYTES);
        let given = self.blocking(reading, move |_: &Reading, viewer| Ok(given(viewer, bytes_max)));
        let (scopes, truncated) = given.await?;
        let expires_at = expires_at.map(timestamp);
        let response = v1::WhoAmIResponse {
            identity,
            authentication,
            expires_at,
            scopes,
            truncated,
            revision,
        };
        Ok(Response::new(response))
    }
}

/// What is given to a caller, as far as it fits, and whether there is more.
fn given(viewer: &Viewer<'_>, bytes_max: usize) -> (Vec<v1::ScopeCapabilities>, bool) {
    let Viewer::Actor(reader) = viewer else { return (vec![], false) };
    let (mut scopes, mut room) = (vec![], bytes_max);
    for (scope, capabilities) in reader.given() {
        let one = v1::ScopeCapabilities { scope: scope.to_string(), capabilities };
        let bytes = one.encoded_len() + super::list::ENTRY_BYTES;
        if bytes > room {
            return (scopes, true);
        }
        room -= bytes;
        scopes.push(one);
    }
    (scopes, false)
}
