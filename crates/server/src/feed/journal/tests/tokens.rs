//! Pull tokens in a store: who is proved by which secret, after a restart, a revocation and a failure.

use std::sync::Arc;
use std::time::Duration;

use capstan_iam::{Credential, Narrowing, PullToken, Secret, SecretKind};

use super::*;
use crate::authn::secrets::SecretDigest;

fn secret(at: u8) -> Secret {
    Secret::new(SecretKind::PullToken, [at; 32])
}

fn make(at: u8) -> Operation {
    Operation::CreatePullToken(capstan_iam::CreatePullToken {
        group: path("acme"),
        role: "registry.pull".into(),
        name: "ci".into(),
        ttl: Some(Duration::from_secs(3_600)),
        secret: secret(at).hash(),
    })
}

fn token(written: &Written) -> PullToken {
    let Response::PullToken(token, _) = &written.response else { panic!("no token") };
    (**token).clone()
}

impl Running {
    /// The identity that a secret proves at a time after the start.
    fn proved(&self, at: u8, later: i64) -> Option<String> {
        let current = self.published.current().unwrap();
        let text = secret(at).text();
        let found = current
            .secrets
            .prove(SecretDigest::of(text.as_bytes()), Timestamp::new(START + later, 0));
        found.map(|(id, _)| id.to_string())
    }

    fn keys(&self) -> usize {
        let view = self.published.current().unwrap().view().unwrap();
        let mut count = 0;
        let range = KeyRange::prefix(prefix::CREDENTIAL);
        view.scan(range.bounds(), &mut |_, _| {
            count += 1;
            true
        })
        .unwrap();
        count
    }
}

#[tokio::test]
async fn a_secret_proves_its_token_until_it_ends_or_is_revoked() {
    let journal = acme().await;
    let running = start(&journal).await;
    let (one, other) = (running.as_alice(make(1)).await, running.as_alice(make(2)).await);
    let (one, other) = (token(&one).identity.id, token(&other).identity.id);
    assert_eq!(running.proved(1, 0).as_deref(), Some(one.as_str()));
    assert_eq!(running.proved(1, 3_599).as_deref(), Some(one.as_str()));
    assert_eq!(running.proved(1, 3_600), None, "it has ended");
    assert_eq!(running.proved(3, 0), None, "nobody has made it");
    assert!(running.allows(one.as_str(), "manifest.list", "acme/nginx"));

    // After a restart it is the same.
    let running = start(&journal).await;
    assert_eq!(running.proved(2, 0).as_deref(), Some(other.as_str()));
    assert_eq!(running.keys(), 2);
    let revoke = |id: &PathBuf| Delete { id: id.clone(), etag: None };
    running.as_alice(Operation::RevokePullToken(revoke(&one))).await;
    assert_eq!((running.proved(1, 0), running.keys()), (None, 1));
    assert!(!running.allows(one.as_str(), "manifest.list", "acme/nginx"));
    // Whichever way it goes.
    running.as_alice(Operation::DeleteIdentity(revoke(&other))).await;
    assert_eq!((running.proved(2, 0), running.keys()), (None, 0));
    let running = start(&journal).await;
    assert_eq!((running.proved(1, 0), running.proved(2, 0)), (None, None));
}

#[tokio::test]
async fn a_token_whose_commit_fails_proves_nothing() {
    for (fault, is_made) in [
        (Fault::Full, false),
        (Fault::Unreachable, false),
        (Fault::UnknownNotMade, false),
        (Fault::UnknownMade, true),
    ] {
        let journal = acme().await;
        let running = start(&journal).await;
        journal.fails(fault);
        assert!(running.try_as_alice(make(1)).await.is_err(), "{fault:?}");
        // Whatever is written next shows what the store has.
        running.as_alice(create("acme/x")).await;
        assert_eq!(running.proved(1, 0).is_some(), is_made, "{fault:?}");
        let loaded = start(&journal).await;
        assert_eq!(loaded.proved(1, 0), running.proved(1, 0), "{fault:?}");
    }
}

