//! `capstan iam tree`: an organization with its groups, resources, identities, roles and role bindings.

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;

use capstan_engine::Timestamp;
use capstan_proto::iam::v1::{Group, Identity, Resource, Role, RoleBinding};
use capstan_server::clock::Clock;
use serde_json::{Map, Value};

use super::connection::Connection;
use super::kind::{self, Kind as _, Listed, Query, restrictions};
use super::refusal::Refusal;
use super::tree::Node;
use super::verbs::{ReadArgs, find};
use crate::completion;
use crate::limits::{TREE_LISTINGS_MAX, TREE_NAMES_MAX};
use crate::output::{self, Output, Style, styled};

const EXAMPLES: &str = "\
Examples:
  capstan iam tree acme
  capstan iam tree acme/platform --as alice
  capstan iam tree acme --output json

A line with · is a role binding: its role, its identity, and what restricts it.";

/// An organization as a tree, with its groups, resources, identities, roles and role bindings
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tree {
    /// The organization or folder: a path or a name
    #[arg(value_name = "GROUP", add = completion::managed::group())]
    group: String,

    #[command(flatten)]
    read: ReadArgs,
}

/// What lies below a group, as the caller may see it.
#[derive(Debug, Default)]
struct Contents {
    groups: Vec<Group>,
    roles: Vec<Role>,
    identities: Vec<Identity>,
    resources: Vec<Resource>,
    bindings: Vec<RoleBinding>,
    /// Of each list. They differ if the policy changed between two lists.
    revisions: Vec<u64>,
}

impl Tree {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        if output == Output::Id {
            output.format()?;
        }
        let server = self.read.server.connect().await?;
        let (root, _) = find::<Group>(&server, &self.group, self.read.consistency).await?;
        let contents = contents(&server, &root.id, &self.read).await?;
        if !contents.is_of_one_revision() {
            output::note(
                "warning: the policy changed while it was listed: the tree is of several revisions",
            )?;
        }
        if output == Output::Json {
            output::json(&contents.json(&root)?)?;
        } else {
            let names = names(&server, &contents).await?;
            let drawn = Drawing { places: contents.places(), names, now: Clock::System.now() };
            drawn.group(&root, &root.id).lines().into_iter().try_for_each(output::line)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Lists everything below a group, anew if the policy changed meanwhile: at most [`TREE_LISTINGS_MAX`] times.
async fn contents(server: &Connection, root: &str, read: &ReadArgs) -> anyhow::Result<Contents> {
    let query = Query {
        parent: root.to_owned(),
        filter: String::new(),
        consistency: read.consistency.message(),
    };
    let mut listed = Contents::default();
    for _ in 0..TREE_LISTINGS_MAX {
        let (groups, first) = kind::list(server, &query).await?;
        let (roles, second) = kind::list(server, &query).await?;
        let (identities, third) = kind::list(server, &query).await?;
        let (resources, fourth) = kind::list(server, &query).await?;
        let (bindings, fifth) = kind::list(server, &query).await?;
        let revisions = vec![first, second, third, fourth, fifth];
        listed = Contents { groups, roles, identities, resources, bindings, revisions };
        if listed.is_of_one_revision() {
            break;
        }
    }
    Ok(listed)
}

/// The names of identities, by id: those of the organization, and those of root identities with a role binding in it, the
/// first [`TREE_NAMES_MAX`].
async fn names(
    server: &Connection,
    contents: &Contents,
) -> anyhow::Result<BTreeMap<String, String>> {
    let own = contents.identities.iter().map(|one| (one.id.clone(), one.name.clone()));
    let mut names: BTreeMap<String, String> = own.collect();
    let mut looked_up = 0;
    for binding in &contents.bindings {
        let id = &binding.identity;
        if id.contains('/') || names.contains_key(id) || looked_up == TREE_NAMES_MAX {
            continue;
        }
        looked_up += 1;
        let name = match Identity::get(server, id, None).await {
            Ok((identity, _)) => identity.name,
            // It is not registered, or not to be seen.
            Err(error) if error.is::<Refusal>() => String::new(),
            Err(error) => return Err(error),
        };
        names.insert(id.clone(), name);
    }
    Ok(names)
}

/// Objects by the group that they are directly in, or role bindings by their scope.
type ByPlace<'c, T> = HashMap<&'c str, Vec<&'c T>>;

fn by_place<'c, T>(objects: &'c [T], place: impl Fn(&'c T) -> &'c str) -> ByPlace<'c, T> {
    let mut all = ByPlace::new();
    for object in objects {
        all.entry(place(object)).or_default().push(object);
    }
    all
}

fn by_group<K: Listed>(objects: &[K]) -> ByPlace<'_, K> {
    by_place(objects, |object| object.id().rsplit_once('/').map_or("", |(parent, _)| parent))
}

