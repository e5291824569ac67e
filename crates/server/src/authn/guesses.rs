//! Secrets that prove nothing, counted by where they come from.
//!
//! ```text
//! a secret that proves nothing ─▶ one guess of its place ─▶ too many: secrets that have proved nobody from there are not looked at
//! ```
//!
//! **Invariants**: from a place with too many guesses a secret that is right is answered as a wrong one, unless it was right from the same
//! place before. A secret that is shown again and again is one guess: a client with an old one locks nobody out. This machine's addresses
//! have no limit: behind a proxy or a tunnel everybody comes from them. Signed tokens are no guesses: nobody guesses a signature, and
//! expired ones are common.

use std::cell::{OnceCell, RefCell};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use capstan_engine::{PathBuf, Timestamp};
use dashmap::{DashMap, DashSet};
use tokio::time::Instant;

use super::secrets::{ProvedBy, SecretDigest, Secrets};
use crate::limits::{
    GUESS_EVERY, GUESSERS_MAX, GUESSES_AT_ONCE_MAX, GUESSES_REMEMBERED, SECRETS_REMEMBERED_MAX,
};
use crate::transport::connection::Remote;

/// Where a secret comes from; of this machine `None`, which is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(Option<Source>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    /// The other end of a connection.
    Peer(IpAddr),
    /// The client of a proxy, as that says. It cannot lock out whom it names from elsewhere.
    Client(IpAddr),
    /// Those that there is no room for.
    Others,
}

impl Place {
    /// The other end of a connection.
    pub(crate) fn of(remote: Option<&Remote>) -> Self {
        match remote {
            Some(Remote::Ip(address)) => Self(owner(address.ip()).map(Source::Peer)),
            Some(Remote::Process(_) | Remote::Operator(_)) | None => Self(None),
        }
    }

    /// The client of a proxy. If the proxy names none of another machine, the proxy itself.
    pub(crate) fn of_client(client: Option<IpAddr>, proxy: Option<&Remote>) -> Self {
        let client = client.and_then(owner).map(Source::Client);
        client.map_or_else(|| Self::of(proxy), |client| Self(Some(client)))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(Source::Peer(address)) => address.fmt(f),
            Some(Source::Client(address)) => write!(f, "{address}, behind a proxy"),
            Some(Source::Others) | None => f.write_str("many addresses"),
        }
    }
}

/// An IPv4 address of another machine, or the /48 network of an IPv6 address: one owner has all of it.
fn owner(address: IpAddr) -> Option<IpAddr> {
    let address = address.to_canonical();
    let owner = match address {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 80 << 80).into(),
        IpAddr::V4(_) => address,
    };
    (!address.is_loopback()).then_some(owner)
}

/// Counts guesses.
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    guessers: DashMap<Source, Guesser>,
    /// How many there are. The map itself would have to look at all of its parts.
    count: AtomicUsize,
    /// When those whose guesses are forgotten were removed last.
    removed: Mutex<Option<Instant>>,
    /// Secrets that have proved somebody, and from where.
    proved: DashSet<(Source, SecretDigest)>,
}

#[derive(Clone, Copy, Debug)]
struct Guesser {
    /// When its guesses are forgotten. Each adds [`GUESS_EVERY`].
    forgotten: Instant,
    /// Its last guesses. The last one comes first.
    last: [Option<SecretDigest>; GUESSES_REMEMBERED],
}

impl Guesses {
    /// Whether a secret that was never right from there is not to be looked at.
    fn are_too_many(&self, source: Source) -> bool {
        let count = self.count.load(Relaxed);
        if count == 0 {
            return false;
        }
        let forgotten = |source| self.guessers.get(&source).map(|guesser| guesser.forgotten);
        let forgotten = forgotten(source).or_else(|| {
            // Nothing is known of it because there is no room: it shares one place with all the others of its kind.
            (count >= GUESSERS_MAX).then(|| forgotten(Source::Others)).flatten()
        });
        let most = GUESS_EVERY * (GUESSES_AT_ONCE_MAX - 1);
        forgotten.is_some_and(|forgotten| forgotten > Instant::now() + most)
    }

    /// Counts a secret that has proved nothing.
    fn add(&self, mut source: Source, secret: SecretDigest) {
        let now = Instant::now();
        if !self.has_room(source, now) {
            source = Source::Others;
        }
        let mut guesser = self.guessers.entry(source).or_insert_with(|| {
            self.count.fetch_add(1, Relaxed);
            Guesser { forgotten: now, last: [None; GUESSES_REMEMBERED] }
        });
        let Guesser { forgotten, last } = &mut *guesser;
        let before = last.iter().position(|one| *one == Some(secret));
        if let Some(moved) = last.get_mut(..=before.unwrap_or(GUESSES_REMEMBERED - 1)) {
            moved.rotate_right(1);
        }
        last[0] = Some(secret);
        if before.is_some() {
            return;
        }
        let most = now + GUESS_EVERY * GUESSES_AT_ONCE_MAX;
        *forgotten = ((*forgotten).max(now) + GUESS_EVERY).min(most);
    }

