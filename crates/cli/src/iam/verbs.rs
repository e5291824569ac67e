//! What all kinds do alike: list, describe, create, update and delete.

use std::collections::HashMap;
use std::process::ExitCode;

use capstan_proto::iam::v1::{GroupRoleMapping, Identity, Resource, RoleBinding};
use prost_types::Value;
use serde_json::json;

use super::connection::{Connection, ServerArgs, Write, WriteArgs};
use super::kind::{self, Kind, Listed, Query};
use super::names::{by_name, group_or_all, id_of, id_to_write, is_certainly_id, only_name, term};
use super::prompt::confirm;
use super::refusal::Refusal;
use super::show::{self, Done};
use super::values::{PropertyArgs, PropertyChange};
use crate::completion;
use crate::decider::Consistency;
use crate::output::Output;

/// The options of a read.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ReadArgs {
    /// How new the server's data must be: any; at-least=REVISION, such as the revision of an earlier answer; or full,
    /// with every write that was acknowledged before
    #[arg(long, value_name = "MODE", default_value = "any")]
    pub(crate) consistency: Consistency,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// The options of a list.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Only what is at or below this group: a path or a name
    #[arg(long, value_name = "GROUP", add = completion::managed::group())]
    pub(crate) parent: Option<String>,

    #[command(flatten)]
    pub(crate) filter: FilterArgs,
}

/// The options of a list of objects that have a type.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TypedListArgs {
    /// Only those of this type, such as service or repo
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,

    #[command(flatten)]
    list: ListArgs,
}

impl TypedListArgs {
    pub(crate) async fn run<K: Listed>(self, output: Output) -> anyhow::Result<ExitCode> {
        let server = self.list.connect().await?;
        let terms = self.kind.map(|kind| term("type", &kind));
        self.list.list::<K>(&server, terms, |_| true, output).await
    }
}

/// The options of a list without a group.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FilterArgs {
    /// Only objects with these values: field = "value" terms, joined by AND; repeat for several
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,

    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

impl FilterArgs {
    /// The filter with further terms.
    pub(crate) fn joined(&self, terms: impl IntoIterator<Item = String>) -> String {
        self.filter.iter().cloned().chain(terms).collect::<Vec<_>>().join(" AND ")
    }
}

impl ListArgs {
    /// Lists the objects of a kind with further terms of a filter, and those alone that `keep` keeps.
    pub(crate) async fn list<K: Listed>(
        &self,
        server: &Connection,
        terms: impl IntoIterator<Item = String>,
        keep: impl Fn(&K) -> bool,
        output: Output,
    ) -> anyhow::Result<ExitCode> {
        let parent = group_or_all(server, self.parent.as_deref()).await?;
        let query = Query {
            parent,
            filter: self.filter.joined(terms),
            consistency: self.filter.read.consistency.message(),
        };
        let (mut objects, revision) = kind::list::<K>(server, &query).await?;
        objects.retain(keep);
        show::list(&objects, revision, output)?;
        Ok(ExitCode::SUCCESS)
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        self.filter.read.server.connect().await
    }
}

/// The object that a read is about: that with this id, else the only one with this display name.
///
/// # Errors
///
/// The server's refusal, or several objects that have the name.
pub(crate) async fn find<K: Kind>(
    server: &Connection,
    text: &str,
    read: Consistency,
) -> anyhow::Result<(K, u64)> {
    if only_name(text).is_some() || is_certainly_id(text) {
        return K::get(server, &id_of::<K>(server, text).await?, read.message()).await;
    }
    match K::get(server, text, read.message()).await {
        Err(error) if error.downcast_ref().is_some_and(Refusal::is_not_found) => {}
        found => return found,
    }
    match by_name::<K>(server, text).await? {
        Some(id) => K::get(server, &id, read.message()).await,
        None => Err(Refusal::no_name(K::WORD, text).into()),
    }
}

pub(crate) async fn describe<K: Kind>(
    id: &str,
    read: &ReadArgs,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let server = read.server.connect().await?;
    let (object, revision) = find::<K>(&server, id, read.consistency).await?;
    show::object(&object, revision, output)?;
    Ok(ExitCode::SUCCESS)
}

