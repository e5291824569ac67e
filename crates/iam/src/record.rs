//! Objects as the store keeps them: a key and a value each.
//!
//! ```text
//! key:    kind, 1 byte: g group, r role, i identity, b role binding, s resource, v invite, w subscription,
//!         e identity provider, y group role mapping, x account association   then the path
//! value:  a protobuf message of this file, without the path
//! ```
//!
//! Keys of one kind are in the order of their paths, so what is below a path is one range.
//!
//! **Invariants**: a value is what [`encode`] makes of the object, byte for byte: maps are sorted. Field numbers are
//! never used again for another meaning; fields are only added, and an absent one has the meaning it had before it
//! was there. A test keeps bytes of this version.

mod authentication;
mod messages;
mod resolved;

use std::collections::BTreeMap;
use std::ops::Bound;

use capstan_engine::{
    AttributeCategory, Condition, Path, PathBuf, Properties, Timestamp, Value as EngineValue,
};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use self::authentication::{decode_authentication, encode_authentication};
use self::messages::*;
use self::resolved::*;
use crate::object::parent_or_self;
use crate::{
    Group, GroupInvite, Identity, Incarnation, Kind, Meta, Object, Reference, Resource, Role,
    RoleBinding, Subscription,
};

/// First bytes of keys that hold no object.
pub mod prefix {
    /// What the store says about itself: the catalog, the head of the audit log.
    pub const META: u8 = b'm';
    /// Audit records.
    pub const AUDIT: u8 = b'a';
    /// Answers to requests with an id, for retries.
    pub const REQUEST: u8 = b'q';
    /// When identities were last seen.
    pub const LAST_SEEN: u8 = b'l';
    /// Hashes of secrets, by the identities that they prove.
    pub const CREDENTIAL: u8 = b't';
    /// Who made an object, for quotas.
    pub const CREATOR: u8 = b'o';
    /// Invites, by the hashes of their codes.
    pub const INVITE_CODE: u8 = b'c';
    /// Objects that promise a role, by the role.
    pub const PROMISE: u8 = b'p';
    /// Where the delivery of subscriptions is.
    pub const POSITION: u8 = b'd';
    /// Objects that refer to an issuer or a scope, by that.
    pub const REFERENCE: u8 = b'n';
}

/// What is not the record of an object.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The key is not a kind and a path.
    #[error("the key `{0}` is not that of an object")]
    Key(String),
    /// The value is not a message of the kind.
    #[error("the record of {kind} `{id}` is not valid: {problem}")]
    Value {
        /// The kind that the key says.
        kind: Kind,
        /// The path that the key says.
        id: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

const fn prefix_of(kind: Kind) -> u8 {
    match kind {
        Kind::Group => b'g',
        Kind::Role => b'r',
        Kind::Identity => b'i',
        Kind::RoleBinding => b'b',
        Kind::Resource => b's',
        Kind::GroupInvite => b'v',
        Kind::Subscription => b'w',
        Kind::IdentityProvider => b'e',
        Kind::GroupRoleMapping => b'y',
        Kind::AccountAssociation => b'x',
    }
}

// === Keys ===

/// The key of an object.
#[must_use]
pub fn key(kind: Kind, id: Path<'_>) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + id.as_str().len());
    key.push(prefix_of(kind));
    key.extend(id.as_str().as_bytes());
    key
}

/// The kind and path of a key; `None` if it is that of no object.
#[must_use]
pub fn parse_key(key: &[u8]) -> Option<(Kind, PathBuf)> {
    let (prefix, path) = key.split_first()?;
    let kind = Kind::ALL.into_iter().find(|kind| prefix_of(*kind) == *prefix)?;
    Some((kind, std::str::from_utf8(path).ok()?.parse().ok()?))
}

/// A range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    start: Vec<u8>,
    end: Vec<u8>,
}

impl KeyRange {
    /// All objects of a kind.
    #[must_use]
    pub fn all(kind: Kind) -> Self {
        Self::prefix(prefix_of(kind))
    }

