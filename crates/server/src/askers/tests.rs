//! Where a call comes from, and what may be asked from there. The addresses are of other machines, which no test can call from.

use capstan_engine::Snapshot;
use capstan_policy::{Catalogs, load_callers, load_policy};
use sha2::{Digest as _, Sha256};
use tonic::codegen::http::{HeaderValue, Request};

use super::*;
use crate::callers::Trust;
use crate::clock::Clock;
use crate::feed::published::{Current, Retention};
use crate::limits::{GUESS_EVERY, GUESSES_AT_ONCE_MAX, Limits};

const DOCUMENT: &str = "\
version: 1
callers:
  - {name: ci, spiffe_id: spiffe://example.com/ci, subtree: acme, methods: [check, explain]}
  - {name: web, dns_name: web.example.com, subtree: acme/web, methods: [check]}
  - {name: shop, dns_name: shop.example.com, subtree: acme/shop, methods: [check]}
";

fn askers(rule: Rule) -> Askers {
    let published = Arc::new(Published::new(Retention::from(&Limits::default())));
    let metrics = Arc::default();
    let store = (&published, None);
    let callers = Callers::new(store, (None, None), Trust::default(), Clock::System, &metrics);
    Askers::new(rule, callers, published, metrics)
}

fn named(more: &str) -> Rule {
    let document = DOCUMENT.replace("version: 1\n", &format!("version: 1\n{more}"));
    let all = load_callers(document.as_bytes()).unwrap();
    Rule::Named(Arc::new(ArcSwap::from_pointee(all.into())))
}

fn elsewhere() -> Remote {
    Remote::Ip("192.0.2.1:1".parse().unwrap())
}

fn here() -> Remote {
    // As a listener of IPv6 sees a client of IPv4.
    Remote::Ip("[::ffff:127.0.0.1]:1".parse().unwrap())
}

const CI: Option<Option<&str>> = Some(Some("spiffe://example.com/ci"));
const OTHER: Option<Option<&str>> = Some(Some("spiffe://example.com/ci/more"));
const UNNAMED: Option<Option<&str>> = Some(None);

/// What a call from there may do: `all`, the subtree that it is held to, or the error.
async fn may(
    askers: &Askers,
    remote: Remote,
    certificate: Option<Option<&str>>,
    authorization: Option<&'static str>,
) -> String {
    may_with(askers, remote, certificate.map(ClientCertificate::named), authorization).await
}

async fn may_with(
    askers: &Askers,
    remote: Remote,
    certificate: Option<ClientCertificate>,
    authorization: Option<&'static str>,
) -> String {
    let entry = Entry::new(Some(remote), certificate.clone());
    let mut headers = HeaderMap::new();
    if let Some(value) = authorization {
        headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
    }
    let mut extensions = Extensions::new();
    extensions.insert(remote);
    certificate.map(|it| extensions.insert(it));
    let within = |within: Option<Path<'_>>| within.map_or("all".into(), |it| it.to_string());
    let mut asker = askers.asker(&extensions, &headers);
    let told = match asker.may(Rpc::CHECK).await {
        Ok(right) => within(right.within()),
        Err(error) => error.to_string(),
    };
    // The fast way says the same, or nothing.
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.headers = headers;
    let asking = Asking {
        entry: &entry,
        head: &Arc::new(Head::from(parts)),
        proved: &ProvedHead::default(),
    };
    let plain = askers.plain(asking, |found| Some(within(found)));
    let is_refused = told.contains(' ');
    assert_eq!(plain, (!is_refused).then(|| told.clone()), "{remote:?} {entry:?}");
    told
}

/// From where, with which certificate and header; and what each of four servers says.
type Case = (Remote, Option<Option<&'static str>>, Option<&'static str>, [&'static str; 4]);

const REFUSED: &str = "the caller is not authenticated";
/// A token is compared with what is served, and nothing is.
const LOOKED_UP: &str = "not ready: the policy is being loaded";

#[tokio::test]
async fn who_may_ask_depends_on_where_and_on_what_is_proved() {
    let operator = Remote::Operator(None);
    let socket = Remote::Process(Some(1));
    let token = Some("Bearer x");
    let (open, proved) = (askers(Rule::Open), askers(Rule::Proved));
    let (named_elsewhere, named_all) = (askers(named("")), askers(named("this_machine: named\n")));
    let cases: &[Case] = &[
        (here(), None, None, ["all", "all", "all", REFUSED]),
        (here(), None, token, ["all", "all", "all", LOOKED_UP]),
        (socket, None, None, ["all", "all", "all", REFUSED]),
        (operator, None, None, ["all", "all", "all", "all"]),
        (here(), CI, None, ["all", "all", "all", "acme"]),
        (elsewhere(), None, None, ["all", REFUSED, REFUSED, REFUSED]),
        (elsewhere(), None, token, ["all", REFUSED, LOOKED_UP, LOOKED_UP]),
        (elsewhere(), CI, None, ["all", "all", "acme", "acme"]),
        (elsewhere(), CI, token, [REFUSED; 4]),
        (here(), CI, token, [REFUSED; 4]),
        (elsewhere(), OTHER, None, ["all", "all", REFUSED, REFUSED]),
        (elsewhere(), UNNAMED, None, ["all", "all", REFUSED, REFUSED]),
    ];
    for (remote, certificate, header, expected) in cases {
        let all = [&open, &proved, &named_elsewhere, &named_all];
        for (at, (askers, expected)) in all.into_iter().zip(expected).enumerate() {
            // A certificate and a token are two proofs; the fast way does not take such a call.
            let told = may(askers, *remote, *certificate, *header).await;
            assert_eq!(told, *expected, "{remote:?} {certificate:?} {header:?} {at}");
        }
    }
    // No transport has said where a call comes from.
    let mut nowhere = proved.asker(&Extensions::new(), &HeaderMap::new());
    assert_eq!(nowhere.may(Rpc::CHECK).await.unwrap_err(), RequestError::AuthnFailed);
}

/// Several callers have the names of one certificate: it is none of them, whatever the order is.
#[tokio::test]
async fn dns_names_are_those_of_one_caller() {
    let (named, all) = (askers(named("")), askers(Rule::Proved));
    for (names, expected) in [
        (&["web.example.com"][..], "acme/web"),
        (&["shop.example.com"], "acme/shop"),
        (&["a", "web.example.com", "z.example.com"], "acme/web"),
        (&["shop.example.com", "web.example.com"], REFUSED),
        (&["web.example.com", "shop.example.com"], REFUSED),
        (&["a", "shop.example.com", "u", "web.example.com"], REFUSED),
        (&["example.com"], REFUSED),
        (&["x.web.example.com"], REFUSED),
    ] {
        let certificate = || Some(ClientCertificate::of_hosts(names));
        assert_eq!(may_with(&named, elsewhere(), certificate(), None).await, expected, "{names:?}");
        assert_eq!(may_with(&all, elsewhere(), certificate(), None).await, "all", "{names:?}");
        let token = may_with(&named, elsewhere(), certificate(), Some("Bearer x")).await;
        assert_eq!(token, REFUSED, "{names:?}");
    }
    // A SPIFFE ID is no DNS name, and the other way round.
    for name in [CI.flatten().unwrap(), "spiffe://web.example.com"] {
        let certificate = Some(ClientCertificate::of_hosts(&[name]));
        assert_eq!(may_with(&named, elsewhere(), certificate, None).await, REFUSED, "{name}");
    }
    assert_eq!(may(&named, elsewhere(), Some(Some("web.example.com")), None).await, REFUSED);
}

/// Whoever may ask without a certificate, too: the handshake would refuse it.
#[tokio::test]
async fn a_certificate_that_is_revoked_is_refused_everywhere() {
    for askers in [askers(Rule::Open), askers(Rule::Proved), askers(named(""))] {
        for remote in [here(), elsewhere()] {
            let certificate = ClientCertificate::named(CI.flatten());
            let mut extensions = Extensions::new();
            extensions.insert(remote);
            extensions.insert(certificate.clone());
            let mut asker = askers.asker(&extensions, &HeaderMap::new());
            asker.may(Rpc::CHECK).await.unwrap();
            let (parts, ()) = Request::new(()).into_parts();
            let head = Arc::new(Head::from(parts));
            let entry = Entry::new(Some(remote), Some(certificate.clone()));
            let proved = ProvedHead::default();
            let asking = Asking { entry: &entry, head: &head, proved: &proved };
            assert!(askers.plain(asking, |_| Some(())).is_some());
            certificate.revoke();
            assert!(askers.plain(asking, |_| Some(())).is_none(), "the fast way");
            assert_eq!(asker.let_in().unwrap_err(), RequestError::AuthnFailed);
            assert_eq!(asker.may(Rpc::CHECK).await.unwrap_err(), RequestError::AuthnFailed);
            assert_eq!(asker.refused().await, RequestError::AuthnFailed);
        }
    }
}

#[tokio::test]
async fn a_caller_has_only_the_methods_that_are_named() {
    let askers = askers(named(""));
    let mut extensions = Extensions::new();
    extensions.insert(elsewhere());
    extensions.insert(ClientCertificate::named(Some("spiffe://example.com/ci")));
    for rpc in Rpc::all() {
        let mut asker = askers.asker(&extensions, &HeaderMap::new());
        let may = asker.may(rpc).await.is_ok();
        let wanted = matches!(rpc.asks(), Some(Asks::Check | Asks::Explain));
        assert_eq!(may, wanted, "{}", rpc.name());
    }
}

/// Until the document is loaded, nobody is a caller.
#[tokio::test]
async fn nobody_may_ask_before_the_document_is_there() {
    let askers = askers(Rule::Named(Arc::default()));
    assert_eq!(may(&askers, elsewhere(), CI, None).await, REFUSED);
    assert_eq!(may(&askers, here(), None, None).await, REFUSED);
}

const POLICY_WITH_SECRETS: &str = "\
version: 1
catalog: {name: c, resources: [{name: r, actions: [get]}]}
groups: [{id: acme}]
identities: [{id: acme/ci}, {id: acme/dev}]
credentials: [{identity: acme/ci, sha256: CI}, {identity: acme/dev, sha256: DEV}]
";

fn hash(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Another machine that guesses secrets is not listened to for a while, right or wrong: the fast way neither.
#[tokio::test(start_paused = true)]
async fn who_guesses_secrets_is_limited() {
    let document = "\
version: 1
callers:
- {name: ci, identity: acme/ci, subtree: acme, methods: [check]}
- {name: dev, identity: acme/dev, methods: [check]}
";
    let all = load_callers(document.as_bytes()).unwrap();
    let askers = askers(Rule::Named(Arc::new(ArcSwap::from_pointee(all.into()))));
    let policy = POLICY_WITH_SECRETS.replace("CI", &hash("ci")).replace("DEV", &hash("dev"));
    let policy = load_policy(policy.as_bytes(), &Catalogs::default()).unwrap();
    let snapshot = Snapshot::build(&policy.model, 1).unwrap();
    let current = Current::of_document(snapshot, policy.credentials);
    drop(askers.0.published.publish(current, 1));
    let ask = |header| may(&askers, elsewhere(), None, Some(header));
    let guess = |at: u32| ask(format!("Bearer wrong-{at}").leak());
    assert_eq!(ask("Bearer ci").await, "acme");
    for at in 1..GUESSES_AT_ONCE_MAX {
        assert_eq!(ask("Bearer expired").await, REFUSED, "is one guess");
        assert_eq!(guess(at).await, REFUSED);
    }
    let limited = RequestError::GuessesWait.to_string();
    assert_eq!(guess(1_000).await, limited);
    assert_eq!(ask("Bearer dev").await, limited, "it has proved nobody yet");
    assert_eq!(ask("Bearer ci").await, "acme", "it has");
    tokio::time::advance(GUESS_EVERY).await;
    assert_eq!(ask("Bearer dev").await, "all");
    assert_eq!(guess(1_001).await, REFUSED);
    assert_eq!(guess(1_002).await, limited);
    assert_eq!(ask("Bearer dev").await, "all");
}

/// Those who show a credential that is not known take no more than their places.
#[tokio::test]
async fn lookups_have_places_of_their_own() {
    assert_eq!((ASKERS_LOOKED_UP_MAX, PEER_ASKERS_LOOKED_UP_MAX), (64, 32));
    let askers = askers(named(""));
    let peer = |last: u8| Peer::Ip([192, 0, 2, last].into());
    // One peer has half of them, and all peers have all.
    let mut taken: Vec<_> = std::iter::from_fn(|| askers.0.lookups.take(peer(9))).collect();
    assert_eq!(taken.len(), PEER_ASKERS_LOOKED_UP_MAX);
    assert_eq!(may(&askers, elsewhere(), None, Some("Bearer x")).await, LOOKED_UP);
    taken.extend(std::iter::from_fn(|| askers.0.lookups.take(peer(8))));
    assert_eq!(taken.len(), ASKERS_LOOKED_UP_MAX);
    let worker = askers.of_worker();
    let told = may(&worker, elsewhere(), None, Some("Bearer x")).await;
    assert_eq!(told, RequestError::CredentialsWait.to_string());
    assert_eq!(may(&worker, elsewhere(), CI, None).await, "acme");
    drop(taken);
    assert_eq!(may(&worker, elsewhere(), None, Some("Bearer x")).await, LOOKED_UP);
}
