//! Admission alone, around services that panic or answer late.

use std::collections::HashSet;
use std::future::pending;

use capstan_proto::methods::METHODS;
use prost::Message as _;
use prost_types::FileDescriptorSet;

use http_body::{Body as HttpBody, Frame};
use tonic::codegen::Bytes;
use tonic::codegen::http::header::CONTENT_TYPE;
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::{Code, Status};

use super::*;
use crate::jitter::jittered;
use crate::limits::{CONNECTION_AGE, CONNECTION_AGE_JITTER_PART};
use crate::transport::connection::Remote;
use std::time::Duration;

fn admission<S>(metrics: &Arc<Metrics>, inner: S) -> Admission<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + Unpin + 'static,
{
    let limits = Limits::default();
    let telemetry = (WorkerMetrics::new(metrics), None);
    Admission::new(
        inner,
        limits,
        &AllPermits::new(&limits),
        telemetry,
        (|_, _| None, Arc::new(|_, _| None)),
    )
}

/// Admission around a service that answers each call with this future.
macro_rules! around {
    ($metrics:expr, $answer:expr) => {
        admission(
            $metrics,
            tower::service_fn(|_: Request<Body>| -> BoxFuture { Box::pin($answer) }),
        )
    };
}

type BoxFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// A body that returns one message and then panics; with `true` it panics at once.
struct PanickingBody(bool);

impl HttpBody for PanickingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if std::mem::replace(&mut self.0, true) {
            panic!("the secret of the stream");
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\0")))))
    }
}

async fn call_once<S>(service: &mut Admission<S>, path: &str) -> Status
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + Unpin + 'static,
{
    let request = Request::post(path).body(Body::empty()).unwrap();
    read_to_end(service.call(request).await).await
}

/// Reads a response to its end, and returns its status.
async fn read_to_end(answer: Response<ResponseBody>) -> Status {
    let (parts, mut body) = answer.into_parts();
    let mut all = parts.headers;
    assert_eq!(all.get(CONTENT_TYPE), Some(&GRPC_CONTENT_TYPE));
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(trailers) = frame.unwrap().into_trailers() {
            all.extend(trailers);
        }
    }
    assert!(body.is_end_stream() || body.call.is_none());
    Status::from_header_map(&all).unwrap()
}

fn ok_response(body: PanickingBody) -> Response<Body> {
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}

/// A call whose service answers after `millis`, with this `grpc-timeout`. Returns the code and the
/// milliseconds until the end.
async fn call_that_waits(millis: u64, timeout: &str, end: fn() -> Response<Body>) -> (Code, u128) {
    let metrics = Arc::new(Metrics::default());
    let inner = tower::service_fn(move |_: Request<Body>| -> BoxFuture {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Ok(end())
        })
    });
    let request = Request::post("/capstan.v1.DecisionService/Check");
    let request = request.header("grpc-timeout", timeout).body(Body::empty()).unwrap();
    let began = Instant::now();
    let answer = admission(&metrics, inner).call(request).await;
    let status = read_to_end(answer).await;
    let took = began.elapsed().as_millis();
    let name = format!("{:?}", status.code());
    let code =
        if name == "DeadlineExceeded" { "DEADLINE_EXCEEDED".into() } else { name.to_uppercase() };
    let counted = format!("capstan_requests_total{{rpc=\"Check\",code=\"{code}\"}} 1\n");
    assert!(scraped(&metrics).contains(&counted), "{counted}");
    assert!(scraped(&metrics).contains("capstan_in_flight 0\n"));
    (status.code(), took)
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_the_earlier_of_two_deadlines() {
    let unavailable = || Status::unavailable("later").into_http();
    let panics = || ok_response(PanickingBody(false));
    let late = Code::DeadlineExceeded;
    // The server's own deadline is one second.
    assert_eq!(call_that_waits(999, "", unavailable).await, (Code::Unavailable, 999));
    assert_eq!(call_that_waits(1_001, "", unavailable).await, (late, 1_000));
    assert_eq!(call_that_waits(5_000, "9S", unavailable).await, (late, 1_000));
    // The client's deadline.
    assert_eq!(call_that_waits(90, "100m", unavailable).await, (Code::Unavailable, 90));
    assert_eq!(call_that_waits(90, "100m", panics).await, (Code::Internal, 90));
    assert_eq!(call_that_waits(5, "10m", unavailable).await, (Code::Unavailable, 5));
    assert_eq!(call_that_waits(101, "100m", unavailable).await, (late, 100));
    // Not a timeout: more than eight digits, or no unit.
    for ignored in ["123456789u", "100", "m", "-1m"] {
        assert_eq!(call_that_waits(999, ignored, unavailable).await.0, Code::Unavailable);
    }
}

#[test]
fn the_ages_of_connections_differ() {
    let part = CONNECTION_AGE_JITTER_PART;
    let ages: HashSet<_> = (0..100).map(|_| jittered(CONNECTION_AGE, part)).collect();
    assert!(ages.len() > 90, "{} of 100 differ", ages.len());
    let spread = CONNECTION_AGE / part;
    let within = |age: &Duration| age.abs_diff(CONNECTION_AGE) <= spread;
    assert!(ages.iter().all(within), "{ages:?}");
    let far = |age: &&Duration| age.abs_diff(CONNECTION_AGE) > spread / 2;
    assert!(ages.iter().filter(far).count() > 10, "the whole spread is used: {ages:?}");
    assert_eq!(jittered(Duration::ZERO, part), Duration::ZERO);
}