/// The same answer for a retry has the hash of the secret that was made first.
#[tokio::test]
async fn a_retry_is_answered_with_the_first_token() {
    let journal = acme().await;
    let running = start(&journal).await;
    let asked = |at| Write { request_id: Some("r".into()), ..write(alice(), make(at)) };
    let first = running.writes.write(asked(1)).await.unwrap();
    let running = start(&journal).await;
    let again = running.writes.write(asked(2)).await.unwrap();
    assert_eq!((again.revision, &again.response), (first.revision, &first.response));
    let Response::PullToken(_, hash) = again.response else { panic!("no token") };
    assert_eq!(hash, secret(1).hash());
    assert_eq!((running.proved(1, 0).is_some(), running.proved(2, 0)), (true, None));
}

/// A credential that is held to less is not answered with the secret of one that is not.
#[tokio::test]
async fn a_retry_by_a_narrowed_credential_is_another_request() {
    let journal = acme().await;
    let running = start(&journal).await;
    let asked = |actor: Actor| Write { request_id: Some("r".into()), ..write(actor, make(1)) };
    running.writes.write(asked(alice())).await.unwrap();
    let narrowing = Narrowing { subtree: None, capabilities: Some([].into()) };
    let narrowing = Some(Arc::new(narrowing));
    let narrowed = Actor::Identity { id: path("alice"), email: None, session: None, narrowing };
    assert!(running.writes.write(asked(narrowed)).await.is_err());
    assert!(running.writes.write(asked(alice())).await.is_ok());
}

#[tokio::test]
async fn a_store_with_a_credential_that_is_none_is_not_served() {
    let journal = acme().await;
    let key = Credential::key(path("acme/x").as_path());
    let side = vec![capstan_store::Op::Put { key: key.into(), value: b"none".to_vec().into() }];
    let head = journal.head().await.unwrap();
    journal.append(head, Batch { side, ..Batch::default() }).await.unwrap();
    let view = journal.view().await.unwrap();
    let error = load::load(&view).unwrap_err().to_string();
    assert_eq!(error, "the record `tacme/x` is no credential of a pull token");
}

#[tokio::test]
async fn a_secret_proves_no_later_identity_of_the_same_id() {
    let journal = acme().await;
    let running = start(&journal).await;
    let made = token(&running.as_alice(make(1)).await);
    let (id, created) = (made.identity.id, made.identity.meta.created);
    let expires_at = made.binding.expires_at.unwrap();
    for (id, created, fits) in
        [(&id, created, true), (&id, created + 1, false), (&path("alice"), created, false)]
    {
        let credential = Credential { created, expires_at, secret: secret(1).hash() };
        let key = Credential::key(id.as_path()).into();
        let side = vec![capstan_store::Op::Put { key, value: credential.encode().into() }];
        let head = journal.head().await.unwrap();
        journal.append(head, Batch { side, ..Batch::default() }).await.unwrap();
        let loaded = load::load(&journal.view().await.unwrap());
        assert_eq!(loaded.is_ok(), fits, "{loaded:?}");
    }
}

/// No record of the audit log and no export has the secret or its hash.
#[tokio::test]
async fn the_hash_is_only_in_its_own_record_and_the_answer_for_a_retry() {
    let journal = acme().await;
    let running = start(&journal).await;
    let asked = Write { request_id: Some("r".into()), ..write(alice(), make(9)) };
    running.writes.write(asked).await.unwrap();
    let hash = *secret(9).hash().bytes();
    let view = running.published.current().unwrap().view().unwrap();
    let mut found = vec![];
    view.scan((Bound::Unbounded, Bound::Unbounded), &mut |key, value| {
        if value.windows(32).any(|part| part == hash) {
            found.push(key[0]);
        }
        assert!(!value.windows(32).any(|part| part == [9; 32]), "the secret itself");
        true
    })
    .unwrap();
    assert_eq!(found, [prefix::REQUEST, prefix::CREDENTIAL]);
}
