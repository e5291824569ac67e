//! The services of one worker, and the layers in front of them.
//!
//! ```text
//! transport ─▶ fast check, for plain checks
//!          └─▶ admission ─▶ raw batches, management services, Envoy's, health, reflection
//! ```

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use capstan_http2::Head;
use capstan_policy::Asks;
use capstan_proto::iam::v1::account_association_service_server::AccountAssociationServiceServer;
use capstan_proto::iam::v1::audit_service_server::AuditServiceServer;
use capstan_proto::iam::v1::auth_service_server::AuthServiceServer;
use capstan_proto::iam::v1::group_invite_service_server::GroupInviteServiceServer;
use capstan_proto::iam::v1::group_role_mapping_service_server::GroupRoleMappingServiceServer;
use capstan_proto::iam::v1::group_service_server::GroupServiceServer;
use capstan_proto::iam::v1::identity_provider_service_server::IdentityProviderServiceServer;
use capstan_proto::iam::v1::identity_service_server::IdentityServiceServer;
use capstan_proto::iam::v1::policy_service_server::PolicyServiceServer;
use capstan_proto::iam::v1::pull_token_service_server::PullTokenServiceServer;
use capstan_proto::iam::v1::resource_service_server::ResourceServiceServer;
use capstan_proto::iam::v1::role_binding_service_server::RoleBindingServiceServer;
use capstan_proto::iam::v1::role_service_server::RoleServiceServer;
use capstan_proto::iam::v1::subscription_service_server::SubscriptionServiceServer;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{Extensions, HeaderMap, Request, Response};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Code, Status};

use super::config::{Config, Feed};
use crate::RequestError;
use crate::admission::{
    Admission, AllPermits, Encoding, ErrorResponder, Gate, ResponseBody, ResponseFuture, is_grpc,
    takes_gzip,
};
use crate::ask::Ask;
use crate::askers::{Askers, AskersFile, Asking, Entry, Named, ProvedHead, Rule};
use crate::authn::caller::Authentication;
use crate::authn::issuers::Issuers;
use crate::callers::{Callers, Trust, TrustFiles};
use crate::clock::Clock;
use crate::envoy;
use crate::envoy::ext_authz::{AuthorizationService, ExtAuthz};
use crate::envoy::routes::{RoutesFile, Table};
use crate::events::Dispatcher;
use crate::feed::file::{self, PolicyFile};
use crate::feed::journal::documents::StoreDocuments;
use crate::feed::journal::writer::{Queue, Writes};
use crate::feed::journal::{self, StoreFeed};
use crate::feed::management::{Documents as PolicyDocuments, Management};
use crate::feed::published::{Published, Retention};
use crate::feed::reload::{Document, Documents};
use crate::grpc::decision::Services;
use crate::grpc::fast_check::FastCheck;
use crate::grpc::iam::authenticated::{Authenticated, Readers};
use crate::grpc::iam::service::Iam;
use crate::grpc::iam::shown::Shown;
use crate::grpc::page::PageKey;
use crate::grpc::raw_batches::RawBatches;
use crate::http::{AuthZen, Tokens};
use crate::limits::{CALLER_WATCHES_MAX, Limits, WATCHES_MAX};
use crate::methods::{Probe, Rpc};
use crate::places::Places;
use crate::signing::KeyRing;
use crate::telemetry::decision_log::DecisionLog;
use crate::telemetry::metrics::{AuthorizationOutcome, Metrics, WorkerMetrics};
use crate::telemetry::traces::Traces;
use crate::transport::connection::Remote;
use crate::transport::http2::{Calls, Intake, Kind};
use crate::transport::listen::Serves;
use crate::transport::tls::ClientCertificate;
use crate::transport::workers::Runtime;
use crate::turns::Turns;
use crate::webhooks::Webhooks;

