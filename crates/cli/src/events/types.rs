//! Types of events, as they are typed and shown.
//!
//! ```text
//! role_binding ─────────▶ dev.capstan.iam.role_binding.
//! role_binding.created ─▶ dev.capstan.iam.role_binding.created.
//! dev.capstan.… ────────▶ as it is
//! ```
//!
//! **Invariants**: a short form ends where a word of a type ends, so `role` is not `role_binding`. What is shown short is
//! read as what it was.

use capstan_iam::Kind;

/// What the types of events begin with.
const PREFIX: &str = "dev.capstan.iam.";
/// What every whole type begins with.
const WHOLE: &str = "dev.capstan.";
/// What is no kind of object: that more changed at once than single events tell.
const POLICY: &str = "policy";
const ACTIONS: [&str; 3] = ["created", "updated", "deleted"];

/// The beginning of the types of the events that are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventType(String);

impl EventType {
    /// Whether an event of this type is wanted.
    pub(super) fn wants(&self, event_type: &str) -> bool {
        event_type.starts_with(&self.0)
    }

    /// As the API has it.
    pub(super) fn into_prefix(self) -> String {
        self.0
    }
}

/// # Errors
///
/// What is expected.
pub(super) fn event_type(text: &str) -> Result<EventType, String> {
    if text.starts_with(WHOLE) {
        return Ok(EventType(text.to_owned()));
    }
    if short_forms().any(|form| form == text) {
        return Ok(EventType(format!("{PREFIX}{text}.")));
    }
    let kinds = kinds().collect::<Vec<_>>().join(", ");
    Err(format!(
        "expected KIND or KIND.ACTION, such as `role_binding` or `role_binding.created`, or the beginning of a whole type, \
         such as `{PREFIX}role_binding.`; kinds: {kinds}; actions: {}",
        ACTIONS.join(", ")
    ))
}

fn kinds() -> impl Iterator<Item = &'static str> {
    Kind::ALL.iter().map(|kind| kind.as_str()).chain([POLICY])
}

/// Every short form: each kind, and each with its actions.
pub(crate) fn short_forms() -> impl Iterator<Item = String> {
    kinds().flat_map(|kind| {
        // Nobody creates or deletes the policy.
        let of = ACTIONS.iter().filter(move |action| kind != POLICY || **action == "updated");
        let with_action = of.map(move |action| format!("{kind}.{action}"));
        std::iter::once(kind.to_owned()).chain(with_action)
    })
}

/// The type of the event of a change.
pub(super) fn of_change(kind: &str, action: &str) -> String {
    format!("{PREFIX}{kind}.{action}.v1")
}

/// As [`event_type`], where single changes are shown.
///
/// # Errors
///
/// What is expected, or that no change is of such a type: events about a batch or the policy are for webhooks only.
pub(super) fn type_of_changes(text: &str) -> Result<EventType, String> {
    let wanted = event_type(text)?;
    let mut all =
        Kind::ALL.iter().flat_map(|kind| ACTIONS.map(|one| of_change(kind.as_str(), one)));
    if all.any(|one| wanted.wants(&one)) {
        return Ok(wanted);
    }
    Err("no change of an object is of such a type: batches and the policy are told to webhooks only".into())
}

/// A list of types for people: short where it can be.
pub(crate) fn shown(types: &[String]) -> String {
    if types.is_empty() {
        return "all".into();
    }
    types.iter().map(|one| short(one)).collect::<Vec<_>>().join(", ")
}

fn short(whole: &str) -> &str {
    let form = whole.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix('.'));
    form.filter(|form| short_forms().any(|known| known == *form)).unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> String {
        event_type(text).unwrap().into_prefix()
    }

    #[test]
    fn a_short_type_ends_where_a_word_ends() {
        assert_eq!(prefix("role"), "dev.capstan.iam.role.");
        assert!(!event_type("role").unwrap().wants("dev.capstan.iam.role_binding.created.v1"));
        assert_eq!(prefix("role_binding.created"), "dev.capstan.iam.role_binding.created.");
        let created = event_type("role_binding.created").unwrap();
        for one in ["created.v1", "created.batch.v1"] {
            assert!(created.wants(&format!("dev.capstan.iam.role_binding.{one}")), "{one}");
        }
        assert_eq!(prefix("policy.updated"), "dev.capstan.iam.policy.updated.");
        // Whole ones are taken as they are.
        assert_eq!(prefix("dev.capstan.iam.role"), "dev.capstan.iam.role");
        for bad in [
            "",
            "roles",
            "role_bindings",
            "role-binding",
            "role.",
            "role.made",
            "created",
            "role.created.v1",
            "policy.deleted",
            "dev.",
            "Role",
        ] {
            let error = event_type(bad).unwrap_err();
            assert!(error.contains("KIND.ACTION") && error.contains("group_invite"), "{error}");
        }
    }

    #[test]
    fn what_is_shown_short_is_read_as_it_was() {
        for form in short_forms() {
            let whole = prefix(&form);
            assert_eq!(short(&whole), form);
        }
        for whole in ["dev.capstan.iam.role", "dev.capstan.iam.", "dev.capstan.iam.other.", "org."]
        {
            assert_eq!(short(whole), whole);
        }
        assert_eq!(shown(&[]), "all");
        let both = ["dev.capstan.iam.group.".to_owned(), "dev.capstan.iam.role".to_owned()];
        assert_eq!(shown(&both), "group, dev.capstan.iam.role");
    }

    #[test]
    fn a_tail_sees_changes_of_objects_only() {
        for (text, is) in [
            ("group", true),
            ("dev.capstan.iam.", true),
            ("policy", false),
            ("dev.capstan.iam.role_binding.created.batch.v1", false),
        ] {
            assert_eq!(type_of_changes(text).is_ok(), is, "{text}");
        }
    }
}
