//! The identity that a request proves: by a secret, a token, or a verified certificate.
//!
//! **Invariants**: if several sources are present, the request is refused; none has priority. All
//! refused credentials are the same to the client. It learns neither whether an identity exists, nor
//! which half of a credential was wrong.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use capstan_engine::PathBuf;
use capstan_policy::IdentitySources;

use super::token::is_token;
use crate::limits::{AUTHORIZATION_BYTES_MAX, BASIC_COLONS_MAX};

/// The user name of `Basic` that stands for whoever the password proves.
pub(crate) const ANY_USER: &str = "_token";

/// Maps secrets to identities: those of the policy, and those that Capstan has issued.
pub(crate) trait Verifier {
    /// What proves an identity.
    type Proof;

    /// The identity of this secret, if the secret is valid now.
    fn verify(&self, secret: &[u8]) -> Option<(PathBuf, Self::Proof)>;

    /// Notes what has proved the identity of a request.
    fn proved(&self, by: &Self::Proof);
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
pub(crate) enum IdentityError {
    /// No source is present, several are present, or the credential is not valid.
    Unproved,
    /// The only source is a verified token or certificate, and it names no path.
    NotAPath,
}

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
) -> Result<PathBuf, IdentityError> {
    let credential = presented.authorization.filter(|_| sources.credential);
    let by_credential = |header: Option<&str>| by_authorization(header?, verifier);
    let credential = credential.map(|header| by_credential(header).ok_or(IdentityError::Unproved));
    let token = sources.jwt.as_ref().zip(presented.token);
    let token = token.map(|(source, claim)| path_after(&source.prefix, claim));
    let peer = sources.peer.as_ref().filter(|_| !presented.principal.is_empty());
    let peer = peer.map(|prefix| path_after(prefix, Some(presented.principal)));
    let mut present = [credential, token, peer].into_iter().flatten();
    match (present.next(), present.next()) {
        (Some(found), None) => found,
        _ => Err(IdentityError::Unproved),
    }
}

/// The identity that a verified name stands for: its path after the prefix.
fn path_after(prefix: &str, name: Option<&str>) -> Result<PathBuf, IdentityError> {
    let path = name.and_then(|name| name.strip_prefix(prefix)?.parse().ok());
    path.ok_or(IdentityError::NotAPath)
}

/// The identity that an `Authorization` header proves.
pub(crate) fn by_authorization(header: &str, verifier: &impl Verifier) -> Option<PathBuf> {
    let (identity, by) = Authorization::read(header)?.prove(|secret| verifier.verify(secret))?;
    verifier.proved(&by);
    Some(identity)
}

/// What an `Authorization` header presents: `Bearer SECRET`, or `Basic` with the identity's path or [`ANY_USER`] as user and
/// the secret as password.
pub(crate) enum Authorization<'h> {
    Bearer(&'h str),
    Basic(Vec<u8>),
}

impl<'h> Authorization<'h> {
    /// `None` for another scheme, one that is too long, or no text of it.
    pub(crate) fn read(header: &'h str) -> Option<Self> {
        if header.len() > AUTHORIZATION_BYTES_MAX {
            return None;
        }
        let (scheme, rest) = header.split_once(' ')?;
        let rest = rest.trim_matches(' ');
        if rest.is_empty() || !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Bearer(rest));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = STANDARD.decode(rest).ok()?;
        let colons = decoded.iter().filter(|byte| **byte == b':').count();
        (colons <= BASIC_COLONS_MAX).then_some(Self::Basic(decoded))
    }

    /// The identity that its secret proves, and by what.
    pub(crate) fn prove<P>(
        &self,
        find: impl Fn(&[u8]) -> Option<(PathBuf, P)>,
    ) -> Option<(PathBuf, P)> {
        let decoded = match self {
            Self::Bearer(secret) => return find(secret.as_bytes()),
            Self::Basic(decoded) => decoded,
        };
        // A path may contain colons, and so may a secret: the secret's hash shows which colon is meant.
        let colons = (0..decoded.len()).filter(|at| decoded.get(*at) == Some(&b':'));
        let mut fitting = colons.filter_map(|colon| {
            let (user, password) = decoded.split_at_checked(colon)?;
            let (identity, by) = find(password.get(1..)?)?;
            let is_user = user == ANY_USER.as_bytes() || identity.as_str().as_bytes() == user;
            is_user.then_some((identity, by))
        });
        match (fitting.next(), fitting.next()) {
            (Some(proved), None) => Some(proved),
            _ => None, // With two, it is not known who it is.
        }
    }

    /// A signed token, and the identity that the user of `Basic` names. `None` if the secret is none.
    pub(crate) fn token(&self) -> Option<(&str, Option<PathBuf>)> {
        let (user, secret) = match self {
            Self::Bearer(secret) => (None, *secret),
            Self::Basic(decoded) => {
                // No token has a colon.
                let (user, secret) = std::str::from_utf8(decoded).ok()?.rsplit_once(':')?;
                (Some(user).filter(|user| *user != ANY_USER), secret)
            }
        };
        let named = user.map(str::parse).transpose().ok()?;
        is_token(secret).then_some((secret, named))
    }
}
