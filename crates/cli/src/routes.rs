//! `capstan routes`: the route that a request matches, and the capabilities that it requires.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use capstan_engine::{Attributes, Path, Question, Snapshot};
use capstan_policy::{DOCUMENT_BYTES_MAX, load_routes};
use clap::ArgAction;
use serde::Serialize;

use super::DENIED;
use super::audit::file;
use super::completion;
use super::output::{self, Format};
use super::validation::{self, Valid};
use capstan_server::clock::Clock;
use capstan_server::envoy::routes::{
    self, CanonicalRequest, MalformedRequestError, RouteError, Table,
};
use capstan_server::feed::source::{Source, in_file, load_catalogs};

const EXAMPLES: &str = "\
Examples:
  capstan routes test --routes routes.yaml GET http://registry.example/v2/nginx/tags/list
  capstan routes test --routes routes.yaml --policy acme.yaml --identity acme/ci \\
      PUT /v2/nginx/manifests/1.0
  capstan routes test --routes routes.yaml --content-type application/grpc \\
      POST /my.pkg.Service/Method

Exit codes: 0 if a route matches and, with --identity, the request is allowed; 1 if not; 2 error.";

const VALIDATE_EXAMPLES: &str = "\
Examples:
  capstan routes validate routes.yaml
  capstan routes validate routes.yaml --policy acme.yaml

Exit codes: 0 if all tables are valid, 2 otherwise.";

/// Route tables: the capabilities that HTTP requests through Envoy require
#[derive(Debug, clap::Args)]
pub(crate) struct Routes {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Test(Test),
    Validate(Validate),
}

/// Validates route tables and prints every error with its position
#[derive(Debug, clap::Args)]
#[command(after_help = VALIDATE_EXAMPLES)]
struct Validate {
    /// Route tables, YAML or JSON; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// A policy document: its catalog must have every capability that a route requires. Without it, any catalog may
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    /// Additional catalogs: a built-in catalog's name or a file; repeat for several
    #[arg(long, value_name = "NAME|FILE", action = ArgAction::Append, add = completion::catalog())]
    catalog: Vec<String>,
}

/// Shows the route that a request matches, what it requires and, with a policy, whether it is allowed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct Test {
    /// The route table; `-` is standard input
    #[arg(long, value_name = "FILE")]
    routes: PathBuf,

    /// The policy document that decides; `-` is standard input
    #[arg(long, value_name = "FILE", requires = "identity")]
    policy: Option<PathBuf>,

    /// The identity of the request's sender
    #[arg(long, value_name = "IDENTITY", requires = "policy", add = completion::identity())]
    identity: Option<String>,

    /// Additional catalogs that the policy document can name, or that have capabilities of the table: a built-in
    /// catalog's name or a file; repeat for several
    #[arg(long, value_name = "NAME|FILE", action = ArgAction::Append, add = completion::catalog())]
    catalog: Vec<String>,

    /// The request's Content-Type
    #[arg(long, value_name = "TYPE", default_value = "")]
    content_type: String,

    /// GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS
    method: String,

    /// http://HOST/PATH?QUERY, or /PATH?QUERY of a host `localhost`
    url: String,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    values: Vec<Value>,
    requires: Vec<Requirement>,
    /// The query parameters without which the request is allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    removes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<bool>,
    #[serde(skip)]
    if_denied_remove: Option<Vec<Box<str>>>,
}

#[derive(Debug, Serialize)]
struct Value {
    name: String,
    value: String,
}

#[derive(Debug, Serialize)]
struct Requirement {
    capability: String,
    /// `None` if the request's values do not form a valid path.
    resource: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl Routes {
    pub(crate) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let test = match self.command {
            Command::Test(test) => test,
            Command::Validate(validate) => return validate.run(format),
        };
        if let Some(identity) = &test.identity {
            Path::parse(identity).map_err(|error| anyhow!("identity: {error}"))?;
        }
        let table = routes::load(&file(&test.routes))?;
        if test.policy.is_none() {
            let checked = table.routes.check_capabilities(&load_catalogs(&test.catalog)?.all());
            checked.map_err(|found| in_file(&test.routes, &found))?;
        }
        let request = test.request()?;
        let mut report = Report::new(&table, request.as_ref().map_err(|why| *why));
        if let (Some(policy), Some(identity)) = (&test.policy, &test.identity) {
            let catalogs = load_catalogs(&test.catalog)?;
            let built =
                Source::file(file(policy)).build(&catalogs, 1, None, Clock::System.now())?;
            report.decide(&built.snapshot, identity)?;
            let removed = report.if_denied_remove.take();
            if let (Some(false), Some(removed), Ok(request)) = (report.allowed, removed, &request) {
                let mut changed = Report::new(&table, Ok(&request.without(&removed)));
                changed.decide(&built.snapshot, identity)?;
                if changed.allowed == Some(true) {
                    changed.removes = removed.iter().map(ToString::to_string).collect();
                    report = changed;
                }
            }
        }
        match format {
            Format::Json => output::json(&report)?,
            Format::Table => report.print()?,
        }
        let good = report.route.is_some() && report.allowed != Some(false);
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(DENIED) })
    }
}

