//! `capstan iam account-associations`: accounts at other clouds that a group belongs together with.

use std::collections::HashMap;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use capstan_engine::quote;
use capstan_proto::iam::v1::{AccountAssociation, Aws, Azure, Github, Google, Group, Identity};

use super::connection::{Connection, Write, WriteArgs};
use super::kind::Kind as _;
use super::names::{id_to_write, resolve};
use super::show;
use super::verbs::{
    ChangeArgs, DeleteArgs, ListArgs, ReadArgs, TextArgs, create, delete_id, update,
};
use crate::completion;
use crate::output::Output;

const EXAMPLES: &str = "\
Examples:
  capstan iam account-associations create acme --aws 012345678901 --service INGESTER=acme/ingester
  capstan iam account-associations create acme/web --google acme-web --github acme=1234567
  capstan iam account-associations update acme --azure 01234567-89ab-cdef-0123-456789abcdef --no-aws
  capstan iam account-associations list --parent acme
  capstan iam account-associations delete acme

A group has one at most, which has the group's path as its id. Whoever makes or changes one must hold what the identities in \
--service hold.";

/// Accounts at other clouds that a group belongs together with
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AccountAssociations {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The associations that the caller may see
    #[command(alias = "ls")]
    List(ListArgs),

    /// The association of a group
    #[command(alias = "get")]
    Describe {
        /// The group: a path or a name
        #[arg(value_name = "GROUP", add = completion::managed::group())]
        group: String,

        #[command(flatten)]
        read: ReadArgs,
    },

    /// Creates the association of a group
    Create(Box<Create>),

    /// Changes the association of a group
    Update(Box<Update>),

    /// Deletes the association of a group
    #[command(alias = "rm")]
    Delete {
        /// The group: a path, or name:NAME
        #[arg(value_name = "GROUP", add = completion::managed::group())]
        group: String,

        #[command(flatten)]
        delete: DeleteArgs,
    },
}

/// The accounts that an association says.
#[derive(Debug, clap::Args)]
struct AccountArgs {
    /// The account at Amazon Web Services: 12 digits
    #[arg(long, value_name = "ACCOUNT")]
    aws: Option<String>,

    /// The id of the project at Google Cloud
    #[arg(long, value_name = "PROJECT")]
    google: Option<String>,

    /// With --google: the number of the project
    #[arg(long, value_name = "NUMBER", requires = "google")]
    google_number: Option<String>,

    /// The id of the tenant at Microsoft Azure
    #[arg(long, value_name = "TENANT")]
    azure: Option<String>,

    /// With --azure: the id of an application; repeat for several
    #[arg(long, value_name = "CLIENT", requires = "azure")]
    azure_client: Vec<String>,

    /// An installation at GitHub, by the login of the organization there; repeat for several
    #[arg(long, value_name = "LOGIN=NUMBER")]
    github: Vec<String>,

    /// An identity of the organization, by what it does for the group: a path, or name:NAME; repeat for several
    #[arg(long, value_name = "SERVICE=IDENTITY")]
    service: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The group: a path, or name:NAME
    #[arg(value_name = "GROUP", add = completion::managed::group())]
    group: String,

    #[command(flatten)]
    accounts: AccountArgs,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    write: WriteArgs,
}

/// Each option replaces what was there of its kind: `--github` all installations, `--service` all services.
#[derive(Debug, clap::Args)]
struct Update {
    /// The group: a path, or name:NAME
    #[arg(value_name = "GROUP", add = completion::managed::group())]
    group: String,

    #[command(flatten)]
    accounts: AccountArgs,

    /// No account at Amazon Web Services
    #[arg(long, conflicts_with = "aws")]
    no_aws: bool,

    /// No project at Google Cloud
    #[arg(long, conflicts_with_all = ["google", "google_number"])]
    no_google: bool,

    /// No tenant at Microsoft Azure
    #[arg(long, conflicts_with_all = ["azure", "azure_client"])]
    no_azure: bool,

    /// No installation at GitHub
    #[arg(long, conflicts_with = "github")]
    no_github: bool,

    /// No services
    #[arg(long, conflicts_with = "service")]
    no_services: bool,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    change: ChangeArgs,
}