    fn has_room(&self, source: Source, now: Instant) -> bool {
        if self.count.load(Relaxed) < GUESSERS_MAX || self.guessers.contains_key(&source) {
            return true;
        }
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        // To look at all of them takes a while.
        if removed.is_none_or(|removed| now.duration_since(removed) >= GUESS_EVERY) {
            *removed = Some(now);
            self.guessers.retain(|_, guesser| guesser.forgotten > now);
            self.count.store(self.guessers.len(), Relaxed);
        }
        self.count.load(Relaxed) < GUESSERS_MAX
    }

    /// Whether this secret was right from there before.
    fn has_proved(&self, source: Source, by: &ProvedBy) -> bool {
        self.proved.contains(&(source, by.digest()))
    }

    /// Notes a secret that is right.
    fn note(&self, source: Source, by: &ProvedBy) {
        if self.has_proved(source, by) {
            return;
        }
        if self.proved.len() >= SECRETS_REMEMBERED_MAX {
            let any = self.proved.iter().nth(fastrand::usize(..SECRETS_REMEMBERED_MAX / 16));
            let any = any.map(|entry| *entry.key());
            any.map(|any| self.proved.remove(&any));
        }
        self.proved.insert((source, by.digest()));
    }
}

/// A look at the secrets that one call or request shows.
pub(crate) struct Attempt<'a> {
    secrets: &'a Secrets,
    guesses: &'a Guesses,
    place: Place,
    now: Timestamp,
    are_too_many: OnceCell<bool>,
    /// Those that have proved nothing.
    wrong: RefCell<Vec<SecretDigest>>,
}

impl<'a> Attempt<'a> {
    pub(crate) fn new(
        (secrets, guesses): (&'a Secrets, &'a Guesses),
        place: Place,
        now: Timestamp,
    ) -> Self {
        let (are_too_many, wrong) = (OnceCell::new(), RefCell::default());
        Self { secrets, guesses, place, now, are_too_many, wrong }
    }

    fn is_limited(&self) -> bool {
        let look = || self.place.0.is_some_and(|source| self.guesses.are_too_many(source));
        *self.are_too_many.get_or_init(look)
    }

    /// The identity of a secret, and what proves it.
    pub(crate) fn find(&self, secret: &[u8]) -> Option<(PathBuf, ProvedBy)> {
        let secret = SecretDigest::of(secret);
        let Some((identity, by)) = self.secrets.prove(secret, self.now) else {
            // Of this machine nothing is counted.
            if self.place.0.is_some() {
                self.wrong.borrow_mut().push(secret);
            }
            return None;
        };
        let is_known = || self.place.0.is_none_or(|source| self.guesses.has_proved(source, &by));
        (!self.is_limited() || is_known()).then_some((identity, by))
    }

    /// Notes what has proved its identity.
    pub(crate) fn proved(&self, by: &ProvedBy) {
        if let Some(source) = self.place.0 {
            self.guesses.note(source, by);
        }
    }

    /// Counts what has proved nothing; false if it was not looked at, because there were too many before.
    #[must_use]
    pub(crate) fn failed(&self) -> bool {
        if self.is_limited() {
            return false;
        }
        if let Some(source) = self.place.0 {
            self.wrong.borrow().iter().for_each(|secret| self.guesses.add(source, *secret));
        }
        true
    }

