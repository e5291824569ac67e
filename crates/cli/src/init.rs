//! `capstan init`: makes a store with its first organization.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use capstan_engine::PathBuf as Id;
use capstan_iam::{Authentication, ClaimMatch, Identity, Match, Meta, USER, derived_identity_id};
use capstan_policy::DOCUMENT_BYTES_MAX;
use capstan_server::clock::Clock;
use capstan_server::feed::journal::{StoredCatalog, first_batch, organization};
use capstan_server::feed::source;
use capstan_store::{Head, Limits, OpenError, RedbStore};
use serde_json::json;

use super::completion;
use super::output::{self, Format};
use super::roles::CATALOG;
use super::store_error::exit_code;

/// The epoch of a new store.
const EPOCH: u16 = 1;

const EXAMPLES: &str = "\
Examples:
  capstan init --data /var/lib/capstan --org acme --owner alice
  capstan init --data DIR --org acme --issuer https://accounts.example.com --subject 1234567
  capstan init --data DIR --org acme --owner alice --catalog my-catalog.yaml --role admin

Then `capstan serve --data DIR` serves the store. The operator manages it over DIR/operator.sock; further organizations \
are created there.";

/// Makes a store with an organization and its owner
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group(clap::ArgGroup::new("who").required(true).args(["owner", "issuer"])))]
pub(crate) struct Init {
    /// The directory of the store; made if it is not there
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// The organization: a path of one segment
    #[arg(long, value_name = "ID")]
    org: Id,

    /// Its owner: a root identity, which is made with it
    #[arg(long, value_name = "IDENTITY")]
    owner: Option<Id>,

    /// Its owner by the `iss` of the tokens that it logs in with; the id is derived from issuer and subject
    #[arg(long, value_name = "URL", requires = "subject", conflicts_with = "owner")]
    issuer: Option<String>,

    /// The `sub` of those tokens
    #[arg(long, value_name = "SUBJECT", requires = "issuer", conflicts_with = "owner")]
    subject: Option<String>,

    /// The role of the owner [default: the catalog's role with `owner: true`]
    #[arg(long, value_name = "ROLE", add = completion::role())]
    role: Option<String>,

    /// The catalog: a built-in one's name or a file
    #[arg(long, value_name = "NAME|FILE", default_value = CATALOG, add = completion::catalog())]
    catalog: String,

    /// Do nothing, and exit with 0, if the directory has a store already: for a container that runs before each start
    #[arg(long)]
    if_missing: bool,
}

impl Init {
    pub(crate) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let clock = Clock::System;
        if !clock.is_plausible() {
            bail!("the machine's clock says that it is before 2026: set the clock");
        }
        let catalog = self.catalog()?;
        let role = self.role(&catalog)?;
        let (empty, now) = (Head::empty(EPOCH), clock.now());
        let meta = Meta::new(empty.revision().saturating_add(1), now);
        let (id, authentication) = self.owner()?;
        let owner = Identity {
            id,
            name: String::new(),
            description: String::new(),
            kind: USER.into(),
            properties: Default::default(),
            disabled: false,
            authentication,
            meta,
        };
        if self.org.as_path().parent().is_some() {
            bail!("--org `{}`: an organization is a path of one segment", self.org);
        }
        if owner.id.as_path().parent().is_some() {
            bail!("--owner `{}`: the owner is a root identity, a path of one segment", owner.id);
        }
        if owner.id == self.org {
            bail!("--org and --owner are both `{}`: a path names one thing", self.org);
        }
        let objects = organization(&self.org, (&owner, &role), meta);
        let batch = first_batch(&empty, &catalog, objects, ("init", now));
        let made = RedbStore::init(&self.data, EPOCH, &batch, &Limits::default());
        if let Err(OpenError::Exists(file)) = &made
            && self.if_missing
        {
            match format {
                Format::Json => output::json(&json!({ "data": self.data, "made": false }))?,
                Format::Table => {
                    output::line(format!("{} is there: nothing is changed", file.display()))?;
                }
            }
            return Ok(ExitCode::SUCCESS);
        }
        if let Err(error) = made {
            let code = exit_code(&error);
            output::error(format, &error.into());
            return Ok(code);
        }
        let name = catalog.catalog().name();
        match format {
            Format::Json => output::json(&json!({
                "data": self.data,
                "made": true,
                "organization": self.org.to_string(),
                "owner": owner.id.to_string(),
                "role": role,
                "catalog": name,
                "revision": meta.created,
            }))?,
            Format::Table => {
                let data = self.data.display();
                output::line(format!(
                    "made {data} with organization `{}`: `{}` has the role `{role}` of {name}",
                    self.org, owner.id
                ))?;
                output::line(format!("serve it with: capstan serve --data {data}"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn catalog(&self) -> anyhow::Result<StoredCatalog> {
        if let Some(catalog) = StoredCatalog::built_in(&self.catalog) {
            return Ok(catalog);
        }
        // Says which names there are if it is neither.
        source::load_catalogs(std::slice::from_ref(&self.catalog))?;
        let document = source::read(self.catalog.as_ref(), DOCUMENT_BYTES_MAX)?;
        StoredCatalog::of_document(document).with_context(|| self.catalog.clone())
    }

    fn role(&self, catalog: &StoredCatalog) -> anyhow::Result<String> {
        let catalog = catalog.catalog();
        let names = || {
            let names: Vec<_> = catalog.roles().iter().map(|role| &*role.name).collect();
            names.join(", ")
        };
        let Some(name) = &self.role else {
            let owner = catalog.owner_role().map(|role| role.name.to_string());
            return owner.with_context(|| {
                let name = catalog.name();
                format!(
                    "catalog `{name}` has no role with `owner: true`: name one with --role ({})",
                    names()
                )
            });
        };
        if !catalog.roles().iter().any(|role| *role.name == **name) {
            bail!("catalog `{}` has no role `{name}` (it has {})", catalog.name(), names());
        }
        Ok(name.clone())
    }

    /// The id of the owner, and how it proves who it is.
    fn owner(&self) -> anyhow::Result<(Id, Option<Authentication>)> {
        if let Some(owner) = &self.owner {
            return Ok((owner.clone(), None));
        }
        let (Some(issuer), Some(subject)) = (&self.issuer, &self.subject) else {
            bail!("name the owner with --owner, or with --issuer and --subject");
        };
        let id = derived_identity_id(issuer, subject)?;
        let claims = ClaimMatch {
            issuer: Match::Exact(issuer.clone()),
            subject: Match::Exact(subject.clone()),
            audience: None,
            claims: Default::default(),
            claim_patterns: Default::default(),
        };
        Ok((id.parse()?, Some(Authentication::ClaimMatch(claims))))
    }
}
