//! Who answers a command's questions: a policy file in this process (`--policy`), or a server (`--addr`).
//!
//! ```text
//! command ─▶ Decider ─┬─▶ in_process ─▶ capstan_engine::Snapshot
//!                     └─▶ remote ─────▶ capstan.v1 over gRPC: the only file that knows its messages
//! ```

mod advice;
mod in_process;
mod remote;

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{anyhow, ensure};
use capstan_policy::DOCUMENT_BYTES_MAX;
use capstan_proto::v1::{self, consistency::Mode};

use super::answers::{Capabilities, Decision, Explanation, Identities, RoleList, Scopes};
use super::audit::file;
use super::completion;
use super::iam::connection::ServerArgs;
use super::logins::Refresh;
use super::properties::Properties;
use super::queries::Query;
pub(crate) use advice::Advice;
use advice::is_unknown_capability;
use capstan_server::clock::Clock;
use capstan_server::feed::source::{Source, load_catalogs};
use in_process::InProcess;
use remote::Remote;

/// The options that choose a [`Decider`].
#[derive(Debug, clap::Args)]
pub(crate) struct DeciderArgs {
    /// Answer from this policy document, in this process; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "addr")]
    pub(crate) policy: Option<PathBuf>,

    /// Ask the server at this address: http://HOST:PORT, https://HOST:PORT or unix:PATH
    /// [default: that of --context, $CAPSTAN_ADDR, that of `capstan context use`, or http://127.0.0.1:4480]
    #[arg(long, value_name = "URL")]
    pub(crate) addr: Option<String>,

    /// The identity that asks, which the token must prove: for one below a group [default: that of the context]
    #[arg(long = "as", id = "as_identity", value_name = "IDENTITY", conflicts_with = "policy",
        add = completion::managed::identity())]
    pub(crate) caller: Option<String>,

    /// A file with the token that proves who asks, for a server that names its callers [default: that of the context, or what `capstan
    /// auth login` has kept for the server]
    #[arg(long, value_name = "FILE", conflicts_with = "policy")]
    pub(crate) token_file: Option<PathBuf>,

    /// How new the server's data must be: any; at-least=REVISION, such as the revision of an earlier answer; or full,
    /// with every write that was acknowledged before
    #[arg(long, value_name = "MODE", default_value = "any", conflicts_with = "policy")]
    pub(crate) consistency: Consistency,

    /// Additional catalogs that the policy document can name: a built-in catalog's name or a file;
    /// repeat for several
    #[arg(long, value_name = "NAME|FILE", add = completion::catalog())]
    pub(crate) catalog: Vec<String>,

    /// Maximum size of the policy document, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = DOCUMENT_BYTES_MAX, hide = true)]
    pub(crate) max_document_bytes: u64,
}

/// How new the data of an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    Any,
    AtLeast(u64),
    Full,
}

impl Consistency {
    /// The field of a request; absent for any data.
    pub(crate) fn message(self) -> Option<v1::Consistency> {
        let mode = match self {
            Self::Any => return None,
            Self::AtLeast(revision) => Mode::AtLeast(revision),
            Self::Full => Mode::FullyConsistent(true),
        };
        Some(v1::Consistency { mode: Some(mode) })
    }
}

impl FromStr for Consistency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("at-least=").map(str::parse)) {
            ("any", _) => Ok(Self::Any),
            ("full", _) => Ok(Self::Full),
            (_, Some(Ok(revision))) => Ok(Self::AtLeast(revision)),
            _ => Err("expected any, full, or at-least=REVISION with a whole number".into()),
        }
    }
}

impl DeciderArgs {
    /// Loads the policy document, or connects to the server.
    ///
    /// # Errors
    ///
    /// A document does not load, the address is malformed, or the server cannot be reached.
    pub(crate) async fn decider(&self) -> anyhow::Result<Decider> {
        match &self.policy {
            Some(path) => {
                let source = Source::File { path: file(path), bytes_max: self.max_document_bytes };
                let catalogs = load_catalogs(&self.catalog)?;
                let built = source.build(&catalogs, 1, None, Clock::System.now())?;
                Ok(Decider::InProcess(InProcess(built.snapshot)))
            }
            None => {
                let Self { addr, caller, token_file, .. } = self;
                let server = ServerArgs {
                    addr: addr.clone(),
                    caller: caller.clone(),
                    email: None,
                    token_file: token_file.clone(),
                    refresh: Refresh::Yes,
                };
                Decider::connect(server, self.consistency).await
            }
        }
    }
}

