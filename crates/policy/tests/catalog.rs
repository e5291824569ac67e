//! Catalog documents (section 4 of the contract), as separate files and inside a policy.

mod common;

use std::sync::Arc;

use capstan_engine::{Catalog, Family, SUGGESTIONS_MAX};
use capstan_policy::{BUILT_IN, Catalogs, Diagnostic, Diagnostics, load_policy};
use common::{check_loaded, lines};

const RECORDS: &str = "name: my-catalog
resources:
  - {name: record, purpose: business records, actions: [read, write, delete]}
capabilities: [gulfstream]
roles:
  - {name: reader, family: administrative, description: reads records, capabilities: [record.read]}
  - {name: owner, owner: true, capabilities: [record.read, record.write, record.delete]}
";

type Loaded = Result<(Arc<Catalog>, Vec<Diagnostic>), Diagnostics>;

fn load(document: &str) -> Loaded {
    Catalogs::default().load(document.as_bytes())
}

fn check(document: &str, expected: &[&str]) {
    check_loaded(document, &load(document), expected);
    // The same catalog inside a policy: two lines down, two columns to the right.
    let body = document.lines().map(|line| format!("  {line}\n")).collect::<String>();
    let policy = format!("version: 1\ncatalog:\n{body}");
    let loaded = load_policy(policy.as_bytes(), &Catalogs::default());
    let moved: Vec<_> = expected.iter().map(|line| moved(line)).collect();
    assert_eq!(lines(&loaded), moved, "{policy}");
}

/// A diagnostic of a catalog document, as a policy with that catalog inside it gets it.
fn moved(diagnostic: &str) -> String {
    let mut parts = diagnostic.splitn(3, ':');
    let mut number = || parts.next().and_then(|n| n.parse::<usize>().ok()).unwrap_or_default();
    let (line, column) = (number() + 2, number() + 2);
    let rest = parts.next().unwrap_or_default().trim_start();
    let dot = if rest.starts_with("found ") { ": " } else { "." };
    format!("{line}:{column}: catalog{dot}{rest}")
}

/// As [`check`], for a catalog with two resources and an opaque capability. `roles` starts at line
/// 5.
fn check_roles(roles: &str, expected: &[&str]) {
    let declared = "name: c
resources: [{name: record, actions: [read, write]}, {name: a.b, actions: [list]}]
capabilities: [gulf]
roles:
";
    check(&format!("{declared}{roles}\n"), expected);
}

#[test]
fn a_catalog_loads_whole() {
    check(RECORDS, &[]);
    let (catalog, warnings) = load(RECORDS).unwrap();
    assert!(warnings.is_empty());
    assert_eq!(catalog.name(), "my-catalog");
    let capabilities: Vec<_> = catalog.capabilities().collect();
    assert_eq!(capabilities, ["gulfstream", "record.delete", "record.read", "record.write"]);
    assert_eq!(catalog.resources()[0].purpose, "business records");
    let [reader, owner] = catalog.roles() else { panic!("two roles") };
    assert_eq!((&*reader.name, &*reader.description), ("reader", "reads records"));
    assert_eq!((reader.family, reader.owner), (Family::Administrative, false));
    assert_eq!((owner.family, owner.owner), (Family::Custom, true));
}

#[test]
fn optional_fields_may_be_left_out() {
    check("name: c", &[]);
    check("{name: c, resources: [], capabilities: [], roles: []}", &[]);
    check("name: c\nresources: [{name: r}, {name: s, actions: []}]", &[]);
}

#[test]
fn the_catalogs_that_come_with_capstan_load_without_warnings() {
    for (name, document) in BUILT_IN {
        // Under another name, because the built-in catalog has its own.
        let other = format!("{name}-copy");
        let document = document.replace(&format!("name: {name}"), &format!("name: {other}"));
        let (catalog, warnings) = load(&document).unwrap();
        assert_eq!((catalog.name(), warnings), (&*other, Vec::new()));
        assert_eq!(catalog.roles().iter().filter(|role| role.owner).count(), 1, "{name}");
        assert!(Catalogs::default().get(name).is_some());
    }
}

