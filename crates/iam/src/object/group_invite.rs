//! Group invites: a code that binds whoever accepts it to a role at a group.

use capstan_engine::{Path, PathBuf, Timestamp};

use super::{Incarnation, Meta, parent_or_self};
use crate::fields::check_bytes;
use crate::limits::EMAIL_BYTES_MAX;

/// An invite to a group. The hash of its code is kept apart from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInvite {
    /// A path one segment below the group.
    pub id: PathBuf,
    /// Display name, may be empty.
    pub name: String,
    /// What it is for, may be empty.
    pub description: String,
    /// A built-in role's name (no slash) or a custom role's path.
    pub role: Box<str>,
    /// The create revision of a custom role; `None` for a built-in one.
    pub role_created: Option<u64>,
    /// Who accepts it has this address. Anybody without one.
    pub email: Option<String>,
    /// Whether the first who accepts uses it up.
    pub single_use: bool,
    /// It can be accepted while `now < expires_at`.
    pub expires_at: Timestamp,
    /// Who promised the role; `None` for the operator.
    pub creator: Option<Incarnation>,
    /// When it was made and changed.
    pub meta: Meta,
}

impl GroupInvite {
    /// The group that it is to.
    #[must_use]
    pub fn group(&self) -> Path<'_> {
        parent_or_self(self.id.as_path())
    }

    /// Whether a caller with this verified address may accept it.
    #[must_use]
    pub fn is_for(&self, email: Option<&str>) -> bool {
        self.email.as_deref().is_none_or(|wanted| email.is_some_and(|has| is_same(wanted, has)))
    }
}

/// The part before the last `@` belongs to whoever runs the domain and is compared as it is (RFC 5321, section 2.4); a domain
/// is the same in any case.
fn is_same(a: &str, b: &str) -> bool {
    match (a.rsplit_once('@'), b.rsplit_once('@')) {
        (Some((local, domain)), Some((other, its))) => {
            local == other && domain.eq_ignore_ascii_case(its)
        }
        _ => false,
    }
}

/// An e-mail address: a part before the last `@` and a domain behind it, of visible ASCII characters, at most
/// [`EMAIL_BYTES_MAX`] bytes. Whether mail arrives there, only mail can tell.
///
/// # Errors
///
/// What is expected.
pub fn check_email(text: &str) -> Result<(), String> {
    check_bytes(text, EMAIL_BYTES_MAX)?;
    let is_plain =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    let is_address = text.rsplit_once('@').is_some_and(|(a, b)| is_plain(a) && is_plain(b));
    is_address.then_some(()).ok_or_else(|| "an e-mail address, such as `ann@example.com`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_part_an_at_sign_and_a_domain() {
        let longest = format!("{}@example.com", "a".repeat(EMAIL_BYTES_MAX - 12));
        for good in ["a@b", "a.b+c@example.com", "a@b@c", &longest] {
            assert_eq!(check_email(good), Ok(()), "{good}");
        }
        for bad in ["", "a", "@b", "a@", "a b@c", "a@b\n", "ä@b", &format!("a{longest}")] {
            assert!(check_email(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_domain_is_the_same_in_any_case() {
        assert!(is_same("Ann@Example.com", "Ann@eXample.COM"));
        for other in ["ann@example.com", "Ann@example.org", "Ann", "Ann@x@example.com"] {
            assert!(!is_same("Ann@example.com", other), "{other}");
        }
    }
}
