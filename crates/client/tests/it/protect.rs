//! The layer in front of the services of others.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use capstan_client::limits::PROTECTED_BYTES_MAX;
use capstan_client::protect::{
    Caller, CarryRevision, Protect, Protected, REVISION_KEY, Rules, RulesError, decided_at,
};
use capstan_client::{Client, Code, Options};
use capstan_server::feed::reload::Wake;
use capstan_server::feed::source::Source;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Interceptor as _;
use tower::{Layer as _, Service, ServiceExt as _};

use crate::PATIENCE;
use crate::real::{Real, config, folder};

const IMAGES: &str = "shop.v1.Images";

fn descriptors() -> Vec<u8> {
    let root = env!("CARGO_MANIFEST_DIR");
    let folders = [format!("{root}/tests/it"), format!("{root}/../../proto")];
    let mut compiler = protox::Compiler::new(folders).unwrap();
    compiler.include_imports(true).open_file("shop.proto").unwrap();
    compiler.encode_file_descriptor_set()
}

fn rules() -> Rules {
    Rules::of_services(&descriptors(), [IMAGES]).unwrap()
}

/// The service: answers every call, and keeps for each the revision that decided, and the one that would be carried on.
#[derive(Clone, Default)]
struct Shop(Arc<Mutex<Vec<Seen>>>);

type Seen = (Option<u64>, Option<u64>);

impl Service<Request<Body>> for Shop {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let carried = CarryRevision.call(tonic::Request::new(())).unwrap();
        let carried =
            carried.metadata().get(REVISION_KEY).map(|it| it.to_str().unwrap().parse().unwrap());
        self.0.lock().unwrap().push((decided_at(), carried));
        ready(Ok(Response::new(request.into_body())))
    }
}

struct World {
    shop: Shop,
    service: Protected<Shop>,
}

impl World {
    fn new(client: Client) -> Self {
        let shop = Shop::default();
        let protect = Protect::new(
            client,
            rules().open_service("grpc.health.v1.Health"),
            |head: &http::request::Parts| {
                let caller = Caller::new(head.headers.get("x-identity")?.to_str().ok()?);
                Some(if head.headers.contains_key("x-outside") {
                    caller.without_revision()
                } else {
                    caller
                })
            },
        );
        Self { service: protect.layer(shop.clone()), shop }
    }

    async fn send(&self, request: Request<Body>) -> Result<Bytes, Status> {
        let response = self.service.clone().oneshot(request).await.unwrap();
        if let Some(status) = Status::from_header_map(response.headers()) {
            assert!(self.shop.0.lock().unwrap().is_empty(), "a refused call reached the service");
            return Err(status);
        }
        let body = response.into_body().collect().await.unwrap().to_bytes();
        self.shop.0.lock().unwrap().clear();
        Ok(body)
    }

