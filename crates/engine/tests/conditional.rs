//! Searches with conditional entries: which tests are open, and which bindings are listed.

#![expect(clippy::unwrap_used, reason = "test code")]

use capstan_engine::{
    Attributes, Cursor, EXPLAINED_BINDINGS_MAX, Listed, Path, Snapshot, Timestamp, Value,
};
use capstan_policy::{Catalogs, load_policy};

const NOW: Timestamp = Timestamp::new(1_795_000_000, 0);

fn snapshot(bindings: &str) -> Snapshot {
    let document = format!(
        "version: 1
catalog: {{name: c, resources: [{{name: r, actions: [get, put]}}], roles: [
  {{name: reader, capabilities: [r.get]}}, {{name: writer, capabilities: [r.get, r.put]}}]}}
groups: [{{id: acme}}, {{id: acme/web}}, {{id: acme/web/blog}}]
identities: [{{id: ann, properties: {{team: web}}}}, {{id: bea}}]
resources: [{{id: acme/web/site, type: r, properties: {{status: archived}}}}]
role_bindings:
{bindings}"
    );
    let policy = load_policy(document.as_bytes(), &Catalogs::default()).unwrap();
    Snapshot::build(&policy.model, 1).unwrap()
}

/// `context.n` with this value.
fn supplied(value: i64) -> Attributes {
    let context = [("n".to_owned(), Value::Integer(value))].into();
    Attributes { context, ..Attributes::default() }
}

/// Each entry with `=` if it holds, otherwise `?` and the attributes of its open tests, binding by binding.
fn shown<'s, T: Copy>(listed: Vec<Listed<'s, T>>, text: impl Fn(T) -> &'s str) -> Vec<String> {
    let bindings = |one: &Listed<'_, T>| -> Vec<String> {
        let each = one.conditional().map(|grant| {
            let open: Vec<_> = grant.open.iter().map(|test| test.attribute()).collect();
            format!(" {}@{}[{}]", grant.grant.role, grant.grant.scope, open.join(" "))
        });
        each.collect()
    };
    let line = |one: Listed<'s, T>| {
        let mark = if one.holds { '=' } else { '?' };
        format!("{}{mark}{}", text(one.entry), bindings(&one).concat())
    };
    listed.into_iter().map(line).collect()
}

fn who(snapshot: &Snapshot, resource: &str, attributes: &Attributes) -> Vec<String> {
    let resource = Path::parse(resource).unwrap();
    let all = Cursor::ALL;
    let page = snapshot.conditional_identities_page("r.get", resource, attributes, NOW, all);
    shown(page.unwrap().entries, |identity| identity)
}

fn places(snapshot: &Snapshot, identity: &str, attributes: &Attributes) -> Vec<String> {
    let identity = Path::parse(identity).unwrap();
    let page =
        snapshot.conditional_scopes_page(identity, "r.get", attributes, NOW, Cursor::ALL).unwrap();
    shown(page.entries, |found| found.scope)
}

#[test]
fn registered_and_supplied_attributes_are_known() {
    let snapshot = snapshot(
        "- {identity: ann, role: reader, scope: acme, when: [{attribute: subject.team, equals: web}, {attribute: context.n, equals: 1}]}
- {identity: bea, role: reader, scope: acme, when: [{attribute: subject.team, equals: web}, {attribute: resource.status, not_equals: archived}]}",
    );
    let none = Attributes::NONE;
    // The team of one is registered, that of the other is open. So is the status of what is not registered.
    assert_eq!(
        who(&snapshot, "acme/x", none),
        ["ann? reader@acme[context.n]", "bea? reader@acme[subject.team resource.status]"]
    );
    assert_eq!(who(&snapshot, "acme/web/site", none), ["ann? reader@acme[context.n]"]);
    assert_eq!(who(&snapshot, "acme/web/site", &supplied(1)), ["ann="]);
    assert_eq!(who(&snapshot, "acme/web/site", &supplied(2)), Vec::<String>::new());
}

