//! `capstan events tail`: what changes, as it happens.
//!
//! ```text
//! the revision now ─▶ Watch from the next one ─▶ responses ─▶ place: told already? ─▶ wanted? ─▶ a line
//!                       ▲                                       │
//!                       └── a lost connection, after a wait ◀───┘
//! ```
//!
//! **Invariants**: no change is missed or shown twice, however often the connection breaks: a watch goes on at the revision of
//! the last change, whose other changes may not have arrived. A signal, and a reader that has gone, end it with success.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::Duration;

use capstan_proto::iam::v1::policy_service_client::PolicyServiceClient;
use capstan_proto::iam::v1::{self as iam, Group, WatchResponse, WatchedChange};
use prost_types::Struct;
use prost_types::value::Kind as ValueKind;
use tokio::io::Interest;
use tokio::net::unix::pipe;
use tonic::Status;

use super::types::{EventType, of_change, type_of_changes};
use crate::completion;
use crate::decider::Consistency;
use crate::iam::connection::{
    Connection, Safety, ServerArgs, wait_before_resume, wait_before_retry,
};
use crate::iam::json;
use crate::iam::kind::{Listed as _, Query};
use crate::iam::names::group_or_all;
use crate::iam::refusal::Refusal;
use crate::output::{self, Format, Style};
use crate::signals;

const EXAMPLES: &str = "\
Examples:
  capstan events tail --parent acme
  capstan events tail --parent acme --type role_binding --type identity.deleted
  capstan events tail --parent acme --from 1099511627790 --output json
  capstan events tail --addr unix:/var/lib/capstan/operator.sock
                                              everything, for the operator
  capstan events tail --parent acme --type role_binding --limit 1 --quiet
                                              waits until a role binding changes

A line for each change: its revision, what happened, and the id. With --output json it has `revision`, `action`, `kind`, `id`, \
and the object `before` and `after` as in audit records.

After a lost connection, or a restart of the server, it goes on where it was. SIGINT, SIGTERM and the end of what reads its \
output end it with 0. What is older than the server keeps is refused (REVISION_COMPACTED).";

/// Shows what changes in an organization, as it happens
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Tail {
    /// Only changes of this organization: a path or a name [default: all, for the operator]
    #[arg(long, value_name = "ORG", add = completion::managed::group())]
    parent: Option<String>,

    /// Begin with what this revision changed, and then what changed since [default: what changes from now on]
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,

    /// Only changes of this type: KIND, KIND.ACTION or the beginning of a whole type; repeat for several
    #[arg(long = "type", id = "event_type", value_name = "TYPE", value_parser = type_of_changes,
        add = completion::event_type())]
    types: Vec<EventType>,

    /// End after so many changes
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    #[command(flatten)]
    server: ServerArgs,
}

impl Tail {
    pub(super) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let stop = signals::stop(&[])?;
        let done = tokio::select! {
            biased;
            _ = stop => Ok(()),
            () = reader_has_gone() => Ok(()),
            done = self.follow(format) => done,
        };
        match done {
            Err(error) if !crate::is_broken_pipe(&error) => Err(error),
            Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
        }
    }

    async fn follow(self, format: Format) -> anyhow::Result<()> {
        let server = self.server.connect().await?;
        let parent = group_or_all(&server, self.parent.as_deref()).await?;
        let from = match self.from {
            Some(revision) => revision,
            None => revision(&server, &parent).await?.saturating_add(1),
        };
        let watch = Watch {
            server,
            parent,
            format,
            is_from_now: self.from.is_none(),
            types: self.types,
            left: self.limit,
            place: Place::at(from),
            failures: 0,
            state: State::New,
        };
        watch.run().await
    }
}

/// The revision of the server now. A watch from 0 would begin there, too, but nobody would know where that is if it broke
/// before its first response.
async fn revision(server: &Connection, parent: &str) -> anyhow::Result<u64> {
    let consistency = Consistency::Full.message();
    let query = Query { parent: parent.to_owned(), consistency, ..Query::default() };
    Ok(Group::page(server, &query, 1, "").await?.revision)
}

