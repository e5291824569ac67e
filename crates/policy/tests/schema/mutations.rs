//! Mutations of documents: keys dropped and added, types and values changed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::documents::Document;

/// Calls `visit` with mutated documents, each with its kind and with what was done. Returns their number.
pub(crate) fn mutations(
    documents: &[Document],
    mut visit: impl FnMut(usize, &str, &Value),
) -> usize {
    // By kind and place: every key with values that some document has for it.
    let mut known: BTreeMap<(usize, String), BTreeMap<String, Vec<Value>>> = BTreeMap::new();
    for document in documents {
        for (pointer, value) in nodes(&document.value) {
            let Value::Object(entries) = value else { continue };
            let keys = known.entry((document.kind, shape(&pointer))).or_default();
            for (key, value) in entries {
                let values = keys.entry(key.clone()).or_default();
                if values.len() < 3 && !values.contains(value) {
                    values.push(value.clone());
                }
            }
        }
    }
    let mut count = 0;
    // Nodes at the same place, with the same keys beside them, are changed once; their texts once in a place.
    let (mut seen, mut seen_shapes) = (BTreeSet::new(), BTreeSet::new());
    let mut documents: Vec<_> = documents.iter().collect();
    documents.sort_by_key(|document| document.value.to_string().len());
    for Document { kind, place, value: whole } in documents {
        let mut changed = whole.clone();
        for (pointer, value) in nodes(whole) {
            if !seen.insert((*kind, signature(whole, &pointer))) {
                continue;
            }
            let is_new = seen_shapes.insert((*kind, shape(&pointer)));
            let mut push = |done: String, new: Value| {
                if new != *value {
                    *changed.pointer_mut(&pointer).unwrap() = new;
                    visit(*kind, &format!("{place}, {pointer}: {done}"), &changed);
                    count += 1;
                }
            };
            for other in types() {
                push(format!("is {other}"), other);
            }
            match value {
                Value::Object(entries) => {
                    for key in entries.keys() {
                        let mut fewer = entries.clone();
                        fewer.remove(key);
                        push(format!("without {key}"), fewer.into());
                    }
                    let place = (*kind, shape(&pointer));
                    let known = known.get(&place).into_iter().flatten();
                    let known = known.flat_map(|(key, values)| {
                        values.iter().map(move |value| (key.as_str(), value))
                    });
                    let unknown = [Value::Null, json!(1), json!("x"), json!({}), json!([])];
                    let unknown: Vec<_> = unknown
                        .into_iter()
                        .map(|value| ("not-a-key", value))
                        .chain(["", "<<", "Id", "id ", "a.b", "\u{1}"].map(|key| (key, json!("x"))))
                        .collect();
                    let added = unknown.iter().map(|(key, value)| (*key, value));
                    for (key, value) in known.chain(added) {
                        let mut more = entries.clone();
                        more.insert(key.into(), value.clone());
                        push(format!("{key:?} is {value}"), more.into());
                    }
                }
                Value::Array(items) if is_new => {
                    for item in types() {
                        let more: Vec<_> = items.iter().cloned().chain([item.clone()]).collect();
                        push(format!("and {item}"), more.into());
                    }
                    for (count, first) in [1, 16, 17, 32, 33, 64, 65]
                        .into_iter()
                        .zip(std::iter::repeat(items.first()))
                    {
                        let more: Vec<_> = first.into_iter().cycle().take(count).cloned().collect();
                        push(format!("{count} times its first item"), more.into());
                    }
                }
                Value::String(text) if is_new => strings(text)
                    .into_iter()
                    .for_each(|new| push(format!("is {new:?}"), new.into())),
                _ => numbers().into_iter().for_each(|new| push(format!("is {new}"), new)),
            }
            *changed.pointer_mut(&pointer).unwrap() = value.clone();
        }
    }
    count
}

/// A value of each type.
fn types() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(1.5),
        json!(-9_007_199_254_740_992_i64),
        json!(""),
        json!("text"),
        json!([]),
        json!({}),
        json!([[]]),
        json!([null]),
        json!({"x": {"y": []}}),
    ]
}

fn numbers() -> Vec<Value> {
    vec![
        json!(2),
        json!(-1),
        json!(9_007_199_254_740_991_i64),
        json!(9_007_199_254_740_992_i64),
        json!(1e300),
        json!(3.0),
    ]
}

