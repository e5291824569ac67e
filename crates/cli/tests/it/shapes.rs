//! Random worlds: every RPC over gRPC and every command gives the answer of the naive model, and the
//! answers agree with each other.
//!
//! Each world is written as a policy document and loaded like a user's policy. The server's clock is the
//! world's time, with expiries within one nanosecond of it. A command that reads a file uses the machine's
//! clock, so its world has the same expiries moved by a day.
//!
//! `PROPTEST_CASES` sets the number of worlds of each test. 10,000 worlds with 8 questions each:
//!
//! ```text
//! PROPTEST_CASES=10000 cargo test --release -p capstan --test it shapes -- --nocapture
//! ```

mod commands;
mod in_process;
mod over_grpc;

use std::cell::Cell;
use std::path::Path;

use capstan_engine::{Attributes, EXPLAINED_BINDINGS_MAX, Properties, Timestamp, Value};
use capstan_proto::v1;
use capstan_server::clock::Clock;
use capstan_server::feed::source::Source;
use capstan_testkit::generate::{self, Question, World};
use capstan_testkit::written::policy_document;
use proptest::prelude::*;
use prost_types::value::Kind;
use tokio::runtime::Runtime;

use crate::common::{InProcess, folder};
use in_process::Policy;

/// Questions for each world. The generator draws at least this number.
const QUESTIONS: usize = 8;

/// With this number of worlds, some answers allow and some deny.
const MANY: u32 = 64;

/// The answers of every RPC to one question. An error is its text; the only possible error is an unknown
/// capability.
#[derive(Debug, PartialEq)]
struct Answers {
    check: Result<v1::CheckResponse, String>,
    capabilities: v1::ListCapabilitiesResponse,
    identities: Result<Vec<String>, String>,
    conditional_identities: Result<Vec<v1::ConditionalIdentity>, String>,
    scopes: Result<Vec<v1::ScopeResult>, String>,
    conditional_scopes: Result<Vec<v1::ConditionalScope>, String>,
    explanation: Result<v1::ExplainResponse, String>,
}

#[test]
fn every_call_answers_as_the_naive_model() {
    let file = folder("shapes-calls").join("policy.json");
    let threads = threads();
    let tally = Tally::default();
    proptest!(worlds(MANY), |((world, questions) in generate::asked())| {
        let policy = Policy::new(&world)?;
        let questions = &questions[..QUESTIONS];
        threads.block_on(async {
            let server = serve(&world, &file).await;
            let mut expected = Vec::new();
            for question in questions {
                let answers = policy.answers(question);
                policy.agrees_with_the_naive_model(question, &answers)?;
                answers.agree_with_each_other(question)?;
                prop_assert_eq!(&over_grpc::answers(&server, question).await, &answers);
                tally.add(&answers);
                expected.push(answers.check);
            }
            over_grpc::batches_answer(&server, questions, &expected).await
        })?;
        add(&tally.worlds);
    });
    tally.report("over gRPC");
}

#[test]
fn every_command_answers_as_the_naive_model() {
    let folder = folder("shapes-commands");
    let threads = threads();
    let tally = Tally::default();
    proptest!(worlds(6), |((world, questions) in generate::asked())| {
        let served = Policy::new(&world)?;
        let at_the_present = at_the_present(&world);
        let read = Policy::new(&at_the_present)?;
        let questions = &questions[..QUESTIONS];
        let server = threads.block_on(serve(&world, &folder.join("served.json")));
        let address = format!("http://{}", server.grpc);
        let file = write(&at_the_present, &folder.join("read.json"));
        let from = [(&served, ["--addr", &*address]), (&read, ["--policy", &*file])];

        let queries = write_text(&folder.join("queries.ndjson"), &commands::queries(questions));
        for (policy, target) in &from {
            let answers: Vec<_> = questions.iter().map(|one| policy.answers(one)).collect();
            for (question, answers) in questions.iter().zip(&answers) {
                policy.agrees_with_the_naive_model(question, answers)?;
            }
            commands::check_file(&queries, target, &answers)?;
        }
        // The other commands answer one question each, alternately from the server and from the file.
        for (at, question) in questions.iter().enumerate() {
            let (policy, target) = &from[(tally.worlds.get() + at) % 2];
            let answers = policy.answers(question);
            commands::agree(question, target, &answers)?;
            tally.add(&answers);
        }
        add(&tally.worlds);
    });
    tally.report("on the command line");
}

