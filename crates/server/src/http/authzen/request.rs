//! Requests as JSON: entities, their properties, and which field is wrong.
//!
//! Unknown fields are ignored, also in entities. A field that comes twice is an error: other readers might see the other
//! value.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use capstan_engine::{Attributes, Properties, Value};
use capstan_policy::whole;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::RequestError;
use crate::limits::PROPERTIES_MAX;

/// A subject or a resource.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Entity {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) id: Option<String>,
    properties: Option<Object>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Action {
    name: Option<String>,
    properties: Option<Object>,
}

/// An object whose members tests may use.
#[derive(Debug, Default)]
struct Object {
    /// Texts, booleans and whole numbers. Anything else counts as absent.
    known: Properties,
    /// Members of any kind.
    count: usize,
}

/// One evaluation, or what all of a request have in common.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Evaluation {
    subject: Option<Entity>,
    action: Option<Action>,
    resource: Option<Entity>,
    context: Option<Object>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Evaluations<'r> {
    subject: Option<Entity>,
    action: Option<Action>,
    resource: Option<Entity>,
    context: Option<Object>,
    /// Each is read by itself: one that is malformed does not spoil the others.
    #[serde(borrow)]
    pub(super) evaluations: Option<Vec<&'r RawValue>>,
    pub(super) options: Option<Options>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Options {
    evaluations_semantic: Option<String>,
}

/// When to stop evaluating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Semantic {
    ExecuteAll,
    DenyOnFirstDeny,
    PermitOnFirstPermit,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Search {
    pub(super) subject: Option<Entity>,
    pub(super) action: Option<Action>,
    pub(super) resource: Option<Entity>,
    context: Option<Object>,
    pub(super) page: Option<Page>,
}

/// Which part of the results is wanted.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Page {
    pub(super) token: Option<String>,
    pub(super) limit: Option<i32>,
}

/// Reads a body.
///
/// # Errors
///
/// It is not JSON, or a field has another type; the error names the field.
pub(super) fn parse<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, RequestError> {
    if body.is_empty() {
        return Err(RequestError::field("body", "empty: expected a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        // What is no JSON may break off where there is no field.
        let field = if matches!(&*path, "." | "?") { "body" } else { &path };
        RequestError::field(field, error.inner())
    })?;
    json.end().map_err(|error| RequestError::field("body", error))?;
    Ok(parsed)
}

impl Evaluation {
    /// Asks about an evaluation, with what it lacks taken from defaults, each entity whole. Nothing is copied: a thousand
    /// evaluations may have long properties in common.
    ///
    /// # Errors
    ///
    /// A field is missing, or there are too many properties.
    pub(super) fn ask<T>(
        &mut self,
        defaults: &mut Self,
        ask: impl FnOnce(&Entities<'_>, &Attributes) -> T,
    ) -> Result<T, RequestError> {
        let subject = self.subject.as_mut().or(defaults.subject.as_mut());
        let action = self.action.as_mut().or(defaults.action.as_mut());
        let resource = self.resource.as_mut().or(defaults.resource.as_mut());
        let Entity { kind, id, properties: of_subject } =
            subject.ok_or_else(|| missing("subject"))?;
        let subject = identified("subject", kind.as_deref(), id.as_deref())?;
        let Action { name, properties: of_action } = action.ok_or_else(|| missing("action"))?;
        let action = name.as_deref().ok_or_else(|| missing("action.name"))?;
        let Entity { kind, id, properties: of_resource } =
            resource.ok_or_else(|| missing("resource"))?;
        let resource = identified("resource", kind.as_deref(), id.as_deref())?;
        let context = self.context.as_mut().or(defaults.context.as_mut());
        let mut all = [of_subject.as_mut(), of_resource.as_mut(), of_action.as_mut(), context];
        check_count(all.iter().flatten().map(|object| object.count).sum())?;
        let mut attributes = Attributes::default();
        swap(&mut all, &mut attributes);
        let answer = ask(&Entities { subject, action, resource }, &attributes);
        swap(&mut all, &mut attributes);
        Ok(answer)
    }
}

/// Exchanges the properties of subject, resource, action and context.
fn swap(all: &mut [Option<&mut Object>; 4], attributes: &mut Attributes) {
    let Attributes { subject, resource, action, context } = attributes;
    for (object, properties) in all.iter_mut().zip([subject, resource, action, context]) {
        if let Some(object) = object {
            std::mem::swap(&mut object.known, properties);
        }
    }
}

impl Evaluations<'_> {
    /// What it says of all its evaluations: without a list, a single one.
    pub(super) fn common(self) -> Evaluation {
        let Self { subject, action, resource, context, .. } = self;
        Evaluation { subject, action, resource, context }
    }
}

impl Options {
    /// # Errors
    ///
    /// A semantic that the API does not have.
    pub(super) fn semantic(&self) -> Result<Semantic, RequestError> {
        match self.evaluations_semantic.as_deref() {
            None | Some("execute_all") => Ok(Semantic::ExecuteAll),
            Some("deny_on_first_deny") => Ok(Semantic::DenyOnFirstDeny),
            Some("permit_on_first_permit") => Ok(Semantic::PermitOnFirstPermit),
            Some(_) => Err(RequestError::field(
                "options.evaluations_semantic",
                "expected execute_all, deny_on_first_deny or permit_on_first_permit",
            )),
        }
    }
}

impl Search {
    /// What tests may use.
    ///
    /// # Errors
    ///
    /// Too many properties.
    pub(super) fn attributes(&self) -> Result<Attributes, RequestError> {
        let action = self.action.as_ref().and_then(|action| action.properties.as_ref());
        let (subject, resource) = (properties(&self.subject), properties(&self.resource));
        attributes([subject, resource, action, self.context.as_ref()])
    }
}

/// Type and id of a subject, name of an action, type and id of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entities<'r> {
    pub(super) subject: (&'r str, &'r str),
    pub(super) action: &'r str,
    pub(super) resource: (&'r str, &'r str),
}

