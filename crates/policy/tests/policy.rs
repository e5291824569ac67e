//! Policy documents (section 3 of the contract): what loads, and what is said about what does not.
//!
//! Every case is a document and all that is wrong with it: line, column, field, found, expected.

mod common;

use capstan_engine::{Of, Timestamp, Value};
use capstan_policy::{format_timestamp, parse_timestamp};
use common::{ACME, check, check_acme, facts, lines, load, policy};

#[test]
fn a_policy_loads_whole() {
    check(policy(""), &[]);
    check_acme("", &[]);
    let document = policy(
        "groups: [{id: acme, name: Acme Corp}]
roles: [{id: acme/r, name: R, description: reads, capabilities: [record.read, gulfstream]}]
identities:
  - {id: alice, name: Alice}
  - {id: acme/ci, type: service, properties: {team: platform, on: true, level: 3, no: 'off'}}
role_bindings:
  - {id: acme/b1, identity: alice, role: owner, scope: acme}
  - {identity: acme/ci, role: acme/r, scope: acme, expires_at: 2027-01-01T00:00:00Z}
resources: [{id: acme/nginx, type: repo, name: Nginx, properties: {visibility: private}}]
",
    );
    let policy = load(document).unwrap();
    assert!(policy.warnings.is_empty());
    let facts = policy.model.facts();
    assert_eq!(facts.groups[0].name, "Acme Corp");
    assert_eq!((&*facts.roles[0].name, &*facts.roles[0].description), ("R", "reads"));
    assert_eq!(facts.roles[0].capabilities, ["record.read", "gulfstream"]);
    assert_eq!((&*facts.identities[0].kind, &*facts.identities[1].kind), ("user", "service"));
    let properties: Vec<_> = facts.identities[1].properties.iter().collect();
    assert_eq!(
        properties,
        [
            (&"level".into(), &Value::Integer(3)),
            (&"no".into(), &Value::String("off".into())),
            (&"on".into(), &Value::Boolean(true)),
            (&"team".into(), &Value::String("platform".into())),
        ]
    );
    assert_eq!(facts.role_bindings[0].id.as_ref().unwrap().as_str(), "acme/b1");
    assert_eq!(facts.role_bindings[0].expires_at, None);
    assert_eq!(facts.role_bindings[1].expires_at, Some(Timestamp::new(1_798_761_600, 0)));
    assert_eq!((&*facts.resources[0].kind, &*facts.resources[0].name), ("repo", "Nginx"));
}

#[test]
fn a_role_without_capabilities_is_warned_of() {
    let document =
        policy("groups: [{id: a}]\nroles:\n- {id: a/r}\n- {id: a/s, capabilities: []}\n");
    let policy = load(document).unwrap();
    let warnings: Vec<_> = policy.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "5:3: roles[0]: found role `a/r` with no capability; expected at least one capability",
            "6:3: roles[1]: found role `a/s` with no capability; expected at least one capability",
        ]
    );
}

#[test]
fn every_form_of_line_end_and_a_byte_order_mark_are_read() {
    let unix = policy(ACME);
    for same in [unix.replace('\n', "\r\n"), unix.replace('\n', "\r"), format!("\u{feff}{unix}")] {
        assert_eq!(facts(same), facts(&unix));
    }
    let number =
        "3:15: groups[0].id: found the number `5`; expected a path (quote it to make it a string)";
    for end in ["\n", "\r\n", "\r"] {
        check(policy("groups: [{id: 5}]\n").replace('\n', end), &[number]);
    }
    let version = "1:10: version: found the number `2`; expected the number 1";
    check("\u{feff}version: 2\ncatalog: test", &[version]);
    check(policy("...\n"), &[]);
    check("---\nversion: 1\ncatalog: test\n...\n# the end\n", &[]);
}

#[test]
fn a_document_is_one_mapping() {
    for empty in ["", "\n\n", "# nothing\n", "\u{feff}"] {
        check(empty, &["1:1: found nothing; expected a document"]);
    }
    for (document, found) in [
        ("~", "null"),
        ("true", "the boolean `true`"),
        ("0x1F", "the number `0x1F`"),
        ("no", "the string `no`"),
        ("'5'", "the string `5`"),
        ("[version, 1]", "a list"),
    ] {
        let expected = "a policy: a mapping with `version`, `catalog` and what it declares";
        check(document, &[&format!("1:1: found {found}; expected {expected}")]);
    }
    check(policy("---\nversion: 1\n"), &["4:1: found a second document; expected one document"]);
    check(policy("...\n  more\n"), &["4:3: found a second document; expected one document"]);
}

