//! The documents that Capstan reads, described by tables of keys. The JSON Schema of a document and the reference
//! `docs/POLICY.md` are generated from these tables. The reader does not use them; a test compares the reader with the
//! schema, mutation by mutation (`tests/schema.rs`).

mod authentication;
mod callers;
mod catalog;
mod json;
mod markdown;
mod policy;
mod policy_test;
mod routes;
mod texts;

pub use markdown::reference;
pub use texts::Text;

/// All documents, in the order of the reference.
pub const DOCUMENTS: [&Document; 5] = [
    &policy::DOCUMENT,
    &catalog::DOCUMENT,
    &routes::DOCUMENT,
    &callers::DOCUMENT,
    &policy_test::DOCUMENT,
];

/// A kind of document.
#[derive(Debug)]
pub struct Document {
    /// The name, as `capstan schema` takes it.
    pub name: &'static str,
    /// The title, in the plural.
    pub title: &'static str,
    /// What the document is for.
    pub description: &'static str,
    /// The document itself, which is a mapping.
    pub root: &'static Table,
    /// Complete documents in YAML, which the reader accepts. Together they have every key.
    pub examples: &'static [&'static str],
}

impl Document {
    /// Calls `visit` with each table of the document: the root, then the tables of its keys.
    pub fn tables(&self, visit: &mut impl FnMut(&'static Table)) {
        let mut tables = vec![self.root];
        let mut at = 0;
        while let Some(table) = tables.get(at).copied() {
            visit(table);
            let below: Vec<_> = table.keys.iter().flat_map(|key| key.kind.tables()).collect();
            // In the order of the text: what is below a key comes before the next key.
            at += 1;
            tables.splice(at..at, below);
        }
    }
}

/// A mapping with a closed set of keys.
#[derive(Debug)]
pub struct Table {
    /// What one mapping is, such as `role binding`.
    pub name: &'static str,
    /// What it is for, in one or more sentences.
    pub description: &'static str,
    /// The keys, in the order in which the reader lists them.
    pub keys: &'static [Key],
    /// Rules on the combination of keys. Each must hold.
    pub rules: &'static [Rule],
    /// Examples of all forms: YAML, and what it means.
    pub forms: &'static [(&'static str, &'static str)],
    /// Rules that a JSON Schema cannot state. Only the reader checks them.
    pub notes: &'static [&'static str],
}

impl Table {
    const EMPTY: Self =
        Self { name: "", description: "", keys: &[], rules: &[], forms: &[], notes: &[] };

    /// The key of this name.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// A rule on the combination of keys: one of the shapes must fit.
#[derive(Debug)]
pub struct Rule {
    /// The rule in words.
    pub description: &'static str,
    /// The shapes, one of which must fit.
    pub shapes: &'static [Shape],
}

/// What some keys of a mapping must be. Other keys are free.
#[derive(Debug)]
pub struct Shape {
    /// Keys that must be present.
    pub has: &'static [&'static str],
    /// Keys that must be absent.
    pub lacks: &'static [&'static str],
    /// Conditions on keys, if they are present.
    pub tests: &'static [(&'static str, Test)],
}

/// A condition on a value.
#[derive(Clone, Copy, Debug)]
pub enum Test {
    /// A list without items.
    Empty,
    /// A list with one item or more.
    NotEmpty,
    /// This boolean.
    Is(bool),
    /// This word.
    Word(&'static str),
    /// Any word but this one.
    NotWord(&'static str),
}

/// A key of a mapping.
#[derive(Debug)]
pub struct Key {
    /// The name.
    pub name: &'static str,
    /// The type of the value.
    pub kind: Kind,
    /// Whether a mapping without the key is refused.
    pub required: bool,
    /// What the value means.
    pub description: &'static str,
    /// A value, in JSON. One of the document's examples has it, or a list with its items.
    pub example: &'static str,
    /// The value that an absent key stands for, in JSON; empty if there is none.
    pub default: &'static str,
}

impl Key {
    const fn required(
        name: &'static str,
        kind: Kind,
        description: &'static str,
        example: &'static str,
    ) -> Self {
        Self { name, kind, required: true, description, example, default: "" }
    }

    const fn optional(
        name: &'static str,
        kind: Kind,
        description: &'static str,
        example: &'static str,
    ) -> Self {
        Self { name, kind, required: false, description, example, default: "" }
    }

    const fn or(self, default: &'static str) -> Self {
        Self { default, ..self }
    }
}

/// The type of a value.
#[derive(Debug)]
pub enum Kind {
    /// The number 1: the version of the format.
    Version,
    /// `true` or `false`.
    Boolean,
    /// A string of a certain form.
    Text(&'static Text),
    /// One of these words.
    Words(fn() -> Vec<&'static str>),
    /// The value of an attribute: a string, a boolean or an integer.
    Attribute,
    /// A mapping from any names to values of attributes.
    Attributes,
    /// A mapping from names of claims to strings of a certain form.
    Claims(&'static Text),
    /// A public key: a mapping from names to strings, booleans and lists of strings.
    PublicKey,
    /// A mapping from names of parameters to one of these words.
    Forms(fn() -> Vec<&'static str>),
    /// A list of so many items.
    List {
        /// The type of an item.
        of: &'static Kind,
        /// Fewest items.
        min: usize,
        /// Most items, if they are limited.
        max: Option<usize>,
    },
    /// A mapping.
    Table(&'static Table),
    /// Either of two types.
    Either(&'static Kind, &'static Kind),
}

impl Kind {
    /// The tables of the mappings that such a value is or has as items.
    #[must_use]
    pub fn tables(&self) -> Vec<&'static Table> {
        match self {
            Self::List { of, .. } => of.tables(),
            Self::Either(one, other) => [one.tables(), other.tables()].concat(),
            Self::Table(table) => vec![*table],
            _ => Vec::new(),
        }
    }

    const fn list(of: &'static Self) -> Self {
        Self::List { of, min: 0, max: None }
    }
}
