//! Events from what a revision changed.
//!
//! ```text
//! revision ─▶ each object, or a batch as one ─▶ in the group? wanted? may the creator list it? ─▶ event
//! ```
//!
//! The event of one object is the same for all subscriptions, so it is made once.

use std::sync::{Arc, OnceLock};

use capstan_engine::{Path, PathBuf};
use capstan_events::{Event, EventError, EventFields, UnixMillis};
use capstan_iam::{Object, Reader, Subscription};
use prost_types::value::Kind as ValueKind;
use prost_types::{Struct, Value};
use serde_json::{Map, Value as Json, json};

use crate::feed::change_log::{Changed, Revision};
use crate::feed::management::Action;
use crate::grpc::iam::json::json as object_json;

/// What the types of events begin with.
const PREFIX: &str = "dev.capstan.iam";
/// The method whose bindings are one event.
const BATCH: &str = "RoleBindingService/BatchCreateRoleBindings";

/// An event that is not made yet.
struct Draft<'r> {
    kind: String,
    subject: String,
    group: PathBuf,
    body: Json,
    revision: &'r Revision,
    /// Which of the events of its revision it is.
    at: usize,
}

type EventResult = Result<Arc<Event>, EventError>;

/// Events, each with its place among those of its revision.
pub(super) type Composed = Vec<(usize, EventResult)>;

/// A revision, with the events that were made of it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) revision: Revision,
    /// By the place of the object among those that changed.
    events: Box<[OnceLock<EventResult>]>,
}

/// Whom events are for.
pub(super) struct Wanted<'w> {
    pub(super) subscription: &'w Subscription,
    /// The creator of the subscription, at the time of the delivery.
    pub(super) reader: &'w Reader<'w>,
    /// The URL of the service.
    pub(super) source: &'w str,
}

impl Wanted<'_> {
    /// The events of a revision. Those before `from` were delivered. Each has its place among the events of the revision,
    /// which does not depend on what the creator may list.
    pub(super) fn events(&self, told: &Told, from: usize) -> Composed {
        let revision = &told.revision;
        let mut composed = vec![];
        if revision.record.method == BATCH {
            composed.extend(self.of_draft(self.batch(revision), from));
        } else {
            for (at, change) in revision.changes.iter().enumerate().skip(from) {
                if self.is_told(change) && self.subscription.wants(&kind_of(change)) {
                    composed.extend(told.event(at, self.source).map(|event| (at, event)));
                }
            }
        }
        if revision.is_cut {
            composed.extend(self.of_draft(self.cut(revision), from));
        }
        composed
    }

    fn of_draft(&self, draft: Option<Draft<'_>>, from: usize) -> Option<(usize, EventResult)> {
        let is_left = |draft: &Draft<'_>| draft.at >= from && self.subscription.wants(&draft.kind);
        draft.filter(is_left).map(|draft| (draft.at, draft.event(self.source).map(Arc::new)))
    }

    fn is_inside(&self, group: Path<'_>) -> bool {
        self.subscription.group().contains(group)
    }

    fn is_told(&self, change: &Changed) -> bool {
        change.last().is_some_and(|object| {
            group_of(object).is_some_and(|group| self.is_inside(group)) && self.reader.lists(object)
        })
    }

    /// One event for all bindings of a batch.
    fn batch<'r>(&self, revision: &'r Revision) -> Option<Draft<'r>> {
        let created = revision.changes.iter().filter(|change| change.action() == Action::Created);
        let objects = created.filter_map(Changed::last).filter(|object| {
            group_of(object).is_some_and(|group| self.is_inside(group)) && self.reader.lists(object)
        });
        let bodies: Vec<_> =
            objects.map(|object| struct_json(object_json(object.clone()))).collect();
        let parent: PathBuf = revision.record.object.parse().ok()?;
        let group = if self.is_inside(parent.as_path()) {
            parent.clone()
        } else {
            self.subscription.group().into()
        };
        (!bodies.is_empty()).then(|| Draft {
            kind: format!("{PREFIX}.role_binding.created.batch.v1"),
            subject: parent.to_string(),
            group,
            body: json!({ "role_bindings": bodies }),
            revision,
            at: 0,
        })
    }

    /// Says that a revision changed more than the log has of it: whoever keeps a copy reads the state anew.
    fn cut<'r>(&self, revision: &'r Revision) -> Option<Draft<'r>> {
        let group: PathBuf = self.subscription.group().into();
        let about = &revision.record.object;
        let concerns = about.is_empty()
            || about.parse::<PathBuf>().is_ok_and(|about| {
                about.as_path().contains(group.as_path()) || self.is_inside(about.as_path())
            });
        let at = revision.changes.len();
        concerns.then(|| Draft {
            kind: format!("{PREFIX}.policy.updated.v1"),
            subject: group.to_string(),
            group,
            body: json!({ "changes": revision.record.changes_count, "told": at }),
            revision,
            at,
        })
    }
}