impl AccountAssociations {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::List(list) => {
                let server = list.connect().await?;
                list.list::<AccountAssociation>(&server, None, |_| true, output).await
            }
            Command::Describe { group, read } => {
                let server = read.server.connect().await?;
                let id = resolve::<Group>(&server, &group).await?;
                let read = read.consistency.message();
                let (found, revision) = AccountAssociation::get(&server, &id, read).await?;
                show::object(&found, revision, output)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Create(create) => create.run(output).await,
            Command::Update(update) => update.run(output).await,
            Command::Delete { group, delete: args } => {
                let (mut write, server) = args.write.open().await?;
                let id = id_to_write::<Group>(&server, &group, &mut write).await?;
                delete_id::<AccountAssociation>(&server, id, (&args, &write), output).await
            }
        }
    }
}

impl AccountArgs {
    /// The accounts and services as an association.
    ///
    /// # Errors
    ///
    /// An argument that is not `KEY=VALUE`, or a key given twice; or no identity has the name.
    async fn association(
        self,
        server: &Connection,
        write: &mut Write,
    ) -> anyhow::Result<AccountAssociation> {
        let mut installations = HashMap::new();
        for (login, number) in pairs("--github", "LOGIN=NUMBER", &self.github)? {
            let what = || format!("--github {login}: expected the number of an installation");
            installations.insert(login.clone(), number.parse().with_context(what)?);
        }
        let mut services = HashMap::new();
        for (name, identity) in pairs("--service", "SERVICE=IDENTITY", &self.service)? {
            services.insert(name, id_to_write::<Identity>(server, &identity, write).await?);
        }
        let project_number = self.google_number.unwrap_or_default();
        let client_ids = self.azure_client;
        Ok(AccountAssociation {
            aws: self.aws.map(|account| Aws { account }),
            google: self.google.map(|project_id| Google { project_id, project_number }),
            azure: self.azure.map(|tenant_id| Azure { tenant_id, client_ids }),
            github: (!installations.is_empty()).then_some(Github { installations }),
            services,
            ..AccountAssociation::default()
        })
    }
}

/// Arguments of the form `KEY=VALUE`, each key once.
fn pairs(option: &str, form: &str, all: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let mut found: Vec<(String, String)> = Vec::new();
    for argument in all {
        let (key, value) = argument.split_once('=').unwrap_or_default();
        ensure!(
            !key.is_empty() && !value.is_empty(),
            "{option} {}: expected {form}",
            quote(argument)
        );
        let is_again = found.iter().any(|(known, _)| known == key);
        ensure!(!is_again, "{option}: {} is given twice", quote(key));
        found.push((key.to_owned(), value.to_owned()));
    }
    Ok(found)
}

impl Create {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let (mut write, server) = self.write.open().await?;
        let parent = id_to_write::<Group>(&server, &self.group, &mut write).await?;
        let association = self.accounts.association(&server, &mut write).await?;
        let (name, description) = self.text.values();
        let association = AccountAssociation { name, description, ..association };
        create(&server, parent, association, &write, output).await
    }
}

impl Update {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let accounts = &self.accounts;
        let mut paths = self.text.mask();
        for (path, is_given) in [
            ("aws", accounts.aws.is_some() || self.no_aws),
            ("google", accounts.google.is_some() || self.no_google),
            ("azure", accounts.azure.is_some() || self.no_azure),
            ("github", !accounts.github.is_empty() || self.no_github),
            ("services", !accounts.service.is_empty() || self.no_services),
        ] {
            if is_given {
                paths.push(path.into());
            }
        }
        ensure!(
            !paths.is_empty(),
            "nothing to change: give --aws, --google, --azure, --github, --service, --name, --description, or --no-… of what \
             there shall be none"
        );
        let (mut write, server) = self.change.write.open().await?;
        let id = id_to_write::<Group>(&server, &self.group, &mut write).await?;
        let association = self.accounts.association(&server, &mut write).await?;
        let (name, description) = self.text.values();
        let etag = self.change.etag.unwrap_or_default();
        let association = AccountAssociation { id, name, description, etag, ..association };
        update(&server, (association, paths), "updated", &write, output).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_have_a_key_and_a_value_once() {
        let read = |all: &[&str]| {
            let all: Vec<_> = all.iter().map(|one| (*one).to_owned()).collect();
            pairs("--service", "SERVICE=IDENTITY", &all).map_err(|error| error.to_string())
        };
        let one = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(read(&["a=b", "c=d=e"]), Ok(vec![one("a", "b"), one("c", "d=e")]));
        for bad in ["a", "=b", "a=", ""] {
            let error = read(&[bad]).unwrap_err();
            assert!(error.ends_with("expected SERVICE=IDENTITY"), "{error}");
        }
        assert_eq!(read(&["a=b", "a=c"]).unwrap_err(), "--service: `a` is given twice");
    }
}
