//! Which algorithms tokens may be signed with, by the provider of an organization and by the operator.

use jsonwebtoken::Algorithm;
use serde_json::json;

use super::{Caller, Key, PINNED, World, claims, key_set, serve, with};
use crate::common::{capstan, stderr};

const PROVIDER: [&str; 3] = ["identity-providers", "update", "acme/ci-idp"];

/// The scopes of the roles that whoever shows a token has.
async fn scopes(caller: &Caller, token: &str) -> Vec<String> {
    let found = caller.who(&[("authorization", &format!("Bearer {token}"))]).await.unwrap();
    found.scopes.into_iter().map(|one| one.scope).collect()
}

/// What a provider takes counts from the next call on: for tokens that were never seen, for those that were verified, and for the
/// access tokens that were made for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_takes_the_algorithms_that_it_names() {
    let world = World::start().await;
    let caller = world.caller().await;
    let ec = Key::new("c2", Algorithm::ES256);
    world.issuers.publish("ci", Some(&[&world.ci, &ec]));
    let named = Some("acme/ci");
    // Both names of one algorithm.
    let other_name = with(world.ci.header(), "alg", "Ed25519");
    let mut made = 0;
    let mut of = |is_ec: bool| {
        made += 1;
        let claims = with(world.of_ci(), "made", made);
        if is_ec {
            vec![ec.sign(&claims)]
        } else {
            vec![world.ci.sign(&claims), world.ci.sign_with(&other_name, &claims)]
        }
    };
    let access = |tokens: &[String]| -> Vec<String> {
        let made = tokens.iter().map(|token| world.access_token(token, &[("identity", "acme/ci")]));
        made.collect()
    };
    let (with_ed, with_ec) = (of(false), of(true));
    // An access token of an access token is of the same token.
    let (mut ed_access, mut ec_access) = (access(&with_ed), access(&with_ec));
    for all in [&mut ed_access, &mut ec_access] {
        let again: Vec<_> = all.iter().map(|token| world.access_token(token, &[])).collect();
        all.extend(again);
    }
    for token in with_ed.iter().chain(&with_ec).chain(&ed_access).chain(&ec_access) {
        assert_eq!(caller.by(token, named).await.unwrap(), "acme/ci", "without a list");
    }
    let missing = world.issuers.reads("ci");
    for (list, takes_ed, takes_ec) in [
        (&["--algorithm", "ES256"][..], false, true),
        (&["--algorithm", "EdDSA"], true, false),
        (&["--algorithm", "RS256"], false, false),
        (&["--algorithm", "Ed25519"], true, false),
        (&["--algorithm", "ES256", "--algorithm", "EdDSA"], true, true),
        (&["--algorithm", "PS512"], false, false),
        (&["--no-algorithms"], true, true),
    ] {
        world.operate(&[&PROVIDER[..], list].concat());
        for (takes, old, access, is_ec) in
            [(takes_ed, &with_ed, &ed_access, false), (takes_ec, &with_ec, &ec_access, true)]
        {
            let new = of(is_ec);
            for (what, tokens) in [("remembered", old), ("access", access), ("new", &new)] {
                for token in tokens {
                    let found = caller.by(token, named).await;
                    let what = format!("{list:?}, {what}, {is_ec}");
                    if takes {
                        assert_eq!(found.expect(&what), "acme/ci");
                    } else {
                        Caller::assert_refused(found, &what);
                    }
                }
            }
            if !takes {
                for token in old.iter().chain(access) {
                    let parameters = [("identity", "acme/ci")];
                    assert_eq!(world.not_exchanged(token, &parameters), "invalid_request");
                }
            }
        }
    }
    assert_eq!(world.issuers.reads("ci"), missing, "the issuer is not asked for what is refused");
    // A provider is not what proves these.
    world.operate(&[&PROVIDER[..], &["--algorithm", "ES256"]].concat());
    let bot = world.bot.sign(&world.of_bot());
    assert_eq!(caller.by(&bot, Some("acme/bot")).await.unwrap(), "acme/bot");
    assert_eq!(caller.by(&world.people.sign(&world.of_ann()), None).await.unwrap(), world.ann);
}

