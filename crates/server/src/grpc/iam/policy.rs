//! `PolicyService`: the policy as documents, its catalog, and backups.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use capstan_engine::PathBuf;
use capstan_iam::audit::AuditRecord;
use capstan_iam::{Cause, Refusal};
use capstan_proto::iam::v1;
use capstan_proto::iam::v1::policy_service_server::PolicyService;
use capstan_proto::iam::v1::set_catalog_request::Catalog;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use prost::Message;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::fields::optional_path;
use super::list::ENTRY_BYTES;
use super::reading::{Reading, Source, Viewer};
use super::service::Iam;
use super::watch::Watched;
use crate::RequestError;
use crate::authn::caller::CallerKind;
use crate::error::CallError;
use crate::feed::Freshness;
use crate::feed::management::{
    Action, CatalogSource, ChangedAccess, ChangedObject, Difference, DocumentFormat, Documents,
    Export, Import, Origin, SetCatalog, viewed,
};
use crate::limits::{EXPORT_JUDGED_TIME, IMPORT_STALL_MAX, PAGE_REST_BYTES};
use crate::methods::Rpc;

/// What shows an organization as a whole (contract, section 6).
pub(super) const ORGANIZATION: [&str; 4] =
    ["groups.list", "roles.list", "role_bindings.list", "identity.list"];

type Backup = Pin<Box<dyn Stream<Item = Result<v1::BackupResponse, Status>> + Send>>;
type Chunks = Pin<Box<dyn Stream<Item = Result<v1::ExportResponse, Status>> + Send>>;

#[tonic::async_trait]
impl PolicyService for Iam {
    type ExportStream = Chunks;

    async fn export(
        &self,
        request: Request<v1::ExportRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let reading = self.reading(&request, request.get_ref().consistency.as_ref()).await?;
        let caller = super::service::caller(&request)?.kind;
        let v1::ExportRequest { parent, format, .. } = request.into_inner();
        let documents = self.documents()?;
        let parent = optional_path("parent", &parent)?;
        let format = match &*format {
            "" | "yaml" => DocumentFormat::Yaml,
            "json" => DocumentFormat::Json,
            _ => return Err(RequestError::field("format", "expected `yaml` or `json`").into()),
        };
        let at = parent.clone();
        let judged = self.blocking(reading.clone(), move |reading, viewer| {
            whole(reading, viewer, at.as_ref())?;
            Ok(lists(viewer, at.as_ref()))
        });
        let held = judged.await?.into();
        if parent.as_ref().is_some_and(|parent| parent.as_path().parent().is_some()) {
            let problem = "a folder: a document is of an organization, which is its first segment";
            return Err(RequestError::field("parent", problem).into());
        }
        let revision = reading.revision();
        let Source::Store { objects, actor, .. } = reading.source else {
            return Err(RequestError::ReadOnly.into());
        };
        let (current, now) = (reading.current, reading.now);
        let (iam, last) = (self.clone(), (revision, Instant::now()));
        let reader = ExportReader { iam, caller, parent: parent.clone(), held, last };
        let export = Export { current, objects, actor, now, parent, format };
        let parts = (documents.export(export), reader);
        // The first error ends the stream, and with it the export.
        let messages = stream::try_unfold(parts, move |(mut parts, mut reader)| async move {
            let Some(part) = parts.next().await.transpose()? else { return Ok(None) };
            reader.judge_again().await?;
            let message = v1::ExportResponse { chunk: part.to_vec(), revision };
            Ok(Some((message, (parts, reader))))
        });
        Ok(Response::new(Box::pin(messages.map_err(|error: RequestError| error.into()))))
    }

    type WatchStream = Watched;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Watched>, Status> {
        self.watch_changes(request).await
    }

    type BackupStream = Backup;

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Backup>, Status> {
        const RPC: Rpc = Rpc::labelled("iam.Backup");
        let documents = self.documents()?;
        let (origin, kind) = self.operator_or(RPC, &request).await?;
        self.only_operator(kind, &origin, None).await?;
        let (_, view) = viewed(&self.published, Freshness::Any).await?;
        let revision = view.head().revision();
        let parts = (documents.backup(view), self.draining.clone());
        // The first error ends the stream. Nothing takes the operator's rights away meanwhile; a drain does not wait for it.
        let messages = stream::try_unfold(parts, move |(mut parts, draining)| async move {
            let part = tokio::select! {
                biased;
                () = draining.cancelled() => return Err(RequestError::Draining),
                part = parts.next() => part.transpose()?,
            };
            let message = |part: Bytes| v1::BackupResponse { chunk: part.to_vec(), revision };
            Ok(part.map(|part| (message(part), (parts, draining))))
        });
        Ok(Response::new(Box::pin(messages.map_err(|error: RequestError| error.into()))))
    }

