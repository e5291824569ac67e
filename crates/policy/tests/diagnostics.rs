//! Diagnostics of documents with many mistakes: all mistakes, by position, and no false ones.

mod common;

use capstan_policy::DIAGNOSTICS_MAX;
use common::{check, check_acme, load, policy};

/// Loads a document with `total` mistakes. Returns the lines of the kept diagnostics.
fn kept(document: &str, total: usize) -> Vec<usize> {
    let Err(diagnostics) = load(document) else {
        return Vec::new();
    };
    assert_eq!(diagnostics.total(), total);
    let kept: Vec<_> = diagnostics.iter().map(|diagnostic| diagnostic.line).collect();
    assert_eq!(kept.len(), total.min(DIAGNOSTICS_MAX));
    let text = diagnostics.to_string();
    let more = format!("\nand {} more, {total} in all", total - kept.len());
    assert_eq!(text.ends_with(&more), total > DIAGNOSTICS_MAX, "{text}");
    kept
}

/// `count` groups with undeclared parents, one a line.
fn orphans(count: usize) -> String {
    (0..count).map(|n| format!("- {{id: a{n}/b}}\n")).collect()
}

#[test]
fn every_mistake_is_reported_in_the_order_of_the_text() {
    check(
        "version: 2
role_bindings:
- {identity: alice, role: owner, scope: nowhere}
- {identity: nobody, role: reader, scope: acme, expires_at: soon}
- {identity: alice, role: acme/dev/r, scope: acme}
catalog: test
identities:
- {id: alice, nmae: Alice}
- {id: 5, type: ~}
- {id: acme, properties: {x: 1.5}}
roles:
- {id: acme/dev/r, capabilities: [record.erase]}
groups:
- &a {id: acme}
- {id: acme/dev}
- {id: acme/x/y}
groups: []
",
        &[
            "1:10: version: found the number `2`; expected the number 1",
            "3:41: role_bindings[0].scope: found `nowhere`; expected a declared group or resource",
            "4:14: role_bindings[1].identity: found `nobody`; expected a declared identity",
            "4:61: role_bindings[1].expires_at: found `soon`; expected a time in RFC 3339, such as \
             2027-01-01T00:00:00Z",
            "5:27: role_bindings[2].role: found `acme/dev/r`; expected a role that may be bound at \
             `acme`: a custom role only at or below the group that owns it",
            "8:15: identities[0]: found unknown key `nmae`; expected one of the keys id, name, \
             description, type, properties, disabled, authentication",
            "9:8: identities[1].id: found the number `5`; expected a path (quote it to make it a \
             string)",
            "9:17: identities[1].type: found null; expected a text",
            "10:8: identities[2].id: found `acme`, already declared as groups[0]; expected a \
             unique id",
            "10:30: identities[2].properties: found the number `1.5`; expected a string, a boolean \
             or a whole number within 2^53 - 1",
            "12:35: roles[0].capabilities[0]: found `record.erase`; expected a capability of \
             catalog `test`",
            "14:3: groups: found an anchor; expected a value without an anchor",
            "16:8: groups[2].id: found parent `acme/x`, which is not declared; expected a declared \
             group",
            "17:1: found key `groups` again; expected each key once",
        ],
    );
}

#[test]
fn the_first_hundred_are_kept_and_all_are_counted() {
    let first: Vec<_> = (4..104).collect();
    for total in [100, 101, 250] {
        assert_eq!(kept(&policy(&format!("groups:\n{}", orphans(total))), total), first);
    }
    let numbers = "- {id: 5, name: ~}\n".repeat(125);
    let of_numbers = kept(&policy(&format!("groups:\n{numbers}")), 250 + 124);
    assert_eq!(of_numbers.last(), Some(&37), "each line but the first has three mistakes");
}

