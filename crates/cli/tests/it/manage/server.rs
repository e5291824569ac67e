//! A server of `capstan.iam.v1` with a small state, for what a real one does not show: the requests as they were sent,
//! and refusals, delays and broken answers at will.
//!
//! It knows no rule of the management: each call is found in the schema, read as JSON, and answered from lists of JSON.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::task::{Context, Poll};

use futures_util::{StreamExt as _, stream};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(capstan_proto::DESCRIPTOR_SET).unwrap());
const NAMES: SerializeOptions = SerializeOptions::new().use_proto_field_name(true);
/// The code of each invite.
pub(super) const CODE: &str =
    "capstan_inv_fivcukrkfivcukrkfivcukrkfivcukrkfivcukrkfivcukrkfivbcpyyca";
/// The secret of each pull token.
pub(super) const SECRET: &str =
    "capstan_pt_fivcukrkfivcukrkfivcukrkfivcukrkfivcukrkfivcukrkfivaplndqyy";
/// Objects of a page: few, so that every list has several pages.
const PAGE: usize = 2;

/// A call as it came.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// `GroupService/CreateGroup`.
    pub(super) method: String,
    /// The messages, with the names of the schema; what is not set is absent.
    pub(super) messages: Vec<Value>,
    pub(super) caller: Option<String>,
    pub(super) email: Option<String>,
}

impl Call {
    pub(super) fn message(&self) -> &Value {
        &self.messages[0]
    }
}

#[derive(Debug, Default)]
struct State {
    /// Objects by the field of their list, such as `role_bindings`.
    objects: BTreeMap<&'static str, Vec<Value>>,
    revision: u64,
    calls: Vec<Call>,
    /// What methods answer instead of what they would, in turn.
    scripted: Vec<(&'static str, Scripted)>,
}

/// An answer: messages of a stream, or one.
pub(super) type Answer = Result<Vec<Value>, Status>;

/// An answer, and how the stream of its messages ends.
#[derive(Debug)]
struct Scripted {
    answer: Answer,
    end: End,
}

/// How a stream ends behind its messages.
#[derive(Debug, Default)]
pub(super) enum End {
    #[default]
    Well,
    With(Status),
    /// It does not: the next message never comes.
    Never,
}

/// A running server. It ends with the runtime.
#[derive(Clone, Debug)]
pub(super) struct Fake {
    state: Arc<Mutex<State>>,
    pub(super) addr: String,
}

/// The kinds: service, object, and the field of a list.
const KINDS: [(&str, &str, &str, &str); 9] = [
    ("GroupService", "Group", "group", "groups"),
    ("RoleService", "Role", "role", "roles"),
    ("RoleBindingService", "RoleBinding", "role_binding", "role_bindings"),
    ("IdentityService", "Identity", "identity", "identities"),
    ("PullTokenService", "PullToken", "pull_token", "pull_tokens"),
    ("GroupInviteService", "GroupInvite", "group_invite", "group_invites"),
    ("SubscriptionService", "Subscription", "subscription", "subscriptions"),
    ("ResourceService", "Resource", "resource", "resources"),
    ("AuditService", "AuditRecord", "audit_record", "audit_records"),
];

impl Fake {
    /// Starts a server with an organization `acme`.
    pub(super) fn start() -> Self {
        let state = State { objects: world(), revision: (1 << 40) + 7, ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let service = FakeService(Arc::clone(&state));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                listener.set_nonblocking(true).unwrap();
                let listener = TcpListener::from_std(listener).unwrap();
                let incoming = TcpListenerStream::new(listener);
                // As Capstan's own server, which answers other protocols with an error.
                let mut server = tonic::transport::Server::builder().accept_http1(true);
                let routes = tonic::service::Routes::new(service);
                server.add_routes(routes).serve_with_incoming(incoming).await.unwrap();
            });
        });
        Self { state, addr: format!("http://{address}") }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The next call of this method has this answer.
    pub(super) fn script(&self, method: &'static str, answer: Answer) {
        self.state().scripted.push((method, Scripted { answer, end: End::Well }));
    }

    /// The next call of this method has a stream of these messages, and this end.
    pub(super) fn script_stream(&self, method: &'static str, messages: Vec<Value>, end: End) {
        self.state().scripted.push((method, Scripted { answer: Ok(messages), end }));
    }

    pub(super) fn put(&self, list: &'static str, object: Value) {
        self.state().objects.entry(list).or_default().push(object);
    }

    /// The calls since the last question.
    pub(super) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state().calls)
    }

    /// The only call of this method since the last question.
    pub(super) fn call(&self, method: &str) -> Call {
        let calls = self.calls();
        let mut found = calls.iter().filter(|call| call.method.ends_with(method));
        let call = found.next().unwrap_or_else(|| panic!("no {method} in {calls:?}"));
        assert!(found.next().is_none(), "{method} twice: {calls:?}");
        call.clone()
    }
}