impl Validate {
    fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let catalogs = load_catalogs(&self.catalog)?;
        let catalogs = match &self.policy {
            Some(policy) => {
                let policy = Source::file(file(policy)).load(&catalogs)?;
                vec![Arc::clone(policy.model.catalog())]
            }
            None => catalogs.all(),
        };
        validation::run(&self.files, DOCUMENT_BYTES_MAX, format, |document| {
            let table = load_routes(document)?;
            table.check_capabilities(&catalogs)?;
            let requirements = table.routes.iter().map(|route| route.requires.len()).sum();
            let declares = vec![
                ("routes", "routes", table.routes.len()),
                ("requirements", "requirements", requirements),
            ];
            Ok(Valid { declares, ..Valid::default() })
        })
    }
}

impl Test {
    fn request(&self) -> anyhow::Result<Result<CanonicalRequest<'_>, MalformedRequestError>> {
        let (host, target) = split(&self.url)?;
        Ok(CanonicalRequest::parse(&self.method, host, target, &self.content_type))
    }
}

impl Report {
    fn new(table: &Table, request: Result<&CanonicalRequest<'_>, MalformedRequestError>) -> Self {
        let found = request.map_err(RouteError::Malformed).and_then(|request| table.find(request));
        match found {
            Ok(taken) => Self {
                route: Some(taken.route.name.clone()),
                values: taken.values.iter().map(Value::from).collect(),
                requires: taken.requires().map(Requirement::from).collect(),
                if_denied_remove: Some(taken.route.if_denied_remove.clone())
                    .filter(|removed| !removed.is_empty()),
                ..Self::default()
            },
            Err(why) => {
                let why = match why {
                    RouteError::NoRoute => "no route".to_owned(),
                    RouteError::Form => "the route takes no forms".to_owned(),
                    RouteError::Malformed(malformed) => malformed.to_string(),
                };
                Self { refused: Some(why), ..Self::default() }
            }
        }
    }
}

/// Splits a URL into host and request target, byte for byte.
fn split(url: &str) -> anyhow::Result<(&str, &str)> {
    if url.starts_with('/') {
        return Ok(("localhost", url));
    }
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest else { bail!("`{url}` is neither http://HOST/PATH nor /PATH") };
    let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, target) = rest.split_at(at);
    Ok((host, if target.is_empty() { "/" } else { target }))
}

impl From<&(&str, std::borrow::Cow<'_, str>)> for Value {
    fn from((name, value): &(&str, std::borrow::Cow<'_, str>)) -> Self {
        Self { name: (*name).to_owned(), value: value.to_string() }
    }
}

impl From<routes::Required<'_>> for Requirement {
    fn from(required: routes::Required<'_>) -> Self {
        Self {
            capability: required.capability.to_owned(),
            resource: required.resource.map(|path| path.to_string()),
            allowed: None,
            reason: None,
        }
    }
}

impl Report {
    /// Checks every requirement, as the server does.
    fn decide(&mut self, snapshot: &Snapshot, identity: &str) -> anyhow::Result<()> {
        let now = Clock::System.now();
        for required in &mut self.requires {
            let Some(resource) = &required.resource else {
                (required.allowed, required.reason) = (Some(false), Some("MALFORMED_RESOURCE"));
                continue;
            };
            let (capability, none) = (&required.capability, Attributes::NONE);
            let question = Question {
                identity: Path::parse(identity).map_err(|error| anyhow!("identity: {error}"))?,
                capability,
                resource: Path::parse(resource)?,
                attributes: none,
            };
            let (allowed, reason) = match snapshot.check(&question, now) {
                Ok(decision) => (decision.allowed(), decision.reason.as_str()),
                Err(_) => (false, "UNKNOWN_CAPABILITY"),
            };
            (required.allowed, required.reason) = (Some(allowed), Some(reason));
        }
        let all = self.requires.iter().all(|required| required.allowed == Some(true));
        self.allowed = Some(self.route.is_some() && all);
        Ok(())
    }

    fn print(&self) -> anyhow::Result<()> {
        let refused = self.refused.as_deref().unwrap_or_default();
        let taken = self.route.as_deref().map_or_else(
            || output::verdict(false, &format!("refused: {refused}")),
            |name| format!("route {}", output::verdict(true, name)),
        );
        output::line(taken)?;
        if !self.removes.is_empty() {
            let removed = self.removes.join(", ");
            output::line(format!("without the query parameters {removed}, which Envoy removes"))?;
        }
        for Value { name, value } in &self.values {
            output::line(format!("  {{{name}}} = {value}"))?;
        }
        if self.route.is_some() && self.requires.is_empty() {
            output::line("requires any identity")?;
        }
        for Requirement { capability, resource, reason, allowed } in &self.requires {
            let resource = resource.as_deref().unwrap_or("(no path)");
            let verdict = match (allowed, reason) {
                (Some(allowed), Some(reason)) => format!(": {}", output::verdict(*allowed, reason)),
                _ => String::new(),
            };
            output::line(format!("requires {capability} at {resource}{verdict}"))?;
        }
        match self.allowed {
            Some(true) => output::line(output::verdict(true, "allowed")),
            Some(false) => output::line(output::verdict(false, "denied")),
            None => Ok(()),
        }
    }
}
