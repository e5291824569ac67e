//! Each way in which a token is not one that counts, beside one that does. Every refusal is the same to the caller.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::{AUDIENCE, Caller, Key, World, claims, encode, key_set, now, with, without};

/// A token that must be refused, and the identity that is named.
struct Case {
    what: &'static str,
    token: String,
    named: Option<&'static str>,
}

fn case(what: &'static str, token: String, named: Option<&'static str>) -> Case {
    Case { what, token, named }
}

/// Of headers: A1 to A3, and A9 of the list of faults.
fn headers(world: &World) -> Vec<Case> {
    let (key, claims) = (&world.people, world.of_ann());
    let header = key.header();
    let signed = |header: &Value| key.sign_with(header, &claims);
    let unsigned = |header: &Value| {
        format!("{}.{}.", encode(&header.to_string()), encode(&claims.to_string()))
    };
    let mine = Key::new("p1", Algorithm::ES256);
    let embedded = with(header.clone(), "jwk", mine.public.clone());
    let elsewhere = with(header.clone(), "jku", "https://127.0.0.1:1/keys");
    vec![
        case("A1 none", unsigned(&json!({"alg": "none"})), None),
        case("A1 none, with a signature", signed(&with(header.clone(), "alg", "none")), None),
        case("A1 another algorithm", signed(&with(header.clone(), "alg", "ES384")), None),
        case("A1 an algorithm of another key", signed(&with(header.clone(), "alg", "RS256")), None),
        case("A1 a key that the token brings", mine.sign_with(&embedded, &claims), None),
        case("A1 no algorithm", signed(&without(header.clone(), "alg")), None),
        case("A2 another key of the name", mine.sign(&claims), None),
        case("A2 an unknown key", signed(&with(header.clone(), "kid", "p2")), None),
        case("A2 a path as a key", signed(&with(header.clone(), "kid", "../p1")), None),
        case("A2 a long key", signed(&with(header.clone(), "kid", "x".repeat(2_000))), None),
        case("A2 a key that is no text", signed(&with(header.clone(), "kid", 1)), None),
        case("A3 keys at a URL of the token's", mine.sign_with(&elsewhere, &claims), None),
        case(
            "A9 a token for something else",
            signed(&with(header.clone(), "typ", "logout+jwt")),
            None,
        ),
        case("A9 a proof of possession", signed(&with(header.clone(), "typ", "dpop+jwt")), None),
        case(
            "an extension that must be understood",
            signed(&with(header.clone(), "crit", json!(["exp"]))),
            None,
        ),
        case(
            "a member twice",
            key.sign_text(r#"{"alg": "ES256", "kid": "p1", "alg": "ES256"}"#, &claims.to_string()),
            None,
        ),
    ]
}

/// Of claims: A6 to A8, A11 and A12.
fn texts(world: &World) -> Vec<Case> {
    let (key, ann) = (&world.people, world.of_ann());
    let issuer = ann["iss"].as_str().unwrap().to_owned();
    let changed = |name: &str, value: Value| key.sign(&with(ann.clone(), name, value));
    let now = now();
    let twice = ann.to_string().replacen('{', r#"{"sub": "ann", "#, 1);
    vec![
        case("A6 a slash more", changed("iss", format!("{issuer}/").into()), None),
        case("A6 http", changed("iss", issuer.replace("https", "http").into()), None),
        case("A6 another case", changed("iss", issuer.replace("people", "People").into()), None),
        case("A6 an issuer that is a list", changed("iss", json!([issuer])), None),
        case("A6 no issuer", key.sign(&without(ann.clone(), "iss")), None),
        case("A7 for others", changed("aud", "https://other.example".into()), None),
        case("A7 for a part of it", changed("aud", json!([format!("{AUDIENCE}/x"), "x"])), None),
        case("A7 for nobody", key.sign(&without(ann.clone(), "aud")), None),
        case("A7 an empty list", changed("aud", json!([])), None),
        case("A8 over", changed("exp", (now - 61).into()), None),
        case("A8 no end", key.sign(&without(ann.clone(), "exp")), None),
        case("A8 an end that is a text", changed("exp", (now + 600).to_string().into()), None),
        case(
            "A8 an end with a fraction",
            changed("exp", json!(f64::from(1 << 30) * 2.0 + 0.5)),
            None,
        ),
        case("A8 a day and more", changed("exp", (now + 2 * 24 * 60 * 60).into()), None),
        case("A8 from an hour on", changed("nbf", (now + 3_600).into()), None),
        case("A8 made tomorrow", changed("iat", (now + 3_600).into()), None),
        case("A11 a subject that is a list", changed("sub", json!(["ann"])), None),
        case("A11 a subject that is a number", changed("sub", json!(7)), None),
        case("A11 no subject", key.sign(&without(ann.clone(), "sub")), None),
        case("A12 another subject", changed("sub", "ann2".into()), Some("acme/ci")),
        case("a claim twice", key.sign_text(&key.header().to_string(), &twice), None),
        case("bound to a key of the sender's", changed("cnf", json!({"jkt": "x"})), None),
    ]
}

/// Of whom a token is: R9, R13 and A12.
fn identities(world: &World) -> Vec<Case> {
    let (ann, ci, bot) = (world.of_ann(), world.of_ci(), world.of_bot());
    let (people, keys, bots) = (&world.people, &world.ci, &world.bot);
    let ci_with = |name: &str, value: &str| keys.sign(&with(ci.clone(), name, value));
    let rogue = Key::new("b1", Algorithm::EdDSA);
    let other_issuer = with(ann.clone(), "iss", ci["iss"].clone());
    vec![
        case("a name that is somebody else's", people.sign(&ann), Some("acme/ci")),
        case("a name that nobody has", people.sign(&ann), Some("acme/nobody")),
        case("a root identity without authentication", people.sign(&ann), Some("alice")),
        case("an issuer of an organization finds no root identity", keys.sign(&other_issuer), None),
        case("nor the one that is named", keys.sign(&other_issuer), Some("alice")),
        case("a pattern that nobody names", keys.sign(&ci), None),
        case(
            "A12 another branch",
            ci_with("sub", "repo:acme/web:ref:refs/heads/main2"),
            Some("acme/ci"),
        ),
        case(
            "A12 a branch before it",
            ci_with("sub", "x:repo:acme/web:ref:refs/heads/main"),
            Some("acme/ci"),
        ),
        case(
            "A12 a line more",
            ci_with("sub", "repo:acme/web:ref:refs/heads/main\n"),
            Some("acme/ci"),
        ),
        case("another claim", ci_with("environment", "Prod"), Some("acme/ci")),
        case("a claim too few", keys.sign(&without(ci.clone(), "environment")), Some("acme/ci")),
        case(
            "a claim that is a list",
            keys.sign(&with(ci.clone(), "environment", json!(["prod"]))),
            Some("acme/ci"),
        ),
        case("keys of another issuer", people.sign(&ci), Some("acme/ci")),
        case(
            "its own keys are not another's",
            bots.sign(&with(ann.clone(), "iss", "bots")),
            Some("acme/bot"),
        ),
        case("other keys than its own", rogue.sign(&bot), Some("acme/bot")),
        case("its own keys without its name", bots.sign(&bot), None),
        case("its own keys, and an issuer that is trusted", bots.sign(&ann), None),
        case("an identity with a certificate only", bots.sign(&bot), Some("acme/workload")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_counts_or_is_refused_as_all_others_are() {
    let world = World::start().await;
    world.operate(&[
        "identities",
        "create",
        "acme/workload",
        "--spiffe-id",
        "spiffe://acme.example/w",
    ]);
    let caller = world.caller().await;
    let is_good = async || {
        let found = caller.by(&world.people.sign(&world.of_ann()), None).await;
        assert_eq!(found.unwrap(), world.ann);
        let found = caller.by(&world.people.sign(&world.of_ann()), Some(&world.ann)).await;
        assert_eq!(found.unwrap(), world.ann, "named as well");
        let found = caller.by(&world.ci.sign(&world.of_ci()), Some("acme/ci")).await;
        assert_eq!(found.unwrap(), "acme/ci");
        let found = caller.by(&world.bot.sign(&world.of_bot()), Some("acme/bot")).await;
        assert_eq!(found.unwrap(), "acme/bot");
    };
    is_good().await;
    let cases: Vec<Case> =
        [headers(&world), texts(&world), identities(&world)].into_iter().flatten().collect();
    assert!(cases.len() >= 56, "{}", cases.len());
    let nobody = caller.who(&[]).await.unwrap_err();
    for Case { what, token, named } in cases {
        for again in ["", ", again"] {
            let status = caller.by(&token, named).await.expect_err(what);
            // What is wrong, and whether there is such an identity, is told by nothing.
            let seen = (status.code(), status.message(), status.details());
            assert_eq!(seen, (nobody.code(), nobody.message(), nobody.details()), "{what}{again}");
        }
    }
    // Other forms that are allowed: a list of audiences, both names of Ed25519, no type, no key id, a minute of leeway.
    let ann = world.of_ann();
    let several = with(ann.clone(), "aud", json!(["https://other.example", AUDIENCE]));
    let late = with(with(ann.clone(), "exp", now() - 30), "iat", now() - 600);
    for claims in [several, late, without(ann.clone(), "iat")] {
        assert_eq!(caller.by(&world.people.sign(&claims), None).await.unwrap(), world.ann);
    }
    for header in [json!({"alg": "Ed25519", "kid": "c1", "typ": "at+jwt"}), json!({"alg": "EdDSA"})]
    {
        let token = world.ci.sign_with(&header, &world.of_ci());
        assert_eq!(caller.by(&token, Some("acme/ci")).await.unwrap(), "acme/ci");
    }
    is_good().await;
}

/// A21: a call has one proof of who calls, and each is said once.
#[tokio::test(flavor = "multi_thread")]
async fn two_proofs_are_refused() {
    let world = World::start().await;
    let caller = world.caller().await;
    let (ann, bot) = (world.people.sign(&world.of_ann()), world.bot.sign(&world.of_bot()));
    let (ann, bot) = (format!("Bearer {ann}"), format!("Bearer {bot}"));
    let good = [("authorization", &*ann)];
    assert_eq!(caller.who(&good).await.unwrap().identity, world.ann);
    for (what, metadata) in [
        ("twice", vec![good[0], good[0]]),
        ("two tokens", vec![good[0], ("authorization", &*bot)]),
        ("another scheme", vec![("authorization", "Digest x")]),
        ("no scheme", vec![("authorization", &ann["Bearer ".len()..])]),
        ("nothing", vec![("authorization", "")]),
    ] {
        let found = caller.who(&metadata).await.map(|found| found.identity);
        Caller::assert_refused(found, what);
    }
    for (name, value) in [("x-capstan-caller", "/"), ("x-capstan-caller-email", "ann@example.com")]
    {
        let refused = caller.who(&[good[0], (name, value)]).await.unwrap_err();
        assert_eq!(crate::raw::reason(&refused), "INVALID_FIELD", "{name}");
    }
    // Without a token the header names nobody: nobody is trusted to say who calls.
    let found = caller.who(&[("x-capstan-caller", &world.ann)]).await;
    Caller::assert_refused(found.map(|found| found.identity), "only a name");
}

/// A provider that names audiences takes no others, and one with keys of its own asks nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_says_for_whom_tokens_are() {
    let world = World::start().await;
    let caller = world.caller().await;
    let key = Key::new("k", Algorithm::ES256);
    let asked = world.issuers.server.requests().len();
    let file = world.folder.path().join("idp.jwks").display().to_string();
    std::fs::write(&file, key_set(&[&key]).to_string()).unwrap();
    let issuer = "https://idp.example";
    world.operate(&[
        "identity-providers",
        "create",
        "acme/inline",
        "--issuer",
        issuer,
        "--client-id",
        "capstan-ui",
        "--audience",
        "api",
        "--jwks",
        &file,
    ]);
    for (id, more) in [("web", ""), ("own", ",audience=own")] {
        let claims = format!("issuer={issuer},subject={id}{more}");
        world.operate(&["identities", "create", &format!("acme/{id}"), "--claim-match", &claims]);
    }
    let by = async |subject: &str, audience: &str, named: &str| {
        let token = key.sign(&with(claims(issuer, subject), "aud", audience));
        caller.by(&token, Some(named)).await
    };
    for audience in ["capstan-ui", "api"] {
        assert_eq!(by("web", audience, "acme/web").await.unwrap(), "acme/web");
    }
    Caller::assert_refused(by("web", AUDIENCE, "acme/web").await, "the server's own");
    assert_eq!(by("own", "own", "acme/own").await.unwrap(), "acme/own");
    Caller::assert_refused(by("own", "api", "acme/own").await, "the identity has another one");
    // What the operator says of an issuer goes before what the issuer publishes, also for a provider without keys.
    world.operate(&[
        "identity-providers",
        "create",
        "acme/pinned",
        "--issuer",
        super::PINNED,
        "--audience",
        "api",
    ]);
    let claims_of = format!("issuer={},subject=dan", super::PINNED);
    world.operate(&["identities", "create", "acme/dan", "--claim-match", &claims_of]);
    let dan = world.pinned.sign(&with(claims(super::PINNED, "dan"), "aud", "api"));
    assert_eq!(caller.by(&dan, Some("acme/dan")).await.unwrap(), "acme/dan");
    assert_eq!(world.issuers.server.requests().len(), asked, "nobody was asked");
}