    pub(crate) const fn place(&self) -> Place {
        self.place
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use capstan_iam::{Credential, Secret, SecretKind};

    use super::*;

    fn source(address: &str) -> Source {
        let Place(source) = Place::of_client(Some(address.parse().unwrap()), None);
        source.unwrap()
    }

    fn wrong(at: u32) -> SecretDigest {
        SecretDigest::of(format!("secret {at}").as_bytes())
    }

    fn guess(guesses: &Guesses, of: Source, count: u32) {
        (0..count).for_each(|at| guesses.add(of, wrong(at)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_so_many_guesses_and_one_more_each_second() {
        let (guesses, there) = (Guesses::default(), source("192.0.2.1"));
        for at in 0..GUESSES_AT_ONCE_MAX {
            assert!(!guesses.are_too_many(there));
            guesses.add(there, wrong(at));
        }
        assert!(guesses.are_too_many(there));
        assert!(!guesses.are_too_many(source("192.0.2.2")));
        // What is added while there are too many does not make it longer.
        guess(&guesses, there, 1_000);
        tokio::time::advance(GUESS_EVERY - Duration::from_millis(1)).await;
        assert!(guesses.are_too_many(there));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!guesses.are_too_many(there));
        guesses.add(there, wrong(5_000));
        assert!(guesses.are_too_many(there));
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_guess_is_counted_once() {
        let (guesses, there) = (Guesses::default(), source("192.0.2.1"));
        for at in 0..10 * GUESSES_AT_ONCE_MAX {
            guesses.add(there, wrong(at % u32::try_from(GUESSES_REMEMBERED).unwrap()));
        }
        let seconds = u32::try_from(GUESSES_REMEMBERED).unwrap();
        let forgotten = guesses.guessers.get(&there).unwrap().forgotten;
        assert_eq!(forgotten - Instant::now(), GUESS_EVERY * seconds);
        assert!(!guesses.are_too_many(there));
    }

    #[test]
    fn places_are_those_of_one_owner_and_never_this_machine() {
        assert_eq!(source("2001:db8::1"), source("2001:db8:0:1::2"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:1::1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        let remote = |text: &str| Remote::Ip(text.parse().unwrap());
        let there = remote("192.0.2.1:1");
        // What a proxy says of a client is not what the client does itself.
        let of_client = Place::of_client(Some("192.0.2.1".parse().unwrap()), None);
        assert_ne!(Place::of(Some(&there)), of_client);
        assert_eq!(of_client.to_string(), "192.0.2.1, behind a proxy");
        // A proxy that names no other machine speaks for itself.
        for client in [None, Some("127.0.0.1"), Some("::1"), Some("::ffff:127.0.0.1")] {
            let client = client.map(|text| text.parse().unwrap());
            assert_eq!(Place::of_client(client, Some(&there)), Place::of(Some(&there)));
            assert_eq!(Place::of_client(client, None), Place(None));
        }
        let here = [remote("127.0.0.1:1"), remote("[::1]:1"), Remote::Process(Some(7))];
        for here in here {
            assert_eq!(Place::of(Some(&here)), Place(None), "{here:?}");
        }
        assert_eq!(Place::of(None), Place(None));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_without_room_share_one_place_until_others_are_forgotten() {
        let guesses = Guesses::default();
        let nth = |at: usize| {
            let address = u32::try_from(at).unwrap() + (1 << 28);
            Source::Peer(address.to_be_bytes().into())
        };
        (0..GUESSERS_MAX).for_each(|at| guesses.add(nth(at), wrong(0)));
        let (a, b) = (nth(GUESSERS_MAX), nth(GUESSERS_MAX + 1));
        assert!(!guesses.are_too_many(a));
        guess(&guesses, a, GUESSES_AT_ONCE_MAX);
        assert!(guesses.are_too_many(a) && guesses.are_too_many(b));
        assert_eq!(guesses.guessers.len(), GUESSERS_MAX + 1);
        assert!(!guesses.are_too_many(nth(0)), "it is counted for itself");
        tokio::time::advance(GUESS_EVERY).await;
        guesses.add(b, wrong(0));
        assert_eq!(guesses.guessers.len(), 2, "those that are over make room");
        assert_eq!(guesses.count.load(Relaxed), 2);
        assert!(!guesses.are_too_many(a));
    }

    #[test]
    fn so_many_secrets_are_remembered() {
        let (guesses, there) = (Guesses::default(), source("192.0.2.1"));
        let proved_by = |at: usize| ProvedBy::declared(format!("secret {at}").as_bytes());
        for at in 0..SECRETS_REMEMBERED_MAX + 10 {
            guesses.note(there, &proved_by(at));
        }
        assert_eq!(guesses.proved.len(), SECRETS_REMEMBERED_MAX);
        assert!(guesses.has_proved(there, &proved_by(SECRETS_REMEMBERED_MAX + 9)));
    }

    /// From a limited place a right secret is as a wrong one, wherever else it counts.
    #[tokio::test(start_paused = true)]
    async fn a_right_secret_is_known_where_it_was_right() {
        let (guesses, now) = (Guesses::default(), Timestamp::new(0, 0));
        let secret = Secret::new(SecretKind::PullToken, [1; 32]);
        let mut secrets = Secrets::default();
        let credential =
            Credential { created: 1, expires_at: Timestamp::new(9, 0), secret: secret.hash() };
        secrets.tokens.insert("acme/a".parse().unwrap(), &credential);
        let place = |address: &str| Place(Some(source(address)));
        let attempt = |place| Attempt::new((&secrets, &guesses), place, now);
        let shows = |place| {
            let attempt = attempt(place);
            let found = attempt.find(secret.text().as_bytes());
            found.is_some_and(|(_, by)| {
                attempt.proved(&by);
                true
            })
        };
        let (a, b) = (place("192.0.2.1"), place("192.0.2.2"));
        assert!(shows(a));
        for place in [a, b] {
            for at in 0..GUESSES_AT_ONCE_MAX {
                let attempt = attempt(place);
                assert!(attempt.find(format!("wrong {at}").as_bytes()).is_none());
                assert!(attempt.failed());
            }
        }
        assert!(shows(a) && !shows(b));
        let limited = attempt(b);
        assert!(limited.find(secret.text().as_bytes()).is_none() && !limited.failed());
        tokio::time::advance(GUESS_EVERY).await;
        assert!(shows(b));
        guesses.add(source("192.0.2.2"), wrong(7));
        assert!(shows(b), "it was right there meanwhile");
        assert!(shows(Place(None)));
    }
}
