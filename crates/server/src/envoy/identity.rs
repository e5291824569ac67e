//! Who asks: the one source that says so, proved.
//!
//! **Invariants**: of several sources that are present none is preferred; that is a refusal. All
//! refusals are alike to the client, which learns neither whether an identity exists nor which half
//! of a credential was wrong.

use capstan_engine::{PathBuf, Timestamp};
use capstan_policy::{IdentitySources, JwtSource};
use envoy_types::pb::google::protobuf::{Struct, value::Kind};

use super::request::Presented;
use crate::authn::credential::{Verifier, by_authorization};

/// Nobody, or not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdentityError;

/// The identity that the one present source of those that count says and proves.
pub(super) fn find(
    sources: &IdentitySources,
    presented: &Presented<'_>,
    verifier: &impl Verifier,
    now: Timestamp,
) -> Result<PathBuf, IdentityError> {
    let credential = presented.authorization.filter(|_| sources.credential);
    let credential = credential.map(|header| by_authorization(header?, verifier, now));
    let token = sources.jwt.as_ref().and_then(|source| by_token(source, presented.token?));
    let peer = sources.peer.as_ref().filter(|_| !presented.principal.is_empty());
    let peer = peer.map(|prefix| presented.principal.strip_prefix(&**prefix)?.parse().ok());
    let mut present = [credential, token, peer].into_iter().flatten();
    match (present.next(), present.next()) {
        (Some(Some(identity)), None) => Ok(identity),
        _ => Err(IdentityError),
    }
}

/// Whom a token names that Envoy has verified; nothing if there is no token, nobody if it names
/// nobody.
fn by_token(source: &JwtSource, metadata: &Struct) -> Option<Option<PathBuf>> {
    let payload = metadata.fields.get(&source.payload)?;
    let Some(Kind::StructValue(claims)) = &payload.kind else { return Some(None) };
    let claim = claims.fields.get(&source.claim).and_then(|claim| claim.kind.as_ref());
    Some(match claim {
        Some(Kind::StringValue(text)) => {
            text.strip_prefix(&*source.prefix).and_then(|path| path.parse().ok())
        }
        _ => None,
    })
}