fn world() -> BTreeMap<&'static str, Vec<Value>> {
    let time = "2026-11-01T00:00:00Z";
    let record = |revision: u64, code: i32, actor: &str| {
        json!({"revision": revision, "time": format!("2026-11-0{revision}T00:00:00Z"), "actor": actor, "code": code,
            "authentication": "caller-header", "method": "capstan.iam.v1.GroupService/CreateGroup",
            "object": "acme/web", "reason": if code == 0 { "" } else { "MISSING_CAPABILITY" },
            "missing": if code == 0 { json!([]) } else { json!(["groups.create"]) }, "scope": "acme"})
    };
    [
        (
            "groups",
            json!([
                {"id": "acme", "name": "Acme Corp", "etag": "1", "create_time": time},
                {"id": "acme/web", "name": "Web", "etag": "2"},
                {"id": "acme/web/eu", "name": "Web", "etag": "3"},
                {"id": "other", "name": "Other", "etag": "4"},
            ]),
        ),
        (
            "roles",
            json!([
                {"id": "owner", "family": "administrative", "capabilities": ["groups.create", "groups.list"]},
                {"id": "viewer", "family": "administrative", "capabilities": ["groups.list", "repo.list"]},
                {"id": "acme/puller", "name": "Puller", "family": "custom", "etag": "5",
                 "capabilities": ["apk.list", "repo.list"]},
            ]),
        ),
        (
            "role_bindings",
            json!([
                {"id": "acme/b1", "identity": "alice", "role": "owner", "scope": "acme", "etag": "6"},
                {"id": "acme/web/b2", "identity": "acme/ci", "role": "acme/puller", "scope": "acme/web",
                 "expires_at": "2099-01-01T00:00:00Z", "etag": "7"},
                {"id": "acme/web/b3", "identity": "alice", "role": "viewer", "scope": "acme/web", "etag": "8",
                 "when": [{"attribute": "resource.status", "not_equals": "archived"}]},
            ]),
        ),
        (
            "identities",
            json!([
                {"id": "alice", "name": "Alice", "type": "user", "etag": "9"},
                {"id": "acme/ci", "name": "CI bot", "type": "service", "properties": {"team": "web", "level": 3},
                 "etag": "10"},
            ]),
        ),
        (
            "pull_tokens",
            json!([
                {"id": "acme/b0b0b0b0b0b0b0b0", "name": "nightly", "role": "registry.pull", "scope": "acme",
                 "expires_at": "2099-01-01T00:00:00Z", "last_seen": time},
                {"id": "acme/web/c1c1c1c1c1c1c1c1", "role": "apk.pull", "scope": "acme/web",
                 "expires_at": "2099-01-01T00:00:00Z"},
                {"id": "other/d2d2d2d2d2d2d2d2", "role": "apk.pull", "scope": "other",
                 "expires_at": "2099-01-01T00:00:00Z"},
            ]),
        ),
        (
            "group_invites",
            json!([
                {"id": "acme/web/e3e3e3e3e3e3e3e3", "name": "Ann", "role": "viewer", "email": "ann@example.com",
                 "single_use": true, "expires_at": "2099-01-01T00:00:00Z", "etag": "13"},
                {"id": "acme/open", "role": "registry.pull", "single_use": false,
                 "expires_at": "2099-01-01T00:00:00Z", "etag": "14"},
            ]),
        ),
        (
            "subscriptions",
            json!([
                {"id": "acme/s1", "name": "Chat", "sink": "https://chat.example/events", "etag": "15",
                 "types": ["dev.capstan.iam.role_binding.", "dev.capstan.iam.group.created."], "creator": "alice"},
                {"id": "acme/web/s2", "sink": "https://web.example/events", "etag": "16", "creator": "alice",
                 "disabled_reason": "the sink has not consented yet"},
                {"id": "other/s3", "sink": "https://gone.example/", "etag": "17", "disabled": true,
                 "disabled_reason": "the sink answered 410 Gone"},
            ]),
        ),
        (
            "resources",
            json!([{"id": "acme/web/nginx", "type": "repo", "name": "", "etag": "11",
                "properties": {"visibility": "private"}}]),
        ),
        (
            "audit_records",
            json!([record(1, 0, "alice"), record(2, 7, "bob"), record(3, 0, "alice")]),
        ),
    ]
    .map(|(list, objects)| (list, objects.as_array().unwrap().clone()))
    .into()
}