    async fn import(
        &self,
        request: Request<Streaming<v1::ImportRequest>>,
    ) -> Result<Response<v1::ImportResponse>, Status> {
        const RPC: Rpc = Rpc::labelled("iam.Import");
        let documents = self.documents()?;
        let (mut origin, kind) = self.operator_or(RPC, &request).await?;
        let mut messages = request.into_inner();
        let first = messages.message().await?.ok_or(CallError::InvalidFraming)?;
        let v1::ImportRequest { parent, chunk, dry_run, prune } = first;
        let parent = optional_path("parent", &parent)?;
        // Before the document is read, however long it is.
        origin.request = Sha256::digest(&chunk).into();
        self.only_operator(kind, &origin, parent.clone()).await?;
        let prune = match (&*prune, &parent) {
            ("" | "none", _) => false,
            ("subtree", Some(_)) => true,
            ("subtree", None) => {
                let problem = "`subtree` needs `parent`: what would be deleted?";
                return Err(RequestError::field("prune", problem).into());
            }
            _ => return Err(RequestError::field("prune", "expected `none` or `subtree`").into()),
        };
        // One document at a time is in memory.
        let turn = documents.turn().await?;
        let document = received(chunk, messages, self.document_bytes_max).await?;
        let import = Import { origin, parent, document, dry_run, prune };
        let difference = documents.import(turn, import).await?;
        Ok(Response::new(self.import_response(difference)))
    }

    async fn set_catalog(
        &self,
        request: Request<v1::SetCatalogRequest>,
    ) -> Result<Response<v1::SetCatalogResponse>, Status> {
        const RPC: Rpc = Rpc::labelled("iam.SetCatalog");
        let documents = self.documents()?;
        let (origin, kind) = self.operator_or(RPC, &request).await?;
        self.only_operator(kind, &origin, None).await?;
        let v1::SetCatalogRequest { catalog, dry_run } = request.into_inner();
        let catalog = match catalog {
            Some(Catalog::Document(document)) => CatalogSource::Document(document),
            Some(Catalog::Name(name)) => CatalogSource::Name(name),
            None => return Err(RequestError::field("name", "set `name` or `document`").into()),
        };
        let difference = documents.set_catalog(SetCatalog { origin, catalog, dry_run }).await?;
        let Difference { access, catalog, revision, truncated: cut, .. } = difference;
        let mut room = self.message_bytes_max.saturating_sub(PAGE_REST_BYTES);
        let (access_changes, more) = fitting(&access, access_change, &mut room);
        let truncated = cut || more;
        Ok(Response::new(v1::SetCatalogResponse { catalog, access_changes, truncated, revision }))
    }
}

impl Iam {
    /// The policy of the store as documents.
    fn documents(&self) -> Result<&Arc<dyn Documents>, Status> {
        match (&self.documents, &self.management) {
            (Some(documents), _) => Ok(documents),
            (None, None) => Err(RequestError::ReadOnly.into()),
            (None, Some(_)) => Err(CallError::Unimplemented.into()),
        }
    }

    /// Who calls what only the operator may, and how the call came.
    async fn operator_or<T>(
        &self,
        rpc: Rpc,
        request: &Request<T>,
    ) -> Result<(Origin, CallerKind), RequestError> {
        // Nobody who is not known is told anything.
        let origin = self.writer(rpc, request).await?.origin;
        Ok((origin, super::service::caller(request)?.kind))
    }

