//! Conditions of role bindings.

use capstan_engine::{AttributeCategory, Value};

use crate::common::{ACME, check_acme, load, policy};

/// Checks a binding of `alice` with this `when`, whose value starts at column 53 of line 8.
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
    assert_eq!(
        (first.category, &*first.name, first.equals),
        (AttributeCategory::Resource, "status.x", false)
    );
    assert_eq!(first.value, Value::String("archived".into()));
    assert_eq!(
        (second.category, &*second.name, second.equals),
        (AttributeCategory::Subject, "level", true)
    );
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
fn bindings_with_different_conditions_are_different() {
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
    let same = "9:3: role_bindings[1]: found the same binding as role_bindings[0]; expected a \
                unique combination of identity, role, scope and conditions";
    check(&[one, one], &[same]);
    check(&["", ""], &[same]);
    // Conditions are a set: order and repetition do not matter.
    check(&[&both, &format!("{other}, {one}, {other}")], &[same]);
    // An unreadable condition equals no other, and is not an empty list.
    let place = "role_bindings[1].when[0]: found neither; expected either `equals` or `not_equals`";
    check(&["", "{attribute: action.a}"], &[&format!("9:54: {place}")]);
}
