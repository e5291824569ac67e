//! Who may ask: callers of a document, by a credential or a certificate, each with its methods and its subtree. The document names
//! callers of this machine, too, since the tests are on it.

mod certificates;
mod clients;
mod subtree;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use capstan_policy::Asks;
use capstan_proto::iam::v1 as iam;
use capstan_proto::v1;
use capstan_server::feed::source::Source;
use capstan_server::limits::{CALLERS_BYTES_MAX, Limits};
use capstan_server::server::Config;
use envoy_types::pb::envoy::service::auth::v3::CheckRequest as EnvoyRequest;
use sha2::{Digest as _, Sha256};
use tonic::Code;

use crate::common::{InProcess, PATIENCE, capstan, config, folder, stderr};
use crate::metrics::of;
use crate::raw::{self, Answer, Body, Frames, framed};

const POLICY: &str = "\
version: 1
catalog:
  name: small
  resources: [{name: repo, actions: [list, delete]}]
  roles: [{name: viewer, capabilities: [repo.list]}]
groups: [{id: acme}, {id: acme/images}, {id: other}]
identities:
  - {id: acme/reader, type: user}
  - {id: acme/wide, type: user}
  - {id: acme/gone, disabled: true}
resources:
  - {id: acme/images/nginx, type: repo}
  - {id: acme/images/redis, type: repo}
  - {id: acme/other, type: repo}
  - {id: other/app, type: repo}
role_bindings:
  - {identity: acme/reader, role: viewer, scope: acme/images/nginx}
  - {identity: acme/reader, role: viewer, scope: acme/images/redis}
  - {identity: acme/reader, role: viewer, scope: acme/other}
  - {identity: acme/wide, role: viewer, scope: acme}
";

/// A policy whose callers have secrets, and the document that names them.
pub(crate) struct Files {
    folder: PathBuf,
    callers: Vec<String>,
    identities: Vec<String>,
}

impl Files {
    pub(crate) fn new(name: &str) -> Self {
        Self { folder: folder(name), callers: vec![], identities: vec!["acme/gone".into()] }
    }

