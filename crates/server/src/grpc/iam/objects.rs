//! Objects to messages.

mod resolved;

use std::collections::HashMap;

use capstan_engine::{Condition, Properties, Snapshot};
use capstan_iam::{
    Authentication, ClaimMatch, ClientCertificate, Group, GroupInvite, Identity, Match, Meta,
    Resource, Role, RoleBinding, StaticKeys, Subscription,
};
use capstan_proto::iam::v1::claim_match::{AudienceMatch, IssuerMatch, SubjectMatch};
use capstan_proto::iam::v1::condition::Test;
use capstan_proto::iam::v1::{self, identity};

pub(super) use self::resolved::{account_association, group_role_mapping, identity_provider};
use super::filter::{Listed, Scalar};
use crate::grpc::convert::{timestamp, value};

/// The family of every custom role.
const CUSTOM: &str = "custom";

/// `etag`, `create_time` and `update_time`.
type Stamps = (String, Option<prost_types::Timestamp>, Option<prost_types::Timestamp>);

fn stamps(meta: &Meta) -> Stamps {
    (meta.etag(), Some(timestamp(meta.create_time)), Some(timestamp(meta.update_time)))
}

pub(super) fn group(group: Group) -> v1::Group {
    let (etag, create_time, update_time) = stamps(&group.meta);
    v1::Group {
        id: group.id.to_string(),
        name: group.name,
        description: group.description,
        etag,
        create_time,
        update_time,
    }
}

pub(super) fn role(role: Role) -> v1::Role {
    let (etag, create_time, update_time) = stamps(&role.meta);
    v1::Role {
        id: role.id.to_string(),
        name: role.name,
        description: role.description,
        etag,
        create_time,
        update_time,
        family: CUSTOM.into(),
        capabilities: role.capabilities,
    }
}

/// A role as the index keeps it: a built-in one, or a custom one of a policy file.
pub(super) fn declared_role(snapshot: &Snapshot, role: &capstan_engine::Role) -> v1::Role {
    let catalog = snapshot.catalog();
    let names = role.capabilities.iter().filter_map(|at| catalog.capability_name(at));
    v1::Role {
        id: role.id.to_string(),
        name: role.name.to_string(),
        description: role.description.to_string(),
        family: role.family.as_str().into(),
        capabilities: names.map(Into::into).collect(),
        ..Default::default()
    }
}

pub(super) fn role_binding(binding: RoleBinding) -> v1::RoleBinding {
    let (etag, create_time, update_time) = stamps(&binding.meta);
    v1::RoleBinding {
        id: binding.id.to_string(),
        name: binding.name,
        description: binding.description,
        etag,
        create_time,
        update_time,
        identity: binding.identity.to_string(),
        role: binding.role.into(),
        scope: binding.scope.to_string(),
        expires_at: binding.expires_at.map(timestamp),
        when: binding.when.iter().map(condition).collect(),
    }
}

pub(super) fn identity(identity: Identity) -> v1::Identity {
    let (etag, create_time, update_time) = stamps(&identity.meta);
    v1::Identity {
        id: identity.id.to_string(),
        name: identity.name,
        description: identity.description,
        etag,
        create_time,
        update_time,
        r#type: identity.kind,
        properties: properties(&identity.properties),
        disabled: identity.disabled,
        authentication: identity.authentication.map(authentication),
        last_seen: None,
    }
}

/// A pull token without its binding.
pub(super) fn pull_token(identity: Identity) -> v1::PullToken {
    let (etag, create_time, update_time) = stamps(&identity.meta);
    v1::PullToken {
        id: identity.id.to_string(),
        name: identity.name,
        description: identity.description,
        etag,
        create_time,
        update_time,
        ..Default::default()
    }
}

pub(super) fn group_invite(invite: GroupInvite) -> v1::GroupInvite {
    let (etag, create_time, update_time) = stamps(&invite.meta);
    v1::GroupInvite {
        id: invite.id.to_string(),
        name: invite.name,
        description: invite.description,
        etag,
        create_time,
        update_time,
        role: invite.role.into(),
        email: invite.email.unwrap_or_default(),
        single_use: Some(invite.single_use),
        expires_at: Some(timestamp(invite.expires_at)),
    }
}

/// What a subscription that nobody has consented to says instead of a reason.
const UNCONFIRMED: &str = "the sink has not consented yet";

