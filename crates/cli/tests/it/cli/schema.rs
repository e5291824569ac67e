//! `capstan schema`: JSON Schemas for editors.

use serde_json::Value;

use crate::common::{capstan, stderr, stdout};

#[test]
fn every_kind_of_document_has_a_schema_in_both_formats() {
    for (document, required) in
        [("policy", "catalog"), ("catalog", "name"), ("routes", "routes"), ("tests", "tests")]
    {
        let output = capstan(&["schema", document]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = stdout(&output);
        assert!(text.lines().count() > 20, "{text}");
        let schema: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["additionalProperties"], false);
        assert!(schema["required"].as_array().unwrap().contains(&required.into()), "{schema}");
        let properties = schema["properties"].as_object().unwrap();
        for (key, property) in properties {
            assert!(property["description"].is_string(), "{document}: {key}");
            assert_eq!(property["examples"].as_array().map(Vec::len), Some(1), "{document}: {key}");
        }

        let output = capstan(&["schema", document, "--output", "json"]);
        let line = stdout(&output);
        assert_eq!(line.lines().count(), 1);
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), schema);
    }
}

#[test]
fn an_unknown_kind_of_document_is_an_error_that_lists_the_kinds() {
    let output = capstan(&["schema", "policies"]);
    assert_eq!(output.status.code(), Some(2));
    let message = stderr(&output);
    assert!(
        message.contains("[possible values: policy, catalog, routes, callers, tests]"),
        "{message}"
    );
}
