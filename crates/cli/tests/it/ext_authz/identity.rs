//! Identity sources: credentials, tokens and peer certificates, and the refusal of several at once.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use capstan_engine::Timestamp;
use capstan_server::clock::Clock;
use capstan_server::limits::{AUTHORIZATION_BYTES_MAX, BASIC_COLONS_MAX, GUESSES_AT_ONCE_MAX};
use capstan_server::server::Config;
use serde_json::{Value as Json, json};

use super::envoy::{Http, Outcome, send};
use super::{ROUTES, configured, policy, start, usual_policy};
use crate::common::InProcess;

fn basic(text: &str) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

#[tokio::test]
async fn a_credential_authenticates_only_its_own_identity() {
    let server = start("envoy-credentials", &usual_policy(), ROUTES).await;
    let with = |header: &str| Http::get("/v2/").header("authorization", header);
    for (header, identity) in [
        ("Bearer ci-secret".to_owned(), "acme/ci"),
        ("bEaReR   dev-secret ".to_owned(), "acme/dev"),
        (basic("acme/ci:ci-secret"), "acme/ci"),
        // An identity can contain colons.
        (basic("x:y:xy-secret"), "x:y"),
        (basic("acme/dev:dev-secret").replace("Basic", "BASIC"), "acme/dev"),
    ] {
        for http in [with(&header), with(&header).raw()] {
            let outcome = send(&server, &http).await;
            assert_eq!(outcome.upstream_header("x-capstan-identity"), [identity], "{header}");
        }
    }
    let expected = send(&server, &Http::get("/v2/")).await;
    let Outcome::Refused { status, ref body, ref challenge } = expected else {
        panic!("{expected:?}")
    };
    assert_eq!((status, challenge.as_deref()), (401, Some("Basic realm=\"test\"")));
    assert_eq!(body["error"], "authentication is required");
    for header in [
        String::new(),
        "Bearer".into(),
        "Bearer ".into(),
        "ci-secret".into(),
        "Bearer wrong".into(),
        "Bearer ci-secret x".into(),
        "Bearer CI-SECRET".into(),
        "Bearer ci-secret\t".into(),
        "Token ci-secret".into(),
        "Bearer ci-secret,Bearer ci-secret".into(),
        "Bearer  ,ci-secret".into(),
        format!("Bearer {}", super::sha256("ci-secret")),
        basic("acme/ci:wrong"),
        basic("acme/dev:ci-secret"),
        basic("ACME/CI:ci-secret"),
        basic(":ci-secret"),
        basic("ci-secret"),
        basic("acme/ci"),
        basic("acme/ci:"),
        basic("acme/ci:ci-secret:"),
        basic("acme/ci:ci-secret\n"),
        basic("nobody:ci-secret"),
        "Basic acme/ci:ci-secret".into(),
        "Basic !!!".into(),
        format!("Basic {}", STANDARD.encode(b"acme/ci\xff:ci-secret")),
        format!("Bearer {}", "x".repeat(AUTHORIZATION_BYTES_MAX)),
    ] {
        // All refusals are equal, so they do not reveal the cause.
        for http in [with(&header), with(&header).raw()] {
            assert_eq!(send(&server, &http).await, expected, "{header}");
        }
    }
    let bytes = Http::get("/v2/").header("authorization", b"Bearer \xff\xfe").raw();
    assert_eq!(send(&server, &bytes).await, expected);
}

