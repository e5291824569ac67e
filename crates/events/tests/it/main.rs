//! The client against a real HTTPS server in this process, and against receivers in other languages.
//!
//! - `addresses`: which URLs and addresses are refused, also when a name's answers change.
//! - `delivery`: what each answer of a sink means, and what is sent.
//! - `documents`: what is read from others, within which bounds.
//! - `faults`: sinks that hang, never end, or are not who they should be.
//! - `tokens`: tokens and keys, read by code that did not make them.
//! - `receivers`: the sample receivers, with the SDKs of their languages.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "all of this is test code, not only the test functions"
)]

mod addresses;
mod delivery;
mod documents;
mod faults;
mod receivers;
mod tokens;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use capstan_events::{
    Client, ClientOptions, Event, EventFields, Lookup, Outcome, Policy, PublicUrl, Resolve, Roots,
    Signer, SigningKey, Sink, Token, UnixMillis,
};

const ISSUER: &str = "https://iam.example.com";

/// A resolver with one answer after another; the last is repeated.
#[derive(Debug)]
struct Answers {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Answers {
    fn new(answers: Vec<Vec<IpAddr>>) -> Arc<Self> {
        Arc::new(Self { answers, asked: AtomicUsize::new(0) })
    }

    fn loopback() -> Arc<Self> {
        Self::new(vec![vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]])
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Resolve for Answers {
    fn resolve<'a>(&'a self, _: &'a str) -> Lookup<'a> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers[asked.min(self.answers.len() - 1)].clone();
        Box::pin(async move { Ok(answer) })
    }
}

/// A sender whose client may connect to loopback addresses, and trusts this authority.
struct Sender {
    client: Client,
    signer: Signer,
}

impl Sender {
    fn new(authority: &capstan_testkit::https::Authority, resolver: Arc<dyn Resolve>) -> Self {
        Self::with(authority, resolver, Policy::parse(["127.0.0.0/8"]).unwrap(), ISSUER)
    }

    fn with(
        authority: &capstan_testkit::https::Authority,
        resolver: Arc<dyn Resolve>,
        policy: Policy,
        issuer: &str,
    ) -> Self {
        let url = PublicUrl::parse(issuer).unwrap();
        let roots = Roots::from_pem(authority.pem().as_bytes()).unwrap();
        let client = Client::new(&url, ClientOptions { policy, roots, resolver }).unwrap();
        Self { client, signer: Signer::new(url, new_key(), Vec::new()).unwrap() }
    }

    fn sink(&self, url: &str) -> Sink {
        Sink::parse(url, self.client.policy()).unwrap()
    }

    fn sign(&self, sink: &Sink, event: &Event) -> Token {
        self.signer.sign(sink, "acme", event, UnixMillis::now()).unwrap()
    }

    async fn deliver(&self, sink: &Sink, event: &Event) -> Outcome {
        let token = self.sign(sink, event);
        self.client.deliver(sink, event, &token, UnixMillis::now()).await
    }
}

fn new_key() -> SigningKey {
    let folder = tempfile::tempdir().unwrap();
    SigningKey::generate(&folder.path().join("key.pem")).unwrap()
}

fn event(id: &str) -> Event {
    Event::new(EventFields {
        id,
        source: ISSUER,
        kind: "dev.capstan.iam.group.created.v1",
        subject: "acme/platform",
        group: "acme",
        time: UnixMillis(1_796_000_000_000),
        data: r#"{"actor":{"subject":"alice"},"body":{"id":"acme/platform","name":"Plattform für alle"}}"#
            .into(),
    })
    .unwrap()
}
