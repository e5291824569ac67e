//! Answers from a snapshot in this process. Error messages are those of the server.

use anyhow::{anyhow, bail};
use capstan_engine::{
    Attributes, CapabilitySet, Catalog, Condition, Cursor, Explanation, Family, Grant, Listed,
    Path, Question, Scope, Snapshot, Uncounted, Value,
};
use capstan_policy::format_timestamp;

use crate::answers;
use crate::properties::Properties;
use crate::queries::Query;
use capstan_server::clock::Clock;

/// Characters of an unknown capability's name in an error message.
const SHOWN_CHARS_MAX: usize = 128;

/// One revision of a policy. Every question is answered at the system's current time.
#[derive(Clone, Debug)]
pub(crate) struct InProcess(pub(super) Snapshot);

impl InProcess {
    pub(super) fn check(&self, query: &Query) -> anyhow::Result<answers::Decision> {
        let attributes = query.properties.attributes()?;
        let question = question(query, &attributes)?;
        let decision = self.0.check(&question, Clock::System.now());
        Ok(self.decision(decision.map_err(|_| self.unknown(&query.capability))?))
    }

    pub(super) fn check_batch(&self, queries: &[Query]) -> Vec<Result<answers::Decision, String>> {
        let attributes: Vec<_> =
            queries.iter().map(|query| query.properties.attributes()).collect();
        let parsed: Vec<_> = queries
            .iter()
            .zip(&attributes)
            .map(|(query, attributes)| match attributes {
                Ok(attributes) => question(query, attributes),
                Err(error) => Err(anyhow!("{error}")),
            })
            .collect();
        let questions: Vec<_> = parsed.iter().flatten().copied().collect();
        let mut decisions = Vec::with_capacity(questions.len());
        self.0.check_batch(&questions, Clock::System.now(), |_, decision| decisions.push(decision));
        let mut decisions = decisions.into_iter();
        let answer = |(parsed, query): (anyhow::Result<Question<'_>>, &Query)| {
            parsed.map_err(|error| error.to_string())?;
            // The engine answers each question once.
            let decision = decisions.next().ok_or("no answer")?;
            let decision = decision.map_err(|_| self.unknown(&query.capability).to_string())?;
            Ok(self.decision(decision))
        };
        parsed.into_iter().zip(queries).map(answer).collect()
    }

    pub(super) fn list_capabilities(
        &self,
        identity: &str,
        resource: &str,
        properties: &Properties,
    ) -> anyhow::Result<answers::Capabilities> {
        let (identity, resource) = (path("identity", identity)?, path("resource", resource)?);
        let (attributes, now) = (properties.attributes()?, Clock::System.now());
        let found = self.0.list_capabilities(identity, resource, &attributes, now);
        Ok(answers::Capabilities {
            capabilities: names(self.0.catalog(), &found.capabilities),
            grants: found.grants.into_iter().map(grant).collect(),
            revision: self.0.revision(),
        })
    }

    pub(super) fn explain(&self, query: &Query) -> anyhow::Result<answers::Explanation> {
        let attributes = query.properties.attributes()?;
        let found = self.0.explain(&question(query, &attributes)?, Clock::System.now());
        let found = found.map_err(|_| self.unknown(&query.capability))?;
        let Explanation {
            decision,
            disabled,
            witness,
            roles,
            uncounted,
            elsewhere,
            declared,
            similar,
        } = found;
        let allowed = decision.allowed();
        Ok(answers::Explanation {
            allowed,
            reason: decision.reason.as_str(),
            witness: witness.map(grant),
            missing: if allowed { vec![] } else { vec![query.capability.clone()] },
            roles: roles.into_iter().map(Into::into).collect(),
            revision: self.0.revision(),
            uncounted: uncounted.into_iter().map(self::uncounted).collect(),
            elsewhere: elsewhere.into_iter().map(grant).collect(),
            declared: declared.unwrap_or_default().into(),
            similar: similar.into_iter().map(Into::into).collect(),
            disabled,
        })
    }

    pub(super) fn list_identities(
        &self,
        capability: &str,
        resource: &str,
        properties: &Properties,
    ) -> anyhow::Result<answers::Identities> {
        let (resource, attributes) = (path("resource", resource)?, properties.attributes()?);
        let (now, all) = (Clock::System.now(), Cursor::ALL);
        let found = self.0.conditional_identities_page(capability, resource, &attributes, now, all);
        let mut answer = answers::Identities {
            identities: vec![],
            conditional: vec![],
            revision: self.0.revision(),
        };
        for listed in found.map_err(|_| self.unknown(capability))?.entries {
            let identity = listed.entry.to_owned();
            if listed.holds {
                answer.identities.push(identity);
            } else {
                let grants = conditional_grants(&listed);
                answer.conditional.push(answers::ConditionalIdentity { identity, grants });
            }
        }
        Ok(answer)
    }

