//! The keys of issuers, by discovery.
//!
//! ```text
//! key of a token ─▶ known and fresh? ─▶ keys
//!                     ├ known, not fresh ─▶ keys, and the issuer is asked in the background
//!                     ├ known, stale ─▶ asked as if they were not known; they count if it does not answer
//!                     └ not known ─▶ asked at most every 30 seconds, once for all who wait ─▶ keys, or none
//! ```
//!
//! **Invariants**: one reading of an issuer runs at a time, whoever waits for it or goes away. What a token says decides
//! neither whom to ask nor where. An issuer that does not answer takes nothing away from the keys that are known, for
//! [`KEYS_KEPT_MAX`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use capstan_events::Client;
use dashmap::DashMap;
use dashmap::mapref::multiple::RefMulti;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::keys::{KeySet, SignedBy};
use super::token::Token;
use crate::discovery::{Discovered, PublishedKeys, keys_at, published_keys};
use crate::limits::{
    ISSUERS_MAX, KEYS_FRESH, KEYS_KEPT_MAX, KEYS_PAUSE, KEYS_STALE, KEYS_URL_KEPT,
};
use crate::telemetry::metrics::Metrics;

/// The keys of all issuers that were asked. Clones share them.
#[derive(Clone)]
pub(crate) struct Issuers(Arc<Parts>);

impl std::fmt::Debug for Issuers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Issuers").field(&self.0.issuers.len()).finish()
    }
}

/// Asks an issuer for its keys: where they were found before, or by discovery.
type Ask =
    dyn Fn(String, Option<String>) -> BoxFuture<'static, Result<Asked, String>> + Send + Sync;

/// What an issuer was asked for.
enum Asked {
    /// Its keys, where they were before.
    Again(Bytes),
    /// Its discovery document, and the keys that it names.
    Discovered(PublishedKeys),
}

struct Parts {
    ask: Box<Ask>,
    metrics: Arc<Metrics>,
    issuers: DashMap<String, Arc<Issuer>>,
    readings: TaskTracker,
    began: Instant,
}

#[derive(Debug)]
struct Issuer {
    known: ArcSwapOption<Known>,
    /// Held while the issuer is asked. When it was asked last.
    asked: Arc<Mutex<Option<Instant>>>,
    /// Whether it is never forgotten.
    is_kept: bool,
    /// Milliseconds from the start to when it was used last.
    used: AtomicU64,
}

/// Keys of an issuer, and where they were read.
#[derive(Debug)]
struct Known {
    keys: KeySet,
    read: Instant,
    url: String,
    algorithms: Option<Vec<String>>,
    /// When the discovery document was read.
    discovered: Instant,
}