/// A secret can contain colons, and so can an identity. The hash decides which colon separates them.
#[tokio::test]
async fn a_secret_with_colons_is_accepted_in_basic_as_in_bearer() {
    let most = "s:".repeat(BASIC_COLONS_MAX - 1);
    let more = format!("{most}:");
    let secrets = [
        ("acme/ci", "a:b::c:", ""),
        ("acme/dev", &*most, ""),
        ("acme/dev", &*more, ""),
        ("x", "y:both", ""),
        ("x:y", "both", ""),
        ("x:y", "z:w", ""),
    ];
    let server = start("envoy-colons", &policy(&secrets), ROUTES).await;
    let send = async |header: String| {
        let http = Http::get("/v2/").header("authorization", header);
        send(&server, &http).await
    };
    for (identity, secret, _) in secrets {
        let outcome = send(format!("Bearer {secret}")).await;
        assert_eq!(outcome.upstream_header("x-capstan-identity"), [identity], "{secret}");
    }
    for (identity, secret) in [("acme/ci", "a:b::c:"), ("acme/dev", &*most), ("x:y", "z:w")] {
        let outcome = send(basic(&format!("{identity}:{secret}"))).await;
        assert_eq!(outcome.upstream_header("x-capstan-identity"), [identity], "{secret}");
    }
    for wrong in [
        "acme/ci:a:b::c".to_owned(),
        "acme/ci::a:b::c:".into(),
        "acme/dev:a:b::c:".into(),
        // Two identities have such a credential.
        "x:y:both".into(),
        // One colon too many.
        format!("acme/dev:{more}"),
    ] {
        assert_eq!(send(basic(&wrong)).await.status(), 401, "{wrong}");
    }
}

/// The challenge is one that the identity sources accept.
#[tokio::test]
async fn the_challenge_fits_the_identity_sources() {
    for (sources, expected) in [
        ("credential, jwt", Some("Basic realm=\"capstan\"")),
        ("jwt", Some("Bearer realm=\"capstan\"")),
        ("peer", None),
    ] {
        let table = format!("version: 1\nidentity: [{sources}]\nroutes: []\n");
        let server = start("envoy-challenge", &usual_policy(), &table).await;
        let Outcome::Refused { status: 401, challenge, .. } =
            send(&server, &Http::get("/v2/")).await
        else {
            panic!("{sources}")
        };
        assert_eq!(challenge.as_deref(), expected, "{sources}");
    }
}

/// The longest `authorization` header that is read.
#[tokio::test]
async fn the_longest_secret_is_accepted() {
    let secret = "s".repeat(AUTHORIZATION_BYTES_MAX - "Bearer ".len());
    let server = start("envoy-long", &policy(&[("acme/ci", &secret, "")]), ROUTES).await;
    assert_eq!(send(&server, &Http::get("/v2/").bearer(&secret)).await.status(), 200);
    let longer = policy(&[("acme/ci", &format!("{secret}s"), "")]);
    let server = start("envoy-longer", &longer, ROUTES).await;
    assert_eq!(send(&server, &Http::get("/v2/").bearer(&format!("{secret}s"))).await.status(), 401);
}

/// Who guesses from an address that Envoy names is not listened to there for a while, right or wrong. Others are.
#[tokio::test]
async fn an_address_that_guesses_is_limited() {
    let server = start("envoy-guesses", &usual_policy(), ROUTES).await;
    let ask = async |client: &str, header: String| {
        let http = Http::get("/v2/").client(client).header("authorization", header);
        send(&server, &http).await
    };
    let mut number = 0;
    // Until it is limited; as time goes on, it may guess again. Each colon is a guess of its own.
    let mut guess = async |client: &str| {
        let before = number;
        loop {
            number += 2;
            let outcome = ask(client, basic(&format!("acme/ci:{number}:b{number}"))).await;
            if outcome.status() != 401 {
                return (outcome, number - before);
            }
            assert!(number - before < 10 * GUESSES_AT_ONCE_MAX);
        }
    };
    let (there, near) = ("2001:db8::1", "2001:db8:0:1::2");
    let dev = || "Bearer dev-secret".to_owned();
    assert_eq!(ask(there, dev()).await.upstream_header("x-capstan-identity"), ["acme/dev"]);
    // Neither another scheme nor the same secret again and again.
    for header in ["Negotiate x", "Bearer expired"] {
        for _ in 0..=GUESSES_AT_ONCE_MAX {
            assert_eq!(ask(there, header.into()).await.status(), 401, "{header}");
        }
    }
    let (limited, guesses) = guess(there).await;
    assert!(guesses >= GUESSES_AT_ONCE_MAX, "{guesses}");
    let Outcome::Refused { status, ref body, ref challenge } = limited else {
        panic!("{limited:?}")
    };
    assert_eq!((status, challenge.as_deref()), (429, None));
    assert_eq!(body["reason"], "OVERLOADED");
    assert_eq!(body["errors"][0]["code"], "TOOMANYREQUESTS");
    // A secret that has proved nobody from there is not told from a wrong one; one that has goes on to count.
    for elsewhere in ["2001:db8:1::1", "127.0.0.1", "", "not an address"] {
        let outcome = ask(elsewhere, "Bearer ci-secret".into()).await;
        assert_eq!(outcome.upstream_header("x-capstan-identity"), ["acme/ci"], "{elsewhere}");
    }
    guess(near).await;
    assert_eq!(ask(near, "Bearer ci-secret".into()).await, limited);
    assert_eq!(ask(near, dev()).await.upstream_header("x-capstan-identity"), ["acme/dev"]);
    // What looks like a token proves nothing here, and is a guess.
    guess(near).await;
    assert_eq!(ask(near, "Bearer a.b.c".into()).await, limited);
}