#[test]
fn bytes_that_are_not_text_are_errors() {
    let utf_8 = "found bytes that are not UTF-8; expected UTF-8";
    check(b"\xff\xfev\0e\0", &[&format!("1:1: {utf_8}")]);
    check(b"version: 1\n# \xc3\xa9\xc3\n", &[&format!("2:4: {utf_8}")]);
    check(b"\xef\xbb\xbfv\r\nw\rx\ny\xff", &[&format!("4:2: {utf_8}")]);
    check(b"version: 1\n# surrogate \xed\xa0\x80", &[&format!("2:13: {utf_8}")]);
    check(b"version: 1\n# overlong \xc0\xaf", &[&format!("2:12: {utf_8}")]);
    for (document, place) in [
        (policy("\0groups: []"), "3:1: catalog"),
        (policy("groups: [{id: \"a\0\"}]"), "3:17: groups"),
        (policy("groups: [{id: a\0b}]"), "3:16: groups"),
        (policy("# comment \0\n"), "3:11"),
    ] {
        let found = "found unexpected character: `\\u{0}'; expected YAML 1.2 or JSON";
        check(document, &[&format!("{place}: {found}")]);
    }
}

#[test]
fn required_keys_are_required() {
    let (version, catalog) = (
        "1:1: found no `version`; expected the key `version`",
        "1:1: found no `catalog`; expected the key `catalog`",
    );
    check("{}", &[version, catalog]);
    check("catalog: test", &[version]);
    check("version: 1", &[catalog]);
    let lacks = |body: &str, places: &[(&str, &str)]| {
        let expected =
            |(place, key)| format!("{place}: found no `{key}`; expected the key `{key}`");
        let expected: Vec<_> = places.iter().copied().map(expected).collect();
        check(policy(body), &expected.iter().map(String::as_str).collect::<Vec<_>>());
    };
    lacks("groups:\n- name: a\n", &[("4:3: groups[0]", "id")]);
    lacks("roles: [{name: r}]", &[("3:9: roles[0]", "id")]);
    lacks("identities: [{type: user}]", &[("3:14: identities[0]", "id")]);
    lacks("resources: [{}]", &[("3:13: resources[0]", "type"), ("3:13: resources[0]", "id")]);
    let binding = "3:17: role_bindings[0]";
    lacks("role_bindings: [{}]", &[(binding, "identity"), (binding, "role"), (binding, "scope")]);
}

#[test]
fn the_version_is_the_number_one() {
    check("{version: 1, catalog: test}", &[]);
    for (version, found) in [
        ("2", "the number `2`"),
        ("1.0", "the number `1.0`"),
        ("'1'", "the string `1`"),
        ("one", "the string `one`"),
        ("true", "the boolean `true`"),
        ("~", "null"),
        ("[1]", "a list"),
        ("99999999999999999999", "the number `99999999999999999999`"),
    ] {
        let expected = format!("1:11: version: found {found}; expected the number 1");
        check(format!("{{version: {version}, catalog: test}}"), &[&expected]);
    }
}

#[test]
fn the_catalog_is_known_or_written_out() {
    let unknown = "1:23: catalog: found catalog `tset`; expected a catalog that is built in or \
                   loaded: test, chainguard-2023-12-07, chainguard-2025-08-14, \
                   chainguard-2025-08-14+errata";
    check("{version: 1, catalog: chainguard-2025-08-14}", &[]);
    check("{version: 1, catalog: tset}", &[unknown]);
    check(
        "{version: 1, catalog: [test]}",
        &["1:23: catalog: found a list; expected a catalog's name, or a catalog"],
    );
    check(
        "{version: 1, catalog: 5}",
        &["1:23: catalog: found the number `5`; expected a catalog's name, or a catalog (quote \
           it to make it a string)"],
    );
    check(
        "{version: 1, catalog: }",
        &["1:21: catalog: found null; expected a catalog's name, or a catalog"],
    );
    // What an unknown catalog declares is not known, so nothing is said about it.
    check(
        "{version: 1, catalog: tset, groups: [{id: a}], identities: [{id: u}], roles: [{id: a/r, \
         capabilities: [x.y]}], role_bindings: [{identity: u, role: z, scope: a}]}",
        &[unknown],
    );
}

