//! The messages that records are made of. A field number is never given to another field, and never used again.

use std::collections::BTreeMap;

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Time {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(uint32, tag = "2")]
    pub(super) nanos: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MetaRecord {
    #[prost(uint64, tag = "1")]
    pub(super) created: u64,
    /// 0 if it is `created`.
    #[prost(uint64, tag = "2")]
    pub(super) updated: u64,
    #[prost(message, optional, tag = "3")]
    pub(super) create_time: Option<Time>,
    /// Absent if it is `create_time`.
    #[prost(message, optional, tag = "4")]
    pub(super) update_time: Option<Time>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GroupRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) meta: Option<MetaRecord>,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) description: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RoleRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) meta: Option<MetaRecord>,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) description: String,
    #[prost(string, repeated, tag = "4")]
    pub(super) capabilities: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BindingRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) meta: Option<MetaRecord>,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) description: String,
    #[prost(string, tag = "4")]
    pub(super) identity: String,
    #[prost(string, tag = "5")]
    pub(super) role: String,
    /// Absent if it is the parent of the id.
    #[prost(string, optional, tag = "6")]
    pub(super) scope: Option<String>,
    #[prost(message, optional, tag = "7")]
    pub(super) expires_at: Option<Time>,
    #[prost(message, repeated, tag = "8")]
    pub(super) when: Vec<ConditionRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ConditionRecord {
    /// 1 subject, 2 resource, 3 action, 4 context.
    #[prost(uint32, tag = "1")]
    pub(super) category: u32,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(bool, tag = "3")]
    pub(super) equals: bool,
    #[prost(message, optional, tag = "4")]
    pub(super) value: Option<ValueRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ValueRecord {
    #[prost(oneof = "OneValue", tags = "1, 2, 3")]
    pub(super) value: Option<OneValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum OneValue {
    #[prost(string, tag = "1")]
    String(String),
    #[prost(bool, tag = "2")]
    Boolean(bool),
    #[prost(sint64, tag = "3")]
    Integer(i64),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct IdentityRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) meta: Option<MetaRecord>,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) description: String,
    #[prost(string, tag = "4")]
    pub(super) kind: String,
    #[prost(btree_map = "string, message", tag = "5")]
    pub(super) properties: BTreeMap<String, ValueRecord>,
    #[prost(bool, tag = "6")]
    pub(super) disabled: bool,
    #[prost(oneof = "AuthenticationRecord", tags = "7, 8, 9")]
    pub(super) authentication: Option<AuthenticationRecord>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum AuthenticationRecord {
    #[prost(message, tag = "7")]
    ClaimMatch(ClaimMatchRecord),
    #[prost(message, tag = "8")]
    StaticKeys(StaticKeysRecord),
    #[prost(message, tag = "9")]
    ClientCertificate(ClientCertificateRecord),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MatchRecord {
    #[prost(string, tag = "1")]
    pub(super) text: String,
    #[prost(bool, tag = "2")]
    pub(super) is_pattern: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ClaimMatchRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) issuer: Option<MatchRecord>,
    #[prost(message, optional, tag = "2")]
    pub(super) subject: Option<MatchRecord>,
    #[prost(message, optional, tag = "3")]
    pub(super) audience: Option<MatchRecord>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(super) claims: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "5")]
    pub(super) claim_patterns: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StaticKeysRecord {
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
pub(super) struct ClientCertificateRecord {
    /// Empty if it is known by the other name.
    #[prost(string, tag = "1")]
    pub(super) spiffe_id: String,
    #[prost(string, tag = "2")]
    pub(super) dns_name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ResourceRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) meta: Option<MetaRecord>,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) description: String,
    #[prost(string, tag = "4")]
    pub(super) kind: String,
    #[prost(btree_map = "string, message", tag = "5")]
    pub(super) properties: BTreeMap<String, ValueRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InviteRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) meta: Option<MetaRecord>,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) description: String,
    #[prost(string, tag = "4")]
    pub(super) role: String,
    /// Absent for a built-in role.
    #[prost(uint64, optional, tag = "5")]
    pub(super) role_created: Option<u64>,
    #[prost(string, optional, tag = "6")]
    pub(super) email: Option<String>,
    #[prost(bool, tag = "7")]
    pub(super) single_use: bool,
    #[prost(message, optional, tag = "8")]
    pub(super) expires_at: Option<Time>,
    /// Absent for the operator.
    #[prost(string, optional, tag = "9")]
    pub(super) creator: Option<String>,
    #[prost(uint64, tag = "10")]
    pub(super) creator_created: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SubscriptionRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) meta: Option<MetaRecord>,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) description: String,
    #[prost(string, tag = "4")]
    pub(super) sink: String,
    #[prost(string, repeated, tag = "5")]
    pub(super) types: Vec<String>,
    #[prost(bool, tag = "6")]
    pub(super) disabled: bool,
    #[prost(string, tag = "7")]
    pub(super) disabled_reason: String,
    #[prost(bool, tag = "8")]
    pub(super) consented: bool,
    /// Absent for the operator.
    #[prost(string, optional, tag = "9")]
    pub(super) creator: Option<String>,
    #[prost(uint64, tag = "10")]
    pub(super) creator_created: u64,
}

