//! Policy-test documents (section 3 of the contract): exactly three shapes of tests.

mod common;

use capstan_engine::{Reason, Timestamp};
use capstan_policy::{Expectation, load_policy_tests};
use common::{check_loaded, lines};

const EXAMPLE: &str = "policy: policy.yaml
now: 2026-11-21T00:00:00Z              # optional
tests:
  - {identity: acme/ci, capability: repo.list, resource: acme/platform/nginx, allowed: true}
  - {identity: acme/ci, resource: acme/platform, capabilities: [apk.list, manifest.list, repo.list]}
  - {capability: repo.delete, resource: acme/platform/nginx, identities: [alice]}
";

fn check(document: &str, expected: &[&str]) {
    check_loaded(document, &load_policy_tests(document.as_bytes()), expected);
}

/// Checks a document with one test, whose fields start at column 4 of line 2.
fn check_test(fields: &str, expected: &[&str]) {
    check(&format!("tests:\n- {{{fields}}}\n"), expected);
}

/// The expectation of a document with this one test, as text.
fn test(fields: &str) -> String {
    let document = format!("tests:\n- {{{fields}}}\n");
    let loaded = load_policy_tests(document.as_bytes());
    assert_eq!(lines(&loaded), [""; 0]);
    let tests = loaded.unwrap_or_default();
    assert_eq!((tests.policy, tests.now, tests.tests.len()), (None, None, 1));
    tests.tests.iter().map(|test| format!("{:?}", test.expectation)).collect()
}

#[test]
fn the_contracts_example_is_read() {
    let document = load_policy_tests(EXAMPLE.as_bytes()).unwrap();
    assert_eq!(document.policy.as_deref(), Some("policy.yaml"));
    assert_eq!(document.now, Some(Timestamp::new(1_795_219_200, 0)));
    let lines: Vec<_> = document.tests.iter().map(|test| test.line).collect();
    assert_eq!(lines, [4, 5, 6]);
    let [check, capabilities, identities] = &document.tests[..] else { panic!("three tests") };
    let Expectation::Check { identity, capability, resource, allowed, reason } = &check.expectation
    else {
        panic!("a check: {check:?}")
    };
    assert_eq!((identity.as_str(), &**capability), ("acme/ci", "repo.list"));
    assert_eq!((resource.as_str(), *allowed, *reason), ("acme/platform/nginx", true, None));
    let Expectation::Capabilities { identity, resource, capabilities } = &capabilities.expectation
    else {
        panic!("a list of capabilities: {capabilities:?}")
    };
    assert_eq!((identity.as_str(), resource.as_str()), ("acme/ci", "acme/platform"));
    assert_eq!(capabilities, &["apk.list", "manifest.list", "repo.list"]);
    let Expectation::Identities { capability, resource, identities } = &identities.expectation
    else {
        panic!("a list of identities: {identities:?}")
    };
    assert_eq!((&**capability, resource.as_str()), ("repo.delete", "acme/platform/nginx"));
    assert_eq!(identities.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["alice"]);
}

#[test]
fn the_order_of_fields_does_not_matter() {
    let check = "identity: u, capability: c, resource: r, allowed: false";
    assert_eq!(test("allowed: false, resource: r, capability: c, identity: u"), test(check));
    let capabilities = "identity: u, resource: r, capabilities: [c, d]";
    assert_eq!(test("capabilities: [c, d], resource: r, identity: u"), test(capabilities));
    let identities = "capability: c, resource: r, identities: [u, v]";
    assert_eq!(test("identities: [u, v], resource: r, capability: c"), test(identities));
}

#[test]
fn expected_lists_may_be_empty() {
    assert!(test("identity: u, resource: r, capabilities: []").ends_with("capabilities: [] }"));
    assert!(test("capability: c, resource: r, identities: []").ends_with("identities: [] }"));
}

#[test]
fn a_check_may_have_a_reason() {
    for reason in Reason::ALL {
        let allowed = reason == Reason::Granted;
        let fields = "identity: u, capability: c, resource: r";
        let document = format!("{fields}, allowed: {allowed}, reason: {reason}");
        assert!(test(&document).ends_with(&format!("reason: Some({reason:?}) }}")), "{document}");
        let mistake = format!("2:3: tests[0]: found allowed: {} with reason {reason}", !allowed);
        check_test(
            &format!("{fields}, allowed: {}, reason: {reason}", !allowed),
            &[&format!(
                "{mistake}; expected GRANTED if `allowed` is true, otherwise another reason"
            )],
        );
    }
    check_test(
        "identity: u, capability: c, resource: r, allowed: true, reason: granted",
        &["2:68: tests[0].reason: found `granted`; expected a reason (GRANTED, UNKNOWN_IDENTITY, \
           EXPIRED, CONDITION_NOT_MET, CAPABILITY_NOT_IN_ROLE, NO_BINDING)"],
    );
}

