//! Account associations: accounts at other clouds that a group belongs together with, and who acts for it there.
//!
//! **Invariant**: a group has one at most, and it has the path of the group (contract, section 6). Identities are named with
//! their create revision: one that is made again under the same id is not the one that was named.

use std::collections::{BTreeMap, BTreeSet};

use capstan_engine::PathBuf;

use super::{Incarnation, Meta};
use crate::limits::{CLIENT_IDS_MAX, INSTALLATIONS_MAX, SERVICES_MAX};

/// What a group has elsewhere. Any of them may be absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountAssociation {
    /// The path of the group.
    pub id: PathBuf,
    /// Display name, may be empty.
    pub name: String,
    /// What it is for, may be empty.
    pub description: String,
    /// The accounts.
    pub accounts: Accounts,
    /// Identities of the organization that act for the group, by what each does.
    pub services: BTreeMap<String, Incarnation>,
    /// When it was made and changed.
    pub meta: Meta,
}

/// Accounts at other clouds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// At Amazon Web Services.
    pub aws: Option<Aws>,
    /// At Google Cloud.
    pub google: Option<Google>,
    /// At Microsoft Azure.
    pub azure: Option<Azure>,
    /// At GitHub.
    pub github: Option<Github>,
}

/// An account of Amazon Web Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aws {
    /// 12 digits.
    pub account: String,
}

/// A project of Google Cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Google {
    /// 6 to 30 of `a-z 0-9 -`: a letter first, no hyphen last.
    pub project_id: String,
    /// Digits, without a leading zero; may be empty.
    pub project_number: String,
}

/// A tenant of Microsoft Azure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Azure {
    /// A UUID.
    pub tenant_id: String,
    /// UUIDs of applications.
    pub client_ids: Vec<String>,
}

/// Installations of an app at GitHub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Github {
    /// Numbers of installations, by the login of the organization at GitHub.
    pub installations: BTreeMap<String, u64>,
}

/// Where Amazon Web Services issues tokens (IAM outbound identity federation): below a label for each account.
const AWS_ISSUERS: &str = ".tokens.sts.global.api.aws";
const GOOGLE_ISSUER: &str = "https://accounts.google.com";
const GITHUB_ISSUER: &str = "https://token.actions.githubusercontent.com";

impl Aws {
    /// Whether tokens of this issuer are of Amazon Web Services. Which account they are of is a claim.
    #[must_use]
    pub fn issues(issuer: &str) -> bool {
        let host = issuer.strip_prefix("https://");
        let label = host.and_then(|host| host.strip_suffix(AWS_ISSUERS)).unwrap_or_default();
        let is_of_label = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        (1..=63).contains(&label.len()) && label.bytes().all(is_of_label)
    }
}

impl Google {
    /// Whether tokens of this issuer are of Google.
    #[must_use]
    pub fn issues(issuer: &str) -> bool {
        issuer == GOOGLE_ISSUER
    }
}

impl Azure {
    /// Whether tokens of this issuer are of the tenant, of version 2 or 1.
    #[must_use]
    pub fn issues(&self, issuer: &str) -> bool {
        let rest = issuer.strip_prefix("https://login.microsoftonline.com/");
        let rest = rest.and_then(|rest| rest.strip_suffix("/v2.0"));
        let first = issuer.strip_prefix("https://sts.windows.net/");
        let first = first.and_then(|rest| rest.strip_suffix('/'));
        rest.or(first) == Some(&self.tenant_id)
    }
}

impl Github {
    /// Whether tokens of this issuer are of GitHub Actions.
    #[must_use]
    pub fn issues(issuer: &str) -> bool {
        issuer == GITHUB_ISSUER
    }
}

type Checked = Result<(), (String, String)>;

