//! Catalog documents (section 4 of the contract), and the set of catalogs that a policy can name.

use std::{collections::BTreeMap, sync::Arc};

use capstan_engine::{Catalog, CatalogFacts, CatalogResource, CatalogRole, Family, quote};

use crate::built_in;
use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::locate::{Unread, report_violations};
use crate::policy::decode;
use crate::reader::{Mark, Node, Reader, Required};

/// The catalogs that a policy can name: built-in and loaded ones.
#[derive(Clone, Debug, Default)]
pub struct Catalogs {
    loaded: BTreeMap<String, Arc<Catalog>>,
}

impl Catalogs {
    /// The loaded or built-in catalog of this name. A built-in one is parsed on each call.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Catalog>> {
        if let Some(catalog) = self.loaded.get(name) {
            return Some(Arc::clone(catalog));
        }
        built_in::get(name).map(Arc::new)
    }

    /// The names of all catalogs: loaded ones in order of name, then built-in ones.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let loaded = self.loaded.keys().map(String::as_str);
        loaded.chain(built_in::names())
    }

    /// All catalogs, in the order of [`Catalogs::names`].
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Catalog>> {
        self.names().filter_map(|name| self.get(name)).collect()
    }

    /// The known error in a built-in catalog, and the name of the corrected catalog.
    pub(crate) fn erratum(name: &str) -> Option<(&'static str, &'static str)> {
        built_in::erratum(name)
    }

    /// Loads a catalog document, so that policies can name it. Returns the catalog and warnings.
    ///
    /// # Errors
    ///
    /// All diagnostics of the document, which then changes nothing. A name that another catalog
    /// already has is an error: loading a file must not change what an existing role means.
    pub fn load(
        &mut self,
        document: &[u8],
    ) -> Result<(Arc<Catalog>, Vec<Diagnostic>), Diagnostics> {
        let (catalog, warnings) = load_catalog(document, |name| self.get(name).is_some())?;
        let catalog = Arc::new(catalog);
        self.loaded.insert(catalog.name().into(), Arc::clone(&catalog));
        Ok((catalog, warnings))
    }
}

/// Loads a catalog document. A name for which `taken` is true is reported.
pub(crate) fn load_catalog(
    document: &[u8],
    taken: impl Fn(&str) -> bool,
) -> Result<(Catalog, Vec<Diagnostic>), Diagnostics> {
    let text = decode(document)?;
    let mut reader = Reader::new(text);
    let draft = reader.document(|reader, node| read_catalog(reader, node, taken));
    let warnings = reader.take_warnings();
    let (mut diagnostics, unread, broken) = reader.finish();
    let catalog = draft
        .flatten()
        .filter(|_| !broken)
        .and_then(|draft| prove(draft, text, "", &unread, &mut diagnostics));
    match catalog {
        Some(catalog) if diagnostics.is_empty() => Ok((catalog, warnings)),
        _ => Err(diagnostics),
    }
}

/// The readable part of a catalog.
#[derive(Debug, Default)]
pub(crate) struct CatalogDraft {
    facts: CatalogFacts,
}

impl CatalogDraft {
    /// The catalog, if it keeps the engine's rules.
    pub(crate) fn proved(self) -> Option<Catalog> {
        Catalog::new(self.facts).ok()
    }
}

/// Checks the engine's rules, and reports the violations. If a list of declarations could not be
/// read, the capabilities of the roles, which may refer to it, are not checked.
pub(crate) fn prove(
    draft: CatalogDraft,
    text: &str,
    prefix: &str,
    unread: &Unread,
    diagnostics: &mut Diagnostics,
) -> Option<Catalog> {
    let mut facts = draft.facts;
    let is_whole = !unread.fields().filter_map(|field| field.strip_prefix(prefix)).any(|field| {
        matches!(field, "resources" | "capabilities" | "roles") || field.ends_with("].actions")
    });
    if !is_whole {
        facts.roles.iter_mut().for_each(|role| role.capabilities.clear());
    }
    match Catalog::new(facts) {
        Ok(catalog) => is_whole.then_some(catalog),
        Err(violations) => {
            report_violations(text, prefix, &violations, unread, diagnostics);
            None
        }
    }
}