/// The error of `--as` without a token, for decisions.
const NAME_ALONE: &str = "--as says whom a token proves, and a name alone proves nobody: give --token-file, or log in (capstan auth login)";

/// Answers questions. Both variants give the same answers and the same error messages.
#[derive(Clone, Debug)]
pub(crate) enum Decider {
    InProcess(InProcess),
    Remote(Remote),
}

/// Errors of every method: a malformed path, an unknown capability with [`Advice`], or the server's error.
impl Decider {
    /// Connects to a server: this one, or that of [`context::server`](crate::context::server).
    ///
    /// # Errors
    ///
    /// No address of a server, or no server there.
    pub(crate) async fn connect(
        server: ServerArgs,
        consistency: Consistency,
    ) -> anyhow::Result<Self> {
        let is_named = server.caller.is_some();
        let server = server.connect().await?;
        // Nobody may believe that it counts.
        ensure!(!is_named || server.shows_a_token(), NAME_ALONE);
        Ok(Self::Remote(Remote::new(server, consistency)))
    }

    pub(crate) async fn check(&self, query: Query) -> anyhow::Result<Decision> {
        let capability = query.capability.clone();
        let found = match self {
            Self::InProcess(policy) => policy.check(&query),
            Self::Remote(server) => server.check(query).await,
        };
        self.advised(found, &capability).await
    }

    /// The answer to each query, in order: a decision or an error message.
    pub(crate) async fn check_batch(
        &self,
        queries: Vec<Query>,
        advice: &mut Advice,
    ) -> Vec<Result<Decision, String>> {
        let capabilities: Vec<_> = queries.iter().map(|query| query.capability.clone()).collect();
        let mut found = match self {
            Self::InProcess(policy) => policy.check_batch(&queries),
            Self::Remote(server) => server.check_batch(queries).await,
        };
        for (answer, capability) in found.iter_mut().zip(capabilities) {
            if let Err(error) = answer
                && is_unknown_capability(error)
            {
                *error = advice.on(self, error, &capability).await;
            }
        }
        found
    }

    /// The answer, or its error, with advice if the capability is unknown.
    async fn advised<T>(&self, found: anyhow::Result<T>, capability: &str) -> anyhow::Result<T> {
        match found {
            Err(error) if is_unknown_capability(&error.to_string()) => {
                let mut advice = Advice::default();
                Err(anyhow!(advice.on(self, &error.to_string(), capability).await))
            }
            found => found,
        }
    }

    pub(crate) async fn list_capabilities(
        &self,
        identity: &str,
        resource: &str,
        properties: &Properties,
    ) -> anyhow::Result<Capabilities> {
        match self {
            Self::InProcess(policy) => policy.list_capabilities(identity, resource, properties),
            Self::Remote(server) => server.list_capabilities(identity, resource, properties).await,
        }
    }

    pub(crate) async fn explain(&self, query: &Query) -> anyhow::Result<Explanation> {
        let found = match self {
            Self::InProcess(policy) => policy.explain(query),
            Self::Remote(server) => server.explain(query.clone()).await,
        };
        self.advised(found, &query.capability).await
    }

    pub(crate) async fn list_identities(
        &self,
        capability: &str,
        resource: &str,
        properties: &Properties,
    ) -> anyhow::Result<Identities> {
        let found = match self {
            Self::InProcess(policy) => policy.list_identities(capability, resource, properties),
            Self::Remote(server) => server.list_identities(capability, resource, properties).await,
        };
        self.advised(found, capability).await
    }

    pub(crate) async fn list_scopes(
        &self,
        identity: &str,
        capability: &str,
        properties: &Properties,
    ) -> anyhow::Result<Scopes> {
        let found = match self {
            Self::InProcess(policy) => policy.list_scopes(identity, capability, properties),
            Self::Remote(server) => server.list_scopes(identity, capability, properties).await,
        };
        self.advised(found, capability).await
    }

    pub(crate) async fn list_roles(&self) -> anyhow::Result<RoleList> {
        match self {
            Self::InProcess(policy) => Ok(policy.list_roles()),
            Self::Remote(server) => server.list_roles().await,
        }
    }
}