#[test]
fn a_catalog_can_stand_in_a_policy() {
    let inline = "version: 1
catalog:
  name: in
  resources: [{name: door, actions: [open, close]}]
  roles:
    - {name: porter, capabilities: [door.open]}
groups: [{id: house}]
identities: [{id: bob}]
role_bindings: [{identity: bob, role: porter, scope: house}]
";
    check(inline, &[]);
    check(
        inline.replace("close", "open"),
        &["4:44: catalog.resources[0].actions[1]: found `door.open` again; expected each \
           capability once"],
    );
    check(
        inline.replace("name: in", "named: in").replace("bob,", "bo,"),
        &[
            "3:3: catalog: found unknown key `named`; expected one of the keys name, resources, \
             capabilities, roles",
            "3:3: catalog: found no `name`; expected the key `name`",
            "9:28: role_bindings[0].identity: found `bo`; expected a declared identity",
        ],
    );
    check(
        inline.replace("role: porter", "role: owner").replace("[door.open]", "[door.lock]"),
        &["6:37: catalog.roles[0].capabilities[0]: found `door.lock`; expected a capability of \
           catalog `in`"],
    );
    check(
        inline.replace("role: porter", "role: owner"),
        &["9:39: role_bindings[0].role: found `owner`; expected a built-in role of the catalog, \
           or the id of a declared custom role"],
    );
}

#[test]
fn unknown_keys_are_errors() {
    const TOP: &str = "version, catalog, groups, roles, identities, role_bindings, resources";
    let check_key = |body: &str, place: &str, key: &str, known: &str| {
        let expected =
            format!("{place} found unknown key `{key}`; expected one of the keys {known}");
        check(policy(body), &[&expected]);
    };
    check_key("group: []", "3:1:", "group", TOP);
    check_key("Version: 1", "3:1:", "Version", TOP);
    check_key("5: 1", "3:1:", "5", TOP);
    check_key("'': 1", "3:1:", "", TOP);
    check_key("groups: [{id: a, nmae: b}]", "3:18: groups[0]:", "nmae", "id, name");
    let known = "id, name, type, properties";
    check_key("identities: [{id: a, x: {y: [z]}}]", "3:22: identities[0]:", "x", known);
    let known = "id, type, name, properties";
    check_key("resources: [{id: a, type: b, y: c}]", "3:30: resources[0]:", "y", known);
    check_acme(
        "role_bindings:\n- identity: alice\n  role: owner\n  scope: acme\n  expires: 5",
        &["11:3: role_bindings[0]: found unknown key `expires`; expected one of the keys id, \
           identity, role, scope, expires_at, when"],
    );
    check(
        policy("? [a, b]\n: c\n? {d: e}\n: f"),
        &[
            &format!("3:3: found a list; expected one of the keys {TOP}"),
            &format!("5:3: found a mapping; expected one of the keys {TOP}"),
        ],
    );
}

#[test]
fn duplicate_keys_are_errors() {
    check(policy("version: 1"), &["3:1: found key `version` again; expected each key once"]);
    check(
        policy("groups: [{id: a, id: b}]"),
        &["3:18: groups[0]: found key `id` again; expected each key once"],
    );
    check(
        policy("identities: [{id: a, properties: {x: 1, y: 2, \"x\": 1}}]"),
        &["3:47: identities[0].properties: found key `x` again; expected each key once"],
    );
    check(
        policy("identities: [{id: a, properties: {x: ~, x: 1}}]"),
        &[
            "3:38: identities[0].properties: found null; expected a string, a boolean or a whole \
             number within 2^53 - 1",
            "3:41: identities[0].properties: found key `x` again; expected each key once",
        ],
    );
    check(
        policy("groups: [{id: a}]\ngroups: [{id: b}]\nidentities: [{id: b/u}, {id: c/u}]"),
        &[
            "4:1: found key `groups` again; expected each key once",
            "5:30: identities[1].id: found parent `c`, which is not declared; expected a declared \
             group",
        ],
    );
}