fn at<'p, 'c, T>(
    all: &'p ByPlace<'c, T>,
    place: &str,
) -> impl Iterator<Item = &'c T> + use<'p, 'c, T> {
    all.get(place).into_iter().flatten().copied()
}

/// [`Contents`] by place: what lies at each is found without a look at all the rest.
#[derive(Debug)]
struct Places<'c> {
    groups: ByPlace<'c, Group>,
    roles: ByPlace<'c, Role>,
    identities: ByPlace<'c, Identity>,
    resources: ByPlace<'c, Resource>,
    bindings: ByPlace<'c, RoleBinding>,
}

impl Contents {
    fn is_of_one_revision(&self) -> bool {
        let mut revisions = self.revisions.iter();
        let first = revisions.next();
        revisions.all(|revision| Some(revision) == first)
    }

    fn places(&self) -> Places<'_> {
        Places {
            groups: by_group(&self.groups),
            roles: by_group(&self.roles),
            identities: by_group(&self.identities),
            resources: by_group(&self.resources),
            bindings: by_place(&self.bindings, |binding| &binding.scope),
        }
    }

    /// `{"organization": NODE, "revision": REVISION}`. A node is its object with what lies in it.
    fn json(&self, root: &Group) -> anyhow::Result<Value> {
        let mut answer = Map::new();
        answer.insert("organization".into(), self.places().node(root)?);
        let revision = self.revisions.iter().min().copied().unwrap_or_default();
        answer.insert("revision".into(), revision.into());
        Ok(answer.into())
    }
}

impl Places<'_> {
    fn node(&self, group: &Group) -> anyhow::Result<Value> {
        let id = &group.id;
        let mut node = self.with_bindings(group)?;
        let all = |values: &mut dyn Iterator<Item = anyhow::Result<Value>>| {
            values.collect::<anyhow::Result<Vec<_>>>().map(Value::from)
        };
        node.insert("roles".into(), all(&mut at(&self.roles, id).map(Listed::json))?);
        node.insert("identities".into(), all(&mut at(&self.identities, id).map(Listed::json))?);
        let mut resources =
            at(&self.resources, id).map(|one| self.with_bindings(one).map(Value::from));
        node.insert("resources".into(), all(&mut resources)?);
        let mut groups = at(&self.groups, id).map(|group| self.node(group));
        node.insert("groups".into(), all(&mut groups)?);
        Ok(node.into())
    }

    fn with_bindings<K: Listed>(&self, object: &K) -> anyhow::Result<Map<String, Value>> {
        let bindings = at(&self.bindings, object.id()).map(Listed::json);
        let bindings = bindings.collect::<anyhow::Result<Vec<_>>>()?;
        let mut fields = match object.json()? {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        fields.insert("role_bindings".into(), bindings.into());
        Ok(fields)
    }
}

/// What is needed to draw.
struct Drawing<'c> {
    places: Places<'c>,
    names: BTreeMap<String, String>,
    now: Timestamp,
}

impl Drawing<'_> {
    fn group(&self, group: &Group, shown: &str) -> Node {
        let Places { groups, roles, identities, resources, bindings } = &self.places;
        let id = &group.id;
        let mut node = Node::new(titled(&styled(Style::Bold, shown), &group.name));
        node.below.extend(at(bindings, id).map(|binding| self.binding(binding)));
        node.below.extend(at(roles, id).map(|role| {
            let gives = crate::audit::count(role.capabilities.len(), "capabilities");
            Node::new(format!("{} {}  {gives}", styled(Style::Dim, "role"), last(&role.id)))
        }));
        node.below.extend(at(identities, id).map(|identity| {
            let state = if identity.disabled {
                format!("  {}", styled(Style::Red, "disabled"))
            } else {
                String::new()
            };
            let kind = if identity.r#type.is_empty() { "identity" } else { &identity.r#type };
            let title = titled(last(&identity.id), &identity.name);
            Node::new(format!("{} {title}{state}", styled(Style::Dim, kind)))
        }));
        node.below.extend(at(resources, id).map(|resource| {
            let kind = if resource.r#type.is_empty() { "resource" } else { &resource.r#type };
            let title = titled(last(&resource.id), &resource.name);
            let mut node = Node::new(format!("{} {title}", styled(Style::Dim, kind)));
            let bindings = at(bindings, &resource.id);
            node.below.extend(bindings.map(|binding| self.binding(binding)));
            node
        }));
        node.below.extend(at(groups, id).map(|below| self.group(below, last(&below.id))));
        node
    }

    fn binding(&self, binding: &RoleBinding) -> Node {
        let name = self.names.get(&binding.identity).map_or("", String::as_str);
        let who = titled(&binding.identity, name);
        let ends = binding
            .expires_at
            .map(|end| Timestamp::new(end.seconds, u32::try_from(end.nanos).unwrap_or_default()));
        let restrictions = match restrictions(binding) {
            none if none.is_empty() => none,
            _ if ends.is_some_and(|end| end <= self.now) => {
                format!("  {}", styled(Style::Red, "expired"))
            }
            some => format!("  {}", styled(Style::Yellow, &some)),
        };
        Node::new(format!("· {} {who}{restrictions}", styled(Style::Cyan, &binding.role)))
    }
}

