//! Hostile documents. Each loads or is refused, in time linear in its length.

mod common;

use capstan_policy::{Catalogs, DIAGNOSTICS_MAX, Diagnostics, load_policy_tests};
use common::{load, policy};

/// The diagnostics of a document as text. Each must be short and without control characters.
fn rendered<T>(loaded: Result<T, Diagnostics>) -> String {
    let Err(diagnostics) = loaded else {
        return String::new();
    };
    assert!(diagnostics.iter().count() <= DIAGNOSTICS_MAX);
    for diagnostic in diagnostics.iter() {
        let line = diagnostic.to_string();
        assert!(line.len() < 2_000, "a diagnostic of {} bytes: {line:.200}", line.len());
        assert!(!line.contains(char::is_control), "{line:?}");
    }
    diagnostics.to_string()
}

fn refuses(document: impl AsRef<[u8]>, what: &str) {
    let wrong = rendered(load(document));
    assert!(wrong.contains(what), "{what}: {wrong:.2000}");
}

fn loads(document: impl AsRef<[u8]>) {
    assert_eq!(rendered(load(document)), "");
}

/// Expects that a document is refused as a policy, as policy tests and as a catalog.
fn refuses_as_anything(document: &str) {
    assert_ne!(rendered(load(document)), "", "{document:.80}");
    assert_ne!(rendered(load_policy_tests(document.as_bytes())), "", "{document:.80}");
    assert_ne!(rendered(Catalogs::default().load(document.as_bytes())), "", "{document:.80}");
}

#[test]
fn nesting_is_limited() {
    const LIMIT: &str = "lists or mappings within each other, too many";
    for opening in ["[", "{a: ", "{? ", "[{a: ", "- ", "? ", "- ? ", ": ", "[? [", "{[: "] {
        let many = opening.repeat(100_000);
        refuses_as_anything(&many);
        refuses_as_anything(&policy(&format!("x: {many}")));
        refuses_as_anything(&policy(&format!("x:\n {many}")));
    }
    refuses("[".repeat(100_000) + &"]".repeat(100_000), LIMIT);
    refuses(policy(&format!("x: {}{}", "{a: ".repeat(100_000), "}".repeat(100_000))), LIMIT);
    refuses(policy(&format!("x:\n {}", "- ".repeat(100_000))), LIMIT);
    for entry in ["a:", "-", "- -", "? a\n:"] {
        let ladder: String =
            (1..3_000).map(|depth| format!("{}{entry}\n", " ".repeat(depth))).collect();
        refuses_as_anything(&policy(&format!("x:\n{ladder}")));
    }
    // More levels than a policy needs, then one more than the limit allows.
    refuses(policy(&format!("x: {}{}", "[".repeat(30), "]".repeat(30))), "unknown key `x`");
    refuses(policy(&format!("x: {}{}", "[".repeat(33), "]".repeat(33))), LIMIT);
}

#[test]
fn aliases_are_never_followed() {
    let mut bomb = "a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for (last, next) in ('a'..='y').zip('b'..='z') {
        let many = vec![format!("*{last}"); 9].join(", ");
        bomb += &format!("{next}: &{next} [{many}]\n");
    }
    refuses(policy(&bomb), "an alias; expected the value itself");
    refuses_as_anything(&bomb);
    refuses(policy("groups: &g [*g, *g]"), "an alias");
    refuses(policy("groups: [&a {id: a, <<: *a}]"), "an alias");
    refuses(policy(&format!("x: [{}]", "*a,".repeat(20_000))), "20001 in all");
    let anchors: String = (0..20_000).map(|n| format!("&a{n} x,")).collect();
    refuses(policy(&format!("x: [{anchors}]")), "20001 in all");
}

#[test]
fn a_name_of_five_megabytes_is_refused_and_not_repeated_whole() {
    let long = "x".repeat(5_000_000);
    let expected = "groups[0].name: found `xxx";
    refuses(policy(&format!("groups: [{{id: a, name: {long}}}]")), expected);
    refuses(policy(&format!("groups: [{{id: a, name: '{long}'}}]")), "1024 bytes, not 5000000");
}

#[test]
fn long_scalars_are_refused_wherever_they_are() {
    let long = "x".repeat(500_000);
    refuses(policy(&format!("groups: [{{id: {long}}}]")), "500000 bytes, more than 1024");
    refuses(policy(&format!("groups: {long}")), "expected a list of groups");
    refuses(
        policy(&format!("identities: [{{id: a, properties: {{? {long}\n : 1}}}}]")),
        "an attribute's name (at most 1024 bytes, not 500000)",
    );
    refuses(format!("version: {long}\ncatalog: {long}"), "expected the number 1");
    refuses(
        format!(
            "version: 1\ncatalog:\n  name: {long}\n  capabilities: [{long}, {long}]\n  resources: \
             [{{name: {long}, actions: [{long}]}}]\n  roles: [{{name: {long}, capabilities: \
             [{long}, y]}}, {{name: {long}}}]\n"
        ),
        "500000 bytes, not 1 to 128",
    );
    refuses(
        policy(&format!("groups: [{{id: a}}]\nroles: [{{id: a/r, capabilities: [{long}]}}]")),
        "expected a capability of catalog `test`",
    );
    let escapes = r"\e".repeat(200_000);
    refuses(policy(&format!("groups: [{{id: a, name: \"{escapes}\"}}]")), r"`\u{1b}\u{1b}");
    refuses(policy(&format!("x: &{long} y")), "an anchor");
    refuses(policy(&format!("x: *{long}")), "an alias");
    refuses(policy(&format!("x: !{long} y")), "a tag");
    refuses(policy(&format!("x: !<{long}> y")), "a tag");
}

