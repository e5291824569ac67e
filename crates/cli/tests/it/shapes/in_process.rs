//! The answers of `capstan_server::grpc::answer`, which the services use, compared with the naive model.

use std::collections::BTreeSet;

use capstan_engine::{
    Attributes, EXPLAINED_BINDINGS_MAX, Reason, RoleBinding, Snapshot, Timestamp,
};
use capstan_policy::{Catalogs, load_policy};
use capstan_proto::v1;
use capstan_server::ask::{Ask, Basis};
use capstan_server::grpc::answer;
use capstan_server::grpc::page::PageKey;
use capstan_server::methods::Rpc;
use capstan_testkit::Naive;
use capstan_testkit::generate::{Question, World};
use capstan_testkit::naive::Conditional;
use capstan_testkit::written::policy_document;
use proptest::prelude::*;

use super::{
    Answers, capabilities_request, check_request, explain_request, identities_request,
    scopes_request, without_resource,
};

/// A world that was written as a document and loaded, with its time.
pub(super) struct Policy<'w> {
    world: &'w World,
    snapshot: Snapshot,
    ask: Ask,
}

const KEY: PageKey = PageKey::new([7; 32]);

/// A comparable form of a grant: the binding's id if it is declared, role, scope, expiry.
type Key<'k> = (Option<&'k str>, &'k str, &'k str, Option<prost_types::Timestamp>);

impl<'w> Policy<'w> {
    pub(super) fn new(world: &'w World) -> Result<Self, TestCaseError> {
        let document = policy_document(&world.catalog, &world.facts);
        let policy = load_policy(document.as_bytes(), &Catalogs::default());
        let policy = policy.map_err(|found| TestCaseError::fail(found.to_string()))?;
        Ok(Self { world, snapshot: Snapshot::build(&policy.model, 1).unwrap(), ask: Ask::silent() })
    }

    pub(super) fn answers(&self, question: &Question) -> Answers {
        let (snapshot, now) = (&self.snapshot, self.world.now);
        let text = |error: capstan_server::RequestError| error.to_string();
        let whole = i32::MAX;
        let capabilities = capabilities_request(question);
        let identities =
            answer::list_identities(&KEY, snapshot, &identities_request(question, whole), now);
        let scopes = answer::list_scopes(&KEY, snapshot, &scopes_request(question, whole), now);
        let with_conditional = v1::ListIdentitiesRequest {
            include_conditional: true,
            ..identities_request(question, whole)
        };
        let conditional_identities =
            answer::list_identities(&KEY, snapshot, &with_conditional, now);
        let with_conditional =
            v1::ListScopesRequest { include_conditional: true, ..scopes_request(question, whole) };
        let conditional_scopes = answer::list_scopes(&KEY, snapshot, &with_conditional, now);
        Answers {
            check: answer::check(
                &self.ask,
                Basis::new(Rpc::OTHER, snapshot, now),
                &check_request(question),
            )
            .map_err(text),
            capabilities: answer::list_capabilities(snapshot, &capabilities, now).unwrap(),
            identities: identities.map(|page| page.identities).map_err(text),
            conditional_identities: conditional_identities
                .map(|page| page.conditional)
                .map_err(text),
            scopes: scopes.map(|page| page.scopes).map_err(text),
            conditional_scopes: conditional_scopes.map(|page| page.conditional).map_err(text),
            explanation: answer::explain(
                &self.ask,
                Basis::new(Rpc::OTHER, snapshot, now),
                &explain_request(question),
            )
            .map_err(text),
        }
    }

