//! The JSON Schemas against the reader: on every document of the repository, and on thousands of mutations of them.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "all of this is test code, not only the test functions"
)]

#[path = "schema/documents.rs"]
mod documents;
#[path = "schema/mutations.rs"]
mod mutations;

use std::collections::{BTreeMap, BTreeSet};

use capstan_policy::Diagnostic;
use capstan_policy::schema::{DOCUMENTS, Table};
use documents::{Document, accepted, read, yaml};
use jsonschema::Validator;
use mutations::mutations;
use serde_json::{Map, Value, json};

/// Rules that a JSON Schema cannot state: how the diagnostic's `expected` and `found` begin. Where only such rules are
/// broken, the schema may accept what the reader refuses. Nothing else may differ.
const ONLY_READER: &[(&str, &str)] = &[
    // What a document names is declared.
    ("a declared group", ""),
    ("a declared identity", ""),
    ("a built-in role of the catalog", ""),
    ("the id of a declared custom role", ""),
    ("a capability of catalog", ""),
    ("a built-in or loaded catalog", ""),
    ("a parameter of the path, or one that the query binds", ""),
    ("a parameter of the path with exactly one segment", ""),
    ("the parameter `{name...}` of the path", ""),
    ("a parameter that `query` lists", ""),
    // Names and other things that a document has once.
    ("a unique id", ""),
    ("a unique combination of identity, role, scope and conditions", ""),
    ("each resource once", ""),
    ("each capability once", ""),
    ("each role once", ""),
    ("each query parameter once", ""),
    ("at most one role with `owner: true`", ""),
    ("a secret that no other credential has", ""),
    ("a name that no other route has", ""),
    ("one that no other caller has", ""),
    ("a name that no other parameter has", ""),
    ("a name that no built-in or loaded catalog has", ""),
    ("no request that route", ""),
    ("a path (parameter `", ""),
    // Places in the tree.
    ("a path below the binding's scope", ""),
    // Regular expressions.
    ("a pattern that begins with `^` and ends with `$`", "`^"),
    // Bounds of several values together.
    ("a JSON Web Key Set of public keys", "keys["),
    ("a capability of at most 128 bytes", ""),
    ("a path (at most one `{name...}`)", ""),
    ("a path (at most 16 parameters)", ""),
    // Bounds in bytes, which the schema states in characters.
    ("a text (at most 1024 bytes, not 1200)", "`ä"),
    ("values: at most 1024 bytes, not 1200", "properties beyond a limit"),
    ("its value: at most 1024 bytes, not 1200", "a condition beyond a limit"),
    // The calendar.
    ("a time in RFC 3339", "`2027-01-01T23:59:60Z`"),
    ("a time in RFC 3339", "`2027-02-30"),
    ("a time in RFC 3339", "`0000-01-01"),
    ("a time in RFC 3339", "`0001-01-01T00:00:00+01:00`"),
];

fn validators() -> Vec<Validator> {
    let schemas = DOCUMENTS.map(capstan_policy::schema::Document::json_schema);
    schemas.iter().map(|schema| jsonschema::draft202012::new(schema).unwrap()).collect()
}

fn rule(diagnostic: &Diagnostic) -> Option<usize> {
    ONLY_READER.iter().position(|(expected, found)| {
        diagnostic.expected.starts_with(expected) && diagnostic.found.starts_with(found)
    })
}

/// What a comparison of schemas and reader found.
#[derive(Default)]
struct Comparison {
    mutations: usize,
    /// Cases in which they differ by more than the rules of [`ONLY_READER`].
    differences: Vec<String>,
    /// How often each of these rules made a difference.
    rules: BTreeMap<usize, usize>,
}

fn compare(validators: &[Validator], documents: &[Document]) -> Comparison {
    let Comparison { mut differences, mut rules, .. } = Comparison::default();
    let mutations = mutations(documents, |kind, done, value| {
        let found = read(kind, &value.to_string());
        match (validators[kind].is_valid(value), found.is_empty()) {
            (true, false) => {
                for diagnostic in &found {
                    match rule(diagnostic) {
                        Some(rule) => *rules.entry(rule).or_default() += 1,
                        None => {
                            differences
                                .push(format!("only the reader refuses {done}: {diagnostic}"));
                        }
                    }
                }
            }
            (false, true) => {
                let error = validators[kind].iter_errors(value).next();
                let error = error.map(|error| error.to_string()).unwrap_or_default();
                differences.push(format!("only the schema refuses {done}: {error}"));
            }
            _ => {}
        }
    });
    Comparison { mutations, differences, rules }
}

