//! Secrets are told nowhere but where they are shown by design: whatever tests see of a server and of the commands is searched for them, each
//! source in one place.
//!
//! | source | where it is searched |
//! |---|---|
//! | logs, and errors of commands | `common::stderr`, `common::Serving` |
//! | metrics | `metrics::scrape` |
//! | gRPC: statuses with their details, and answers, audit records and lists among them | [`Channel`], `raw::call` |
//! | HTTP: heads and bodies | [`assert_http_tells_no_secret`] |
//! | events at their sinks | [`Sink`] |
//! | traces | `traces::spans` |
//! | decision logs | [`decision_log`] |
//! | what commands print, `audit list` among them | [`Capstan`] |

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use capstan_testkit::https::Server;
use http_body::{Frame, SizeHint};
use regex::bytes::Regex;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, Request, Response};

/// Secrets of Capstan's, signed tokens, what headers show, private keys, and the passwords that documents of these tests have the hashes of.
static SECRETS: LazyLock<Regex> = LazyLock::new(|| {
    let all = [
        "capstan_(pt|inv)_[a-z2-7]{16}",
        r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8}",
        "(?i-u:bearer|basic) [A-Za-z0-9+/._-]{12}",
        "-----BEGIN [A-Z ]*PRIVATE KEY",
        // Ed25519 and P-256 in PKCS#8, without the lines around them, and in a JSON Web Key.
        "BQYDK2VwBCIEI[A-Za-z0-9+/]|AwEHBG0wawIBAQQg",
        r#""d" ?: ?"[A-Za-z0-9_-]{40}"#,
        "(ci|dev|xy)-secret|the_secret_of_",
    ];
    Regex::new(&all.join("|")).unwrap()
});

/// The length of a secret of which the beginning may be in one part of a body, and the rest in the next.
const SPLIT_MAX: usize = 256;

/// Methods whose answers show a secret, once.
const METHODS_THAT_SHOW: [&str; 2] = [
    "/capstan.iam.v1.PullTokenService/CreatePullToken",
    "/capstan.iam.v1.GroupInviteService/CreateGroupInvite",
];

/// Commands that print a secret, or a configuration that has one.
const COMMANDS_THAT_SHOW: [&[&str]; 6] = [
    &["auth", "pull-token", "create"],
    &["auth", "token"],
    &["auth", "exchange"],
    &["iam", "group-invites", "create"],
    &["iam", "group-invite", "create"],
    &["iam", "invites", "create"],
];

#[track_caller]
pub(crate) fn assert_tells_no_secret(text: impl AsRef<[u8]>) {
    let text = text.as_ref();
    if let Some(found) = SECRETS.find(text) {
        let lossy = String::from_utf8_lossy;
        panic!("{:?} is told in {}", lossy(found.as_bytes()), lossy(text));
    }
}

/// A connection of gRPC whose answers are searched.
#[derive(Clone, Debug)]
pub(crate) struct Channel(tonic::transport::Channel);

impl Channel {
    /// To this URL.
    pub(crate) async fn to(url: impl Into<Bytes>) -> Self {
        tonic::transport::Channel::from_shared(url).unwrap().connect().await.unwrap().into()
    }
}

impl From<tonic::transport::Channel> for Channel {
    fn from(channel: tonic::transport::Channel) -> Self {
        Self(channel)
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shows = METHODS_THAT_SHOW.contains(&request.uri().path());
        let answer = self.0.call(request);
        Box::pin(async move {
            let (head, body) = answer.await?.into_parts();
            assert_metadata_tells_no_secret(&head.headers);
            let body = Searched { body, shows, last: vec![] };
            Ok(Response::from_parts(head, Body::new(body)))
        })
    }
}

/// The body of an answer.
struct Searched {
    body: Body,
    /// Whether its messages show a secret by design. Its status never does.
    shows: bool,
    /// The end of what was read.
    last: Vec<u8>,
}