    /// All keys with this first byte.
    #[must_use]
    pub fn prefix(prefix: u8) -> Self {
        Self { start: vec![prefix], end: vec![prefix.saturating_add(1)] }
    }

    /// The objects of a kind below a path, without the one at it. Paths that only begin with the same letters, such as
    /// `acme-2` for `acme`, are not in it.
    #[must_use]
    pub fn below(kind: Kind, path: Path<'_>) -> Self {
        let mut start = key(kind, path);
        let mut end = start.clone();
        start.push(b'/');
        end.push(b'/' + 1);
        Self { start, end }
    }

    /// The objects of a kind whose paths begin with this text.
    #[must_use]
    pub fn starting(kind: Kind, text: &str) -> Self {
        let start = [&[prefix_of(kind)], text.as_bytes()].concat();
        // No byte of a path is 0xff.
        let end = [&*start, &[0xff]].concat();
        Self { start, end }
    }

    /// The keys of the range behind that of an object.
    #[must_use]
    pub fn after(self, kind: Kind, id: &str) -> Self {
        self.after_key(&[&[prefix_of(kind)], id.as_bytes()].concat())
    }

    /// The keys of the range behind this one.
    #[must_use]
    pub fn after_key(mut self, key: &[u8]) -> Self {
        // The next key in order is the same and a NUL byte.
        self.start = self.start.max([key, &[0]].concat());
        self
    }

    /// As bounds.
    #[must_use]
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        // A range that ends before it starts would be an error of the store.
        let end = self.end.as_slice().max(&self.start);
        (Bound::Included(&self.start), Bound::Excluded(end))
    }
}

/// The key that says that an object promises a role: SHA-256 of the role, and the key of the object. It has no value. Both as
/// they are would be longer than a key.
#[must_use]
pub fn promise_key(role: &str, object: &[u8]) -> Vec<u8> {
    [&[prefix::PROMISE], &*Sha256::digest(role), object].concat()
}

/// The range of the keys of a role's promises.
#[must_use]
pub fn promises_of(role: &str) -> KeyRange {
    let start = promise_key(role, &[]);
    // No key of an object begins with this byte.
    let end = [&*start, &[0xff]].concat();
    KeyRange { start, end }
}

/// The key that says that an object has a reference: the reference, and the key of the object. It has no value.
///
/// ```text
/// n = SHA-256 of organization, NUL byte, issuer: 32 bytes   object
/// n ~ organization, NUL byte                                object: a pattern of issuers
/// n @ SHA-256 of scope: 32 bytes                            object
/// ```
#[must_use]
pub fn reference_key(to: &Reference<'_>, object: &[u8]) -> Vec<u8> {
    [&*start_of(to), object].concat()
}

fn start_of(to: &Reference<'_>) -> Vec<u8> {
    match to {
        // Issuers and scopes as they are would be longer than a key.
        Reference::Issuer { organization, issuer } => {
            let mut hash = Sha256::new_with_prefix(organization.as_str());
            hash.update([0]);
            hash.update(issuer);
            [&[prefix::REFERENCE, b'='][..], &hash.finalize()].concat()
        }
        Reference::IssuerPattern { organization } => {
            [&[prefix::REFERENCE, b'~'], organization.as_str().as_bytes(), &[0]].concat()
        }
        Reference::Scope(scope) => {
            [&[prefix::REFERENCE, b'@'][..], &Sha256::digest(scope.as_str())].concat()
        }
    }
}

/// The range of the keys that have a reference.
#[must_use]
pub fn references_to(to: &Reference<'_>) -> KeyRange {
    let start = start_of(to);
    // No key of an object begins with this byte.
    let end = [&*start, &[0xff]].concat();
    KeyRange { start, end }
}

/// The object of a key that says that it has this reference.
#[must_use]
pub fn referring_object(to: &Reference<'_>, key: &[u8]) -> Option<(Kind, PathBuf)> {
    parse_key(key.strip_prefix(&*start_of(to))?)
}

// === Encoding ===

