//! A caller with a subtree asks about nothing outside of it, and learns nothing of it.

use capstan_policy::Asks;
use capstan_proto::v1;
use serde_json::Value;
use tonic::Code;

use super::{BATCH, CHECK, Files, NGINX, basic, batch, call_as, check, message, post};
use crate::common::InProcess;

const EVERYTHING: [Asks; 5] =
    [Asks::Check, Asks::Capabilities, Asks::Explain, Asks::Search, Asks::Authorize];

/// Outside of `acme/images`: above, beside, a name that begins alike, another organization.
const OUTSIDE: [&str; 5] = ["acme", "acme/other", "acme/images2", "acme/imagesx/y", "other/app"];
const INSIDE: [&str; 4] = ["acme/images", NGINX, "acme/images/nginx/tags", "acme/images/absent"];

async fn serve(name: &str) -> InProcess {
    let mut files = Files::new(name);
    files.add("part", &EVERYTHING, Some("acme/images"));
    files.add("whole", &EVERYTHING, None);
    files.serve().await
}

fn refused(answer: &crate::raw::Answer, what: &str) {
    assert_eq!(answer.code(), Code::PermissionDenied, "{what}");
    assert_eq!(answer.reason(), "CALLER_NOT_ALLOWED", "{what}");
    let said = answer.status.as_ref().unwrap().message();
    assert!(said.contains("it may ask about acme/images"), "{said}");
}

#[tokio::test]
async fn questions_are_held_to_the_subtree() {
    let server = serve("askers-subtree").await;
    for resource in OUTSIDE {
        refused(&call_as(&server, "part", CHECK, &check(resource)).await, resource);
        let capabilities = v1::ListCapabilitiesRequest {
            identity: "acme/reader".into(),
            resource: resource.into(),
            ..Default::default()
        };
        let path = "/capstan.v1.DecisionService/ListCapabilities";
        refused(&call_as(&server, "part", path, &capabilities).await, resource);
        let identities = v1::ListIdentitiesRequest {
            capability: "repo.list".into(),
            resource: resource.into(),
            ..Default::default()
        };
        let path = "/capstan.v1.DecisionService/ListIdentities";
        refused(&call_as(&server, "part", path, &identities).await, resource);
        let explain = v1::ExplainRequest {
            identity: "acme/reader".into(),
            capability: "repo.list".into(),
            resource: resource.into(),
            ..Default::default()
        };
        let path = "/capstan.v1.DecisionService/Explain";
        refused(&call_as(&server, "part", path, &explain).await, resource);
        let whole = call_as(&server, "whole", CHECK, &check(resource)).await;
        assert_eq!(whole.code(), Code::Ok, "{resource}");
    }
    for resource in INSIDE {
        let answer = call_as(&server, "part", CHECK, &check(resource)).await;
        let found: v1::CheckResponse = message(&answer);
        assert_eq!(found.allowed, resource.starts_with(NGINX), "{resource}");
    }
}

/// What is told beside the answer is of the subtree, too.
#[tokio::test]
async fn explanations_and_grants_are_those_of_the_subtree() {
    let server = serve("askers-subtree-explain").await;
    let explain = |identity: &str, resource: &str| v1::ExplainRequest {
        identity: identity.into(),
        capability: "repo.list".into(),
        resource: resource.into(),
        ..Default::default()
    };
    let path = "/capstan.v1.DecisionService/Explain";
    let elsewhere = |found: v1::ExplainResponse| -> Vec<String> {
        found.elsewhere.into_iter().map(|grant| grant.scope).collect()
    };
    let asked = explain("acme/reader", "acme/images/absent");
    for (name, expected) in [
        ("whole", &["acme/images/nginx", "acme/images/redis", "acme/other"][..]),
        ("part", &["acme/images/nginx", "acme/images/redis"]),
    ] {
        let found = message(&call_as(&server, name, path, &asked).await);
        assert_eq!(elsewhere(found), expected, "{name}");
    }
    // A name that is written wrong: others of all organizations are like it.
    let asked = explain("acme/readr", NGINX);
    let similar = |found: v1::ExplainResponse| found.similar;
    let whole = similar(message(&call_as(&server, "whole", path, &asked).await));
    assert_eq!(whole[0], "acme/reader");
    assert_eq!(similar(message(&call_as(&server, "part", path, &asked).await)), [""; 0]);

    let capabilities = v1::ListCapabilitiesRequest {
        identity: "acme/wide".into(),
        resource: NGINX.into(),
        ..Default::default()
    };
    let path = "/capstan.v1.DecisionService/ListCapabilities";
    for (name, grants) in [("whole", 1), ("part", 0)] {
        let found = call_as(&server, name, path, &capabilities).await;
        let found: v1::ListCapabilitiesResponse = message(&found);
        assert_eq!((found.capabilities.len(), found.grants.len()), (1, grants), "{name}");
    }
    let identities = v1::ListIdentitiesRequest {
        capability: "repo.list".into(),
        resource: NGINX.into(),
        include_conditional: true,
        ..Default::default()
    };
    let path = "/capstan.v1.DecisionService/ListIdentities";
    refused(&call_as(&server, "part", path, &identities).await, "conditional");
    assert_eq!(call_as(&server, "whole", path, &identities).await.code(), Code::Ok);
}

