//! The documents of the repository, as JSON values: YAML and JSON files, the blocks of YAML in Markdown, and the
//! examples of the tables.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use capstan_policy::schema::DOCUMENTS;
use capstan_policy::{
    BUILT_IN, Catalogs, Diagnostic, load_callers, load_policy, load_policy_tests, load_routes,
};
use granit_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// A document that the reader accepts.
pub(crate) struct Document {
    /// Index in [`DOCUMENTS`].
    pub(crate) kind: usize,
    /// Where it is.
    pub(crate) place: String,
    pub(crate) value: Value,
}

/// The built-in catalogs under other names. They are parsed once; a built-in one is parsed for each policy.
static CATALOGS: LazyLock<Catalogs> = LazyLock::new(|| {
    let mut catalogs = Catalogs::default();
    for (name, text) in BUILT_IN {
        let text = text.replace(&format!("\nname: {name}\n"), &format!("\nname: loaded-{name}\n"));
        catalogs.load(text.as_bytes()).unwrap();
    }
    catalogs
});

/// The diagnostics of the reader; none if it accepts the document.
pub(crate) fn read(kind: usize, text: &str) -> Vec<Diagnostic> {
    let text = text.as_bytes();
    let refused = match DOCUMENTS[kind].name {
        "policy" => load_policy(text, &CATALOGS).err(),
        "catalog" => Catalogs::default().load(text).err(),
        "routes" => load_routes(text).err(),
        "callers" => load_callers(text).err(),
        _ => load_policy_tests(text).err(),
    };
    refused.map(|found| found.iter().cloned().collect()).unwrap_or_default()
}

/// All documents that the reader accepts.
pub(crate) fn accepted() -> Vec<Document> {
    let mut texts = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for path in files(&root) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let place = path.strip_prefix(&root).unwrap().display().to_string();
        if place.ends_with(".md") {
            for block in text.split("```yaml\n").skip(1) {
                texts.push((place.clone(), block.split("```").next().unwrap().to_owned()));
            }
        } else {
            texts.push((place, text));
        }
    }
    for document in DOCUMENTS {
        for example in document.examples {
            texts.push((format!("an example of {}", document.name), (*example).to_owned()));
        }
    }
    let mut accepted = Vec::new();
    for (place, text) in texts {
        let Some(mut value) = yaml(&text) else { continue };
        let kinds: Vec<usize> = (0..DOCUMENTS.len())
            .filter(|kind| {
                // The built-in catalogs: their names are taken.
                let refused = read(*kind, &text);
                refused.iter().all(|found| found.expected.contains("no built-in or loaded catalog"))
            })
            .collect();
        let [kind] = kinds[..] else {
            assert!(kinds.is_empty(), "{place} is several kinds of document");
            continue;
        };
        if DOCUMENTS[kind].name == "catalog" {
            value["name"] = "a-free-name".into();
        }
        if let Some(name) = value.get("catalog").and_then(Value::as_str) {
            let name = format!("loaded-{}", name.trim_end_matches("+errata"));
            if CATALOGS.get(&name).is_some() {
                value["catalog"] = name.into();
                assert_eq!(read(kind, &value.to_string()), [], "{place}");
            }
        }
        accepted.push(Document { kind, place, value });
    }
    accepted
}

fn files(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" && name != "node_modules" {
                    folders.push(path);
                }
            } else if [".yaml", ".yml", ".json", ".md"].iter().any(|end| name.ends_with(end)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The value of a text with one document of YAML. `None` if it is something else.
pub(crate) fn yaml(text: &str) -> Option<Value> {
    /// The open collections; each with its key in the outer one.
    enum Open {
        List(Vec<Value>),
        Mapping(Map<String, Value>, Option<String>),
    }
    let mut open: Vec<Open> = Vec::new();
    let mut whole = None;
    for event in Parser::new_from_str(text) {
        let value = match event.ok()?.0 {
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Mapping(Map::new(), None));
                continue;
            }
            Event::Scalar(text, style, ..) => {
                let is_key = matches!(open.last(), Some(Open::Mapping(_, None)));
                if is_key || style != ScalarStyle::Plain {
                    Value::String(text.into())
                } else {
                    plain(&text)
                }
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop()? {
                Open::List(items) => Value::Array(items),
                Open::Mapping(entries, _) => Value::Object(entries),
            },
            Event::Alias(_) => return None,
            _ => continue,
        };
        match open.last_mut() {
            None if whole.is_some() => return None,
            None => whole = Some(value),
            Some(Open::List(items)) => items.push(value),
            Some(Open::Mapping(entries, key)) => match key.take() {
                None => *key = Some(value.as_str()?.to_owned()),
                Some(key) => {
                    entries.insert(key, value);
                }
            },
        }
    }
    whole
}

/// An unquoted scalar, as far as the documents here have them.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => true.into(),
        "false" => false.into(),
        _ => {
            let is_number = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
            let number = is_number.then(|| serde_json::from_str(text).ok()).flatten();
            number.unwrap_or_else(|| Value::String(text.into()))
        }
    }
}