    /// Names `acme/NAME`, which may use these methods.
    pub(crate) fn add(&mut self, name: &str, methods: &[Asks], subtree: Option<&str>) {
        let methods: Vec<_> = methods.iter().map(|one| one.as_str()).collect();
        let subtree = subtree.map(|path| format!("subtree: {path}, ")).unwrap_or_default();
        let methods = methods.join(", ");
        self.callers.push(format!(
            "  - {{name: {name}, identity: acme/{name}, {subtree}methods: [{methods}]}}\n"
        ));
        self.identities.push(format!("acme/{name}"));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes both files.
    pub(crate) fn write(&self) {
        let mut policy = POLICY.to_owned();
        let declared = self.identities.iter().filter(|id| *id != "acme/gone");
        let declared: String = declared.map(|id| format!("  - {{id: {id}}}\n")).collect();
        policy = policy.replace("resources:\n  - {id", &format!("{declared}resources:\n  - {{id"));
        policy += "credentials:\n";
        for identity in self.identities.iter().map(String::as_str).chain(["acme/reader"]) {
            let hash = Sha256::digest(secret(identity));
            let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            policy += &format!("  - {{identity: {identity}, sha256: {hash}}}\n");
        }
        std::fs::write(self.path("policy.yaml"), policy).unwrap();
        self.write_callers(&self.callers.concat());
    }

    pub(crate) fn write_callers(&self, callers: &str) {
        let callers = if callers.is_empty() { " []\n".to_owned() } else { format!("\n{callers}") };
        let document = format!("version: 1\nthis_machine: named\ncallers:{callers}");
        let new = self.path("callers.new");
        std::fs::write(&new, document).unwrap();
        std::fs::rename(new, self.path("callers.yaml")).unwrap();
    }

    pub(crate) fn config(&self) -> Config {
        let source = Source::File { path: self.path("policy.yaml"), bytes_max: 1 << 20 };
        Config { callers: Some(self.path("callers.yaml")), ..config(source) }
    }

    pub(crate) async fn serve(&self) -> InProcess {
        self.write();
        InProcess::start_with(self.config()).await
    }
}

fn secret(identity: &str) -> String {
    format!("the_secret_of_{identity}")
}

/// The header of a caller.
pub(crate) fn basic(identity: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{identity}:{}", secret(identity))))
}

/// Calls as `acme/NAME`.
pub(crate) async fn call_as(
    server: &InProcess,
    name: &str,
    path: &str,
    message: &impl prost::Message,
) -> Answer {
    let header = basic(&format!("acme/{name}"));
    call(server, &[("authorization", &header)], path, message).await
}

async fn call(
    server: &InProcess,
    headers: &[(&str, &str)],
    path: &str,
    message: &impl prost::Message,
) -> Answer {
    let body = (framed(message), Body::Whole);
    raw::call(server.grpc, path, headers, body).await.unwrap()
}

/// The message of an answer.
pub(crate) fn message<M: prost::Message + Default>(answer: &Answer) -> M {
    assert_eq!(answer.code(), Code::Ok, "{:?}", answer.status);
    M::decode(&answer.data[5..]).unwrap()
}

pub(crate) const CHECK: &str = "/capstan.v1.DecisionService/Check";
pub(crate) const BATCH: &str = "/capstan.v1.DecisionService/BatchCheck";
const STREAM: &str = "/capstan.v1.DecisionService/StreamCheck";
const EXT_AUTHZ: &str = "/envoy.service.auth.v3.Authorization/Check";
const ROLES: &str = "/capstan.iam.v1.RoleService/ListRoles";

pub(crate) fn check(resource: &str) -> v1::CheckRequest {
    v1::CheckRequest {
        identity: "acme/reader".into(),
        capability: "repo.list".into(),
        resource: resource.into(),
        ..Default::default()
    }
}

pub(crate) fn batch(resources: &[&str]) -> v1::BatchCheckRequest {
    let item = |resource: &&str| {
        let v1::CheckRequest { identity, capability, resource, .. } = check(resource);
        v1::CheckItem { identity, capability, resource, properties: None }
    };
    v1::BatchCheckRequest { checks: resources.iter().map(item).collect(), consistency: None }
}

const NGINX: &str = "acme/images/nginx";

/// A check with a property, which the fast way does not take.
fn slow_check() -> v1::CheckRequest {
    let value = prost_types::Value { kind: Some(prost_types::value::Kind::BoolValue(true)) };
    let context = [("x".to_owned(), value)].into();
    v1::CheckRequest {
        properties: Some(v1::Properties { context, ..Default::default() }),
        ..check(NGINX)
    }
}

fn long_batch() -> v1::BatchCheckRequest {
    let mut batch = batch(&[NGINX; 100]);
    batch.checks.iter_mut().for_each(|check| check.properties = slow_check().properties);
    batch
}

/// A call of each method of gRPC: what it is in, the path, and the bytes.
fn calls() -> Vec<(Asks, &'static str, Vec<u8>)> {
    let capabilities = v1::ListCapabilitiesRequest {
        identity: "acme/reader".into(),
        resource: NGINX.into(),
        ..Default::default()
    };
    let identities = v1::ListIdentitiesRequest {
        capability: "repo.list".into(),
        resource: NGINX.into(),
        ..Default::default()
    };
    let scopes = v1::ListScopesRequest {
        identity: "acme/reader".into(),
        capability: "repo.list".into(),
        ..Default::default()
    };
    let explain = v1::ExplainRequest {
        identity: "acme/reader".into(),
        capability: "repo.list".into(),
        resource: NGINX.into(),
        ..Default::default()
    };
    vec![
        (Asks::Check, CHECK, framed(&check(NGINX))),
        (Asks::Check, CHECK, framed(&slow_check())),
        (Asks::Check, BATCH, framed(&batch(&[NGINX]))),
        (Asks::Check, BATCH, framed(&long_batch())),
        (Asks::Check, STREAM, [framed(&batch(&[NGINX])), framed(&long_batch())].concat()),
        (Asks::Capabilities, "/capstan.v1.DecisionService/ListCapabilities", framed(&capabilities)),
        (Asks::Search, "/capstan.v1.DecisionService/ListIdentities", framed(&identities)),
        (Asks::Search, "/capstan.v1.DecisionService/ListScopes", framed(&scopes)),
        (Asks::Explain, "/capstan.v1.DecisionService/Explain", framed(&explain)),
        (Asks::Authorize, EXT_AUTHZ, framed(&EnvoyRequest::default())),
        (Asks::Policy, ROLES, framed(&iam::ListRolesRequest::default())),
        (
            Asks::Policy,
            "/capstan.iam.v1.GroupService/GetGroup",
            framed(&iam::GetGroupRequest { id: "acme".into(), ..Default::default() }),
        ),
        (
            Asks::Policy,
            "/capstan.iam.v1.IdentityService/ListIdentities",
            framed(&iam::ListIdentitiesRequest::default()),
        ),
    ]
}

/// A request to each endpoint of AuthZEN.
fn requests() -> Vec<(Asks, &'static str, String)> {
    let (subject, action) =
        (r#""subject": {"type": "user", "id": "acme/reader"}"#, r#""action": {"name": "list"}"#);
    let resource = format!(r#""resource": {{"type": "repo", "id": "{NGINX}"}}"#);
    let one = format!("{{{subject}, {action}, {resource}}}");
    vec![
        (Asks::Check, "/access/v1/evaluation", one.clone()),
        (Asks::Check, "/access/v1/evaluations", one),
        (
            Asks::Search,
            "/access/v1/search/subject",
            format!(r#"{{"subject": {{"type": "user"}}, {action}, {resource}}}"#),
        ),
        (
            Asks::Search,
            "/access/v1/search/resource",
            format!(r#"{{{subject}, {action}, "resource": {{"type": "repo"}}}}"#),
        ),
        (Asks::Search, "/access/v1/search/action", format!("{{{subject}, {resource}}}")),
    ]
}

/// Status and body of a request.
pub(crate) async fn post(
    server: &InProcess,
    authorization: Option<&str>,
    path: &str,
    body: &str,
) -> (u16, String) {
    let (address, header) = (server.http.to_string(), authorization.unwrap_or_default().to_owned());
    let mut headers = "content-type: application/json\r\n".to_owned();
    if !header.is_empty() {
        headers += &format!("authorization: {header}\r\n");
    }
    let (path, body) = (path.to_owned(), body.to_owned());
    let sent = tokio::task::spawn_blocking(move || {
        let found = crate::authzen::post_to(&address, &path, &headers, &body);
        (found.status, found.body)
    });
    sent.await.unwrap()
}

/// The status of Envoy's answer, which is never an error.
fn envoy_status(answer: &Answer) -> i32 {
    use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
    message::<CheckResponse>(answer).status.unwrap().code
}

#[test]
fn the_document_of_callers_has_a_limit() {
    assert_eq!(CALLERS_BYTES_MAX, 1 << 20);
    let files = Files::new("askers-long");
    files.write();
    let callers = files.path("callers.yaml");
    let long = format!("version: 1\ncallers: []\n#{}\n", "x".repeat(1 << 20));
    std::fs::write(&callers, long).unwrap();
    let policy = files.path("policy.yaml");
    let arguments = ["serve", "--policy", policy.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let output = capstan(&[&arguments[..], &["--callers", callers.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("1048576 bytes"), "{}", stderr(&output));
}

/// Each caller with one set of methods, and each method.
#[tokio::test]
async fn a_caller_uses_the_methods_that_it_is_given() {
    let mut files = Files::new("askers-methods");
    for asks in Asks::ALL {
        files.add(asks.as_str(), &[asks], None);
    }
    files.add("all", &Asks::ALL, None);
    let server = files.serve().await;
    let names: Vec<_> = Asks::ALL.map(Asks::as_str).into_iter().chain(["all"]).collect();
    for name in names {
        let header = basic(&format!("acme/{name}"));
        for (asks, path, bytes) in calls() {
            let may = name == "all" || name == asks.as_str();
            let sent = (bytes, Body::Whole);
            let answer = raw::call(server.grpc, path, &[("authorization", &header)], sent).await;
            let answer = answer.unwrap();
            if path == EXT_AUTHZ {
                // Malformed for whoever may ask, and denied for all others.
                let expected = if may { Code::InvalidArgument } else { Code::PermissionDenied };
                assert_eq!(envoy_status(&answer), expected as i32, "{name}");
                continue;
            }
            let expected = if may { Code::Ok } else { Code::PermissionDenied };
            assert_eq!(answer.code(), expected, "{name} {path}: {:?}", answer.status);
            if !may {
                assert_eq!(answer.reason(), "CALLER_NOT_ALLOWED", "{name} {path}");
                assert!(answer.data.is_empty());
            }
        }
        for (asks, path, body) in requests() {
            let may = name == "all" || name == asks.as_str();
            let (status, said) = post(&server, Some(&header), path, &body).await;
            assert_eq!(status, if may { 200 } else { 403 }, "{name} {path}: {said}");
        }
    }
    let refused = of(&server, r#"capstan_refused_callers_total{reason="method"}"#).await;
    assert_eq!(refused, f64::from(u32::try_from(refusals()).unwrap()));
}

/// Of six callers with one set each.
fn refusals() -> usize {
    let of = |all: Vec<Asks>| -> usize {
        all.iter().map(|asks| Asks::ALL.iter().filter(|one| *one != asks).count()).sum()
    };
    of(calls().into_iter().map(|(asks, ..)| asks).collect())
        + of(requests().into_iter().map(|(asks, ..)| asks).collect())
}

/// Whoever is not a caller gets nothing, whatever is shown; and everybody gets health.
#[tokio::test]
async fn nobody_else_may_ask() {
    let mut files = Files::new("askers-nobody");
    files.add("all", &Asks::ALL, None);
    let server = files.serve().await;
    let wrong = format!("Basic {}", STANDARD.encode("acme/all:another secret"));
    let named_wrongly = ("x-capstan-caller", "acme/reader");
    let good = basic("acme/all");
    let cases: Vec<(&str, Vec<(&str, String)>)> = vec![
        ("nothing", vec![]),
        ("a wrong secret", vec![("authorization", wrong)]),
        ("no caller", vec![("authorization", basic("acme/reader"))]),
        ("a disabled identity", vec![("authorization", basic("acme/gone"))]),
        ("another scheme", vec![("authorization", "Digest x".into())]),
        (
            "two of one header",
            vec![("authorization", good.clone()), ("authorization", good.clone())],
        ),
        (
            "another name",
            vec![("authorization", good.clone()), (named_wrongly.0, named_wrongly.1.into())],
        ),
        ("a name alone", vec![("x-capstan-caller", "acme/all".into())]),
        (
            "an address",
            vec![
                ("authorization", good.clone()),
                ("x-capstan-caller-email", "a@example.com".into()),
            ],
        ),
        (
            "two names",
            vec![
                ("authorization", good.clone()),
                ("x-capstan-caller", "acme/all".into()),
                ("x-capstan-caller", "acme/all".into()),
            ],
        ),
    ];
    for (what, headers) in &cases {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
        for (_, path, bytes) in calls() {
            let answer =
                raw::call(server.grpc, path, &headers, (bytes, Body::Whole)).await.unwrap();
            if path == EXT_AUTHZ {
                assert_eq!(envoy_status(&answer), Code::PermissionDenied as i32, "{what}");
                continue;
            }
            if path.starts_with("/capstan.iam.v1.") && ["an address", "two names"].contains(what) {
                // Management methods say which header is wrong, to whoever sends it.
                assert_eq!(answer.code(), Code::InvalidArgument, "{what} {path}");
                continue;
            }
            assert_eq!(answer.code(), Code::Unauthenticated, "{what} {path}");
            assert_eq!(answer.reason(), "AUTHN_FAILED", "{what} {path}");
            let said = answer.status.as_ref().unwrap().message();
            assert_eq!(said, "the caller is not authenticated", "{what} {path}");
        }
    }
    for (_, path, body) in requests() {
        let (status, said) = post(&server, None, path, &body).await;
        assert_eq!((status, &*said), (401, "the caller is not authenticated"), "{path}");
    }
    let health = tonic_health::pb::HealthCheckRequest::default();
    let answer = call(&server, &[], "/grpc.health.v1.Health/Check", &health).await;
    assert_eq!(answer.code(), Code::Ok);
    assert!(of(&server, r#"capstan_refused_callers_total{reason="unknown"}"#).await > 50.0);
    let checked = call_as(&server, "all", CHECK, &check(NGINX)).await;
    assert!(message::<v1::CheckResponse>(&checked).allowed);
}

/// A stranger takes no permit, whether it sends a body or not, and keeps no stream open.
#[tokio::test]
async fn strangers_take_no_permits() {
    let mut files = Files::new("askers-permits");
    files.add("all", &Asks::ALL, None);
    files.write();
    let limits = Limits { in_flight_max: 1, peer_in_flight_max: 1, ..Limits::default() };
    let server = InProcess::start_with(Config { limits, ..files.config() }).await;
    let mut peer = Frames::connect(server.grpc).await;
    let of = |path: &str, header: Option<&str>| {
        let mut block = raw::header_block(path);
        block.extend(header.map(|it| raw::literal(0, "authorization", it)).unwrap_or_default());
        block
    };
    let bogus = format!("Basic {}", STANDARD.encode("acme/all:x"));
    for (at, path) in [STREAM, BATCH, CHECK, STREAM].into_iter().enumerate() {
        let stream = 2 * u32::try_from(at).unwrap() + 1;
        let header = (at == 3).then_some(&*bogus);
        peer.send(raw::HEADERS, raw::END_HEADERS, stream, &of(path, header)).await;
        if path == BATCH {
            peer.send(raw::DATA, 0, stream, &framed(&long_batch())[..20]).await;
        }
    }
    let mut ended = std::collections::BTreeSet::new();
    while ended.len() < 4 {
        let (kind, flags, stream, _) = peer.next().await;
        assert_ne!(kind, raw::DATA);
        if kind == raw::HEADERS && flags & raw::END_STREAM != 0 {
            ended.insert(stream);
        }
        let checked = call_as(&server, "all", CHECK, &slow_check()).await;
        assert!([Code::Ok, Code::ResourceExhausted].contains(&checked.code()));
    }
    for _ in 0..10 {
        let checked = call_as(&server, "all", CHECK, &slow_check()).await;
        assert_eq!(checked.code(), Code::Ok);
        let (_, path, body) = &requests()[0];
        assert_eq!(post(&server, None, path, body).await.0, 401);
    }
}

/// Whoever may not ask is told so, and not how busy the server is, although no permit is left; a caller is told that.
#[tokio::test]
async fn strangers_are_told_so_while_the_server_is_busy() {
    let mut files = Files::new("askers-busy");
    files.add("all", &Asks::ALL, None);
    files.write();
    let limits = Limits { in_flight_max: 1, peer_in_flight_max: 1, ..Limits::default() };
    let server = InProcess::start_with(Config { limits, ..files.config() }).await;
    let mut holder = Frames::connect(server.grpc).await;
    let mut block = raw::header_block(STREAM);
    block.extend(raw::literal(0, "authorization", &basic("acme/all")));
    let began = std::time::Instant::now();
    holder.send(raw::HEADERS, raw::END_HEADERS, 1, &block).await;
    while of(&server, "capstan_in_flight").await < 1.0 {
        assert!(began.elapsed() < PATIENCE, "the stream takes no permit");
    }
    let busy = call_as(&server, "all", BATCH, &batch(&[NGINX])).await;
    assert_eq!(busy.code(), Code::ResourceExhausted);
    // What a credential proves is looked up with a permit.
    let stranger = call(&server, &[], BATCH, &batch(&[NGINX])).await;
    assert_eq!(stranger.code(), Code::Unauthenticated);
}

/// A document that is changed counts from the next call on, and from the next batch of a stream that is open; one that does not load
/// changes nothing.
#[tokio::test]
async fn callers_are_replaced_while_they_ask() {
    let mut files = Files::new("askers-reload");
    files.add("one", &[Asks::Check], None);
    files.add("two", &[Asks::Check], None);
    let server = files.serve().await;
    let mut peer = Frames::connect(server.grpc).await;
    let mut block = raw::header_block(STREAM);
    block.extend(raw::literal(0, "authorization", &basic("acme/one")));
    peer.send(raw::HEADERS, raw::END_HEADERS, 1, &block).await;
    peer.send(raw::DATA, 0, 1, &framed(&batch(&[NGINX]))).await;
    let answered = |frames: Vec<raw::Frame>| frames.iter().any(|(kind, ..)| *kind == raw::DATA);
    let mut seen = vec![];
    while !answered(seen.clone()) {
        seen.push(peer.next().await);
    }

    files.write_callers("  - {name: two, identity: acme/two, methods: [check]}\n");
    let began = std::time::Instant::now();
    while call_as(&server, "one", CHECK, &check(NGINX)).await.code() == Code::Ok {
        assert!(began.elapsed() < PATIENCE, "the caller is never taken away");
    }
    let other = call_as(&server, "two", CHECK, &check(NGINX)).await;
    assert_eq!(other.code(), Code::Ok);
    peer.send(raw::DATA, 0, 1, &framed(&batch(&[NGINX]))).await;
    loop {
        let (kind, flags, stream, _) = peer.next().await;
        assert_ne!(kind, raw::DATA, "a batch of nobody is answered");
        if kind == raw::HEADERS && stream == 1 && flags & raw::END_STREAM != 0 {
            break;
        }
    }

    files.write_callers("  - {name: two, identity: acme/two, methods: [everything]}\n");
    let stale = r#"capstan_newest_served{document="callers"}"#;
    let began = std::time::Instant::now();
    while of(&server, stale).await == 1.0 {
        assert!(began.elapsed() < PATIENCE, "the document is never read");
    }
    let other = call_as(&server, "two", CHECK, &check(NGINX)).await;
    assert_eq!(other.code(), Code::Ok);
}

/// What a connection has proved is looked at with each check, also with one that has the same head as the last.
#[tokio::test]
async fn a_secret_that_is_gone_proves_nothing_in_the_next_check() {
    let mut files = Files::new("askers-same-head");
    files.add("all", &Asks::ALL, None);
    let server = files.serve().await;
    let mut peer = Frames::connect(server.grpc).await;
    let mut block = raw::header_block(CHECK);
    block.extend(raw::literal(0, "authorization", &basic("acme/all")));
    let mut stream = 1;
    let mut ask = async || {
        let head = raw::frame(raw::HEADERS, raw::END_HEADERS, stream, &block);
        let body = raw::frame(raw::DATA, raw::END_STREAM, stream, &framed(&check(NGINX)));
        peer.send_bytes(&[head, body].concat()).await;
        stream += 2;
        peer.answer(stream - 2).await
    };
    for _ in 0..5 {
        assert!(ask().await.is_some());
    }
    let policy = std::fs::read_to_string(files.path("policy.yaml")).unwrap();
    let disabled = policy.replace("{id: acme/all}", "{id: acme/all, disabled: true}");
    let without = policy.lines().filter(|line| !line.contains("identity: acme/all, sha256"));
    let without: String = without.map(|line| format!("{line}\n")).collect();
    for changed in [disabled, without] {
        assert_ne!(changed, policy);
        for (text, wanted) in [(&changed, false), (&policy, true)] {
            std::fs::write(files.path("policy.new"), text).unwrap();
            std::fs::rename(files.path("policy.new"), files.path("policy.yaml")).unwrap();
            let began = std::time::Instant::now();
            while ask().await.is_some() != wanted {
                assert!(began.elapsed() < PATIENCE, "the change is never seen");
            }
        }
    }
}

/// Without a word on this machine, whoever is on it may ask as before.
#[tokio::test]
async fn this_machine_is_open_unless_it_is_named() {
    let files = Files::new("askers-open");
    files.write();
    std::fs::write(files.path("callers.yaml"), "{version: 1, callers: []}").unwrap();
    let server = InProcess::start_with(files.config()).await;
    for (_, path, bytes) in calls() {
        let answer = raw::call(server.grpc, path, &[], (bytes, Body::Whole)).await.unwrap();
        assert_eq!(answer.code(), Code::Ok, "{path}");
    }
}