impl Accounts {
    /// Whether a token of this issuer may be of one of the accounts.
    #[must_use]
    pub fn may_be_of(&self, issuer: &str) -> bool {
        self.aws.is_some() && Aws::issues(issuer)
            || self.google.is_some() && Google::issues(issuer)
            || self.azure.as_ref().is_some_and(|azure| azure.issues(issuer))
            || self.github.is_some() && Github::issues(issuer)
    }

    /// Checks what can be checked without any state.
    ///
    /// # Errors
    ///
    /// The path of the first field that is wrong, and what is expected.
    pub fn check(&self) -> Checked {
        if let Some(Aws { account }) = &self.aws {
            let is_account =
                account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
            require(is_account, "aws.account", "expected 12 digits")?;
        }
        if let Some(Google { project_id, project_number }) = &self.google {
            let expected = "expected 6 to 30 of `a-z 0-9 -`, a letter first and no hyphen last";
            require(is_project_id(project_id), "google.project_id", expected)?;
            let is_number = project_number.is_empty() || is_project_number(project_number);
            require(is_number, "google.project_number", "expected a number of up to 19 digits")?;
        }
        if let Some(azure) = &self.azure {
            azure.check()?;
        }
        self.github.as_ref().map_or(Ok(()), Github::check)
    }
}

impl Azure {
    fn check(&self) -> Checked {
        let expected = "expected a UUID in lower case";
        require(is_uuid(&self.tenant_id), "azure.tenant_id", expected)?;
        let count = self.client_ids.len();
        let most = format!("{count} are more than {CLIENT_IDS_MAX}");
        require(count <= CLIENT_IDS_MAX, "azure.client_ids", &most)?;
        for (at, id) in self.client_ids.iter().enumerate() {
            require(is_uuid(id), &format!("azure.client_ids[{at}]"), expected)?;
        }
        Ok(())
    }
}

impl Github {
    fn check(&self) -> Checked {
        let field = "github.installations";
        let count = self.installations.len();
        require(
            count <= INSTALLATIONS_MAX,
            field,
            &format!("{count} are more than {INSTALLATIONS_MAX}"),
        )?;
        let mut seen = BTreeSet::new();
        for (login, number) in &self.installations {
            let expected =
                "expected logins of 1 to 39 letters, digits and single hyphens between them";
            require(is_login(login), field, expected)?;
            let is_new = seen.insert(login.to_ascii_lowercase());
            require(is_new, &format!("{field}[{login}]"), "again, in another case")?;
            let expected = "expected the number of an installation";
            require(*number > 0, &format!("{field}[{login}]"), expected)?;
        }
        Ok(())
    }
}

fn require(holds: bool, field: &str, problem: &str) -> Checked {
    if holds { Ok(()) } else { Err((field.to_owned(), problem.to_owned())) }
}

/// The names of services: 1 to 128 of `A-Z a-z 0-9 - _ .`, at most [`SERVICES_MAX`].
///
/// # Errors
///
/// What is wrong.
pub(crate) fn check_services<'n>(
    names: impl ExactSizeIterator<Item = &'n String>,
) -> Result<(), String> {
    let count = names.len();
    if count > SERVICES_MAX {
        return Err(format!("{count} are more than {SERVICES_MAX}"));
    }
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    for name in names {
        if !(1..=128).contains(&name.len()) || !name.bytes().all(is_of_name) {
            return Err("names: expected 1 to 128 of `A-Z a-z 0-9 - _ .`".into());
        }
    }
    Ok(())
}

