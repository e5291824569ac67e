//! Every named world over real gRPC. The naive model and the engine run them in the testkit.

use capstan_policy::Expectation;
use capstan_proto::v1;
use capstan_server::clock::Clock;
use capstan_server::feed::source::Source;
use capstan_testkit::worlds::{World, worlds};

use crate::common::InProcess;

#[tokio::test]
async fn every_world_passes_its_tests_over_grpc() {
    let all = worlds();
    assert!(all.len() >= 8, "{} worlds", all.len());
    for world in &all {
        let source = Source::file(&world.policy_file);
        let server = InProcess::start_at(source, Clock::Fixed(world.now)).await;
        for test in &world.tests.tests {
            run(world, &server, &test.expectation, test.line).await;
        }
    }
}

async fn run(world: &World, server: &InProcess, expectation: &Expectation, line: usize) {
    let place = format!("{}:{line}", world.name);
    let mut decisions = server.decisions();
    match expectation {
        Expectation::Check { identity, capability, resource, allowed, reason } => {
            let answer = decisions.check(v1::CheckRequest {
                identity: identity.to_string(),
                capability: capability.clone(),
                resource: resource.to_string(),
                ..Default::default()
            });
            let answer = answer.await.unwrap().into_inner();
            assert_eq!(answer.allowed, *allowed, "{place}");
            if let Some(reason) = reason {
                let told = answer.reason().as_str_name();
                assert_eq!(told, format!("REASON_{reason}"), "{place}");
            }
        }
        Expectation::Capabilities { identity, resource, capabilities } => {
            let answer = decisions.list_capabilities(v1::ListCapabilitiesRequest {
                identity: identity.to_string(),
                resource: resource.to_string(),
                ..Default::default()
            });
            let mut expected = capabilities.clone();
            expected.sort();
            assert_eq!(answer.await.unwrap().into_inner().capabilities, expected, "{place}");
        }
        Expectation::Identities { capability, resource, identities } => {
            let answer = decisions.list_identities(v1::ListIdentitiesRequest {
                capability: capability.clone(),
                resource: resource.to_string(),
                page_size: 1_000,
                ..Default::default()
            });
            let answer = answer.await.unwrap().into_inner();
            assert_eq!(answer.next_page_token, "", "{place}");
            let mut expected: Vec<_> = identities.iter().map(ToString::to_string).collect();
            expected.sort();
            assert_eq!(answer.identities, expected, "{place}");
            for identity in &world.model.facts().identities {
                let answer = decisions.check(v1::CheckRequest {
                    identity: identity.id.to_string(),
                    capability: capability.clone(),
                    resource: resource.to_string(),
                    ..Default::default()
                });
                let allowed = answer.await.unwrap().into_inner().allowed;
                assert_eq!(allowed, identities.contains(&identity.id), "{place}: {}", identity.id);
            }
        }
    }
}