/// What people read of an object.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TextArgs {
    /// Display name
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,

    /// Description
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
}

impl TextArgs {
    /// The fields of an update that are given.
    pub(crate) fn mask(&self) -> Vec<String> {
        let fields = [("name", &self.name), ("description", &self.description)];
        fields
            .into_iter()
            .filter(|(_, value)| value.is_some())
            .map(|(name, _)| name.into())
            .collect()
    }

    pub(crate) fn values(self) -> (String, String) {
        (self.name.unwrap_or_default(), self.description.unwrap_or_default())
    }
}

/// Creates an object, and prints it.
pub(crate) async fn create<K: Kind>(
    server: &Connection,
    parent: String,
    object: K,
    write: &Write,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let (made, revision) = object.create(server, parent, write).await?;
    show::written("created", (&made, revision), write, output)
}

/// Changes the fields of the mask, and prints the object. `verb` is what is done: `updated`, or what people say of it.
pub(crate) async fn update<K: Kind>(
    server: &Connection,
    (object, paths): (K, Vec<String>),
    verb: &'static str,
    write: &Write,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let (made, revision) = object.update(server, paths, write).await?;
    show::written(verb, (&made, revision), write, output)
}

/// The options of an update, beside what is changed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ChangeArgs {
    /// Change it only if this is its current etag, as `describe --output json` shows it; else the answer is ABORTED
    #[arg(long, value_name = "ETAG")]
    pub(crate) etag: Option<String>,

    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// An object that is read, changed here and sent back.
#[derive(Debug)]
pub(crate) struct ReadToChange<K> {
    pub(crate) object: K,
    /// The etag to send: what was read must still be there.
    pub(crate) etag: String,
    /// Whether another etag than the current one was given. Then what is to be taken away may be gone already: the
    /// request is a repeated one, or the server refuses it.
    pub(crate) is_stale: bool,
}

/// Reads an object to change it. `option` is what makes that necessary.
///
/// # Errors
///
/// The server's refusal; or `--request-id` without `--etag`: what is read the second time may differ, and so the request.
pub(crate) async fn read_to_change<K: Kind>(
    server: &Connection,
    id: &str,
    etag: Option<String>,
    option: &str,
    write: &mut Write,
) -> anyhow::Result<ReadToChange<K>> {
    if etag.is_none() {
        write.ensure_first(option, "--etag with the etag that `describe --output json` shows")?;
    }
    let (object, _) = K::get(server, id, Consistency::Full.message()).await?;
    let is_stale = etag.as_ref().is_some_and(|etag| etag != object.etag());
    let etag = etag.unwrap_or_else(|| object.etag().to_owned());
    write.repeat_with(format!("--etag {etag}"));
    Ok(ReadToChange { object, etag, is_stale })
}

/// A kind whose objects have properties.
pub(crate) trait HasProperties: Kind {
    fn properties(&mut self) -> &mut HashMap<String, Value>;
    fn set_etag(&mut self, etag: String);
}

macro_rules! has_properties {
    ($kind:ty) => {
        impl HasProperties for $kind {
            fn properties(&mut self) -> &mut HashMap<String, Value> {
                &mut self.properties
            }

            fn set_etag(&mut self, etag: String) {
                self.etag = etag;
            }
        }
    };
}

has_properties!(Identity);
has_properties!(Resource);

/// Gives an object the properties that it has after a change, and the etag to send: the one that is given, or else that
/// of what was read. Without a change nothing is read.
///
/// # Errors
///
/// As of [`read_to_change`]; a property that is taken away and is not there.
pub(crate) async fn set_properties<K: HasProperties>(
    server: &Connection,
    object: &mut K,
    (change, etag): (Option<PropertyChange>, Option<String>),
    write: &mut Write,
) -> anyhow::Result<()> {
    let etag = match change {
        None => etag.unwrap_or_default(),
        Some(change) => {
            let option = PropertyArgs::OPTIONS;
            let mut read = read_to_change::<K>(server, object.id(), etag, option, write).await?;
            let found = std::mem::take(read.object.properties());
            *object.properties() = change.apply(found, read.is_stale)?;
            read.etag
        }
    };
    object.set_etag(etag);
    Ok(())
}

