//! Objects as JSON: in audit records, in watches and in events.
//!
//! **Invariant**: no object here has a key or another proof of an identity, and a root identity has only id, name and type.

use std::collections::BTreeMap;

use capstan_iam::Object;
use capstan_proto::iam::v1;
use prost_types::value::Kind as ValueKind;
use prost_types::{ListValue, Struct, Value};

use super::filter::{Listed, Scalar};
use super::kinds::{Described as _, Identities};
use super::objects;

/// An object with the field names of its message. Empty fields are left out, as in JSON of protobuf.
pub(crate) fn json(object: Object) -> Struct {
    match object {
        Object::Group(group) => {
            let group = objects::group(group);
            scalars(&group, &["id", "name", "description"])
        }
        Object::Role(role) => {
            let role = objects::role(role);
            let mut all = scalars(&role, &["id", "name", "description"]);
            let names = role.capabilities.into_iter().map(text).collect();
            add(&mut all, "capabilities", list(names));
            all
        }
        Object::RoleBinding(binding) => {
            let binding = objects::role_binding(binding);
            let mut all = scalars(
                &binding,
                &["id", "name", "description", "identity", "role", "scope", "expires_at"],
            );
            add(&mut all, "when", list(binding.when.into_iter().map(condition).collect()));
            all
        }
        Object::Identity(identity) => {
            let is_root = identity.is_root();
            let identity = objects::identity(identity);
            let identity = if is_root { Identities::in_part(identity) } else { identity };
            let mut all = scalars(&identity, &["id", "name", "description", "type", "disabled"]);
            add(&mut all, "properties", map(identity.properties));
            all
        }
        Object::Subscription(one) => {
            let one = objects::subscription(one);
            let mut all = scalars(&one, &["id", "name", "description", "sink"]);
            let types = one.types.iter().cloned().map(text).collect();
            add(&mut all, "types", list(types));
            for (name, value) in scalars(&one, &["disabled", "disabled_reason", "creator"]).fields {
                all.fields.insert(name, value);
            }
            all
        }
        Object::GroupInvite(invite) => {
            let invite = objects::group_invite(invite);
            let names = ["id", "name", "description", "role", "email", "single_use", "expires_at"];
            scalars(&invite, &names)
        }
        Object::Resource(resource) => {
            let resource = objects::resource(resource);
            let mut all = scalars(&resource, &["id", "name", "description", "type"]);
            add(&mut all, "properties", map(resource.properties));
            all
        }
    }
}

/// Some scalar fields of a message.
fn scalars(message: &impl Listed, names: &[&str]) -> Struct {
    let mut all = Struct::default();
    for name in names {
        let value = match message.scalar(name) {
            Some(Scalar::Text(found)) if !found.is_empty() => Some(text(found.into_owned())),
            Some(Scalar::Boolean(true)) => Some(value(ValueKind::BoolValue(true))),
            Some(Scalar::Time(Some(time))) => Some(text(time.to_string())),
            _ => None,
        };
        add(&mut all, name, value);
    }
    all
}

fn add(to: &mut Struct, name: &str, value: Option<Value>) {
    to.fields.extend(value.map(|value| (name.to_owned(), value)));
}

pub(super) const fn value(kind: ValueKind) -> Value {
    Value { kind: Some(kind) }
}

const fn text(text: String) -> Value {
    value(ValueKind::StringValue(text))
}

/// A list; `None` if it is empty.
fn list(values: Vec<Value>) -> Option<Value> {
    (!values.is_empty()).then(|| value(ValueKind::ListValue(ListValue { values })))
}

/// A map; `None` if it is empty.
fn map(fields: impl IntoIterator<Item = (String, Value)>) -> Option<Value> {
    let fields: BTreeMap<_, _> = fields.into_iter().collect();
    (!fields.is_empty()).then(|| value(ValueKind::StructValue(Struct { fields })))
}

fn condition(condition: v1::Condition) -> Value {
    use v1::condition::Test;
    let mut fields = BTreeMap::from([("attribute".to_owned(), text(condition.attribute))]);
    match condition.test {
        Some(Test::Equals(wanted)) => drop(fields.insert("equals".into(), wanted)),
        Some(Test::NotEquals(wanted)) => drop(fields.insert("not_equals".into(), wanted)),
        None => {}
    }
    value(ValueKind::StructValue(Struct { fields }))
}

impl Listed for v1::AuditRecord {
    fn scalar(&self, field: &str) -> Option<Scalar<'_>> {
        Some(match field {
            "revision" => Scalar::Number(self.revision),
            "time" => (&self.time).into(),
            "actor" => (&self.actor).into(),
            "authentication" => (&self.authentication).into(),
            "method" => (&self.method).into(),
            "object" => (&self.object).into(),
            "code" => Scalar::Number(self.code.unsigned_abs().into()),
            "reason" => (&self.reason).into(),
            "digest" => (&self.digest).into(),
            "scope" => (&self.scope).into(),
            "source" => (&self.source).into(),
            "request_digest" => (&self.request_digest).into(),
            "suppressed" => Scalar::Number(self.suppressed),
            _ => return None,
        })
    }
}