    /// Refuses everybody but the operator, and audits that.
    async fn only_operator(
        &self,
        caller: CallerKind,
        origin: &Origin,
        at: Option<PathBuf>,
    ) -> Result<(), RequestError> {
        if caller == CallerKind::Operator {
            return Ok(());
        }
        let reading = self.reading_as(caller, Freshness::Any).await?;
        let actor = reading.identity().map(ToString::to_string).unwrap_or_default();
        let at_revision = (reading.revision(), reading.now);
        let object = at.as_ref().map(ToString::to_string).unwrap_or_default();
        let judged = self.blocking(reading, move |_, viewer| operator_only(viewer, at.as_ref()));
        let refusal = judged.await?;
        if let Some(management) = &self.management {
            let record =
                AuditRecord::of_whole(origin.method, &origin.audited(), at_revision, &object);
            management.refused(AuditRecord {
                actor,
                code: refusal.real.code() as u32,
                reason: refusal.real.reason().unwrap_or_default().into(),
                text: refusal.audit_text(),
                scope: object,
                ..record
            });
        }
        Err(refusal.into())
    }

    fn import_response(&self, difference: Difference) -> v1::ImportResponse {
        let Difference { changes, access, truncated: cut, revision, .. } = difference;
        let count = |action| changes.iter().filter(|change| change.action == action).count() as u64;
        let counts = v1::ChangeCounts {
            created: count(Action::Created),
            updated: count(Action::Updated),
            deleted: count(Action::Deleted),
        };
        let mut room = self.message_bytes_max.saturating_sub(PAGE_REST_BYTES);
        // What identities gain or lose matters most: it gets its room first.
        let (access_changes, access_cut) = fitting(&access, access_change, &mut room);
        let (changes, changes_cut) = fitting(&changes, change, &mut room);
        let truncated = cut || access_cut || changes_cut;
        v1::ImportResponse { changes, access_changes, counts: Some(counts), truncated, revision }
    }
}

/// The refusal of what only the operator may. Who lists groups at the path is told why; to others it is not there. At the
/// root nothing is hidden.
///
/// # Errors
///
/// A policy file has no operator.
fn operator_only(viewer: &Viewer<'_>, at: Option<&PathBuf>) -> Result<Refusal, RequestError> {
    let Viewer::Actor(reader) = viewer else { return Err(RequestError::ReadOnly) };
    let real = Cause::OperatorOnly { scope: at.cloned(), absent: vec![] };
    let is_told = at.is_none_or(|at| reader.holds("groups.list", at.as_path()));
    let told = if is_told { real.clone() } else { Cause::NotFound };
    Ok(Refusal { real, told, rule: None, who_could: vec![], item: None })
}

/// Requires what shows an organization as a whole. The whole policy is the operator's.
///
/// # Errors
///
/// The viewer may not see it.
pub(super) fn whole(
    reading: &Reading,
    viewer: &Viewer<'_>,
    parent: Option<&PathBuf>,
) -> Result<(), RequestError> {
    match (viewer, parent) {
        (Viewer::Everybody, _) => Ok(()),
        (Viewer::Actor(_), None) if reading.identity().is_none() => Ok(()),
        (Viewer::Actor(_), None) => Err(operator_only(viewer, None)?.into()),
        (Viewer::Actor(reader), Some(parent)) => {
            Ok(reader.require(&ORGANIZATION, parent.as_path())?)
        }
    }
}

/// What a viewer may list in an organization, and where it was given that.
fn lists(viewer: &Viewer<'_>, parent: Option<&PathBuf>) -> Vec<(PathBuf, Vec<String>)> {
    let (Viewer::Actor(reader), Some(parent)) = (viewer, parent) else { return vec![] };
    let mut scopes = reader.given();
    scopes.retain_mut(|(scope, names)| {
        names.retain(|name| name.ends_with(".list"));
        parent.as_path().contains(scope.as_path())
    });
    scopes
}

/// Who reads an export.
struct ExportReader {
    iam: Iam,
    caller: CallerKind,
    parent: Option<PathBuf>,
    /// What it might list when the export began.
    held: Arc<[(PathBuf, Vec<String>)]>,
    /// The revision that it was judged at last, and when.
    last: (u64, Instant),
}

impl ExportReader {
    /// Judges the caller again if that was at another revision, or some time ago: it still may what it might when the
    /// export began.
    async fn judge_again(&mut self) -> Result<(), RequestError> {
        let served = self.iam.published.current().map(|current| current.snapshot.revision());
        if served == Some(self.last.0) && self.last.1.elapsed() < EXPORT_JUDGED_TIME {
            return Ok(());
        }
        let reading = self.iam.reading_as(self.caller.clone(), Freshness::Any).await?;
        self.last = (reading.revision(), Instant::now());
        let (parent, held) = (self.parent.clone(), Arc::clone(&self.held));
        let judged = self.iam.blocking(reading, move |reading, viewer| {
            whole(reading, viewer, parent.as_ref())?;
            if let Viewer::Actor(reader) = viewer {
                for (scope, names) in &*held {
                    let names: Vec<_> = names.iter().map(String::as_str).collect();
                    reader.require(&names, scope.as_path())?;
                }
            }
            Ok(())
        });
        judged.await
    }
}

