//! Stores of the real binary, `capstan serve --data`: what they keep through crashes and faults of the disk, when a write
//! is seen, and who may do what.

mod backup;
mod crash;
mod delegation;
mod discovery;
mod events;
mod faults;
mod invites;
mod methods;
mod offline;
mod resolved;
mod tokens;
mod visible;
mod watch;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::secrets::{Capstan, Channel};
use capstan_client::ServerAddress;
use capstan_proto::codec::Codec;
use capstan_proto::iam::v1 as iam;
use capstan_proto::v1;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;
use tempfile::TempDir;
use tokio_stream::Stream;
use tonic::client::Grpc;
use tonic::codec::{self, DecodeBuf, EncodeBuf};
use tonic::metadata::AsciiMetadataValue;
use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::common::{PATIENCE, Serving, capstan, command, stderr, stdout};

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(capstan_proto::DESCRIPTOR_SET).unwrap());

/// The catalog of the stores, unless a test takes another one.
const CATALOG: &str = "chainguard-2025-08-14";
/// The low bits of a revision: the number of the transaction.
const SEQUENCE: u64 = (1 << 40) - 1;
/// The call whose responses have no end.
const WATCH: &str = "PolicyService/Watch";

/// The directory of a store. Dropping it deletes it.
struct Data {
    dir: PathBuf,
    parent: TempDir,
}

impl Data {
    /// A store with the organization `acme` of `alice`.
    fn init(catalog: &str) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        init(&dir, catalog);
        Self { dir, parent }
    }

    fn serve(&self) -> Capstan {
        serve(&self.dir)
    }

    fn start(&self) -> Served {
        Served::start(self.serve())
    }
}

fn init(dir: &std::path::Path, catalog: &str) {
    let data = dir.to_str().unwrap();
    let made = ["init", "--data", data, "--org", "acme", "--owner", "alice", "--catalog", catalog];
    let made = capstan(&made);
    assert!(made.status.success(), "{}", stderr(&made));
}

/// `capstan serve` of a store, on a free port.
fn serve(dir: &std::path::Path) -> Capstan {
    let data = dir.to_str().unwrap();
    let arguments = ["serve", "--data", data, "--listen", "127.0.0.1:0", "--http", "none"];
    command(&[&arguments[..], &["--insecure-trust-caller-header"]].concat())
}

/// A server of a store. Dropping it kills the process.
struct Served {
    process: Serving,
    grpc: String,
    operator: String,
    /// From the start of the process until it was ready.
    started: Duration,
}

impl Served {
    fn start(mut command: Capstan) -> Self {
        let begun = Instant::now();
        let process = Serving::spawn(&mut command, 2);
        let started = begun.elapsed();
        let (grpc, operator) =
            (format!("http://{}", process.address("grpc")), process.address("management"));
        Self { process, grpc, operator, started }
    }

    /// A connection of its own, whose calls are this identity's; nobody's if it is empty.
    async fn caller(&self, identity: &str) -> Caller {
        let header = (!identity.is_empty()).then(|| identity.parse().unwrap());
        Caller { channel: channel(&self.grpc).await, header }
    }

    /// A connection of its own to the management socket.
    async fn operator(&self) -> Caller {
        Caller { channel: channel(&self.operator).await, header: None }
    }

    /// Kills the process, as `kill -9` does.
    fn kill(self) {
        drop(self);
    }
}

async fn channel(address: &str) -> Channel {
    let endpoint = address.parse::<ServerAddress>().unwrap().endpoint().unwrap();
    tokio::time::timeout(PATIENCE, endpoint.connect()).await.unwrap().unwrap().into()
}

/// Somebody who calls over a connection.
#[derive(Clone)]
struct Caller {
    channel: Channel,
    header: Option<AsciiMetadataValue>,
}

impl Caller {
    /// Calls `Service/Method` of `capstan.iam.v1`.
    async fn ask<A, R>(&self, method: &str, message: A) -> Result<R, Status>
    where
        A: Message + 'static,
        R: Message + Default + 'static,
    {
        let path = format!("/capstan.iam.v1.{method}");
        self.send(&path, Request::new(message)).await.map(Response::into_inner)
    }

    /// A unary call.
    async fn send<A, R>(&self, path: &str, mut request: Request<A>) -> Result<Response<R>, Status>
    where
        A: Message + 'static,
        R: Message + Default + 'static,
    {
        self.identify(&mut request);
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(8 << 20);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        grpc.unary(request, path.parse().unwrap(), Codec::<A, R>::default()).await
    }

    /// Calls `Service/Method` of `capstan.iam.v1` with a message as JSON.
    async fn json(&self, method: &str, message: &Value) -> Result<Value, Status> {
        let (input, output) = types(method);
        let request = DynamicMessage::deserialize(input, message).unwrap();
        let request = tokio_stream::once(request.encode_to_vec());
        let answers = self.raw(method, Request::new(request)).await?;
        let answer = DynamicMessage::decode(output, &answers[0][..]).unwrap();
        let names = SerializeOptions::new().use_proto_field_name(true);
        Ok(answer.serialize_with_options(serde_json::value::Serializer, &names).unwrap())
    }

    /// A call with encoded messages, whatever of it is streamed; of a watch, which has no end, the first response.
    async fn raw<S>(&self, method: &str, mut request: Request<S>) -> Result<Vec<Vec<u8>>, Status>
    where
        S: Stream<Item = Vec<u8>> + Send + 'static,
    {
        self.identify(&mut request);
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = format!("/capstan.iam.v1.{method}").parse().unwrap();
        let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
        let mut all = vec![];
        while let Some(answer) = answers.message().await? {
            all.push(answer);
            if method == WATCH {
                break;
            }
        }
        Ok(all)
    }

