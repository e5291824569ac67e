//! Answers from a server, over gRPC. No other file of the command line knows the decision messages of
//! `capstan.v1`.

use std::collections::HashMap;

use anyhow::bail;
use capstan_engine::Timestamp;
use capstan_policy::{format_timestamp, whole};
use capstan_proto::contract::BATCH_CHECKS_MAX;
use capstan_proto::v1::decision_service_client::DecisionServiceClient;
use capstan_proto::v1::{self, BatchCheckRequest, CheckItem, failed_test, open_test};
use prost::Message as _;
use prost_types::{ListValue, Struct, Value, value::Kind};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use super::Consistency;
use crate::answers::{
    Capabilities, ConditionalGrant, ConditionalIdentity, ConditionalScope, Decision, Explanation,
    FailedTest, Grant, Identities, RoleList, Scope, Scopes, Test, Uncounted,
};
use crate::channel;
use crate::iam::connection::{Caller, Connection};
use crate::iam::custom_roles::{self, RoleQuery};
use crate::limits::{MESSAGE_BYTES, MESSAGE_BYTES_MAX};
use crate::properties::{Namespace, Properties};
use crate::queries::Query;

/// Page size of ListIdentities and ListScopes. The server reduces it to its own maximum.
const PAGE_SIZE: i32 = i32::MAX;
/// A connected server.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    server: Connection,
    /// Sent with every question.
    consistency: Option<v1::Consistency>,
}

impl Remote {
    pub(super) fn new(server: Connection, consistency: Consistency) -> Self {
        Self { server, consistency: consistency.message() }
    }

    /// The message, or the error as text. The message of a status with ErrorInfo is Capstan's own and is
    /// complete; others are preceded by the code.
    async fn response<T>(&self, answer: Result<Response<T>, Status>) -> anyhow::Result<T> {
        match answer {
            Ok(response) => Ok(response.into_inner()),
            Err(status) if status.code() == Code::Unauthenticated => {
                let advice = "say who asks: capstan auth login, --token-file, or --cert and --key. The server says with --callers who may ask, and its log why it \
                              refuses";
                bail!("{} ({advice})", status.message())
            }
            Err(status) if status.get_details_error_info().is_some() => {
                bail!("{}", status.message())
            }
            Err(status) => {
                if !channel::is_grpc(&status)
                    && let Some(other) =
                        channel::other_protocol(&self.server.address, &status).await
                {
                    bail!("{other}")
                }
                let (code, text) = (status.code(), status.message());
                if !channel::is_grpc(&status) && self.server.address.is_tls() {
                    // Whether the alert of TLS is read before the end of the connection is a matter of luck.
                    let advice =
                        "does the server want a certificate of the client? give --cert and --key";
                    bail!("{code:?}: {text} ({advice})")
                }
                bail!("{code:?}: {text}")
            }
        }
    }

