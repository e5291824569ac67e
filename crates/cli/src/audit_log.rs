//! `capstan audit`: the audit log of a server, and whether that of a store is whole.

pub(crate) mod chain;
mod verify;

use std::process::ExitCode;

use capstan_engine::Timestamp;
use capstan_policy::parse_timestamp;
use capstan_proto::iam::v1::audit_service_client::AuditServiceClient;
use capstan_proto::iam::v1::{AuditRecord, ListAuditRecordsRequest};
use serde_json::{Map, Value};
use tonic::{Code, Request};

use crate::completion;
use crate::iam::connection::{Connection, Safety, next_page};
use crate::iam::json;
use crate::iam::kind::time;
use crate::iam::names::{group_or_all, term};
use crate::iam::refusal::{Refusal, code_word};
use crate::iam::verbs::FilterArgs;
use crate::limits::{AUDIT_RECORDS_SHOWN, PAGE_OBJECTS};
use crate::output::{self, Format};

/// The package of the methods of records.
const PACKAGE: &str = "capstan.iam.v1.";

const EXAMPLES: &str = "\
Examples:
  capstan audit list --parent acme
  capstan audit list --parent acme --actor alice --since 2026-11-01T00:00:00Z
  capstan audit list --parent acme --refused --output json
  capstan audit list --addr unix:/var/lib/capstan/operator.sock --limit 0
                                              all of them, for the operator
  capstan audit verify --data /var/lib/capstan";

/// The audit log of a server: who changed or tried to change what
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AuditLog {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Records, oldest first
    #[command(alias = "ls", after_help = EXAMPLES)]
    List(Box<List>),
    Verify(verify::Verify),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only records of this organization: a path or a name [default: all, for the operator]
    #[arg(long, value_name = "ORG", add = completion::managed::group())]
    parent: Option<String>,

    /// Only what this identity did: a path
    #[arg(long, value_name = "IDENTITY", add = completion::managed::identity())]
    actor: Option<String>,

    /// Only calls of this method, such as capstan.iam.v1.GroupService/CreateGroup
    #[arg(long, id = "audit_method", value_name = "METHOD", add = completion::method())]
    method: Option<String>,

    /// Only what was done to the object with this path
    #[arg(long, value_name = "ID")]
    object: Option<String>,

    /// Only what was refused
    #[arg(long)]
    refused: bool,

    /// Only records from this time on: RFC 3339
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,

    /// Only records before this time: RFC 3339
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,

    /// At most so many records, the newest of them; 0 for all
    #[arg(long, value_name = "NUMBER", default_value_t = AUDIT_RECORDS_SHOWN)]
    limit: usize,

    #[command(flatten)]
    filter: FilterArgs,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    parse_timestamp(text).map_err(|expected| format!("expected {expected}"))
}

impl AuditLog {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::List(list) => list.run(format).await,
            Command::Verify(verify) => verify.run(format).await,
        }
    }
}

/// What a list found.
#[derive(Debug, Default)]
struct Found {
    /// In order of their revisions.
    records: std::collections::VecDeque<AuditRecord>,
    /// How many more there are, all older.
    older: u64,
    revision: u64,
}