pub(super) fn subscription(one: Subscription) -> v1::Subscription {
    let (etag, create_time, update_time) = stamps(&one.meta);
    let waits = !one.disabled && !one.consented;
    v1::Subscription {
        id: one.id.to_string(),
        name: one.name,
        description: one.description,
        etag,
        create_time,
        update_time,
        sink: one.sink,
        types: one.types,
        disabled: one.disabled,
        disabled_reason: if waits { UNCONFIRMED.into() } else { one.disabled_reason },
        creator: one.creator.map(|creator| creator.id.to_string()).unwrap_or_default(),
    }
}

pub(super) fn resource(resource: Resource) -> v1::Resource {
    let (etag, create_time, update_time) = stamps(&resource.meta);
    v1::Resource {
        id: resource.id.to_string(),
        name: resource.name,
        description: resource.description,
        etag,
        create_time,
        update_time,
        r#type: resource.kind,
        properties: properties(&resource.properties),
    }
}

pub(super) fn condition(condition: &Condition) -> v1::Condition {
    let wanted = value(&condition.value);
    let test = if condition.equals { Test::Equals(wanted) } else { Test::NotEquals(wanted) };
    v1::Condition { attribute: condition.attribute(), test: Some(test) }
}

pub(super) fn properties(properties: &Properties) -> HashMap<String, prost_types::Value> {
    properties.iter().map(|(name, of)| (name.clone(), value(of))).collect()
}

fn authentication(authentication: Authentication) -> identity::Authentication {
    match authentication {
        Authentication::ClaimMatch(ClaimMatch {
            issuer,
            subject,
            audience,
            claims,
            claim_patterns,
        }) => identity::Authentication::ClaimMatch(v1::ClaimMatch {
            issuer_match: Some(match issuer {
                Match::Exact(text) => IssuerMatch::Issuer(text),
                Match::Pattern(text) => IssuerMatch::IssuerPattern(text),
            }),
            subject_match: Some(match subject {
                Match::Exact(text) => SubjectMatch::Subject(text),
                Match::Pattern(text) => SubjectMatch::SubjectPattern(text),
            }),
            audience_match: audience.map(|audience| match audience {
                Match::Exact(text) => AudienceMatch::Audience(text),
                Match::Pattern(text) => AudienceMatch::AudiencePattern(text),
            }),
            claims: claims.into_iter().collect(),
            claim_patterns: claim_patterns.into_iter().collect(),
        }),
        Authentication::StaticKeys(StaticKeys { issuer, subject, jwks, expires_at, audience }) => {
            identity::Authentication::StaticKeys(v1::StaticKeys {
                issuer,
                subject,
                jwks,
                expires_at: expires_at.map(timestamp),
                audience: audience.unwrap_or_default(),
            })
        }
        Authentication::ClientCertificate(certificate) => {
            let mut message = v1::ClientCertificate::default();
            match certificate {
                ClientCertificate::SpiffeId(id) => message.spiffe_id = id,
                ClientCertificate::DnsName(name) => message.dns_name = name,
            }
            identity::Authentication::ClientCertificate(message)
        }
    }
}

// === Scalar fields, for filters ===

/// Implements [`Listed`] for a message: the common fields, and those of the kind.
macro_rules! listed {
    ($message:ty $(, $name:literal => $field:ident)*) => {
        impl Listed for $message {
            fn scalar(&self, field: &str) -> Option<Scalar<'_>> {
                Some(match field {
                    "id" => (&self.id).into(),
                    "name" => (&self.name).into(),
                    "description" => (&self.description).into(),
                    "etag" => (&self.etag).into(),
                    "create_time" => (&self.create_time).into(),
                    "update_time" => (&self.update_time).into(),
                    $($name => (&self.$field).into(),)*
                    _ => return None,
                })
            }
        }
    };
}

use listed;

listed!(v1::Group);
listed!(v1::Role, "family" => family);
listed!(
    v1::RoleBinding,
    "identity" => identity, "role" => role, "scope" => scope, "expires_at" => expires_at
);
listed!(v1::Identity, "type" => r#type, "last_seen" => last_seen, "disabled" => disabled);
listed!(
    v1::PullToken,
    "role" => role, "scope" => scope, "expires_at" => expires_at, "last_seen" => last_seen
);
listed!(
    v1::GroupInvite,
    "role" => role, "email" => email, "single_use" => single_use, "expires_at" => expires_at
);
listed!(
    v1::Subscription,
    "sink" => sink, "disabled" => disabled, "disabled_reason" => disabled_reason, "creator" => creator
);
listed!(v1::Resource, "type" => r#type);
