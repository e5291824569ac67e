//! The access to methods: every method of the schema is called over gRPC by a caller of every built-in
//! role, and by a caller without identity.

use std::fmt::Write as _;

use capstan_engine::Path;
use capstan_policy::{Catalogs, load_policy};
use capstan_proto::codec::Codec;
use capstan_proto::methods::METHODS;
use capstan_server::feed::source::{DEMO, Source};
use tonic::client::Grpc;
use tonic::{Code, Request};

use crate::common::{InProcess, golden};

/// The metadata key for the identity of a caller (contract, section 6).
const CALLER: &str = "x-capstan-caller";

/// An empty message. Its encoding is valid for every message type.
#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

/// Methods × roles of the demo. A cell shows whether the caller has access, not whether the empty request
/// is valid. A method must not answer a caller without access, and every method of the schema must be
/// served.
#[tokio::test]
async fn access_to_methods_matches_the_golden_file() {
    let policy = load_policy(DEMO.as_bytes(), &Catalogs::default()).unwrap();
    let facts = policy.model.facts();
    let server = InProcess::start(Source::Demo).await;

    let roles = policy.model.catalog().roles().iter().map(|role| role.name.as_str());
    let holder = |role: &str| {
        let bindings = facts.role_bindings.iter().filter(|binding| &*binding.role == role);
        let lasting = bindings.filter(|binding| binding.expires_at.is_none());
        lasting.map(|binding| binding.identity.to_string()).next()
    };
    let mut callers: Vec<(&str, Option<String>)> = vec![("(no caller)", None)];
    for role in roles {
        let identity = holder(role).unwrap_or_else(|| panic!("the demo has no binding of {role}"));
        assert!(Path::parse(&identity).is_ok());
        callers.push((role, Some(identity)));
    }

    let mut matrix = String::from("# ✔ let in, · refused\n");
    for (column, (role, identity)) in callers.iter().enumerate() {
        let identity = identity.as_deref().unwrap_or("-");
        writeln!(matrix, "# column {}: {role} ({identity})", column + 1).unwrap();
    }
    for method in METHODS {
        let mut marks = String::new();
        for (_, identity) in &callers {
            marks.push(if is_let_in(&server, method.path, identity.as_deref()).await {
                '✔'
            } else {
                '·'
            });
        }
        writeln!(matrix, "{marks}  {}", method.path).unwrap();
    }
    golden("methods.matrix", &matrix);
}

async fn is_let_in(server: &InProcess, path: &'static str, caller: Option<&str>) -> bool {
    let mut grpc = Grpc::new(server.channel.clone());
    grpc.ready().await.unwrap();
    let mut request = Request::new(tokio_stream::once(Empty {}));
    if let Some(caller) = caller {
        request.metadata_mut().insert(CALLER, caller.parse().unwrap());
    }
    let codec = Codec::<Empty, Empty>::default();
    let answer = grpc.streaming(request, path.parse().unwrap(), codec).await;
    let status = match answer {
        Ok(answer) => answer.into_inner().message().await.err(),
        Err(status) => Some(status),
    };
    let code = status.map_or(Code::Ok, |status| status.code());
    assert_ne!(code, Code::Unimplemented, "{path} is in the schema but not served");
    assert_ne!(code, Code::Internal, "{path}");
    !matches!(code, Code::Unauthenticated | Code::PermissionDenied)
}