#[test]
fn a_catalog_is_a_mapping_with_a_name() {
    const EXPECTED: &str = "expected a catalog: a mapping with `name`, `resources` and `roles`";
    let refuses = |document: &str, expected: &str| {
        check_loaded(document, &load(document), &[expected]);
    };
    refuses("", "1:1: found nothing; expected a document");
    refuses("[]", &format!("1:1: found a list; {EXPECTED}"));
    refuses("records", &format!("1:1: found the string `records`; {EXPECTED}"));
    refuses("{name: c}\n---\n{name: d}", "3:1: found a second document; expected one document");
    check("roles: []", &["1:1: found no `name`; expected the key `name`"]);
    check(
        "{name: c, version: 1}",
        &["1:11: found unknown key `version`; expected one of the keys name, resources, \
           capabilities, roles"],
    );
    check("name: c\nname: d", &["2:1: found key `name` again; expected each key once"]);
}

#[test]
fn names_follow_section_4() {
    const CHARACTERS: &str = "only A-Z a-z 0-9 _ - . +";
    let longest = "x".repeat(128);
    for good in ["c", "A-Z_09.x+y", "chainguard-2026-08-14+errata", "-", "+", "_", &longest] {
        check(&format!("name: '{good}'"), &[]);
    }
    // Those of capabilities and resources may have slashes and colons, not at either end.
    for (mark, name) in [('/', "a/b"), (':', "a:b")] {
        let expected =
            format!("found `{name}`; expected a name (character '{mark}': {CHARACTERS})");
        check(&format!("name: \"{name}\""), &[&format!("1:7: name: {expected}")]);
        check_roles(
            &format!("- {{name: \"{name}\", capabilities: [gulf]}}"),
            &[&format!("5:10: roles[0].name: {expected}")],
        );
        check(&format!("name: c\nresources: [{{name: '{name}', actions: ['{name}']}}]"), &[]);
        check(&format!("name: c\ncapabilities: [gulf, '{name}']"), &[]);
        let end = format!("found `a{mark}`; expected a name (`{mark}` at either end)");
        check(
            &format!("name: c\ncapabilities: [gulf, 'a{mark}']"),
            &[&format!("2:22: capabilities[1]: {end}")],
        );
    }
    let long = "x".repeat(129);
    let shown = format!("{}…", "x".repeat(80));
    for (name, shown, why) in [
        ("", "", "0 bytes, not 1 to 128".into()),
        (&*long, &*shown, "129 bytes, not 1 to 128".into()),
        (".", ".", "a dot at either end or two in a row".into()),
        (".a", ".a", "a dot at either end or two in a row".into()),
        ("a.", "a.", "a dot at either end or two in a row".into()),
        ("a..b", "a..b", "a dot at either end or two in a row".into()),
        ("a b", "a b", format!("character ' ': {CHARACTERS}")),
        ("a*", "a*", format!("character '*': {CHARACTERS}")),
        ("é", "é", format!("character 'é': {CHARACTERS}")),
        (r"a\n", r"a\n", format!(r"character '\n': {CHARACTERS}")),
        (r"\e[31m", r"\u{1b}[31m", format!(r"character '\u{{1b}}': {CHARACTERS}")),
    ] {
        let expected = format!("found `{shown}`; expected a name ({why})");
        check(&format!("name: \"{name}\""), &[&format!("1:7: name: {expected}")]);
        // The same, with the marks that permissions of other clouds have.
        let of_capability = expected.replace(CHARACTERS, &format!("{CHARACTERS} / :"));
        check(
            &format!("name: c\nresources: [{{name: \"{name}\", actions: [read]}}]"),
            &[&format!("2:20: resources[0].name: {of_capability}")],
        );
        check(
            &format!("name: c\nresources: [{{name: r, actions: [read, \"{name}\"]}}]"),
            &[&format!("2:39: resources[0].actions[1]: {of_capability}")],
        );
        check(
            &format!("name: c\ncapabilities: [gulf, \"{name}\"]"),
            &[&format!("2:22: capabilities[1]: {of_capability}")],
        );
        check_roles(
            &format!("- {{name: \"{name}\", capabilities: [gulf]}}"),
            &[&format!("5:10: roles[0].name: {expected}")],
        );
    }
}

