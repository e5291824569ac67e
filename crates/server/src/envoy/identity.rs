//! Who asks: the one source that says so, proved.
//!
//! **Invariants**: of several sources that are present none is preferred; that is a refusal. All
//! refusals are alike to the client, which learns neither whether an identity exists nor which half
//! of a credential was wrong.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use capstan_engine::{PathBuf, Timestamp};
use capstan_policy::{Credentials, IdentitySources, JwtSource};
use envoy_types::pb::google::protobuf::{Struct, value::Kind};
use sha2::{Digest as _, Sha256};

use super::request::Presented;
use crate::limits::AUTHORIZATION_BYTES_MAX;

/// Whom secrets prove: what the policy lists, and later what Capstan itself has issued.
pub(super) trait Verifier {
    /// The identity whose secret this is, if it counts at this time.
    fn verify(&self, secret: &[u8], now: Timestamp) -> Option<PathBuf>;
}

impl Verifier for Credentials {
    fn verify(&self, secret: &[u8], now: Timestamp) -> Option<PathBuf> {
        let hash = Sha256::digest(secret);
        let credential = self.get(&hash.into())?;
        let counts = credential.expires_at.is_none_or(|end| now < end);
        counts.then(|| credential.identity.clone())
    }
}

/// Nobody, or not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unidentified;

/// The identity that the one present source of those that count says and proves.
pub(super) fn find(
    sources: &IdentitySources,
    presented: &Presented<'_>,
    verifier: &impl Verifier,
    now: Timestamp,
) -> Result<PathBuf, Unidentified> {
    let credential = presented.authorization.filter(|_| sources.credential);
    let credential = credential.map(|header| by_credential(header?, verifier, now));
    let token = sources.jwt.as_ref().and_then(|source| by_token(source, presented.token?));
    let peer = sources.peer.as_ref().filter(|_| !presented.principal.is_empty());
    let peer = peer.map(|prefix| presented.principal.strip_prefix(&**prefix)?.parse().ok());
    let mut present = [credential, token, peer].into_iter().flatten();
    match (present.next(), present.next()) {
        (Some(Some(identity)), None) => Ok(identity),
        _ => Err(Unidentified),
    }
}

/// Whom an `Authorization` header proves: `Bearer SECRET`, or `Basic` with the identity's path as
/// user and the secret as password.
fn by_credential(header: &str, verifier: &impl Verifier, now: Timestamp) -> Option<PathBuf> {
    if header.len() > AUTHORIZATION_BYTES_MAX {
        return None;
    }
    let (scheme, rest) = header.split_once(' ')?;
    let rest = rest.trim_matches(' ');
    if rest.is_empty() || !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    if scheme.eq_ignore_ascii_case("bearer") {
        return verifier.verify(rest.as_bytes(), now);
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(rest).ok()?;
    // Paths may hold colons, and so may not passwords.
    let colon = decoded.iter().rposition(|byte| *byte == b':')?;
    let (user, password) = decoded.split_at_checked(colon)?;
    let identity = verifier.verify(password.get(1..)?, now)?;
    (identity.as_str().as_bytes() == user).then_some(identity)
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
