//! Secrets: whom they prove, and where a request carries them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use capstan_engine::{PathBuf, Timestamp};
use capstan_policy::Credentials;
use sha2::{Digest as _, Sha256};

use crate::limits::AUTHORIZATION_BYTES_MAX;

/// Whom secrets prove: what the policy lists, and later what Capstan itself has issued.
pub(crate) trait Verifier {
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

/// Whom an `Authorization` header proves: `Bearer SECRET`, or `Basic` with the identity's path as
/// user and the secret as password.
pub(crate) fn by_authorization(
    header: &str,
    verifier: &impl Verifier,
    now: Timestamp,
) -> Option<PathBuf> {
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
