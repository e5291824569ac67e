//! What a server refuses: what is missing, where, and what to do.

use std::fmt;

use capstan_engine::quote;
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The answer of a server that is no success.
///
/// As JSON: `{"error": "...", "code": "PERMISSION_DENIED", "reason": "MISSING_CAPABILITY", ...}`; what a status does not
/// say is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Refusal {
    /// The message of the status.
    error: String,
    #[serde(serialize_with = "word")]
    code: Code,
    /// The ErrorInfo.reason.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    /// The capabilities that the caller lacks: the first 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
    /// How many it lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_count: Option<u64>,
    /// Where it lacks them.
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    /// The path of the malformed field.
    #[serde(skip_serializing_if = "String::is_empty")]
    field: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    advice: String,
}

impl std::error::Error for Refusal {}

impl Refusal {
    pub(crate) fn of(status: &Status) -> Self {
        let (mut reason, mut metadata) = (String::new(), std::collections::HashMap::new());
        if let Some(info) = status.get_details_error_info() {
            (reason, metadata) = (info.reason, info.metadata);
        }
        let mut take = |key: &str| metadata.remove(key).unwrap_or_default();
        let missing = take("missing");
        let missing = missing.split(',').filter(|name| !name.is_empty()).map(Into::into).collect();
        let mut refusal = Self {
            error: status.message().to_owned(),
            code: status.code(),
            reason,
            missing,
            missing_count: take("missing_count").parse().ok(),
            scope: take("scope"),
            field: take("field"),
            advice: String::new(),
        };
        refusal.advice = refusal.advice();
        refusal
    }

    /// As if a server had answered NOT_FOUND: nothing that the caller may see has this name.
    pub(crate) fn no_name(kind: &str, name: &str) -> Self {
        Self::of(&Status::not_found(format!(
            "there is no {kind} with the name {} that you may see",
            quote(name)
        )))
    }

    /// Adds to what to do.
    pub(crate) fn advise(&mut self, advice: &str) {
        let separator = if self.advice.is_empty() { "" } else { "; " };
        self.advice = format!("{}{separator}{advice}", self.advice);
    }

    /// The error of a call about everything, which only the operator may make, with advice for others: `--parent` asks
    /// about one organization. Other errors, and those with a parent, stay as they are.
    pub(crate) fn or_of_one(mut error: anyhow::Error, parent: &str) -> anyhow::Error {
        if let Some(refusal) = error.downcast_mut::<Self>()
            && refusal.reason == "OPERATOR_ONLY"
            && parent.is_empty()
        {
            refusal.advise("anybody who may: of one organization, with --parent ORG");
        }
        error
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }

