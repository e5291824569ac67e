//! Subscriptions: sinks that are told what changes in a group.

use capstan_engine::{Path, PathBuf};

use super::{Incarnation, Meta, parent_or_self};
use crate::limits::{EVENT_TYPE_BYTES_MAX, SINK_BYTES_MAX};

/// A sink that is told of each change of a group and of what is below it, as far as its creator may list that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// A path one segment below the group.
    pub id: PathBuf,
    /// Display name, may be empty.
    pub name: String,
    /// What it is for, may be empty.
    pub description: String,
    /// Where events are delivered: an https URL.
    pub sink: String,
    /// Prefixes of the types of events that are delivered, sorted, each once; none for all.
    pub types: Vec<String>,
    /// Whether nothing is delivered.
    pub disabled: bool,
    /// Why the server disabled it; empty if somebody else did, or nobody.
    pub disabled_reason: String,
    /// Whether the sink has consented to be told. Nothing is delivered before.
    pub consented: bool,
    /// Who last set `sink` or `types`: what it may list is delivered. `None` for the operator.
    pub creator: Option<Incarnation>,
    /// When it was made and changed.
    pub meta: Meta,
}

impl Subscription {
    /// The group whose changes it is about.
    #[must_use]
    pub fn group(&self) -> Path<'_> {
        parent_or_self(self.id.as_path())
    }

    /// Whether events of this type are wanted.
    #[must_use]
    pub fn wants(&self, event_type: &str) -> bool {
        self.types.is_empty() || self.types.iter().any(|prefix| event_type.starts_with(prefix))
    }

    /// Whether events are delivered now.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        !self.disabled && self.consented
    }
}

/// A sink, as far as a text can tell: an https URL of visible ASCII characters without user, password and fragment. Where it
/// leads is checked by whoever connects.
///
/// # Errors
///
/// What is expected.
pub fn check_sink(text: &str) -> Result<(), String> {
    if text.len() > SINK_BYTES_MAX {
        return Err(format!("at most {SINK_BYTES_MAX} bytes, not {}", text.len()));
    }
    let host = text.strip_prefix("https://").and_then(|rest| rest.split(['/', '?']).next());
    let is_plain =
        text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\');
    match host {
        Some(host) if is_plain && !host.is_empty() && !host.contains('@') => Ok(()),
        _ => {
            Err("an https URL without user name and fragment, such as `https://example.com/events`"
                .into())
        }
    }
}

/// A prefix of the types of events, such as `dev.capstan.iam.role_binding.`.
///
/// # Errors
///
/// What is expected.
pub fn check_event_type(text: &str) -> Result<(), String> {
    let is_known = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_');
    if text.is_empty() || text.len() > EVENT_TYPE_BYTES_MAX || !text.bytes().all(is_known) {
        return Err("the beginning of a type, such as `dev.capstan.iam.role_binding.`".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_is_an_https_url() {
        let longest = format!("https://h/{}", "x".repeat(SINK_BYTES_MAX - 10));
        for good in
            ["https://example.com", "https://example.com:8443/a?b=c", "https://[::1]/", &longest]
        {
            assert_eq!(check_sink(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "http://example.com",
            "HTTPS://example.com",
            "https://",
            "https:///x",
            "https://a@example.com",
            "https://example.com/#x",
            "https://example.com\\x",
            "https://exämple.com",
            "https://example.com/a b",
            &format!("{longest}x"),
        ] {
            assert!(check_sink(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn types_are_wanted_by_prefix() {
        let meta = Meta::new(1, capstan_engine::Timestamp::UNIX_EPOCH);
        let of = |types: &[&str]| Subscription {
            id: "acme/s".parse().unwrap(),
            name: String::new(),
            description: String::new(),
            sink: "https://example.com".into(),
            types: types.iter().map(|one| (*one).to_owned()).collect(),
            disabled: false,
            disabled_reason: String::new(),
            consented: true,
            creator: None,
            meta,
        };
        let created = "dev.capstan.iam.role_binding.created.v1";
        assert!(of(&[]).wants(created));
        assert!(of(&["dev.capstan.iam.role.", "dev.capstan.iam.role_binding."]).wants(created));
        assert!(!of(&["dev.capstan.iam.role."]).wants(created));
        for bad in ["", "Dev.", "a b", "a*", &"a".repeat(EVENT_TYPE_BYTES_MAX + 1)] {
            assert!(check_event_type(bad).is_err(), "{bad}");
        }
        assert_eq!(check_event_type("dev.capstan.iam.role_binding."), Ok(()));
    }
}