impl http_body::Body for Searched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let next = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &next {
            if let (Some(data), false) = (frame.data_ref(), self.shows) {
                self.last.extend_from_slice(data);
                assert_tells_no_secret(&self.last);
                let searched = self.last.len().saturating_sub(SPLIT_MAX);
                self.last.drain(..searched);
            }
            if let Some(trailers) = frame.trailers_ref() {
                assert_metadata_tells_no_secret(trailers);
            }
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Searches headers or trailers: the message and the details of a status, and whatever else is there.
pub(crate) fn assert_metadata_tells_no_secret(all: &HeaderMap) {
    for (name, value) in all {
        let value = value.as_bytes();
        assert_tells_no_secret(value);
        if name.as_str().ends_with("-bin") {
            let decoded = STANDARD_NO_PAD.decode(value).or_else(|_| STANDARD.decode(value));
            assert_tells_no_secret(decoded.unwrap());
        } else {
            assert_tells_no_secret(percent_decoded(value));
        }
    }
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let name = [b"m=", text].concat();
    // In a form a plus sign is a space.
    let name = String::from_utf8_lossy(&name).replace('+', "%2B").replace('&', "%26");
    form_urlencoded::parse(name.as_bytes())
        .flat_map(|(_, value)| value.into_owned().into_bytes())
        .collect()
}

/// Searches an answer of HTTP, but the body of an access token that was asked for.
#[track_caller]
pub(crate) fn assert_http_tells_no_secret(path: &str, status: u16, head: &str, body: &str) {
    assert_tells_no_secret(head);
    if (path, status) != ("/oauth2/token", 200) {
        assert_tells_no_secret(body);
    }
}

/// A sink of events. When it ends, all that it got is searched but who has sent it.
#[derive(Debug)]
pub(crate) struct Sink(pub(crate) Server);

impl Deref for Sink {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for request in self.0.requests() {
            assert_tells_no_secret(&request.line);
            assert_tells_no_secret(&request.body);
            let shown = request.headers.iter().filter(|(name, _)| name != "authorization");
            shown.for_each(|(name, value)| assert_tells_no_secret(format!("{name}: {value}")));
        }
    }
}

/// What a decision log has.
pub(crate) fn decision_log(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    assert_tells_no_secret(&text);
    text
}

/// A command of the binary. What it prints is searched when [`Self::output`] runs it.
pub(crate) struct Capstan(pub(crate) Command);

impl Deref for Capstan {
    type Target = Command;

    fn deref(&self) -> &Command {
        &self.0
    }
}

impl DerefMut for Capstan {
    fn deref_mut(&mut self) -> &mut Command {
        &mut self.0
    }
}

impl Capstan {
    pub(crate) fn output(&mut self) -> std::io::Result<Output> {
        let output = self.0.output()?;
        assert_prints_no_secret(&self.0, &output);
        Ok(output)
    }
}

/// Searches what a command has printed, but of those that are asked for a secret.
#[track_caller]
pub(crate) fn assert_prints_no_secret(command: &Command, output: &Output) {
    let words: Vec<_> = command.get_args().filter_map(|word| word.to_str()).collect();
    let is = |shows: &&[&str]| words.windows(shows.len()).any(|words| words == *shows);
    assert_tells_no_secret(&output.stderr);
    if !COMMANDS_THAT_SHOW.iter().any(is) {
        assert_tells_no_secret(&output.stdout);
    }
}

#[test]
fn secrets_are_found_wherever_they_are_told() {
    for secret in [
        "capstan_pt_abcdefghijklmnop234567",
        "capstan_inv_abcdefghijklmnop234567",
        "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJib3RzIn0.c2lnbmF0dXJl",
        "authorization: Bearer 0123456789abc",
        "Basic YWNtZS9hbGw6eA==",
        "-----BEGIN EC PRIVATE KEY-----",
        "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v",
        "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgfqb9",
        r#"{"kty": "OKP", "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}"#,
        "the password ci-secret",
    ] {
        let told =
            |text: String| std::panic::catch_unwind(|| assert_tells_no_secret(text)).is_err();
        assert!(told(format!("a {secret} b")), "{secret}");
        let percent: String =
            format!("a {secret} b").bytes().map(|byte| format!("%{byte:02x}")).collect();
        assert!(told(String::from_utf8(percent_decoded(percent.as_bytes())).unwrap()), "{secret}");
        let metadata = |name: &'static str, value: String| {
            let mut all = HeaderMap::new();
            all.insert(name, value.parse().unwrap());
            std::panic::catch_unwind(|| assert_metadata_tells_no_secret(&all)).is_err()
        };
        assert!(metadata("grpc-message", percent), "{secret}");
        assert!(metadata("grpc-status-details-bin", STANDARD_NO_PAD.encode(secret)), "{secret}");
    }
    assert_tells_no_secret("a token: capstan_pt_ and 59 characters; Bearer realm=\"capstan\"");
}

/// By the schema: no other method has its answers passed over, and each that shows a secret says so.
#[test]
fn the_methods_whose_answers_show_a_secret_are_those_of_the_schema() {
    let pool = prost_reflect::DescriptorPool::decode(capstan_proto::DESCRIPTOR_SET).unwrap();
    let methods: Vec<_> =
        pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
    let shows = methods.iter().filter(|method| {
        let output = method.output();
        let text = |name: &str| {
            output
                .get_field_by_name(name)
                .is_some_and(|field| field.kind() == prost_reflect::Kind::String)
        };
        text("secret") || text("code")
    });
    let path = |method: &prost_reflect::MethodDescriptor| {
        format!("/{}/{}", method.parent_service().full_name(), method.name())
    };
    let mut shows: Vec<_> = shows.map(path).collect();
    shows.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(shows, METHODS_THAT_SHOW);
}
