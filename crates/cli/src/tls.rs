//! TLS of the server that a command asks: the files of the options, and else those of its context.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, bail, ensure};
use capstan_client::TlsOptions;
use capstan_server::server::ensure_private_key;
use clap::ArgMatches;
use serde::{Deserialize, Serialize};

use crate::limits::TLS_FILE_BYTES_MAX;

/// The files of TLS, as options and in a saved context.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct TlsFiles {
    /// Trust these authorities (PEM) instead of those of the system, at an https address
    #[arg(long, value_name = "FILE", global = true, help_heading = HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,

    /// The client's certificate (PEM), followed by those between it and an authority
    #[arg(long, value_name = "FILE", global = true, help_heading = HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert: Option<PathBuf>,

    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", global = true, help_heading = HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,

    /// The name that the server's certificate must have, instead of the host of the address
    #[arg(long, value_name = "NAME", global = true, help_heading = HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_name: Option<String>,
}

/// Behind what is a command's own.
const HEADING: &str = "TLS of the server that is asked";

/// The files of the options.
static CHOSEN: OnceLock<TlsFiles> = OnceLock::new();

/// Sets the files of the options, once.
pub(crate) fn choose(files: TlsFiles) {
    let _ = CHOSEN.set(files);
}

/// Refuses the options for a command that asks no server with TLS: nobody may believe that they count.
///
/// # Errors
///
/// It is such a command.
pub(crate) fn ensure_asks(matches: &ArgMatches) -> anyhow::Result<()> {
    let (mut leaf, mut path) = (matches, Vec::new());
    while let Some((name, inner)) = leaf.subcommand() {
        path.push(name);
        leaf = inner;
    }
    let takes = |id: &str| leaf.try_contains_id(id).is_ok();
    let has_policy = leaf.try_contains_id("policy").is_ok_and(|given| given);
    // `bench` measures a server on questions about a policy.
    let asks = takes("addr") || takes("server") || takes("metrics") || takes("url");
    // They say which server, and do not ask it.
    let only_names = matches!(path.as_slice(), ["auth", "status" | "token" | "logout"]);
    if asks && !only_names && (!has_policy || path == ["bench"]) {
        return Ok(());
    }
    let other = match path.first() {
        Some(&"serve") => "; a server has --tls-cert, --tls-key and --client-ca",
        _ => "",
    };
    bail!(
        "--ca, --cert, --key and --server-name are for commands that ask a server at https://HOST:PORT, and `{}` does not{other}",
        path.join(" ")
    )
}

/// The files of the options.
pub(crate) fn chosen() -> TlsFiles {
    CHOSEN.get().cloned().unwrap_or_default()
}

impl TlsFiles {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These, and those of a context where these say nothing.
    pub(crate) fn or(self, context: Self) -> Self {
        // A certificate and its key are from one place.
        let (cert, key) = match (self.cert, self.key) {
            (None, None) => (context.cert, context.key),
            given => given,
        };
        let server_name = self.server_name.or(context.server_name);
        Self { ca: self.ca.or(context.ca), cert, key, server_name }
    }

    /// The names and values of what is given.
    pub(crate) fn given(&self) -> impl Iterator<Item = (&'static str, String)> {
        let file = |file: &Option<PathBuf>| file.as_ref().map(|file| file.display().to_string());
        [
            ("ca", file(&self.ca)),
            ("cert", file(&self.cert)),
            ("key", file(&self.key)),
            ("server name", self.server_name.clone()),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }

    /// Reads the files.
    ///
    /// # Errors
    ///
    /// A certificate without its key, or the reverse; a key that everybody may read; or a file that cannot be read or is too long.
    pub(crate) fn load(&self) -> anyhow::Result<TlsOptions> {
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                ensure_private_key(key)?;
                Some((read(cert)?, read(key)?))
            }
            (None, None) => None,
            (Some(_), None) => bail!("--cert needs --key, the private key of the certificate"),
            (None, Some(_)) => bail!("--key needs --cert, the certificate of the private key"),
        };
        let authorities = self.ca.as_deref().map(read).transpose()?;
        Ok(TlsOptions { authorities, identity, server_name: self.server_name.clone() })
    }
}

/// The bytes of a file: at most [`TLS_FILE_BYTES_MAX`].
///
/// # Errors
///
/// It cannot be read or is longer.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let name = || path.display().to_string();
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(name)?;
    file.take(TLS_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(name)?;
    let is_short = bytes.len() as u64 <= TLS_FILE_BYTES_MAX;
    ensure!(is_short, "{}: longer than {TLS_FILE_BYTES_MAX} bytes", path.display());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_win_over_the_context_and_a_certificate_keeps_its_key() {
        let files = |ca: &str, cert: &str, key: &str| {
            let file = |name: &str| (!name.is_empty()).then(|| PathBuf::from(name));
            TlsFiles { ca: file(ca), cert: file(cert), key: file(key), server_name: None }
        };
        let context = files("a", "b", "c");
        assert_eq!(files("", "", "").or(context.clone()), context);
        assert_eq!(files("x", "", "").or(context.clone()), files("x", "b", "c"));
        assert_eq!(files("", "y", "z").or(context.clone()), files("a", "y", "z"));
        let half = files("", "y", "").or(context);
        assert!(half.load().unwrap_err().to_string().starts_with("--cert needs --key"));
        assert!(
            files("", "", "z").load().unwrap_err().to_string().starts_with("--key needs --cert")
        );
    }
}