#[test]
fn there_are_three_shapes() {
    const SHAPES: &str = "2:3: tests[0]: found an unknown kind of test; expected identity, \
                          capability, resource and allowed; or identity, resource and \
                          capabilities; or capability, resource and identities";
    const RESOURCE: &str = "2:3: tests[0]: found no `resource`; expected the key `resource`";
    const IDENTITY: &str = "2:3: tests[0]: found no `identity`; expected the key `identity`";
    const CAPABILITY: &str = "2:3: tests[0]: found no `capability`; expected the key `capability`";
    for (fields, expected) in [
        ("", &[RESOURCE, SHAPES][..]),
        ("resource: r", &[SHAPES]),
        ("identity: u, resource: r", &[SHAPES]),
        ("identity: u, capability: c, resource: r", &[SHAPES]),
        ("identity: u, capability: c, allowed: true", &[RESOURCE]),
        ("identity: u, resource: r, allowed: true", &[CAPABILITY]),
        ("capability: c, resource: r, allowed: true", &[IDENTITY]),
        ("allowed: true", &[RESOURCE, IDENTITY, CAPABILITY]),
        ("identity: u, capabilities: [c]", &[RESOURCE]),
        ("resource: r, capabilities: [c]", &[IDENTITY]),
        ("capability: c, identities: [u]", &[RESOURCE]),
        ("resource: r, identities: [u]", &[CAPABILITY]),
        ("identity: u, capability: c, resource: r, capabilities: [c]", &[SHAPES]),
        ("identity: u, capability: c, resource: r, identities: [u]", &[SHAPES]),
        ("identity: u, resource: r, capabilities: [c], allowed: true", &[SHAPES]),
        ("capability: c, resource: r, identities: [u], allowed: true", &[SHAPES]),
        ("resource: r, capabilities: [c], identities: [u]", &[SHAPES]),
        ("identity: u, resource: r, capabilities: [c], reason: GRANTED", &[SHAPES]),
        ("capability: c, resource: r, identities: [u], reason: GRANTED", &[SHAPES]),
        ("identity: u, capability: c, resource: r, reason: GRANTED", &[SHAPES]),
    ] {
        check_test(fields, expected);
    }
}

#[test]
fn fields_have_their_types() {
    check(
        "policy: 5
now: today
tests:
- {identity: a b, capability: 5, resource: /r, allowed: 'true'}
- {identity: u, resource: r, capabilities: c}
- {identity: u, resource: r, capabilities: [c, 5, ~]}
- {capability: [c], resource: ~, identities: [a//b, true, u]}
- {capability: c, resource: r, identities: ~}
- {identity: u, capability: c, resource: r, allowed: yes}
- {identity: u, capability: c, resource: r, allowed: true, because: 5}
- allowed
- []
",
        &[
            "1:9: policy: found the number `5`; expected a file (quote it to make it a string)",
            "2:6: now: found `today`; expected a time in RFC 3339, such as 2027-01-01T00:00:00Z",
            "4:14: tests[0].identity: found `a b`; expected a path (character ' ' in segment 1: \
             only A-Z a-z 0-9 - . _ ~ @ : + =)",
            "4:31: tests[0].capability: found the number `5`; expected a capability (quote it to \
             make it a string)",
            "4:44: tests[0].resource: found `/r`; expected a path (segment 1 is empty: no leading, \
             trailing or double slash)",
            "4:57: tests[0].allowed: found the string `true`; expected true or false",
            "5:44: tests[1].capabilities: found the string `c`; expected a list of capabilities",
            "6:48: tests[2].capabilities[1]: found the number `5`; expected a name (quote it to \
             make it a string)",
            "6:51: tests[2].capabilities[2]: found null; expected a name",
            "7:16: tests[3].capability: found a list; expected a capability",
            "7:31: tests[3].resource: found null; expected a path",
            "7:47: tests[3].identities[0]: found `a//b`; expected a path (segment 2 is empty: no \
             leading, trailing or double slash)",
            "7:53: tests[3].identities[1]: found the boolean `true`; expected a path (quote it to \
             make it a string)",
            "8:44: tests[4].identities: found null; expected a list of identities",
            "9:54: tests[5].allowed: found the string `yes`; expected true or false",
            "10:60: tests[6]: found unknown key `because`; expected one of the keys identity, \
             capability, resource, allowed, reason, capabilities, identities, unknown",
            "11:3: tests[7]: found the string `allowed`; expected a test: a mapping with a \
             question and its answer",
            "12:3: tests[8]: found a list; expected a test: a mapping with a question and its \
             answer",
        ],
    );
}

#[test]
fn a_document_is_a_mapping_with_tests() {
    const EXPECTED: &str = "expected policy tests: a mapping with `policy` and `tests`";
    check("", &["1:1: found nothing; expected a document"]);
    check("[]", &[&format!("1:1: found a list; {EXPECTED}")]);
    check("~", &[&format!("1:1: found null; {EXPECTED}")]);
    check("policy: p", &["1:1: found no `tests`; expected the key `tests`"]);
    check("tests: {}", &["1:8: tests: found a mapping; expected a list of tests"]);
    check("tests:", &["1:6: tests: found null; expected a list of tests"]);
    check(
        "{test: [], tests: []}",
        &["1:2: found unknown key `test`; expected one of the keys policy, now, tests"],
    );
    check("{tests: [], tests: []}", &["1:13: found key `tests` again; expected each key once"]);
    check("tests: []\n---\ntests: []", &["3:1: found a second document; expected one document"]);
}

#[test]
fn mistakes_are_reported_in_the_order_of_the_text() {
    let document = "tests:\n".to_owned() + &"- {identity: 5, allowed: maybe}\n".repeat(60);
    let loaded = load_policy_tests(document.as_bytes());
    assert_eq!(loaded.as_ref().unwrap_err().total(), 240);
    let diagnostics = lines(&loaded);
    assert_eq!(diagnostics.len(), 100);
    assert_eq!(
        diagnostics[..4],
        [
            "2:3: tests[0]: found no `resource`; expected the key `resource`",
            "2:3: tests[0]: found no `capability`; expected the key `capability`",
            "2:14: tests[0].identity: found the number `5`; expected a path (quote it to make it a \
             string)",
            "2:26: tests[0].allowed: found the string `maybe`; expected true or false",
        ]
    );
    assert!(diagnostics[99].starts_with("26:26: tests[24].allowed"), "{}", diagnostics[99]);
}

#[test]
fn a_syntax_error_causes_no_other_diagnostics() {
    check(
        "tests:\n- {identity: u, capability: c",
        &["2:3: tests: found `{` that is not closed; expected `}`"],
    );
}