/// The value of an object.
#[must_use]
pub fn encode(object: &Object) -> Vec<u8> {
    match object {
        Object::Group(Group { id: _, name, description, meta }) => {
            let (name, description) = (name.clone(), description.clone());
            GroupRecord { meta: Some(encode_meta(meta)), name, description }.encode_to_vec()
        }
        Object::Role(Role { id: _, name, description, capabilities, meta }) => {
            let (name, description) = (name.clone(), description.clone());
            let capabilities = capabilities.clone();
            let meta = Some(encode_meta(meta));
            RoleRecord { meta, name, description, capabilities }.encode_to_vec()
        }
        Object::RoleBinding(binding) => encode_binding(binding).encode_to_vec(),
        Object::Identity(identity) => encode_identity(identity).encode_to_vec(),
        Object::Resource(Resource { id: _, name, description, kind, properties, meta }) => {
            ResourceRecord {
                meta: Some(encode_meta(meta)),
                name: name.clone(),
                description: description.clone(),
                kind: kind.clone(),
                properties: encode_properties(properties),
            }
            .encode_to_vec()
        }
        Object::GroupInvite(invite) => encode_invite(invite).encode_to_vec(),
        Object::Subscription(one) => encode_subscription(one).encode_to_vec(),
        Object::IdentityProvider(provider) => encode_provider(provider).encode_to_vec(),
        Object::GroupRoleMapping(mapping) => encode_mapping(mapping).encode_to_vec(),
        Object::AccountAssociation(one) => encode_association(one).encode_to_vec(),
    }
}

fn encode_subscription(subscription: &Subscription) -> SubscriptionRecord {
    SubscriptionRecord {
        meta: Some(encode_meta(&subscription.meta)),
        name: subscription.name.clone(),
        description: subscription.description.clone(),
        sink: subscription.sink.clone(),
        types: subscription.types.clone(),
        disabled: subscription.disabled,
        disabled_reason: subscription.disabled_reason.clone(),
        consented: subscription.consented,
        creator: subscription.creator.as_ref().map(|it| it.id.to_string()),
        creator_created: subscription.creator.as_ref().map_or(0, |it| it.created),
    }
}

fn encode_invite(invite: &GroupInvite) -> InviteRecord {
    InviteRecord {
        meta: Some(encode_meta(&invite.meta)),
        name: invite.name.clone(),
        description: invite.description.clone(),
        role: invite.role.to_string(),
        role_created: invite.role_created,
        email: invite.email.clone(),
        single_use: invite.single_use,
        expires_at: Some(encode_time(invite.expires_at)),
        creator: invite.creator.as_ref().map(|it| it.id.to_string()),
        creator_created: invite.creator.as_ref().map_or(0, |it| it.created),
    }
}

fn encode_meta(meta: &Meta) -> MetaRecord {
    let Meta { created, updated, create_time, update_time } = *meta;
    MetaRecord {
        created,
        updated: if updated == created { 0 } else { updated },
        create_time: Some(encode_time(create_time)),
        update_time: (update_time != create_time).then(|| encode_time(update_time)),
    }
}

const fn encode_time(time: Timestamp) -> Time {
    Time { seconds: time.seconds(), nanos: time.nanos() }
}

fn encode_binding(binding: &RoleBinding) -> BindingRecord {
    let is_parent = parent_or_self(binding.id.as_path()) == binding.scope.as_path();
    BindingRecord {
        meta: Some(encode_meta(&binding.meta)),
        name: binding.name.clone(),
        description: binding.description.clone(),
        identity: binding.identity.to_string(),
        role: binding.role.to_string(),
        scope: (!is_parent).then(|| binding.scope.to_string()),
        expires_at: binding.expires_at.map(encode_time),
        when: binding.when.iter().map(encode_condition).collect(),
    }
}

fn encode_condition(condition: &Condition) -> ConditionRecord {
    let category = match condition.category {
        AttributeCategory::Subject => 1,
        AttributeCategory::Resource => 2,
        AttributeCategory::Action => 3,
        AttributeCategory::Context => 4,
    };
    let (name, equals) = (condition.name.clone(), condition.equals);
    ConditionRecord { category, name, equals, value: Some(encode_value(&condition.value)) }
}

