//! JSON Schema of a document (draft 2020-12).

use capstan_iam::limits::{CLAIMS_MAX, PROPERTIES_MAX, PROPERTY_BYTES_MAX};
use capstan_iam::{KEY_TYPES, SECRET_MEMBERS};
use serde_json::{Map, Value, json};

use super::{Document, Key, Kind, Rule, Shape, Table, Test, Text, texts};
use crate::scalar::INTEGER_MAX;

impl Document {
    /// The JSON Schema of the document.
    #[must_use]
    pub fn json_schema(&self) -> Value {
        let mut schema = table(self.root);
        schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        schema.insert("title".into(), format!("Capstan: {}", self.title.to_lowercase()).into());
        schema.insert("description".into(), self.description.into());
        Value::Object(schema)
    }
}

fn table(table: &Table) -> Map<String, Value> {
    let properties: Map<_, _> =
        table.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<_> =
        table.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    schema.insert("title".into(), table.name.into());
    schema.insert("description".into(), table.description.into());
    schema.insert("properties".into(), properties.into());
    schema.insert("additionalProperties".into(), false.into());
    if !required.is_empty() {
        schema.insert("required".into(), required.into());
    }
    if !table.rules.is_empty() {
        schema.insert("allOf".into(), table.rules.iter().map(rule).collect());
    }
    schema
}

fn property(key: &Key) -> Value {
    let mut schema = kind(&key.kind);
    if let Kind::Text(text) = key.kind {
        let description = format!("{} Form: {}.", key.description, (text.description)());
        schema.insert("description".into(), description.into());
    } else {
        schema.insert("description".into(), key.description.into());
    }
    if let Some(example) = parsed(key.example) {
        schema.insert("examples".into(), vec![example].into());
    }
    if let Some(default) = parsed(key.default) {
        schema.insert("default".into(), default);
    }
    Value::Object(schema)
}

/// A value of a table. A test reads each of them.
pub(super) fn parsed(json: &str) -> Option<Value> {
    serde_json::from_str(json).ok()
}

fn kind(kind: &Kind) -> Map<String, Value> {
    let schema = match kind {
        Kind::Version => json!({"const": 1}),
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::Text(form) => return text(form),
        Kind::Words(words) => json!({"type": "string", "enum": words()}),
        Kind::Attribute => json!({
            "type": ["string", "boolean", "integer"],
            "minimum": -INTEGER_MAX,
            "maximum": INTEGER_MAX,
            "maxLength": PROPERTY_BYTES_MAX,
        }),
        Kind::Attributes => json!({
            "type": "object",
            "maxProperties": PROPERTIES_MAX,
            "propertyNames": text(&texts::PROPERTY),
            "additionalProperties": self::kind(&Kind::Attribute),
        }),
        Kind::Claims(form) => json!({
            "type": "object",
            "maxProperties": CLAIMS_MAX,
            "propertyNames": text(&texts::CLAIM_NAME),
            "additionalProperties": text(form),
        }),
        Kind::PublicKey => {
            let mut names = text(&texts::PROPERTY);
            names.insert("not".into(), json!({"enum": SECRET_MEMBERS}));
            json!({
                "type": "object",
                "required": ["kty"],
                "propertyNames": names,
                "properties": {"kty": {"enum": KEY_TYPES}},
                "additionalProperties": {
                    "type": ["string", "boolean", "array"],
                    "items": {"type": "string"},
                },
            })
        }
        Kind::Forms(words) => json!({
            "type": "object",
            "propertyNames": text(&texts::PARAMETER),
            "additionalProperties": self::kind(&Kind::Words(*words)),
        }),
        Kind::List { of, min, max } => {
            let mut schema = Map::new();
            schema.insert("type".into(), "array".into());
            schema.insert("items".into(), self::kind(of).into());
            if *min > 0 {
                schema.insert("minItems".into(), (*min).into());
            }
            if let Some(max) = max {
                schema.insert("maxItems".into(), (*max).into());
            }
            return schema;
        }
        Kind::Table(table) => return self::table(table),
        Kind::Either(one, other) => json!({"anyOf": [self::kind(one), self::kind(other)]}),
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

fn text(text: &Text) -> Map<String, Value> {
    let mut schema = Map::new();
    schema.insert("type".into(), "string".into());
    let pattern = (text.pattern)();
    if !pattern.is_empty() {
        schema.insert("pattern".into(), pattern.into());
    }
    if text.min > 0 {
        schema.insert("minLength".into(), text.min.into());
    }
    if let Some(max) = text.max {
        schema.insert("maxLength".into(), max.into());
    }
    schema
}

fn rule(rule: &Rule) -> Value {
    let shapes: Vec<_> = rule.shapes.iter().map(shape).collect();
    json!({"description": rule.description, "anyOf": shapes})
}

fn shape(shape: &Shape) -> Value {
    let lacks = shape.lacks.iter().map(|key| ((*key).to_owned(), false.into()));
    let tests = shape.tests.iter().map(|(key, test)| ((*key).to_owned(), self::test(*test)));
    let properties: Map<_, _> = lacks.chain(tests).collect();
    json!({"required": shape.has, "properties": properties})
}

fn test(test: Test) -> Value {
    match test {
        Test::Empty => json!({"maxItems": 0}),
        Test::NotEmpty => json!({"minItems": 1}),
        Test::Is(value) => json!({"const": value}),
        Test::Word(word) => json!({"const": word}),
        Test::NotWord(word) => json!({"not": {"const": word}}),
    }
}
