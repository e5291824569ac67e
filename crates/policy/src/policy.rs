//! Policy documents (section 3 of the contract).

use std::sync::Arc;

use capstan_engine::{
    AttributeCategory, Catalog, Condition, CustomRole, Facts, Group, Identity, Model, Path,
    PathBuf, Properties, RegisteredResource, RoleBinding, Value, check_facts, parse_attribute,
    parse_name, quote,
};
use capstan_iam::fields::{check_condition, check_properties, check_type};

use crate::catalog::{CatalogDraft, Catalogs, prove, read_catalog, string, strings, warn_if_empty};
use crate::credentials::{Credentials, CredentialsDraft};
use crate::details::{Details, PolicyDetails, read_authentication, read_list};
use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::locate::report_violations;
use crate::reader::{Kind, Node, Reader, Required};

/// A loaded policy.
#[derive(Debug)]
pub struct Policy {
    /// The declared facts, checked against the engine's rules.
    pub model: Model,
    /// The credentials, by hash.
    pub credentials: Credentials,
    /// What the document says beside its facts, by their positions.
    pub details: PolicyDetails,
    /// Valid declarations that are certainly mistakes: at most [`DIAGNOSTICS_MAX`].
    ///
    /// [`DIAGNOSTICS_MAX`]: crate::DIAGNOSTICS_MAX
    pub warnings: Vec<Diagnostic>,
}

/// Loads a policy document.
///
/// # Errors
///
/// All diagnostics of the document: the first 100 by position, and the number of all.
pub fn load_policy(document: &[u8], catalogs: &Catalogs) -> Result<Policy, Diagnostics> {
    let text = decode(document)?;
    let mut reader = Reader::new(text);
    let draft = reader.document(|reader, node| read_policy(reader, node, catalogs));
    let warnings = reader.take_warnings();
    let (mut diagnostics, unread, broken) = reader.finish();
    let Some(draft) = draft.filter(|_| !broken) else {
        return Err(diagnostics);
    };

    let declared = (!unread.has("identities")).then_some(&*draft.facts.identities);
    let credentials = draft.credentials.prove(declared, &mut diagnostics);
    let catalog = match draft.catalog {
        Some(Source::Named(catalog)) => Some(catalog),
        Some(Source::Inline(inline)) => {
            prove(inline, text, "catalog.", &unread, &mut diagnostics).map(Arc::new)
        }
        None => None,
    };
    let found = match catalog {
        Some(catalog) if diagnostics.is_empty() => match Model::new(catalog, draft.facts) {
            Ok(model) => {
                let details = draft.details;
                return Ok(Policy { model, credentials, details, warnings });
            }
            Err(found) => found,
        },
        catalog => {
            let lists = ["groups", "roles", "identities", "resources"];
            let lists: Vec<_> = lists.into_iter().filter(|list| unread.has(list)).collect();
            let checked = check_facts(&draft.facts, catalog.as_deref(), &lists);
            checked.err().unwrap_or_default()
        }
    };
    report_violations(text, "", &found, &unread, &mut diagnostics);
    Err(diagnostics)
}

/// Decodes a document as UTF-8. The diagnostic has the position of the first invalid byte.
pub(crate) fn decode(document: &[u8]) -> Result<&str, Diagnostics> {
    std::str::from_utf8(document).map_err(|error| {
        let good = document.get(..error.valid_up_to()).unwrap_or_default();
        let good = String::from_utf8_lossy(good).replace("\r\n", "\n");
        let good = good.trim_start_matches('\u{feff}');
        let (line, last) = good.split(['\n', '\r']).enumerate().last().unwrap_or_default();
        let mut diagnostics = Diagnostics::default();
        diagnostics.push(Diagnostic {
            line: line + 1,
            column: last.chars().count() + 1,
            field: String::new(),
            found: "bytes that are not UTF-8".into(),
            expected: "UTF-8".into(),
        });
        diagnostics
    })
}

/// The readable part of a policy.
#[derive(Default)]
struct Draft {
    catalog: Option<Source>,
    facts: Facts,
    details: PolicyDetails,
    credentials: CredentialsDraft,
}

/// Where the catalog comes from: a name, or a mapping in the policy.
pub(crate) enum Source {
    Named(Arc<Catalog>),
    Inline(CatalogDraft),
}