    /// Whether the server decided against it (contract, section 6). All else is an error.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(
            self.code,
            Code::PermissionDenied
                | Code::NotFound
                | Code::FailedPrecondition
                | Code::AlreadyExists
                | Code::Aborted
        )
    }

    /// Whether a write may have been made in spite of the answer.
    pub(crate) fn leaves_open(&self) -> bool {
        matches!(
            self.code,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
        ) && matches!(self.reason.as_str(), "" | "COMMIT_OUTCOME_UNKNOWN")
    }

    fn advice(&self) -> String {
        let advice = match (self.code, self.reason.as_str()) {
            (_, "MISSING_CAPABILITY") => return self.who_could(),
            (_, "DURATION_EXCEEDED") => {
                "give it an end that is no later than that of your own right: --expires-at, or a shorter --ttl; a pull token \
                 without --ttl ends with your right, and after 30 days at the latest"
            }
            (_, "OPERATOR_ONLY") => {
                "the operator may: on the machine of the server, --addr unix:DIR/operator.sock"
            }
            (_, "AUTHN_FAILED") => {
                "say who calls: a login (capstan auth login), a token (--token-file), a client certificate (--cert, --key) or, if the server trusts it, --as IDENTITY \
                 alone, of one that is registered and not disabled; or the operator's socket as --addr. The log of the server says \
                 what is wrong with a credential"
            }
            (_, "NOT_EMPTY") => {
                "delete what is in it first: `capstan iam tree` and `capstan iam groups list --parent` show it"
            }
            (_, "ROLE_IN_USE") => {
                "delete what gives it first: `capstan iam role-bindings list --role ROLE`, `capstan iam group-invites list`, `capstan iam \
                 group-role-mappings list --role ROLE` and `capstan iam identity-providers list` show it"
            }
            (_, "BUILT_IN") => {
                "create a custom role from it: capstan iam roles create GROUP/NAME --like ROLE"
            }
            (_, "LAST_OWNER") => "bind another owner to the organization first",
            (_, "CONFLICT") => {
                "somebody changed it meanwhile: look at it with `describe`, and repeat with its new --etag or without"
            }
            (_, "READ_ONLY") => {
                "the server's policy is a file: change that file, or serve a store (capstan serve --data DIR)"
            }
            (_, "ROLE_NOT_ALLOWED") => {
                "choose a role of the catalog that manages nothing, such as one of the pull roles: `capstan iam roles list` \
                 shows the roles, and `capstan iam roles describe ROLE` what one gives"
            }
            (_, "TOKEN_ALREADY_ISSUED") => {
                "its secret is not known any more: create another one with a new --request-id or without, and take this one \
                 away: `capstan auth pull-token revoke` of a token, `capstan iam group-invites delete` of an invite"
            }
            (_, "INVITE_INVALID") => {
                "ask who invited you for a new one; one that is for an e-mail address needs that you are known by it"
            }
            (_, "PULL_TOKEN") => "revoke the token and create another one",
            (_, "STORE_EPOCH") => "leave out the revision: it is of another store",
            (_, "REVISION_COMPACTED") => {
                "what changed there is not kept any more: read the state anew, such as with `capstan policy export`, and go on \
                 with --from the revision behind that; without --from, `capstan events tail` begins now"
            }
            (_, "INVALID_FIELD") => of_field(&self.field),
            (_, "QUOTA") => {
                "wait a minute if it counts changes, delete what is not needed if it counts objects, or ask the operator \
                 for a larger quota (--quota-… of `capstan serve`)"
            }
            (_, "OVERLOADED") => {
                "repeat the command in a moment; many changes fit into one: `role-bindings create --file`, `policy import`"
            }
            (_, "DISK_FULL") => {
                "the operator: make room where the store is; the server then writes again, without a restart"
            }
            (_, "STORE_READ_ONLY") => {
                "the operator: look into the log of the server, make the store's directory writable, and start the server \
                 again"
            }
            (_, "STORE_UNREACHABLE") => {
                "repeat the command in a moment, for the server opens its store again by itself; if it stays so, the \
                 operator: look into the log of the server, and at the disk"
            }
            (_, "NOT_READY") => "repeat the command in a moment: the server starts or ends",
            (_, "REVISION_NOT_AVAILABLE") => {
                "repeat the command, with a revision of this server in --consistency, or without it"
            }
            (_, "TOO_LARGE") => "send less at once",
            (Code::NotFound, _) => {
                "it does not exist, or you may not see it: check the id, and who you are (--as)"
            }
            (Code::AlreadyExists, _) => "choose another id, or update what is there",
            (Code::Unimplemented, _) => {
                "the server does not have this call: it is of another version, or its policy is a file"
            }
            _ => "",
        };
        advice.into()
    }

    /// Whether the message already has everything that is missing.
    fn names_all(&self) -> bool {
        let has = |name: &String| self.error.contains(&format!("`{name}`"));
        self.missing.iter().all(has) && has(&self.scope)
    }

    fn who_could(&self) -> String {
        match self.missing.first() {
            Some(first) if !self.scope.is_empty() => format!(
                "ask somebody who has that there; `capstan who {first} {}` shows who has the first",
                self.scope
            ),
            _ => "ask somebody who has that".into(),
        }
    }
}

/// What to do about a field that names what is not there.
fn of_field(field: &str) -> &'static str {
    let last = field.rsplit('.').next().unwrap_or_default();
    match last.split('[').next().unwrap_or_default() {
        "owner" | "identity" => {
            "check the id: `capstan iam identities list` shows those that you may see, and the operator creates people with \
             `capstan iam identities create`"
        }
        "role" => "check the id: `capstan iam roles list` with --addr or --context shows the roles",
        "capabilities" => "`capstan catalog capabilities` lists them",
        "sink" => {
            "give an https URL whose host is in the public internet; which others are allowed is the operator's to say \
             (--webhook-allow of `capstan serve`)"
        }
        "types" => {
            "give at most 32, as KIND or KIND.ACTION, such as role_binding.created, or none for all"
        }
        "challenge" => {
            "give the latest one that was posted to the sink: it counts for a day, for this subscription and this sink. A server \
             without --public-url posts none"
        }
        _ => "",
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.error, &*self.reason) {
            ("", "") => write!(f, "{}", code_word(self.code))?,
            (error, "") => write!(f, "{error} ({})", code_word(self.code))?,
            (error, reason) => write!(f, "{error} ({reason})")?,
        }
        if !self.missing.is_empty() && !self.names_all() {
            write!(f, "\n  missing: {}", self.missing.join(", "))?;
            let shown = self.missing.len() as u64;
            if let Some(more) = self.missing_count.and_then(|all| all.checked_sub(shown))
                && more > 0
            {
                write!(f, " and {more} more")?;
            }
            if !self.scope.is_empty() {
                write!(f, " at {}", self.scope)?;
            }
        }
        if !self.advice.is_empty() {
            write!(f, "\n  to do: {}", self.advice)?;
        }
        Ok(())
    }
}

fn word<S: serde::Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code_word(*code))
}