/// The options of a delete.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    /// Delete without a question
    #[arg(long, short)]
    pub(crate) yes: bool,

    /// Delete it only if this is its current etag, as `describe --output json` shows it; else the answer is ABORTED
    #[arg(long, value_name = "ETAG")]
    pub(crate) etag: Option<String>,

    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// Deletes an object after a question that shows what goes with it. Without a question it reads nothing: the object of a
/// repeated request is gone, and the server answers as the first time.
pub(crate) async fn delete<K: Kind>(
    text: &str,
    args: &DeleteArgs,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let (mut write, server) = args.write.open().await?;
    let id = id_to_write::<K>(&server, text, &mut write).await?;
    delete_id::<K>(&server, id, (args, &write), output).await
}

/// As [`delete`], of the object with this id.
pub(crate) async fn delete_id<K: Kind>(
    server: &Connection,
    id: String,
    (args, write): (&DeleteArgs, &Write),
    output: Output,
) -> anyhow::Result<ExitCode> {
    let what = K::word(&id);
    if !args.yes && !write.validate_only {
        let mut question = vec![format!("delete {what} {id}")];
        if let Some(object) = to_delete::<K>(server, &id, write).await? {
            if !object.name().is_empty() {
                question = vec![format!("delete {what} {id}  {}", object.name())];
            }
            question.extend(bindings_with::<K>(server, &id).await?);
        }
        confirm(false, &question)?;
    }
    let etag = args.etag.as_deref().unwrap_or_default();
    let revision = K::delete(server, &id, etag, write).await?;
    let done = Done { verb: "deleted", what, id: &id, revision };
    show::done(done, &json!({ "revision": revision }), write, output)
}

/// The object that a question is about; `None` if it is not there and the request may be a repeated one.
///
/// # Errors
///
/// The server's refusal.
pub(crate) async fn to_delete<K: Kind>(
    server: &Connection,
    id: &str,
    write: &Write,
) -> anyhow::Result<Option<K>> {
    match K::get(server, id, Consistency::Full.message()).await {
        Ok((object, _)) => Ok(Some(object)),
        Err(error)
            if write.may_be_repeated()
                && error.downcast_ref().is_some_and(Refusal::is_not_found) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The role bindings or mappings that are deleted with an object, a line each below a line with their number.
async fn bindings_with<K: Kind>(server: &Connection, id: &str) -> anyhow::Result<Vec<String>> {
    let query = match K::FIELD {
        "group" | "resource" => {
            Query { parent: id.to_owned(), filter: term("scope", id), ..Query::default() }
        }
        "identity" => Query { filter: term("identity", id), ..Query::default() },
        "identity_provider" => {
            let query = Query { parent: id.to_owned(), ..Query::default() };
            let (mappings, _) = kind::list::<GroupRoleMapping>(server, &query).await?;
            return Ok(lines("group role mappings", mappings.iter().map(Listed::label)));
        }
        // A role that is bound is not deleted, and nothing goes with a binding.
        _ => return Ok(Vec::new()),
    };
    let (bindings, _) = kind::list::<RoleBinding>(server, &query).await?;
    Ok(listed(&bindings))
}

/// Bindings below a line with their number; nothing if there are none.
pub(crate) fn listed(bindings: &[RoleBinding]) -> Vec<String> {
    let line = |binding: &RoleBinding| format!("{} at {}", binding.label(), binding.scope);
    lines("role bindings", bindings.iter().map(line))
}

/// Lines below one with their number; nothing if there are none.
fn lines(what: &'static str, of: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    if of.len() == 0 {
        return Vec::new();
    }
    let head = format!("  with {}:", crate::audit::count(of.len(), what));
    std::iter::once(head).chain(of.map(|line| format!("    {line}"))).collect()
}
