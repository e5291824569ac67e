//! JSON Web Key Sets (RFC 7517): shapes only. Whether a key is of use is for whoever verifies tokens to say.

use serde_json::{Map, Value};

use crate::reader::{Kind, Node, Reader, Required};
use crate::scalar::{Plain, resolve};

/// Members of private and symmetric keys (RFC 7518, section 6). A document holds no secrets.
pub(crate) const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

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
                (seen == keys.len()).then_some(keys)
            });
        },
    );
    let keys: Vec<Value> = keys.get(reader, mark, is_mapping)?;
    Some(Value::Object(Map::from_iter([("keys".to_owned(), keys.into())])).to_string())
}

fn read_key<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<Value> {
    let mark = node.mark;
    let is_mapping = matches!(node.kind, Kind::Mapping);
    let members = reader.named(node, "a public key: a mapping", "a member's name", read_member);
    if !is_mapping {
        return None;
    }
    if let Some(private) = PRIVATE_MEMBERS.iter().find(|name| members.contains_key(**name)) {
        let expected = format!("a public key, which has no member `{private}`");
        reader.report(mark, "a private or symmetric key", expected);
        return None;
    }
    let members: Option<Map<String, Value>> =
        members.into_iter().map(|(name, value)| Some((name, value?))).collect();
    let members = members?;
    if !members.get("kty").is_some_and(Value::is_string) {
        reader.report(mark, "a key without a type", "the string `kty`, such as `kty: EC`");
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