/// (name of the document, fewest documents of the repository)
const FEWEST: [(&str, usize); 5] =
    [("policy", 15), ("catalog", 3), ("routes", 3), ("callers", 2), ("tests", 14)];

#[test]
fn the_schemas_are_schemas() {
    for document in DOCUMENTS {
        let schema = document.json_schema();
        assert!(jsonschema::draft202012::meta::is_valid(&schema), "{}", document.name);
    }
}

#[test]
fn every_document_of_the_repository_validates() {
    let validators = validators();
    let mut counts = [0; 5];
    for Document { kind, place, value } in accepted() {
        let errors: Vec<_> =
            validators[kind].iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{place}: {errors:?}");
        counts[kind] += 1;
    }
    for (at, (name, fewest)) in FEWEST.into_iter().enumerate() {
        assert_eq!(DOCUMENTS[at].name, name);
        assert!(counts[at] >= fewest, "{} documents: {name}", counts[at]);
    }
}

#[test]
fn the_schemas_refuse_what_the_reader_refuses() {
    let Comparison { mutations, differences, rules } = compare(&validators(), &accepted());
    let first: Vec<String> =
        differences.iter().take(20).map(|line| line.chars().take(300).collect()).collect();
    assert!(first.is_empty(), "{} differences:\n{}", differences.len(), first.join("\n"));
    assert!(mutations > 10_000, "{mutations} mutations");
    for (at, rule) in ONLY_READER.iter().enumerate() {
        assert!(rules.contains_key(&at), "no mutation breaks only this rule: {rule:?}");
    }
}

/// The comparison finds mistakes: each of these makes a difference.
#[test]
fn a_wrong_schema_makes_differences() {
    let mut documents = accepted();
    documents
        .retain(|document| document.kind == 0 && document.value["catalog"]["name"] == "records");
    let binding = "/properties/role_bindings/items";
    let mistakes: [(&str, Value); 6] = [
        ("/additionalProperties", true.into()),
        ("/required", json!(["version"])),
        (&format!("{binding}/additionalProperties"), true.into()),
        (&format!("{binding}/required"), json!(["identity", "role", "scope", "id"])),
        ("/properties/groups/items/properties/name", json!({"type": ["string", "null"]})),
        ("/properties/groups/items/properties/name/maxLength", json!(1_023)),
    ];
    // Each with what the schema must say; `None` if it may say either.
    let mut cases = Vec::new();
    mutations(&documents, |kind, _, value| {
        let found = read(kind, &value.to_string());
        let refused = found.iter().any(|diagnostic| rule(diagnostic).is_none());
        let right = if refused { Some(false) } else { found.is_empty().then_some(true) };
        cases.extend(right.map(|right| (value.clone(), right)));
    });
    for (pointer, wrong) in mistakes {
        let mut schema = DOCUMENTS[0].json_schema();
        let is_right = |schema: &Value| {
            let validator = jsonschema::draft202012::new(schema).unwrap();
            cases.iter().all(|(value, right)| validator.is_valid(value) == *right)
        };
        assert!(is_right(&schema));
        *schema.pointer_mut(pointer).unwrap() = wrong;
        assert!(!is_right(&schema), "{pointer}");
    }
}

/// The keys of each table are those that the reader knows, in its order.
#[test]
fn the_tables_have_the_keys_that_the_reader_knows() {
    for (kind, document) in DOCUMENTS.into_iter().enumerate() {
        let mut seen = BTreeSet::new();
        for example in document.examples {
            let whole = yaml(example).unwrap();
            places(document.root, "", &whole, &mut |pointer, table, entries| {
                let mut changed = whole.clone();
                let mut more = entries.clone();
                more.insert("not-a-key".into(), 1.into());
                *changed.pointer_mut(pointer).unwrap() = more.into();
                let keys: Vec<_> = table.keys.iter().map(|key| key.name).collect();
                let expected = format!("one of the keys {}", keys.join(", "));
                let found = read(kind, &changed.to_string());
                let found = found.iter().find(|found| found.found == "unknown key `not-a-key`");
                let found = found.unwrap().expected.split("; did").next();
                assert_eq!(found, Some(&*expected), "{}", table.name);
                seen.extend(entries.keys().map(|key| (table.name, key.clone())));
            });
        }
        let mut tables = BTreeSet::new();
        document.tables(&mut |table| {
            for key in table.keys {
                assert!(
                    seen.contains(&(table.name, key.name.into())),
                    "no example has {} of {}",
                    key.name,
                    table.name
                );
            }
            tables.insert(table.name);
        });
        assert!(tables.len() > 1, "{tables:?}");
    }
}

