//! The identity that a request proves: by a secret, a verified token, or a verified certificate.
//!
//! **Invariants**: if several sources are present, the request is refused; none has priority. All
//! refusals are the same to the client. It learns neither whether an identity exists, nor which
//! half of a credential was wrong.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use capstan_engine::{PathBuf, Timestamp};
use capstan_policy::{Credentials, IdentitySources};
use sha2::{Digest as _, Sha256};

use crate::limits::AUTHORIZATION_BYTES_MAX;

/// Maps secrets to identities: those of the policy, and later those that Capstan has issued.
pub(crate) trait Verifier {
    /// The identity of this secret, if the secret is valid at this time.
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

/// The credentials that a request presents.
#[derive(Debug, Default)]
pub(crate) struct PresentedCredentials<'r> {
    /// The `Authorization` header. `Some(None)` if it is repeated or is not text.
    pub(crate) authorization: Option<Option<&'r str>>,
    /// The claim of a verified token that names an identity. `Some(None)` if the token lacks it.
    pub(crate) token: Option<Option<&'r str>>,
    /// The principal of a verified client certificate; empty without one.
    pub(crate) principal: &'r str,
}

/// The request proves no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdentityError;

/// The identity that the only present source proves. Sources that `sources` does not allow are
/// ignored.
///
/// # Errors
///
/// No source is present, several are present, or the present one proves no identity.
pub(crate) fn identify(
    sources: &IdentitySources,
    presented: &PresentedCredentials<'_>,
    verifier: &impl Verifier,
    now: Timestamp,
) -> Result<PathBuf, IdentityError> {
    let credential = presented.authorization.filter(|_| sources.credential);
    let credential = credential.map(|header| by_authorization(header?, verifier, now));
    let token = sources.jwt.as_ref().zip(presented.token);
    let token = token.map(|(source, claim)| claim?.strip_prefix(&*source.prefix)?.parse().ok());
    let peer = sources.peer.as_ref().filter(|_| !presented.principal.is_empty());
    let peer = peer.map(|prefix| presented.principal.strip_prefix(&**prefix)?.parse().ok());
    let mut present = [credential, token, peer].into_iter().flatten();
    match (present.next(), present.next()) {
        (Some(Some(identity)), None) => Ok(identity),
        _ => Err(IdentityError),
    }
}

/// The identity that an `Authorization` header proves. The header is `Bearer SECRET`, or `Basic`
/// with the identity's path as user and the secret as password.
fn by_authorization(header: &str, verifier: &impl Verifier, now: Timestamp) -> Option<PathBuf> {
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
    // A path may contain colons; a password may not.
    let colon = decoded.iter().rposition(|byte| *byte == b':')?;
    let (user, password) = decoded.split_at_checked(colon)?;
    let identity = verifier.verify(password.get(1..)?, now)?;
    (identity.as_str().as_bytes() == user).then_some(identity)
}