/// An object with its create revision.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct IncarnationRecord {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(uint64, tag = "2")]
    pub(super) created: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProviderRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) meta: Option<MetaRecord>,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) description: String,
    #[prost(string, optional, tag = "4")]
    pub(super) default_role: Option<String>,
    /// Absent for a built-in role.
    #[prost(uint64, optional, tag = "5")]
    pub(super) role_created: Option<u64>,
    /// Absent for the operator.
    #[prost(message, optional, tag = "6")]
    pub(super) creator: Option<IncarnationRecord>,
    #[prost(message, optional, tag = "7")]
    pub(super) oidc: Option<OidcRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OidcRecord {
    #[prost(string, tag = "1")]
    pub(super) issuer: String,
    #[prost(string, tag = "2")]
    pub(super) client_id: String,
    #[prost(string, repeated, tag = "3")]
    pub(super) audiences: Vec<String>,
    #[prost(string, optional, tag = "4")]
    pub(super) jwks: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub(super) groups_claim: Option<String>,
    #[prost(string, repeated, tag = "6")]
    pub(super) algorithms: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MappingRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) meta: Option<MetaRecord>,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) description: String,
    #[prost(string, tag = "4")]
    pub(super) external_group: String,
    #[prost(string, tag = "5")]
    pub(super) role: String,
    /// Absent for a built-in role.
    #[prost(uint64, optional, tag = "6")]
    pub(super) role_created: Option<u64>,
    #[prost(string, tag = "7")]
    pub(super) scope: String,
    /// Absent for the operator.
    #[prost(message, optional, tag = "8")]
    pub(super) creator: Option<IncarnationRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AssociationRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) meta: Option<MetaRecord>,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) description: String,
    #[prost(message, optional, tag = "4")]
    pub(super) aws: Option<AwsRecord>,
    #[prost(message, optional, tag = "5")]
    pub(super) google: Option<GoogleRecord>,
    #[prost(message, optional, tag = "6")]
    pub(super) azure: Option<AzureRecord>,
    #[prost(message, optional, tag = "7")]
    pub(super) github: Option<GithubRecord>,
    #[prost(btree_map = "string, message", tag = "8")]
    pub(super) services: BTreeMap<String, IncarnationRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AwsRecord {
    #[prost(string, tag = "1")]
    pub(super) account: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GoogleRecord {
    #[prost(string, tag = "1")]
    pub(super) project_id: String,
    #[prost(string, tag = "2")]
    pub(super) project_number: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AzureRecord {
    #[prost(string, tag = "1")]
    pub(super) tenant_id: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) client_ids: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GithubRecord {
    #[prost(btree_map = "string, uint64", tag = "1")]
    pub(super) installations: BTreeMap<String, u64>,
}