impl Issuers {
    /// Asks through this client.
    pub(crate) fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        let client = Arc::new(client);
        let ask = move |issuer: String, url: Option<String>| -> BoxFuture<'static, _> {
            let client = Arc::clone(&client);
            Box::pin(async move { ask(&client, &issuer, url).await })
        };
        Self::asking(Box::new(ask), metrics)
    }

    fn asking(ask: Box<Ask>, metrics: Arc<Metrics>) -> Self {
        let (issuers, readings) = (DashMap::new(), TaskTracker::new());
        Self(Arc::new(Parts { ask, metrics, issuers, readings, began: Instant::now() }))
    }

    /// Keeps an issuer, whatever else is asked.
    pub(crate) fn keep(&self, issuer: &str) {
        self.0.issuers.insert(issuer.to_owned(), Arc::new(Issuer::new(true, 0)));
    }

    /// The keys of an issuer that may have signed a token. `None` if it has none, or is not asked now.
    pub(crate) async fn keys(&self, issuer: &str, token: &Token<'_>) -> Option<Arc<Keys>> {
        self.keys_with(issuer, |keys| keys.has(token.algorithm, token.key_id.as_deref())).await
    }

    /// Whether an issuer has this key. It is not asked for that, unless its keys are not fresh.
    pub(crate) fn has_key(&self, issuer: &str, by: &SignedBy) -> bool {
        let found = self.0.issuers.get(issuer).map(|found| Arc::clone(&found));
        let Some(found) = found else { return false };
        !found.is_stale() && self.known(issuer, &found, |keys| keys.contains(by)).is_some()
    }

    /// The same, and the issuer is asked if it may have it now.
    pub(crate) async fn still_has_key(&self, issuer: &str, by: &SignedBy) -> bool {
        self.keys_with(issuer, |keys| keys.contains(by)).await.is_some()
    }

    async fn keys_with(&self, issuer: &str, wanted: impl Fn(&KeySet) -> bool) -> Option<Arc<Keys>> {
        let entry = self.entry(issuer);
        let is_stale = entry.is_stale();
        if let Some(keys) = self.known(issuer, &entry, &wanted)
            && !is_stale
        {
            return Some(keys);
        }
        let reading = self.read(issuer, Arc::clone(&entry));
        // The task goes on if this call ends.
        let _ = self.0.readings.spawn(reading).await;
        // Those that are stale count if the issuer does not answer.
        self.known(issuer, &entry, wanted)
    }

    /// Keys that are known, if they are what is wanted. If they are not fresh the issuer is asked in the background.
    fn known(
        &self,
        issuer: &str,
        entry: &Arc<Issuer>,
        wanted: impl Fn(&KeySet) -> bool,
    ) -> Option<Arc<Keys>> {
        let known = entry.known.load_full()?;
        let age = known.read.elapsed();
        if age >= KEYS_KEPT_MAX || !wanted(&known.keys) {
            return None;
        }
        // Only one task is made for it: the lock is free if nobody asks.
        if age >= KEYS_FRESH && entry.asked.try_lock().is_ok_and(|asked| may_ask(*asked)) {
            self.0.readings.spawn(self.read(issuer, Arc::clone(entry)));
        }
        Some(Arc::new(Keys(known)))
    }

    fn entry(&self, issuer: &str) -> Arc<Issuer> {
        let now = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Some(found) = self.0.issuers.get(issuer) {
            found.used.store(now, Relaxed);
            return Arc::clone(&found);
        }
        if self.0.issuers.len() >= ISSUERS_MAX {
            let of_less_use = |entry: &RefMulti<'_, String, Arc<Issuer>>| {
                (entry.known.load().is_some(), entry.used.load(Relaxed))
            };
            let others = self.0.issuers.iter().filter(|entry| !entry.is_kept);
            let first = others.min_by_key(of_less_use).map(|entry| entry.key().clone());
            first.map(|first| self.0.issuers.remove(&first));
        }
        let made = || Arc::new(Issuer::new(false, now));
        Arc::clone(&self.0.issuers.entry(issuer.to_owned()).or_insert_with(made))
    }

    /// Asks an issuer, unless it was asked just before.
    fn read(&self, issuer: &str, entry: Arc<Issuer>) -> impl Future<Output = ()> + Send + use<> {
        let (parts, issuer) = (Arc::clone(&self.0), issuer.to_owned());
        async move {
            let mut asked = entry.asked.lock().await;
            if !may_ask(*asked) {
                return;
            }
            *asked = Some(Instant::now());
            let before = entry.known.load_full();
            let before = before.filter(|known| known.discovered.elapsed() < KEYS_URL_KEPT);
            let read = Instant::now();
            let url = before.as_ref().map(|known| known.url.clone());
            let known = (parts.ask)(issuer.clone(), url).await.and_then(|asked| {
                let (keys, url, algorithms, discovered) = match (asked, before) {
                    (Asked::Discovered(PublishedKeys { url, algorithms, keys }), _) => {
                        (keys, url, algorithms, read)
                    }
                    (Asked::Again(keys), Some(known)) => {
                        let (url, algorithms) = (known.url.clone(), known.algorithms.clone());
                        (keys, url, algorithms, known.discovered)
                    }
                    (Asked::Again(_), None) => return Err("keys of nowhere".to_owned()),
                };
                let keys = KeySet::read(&keys, algorithms.as_deref())?;
                Ok(Known { keys, read, url, algorithms, discovered })
            });
            parts.metrics.keys_read(known.is_ok());
            match known {
                Ok(known) => entry.known.store(Some(Arc::new(known))),
                Err(problem) => {
                    tracing::warn!(issuer, problem, "the keys of an issuer are not read")
                }
            }
        }
    }
}

