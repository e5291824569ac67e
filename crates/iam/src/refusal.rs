//! Why an operation is refused: what the caller is told, and what the audit keeps.
//!
//! The two differ where the caller may not know: hidden and absent are one `NOT_FOUND` (contract, section 6), and
//! the audit still has the rule and what is missing.

use std::fmt;

use capstan_engine::{PathBuf, Timestamp};
use thiserror::Error;

use crate::{Kind, ObjectsError, Rule};

/// Why an operation was not judged to be done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JudgeError {
    /// It is refused. The audit gets a record of it.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The state could not be read, so nothing was judged.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
}

impl JudgeError {
    /// The same about an item of a batch.
    pub(crate) fn of_item(mut self, item: impl FnOnce() -> String) -> Self {
        if let Self::Refused(refusal) = &mut self {
            refusal.item = Some(item());
        }
        self
    }
}

impl From<Box<Refusal>> for JudgeError {
    fn from(refusal: Box<Refusal>) -> Self {
        Self::Refused(refusal)
    }
}

/// A refusal. Displays what the caller is told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Refusal {
    /// What the caller is told.
    pub told: Cause,
    /// What it really is, for the audit: `told`, or what a `NOT_FOUND` hides.
    pub real: Cause,
    /// The rule of privileges that refuses; `None` if the method's own capability is missing or it is no question
    /// of privileges.
    pub rule: Option<Rule>,
    /// Identities that could do it, a few, sorted. Only those that the caller may see bound.
    pub who_could: Vec<PathBuf>,
    /// The item of a batch that it is about: `role_bindings[3]`.
    pub item: Option<String>,
}

/// A reason of a refusal, with what its text and metadata need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The caller is not registered or disabled.
    AuthnFailed,
    /// It is not there, or not to be seen.
    NotFound,
    /// The caller lacks capabilities.
    MissingCapability {
        /// Where.
        scope: PathBuf,
        /// What it lacks, sorted, each once.
        missing: Vec<String>,
    },
    /// Only the operator may do it.
    OperatorOnly {
        /// Where; `None` at the root.
        scope: Option<PathBuf>,
        /// Capabilities that the method needs and the catalog lacks, if that is why.
        absent: Vec<String>,
    },
    /// What is given lasts longer than what gives it.
    DurationExceeded {
        /// Where.
        scope: PathBuf,
        /// When the caller's right ends.
        bound: Timestamp,
    },
    /// A field has a value that it cannot have.
    InvalidField {
        /// The field's path in the request: `role_binding.role`, `role_bindings[3].role`.
        field: String,
        /// What is wrong, and what is expected.
        problem: String,
    },
    /// The path names something, or the same binding exists.
    AlreadyExists {
        /// The path; of a binding, its scope.
        id: PathBuf,
        /// Whether it is the same binding.
        same_binding: bool,
    },
    /// Something that there can be once is there.
    Duplicate {
        /// What has it.
        id: PathBuf,
        /// What there can be once.
        what: &'static str,
    },
    /// There is something below the group.
    NotEmpty {
        /// The group.
        id: PathBuf,
        /// What is there.
        contents: Kind,
    },
    /// The role is bound or promised.
    RoleInUse {
        /// The role.
        id: PathBuf,
    },
    /// Built-in roles are the catalog's.
    BuiltIn {
        /// The role.
        id: PathBuf,
    },
    /// The organization would have no owner any more.
    LastOwner {
        /// The organization.
        organization: PathBuf,
    },
    /// What a pull token may not be or do.
    PullToken {
        /// The token.
        id: PathBuf,
    },
    /// A role that a pull token cannot have: it manages access.
    RoleNotAllowed {
        /// The role.
        role: String,
        /// The first capability that is not allowed; `None` if the caller may not see what the role holds.
        capability: Option<String>,
    },
    /// A code that lets nobody join: unknown, used, ended, for somebody else, or of a creator who could not give the role
    /// any more.
    InviteInvalid,
    /// The object was changed in the meantime: its etag is another one.
    Conflict {
        /// The object.
        id: PathBuf,
    },
}

/// The status code of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// `INVALID_ARGUMENT`
    InvalidArgument = 3,
    /// `NOT_FOUND`
    NotFound = 5,
    /// `ALREADY_EXISTS`
    AlreadyExists = 6,
    /// `PERMISSION_DENIED`
    PermissionDenied = 7,
    /// `FAILED_PRECONDITION`
    FailedPrecondition = 9,
    /// `ABORTED`
    Aborted = 10,
    /// `UNAUTHENTICATED`
    Unauthenticated = 16,
}

