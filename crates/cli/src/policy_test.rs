//! `capstan policy test`: compares a policy's decisions with those that test documents expect.
//!
//! ```text
//! policy, tests ─▶ names of the tests known? ─▶ answers ─▶ Report ─▶ table, JSON or JUnit
//!                                                  └─▶ Coverage ─▶┘
//! ```

mod coverage;
mod junit;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use capstan_engine::{Attributes, Question, Reason, Snapshot, Timestamp};
use capstan_policy::{Expectation, PolicyTests, load_policy_tests};
use serde::Serialize;

use super::DENIED;
use super::audit::{Document, file};
use super::completion;
use super::output::{self, Format, Output};
use capstan_server::clock::Clock;
use capstan_server::envoy::routes;
use capstan_server::feed::source::{in_file, read};
use coverage::Coverage;

const EXAMPLES: &str = "\
Examples:
  capstan policy test acme.yaml acme.tests.yaml
  capstan policy test acme.yaml tests/*.yaml --output json
  capstan policy test acme.yaml acme.tests.yaml --coverage --routes routes.yaml
  capstan policy test acme.yaml acme.tests.yaml --watch
  capstan policy test acme.yaml acme.tests.yaml --output junit > tests.xml

A test document:
  tests:
    - {identity: bob, capability: repo.list, resource: acme/web, allowed: true}
    - {identity: bob, resource: acme, capabilities: [repo.list, tag.list]}
    - {capability: repo.delete, resource: acme/web, identities: [alice]}
    - {identity: eve, capability: repo.list, resource: acme/web, allowed: false, unknown: true}

A test that names what the policy does not have is an error, unless it says `unknown: true`.

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
    #[arg(long, value_name = "NAME|FILE", add = completion::catalog())]
    catalog: Vec<String>,

    /// Also print the bindings and roles that no test uses
    #[arg(long)]
    coverage: bool,

    /// A route table: print its routes whose requirements no test asks about, too
    #[arg(long, value_name = "FILE", requires = "coverage")]
    routes: Option<PathBuf>,

    /// Run the tests again whenever a file changes, until interrupted
    #[arg(long)]
    watch: bool,

    /// Maximum size of a document, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = capstan_policy::DOCUMENT_BYTES_MAX)]
    max_document_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    tests: Vec<TestResult>,
    passed: usize,
    failed: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    coverage: Option<Coverage>,
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
    pub(crate) fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        if !self.watch {
            let report = self.report()?;
            report.write(output)?;
            let passed = report.failed == 0;
            return Ok(if passed { ExitCode::SUCCESS } else { ExitCode::from(DENIED) });
        }
        let inputs = [&self.policy].into_iter().chain(&self.tests).chain(&self.routes);
        let catalogs = self.catalog.iter().map(PathBuf::from);
        let mut watched = watch::Files::new(inputs.cloned().chain(catalogs))?;
        loop {
            match self.report() {
                Ok(report) => report.write(output)?,
                // The next change may mend it.
                Err(error) => output::error(output.format().unwrap_or(Format::Table), &error),
            }
            watched.wait();
        }
    }

    fn report(&self) -> anyhow::Result<Report> {
        let document = Document::load(&self.policy, &self.catalog, self.max_document_bytes)?;
        let (mut tests, mut asked) = (Vec::new(), Vec::new());
        for path in &self.tests {
            let text = read(&file(path), self.max_document_bytes)?;
            let loaded = load_policy_tests(&text);
            let checked =
                loaded.and_then(|tests| tests.check_names(&document.policy).map(|()| tests));
            let PolicyTests { now, tests: all, .. } =
                checked.map_err(|found| in_file(path, &found))?;
            let now = now.unwrap_or_else(|| Clock::System.now());
            for test in all {
                let compared = run(document.snapshot(), now, &test.expectation);
                tests.push(compared.result(path, test.line));
                asked.push(test.expectation);
            }
        }
        if tests.is_empty() {
            bail!("no tests: each TEST must be a document with at least one entry in `tests`");
        }
        let coverage = if self.coverage {
            let routes = self.routes.as_ref();
            let table = routes.map(|path| routes::load(path)).transpose()?;
            Some(Coverage::new(&document, table.as_ref().map(|table| &table.routes), &asked))
        } else {
            None
        };
        let passed = tests.iter().filter(|test| test.passed).count();
        Ok(Report { passed, failed: tests.len() - passed, tests, coverage })
    }
}

impl Report {
    fn write(&self, output: Output) -> anyhow::Result<()> {
        match output {
            Output::Json => output::json(self),
            Output::Table => self.print(),
            Output::Junit => output::line(junit::of(self)?.trim_end()),
            Output::Tree | Output::Id | Output::Client(_) => output.format().map(drop),
        }
    }

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
        if let Some(coverage) = &self.coverage {
            coverage.print()?;
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

/// What the policy says to a test. Only one that says `unknown: true` has a capability that the catalog does not have, and
/// that nobody has.
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
                actual: match actual {
                    Ok(actual) => actual,
                    Err(_) if !allowed && reason.is_none() => told(false, None),
                    Err(_) => unknown(),
                },
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
                actual: match found {
                    Ok(found) => list(found.into_iter()),
                    Err(_) if identities.is_empty() => list([].into_iter()),
                    Err(_) => unknown(),
                },
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
