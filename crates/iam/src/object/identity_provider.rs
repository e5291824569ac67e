//! Identity providers of organizations, and the roles that members of their groups get.
//!
//! ```text
//! token of an issuer ─▶ provider of the organization ─┬▶ identities below it whose authentication names the issuer
//!                                                     ├▶ the default role, in the organization
//!                                                     └▶ groups that the token names ─▶ mappings: roles, each at its scope
//! ```
//!
//! What a provider gives is judged when it is made (R9), and counts by `rules/session`.

use capstan_engine::{Path, PathBuf};

use super::{Incarnation, Meta, parent_or_self};
use crate::authentication::{check_algorithms, check_claim, check_key_set};
use crate::fields::{check_bytes, check_name};
use crate::limits::{AUDIENCES_MAX, EXTERNAL_GROUP_BYTES_MAX};

/// Whose tokens an organization believes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityProvider {
    /// A path one segment below the organization.
    pub id: PathBuf,
    /// Display name, may be empty.
    pub name: String,
    /// What it is for, may be empty.
    pub description: String,
    /// What makes a token one of this provider.
    pub oidc: Oidc,
    /// The role that whoever comes with a token of it has in the organization: a built-in role's name (no slash) or a custom
    /// role's path. None without one.
    pub default_role: Option<Box<str>>,
    /// The create revision of a custom default role.
    pub role_created: Option<u64>,
    /// Who made it, or last changed more than its texts; `None` for the operator.
    pub creator: Option<Incarnation>,
    /// When it was made and changed.
    pub meta: Meta,
}

/// A provider that speaks OpenID Connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oidc {
    /// `iss`, byte for byte: an https URL. No other provider of the organization has it, and no identity of the organization
    /// has keys of its own for it.
    pub issuer: String,
    /// Capstan's client id at the provider; may be empty. Tokens for it are taken.
    pub client_id: String,
    /// Further audiences (`aud`) whose tokens are taken. Without any and without a client id, only Capstan's own.
    pub audiences: Vec<String>,
    /// Public keys: a JSON Web Key Set. Without one, those that the issuer's discovery document names.
    pub jwks: Option<String>,
    /// The claim that lists the groups of whoever a token is of. Without one, mappings give nothing.
    pub groups_claim: Option<String>,
    /// The algorithms that its tokens may be signed with. Without any, whatever its keys are for.
    pub algorithms: Vec<String>,
}

impl IdentityProvider {
    /// The organization that it is of.
    #[must_use]
    pub fn organization(&self) -> Path<'_> {
        parent_or_self(self.id.as_path())
    }
}

impl Oidc {
    /// Checks what can be checked without any state.
    ///
    /// # Errors
    ///
    /// The name of the first field that is wrong, and what is expected.
    pub fn check(&self) -> Result<(), (String, String)> {
        let of = |field: &str, checked: Result<(), String>| {
            checked.map_err(|problem| (field.to_owned(), problem))
        };
        of("issuer", check_issuer(&self.issuer))?;
        if !self.client_id.is_empty() {
            of("client_id", check_claim(&self.client_id))?;
        }
        if self.audiences.len() > AUDIENCES_MAX {
            let problem = format!("{} are more than {AUDIENCES_MAX}", self.audiences.len());
            return Err(("audiences".into(), problem));
        }
        for (at, audience) in self.audiences.iter().enumerate() {
            of(&format!("audiences[{at}]"), check_claim(audience))?;
        }
        of("jwks", self.jwks.as_deref().map_or(Ok(()), check_key_set))?;
        of("groups_claim", self.groups_claim.as_deref().map_or(Ok(()), check_name))?;
        check_algorithms(&self.algorithms).map_err(|(at, problem)| {
            let at = at.map(|at| format!("[{at}]")).unwrap_or_default();
            (format!("algorithms{at}"), problem)
        })
    }
}

/// A group of a provider, whose members have a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRoleMapping {
    /// A path one segment below the provider.
    pub id: PathBuf,
    /// Display name, may be empty.
    pub name: String,
    /// What it is for, may be empty.
    pub description: String,
    /// The group, as the provider's tokens name it.
    pub external_group: String,
    /// A built-in role's name (no slash) or a custom role's path.
    pub role: Box<str>,
    /// The create revision of a custom role; `None` for a built-in one.
    pub role_created: Option<u64>,
    /// A group: the organization or below it.
    pub scope: PathBuf,
    /// Who promised the role; `None` for the operator.
    pub creator: Option<Incarnation>,
    /// When it was made and changed.
    pub meta: Meta,
}