/// The name of a code in google.rpc.Code, such as `PERMISSION_DENIED`.
pub(crate) const fn code_word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn refused(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Refusal {
        let metadata = metadata.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        let details = ErrorDetails::with_error_info(
            reason,
            "capstan",
            metadata.collect::<std::collections::HashMap<String, String>>(),
        );
        Refusal::of(&Status::with_error_details(code, "no", details))
    }

    #[test]
    fn a_refusal_says_what_is_missing_where_and_what_to_do() {
        let found = refused(
            Code::PermissionDenied,
            "MISSING_CAPABILITY",
            &[("scope", "acme"), ("missing", "repo.list,roles.create"), ("missing_count", "60")],
        );
        assert_eq!(
            found.to_string(),
            "no (MISSING_CAPABILITY)\n  missing: repo.list, roles.create and 58 more at acme\n  to do: ask somebody who \
             has that there; `capstan who repo.list acme` shows who has the first"
        );
        assert!(found.is_refused());
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(json["code"], "PERMISSION_DENIED");
        assert_eq!(json["missing"], serde_json::json!(["repo.list", "roles.create"]));
        assert_eq!(json["missing_count"], 60);
        assert!(json.get("field").is_none());
    }

    /// The reasons of the contract, section 7, that are no mistake of the caller's: somebody can do something.
    #[test]
    fn a_store_that_does_not_write_has_advice() {
        for (code, reason, part) in [
            (Code::Unavailable, "DISK_FULL", "make room where the store is"),
            (Code::Unavailable, "STORE_READ_ONLY", "make the store's directory writable"),
            (Code::Unavailable, "STORE_UNREACHABLE", "opens its store again by itself"),
            (Code::Unavailable, "NOT_READY", "in a moment"),
            (Code::Unavailable, "REVISION_NOT_AVAILABLE", "in --consistency, or without it"),
            (Code::ResourceExhausted, "QUOTA", "ask the operator for a larger quota (--quota-"),
            (Code::ResourceExhausted, "OVERLOADED", "in a moment"),
        ] {
            let shown = refused(code, reason, &[]).to_string();
            assert!(shown.contains("\n  to do: ") && shown.contains(part), "{shown}");
        }
    }

    #[test]
    fn a_reference_to_nothing_has_advice() {
        for (field, part) in [
            ("owner", "identities list"),
            ("role_bindings[3].identity", "identities list"),
            ("role_binding.role", "roles list"),
            ("role.capabilities[0]", "`capstan catalog capabilities` lists them"),
            ("subscription.sink", "--webhook-allow of `capstan serve`"),
            ("subscription.types[0]", "KIND.ACTION"),
            ("challenge", "the latest one that was posted to the sink"),
        ] {
            let shown =
                refused(Code::InvalidArgument, "INVALID_FIELD", &[("field", field)]).to_string();
            assert!(shown.contains("\n  to do: ") && shown.contains(part), "{field}: {shown}");
        }
        let shown = refused(Code::InvalidArgument, "INVALID_FIELD", &[("field", "group.name")]);
        assert!(!shown.to_string().contains("to do"), "{shown}");
    }

    #[test]
    fn what_the_message_says_is_not_repeated() {
        let metadata = std::collections::HashMap::from([
            ("scope".to_owned(), "acme".to_owned()),
            ("missing".to_owned(), "repo.list".to_owned()),
        ]);
        let details = ErrorDetails::with_error_info("MISSING_CAPABILITY", "capstan", metadata);
        let text = "missing `repo.list` at `acme`";
        let status = Status::with_error_details(Code::PermissionDenied, text, details);
        let shown = Refusal::of(&status).to_string();
        assert!(
            shown.starts_with("missing `repo.list` at `acme` (MISSING_CAPABILITY)\n  to do: ask"),
            "{shown}"
        );
    }

    /// Contract, section 6: these five codes are refusals.
    #[test]
    fn five_codes_are_refusals_and_all_else_are_errors() {
        let refused: Vec<_> = (0..=16)
            .map(Code::from_i32)
            .filter(|code| Refusal::of(&Status::new(*code, "")).is_refused())
            .map(code_word)
            .collect();
        let expected =
            ["NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "FAILED_PRECONDITION", "ABORTED"];
        assert_eq!(refused, expected);
    }

    #[test]
    fn only_an_unclear_end_leaves_a_write_open() {
        assert!(refused(Code::Unavailable, "COMMIT_OUTCOME_UNKNOWN", &[]).leaves_open());
        assert!(Refusal::of(&Status::deadline_exceeded("late")).leaves_open());
        assert!(!refused(Code::Unavailable, "DISK_FULL", &[]).leaves_open());
        assert!(!refused(Code::Aborted, "CONFLICT", &[]).leaves_open());
        assert!(!Refusal::of(&Status::not_found("gone")).leaves_open());
    }
}