/// Ends when nobody reads standard output any more; never if that is a file. Without it, `tail | head` would go on until the
/// next change.
async fn reader_has_gone() {
    // It only tells of errors, so that it may stay a file that blocks.
    let out = io::stdout().as_fd().try_clone_to_owned();
    if let Ok(out) = out.and_then(pipe::Sender::from_owned_fd_unchecked) {
        while let Ok(ready) = out.ready(Interest::ERROR).await {
            if ready.is_error() {
                return;
            }
        }
    }
    std::future::pending().await
}

/// Where a watch is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Place {
    /// The revision to go on with.
    next: u64,
    /// Kinds and ids of what of it was told already.
    told: HashSet<(String, String)>,
}

impl Place {
    fn at(next: u64) -> Self {
        Self { next, told: HashSet::new() }
    }

    /// The changes of a response that were not told before.
    fn untold(&mut self, response: WatchResponse) -> Vec<WatchedChange> {
        let WatchResponse { revision, changes } = response;
        if changes.is_empty() {
            // A checkpoint: its revision is complete.
            *self = Self::at(revision.saturating_add(1));
        } else if revision != self.next {
            *self = Self::at(revision);
        }
        let mut changes = changes;
        changes.retain(|one| self.told.insert((one.kind.clone(), one.id.clone())));
        changes
    }
}

/// How a watch stands with its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not accepted yet.
    New,
    /// Accepted, and whoever reads standard error knows nothing else.
    Going,
    /// It was said that it is interrupted.
    Interrupted,
}

/// A watch that goes on after a lost connection.
struct Watch {
    server: Connection,
    parent: String,
    format: Format,
    is_from_now: bool,
    /// Empty for all.
    types: Vec<EventType>,
    /// How many changes are still to be shown; `None` without a limit.
    left: Option<u64>,
    place: Place,
    /// Since the last response.
    failures: u32,
    state: State,
}