/// Every example of a key is in an example document, which the reader accepts; and every form is accepted.
#[test]
fn the_reader_accepts_the_examples() {
    let mut unseen = BTreeSet::new();
    let mut with_forms = BTreeSet::new();
    for document in DOCUMENTS {
        document.tables(&mut |table| {
            unseen.extend(table.keys.iter().map(|key| (table.name, key.name)));
            with_forms.extend((!table.forms.is_empty()).then_some(table.name));
        });
    }
    assert!(!with_forms.is_empty());
    for (kind, document) in DOCUMENTS.into_iter().enumerate() {
        for example in document.examples {
            assert_eq!(read(kind, example), [], "{example}");
            let whole = yaml(example).unwrap();
            places(document.root, "", &whole, &mut |pointer, table, entries| {
                for key in table.keys {
                    let wanted: Value = serde_json::from_str(key.example).unwrap();
                    let is_it = entries.get(key.name).is_some_and(|found| match (found, &wanted) {
                        (Value::Array(found), Value::Array(wanted)) => {
                            wanted.iter().all(|item| found.contains(item))
                        }
                        (found, wanted) => found == wanted,
                    });
                    if is_it {
                        unseen.remove(&(table.name, key.name));
                    }
                }
                for (form, _) in table.forms {
                    let mut changed = whole.clone();
                    *changed.pointer_mut(pointer).unwrap() = yaml(form).unwrap();
                    assert_eq!(read(kind, &changed.to_string()), [], "{form}");
                    with_forms.remove(table.name);
                }
            });
        }
    }
    assert_eq!(unseen, BTreeSet::new());
    assert_eq!(with_forms, BTreeSet::new());
}

/// The demo's policy uses every key of a policy. It names its catalog, so it has no keys of catalogs.
#[test]
fn the_demo_uses_every_key_of_a_policy() {
    let [policy, catalog, ..] = DOCUMENTS;
    let mut unused = BTreeSet::new();
    policy.tables(&mut |table| unused.extend(table.keys.iter().map(|key| (table.name, key.name))));
    catalog.tables(&mut |table| unused.retain(|(name, _)| *name != table.name));
    assert!(unused.len() > 30, "{unused:?}");
    let demo = yaml(include_str!("../../../deploy/quickstart/policy.yaml")).unwrap();
    places(policy.root, "", &demo, &mut |_, table, entries| {
        unused.retain(|(name, key)| *name != table.name || !entries.contains_key(*key));
    });
    assert_eq!(unused, BTreeSet::new());
}

/// The schema of a key accepts its default and its example.
#[test]
fn the_schemas_accept_the_defaults_and_examples_of_keys() {
    fn visit(schema: &Value, count: &mut usize) {
        if let Value::Object(entries) = schema {
            let examples = entries.get("examples").and_then(Value::as_array).into_iter().flatten();
            for value in examples.chain(entries.get("default")) {
                assert!(
                    jsonschema::draft202012::is_valid(schema, value),
                    "{schema} refuses {value}"
                );
                *count += 1;
            }
        }
        match schema {
            Value::Object(entries) => entries.values().for_each(|value| visit(value, count)),
            Value::Array(items) => items.iter().for_each(|value| visit(value, count)),
            _ => {}
        }
    }
    let mut count = 0;
    for document in DOCUMENTS {
        visit(&document.json_schema(), &mut count);
    }
    assert!(count > 100, "{count}");
}

/// Calls `visit` with every mapping of a document that a table describes, and with its pointer.
fn places(
    table: &'static Table,
    pointer: &str,
    value: &Value,
    visit: &mut impl FnMut(&str, &'static Table, &Map<String, Value>),
) {
    let Value::Object(entries) = value else { return };
    visit(pointer, table, entries);
    for (name, value) in entries {
        let pointer = format!("{pointer}/{name}");
        let items = value.as_array().into_iter().flatten().enumerate();
        let items = items.map(|(at, item)| (format!("{pointer}/{at}"), item));
        for (pointer, value) in items.chain([(pointer.clone(), value)]) {
            for table in table.key(name).unwrap().kind.tables() {
                places(table, &pointer, value, visit);
            }
        }
    }
}
