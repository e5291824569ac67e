//! Objects to messages and back.

use std::collections::BTreeMap;

use capstan_engine::{Condition, PathBuf, Properties, Timestamp, Value, parse_attribute};

use super::messages;
use crate::{
    Authentication, ClaimMatch, ClientCertificate, Group, Identity, Match, Meta, Resource, Role,
    RoleBinding, StaticKeys,
};

/// What a message lacks or has too much.
type Read<T> = Result<T, String>;

pub(crate) fn time(time: Timestamp) -> messages::Time {
    messages::Time { seconds: time.seconds(), nanos: time.nanos() }
}

pub(crate) fn read_time(time: Option<&messages::Time>) -> Option<Timestamp> {
    time.map(|time| Timestamp::new(time.seconds, time.nanos))
}

fn meta(meta: &Meta) -> Option<messages::Meta> {
    Some(messages::Meta {
        created: meta.created,
        updated: meta.updated,
        create_time: Some(time(meta.create_time)),
        update_time: Some(time(meta.update_time)),
    })
}

fn read_meta(meta: Option<&messages::Meta>) -> Read<Meta> {
    let meta = meta.ok_or("no revision and time")?;
    Ok(Meta {
        created: meta.created,
        updated: meta.updated,
        create_time: read_time(meta.create_time.as_ref()).ok_or("no create time")?,
        update_time: read_time(meta.update_time.as_ref()).ok_or("no update time")?,
    })
}

fn value(value: &Value) -> messages::Value {
    use messages::value::Kind;
    let kind = match value {
        Value::String(text) => Kind::String(text.clone()),
        Value::Boolean(value) => Kind::Boolean(*value),
        Value::Integer(value) => Kind::Integer(*value),
    };
    messages::Value { kind: Some(kind) }
}

fn read_value(value: Option<messages::Value>) -> Read<Value> {
    use messages::value::Kind;
    match value.and_then(|value| value.kind) {
        Some(Kind::String(text)) => Ok(Value::String(text)),
        Some(Kind::Boolean(value)) => Ok(Value::Boolean(value)),
        Some(Kind::Integer(value)) => Ok(Value::Integer(value)),
        None => Err("a value of an unknown type".to_owned()),
    }
}

fn properties(properties: &Properties) -> BTreeMap<String, messages::Value> {
    properties.iter().map(|(name, one)| (name.clone(), value(one))).collect()
}

fn read_properties(properties: BTreeMap<String, messages::Value>) -> Read<Properties> {
    properties.into_iter().map(|(name, one)| Ok((name, read_value(Some(one))?))).collect()
}

fn path(text: &str) -> Read<PathBuf> {
    text.parse().map_err(|error| format!("`{text}`: {error}"))
}

impl From<&Group> for messages::Group {
    fn from(group: &Group) -> Self {
        Self {
            name: group.name.clone(),
            description: group.description.clone(),
            meta: meta(&group.meta),
        }
    }
}

impl messages::Group {
    pub(super) fn read(self, id: PathBuf) -> Read<Group> {
        let meta = read_meta(self.meta.as_ref())?;
        Ok(Group { id, name: self.name, description: self.description, meta })
    }
}

impl From<&Role> for messages::Role {
    fn from(role: &Role) -> Self {
        Self {
            name: role.name.clone(),
            description: role.description.clone(),
            meta: meta(&role.meta),
            capabilities: role.capabilities.clone(),
        }
    }
}

impl messages::Role {
    pub(super) fn read(self, id: PathBuf) -> Read<Role> {
        let meta = read_meta(self.meta.as_ref())?;
        let Self { name, description, capabilities, .. } = self;
        Ok(Role { id, name, description, capabilities, meta })
    }
}

impl From<&RoleBinding> for messages::RoleBinding {
    fn from(binding: &RoleBinding) -> Self {
        let when = binding.when.iter().map(|one| messages::Condition {
            attribute: one.attribute(),
            equals: one.equals,
            value: Some(value(&one.value)),
        });
        Self {
            name: binding.name.clone(),
            description: binding.description.clone(),
            meta: meta(&binding.meta),
            identity: binding.identity.as_str().to_owned(),
            role: binding.role.as_ref().to_owned(),
            scope: binding.scope.as_str().to_owned(),
            expires_at: binding.expires_at.map(time),
            when: when.collect(),
        }
    }
}

