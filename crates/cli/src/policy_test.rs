//! `capstan policy test`: compares a policy's decisions with those that test documents expect.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use capstan_engine::{Attributes, Question, Reason, Snapshot, Timestamp};
use capstan_policy::{Expectation, load_policy_tests};
use serde::Serialize;

use super::DENIED;
use super::audit::file;
use super::output::{self, Format};
use capstan_server::clock::Clock;
use capstan_server::feed::source::{Source, in_file, load_catalogs, read};

const EXAMPLES: &str = "\
Examples:
  capstan policy test acme.yaml acme.tests.yaml
  capstan policy test acme.yaml tests/*.yaml --output json

A test document:
  tests:
    - {identity: bob, capability: repo.list, resource: acme/web, allowed: true}
    - {identity: bob, resource: acme, capabilities: [repo.list, tag.list]}
    - {capability: repo.delete, resource: acme/web, identities: [alice]}

Exit codes: 0 if all tests pass, 1 if any fails, 2 error.";

/// Runs tests of a policy: questions with expected answers
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Test {
    /// The policy document
    #[arg(value_name = "POLICY")]
    policy: PathBuf,

    /// Policy-test documents
    #[arg(required = true, value_name = "TEST")]
    tests: Vec<PathBuf>,

    /// Additional catalogs that the policy can name: a built-in catalog's name or a file; repeat for several
    #[arg(long, value_name = "NAME|FILE")]
    catalog: Vec<String>,

    /// Maximum size of a document, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = capstan_policy::DOCUMENT_BYTES_MAX)]
    max_document_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    tests: Vec<TestResult>,
    passed: usize,
    failed: usize,
}

#[derive(Debug, Serialize)]
struct TestResult {
    file: String,
    line: usize,
    question: String,
    passed: bool,
    expected: String,
    actual: String,
    /// Why a failed check was decided as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl Test {
    pub(crate) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let catalogs = load_catalogs(&self.catalog)?;
        let bytes_max = self.max_document_bytes;
        let source = Source::File { path: file(&self.policy), bytes_max };
        let snapshot = source.build(&catalogs, 1, None, Clock::System.now())?.snapshot;
        let mut tests = Vec::new();
        for path in &self.tests {
            let document = read(&file(path), bytes_max)?;
            let document = load_policy_tests(&document).map_err(|found| in_file(path, &found))?;
            let now = document.now.unwrap_or_else(|| Clock::System.now());
            tests.extend(
                document
                    .tests
                    .iter()
                    .map(|test| run(&snapshot, now, &test.expectation).result(path, test.line)),
            );
        }
        if tests.is_empty() {
            bail!("no tests: each TEST must be a document with at least one entry in `tests`");
        }
        let passed = tests.iter().filter(|test| test.passed).count();
        let report = Report { passed, failed: tests.len() - passed, tests };
        match format {
            Format::Json => output::json(&report)?,
            Format::Table => report.print()?,
        }
        Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(DENIED) })
    }
}

impl Report {
    fn print(&self) -> anyhow::Result<()> {
        for TestResult { file, line, question, expected, actual, reason, .. } in
            self.tests.iter().filter(|test| !test.passed)
        {
            let word = output::verdict(false, "failed");
            // The decision has its reason already if the test expects one.
            let reason = reason.filter(|reason| !actual.contains(reason));
            let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            output::line(format!(
                "{file}:{line}: {word}: {question}: expected {expected}, got {actual}{reason}"
            ))?;
        }
        let Self { passed, failed, .. } = self;
        let word = output::verdict(*failed == 0, if *failed == 0 { "ok" } else { "failed" });
        output::line(format!("{word}: {passed} passed, {failed} failed"))
    }
}

/// A question with its expected and its actual answer, in one text form.
struct Compared {
    question: String,
    expected: String,
    actual: String,
    reason: Option<Reason>,
}

impl Compared {
    fn result(self, file: &Path, line: usize) -> TestResult {
        let Self { question, expected, actual, reason } = self;
        let (passed, file) = (expected == actual, file.display().to_string());
        let reason = reason.filter(|_| !passed).map(Reason::as_str);
        TestResult { file, line, question, passed, expected, actual, reason }
    }
}

fn run(snapshot: &Snapshot, now: Timestamp, expectation: &Expectation) -> Compared {
    let unknown = || "an unknown capability".to_owned();
    match expectation {
        Expectation::Check { identity, capability, resource, allowed, reason } => {
            let question = Question {
                identity: identity.as_path(),
                capability,
                resource: resource.as_path(),
                attributes: Attributes::NONE,
            };
            let word = |allowed| if allowed { "allowed" } else { "denied" };
            let told = |allowed, told: Option<Reason>| match told {
                Some(reason) => format!("{} ({reason})", word(allowed)),
                None => word(allowed).into(),
            };
            let answer = snapshot.check(&question, now);
            let actual =
                answer.map(|decision| told(decision.allowed(), reason.map(|_| decision.reason)));
            Compared {
                question: format!("{identity} {capability} at {resource}"),
                expected: told(*allowed, *reason),
                actual: actual.unwrap_or_else(|_| unknown()),
                reason: answer.ok().map(|decision| decision.reason),
            }
        }
        Expectation::Capabilities { identity, resource, capabilities } => {
            let (who, at) = (identity.as_path(), resource.as_path());
            let found = snapshot.list_capabilities(who, at, Attributes::NONE, now).capabilities;
            let catalog = snapshot.catalog();
            let found = found.iter().filter_map(|one| catalog.capability_name(one));
            Compared {
                question: format!("what can {identity} do at {resource}"),
                expected: list(capabilities.iter().map(String::as_str)),
                actual: list(found),
                reason: None,
            }
        }
        Expectation::Identities { capability, resource, identities } => {
            let at = resource.as_path();
            let found = snapshot.list_identities(capability, at, Attributes::NONE, now);
            Compared {
                question: format!("who can {capability} at {resource}"),
                expected: list(identities.iter().map(capstan_engine::PathBuf::as_str)),
                actual: found.map_or_else(|_| unknown(), |found| list(found.into_iter())),
                reason: None,
            }
        }
    }
}

/// The names as a sorted list without duplicates.
fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: std::collections::BTreeSet<_> = names.collect();
    format!("[{}]", names.into_iter().collect::<Vec<_>>().join(", "))
}
