//! Writes over gRPC to a server in this process.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use capstan_iam::{Identity, Meta, USER};
use capstan_proto::iam::v1 as iam;
use capstan_proto::iam::v1::role_binding_service_client::RoleBindingServiceClient;
use capstan_proto::v1;
use capstan_proto::v1::decision_service_client::DecisionServiceClient;
use capstan_server::clock::Clock;
use capstan_server::feed::journal::{Preloaded, Store, StoredCatalog, first_batch, organization};
use capstan_server::feed::reload;
use capstan_server::limits::{Limits, Quotas};
use capstan_server::server::{Address, Config, Feed, Server};
use capstan_server::webhooks;
use capstan_store::{Head, RedbStore};
use futures_util::future::try_join_all;
use tokio::sync::oneshot;
use tonic::transport::Channel;
use tonic::{Request, metadata::MetadataValue};

use crate::Options;
use crate::raw::{Recording, replay, replay_by_store};

const EPOCH: u16 = 1;
/// Writes that `visible` makes.
const VISIBLE: usize = 300;

/// A store with an organization `acme` and its owner `alice`.
pub(crate) fn init(dir: &Path) -> anyhow::Result<()> {
    let (empty, now) = (Head::empty(EPOCH), Clock::System.now());
    let meta = Meta::new(empty.revision() + 1, now);
    let catalog = StoredCatalog::built_in("chainguard-2025-08-14").context("it is built in")?;
    let owner = Identity {
        id: "alice".parse()?,
        name: String::new(),
        description: String::new(),
        kind: USER.into(),
        properties: Default::default(),
        disabled: false,
        authentication: None,
        meta,
    };
    let objects = organization(&"acme".parse()?, (&owner, "owner"), meta);
    let batch = first_batch(&empty, &catalog, objects, ("init", now));
    Ok(RedbStore::init(dir, EPOCH, &batch, &capstan_store::Limits::default())?)
}

/// A server that runs as long as this is kept.
pub(crate) struct Running {
    recording: Arc<Recording>,
    pub(crate) channels: Vec<Channel>,
    _stop: oneshot::Sender<()>,
}

/// Starts a server on a new store, with this many connections to it.
pub(crate) async fn start(
    dir: &Path,
    connections: usize,
    webhooks: Option<webhooks::Options>,
) -> anyhow::Result<Running> {
    init(dir)?;
    let store = RedbStore::open(dir, capstan_store::Limits::default())?;
    let recording = Arc::new(Recording { store, batches: Default::default() });
    let quotas = Quotas {
        creator_changes: u32::MAX,
        organization_changes: u32::MAX,
        ..capstan_server::limits::QUOTAS
    };
    let journal = Arc::clone(&recording) as Arc<dyn capstan_store::Journal>;
    let feed = Feed::Store(Store::Opened(journal, Preloaded::default()));
    let config = Config {
        trust_caller_header: true,
        webhooks,
        limits: Limits { quotas, ..Limits::default() },
        ..Config::new(feed)
    };
    let server = Server::bind(config).await?;
    let addresses = server.grpc_addresses();
    let Some(Address::Tcp(address)) = addresses.first() else { anyhow::bail!("no address") };
    let uri = format!("http://{address}");
    let (stop, stopped) = oneshot::channel::<()>();
    let (ready, is_ready) = oneshot::channel();
    let stopped = async { drop(stopped.await) };
    let run = server.run(stopped, reload::channel(), || ready.send(()).unwrap_or_default());
    // It ends with this runtime.
    drop(tokio::runtime::Handle::current().spawn(run));
    is_ready.await.context("the server did not start")?;
    let connect = || async {
        Channel::from_shared(uri.clone())?.connect().await.map_err(anyhow::Error::from)
    };
    let channels = try_join_all((0..connections).map(|_| connect())).await?;
    recording.take();
    Ok(Running { recording, channels, _stop: stop })
}