/// A refusal with its ErrorInfo.
pub(super) fn refusal(
    code: tonic::Code,
    message: &str,
    reason: &str,
    metadata: &[(&str, &str)],
) -> Status {
    use tonic_types::{ErrorDetails, StatusExt as _};
    let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let metadata: std::collections::HashMap<String, String> = metadata.collect();
    Status::with_error_details(
        code,
        message,
        ErrorDetails::with_error_info(reason, "capstan", metadata),
    )
}

/// With a wait before the next attempt.
pub(super) fn pushed_back(mut status: Status, millis: i64) -> Status {
    let key = capstan_proto::contract::RETRY_PUSHBACK_KEY;
    status.metadata_mut().insert(key, millis.to_string().parse().unwrap());
    status
}

// === Answers ===

impl State {
    /// The scripted answer to a call, or that of the state.
    fn respond(&mut self, call: Call) -> Scripted {
        let of = |(of, _): &(&str, Scripted)| call.method.rsplit('/').next() == Some(of);
        match self.scripted.iter().position(of) {
            Some(at) => {
                self.calls.push(call);
                self.scripted.remove(at).1
            }
            None => Scripted { answer: self.answer(call), end: End::Well },
        }
    }

    fn answer(&mut self, call: Call) -> Answer {
        let (method, message) = (call.method.clone(), call.message().clone());
        self.calls.push(call);
        let (service, name) = method.split_once('/').unwrap();
        let Some(&(_, _, field, list)) = KINDS.iter().find(|kind| kind.0 == service) else {
            return Err(Status::unimplemented(""));
        };
        let answer = match name {
            "CreatePullToken" => self.create_token(&message),
            "RevokePullToken" => {
                self.find(list, message["id"].as_str().unwrap())?;
                json!({"revision": self.next(&message)})
            }
            "CreateGroupInvite" => {
                let mut made = self.create(field, list, &message)?;
                if message["validate_only"] != true {
                    made["code"] = json!(CODE);
                }
                made["group_invite"]["expires_at"] = json!("2099-01-01T00:00:00Z");
                made
            }
            "CreateSubscription" => {
                let mut made = self.create(field, list, &message)?;
                made["subscription"]["disabled_reason"] = json!("the sink has not consented yet");
                made
            }
            "ConfirmSubscription" => {
                let found = self.find(list, message["id"].as_str().unwrap())?.clone();
                json!({(field): found, "revision": self.next(&message)})
            }
            "AcceptGroupInvite" => {
                let binding = json!({"id": "acme/web/0123456789abcdef", "identity": "alice",
                    "role": "viewer", "scope": "acme/web"});
                json!({"role_binding": binding, "revision": self.next(&message)})
            }
            "LookupIdentity" => json!({"id": "0f".repeat(20)}),
            "RemoveMember" | "BatchDeleteRoleBindings" => {
                json!({"revision": self.next(&message)})
            }
            "BatchCreateRoleBindings" => {
                let made = message["role_bindings"].as_array().unwrap().iter().enumerate();
                let made = made.map(|(at, one)| {
                    let mut one = one.clone();
                    one["id"] = json!(format!("{}/made{at}", one["scope"].as_str().unwrap()));
                    one
                });
                json!({"role_bindings": made.collect::<Vec<_>>(), "revision": self.next(&message)})
            }
            _ if name.starts_with("List") => self.list(list, &message)?,
            _ if name.starts_with("Get") => {
                let found = self.find(list, message["id"].as_str().unwrap())?.clone();
                json!({(field): found, "revision": self.revision})
            }
            _ if name.starts_with("Create") => self.create(field, list, &message)?,
            _ if name.starts_with("Update") => self.update(field, list, &message)?,
            _ if name.starts_with("Delete") => {
                self.check_etag(list, &message["id"], &message["etag"])?;
                json!({"revision": self.next(&message)})
            }
            _ => return Err(Status::unimplemented("")),
        };
        Ok(vec![answer])
    }