/// The document of an import, whose first part is here already.
async fn received(
    first: Vec<u8>,
    mut messages: impl Stream<Item = Result<v1::ImportRequest, Status>> + Unpin,
    bytes_max: usize,
) -> Result<Vec<u8>, Status> {
    let mut document = vec![];
    let mut part = Some(first);
    while let Some(chunk) = part {
        if document.len() + chunk.len() > bytes_max {
            return Err(CallError::TooLarge { bytes_max }.into());
        }
        document.extend(chunk);
        let next = tokio::time::timeout(IMPORT_STALL_MAX, messages.next()).await;
        part = match next.map_err(|_| CallError::DeadlineExceeded)?.transpose()? {
            None => None,
            Some(v1::ImportRequest { parent, chunk, dry_run, prune }) => {
                if !parent.is_empty() || dry_run || !prune.is_empty() {
                    let problem = "only the first message says more than `chunk`";
                    return Err(RequestError::field("chunk", problem).into());
                }
                Some(chunk)
            }
        };
    }
    Ok(document)
}

/// The messages of the first entries that fit into the room that is left, and whether any was left out.
fn fitting<T, M: Message>(
    all: &[T],
    message: impl Fn(&T) -> M,
    room: &mut usize,
) -> (Vec<M>, bool) {
    let mut fitting = vec![];
    for message in all.iter().map(message) {
        let Some(left) = room.checked_sub(message.encoded_len() + ENTRY_BYTES) else {
            return (fitting, true);
        };
        *room = left;
        fitting.push(message);
    }
    (fitting, false)
}

fn change(change: &ChangedObject) -> v1::Change {
    let action = match change.action {
        Action::Created => "created",
        Action::Updated => "updated",
        Action::Deleted => "deleted",
    };
    v1::Change {
        action: action.into(),
        kind: change.kind.as_str().into(),
        id: change.id.to_string(),
    }
}

fn access_change(change: &ChangedAccess) -> v1::AccessChange {
    let ChangedAccess { identity, scope, gained, lost } = change;
    v1::AccessChange {
        identity: identity.to_string(),
        scope: scope.to_string(),
        gained: gained.clone(),
        lost: lost.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(bytes: usize) -> Result<v1::ImportRequest, Status> {
        Ok(v1::ImportRequest { chunk: vec![b'x'; bytes], ..Default::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_document_is_bounded_from_its_first_part_on() {
        for (first, rest, fits) in
            [(10, &[][..], true), (11, &[], false), (4, &[3, 3], true), (4, &[3, 4], false)]
        {
            let rest = stream::iter(rest.iter().map(|bytes| part(*bytes)));
            let document = received(vec![b'x'; first], rest, 10).await;
            match document {
                Ok(document) => assert!(fits && document.len() == 10),
                Err(status) => {
                    assert!(!fits);
                    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
                }
            }
        }
        // Whoever stops in the middle keeps others from their imports no longer than this.
        let began = Instant::now();
        let stalled = stream::iter([part(1)]).chain(stream::pending());
        let status = received(vec![], Box::pin(stalled), 10).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert_eq!(began.elapsed().as_secs(), IMPORT_STALL_MAX.as_secs());
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_said() {
        let one = |id: &str| ChangedObject {
            action: Action::Created,
            kind: capstan_iam::Kind::RoleBinding,
            id: id.parse().unwrap(),
        };
        let bytes = change(&one("a/b")).encoded_len() + ENTRY_BYTES;
        let all = [one("a/b"), one("a/c")];
        for (room, count) in [(2 * bytes, 2), (2 * bytes - 1, 1), (bytes, 1), (bytes - 1, 0)] {
            let mut left = room;
            let (fitting, truncated) = fitting(&all, change, &mut left);
            assert_eq!((fitting.len(), truncated), (count, count < 2), "{room}");
            assert_eq!(left, room - count * bytes);
        }
        let message = change(&one("a/b"));
        assert_eq!(
            (&*message.action, &*message.kind, &*message.id),
            ("created", "role_binding", "a/b")
        );
    }
}