impl Watch {
    async fn run(mut self) -> anyhow::Result<()> {
        loop {
            let ControlFlow::Continue(status) = self.once().await? else { return Ok(()) };
            let Some(wait) = self.wait(&status) else {
                let error = self.server.error(&status, Safety::Read).await;
                return Err(Refusal::or_of_one(error, &self.parent));
            };
            self.failures += 1;
            // A connection that only grew old is replaced at once, which is nothing to speak of.
            if self.state == State::Going && self.failures > 1 {
                self.state = State::Interrupted;
                output::note(format!(
                    "interrupted, and goes on as soon as the server answers: {}",
                    status.message()
                ))?;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Until the first answer it is a call like others; then it goes on without end.
    fn wait(&self, status: &Status) -> Option<Duration> {
        match self.state {
            State::New => wait_before_retry(status, Safety::Read, self.failures),
            State::Going | State::Interrupted => wait_before_resume(status, self.failures),
        }
    }

    /// Shows what changes until the connection ends, and why it did; or until there is no more to show.
    async fn once(&mut self) -> anyhow::Result<ControlFlow<(), Status>> {
        let (parent, start_revision) = (self.parent.clone(), self.place.next);
        let request = iam::WatchRequest { parent, start_revision };
        let mut client = PolicyServiceClient::new(self.server.service());
        let mut responses = match client.watch(request).await {
            Ok(responses) => responses.into_inner(),
            Err(status) => return Ok(ControlFlow::Continue(status)),
        };
        let what = if self.parent.is_empty() { "everything" } else { &*self.parent };
        match std::mem::replace(&mut self.state, State::Going) {
            // Who says where it begins knows that.
            State::New if self.is_from_now => {
                output::note(format!("{what} from revision {start_revision} on"))?;
            }
            State::Interrupted => {
                output::note(format!("goes on with revision {start_revision}"))?;
            }
            State::New | State::Going => {}
        }
        loop {
            let ended = match responses.message().await {
                Ok(Some(response)) => {
                    self.failures = 0;
                    if self.show(response)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    continue;
                }
                Ok(None) => Status::unavailable("the server ended the watch"),
                Err(status) => status,
            };
            return Ok(ControlFlow::Continue(ended));
        }
    }

    /// Shows what is wanted of a response. Breaks when there is no more to show.
    fn show(&mut self, response: WatchResponse) -> anyhow::Result<ControlFlow<()>> {
        let revision = response.revision;
        for change in self.place.untold(response) {
            let event_type = of_change(&change.kind, &change.action);
            if !self.types.is_empty() && !self.types.iter().any(|one| one.wants(&event_type)) {
                continue;
            }
            match self.format {
                Format::Table => output::line(line(revision, &change))?,
                Format::Json => {
                    let mut json = json::of(&change, "WatchedChange")?;
                    if let Some(fields) = json.as_object_mut() {
                        fields.insert("revision".into(), revision.into());
                    }
                    output::json(&json)?;
                }
            }
            self.left = self.left.map(|left| left.saturating_sub(1));
            if self.left == Some(0) {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// A change for people.
fn line(revision: u64, change: &WatchedChange) -> String {
    let WatchedChange { action, kind, id, .. } = change;
    let style = match action.as_str() {
        "created" => Style::Cyan,
        "deleted" => Style::Red,
        _ => Style::Yellow,
    };
    // As wide as most, so that ids are below each other.
    let what = output::styled(style, &format!("{:<20}", format!("{kind}.{action}")));
    let revision = output::styled(Style::Dim, &revision.to_string());
    let about = about(change).map(|about| format!("  {about}")).unwrap_or_default();
    format!("{revision}  {what}  {id}{about}")
}

/// What people know an object by whose id says little: who has which role where, or its name.
fn about(change: &WatchedChange) -> Option<String> {
    let object = change.after.as_ref().or(change.before.as_ref())?;
    match (text(object, "identity"), text(object, "role"), text(object, "scope")) {
        (Some(identity), Some(role), Some(scope)) => Some(format!("{identity} {role} at {scope}")),
        _ => text(object, "name").map(ToOwned::to_owned),
    }
}

fn text<'o>(object: &'o Struct, field: &str) -> Option<&'o str> {
    match object.fields.get(field)?.kind.as_ref()? {
        ValueKind::StringValue(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(revision: u64, ids: &[&str]) -> WatchResponse {
        let change = |id: &&str| WatchedChange {
            action: "created".into(),
            kind: "group".into(),
            id: (*id).to_owned(),
            ..WatchedChange::default()
        };
        WatchResponse { revision, changes: ids.iter().map(change).collect() }
    }

    fn untold(place: &mut Place, revision: u64, ids: &[&str]) -> Vec<String> {
        place.untold(response(revision, ids)).into_iter().map(|one| one.id).collect()
    }

    #[test]
    fn a_revision_that_is_sent_again_is_told_once() {
        let mut place = Place::at(7);
        assert_eq!(untold(&mut place, 7, &["a", "b"]), ["a", "b"]);
        // The rest of the same revision, after the connection broke and before.
        assert_eq!(place.next, 7);
        assert_eq!(untold(&mut place, 7, &["a", "b", "c"]), ["c"]);
        assert_eq!(untold(&mut place, 7, &["d"]), ["d"]);
        assert_eq!(untold(&mut place, 9, &["a"]), ["a"]);
        assert_eq!(place.next, 9);
        // Up to here all is told.
        assert_eq!(untold(&mut place, 12, &[]), [""; 0]);
        assert_eq!(place, Place::at(13));
    }

    #[test]
    fn a_line_names_what_people_know() {
        let mut change = response(7, &["acme/web"]).changes.remove(0);
        assert_eq!(line(7, &change), "7  group.created         acme/web");
        let text =
            |text: &str| prost_types::Value { kind: Some(ValueKind::StringValue(text.to_owned())) };
        let fields = [("name", "Web shop")].map(|(name, value)| (name.to_owned(), text(value)));
        change.after = Some(Struct { fields: fields.into() });
        assert_eq!(line(7, &change), "7  group.created         acme/web  Web shop");
        let fields = [("identity", "bob"), ("role", "viewer"), ("scope", "acme"), ("name", "x")];
        let fields = fields.map(|(name, value)| (name.to_owned(), text(value)));
        change.before = Some(Struct { fields: fields.into() });
        change.after = None;
        assert!(line(7, &change).ends_with("  bob viewer at acme"));
    }
}