    /// The revision after a write.
    fn next(&mut self, message: &Value) -> u64 {
        self.revision += u64::from(message["validate_only"] != true);
        self.revision
    }

    fn find(&self, list: &str, id: &str) -> Result<&Value, Status> {
        let found = self.objects[list].iter().find(|object| object["id"] == id);
        found.ok_or_else(|| Status::not_found(format!("no {id}")))
    }

    fn check_etag(&self, list: &str, id: &Value, etag: &Value) -> Result<(), Status> {
        let found = self.find(list, id.as_str().unwrap())?;
        match etag.as_str() {
            Some(etag) if found["etag"] != etag => {
                Err(refusal(tonic::Code::Aborted, "the etag is another one", "CONFLICT", &[]))
            }
            _ => Ok(()),
        }
    }

    fn list(&self, list: &str, message: &Value) -> Result<Value, Status> {
        let parent = message["parent"].as_str().unwrap_or_default();
        let filter = message["filter"].as_str().unwrap_or_default();
        let terms: Vec<(&str, &str)> = filter
            .split(" AND ")
            .filter(|term| !term.is_empty())
            .map(|term| {
                let (field, value) = term.split_once(" = ").unwrap();
                (field, value.trim_matches('"'))
            })
            .collect();
        let is_below = |object: &&Value| {
            let id = object["id"].as_str().unwrap_or(parent);
            parent.is_empty() || id == parent || id.starts_with(&format!("{parent}/"))
        };
        let all = self.objects[list].iter().filter(is_below);
        let found: Vec<_> = all
            .filter(|object| terms.iter().all(|(field, value)| object[*field] == *value))
            .collect();
        let from: usize = message["page_token"].as_str().map_or(0, |token| token.parse().unwrap());
        let page: Vec<_> = found.iter().skip(from).take(PAGE).collect();
        let next = from + page.len();
        let token = if next < found.len() { next.to_string() } else { String::new() };
        let mut answer = json!({(list): page, "next_page_token": token, "revision": self.revision});
        if list == "roles" {
            answer["catalog"] = json!("chainguard-2025-08-14");
        }
        Ok(answer)
    }

    fn create(
        &mut self,
        field: &str,
        list: &'static str,
        message: &Value,
    ) -> Result<Value, Status> {
        let mut object = message[field].clone();
        let parent = message["parent"].as_str().unwrap_or_default();
        if object.get("id").is_none() {
            object["id"] = json!(format!("{parent}/0123456789abcdef"));
        }
        object["etag"] = json!("12");
        if self.find(list, object["id"].as_str().unwrap()).is_ok() {
            return Err(Status::already_exists("the id is taken"));
        }
        if message["validate_only"] != true {
            self.objects.entry(list).or_default().push(object.clone());
        }
        Ok(json!({(field): object, "revision": self.next(message)}))
    }

    fn create_token(&mut self, message: &Value) -> Value {
        let group = &message["group"];
        let id = format!("{}/0123456789abcdef", group.as_str().unwrap());
        let secret = if message["validate_only"] == true { "" } else { SECRET };
        let mut token = json!({"id": id, "role": message["role"], "scope": group,
            "expires_at": "2099-01-01T00:00:00Z"});
        if let Some(name) = message.get("name") {
            token["name"] = name.clone();
        }
        json!({"pull_token": token, "username": id, "secret": secret, "revision": self.next(message)})
    }