fn last(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}

/// The id, with its display name in brackets.
fn titled(id: &str, name: &str) -> String {
    if name.is_empty() { id.to_owned() } else { format!("{id} ({name})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: &str, name: &str) -> Group {
        Group { id: id.into(), name: name.into(), ..Group::default() }
    }

    fn binding(identity: &str, role: &str, scope: &str) -> RoleBinding {
        let [identity, role, scope] = [identity, role, scope].map(Into::into);
        RoleBinding { identity, role, scope, ..RoleBinding::default() }
    }

    fn contents() -> Contents {
        let end = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let role = Role {
            id: "acme/puller".into(),
            capabilities: vec!["repo.list".into()],
            ..Role::default()
        };
        let ci = Identity {
            id: "acme/ci".into(),
            name: "CI bot".into(),
            r#type: "service".into(),
            disabled: true,
            ..Identity::default()
        };
        let nginx =
            Resource { id: "acme/web/nginx".into(), r#type: "repo".into(), ..Resource::default() };
        Contents {
            groups: vec![group("acme", "Acme Corp"), group("acme/web", "")],
            roles: vec![role],
            identities: vec![ci],
            resources: vec![nginx],
            bindings: vec![
                binding("alice", "owner", "acme"),
                RoleBinding { expires_at: end(50), ..binding("acme/ci", "viewer", "acme") },
                RoleBinding { expires_at: end(150), ..binding("bob", "editor", "acme/web/nginx") },
            ],
            revisions: vec![7; 5],
        }
    }

    #[test]
    fn a_tree_has_everything_at_its_place() {
        let contents = contents();
        let names = [("alice".to_owned(), "Alice".to_owned())].into();
        let drawing = Drawing { places: contents.places(), names, now: Timestamp::new(100, 0) };
        let lines = drawing.group(&contents.groups[0], "acme").lines();
        assert_eq!(
            lines,
            [
                "acme (Acme Corp)",
                "├── · owner alice (Alice)",
                "├── · viewer acme/ci  expired",
                "├── role puller  1 capability",
                "├── service ci (CI bot)  disabled",
                "└── web",
                "    └── repo nginx",
                "        └── · editor bob  until 1970-01-01T00:02:30Z",
            ]
        );
    }

    #[test]
    fn as_json_a_group_holds_what_lies_in_it() {
        let contents = contents();
        let json = contents.json(&contents.groups[0]).unwrap();
        assert_eq!(json["revision"], 7);
        let organization = &json["organization"];
        assert_eq!(organization["name"], "Acme Corp");
        assert_eq!(organization["role_bindings"][0]["identity"], "alice");
        assert_eq!(organization["identities"][0]["disabled"], true);
        let resource = &organization["groups"][0]["resources"][0];
        assert_eq!(resource["role_bindings"][0]["role"], "editor");
    }

    /// Hundreds of millions of comparisons would be needed if each group looked through all lists.
    #[test]
    fn the_work_grows_with_the_organization_alone() {
        let root = group("acme", "");
        let ids = (0..20_000).map(|at| format!("acme/g{at}"));
        let groups: Vec<_> = ids.map(|id| group(&id, "")).collect();
        let bindings: Vec<_> = groups.iter().map(|at| binding("a", "viewer", &at.id)).collect();
        let contents = Contents { groups, bindings, revisions: vec![7], ..Contents::default() };
        let begun = std::time::Instant::now();
        let now = Timestamp::new(100, 0);
        let drawing = Drawing { places: contents.places(), names: BTreeMap::new(), now };
        assert_eq!(drawing.group(&root, "acme").lines().len(), 1 + 2 * 20_000);
        assert!(begun.elapsed() < std::time::Duration::from_secs(3), "{:?}", begun.elapsed());
    }

    #[test]
    fn lists_of_two_revisions_are_told_apart() {
        let mut contents = contents();
        assert!(contents.is_of_one_revision());
        contents.revisions[4] = 8;
        assert!(!contents.is_of_one_revision());
    }
}