impl Cause {
    /// The code of section 7 of the contract.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::AuthnFailed => Code::Unauthenticated,
            Self::NotFound | Self::InviteInvalid => Code::NotFound,
            Self::MissingCapability { .. }
            | Self::OperatorOnly { .. }
            | Self::DurationExceeded { .. } => Code::PermissionDenied,
            Self::InvalidField { .. } => Code::InvalidArgument,
            Self::AlreadyExists { .. } | Self::Duplicate { .. } => Code::AlreadyExists,
            Self::NotEmpty { .. }
            | Self::RoleInUse { .. }
            | Self::BuiltIn { .. }
            | Self::LastOwner { .. }
            | Self::PullToken { .. }
            | Self::RoleNotAllowed { .. } => Code::FailedPrecondition,
            Self::Conflict { .. } => Code::Aborted,
        }
    }

    /// The reason of section 7 of the contract; `NOT_FOUND` and `ALREADY_EXISTS` have none.
    #[must_use]
    pub const fn reason(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotFound | Self::AlreadyExists { .. } | Self::Duplicate { .. } => return None,
            Self::AuthnFailed => "AUTHN_FAILED",
            Self::MissingCapability { .. } => "MISSING_CAPABILITY",
            Self::OperatorOnly { .. } => "OPERATOR_ONLY",
            Self::DurationExceeded { .. } => "DURATION_EXCEEDED",
            Self::InvalidField { .. } => "INVALID_FIELD",
            Self::NotEmpty { .. } => "NOT_EMPTY",
            Self::RoleInUse { .. } => "ROLE_IN_USE",
            Self::BuiltIn { .. } => "BUILT_IN",
            Self::LastOwner { .. } => "LAST_OWNER",
            Self::PullToken { .. } => "PULL_TOKEN",
            Self::RoleNotAllowed { .. } => "ROLE_NOT_ALLOWED",
            Self::InviteInvalid => "INVITE_INVALID",
            Self::Conflict { .. } => "CONFLICT",
        })
    }
}

impl Refusal {
    /// A refusal that the caller is told as it is.
    pub(crate) fn open(rule: Option<Rule>, cause: Cause) -> Box<Self> {
        Self { told: cause.clone(), real: cause, rule, who_could: vec![], item: None }.into()
    }

    /// An object that is not there, or may not be seen.
    pub(crate) fn not_found() -> Box<Self> {
        Self::open(None, Cause::NotFound)
    }

    /// A field with a value that it cannot have.
    pub(crate) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Box<Self> {
        let (field, problem) = (field.into(), problem.into());
        Self::open(None, Cause::InvalidField { field, problem })
    }

    /// What it is, of something at a scope whose groups the caller does not see.
    pub(crate) fn hidden(rule: Option<Rule>, cause: Cause) -> Box<Self> {
        Self { told: Cause::NotFound, ..*Self::open(rule, cause) }.into()
    }

    /// For the audit: where capabilities are missing and which, if that is why.
    #[must_use]
    pub fn missing(&self) -> (Option<&PathBuf>, &[String]) {
        match &self.real {
            Cause::MissingCapability { scope, missing } => (Some(scope), missing),
            Cause::OperatorOnly { scope, absent } => (scope.as_ref(), absent),
            Cause::DurationExceeded { scope, .. } => (Some(scope), &[]),
            _ => (None, &[]),
        }
    }

    /// The whole text, for the audit: also what the caller is not told.
    #[must_use]
    pub fn audit_text(&self) -> String {
        let rule = self.rule.map(|rule| format!(" [{rule}]")).unwrap_or_default();
        let text = Text { cause: &self.real, rule: None, who_could: &[] };
        format!("{}{text}{rule}", self.prefix(&self.real))
    }