    pub(super) fn agrees_with_the_naive_model(
        &self,
        question: &Question,
        answers: &Answers,
    ) -> Result<(), TestCaseError> {
        let Question { identity, capability, resource, attributes } = question;
        let (identity, resource) = (identity.as_str(), resource.as_str());
        let naive = self.naive(attributes);
        let decision = |reason: i32, until: Option<prost_types::Timestamp>| {
            (v1::Reason::try_from(reason).unwrap().as_str_name(), until)
        };
        let named = |(reason, until): (Reason, Option<Timestamp>)| (wire(reason), until.map(time));

        let found = answers.check.as_ref().ok().map(|it| decision(it.reason, it.valid_until));
        let expected = naive.check(identity, capability, resource);
        let expected = expected.map(named).as_ref().map(|(reason, until)| (reason.clone(), *until));
        let found = found.map(|(reason, until)| (reason.to_owned(), until));
        prop_assert_eq!(found, expected, "check {:?}", question);

        let (names, grants) = naive.list_capabilities(identity, resource);
        prop_assert_eq!(&answers.capabilities.capabilities, &names, "what {:?}", question);
        let mut found: Vec<_> =
            answers.capabilities.grants.iter().map(|grant| self.key(grant)).collect();
        let mut expected: Vec<_> = grants.into_iter().map(key_of).collect();
        found.sort_by(order);
        expected.sort_by(order);
        prop_assert_eq!(found, expected, "grants {:?}", question);

        let found = answers.identities.as_ref().ok();
        let found = found.map(|names| names.iter().map(String::as_str).collect::<Vec<_>>());
        prop_assert_eq!(found, naive.list_identities(capability, resource), "who {:?}", question);

        let silent = without_resource(question);
        let found = answers.scopes.as_ref().ok();
        let found = found.map(|scopes| {
            scopes.iter().map(|it| (it.scope.as_str(), it.conditional)).collect::<Vec<_>>()
        });
        let expected = self.naive(&silent).list_scopes(identity, capability);
        prop_assert_eq!(found, expected, "where {:?}", question);
        self.conditional_entries(question, answers)?;
        self.explains(question, answers.explanation.as_ref().ok())
    }