/// `PROPTEST_CASES` worlds if the variable is set, otherwise `few`.
fn worlds(few: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return default;
    }
    ProptestConfig { cases: few, ..default }
}

fn threads() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn serve(world: &World, file: &Path) -> InProcess {
    let file = write(world, file);
    InProcess::start_at(Source::file(file), Clock::Fixed(world.now)).await
}

fn write(world: &World, file: &Path) -> String {
    write_text(file, &policy_document(&world.catalog, &world.facts))
}

fn write_text(file: &Path, text: &str) -> String {
    std::fs::write(file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// The same world at the machine's time, with every expiry moved by a day away from now. Expired bindings
/// stay expired, others stay valid, and the order of expiries does not change.
fn at_the_present(world: &World) -> World {
    const DAY: i64 = 24 * 60 * 60;
    let now = Clock::System.now();
    let mut at_the_present = World { now, ..world.clone() };
    for binding in &mut at_the_present.facts.role_bindings {
        binding.expires_at = binding.expires_at.map(|end| {
            let away = end.seconds() - world.now.seconds();
            assert!(away.abs() < DAY / 2, "an expiry is not near the world's time");
            let day = if world.now < end { DAY } else { -DAY };
            Timestamp::new(now.seconds() + away + day, end.nanos())
        });
    }
    at_the_present
}

impl Answers {
    /// The answers of the RPCs agree with each other.
    fn agree_with_each_other(&self, question: &Question) -> Result<(), TestCaseError> {
        let Question { identity, capability, resource, .. } = question;
        let Ok(check) = &self.check else {
            let error = self.check.as_ref().unwrap_err();
            prop_assert_eq!(self.identities.as_ref().unwrap_err(), error);
            prop_assert_eq!(self.conditional_identities.as_ref().unwrap_err(), error);
            prop_assert_eq!(self.scopes.as_ref().unwrap_err(), error);
            prop_assert_eq!(self.conditional_scopes.as_ref().unwrap_err(), error);
            prop_assert_eq!(self.explanation.as_ref().unwrap_err(), error);
            prop_assert!(!self.capabilities.capabilities.contains(capability));
            return Ok(());
        };
        let allowed = check.allowed;
        let explanation = self.explanation.as_ref().unwrap();
        prop_assert_eq!((explanation.allowed, explanation.reason), (allowed, check.reason));
        prop_assert_eq!(allowed, check.reason() == v1::Reason::Granted);
        prop_assert_eq!(self.capabilities.capabilities.contains(capability), allowed);
        let identities = self.identities.as_ref().unwrap();
        prop_assert_eq!(identities.iter().any(|who| who == identity.as_str()), allowed);
        let mut conditional = self.conditional_identities.as_ref().unwrap().iter();
        if let Some(found) = conditional.find(|one| one.identity == identity.as_str()) {
            prop_assert!(!allowed);
            for grant in &found.grants {
                let failed = explanation.uncounted.iter().find(|one| one.grant == grant.grant);
                let attributes =
                    failed.map(|one| one.failed.iter().map(|it| &it.attribute).collect::<Vec<_>>());
                let open: Vec<_> = grant.open.iter().map(|test| &test.attribute).collect();
                let is_whole = explanation.uncounted.len() < EXPLAINED_BINDINGS_MAX;
                prop_assert!(attributes == Some(open) || !is_whole, "{:?}", grant);
            }
        }
        if let Some(witness) = &explanation.witness {
            prop_assert!(self.capabilities.grants.contains(witness));
            prop_assert_eq!(witness.expires_at, check.valid_until);
        }

        let scopes = self.scopes.as_ref().unwrap();
        let is_over = |scope: &&v1::ScopeResult| {
            capstan_testkit::naive::is_at_or_above(&scope.scope, resource.as_str())
        };
        let mut over = scopes.iter().filter(is_over).peekable();
        let conditional = self.conditional_scopes.as_ref().unwrap();
        for found in scopes.iter().filter(|found| !found.conditional) {
            prop_assert!(conditional.iter().all(|one| one.scope != found.scope));
        }
        prop_assert!(!allowed || over.peek().is_some(), "allowed without a scope at or above");
        prop_assert!(allowed || over.all(|scope| scope.conditional), "denied at a listed scope");
        Ok(())
    }
}

// === Requests ===

/// The properties of a question; `None` if it has none.
fn properties(supplied: &Attributes) -> Option<v1::Properties> {
    let Attributes { subject, resource, action, context } = supplied;
    let [subject, resource, action, context] = [subject, resource, action, context]
        .map(|all| all.iter().map(|(name, held)| (name.clone(), value(held))).collect());
    let all = v1::Properties { subject, resource, action, context };
    (supplied != Attributes::NONE).then_some(all)
}

fn value(held: &Value) -> prost_types::Value {
    let kind = match held {
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Boolean(value) => Kind::BoolValue(*value),
        // Integers lie within 2^53.
        Value::Integer(number) => Kind::NumberValue(*number as f64),
    };
    prost_types::Value { kind: Some(kind) }
}

/// The attributes for ListScopes, which accepts no properties of the resource.
fn without_resource(question: &Question) -> Attributes {
    Attributes { resource: Properties::new(), ..question.attributes.clone() }
}

fn check_request(question: &Question) -> v1::CheckRequest {
    v1::CheckRequest {
        identity: question.identity.to_string(),
        capability: question.capability.clone(),
        resource: question.resource.to_string(),
        properties: properties(&question.attributes),
        consistency: None,
    }
}

fn capabilities_request(question: &Question) -> v1::ListCapabilitiesRequest {
    v1::ListCapabilitiesRequest {
        identity: question.identity.to_string(),
        resource: question.resource.to_string(),
        properties: properties(&question.attributes),
        consistency: None,
    }
}

fn identities_request(question: &Question, page_size: i32) -> v1::ListIdentitiesRequest {
    v1::ListIdentitiesRequest {
        capability: question.capability.clone(),
        resource: question.resource.to_string(),
        properties: properties(&question.attributes),
        page_size,
        ..Default::default()
    }
}

fn scopes_request(question: &Question, page_size: i32) -> v1::ListScopesRequest {
    v1::ListScopesRequest {
        identity: question.identity.to_string(),
        capability: question.capability.clone(),
        properties: properties(&without_resource(question)),
        page_size,
        ..Default::default()
    }
}

fn explain_request(question: &Question) -> v1::ExplainRequest {
    let v1::CheckRequest { identity, capability, resource, properties, consistency } =
        check_request(question);
    v1::ExplainRequest { identity, capability, resource, properties, consistency }
}

// === Figures of a long run ===

/// Counts of the comparisons. Asserts that the answers are not all of one kind.
#[derive(Default)]
struct Tally {
    worlds: Cell<usize>,
    allowed: Cell<usize>,
    denied: Cell<usize>,
    unknown: Cell<usize>,
}

fn add(count: &Cell<usize>) {
    count.set(count.get() + 1);
}

impl Tally {
    fn add(&self, answers: &Answers) {
        add(match &answers.check {
            Ok(check) if check.allowed => &self.allowed,
            Ok(_) => &self.denied,
            Err(_) => &self.unknown,
        });
    }

    #[expect(clippy::print_stdout, reason = "a long run prints counts")]
    fn report(&self, how: &str) {
        let Self { worlds, allowed, denied, unknown } = self;
        let [worlds, allowed, denied, unknown] = [worlds, allowed, denied, unknown].map(Cell::get);
        println!(
            "{worlds} worlds {how}: {} questions by every RPC ({allowed} allowed, {denied} \
             denied, {unknown} of unknown capabilities)",
            allowed + denied + unknown
        );
        // In a few random worlds, every answer can be a denial.
        assert!(
            worlds < MANY as usize || (allowed > 0 && denied > 0),
            "all answers are of one kind"
        );
    }
}
