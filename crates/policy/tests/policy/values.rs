//! Values of fields: ids, paths, texts, properties, times.

use capstan_engine::{Timestamp, Value};
use capstan_policy::{format_timestamp, parse_timestamp};

use crate::common::{ACME, check, check_acme, load, policy};

#[test]
fn ids_are_strings() {
    const QUOTE: &str = " (quote it to make it a string)";
    for number in ["5", "-5", "007", "1.5", "1e3", "0x1F", "0o17", ".inf"] {
        let found = format!("3:15: groups[0].id: found the number `{number}`");
        let expected = format!("{found}; expected a path{QUOTE}");
        check(policy(&format!("groups: [{{id: {number}}}]")), &[&expected]);
        check(policy(&format!("groups: [{{id: '{number}'}}]")), &[]);
    }
    for (value, column, found, quote) in [
        ("true", 15, "the boolean `true`", QUOTE),
        ("False", 15, "the boolean `False`", QUOTE),
        ("~", 15, "null", ""),
        ("null", 15, "null", ""),
        ("", 13, "null", ""),
        ("[a]", 15, "a list", ""),
        ("{a: b}", 15, "a mapping", ""),
    ] {
        let expected = format!("3:{column}: groups[0].id: found {found}; expected a path{quote}");
        check(policy(&format!("groups: [{{id: {value}}}]")), &[&expected]);
    }
    // Booleans, numbers and times of YAML 1.1 are strings in YAML 1.2.
    for word in ["no", "NO", "yes", "on", "off", "y", "12:30:45", "2027-01-01", "1_000", "0b1"] {
        check(policy(&format!("groups: [{{id: {word}}}]")), &[]);
    }
    check_acme(
        "role_bindings: [{identity: 5, role: true, scope: 1.5, id: 0x5}]",
        &[
            &format!(
                "7:28: role_bindings[0].identity: found the number `5`; expected a path{QUOTE}"
            ),
            &format!(
                "7:37: role_bindings[0].role: found the boolean `true`; expected a built-in role's \
                 name or a custom role's id{QUOTE}"
            ),
            &format!(
                "7:50: role_bindings[0].scope: found the number `1.5`; expected a path{QUOTE}"
            ),
            &format!("7:59: role_bindings[0].id: found the number `0x5`; expected a path{QUOTE}"),
        ],
    );
}

#[test]
fn paths_follow_section_2() {
    const CHARACTERS: &str = "only A-Z a-z 0-9 - . _ ~ @ : + =";
    let refuses = |path: &str, shown: &str, why: &str| {
        let expected = format!("3:15: groups[0].id: found `{shown}`; expected a path ({why})");
        check(policy(&format!("groups: [{{id: \"{path}\"}}]")), &[&expected]);
    };
    let empty =
        |segment| format!("segment {segment} is empty: no leading, trailing or double slash");
    refuses("", "", "the path is empty");
    refuses("/", "/", &empty(1));
    refuses("/a", "/a", &empty(1));
    refuses("a/", "a/", &empty(2));
    refuses("a//b", "a//b", &empty(2));
    refuses(".", ".", "segment 1 is `.` or `..`");
    refuses("a/../b", "a/../b", "segment 2 is `.` or `..`");
    refuses("a/./b", "a/./b", "segment 2 is `.` or `..`");
    for (escaped, shown, character) in [
        ("a b", "a b", "' '"),
        ("a%2fb", "a%2fb", "'%'"),
        ("a*", "a*", "'*'"),
        ("é", "é", "'é'"),
        ("😀", "😀", "'😀'"),
        (r"a\n", r"a\n", r"'\n'"),
        (r"a\0", r"a\0", r"'\0'"),
        (r"a\e", r"a\u{1b}", r"'\u{1b}'"),
        (r"a\u202e", r"a\u{202e}", r"'\u{202e}'"),
        (r"a\u200b", r"a\u{200b}", r"'\u{200b}'"),
        (r"a\\b", r"a\\b", r"'\\'"),
    ] {
        refuses(escaped, shown, &format!("character {character} in segment 1: {CHARACTERS}"));
    }
    let shown = format!("{}…", "x".repeat(80));
    refuses(&"x".repeat(129), &shown, "segment 1 has 129 bytes, more than 128");
    refuses(&"x".repeat(1025), &shown, "the path has 1025 bytes, more than 1024");
    let deep = ["s"; 17].join("/");
    refuses(&deep, &deep, "the path has more than 16 segments");
    check_acme(
        "role_bindings: [{identity: a b, role: a//b, scope: /acme, id: acme/..}]",
        &[
            &format!(
                "7:28: role_bindings[0].identity: found `a b`; expected a path (character ' ' in \
                 segment 1: {CHARACTERS})"
            ),
            &format!(
                "7:39: role_bindings[0].role: found `a//b`; expected a built-in role's name or a \
                 custom role's id ({})",
                empty(2)
            ),
            &format!("7:52: role_bindings[0].scope: found `/acme`; expected a path ({})", empty(1)),
            "7:63: role_bindings[0].id: found `acme/..`; expected a path (segment 2 is `.` or \
             `..`)",
        ],
    );
    check_acme(
        "role_bindings: [{identity: alice, role: a*, scope: acme}]",
        &["7:41: role_bindings[0].role: found `a*`; expected a built-in role's name or a custom \
           role's id (character '*': only A-Z a-z 0-9 _ - . +)"],
    );
}

