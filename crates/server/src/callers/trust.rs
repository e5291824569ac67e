//! Whom the operator trusts: issuers of tokens for people of every organization.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use capstan_iam::{check_claim, check_issuer};

use crate::authn::keys::KeySet;
use crate::limits::{AUDIENCES_MAX, TRUSTED_ISSUERS_MAX};

/// Whose tokens the operator trusts for the whole server, and for whom tokens are.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Issuers, at most [`TRUSTED_ISSUERS_MAX`].
    pub trusted: Vec<TrustedIssuer>,
    /// The audiences that are Capstan's own. Without any no token is for it, but one whose identity or provider names another.
    pub audiences: Vec<String>,
}

/// An issuer whose tokens may be those of people, in every organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedIssuer {
    /// `iss`, byte for byte: an https URL.
    pub issuer: String,
    /// A file with its public keys, a JSON Web Key Set, which is read once. Without one they are discovered.
    pub keys: Option<PathBuf>,
}

/// The keys of trusted issuers that have a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    pub(super) trusted: HashMap<String, Option<KeySet>>,
    pub(super) audiences: Vec<String>,
}

impl Trust {
    /// Reads the files of keys. `discovers` says whether keys can be discovered.
    ///
    /// # Errors
    ///
    /// An issuer or an audience that is none, one that is named twice, too many, a file without keys that verify, or keys that
    /// would have to be discovered and cannot be.
    pub(crate) fn open(options: &Options, discovers: bool) -> anyhow::Result<Self> {
        let Options { trusted, audiences } = options;
        ensure!(
            trusted.len() <= TRUSTED_ISSUERS_MAX && audiences.len() <= AUDIENCES_MAX,
            "at most {TRUSTED_ISSUERS_MAX} trusted issuers and {AUDIENCES_MAX} audiences"
        );
        for audience in audiences {
            if let Err(problem) = check_claim(audience) {
                bail!("audience `{audience}`: {problem}");
            }
        }
        let mut all = HashMap::new();
        for TrustedIssuer { issuer, keys } in trusted {
            let named = || format!("trusted issuer `{}`", issuer.escape_debug());
            if let Err(expected) = check_issuer(issuer) {
                bail!("{}: expected {expected}", named());
            }
            if keys.is_none() && !discovers {
                bail!(
                    "{}: its keys are discovered only with a store and --public-url; or give a file of them",
                    named()
                );
            }
            let read = |file: &PathBuf| {
                let text = std::fs::read(file)?;
                let keys = KeySet::read(&text, None).map_err(anyhow::Error::msg)?;
                ensure!(!keys.is_empty(), "no key that verifies signatures is in it");
                Ok(keys)
            };
            let keys = keys.as_ref().map(|file| {
                read(file).with_context(|| format!("{}: keys of {}", named(), file.display()))
            });
            if all.insert(issuer.clone(), keys.transpose()?).is_some() {
                bail!("{} is named twice", named());
            }
        }
        Ok(Self { trusted: all, audiences: audiences.clone() })
    }
}
