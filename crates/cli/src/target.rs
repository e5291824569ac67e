//! Who answers a command's questions: a policy file in this process, or a server.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use capstan_engine::Snapshot;
use capstan_policy::DOCUMENT_BYTES_MAX;
use capstan_proto::v1::{
    self, decision_service_client::DecisionServiceClient, role_service_client::RoleServiceClient,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use capstan_server::ask::{Ask, Basis};
use capstan_server::clock::Clock;
use capstan_server::feed::source::{Source, load_catalogs};
use capstan_server::grpc::answer;
use capstan_server::grpc::page::PageKey;
use capstan_server::limits::{CALL_TIMEOUT, CONNECT_TIMEOUT, MESSAGE_BYTES_MAX};
use capstan_server::methods::Rpc;

/// What a page of a list is asked for: the most that one holds, whatever that is.
const PAGE_SIZE: i32 = i32::MAX;

/// What a page of roles is asked for: a role of a wide catalog is long, and a page must fit a message.
const ROLES_PAGE_SIZE: i32 = 100;

/// Where the answers come from.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// Answer from this policy document, in this process
    #[arg(long, value_name = "FILE", conflicts_with = "addr")]
    pub(crate) policy: Option<PathBuf>,

    /// Ask the server at this address: http://HOST:PORT or unix:PATH
    /// [default: $CAPSTAN_ADDR, or http://127.0.0.1:4480]
    #[arg(long, value_name = "URL")]
    pub(crate) addr: Option<String>,

    /// Catalogs that the policy document can name, beside the built-in ones
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) catalog: Vec<String>,

    /// Most bytes that are read of the policy document
    #[arg(long, value_name = "BYTES", default_value_t = DOCUMENT_BYTES_MAX, hide = true)]
    pub(crate) max_document_bytes: u64,
}

/// Answers questions.
#[derive(Clone, Debug)]
pub(crate) enum Decider {
    InProcess(Snapshot),
    Server(Channel),
}

const KEY: PageKey = PageKey::new([0; 32]);

fn basis(snapshot: &Snapshot) -> Basis<'_> {
    Basis::new(Rpc::OTHER, snapshot, Clock::System.now())
}

impl Target {
    pub(crate) async fn decider(&self) -> anyhow::Result<Decider> {
        match &self.policy {
            Some(path) => {
                let source =
                    Source::File { path: path.clone(), bytes_max: self.max_document_bytes };
                let catalogs = load_catalogs(&self.catalog)?;
                let built = source.build(&catalogs, 1, Clock::System.now())?;
                Ok(Decider::InProcess(built.snapshot))
            }
            None => {
                let named = self.addr.clone().or_else(|| std::env::var("CAPSTAN_ADDR").ok());
                connect(named.as_deref().unwrap_or("http://127.0.0.1:4480")).await
            }
        }
    }
}

async fn connect(address: &str) -> anyhow::Result<Decider> {
    let unreachable = || format!("cannot reach {address} (start a server: capstan serve --demo)");
    let prepare =
        |endpoint: Endpoint| endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT);
    let channel = match address.strip_prefix("unix:") {
        Some(path) => {
            let path = PathBuf::from(path);
            let connector = tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            });
            // The name is never looked up: the connector knows where to go.
            prepare(Endpoint::from_static("http://localhost"))
                .connect_with_connector(connector)
                .await
                .with_context(unreachable)?
        }
        None => {
            let url =
                if address.contains("://") { address.into() } else { format!("http://{address}") };
            let endpoint = Endpoint::from_shared(url).with_context(|| {
                format!("`{address}` is no address: http://HOST:PORT or unix:PATH")
            })?;
            prepare(endpoint).tcp_nodelay(true).connect().await.with_context(unreachable)?
        }
    };
    Ok(Decider::Server(channel))
}

impl Decider {
    pub(crate) async fn check(
        &self,
        request: v1::CheckRequest,
    ) -> anyhow::Result<v1::CheckResponse> {
        match self {
            Self::InProcess(snapshot) => {
                Ok(answer::check(&Ask::silent(), basis(snapshot), &request)?)
            }
            Self::Server(channel) => unwrap(decisions(channel).check(request).await),
        }
    }

