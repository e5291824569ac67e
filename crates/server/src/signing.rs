//! The keys that the server signs with: events for sinks, and access tokens.
//!
//! ```text
//! folder ─▶ keys, each from its time on ─▶ the latest whose time has come signs
//!                                        ├ later ones are published before they sign
//!                                        └ earlier ones are published until what they signed is over, then deleted
//! ```
//!
//! A key is a file `20261130T111044Z.pem`: the UTC time from which it signs. The server makes the next one by itself, and looks at
//! the folder every few seconds, so that a key which is deleted counts no more.
//!
//! **Invariants**: a key is published before it signs, unless there is no other. What a deleted key has signed proves nothing. A
//! folder that cannot be read, or that holds what is no key, changes nothing: the keys that are known sign on.

mod folder;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use capstan_engine::Timestamp;
use capstan_events::{Challenges, PublicUrl, Signer};
use futures_util::future::BoxFuture;

use crate::authn::keys::KeySet;
use crate::clock::Clock;
use crate::feed::reload::{Document, run_on_thread};
use crate::feed::watched::WatchedFile;

pub use folder::{KeyFile, KeyFolder, KeyState};

/// The keys of a server, and for how long each signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Their folder. It is made if it is not there.
    pub folder: KeyFolder,
    /// How long a key signs before the next one; `None` for ever.
    pub rotated: Option<Duration>,
}

/// What is signed and verified with now. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Signing(Arc<ArcSwap<Keys>>);

/// Keys at a time.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) signer: Signer,
    pub(crate) challenges: Challenges,
    /// Those whose signatures of access tokens count.
    pub(crate) verifying: KeySet,
    /// The published keys (RFC 7517, section 5).
    pub(crate) jwks: String,
    files: Vec<KeyFile>,
}

impl Signing {
    /// Reads the keys; makes one if there is none.
    ///
    /// # Errors
    ///
    /// The folder cannot be read or written, or holds what is no key.
    pub(crate) fn open(url: &PublicUrl, options: &Options, clock: Clock) -> anyhow::Result<Self> {
        let now = clock.now();
        let files = options.folder.prepare(now, options.rotated)?;
        Ok(Self(Arc::new(ArcSwap::from_pointee(Keys::load(url, &options.folder, files)?))))
    }

    /// The keys that count now.
    pub(crate) fn load(&self) -> Guard<Arc<Keys>> {
        self.0.load()
    }
}

impl Keys {
    fn load(url: &PublicUrl, folder: &KeyFolder, files: Vec<KeyFile>) -> anyhow::Result<Self> {
        let (key, further) = folder.keys(&files)?;
        let signer = Signer::new(url.clone(), key, further)?;
        let (challenges, jwks) = (Challenges::new(&signer)?, signer.jwks());
        let verifying = KeySet::read(jwks.as_bytes(), None).map_err(anyhow::Error::msg)?;
        Ok(Self { signer, challenges, verifying, jwks, files })
    }
}

/// The folder of keys, which is looked at again and again.
pub(crate) struct KeyRing {
    url: PublicUrl,
    options: Options,
    clock: Clock,
    signing: Signing,
    /// What was said last, so that it is said once.
    failed: Option<String>,
}

impl KeyRing {
    pub(crate) const fn new(
        url: PublicUrl,
        options: Options,
        clock: Clock,
        signing: Signing,
    ) -> Self {
        Self { url, options, clock, signing, failed: None }
    }

    /// Makes and deletes keys whose time has come, and takes what is in the folder then.
    fn look(
        (url, options): (&PublicUrl, &Options),
        now: Timestamp,
        known: &Keys,
    ) -> anyhow::Result<Option<Keys>> {
        let files = options.folder.prepare(now, options.rotated)?;
        if files == known.files {
            return Ok(None);
        }
        Keys::load(url, &options.folder, files).map(Some)
    }

    fn took(&mut self, looked: anyhow::Result<Option<Keys>>) -> anyhow::Result<()> {
        match looked {
            Ok(None) => self.failed = None,
            Ok(Some(keys)) => {
                tracing::info!(key = keys.signer.key_id(), "signing keys loaded");
                self.signing.0.store(Arc::new(keys));
                self.failed = None;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl Document for KeyRing {
    fn not_reloaded(&self) -> &'static str {
        "the signing keys are not reloaded, the old ones sign on"
    }

    fn files(&self) -> &[WatchedFile] {
        &[]
    }

    fn load(&mut self) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move {
            let (url, options) = (self.url.clone(), self.options.clone());
            let (now, signing) = (self.clock.now(), self.signing.clone());
            let look = move || Self::look((&url, &options), now, &signing.load());
            let looked = run_on_thread("signing-keys", look).await.flatten();
            self.took(looked)
        })
    }

    /// The folder is small: a look at it is some calls of the system.
    fn on_tick(&mut self) {
        let known = self.signing.load();
        let looked = Self::look((&self.url, &self.options), self.clock.now(), &known);
        drop(known);
        if let Err(error) = self.took(looked) {
            let text = format!("{error:#}");
            if self.failed.as_ref() != Some(&text) {
                tracing::error!("{}: {text}", self.not_reloaded());
                self.failed = Some(text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_from_the_folder_and_kept_while_it_cannot_be_read() {
        let at = tempfile::tempdir().unwrap();
        let folder = KeyFolder::new(at.path().join("keys"));
        let url = PublicUrl::parse("https://iam.example.com").unwrap();
        let options = Options { folder: folder.clone(), rotated: None };
        let signing = Signing::open(&url, &options, Clock::System).unwrap();
        let first = signing.load().signer.key_id().to_owned();
        let mut ring = KeyRing::new(url, options, Clock::System, signing.clone());
        ring.on_tick();
        assert_eq!(signing.load().signer.key_id(), first);

        // What is no key changes nothing.
        let wrong = at.path().join("keys/20200101T000000Z.pem");
        std::fs::write(&wrong, "no key").unwrap();
        ring.on_tick();
        assert!(ring.failed.as_ref().unwrap().contains("20200101T000000Z.pem"));
        assert_eq!(signing.load().signer.key_id(), first);
        std::fs::remove_file(&wrong).unwrap();
        ring.on_tick();
        assert_eq!(ring.failed, None);

        // A deleted key counts no more, and another one is made.
        let now = Clock::System.now();
        assert!(folder.revoke(&first, now).unwrap());
        ring.on_tick();
        let keys = signing.load();
        assert_ne!(keys.signer.key_id(), first);
        assert!(!keys.jwks.contains(&first));
    }
}
