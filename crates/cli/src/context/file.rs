//! The file of the saved contexts: `$XDG_CONFIG_HOME/capstan/contexts.toml`.
//!
//! ```toml
//! current = "prod"
//!
//! [contexts.prod]
//! addr = "unix:/var/lib/capstan/operator.sock"
//!
//! [contexts.dev]
//! addr = "http://127.0.0.1:4480"
//! as = "alice"
//! output = "json"
//!
//! [contexts.far]
//! addr = "https://capstan.example.com:4480"
//! tls = { ca = "/etc/capstan/ca.pem" }
//! ```
//!
//! It is 0600 in a folder that is 0700, and is replaced whole: a reader sees the file before a change or after it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail, ensure};
use capstan_client::ServerAddress;
use capstan_engine::{did_you_mean, quote};
use serde::{Deserialize, Serialize};

use crate::limits::{CONTEXT_NAME_MAX, CONTEXTS_BYTES_MAX};
use crate::output::Output;
use crate::tls::TlsFiles;

/// All saved contexts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The name of the context in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    contexts: BTreeMap<String, Saved>,
}

/// A context: a server, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Saved {
    /// The address of the server, as for `--addr`.
    pub(crate) addr: String,
    /// The identity that calls, as for `--as`.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub(crate) caller: Option<String>,
    /// The output format without `--output`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<Output>,
    /// The files of TLS, for an https address. Absolute, so that they are found from every folder.
    #[serde(default, skip_serializing_if = "TlsFiles::is_empty")]
    pub(crate) tls: TlsFiles,
    /// The file with the caller's token, as for `--token-file`. Absolute, too.
    #[serde(default, rename = "token-file", skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
}

/// Where the contexts are: `$XDG_CONFIG_HOME/capstan/contexts.toml`, or in `~/.config`. `None` without a home folder.
///
/// A relative `XDG_CONFIG_HOME` is ignored, as the XDG Base Directory Specification says.
pub(crate) fn path() -> Option<PathBuf> {
    let given = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = given.filter(|folder| folder.is_absolute());
    let folder = folder.or_else(|| Some(std::env::home_dir()?.join(".config")))?;
    folder.is_absolute().then(|| folder.join("capstan").join("contexts.toml"))
}

impl Contexts {
    /// The saved contexts; none if there is no file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, others can write it, or it is not valid: with line and column.
    pub(crate) fn load() -> anyhow::Result<Self> {
        path().map_or_else(|| Ok(Self::default()), |path| Self::load_from(&path))
    }

    fn load_from(path: &Path) -> anyhow::Result<Self> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| in_file(path)),
        };
        let what = || in_file(path);
        let mode = file.metadata().with_context(what)?.mode();
        ensure!(
            mode & 0o022 == 0,
            "{}: others can write it, and so say which server is asked: chmod 600 {}",
            in_file(path),
            path.display()
        );
        let mut text = String::new();
        file.take(CONTEXTS_BYTES_MAX + 1).read_to_string(&mut text).with_context(what)?;
        ensure!(
            text.len() as u64 <= CONTEXTS_BYTES_MAX,
            "{}: longer than {CONTEXTS_BYTES_MAX} bytes",
            in_file(path)
        );
        Self::parse(&text).with_context(what)
    }

    /// # Errors
    ///
    /// The text is no file of contexts: with line and column.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let contexts: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or_else(String::new, |span| position(text, span.start));
            anyhow!("{at}{}", error.message())
        })?;
        for (name, saved) in &contexts.contexts {
            check_name(name)?;
            saved.check().with_context(|| format!("context {}", quote(name)))?;
        }
        if let Some(name) = &contexts.current {
            contexts.get(name).context("current")?;
        }
        Ok(contexts)
    }

    /// # Errors
    ///
    /// There is no context of this name. The error suggests similar names.
    pub(crate) fn get(&self, name: &str) -> anyhow::Result<&Saved> {
        self.contexts.get(name).ok_or_else(|| {
            let hint = match did_you_mean(name, self.names()) {
                hint if hint.is_empty() => "; `capstan context list` shows the contexts".into(),
                hint => hint,
            };
            anyhow!("there is no context {}{hint}", quote(name))
        })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.contexts.keys().map(String::as_str)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Saved)> {
        self.contexts.iter().map(|(name, saved)| (name.as_str(), saved))
    }

    /// Adds a context. Returns whether it replaces one of the same name.
    ///
    /// # Errors
    ///
    /// The name or the address is malformed.
    pub(crate) fn add(&mut self, name: &str, saved: Saved) -> anyhow::Result<bool> {
        check_name(name)?;
        saved.check()?;
        Ok(self.contexts.insert(name.to_owned(), saved).is_some())
    }

    /// # Errors
    ///
    /// There is no context of this name.
    pub(crate) fn remove(&mut self, name: &str) -> anyhow::Result<()> {
        self.get(name)?;
        self.contexts.remove(name);
        self.current.take_if(|current| *current == name);
        Ok(())
    }

    /// Reads the contexts, changes them and writes them, while no other process does.
    ///
    /// # Errors
    ///
    /// No home folder, the file cannot be read or written, or `change` fails: then nothing is written.
    pub(crate) fn change<T>(
        change: impl FnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let Some(path) = path() else {
            bail!("no folder for contexts: set XDG_CONFIG_HOME or HOME to an absolute path")
        };
        Self::change_in(&path, change)
    }

    fn change_in<T>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let folder = path.parent().context("a file of contexts has a folder")?;
        let what = || format!("cannot write {}", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(what)?;
        // Released when the handle is dropped.
        let lock = File::open(folder).with_context(what)?;
        lock.lock().with_context(what)?;
        let mut contexts = Self::load_from(path)?;
        let found = change(&mut contexts)?;
        contexts.store(path).with_context(what)?;
        Ok(found)
    }

    fn store(&self, path: &Path) -> anyhow::Result<()> {
        let next = path.with_extension("toml.new");
        let _ = fs::remove_file(&next);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
        file.write_all(toml::to_string(self)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, path)?;
        Ok(())
    }
}