fn is_project_id(text: &str) -> bool {
    (6..=30).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

fn is_project_number(text: &str) -> bool {
    text.len() <= 19 && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

fn is_login(text: &str) -> bool {
    (1..=39).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

    fn field(accounts: &Accounts) -> String {
        accounts.check().unwrap_err().0
    }

    #[test]
    fn accounts_have_the_shapes_of_their_clouds() {
        let aws = |account: &str| Accounts {
            aws: Some(Aws { account: account.into() }),
            ..Accounts::default()
        };
        assert_eq!(aws("012345678901").check(), Ok(()));
        for bad in ["", "12345678901", "1234567890123", "12345678901a"] {
            assert_eq!(field(&aws(bad)), "aws.account", "{bad}");
        }
        let google = |id: &str, number: &str| {
            let (project_id, project_number) = (id.into(), number.into());
            let google = Some(Google { project_id, project_number });
            Accounts { google, ..Accounts::default() }
        };
        let long = |length: usize| "p".repeat(length);
        for (id, number) in
            [("abc-12", ""), (&*long(30), "1"), ("a2345678-b", "9999999999999999999")]
        {
            assert_eq!(google(id, number).check(), Ok(()), "{id} {number}");
        }
        for bad in ["", "abcde", &long(31), "1abcdef", "-abcdef", "abcdef-", "Abcdef", "abc_def"] {
            assert_eq!(field(&google(bad, "")), "google.project_id", "{bad}");
        }
        for bad in ["01", "1a", "-1", "10000000000000000000"] {
            assert_eq!(field(&google("abcdef", bad)), "google.project_number", "{bad}");
        }
        let azure = |tenant: &str, clients: Vec<&str>| {
            let client_ids = clients.into_iter().map(str::to_owned).collect();
            let azure = Some(Azure { tenant_id: tenant.into(), client_ids });
            Accounts { azure, ..Accounts::default() }
        };
        assert_eq!(azure(UUID, vec![UUID; CLIENT_IDS_MAX]).check(), Ok(()));
        for bad in ["", &UUID.to_uppercase(), &UUID.replace('-', ""), &format!("{UUID}0")] {
            assert_eq!(field(&azure(bad, vec![])), "azure.tenant_id", "{bad}");
            assert_eq!(field(&azure(UUID, vec![UUID, bad])), "azure.client_ids[1]", "{bad}");
        }
        assert_eq!(field(&azure(UUID, vec![UUID; CLIENT_IDS_MAX + 1])), "azure.client_ids");
    }

    #[test]
    fn installations_are_numbers_by_login() {
        let github = |all: &[(&str, u64)]| {
            let installations = all.iter().map(|(login, id)| ((*login).to_owned(), *id)).collect();
            Accounts { github: Some(Github { installations }), ..Accounts::default() }
        };
        let longest = "a".repeat(39);
        assert_eq!(github(&[("a", 1), (&longest, u64::MAX), ("A-b-1", 7)]).check(), Ok(()));
        for bad in ["", &format!("{longest}a"), "-a", "a-", "a--b", "a_b", "a b"] {
            assert_eq!(field(&github(&[(bad, 1)])), "github.installations", "{bad}");
        }
        assert_eq!(field(&github(&[("acme", 0)])), "github.installations[acme]");
        assert_eq!(field(&github(&[("Acme", 1), ("acme", 2)])), "github.installations[acme]");
        let many = |count: usize| Accounts {
            github: Some(Github {
                installations: (0..count).map(|at| (format!("a{at}"), 1)).collect(),
            }),
            ..Accounts::default()
        };
        assert_eq!(many(INSTALLATIONS_MAX).check(), Ok(()));
        assert_eq!(field(&many(INSTALLATIONS_MAX + 1)), "github.installations");
    }

    #[test]
    fn services_have_names() {
        let check = |names: &[String]| check_services(names.iter());
        let longest = "x".repeat(128);
        assert_eq!(check(&["INGESTER".into(), "a.b-c_1".into(), longest.clone()]), Ok(()));
        for bad in [String::new(), longest + "x", "a b".into(), "a/b".into(), "\u{e4}".into()] {
            assert!(check(std::slice::from_ref(&bad)).is_err(), "{bad}");
        }
        assert_eq!(check(&vec!["x".into(); SERVICES_MAX]), Ok(()));
        assert!(check(&vec!["x".into(); SERVICES_MAX + 1]).is_err());
    }
}