fn read_policy<'t>(reader: &mut Reader<'t>, node: Node<'t>, catalogs: &Catalogs) -> Draft {
    let mark = node.mark;
    let mut draft = Draft::default();
    let (mut has_version, mut has_catalog) = (false, false);
    let Draft { catalog, facts, details, credentials } = &mut draft;
    let is_mapping = reader.mapping(
        node,
        "a policy: a mapping with `version`, `catalog` and declarations",
        &[
            "version",
            "catalog",
            "groups",
            "roles",
            "identities",
            "role_bindings",
            "resources",
            "credentials",
        ],
        |reader, key, value| match key {
            "version" => {
                has_version = true;
                reader.exactly(value, 1);
            }
            "catalog" => {
                has_catalog = true;
                *catalog = read_source(reader, value, catalogs);
            }
            "groups" => {
                let into = (&mut facts.groups, &mut details.groups);
                read_list(reader, value, "a list of groups", into, read_group);
            }
            "roles" => reader.list(&mut facts.roles, value, "a list of roles", read_custom_role),
            "identities" => {
                let into = (&mut facts.identities, &mut details.identities);
                read_list(reader, value, "a list of identities", into, read_identity);
            }
            "role_bindings" => {
                let into = (&mut facts.role_bindings, &mut details.role_bindings);
                read_list(reader, value, "a list of role bindings", into, read_role_binding);
            }
            "resources" => {
                let into = (&mut facts.resources, &mut details.resources);
                read_list(reader, value, "a list of resources", into, read_registered);
            }
            _ => credentials.read(reader, value),
        },
    );
    if is_mapping {
        for (key, _) in [("version", has_version), ("catalog", has_catalog)].iter().filter(|k| !k.1)
        {
            reader.missing(mark, key);
        }
    }
    draft
}

pub(crate) fn read_source<'t>(
    reader: &mut Reader<'t>,
    node: Node<'t>,
    catalogs: &Catalogs,
) -> Option<Source> {
    let mark = node.mark;
    if matches!(node.kind, Kind::Mapping) {
        return read_catalog(reader, node, |_| false).map(Source::Inline);
    }
    let name = string(reader, node, "a catalog's name, or a catalog")?;
    let catalog = catalogs.get(&name);
    if catalog.is_none() {
        let known: Vec<_> = catalogs.names().collect();
        let expected = format!("a built-in or loaded catalog: {}", known.join(", "));
        reader.report(mark, format!("catalog {}", quote(&name)), expected);
    }
    if let Some((why, corrected)) = Catalogs::erratum(&name) {
        let expected = format!("`{corrected}`, except to use the literal table");
        reader.warn(mark, format!("catalog {}, {why}", quote(&name)), &expected);
    }
    catalog.map(Source::Named)
}

pub(crate) fn read_group<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<(Group, Details)> {
    let mark = node.mark;
    let mut id = Required::new("id");
    let (mut name, mut details) = (String::new(), Details::default());
    let is_mapping = reader.mapping(
        node,
        "a group: a mapping with `id`",
        &["id", "name", "description"],
        |reader, key, value| match key {
            "id" => id.read(reader, value, self::id),
            "name" => name = reader.text(value).unwrap_or_default(),
            _ => details.description = reader.text(value).unwrap_or_default(),
        },
    );
    Some((Group { id: id.get(reader, mark, is_mapping)?, name }, details))
}

pub(crate) fn read_custom_role<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<CustomRole> {
    let mark = node.mark;
    let mut id = Required::new("id");
    let (mut name, mut description, mut capabilities) = Default::default();
    let is_mapping = reader.mapping(
        node,
        "a role: a mapping with `id` and `capabilities`",
        &["id", "name", "description", "capabilities"],
        |reader, key, value| match key {
            "id" => id.read(reader, value, self::id),
            "name" => name = reader.text(value).unwrap_or_default(),
            "description" => description = reader.text(value).unwrap_or_default(),
            _ => capabilities = strings(reader, value, "a list of capabilities"),
        },
    );
    let id: PathBuf = id.get(reader, mark, is_mapping)?;
    warn_if_empty(reader, mark, id.as_str(), &capabilities);
    Some(CustomRole { id, name, description, capabilities })
}

pub(crate) fn read_identity<'t>(
    reader: &mut Reader<'t>,
    node: Node<'t>,
) -> Option<(Identity, Details)> {
    let mark = node.mark;
    let mut id = Required::new("id");
    let mut details = Details::default();
    let (mut name, mut kind, mut properties, mut disabled) = Default::default();
    let is_mapping = reader.mapping(
        node,
        "an identity: a mapping with `id`",
        &["id", "name", "description", "type", "properties", "disabled", "authentication"],
        |reader, key, value| match key {
            "id" => id.read(reader, value, self::id),
            "name" => name = reader.text(value).unwrap_or_default(),
            "description" => details.description = reader.text(value).unwrap_or_default(),
            "type" => kind = kind_word(reader, value),
            "properties" => properties = declared_properties(reader, value),
            "disabled" => disabled = reader.boolean(value).unwrap_or_default(),
            _ => details.authentication = read_authentication(reader, value),
        },
    );
    let id = id.get(reader, mark, is_mapping)?;
    let kind = kind.unwrap_or_else(|| "user".into());
    Some((Identity { id, name, kind, properties, disabled }, details))
}