fn encode_value(value: &EngineValue) -> ValueRecord {
    let value = match value {
        EngineValue::String(text) => OneValue::String(text.clone()),
        EngineValue::Boolean(boolean) => OneValue::Boolean(*boolean),
        EngineValue::Integer(integer) => OneValue::Integer(*integer),
    };
    ValueRecord { value: Some(value) }
}

fn encode_properties(properties: &Properties) -> BTreeMap<String, ValueRecord> {
    properties.iter().map(|(name, value)| (name.clone(), encode_value(value))).collect()
}

fn encode_identity(identity: &Identity) -> IdentityRecord {
    IdentityRecord {
        meta: Some(encode_meta(&identity.meta)),
        name: identity.name.clone(),
        description: identity.description.clone(),
        kind: identity.kind.clone(),
        properties: encode_properties(&identity.properties),
        disabled: identity.disabled,
        authentication: identity.authentication.as_ref().map(encode_authentication),
    }
}

// === Decoding ===

/// The object of a key and its value.
///
/// # Errors
///
/// The key is that of no object, or the value is no valid message of the kind. What a record says is checked by its
/// type only: whoever wrote it has judged it.
pub fn decode(key: &[u8], value: &[u8]) -> Result<Object, RecordError> {
    let malformed = || RecordError::Key(key.escape_ascii().to_string());
    let (kind, id) = parse_key(key).ok_or_else(malformed)?;
    decode_value(kind, id, value).map_err(|Problem(problem)| match parse_key(key) {
        Some((kind, id)) => RecordError::Value { kind, id, problem },
        None => malformed(),
    })
}

/// What is wrong with a value.
struct Problem(String);

impl From<prost::DecodeError> for Problem {
    fn from(error: prost::DecodeError) -> Self {
        Self(error.to_string())
    }
}

fn absent(field: &str) -> Problem {
    Problem(format!("{field} is absent"))
}

fn parse(field: &str, path: String) -> Result<PathBuf, Problem> {
    path.try_into().map_err(|error| Problem(format!("{field}: {error}")))
}

fn decode_value(kind: Kind, id: PathBuf, value: &[u8]) -> Result<Object, Problem> {
    Ok(match kind {
        Kind::Group => {
            let GroupRecord { meta, name, description } = GroupRecord::decode(value)?;
            Object::Group(Group { id, name, description, meta: decode_meta(meta)? })
        }
        Kind::Role => {
            let record = RoleRecord::decode(value)?;
            let RoleRecord { meta, name, description, capabilities } = record;
            Object::Role(Role { id, name, description, capabilities, meta: decode_meta(meta)? })
        }
        Kind::RoleBinding => {
            Object::RoleBinding(decode_binding(id, BindingRecord::decode(value)?)?)
        }
        Kind::Identity => Object::Identity(decode_identity(id, IdentityRecord::decode(value)?)?),
        Kind::Resource => {
            let record = ResourceRecord::decode(value)?;
            let ResourceRecord { meta, name, description, kind, properties } = record;
            let (meta, properties) = (decode_meta(meta)?, decode_properties(properties)?);
            Object::Resource(Resource { id, name, description, kind, properties, meta })
        }
        Kind::GroupInvite => Object::GroupInvite(decode_invite(id, InviteRecord::decode(value)?)?),
        Kind::Subscription => {
            let record = SubscriptionRecord::decode(value)?;
            let SubscriptionRecord { meta, name, description, sink, types, disabled, .. } = record;
            Object::Subscription(Subscription {
                id,
                name,
                description,
                sink,
                types,
                disabled,
                disabled_reason: record.disabled_reason,
                consented: record.consented,
                creator: decode_creator(record.creator, record.creator_created)?,
                meta: decode_meta(meta)?,
            })
        }
        Kind::IdentityProvider => {
            Object::IdentityProvider(decode_provider(id, ProviderRecord::decode(value)?)?)
        }
        Kind::GroupRoleMapping => {
            Object::GroupRoleMapping(decode_mapping(id, MappingRecord::decode(value)?)?)
        }
        Kind::AccountAssociation => {
            Object::AccountAssociation(decode_association(id, AssociationRecord::decode(value)?)?)
        }
    })
}