#[test]
fn texts_are_short_and_have_no_control_characters() {
    let (longest, bytes) = ("x".repeat(1024), "é".repeat(512));
    for good in ["", "Acme Corp", "it's", "naïve 😀", &longest, &bytes] {
        check(policy(&format!("groups: [{{id: a, name: \"{good}\"}}]")), &[]);
    }
    let refuses = |text: &str, shown: &str, why: &str| {
        let expected = format!("3:24: groups[0].name: found `{shown}`; expected a text ({why})");
        check(policy(&format!("groups: [{{id: a, name: \"{text}\"}}]")), &[&expected]);
    };
    let shown = format!("{}…", "é".repeat(80));
    refuses(&"é".repeat(513), &shown, "at most 1024 bytes, not 1026");
    for (escaped, shown) in [
        (r"a\n", r"a\n"),
        (r"a\tb", r"a\tb"),
        (r"\0", r"\0"),
        (r"\e[31m", r"\u{1b}[31m"),
        (r"\x7f", r"\u{7f}"),
        (r"\u0085", r"\u{85}"),
        (r"\x9b", r"\u{9b}"),
    ] {
        refuses(escaped, shown, "no control characters");
    }
    check(
        policy("groups:\n- id: a\n  name: |\n    two\n    lines\n"),
        &["6:5: groups[0].name: found `two\\nlines\\n`; expected a text (no control characters)"],
    );
    check(
        policy(
            "groups: [{id: a, name: 5}]
roles: [{id: a/r, name: ~, description: [], capabilities: [record.read]}]
identities: [{id: u, name: true, type: 1.5}, {id: v, type: ''}]
resources: [{id: r, type: ~, name: {}}]
",
        ),
        &[
            "3:24: groups[0].name: found the number `5`; expected a text (quote it to make it a \
             string)",
            "4:25: roles[0].name: found null; expected a text",
            "4:41: roles[0].description: found a list; expected a text",
            "5:28: identities[0].name: found the boolean `true`; expected a text (quote it to make \
             it a string)",
            "5:40: identities[0].type: found the number `1.5`; expected a text (quote it to make \
             it a string)",
            "5:60: identities[1].type: found an empty type; expected a word such as `user` or \
             `repo`",
            "6:27: resources[0].type: found null; expected a text",
            "6:36: resources[0].name: found a mapping; expected a text",
        ],
    );
}