/// The state that the services of all workers share.
pub(super) struct Shared {
    published: Arc<Published>,
    table: Arc<ArcSwap<Table>>,
    metrics: Arc<Metrics>,
    log: Option<DecisionLog>,
    traces: Option<Traces>,
    page_key: PageKey,
    shown: Arc<Shown>,
    watches: Places,
    webhooks: Option<Webhooks>,
    permits: AllPermits,
    /// The writer of a store; `None` with a policy file.
    management: Option<Arc<dyn Management>>,
    /// Finds out who calls.
    callers: Callers,
    trust: Trust,
    /// Knows who may ask, and the document of callers that says it.
    askers: Askers,
    named: Option<Arc<ArcSwap<Named>>>,
    /// The policy of a store as documents.
    policy_documents: Option<Arc<dyn PolicyDocuments>>,
    /// Whether changes can be made.
    writable: watch::Sender<bool>,
    /// Ends streams when the drain begins.
    draining: CancellationToken,
}

impl Shared {
    pub(super) fn new(
        config: &Config,
        (metrics, log, traces): (&Arc<Metrics>, Option<DecisionLog>, Option<Traces>),
        (page_key, webhooks, trust): (PageKey, Option<Webhooks>, Trust),
        writes: Writes,
        draining: &CancellationToken,
    ) -> Self {
        let published = Arc::new(Published::new(Retention::from(&config.limits)));
        let documents: Arc<dyn PolicyDocuments> = Arc::new(StoreDocuments::new(
            writes.clone(),
            Arc::clone(&published),
            config.clock,
            config.catalogs.clone(),
        ));
        let management: Arc<dyn Management> = Arc::new(writes);
        let is_store = matches!(config.feed, Feed::Store(_));
        let webhooks = webhooks.filter(|_| is_store);
        let management = is_store.then_some(management);
        let issuers = webhooks.as_ref().map(|it| Issuers::new(it.documents(), Arc::clone(metrics)));
        let store = (&published, management.as_ref());
        let signing = webhooks.as_ref().map(|webhooks| webhooks.signing().clone());
        let of_tokens = (issuers, signing);
        let callers = Callers::new(store, of_tokens, trust.clone(), config.clock, metrics);
        let named =
            config.callers.as_ref().map(|_| Arc::new(ArcSwap::from_pointee(Named::default())));
        let rule = match &named {
            Some(named) => Rule::Named(Arc::clone(named)),
            None if config.insecure_open_decisions => Rule::Open,
            None => Rule::Proved,
        };
        let (of, to) = (Arc::clone(&published), Arc::clone(metrics));
        Self {
            askers: Askers::new(rule, callers.clone(), of, to),
            named,
            trust,
            callers,
            published,
            table: Arc::new(ArcSwap::from_pointee(Table::default())),
            metrics: Arc::clone(metrics),
            log,
            traces,
            page_key,
            shown: Arc::default(),
            webhooks,
            watches: Places::new(WATCHES_MAX, CALLER_WATCHES_MAX),
            permits: AllPermits::new(&config.limits),
            management,
            policy_documents: is_store.then_some(documents),
            writable: watch::Sender::new(false),
            draining: draining.clone(),
        }
    }

    /// What makes access tokens; `None` if nothing is signed.
    pub(super) fn tokens(&self) -> Option<Tokens> {
        let signing = self.webhooks.as_ref().map(|webhooks| webhooks.signing().clone())?;
        let metrics = WorkerMetrics::new(&self.metrics);
        Some(Tokens::new(self.callers.clone(), signing, metrics))
    }