impl messages::RoleBinding {
    pub(super) fn read(self, id: PathBuf) -> Read<RoleBinding> {
        let condition = |one: messages::Condition| {
            let attribute = parse_attribute(&one.attribute);
            let (category, name) =
                attribute.ok_or_else(|| format!("`{}` is no attribute", one.attribute))?;
            let (name, equals) = (name.to_owned(), one.equals);
            Ok(Condition { category, name, equals, value: read_value(one.value)? })
        };
        Ok(RoleBinding {
            id,
            identity: path(&self.identity)?,
            role: self.role.into(),
            scope: path(&self.scope)?,
            expires_at: read_time(self.expires_at.as_ref()),
            when: self.when.into_iter().map(condition).collect::<Read<_>>()?,
            meta: read_meta(self.meta.as_ref())?,
            name: self.name,
            description: self.description,
        })
    }
}

impl From<&Identity> for messages::Identity {
    fn from(identity: &Identity) -> Self {
        Self {
            name: identity.name.clone(),
            description: identity.description.clone(),
            meta: meta(&identity.meta),
            kind: identity.kind.clone(),
            properties: properties(&identity.properties),
            disabled: identity.disabled,
            authentication: identity.authentication.as_ref().map(authentication),
        }
    }
}

impl messages::Identity {
    pub(super) fn read(self, id: PathBuf) -> Read<Identity> {
        Ok(Identity {
            id,
            kind: self.kind,
            properties: read_properties(self.properties)?,
            disabled: self.disabled,
            authentication: self.authentication.map(read_authentication).transpose()?,
            meta: read_meta(self.meta.as_ref())?,
            name: self.name,
            description: self.description,
        })
    }
}

impl From<&Resource> for messages::Resource {
    fn from(resource: &Resource) -> Self {
        Self {
            name: resource.name.clone(),
            description: resource.description.clone(),
            meta: meta(&resource.meta),
            kind: resource.kind.clone(),
            properties: properties(&resource.properties),
        }
    }
}

impl messages::Resource {
    pub(super) fn read(self, id: PathBuf) -> Read<Resource> {
        Ok(Resource {
            id,
            kind: self.kind,
            properties: read_properties(self.properties)?,
            meta: read_meta(self.meta.as_ref())?,
            name: self.name,
            description: self.description,
        })
    }
}

fn authentication(authentication: &Authentication) -> messages::identity::Authentication {
    use messages::identity::Authentication as Message;
    match authentication {
        Authentication::ClaimMatch(claims) => Message::ClaimMatch(messages::ClaimMatch {
            issuer: Some(claim(&claims.issuer)),
            subject: Some(claim(&claims.subject)),
            audience: claims.audience.as_ref().map(claim),
            claims: claims.claims.clone(),
            claim_patterns: claims.claim_patterns.clone(),
        }),
        Authentication::StaticKeys(keys) => Message::StaticKeys(messages::StaticKeys {
            issuer: keys.issuer.clone(),
            subject: keys.subject.clone(),
            jwks: keys.jwks.clone(),
            expires_at: keys.expires_at.map(time),
            audience: keys.audience.clone(),
        }),
        Authentication::ClientCertificate(certificate) => {
            let spiffe_id = certificate.spiffe_id.clone();
            Message::ClientCertificate(messages::ClientCertificate { spiffe_id })
        }
    }
}

fn read_authentication(authentication: messages::identity::Authentication) -> Read<Authentication> {
    use messages::identity::Authentication as Message;
    Ok(match authentication {
        Message::ClaimMatch(claims) => Authentication::ClaimMatch(ClaimMatch {
            issuer: read_claim(claims.issuer)?,
            subject: read_claim(claims.subject)?,
            audience: claims.audience.map(|audience| read_claim(Some(audience))).transpose()?,
            claims: claims.claims,
            claim_patterns: claims.claim_patterns,
        }),
        Message::StaticKeys(keys) => Authentication::StaticKeys(StaticKeys {
            expires_at: read_time(keys.expires_at.as_ref()),
            issuer: keys.issuer,
            subject: keys.subject,
            jwks: keys.jwks,
            audience: keys.audience,
        }),
        Message::ClientCertificate(certificate) => {
            Authentication::ClientCertificate(ClientCertificate {
                spiffe_id: certificate.spiffe_id,
            })
        }
    })
}

fn claim(claim: &Match) -> messages::Match {
    use messages::r#match::Kind;
    let kind = match claim {
        Match::Exact(text) => Kind::Exact(text.clone()),
        Match::Pattern(pattern) => Kind::Pattern(pattern.clone()),
    };
    messages::Match { kind: Some(kind) }
}

/// A claim that is not there would match everything or nothing: it is an error.
fn read_claim(claim: Option<messages::Match>) -> Read<Match> {
    use messages::r#match::Kind;
    match claim.and_then(|claim| claim.kind) {
        Some(Kind::Exact(text)) => Ok(Match::Exact(text)),
        Some(Kind::Pattern(pattern)) => Ok(Match::Pattern(pattern)),
        None => Err("a claim of an unknown form".to_owned()),
    }
}