impl Told {
    pub(super) fn new(revision: Revision) -> Self {
        let events = revision.changes.iter().map(|_| OnceLock::new()).collect();
        Self { revision, events }
    }

    /// The event of one object; `None` if it is in no group.
    fn event(&self, at: usize, source: &str) -> Option<EventResult> {
        let change = self.revision.changes.get(at)?;
        let object = change.last()?;
        let group = group_of(object)?.into();
        let made = self.events.get(at)?.get_or_init(|| {
            let (kind, subject) = (kind_of(change), change.id.to_string());
            let body = struct_json(object_json(object.clone()));
            let draft = Draft { kind, subject, group, body, revision: &self.revision, at };
            draft.event(source).map(Arc::new)
        });
        Some(made.clone())
    }
}

fn kind_of(change: &Changed) -> String {
    format!("{PREFIX}.{}.{}.v1", change.kind, change.action().as_str())
}

impl Draft<'_> {
    fn event(self, source: &str) -> Result<Event, EventError> {
        let record = &self.revision.record;
        let act =
            json!({ "authentication": record.origin.authentication, "method": record.method });
        let actor = json!({ "subject": record.actor, "act": act });
        let data = json!({ "actor": actor, "body": self.body });
        let seconds = u64::try_from(record.time.seconds()).unwrap_or_default();
        let millis = seconds.saturating_mul(1_000) + u64::from(record.time.nanos() / 1_000_000);
        Event::new(EventFields {
            // In the order of events, and nothing but digits.
            id: &format!("{:016x}{:08x}", record.revision, self.at),
            source,
            kind: &self.kind,
            subject: &self.subject,
            group: self.group.as_str(),
            time: UnixMillis(millis),
            data: data.to_string().into(),
        })
    }
}

/// The group that an object is in: a group is its own, and an account association has the path of its group. `None` for root identities and resources, which are in none.
pub(super) fn group_of(object: &Object) -> Option<Path<'_>> {
    match object {
        Object::Group(group) => Some(group.id.as_path()),
        Object::RoleBinding(binding) => Some(binding.scope.as_path()),
        Object::AccountAssociation(association) => Some(association.id.as_path()),
        other => other.id().as_path().parent(),
    }
}

fn struct_json(object: Struct) -> Json {
    let fields = object.fields.into_iter().map(|(name, value)| (name, value_json(value)));
    Json::Object(fields.collect::<Map<_, _>>())
}

fn value_json(value: Value) -> Json {
    match value.kind {
        Some(ValueKind::StringValue(text)) => Json::String(text),
        Some(ValueKind::BoolValue(flag)) => Json::Bool(flag),
        // Whole numbers are written without a point.
        Some(ValueKind::NumberValue(number)) => {
            capstan_policy::whole(number).map_or_else(|| json!(number), |whole| json!(whole))
        }
        Some(ValueKind::StructValue(fields)) => struct_json(fields),
        Some(ValueKind::ListValue(list)) => {
            Json::Array(list.values.into_iter().map(value_json).collect())
        }
        Some(ValueKind::NullValue(_)) | None => Json::Null,
    }
}
