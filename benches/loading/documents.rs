//! The documents that a started program loads: a world, and the same world with one other role in one binding.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use capstan_benches::worlds::World;
use capstan_engine::{Catalog, Path as Resource};
use serde_json::Value as Json;

/// Two documents in a temporary folder, and a question that they answer differently: the first allows.
#[derive(Debug)]
pub(crate) struct Documents {
    folder: Folder,
    pub(crate) bytes: usize,
    pub(crate) bindings: usize,
    pub(crate) question: Question,
}

/// Identity, capability and resource.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) identity: String,
    pub(crate) capability: String,
    pub(crate) resource: String,
}

/// A folder that is removed when it is dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Documents {
    /// Writes both documents.
    pub(crate) fn write(world: World) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("capstan-loading-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let folder = Folder(path);
        let text = String::from_utf8(world.document())?;
        let list = text.find("\"role_bindings\": [").context("no bindings in the document")?;
        let lines = || text.get(list..).unwrap_or_default().lines().skip(1);
        let (changed, question) = change(&world.catalog(), lines())?;
        let first = lines().next().context("no binding in the document")?;
        let bindings = lines().filter(|line| line.starts_with('{')).count();
        fs::write(folder.0.join("after.json"), text.replacen(first, &changed, 1))?;
        fs::write(folder.0.join("before.json"), &text)?;
        Ok(Self { folder, bytes: text.len(), bindings, question })
    }

    /// The file to serve, with the first document.
    pub(crate) fn served(&self) -> anyhow::Result<PathBuf> {
        self.put("before.json")
    }

    /// Replaces the served file by the second document, by renaming as an operator does.
    pub(crate) fn change(&self) -> anyhow::Result<()> {
        self.put("after.json").map(|_| ())
    }

    /// A link to the document is renamed, so that nothing is copied while time is taken.
    fn put(&self, document: &str) -> anyhow::Result<PathBuf> {
        let at = |name: &str| -> PathBuf { Path::new(&self.folder.0).join(name) };
        let (served, link) = (at("policy.json"), at("link.json"));
        fs::hard_link(at(document), &link)?;
        fs::rename(link, &served)?;
        Ok(served)
    }
}

/// The first of these bindings as a line with another role, and a question that all bindings of its identity
/// together answer differently then.
fn change<'t>(
    catalog: &Catalog,
    lines: impl Iterator<Item = &'t str>,
) -> anyhow::Result<(String, Question)> {
    let bindings = lines.map_while(|line| serde_json::from_str(line.trim_end_matches(',')).ok());
    let text = |binding: &Json, field: &str| binding[field].as_str().unwrap_or_default().to_owned();
    let mut bindings = bindings.peekable();
    let first: Json = bindings.peek().cloned().context("no binding in the document")?;
    let (identity, resource) = (text(&first, "identity"), text(&first, "scope"));
    // The roles of the identity on the path of the resource, but for the first binding.
    let of_identity = bindings.take_while(|one| text(one, "identity") == identity).skip(1);
    let on_path = |scope: &str| {
        let both = Resource::parse(scope).ok().zip(Resource::parse(&resource).ok());
        both.is_some_and(|(scope, resource)| scope.contains(resource))
    };
    let others: Vec<String> = of_identity
        .filter(|one| on_path(&text(one, "scope")))
        .map(|one| text(&one, "role"))
        .collect();
    let holds = |role: &str, capability: &str| {
        let mut roles = catalog.roles().iter().filter(|one| one.name == role);
        roles.any(|role| role.capabilities.iter().any(|held| held == capability))
    };
    let before = text(&first, "role");
    let (after, capability) = catalog
        .roles()
        .iter()
        .flat_map(|role| catalog.capabilities().map(move |capability| (role, capability)))
        .find(|(after, capability)| {
            holds(&before, capability)
                && !holds(&after.name, capability)
                && !others.iter().any(|role| holds(role, capability))
        })
        .context("no other role gives anything else")?;
    let line = format!(
        "{{\"identity\": \"{identity}\", \"role\": \"{}\", \"scope\": \"{resource}\"}},",
        after.name
    );
    let capability = capability.to_owned();
    Ok((line, Question { identity, capability, resource }))
}