#[test]
fn actions_and_opaque_capabilities_have_no_dot() {
    check(
        "name: c\nresources: [{name: r, actions: [a.b]}]",
        &["2:33: resources[0].actions[0]: found `a.b`; expected an action without a dot"],
    );
    check(
        "name: c\ncapabilities: [a.b]",
        &["2:16: capabilities[0]: found `a.b`; expected an opaque capability, which has no dot; \
           one with a dot is an action of `resources`"],
    );
    check("name: c\nresources: [{name: a.b.c, actions: [read]}]\ncapabilities: [a-b, A_1+]", &[]);
}

#[test]
fn a_capability_is_no_longer_than_a_name() {
    let (resource, action) = ("r".repeat(100), "a".repeat(28));
    let document = format!("name: c\nresources: [{{name: {resource}, actions: [{action}]}}]");
    check(
        &document,
        &[&format!(
            "2:132: resources[0].actions[0]: found capability `{}…`; expected a capability of at \
             most 128 bytes",
            &resource[..80]
        )],
    );
    check(&document.replace(&action, &action[1..]), &[]);
}

#[test]
fn each_capability_is_declared_once() {
    check(
        "name: c\nresources: [{name: r, actions: [read, read]}]",
        &["2:39: resources[0].actions[1]: found `r.read` again; expected each capability once"],
    );
    check(
        "name: c\nresources: [{name: r, actions: [read]}, {name: r, actions: [list, read]}]",
        &[
            "2:48: resources[1].name: found resource `r` again; expected each resource once",
            "2:67: resources[1].actions[1]: found `r.read` again; expected each capability once",
        ],
    );
    check(
        "name: c\ncapabilities: [gulf, gulf]",
        &["2:22: capabilities[1]: found `gulf` again; expected each capability once"],
    );
    // A duplicate with a dot breaks two rules, and is reported once.
    check(
        "name: c\nresources: [{name: r, actions: [read]}]\ncapabilities: [r.read]",
        &["3:16: capabilities[0]: found `r.read`; expected an opaque capability, which has no \
           dot; one with a dot is an action of `resources`"],
    );
}

#[test]
fn roles_hold_capabilities_of_the_catalog() {
    check_roles("- {name: r, capabilities: [record.read, record.write, a.b.list, gulf]}", &[]);
    check_roles(
        "- {name: r, capabilities: [record.read, record, record.delete, a.list, '']}",
        &[
            "5:41: roles[0].capabilities[1]: found `record`; expected a capability of catalog `c`",
            "5:49: roles[0].capabilities[2]: found `record.delete`; expected a capability of \
             catalog `c`",
            "5:64: roles[0].capabilities[3]: found `a.list`; expected a capability of catalog `c`",
            "5:72: roles[0].capabilities[4]: found ``; expected a capability of catalog `c`",
        ],
    );
}

#[test]
fn only_the_first_mistakes_get_suggestions() {
    let wrong = vec!["record.raed"; SUGGESTIONS_MAX + 5].join(", ");
    let document = format!(
        "name: c\nresources: [{{name: record, actions: [read]}}]\nroles: [{{name: r, capabilities: [{wrong}]}}]"
    );
    let found = Catalogs::default().load(document.as_bytes()).unwrap_err();
    let suggested = found.iter().filter(|one| one.expected.contains("did you mean `record.read`?"));
    assert_eq!((suggested.count(), found.total()), (SUGGESTIONS_MAX, SUGGESTIONS_MAX + 5));
}

#[test]
fn invalid_capabilities_still_count_as_declared() {
    check(
        "name: c
resources: [{name: r, actions: [a.b, 5, 'x y']}, {name: r s, actions: [read]}]
capabilities: [d.e, true]
roles: [{name: o, capabilities: [r.a.b, r.5, r.x y, r s.read, d.e, 'true']}]
",
        &[
            "2:33: resources[0].actions[0]: found `a.b`; expected an action without a dot",
            "2:38: resources[0].actions[1]: found the number `5`; expected a name (quote it to \
             make it a string)",
            "2:41: resources[0].actions[2]: found `x y`; expected a name (character ' ': only A-Z \
             a-z 0-9 _ - . + / :)",
            "2:57: resources[1].name: found `r s`; expected a name (character ' ': only A-Z a-z \
             0-9 _ - . + / :)",
            "3:16: capabilities[0]: found `d.e`; expected an opaque capability, which has no dot; \
             one with a dot is an action of `resources`",
            "3:21: capabilities[1]: found the boolean `true`; expected a name (quote it to make it \
             a string)",
        ],
    );
}