fn scraped(metrics: &Arc<Metrics>) -> String {
    use crate::telemetry::metrics::{Format, registry, scrape};
    scrape(&registry(metrics), Format::OpenMetrics).unwrap()
}

#[tokio::test]
async fn a_panic_in_any_call_ends_that_call_only() {
    let metrics = Arc::new(Metrics::default());
    let mut in_head = around!(&metrics, async { panic!("the secret of the head") });
    let mut in_body = around!(&metrics, async { Ok(ok_response(PanickingBody(false))) });
    let files = FileDescriptorSet::decode(capstan_proto::DESCRIPTOR_SET).unwrap().file;
    let services = files.iter().filter(|file| file.package().starts_with("capstan."));
    let mut correlations = HashSet::new();
    let mut calls = 0;
    let services = services.flat_map(|file| file.service.iter().map(|it| (file.package(), it)));
    for (package, service) in services {
        for method in &service.method {
            let path = format!("/{package}.{}/{}", service.name(), method.name());
            for status in
                [call_once(&mut in_head, &path).await, call_once(&mut in_body, &path).await]
            {
                assert_eq!(status.code(), Code::Internal, "{path}");
                let correlation = status.message().strip_prefix("internal error ").unwrap();
                assert_eq!(correlation.len(), 16);
                assert!(correlations.insert(correlation.to_owned()));
                assert!(status.details().windows(6).all(|bytes| bytes != b"secret"));
                calls += 1;
            }
        }
    }
    assert_eq!(calls, 2 * METHODS.len());
    let text = scraped(&metrics);
    assert!(text.contains(&format!("capstan_panics_total {calls}\n")), "{text}");
    assert!(text.contains("capstan_in_flight 0\n"), "{text}");
    assert_eq!(
        in_head.worker.permits.decisions.available.available_permits(),
        Limits::default().in_flight_max
    );
}

/// Management calls that wait take no permit from decisions, and shed calls are counted as theirs.
#[tokio::test]
async fn management_calls_have_permits_of_their_own() {
    let limits = Limits { management_max: 2, peer_management_max: 1, ..Limits::default() };
    let metrics = Arc::new(Metrics::default());
    let waits = tower::service_fn(|_: Request<Body>| -> BoxFuture { Box::pin(pending()) });
    let telemetry = (WorkerMetrics::new(&metrics), None);
    let permits = AllPermits::new(&limits);
    let mut service =
        Admission::new(waits, limits, &permits, telemetry, (|_, _| None, Arc::new(|_, _| None)));
    let mut call = |path: &str, peer: &str| {
        let mut request = Request::post(path).body(Body::empty()).unwrap();
        request.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
        request.extensions_mut().insert(Remote::Ip(peer.parse().unwrap()));
        let mut call = Box::pin(service.call(request));
        let waits = call.as_mut().now_or_never().is_none();
        (waits, call)
    };
    let (write, check) =
        ("/capstan.iam.v1.GroupService/CreateGroup", "/capstan.v1.DecisionService/Check");
    let (waits, _first) = call(write, "192.0.2.1:1");
    assert!(waits);
    assert!(!call(write, "192.0.2.1:2").0, "the peer has its permit");
    let (waits, _second) = call(write, "192.0.2.2:1");
    assert!(waits);
    assert!(!call(write, "192.0.2.3:1").0, "all are taken");
    let (waits, _decision) = call(check, "192.0.2.1:3");
    assert!(waits, "decisions have others");
    let text = scraped(&metrics);
    assert!(text.contains("capstan_shed_total{scope=\"management\"} 2\n"), "{text}");
    assert!(text.contains("capstan_in_flight 3\n"), "{text}");
}

/// Permits are never over-committed, in total or for one peer, and all are released, in every order
/// of steps.
#[test]
fn permits_are_never_over_committed() {
    crate::interleave::check(|| {
        let limits = Limits { in_flight_max: 2, peer_in_flight_max: 1, ..Limits::default() };
        let metrics = Arc::new(Metrics::default());
        let permits = AllPermits::new(&limits).decisions;
        let held = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let peers = ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1", "192.0.2.3:1"];
        let threads = peers.map(|peer| {
            let (permits, held) = (Arc::clone(&permits), Arc::clone(&held));
            let metrics = WorkerMetrics::new(&metrics);
            let peer = Peer::of(Some(&Remote::Ip(peer.parse().unwrap())));
            shuttle::thread::spawn(move || {
                let permit = Permit::acquire(&permits, &metrics, peer);
                let taken = permit.is_ok();
                if taken {
                    use std::sync::atomic::Ordering::SeqCst;
                    assert!(held.fetch_add(1, SeqCst) < 2, "more than two permits");
                    crate::interleave::point();
                    assert_eq!(permits.peers.count(peer), 1, "more than one permit of a peer");
                    held.fetch_sub(1, SeqCst);
                }
                drop(permit);
                taken
            })
        });
        let taken: Vec<bool> = threads.into_iter().map(|one| one.join().unwrap()).collect();
        assert!(taken.contains(&true), "a free permit is refused to everybody");
        assert_eq!(permits.available.available_permits(), 2, "a permit was lost");
        assert!(peers.iter().all(|peer| {
            let remote = Remote::Ip(peer.parse().unwrap());
            permits.peers.count(Peer::of(Some(&remote))) == 0
        }));
    });
}
