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

use std::collections::BTreeMap;

use capstan_policy::Diagnostic;
use capstan_policy::schema::DOCUMENTS;
use documents::{Document, accepted, read};
use jsonschema::Validator;
use mutations::mutations;
use serde_json::{Value, json};

/// Rules that a JSON Schema cannot state: what the diagnostic expects, and the rule. Where only such rules are broken,
/// the schema may accept what the reader refuses. Nothing else may differ.
const ONLY_READER: &[(&str, &str)] = &[];

fn validators() -> Vec<Validator> {
    let schemas = DOCUMENTS.map(capstan_policy::schema::Document::json_schema);
    schemas.iter().map(|schema| jsonschema::draft202012::new(schema).unwrap()).collect()
}

fn rule(diagnostic: &Diagnostic) -> Option<usize> {
    ONLY_READER.iter().position(|(expected, _)| diagnostic.expected.contains(expected))
}

/// Each case in which the schema and the reader differ by more than the rules of [`ONLY_READER`], and how often each
/// of these rules made a difference.
fn differences(
    validators: &[Validator],
    mutated: &[(usize, String, Value)],
) -> (Vec<String>, BTreeMap<usize, usize>) {
    let (mut differences, mut rules) = (Vec::new(), BTreeMap::new());
    for (kind, done, value) in mutated {
        let found = read(*kind, &value.to_string());
        match (validators[*kind].is_valid(value), found.is_empty()) {
            (true, false) => {
                for diagnostic in &found {
                    match rule(diagnostic) {
                        Some(rule) => *rules.entry(rule).or_default() += 1,
                        None => differences.push(format!("only the reader refuses {done}: {diagnostic}")),
                    }
                }
            }
            (false, true) => {
                let error = validators[*kind].iter_errors(value).next();
                let error = error.map(|error| error.to_string()).unwrap_or_default();
                differences.push(format!("only the schema refuses {done}: {error}"));
            }
            _ => {}
        }
    }
    (differences, rules)
}

/// (name of the document, fewest documents of the repository)
const FEWEST: [(&str, usize); 4] = [("policy", 15), ("catalog", 3), ("routes", 3), ("tests", 14)];

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
    let mut counts = [0; 4];
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
    let mutated = mutations(&accepted());
    let (differences, rules) = differences(&validators(), &mutated);
    for line in differences.iter().take(60) {
        println!("{}", line.chars().take(400).collect::<String>());
    }
    println!("{} mutations, {rules:?}", mutated.len());
    assert!(differences.is_empty(), "{} differences", differences.len());
    assert!(mutated.len() > 10_000, "{} mutations", mutated.len());
    for (at, (_, rule)) in ONLY_READER.iter().enumerate() {
        assert!(rules.contains_key(&at), "no mutation breaks only this rule: {rule}");
    }
}
