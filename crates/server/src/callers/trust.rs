//! Whom the operator trusts: issuers of tokens for people of every organization.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use arc_swap::ArcSwap;
use capstan_iam::{Algorithm, check_algorithms, check_claim, check_issuer};
use futures_util::future::BoxFuture;

use crate::authn::keys::KeySet;
use crate::feed::reload::{Document, run_on_thread};
use crate::feed::watched::WatchedFile;
use crate::limits::{AUDIENCES_MAX, KEY_FILE_BYTES_MAX, TRUSTED_ISSUERS_MAX};
use crate::telemetry::metrics::{LoadOutcome, Metrics};

/// The options of `capstan serve` that say whom the operator trusts.
const ISSUERS: &str = "trust-issuer";
const ALGORITHMS: &str = "trust-algorithms";
const AUDIENCES: &str = "token-audience";

/// Whose tokens the operator trusts for the whole server, and for whom tokens are.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Issuers, at most [`TRUSTED_ISSUERS_MAX`].
    pub trusted: Vec<TrustedIssuer>,
    /// The algorithms that tokens of trusted issuers may be signed with. Without any, whatever the keys are for.
    pub algorithms: Vec<String>,
    /// The audiences that are Capstan's own. Without any no token is for it, but one whose identity or provider names another.
    pub audiences: Vec<String>,
}

impl Options {
    /// What is wrong with them, whatever is in the files, each with the option of `capstan serve` that says it. `discovers` says whether
    /// keys can be discovered.
    pub(crate) fn problems(&self, discovers: bool) -> Vec<(&'static str, String)> {
        let Self { trusted, algorithms, audiences } = self;
        let mut all = vec![];
        if !algorithms.is_empty() && trusted.is_empty() {
            let problem =
                "is for the tokens of trusted issuers, and none is trusted: give --trust-issuer";
            all.push((ALGORITHMS, format!("--{ALGORITHMS} {problem}")));
        }
        if let Err((_, problem)) = check_algorithms(algorithms) {
            all.push((ALGORITHMS, format!("algorithms of trusted issuers: {problem}")));
        }
        if trusted.len() > TRUSTED_ISSUERS_MAX {
            all.push((ISSUERS, format!("at most {TRUSTED_ISSUERS_MAX} trusted issuers")));
        }
        if audiences.len() > AUDIENCES_MAX {
            all.push((AUDIENCES, format!("at most {AUDIENCES_MAX} audiences")));
        }
        for audience in audiences {
            if let Err(problem) = check_claim(audience) {
                all.push((AUDIENCES, format!("audience `{audience}`: {problem}")));
            }
        }
        let mut seen = HashSet::new();
        for TrustedIssuer { issuer, keys } in trusted {
            let named = named(issuer);
            if let Err(expected) = check_issuer(issuer) {
                all.push((ISSUERS, format!("{named}: expected {expected}")));
            }
            if keys.is_none() && !discovers {
                let why = "its keys are discovered only with a store and --public-url; or give a file of them";
                all.push((ISSUERS, format!("{named}: {why}")));
            }
            if !seen.insert(issuer) {
                all.push((ISSUERS, format!("{named} is named twice")));
            }
        }
        all
    }

    /// Reads the files of keys that may be read, and says what is wrong with each.
    pub(crate) fn look(&self, may_read: fn(&Path) -> bool) -> Vec<(&'static str, anyhow::Error)> {
        let files = self.trusted.iter().filter_map(|one| Some((&one.issuer, one.keys.as_ref()?)));
        let files = files.filter(|(_, file)| may_read(file));
        let read = |(issuer, file): (&String, &PathBuf)| {
            Some((ISSUERS, read(issuer, file, &self.algorithms).err()?))
        };
        files.filter_map(read).collect()
    }
}

/// An issuer whose tokens may be those of people, in every organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedIssuer {
    /// `iss`, byte for byte: an https URL.
    pub issuer: String,
    /// A file with its public keys, a JSON Web Key Set, which is read again when it changes. Without one they are discovered.
    pub keys: Option<PathBuf>,
}

/// Trusted issuers.
#[derive(Debug, Default)]
pub(crate) struct Trusted {
    /// Their keys, of those that have a file.
    pub(super) keys: HashMap<String, Option<KeySet>>,
    /// One more each time that they are read: what was verified before is judged again.
    pub(super) generation: u64,
}

/// Whom the operator trusts. Clones share the keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    pub(super) trusted: Arc<ArcSwap<Trusted>>,
    pub(super) algorithms: Vec<String>,
    pub(super) audiences: Vec<String>,
}