impl Entity {
    /// # Errors
    ///
    /// It has no type.
    pub(super) fn kind(&self, name: &str) -> Result<&str, RequestError> {
        self.kind.as_deref().ok_or_else(|| missing(&format!("{name}.type")))
    }

    /// Its type and its id.
    ///
    /// # Errors
    ///
    /// One is missing.
    pub(super) fn identified(&self, name: &str) -> Result<(&str, &str), RequestError> {
        identified(name, self.kind.as_deref(), self.id.as_deref())
    }
}

impl Action {
    /// # Errors
    ///
    /// It has no name.
    pub(super) fn name(&self) -> Result<&str, RequestError> {
        self.name.as_deref().ok_or_else(|| missing("action.name"))
    }
}

fn identified<'r>(
    name: &str,
    kind: Option<&'r str>,
    id: Option<&'r str>,
) -> Result<(&'r str, &'r str), RequestError> {
    let kind = kind.ok_or_else(|| missing(&format!("{name}.type")))?;
    Ok((kind, id.ok_or_else(|| missing(&format!("{name}.id")))?))
}

/// # Errors
///
/// The field is missing.
pub(super) fn required<'r, T>(name: &str, field: &'r Option<T>) -> Result<&'r T, RequestError> {
    field.as_ref().ok_or_else(|| missing(name))
}

fn missing(field: &str) -> RequestError {
    RequestError::field(field, "missing")
}

fn properties(entity: &Option<Entity>) -> Option<&Object> {
    entity.as_ref()?.properties.as_ref()
}

fn check_count(count: usize) -> Result<(), RequestError> {
    if count > PROPERTIES_MAX {
        let problem = format!("{count} properties: at most {PROPERTIES_MAX} are allowed");
        return Err(RequestError::field("properties", problem));
    }
    Ok(())
}

/// Of subject, resource, action and context.
fn attributes(all: [Option<&Object>; 4]) -> Result<Attributes, RequestError> {
    check_count(all.iter().flatten().map(|object| object.count).sum())?;
    let [subject, resource, action, context] =
        all.map(|object| object.map(|object| object.known.clone()).unwrap_or_default());
    Ok(Attributes { subject, resource, action, context })
}

// === Properties ===

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Object, M::Error> {
        let mut all: BTreeMap<String, Option<Value>> = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            match all.entry(name) {
                Entry::Occupied(twice) => {
                    let problem = format!("the member `{}` comes twice", twice.key());
                    return Err(Error::custom(problem));
                }
                Entry::Vacant(free) => drop(free.insert(map.next_value::<Known>()?.0)),
            }
        }
        let count = all.len();
        let known = all.into_iter().filter_map(|(name, value)| Some((name, value?)));
        Ok(Object { known: known.collect(), count })
    }
}

/// A text, a boolean or a whole number; `None` for anything else.
struct Known(Option<Value>);

impl<'de> Deserialize<'de> for Known {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KnownVisitor)
    }
}

struct KnownVisitor;