    /// Compares the conditional entries, with their bindings if these are not cut off.
    fn conditional_entries(
        &self,
        question: &Question,
        answers: &Answers,
    ) -> Result<(), TestCaseError> {
        let Question { identity, capability, resource, attributes } = question;
        let (Ok(who), Ok(places)) = (&answers.conditional_identities, &answers.conditional_scopes)
        else {
            return Ok(());
        };
        let naive = self.naive(attributes);
        let keys = |grants: &[v1::ConditionalGrant]| {
            let mut keys: Vec<_> = grants
                .iter()
                .map(|one| format!("{:?}", (self.key(one.grant.as_ref().unwrap()), one.open.len())))
                .collect();
            keys.sort();
            keys
        };
        let expected_keys = |bindings: Vec<Conditional<'_>>| {
            let mut keys: Vec<_> = bindings
                .iter()
                .map(|(it, open)| format!("{:?}", (key_of(it), open.len())))
                .collect();
            keys.sort();
            keys
        };
        let holding = answers.identities.as_ref().unwrap();
        let ids = self.world.identities().into_iter().map(|id| id.as_str());
        let expected = ids.filter(|id| holding.iter().all(|other| other != id));
        let expected = expected.filter_map(|id| {
            let bindings = naive.conditional(id, capability, resource.as_str()).unwrap();
            (!bindings.is_empty()).then(|| (id, expected_keys(bindings)))
        });
        let expected: Vec<_> = expected.collect();
        prop_assert_eq!(who.len(), expected.len(), "conditional who {:?}", question);
        for (found, (id, expected)) in who.iter().zip(expected) {
            prop_assert_eq!(&found.identity, id, "conditional who {:?}", question);
            prop_assert_eq!(found.grants.len(), expected.len().min(EXPLAINED_BINDINGS_MAX));
            if expected.len() <= EXPLAINED_BINDINGS_MAX {
                prop_assert_eq!(keys(&found.grants), expected, "conditional who {:?}", question);
            }
        }
        let silent = without_resource(question);
        let expected = self.naive(&silent).conditional_scopes(identity.as_str(), capability);
        let expected = expected.unwrap().into_iter().filter(|(_, bindings)| !bindings.is_empty());
        let expected: Vec<_> = expected.collect();
        prop_assert_eq!(places.len(), expected.len(), "conditional where {:?}", question);
        for (found, (scope, bindings)) in places.iter().zip(expected) {
            prop_assert_eq!(&found.scope, scope, "conditional where {:?}", question);
            prop_assert_eq!(found.grants.len(), bindings.len().min(EXPLAINED_BINDINGS_MAX));
            if bindings.len() <= EXPLAINED_BINDINGS_MAX {
                prop_assert_eq!(keys(&found.grants), expected_keys(bindings), "{:?}", question);
            }
        }
        Ok(())
    }

    fn explains(
        &self,
        question: &Question,
        found: Option<&v1::ExplainResponse>,
    ) -> Result<(), TestCaseError> {
        let Question { identity, capability, resource, attributes } = question;
        let naive = self.naive(attributes);
        let expected = naive.explain(identity.as_str(), capability, resource.as_str());
        let (Some(found), Some(expected)) = (found, &expected) else {
            prop_assert_eq!(found.is_some(), expected.is_some(), "why {:?}", question);
            return Ok(());
        };
        prop_assert_eq!(found.reason().as_str_name(), wire(expected.decision.0));
        prop_assert_eq!(&found.missing, &expected.missing, "why {:?}", question);
        prop_assert_eq!(&found.roles, &expected.roles, "why {:?}", question);
        prop_assert_eq!(found.witness.is_some(), found.allowed, "why {:?}", question);
        let mut identities = self.world.facts.identities.iter();
        let disabled = identities.any(|one| one.id == *identity && one.disabled);
        prop_assert_eq!(found.disabled, disabled, "why {:?}", question);
        let causes = |expired, failed| {
            found
                .uncounted
                .iter()
                .any(|one| one.expired == expired && one.failed.is_empty() != failed)
        };
        match found.reason() {
            v1::Reason::Granted => prop_assert!(found.uncounted.is_empty()),
            v1::Reason::Expired => prop_assert!(causes(true, false), "why {:?}", question),
            v1::Reason::ConditionNotMet => prop_assert!(causes(false, true), "why {:?}", question),
            _ => prop_assert!(!causes(true, false) && !causes(false, true), "why {:?}", question),
        }
        // A binding that neither expired nor fails a test counts.
        prop_assert!(!causes(false, false), "why {:?}", question);
        prop_assert!(found.uncounted.len() <= EXPLAINED_BINDINGS_MAX);
        if let Some(witness) = &found.witness {
            let mut keys = expected.witnesses.iter().map(|binding| key_of(binding));
            let key = self.key(witness);
            prop_assert!(keys.any(|known| known == key), "{:?} for {:?}", witness, question);
        }
        Ok(())
    }

    fn naive<'n>(&'n self, attributes: &'n Attributes) -> Naive<'n> {
        Naive::new(&self.world.catalog, &self.world.facts, attributes, self.world.now)
    }

    fn key<'k>(&self, grant: &'k v1::Grant) -> Key<'k> {
        let bindings = self.world.facts.role_bindings.iter();
        let declared: BTreeSet<_> =
            bindings.filter_map(|it| it.id.as_ref()).map(|id| id.as_str()).collect();
        let id = Some(&*grant.binding).filter(|id| declared.contains(id));
        (id, &grant.role, &grant.scope, grant.expires_at)
    }
}

fn key_of(binding: &RoleBinding) -> Key<'_> {
    let id = binding.id.as_ref().map(|id| id.as_str());
    (id, &binding.role, binding.scope.as_str(), binding.expires_at.map(time))
}

/// Protobuf timestamps do not implement `Ord`.
fn order(a: &Key<'_>, b: &Key<'_>) -> std::cmp::Ordering {
    let parts = |key: &Key<'_>| key.3.map(|time| (time.seconds, time.nanos));
    (a.0, a.1, a.2, parts(a)).cmp(&(b.0, b.1, b.2, parts(b)))
}

fn wire(reason: Reason) -> String {
    format!("REASON_{}", reason.as_str())
}

fn time(time: Timestamp) -> prost_types::Timestamp {
    let nanos = i32::try_from(time.nanos()).unwrap();
    prost_types::Timestamp { seconds: time.seconds(), nanos }
}
