//! Objects as JSON: in audit records, in watches and in events.
//!
//! **Invariant**: no object here has a key or another proof of an identity, and a root identity has only id, name and type.

use std::collections::BTreeMap;

use capstan_iam::Object;
use capstan_proto::iam::v1::{self, identity_provider::Configuration};
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
        Object::IdentityProvider(provider) => {
            let provider = objects::identity_provider(provider);
            let mut all = scalars(&provider, &["id", "name", "description", "default_role"]);
            // Without its keys, which are a proof of identities.
            let mut oidc = scalars(&provider, &["issuer", "client_id", "groups_claim"]);
            if let Some(Configuration::Oidc(found)) = provider.configuration {
                let audiences = found.audiences.into_iter().map(text).collect();
                add(&mut oidc, "audiences", list(audiences));
                let algorithms = found.algorithms.into_iter().map(text).collect();
                add(&mut oidc, "algorithms", list(algorithms));
            }
            add(&mut all, "oidc", map(oidc.fields));
            all
        }
        Object::GroupRoleMapping(mapping) => {
            let mapping = objects::group_role_mapping(mapping);
            let names = [
                "id",
                "name",
                "description",
                "identity_provider",
                "external_group",
                "role",
                "scope",
            ];
            scalars(&mapping, &names)
        }
        Object::AccountAssociation(association) => {
            association_json(objects::account_association(association))
        }
        Object::Resource(resource) => {
            let resource = objects::resource(resource);
            let mut all = scalars(&resource, &["id", "name", "description", "type"]);
            add(&mut all, "properties", map(resource.properties));
            all
        }
    }
}

fn association_json(association: v1::AccountAssociation) -> Struct {
    let mut all = scalars(&association, &["id", "name", "description"]);
    let part = |names: &[&str]| scalars(&association, names).fields;
    add(&mut all, "aws", map(part(&["account"])));
    add(&mut all, "google", map(part(&["project_id", "project_number"])));
    let mut azure = part(&["tenant_id"]);
    let named = |(name, id): (String, String)| (name, text(id));
    if let Some(found) = association.azure {
        let clients = list(found.client_ids.into_iter().map(text).collect());
        azure.extend(clients.map(|clients| ("client_ids".to_owned(), clients)));
    }
    add(&mut all, "azure", map(azure));
    if let Some(found) = association.github {
        // As text: a number of JSON does not hold all of them.
        let ids = found.installations.into_iter().map(|(login, id)| (login, id.to_string()));
        let installations = map(ids.map(named)).map(|ids| ("installations".to_owned(), ids));
        add(&mut all, "github", map(installations));
    }
    add(&mut all, "services", map(association.services.into_iter().map(named)));
    all
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