    /// The item of a batch, where it is told. A field names it itself.
    fn prefix(&self, cause: &Cause) -> String {
        match (&self.item, cause) {
            (Some(item), cause)
                if !matches!(cause, Cause::NotFound | Cause::InvalidField { .. }) =>
            {
                format!("{item}: ")
            }
            _ => String::new(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = if self.told == self.real { self.rule } else { None };
        f.write_str(&self.prefix(&self.told))?;
        Text { cause: &self.told, rule, who_could: &self.who_could }.fmt(f)
    }
}

/// A text: what is wrong, the rule in words, and who could do it.
struct Text<'t> {
    cause: &'t Cause,
    rule: Option<Rule>,
    who_could: &'t [PathBuf],
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            // One text for callers that are unknown and for those that are disabled.
            Cause::AuthnFailed => f.write_str("the caller is not authenticated")?,
            Cause::NotFound => f.write_str("not found")?,
            Cause::MissingCapability { scope, missing } => {
                f.write_str("missing ")?;
                names(f, missing)?;
                write!(f, " at `{scope}`")?;
            }
            Cause::OperatorOnly { absent, .. } if !absent.is_empty() => {
                f.write_str("only the operator may do this: the catalog lacks ")?;
                names(f, absent)?;
            }
            Cause::OperatorOnly { .. } => f.write_str("only the operator may do this")?,
            Cause::DurationExceeded { scope, bound } => {
                write!(
                    f,
                    "your own right at `{scope}` ends at {}, and what you give would last longer",
                    utc(*bound)
                )?;
            }
            Cause::InvalidField { field, problem } => write!(f, "{field}: {problem}")?,
            Cause::AlreadyExists { id, same_binding: true } => {
                write!(
                    f,
                    "the identity has this role at `{id}` already, with the same conditions"
                )?;
            }
            Cause::AlreadyExists { id, same_binding: false } => write!(f, "`{id}` exists already")?,
            Cause::Duplicate { id, what } => write!(f, "`{id}` has {what} already")?,
            Cause::NotEmpty { id, contents } => {
                let article = if contents.as_str().starts_with('i') { "an" } else { "a" };
                write!(
                    f,
                    "`{id}` is not empty, delete what is below it first: there is {article} {contents}"
                )?;
            }
            Cause::RoleInUse { id } => {
                write!(
                    f,
                    "role `{id}` is still in use, delete its role bindings, invites and group role mappings first, and let no \
                     identity provider have it as default role"
                )?;
            }
            Cause::BuiltIn { id } => {
                write!(
                    f,
                    "role `{id}` is built in and cannot be changed, create a custom role instead"
                )?;
            }
            Cause::LastOwner { organization } => {
                write!(f, "`{organization}` would have no owner any more, make another one first")?;
            }
            Cause::PullToken { id } => {
                write!(
                    f,
                    "`{id}` is a pull token: only its name and description change, its role binding is the one \
                     made with it, and it accepts no invite"
                )?;
            }
            Cause::RoleNotAllowed { role, capability } => {
                write!(f, "a pull token cannot have the role `{role}`, which manages access")?;
                if let Some(capability) = capability {
                    write!(f, " by `{capability}`")?;
                }
            }
            Cause::InviteInvalid => f.write_str(
                "the invite cannot be accepted: its code is wrong or used, it has ended, it is for another e-mail address, or \
                 whoever made it may not invite any more; ask for a new one",
            )?,
            Cause::Conflict { id } => {
                write!(
                    f,
                    "`{id}` was changed in the meantime, read it again: its etag is another one"
                )?;
            }
        }
        // A reference that is foreign is told as one that is absent, so no rule is named.
        let rule = self.rule.filter(|_| !matches!(self.cause, Cause::InvalidField { .. }));
        if let Some(rule) = rule {
            write!(f, " ({}: {})", rule.number(), rule.words())?;
        }
        if let [first, rest @ ..] = self.who_could {
            write!(f, "; `{first}`")?;
            rest.iter().try_for_each(|one| write!(f, ", `{one}`"))?;
            f.write_str(" could do it")?;
        }
        Ok(())
    }
}

/// Most capabilities that a text names (contract, section 7: `missing` has the first 50).
const NAMES_MAX: usize = 50;

fn names(f: &mut fmt::Formatter<'_>, names: &[String]) -> fmt::Result {
    for (at, name) in names.iter().take(NAMES_MAX).enumerate() {
        write!(f, "{}`{name}`", if at == 0 { "" } else { ", " })?;
    }
    match names.len().checked_sub(NAMES_MAX) {
        None | Some(0) => Ok(()),
        Some(more) => write!(f, " and {more} more"),
    }
}

/// A time as RFC 3339, in whole seconds.
fn utc(time: Timestamp) -> String {
    let format = &time::format_description::well_known::Rfc3339;
    let known = time::OffsetDateTime::from_unix_timestamp(time.seconds()).ok();
    let text = known.and_then(|known| known.format(format).ok());
    text.unwrap_or_else(|| format!("{} s after 1970", time.seconds()))
}