impl GroupRoleMapping {
    /// The provider that it is of.
    #[must_use]
    pub fn provider(&self) -> Path<'_> {
        parent_or_self(self.id.as_path())
    }

    /// Whether both give the same to the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (self.provider(), &self.external_group, &self.role, &self.scope)
            == (other.provider(), &other.external_group, &other.role, &other.scope)
    }
}

/// An issuer (OpenID Connect Discovery 1.0, section 3): an https URL with a host, without user, query and fragment, of
/// visible ASCII characters.
///
/// # Errors
///
/// What is expected.
pub fn check_issuer(text: &str) -> Result<(), String> {
    check_claim(text)?;
    let is_valid = text.strip_prefix("https://").is_some_and(|rest| {
        let host = rest.split('/').next().unwrap_or_default();
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"?#@\\\"<>^`{|}".contains(&byte);
        !host.is_empty() && !host.starts_with(':') && rest.bytes().all(is_plain)
    });
    let expected =
        "an https URL without user, query and fragment, such as `https://accounts.example.com`";
    is_valid.then_some(()).ok_or_else(|| expected.into())
}

/// The name of a group of a provider: 1 to [`EXTERNAL_GROUP_BYTES_MAX`] bytes, no control characters.
///
/// # Errors
///
/// What is expected.
pub fn check_external_group(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("not empty: a group as the tokens of the provider name it".into());
    }
    check_bytes(text, EXTERNAL_GROUP_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CLAIM_BYTES_MAX;

    #[test]
    fn an_issuer_is_an_https_url() {
        let long = |bytes: usize| format!("https://a/{}", "x".repeat(bytes - 10));
        let good =
            ["https://a", "https://a.example:8443/t/1/", "https://[::1]/x", "https://A.b/~c"];
        for issuer in good.into_iter().chain([&*long(CLAIM_BYTES_MAX)]) {
            assert_eq!(check_issuer(issuer), Ok(()), "{issuer}");
        }
        let bad = [
            "",
            "a",
            "http://a",
            "HTTPS://a",
            "https://",
            "https:///a",
            "https://:1",
            "https://u@a",
            "https://a?b",
            "https://a#b",
            "https://a b",
            "https://\u{e4}",
            "https://a\n",
            " https://a",
        ];
        for issuer in bad.into_iter().chain([&*long(CLAIM_BYTES_MAX + 1)]) {
            assert!(check_issuer(issuer).is_err(), "{issuer}");
        }
    }

    #[test]
    fn an_external_group_is_some_text() {
        let longest = "x".repeat(EXTERNAL_GROUP_BYTES_MAX);
        for good in ["a", "CN=Admins,DC=example", "ein Team \u{e4}", &longest] {
            assert_eq!(check_external_group(good), Ok(()), "{good}");
        }
        for bad in ["", "a\n", &format!("{longest}x")] {
            assert!(check_external_group(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_field_that_is_wrong_is_named() {
        let oidc = Oidc {
            issuer: "https://a".into(),
            client_id: String::new(),
            audiences: vec!["x".into(); AUDIENCES_MAX],
            jwks: None,
            groups_claim: Some("groups".into()),
            algorithms: vec!["ES256".into()],
        };
        assert_eq!(oidc.check(), Ok(()));
        let field = |change: fn(&mut Oidc)| {
            let mut oidc = oidc.clone();
            change(&mut oidc);
            oidc.check().unwrap_err().0
        };
        assert_eq!(field(|one| one.issuer = "a".into()), "issuer");
        assert_eq!(field(|one| one.client_id = "a\0".into()), "client_id");
        assert_eq!(field(|one| one.audiences.push("x".into())), "audiences");
        assert_eq!(field(|one| one.audiences[1].clear()), "audiences[1]");
        assert_eq!(field(|one| one.jwks = Some("{}".into())), "jwks");
        assert_eq!(field(|one| one.groups_claim = Some(String::new())), "groups_claim");
        assert_eq!(field(|one| one.algorithms.push("ES256".into())), "algorithms[1]");
        assert_eq!(field(|one| one.algorithms = vec!["ES256".into(); 10]), "algorithms");
    }
}
