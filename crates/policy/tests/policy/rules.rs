//! Rules between declarations: parents, references, subtrees, uniqueness.

use crate::common::{check, check_acme, policy};

#[test]
fn an_id_names_one_thing() {
    check(
        policy("groups: [{id: a}, {id: b}, {id: a}]"),
        &["3:33: groups[2].id: found `a`, already declared as groups[0]; expected a unique id"],
    );
    check_acme(
        "role_bindings: [{id: acme/dev, identity: alice, role: owner, scope: acme}]",
        &[
            "7:22: role_bindings[0].id: found `acme/dev`, already declared as groups[1]; expected a \
           unique id",
        ],
    );
    // All kinds share one namespace. An id that is declared twice still counts as declared as both
    // kinds.
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
            "3:19: identities[0].id: found `a`, already declared as groups[0]; expected a unique id",
            "3:28: identities[1].id: found `a/x`, already declared as groups[1]; expected a unique \
             id",
            "5:18: resources[0].id: found `a/y`, already declared as roles[0]; expected a unique id",
            "8:8: role_bindings[0].id: found `a/z`; expected a path below the binding's scope \
             `a/y`",
            "9:8: role_bindings[1].id: found `a/z`, already declared as role_bindings[0]; expected \
             a unique id",
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
    // An undeclared group between two declared ones is reported once.
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
    // An unregistered resource is no scope, although Check accepts it.
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
    // Prefixes are compared by segment: `a` does not own `ab`.
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
        &["12:3: role_bindings[4]: found the same binding as role_bindings[0]; expected a unique \
           combination of identity, role, scope and conditions"],
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
            "7:22: role_bindings[0].id: found `acme`, already declared as groups[0]; expected a \
             unique id",
            "7:22: role_bindings[0].id: found `acme`; expected a path below the binding's scope \
             `acme`",
        ],
    );
}
