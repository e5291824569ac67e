//! Many role bindings in one change: created from lines of JSON, deleted by their ids, or removed with a member.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use capstan_proto::iam::v1::role_binding_service_client::RoleBindingServiceClient;
use capstan_proto::iam::v1::{self as iam, RoleBinding};
use serde_json::json;
use tonic::Request;

use crate::audit::{count, file};
use crate::iam::connection::{Connection, Safety, WriteArgs};
use crate::iam::json;
use crate::iam::kind::{self, Query};
use crate::iam::names::{common_ancestor, id_to_write, scope_to_write, term};
use crate::iam::prompt::confirm;
use crate::iam::show::{self, Done};
use crate::iam::verbs::{DeleteArgs, listed, to_delete};
use crate::limits::{BATCH_BINDINGS_MAX, LINE_BYTES_MAX};
use crate::output::{self, Output};

/// Creates the bindings of a file, all or none.
pub(super) async fn create(
    path: &Path,
    scope: Option<&str>,
    args: &WriteArgs,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let opened = File::open(file(path));
    let opened = opened.with_context(|| format!("cannot read {}", path.display()))?;
    let role_bindings = read(BufReader::new(opened)).with_context(|| path.display().to_string())?;
    let (mut write, server) = args.open().await?;
    let scope = match scope {
        Some(scope) => Some(scope_to_write(&server, scope, &mut write).await?),
        None => None,
    };
    let parent = parent(&role_bindings, scope.as_deref())?;
    let request = iam::BatchCreateRoleBindingsRequest {
        parent: parent.clone(),
        role_bindings,
        request_id: write.request_id.clone(),
        validate_only: write.validate_only,
    };
    let send = async |request: Request<_>| {
        let mut service = RoleBindingServiceClient::new(server.service());
        service.batch_create_role_bindings(request).await
    };
    let made = server.call(Safety::Write(&write), request, send).await?;
    match output {
        Output::Id if write.validate_only => {}
        Output::Json | Output::Id => show::list(&made.role_bindings, made.revision, output)?,
        Output::Table | Output::Tree | Output::Junit | Output::Client(_) => {}
    }
    let what = count(made.role_bindings.len(), "role bindings");
    let id = format!("at and below {parent}");
    Done { verb: "created", what: &what, id: &id, revision: made.revision }.note(&write)?;
    Ok(ExitCode::SUCCESS)
}

/// The bindings of lines of JSON; empty lines are left out. What a list writes can be read: what a server alone sets is
/// taken away.
///
/// # Errors
///
/// A line that is no binding, with its number; no line; or more than [`BATCH_BINDINGS_MAX`].
fn read(mut lines: impl BufRead) -> anyhow::Result<Vec<RoleBinding>> {
    let (mut bindings, mut number) = (Vec::new(), 0);
    loop {
        number += 1;
        let (mut line, at) = (Vec::new(), || format!("line {number}"));
        let most = LINE_BYTES_MAX + 1;
        let length = lines.by_ref().take(most).read_until(b'\n', &mut line).with_context(at)?;
        if length == 0 {
            break;
        }
        ensure!((length as u64) < most, "line {number}: longer than {LINE_BYTES_MAX} bytes");
        let text = std::str::from_utf8(&line).with_context(at)?.trim();
        if text.is_empty() {
            continue;
        }
        ensure!(
            bindings.len() < BATCH_BINDINGS_MAX,
            "more than {BATCH_BINDINGS_MAX} role bindings: one change takes no more. Create them in several changes, or \
             with `capstan policy import`"
        );
        let read: RoleBinding = json::read(text, "RoleBinding").with_context(at)?;
        let etag = String::new();
        bindings.push(RoleBinding { etag, create_time: None, update_time: None, ..read });
    }
    ensure!(!bindings.is_empty(), "no role bindings: a line is one, as JSON");
    Ok(bindings)
}

/// The path that all the bindings are at or below: the given one, or their lowest common ancestor.
///
/// # Errors
///
/// A binding without scope where none is given, or bindings in several organizations.
fn parent(bindings: &[RoleBinding], given: Option<&str>) -> anyhow::Result<String> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    if let Some(at) = bindings.iter().position(|binding| binding.scope.is_empty()) {
        bail!("role binding {} has no scope: give it one, or --scope for those without", at + 1);
    }
    common_ancestor(bindings.iter().map(|binding| &*binding.scope)).context(
        "the role bindings are in several organizations: create those of each on their own",
    )
}