impl List {
    async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let server = self.filter.read.server.connect().await?;
        let parent = group_or_all(&server, self.parent.as_deref()).await?;
        // Records have a method without its package.
        let method = self.method.as_deref().map(|name| name.strip_prefix(PACKAGE).unwrap_or(name));
        let (actor, object) = (self.actor.as_deref(), self.object.as_deref());
        let fields = [("actor", actor), ("method", method), ("object", object)];
        let terms = fields.into_iter().filter_map(|(field, value)| Some(term(field, value?)));
        let request = ListAuditRecordsRequest {
            parent,
            filter: self.filter.joined(terms),
            page_size: PAGE_OBJECTS,
            page_token: String::new(),
            consistency: self.filter.read.consistency.message(),
        };
        let parent = request.parent.clone();
        let found = self.read(&server, request).await;
        let found = found.map_err(|error| Refusal::or_of_one(error, &parent))?;
        match format {
            Format::Json => {
                let records = found.records.iter().map(|one| json::of(one, "AuditRecord"));
                let records: Vec<Value> = records.collect::<anyhow::Result<_>>()?;
                let mut answer = Map::new();
                answer.insert("audit_records".into(), records.into());
                answer.insert("revision".into(), found.revision.into());
                output::json(&answer)?;
            }
            Format::Table if found.records.is_empty() => output::line("no audit records")?,
            Format::Table => {
                let mut table =
                    output::table(["time", "revision", "actor", "method", "object", "result"]);
                for record in &found.records {
                    table.add_row(row(record));
                }
                output::line(table)?;
            }
        }
        if found.older > 0 {
            output::note(format!(
                "{} older records are not shown: --limit 0 shows all",
                found.older
            ))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Reads all pages, and keeps the newest records that are asked for.
    async fn read(
        &self,
        server: &Connection,
        mut request: ListAuditRecordsRequest,
    ) -> anyhow::Result<Found> {
        let mut found = Found::default();
        loop {
            let send = async |request: Request<_>| {
                AuditServiceClient::new(server.service()).list_audit_records(request).await
            };
            let page = server.call(Safety::Read, request.clone(), send).await?;
            found.revision = page.revision;
            for record in page.audit_records.into_iter().filter(|record| self.wants(record)) {
                found.records.push_back(record);
                if self.limit != 0 && found.records.len() > self.limit {
                    found.records.pop_front();
                    found.older += 1;
                }
            }
            if !next_page(&mut request.page_token, page.next_page_token)? {
                return Ok(found);
            }
        }
    }

    /// What a filter of the server cannot say.
    fn wants(&self, record: &AuditRecord) -> bool {
        let at = record
            .time
            .and_then(|time| Some(Timestamp::new(time.seconds, u32::try_from(time.nanos).ok()?)));
        let is_since = self.since.is_none_or(|since| at.is_some_and(|at| since <= at));
        let is_until = self.until.is_none_or(|until| at.is_some_and(|at| at < until));
        is_since && is_until && (!self.refused || record.code != 0)
    }
}

fn row(record: &AuditRecord) -> [String; 6] {
    let result = match (Code::from_i32(record.code), record.reason.as_str()) {
        (Code::Ok, _) => "done".to_owned(),
        (code, "") => code_word(code).to_owned(),
        (_, reason) if record.missing.is_empty() => reason.to_owned(),
        (_, reason) => format!("{reason}: {} at {}", record.missing.join(" "), record.scope),
    };
    let actor = if record.actor.is_empty() { &record.authentication } else { &record.actor };
    let method = record.method.strip_prefix(PACKAGE).unwrap_or(&record.method);
    [
        time(record.time),
        record.revision.to_string(),
        actor.clone(),
        method.to_owned(),
        record.object.clone(),
        result,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(code: i32, seconds: i64) -> AuditRecord {
        AuditRecord {
            revision: 7,
            time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            authentication: "operator".into(),
            method: "capstan.iam.v1.GroupService/CreateGroup".into(),
            object: "acme".into(),
            code,
            ..AuditRecord::default()
        }
    }

    #[test]
    fn a_row_says_who_did_what_and_how_it_ended() {
        assert_eq!(
            row(&record(0, 0)),
            ["1970-01-01T00:00:00Z", "7", "operator", "GroupService/CreateGroup", "acme", "done"]
        );
        let refused = AuditRecord {
            actor: "bob".into(),
            reason: "MISSING_CAPABILITY".into(),
            missing: vec!["groups.create".into(), "groups.list".into()],
            scope: "acme".into(),
            ..record(7, 0)
        };
        assert_eq!(row(&refused)[2], "bob");
        assert_eq!(row(&refused)[5], "MISSING_CAPABILITY: groups.create groups.list at acme");
        assert_eq!(row(&record(5, 0))[5], "NOT_FOUND");
    }

    #[test]
    fn times_and_refusals_are_chosen() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            list: List,
        }
        let list = |line: &str| {
            use clap::Parser as _;
            Line::try_parse_from(line.split(' ')).unwrap().list
        };
        let span = list("x --since 1970-01-01T00:00:10Z --until 1970-01-01T00:00:20Z");
        let wanted: Vec<_> =
            [9, 10, 19, 20].into_iter().filter(|at| span.wants(&record(0, *at))).collect();
        assert_eq!(wanted, [10, 19]);
        assert!(!list("x --refused").wants(&record(0, 0)));
        assert!(list("x --refused").wants(&record(7, 0)));
    }
}
