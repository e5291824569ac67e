//! Policy-test documents (section 3 of the contract): questions with their expected answers.

use std::collections::BTreeSet;

use capstan_engine::{Catalog, PathBuf, Reason, SUGGESTIONS_MAX, Timestamp, did_you_mean, quote};

use crate::catalog::{string, strings};
use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::policy::{Policy, decode, path};
use crate::reader::{Node, Reader, Required};

/// A policy-test document.
#[derive(Clone, Debug, Default)]
pub struct PolicyTests {
    /// Path of the policy's file, relative to this document, if given.
    pub policy: Option<String>,
    /// The time of the decisions; if absent, the current time.
    pub now: Option<Timestamp>,
    /// The tests, in order of the document.
    pub tests: Vec<PolicyTest>,
}

impl PolicyTests {
    /// Whether the policy has every name of the tests that do not say `unknown: true`. Otherwise a misspelt name would
    /// pass as a denial. A resource is known if a declared group or resource is at or above it, because a
    /// resource need not be registered. An identity may be unknown where the reason UNKNOWN_IDENTITY is expected.
    ///
    /// # Errors
    ///
    /// A diagnostic for each name that the policy does not have.
    pub fn check_names(&self, policy: &Policy) -> Result<(), Diagnostics> {
        let names = Names::new(policy);
        let mut diagnostics = Diagnostics::default();
        for (at, test) in self.tests.iter().enumerate().filter(|(_, test)| !test.unknown) {
            let (line, column) = (test.line, test.column);
            for (key, name, kind) in names.unknown(&test.expectation) {
                let may_suggest = diagnostics.total() < SUGGESTIONS_MAX;
                let near = if may_suggest { names.near(kind, name) } else { String::new() };
                let kind = kind.words();
                diagnostics.push(Diagnostic {
                    line,
                    column,
                    field: format!("tests[{at}].{key}"),
                    found: quote(name),
                    expected: format!("{kind} of the policy, or `unknown: true`{near}"),
                });
            }
        }
        if diagnostics.is_empty() { Ok(()) } else { Err(diagnostics) }
    }
}

/// The names that a policy has.
struct Names<'p> {
    identities: BTreeSet<&'p str>,
    scopes: BTreeSet<&'p str>,
    catalog: &'p Catalog,
}

/// The key of a name, the name, and what it should be.
type Unknown<'t> = (&'static str, &'t str, Kind);

#[derive(Clone, Copy)]
enum Kind {
    Identity,
    Capability,
    Resource,
}

impl Kind {
    const fn words(self) -> &'static str {
        match self {
            Self::Identity => "an identity",
            Self::Capability => "a capability",
            Self::Resource => "a path at or below a group or resource",
        }
    }
}

impl<'p> Names<'p> {
    fn new(policy: &'p Policy) -> Self {
        let facts = policy.model.facts();
        let groups = facts.groups.iter().map(|group| group.id.as_str());
        let resources = facts.resources.iter().map(|resource| resource.id.as_str());
        let declared = facts.identities.iter().map(|identity| &identity.id);
        Self {
            identities: declared.chain(policy.model.unregistered()).map(|id| id.as_str()).collect(),
            scopes: groups.chain(resources).collect(),
            catalog: policy.model.catalog(),
        }
    }

    fn unknown<'t>(&self, expectation: &'t Expectation) -> Vec<Unknown<'t>> {
        match expectation {
            Expectation::Check { identity, capability, resource, reason, .. } => {
                let is_expected = *reason == Some(Reason::UnknownIdentity);
                let identity = (!is_expected).then(|| self.identity("identity", identity));
                let rest = [self.capability("capability", capability), self.resource(resource)];
                identity.into_iter().chain(rest).flatten().collect()
            }
            Expectation::Capabilities { identity, resource, capabilities } => {
                let all = capabilities.iter().map(|name| self.capability("capabilities", name));
                let one = [self.identity("identity", identity), self.resource(resource)];
                one.into_iter().chain(all).flatten().collect()
            }
            Expectation::Identities { capability, resource, identities } => {
                let all = identities.iter().map(|name| self.identity("identities", name));
                let one = [self.capability("capability", capability), self.resource(resource)];
                one.into_iter().chain(all).flatten().collect()
            }
        }
    }

    fn identity<'t>(&self, key: &'static str, name: &'t PathBuf) -> Option<Unknown<'t>> {
        let name = name.as_str();
        (!self.identities.contains(name)).then_some((key, name, Kind::Identity))
    }

    fn capability<'t>(&self, key: &'static str, name: &'t str) -> Option<Unknown<'t>> {
        let is_known = self.catalog.capability(name).is_some();
        (!is_known).then_some((key, name, Kind::Capability))
    }

    fn resource<'t>(&self, name: &'t PathBuf) -> Option<Unknown<'t>> {
        let name = name.as_str();
        let ends = name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
        let is_known = ends.filter_map(|end| name.get(..end)).any(|up| self.scopes.contains(up));
        (!is_known).then_some(("resource", name, Kind::Resource))
    }

    /// Similar names, if there are any.
    fn near(&self, kind: Kind, name: &str) -> String {
        match kind {
            Kind::Identity => did_you_mean(name, self.identities.iter().copied()),
            Kind::Capability => did_you_mean(name, self.catalog.capabilities()),
            Kind::Resource => did_you_mean(name, self.scopes.iter().copied()),
        }
    }
}

