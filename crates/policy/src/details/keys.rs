//! JSON Web Key Sets (RFC 7517), as mappings. Which sets can be is for whoever stores them to say (`capstan-iam`).

use capstan_iam::{KEY_TYPES, SECRET_MEMBERS, check_key_set};
use serde_json::{Map, Value};

use crate::reader::{Kind, Node, Reader, Required};
use crate::scalar::{Plain, resolve};

/// Reads a set of public keys, and writes it as JSON.
pub(super) fn read_key_set<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<String> {
    let mark = node.mark;
    let mut keys = Required::new("keys");
    let is_mapping = reader.mapping(
        node,
        "a JSON Web Key Set: a mapping with `keys`",
        &["keys"],
        |reader, _, value| {
            keys.read(reader, value, |reader, node| {
                let (mark, is_list) = (node.mark, matches!(node.kind, Kind::Sequence));
                let mut keys = Vec::new();
                let mut seen = 0;
                reader.list(&mut keys, node, "a list of keys", |reader, node| {
                    seen += 1;
                    read_key(reader, node)
                });
                if is_list && seen == 0 {
                    reader.report(mark, "no keys", "at least one key");
                }
                (seen == keys.len() && seen > 0).then_some(keys)
            });
        },
    );
    let keys: Vec<Value> = keys.get(reader, mark, is_mapping)?;
    let set = Value::Object(Map::from_iter([("keys".to_owned(), keys.into())])).to_string();
    if let Err(problem) = check_key_set(&set) {
        reader.report(mark, problem, "a JSON Web Key Set of public keys");
        return None;
    }
    Some(set)
}

fn read_key<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<Value> {
    let mark = node.mark;
    let is_mapping = matches!(node.kind, Kind::Mapping);
    let members = reader.named(node, "a public key: a mapping", "a member's name", read_member);
    if !is_mapping {
        return None;
    }
    if let Some(private) = SECRET_MEMBERS.iter().find(|name| members.contains_key(**name)) {
        let expected = format!("a public key, which has no member `{private}`");
        reader.report(mark, "a private or symmetric key", expected);
        return None;
    }
    let members: Option<Map<String, Value>> =
        members.into_iter().map(|(name, value)| Some((name, value?))).collect();
    let members = members?;
    let kind = members.get("kty").and_then(Value::as_str);
    if !kind.is_some_and(|kind| KEY_TYPES.contains(&kind)) {
        let expected = format!("`kty`, which is one of {}", KEY_TYPES.join(", "));
        reader.report(mark, "a key without the type of a public key", expected);
        return None;
    }
    Some(members.into())
}

fn read_member<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<Value> {
    const EXPECTED: &str = "a string, a boolean or a list of strings";
    match &node.kind {
        Kind::Sequence => {
            let (mut items, mut seen) = (Vec::new(), 0);
            reader.list(&mut items, node, EXPECTED, |reader, node| {
                seen += 1;
                Some(Value::String(reader.string(node, "a string")?.into()))
            });
            (seen == items.len()).then(|| items.into())
        }
        Kind::Scalar { text, plain: true } => match resolve(text) {
            Plain::Boolean(value) => Some(value.into()),
            _ => Some(Value::String(reader.string(node, EXPECTED)?.into())),
        },
        _ => Some(Value::String(reader.string(node, EXPECTED)?.into())),
    }
}