/// Who made an object; `None` for the operator.
fn decode_creator(id: Option<String>, created: u64) -> Result<Option<Incarnation>, Problem> {
    let creator = |id| Ok(Incarnation { id: parse("creator", id)?, created });
    id.map(creator).transpose()
}

fn decode_invite(id: PathBuf, record: InviteRecord) -> Result<GroupInvite, Problem> {
    let InviteRecord { meta, name, description, role, role_created, email, .. } = record;
    Ok(GroupInvite {
        id,
        name,
        description,
        role: role.into(),
        role_created,
        email,
        single_use: record.single_use,
        expires_at: decode_time(record.expires_at.ok_or_else(|| absent("expires_at"))?),
        creator: decode_creator(record.creator, record.creator_created)?,
        meta: decode_meta(meta)?,
    })
}

fn decode_meta(meta: Option<MetaRecord>) -> Result<Meta, Problem> {
    let MetaRecord { created, updated, create_time, update_time } =
        meta.ok_or_else(|| absent("meta"))?;
    let updated = if updated == 0 { created } else { updated };
    let create_time = decode_time(create_time.ok_or_else(|| absent("create_time"))?);
    let update_time = update_time.map_or(create_time, decode_time);
    Ok(Meta { created, updated, create_time, update_time })
}

const fn decode_time(time: Time) -> Timestamp {
    Timestamp::new(time.seconds, time.nanos)
}

fn decode_binding(id: PathBuf, record: BindingRecord) -> Result<RoleBinding, Problem> {
    let BindingRecord { meta, name, description, identity, role, scope, expires_at, when } = record;
    let scope = match scope {
        Some(scope) => parse("scope", scope)?,
        None => id.as_path().parent().ok_or_else(|| absent("scope"))?.into(),
    };
    Ok(RoleBinding {
        id,
        name,
        description,
        identity: parse("identity", identity)?,
        role: role.into(),
        scope,
        expires_at: expires_at.map(decode_time),
        when: when.into_iter().map(decode_condition).collect::<Result<_, _>>()?,
        meta: decode_meta(meta)?,
    })
}

/// A condition that is not understood is an error: without it the binding would count for more.
fn decode_condition(record: ConditionRecord) -> Result<Condition, Problem> {
    let ConditionRecord { category, name, equals, value } = record;
    let category = match category {
        1 => AttributeCategory::Subject,
        2 => AttributeCategory::Resource,
        3 => AttributeCategory::Action,
        4 => AttributeCategory::Context,
        other => return Err(Problem(format!("{other} is no category of attributes"))),
    };
    Ok(Condition { category, name, equals, value: decode_one(value)? })
}

fn decode_one(record: Option<ValueRecord>) -> Result<EngineValue, Problem> {
    let value = record.and_then(|record| record.value).ok_or_else(|| absent("a value"))?;
    Ok(match value {
        OneValue::String(text) => EngineValue::String(text),
        OneValue::Boolean(boolean) => EngineValue::Boolean(boolean),
        OneValue::Integer(integer) => EngineValue::Integer(integer),
    })
}

fn decode_properties(records: BTreeMap<String, ValueRecord>) -> Result<Properties, Problem> {
    records.into_iter().map(|(name, value)| Ok((name, decode_one(Some(value))?))).collect()
}

fn decode_identity(id: PathBuf, record: IdentityRecord) -> Result<Identity, Problem> {
    let IdentityRecord { meta, name, description, kind, properties, disabled, authentication } =
        record;
    Ok(Identity {
        id,
        name,
        description,
        kind,
        properties: decode_properties(properties)?,
        disabled,
        authentication: authentication.map(decode_authentication).transpose()?,
        meta: decode_meta(meta)?,
    })
}

#[cfg(test)]
mod tests;