#[test]
fn contradictions_and_expired_bindings_are_not_listed() {
    let snapshot = snapshot(
        "- {identity: ann, role: reader, scope: acme, when: [{attribute: context.n, equals: 1}, {attribute: context.n, equals: 2}]}
- {identity: ann, role: writer, scope: acme, when: [{attribute: context.n, equals: 1}, {attribute: context.n, not_equals: 1}]}
- {identity: bea, role: reader, scope: acme, expires_at: 2020-01-01T00:00:00Z, when: [{attribute: context.n, equals: 1}]}
- {identity: bea, role: writer, scope: acme, when: [{attribute: context.n, not_equals: 1}, {attribute: context.n, not_equals: 2}]}",
    );
    assert_eq!(who(&snapshot, "acme", Attributes::NONE), ["bea? writer@acme[context.n context.n]"]);
    assert_eq!(who(&snapshot, "acme", &supplied(3)), ["bea="]);
    assert!(places(&snapshot, "ann", Attributes::NONE).is_empty());
}

/// An entry that holds names no conditions. Bindings are listed from the topmost scope down, then by role and
/// conditions, at most [`EXPLAINED_BINDINGS_MAX`].
#[test]
fn bindings_are_listed_in_order_and_not_all() {
    let mut bindings = String::from(
        "- {identity: ann, role: writer, scope: acme/web, when: [{attribute: context.n, equals: 7}]}
- {identity: ann, role: reader, scope: acme/web, when: [{attribute: context.n, equals: 9}]}
- {identity: ann, role: writer, scope: acme, when: [{attribute: context.n, equals: 8}]}
- {identity: ann, role: reader, scope: acme/web, when: [{attribute: context.m, equals: 9}]}\n",
    );
    for at in 0..=EXPLAINED_BINDINGS_MAX {
        bindings += &format!(
            "- {{identity: bea, role: reader, scope: acme, when: [{{attribute: context.n, equals: {at}}}]}}\n"
        );
    }
    let snapshot = snapshot(&bindings);
    let [ann, bea] = &who(&snapshot, "acme/web", Attributes::NONE)[..] else { panic!("two") };
    assert_eq!(
        ann,
        "ann? writer@acme[context.n] reader@acme/web[context.m] reader@acme/web[context.n] \
         writer@acme/web[context.n]"
    );
    assert_eq!(bea.matches("reader").count(), EXPLAINED_BINDINGS_MAX);
    assert_eq!(who(&snapshot, "acme/web", &supplied(8)), ["ann=", "bea="]);
}

#[test]
fn scopes_below_an_unconditional_one_are_not_listed() {
    let mut bindings = String::from(
        "- {identity: ann, role: reader, scope: acme, when: [{attribute: context.n, equals: 1}]}
- {identity: ann, role: reader, scope: acme/web, when: [{attribute: resource.status, equals: open}]}
- {identity: ann, role: writer, scope: acme/web, when: [{attribute: context.m, equals: 1}]}
- {identity: ann, role: reader, scope: acme/web/blog, when: [{attribute: subject.team, equals: web}]}\n",
    );
    let found = places(&snapshot(&bindings), "ann", Attributes::NONE);
    assert_eq!(
        found,
        [
            "acme? reader@acme[context.n]",
            // It is listed without conditional entries, too: there, only tests on the resource are open.
            "acme/web= reader@acme/web[resource.status] writer@acme/web[context.m]",
            "acme/web/blog=",
        ]
    );
    let found = places(&snapshot(&bindings), "ann", &supplied(1));
    assert_eq!(found, ["acme="]);
    bindings += "- {identity: ann, role: writer, scope: acme/web}\n";
    let found = places(&snapshot(&bindings), "ann", Attributes::NONE);
    assert_eq!(found, ["acme? reader@acme[context.n]", "acme/web="]);
}