/// Reads a catalog. A name for which `taken` is true is reported.
pub(crate) fn read_catalog<'t>(
    reader: &mut Reader<'t>,
    node: Node<'t>,
    taken: impl Fn(&str) -> bool,
) -> Option<CatalogDraft> {
    let mark = node.mark;
    let mut draft = CatalogDraft::default();
    let mut name = Required::new("name");
    let is_mapping = reader.mapping(
        node,
        "a catalog: a mapping with `name`, `resources` and `roles`",
        &["name", "resources", "capabilities", "roles"],
        |reader, key, value| match key {
            "name" => name.read(reader, value, |reader, node| {
                let mark = node.mark;
                let name = declared_name(reader, node)?;
                if taken(&name) {
                    let found = format!("{}, the name of another catalog", quote(&name));
                    reader.report(mark, found, "a name that no built-in or loaded catalog has");
                }
                Some(name)
            }),
            "resources" => {
                reader.list(
                    &mut draft.facts.resources,
                    value,
                    "a list of resources",
                    read_resource,
                );
            }
            "capabilities" => {
                let expected = "a list of opaque capabilities";
                reader.list(&mut draft.facts.capabilities, value, expected, declared_name);
            }
            _ => reader.list(&mut draft.facts.roles, value, "a list of roles", read_role),
        },
    );
    draft.facts.name = name.get(reader, mark, is_mapping)?;
    Some(draft)
}

fn read_resource<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<CatalogResource> {
    let mark = node.mark;
    let mut resource = CatalogResource::default();
    let mut name = Required::new("name");
    let is_mapping = reader.mapping(
        node,
        "a resource: a mapping with `name` and `actions`",
        &["name", "purpose", "actions"],
        |reader, key, value| match key {
            "name" => name.read(reader, value, declared_name),
            "purpose" => resource.purpose = reader.text(value).unwrap_or_default(),
            _ => reader.list(&mut resource.actions, value, "a list of actions", declared_name),
        },
    );
    Some(CatalogResource { name: name.get(reader, mark, is_mapping)?, ..resource })
}

fn read_role<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<CatalogRole> {
    let mark = node.mark;
    let mut role = CatalogRole::default();
    let mut name = Required::new("name");
    let is_mapping = reader.mapping(
        node,
        "a role: a mapping with `name` and `capabilities`",
        &["name", "family", "description", "owner", "capabilities"],
        |reader, key, value| match key {
            "name" => name.read(reader, value, declared_name),
            "family" => role.family = family(reader, value).unwrap_or_default(),
            "description" => role.description = reader.text(value).unwrap_or_default(),
            "owner" => role.owner = reader.boolean(value).unwrap_or_default(),
            _ => role.capabilities = strings(reader, value, "a list of capabilities"),
        },
    );
    let name: String = name.get(reader, mark, is_mapping)?;
    warn_if_empty(reader, mark, &name, &role.capabilities);
    Some(CatalogRole { name, ..role })
}

fn family<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<Family> {
    reader.parse(node, "a family", |text| {
        Family::ALL
            .into_iter()
            .find(|family| family.as_str() == text)
            .ok_or("administrative, registry, library or custom")
    })
}

/// The lint of section 4: a role without capabilities is valid, but certainly a mistake.
pub(crate) fn warn_if_empty(
    reader: &mut Reader<'_>,
    mark: Mark,
    role: &str,
    capabilities: &[String],
) {
    if capabilities.is_empty() {
        let found = format!("role {} without capabilities", quote(role));
        reader.warn(mark, found, "at least one capability");
    }
}

fn declared_name<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<String> {
    reader.declared(node, |reader, node| string(reader, node, "a name"))
}

pub(crate) fn string<'t>(
    reader: &mut Reader<'t>,
    node: Node<'t>,
    expected: &str,
) -> Option<String> {
    reader.string(node, expected).map(Into::into)
}

/// A list of strings. Other items are reported and left out.
pub(crate) fn strings<'t>(reader: &mut Reader<'t>, node: Node<'t>, expected: &str) -> Vec<String> {
    let mut all = Vec::new();
    reader.list(&mut all, node, expected, |reader, item| string(reader, item, "a name"));
    all
}