    pub(super) fn list_scopes(
        &self,
        identity: &str,
        capability: &str,
        properties: &Properties,
    ) -> anyhow::Result<answers::Scopes> {
        let identity = path("identity", identity)?;
        if !properties.has_no_resource() {
            bail!(
                "properties.resource: tests on the resource are left open here, so nothing can be \
                 said of it"
            );
        }
        let (attributes, now) = (properties.attributes()?, Clock::System.now());
        let all = Cursor::ALL;
        let found = self.0.conditional_scopes_page(identity, capability, &attributes, now, all);
        let mut answer =
            answers::Scopes { scopes: vec![], conditional: vec![], revision: self.0.revision() };
        for listed in found.map_err(|_| self.unknown(capability))?.entries {
            let Scope { scope, conditional } = listed.entry;
            if listed.holds {
                answer.scopes.push(answers::Scope { scope: scope.into(), conditional });
            }
            let grants = conditional_grants(&listed);
            if !grants.is_empty() {
                let scope = scope.into();
                answer.conditional.push(answers::ConditionalScope { scope, grants });
            }
        }
        Ok(answer)
    }

    pub(super) fn list_roles(&self) -> answers::RoleList {
        let catalog = self.0.catalog();
        let roles = self.0.roles().iter().map(|role| answers::Role {
            name: role.id.to_string(),
            description: role.description.to_string(),
            family: Family::as_str(role.family).into(),
            capabilities: names(catalog, &role.capabilities),
        });
        answers::RoleList { catalog: catalog.name().into(), roles: roles.collect() }
    }

    fn decision(&self, decision: capstan_engine::Decision) -> answers::Decision {
        answers::Decision {
            allowed: decision.allowed(),
            reason: decision.reason.as_str(),
            revision: self.0.revision(),
            valid_until: decision.valid_until.and_then(format_timestamp),
        }
    }

    /// The error of a capability that the catalog lacks.
    fn unknown(&self, name: &str) -> anyhow::Error {
        let shown: String =
            name.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
        let catalog = self.0.catalog().name();
        anyhow!("capability: catalog `{catalog}` has no capability `{shown}`")
    }
}

fn question<'q>(query: &'q Query, attributes: &'q Attributes) -> anyhow::Result<Question<'q>> {
    Ok(Question {
        identity: path("identity", &query.identity)?,
        capability: &query.capability,
        resource: path("resource", &query.resource)?,
        attributes,
    })
}

fn path<'q>(field: &str, text: &'q str) -> anyhow::Result<Path<'q>> {
    Path::parse(text).map_err(|error| anyhow!("{field}: {error}"))
}

fn names(catalog: &Catalog, set: &CapabilitySet) -> Vec<String> {
    set.iter().filter_map(|at| catalog.capability_name(at)).map(Into::into).collect()
}

fn uncounted(binding: Uncounted<'_>) -> answers::Uncounted {
    let failed = binding.failed.into_iter().map(|(condition, seen)| answers::FailedTest {
        test: test(condition),
        seen: seen.as_ref().map(value),
    });
    answers::Uncounted {
        expired: binding.expired,
        failed: failed.collect(),
        grant: grant(binding.grant),
    }
}

fn conditional_grants<T>(listed: &Listed<'_, T>) -> Vec<answers::ConditionalGrant> {
    let bindings = listed.conditional().map(|binding| answers::ConditionalGrant {
        open: binding.open.into_iter().map(test).collect(),
        grant: grant(binding.grant),
    });
    bindings.collect()
}

fn test(condition: &Condition) -> answers::Test {
    let wanted = Some(value(&condition.value));
    let (equals, not_equals) = if condition.equals { (wanted, None) } else { (None, wanted) };
    answers::Test { attribute: condition.attribute(), equals, not_equals }
}

fn value(value: &Value) -> serde_json::Value {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Boolean(value) => (*value).into(),
        Value::Integer(number) => (*number).into(),
    }
}

fn grant(grant: Grant<'_>) -> answers::Grant {
    answers::Grant {
        binding: grant.binding.into_owned(),
        role: grant.role.into(),
        scope: grant.scope.into(),
        expires_at: grant.expires_at.and_then(format_timestamp),
    }
}