    fn identify<T>(&self, request: &mut Request<T>) {
        if let Some(header) = &self.header {
            request.metadata_mut().insert("x-capstan-caller", header.clone());
        }
    }

    async fn check(&self, identity: &str, capability: &str, resource: &str) -> v1::CheckResponse {
        self.try_check(identity, capability, resource, None).await.unwrap()
    }

    async fn try_check(
        &self,
        identity: &str,
        capability: &str,
        resource: &str,
        mode: Option<v1::consistency::Mode>,
    ) -> Result<v1::CheckResponse, Status> {
        let request = v1::CheckRequest {
            identity: identity.into(),
            capability: capability.into(),
            resource: resource.into(),
            consistency: mode.map(|mode| v1::Consistency { mode: Some(mode) }),
            ..Default::default()
        };
        let path = "/capstan.v1.DecisionService/Check";
        self.send(path, Request::new(request)).await.map(Response::into_inner)
    }

    /// All groups at or below a path, and the revision.
    async fn groups(&self, parent: &str) -> (Vec<iam::Group>, u64) {
        self.try_groups(parent).await.unwrap()
    }

    async fn try_groups(&self, parent: &str) -> Result<(Vec<iam::Group>, u64), Status> {
        let mut request = iam::ListGroupsRequest {
            parent: parent.into(),
            page_size: 1_000,
            ..Default::default()
        };
        let mut all = vec![];
        loop {
            let page: iam::ListGroupsResponse =
                self.ask("GroupService/ListGroups", request.clone()).await?;
            all.extend(page.groups);
            if page.next_page_token.is_empty() {
                return Ok((all, page.revision));
            }
            request.page_token = page.next_page_token;
        }
    }

    /// All role bindings at or below a path, and the revision.
    async fn bindings(&self, parent: &str) -> (Vec<iam::RoleBinding>, u64) {
        let mut request = iam::ListRoleBindingsRequest {
            parent: parent.into(),
            page_size: 1_000,
            ..Default::default()
        };
        let mut all = vec![];
        loop {
            let page: iam::ListRoleBindingsResponse =
                self.ask("RoleBindingService/ListRoleBindings", request.clone()).await.unwrap();
            all.extend(page.role_bindings);
            if page.next_page_token.is_empty() {
                return (all, page.revision);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Creates a group with this id.
    async fn create_group(&self, id: &str) -> u64 {
        let (parent, _) = id.rsplit_once('/').unwrap();
        let request = iam::CreateGroupRequest {
            parent: parent.into(),
            group: Some(iam::Group { id: id.into(), ..Default::default() }),
            ..Default::default()
        };
        let made: iam::CreateGroupResponse =
            self.ask("GroupService/CreateGroup", request).await.unwrap();
        made.revision
    }

    /// Creates bindings of these identities to `viewer` at a scope, in batches. Returns the last revision.
    async fn bind_all(&self, scope: &str, identities: impl Iterator<Item = String>) -> u64 {
        let bindings: Vec<_> = identities.map(|identity| binding(scope, "", &identity)).collect();
        let mut revision = 0;
        for batch in bindings.chunks(1_000) {
            let request = iam::BatchCreateRoleBindingsRequest {
                parent: scope.into(),
                role_bindings: batch.to_vec(),
                ..Default::default()
            };
            let method = "RoleBindingService/BatchCreateRoleBindings";
            let made: iam::BatchCreateRoleBindingsResponse =
                self.ask(method, request).await.unwrap();
            revision = made.revision;
        }
        revision
    }
}

/// A binding to `viewer`.
fn binding(scope: &str, id: &str, identity: &str) -> iam::RoleBinding {
    iam::RoleBinding {
        id: id.into(),
        identity: identity.into(),
        role: "viewer".into(),
        scope: scope.into(),
        ..Default::default()
    }
}

/// The id of a person who has not logged in yet.
fn person(number: usize) -> String {
    format!("{number:040x}")
}

/// Descriptors of the request and the response of `Service/Method`.
fn types(method: &str) -> (prost_reflect::MessageDescriptor, prost_reflect::MessageDescriptor) {
    let (service, name) = method.split_once('/').unwrap();
    let service = POOL.get_service_by_name(&format!("capstan.iam.v1.{service}")).unwrap();
    let method = service.methods().find(|method| method.name() == name).unwrap();
    (method.input(), method.output())
}

/// Messages as bytes.
#[derive(Clone, Copy, Debug)]
struct Raw;

impl codec::Codec for Raw {
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

impl codec::Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl codec::Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; bytes::Buf::remaining(buffer)];
        bytes::Buf::copy_to_slice(buffer, &mut bytes);
        Ok(Some(bytes))
    }
}

/// The reason of an error; empty if it has none.
fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// `capstan audit verify`: the number of records of a store that nobody has open.
fn audit_records(dir: &std::path::Path) -> u64 {
    let data = dir.to_str().unwrap();
    let verified = capstan(&["audit", "verify", "--data", data, "--output", "json"]);
    assert!(verified.status.success(), "{}{}", stdout(&verified), stderr(&verified));
    let verified: Value = serde_json::from_str(&stdout(&verified)).unwrap();
    assert_eq!(verified["valid"], true);
    verified["records"].as_u64().unwrap()
}