#[tokio::test]
async fn a_repeated_authorization_header_is_refused() {
    let server = start("envoy-twice", &usual_policy(), ROUTES).await;
    for raw in [false, true] {
        for second in ["Bearer ci-secret", "Bearer dev-secret", "", "x"] {
            let mut http = Http::get("/v2/").bearer("ci-secret").header("authorization", second);
            http.raw = raw;
            assert_eq!(send(&server, &http).await.status(), 401, "{http:?}");
        }
        // Header names are case-insensitive.
        let http =
            Http::get("/v2/").bearer("ci-secret").header("Authorization", "Bearer dev-secret");
        assert_eq!(send(&server, &Http { raw, ..http }).await.status(), 401);
    }
}

#[tokio::test]
async fn a_credential_is_refused_after_its_expiry() {
    let secrets = [
        ("acme/ci", "ended", ", expires_at: 2027-01-01T00:00:00Z"),
        ("acme/dev", "ends", ", expires_at: 2027-01-01T00:00:00.000000001Z"),
    ];
    let config = configured("envoy-expired", &policy(&secrets), ROUTES);
    let clock = Clock::Fixed(Timestamp::new(1_798_761_600, 0));
    let server = InProcess::start_with(Config { clock, ..config }).await;
    assert_eq!(send(&server, &Http::get("/v2/").bearer("ended")).await.status(), 401);
    assert_eq!(send(&server, &Http::get("/v2/").bearer("ends")).await.status(), 200);
    let header = basic("acme/ci:ended");
    let http = Http::get("/v2/").header("authorization", header);
    assert_eq!(send(&server, &http).await.status(), 401);
}

fn routes(settings: &str) -> String {
    ROUTES.replacen("version: 1\n", &format!("version: 1\n{settings}\n"), 1)
}