/// Among others, each check of a batch has its own error.
#[tokio::test]
async fn a_batch_is_held_check_by_check() {
    let server = serve("askers-subtree-batch").await;
    let all = [NGINX, "acme/other", "acme/images/absent", "acme"];
    let answer = call_as(&server, "part", BATCH, &batch(&all)).await;
    let found: v1::BatchCheckResponse = message(&answer);
    let told: Vec<_> = found
        .results
        .iter()
        .map(|one| (one.allowed, one.error.as_ref().map(|error| (error.code, &*error.reason))))
        .collect();
    let denied = Some((Code::PermissionDenied as i32, "CALLER_NOT_ALLOWED"));
    assert_eq!(told, [(true, None), (false, denied), (false, None), (false, denied)]);
}

/// A scope above the subtree is shown as the subtree; all others are not shown, also not by the number or the tokens of pages.
#[tokio::test]
async fn scopes_are_those_of_the_subtree() {
    let server = serve("askers-subtree-scopes").await;
    let path = "/capstan.v1.DecisionService/ListScopes";
    let request = |identity: &str, page_size, page_token: &str| v1::ListScopesRequest {
        identity: identity.into(),
        capability: "repo.list".into(),
        page_size,
        page_token: page_token.into(),
        ..Default::default()
    };
    let scopes = |found: &v1::ListScopesResponse| -> Vec<String> {
        found.scopes.iter().map(|one| one.scope.clone()).collect()
    };
    for (name, identity, expected) in [
        ("whole", "acme/reader", &["acme/images/nginx", "acme/images/redis", "acme/other"][..]),
        ("part", "acme/reader", &["acme/images/nginx", "acme/images/redis"]),
        ("whole", "acme/wide", &["acme"]),
        ("part", "acme/wide", &["acme/images"]),
        ("part", "nobody", &[]),
    ] {
        let found = call_as(&server, name, path, &request(identity, 0, "")).await;
        let found: v1::ListScopesResponse = message(&found);
        assert_eq!(
            (scopes(&found), &*found.next_page_token),
            (expected.iter().map(|it| (*it).into()).collect(), ""),
            "{name} {identity}"
        );
    }
    let first = call_as(&server, "part", path, &request("acme/reader", 1, "")).await;
    let first: v1::ListScopesResponse = message(&first);
    assert_eq!(scopes(&first), ["acme/images/nginx"]);
    let second = request("acme/reader", 1, &first.next_page_token);
    let second: v1::ListScopesResponse = message(&call_as(&server, "part", path, &second).await);
    assert_eq!((scopes(&second), &*second.next_page_token), (vec!["acme/images/redis".into()], ""));
    // Conditional grants may be above.
    let conditional =
        v1::ListScopesRequest { include_conditional: true, ..request("acme/reader", 0, "") };
    let answer = call_as(&server, "part", path, &conditional).await;
    assert_eq!(answer.code(), Code::PermissionDenied);
    let answer = call_as(&server, "whole", path, &conditional).await;
    assert_eq!(answer.code(), Code::Ok);
}

#[tokio::test]
async fn authzen_is_held_to_the_subtree() {
    let server = serve("askers-subtree-authzen").await;
    let as_part = basic("acme/part");
    let subject = r#""subject": {"type": "user", "id": "acme/reader"}, "action": {"name": "list"}"#;
    let resource = |id: &str| format!(r#""resource": {{"type": "repo", "id": "{id}"}}"#);
    let ask = |path: &'static str, body: String| {
        let (server, as_part) = (&server, &as_part);
        async move { post(server, Some(as_part), path, &body).await }
    };
    let evaluate = |id: &str| format!("{{{subject}, {}}}", resource(id));
    let (status, found) = ask("/access/v1/evaluation", evaluate(NGINX)).await;
    assert_eq!(status, 200, "{found}");
    assert_eq!(serde_json::from_str::<Value>(&found).unwrap()["decision"], true);
    for outside in ["acme/other", "other/app"] {
        let (status, said) = ask("/access/v1/evaluation", evaluate(outside)).await;
        assert_eq!(status, 403, "{said}");
        // Of which type it is, and whether it is there, is not told either.
        let other_type = evaluate(outside).replace("repo", "x");
        let told = ask("/access/v1/evaluation", other_type).await;
        assert_eq!(told, ask("/access/v1/evaluation", evaluate("other/absent")).await);
        let actions = format!(
            r#"{{"subject": {{"type": "user", "id": "acme/reader"}}, {}}}"#,
            resource(outside)
        );
        assert_eq!(ask("/access/v1/search/action", actions).await.0, 403);
        let subjects = format!(
            r#"{{"subject": {{"type": "user"}}, "action": {{"name": "list"}}, {}}}"#,
            resource(outside)
        );
        assert_eq!(ask("/access/v1/search/subject", subjects).await.0, 403);
    }
    let many = format!(
        r#"{{{subject}, "evaluations": [{{{}}}, {{{}}}]}}"#,
        resource("acme/other"),
        resource(NGINX)
    );
    let (status, found) = ask("/access/v1/evaluations", many).await;
    assert_eq!(status, 200, "{found}");
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["evaluations"][0]["decision"], false);
    assert_eq!(found["evaluations"][0]["context"]["error"]["status"], 403);
    assert_eq!(found["evaluations"][1]["decision"], true);
    let resources = format!(r#"{{{subject}, "resource": {{"type": "repo"}}}}"#);
    for (name, expected) in [
        ("acme/part", &["acme/images/nginx", "acme/images/redis"][..]),
        ("acme/whole", &["acme/images/nginx", "acme/images/redis", "acme/other"]),
    ] {
        let (_, found) =
            post(&server, Some(&basic(name)), "/access/v1/search/resource", &resources).await;
        let found: Value = serde_json::from_str(&found).unwrap();
        let ids =
            found["results"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap());
        assert_eq!(ids.collect::<Vec<_>>(), expected, "{name}");
    }
}