    fn decisions(&self) -> DecisionServiceClient<InterceptedService<Channel, Caller>> {
        DecisionServiceClient::new(self.server.decisions())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(super) async fn check(&self, query: Query) -> anyhow::Result<Decision> {
        let CheckItem { identity, capability, resource, properties } = check_item(query);
        let request = v1::CheckRequest {
            identity,
            capability,
            resource,
            properties,
            consistency: self.consistency,
        };
        let found = self.response(self.decisions().check(request).await).await?;
        Ok(Decision {
            allowed: found.allowed,
            reason: found.reason().word(),
            revision: found.revision,
            valid_until: found.valid_until.and_then(time),
        })
    }

    /// Sends the queries in messages of up to [`BATCH_CHECKS_MAX`] checks and [`MESSAGE_BYTES`]. A longer
    /// query is sent in a message of its own, so that only its own answer is an error if the server
    /// rejects the message. The error of a call is the answer to each of its queries.
    pub(super) async fn check_batch(&self, queries: Vec<Query>) -> Vec<Result<Decision, String>> {
        let mut answers = Vec::with_capacity(queries.len());
        let (mut checks, mut bytes) = (Vec::new(), 0);
        for item in queries.into_iter().map(check_item) {
            let item_bytes = item.encoded_len();
            let is_full = checks.len() == BATCH_CHECKS_MAX || bytes + item_bytes > MESSAGE_BYTES;
            if is_full && !checks.is_empty() {
                answers.extend(self.send_batch(std::mem::take(&mut checks)).await);
                bytes = 0;
            }
            checks.push(item);
            bytes += item_bytes;
        }
        if !checks.is_empty() {
            answers.extend(self.send_batch(checks).await);
        }
        answers
    }

    async fn send_batch(&self, checks: Vec<CheckItem>) -> Vec<Result<Decision, String>> {
        let count = checks.len();
        let request = BatchCheckRequest { checks, consistency: self.consistency };
        let found = match self.response(self.decisions().batch_check(request).await).await {
            Ok(found) => found,
            Err(error) => return vec![Err(format!("{error:#}")); count],
        };
        let revision = found.revision;
        let mut answers: Vec<_> = found
            .results
            .into_iter()
            .map(|result| {
                let reason = result.reason().word();
                match result.error {
                    Some(error) => Err(error.message),
                    None => Ok(Decision {
                        allowed: result.allowed,
                        reason,
                        revision,
                        valid_until: result.valid_until.and_then(time),
                    }),
                }
            })
            .collect();
        answers.resize(count, Err("the server sent no answer".into()));
        answers
    }

    pub(super) async fn list_capabilities(
        &self,
        identity: &str,
        resource: &str,
        properties: &Properties,
    ) -> anyhow::Result<Capabilities> {
        let request = v1::ListCapabilitiesRequest {
            identity: identity.into(),
            resource: resource.into(),
            properties: message(properties.clone()),
            consistency: self.consistency,
        };
        let found = self.response(self.decisions().list_capabilities(request).await).await?;
        Ok(Capabilities {
            capabilities: found.capabilities,
            grants: found.grants.into_iter().map(grant).collect(),
            revision: found.revision,
        })
    }

    pub(super) async fn explain(&self, query: Query) -> anyhow::Result<Explanation> {
        let CheckItem { identity, capability, resource, properties } = check_item(query);
        let request = v1::ExplainRequest {
            identity,
            capability,
            resource,
            properties,
            consistency: self.consistency,
        };
        let found = self.response(self.decisions().explain(request).await).await?;
        Ok(Explanation {
            allowed: found.allowed,
            reason: found.reason().word(),
            witness: found.witness.map(grant),
            missing: found.missing,
            roles: found.roles,
            revision: found.revision,
            uncounted: found.uncounted.into_iter().filter_map(uncounted).collect(),
            elsewhere: found.elsewhere.into_iter().map(grant).collect(),
            declared: found.declared,
            similar: found.similar,
            disabled: found.disabled,
        })
    }

    pub(super) async fn list_identities(
        &self,
        capability: &str,
        resource: &str,
        properties: &Properties,
    ) -> anyhow::Result<Identities> {
        let mut request = v1::ListIdentitiesRequest {
            capability: capability.into(),
            resource: resource.into(),
            properties: message(properties.clone()),
            page_size: PAGE_SIZE,
            consistency: self.consistency,
            include_conditional: true,
            ..Default::default()
        };
        let (mut identities, mut conditional) = (Vec::new(), Vec::new());
        loop {
            let page =
                self.response(self.decisions().list_identities(request.clone()).await).await?;
            identities.extend(page.identities);
            conditional.extend(page.conditional.into_iter().map(|one| ConditionalIdentity {
                identity: one.identity,
                grants: conditional_grants(one.grants),
            }));
            if page.next_page_token.is_empty() {
                return Ok(Identities { identities, conditional, revision: page.revision });
            }
            request.page_token = page.next_page_token;
        }
    }

    pub(super) async fn list_scopes(
        &self,
        identity: &str,
        capability: &str,
        properties: &Properties,
    ) -> anyhow::Result<Scopes> {
        let mut request = v1::ListScopesRequest {
            identity: identity.into(),
            capability: capability.into(),
            properties: message(properties.clone()),
            page_size: PAGE_SIZE,
            consistency: self.consistency,
            include_conditional: true,
            ..Default::default()
        };
        let (mut scopes, mut conditional) = (Vec::new(), Vec::new());
        loop {
            let page = self.response(self.decisions().list_scopes(request.clone()).await).await?;
            let found = page.scopes.into_iter();
            scopes
                .extend(found.map(|one| Scope { scope: one.scope, conditional: one.conditional }));
            conditional.extend(page.conditional.into_iter().map(|one| ConditionalScope {
                scope: one.scope,
                grants: conditional_grants(one.grants),
            }));
            if page.next_page_token.is_empty() {
                return Ok(Scopes { scopes, conditional, revision: page.revision });
            }
            request.page_token = page.next_page_token;
        }
    }

    pub(super) async fn list_roles(&self) -> anyhow::Result<RoleList> {
        let query = RoleQuery { consistency: self.consistency, ..RoleQuery::default() };
        custom_roles::list(&self.server, query).await
    }
}

fn check_item(query: Query) -> CheckItem {
    let Query { identity, capability, resource, properties } = query;
    CheckItem { identity, capability, resource, properties: message(properties) }
}

fn message(properties: Properties) -> Option<v1::Properties> {
    if properties.0.is_empty() {
        return None;
    }
    let mut all = v1::Properties::default();
    for (namespace, attributes) in properties.0 {
        let into: &mut HashMap<_, _> = match namespace {
            Namespace::Subject => &mut all.subject,
            Namespace::Resource => &mut all.resource,
            Namespace::Action => &mut all.action,
            Namespace::Context => &mut all.context,
        };
        into.extend(attributes.into_iter().map(|(name, value)| (name, value_message(value))));
    }
    Some(all)
}

/// JSON as `google.protobuf.Value`. No condition can test a list or an object, and decoders limit the depth of a message:
/// a list or an object within another one is sent as null.
fn value_message(value: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let scalar = |value| match value {
        Json::Array(_) | Json::Object(_) => Value { kind: Some(Kind::NullValue(0)) },
        scalar => value_message(scalar),
    };
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        // No condition can test a number that is not a double.
        Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::NAN)),
        Json::String(value) => Kind::StringValue(value),
        Json::Array(values) => {
            Kind::ListValue(ListValue { values: values.into_iter().map(scalar).collect() })
        }
        Json::Object(fields) => Kind::StructValue(Struct {
            fields: fields.into_iter().map(|(name, value)| (name, scalar(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

/// `None` for a binding without a grant, which no server sends.
fn uncounted(binding: v1::UncountedBinding) -> Option<Uncounted> {
    let failed = binding.failed.into_iter().map(|test| {
        let (equals, not_equals) = match test.wanted {
            Some(failed_test::Wanted::Equals(wanted)) => (Some(json(wanted)), None),
            Some(failed_test::Wanted::NotEquals(refused)) => (None, Some(json(refused))),
            None => (None, None),
        };
        let seen = test.seen.map(json);
        FailedTest { test: Test { attribute: test.attribute, equals, not_equals }, seen }
    });
    let failed = failed.collect();
    Some(Uncounted { grant: grant(binding.grant?), expired: binding.expired, failed })
}

/// Without bindings that have no grant, which no server sends.
fn conditional_grants(bindings: Vec<v1::ConditionalGrant>) -> Vec<ConditionalGrant> {
    let open = |test: v1::OpenTest| {
        let (equals, not_equals) = match test.wanted {
            Some(open_test::Wanted::Equals(wanted)) => (Some(json(wanted)), None),
            Some(open_test::Wanted::NotEquals(refused)) => (None, Some(json(refused))),
            None => (None, None),
        };
        Test { attribute: test.attribute, equals, not_equals }
    };
    let bindings = bindings.into_iter().filter_map(|binding| {
        let open = binding.open.into_iter().map(open).collect();
        Some(ConditionalGrant { grant: grant(binding.grant?), open })
    });
    bindings.collect()
}

/// The value of an attribute as JSON. Attributes are strings, booleans and whole numbers.
fn json(value: Value) -> serde_json::Value {
    match value.kind {
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::BoolValue(value)) => value.into(),
        Some(Kind::NumberValue(number)) => match whole(number) {
            Some(number) => number.into(),
            None => number.into(),
        },
        _ => serde_json::Value::Null,
    }
}

fn grant(grant: v1::Grant) -> Grant {
    let v1::Grant { binding, role, scope, expires_at } = grant;
    Grant { binding, role, scope, expires_at: expires_at.and_then(time) }
}

/// RFC 3339; `None` for a time that it cannot represent.
fn time(time: prost_types::Timestamp) -> Option<String> {
    format_timestamp(Timestamp::new(time.seconds, u32::try_from(time.nanos).ok()?))
}
