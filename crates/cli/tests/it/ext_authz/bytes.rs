//! Property tests of `ext_authz` request bytes: no request passes that must not.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use prost::Message as _;
use tonic::Code;

use super::body::envoy;
use super::envoy::{Http, outcome};
use super::{ROUTES, start, usual_policy};
use crate::metrics::of;
use crate::raw::{Body, call, framed};

fn http() -> impl Strategy<Value = Http> {
    const TARGETS: [&str; 20] = [
        "/v/",
        "/v/w/g",
        "/v/w/a/g",
        "/v/x/g",
        "/v/w/g?d=1",
        "/v/w/g?f=w%2Fb",
        "/v/w/g?f=w",
        "/v/w/g?f=x",
        "/v/w/g?f=..",
        "/v/w/g?d=1&f=w",
        "/v/../v/",
        "/v//g",
        "/v/w%2fa/g",
        "/w/w%2fa",
        "/w/w%2F%61/b",
        "/w%2fw",
        "/w/w%2f..%2fx",
        "/%76/w/g",
        "/v/w/%67?d=1",
        "/",
    ];
    const PROOFS: [(&str, &str); 10] = [
        ("authorization", "Bearer s"),
        ("authorization", "Bearer t"),
        ("authorization", "Basic Y2k6cw=="),
        ("Authorization", "basic ZGU6dA=="),
        ("authorization", "Bearer u"),
        ("authorization", ""),
        ("content-type", "application/x-www-form-urlencoded"),
        ("x-capstan-identity", "de"),
        ("upgrade", "h2c"),
        ("accept", "*/*"),
    ];
    const EXTENSIONS: [(&str, &str); 6] = [
        ("capability", "r.get"),
        ("resource", "i/w"),
        ("capability", "r.put"),
        ("resource", "i"),
        ("capability_2", "r.get"),
        ("resource_2", "i/w/a"),
    ];
    let target = prop_oneof![6 => select(&TARGETS[..]).prop_map(str::to_owned),
                             1 => capstan_testkit::routing::near_target()];
    let proofs = prop_oneof![4 => prop::collection::vec(select(&PROOFS[..4]), 1..=1),
                             1 => prop::collection::vec(select(&PROOFS[..]), 0..=3)];
    let extensions =
        prop_oneof![4 => Just(vec![]), 1 => prop::collection::vec(select(&EXTENSIONS[..]), 0..=4)];
    let peer = prop_oneof![8 => Just(""), 1 => select(&["p/ci", "p/de", "p/", "x"][..])];
    let token = prop::option::weighted(0.1, select(&["ci", "de", "no", "//"][..]));
    let method = select(&["GET", "GET", "HEAD", "PUT", "PUT", "POST", "get"][..]);
    ((method, target, any::<bool>()), proofs, extensions, peer, token).prop_map(
        |((method, target, raw), proofs, extensions, peer, token)| {
            let http = Http { raw, ..Http::new(method, &target).peer(peer) };
            let http = proofs.iter().fold(http, |http, (name, value)| http.header(name, value));
            let http =
                extensions.iter().fold(http, |http, (key, value)| http.extension(key, value));
            match token {
                Some(sub) => http.token(serde_json::json!({"sub": sub})),
                None => http,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases * 3, // a case is cheap
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn requests_pass_or_are_refused(http in http()) {
        envoy(&http.check_request().encode_to_vec());
    }

    #[test]
    fn changed_requests_pass_or_are_refused(
        http in http(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>(), 0..3u8), 1..4),
    ) {
        let mut bytes = http.check_request().encode_to_vec();
        for (at, byte, how) in changes {
            let at = at.index(bytes.len() + 1);
            match how {
                0 => bytes.insert(at, byte),
                1 => bytes.truncate(at),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|found| *found ^= byte),
            }
        }
        envoy(&bytes);
    }
}

/// The property tests would be vacuous if every generated request were refused.
#[test]
fn the_generator_draws_requests_that_pass() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let passed = (0..500).filter(|_| {
        let http = http().new_tree(&mut runner).unwrap().current();
        envoy(&http.check_request().encode_to_vec())
    });
    let passed = passed.count();
    assert!((50..450).contains(&passed), "{passed}");
}

/// An undecodable request is denied. An error would not be enough: `failure_mode_allow` lets errors pass.
#[tokio::test]
async fn undecodable_requests_are_denied() {
    const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
    let server = start("envoy-bytes", &usual_policy(), ROUTES).await;
    let good = Http::get("/v2/").bearer("ci-secret").check_request().encode_to_vec();
    let at = good.windows(9).position(|bytes| bytes == b"ci-secret").unwrap();
    let mut broken_text = good.clone();
    broken_text[at] = 0xff;
    let frame = |bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&[0], &length[..], bytes].concat()
    };
    let oversize = vec![0; capstan_server::limits::MESSAGE_BYTES_MAX + 1];
    let all = [
        frame(&good[..good.len() - 1]),
        frame(&broken_text),
        frame(b"\xff\xff\xff"),
        frame(&oversize)[..5].to_vec(),
        frame(&good)[..20].to_vec(),
        vec![7, 0, 0, 0, 0],
    ];
    for (at, bytes) in (1u8..).zip(all) {
        let answer = call(server.grpc, CHECK, &[], (bytes, Body::Whole)).await.unwrap();
        assert_eq!(answer.code(), Code::Ok, "a denial is a response with code OK");
        let malformed = "capstan_ext_authz_answers_total{outcome=\"malformed\"}";
        assert_eq!(of(&server, malformed).await, f64::from(at));
    }
    // A request without attributes, and a request without HTTP attributes.
    for empty in [Default::default(), {
        let mut asked = Http::get("/v2/").bearer("ci-secret").check_request();
        asked.attributes.as_mut().unwrap().request.as_mut().unwrap().http = None;
        asked
    }] {
        let answer = super::envoy::client(&server).check(empty).await.unwrap().into_inner();
        assert_eq!(outcome(answer, &Http::get("/")).status(), 400);
    }
    // Another method of the service.
    let path = "/envoy.service.auth.v3.Authorization/Other";
    let request = framed(&Http::get("/v2/").bearer("ci-secret").check_request());
    let answer = call(server.grpc, path, &[], (request, Body::Whole)).await.unwrap();
    assert_eq!(answer.code(), Code::Unimplemented);
}

/// The seeds of the fuzz target pass or are refused as their names tell.
#[test]
fn fuzz_seeds_pass_or_are_refused() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/envoy");
    for seed in std::fs::read_dir(seeds).unwrap().map(|entry| entry.unwrap().path()) {
        let name = seed.file_name().unwrap().to_str().unwrap().to_owned();
        let passes = envoy(&std::fs::read(&seed).unwrap());
        assert_eq!(
            passes,
            !["traversal", "twice", "climbing", "encoded_slash"].contains(&&*name),
            "{name}"
        );
    }
}