#[test]
fn a_key_of_a_megabyte_is_refused() {
    let long = "x".repeat(1_000_000);
    refuses(policy(&format!("{long}: 1")), "found a line without a colon");
    refuses(policy(&format!("\"{long}\": 1")), "found a line without a colon");
    refuses(policy(&format!("? {long}\n: 1")), "unknown key `xxx");
}

#[test]
fn places_below_a_long_key_are_found_in_one_pass() {
    let long = "x".repeat(1_000_000);
    let items = "1,".repeat(20_000);
    refuses(
        policy(&format!("groups: [{{id: a/b}}]\n? {long}\n: [{items}]")),
        "found parent `a`, which is not declared",
    );
}

#[test]
fn many_mistakes_are_counted_and_a_hundred_are_kept() {
    let keys: String = (0..100_000).map(|n| format!("k{n}: 1\n")).collect();
    refuses(policy(&keys), "and 99900 more, 100000 in all");
    refuses(policy(&"groups: []\n".repeat(20_000)), "19999 in all");
    refuses(policy(&format!("groups:\n{}", "- {id: a}\n".repeat(20_000))), "19999 in all");
    refuses(policy(&format!("groups: [{}]", "~,".repeat(20_000))), "20000 in all");
    let bindings = "- {identity: u, role: r, scope: s}\n".repeat(5_000);
    refuses(policy(&format!("role_bindings:\n{bindings}")), "19999 in all");
    let properties: String = (0..20_000).map(|n| format!("p{n}: ~, ")).collect();
    refuses(
        policy(&format!("identities: [{{id: a, properties: {{{properties}}}}}]")),
        "20001 in all",
    );
}

#[test]
fn comments_and_blanks_are_skipped() {
    loads(policy(&format!("#{}\n", "x".repeat(20_000_000))));
    loads(policy(&"# x\n".repeat(100_000)));
    loads(policy(&"\n".repeat(500_000)));
    loads(policy(&" ".repeat(500_000)));
    loads(policy(&"\t".repeat(500_000)));
    loads(policy(&format!("groups: [{}]", " \n".repeat(100_000))));
    loads(format!("{}{}", "\n".repeat(100_000), policy("")));
}

#[test]
fn directives_are_refused() {
    const REFUSED: &str = "1:1: found a directive, which begins with `%`";
    refuses("%YAML 1.2\n---\nversion: 1\n", REFUSED);
    refuses("%YAML 9999999999999999999.2\n---\nversion: 1\n", REFUSED);
    refuses(format!("%{}\n---\n", "x".repeat(1_000_000)), REFUSED);
    refuses("%TAG ! tag:a,2000:\n".repeat(10_000), REFUSED);
}

#[test]
fn unclosed_quotes_and_collections_are_refused() {
    let long = "x".repeat(1_000_000);
    refuses(policy(&format!("groups: \"{long}")), "found a quote that is not closed");
    refuses(policy(&format!("groups: '{long}")), "found a quote that is not closed");
    refuses(
        policy(&format!("groups: \"{}", "a\n ".repeat(100_000))),
        "found a quote that is not closed",
    );
    for opening in ["[", "{", "\"\\", "[\"", "{a: ["] {
        refuses_as_anything(&policy(&format!("groups: {opening}{}", "a, ".repeat(10_000))));
    }
}

#[test]
fn repeated_indicators_are_refused() {
    for mark in [
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "-",
        "?",
        "&",
        "*",
        "!",
        "|",
        ">",
        "'",
        "\"",
        "%",
        "@",
        "`",
        "- ",
        ": ",
        "? ",
        ", ",
        "! ",
        "& ",
        "&a ",
        "!a ",
        "| ",
        "|\n",
        ">-\n",
        "---\n",
        "<<: ",
        "\"a\"",
        "a: b,",
        "\\",
        "\0",
        "\u{1b}",
        "\u{feff}x",
        "\u{2028}",
        "\u{fffe}",
        "\u{10ffff}",
    ] {
        let heap = mark.repeat(20_000);
        refuses_as_anything(&heap);
        refuses_as_anything(&policy(&heap));
        refuses_as_anything(&policy(&format!("groups: {heap}")));
    }
}

#[test]
fn huge_numbers_are_refused() {
    let digits = "9".repeat(1_000_000);
    for number in ["1e309", "1e999999999999999999999", &digits, &format!("1e{digits}")] {
        refuses(
            policy(&format!("identities: [{{id: a, properties: {{p: {number}}}}}]")),
            "expected a string, a boolean or a whole number within 2^53 - 1",
        );
        refuses(format!("version: {number}\ncatalog: test"), "expected the number 1");
    }
    refuses(policy(&format!("x: |{digits}\n a\n")), "expected YAML 1.2 or JSON");
}