    /// Begins to deliver events, until the drain begins.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub(super) fn deliver_events(&self, clock: Clock) -> anyhow::Result<()> {
        let (Some(webhooks), Some(management)) = (&self.webhooks, &self.management) else {
            return Ok(());
        };
        let served = (Arc::clone(&self.published), Arc::clone(&self.metrics));
        let (management, webhooks) = (Arc::clone(management), webhooks.clone());
        Dispatcher::new(served, management, webhooks, clock, self.draining.clone()).start()
    }

    /// Whether changes can be made; `None` with a policy file.
    pub(super) fn writable(&self) -> Option<watch::Receiver<bool>> {
        self.management.as_ref().map(|_| self.writable.subscribe())
    }

    /// The documents that feed the services. The routes load first, because no request of Envoy may
    /// be decided without them.
    pub(super) fn documents(&self, config: &Config, queue: Queue) -> Documents {
        let shared = || (Arc::clone(&self.published), Arc::clone(&self.metrics));
        let (path, table) = (config.routes.clone(), Arc::clone(&self.table));
        let (published, metrics) = shared();
        let routes = RoutesFile::new(path, table, published, metrics);
        let (clock, give_back) = (config.clock, config.give_back);
        let policy: Box<dyn Document> = match (&config.feed, queue) {
            (Feed::Document(source), _) => {
                let (source, catalogs) = (source.clone(), config.catalogs.clone());
                let feed = file::Config { source, catalogs, clock, give_back };
                let (published, metrics) = shared();
                Box::new(PolicyFile::new(feed, published, metrics))
            }
            (Feed::Store(store), queue) => {
                // Of tokens that this server signs itself.
                let own = config.webhooks.iter().map(|it| it.public_url.as_str().to_owned());
                let trusted = config.tokens.trusted.iter().map(|trusted| trusted.issuer.clone());
                let feed = journal::Config {
                    clock,
                    limits: config.limits,
                    reserved_issuers: own.collect(),
                    trusted_issuers: trusted.collect(),
                    give_back,
                };
                let writable = self.writable.clone();
                Box::new(StoreFeed::new(feed, shared(), writable, store.clone(), queue))
            }
        };
        let mut documents: Documents = vec![Box::new(routes)];
        if let (Some(path), Some(named)) = (&config.callers, &self.named) {
            let (named, metrics) = (Arc::clone(named), Arc::clone(&self.metrics));
            let tls = config.tls.as_ref();
            let takes_certificates = tls.is_some_and(|tls| tls.client_authorities.is_some());
            let file = (path.clone(), takes_certificates);
            documents.push(Box::new(AskersFile::new(file, named, metrics)));
        }
        if let Some(files) = TrustFiles::new(&config.tokens, &self.trust, &self.metrics) {
            documents.push(Box::new(files));
        }
        if let (Some(webhooks), Some(options)) = (&self.webhooks, &config.webhooks) {
            let (url, keys) = (options.public_url.clone(), options.keys.clone());
            let signing = webhooks.signing().clone();
            documents.push(Box::new(KeyRing::new(url, keys, config.clock, signing)));
        }
        documents.push(policy);
        documents
    }

    /// What the endpoints of AuthZEN share.
    pub(super) fn authzen(&self, config: &Config) -> AuthZen {
        let metrics = WorkerMetrics::new(&self.metrics);
        AuthZen {
            published: Arc::clone(&self.published),
            ask: Ask::new(metrics.clone(), self.log.clone()),
            askers: self.askers.clone(),
            clock: config.clock,
            page_key: self.page_key.clone(),
            limits: config.limits,
            permits: self.permits.clone(),
            metrics,
            computing: Turns::new(config.limits.computing_max, Arc::clone(&self.metrics)),
        }
    }

    /// The calls of one worker. Reference counts that every call changes belong to the worker, so that
    /// cores share no such counter.
    ///
    /// # Errors
    ///
    /// The descriptors for reflection are invalid.
    pub(super) fn calls<H>(&self, config: &Config, health: H) -> anyhow::Result<WorkerCalls>
    where
        H: tower::Service<Request<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        H::Response: axum::response::IntoResponse,
        H::Future: Send + 'static,
    {
        let limits = config.limits;
        let most = limits.message_bytes_max;
        let metrics = WorkerMetrics::new(&self.metrics);
        let ask = Ask::new(metrics.clone(), self.log.clone());
        let askers = self.askers.of_worker();
        let computing = match config.runtime {
            Runtime::PerCore(_) => limits.computing_max.min(1),
            Runtime::Callers => limits.computing_max,
        };
        let computing = computing.min(Semaphore::MAX_PERMITS);
        let services = Arc::new(Services {
            published: Arc::clone(&self.published),
            ask: ask.clone(),
            traced: self.traces.is_some(),
            clock: config.clock,
            page_key: self.page_key.clone(),
            draining: self.draining.clone(),
            computing: Turns::new(computing, Arc::clone(&self.metrics)),
        });
        let iam = Arc::new(Iam {
            published: Arc::clone(&self.published),
            management: self.management.clone(),
            callers: self.callers.clone(),
            documents: self.policy_documents.clone(),
            open_reads: config.open_reads,
            document_bytes_max: config.document_bytes_max,
            clock: config.clock,
            page_key: self.page_key.clone(),
            shown: Arc::clone(&self.shown),
            message_bytes_max: most,
            watches: self.watches.clone(),
            webhooks: self.webhooks.clone(),
            draining: self.draining.clone(),
            reads: Arc::new(Semaphore::new(computing)),
        });
        let fast = Arc::new(FastCheck {
            published: Arc::clone(&self.published),
            ask: ask.clone(),
            askers: askers.clone(),
            clock: config.clock,
            message_bytes_max: most,
        });
        let ext_authz = ExtAuthz {
            published: Arc::clone(&self.published),
            table: Arc::clone(&self.table),
            ask,
            metrics: Arc::clone(&self.metrics),
            management: self.management.clone(),
            callers: self.callers.clone(),
            clock: config.clock,
        };
        let error_response =
            |rpc, error: &_| (rpc == Rpc::EXT_AUTHZ).then(|| envoy::answer::error_response(error));
        let mut routes = Routes::new(health)
            .add_service(RawBatches::new(services, most))
            .add_service(AuthorizationService::new(ext_authz, most));
        let readers = match self.management {
            None => Readers::OfFile(self.askers.clone()),
            Some(_) if config.open_reads => Readers::Open(self.askers.clone()),
            Some(_) => Readers::Known,
        };
        let authentication = Authentication { trust_caller_header: config.trust_caller_header };
        macro_rules! manage {
            ($($server:ident),*) => { $({
                let server = $server::from_arc(Arc::clone(&iam))
                    .max_decoding_message_size(most)
                    .max_encoding_message_size(most);
                let identified = (self.callers.clone(), readers.clone());
                routes = routes.add_service(Authenticated::new(server, authentication, identified));
            })* };
        }
        manage!(
            GroupServiceServer,
            RoleServiceServer,
            RoleBindingServiceServer,
            IdentityServiceServer
        );
        manage!(
            PullTokenServiceServer,
            GroupInviteServiceServer,
            SubscriptionServiceServer,
            ResourceServiceServer,
            PolicyServiceServer,
            AuditServiceServer,
            AuthServiceServer
        );
        manage!(
            IdentityProviderServiceServer,
            GroupRoleMappingServiceServer,
            AccountAssociationServiceServer
        );
        if config.reflection {
            let schema = || {
                tonic_reflection::server::Builder::configure()
                    .register_encoded_file_descriptor_set(capstan_proto::DESCRIPTOR_SET)
                    .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            };
            // Clients use either version of reflection.
            routes =
                routes.add_service(schema().build_v1()?).add_service(schema().build_v1alpha()?);
        }
        let telemetry = (metrics, self.traces.clone());
        let routes = routes.prepare();
        let answers = (error_response as ErrorResponder, gate(askers, Arc::clone(&self.metrics)));
        let admission = Admission::new(routes, limits, &self.permits, telemetry, answers);
        let (entry, proved) = (Entry::new(None, None), ProvedHead::default());
        let serves = Serves::Everything;
        Ok(WorkerCalls { fast, admission, limits, entry, proved, serves })
    }
}