#[test]
fn yaml_that_is_more_than_json_is_refused() {
    check(
        policy("groups: [{id: &x a, name: *x}, {id: *y}]"),
        &[
            "3:15: groups[0].id: found an anchor; expected the value alone",
            "3:27: groups[0].name: found an alias; expected the value written out",
            "3:37: groups[1].id: found an alias; expected the value written out",
        ],
    );
    check(
        policy("groups: &g\n- &h\n  id: a\n- *h\nroles: *g\n*x : 5\n"),
        &[
            "3:9: groups: found an anchor; expected the value alone",
            "4:3: groups: found an anchor; expected the value alone",
            "6:3: groups: found an alias; expected the value written out",
            "7:8: roles: found an alias; expected the value written out",
            "8:1: found an alias; expected the value written out",
        ],
    );
    check(
        policy("groups: [{id: !!str 5}, !foo {id: b}, {! id: c}]\nroles: !!seq []"),
        &[
            "3:15: groups[0].id: found a tag; expected the value alone",
            "3:21: groups[0].id: found the number `5`; expected a path (quote it to make it a \
             string)",
            "3:25: groups: found a tag; expected the value alone",
            "3:40: groups[2]: found a tag; expected the value alone",
            "4:8: roles: found a tag; expected the value alone",
        ],
    );
    check(
        policy("groups: [{id: a, <<: {name: b}}]"),
        &["3:18: groups[0]: found the merge key `<<`; expected keys written out"],
    );
    check(
        policy("identities: [{id: a, properties: {<<: {b: c}}}]"),
        &[
            "3:35: identities[0].properties: found `<<`; expected an attribute's name (no merge \
             keys)",
            "3:39: identities[0].properties: found a mapping; expected a string, a boolean or a \
             whole number within 2^53 - 1",
        ],
    );
    for directive in ["%YAML 1.2", "%YAML 1.1", "%TAG ! tag:a,2000:", "%FOO"] {
        check(
            format!("{directive}\n---\nversion: 1\ncatalog: test\n"),
            &["1:1: found YAML directives are disallowed; expected YAML 1.2 or JSON"],
        );
    }
}

#[test]
fn lists_are_lists() {
    for (list, what) in [
        ("groups", "groups"),
        ("roles", "roles"),
        ("identities", "identities"),
        ("role_bindings", "role bindings"),
        ("resources", "resources"),
    ] {
        check(policy(&format!("{list}: []")), &[]);
        for (value, found) in [
            ("~", "null"),
            ("true", "the boolean `true`"),
            ("5", "the number `5`"),
            ("''", "the string ``"),
            ("a, b", "the string `a, b`"),
            ("{id: a}", "a mapping"),
        ] {
            let column = list.len() + 3;
            let expected = format!("3:{column}: {list}: found {found}; expected a list of {what}");
            check(policy(&format!("{list}: {value}")), &[&expected]);
        }
    }
    check_acme(
        "role_bindings:\n# none yet\n",
        &["7:14: role_bindings: found null; expected a list of role bindings"],
    );
    check(
        policy("groups: [{id: a}]\nroles: [{id: a/r, capabilities: record.read}]"),
        &["4:33: roles[0].capabilities: found the string `record.read`; expected a list of \
           capabilities"],
    );
}

#[test]
fn entries_are_mappings() {
    check(
        policy("groups:\n- a\n-\n- ~\n- - id: b\n- {id: c}\n"),
        &[
            "4:3: groups[0]: found the string `a`; expected a group: a mapping with `id`",
            "5:2: groups[1]: found null; expected a group: a mapping with `id`",
            "6:3: groups[2]: found null; expected a group: a mapping with `id`",
            "7:3: groups[3]: found a list; expected a group: a mapping with `id`",
        ],
    );
    check(
        policy("roles: [r]\nidentities: [u]\nrole_bindings: [b]\nresources: [1]"),
        &[
            "3:9: roles[0]: found the string `r`; expected a role: a mapping with `id` and \
             `capabilities`",
            "4:14: identities[0]: found the string `u`; expected an identity: a mapping with `id`",
            "5:17: role_bindings[0]: found the string `b`; expected a role binding: a mapping with \
             `identity`, `role` and `scope`",
            "6:13: resources[0]: found the number `1`; expected a resource: a mapping with `id` \
             and `type`",
        ],
    );
}

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
    // Booleans, numbers and times of YAML 1.1 are strings.
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
    refuses("1798761600", "the number `1798761600`", " (quote it to make it a string)");
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

