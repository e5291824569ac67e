//! Documents of callers: what they say, and every diagnostic.

#![expect(clippy::panic, reason = "all of this is test code, not only the test functions")]

use capstan_policy::{Asks, CALLERS_MAX, Callers, Proves, load_callers};

fn load(document: &str) -> Callers {
    load_callers(document.as_bytes()).unwrap_or_else(|found| panic!("{found}"))
}

/// Loads a document with these callers, which start at line 3, and expects exactly these diagnostics.
fn check(callers: &str, expected: &[&str]) {
    check_document(&format!("version: 1\ncallers:\n{callers}"), expected);
}

fn check_document(document: &str, expected: &[&str]) {
    let found = match load_callers(document.as_bytes()) {
        Ok(_) => vec![],
        Err(found) => found.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(found, expected, "{document}");
}

#[test]
fn a_document_says_who_may_ask_what_and_where() {
    let all = load(
        "version: 1\nthis_machine: named\ncallers:\n\
         - {name: registry, spiffe_id: spiffe://example.com/registry, subtree: acme/images, methods: [search, check, check]}\n\
         - {name: console, identity: acme/console, methods: [policy]}\n\
         - {name: build, dns_name: build.example.com, methods: [check]}\n",
    );
    assert!(all.names_this_machine);
    let [registry, console, build] = &all.callers[..] else { panic!("{all:?}") };
    assert_eq!(registry.name, "registry");
    assert_eq!(registry.proves, Proves::SpiffeId("spiffe://example.com/registry".into()));
    assert_eq!(registry.subtree.as_ref().unwrap().as_str(), "acme/images");
    assert_eq!(registry.methods, [Asks::Check, Asks::Search]);
    assert_eq!(console.proves, Proves::Identity("acme/console".parse().unwrap()));
    assert_eq!(build.proves, Proves::DnsName("build.example.com".into()));
    assert_eq!((&console.subtree, &console.methods[..]), (&None, &[Asks::Policy][..]));
    assert_eq!(load("{version: 1, callers: [], this_machine: open}"), Callers::default());
    for asks in Asks::ALL {
        let document = format!(
            "{{version: 1, callers: [{{name: a, identity: a, methods: [{}]}}]}}",
            asks.as_str()
        );
        assert_eq!(load(&document).callers[0].methods, [asks]);
    }
}

#[test]
fn a_document_is_one_mapping_of_its_keys() {
    check_document(
        "[]",
        &["1:1: found a list; expected callers: a mapping with `version` and `callers`"],
    );
    check_document(
        "{}",
        &[
            "1:1: found no `version`; expected the key `version`",
            "1:1: found no `callers`; expected the key `callers`",
        ],
    );
    check_document(
        "version: 2\nthis_machine: closed\ncallers: 1\ncaller: []",
        &[
            "1:10: version: found the number `2`; expected the number 1",
            "2:15: this_machine: found `closed`; expected who of this machine may ask (open or named)",
            "3:10: callers: found the number `1`; expected a list of callers",
            "4:1: found unknown key `caller`; expected one of the keys version, this_machine, callers; did you mean \
             `callers`?",
        ],
    );
}

#[test]
fn a_caller_has_one_proof_and_says_its_methods() {
    check(
        "- {}\n",
        &[
            "3:3: callers[0]: found no `name`; expected the key `name`",
            "3:3: callers[0]: found no `methods`; expected the key `methods`",
            "3:3: callers[0]: found no proof; expected one of `spiffe_id`, `dns_name` and `identity`",
        ],
    );
    check(
        "- {name: a, methods: [], identity: a, spiffe_id: 'spiffe://a/b'}\n",
        &[
            "3:3: callers[0]: found several proofs; expected one of `spiffe_id`, `dns_name` and `identity`",
            "3:22: callers[0].methods: found no method; expected at least one method",
        ],
    );
    check(
        "- {name: a b, identity: /a, methods: [Check]}\n- {name: c, spiffe_id: 'https://a', methods: [list], subtree: ''}\n",
        &[
            "3:10: callers[0].name: found `a b`; expected a caller's name (character ' ': only A-Z a-z 0-9 _ - . +)",
            "3:25: callers[0].identity: found `/a`; expected a path (segment 1 is empty: no leading, trailing or double slash)",
            "3:39: callers[0].methods[0]: found `Check`; expected a set of methods (check, capabilities, explain, search, \
             authorize, policy)",
            "4:24: callers[1].spiffe_id: found `https://a`; expected a SPIFFE ID (spiffe://TRUST-DOMAIN/PATH, with a domain \
             in lower case and no empty or dotted segment)",
            "4:47: callers[1].methods[0]: found `list`; expected a set of methods (check, capabilities, explain, search, \
             authorize, policy)",
            "4:63: callers[1].subtree: found ``; expected a path (the path is empty)",
        ],
    );
}

#[test]
fn a_dns_name_is_that_of_a_host() {
    let host = "a host name in lower case, of labels of a-z 0-9 - joined by dots, with no wildcard, no dot at either \
                end, and no IP address";
    for name in ["*.example.com", "Build.example.com", "build.example.com.", "192.0.2.1", "::1"] {
        let expected =
            format!("3:23: callers[0].dns_name: found `{name}`; expected a DNS name ({host})");
        check(&format!("- {{name: a, dns_name: '{name}', methods: [check]}}\n"), &[&expected]);
    }
    check(
        "- {name: a, dns_name: b.c, spiffe_id: 'spiffe://a/b', methods: [check]}\n",
        &[
            "3:3: callers[0]: found several proofs; expected one of `spiffe_id`, `dns_name` and `identity`",
        ],
    );
}

#[test]
fn no_two_callers_have_the_same() {
    check(
        "- {name: a, dns_name: x.y, methods: [check]}\n- {name: b, identity: x.y, methods: [check]}\n\
         - {name: c, dns_name: x.y, methods: [check]}\n",
        &[
            "5:23: callers[2].dns_name: found `x.y`, already used in line 3; expected one that no other caller has",
        ],
    );
    check(
        "- {name: a, identity: x, methods: [check]}\n- {name: a, identity: y, methods: [check]}\n\
         - {name: b, identity: x, methods: [check]}\n",
        &[
            "4:10: callers[1].name: found `a`, already used in line 3; expected one that no other caller has",
            "5:23: callers[2].identity: found `x`, already used in line 3; expected one that no other caller has",
        ],
    );
}

#[test]
fn a_policy_is_read_as_a_whole() {
    check(
        "- {name: a, identity: x, subtree: x, methods: [check, policy]}\n",
        &[
            "3:3: callers[0]: found both; expected no `policy` with `subtree`: a policy is read as a whole",
        ],
    );
}

#[test]
fn callers_are_limited() {
    let caller = |at| format!("- {{name: a{at}, identity: a{at}, methods: [check]}}\n");
    let most: String = (0..CALLERS_MAX).map(caller).collect();
    check(&most, &[]);
    check(
        &(most + &caller(CALLERS_MAX)),
        &["3:3: callers: found 1001 callers; expected at most 1000"],
    );
}
