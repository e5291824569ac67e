//! Secrets that prove nothing, counted by where they come from.
//!
//! ```text
//! a secret that proves nothing ─▶ one guess of its address ─▶ too many: secrets that have never proved anyone are not looked at
//! ```
//!
//! **Invariants**: whether a secret of an address with too many guesses is right is not told by anything. Secrets that were right before
//! go on to count there. This machine's addresses have no limit: behind a proxy or a tunnel everybody comes from them. Signed tokens are no
//! guesses: nobody guesses a signature, and expired ones are common.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;

use capstan_engine::{PathBuf, Timestamp};
use dashmap::{DashMap, DashSet};
use tokio::time::Instant;

use super::secrets::{ProvedBy, SecretDigest, Secrets};
use crate::RequestError;
use crate::limits::{GUESS_EVERY, GUESSERS_MAX, GUESSES_AT_ONCE_MAX, SECRETS_REMEMBERED_MAX};
use crate::transport::connection::Remote;
use crate::transport::peers::Peer;

/// Where a secret comes from; of this machine `None`, which is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(Option<Peer>);

impl Place {
    /// The other end of a connection.
    pub(crate) fn of(remote: Option<&Remote>) -> Self {
        match remote {
            Some(Remote::Ip(address)) => Self::of_address(address.ip()),
            Some(Remote::Process(_) | Remote::Operator(_)) | None => Self(None),
        }
    }

    /// An address, such as that of a client that a proxy names.
    pub(crate) fn of_address(address: IpAddr) -> Self {
        let is_here = address.to_canonical().is_loopback();
        Self((!is_here).then(|| Peer::of_address(address)))
    }
}

/// Counts guesses.
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    /// When the guesses of a place are forgotten. Each adds [`GUESS_EVERY`].
    forgotten: DashMap<Peer, Instant>,
    /// Secrets that have proved somebody.
    proved: DashSet<SecretDigest>,
}

impl Guesses {
    /// Whether a secret that was never right is not to be looked at.
    fn are_too_many(&self, Place(peer): Place) -> bool {
        let Some(peer) = peer else { return false };
        let forgotten = self.forgotten.get(&peer).map(|forgotten| *forgotten);
        let forgotten = forgotten.or_else(|| {
            // Nothing is known of it because there is no room: it shares one place with all the others of its kind.
            let is_full = self.forgotten.len() >= GUESSERS_MAX;
            is_full.then(|| self.forgotten.get(&OTHERS).map(|forgotten| *forgotten)).flatten()
        });
        let most = GUESS_EVERY * GUESSES_AT_ONCE_MAX;
        forgotten.is_some_and(|forgotten| forgotten > Instant::now() + most - GUESS_EVERY)
    }

    /// Counts secrets that have proved nothing.
    fn add(&self, Place(peer): Place, guesses: u32) {
        let Some(mut peer) = peer else { return };
        let now = Instant::now();
        if !self.forgotten.contains_key(&peer) && self.forgotten.len() >= GUESSERS_MAX {
            self.forgotten.retain(|_, forgotten| *forgotten > now);
            if self.forgotten.len() >= GUESSERS_MAX {
                peer = OTHERS;
            }
        }
        let most = now + GUESS_EVERY * GUESSES_AT_ONCE_MAX;
        let mut forgotten = self.forgotten.entry(peer).or_insert(now);
        *forgotten = ((*forgotten).max(now) + GUESS_EVERY * guesses).min(most);
    }

    /// Whether this secret was right before.
    fn has_proved(&self, by: &ProvedBy) -> bool {
        self.proved.contains(&by.digest())
    }

    /// Notes a secret that is right.
    fn note(&self, Place(peer): Place, by: &ProvedBy) {
        if peer.is_none() || self.has_proved(by) {
            return;
        }
        if self.proved.len() >= SECRETS_REMEMBERED_MAX {
            let any = self.proved.iter().nth(fastrand::usize(..SECRETS_REMEMBERED_MAX / 16));
            let any = any.map(|entry| *entry.key());
            any.map(|any| self.proved.remove(&any));
        }
        self.proved.insert(by.digest());
    }
}

/// The place of those that there is no room for.
const OTHERS: Peer = Peer::Process(None);

/// A look at the secrets that one call or request shows.
pub(crate) struct Attempt<'a> {
    secrets: &'a Secrets,
    guesses: &'a Guesses,
    place: Place,
    now: Timestamp,
    are_too_many: bool,
    /// Secrets that were looked at.
    tries: Cell<u32>,
    found: RefCell<Option<ProvedBy>>,
}