impl Saved {
    fn check(&self) -> anyhow::Result<()> {
        let address: ServerAddress = self.addr.parse()?;
        ensure!(
            self.tls.is_empty() || address.is_tls(),
            "{address} has no TLS: --ca, --cert, --key and --server-name are for https://HOST:PORT"
        );
        let may = matches!(self.output, None | Some(Output::Table | Output::Json));
        ensure!(
            may,
            "the output format of a context is table or json: not every command has others"
        );
        Ok(())
    }
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let is_valid = (1..=CONTEXT_NAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    ensure!(
        is_valid,
        "{} is no name of a context: 1 to {CONTEXT_NAME_MAX} of A-Z a-z 0-9 - . _",
        quote(name)
    );
    Ok(())
}

fn in_file(path: &Path) -> String {
    format!("contexts in {}", path.display())
}

/// `line 3, column 5: ` of a byte of the text.
fn position(text: &str, byte: usize) -> String {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("line {line}, column {column}: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(addr: &str) -> Saved {
        Saved {
            addr: addr.into(),
            caller: None,
            output: None,
            tls: TlsFiles::default(),
            token_file: None,
        }
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("capstan-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_is_written_is_read_and_private() {
        let folder = folder("contexts");
        let path = folder.join("capstan/contexts.toml");
        assert_eq!(Contexts::load_from(&path).unwrap(), Contexts::default());
        let full = Saved {
            addr: "https://capstan.example:4480".into(),
            caller: Some("acme/ci".into()),
            output: Some(Output::Json),
            tls: TlsFiles { ca: Some("/ca.pem".into()), ..TlsFiles::default() },
            token_file: Some("/run/token".into()),
        };
        Contexts::change_in(&path, |contexts| {
            contexts.add("prod", full.clone())?;
            contexts.current = Some("prod".into());
            Ok(())
        })
        .unwrap();
        let replaced = Contexts::change_in(&path, |contexts| contexts.add("dev", saved("[::1]:1")));
        assert!(!replaced.unwrap());
        let found = Contexts::load_from(&path).unwrap();
        assert_eq!(found.get("prod").unwrap(), &full);
        assert_eq!(found.names().collect::<Vec<_>>(), ["dev", "prod"]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        Contexts::change_in(&path, |contexts| contexts.remove("prod")).unwrap();
        assert_eq!(Contexts::load_from(&path).unwrap().current, None);
        // A refused change writes nothing.
        let refused = Contexts::change_in(&path, |contexts| {
            contexts.add("other", saved("[::1]:2"))?;
            contexts.add("bad name", saved("[::1]:1"))
        });
        assert!(refused.unwrap_err().to_string().contains("no name of a context"));
        assert_eq!(Contexts::load_from(&path).unwrap().names().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_broken_file_is_an_error_that_says_where() {
        let error = |text: &str| format!("{:#}", Contexts::parse(text).unwrap_err());
        let unknown = error("[contexts.a]\naddr = \"unix:/x\"\nadr = 1\n");
        assert!(unknown.starts_with("line 3, column 1: unknown field `adr`"), "{unknown}");
        assert!(error("current = ").starts_with("line 1, column "), "{}", error("current = "));
        assert!(
            error("[contexts.a]\naddr = \"nowhere\"")
                .contains("context `a`: `nowhere` is no address")
        );
        assert!(error("current = \"a\"").contains("current: there is no context `a`"));
        assert!(
            error("[contexts.a]\naddr = \"unix:/x\"\noutput = \"tree\"").contains("table or json")
        );
        let long = "x".repeat(CONTEXT_NAME_MAX + 1);
        assert!(error(&format!("[contexts.{long}]\naddr = \"unix:/x\"")).contains("no name"));
        let longest = "x".repeat(CONTEXT_NAME_MAX);
        Contexts::parse(&format!("[contexts.{longest}]\naddr = \"unix:/x\"")).unwrap();
    }

    #[test]
    fn a_file_that_others_can_write_or_that_is_too_long_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = folder("contexts-mode");
        let path = folder.join("contexts.toml");
        let most = usize::try_from(CONTEXTS_BYTES_MAX).unwrap();
        fs::write(&path, " ".repeat(most)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        Contexts::load_from(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        assert!(Contexts::load_from(&path).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, " ".repeat(most + 1)).unwrap();
        assert!(Contexts::load_from(&path).unwrap_err().to_string().contains("longer than"));
        fs::remove_dir_all(folder).unwrap();
    }
}