impl Trust {
    /// Reads the files of keys. `discovers` says whether keys can be discovered.
    ///
    /// # Errors
    ///
    /// An issuer, an algorithm or an audience that is none, one that is named twice, too many, algorithms of no issuer, a file
    /// without keys that verify, or keys that would have to be discovered and cannot be.
    pub(crate) fn open(options: &Options, discovers: bool) -> anyhow::Result<Self> {
        let Options { trusted, algorithms, audiences } = options;
        if let Some((_, problem)) = options.problems(discovers).into_iter().next() {
            bail!(problem);
        }
        let mut all = HashMap::new();
        for TrustedIssuer { issuer, keys } in trusted {
            let keys = keys.as_ref().map(|file| read(issuer, file, algorithms)).transpose()?;
            all.insert(issuer.clone(), keys);
        }
        let trusted = Arc::new(ArcSwap::from_pointee(Trusted { keys: all, generation: 0 }));
        Ok(Self { trusted, algorithms: algorithms.clone(), audiences: audiences.clone() })
    }
}

fn named(issuer: &str) -> String {
    format!("trusted issuer `{}`", issuer.escape_debug())
}

/// The keys of an issuer, of which these algorithms are taken.
fn read(issuer: &str, file: &Path, algorithms: &[String]) -> anyhow::Result<KeySet> {
    let read = || {
        let mut text = Vec::new();
        std::fs::File::open(file)?.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
        ensure!(text.len() as u64 <= KEY_FILE_BYTES_MAX, "longer than {KEY_FILE_BYTES_MAX} bytes");
        let keys = KeySet::given(&text, algorithms).map_err(anyhow::Error::msg)?;
        ensure!(!keys.is_empty(), "no key that verifies signatures is in it");
        let mut taken = algorithms.iter().filter_map(|name| Algorithm::of(name));
        ensure!(
            algorithms.is_empty() || taken.any(|algorithm| keys.has(algorithm, None)),
            "no key in it is for an algorithm of --trust-algorithms"
        );
        Ok(keys)
    };
    read().with_context(|| format!("{}: keys of {}", named(issuer), file.display()))
}

/// The files of keys, which are read again when one changes.
pub(crate) struct TrustFiles {
    issuers: Vec<TrustedIssuer>,
    algorithms: Vec<String>,
    files: Vec<WatchedFile>,
    trusted: Arc<ArcSwap<Trusted>>,
    metrics: Arc<Metrics>,
}

impl TrustFiles {
    /// `None` if there is no file.
    pub(crate) fn new(options: &Options, trust: &Trust, metrics: &Arc<Metrics>) -> Option<Self> {
        let issuers = options.trusted.clone();
        let files = issuers.iter().filter_map(|issuer| issuer.keys.clone());
        let files: Vec<_> = files.map(|file| WatchedFile::new(Some(file))).collect();
        let (trusted, metrics) = (Arc::clone(&trust.trusted), Arc::clone(metrics));
        let algorithms = trust.algorithms.clone();
        (!files.is_empty()).then_some(Self { issuers, algorithms, files, trusted, metrics })
    }

    async fn load(&mut self) -> anyhow::Result<()> {
        self.files.iter_mut().for_each(WatchedFile::record_state);
        let (issuers, algorithms) = (self.issuers.clone(), self.algorithms.clone());
        let read = move || {
            let keys = issuers.into_iter().map(|TrustedIssuer { issuer, keys }| {
                let keys = keys.map(|file| read(&issuer, &file, &algorithms)).transpose()?;
                anyhow::Ok((issuer, keys))
            });
            keys.collect::<anyhow::Result<HashMap<_, _>>>()
        };
        let loaded = run_on_thread("issuers", read).await.flatten();
        let outcome = if loaded.is_ok() { LoadOutcome::Applied } else { LoadOutcome::Rejected };
        self.metrics.issuers_loaded(outcome);
        let failed = |error: &anyhow::Error| {
            self.files.iter_mut().for_each(|file| file.failed(error));
        };
        let keys = loaded.inspect_err(failed)?;
        let generation = self.trusted.load().generation + 1;
        self.trusted.store(Arc::new(Trusted { keys, generation }));
        tracing::info!("keys of trusted issuers loaded");
        Ok(())
    }
}

impl Document for TrustFiles {
    fn not_reloaded(&self) -> &'static str {
        "the keys of trusted issuers are not reloaded, the old ones count on"
    }

    fn files(&self) -> &[WatchedFile] {
        &self.files
    }

    fn load(&mut self) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(self.load())
    }
}
