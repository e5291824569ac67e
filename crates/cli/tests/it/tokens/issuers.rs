//! Issuers that change their keys, do not answer, or are asked for keys that nobody has.

use std::time::{Duration, Instant};

use capstan_server::limits::{KEY_FILE_BYTES_MAX, KEYS_PAUSE};
use futures_util::future::join_all;
use jsonwebtoken::Algorithm;

use super::{Caller, Key, PINNED, World, claims, key_set, with};
use crate::common::{PATIENCE, capstan, stderr};

/// A4: however many tokens name keys that nobody has, an issuer is asked twice a minute, and tokens that are known go on.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_ask_an_issuer_twice_a_minute() {
    let world = World::start().await;
    let caller = world.caller().await;
    let token = world.people.sign(&world.of_ann());
    assert_eq!(caller.by(&token, None).await.unwrap(), world.ann);
    assert_eq!(world.issuers.reads("people"), 1);
    let began = Instant::now();
    for round in 0..20 {
        let unknown = (0..100).map(|at| {
            let header = with(world.people.header(), "kid", format!("k{round}-{at}"));
            world.people.sign_with(&header, &world.of_ann())
        });
        let unknown: Vec<String> = unknown.collect();
        for found in join_all(unknown.iter().map(|token| caller.by(token, None))).await {
            // Beyond the calls at a time some are shed, which is no proof either.
            assert!(found.is_err());
        }
        assert_eq!(caller.by(&token, None).await.unwrap(), world.ann, "round {round}");
    }
    let most = 1 + began.elapsed().as_secs() / KEYS_PAUSE.as_secs();
    let reads = world.issuers.reads("people") as u64;
    assert!(reads <= most, "{reads} readings, at most {most}");
    // An issuer that nobody configured is asked for nothing.
    let asked = world.issuers.server.requests().len();
    let stranger = with(world.of_ann(), "iss", world.issuers.url("stranger"));
    Caller::assert_refused(caller.by(&world.people.sign(&stranger), None).await, "a stranger");
    assert_eq!(world.issuers.server.requests().len(), asked);
}

/// A5: keys that are known count while their issuer does not answer; new ones count once it can be asked again.
#[tokio::test(flavor = "multi_thread")]
async fn known_keys_outlive_an_outage_and_new_ones_are_found() {
    let world = World::start().await;
    let caller = world.caller().await;
    let old = world.people.sign(&world.of_ann());
    assert_eq!(caller.by(&old, None).await.unwrap(), world.ann);
    world.issuers.publish("people", None);
    let began = Instant::now();
    let next = Key::new("p2", Algorithm::EdDSA);
    let new = next.sign(&world.of_ann());
    Caller::assert_refused(caller.by(&new, None).await, "not published yet");
    assert_eq!(caller.by(&old, None).await.unwrap(), world.ann);
    let other = world.people.sign(&with(world.of_ann(), "jti", "2"));
    assert_eq!(caller.by(&other, None).await.unwrap(), world.ann, "another token of a known key");
    // It answers again, with another key beside the one that is known, and then with that one alone.
    world.issuers.publish("people", Some(&[&world.people, &next]));
    let patience = KEYS_PAUSE + PATIENCE;
    while caller.by(&new, None).await.is_err() {
        assert!(began.elapsed() < patience, "the new key is never found");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(caller.by(&old, None).await.unwrap(), world.ann);
    world.issuers.publish("people", Some(&[&next]));
    let began = Instant::now();
    // Whoever asks for an unknown key has the set read again, without the key that is gone.
    while caller.by(&old, None).await.is_ok() {
        assert!(began.elapsed() < patience, "the old key counts for ever");
        let unknown = with(next.header(), "kid", "p3");
        let _ = caller.by(&next.sign_with(&unknown, &world.of_ann()), None).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(caller.by(&new, None).await.unwrap(), world.ann);
}

/// A server that was never told the keys of an issuer lets nobody in by it, and answers all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_never_answered_proves_nobody() {
    let world = World::start().await;
    let caller = world.caller().await;
    world.issuers.publish("people", None);
    Caller::assert_refused(caller.by(&world.people.sign(&world.of_ann()), None).await, "no keys");
    let found = caller.by(&world.bot.sign(&world.of_bot()), Some("acme/bot")).await;
    assert_eq!(found.unwrap(), "acme/bot");
}

/// Keys in a file of the operator's: one that is taken away counts no more, also for a token that is remembered, and a new one does. A file
/// that is wrong changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn keys_in_a_file_are_replaced_while_they_are_used() {
    let mut world = World::start().await;
    let caller = world.caller().await;
    let found = ["identities", "lookup", "--issuer", PINNED, "--subject", "dan", "-o", "json"];
    let found: serde_json::Value = serde_json::from_str(&world.operate(&found)).unwrap();
    let dan = found["id"].as_str().unwrap().to_owned();
    let matched = format!("issuer={PINNED},subject=dan");
    world.operate(&["identities", "create", &dan, "--claim-match", &matched]);
    let next = Key::new("f2", Algorithm::EdDSA);
    let [old, new] = [&world.pinned, &next].map(|key| key.sign(&claims(PINNED, "dan")));
    assert_eq!(caller.by(&old, None).await.unwrap(), dan);
    Caller::assert_refused(caller.by(&new, None).await, "a key that is not there yet");

    let file = world.folder.path().join("pinned.jwks");
    let write = |text: String| {
        let beside = file.with_extension("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, &file).unwrap();
    };
    write(key_set(&[&next]).to_string());
    let began = Instant::now();
    while caller.by(&old, None).await.is_ok() {
        assert!(began.elapsed() < PATIENCE, "the old key counts on");
    }
    assert_eq!(caller.by(&new, None).await.unwrap(), dan);

    write("{}".into());
    world.server.wait_for_log("the keys of trusted issuers are not reloaded");
    assert_eq!(caller.by(&new, None).await.unwrap(), dan);
    write(key_set(&[&world.pinned, &next]).to_string());
    let began = Instant::now();
    while caller.by(&old, None).await.is_err() {
        assert!(began.elapsed() < PATIENCE, "the key is never read again");
    }

    assert_eq!(KEY_FILE_BYTES_MAX, 256 << 10);
    write(" ".repeat((256 << 10) + 1));
    let (data, by_file) =
        (world.folder.path().join("other"), format!("{PINNED},{}", file.display()));
    let data = data.display().to_string();
    assert!(
        capstan(&["init", "--data", &data, "--org", "acme", "--owner", "alice"]).status.success()
    );
    let trusts = ["--trust-issuer", &by_file, "--token-audience", "x", "--http", "none"];
    let serve = ["serve", "--data", &data, "--listen", "127.0.0.1:0"];
    let refused = capstan(&[&serve[..], &trusts].concat());
    assert!(stderr(&refused).contains("longer than 262144 bytes"), "{}", stderr(&refused));
}