impl<'a> Attempt<'a> {
    pub(crate) fn new(
        (secrets, guesses): (&'a Secrets, &'a Guesses),
        place: Place,
        now: Timestamp,
    ) -> Self {
        let are_too_many = guesses.are_too_many(place);
        let (tries, found) = (Cell::new(0), RefCell::new(None));
        Self { secrets, guesses, place, now, are_too_many, tries, found }
    }

    /// The identity of a secret.
    pub(crate) fn find(&self, secret: &[u8]) -> Option<PathBuf> {
        self.tries.set(self.tries.get() + 1);
        let (identity, by) = self.secrets.prove(secret, self.now)?;
        if self.are_too_many && !self.guesses.has_proved(&by) {
            return None;
        }
        self.found.replace(Some(by));
        Some(identity)
    }

    /// What was found last. It has proved its identity.
    pub(crate) fn proved(&self) -> Option<ProvedBy> {
        let by = self.found.borrow().clone()?;
        self.guesses.note(self.place, &by);
        Some(by)
    }

    /// Counts what was looked at, which has proved nothing.
    ///
    /// # Errors
    ///
    /// [`RequestError::GuessesWait`]: it was not looked at.
    pub(crate) fn failed(&self) -> Result<(), RequestError> {
        if self.are_too_many {
            return Err(RequestError::GuessesWait);
        }
        self.guesses.add(self.place, self.tries.get());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn place(address: &str) -> Place {
        Place::of_address(address.parse().unwrap())
    }

    fn proved_by(at: usize) -> ProvedBy {
        ProvedBy::declared(format!("secret {at}").as_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_so_many_guesses_and_one_more_each_second() {
        let (guesses, there) = (Guesses::default(), place("192.0.2.1"));
        for _ in 0..GUESSES_AT_ONCE_MAX {
            assert!(!guesses.are_too_many(there));
            guesses.add(there, 1);
        }
        assert!(guesses.are_too_many(there));
        assert!(!guesses.are_too_many(place("192.0.2.2")));
        // What is sent while there are too many does not make it longer.
        guesses.add(there, 1_000);
        tokio::time::advance(GUESS_EVERY - Duration::from_millis(1)).await;
        assert!(guesses.are_too_many(there));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!guesses.are_too_many(there));
        guesses.add(there, 1);
        assert!(guesses.are_too_many(there));
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_of_one_owner_is_one_address_and_this_machine_has_no_limit() {
        let guesses = Guesses::default();
        guesses.add(place("2001:db8::1"), GUESSES_AT_ONCE_MAX);
        assert!(guesses.are_too_many(place("2001:db8::2")));
        assert!(!guesses.are_too_many(place("2001:db8:0:1::1")));
        for here in [
            place("127.0.0.1"),
            place("::1"),
            place("::ffff:127.0.0.1"),
            Place::of(Some(&Remote::Process(Some(7)))),
            Place::of(None),
        ] {
            guesses.add(here, GUESSES_AT_ONCE_MAX);
            assert!(!guesses.are_too_many(here), "{here:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_without_room_share_one_place_until_others_are_forgotten() {
        let guesses = Guesses::default();
        let nth = |at: usize| {
            let address = u32::try_from(at).unwrap() + (1 << 28);
            Place::of_address(IpAddr::from(address.to_be_bytes()))
        };
        for at in 0..GUESSERS_MAX {
            guesses.add(nth(at), 1);
        }
        let (a, b) = (nth(GUESSERS_MAX), nth(GUESSERS_MAX + 1));
        assert!(!guesses.are_too_many(a));
        guesses.add(a, GUESSES_AT_ONCE_MAX);
        assert!(guesses.are_too_many(a) && guesses.are_too_many(b));
        assert_eq!(guesses.forgotten.len(), GUESSERS_MAX + 1);
        assert!(!guesses.are_too_many(nth(0)), "it is counted for itself");
        tokio::time::advance(GUESS_EVERY).await;
        guesses.add(b, 1);
        assert_eq!(guesses.forgotten.len(), 2, "those that are over make room");
        assert!(!guesses.are_too_many(a));
    }

    #[test]
    fn so_many_secrets_are_remembered() {
        let (guesses, there) = (Guesses::default(), place("192.0.2.1"));
        guesses.note(place("127.0.0.1"), &proved_by(0));
        assert!(!guesses.has_proved(&proved_by(0)), "it needs none there");
        for at in 0..SECRETS_REMEMBERED_MAX + 10 {
            guesses.note(there, &proved_by(at));
        }
        assert_eq!(guesses.proved.len(), SECRETS_REMEMBERED_MAX);
        assert!(guesses.has_proved(&proved_by(SECRETS_REMEMBERED_MAX + 9)));
    }
}