#[tokio::test]
async fn a_verified_token_authenticates_its_claim() {
    let settings = routes("identity: [jwt]\njwt: {claim: sub, prefix: 'id/'}");
    let server = start("envoy-jwt", &usual_policy(), &settings).await;
    let with = |payload: Json| Http::get("/v2/web/tags").token(payload);
    let outcome = send(&server, &with(json!({"sub": "id/acme/ci", "iss": "x"}))).await;
    assert_eq!(outcome.upstream_header("x-capstan-identity"), ["acme/ci"]);
    for payload in [
        json!({}),
        json!({"sub": "acme/ci"}),
        json!({"sub": "id/"}),
        json!({"sub": "id/acme/ci\r\nx-admin: true"}),
        json!({"sub": "id//acme/ci"}),
        json!({"sub": "id/acme/../acme/ci"}),
        json!({"sub": ["id/acme/ci"]}),
        json!({"sub": {"sub": "id/acme/ci"}}),
        json!({"sub": 7}),
        json!({"sub": true}),
        json!({"sub": null}),
        json!({"Sub": "id/acme/ci"}),
        // An access token of Capstan's own: it may be held to less.
        json!({"sub": "id/acme/ci", "subject_token": {}}),
        json!("id/acme/ci"),
        json!(null),
    ] {
        let outcome = send(&server, &with(payload.clone())).await;
        // The token is verified, so another credential would not help.
        let refused = (outcome.status(), outcome.reason());
        assert_eq!(refused, (403, "MALFORMED_IDENTITY"), "{payload}");
    }
    let Outcome::Refused { status: 401, challenge, .. } =
        send(&server, &Http::get("/v2/web/tags")).await
    else {
        panic!()
    };
    assert_eq!(challenge.as_deref(), Some("Basic realm=\"test\""));
    // Sources that the table does not list are ignored.
    let http = Http::get("/v2/web/tags").bearer("ci-secret").peer("acme/ci");
    assert_eq!(send(&server, &http).await.status(), 401);
    let outcome = send(&server, &http.token(json!({"sub": "id/acme/ci"}))).await;
    assert_eq!(
        outcome.upstream_header("authorization"),
        ["Bearer ci-secret"],
        "not a source of this table"
    );
    // An authenticated identity that the policy does not declare.
    let outcome = send(&server, &with(json!({"sub": "id/nobody"}))).await;
    assert_eq!((outcome.status(), outcome.reason()), (403, "UNKNOWN_IDENTITY"));
}

#[tokio::test]
async fn the_peer_certificate_authenticates_its_principal() {
    let settings = routes("identity: [peer]\npeer: {prefix: 'spiffe://example.org/'}");
    let server = start("envoy-peer", &usual_policy(), &settings).await;
    let with = |principal: &str| Http::get("/v2/web/tags").peer(principal);
    let outcome = send(&server, &with("spiffe://example.org/acme/ci")).await;
    assert_eq!(outcome.upstream_header("x-capstan-identity"), ["acme/ci"]);
    let Outcome::Refused { status: 401, .. } = send(&server, &with("")).await else { panic!() };
    for principal in [
        "acme/ci",
        "spiffe://example.org/",
        "spiffe://example.org//acme/ci",
        "spiffe://example.com/acme/ci",
        "spiffe://example.org.evil/acme/ci",
        "SPIFFE://example.org/acme/ci",
        "spiffe://example.org/acme/%63i",
        "spiffe://example.org/acme/ci/",
        "spiffe://example.org/acme/ci,spiffe://example.org/acme/dev",
    ] {
        let outcome = send(&server, &with(principal)).await;
        let refused = (outcome.status(), outcome.reason());
        assert_eq!(refused, (403, "MALFORMED_IDENTITY"), "{principal}");
    }
    let spoofed = Http::get("/v2/web/tags")
        .header("x-forwarded-client-cert", "URI=spiffe://example.org/acme/ci");
    assert_eq!(send(&server, &spoofed).await.status(), 401);
}

#[tokio::test]
async fn requests_with_two_identity_sources_are_refused() {
    let settings = routes("identity: [credential, jwt, peer]");
    let server = start("envoy-sources", &usual_policy(), &settings).await;
    let bare = || Http::get("/v2/web/tags");
    let token = || json!({"sub": "acme/ci"});
    for one in [bare().bearer("ci-secret"), bare().token(token()), bare().peer("acme/ci")] {
        assert_eq!(
            send(&server, &one).await.upstream_header("x-capstan-identity"),
            ["acme/ci"],
            "{one:?}"
        );
    }
    for several in [
        bare().bearer("ci-secret").token(token()),
        bare().bearer("ci-secret").peer("acme/ci"),
        bare().token(token()).peer("acme/ci"),
        bare().bearer("ci-secret").token(token()).peer("acme/ci"),
        // An invalid credential still counts as a second source.
        bare().bearer("wrong").token(token()),
        bare().bearer("ci-secret").token(json!({"sub": 7})),
        bare().bearer("ci-secret").peer("CN=unknown "),
    ] {
        assert_eq!(send(&server, &several).await.status(), 401, "{several:?}");
    }
}