/// The roles of a provider are for tokens that it takes, also of people, who are proved by an issuer of the operator's. Accounts of
/// clouds are proved by the provider of their issuer.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_gives_is_for_tokens_that_it_takes() {
    const AWS: &str = "https://8b1c2d3e-0000-4000-8000-000000000000.tokens.sts.global.api.aws";
    let world = World::start().await;
    let caller = world.caller().await;
    let people = world.issuers.url("people");
    world.operate(&["organizations", "create", "globex", "--owner", "alice"]);
    let create = ["identity-providers", "create", "globex/people", "--issuer", &people];
    world.operate(&[&create[..], &["--default-role", "viewer", "--algorithm", "ES256"]].concat());
    let ann = world.people.sign(&world.of_ann());
    assert_eq!(scopes(&caller, &ann).await, ["acme", "globex"]);
    let update = ["identity-providers", "update", "globex/people"];
    world.operate(&[&update[..], &["--algorithm", "EdDSA"]].concat());
    assert_eq!(scopes(&caller, &ann).await, ["acme"], "she is who she is, without its role");
    world.operate(&[&update[..], &["--no-algorithms"]].concat());
    assert_eq!(scopes(&caller, &ann).await, ["acme", "globex"]);

    let file = world.folder.path().join("aws.jwks").display().to_string();
    std::fs::write(&file, key_set(&[&world.pinned]).to_string()).unwrap();
    world.operate(&["identity-providers", "create", "acme/aws", "--issuer", AWS, "--jwks", &file]);
    world.operate(&["identities", "create", "acme/ingester", "--type", "service"]);
    let associate = ["account-associations", "create", "acme", "--aws", "012345678901"];
    world.operate(&[&associate[..], &["--service", "INGESTER=acme/ingester"]].concat());
    let account = json!({"aws_account": "012345678901"});
    let claims = with(claims(AWS, "role"), "https://sts.amazonaws.com/", account);
    let (token, named) =
        (world.pinned.sign(&claims), [("association", "acme"), ("service", "INGESTER")]);
    let access = world.access_token(&token, &named);
    assert_eq!(caller.by(&access, None).await.unwrap(), "acme/ingester");
    let update = ["identity-providers", "update", "acme/aws"];
    world.operate(&[&update[..], &["--algorithm", "RS256"]].concat());
    Caller::assert_refused(caller.by(&access, None).await, "another algorithm");
    assert_eq!(world.not_exchanged(&token, &named), "invalid_request");
    world.operate(&[&update[..], &["--algorithm", "ES256"]].concat());
    assert_eq!(caller.by(&access, None).await.unwrap(), "acme/ingester");
}

/// The server of a world, started again with these options.
fn again(mut world: World, more: &[&str]) -> World {
    world.server.stop("-TERM");
    let by_file = format!("{PINNED},{}", world.folder.path().join("pinned.jwks").display());
    let more = [&["--trust-issuer", &by_file], more].concat();
    world.server = serve(world.folder.path(), &world.issuers.url("people"), &more);
    world
}

