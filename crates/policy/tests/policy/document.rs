//! The document as a whole: its shape, its keys, and the YAML features that are refused.

use capstan_engine::{Timestamp, Value};

use crate::common::{ACME, check, check_acme, facts, lines, load, policy};

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
            "5:3: roles[0]: found role `a/r` without capabilities; expected at least one \
             capability",
            "6:3: roles[1]: found role `a/s` without capabilities; expected at least one \
             capability",
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
        let expected = "a policy: a mapping with `version`, `catalog` and declarations";
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
    let unknown = "1:23: catalog: found catalog `tset`; expected a built-in or loaded catalog: \
                   test, chainguard-2023-12-07, chainguard-2025-08-14, \
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
    // With an unknown catalog, capabilities and built-in roles are not checked.
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
    const TOP: &str =
        "version, catalog, groups, roles, identities, role_bindings, resources, credentials";
    let check_key = |body: &str, place: &str, key: &str, known: &str| {
        let expected =
            format!("{place} found unknown key `{key}`; expected one of the keys {known}");
        check(policy(body), &[&expected]);
    };
    check_key("group: []", "3:1:", "group", TOP);
    check_key("Version: 1", "3:1:", "Version", TOP);
    check_key("5: 1", "3:1:", "5", TOP);
    check_key("'': 1", "3:1:", "", TOP);
    check_key("groups: [{id: a, nmae: b}]", "3:18: groups[0]:", "nmae", "id, name, description");
    let known = "id, name, description, type, properties, disabled, authentication";
    check_key("identities: [{id: a, x: {y: [z]}}]", "3:22: identities[0]:", "x", known);
    let known = "id, type, name, description, properties";
    check_key("resources: [{id: a, type: b, y: c}]", "3:30: resources[0]:", "y", known);
    check_acme(
        "role_bindings:\n- identity: alice\n  role: owner\n  scope: acme\n  expires: 5",
        &["11:3: role_bindings[0]: found unknown key `expires`; expected one of the keys id, \
           description, identity, role, scope, expires_at, when"],
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
            "3:15: groups[0].id: found an anchor; expected a value without an anchor",
            "3:27: groups[0].name: found an alias; expected the value itself",
            "3:37: groups[1].id: found an alias; expected the value itself",
        ],
    );
    check(
        policy("groups: &g\n- &h\n  id: a\n- *h\nroles: *g\n*x : 5\n"),
        &[
            "3:9: groups: found an anchor; expected a value without an anchor",
            "4:3: groups: found an anchor; expected a value without an anchor",
            "6:3: groups: found an alias; expected the value itself",
            "7:8: roles: found an alias; expected the value itself",
            "8:1: found an alias; expected the value itself",
        ],
    );
    check(
        policy("groups: [{id: !!str 5}, !foo {id: b}, {! id: c}]\nroles: !!seq []"),
        &[
            "3:15: groups[0].id: found a tag; expected a value without a tag",
            "3:21: groups[0].id: found the number `5`; expected a path (quote it to make it a \
             string)",
            "3:25: groups: found a tag; expected a value without a tag",
            "3:40: groups[2]: found a tag; expected a value without a tag",
            "4:8: roles: found a tag; expected a value without a tag",
        ],
    );
    check(
        policy("groups: [{id: a, <<: {name: b}}]"),
        &["3:18: groups[0]: found the merge key `<<`; expected explicit keys"],
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
            &[
                "1:1: found a directive, which begins with `%`; expected a document without directives",
            ],
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
fn a_syntax_error_ends_the_reading() {
    for (body, expected) in [
        ("groups: [{id: a}", "3:9: groups: found `[` that is not closed; expected `]`"),
        (
            "groups: [{id: 'a}]",
            "3:15: groups: found a quote that is not closed; expected the same quote at the end of the text",
        ),
        (
            "groups: \"",
            "3:9: groups: found a quote that is not closed; expected the same quote at the end of the text",
        ),
        (
            "groups: @a",
            "3:9: groups: found a text that begins with `@`; expected the text in quotes",
        ),
        ("groups: []\n]", "4:1: found a closing bracket; expected an opening bracket before it"),
        (
            "groups:\n- id: a\n name: b",
            "5:2: found a line that begins in column 2; expected the same column as in the list or mapping that it \
             continues",
        ),
        (
            "groups:\n- id: a: b",
            "4:8: groups[0]: found a second `: ` in one line; expected `key: value` on a line of its own; a text with \
             `: ` in quotes",
        ),
        (
            "groups: [{id: \"\\q\"}]",
            "3:15: groups: found an escape with `\\` that YAML does not have; expected `\\\\` for a backslash, or the \
             text in single quotes",
        ),
    ] {
        check(policy(body), &[expected]);
    }
    // Diagnostics before the syntax error are reported. Keys after it do not count as missing, and
    // rules are not checked.
    check(
        "groups: [{id: 5}, {id: a/b}]\nroles: [",
        &[
            "1:15: groups[0].id: found the number `5`; expected a path (quote it to make it a \
             string)",
            "2:8: roles: found `[` that is not closed; expected `]`",
        ],
    );
    check(
        policy("groups:\n- {name: a}\n- {nmae: b}\n- 'c"),
        &[
            "4:3: groups[0]: found no `id`; expected the key `id`",
            "5:3: groups[1]: found no `id`; expected the key `id`",
            "5:4: groups[1]: found unknown key `nmae`; expected one of the keys id, name, description",
            "6:3: groups: found a quote that is not closed; expected the same quote at the end of the text",
        ],
    );
}

#[test]
fn the_order_in_a_document_does_not_matter() {
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
fn each_diagnostic_is_one_line() {
    let loaded = load(policy("groups: [{id: 5}, {}]"));
    let text = loaded.as_ref().unwrap_err().to_string();
    assert_eq!(text, lines(&loaded).join("\n"));
}
