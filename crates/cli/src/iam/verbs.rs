//! What all kinds do alike: list, describe and delete.

use std::process::ExitCode;

use capstan_proto::iam::v1::RoleBinding;
use serde_json::json;

use super::connection::{Connection, ServerArgs, WriteArgs};
use super::kind::{self, Kind, Query};
use super::names::{by_name, group_or_all, term};
use super::prompt::confirm;
use super::refusal::Refusal;
use super::show::{self, Done};
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
    pub(crate) async fn list<K: Kind>(
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

/// The object that a text names, by its id or its name.
///
/// # Errors
///
/// The server's refusal, or several objects that have the name.
pub(crate) async fn find<K: Kind>(
    server: &Connection,
    text: &str,
    read: Consistency,
) -> anyhow::Result<(K, u64)> {
    let error = match K::get(server, text, read.message()).await {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    // A text that cannot be an id is INVALID_ARGUMENT.
    let may_be_name =
        !text.contains('/') && error.downcast_ref::<Refusal>().is_some_and(Refusal::may_be_name);
    if !may_be_name {
        return Err(error);
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

/// The options of a delete.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    /// Delete without a question
    #[arg(long, short)]
    pub(crate) yes: bool,

    /// Delete only if this is its current etag
    #[arg(long, value_name = "ETAG")]
    pub(crate) etag: Option<String>,

    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// Deletes an object after a question that shows what goes with it. `word` is the object's kind for people.
pub(crate) async fn delete<K: Kind>(
    id: &str,
    word: impl Fn(&K) -> &'static str,
    args: &DeleteArgs,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let write = args.write.write()?;
    let server = args.write.server.connect().await?;
    let (object, _) = find::<K>(&server, id, Consistency::Full).await?;
    let what = word(&object);
    if !args.yes && !write.validate_only {
        let name =
            if object.name().is_empty() { String::new() } else { format!("  {}", object.name()) };
        let mut question = vec![format!("delete {what} {}{name}", object.id())];
        question.extend(bindings_with::<K>(&server, object.id()).await?);
        confirm(false, &question)?;
    }
    let etag = args.etag.as_deref().unwrap_or_default();
    let revision = K::delete(&server, object.id(), etag, &write).await?;
    let done = Done { verb: "deleted", what, id: object.id(), revision };
    show::done(done, &json!({ "revision": revision }), &write, output)
}

/// The role bindings that are deleted with an object, a line each below a line with their number.
async fn bindings_with<K: Kind>(server: &Connection, id: &str) -> anyhow::Result<Vec<String>> {
    let query = match K::FIELD {
        "group" | "resource" => {
            Query { parent: id.to_owned(), filter: term("scope", id), ..Query::default() }
        }
        "identity" => Query { filter: term("identity", id), ..Query::default() },
        // A role that is bound is not deleted, and nothing goes with a binding.
        _ => return Ok(Vec::new()),
    };
    let (bindings, _) = kind::list::<RoleBinding>(server, &query).await?;
    Ok(listed(&bindings))
}

/// Bindings below a line with their number; nothing if there are none.
pub(crate) fn listed(bindings: &[RoleBinding]) -> Vec<String> {
    if bindings.is_empty() {
        return Vec::new();
    }
    let head = format!("  with {}:", crate::audit::count(bindings.len(), "role bindings"));
    let line = |binding: &RoleBinding| format!("    {} at {}", binding.label(), binding.scope);
    std::iter::once(head).chain(bindings.iter().map(line)).collect()
}