    fn update(&mut self, field: &str, list: &str, message: &Value) -> Result<Value, Status> {
        let new = &message[field];
        self.check_etag(list, &new["id"], &new["etag"])?;
        let mut object = self.find(list, new["id"].as_str().unwrap())?.clone();
        let mask = message["update_mask"].as_str().unwrap_or_default();
        for path in mask.split(',').filter(|path| !path.is_empty()) {
            // JSON has the paths of a mask in camel case.
            let path = match path {
                "expiresAt" => "expires_at",
                other => other,
            };
            object[path] = new[path].clone();
            if object[path].is_null() {
                object.as_object_mut().unwrap().remove(path);
            }
        }
        if let Some(how) = new.get("claim_match") {
            object.as_object_mut().unwrap().remove("authentication");
            object["claim_match"] = how.clone();
        }
        Ok(json!({(field): object, "revision": self.next(message)}))
    }
}

// === The wire ===

/// Finds the method of a path in the schema.
fn method(path: &str) -> Option<(MessageDescriptor, MessageDescriptor)> {
    let (service, name) = path.trim_start_matches('/').split_once('/')?;
    let service = POOL.get_service_by_name(service)?;
    let found = service.methods().find(|method| method.name() == name)?;
    Some((found.input(), found.output()))
}

fn read(descriptor: &MessageDescriptor, bytes: &[u8]) -> Value {
    let message = DynamicMessage::decode(descriptor.clone(), bytes).unwrap();
    message.serialize_with_options(serde_json::value::Serializer, &NAMES).unwrap()
}

fn written(descriptor: &MessageDescriptor, json: Value) -> Vec<u8> {
    DynamicMessage::deserialize(descriptor.clone(), json).unwrap().encode_to_vec()
}

#[derive(Clone)]
struct FakeService(Arc<Mutex<State>>);

impl tonic::server::NamedService for FakeService {
    // Every path, as the router of tonic matches `/NAME/{*rest}`.
    const NAME: &'static str = "{service}";
}

impl Service<http::Request<Body>> for FakeService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let one = OneCall { path, state: Arc::clone(&self.0) };
        Box::pin(async move { Ok(Grpc::new(Raw).streaming(one, request).await) })
    }
}

struct OneCall {
    path: String,
    state: Arc<Mutex<State>>,
}

type Answers = stream::BoxStream<'static, Result<Vec<u8>, Status>>;

impl StreamingService<Vec<u8>> for OneCall {
    type Response = Vec<u8>;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answers>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Vec<u8>>>) -> Self::Future {
        let (path, state) = (self.path.clone(), Arc::clone(&self.state));
        Box::pin(async move {
            let (input, output) =
                method(&path).ok_or_else(|| Status::unimplemented("no such call"))?;
            let header = |key| {
                let value = request.metadata().get(key).map(|value| value.to_str().unwrap());
                value.map(str::to_owned)
            };
            let (caller, email) = (header("x-capstan-caller"), header("x-capstan-caller-email"));
            let mut received = request.into_inner();
            let mut messages = Vec::new();
            while let Some(bytes) = received.message().await? {
                messages.push(read(&input, &bytes));
            }
            let method = path.rsplit('.').next().unwrap().to_owned();
            let call = Call { method, messages, caller, email };
            let Scripted { answer, end } = state.lock().unwrap().respond(call);
            let answers = answer?.into_iter().map(|json| Ok(written(&output, json)));
            let answers = stream::iter(answers.collect::<Vec<_>>());
            Ok(Response::new(match end {
                End::Well => answers.boxed(),
                End::With(status) => answers.chain(stream::iter([Err(status)])).boxed(),
                End::Never => answers.chain(stream::pending()).boxed(),
            }))
        })
    }
}

/// Messages as bytes.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; bytes::Buf::remaining(buffer)];
        bytes::Buf::copy_to_slice(buffer, &mut bytes);
        Ok(Some(bytes))
    }
}