    pub(crate) async fn batch_check(
        &self,
        request: v1::BatchCheckRequest,
    ) -> anyhow::Result<v1::BatchCheckResponse> {
        match self {
            Self::InProcess(snapshot) => {
                Ok(answer::batch_check(&Ask::silent(), basis(snapshot), &request)?)
            }
            Self::Server(channel) => unwrap(decisions(channel).batch_check(request).await),
        }
    }

    pub(crate) async fn list_capabilities(
        &self,
        request: v1::ListCapabilitiesRequest,
    ) -> anyhow::Result<v1::ListCapabilitiesResponse> {
        match self {
            Self::InProcess(snapshot) => {
                Ok(answer::list_capabilities(snapshot, &request, Clock::System.now())?)
            }
            Self::Server(channel) => unwrap(decisions(channel).list_capabilities(request).await),
        }
    }

    pub(crate) async fn explain(
        &self,
        request: v1::ExplainRequest,
    ) -> anyhow::Result<v1::ExplainResponse> {
        match self {
            Self::InProcess(snapshot) => {
                Ok(answer::explain(&Ask::silent(), basis(snapshot), &request)?)
            }
            Self::Server(channel) => unwrap(decisions(channel).explain(request).await),
        }
    }

    /// Everyone: every page.
    pub(crate) async fn list_identities(
        &self,
        mut request: v1::ListIdentitiesRequest,
    ) -> anyhow::Result<v1::ListIdentitiesResponse> {
        request.page_size = PAGE_SIZE;
        let mut all = v1::ListIdentitiesResponse::default();
        loop {
            let page = match self {
                Self::InProcess(snapshot) => {
                    answer::list_identities(&KEY, snapshot, &request, Clock::System.now())?
                }
                Self::Server(channel) => {
                    unwrap(decisions(channel).list_identities(request.clone()).await)?
                }
            };
            all.identities.extend(page.identities);
            all.revision = page.revision;
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Every scope: every page.
    pub(crate) async fn list_scopes(
        &self,
        mut request: v1::ListScopesRequest,
    ) -> anyhow::Result<v1::ListScopesResponse> {
        request.page_size = PAGE_SIZE;
        let mut all = v1::ListScopesResponse::default();
        loop {
            let page = match self {
                Self::InProcess(snapshot) => {
                    answer::list_scopes(&KEY, snapshot, &request, Clock::System.now())?
                }
                Self::Server(channel) => {
                    unwrap(decisions(channel).list_scopes(request.clone()).await)?
                }
            };
            all.scopes.extend(page.scopes);
            all.revision = page.revision;
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// All roles: every page, of as many as fit a message.
    pub(crate) async fn list_roles(&self) -> anyhow::Result<(String, Vec<v1::Role>)> {
        let mut roles = Vec::new();
        let mut request =
            v1::ListRolesRequest { page_size: ROLES_PAGE_SIZE, page_token: String::new() };
        loop {
            let page = match self {
                Self::InProcess(snapshot) => {
                    answer::list_roles(&KEY, snapshot, &request, Clock::System.now())?
                }
                Self::Server(channel) => {
                    let mut service = RoleServiceClient::new(channel.clone());
                    match service.list_roles(request.clone()).await {
                        Err(status)
                            if status.code() == Code::ResourceExhausted
                                && request.page_size > 1
                                && is_too_large(&status) =>
                        {
                            request.page_size /= 2;
                            continue;
                        }
                        page => unwrap(page)?,
                    }
                }
            };
            roles.extend(page.roles);
            if page.next_page_token.is_empty() {
                return Ok((page.catalog, roles));
            }
            request.page_token = page.next_page_token;
        }
    }
}

fn is_too_large(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| info.reason == "TOO_LARGE")
}

fn decisions(channel: &Channel) -> DecisionServiceClient<Channel> {
    DecisionServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The answer, or the error as people read it: ours say what is wrong, others only their code.
fn unwrap<T>(answer: Result<tonic::Response<T>, tonic::Status>) -> anyhow::Result<T> {
    match answer {
        Ok(response) => Ok(response.into_inner()),
        Err(status) if status.get_details_error_info().is_some() => bail!("{}", status.message()),
        Err(status) => bail!("{:?}: {}", status.code(), status.message()),
    }
}