pub(crate) fn read_registered<'t>(
    reader: &mut Reader<'t>,
    node: Node<'t>,
) -> Option<(RegisteredResource, Details)> {
    let mark = node.mark;
    let mut id = Required::new("id");
    let mut kind = Required::new("type");
    let (mut name, mut properties) = (String::new(), Properties::new());
    let mut details = Details::default();
    let is_mapping = reader.mapping(
        node,
        "a resource: a mapping with `id` and `type`",
        &["id", "type", "name", "description", "properties"],
        |reader, key, value| match key {
            "id" => id.read(reader, value, self::id),
            "type" => kind.read(reader, value, kind_word),
            "name" => name = reader.text(value).unwrap_or_default(),
            "description" => details.description = reader.text(value).unwrap_or_default(),
            _ => properties = declared_properties(reader, value),
        },
    );
    let kind = kind.get(reader, mark, is_mapping);
    let id = id.get(reader, mark, is_mapping)?;
    // A missing type is reported. The resource is kept, so that its bindings are not reported too.
    let kind = kind.unwrap_or_default();
    Some((RegisteredResource { id, name, kind, properties }, details))
}

pub(crate) fn read_role_binding<'t>(
    reader: &mut Reader<'t>,
    node: Node<'t>,
) -> Option<(RoleBinding, Details)> {
    let mark = node.mark;
    let mut details = Details::default();
    let (mut id, mut expires_at, mut when) = (None, None, Vec::new());
    let mut identity = Required::new("identity");
    let mut role = Required::new("role");
    let mut scope = Required::new("scope");
    let is_mapping = reader.mapping(
        node,
        "a role binding: a mapping with `identity`, `role` and `scope`",
        &["id", "description", "identity", "role", "scope", "expires_at", "when"],
        |reader, key, value| match key {
            "id" => id = path(reader, value),
            "description" => details.description = reader.text(value).unwrap_or_default(),
            "identity" => identity.read(reader, value, path),
            "role" => role.read(reader, value, role_name),
            "scope" => scope.read(reader, value, path),
            "expires_at" => expires_at = reader.timestamp(value),
            _ => reader.list(&mut when, value, "a list of conditions", read_condition),
        },
    );
    let identity = identity.get(reader, mark, is_mapping);
    let role = role.get(reader, mark, is_mapping);
    let scope = scope.get(reader, mark, is_mapping);
    let (identity, role, scope) = (identity?, role?, scope?);
    Some((RoleBinding { id, identity, role, scope, expires_at, when }, details))
}

/// Reads a condition. An unreadable one is reported, and stands for a condition that equals no
/// other, so that its binding is not reported as a duplicate.
fn read_condition<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<Condition> {
    let mark = node.mark;
    Some(read_readable_condition(reader, node).unwrap_or_else(|| Condition {
        category: AttributeCategory::Context,
        name: format!("{mark:?}"),
        equals: false,
        value: Value::Boolean(false),
    }))
}

fn read_readable_condition<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<Condition> {
    let mark = node.mark;
    let mut attribute = Required::new("attribute");
    let (mut equals, mut not_equals) = (None, None);
    let is_mapping = reader.mapping(
        node,
        "a condition: a mapping with `attribute` and `equals` or `not_equals`",
        &["attribute", "equals", "not_equals"],
        |reader, key, value| match key {
            "attribute" => attribute.read(reader, value, |reader, node| {
                reader.parse(node, "an attribute", |text| {
                    let parsed = parse_attribute(text).map(|(of, name)| (of, name.to_owned()));
                    parsed.ok_or("subject.NAME, resource.NAME, action.NAME or context.NAME")
                })
            }),
            "equals" => equals = Some(reader.attribute(value)),
            _ => not_equals = Some(reader.attribute(value)),
        },
    );
    let attribute = attribute.get(reader, mark, is_mapping);
    let (equals, value) = match (equals, not_equals) {
        (Some(value), None) => (true, value?),
        (None, Some(value)) => (false, value?),
        (found, _) => {
            if is_mapping {
                let found = if found.is_some() { "both" } else { "neither" };
                reader.report(mark, found, "either `equals` or `not_equals`");
            }
            return None;
        }
    };
    let (category, name) = attribute?;
    let condition = Condition { category, name, equals, value };
    if let Err(expected) = check_condition(&condition) {
        reader.report(mark, "a condition beyond a limit", expected);
    }
    Some(condition)
}

fn id<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<PathBuf> {
    reader.declared(node, path)
}

pub(crate) fn path<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<PathBuf> {
    reader.parse(node, "a path", str::parse)
}

fn kind_word<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<String> {
    let mark = node.mark;
    let text = reader.text(node)?;
    if check_type(&text).is_err() {
        reader.report(mark, "an empty type", "a word such as `user` or `repo`");
    }
    Some(text)
}

/// Properties that are registered. Those of a question have other limits.
fn declared_properties<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Properties {
    let mark = node.mark;
    let properties = reader.properties(node);
    if let Err(expected) = check_properties(&properties) {
        reader.report(mark, "properties beyond a limit", expected);
    }
    properties
}

/// A built-in role's name (no slash) or a custom role's path (with a slash).
fn role_name<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<Box<str>> {
    reader.parse(node, "a built-in role's name or a custom role's id", |text| {
        if text.contains('/') {
            Path::parse(text).map_err(|error| error.to_string())?;
        } else {
            parse_name(text).map_err(|error| error.to_string())?;
        }
        Ok::<_, String>(text.into())
    })
}