/// One test.
#[derive(Clone, Debug)]
pub struct PolicyTest {
    /// Line of the test in the document, from 1.
    pub line: usize,
    /// Column of the test in the document, from 1.
    pub column: usize,
    /// Whether the test may name what the policy does not have.
    pub unknown: bool,
    /// The question and its expected answer.
    pub expectation: Expectation,
}

/// A question and its expected answer, one variant for each shape of test.
#[derive(Clone, Debug)]
pub enum Expectation {
    /// Check must give this decision.
    Check {
        /// The identity.
        identity: PathBuf,
        /// The capability.
        capability: String,
        /// The resource or group.
        resource: PathBuf,
        /// The expected decision.
        allowed: bool,
        /// The expected reason, if given.
        reason: Option<Reason>,
    },
    /// ListCapabilities must give exactly these capabilities.
    Capabilities {
        /// The identity.
        identity: PathBuf,
        /// The resource or group.
        resource: PathBuf,
        /// The expected capabilities, in any order.
        capabilities: Vec<String>,
    },
    /// ListIdentities must give exactly these identities.
    Identities {
        /// The capability.
        capability: String,
        /// The resource or group.
        resource: PathBuf,
        /// The expected identities, in any order.
        identities: Vec<PathBuf>,
    },
}

/// Loads a policy-test document.
///
/// # Errors
///
/// All diagnostics of the document: the first 100 by position, and the number of all.
pub fn load_policy_tests(document: &[u8]) -> Result<PolicyTests, Diagnostics> {
    let text = decode(document)?;
    let mut reader = Reader::new(text);
    let tests = reader.document(|reader, node| read_tests(reader, node));
    let (diagnostics, ..) = reader.finish();
    match tests {
        Some(tests) if diagnostics.is_empty() => Ok(tests),
        _ => Err(diagnostics),
    }
}

fn read_tests<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> PolicyTests {
    let mark = node.mark;
    let mut document = PolicyTests::default();
    // Required: otherwise a document with a misspelt key would pass without a single test.
    let mut tests = Required::new("tests");
    let is_mapping = reader.mapping(
        node,
        "policy tests: a mapping with `policy` and `tests`",
        &["policy", "now", "tests"],
        |reader, key, value| match key {
            "policy" => document.policy = string(reader, value, "a file"),
            "now" => document.now = reader.timestamp(value),
            _ => tests.read(reader, value, |reader, node| {
                let mut all = Vec::new();
                reader.list(&mut all, node, "a list of tests", read_test);
                Some(all)
            }),
        },
    );
    document.tests = tests.get(reader, mark, is_mapping).unwrap_or_default();
    document
}

fn read_test<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<PolicyTest> {
    let mark = node.mark;
    let mut identity = Required::new("identity");
    let mut capability = Required::new("capability");
    let mut resource = Required::new("resource");
    let (mut allowed, mut reason, mut capabilities, mut identities) = (None, None, None, None);
    let mut unknown = false;
    let is_mapping = reader.mapping(
        node,
        "a test: a mapping with a question and its answer",
        &[
            "identity",
            "capability",
            "resource",
            "allowed",
            "reason",
            "capabilities",
            "identities",
            "unknown",
        ],
        |reader, key, value| match key {
            "unknown" => unknown = reader.boolean(value).unwrap_or_default(),
            "identity" => identity.read(reader, value, path),
            "capability" => {
                capability.read(reader, value, |reader, node| string(reader, node, "a capability"));
            }
            "resource" => resource.read(reader, value, path),
            "allowed" => allowed = Some(reader.boolean(value)),
            "reason" => reason = Some(read_reason(reader, value)),
            "capabilities" => {
                capabilities = Some(strings(reader, value, "a list of capabilities"));
            }
            _ => {
                let all = identities.get_or_insert_default();
                reader.list(all, value, "a list of identities", path);
            }
        },
    );
    if !is_mapping {
        return None;
    }
    if let (Some(Some(allowed)), Some(Some(reason))) = (allowed, reason)
        && allowed != (reason == Reason::Granted)
    {
        let found = format!("allowed: {allowed} with reason {reason}");
        reader.report(mark, found, "GRANTED if `allowed` is true, otherwise another reason");
    }
    let resource = resource.get(reader, mark, true);
    let expectation = match (allowed, capabilities, identities) {
        (Some(allowed), None, None) => {
            let identity = identity.get(reader, mark, true);
            let capability = capability.get(reader, mark, true);
            Expectation::Check {
                identity: identity?,
                capability: capability?,
                resource: resource?,
                allowed: allowed?,
                reason: reason.flatten(),
            }
        }
        (None, Some(capabilities), None) if !capability.seen() && reason.is_none() => {
            let identity = identity.get(reader, mark, true)?;
            Expectation::Capabilities { identity, resource: resource?, capabilities }
        }
        (None, None, Some(identities)) if !identity.seen() && reason.is_none() => {
            let capability = capability.get(reader, mark, true)?;
            Expectation::Identities { capability, resource: resource?, identities }
        }
        _ => {
            reader.report(
                mark,
                "an unknown kind of test",
                "identity, capability, resource and allowed; or identity, resource and \
                 capabilities; or capability, resource and identities",
            );
            return None;
        }
    };
    let (line, column) = mark;
    Some(PolicyTest { line, column, unknown, expectation })
}

fn read_reason<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<Reason> {
    reader.parse(node, "a reason", |text| {
        let known = || Reason::ALL.map(Reason::as_str).join(", ");
        Reason::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or_else(known)
    })
}
