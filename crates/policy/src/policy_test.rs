//! Policy-test documents (section 3 of the contract): questions with their expected answers.

use capstan_engine::{PathBuf, Reason, Timestamp};

use crate::catalog::{string, strings};
use crate::diagnostics::Diagnostics;
use crate::policy::{decode, path};
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

/// One test.
#[derive(Clone, Debug)]
pub struct PolicyTest {
    /// Line of the test in the document, from 1.
    pub line: usize,
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
    let is_mapping = reader.mapping(
        node,
        "a test: a mapping with a question and its answer",
        &["identity", "capability", "resource", "allowed", "reason", "capabilities", "identities"],
        |reader, key, value| match key {
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
    Some(PolicyTest { line: mark.0, expectation })
}

fn read_reason<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<Reason> {
    reader.parse(node, "a reason", |text| {
        let known = || Reason::ALL.map(Reason::as_str).join(", ");
        Reason::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or_else(known)
    })
}
