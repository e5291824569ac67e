//! JSON is YAML: the same policy in both gives the same facts, and the same diagnostics for
//! mistakes.

mod common;

use common::{JSON, YAML, check, facts};

/// Expects these diagnostics for [`JSON`] with the first `from` replaced by `to`.
fn check_changed(from: &str, to: &str, expected: &[&str]) {
    assert!(JSON.contains(from), "{from}");
    check(JSON.replacen(from, to, 1), expected);
}

#[test]
fn json_gives_the_same_facts_as_yaml() {
    let expected = facts(YAML);
    assert_eq!(facts(JSON), expected);
    assert_eq!(facts(JSON.replace('\t', "        ")), expected);
    assert_eq!(facts(JSON.replace('\t', " \t ")), expected);
    assert_eq!(facts(JSON.replace('\t', "")), expected);
    assert_eq!(facts(JSON.replace('\n', "\r\n")), expected);
    assert_eq!(facts(JSON.replace('\n', "\n\n")), expected);
    assert_eq!(facts(format!("\u{feff}\n\t\n{JSON}\n\n")), expected);
    assert_eq!(facts(JSON.replace("\"id\"", r#""\u0069d""#)), expected);
    let minified = JSON.replace(['\t', '\n'], "").replace(": ", ":").replace(", ", ",");
    assert_eq!(minified.lines().count(), 1);
    assert_eq!(facts(minified), expected);
}

#[test]
fn positions_are_those_in_the_json_text() {
    check_changed(
        "\"acme\"",
        "17",
        &[
            "5:10: groups[0].id: found the number `17`; expected a path (quote it to make it a \
             string)",
            "6:10: groups[1].id: found parent `acme`, which is not declared; expected a declared \
             group",
            "17:12: role_bindings[0].scope: found `acme`; expected a declared group or resource",
        ],
    );
    check_changed(
        "\"scope\"",
        "\"skope\"",
        &[
            "14:20: role_bindings[0]: found no `scope`; expected the key `scope`",
            "17:3: role_bindings[0]: found unknown key `skope`; expected one of the keys id, \
             description, identity, role, scope, expires_at, when",
        ],
    );
    check_changed(
        "\"name\"",
        "\"id\"",
        &[
            "5:18: groups[0]: found key `id` again; expected each key once",
            "5:24: groups[0].id: found `it's ü 😀`; expected a path (character '\\'' in segment 1: \
             only A-Z a-z 0-9 - . _ ~ @ : + =)",
        ],
    );
    check_changed("[ ]", "null", &["21:15: resources: found null; expected a list of resources"]);
    check(
        "{\"version\":1,\"catalog\":\"test\",\"groups\":[{\"id\":\"ü\"},{\"id\":\"a/b\"}]}",
        &[
            "1:47: groups[0].id: found `ü`; expected a path (character 'ü' in segment 1: only A-Z \
             a-z 0-9 - . _ ~ @ : + =)",
            "1:58: groups[1].id: found parent `a`, which is not declared; expected a declared \
             group",
        ],
    );
}

#[test]
fn numbers_are_exact_or_refused() {
    let refused = |number: &str| {
        check_changed(
            "-7",
            number,
            &[&format!(
                "11:25: identities[0].properties: found the number `{number}`; expected a string, \
                 a boolean or a whole number within 2^53 - 1"
            )],
        );
    };
    for number in ["1e309", "-1e309", "9007199254740992", "9007199254740993", "0.5", "1e-1"] {
        refused(number);
    }
    for number in ["-0", "1E3", "10.0", "-9007199254740991"] {
        check_changed("-7", number, &[]);
    }
}

#[test]
fn lone_surrogates_are_refused() {
    let half = "5:26: found half of a surrogate pair (`\\uD800` to `\\uDFFF`); expected both halves, or the character \
                itself";
    check_changed(r"\uDE00", "", &[half]);
    check_changed(r"\uDE00", "x", &[half]);
    check_changed(r"\uDE00", r"\n", &[half]);
    check_changed(r"\uDE00", r"\uD83D", &[half]);
    check_changed(r"\uD83D", "", &[half]);
}

#[test]
fn escaped_characters_are_checked_too() {
    let place = "5:26: groups[0].name: found";
    check_changed(
        r"\u00fc",
        r"\u0000",
        &[&format!("{place} `it's \\0 😀`; expected a text (no control characters)")],
    );
    check_changed(
        r"\u00fc",
        r"\b",
        &[&format!("{place} `it's \\u{{8}} 😀`; expected a text (no control characters)")],
    );
    check_changed(
        r"acme\/dev",
        r"acme\/\/dev",
        &[
            "6:10: groups[1].id: found `acme//dev`; expected a path (segment 2 is empty: no \
             leading, trailing or double slash)",
            "8:19: roles[0].id: found parent `acme/dev`, which is not declared; expected a \
             declared group",
        ],
    );
}

#[test]
fn text_that_is_neither_json_nor_yaml_is_refused() {
    let unclosed = "1:1: found `{` that is not closed; expected `}`";
    check(JSON.trim_end().trim_end_matches('}'), &[unclosed]);
    check(
        format!("{JSON}{JSON}"),
        &["23:1: found did not find expected <document start>; expected YAML 1.2 or JSON"],
    );
    check_changed(
        "\"resources\"",
        "// none\n\"resources\"",
        &["21:2: found unknown key `// none \"resources\"`; expected one of the keys version, \
           catalog, groups, roles, identities, role_bindings, resources, credentials"],
    );
    check_changed("1,", "1, # one", &[]);
    check_changed("{\"id\": \"acme\\/dev\"", "{id: acme/dev", &[]);
}