#[test]
fn the_first_hundred_are_by_position_not_by_the_order_of_the_checks() {
    // Shapes are checked before rules.
    let shapes = "- {name: ~}\n".repeat(100);
    let document = policy(&format!("groups:\n{}identities:\n{shapes}", orphans(50)));
    let lines = kept(&document, 250);
    assert_eq!(lines, (4..54).chain((55..80).flat_map(|line| [line; 2])).collect::<Vec<_>>());
    // Ids are checked before parents, and parents before bindings.
    let document = policy(&format!(
        "role_bindings:\n- {{identity: x, role: owner, scope: acme}}\nresources:\n{}groups: [{{id: \
         acme}}]\nidentities:\n{}",
        orphans(120).replace('}', ", type: t}"),
        "- {id: u}\n".repeat(130)
    ));
    let lines = kept(&document, 1 + 120 + 129);
    assert_eq!(lines, std::iter::once(4).chain(6..105).collect::<Vec<_>>());
    let document = policy(&format!("groups:\n- {{id: z/z}}\n{}", "- {id: a}\n".repeat(250)));
    assert_eq!(kept(&document, 250), std::iter::once(4).chain(6..105).collect::<Vec<_>>());
}

#[test]
fn one_mistake_causes_one_diagnostic() {
    let children = "identities: [{id: 5/u}]\nrole_bindings: [{identity: 5/u, role: owner, scope: \
                    '5'}]";
    let check_groups = |groups: &str, expected: &str| {
        check(policy(&format!("groups: {groups}\n{children}")), &[expected]);
    };
    check_groups(
        "[{id: 5}]",
        "3:15: groups[0].id: found the number `5`; expected a path (quote it to make it a string)",
    );
    check_groups(
        "[{id: '5', name: 7}]",
        "3:26: groups[0].name: found the number `7`; expected a text (quote it to make it a \
         string)",
    );
    check_groups(
        "[{id: '5', nmae: x}]",
        "3:20: groups[0]: found unknown key `nmae`; expected one of the keys id, name, description",
    );
    check_groups(
        "[&a {id: '5'}]",
        "3:10: groups: found an anchor; expected a value without an \
                                    anchor",
    );
    check_groups("{id: '5'}", "3:9: groups: found a mapping; expected a list of groups");
    check_groups(
        "[{id: '5'}, {id: '5'}]",
        "3:26: groups[1].id: found `5`, already declared as groups[0]; expected a unique id",
    );
    // A binding at an unknown scope is not reported as outside its role's subtree too.
    check_acme(
        "role_bindings: [{id: acme/b, identity: alice, role: acme/dev/auditor, scope: acme/dve}]",
        &["7:78: role_bindings[0].scope: found `acme/dve`; expected a declared group or resource"],
    );
}

#[test]
fn an_invalid_field_does_not_invalidate_its_entry() {
    let check = |from: &str, to: &str, expected: &str| {
        let document = policy(
            "groups: [{id: g, name: G}]
identities: [{id: u, type: user}]
resources: [{id: r, type: t}]
roles: [{id: g/r, capabilities: [record.read]}]
role_bindings: [{identity: u, role: owner, scope: r}, {identity: u, role: g/r, scope: g}]
",
        );
        assert!(document.contains(from), "{from}");
        self::check(document.replacen(from, to, 1), &[expected]);
    };
    check("name: G", "name: ~", "3:24: groups[0].name: found null; expected a text");
    check("type: user", "type: []", "4:28: identities[0].type: found a list; expected a text");
    check("type: t", "type: ~", "5:27: resources[0].type: found null; expected a text");
    check(", type: t", "", "5:13: resources[0]: found no `type`; expected the key `type`");
    check(
        "[record.read]",
        "record.read",
        "6:33: roles[0].capabilities: found the string `record.read`; expected a list of \
         capabilities",
    );
    check("[record.read]", "[~]", "6:34: roles[0].capabilities[0]: found null; expected a name");
    check(
        "identity: u,",
        "identity: u, id: 5,",
        "7:35: role_bindings[0].id: found the number `5`; expected a path (quote it to make it a \
         string)",
    );
}

