//! The messages that records are made of. A number is never given to another field, and never reused: every later
//! version reads what this one has written. Fields are only added, and an absent one means what it meant before it
//! existed.

use std::collections::BTreeMap;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Time {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(uint32, tag = "2")]
    pub(super) nanos: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Meta {
    #[prost(uint64, tag = "1")]
    pub(super) created: u64,
    #[prost(uint64, tag = "2")]
    pub(super) updated: u64,
    #[prost(message, optional, tag = "3")]
    pub(super) create_time: Option<Time>,
    #[prost(message, optional, tag = "4")]
    pub(super) update_time: Option<Time>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Value {
    #[prost(oneof = "value::Kind", tags = "1, 2, 3")]
    pub(super) kind: Option<value::Kind>,
}

pub(super) mod value {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(crate) enum Kind {
        #[prost(string, tag = "1")]
        String(String),
        #[prost(bool, tag = "2")]
        Boolean(bool),
        #[prost(sint64, tag = "3")]
        Integer(i64),
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Condition {
    /// As in documents: `resource.status`.
    #[prost(string, tag = "1")]
    pub(super) attribute: String,
    #[prost(bool, tag = "2")]
    pub(super) equals: bool,
    #[prost(message, optional, tag = "3")]
    pub(super) value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Group {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) description: String,
    #[prost(message, optional, tag = "3")]
    pub(super) meta: Option<Meta>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Role {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) description: String,
    #[prost(message, optional, tag = "3")]
    pub(super) meta: Option<Meta>,
    #[prost(string, repeated, tag = "4")]
    pub(super) capabilities: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RoleBinding {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) description: String,
    #[prost(message, optional, tag = "3")]
    pub(super) meta: Option<Meta>,
    #[prost(string, tag = "4")]
    pub(super) identity: String,
    #[prost(string, tag = "5")]
    pub(super) role: String,
    #[prost(string, tag = "6")]
    pub(super) scope: String,
    #[prost(message, optional, tag = "7")]
    pub(super) expires_at: Option<Time>,
    #[prost(message, repeated, tag = "8")]
    pub(super) when: Vec<Condition>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Identity {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) description: String,
    #[prost(message, optional, tag = "3")]
    pub(super) meta: Option<Meta>,
    #[prost(string, tag = "4")]
    pub(super) kind: String,
    #[prost(btree_map = "string, message", tag = "5")]
    pub(super) properties: BTreeMap<String, Value>,
    #[prost(bool, tag = "6")]
    pub(super) disabled: bool,
    #[prost(oneof = "identity::Authentication", tags = "7, 8, 9")]
    pub(super) authentication: Option<identity::Authentication>,
}

pub(super) mod identity {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(crate) enum Authentication {
        #[prost(message, tag = "7")]
        ClaimMatch(super::ClaimMatch),
        #[prost(message, tag = "8")]
        StaticKeys(super::StaticKeys),
        #[prost(message, tag = "9")]
        ClientCertificate(super::ClientCertificate),
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Match {
    #[prost(oneof = "r#match::Kind", tags = "1, 2")]
    pub(super) kind: Option<r#match::Kind>,
}

pub(super) mod r#match {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(crate) enum Kind {
        #[prost(string, tag = "1")]
        Exact(String),
        #[prost(string, tag = "2")]
        Pattern(String),
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ClaimMatch {
    #[prost(message, optional, tag = "1")]
    pub(super) issuer: Option<Match>,
    #[prost(message, optional, tag = "2")]
    pub(super) subject: Option<Match>,
    #[prost(message, optional, tag = "3")]
    pub(super) audience: Option<Match>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(super) claims: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "5")]
    pub(super) claim_patterns: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StaticKeys {
    #[prost(string, tag = "1")]
    pub(super) issuer: String,
    #[prost(string, tag = "2")]
    pub(super) subject: String,
    #[prost(string, tag = "3")]
    pub(super) jwks: String,
    #[prost(message, optional, tag = "4")]
    pub(super) expires_at: Option<Time>,
    #[prost(string, optional, tag = "5")]
    pub(super) audience: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ClientCertificate {
    #[prost(string, tag = "1")]
    pub(super) spiffe_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Resource {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) description: String,
    #[prost(message, optional, tag = "3")]
    pub(super) meta: Option<Meta>,
    #[prost(string, tag = "4")]
    pub(super) kind: String,
    #[prost(btree_map = "string, message", tag = "5")]
    pub(super) properties: BTreeMap<String, Value>,
}

// === Audit ===

/// What the store holds for a number.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StoredAudit {
    /// An `Audit`, in the bytes that were digested.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) record: Vec<u8>,
    /// SHA-256 of the digest of the record before and `record`.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) digest: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Audit {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) revision: u64,
    #[prost(message, optional, tag = "3")]
    pub(crate) time: Option<Time>,
    #[prost(string, tag = "4")]
    pub(crate) actor: String,
    #[prost(string, tag = "5")]
    pub(crate) authentication: String,
    #[prost(string, tag = "6")]
    pub(crate) credential: String,
    #[prost(string, tag = "7")]
    pub(crate) source: String,
    #[prost(string, tag = "8")]
    pub(crate) method: String,
    #[prost(string, tag = "9")]
    pub(crate) object: String,
    #[prost(bytes = "vec", tag = "10")]
    pub(crate) request_digest: Vec<u8>,
    #[prost(int32, tag = "11")]
    pub(crate) code: i32,
    #[prost(string, tag = "12")]
    pub(crate) reason: String,
    #[prost(string, tag = "13")]
    pub(crate) rule: String,
    #[prost(string, tag = "14")]
    pub(crate) scope: String,
    #[prost(string, repeated, tag = "15")]
    pub(crate) missing: Vec<String>,
    #[prost(string, tag = "16")]
    pub(crate) message: String,
    #[prost(message, repeated, tag = "17")]
    pub(crate) changes: Vec<AuditChange>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AuditChange {
    /// The key of the object's record.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    /// The record before; absent if the operation made the object.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) before: Option<Vec<u8>>,
    /// The record after; absent if the operation deleted the object.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub(crate) after: Option<Vec<u8>>,
}

/// The end of a chain.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Link {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) digest: Vec<u8>,
}