    async fn call(&self, method: &str, identity: &str, message: &[u8]) -> Result<Bytes, Status> {
        self.send(request(method, &[("x-identity", identity)], framed(message))).await
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

fn request(method: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Request<Body> {
    let path =
        if method.starts_with('/') { method.to_owned() } else { format!("/{IMAGES}/{method}") };
    let mut request = Request::post(path);
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    request.body(Body::new(Full::from(body))).unwrap()
}

/// `GetRequest {repo}`.
fn get(repo: &str) -> Vec<u8> {
    [&[0x0a, u8::try_from(repo.len()).unwrap()][..], repo.as_bytes()].concat()
}

/// `MoveRequest {to: GetRequest {repo}}`.
fn moved(repo: &str) -> Vec<u8> {
    let inner = get(repo);
    [&[0x0a, u8::try_from(inner.len()).unwrap()][..], &inner].concat()
}

#[tokio::test]
async fn a_call_reaches_the_service_if_it_is_allowed() {
    let capstan = Real::demo().await;
    let world = World::new(capstan.client(Options::default()));
    let nginx = "acme/platform/images/nginx";
    // The body arrives as it was sent, whatever the pieces.
    for message in [get(nginx), [get(nginx), vec![0x12, 1, b'x']].concat()] {
        assert_eq!(world.call("Get", "bob", &message).await.unwrap(), framed(&message));
    }
    assert_eq!(world.call("Move", "alice", &moved(nginx)).await.unwrap(), framed(&moved(nginx)));
    // The last one of a field counts, as for the service.
    let twice = [get("other"), get(nginx)].concat();
    world.call("Get", "bob", &twice).await.unwrap();
    world.call("Status", "alice", &[]).await.unwrap();
    world.call("Upload", "alice", &get("other")).await.unwrap();
    for open in ["Version", "/grpc.health.v1.Health/Check"] {
        world.call(open, "", &[]).await.unwrap();
    }
    let refused = [
        (
            "Get",
            "nobody",
            get(nginx),
            Code::PermissionDenied,
            "repo.list is required at acme/platform/images/nginx: UNKNOWN_IDENTITY",
        ),
        ("Get", "bob", get("other"), Code::PermissionDenied, "at other: NO_BINDING"),
        ("Get", "bob", [get(nginx), get("other")].concat(), Code::PermissionDenied, "at other"),
        ("Move", "bob", moved(nginx), Code::PermissionDenied, "repo.update is required"),
        ("Get", "", get(nginx), Code::Unauthenticated, "nobody that is known"),
        ("Get", "bob", vec![], Code::InvalidArgument, "repo: missing"),
        ("Move", "bob", vec![], Code::InvalidArgument, "to.repo: missing"),
        ("Get", "bob", get("a b"), Code::InvalidArgument, "resource"),
        ("Get", "bob", vec![0x0a, 9, 1], Code::InvalidArgument, "decode"),
        ("Get", "b b", get(nginx), Code::Internal, "identity"),
        ("Delete", "alice", get(nginx), Code::Unimplemented, "no rule"),
        ("/shop.v1.Other/Get", "alice", get(nginx), Code::Unimplemented, "no rule"),
    ];
    for (method, identity, message, code, said) in refused {
        let status = world.call(method, identity, &message).await.unwrap_err();
        assert_eq!(status.code(), code, "{method} {identity}: {status:?}");
        assert!(status.message().contains(said), "{said}: {status:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let capstan = Real::demo().await;
    let world = World::new(capstan.client(Options::default()));
    let bob = [("x-identity", "bob")];
    let mut compressed = framed(&get("acme"));
    compressed[0] = 1;
    let mut neither = framed(&get("acme"));
    neither[0] = 2;
    let mut long = framed(&[]);
    long[1..5].copy_from_slice(&u32::try_from(PROTECTED_BYTES_MAX + 1).unwrap().to_be_bytes());
    for (body, code) in [
        (compressed, Code::Unimplemented),
        (neither, Code::InvalidArgument),
        (long, Code::ResourceExhausted),
        (vec![], Code::InvalidArgument),
        (framed(&get("acme"))[..7].to_vec(), Code::InvalidArgument),
    ] {
        let status = world.send(request("Get", &bob, body)).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
    }
    for (name, value) in [
        ("grpc-timeout", "5"),
        ("grpc-timeout", "123456789S"),
        ("grpc-timeout", "x1S"),
        ("grpc-timeout", "+1S"),
        (REVISION_KEY, "-1"),
    ] {
        let headers = [bob[0], (name, value)];
        let status = world.send(request("Get", &headers, framed(&get("acme")))).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}: {value}");
    }
}

/// No decision lets nothing through, and the caller's deadline counts.
#[tokio::test]
async fn without_capstan_every_call_is_refused_within_its_deadline() {
    let capstan = Real::demo().await;
    let world = World::new(capstan.client(Options::default()));
    let message = get("acme/platform/images/nginx");
    world.call("Get", "bob", &message).await.unwrap();
    capstan.kill();
    for timeout in ["300m", "300000u", "1S"] {
        let begun = Instant::now();
        let headers = [("x-identity", "bob"), ("grpc-timeout", timeout)];
        let status = world.send(request("Get", &headers, framed(&message))).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    // A body that does not come ends with the deadline, too.
    let (_sender, body) = http_body_util::channel::Channel::<Bytes, Status>::new(1);
    let body = Body::new(body);
    let waiting = Request::post(format!("/{IMAGES}/Get"))
        .header("x-identity", "bob")
        .header("grpc-timeout", "50m")
        .body(body)
        .unwrap();
    assert_eq!(world.send(waiting).await.unwrap_err().code(), Code::DeadlineExceeded);
    // Open methods ask nobody.
    world.call("Version", "", &[]).await.unwrap();
}

/// A revocation that the first service saw is seen by the second: it takes no decision of an older policy.
#[tokio::test]
async fn the_revision_is_carried_to_the_next_service() {
    let folder = folder("protect");
    let policy = |name: &str, bound: bool| {
        let binding = if bound { "\n  - {identity: bob, role: viewer, scope: acme}" } else { "" };
        let text = format!(
            "version: 1\ncatalog: chainguard-2025-08-14\ngroups: [{{id: acme}}]\nidentities: [{{id: ann}}, {{id: bob}}]\n\
             role_bindings:\n  - {{identity: ann, role: viewer, scope: acme}}{binding}\n"
        );
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (first, second) = (policy("first.yaml", true), policy("second.yaml", true));
    let start = async |path| Real::start(config(Source::File { path, bytes_max: 1 << 20 })).await;
    let (near, far) = (start(first).await, start(second).await);
    let (here, there) =
        (World::new(near.client(Options::default())), World::new(far.client(Options::default())));
    let seen = |world: &World| world.shop.0.lock().unwrap().pop();
    let send = async |world: &World, identity: &str, revision: Option<u64>, outside: &str| {
        let revision = revision.map(|revision| revision.to_string()).unwrap_or_default();
        let headers = [
            ("x-identity", identity),
            (REVISION_KEY, &*revision),
            ("x-outside", outside),
            ("grpc-timeout", "2S"),
        ];
        let response = world
            .service
            .clone()
            .oneshot(request("Get", &headers, framed(&get("acme"))))
            .await
            .unwrap();
        Status::from_header_map(response.headers()).map_or(Ok(()), Err)
    };
    // Bob is unbound in the first policy: its service sees the second revision.
    policy("first.yaml", false);
    let begun = Instant::now();
    let carried = loop {
        near.reload.send(Wake::Asked).await.unwrap();
        send(&here, "ann", None, "").await.unwrap();
        let (decided, carried) = seen(&here).unwrap();
        assert_eq!(decided, carried);
        if carried > Some(1) {
            break carried;
        }
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(send(&here, "bob", None, "").await.unwrap_err().code(), Code::PermissionDenied);
    // The second service has the old policy, which would let bob through. It does not, unless nobody asks for more.
    let refused = send(&there, "bob", carried, "").await.unwrap_err();
    assert!([Code::Unavailable, Code::DeadlineExceeded].contains(&refused.code()), "{refused:?}");
    assert!(seen(&there).is_none());
    send(&there, "bob", carried, "yes").await.unwrap();
    send(&there, "bob", None, "").await.unwrap();
    policy("second.yaml", false);
    let begun = Instant::now();
    loop {
        far.reload.send(Wake::Asked).await.unwrap();
        let refused = send(&there, "bob", carried, "").await.unwrap_err();
        if refused.code() == Code::PermissionDenied {
            break;
        }
        assert!(begun.elapsed() < PATIENCE);
    }
    let metadata = CarryRevision.call(tonic::Request::new(())).unwrap().metadata().clone();
    assert!(metadata.get(REVISION_KEY).is_none(), "outside of a call nothing is carried");
}

#[test]
fn a_service_does_not_start_with_a_method_that_says_nothing() {
    let descriptors = descriptors();
    let error = |service: &str| Rules::of_services(&descriptors, [service]).unwrap_err();
    assert_eq!(
        error("shop.v1.Unannotated"),
        RulesError::Missing { method: "shop.v1.Unannotated.Get".into() }
    );
    assert_eq!(error("shop.v1.None"), RulesError::NoService("shop.v1.None".into()));
    for (service, said) in [
        ("shop.v1.Streams", "takes a stream of requests"),
        ("shop.v1.NoField", "shop.v1.GetRequest has no single field `to.repo`"),
        ("shop.v1.NoText", "`to` of shop.v1.MoveRequest is no text"),
        ("shop.v1.Listed", "no single field `tags`"),
        ("shop.v1.Nowhere", "neither `resource` nor `at`"),
        ("shop.v1.Nothing", "no capability, and not open"),
        ("shop.v1.Both", "open, and a capability"),
    ] {
        let RulesError::Invalid { problem, .. } = error(service) else { panic!("{service}") };
        assert!(problem.contains(said), "{problem}");
    }
    assert!(matches!(Rules::of_services(b"x", [IMAGES]), Err(RulesError::Descriptors(_))));
    let other = tonic_types::pb::FILE_DESCRIPTOR_SET;
    assert_eq!(Rules::of_services(other, [IMAGES]).unwrap_err(), RulesError::NoOption);
}