impl Issuer {
    fn new(is_kept: bool, used: u64) -> Self {
        let (known, asked, used) = (ArcSwapOption::empty(), Arc::default(), AtomicU64::new(used));
        Self { known, asked, is_kept, used }
    }

    /// Whether nobody has asked the issuer for so long that it is asked before its keys count. While it does not answer it is
    /// asked in the background, and nobody waits.
    fn is_stale(&self) -> bool {
        let is_old = |at: Instant| at.elapsed() >= KEYS_STALE;
        self.known.load().as_ref().is_some_and(|known| is_old(known.read))
            && self.asked.try_lock().is_ok_and(|asked| asked.is_none_or(is_old))
    }
}

/// Keys of an issuer, as they were read.
#[derive(Debug)]
pub(crate) struct Keys(Arc<Known>);

impl std::ops::Deref for Keys {
    type Target = KeySet;

    fn deref(&self) -> &KeySet {
        &self.0.keys
    }
}

fn may_ask(asked: Option<Instant>) -> bool {
    asked.is_none_or(|asked| asked.elapsed() >= KEYS_PAUSE)
}

async fn ask(client: &Client, issuer: &str, url: Option<String>) -> Result<Asked, String> {
    if let Some(url) = url
        && let Ok(keys) = keys_at(client, &url).await
    {
        return Ok(Asked::Again(keys));
    }
    let published = published_keys(client, issuer).await.map_err(|discovered| match discovered {
        Discovered::Unanswered(problem) | Discovered::Wrong(problem) => problem,
        Discovered::Keys => String::new(),
    });
    published.map(Asked::Discovered)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use capstan_iam::Algorithm;

    use super::*;

    /// What the issuer is asked, and what it publishes; `None` while it does not answer.
    #[derive(Clone, Default)]
    struct World {
        asked: Arc<Mutex<Vec<Option<String>>>>,
        keys: Arc<Mutex<Option<String>>>,
    }

    impl World {
        fn issuers(&self) -> Issuers {
            let world = self.clone();
            let ask = move |_: String, url: Option<String>| -> BoxFuture<'static, _> {
                world.asked.lock().unwrap().push(url.clone());
                let keys = world.keys.lock().unwrap().clone();
                Box::pin(async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    let keys = Bytes::from(keys.ok_or("away")?);
                    let algorithms = Some(vec!["EdDSA".to_owned()]);
                    Ok(match url {
                        Some(_) => Asked::Again(keys),
                        None => {
                            Asked::Discovered(PublishedKeys { url: "u".into(), algorithms, keys })
                        }
                    })
                })
            };
            Issuers::asking(Box::new(ask), Arc::default())
        }

        fn publish(&self, ids: Option<&[&str]>) {
            let key = |id: &&str| {
                format!(r#"{{"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "{id}"}}"#)
            };
            let set = ids.map(|ids| {
                let keys: Vec<_> = ids.iter().map(key).collect();
                format!(r#"{{"keys": [{}]}}"#, keys.join(","))
            });
            *self.keys.lock().unwrap() = set;
        }

        fn asked(&self) -> usize {
            self.asked.lock().unwrap().len()
        }
    }

    async fn has(issuers: &Issuers, id: &str) -> bool {
        issuers.keys_with("i", |keys| keys.has(Algorithm::Ed25519, Some(id))).await.is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuer_is_asked_once_for_all_who_wait() {
        let world = World::default();
        world.publish(Some(&["a"]));
        let issuers = world.issuers();
        let all = futures_util::future::join_all((0..1_000).map(|_| has(&issuers, "a"))).await;
        assert!(all.iter().all(|found| *found));
        assert_eq!(world.asked(), 1);
        // Whoever goes away does not end the reading for the others.
        let late = world.issuers();
        let gone = tokio::time::timeout(Duration::from_millis(1), has(&late, "a")).await;
        assert!(gone.is_err());
        assert!(has(&late, "a").await);
        assert_eq!(world.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_keys_have_it_asked_after_a_pause() {
        let world = World::default();
        world.publish(Some(&["a"]));
        let issuers = world.issuers();
        assert!(has(&issuers, "a").await && !has(&issuers, "b").await);
        world.publish(Some(&["a", "b"]));
        for _ in 0..100 {
            assert!(has(&issuers, "a").await && !has(&issuers, "b").await);
        }
        assert_eq!(world.asked(), 1);
        tokio::time::sleep(KEYS_PAUSE).await;
        assert!(has(&issuers, "b").await);
        assert_eq!(world.asked(), 2);
        assert_eq!(world.asked.lock().unwrap()[1].as_deref(), Some("u"), "where they were before");
    }

    #[tokio::test(start_paused = true)]
    async fn known_keys_count_while_it_does_not_answer_and_not_for_ever() {
        let world = World::default();
        world.publish(Some(&["a"]));
        let issuers = world.issuers();
        assert!(has(&issuers, "a").await);
        world.publish(None);
        tokio::time::sleep(KEYS_FRESH).await;
        let began = Instant::now();
        assert!(has(&issuers, "a").await);
        assert_eq!(began.elapsed(), Duration::ZERO, "nobody waits for it");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(world.asked(), 2, "it was asked in the background");
        tokio::time::sleep(KEYS_KEPT_MAX - KEYS_FRESH - Duration::from_secs(10)).await;
        assert!(has(&issuers, "a").await);
        assert_eq!(world.asked(), 3, "it was asked before they counted");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!has(&issuers, "a").await);
        // It is back: where its keys are is asked again, and a key that is gone counts no more.
        world.publish(Some(&["b"]));
        tokio::time::sleep(KEYS_PAUSE).await;
        assert!(has(&issuers, "b").await && !has(&issuers, "a").await);
        assert_eq!(world.asked.lock().unwrap().last().unwrap(), &None);
        let unknown = SignedBy { key: [0; 32], algorithm: Algorithm::Ed25519 };
        assert!(!issuers.has_key("other", &unknown));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_was_withdrawn_while_nobody_called_counts_no_more() {
        let world = World::default();
        world.publish(Some(&["a", "b"]));
        let issuers = world.issuers();
        assert!(has(&issuers, "a").await && has(&issuers, "b").await);
        world.publish(Some(&["b"]));
        tokio::time::sleep(KEYS_STALE).await;
        assert!(!has(&issuers, "a").await && has(&issuers, "b").await);
        assert_eq!(world.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn fresh_keys_are_read_where_they_were_for_an_hour() {
        let world = World::default();
        world.publish(Some(&["a"]));
        let issuers = world.issuers();
        let began = Instant::now();
        while began.elapsed() < KEYS_URL_KEPT + 2 * KEYS_FRESH {
            assert!(has(&issuers, "a").await);
            tokio::time::sleep(KEYS_FRESH).await;
        }
        let asked = world.asked.lock().unwrap().clone();
        assert_eq!(asked.iter().filter(|url| url.is_none()).count(), 2, "{asked:?}");
        assert!(asked.len() >= 12, "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_issuers_that_are_kept_are_limited() {
        let world = World::default();
        world.publish(Some(&["a"]));
        let issuers = world.issuers();
        issuers.keep("trusted");
        let next = async |name: &str| {
            issuers.entry(name);
            tokio::time::advance(Duration::from_millis(1)).await;
        };
        // One with keys, and then as many without as there are places.
        assert!(has(&issuers, "a").await);
        for at in 0..ISSUERS_MAX {
            next(&at.to_string()).await;
        }
        assert_eq!(issuers.0.issuers.len(), ISSUERS_MAX);
        let kept = |name: &str| issuers.0.issuers.contains_key(name);
        assert!(kept("trusted") && kept("i") && !kept("0") && !kept("1") && kept("2"));
        next("2").await;
        next("more").await;
        assert!(kept("2") && !kept("3"), "the one that was used first goes");
        assert_eq!(format!("{issuers:?}"), format!("Issuers({ISSUERS_MAX})"));
    }
}
