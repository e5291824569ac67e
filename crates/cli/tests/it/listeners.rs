//! Addresses that serve decisions or management, each with its own rules.

use std::net::SocketAddr;

use capstan_proto::iam::v1 as iam;
use capstan_proto::v1;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use prost::Message as _;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;

use crate::common::{Serving, capstan, stderr};
use crate::raw::{self, Body, batch, check, framed};

const POLICY: [&str; 2] = ["--policy", "deploy/quickstart/policy.yaml"];
const EXT_AUTHZ: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The method, its request, and whether the addresses for decisions and for management serve it.
fn calls() -> Vec<(&'static str, Vec<u8>, [bool; 2])> {
    let capabilities = v1::ListCapabilitiesRequest {
        identity: "alice".into(),
        resource: "acme".into(),
        ..Default::default()
    };
    let (decides, manages, both) = ([true, false], [false, true], [true, true]);
    vec![
        ("/capstan.v1.DecisionService/Check", framed(&check()), decides),
        ("/capstan.v1.DecisionService/BatchCheck", framed(&batch(2)), decides),
        ("/capstan.v1.DecisionService/StreamCheck", framed(&batch(2)), decides),
        ("/capstan.v1.DecisionService/ListCapabilities", framed(&capabilities), decides),
        (EXT_AUTHZ, framed(&CheckRequest::default()), decides),
        (
            "/capstan.iam.v1.RoleService/ListRoles",
            framed(&iam::ListRolesRequest::default()),
            manages,
        ),
        (
            "/capstan.iam.v1.GroupService/ListGroups",
            framed(&iam::ListGroupsRequest::default()),
            manages,
        ),
        ("/grpc.health.v1.Health/Check", framed(&HealthCheckRequest::default()), both),
    ]
}

async fn assert_serves(address: &str, at: Option<usize>) {
    let address: SocketAddr = address.parse().unwrap();
    for (path, bytes, served) in calls() {
        let served = at.is_none_or(|at| served[at]);
        let answer = raw::call(address, path, &[], (bytes, Body::Whole)).await.unwrap();
        if path == EXT_AUTHZ {
            // Malformed where it is served. Elsewhere a denial: an error could let a request pass.
            let answer = CheckResponse::decode(&answer.data[5..]).unwrap();
            let expected = if served { Code::InvalidArgument } else { Code::PermissionDenied };
            assert_eq!(answer.status.unwrap().code, expected as i32, "{address} {path}");
            continue;
        }
        let expected = if served { Code::Ok } else { Code::Unimplemented };
        assert_eq!(answer.code(), expected, "{address} {path}: {:?}", answer.status);
        if !served {
            let said = answer.status.unwrap().message().to_owned();
            assert!(said.contains("at another address (--listen"), "{said}");
        }
    }
}

#[tokio::test]
async fn decisions_and_management_have_addresses_of_their_own() {
    let any = ["--listen", "127.0.0.1:0", "--http", "none"];
    let together = Serving::start(&[&POLICY[..], &any].concat(), 1);
    assert_serves(&together.address("grpc"), None).await;
    let more = ["--listen-management", "127.0.0.1:0"];
    let apart = Serving::start(&[&POLICY[..], &any, &more].concat(), 2);
    assert_serves(&apart.address("grpc"), Some(0)).await;
    assert_serves(&apart.address("grpc-management"), Some(1)).await;
}

/// The operator's socket has both, also beside two addresses; and the commands of the demo say the right ones.
#[test]
fn the_operator_has_everything_at_one_socket() {
    let arguments = ["--demo", "--listen", "127.0.0.1:0", "--listen-management", "127.0.0.1:0"];
    let server = Serving::start(&[&arguments[..], &["--http", "none"]].concat(), 18);
    let operator = server.address("management");
    let manages = format!("http://{}", server.address("grpc-management"));
    for command in [
        &["check", "alice", "repo.delete", "acme", "--addr", &operator][..],
        &["iam", "tree", "acme", "--addr", &operator],
        &["iam", "tree", "acme", "--addr", &manages],
    ] {
        let output = capstan(command);
        assert_eq!(output.status.code(), Some(0), "{command:?}: {}", stderr(&output));
    }
    let printed = server.lines.join("\n");
    assert!(printed.contains(&format!("--as alice --addr {manages}")), "{printed}");
}

/// Plain text that is accepted for one kind of address is not for the other.
#[test]
fn plain_text_is_accepted_for_each_kind_alone() {
    let refused = |more: &[&str]| {
        let output = capstan(&[&["serve"], &POLICY[..], &["--http", "none"], more].concat());
        assert_eq!(output.status.code(), Some(2), "{more:?}: {}", stderr(&output));
        stderr(&output)
    };
    let open = "0.0.0.0:0";
    let said = refused(&["--listen", open, "--listen-management", open, "--insecure-plaintext"]);
    assert!(said.contains("what manages would be served in plain text"), "{said}");
    let manages = ["--listen-management", open, "--insecure-plaintext-management"];
    let said = refused(&[&["--listen", open][..], &manages].concat());
    assert!(said.contains("give --insecure-plaintext to accept that"), "{said}");
    let said = refused(&["--insecure-plaintext-management"]);
    assert!(said.contains("--listen-management"), "{said}");
    let trusts = "--insecure-trust-caller-header";
    let said = refused(&[&["--listen", "127.0.0.1:0", trusts][..], &manages].concat());
    assert!(said.contains("can be reached by other machines"), "{said}");
    let arguments = [&POLICY[..], &["--listen", "127.0.0.1:0", "--http", "none"], &manages];
    let served = Serving::start(&arguments.concat(), 2);
    assert_eq!(served.stop("-TERM").0, Some(0));
}