#[test]
fn properties_are_strings_booleans_and_exact_integers() {
    let document =
        |value: &str| policy(&format!("identities: [{{id: a, properties: {{p: {value}}}}}]"));
    let value = |text: &str| {
        let policy = load(document(text)).unwrap();
        policy.model.facts().identities[0].properties["p"].clone()
    };
    for (text, integer) in [
        ("0", 0),
        ("-0", 0),
        ("007", 7),
        ("+7", 7),
        ("0x1F", 31),
        ("0o17", 15),
        ("1e3", 1000),
        ("2.0", 2),
        ("9007199254740991", 9_007_199_254_740_991),
        ("-9007199254740991", -9_007_199_254_740_991),
        ("9007199254740991.0", 9_007_199_254_740_991),
    ] {
        assert_eq!(value(text), Value::Integer(integer), "{text}");
    }
    for (text, string) in
        [("''", ""), ("'1'", "1"), ("no", "no"), (r#""\n""#, "\n"), ("1_0", "1_0"), ("NaN", "NaN")]
    {
        assert_eq!(value(text), Value::String(string.into()), "{text}");
    }
    assert_eq!(value("TRUE"), Value::Boolean(true));
    assert_eq!(value("'true'"), Value::String("true".into()));

    let refuses = |text: &str, found: &str| {
        let place = "3:38: identities[0].properties";
        let expected = "a string, a boolean or a whole number within 2^53 - 1";
        check(document(text), &[&format!("{place}: found {found}; expected {expected}")]);
    };
    for number in [
        "1.5",
        "-0.1",
        "9007199254740992",
        "-9007199254740992",
        "9007199254740993.0",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "0xFFFFFFFFFFFFFFFF",
        "1e309",
        "-1e309",
        "1e15000",
        ".inf",
        ".nan",
    ] {
        refuses(number, &format!("the number `{number}`"));
    }
    refuses("~", "null");
    refuses("[1]", "a list");
    refuses("{q: {r: 1}}", "a mapping");
    check(
        policy("identities: [{id: a, properties: [p]}]"),
        &["3:34: identities[0].properties: found a list; expected a mapping of attributes"],
    );
    check(
        policy("resources: [{id: a, type: t, properties: {'': 1, 5: 2, [x]: 3, \"\\n\": 4}}]"),
        &[
            "3:43: resources[0].properties: found ``; expected an attribute's name (not empty)",
            "3:50: resources[0].properties: found the number `5`; expected an attribute's name \
             (quote it to make it a string)",
            "3:56: resources[0].properties: found a list; expected an attribute's name",
            "3:64: resources[0].properties: found `\\n`; expected an attribute's name (no control \
             characters)",
        ],
    );
}

#[test]
fn times_are_rfc_3339() {
    let document = |time: &str| {
        let binding = "identity: alice, role: owner, scope: acme";
        policy(&format!("{ACME}role_bindings: [{{expires_at: {time}, {binding}}}]"))
    };
    for (time, seconds, nanos) in [
        ("2027-01-01T00:00:00Z", 1_798_761_600, 0),
        ("2027-01-01t00:00:00z", 1_798_761_600, 0),
        ("2026-12-31T23:00:00-01:00", 1_798_761_600, 0),
        ("2027-01-01T00:00:00.000000001Z", 1_798_761_600, 1),
        ("9999-12-31T23:59:59.999999999Z", 253_402_300_799, 999_999_999),
        ("1969-12-31T23:59:59Z", -1, 0),
        ("0001-01-01T00:00:00Z", -62_135_596_800, 0),
    ] {
        check(document(time), &[]);
        assert_eq!(parse_timestamp(time), Ok(Timestamp::new(seconds, nanos)), "{time}");
    }
    let refuses = |time: &str, found: &str, more: &str| {
        let expected = format!("a time in RFC 3339, such as 2027-01-01T00:00:00Z{more}");
        let place = "7:30: role_bindings[0].expires_at";
        check(document(time), &[&format!("{place}: found {found}; expected {expected}")]);
    };
    for bad in [
        "tomorrow",
        "2027-01-01",
        "2027-01-01T00:00:00",
        "2027-01-01T00:00Z",
        "2027-02-29T00:00:00Z",
        "2027-01-01T24:00:00Z",
        "2027-01-01T00:60:00Z",
        "2027-01-01T00:00:61Z",
        "2027-01-01T00:00:00+24:00",
        "2027-01-01T00:00:00+0100",
        "10000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-01:00",
        "0000-01-01T00:00:00Z",
        "-0001-01-01T00:00:00Z",
        "2027-01-01T00:00:00Zulu",
        "2027-1-1T0:0:0Z",
    ] {
        refuses(bad, &format!("`{bad}`"), "");
    }
    refuses("''", "``", "");
    refuses("~", "null", "");
    refuses("1798761600", "the number `1798761600`", "");
    for (seconds, text) in [
        (-62_135_596_800, Some("0001-01-01T00:00:00Z")),
        (253_402_300_799, Some("9999-12-31T23:59:59Z")),
        (-62_135_596_801, None),
        (253_402_300_800, None),
        (i64::MIN, None),
        (i64::MAX, None),
    ] {
        assert_eq!(format_timestamp(Timestamp::new(seconds, 0)).as_deref(), text);
    }
}