/// What the address of a call does not serve.
const NO_DECISIONS: &str =
    "decisions: they are at another address (--listen), this one is for management";
const NO_MANAGEMENT: &str =
    "management: it is at another address (--listen-management), this one is for decisions";

/// Refuses what the address of a call does not serve, and whoever may not ask for decisions, by the head of a call. To all others' calls it
/// adds the [`Asker`](crate::askers::Asker).
fn gate(askers: Askers, metrics: Arc<Metrics>) -> Gate {
    Arc::new(move |rpc, request| {
        let serves = request.extensions().get().copied().unwrap_or(Serves::Everything);
        let elsewhere = |what| {
            let error = RequestError::Unimplemented(what);
            Some((Code::Unimplemented, Status::from(error).into_http()))
        };
        if rpc.manages() {
            return if serves == Serves::Decisions { elsewhere(NO_MANAGEMENT) } else { None };
        }
        let asks = rpc.asks()?;
        if serves == Serves::Management && asks != Asks::Authorize {
            return elsewhere(NO_DECISIONS);
        }
        if serves == Serves::Management {
            return Some(denial(&metrics));
        }
        let asker = askers.asker(request.extensions(), request.headers());
        if let Err(error) = asker.let_in() {
            return Some(match asks {
                Asks::Authorize => denial(&metrics),
                _ => (Code::Unauthenticated, Status::from(error).into_http()),
            });
        }
        request.extensions_mut().insert(asker);
        None
    })
}