#[test]
fn capabilities_of_an_unreadable_catalog_are_not_unknown() {
    let check = |from: &str, to: &str, expected: &str| {
        let document = "version: 1
catalog:
  name: in
  resources: [{name: door, actions: [open]}]
  capabilities: [bell]
  roles: [{name: porter, capabilities: [door.open, bell]}]
groups: [{id: house}]
identities: [{id: bob}]
roles: [{id: house/r, capabilities: [door.open, bell]}]
role_bindings: [{identity: bob, role: porter, scope: house}]
";
        assert!(document.contains(from), "{from}");
        self::check(document.replacen(from, to, 1), &[expected]);
    };
    check(
        "[open]",
        "open",
        "4:37: catalog.resources[0].actions: found the string `open`; expected a list of actions",
    );
    check(
        "[{name: door, actions: [open]}]",
        "{door: [open]}",
        "4:14: catalog.resources: found a mapping; expected a list of resources",
    );
    check(
        "[bell]",
        "bell",
        "5:17: catalog.capabilities: found the string `bell`; expected a list of opaque \
         capabilities",
    );
    check(
        "[{name: porter, capabilities: [door.open, bell]}]",
        "porter",
        "6:10: catalog.roles: found the string `porter`; expected a list of roles",
    );
    check(
        "[door.open, bell]}]\ngroups",
        "door.open}]\ngroups",
        "6:40: catalog.roles[0].capabilities: found the string `door.open`; expected a list of \
         capabilities",
    );
    check(
        "name: in\n",
        "name: 5\n",
        "3:9: catalog.name: found the number `5`; expected a name (quote it to make it a string)",
    );
}

#[test]
fn unreadable_items_shift_no_indexes() {
    check(
        policy(
            "groups: [{}, {id: a}, x, {id: a}]
identities: [~, {id: u}, {id: u}, {id: a/u/v}]
roles: [[], {id: a/r, capabilities: [5, record.x, ~, record.read, gulf]}]
role_bindings:
- {}
- {identity: u, role: owner, scope: a}
- {identity: v, role: 5, scope: a}
- {identity: u, role: owner, scope: a}
- {id: b, identity: u, role: a/r, scope: a}
",
        ),
        &[
            "3:10: groups[0]: found no `id`; expected the key `id`",
            "3:23: groups[2]: found the string `x`; expected a group: a mapping with `id`",
            "3:31: groups[3].id: found `a`, already declared as groups[1]; expected a unique id",
            "4:14: identities[0]: found null; expected an identity: a mapping with `id`",
            "4:31: identities[2].id: found `u`, already declared as identities[1]; expected a \
             unique id",
            "4:40: identities[3].id: found parent `a/u`, which is not declared; expected a \
             declared group",
            "5:9: roles[0]: found a list; expected a role: a mapping with `id` and `capabilities`",
            "5:38: roles[1].capabilities[0]: found the number `5`; expected a name (quote it to \
             make it a string)",
            "5:41: roles[1].capabilities[1]: found `record.x`; expected a capability of catalog \
             `test`",
            "5:51: roles[1].capabilities[2]: found null; expected a name",
            "5:67: roles[1].capabilities[4]: found `gulf`; expected a capability of catalog `test`",
            "7:3: role_bindings[0]: found no `identity`; expected the key `identity`",
            "7:3: role_bindings[0]: found no `role`; expected the key `role`",
            "7:3: role_bindings[0]: found no `scope`; expected the key `scope`",
            "9:23: role_bindings[2].role: found the number `5`; expected a built-in role's name or \
             a custom role's id (quote it to make it a string)",
            "10:3: role_bindings[3]: found the same binding as role_bindings[1]; expected a unique \
             combination of identity, role, scope and conditions",
            "11:8: role_bindings[4].id: found `b`; expected a path below the binding's scope `a`",
        ],
    );
}

#[test]
fn indexes_of_a_repeated_list_continue_those_of_the_first() {
    check(
        policy(
            "groups: [{id: a}, 5, {id: b}]
identities: [{id: c/u}]
groups: [6, {id: c}, {id: a}]
",
        ),
        &[
            "3:19: groups[1]: found the number `5`; expected a group: a mapping with `id`",
            "5:1: found key `groups` again; expected each key once",
            "5:10: groups[3]: found the number `6`; expected a group: a mapping with `id`",
            "5:27: groups[5].id: found `a`, already declared as groups[0]; expected a unique id",
        ],
    );
}

#[test]
fn unknown_keys_that_look_like_paths_have_no_positions() {
    let known =
        "version, catalog, groups, roles, identities, role_bindings, resources, credentials";
    check(
        policy("'groups[0].id': x\ngroups[0]: {id: y}\ngroups: [{id: a/b}]"),
        &[
            &format!("3:1: found unknown key `groups[0].id`; expected one of the keys {known}"),
            &format!("4:1: found unknown key `groups[0]`; expected one of the keys {known}"),
            "5:15: groups[0].id: found parent `a`, which is not declared; expected a declared \
             group",
        ],
    );
}
