//! What a server needs to deliver events, to sign tokens, and to ask issuers: its URL, its keys, and the clients.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use capstan_engine::PathBuf as Path;
use capstan_events::{
    Challenged, Client, ClientOptions, Policy, PublicUrl, Roots, Sink, SinkError, UnixMillis,
};
use capstan_iam::Subscription;

use crate::clock::Clock;
use crate::discovery::{Discovered, discover};
use crate::limits::{CALLER_DISCOVERIES_MAX, DISCOVERIES_MAX};
use crate::places::Places;
use crate::signing::{self, Signing};

/// Where events come from, and how they are delivered.
#[derive(Clone, Debug)]
pub struct Options {
    /// The URL under which the service is known.
    pub public_url: PublicUrl,
    /// The keys that sign.
    pub keys: signing::Options,
    /// Networks that may be connected to beside public addresses.
    pub policy: Policy,
    /// Certificates of authorities to trust beside those of the system.
    pub ca: Option<PathBuf>,
}

/// Delivers events, and proves who sends them. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Webhooks(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    client: Client,
    /// Reads documents. It has connections and lookups of its own: an issuer that does not answer delays no delivery.
    documents: Client,
    discoveries: Places,
    url: PublicUrl,
    signing: Signing,
}

impl Webhooks {
    /// Reads the key and the certificates.
    ///
    /// # Errors
    ///
    /// The key or the certificates cannot be read, or TLS cannot be configured.
    pub(crate) fn open(options: &Options, clock: Clock) -> anyhow::Result<Self> {
        let Options { public_url, keys, policy, ca } = options;
        let signing = Signing::open(public_url, keys, clock)?;
        let roots = Roots::load(ca.as_deref()).context("--webhook-ca")?;
        let new_client =
            || Client::new(public_url, ClientOptions::new(policy.clone(), roots.clone()));
        Ok(Self(Arc::new(Parts {
            client: new_client()?,
            documents: new_client()?,
            discoveries: Places::new(DISCOVERIES_MAX, CALLER_DISCOVERIES_MAX),
            url: public_url.clone(),
            signing,
        })))
    }

    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }

    /// The URL of the service: the source of events, and the issuer of its tokens.
    pub(crate) fn url(&self) -> &str {
        self.0.url.as_str()
    }

    pub(crate) fn signing(&self) -> &Signing {
        &self.0.signing
    }

    /// Asks an issuer for its keys, for a caller; the operator has no path. Nobody is asked while as many issuers are asked as may be.
    pub(crate) async fn discover(&self, caller: Option<Path>, issuer: &str) -> Discovered {
        match self.0.discoveries.take(caller) {
            Some(_place) => discover(&self.0.documents, issuer).await,
            None => {
                Discovered::Unanswered("too many issuers are being asked; save it again".into())
            }
        }
    }

    /// Another client that reads documents, with connections of its own.
    pub(crate) fn documents(&self) -> Client {
        self.0.documents.with_own_connections()
    }

    /// A challenge for the sink of a subscription.
    ///
    /// # Errors
    ///
    /// The sink may not be connected to, or the system has no random numbers.
    pub(crate) fn challenge(&self, of: &Subscription, now: UnixMillis) -> anyhow::Result<String> {
        let sink = self.sink(&of.sink)?;
        Ok(self.0.signing.load().challenges.issue(challenged(of, &sink), now)?)
    }

    /// Whether a challenge was made for the sink of a subscription, and is not too old.
    pub(crate) fn confirms(&self, of: &Subscription, challenge: &str, now: UnixMillis) -> bool {
        let Ok(sink) = self.sink(&of.sink) else { return false };
        self.0.signing.load().challenges.verify(challenge, challenged(of, &sink), now).is_ok()
    }

    /// A sink that may be connected to, as far as its URL says.
    ///
    /// # Errors
    ///
    /// See [`SinkError`].
    pub(crate) fn sink(&self, text: &str) -> Result<Sink, SinkError> {
        Sink::parse(text, self.client().policy())
    }
}

fn challenged<'c>(of: &'c Subscription, sink: &'c Sink) -> Challenged<'c> {
    Challenged { subscription: of.id.as_str(), incarnation: of.meta.created, sink }
}