#[test]
fn roles_are_named_once_and_one_is_the_owner() {
    check_roles(
        "- {name: r, capabilities: [gulf]}\n- {name: s, capabilities: [gulf]}\n- {name: r, \
         capabilities: [gulf]}",
        &["7:10: roles[2].name: found role `r` again; expected each role once"],
    );
    check_roles(
        "- {name: r, owner: true, capabilities: [gulf]}\n- {name: s, owner: true, capabilities: \
         [gulf]}",
        &["6:20: roles[1].owner: found role `s` as a second owner; expected at most one role \
           with `owner: true`"],
    );
    check_roles("- {name: r, owner: false, capabilities: [gulf]}", &[]);
}

#[test]
fn fields_have_their_types() {
    for family in ["administrative", "registry", "library", "custom"] {
        check_roles(&format!("- {{name: r, family: {family}, capabilities: [gulf]}}"), &[]);
    }
    check_roles(
        "- {name: r, family: admin, owner: 'true', description: 5, capabilities: gulf}
- {name: 5, family: ~, owner: 1, description: \"a\\nb\", capabilities: [~, 5, gulf]}
- {owners: true}
- r
- ~
",
        &[
            "5:21: roles[0].family: found `admin`; expected a family (administrative, registry, \
             library or custom)",
            "5:35: roles[0].owner: found the string `true`; expected true or false",
            "5:56: roles[0].description: found the number `5`; expected a text (quote it to make \
             it a string)",
            "5:73: roles[0].capabilities: found the string `gulf`; expected a list of capabilities",
            "6:10: roles[1].name: found the number `5`; expected a name (quote it to make it a \
             string)",
            "6:21: roles[1].family: found null; expected a family",
            "6:31: roles[1].owner: found the number `1`; expected true or false",
            "6:47: roles[1].description: found `a\\nb`; expected a text (no control characters)",
            "6:70: roles[1].capabilities[0]: found null; expected a name",
            "6:73: roles[1].capabilities[1]: found the number `5`; expected a name (quote it to \
             make it a string)",
            "7:3: roles[2]: found no `name`; expected the key `name`",
            "7:4: roles[2]: found unknown key `owners`; expected one of the keys name, family, \
             description, owner, capabilities",
            "8:3: roles[3]: found the string `r`; expected a role: a mapping with `name` and \
             `capabilities`",
            "9:3: roles[4]: found null; expected a role: a mapping with `name` and `capabilities`",
        ],
    );
    check(
        "name: c
resources: [r, {actions: [read]}, {name: s, purpose: 5, actions: read}, {name: t, action: read}]
capabilities: {gulf: true}
",
        &[
            "2:13: resources[0]: found the string `r`; expected a resource: a mapping with `name` \
             and `actions`",
            "2:16: resources[1]: found no `name`; expected the key `name`",
            "2:54: resources[2].purpose: found the number `5`; expected a text (quote it to make \
             it a string)",
            "2:66: resources[2].actions: found the string `read`; expected a list of actions",
            "2:83: resources[3]: found unknown key `action`; expected one of the keys name, \
             purpose, actions",
            "3:15: capabilities: found a mapping; expected a list of opaque capabilities",
        ],
    );
}

#[test]
fn texts_are_at_most_a_kibibyte() {
    for key in ["purpose", "description"] {
        let text = "x".repeat(1024);
        let document = |text: &str| match key {
            "purpose" => format!("name: c\nresources: [{{name: r, purpose: {text}}}]"),
            _ => format!(
                "{{name: c, capabilities: [g], roles: [{{name: r, capabilities: [g], \
                 description: {text}}}]}}"
            ),
        };
        check(&document(&text), &[]);
        let diagnostics = lines(&load(&document(&format!("{text}x"))));
        assert_eq!(diagnostics.len(), 1);
        assert!(
            diagnostics[0].ends_with("expected a text (at most 1024 bytes, not 1025)"),
            "{diagnostics:?}"
        );
    }
}

#[test]
fn a_role_with_no_capability_is_warned_of() {
    let document = "name: c\nroles:\n- {name: idle}\n- {name: empty, capabilities: []}\n";
    let warned = |warnings: &[Diagnostic]| -> Vec<String> {
        warnings.iter().map(ToString::to_string).collect()
    };
    let (_, warnings) = load(document).unwrap();
    assert_eq!(
        warned(&warnings),
        [
            "3:3: roles[0]: found role `idle` without capabilities; expected at least one \
             capability",
            "4:3: roles[1]: found role `empty` without capabilities; expected at least one \
             capability",
        ]
    );
    let policy = format!("version: 1\ncatalog:\n  {}", document.replace('\n', "\n  "));
    let policy = load_policy(policy.as_bytes(), &Catalogs::default()).unwrap();
    assert_eq!(
        warned(&policy.warnings)[0],
        "5:5: catalog.roles[0]: found role `idle` without capabilities; expected at least one \
         capability"
    );
}

#[test]
fn a_loaded_catalog_can_be_named_by_policies() {
    let mut catalogs = Catalogs::default();
    let built_in: Vec<_> = catalogs.names().map(str::to_owned).collect();
    assert!(BUILT_IN.iter().all(|(name, _)| built_in.iter().any(|known| known == name)));
    assert!(catalogs.get("my-catalog").is_none());
    let (loaded, _) = catalogs.load(RECORDS.as_bytes()).unwrap();
    assert!(Arc::ptr_eq(&loaded, &catalogs.get("my-catalog").unwrap()));
    assert!(catalogs.names().any(|name| name == "my-catalog"));
    let policy = load_policy(b"{version: 1, catalog: my-catalog}", &catalogs).unwrap();
    assert!(Arc::ptr_eq(&loaded, policy.model.catalog()));
}

#[test]
fn a_catalog_that_does_not_load_changes_nothing() {
    let mut catalogs = Catalogs::default();
    let (loaded, _) = catalogs.load(RECORDS.as_bytes()).unwrap();
    assert!(catalogs.load(RECORDS.replace("record.delete", "record.erase").as_bytes()).is_err());
    assert!(Arc::ptr_eq(&loaded, &catalogs.get("my-catalog").unwrap()));
}

/// Loading a file must not change what an existing role means.
#[test]
fn a_catalog_cannot_take_the_name_of_another() {
    let mut catalogs = Catalogs::default();
    assert!(catalogs.load(RECORDS.as_bytes()).is_ok());
    for name in ["my-catalog", BUILT_IN[0].0] {
        let before = catalogs.get(name).unwrap();
        let found = catalogs.load(RECORDS.replace("my-catalog", name).as_bytes()).unwrap_err();
        let expected = format!(
            "name: found `{name}`, the name of another catalog; expected a name that no built-in \
             or loaded catalog has"
        );
        let found = found.to_string();
        assert!(found.ends_with(&expected), "{found}");
        let after = catalogs.get(name).unwrap();
        assert!(after.capabilities().eq(before.capabilities()));
    }
}

#[test]
fn a_wide_catalog_loads() {
    const RESOURCES: usize = 1379;
    const ACTIONS: usize = 10;
    const ROLES: usize = 2461;
    let actions: Vec<_> = (0..ACTIONS).map(|action| format!("act{action}")).collect();
    let mut document = "name: wide\nresources:\n".to_owned();
    for resource in 0..RESOURCES {
        document +=
            &format!("- {{name: area.kind{resource}, actions: [{}]}}\n", actions.join(", "));
    }
    document += "roles:\n";
    for role in 0..ROLES {
        let capabilities: Vec<_> = (0..8)
            .map(|step| (role * 31 + step * 977) % (RESOURCES * ACTIONS))
            .map(|at| format!("area.kind{}.act{}", at / ACTIONS, at % ACTIONS))
            .collect();
        document +=
            &format!("- {{name: role{role}, capabilities: [{}]}}\n", capabilities.join(", "));
    }
    let (catalog, warnings) = load(&document).unwrap();
    assert!(warnings.is_empty());
    assert_eq!((catalog.roles().len(), catalog.capabilities().len()), (2461, 13_790));
    let names: Vec<_> = catalog.capabilities().collect();
    assert!(names.is_sorted());
    for name in names {
        let at = catalog.capability(name).unwrap();
        assert_eq!(catalog.capability_name(at), Some(name));
    }
    // One mistake in each role gives one diagnostic for each role.
    let broken = document.replace("capabilities: [area.", "capabilities: [aera.");
    assert_eq!(load(&broken).unwrap_err().total(), ROLES);
}