/// What Envoy is told instead of an error, which could let a request pass.
fn denial(metrics: &Metrics) -> (Code, Response<Body>) {
    metrics.authorized(AuthorizationOutcome::Denied);
    (Code::Ok, envoy::answer::not_a_caller_response())
}

/// The calls of one worker: plain checks first, all others by the routes behind admission.
#[derive(Clone, Debug)]
pub(super) struct WorkerCalls {
    fast: Arc<FastCheck>,
    admission: Admission<Routes>,
    limits: Limits,
    /// Of the connection.
    entry: Entry,
    proved: ProvedHead,
    serves: Serves,
}

impl Calls for WorkerCalls {
    type Body = ResponseBody;
    type Future = ResponseFuture<<Routes as tower::Service<Request<Body>>>::Future>;

    fn only(&mut self, serves: Serves) {
        self.serves = serves;
    }

    fn connected(&mut self, remote: Remote, certificate: Option<&ClientCertificate>) {
        self.entry = Entry::new(Some(remote), certificate.cloned());
    }

    fn intake(&self, head: &Parts) -> Intake {
        let path = head.uri.path();
        let rpc = Rpc::from_path(path);
        let inflates = Encoding::of(&head.headers) == Encoding::Gzip;
        if let Some(probe) = (rpc == Rpc::OTHER).then(|| Probe::of(path)).flatten() {
            let kind = if probe == Probe::Unary { Kind::Unary } else { Kind::Stream };
            let message_bytes_max = probe.request_bytes_max();
            let (decodes_in_turn, deflates) = (false, false);
            return Intake { kind, message_bytes_max, decodes_in_turn, inflates, deflates };
        }
        let message_bytes_max = rpc.request_bytes_max(&self.limits);
        let kind = if !is_grpc(&head.headers) {
            Kind::Unary // Its answer is an error.
        } else if self.serves != Serves::Management
            && self.fast.takes(rpc, head)
            && Admission::<Routes>::may_be_plain(head)
        {
            Kind::Plain
        } else if rpc.streams() {
            Kind::Stream
        } else {
            Kind::Unary
        };
        // Batches borrow their names, or are decoded in pieces.
        let decodes_in_turn = ![Rpc::BATCH_CHECK, Rpc::STREAM_CHECK].contains(&rpc);
        let answers_are_short = [Rpc::CHECK, Rpc::EXT_AUTHZ, Rpc::OTHER].contains(&rpc);
        let deflates = !answers_are_short && is_grpc(&head.headers) && takes_gzip(&head.headers);
        Intake { kind, message_bytes_max, decodes_in_turn, inflates, deflates }
    }

    fn is_sampled(&self, head: &Parts, extensions: &mut Extensions) -> bool {
        self.admission.is_sampled(head, extensions)
    }

    fn answer(&self, head: &Arc<Head>, body: &[u8], to: &mut Vec<u8>) -> bool {
        let asking = Asking { entry: &self.entry, head, proved: &self.proved };
        // After a panic the call takes the usual way, where the panic is counted and logged.
        let answered = catch_unwind(AssertUnwindSafe(|| self.fast.answer(asking, body, to)));
        matches!(answered, Ok(Some(())))
    }

    fn answered(&self, calls: u64, took: Duration) {
        self.admission.answered(Rpc::CHECK, calls, took);
    }

    fn shed(&self, head: &Arc<Head>, extensions: &mut Extensions) -> Option<&HeaderMap> {
        if self.serves == Serves::Management {
            return None;
        }
        // Strangers are told that they are, and not how busy the server is.
        let is_let_in =
            || self.fast.lets_in(Asking { entry: &self.entry, head, proved: &self.proved });
        self.admission.shed(&head.parts, (self.entry.remote(), is_let_in), extensions)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.extensions_mut().insert(self.serves);
        self.admission.call(request)
    }
}