impl<'de> Visitor<'de> for KnownVisitor {
    type Value = Known;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Known, E> {
        Ok(Known(Some(Value::Boolean(value))))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "what a double does not hold exactly is none of ours"
    )]
    fn visit_i64<E>(self, value: i64) -> Result<Known, E> {
        Ok(Known(whole(value as f64).filter(|found| *found == value).map(Value::Integer)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Known, E> {
        i64::try_from(value).map_or(Ok(Known(None)), |value| self.visit_i64(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Known, E> {
        Ok(Known(whole(value).map(Value::Integer)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Known, E> {
        Ok(Known(Some(Value::String(value.to_owned()))))
    }

    fn visit_string<E>(self, value: String) -> Result<Known, E> {
        Ok(Known(Some(Value::String(value))))
    }

    fn visit_unit<E>(self) -> Result<Known, E> {
        Ok(Known(None))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Known, S::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Known(None))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Known, M::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Known(None))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            Just("subject"),
            Just("action"),
            Just("resource"),
            Just("context"),
            Just("type"),
            Just("id"),
            Just("name"),
            Just("properties"),
            Just("evaluations"),
            Just("options"),
            Just("evaluations_semantic"),
            Just("page"),
            Just("token"),
            Just("limit"),
            Just("x"),
        ];
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("1".to_owned()),
            Just("-1".to_owned()),
            Just("1.5".to_owned()),
            Just("9223372036854775807".to_owned()),
            Just("1e400".to_owned()),
            Just("\"alice\"".to_owned()),
            Just("\"\\ud800\"".to_owned()),
            Just("\"\"".to_owned()),
        ];
        leaf.prop_recursive(5, 40, 6, move |inner| {
            let member = (word.clone(), inner.clone())
                .prop_map(|(name, value)| format!("\"{name}\": {value}"));
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(|all| format!("[{}]", all.join(","))),
                prop::collection::vec(member, 0..6)
                    .prop_map(|all| format!("{{{}}}", all.join(","))),
            ]
        })
    }

    /// Everything that a request asks about, twice: the answers are the same.
    fn read(body: &[u8]) {
        let mut seen = vec![];
        for _ in 0..2 {
            let mut one: Result<Evaluation, _> = parse(body);
            let mut none = Evaluation::default();
            let asked = one.as_mut().map(|one| {
                let mut ask = || {
                    one.ask(&mut none, |entities, attributes| {
                        format!("{entities:?} {attributes:?}")
                    })
                };
                let first = ask();
                assert_eq!(first, ask(), "properties do not come back");
                first
            });
            seen.push(format!("{asked:?}"));
        }
        assert_eq!(seen.first(), seen.last());
        if let Ok(search) = parse::<Search>(body) {
            let _ = search.attributes();
        }
        let Ok(mut many) = parse::<Evaluations<'_>>(body) else { return };
        let _ = many.options.take().unwrap_or_default().semantic();
        let listed = many.evaluations.take().unwrap_or_default();
        let mut common = many.common();
        let before = format!("{common:?}");
        for one in listed {
            let Ok(mut one) = parse::<Evaluation>(one.get().as_bytes()) else { continue };
            let _ = one.ask(&mut common, |_, _| ());
            assert_eq!(format!("{common:?}"), before, "what all have in common is changed");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            read(&body);
        }

        #[test]
        fn any_json_is_read_or_refused(body in json()) {
            read(body.as_bytes());
        }
    }

    #[test]
    fn values_are_texts_booleans_and_whole_numbers() {
        let body = r#"{"subject": {"type": "t", "id": "i", "properties": {
            "text": "x", "yes": true, "one": 1, "whole": 2.0, "half": 0.5, "large": 9007199254740993, "most": 9007199254740991,
            "huge": 18446744073709551615, "none": null, "list": [1, [2]], "object": {"a": {}}}},
            "action": {"name": "a"}, "resource": {"type": "t", "id": "r"}}"#;
        let mut one: Evaluation = parse(body.as_bytes()).unwrap();
        let known = one
            .ask(&mut Evaluation::default(), |_, attributes| attributes.subject.clone())
            .unwrap();
        let expected = [
            ("most", Value::Integer(9_007_199_254_740_991)),
            ("one", Value::Integer(1)),
            ("text", Value::String("x".into())),
            ("whole", Value::Integer(2)),
            ("yes", Value::Boolean(true)),
        ];
        let found: Vec<_> = known.iter().map(|(name, value)| (&**name, value.clone())).collect();
        assert_eq!(found, expected);
    }
}