/// `--trust-algorithms` is for every issuer that the operator trusts, and for providers that have its keys.
#[tokio::test(flavor = "multi_thread")]
async fn the_operator_says_what_trusted_issuers_sign_with() {
    let world = World::start().await;
    let ed = Key::new("p2", Algorithm::EdDSA);
    world.issuers.publish("people", Some(&[&world.people, &ed]));
    // Identities of an organization whose provider has no keys, and whose provider has its own, of issuers that are trusted.
    let file = world.folder.path().join("own.jwks").display().to_string();
    std::fs::write(&file, key_set(&[&ed]).to_string()).unwrap();
    let people = world.issuers.url("people");
    let create =
        ["identity-providers", "create", "acme/own-idp", "--issuer", &people, "--jwks", &file];
    world.operate(&create);
    world.operate(&["identity-providers", "create", "acme/pinned-idp", "--issuer", PINNED]);
    for (id, issuer) in [("own", &*people), ("dan", PINNED)] {
        let of = format!("issuer={issuer},subject={id}");
        world.operate(&["identities", "create", &format!("acme/{id}"), "--claim-match", &of]);
    }
    let own = ed.sign(&claims(&people, "own"));
    let dan = world.pinned.sign(&claims(PINNED, "dan"));
    let (ann, late) = (world.people.sign(&world.of_ann()), ed.sign(&world.of_ann()));
    let ci = world.ci.sign(&world.of_ci());
    let all = [
        (&ann, None, "ES256"),
        (&late, None, "EdDSA"),
        (&dan, Some("acme/dan"), "ES256"),
        // By keys of the organization's.
        (&own, Some("acme/own"), ""),
        (&ci, Some("acme/ci"), ""),
    ];
    let by_list = async |world: World, options: &[&str], taken: &[&str]| {
        let world = again(world, options);
        let caller = world.caller().await;
        for (token, named, algorithm) in all {
            for _ in 0..2 {
                let (found, what) =
                    (caller.by(token, named).await, format!("{options:?} {algorithm}"));
                if algorithm.is_empty() || taken.contains(&algorithm) {
                    found.expect(&what);
                } else {
                    Caller::assert_refused(found, &what);
                }
            }
        }
        world
    };
    let world = by_list(world, &[], &["ES256", "EdDSA"]).await;
    let world = by_list(world, &["--trust-algorithms", "ES256"], &["ES256"]).await;
    let both = ["--trust-algorithms", "Ed25519,ES256"];
    let world = by_list(world, &both, &["ES256", "EdDSA"]).await;
    // What a provider takes is less by its own list, beside the operator's.
    let caller = world.caller().await;
    let update = ["identity-providers", "update", "acme/pinned-idp", "--algorithm", "EdDSA"];
    world.operate(&update);
    Caller::assert_refused(caller.by(&dan, Some("acme/dan")).await, "by the provider");
    // An access token goes with what it was made for, also when the operator changes the list.
    let access = world.access_token(&late, &[]);
    assert_eq!(caller.by(&access, None).await.unwrap(), world.ann);
    let world = again(world, &["--trust-algorithms", "ES256"]);
    Caller::assert_refused(world.caller().await.by(&access, None).await, "the operator's list");
    let world = again(world, &both);
    assert_eq!(world.caller().await.by(&access, None).await.unwrap(), world.ann);
}

/// A list that makes no sense is refused before anything listens, wherever it is written.
#[test]
fn a_list_of_the_operator_makes_sense() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let data = path("data");
    let made = capstan(&["init", "--data", &data, "--org", "acme", "--owner", "alice"]);
    assert!(made.status.success());
    let keys = key_set(&[&Key::new("k", Algorithm::ES256)]).to_string();
    std::fs::write(path("keys"), keys).unwrap();
    let trusted = format!("https://a.example,{}", path("keys"));
    for (trusts, list, said) in [
        (false, "ES256", "--trust-issuer"),
        (true, "HS256", "HS256"),
        (true, "ES256,es256", "es256"),
        (true, "ES256,", "a value is required"),
        (true, "EdDSA,Ed25519", "one algorithm"),
        (true, "ES256,ES256", "named twice"),
        (true, "RS256,EdDSA", "no key in it is for an algorithm of --trust-algorithms"),
    ] {
        let fixed = ["serve", "--data", &data, "--listen", "127.0.0.1:0", "--http", "none"];
        let trust: &[&str] = if trusts { &["--trust-issuer", &trusted] } else { &[] };
        let output = capstan(&[&fixed[..], trust, &["--trust-algorithms", list]].concat());
        let error = stderr(&output);
        assert!(!output.status.success() && error.contains(said), "{list}: {error}");
    }
    let check = |text: &str| {
        std::fs::write(path("capstan.toml"), text).unwrap();
        let output = capstan(&["config", "check", "--no-files", &path("capstan.toml")]);
        (output.status.code(), stderr(&output))
    };
    let issuer = "public-url = \"https://x.example\"\ntrust-issuer = [\"https://a.example\"]\n";
    for list in ["[\"ES256\", \"EdDSA\"]", "\"ES256,EdDSA\""] {
        let good = check(&format!("data = \"d\"\n{issuer}trust-algorithms = {list}\n"));
        assert_eq!(good, (Some(0), String::new()), "{list}");
    }
    let (code, error) = check("data = \"d\"\ntrust-algorithms = [\"ES256\"]\n");
    assert!(code == Some(2) && error.contains("--trust-issuer"), "{error}");
    let (code, error) = check(&format!("data = \"d\"\n{issuer}trust-algorithms = [\"none\"]\n"));
    assert!(code == Some(2) && error.contains("none"), "{error}");
}
