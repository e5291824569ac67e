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
//! **Invariants**: a key is published before it signs, unless there is no other. What a deleted key has signed proves nothing, whatever else
//! is wrong: where no other key is there and none can be kept, one signs that is nowhere kept. What is no key is told and passed
//! over. A folder that cannot be read changes nothing.

mod folder;

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use arc_swap::{ArcSwap, Guard};
use capstan_events::{Challenges, PublicUrl, Signer, SigningKey};
use futures_util::future::BoxFuture;

use crate::authn::keys::KeySet;
use crate::clock::Clock;
use crate::feed::reload::Document;
use crate::feed::watched::WatchedFile;

use folder::Prepared;
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
    /// The folder cannot be read, or has no key and none can be made.
    pub(crate) fn open(url: &PublicUrl, options: &Options, clock: Clock) -> anyhow::Result<Self> {
        let prepared = options.folder.prepare(clock.now(), options.rotated)?;
        let problems = prepared.problems.join("; ");
        if !problems.is_empty() {
            tracing::warn!(problems, "signing keys that are not used");
        }
        ensure!(prepared.signs(), "no signing key: {problems}");
        Ok(Self(Arc::new(ArcSwap::from_pointee(Keys::load(url, prepared)?))))
    }

    /// The keys that count now.
    pub(crate) fn load(&self) -> Guard<Arc<Keys>> {
        self.0.load()
    }
}

impl Keys {
    fn load(url: &PublicUrl, prepared: Prepared) -> anyhow::Result<Self> {
        let files = prepared.files();
        let (mut signs, mut further) = (None, vec![]);
        for (file, key) in prepared.keys {
            match file.state {
                KeyState::Signs => signs = Some(key),
                _ => further.push(key),
            }
        }
        let key = match signs {
            Some(key) => key,
            None => SigningKey::not_kept()?,
        };
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
    problem: String,
}

impl KeyRing {
    pub(crate) const fn new(
        url: PublicUrl,
        options: Options,
        clock: Clock,
        signing: Signing,
    ) -> Self {
        Self { url, options, clock, signing, problem: String::new() }
    }

    /// Makes and deletes keys whose time has come, and takes what is in the folder then.
    fn look(&mut self) -> anyhow::Result<()> {
        let prepared = self.options.folder.prepare(self.clock.now(), self.options.rotated)?;
        let problem = prepared.problems.join("; ");
        if !problem.is_empty() && problem != self.problem {
            let has_key = prepared.signs();
            tracing::error!(problem, has_key, "signing keys that are not used");
        }
        self.problem = problem;
        // A key that is nowhere kept signs on until there is another.
        if prepared.files() != self.signing.load().files {
            let keys = Keys::load(&self.url, prepared)?;
            tracing::info!(key = keys.signer.key_id(), "signing keys loaded");
            self.signing.0.store(Arc::new(keys));
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

    /// The folder is small: a look at it is some calls of the system.
    fn load(&mut self) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move { self.look() })
    }

    fn on_tick(&mut self) {
        if let Err(error) = self.look() {
            let problem = format!("{error:#}");
            if self.problem != problem {
                tracing::error!("{}: {problem}", self.not_reloaded());
                self.problem = problem;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of keys, and what looks at it.
    fn ring() -> (tempfile::TempDir, KeyFolder, Signing, KeyRing) {
        let at = tempfile::tempdir().unwrap();
        let folder = KeyFolder::new(at.path().join("keys"));
        let url = PublicUrl::parse("https://iam.example.com").unwrap();
        let options = Options { folder: folder.clone(), rotated: None };
        let signing = Signing::open(&url, &options, Clock::System).unwrap();
        let ring = KeyRing::new(url, options, Clock::System, signing.clone());
        (at, folder, signing, ring)
    }

    #[test]
    fn keys_are_taken_from_the_folder_and_kept_while_it_cannot_be_read() {
        let (at, folder, signing, mut ring) = ring();
        let first = signing.load().signer.key_id().to_owned();
        ring.on_tick();
        assert_eq!(signing.load().signer.key_id(), first);

        // What is no key changes nothing.
        let wrong = at.path().join("keys/20200101T000000Z.pem");
        std::fs::write(&wrong, "no key").unwrap();
        ring.on_tick();
        assert!(ring.problem.contains("20200101T000000Z.pem"));
        assert_eq!(signing.load().signer.key_id(), first);

        // A deleted key counts no more, whatever else is there, and another one is made.
        let now = Clock::System.now();
        assert!(folder.revoke(&first, now).unwrap());
        ring.on_tick();
        let second = signing.load().signer.key_id().to_owned();
        assert!(second != first && !signing.load().jwks.contains(&first));
        std::fs::remove_file(&wrong).unwrap();
        ring.on_tick();
        assert_eq!(ring.problem, "");
    }

    /// Also where no other key can be kept.
    #[test]
    fn a_deleted_key_counts_no_more_where_none_can_be_made() {
        let (at, folder, signing, mut ring) = ring();
        let first = signing.load().signer.key_id().to_owned();
        std::fs::remove_dir_all(folder.path()).unwrap();
        std::fs::write(at.path().join("keys"), "no folder").unwrap();
        ring.on_tick();
        assert_eq!(signing.load().signer.key_id(), first, "who knows what is there");
        std::fs::remove_file(at.path().join("keys")).unwrap();
        // A link to nowhere: it is not there, and cannot be made.
        std::os::unix::fs::symlink("nowhere/at/all", at.path().join("keys")).unwrap();
        ring.on_tick();
        let second = signing.load().signer.key_id().to_owned();
        assert!(second != first && !signing.load().jwks.contains(&first));
        ring.on_tick();
        assert_eq!(signing.load().signer.key_id(), second, "it signs on");
        let opened = Signing::open(&ring.url, &ring.options, Clock::System);
        assert!(opened.is_err(), "no server starts so");
        std::fs::remove_file(at.path().join("keys")).unwrap();
        ring.on_tick();
        let kept = folder.list(Clock::System.now()).unwrap()[0].key_id.clone().unwrap();
        assert_eq!(signing.load().signer.key_id(), kept);
    }
}