/// Deletes several bindings, all or none. Reads them only for the question.
pub(super) async fn delete(
    names: &[String],
    args: &DeleteArgs,
    output: Output,
) -> anyhow::Result<ExitCode> {
    ensure!(args.etag.is_none(), "--etag is of one role binding: delete it alone");
    let number = names.len();
    ensure!(
        number <= BATCH_BINDINGS_MAX,
        "{number} role bindings: one change deletes at most {BATCH_BINDINGS_MAX}"
    );
    let (mut write, server) = args.write.open().await?;
    let asks = !args.yes && !write.validate_only;
    let (mut ids, mut found) = (Vec::new(), Vec::new());
    for name in names {
        let id = id_to_write::<RoleBinding>(&server, name, &mut write).await?;
        if asks {
            found.extend(to_delete::<RoleBinding>(&server, &id, &write).await?);
        }
        ids.push(id);
    }
    let scopes = ids.iter().map(|id| id.rsplit_once('/').map_or("", |(scope, _)| scope));
    let parent = common_ancestor(scopes).filter(|parent| !parent.is_empty());
    let parent = parent.context(
        "the role bindings are in several organizations: delete those of each on their own",
    )?;
    if asks {
        let mut question = vec![format!("delete {}", count(number, "role bindings"))];
        question.extend(listed(&found).into_iter().skip(1));
        confirm(false, &question)?;
    }
    let request = iam::BatchDeleteRoleBindingsRequest {
        parent: parent.clone(),
        ids: ids.clone(),
        request_id: write.request_id.clone(),
        validate_only: write.validate_only,
    };
    let send = async |request: Request<_>| {
        let mut service = RoleBindingServiceClient::new(server.service());
        service.batch_delete_role_bindings(request).await
    };
    let made = server.call(Safety::Write(&write), request, send).await?;
    match output {
        Output::Json => output::json(&json!({ "revision": made.revision }))?,
        Output::Id => ids.iter().try_for_each(output::line)?,
        Output::Table | Output::Tree | Output::Junit | Output::Client(_) => {}
    }
    let what = count(number, "role bindings");
    let id = format!("at and below {parent}");
    Done { verb: "deleted", what: &what, id: &id, revision: made.revision }.note(&write)?;
    Ok(ExitCode::SUCCESS)
}

/// Asks whether all bindings of an identity in an organization are to be deleted, and shows them.
pub(super) async fn confirm_removal(
    server: &Connection,
    identity: &str,
    organization: &str,
    yes: bool,
) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    let filter = term("identity", identity);
    let query = Query { parent: organization.to_owned(), filter, ..Query::default() };
    let (bindings, _) = kind::list::<RoleBinding>(server, &query).await?;
    let mut question = vec![format!("remove {identity} from {organization}")];
    question.extend(listed(&bindings));
    confirm(false, &question)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bindings_and_what_a_server_sets_is_left_out() {
        let text = "{\"identity\": \"a\", \"role\": \"owner\", \"scope\": \"acme\"}\n\n\
            {\"id\": \"acme/x\", \"identity\": \"b\", \"role\": \"owner\", \"etag\": \"7\", \
             \"create_time\": \"2026-01-01T00:00:00Z\"}";
        let bindings = read(text.as_bytes()).unwrap();
        assert_eq!(bindings.len(), 2);
        assert_eq!((&*bindings[1].id, &*bindings[1].etag), ("acme/x", ""));
        assert_eq!(bindings[1].create_time, None);
    }

    #[test]
    fn a_mistake_is_found_by_its_line() {
        let error = |text: &str| format!("{:#}", read(text.as_bytes()).unwrap_err());
        assert!(error("{}\n\n{\"rol\": \"x\"}\n").starts_with("line 3: "));
        assert!(error("\n").contains("no role bindings"));
        assert!(read("{}\n".repeat(BATCH_BINDINGS_MAX).as_bytes()).is_ok());
        let many = error(&"{}\n".repeat(BATCH_BINDINGS_MAX + 1));
        assert!(many.contains("more than 1000 role bindings"), "{many}");
    }

    #[test]
    fn bindings_have_one_parent() {
        let at = |scopes: &[&str]| {
            let with = |scope: &&str| RoleBinding { scope: (*scope).into(), ..Default::default() };
            parent(&scopes.iter().map(with).collect::<Vec<_>>(), None)
        };
        assert_eq!(at(&["acme/a/b", "acme/a"]).unwrap(), "acme/a");
        assert!(at(&["acme", "other"]).unwrap_err().to_string().contains("several organizations"));
        assert!(at(&["acme", ""]).unwrap_err().to_string().contains("role binding 2 has no scope"));
        assert_eq!(parent(&[RoleBinding::default()], Some("acme")).unwrap(), "acme");
    }
}