#[test]
fn an_id_names_one_thing() {
    check(
        policy("groups: [{id: a}, {id: b}, {id: a}]"),
        &["3:33: groups[2].id: found `a` again, after groups[0]; expected an id that nothing \
           else has"],
    );
    check_acme(
        "role_bindings: [{id: acme/dev, identity: alice, role: owner, scope: acme}]",
        &["7:22: role_bindings[0].id: found `acme/dev` again, after groups[1]; expected an id \
           that nothing else has"],
    );
    // The kinds have no spaces of their own; what is declared twice is still declared as both.
    check(
        policy(
            "identities: [{id: a}, {id: a/x}]
groups: [{id: a}, {id: a/x}]
resources: [{id: a/y, type: t}]
roles: [{id: a/y, capabilities: [record.read]}]
role_bindings:
- {id: a/z, identity: a/x, role: a/y, scope: a/y}
- {id: a/z, identity: a, role: a/y, scope: a}
",
        ),
        &[
            "3:19: identities[0].id: found `a` again, after groups[0]; expected an id that nothing \
             else has",
            "3:28: identities[1].id: found `a/x` again, after groups[1]; expected an id that \
             nothing else has",
            "5:18: resources[0].id: found `a/y` again, after roles[0]; expected an id that nothing \
             else has",
            "8:8: role_bindings[0].id: found `a/z`; expected a path below the binding's scope \
             `a/y`",
            "9:8: role_bindings[1].id: found `a/z` again, after role_bindings[0]; expected an id \
             that nothing else has",
        ],
    );
}

#[test]
fn parents_are_declared_groups() {
    let check = |body: &str, place: &str, parent: &str| {
        let expected = format!("3:{place}.id: found parent {parent}; expected a declared group");
        check(policy(body), &[&expected]);
    };
    let nowhere = "`x`, which is not declared";
    check("groups: [{id: x/a}]", "15: groups[0]", nowhere);
    check("roles: [{id: x/a, capabilities: [record.read]}]", "14: roles[0]", nowhere);
    check("identities: [{id: x/a}]", "19: identities[0]", nowhere);
    check("resources: [{id: x/a, type: t}]", "18: resources[0]", nowhere);
    // One that is missing in the middle is said to be missing once.
    let middle = "`a/b`, which is not declared";
    check("groups: [{id: a}, {id: a/b/c}, {id: a/b/c/d}]", "24: groups[1]", middle);
    let user = "`u`, which is identities[0]";
    check("identities: [{id: u}, {id: u/v}]", "28: identities[1]", user);
    check_acme(
        "role_bindings: [{id: acme/dev/r1/x/y, identity: alice, role: owner, scope: acme/dev/r1}]",
        &[],
    );
}

#[test]
fn a_custom_role_has_a_group() {
    check(
        policy("roles: [{id: r, capabilities: [record.read]}]"),
        &["3:14: roles[0].id: found `r`; expected a path below the group that owns the role"],
    );
}

#[test]
fn bindings_name_what_is_declared() {
    let check = |fields: &str, expected: &[&str]| {
        check_acme(&format!("role_bindings:\n- {{{fields}}}\n"), expected);
    };
    check("identity: alice, role: owner, scope: acme", &[]);
    check("identity: alice, role: owner, scope: loose", &[]);
    check("identity: acme/ci, role: reader, scope: other", &[]);
    check("identity: alice, role: acme/dev/auditor, scope: acme/dev", &[]);
    check("identity: alice, role: acme/dev/auditor, scope: acme/dev/r1", &[]);
    check(
        "identity: bob, role: own, scope: acm",
        &[
            "8:14: role_bindings[0].identity: found `bob`; expected a declared identity",
            "8:25: role_bindings[0].role: found `own`; expected a built-in role of the catalog, or \
             the id of a declared custom role",
            "8:37: role_bindings[0].scope: found `acm`; expected a declared group or resource",
        ],
    );
    check(
        "identity: acme, role: acme/auditor, scope: alice",
        &[
            "8:14: role_bindings[0].identity: found `acme`; expected a declared identity",
            "8:26: role_bindings[0].role: found `acme/auditor`; expected the id of a declared \
             custom role, or a built-in role of the catalog",
            "8:47: role_bindings[0].scope: found `alice`; expected a declared group or resource",
        ],
    );
    check(
        "identity: alice, role: acme/dev, scope: acme/dev/auditor",
        &[
            "8:27: role_bindings[0].role: found `acme/dev`; expected the id of a declared custom \
             role, or a built-in role of the catalog",
            "8:44: role_bindings[0].scope: found `acme/dev/auditor`; expected a declared group or \
             resource",
        ],
    );
    // What can be asked about is no scope unless it is registered.
    check(
        "identity: alice, role: owner, scope: acme/dev/r1/part",
        &["8:41: role_bindings[0].scope: found `acme/dev/r1/part`; expected a declared group or \
           resource"],
    );
}

