//! Policy-test documents (section 3 of the contract): questions with the answers they must get.

use capstan_engine::{PathBuf, Reason, Timestamp};

use crate::catalog::{string, strings};
use crate::diagnostics::Diagnostics;
use crate::policy::{decode, path};
use crate::reader::{Node, Reader, Required};

/// A policy-test document.
#[derive(Clone, Debug, Default)]
pub struct PolicyTests {
    /// The policy's file, relative to this document, if it names one.
    pub policy: Option<String>,
    /// The time to ask at; the present if there is none.
    pub now: Option<Timestamp>,
    /// The tests, in order.
    pub tests: Vec<PolicyTest>,
}

/// One question and its answer.
#[derive(Clone, Debug)]
pub struct PolicyTest {
    /// Where it stands.
    pub line: usize,
    /// What is asked and what must come back.
    pub expectation: Expectation,
}

/// What is asked and what must come back.
#[derive(Clone, Debug)]
pub enum Expectation {
    /// Check answers this.
    Check {
        /// Who.
        identity: PathBuf,
        /// What.
        capability: String,
        /// Where.
        resource: PathBuf,
        /// Whether it may.
        allowed: bool,
        /// Why, if the test says so.
        reason: Option<Reason>,
    },
    /// ListCapabilities answers just these.
    Capabilities {
        /// Who.
        identity: PathBuf,
        /// Where.
        resource: PathBuf,
        /// What it can do there, in any order.
        capabilities: Vec<String>,
    },
    /// ListIdentities answers just these.
    Identities {
        /// What.
        capability: String,
        /// Where.
        resource: PathBuf,
        /// Who can, in any order.
        identities: Vec<PathBuf>,
    },
}

/// Loads a policy-test document.
///
/// # Errors
///
/// Everything that is wrong with it: the first 100 in the order of the text, then the count.
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
    // Required: without it a misspelt document would pass, having tested nothing.
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
        reader.report(mark, found, "GRANTED if allowed, another reason if not");
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
                "a test of no known shape",
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