/// Changes of a string: its form and its length.
fn strings(text: &str) -> Vec<String> {
    let mut all: Vec<String> = [
        "a/b",
        "a//b",
        "/a",
        "a/",
        ".",
        "..",
        "a/..",
        "a..b",
        ".a",
        "a.",
        "a b",
        "ä",
        "a\u{0}b",
        "a\nb",
        "\u{85}",
        "{x}",
        "/{x}",
        "/{x...}",
        "/{x...}/{y...}",
        "/{x}/{x}",
        "/{x",
        "/a/{x}b",
        "/",
        "//",
        "/./a",
        "/a/",
        "/%2F",
        "a{x}",
        "a/{x}",
        "^$",
        "^a$",
        "^(x$",
        "^a|b$",
        "^",
        "$",
        "spiffe://a/b",
        "spiffe://a/./b",
        "spiffe://A/b",
        "spiffe://a/",
        "spiffe://a",
        "a.b-c.1d",
        "*.a.b",
        "A.b",
        "-a.b",
        "a-.b",
        "a_b.c",
        "192.0.2.1",
        "a.1",
        "7",
        "0.a",
        "subject.",
        "subject.a",
        "subject.\n",
        "other.a",
        "subject",
        "GET",
        "get",
        "GRANTED",
        "NO_BINDING",
        "digest",
        "encoded_slash",
        "custom",
        "jwt",
        "peer",
        "a:b",
        "[::1]",
        "[]",
        "A.example",
        "a.b/C",
        "a..b/C",
        "a/B/C",
        "<<",
        "name",
        "chainguard-2025-08-14",
        "a%b",
        "a=b",
        ":a",
        "a:",
        "a/b:c",
        "2027-01-01T00:00:00Z",
        "2027-01-01t00:00:00z",
        "2027-01-01 00:00:00Z",
        "2027-01-01_00:00:00.5+01:00",
        "2027-02-30T00:00:00Z",
        "2027-13-01T00:00:00Z",
        "2027-01-01T24:00:00Z",
        "2027-01-01T23:59:60Z",
        "2027-06-30T23:59:60Z",
        "2027-01-01T00:00:00",
        "2027-01-01",
        "2027-01-01T00:00:00.Z",
        "2027-01-01T00:00:00+24:00",
        "2027-01-01T00:00:00-23:59",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B856",
        "1111111111111111111111111111111111111111111111111111111111111111",
    ]
    .map(String::from)
    .into();
    for count in [17, 18, 63, 64, 65, 128, 129, 255, 256, 257, 1_023, 1_024, 1_025] {
        all.push("a".repeat(count));
        all.push(format!("a/{}", "b".repeat(count)));
        all.push(format!("/{}", "b".repeat(count)));
    }
    for count in [15, 16, 17, 31, 32, 33] {
        all.push(vec!["a"; count].join("/"));
        all.push("/a".repeat(count));
        all.push((0..count).map(|at| format!("/{{x{at}}}")).collect());
    }
    all.push("ä".repeat(600));
    // A DNS name of 253 bytes, and one of 254.
    let labels = vec!["a".repeat(63); 3].join(".");
    all.extend([61, 62].map(|more| format!("{labels}.{}", "b".repeat(more))));
    // A path of 1,024 bytes, and one of 1,025.
    let segments = vec!["a".repeat(127); 8].join("/");
    all.extend([segments.clone() + "b", segments.clone() + "bb"]);
    for end in [" ", "/", ".", "/x", ".x", "\n", "Z"] {
        all.push(format!("{text}{end}"));
        all.push(format!("{end}{text}"));
    }
    all
}

/// All nodes with their JSON pointers, from the root down.
fn nodes(root: &Value) -> Vec<(String, &Value)> {
    let mut all = vec![(String::new(), root)];
    let mut at = 0;
    while let Some((pointer, value)) = all.get(at).cloned() {
        at += 1;
        match value {
            Value::Object(entries) => all.extend(entries.iter().map(|(key, value)| {
                (format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1")), value)
            })),
            Value::Array(items) => {
                all.extend(
                    items.iter().enumerate().map(|(at, value)| (format!("{pointer}/{at}"), value)),
                );
            }
            _ => {}
        }
    }
    all
}

/// A pointer with `*` in place of each index and each free name.
pub(crate) fn shape(pointer: &str) -> String {
    let mut steps: Vec<&str> = pointer.split('/').collect();
    for at in 0..steps.len() {
        // Names of attributes and parameters are free.
        let is_free =
            at > 0 && ["properties", "where", "claims", "claim_patterns"].contains(&steps[at - 1]);
        if is_free || steps[at].parse::<usize>().is_ok() {
            steps[at] = "*";
        }
    }
    steps.join("/")
}

/// The shape of a pointer, and the keys of the innermost mapping on the way.
fn signature(whole: &Value, pointer: &str) -> String {
    let shape = shape(pointer);
    let ways =
        std::iter::successors(Some(pointer), |way| way.rfind('/').and_then(|at| way.get(..at)));
    let ways = ways.filter(|_| !shape.contains("/properties"));
    let inner = ways.filter_map(|way| whole.pointer(way)).find_map(Value::as_object);
    let keys: BTreeSet<_> = inner.into_iter().flat_map(|entries| entries.keys()).collect();
    format!("{shape} {keys:?}")
}