#[test]
fn custom_roles_stay_in_their_subtree() {
    for scope in ["acme", "other", "loose"] {
        let binding = format!("{{identity: alice, role: acme/dev/auditor, scope: {scope}}}");
        let expected = format!(
            "7:41: role_bindings[0].role: found `acme/dev/auditor`; expected a role that may be \
             bound at `{scope}`: a custom role only at or below the group that owns it"
        );
        check_acme(&format!("role_bindings: [{binding}]"), &[&expected]);
    }
    // By whole segments: `a` does not own `ab`.
    check(
        policy(
            "groups: [{id: a}, {id: ab}]
roles: [{id: a/r, capabilities: [record.read]}]
identities: [{id: u}]
role_bindings: [{identity: u, role: a/r, scope: ab}]
",
        ),
        &["6:37: role_bindings[0].role: found `a/r`; expected a role that may be bound at `ab`: \
           a custom role only at or below the group that owns it"],
    );
}

#[test]
fn capabilities_of_custom_roles_are_of_the_catalog() {
    check(
        policy(
            "groups: [{id: a}]
roles:
- id: a/r
  capabilities: [record.read, record.delete, 5, '', record, gulfstream, \"\\e\", record.write]
",
        ),
        &[
            "6:31: roles[0].capabilities[1]: found `record.delete`; expected a capability of \
             catalog `test`",
            "6:46: roles[0].capabilities[2]: found the number `5`; expected a name (quote it to \
             make it a string)",
            "6:49: roles[0].capabilities[3]: found ``; expected a capability of catalog `test`",
            "6:53: roles[0].capabilities[4]: found `record`; expected a capability of catalog \
             `test`",
            "6:73: roles[0].capabilities[6]: found `\\u{1b}`; expected a capability of catalog \
             `test`",
        ],
    );
}

#[test]
fn the_same_binding_twice_is_an_error() {
    check_acme(
        "role_bindings:
- {identity: alice, role: owner, scope: acme}
- {identity: alice, role: reader, scope: acme}
- {identity: acme/ci, role: owner, scope: acme}
- {identity: alice, role: owner, scope: acme/dev}
- {id: acme/b, identity: alice, expires_at: 2027-01-01T00:00:00Z, role: owner, scope: acme}
",
        &["12:3: role_bindings[4]: found the same binding as role_bindings[0]; expected an \
           identity, role, scope and conditions that no other binding has"],
    );
}

#[test]
fn a_bindings_id_is_below_its_scope() {
    let check = |id: &str, scope: &str, expected: &[&str]| {
        let binding = format!("{{id: {id}, identity: alice, role: owner, scope: {scope}}}");
        check_acme(&format!("role_bindings: [{binding}]"), expected);
    };
    check("acme/b", "acme", &[]);
    check("loose/a/b", "loose", &[]);
    for (id, scope) in
        [("b", "acme"), ("acmeb", "acme"), ("acme/b", "acme/dev"), ("loose/b", "acme")]
    {
        let expected = format!(
            "7:22: role_bindings[0].id: found `{id}`; expected a path below the binding's scope \
             `{scope}`"
        );
        check(id, scope, &[&expected]);
    }
    check(
        "acme",
        "acme",
        &[
            "7:22: role_bindings[0].id: found `acme` again, after groups[0]; expected an id that \
             nothing else has",
            "7:22: role_bindings[0].id: found `acme`; expected a path below the binding's scope \
             `acme`",
        ],
    );
}

/// A binding of `alice` with these conditions, which are from column 53 of line 8 on.
fn check_when(when: &str, expected: &[&str]) {
    let binding = "identity: alice, role: owner, scope: acme";
    check_acme(&format!("role_bindings:\n- {{{binding}, when: {when}}}\n"), expected);
}

#[test]
fn conditions_are_tests_of_attributes() {
    for attribute in ["subject.role", "resource.a.b.c", "action.name", "context.x y", "context.é"]
    {
        for value in ["''", "admin", "true", "-7", "9007199254740991", "'1'", "1e3"] {
            check_when(&format!("[{{attribute: {attribute}, equals: {value}}}]"), &[]);
            check_when(&format!("[{{not_equals: {value}, attribute: {attribute}}}]"), &[]);
        }
    }
    check_when("[]", &[]);
    let policy = load(policy(&format!(
        "{ACME}role_bindings: [{{identity: alice, role: owner, scope: acme, when: [{{attribute: \
         resource.status.x, not_equals: archived}}, {{attribute: subject.level, equals: 3}}]}}]"
    )));
    let model = policy.unwrap().model;
    let [first, second] = &model.facts().role_bindings[0].when[..] else { panic!("two") };
    assert_eq!((first.of, &*first.name, first.equals), (Of::Resource, "status.x", false));
    assert_eq!(first.value, Value::String("archived".into()));
    assert_eq!((second.of, &*second.name, second.equals), (Of::Subject, "level", true));
    assert_eq!(second.value, Value::Integer(3));
}

#[test]
fn conditions_are_a_closed_list() {
    let attribute = |text: &str| {
        let place = "8:66: role_bindings[0].when[0].attribute";
        let known = "subject.NAME, resource.NAME, action.NAME or context.NAME";
        let expected = format!("{place}: found `{text}`; expected an attribute ({known})");
        check_when(&format!("[{{attribute: '{text}', equals: a}}]"), &[&expected]);
    };
    for text in ["", "status", "Resource.status", "resource.", ".status", "subjects.x", "env.x"] {
        attribute(text);
    }
    for (value, found) in [
        ("~", "null"),
        ("1.5", "the number `1.5`"),
        ("1e309", "the number `1e309`"),
        ("9007199254740992", "the number `9007199254740992`"),
        ("[a]", "a list"),
        ("{a: b}", "a mapping"),
    ] {
        let place = "8:84: role_bindings[0].when[0].equals";
        let known = "a string, a boolean or a whole number within 2^53 - 1";
        let expected = format!("{place}: found {found}; expected {known}");
        check_when(&format!("[{{attribute: action.a, equals: {value}}}]"), &[&expected]);
    }
    let condition = "8:54: role_bindings[0].when[0]";
    let refuses = |when: &str, expected: &str| {
        check_when(when, &[&format!("{condition}: found {expected}")]);
    };
    let which = "expected either `equals` or `not_equals`";
    refuses("[{attribute: action.a}]", &format!("neither; {which}"));
    refuses("[{attribute: action.a, equals: 1, not_equals: 2}]", &format!("both; {which}"));
    refuses("[{equals: 1}]", "no `attribute`; expected the key `attribute`");
    let shape = "expected a condition: a mapping with `attribute` and `equals` or `not_equals`";
    refuses("[action.a]", &format!("the string `action.a`; {shape}"));
    refuses("[~]", &format!("null; {shape}"));
    check_when(
        "[{attribute: action.a, equals: 1, like: 2}]",
        &["8:87: role_bindings[0].when[0]: found unknown key `like`; expected one of the keys \
           attribute, equals, not_equals"],
    );
    let list = "8:53: role_bindings[0].when: found";
    check_when("~", &[&format!("{list} null; expected a list of conditions")]);
    check_when(
        "{attribute: action.a, equals: 1}",
        &[&format!("{list} a mapping; expected a list of conditions")],
    );
}

#[test]
fn there_are_at_most_sixteen_conditions() {
    let many = |count: usize| {
        let each = |n| format!("{{attribute: context.a{n}, equals: 1}}");
        format!("[{}]", (0..count).map(each).collect::<Vec<_>>().join(", "))
    };
    check_when(&many(16), &[]);
    let expected = "8:53: role_bindings[0].when: found 17 conditions; expected at most 16";
    check_when(&many(17), &[expected]);
}

#[test]
fn bindings_with_other_conditions_are_other_bindings() {
    let check = |bindings: &[&str], expected: &[&str]| {
        let each = |when: &&str| {
            format!("- {{identity: alice, role: owner, scope: acme, when: [{when}]}}\n")
        };
        let bindings: String = bindings.iter().map(each).collect();
        check_acme(&format!("role_bindings:\n{bindings}"), expected);
    };
    let (one, other) = ("{attribute: action.a, equals: 1}", "{attribute: action.b, equals: 1}");
    let (differs, text) =
        ("{attribute: action.a, not_equals: 1}", "{attribute: action.a, equals: '1'}");
    check(&["", one, other, differs, text], &[]);
    let both = format!("{one}, {other}");
    check(&[one, &both], &[]);
    let same = "9:3: role_bindings[1]: found the same binding as role_bindings[0]; expected an \
                identity, role, scope and conditions that no other binding has";
    check(&[one, one], &[same]);
    check(&["", ""], &[same]);
    // They are a set.
    check(&[&both, &format!("{other}, {one}, {other}")], &[same]);
    // What cannot be read is not the same as anything.
    let place = "role_bindings[1].when[0]: found neither; expected either `equals` or `not_equals`";
    check(&["", "{attribute: action.a}"], &[&format!("9:54: {place}")]);
}

#[test]
fn a_syntax_error_ends_the_reading() {
    for (body, expected) in [
        ("groups: [{id: a}", "3:9: groups: found unclosed bracket '['"),
        ("groups: [{id: 'a}]", "3:15: groups: found unclosed quote"),
        ("groups: \"", "3:9: groups: found unclosed quote"),
        ("groups: @a", "3:9: groups: found unexpected character: `@'"),
        ("groups: []\n]", "4:1: found misplaced bracket"),
        (
            "groups:\n- id: a\n name: b",
            "5:2: found while parsing a block mapping, did not find expected key",
        ),
        (
            "groups:\n- id: a: b",
            "4:8: groups[0]: found mapping values are not allowed in this context",
        ),
        (
            "groups: [{id: \"\\q\"}]",
            "3:15: groups: found while parsing a quoted scalar, found unknown escape character",
        ),
    ] {
        check(policy(body), &[&format!("{expected}; expected YAML 1.2 or JSON")]);
    }
    // Keys that may stand after it are not missing, and rules are not judged; what stands before
    // it is reported.
    check(
        "groups: [{id: 5}, {id: a/b}]\nroles: [",
        &[
            "1:15: groups[0].id: found the number `5`; expected a path (quote it to make it a \
             string)",
            "2:8: roles: found unclosed bracket '['; expected YAML 1.2 or JSON",
        ],
    );
    check(
        policy("groups:\n- {name: a}\n- {nmae: b}\n- 'c"),
        &[
            "4:3: groups[0]: found no `id`; expected the key `id`",
            "5:3: groups[1]: found no `id`; expected the key `id`",
            "5:4: groups[1]: found unknown key `nmae`; expected one of the keys id, name",
            "6:3: groups: found unclosed quote; expected YAML 1.2 or JSON",
        ],
    );
}

#[test]
fn the_order_of_a_document_means_nothing() {
    let sections = [
        "role_bindings:\n- {identity: a/b/u, role: a/b/r, scope: a/b/x}\n",
        "roles: [{id: a/b/r, capabilities: [record.read]}]\n",
        "resources: [{id: a/b/x, type: t}]\n",
        "identities: [{id: a/b/u}, {id: u}]\n",
        "groups: [{id: a/b/c}, {id: a/b}, {id: a}]\n",
        "catalog: test\n",
        "version: 1\n",
    ];
    let document = |order: &[usize]| order.iter().map(|at| sections[*at]).collect::<String>();
    let forward: Vec<_> = (0..sections.len()).collect();
    let expected = facts(document(&forward));
    for turn in 0..sections.len() {
        let mut order = forward.clone();
        order.rotate_left(turn);
        assert_eq!(facts(document(&order)), expected);
        order.reverse();
        assert_eq!(facts(document(&order)), expected);
    }
    let (keys, other) = (
        "{identity: a/b/u, role: a/b/r, scope: a/b/x}",
        "{scope: a/b/x, role: a/b/r, identity: a/b/u}",
    );
    assert_eq!(facts(document(&forward).replace(keys, other)), expected);
}

#[test]
fn what_is_wrong_is_printed_one_line_each() {
    let loaded = load(policy("groups: [{id: 5}, {}]"));
    let text = loaded.as_ref().unwrap_err().to_string();
    assert_eq!(text, lines(&loaded).join("\n"));
}