/// The id of a person that nobody else is bound to.
fn person(number: u64) -> String {
    format!("{:040x}", u128::from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

fn bind(number: u64) -> Request<iam::CreateRoleBindingRequest> {
    let binding =
        iam::RoleBinding { identity: person(number), role: "viewer".into(), ..Default::default() };
    let mut request = Request::new(iam::CreateRoleBindingRequest {
        parent: "acme".into(),
        role_binding: Some(binding),
        request_id: format!("request-{number}"),
        validate_only: false,
    });
    request.metadata_mut().insert("x-capstan-caller", MetadataValue::from_static("alice"));
    request
}

pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// From a write that is sent to the first answer that follows it. A second connection asks all the time.
pub(crate) fn visible(options: &Options) -> anyhow::Result<String> {
    let mut times = runtime()?.block_on(async {
        let running = start(&options.folder.join("visible"), 2, None).await?;
        let [writer, asker] = &running.channels[..] else { anyhow::bail!("two connections") };
        let mut bindings = RoleBindingServiceClient::new(writer.clone());
        let mut times = vec![];
        for number in 0..VISIBLE as u64 {
            let mut decisions = DecisionServiceClient::new(asker.clone());
            let began = Instant::now();
            let asked = async move {
                let check = v1::CheckRequest {
                    identity: person(number),
                    capability: "repo.list".into(),
                    resource: "acme/x".into(),
                    ..Default::default()
                };
                while !decisions.check(check.clone()).await?.into_inner().allowed {
                    ensure!(
                        began.elapsed() < Duration::from_secs(10),
                        "the answer does not change"
                    );
                }
                anyhow::Ok(began.elapsed())
            };
            let written = async { Ok(bindings.create_role_binding(bind(number)).await?) };
            let (_, seen) = tokio::try_join!(written, asked)?;
            times.push(seen);
        }
        anyhow::Ok(times)
    })?;
    times.sort_unstable();
    let at = |share: usize| {
        let time = times.get(times.len() * share / 100).copied();
        milliseconds(time.unwrap_or_default())
    };
    Ok(format!(
        "visible: {VISIBLE} writes by one writer, from the write to the first answer that follows it: median {:.2} ms, 90 % \
         {:.2} ms, 99 % {:.2} ms",
        at(50),
        at(90),
        at(99)
    ))
}

/// Writes a second over gRPC, against the same commits by a store without a server, and by redb alone.
pub(crate) fn rates(options: &Options, writers: u64) -> anyhow::Result<String> {
    let dir = options.folder.join(format!("writes-{writers}"));
    let time = options.time;
    let (made, took, batches) = runtime()?.block_on(async {
        let connections = usize::try_from(writers.min(8))?;
        let running = start(&dir, connections, None).await?;
        let began = Instant::now();
        let writer = |(writer, channel): (u64, &Channel)| {
            let mut bindings = RoleBindingServiceClient::new(channel.clone());
            async move {
                let mut made = 0_u64;
                while began.elapsed() < time {
                    bindings.create_role_binding(bind(writer + made * writers)).await?;
                    made += 1;
                }
                anyhow::Ok(made)
            }
        };
        let made: u64 = try_join_all((0..writers).zip(running.channels.iter().cycle()).map(writer))
            .await?
            .into_iter()
            .sum();
        anyhow::Ok((made, began.elapsed(), running.recording.take()))
    })?;
    let raw = replay(&options.folder.join(format!("raw-{writers}.redb")), &batches)?;
    let again = options.folder.join(format!("again-{writers}"));
    init(&again)?;
    let store = RedbStore::open(&again, capstan_store::Limits::default())?;
    let stored = runtime()?.block_on(replay_by_store(&store, &batches))?;
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no 16 digits")]
    let rate = |time: Duration| made as f64 / time.as_secs_f64();
    Ok(format!(
        "writes: {writers} writers made {:.0} writes a second over gRPC in {} commits; the same commits by a store without a \
         server {:.0}, by redb alone {:.0}; ratios to redb {:.2} and {:.2}",
        rate(took),
        batches.len(),
        rate(stored),
        rate(raw),
        rate(took) / rate(raw),
        rate(stored) / rate(raw)
    ))
}

/// Makes changes for a while, by so many writers, each with numbers of its own. Returns how many a second.
pub(crate) async fn make(
    running: &Running,
    writers: u64,
    time: Duration,
    change: impl AsyncFn(&Channel, u64) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let began = Instant::now();
    let writer = async |writer: u64, channel: &Channel| {
        let mut made = 0_u64;
        while began.elapsed() < time {
            change(channel, writer + made * writers).await?;
            made += 1;
        }
        anyhow::Ok(made)
    };
    let writers = (0..writers).zip(running.channels.iter().cycle());
    let made = try_join_all(writers.map(|(number, channel)| writer(number, channel))).await?;
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no 16 digits")]
    Ok(made.into_iter().sum::<u64>() as f64 / began.elapsed().as_secs_f64())
}
