//! Objects as records of the store: their keys and their bytes.
//!
//! ```text
//! g acme/platform            a group            q … request ids      c … the catalog
//! r acme/puller              a role             a … audit records    l … times of use
//! i alice                    an identity        m … what the store knows of itself
//! b acme/16e18ea61111ed29    a role binding
//! s acme/platform/nginx      a resource
//! ```
//!
//! A key is one byte for the kind and the path, without anything between them. The store wraps the values in an
//! envelope with version and checksum.
//!
//! **Invariant**: what is decoded keeps the form of paths, attributes and values; anything else is an error.

mod messages;
mod to_messages;

use std::ops::Bound;

use capstan_engine::Path;
use prost::Message;
use thiserror::Error;

use crate::{Kind, Object, ObjectChange};

pub(crate) use messages::{Audit, AuditChange, Link, StoredAudit};
pub(crate) use to_messages::{read_time, time};

/// The first byte of keys of request ids.
pub const REQUEST_KEY: u8 = b'q';
/// The first byte of keys of audit records.
pub const AUDIT_KEY: u8 = b'a';
/// The first byte of keys of what the store knows of itself.
pub const META_KEY: u8 = b'm';
/// The first byte of keys of the catalog.
pub const CATALOG_KEY: u8 = b'c';
/// The first byte of keys of times of use.
pub const LAST_SEEN_KEY: u8 = b'l';

/// A record that is not what this version or an earlier one has written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("record `{key}`: {problem}")]
pub struct RecordError {
    /// The key, as text where it is one.
    pub key: String,
    /// What is wrong.
    pub problem: String,
}

impl RecordError {
    pub(crate) fn new(key: &[u8], problem: impl Into<String>) -> Self {
        Self { key: String::from_utf8_lossy(key).into_owned(), problem: problem.into() }
    }
}

/// A key, and its value; `None` to delete it.
pub type RecordWrite = (Vec<u8>, Option<Vec<u8>>);

impl Kind {
    /// The first byte of keys of this kind.
    #[must_use]
    pub const fn key(self) -> u8 {
        match self {
            Self::Group => b'g',
            Self::Role => b'r',
            Self::RoleBinding => b'b',
            Self::Identity => b'i',
            Self::Resource => b's',
        }
    }

    /// The kind of a key with this first byte; `None` if it is not that of an object.
    #[must_use]
    pub fn of_key(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.key() == byte)
    }
}

/// The key of an object.
#[must_use]
pub fn object_key(kind: Kind, id: Path<'_>) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + id.as_str().len());
    key.push(kind.key());
    key.extend(id.as_str().as_bytes());
    key
}

/// A range of keys.
pub type KeyRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The keys of a kind at a path and below it, as two ranges: between `acme` and `acme/…` there can be `acme-2`.
/// Without a path, all of the kind, and an empty second range.
#[must_use]
pub fn object_ranges(kind: Kind, at: Option<Path<'_>>) -> [KeyRange; 2] {
    let end = |key: &[u8]| {
        let mut end = key.to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1; // neither a kind nor a slash is the last of bytes
        }
        Bound::Excluded(end)
    };
    let Some(at) = at else {
        let key = vec![kind.key()];
        let all = (Bound::Included(key.clone()), end(&key));
        return [all, (Bound::Included(key.clone()), Bound::Excluded(key))];
    };
    let key = object_key(kind, at);
    let mut below = key.clone();
    below.push(b'/');
    let end = end(&below);
    [(Bound::Included(key.clone()), Bound::Included(key)), (Bound::Included(below), end)]
}

/// The bytes of an object. Equal objects have equal bytes.
#[must_use]
pub fn encode(object: &Object) -> Vec<u8> {
    match object {
        Object::Group(one) => messages::Group::from(one).encode_to_vec(),
        Object::Role(one) => messages::Role::from(one).encode_to_vec(),
        Object::RoleBinding(one) => messages::RoleBinding::from(one).encode_to_vec(),
        Object::Identity(one) => messages::Identity::from(one).encode_to_vec(),
        Object::Resource(one) => messages::Resource::from(one).encode_to_vec(),
    }
}

/// Reads an object.
///
/// # Errors
///
/// The key is not that of an object, or the value not the bytes of one.
pub fn decode(key: &[u8], value: &[u8]) -> Result<Object, RecordError> {
    let error = |problem: String| RecordError::new(key, problem);
    let (first, path) = key.split_first().ok_or_else(|| error("an empty key".to_owned()))?;
    let kind = Kind::of_key(*first).ok_or_else(|| error("no object has such a key".to_owned()))?;
    let id = str::from_utf8(path).map_err(|_| error("the path is not UTF-8".to_owned()))?;
    let id = id.parse().map_err(|problem| error(format!("{problem}")))?;
    let object = match kind {
        Kind::Group => read::<messages::Group>(value).and_then(|it| it.read(id)).map(Object::Group),
        Kind::Role => read::<messages::Role>(value).and_then(|it| it.read(id)).map(Object::Role),
        Kind::RoleBinding => {
            read::<messages::RoleBinding>(value).and_then(|it| it.read(id)).map(Object::RoleBinding)
        }
        Kind::Identity => {
            read::<messages::Identity>(value).and_then(|it| it.read(id)).map(Object::Identity)
        }
        Kind::Resource => {
            read::<messages::Resource>(value).and_then(|it| it.read(id)).map(Object::Resource)
        }
    };
    object.map_err(error)
}

fn read<M: Message + Default>(value: &[u8]) -> Result<M, String> {
    M::decode(value).map_err(|error| error.to_string())
}

/// The writes of a changed object.
#[must_use]
pub fn write(change: &ObjectChange) -> RecordWrite {
    (object_key(change.kind, change.id.as_path()), change.after.as_ref().map(encode))
}
