//! The file of the kept logins: `logins.toml` beside the saved contexts.
//!
//! ```toml
//! [logins."https://capstan.example.com:4480"]
//! subject = "ann"
//! token = "…"
//! expires-at = 1800000000
//! refresh-token = "…"
//!
//! [logins."https://capstan.example.com:4480".client]
//! issuer = "https://accounts.example.com"
//! client-id = "capstan"
//! ```
//!
//! **Invariants**: it is 0600 in a folder that is 0700, and is not read if others can. It is replaced whole: a reader sees the file
//! before a change or after it. Who changes it holds the lock of `logins.lock`, which the system releases when the
//! process ends, from before it reads the file until the new one is in its place.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use capstan_client::ServerAddress;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::secret::Secret;
use crate::context;
use crate::limits::{LOGINS_BYTES_MAX, LOGINS_LOCK_PAUSE, LOGINS_LOCK_TIME_MAX};
use crate::new_file::{NewFile, Readers};

/// All kept logins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Logins {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    logins: BTreeMap<ServerKey, Login>,
}

/// What a login is for: the address of a server as text, with the host in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ServerKey(String);

/// A person at a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Login {
    /// Who it is, as the issuer says.
    pub(crate) subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) email: Option<String>,
    /// The token that is sent.
    pub(crate) token: Secret,
    /// When the token ends, in seconds since 1970; `None` if the issuer does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refresh_token: Option<Secret>,
    /// The nonce that the ID tokens of this login may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nonce: Option<String>,
    pub(crate) client: Client,
}

/// A client of an issuer, and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Client {
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    /// Absolute, so that it is found from every folder, as is `ca`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_secret_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    /// What is asked for; if empty, `openid`, and `email` and `offline_access` if the issuer has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) scope: Vec<String>,
    /// Whom access tokens are for (RFC 8707).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resource: Option<String>,
    #[serde(rename = "use")]
    pub(crate) sends: Sends,
}

/// Which of an issuer's tokens is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sends {
    #[default]
    IdToken,
    AccessToken,
}

impl ServerKey {
    /// # Errors
    ///
    /// A unix socket, which only those connect to that may; or a token would be sent in plain text to another machine.
    pub(crate) fn of(address: &ServerAddress) -> anyhow::Result<Self> {
        ensure!(
            address.unix_path().is_none(),
            "{address} needs no login: whoever can open the socket may use it"
        );
        address.ensure_hides_tokens()?;
        Ok(Self(address.to_string().to_ascii_lowercase()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Login {
    /// Whether the token counts at this time, in seconds since 1970.
    pub(crate) fn counts_at(&self, time: i64) -> bool {
        self.expires_at.is_none_or(|end| end > time)
    }
}

/// Where the logins are. `None` without a home folder.
fn path() -> Option<PathBuf> {
    context::file::path().map(|contexts| contexts.with_file_name("logins.toml"))
}

impl Logins {
    /// The kept logins; none if there is no file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, others can read or write it, or it is not valid.
    pub(crate) fn load() -> anyhow::Result<Self> {
        path().map_or_else(|| Ok(Self::default()), |path| Self::load_from(&path))
    }

    fn load_from(path: &Path) -> anyhow::Result<Self> {
        let what = || format!("logins in {}", path.display());
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(what),
        };
        ensure_private(path, &file).with_context(what)?;
        let mut text = String::new();
        file.take(LOGINS_BYTES_MAX + 1).read_to_string(&mut text).with_context(what)?;
        let is_short = text.len() as u64 <= LOGINS_BYTES_MAX;
        ensure!(is_short, "{}: longer than {LOGINS_BYTES_MAX} bytes", what());
        // The error of the parser would show a line of the file.
        toml::from_str(&text).map_err(|_| {
            anyhow!("{}: not as `capstan auth login` writes it: delete it and log in again", what())
        })
    }

    pub(crate) fn get(&self, server: &ServerKey) -> Option<&Login> {
        self.logins.get(server)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ServerKey, &Login)> {
        self.logins.iter()
    }

    pub(crate) fn put(&mut self, server: ServerKey, login: Login) {
        self.logins.insert(server, login);
    }

    pub(crate) fn remove(&mut self, server: &ServerKey) -> Option<Login> {
        self.logins.remove(server)
    }

    /// Removes all.
    pub(crate) fn clear(&mut self) -> Vec<(ServerKey, Login)> {
        std::mem::take(&mut self.logins).into_iter().collect()
    }
}

/// Refuses a file with a secret that others can read or write.
///
/// # Errors
///
/// It is such a file: with the command that changes it.
pub(super) fn ensure_private(path: &Path, file: &File) -> anyhow::Result<()> {
    let mode = file.metadata()?.mode() & 0o7777;
    ensure!(mode & 0o077 == 0, "mode {mode:04o} lets others use it: chmod 600 {}", path.display());
    Ok(())
}

/// The logins while no other process changes them.
#[derive(Debug)]
pub(crate) struct Locked {
    pub(crate) logins: Logins,
    /// Made before an issuer is asked: a disk that takes no file must not cost a refresh token.
    next: NewFile,
    _lock: File,
}

impl Locked {
    /// Reads the logins once no other process changes them.
    ///
    /// # Errors
    ///
    /// No home folder, the file cannot be read or written, or another process has the lock for too long.
    pub(crate) async fn open() -> anyhow::Result<Self> {
        let path = path()
            .context("no folder for logins: set XDG_CONFIG_HOME or HOME to an absolute path")?;
        Self::open_at(&path, LOGINS_LOCK_TIME_MAX).await
    }

    async fn open_at(path: &Path, patience: Duration) -> anyhow::Result<Self> {
        let what = || format!("cannot write {}", path.display());
        let folder = path.parent().with_context(what)?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(what)?;
        let lock = path.with_extension("lock");
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&lock).with_context(what)?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(error).with_context(what),
                Err(TryLockError::WouldBlock) => {}
            }
            ensure!(
                start.elapsed() < patience,
                "another command changes the logins for more than {patience:?} ({})",
                lock.display()
            );
            sleep(LOGINS_LOCK_PAUSE).await;
        }
        let logins = Logins::load_from(path)?;
        let next = NewFile::beside(path, Readers::Owner)?;
        Ok(Self { logins, next, _lock: file })
    }

    /// Writes the logins.
    ///
    /// # Errors
    ///
    /// They are too many, or the disk is full or does not work. Then the file is as it was.
    pub(crate) fn store(mut self) -> anyhow::Result<()> {
        let text = toml::to_string(&self.logins).context("cannot write the logins")?;
        ensure!(
            text.len() as u64 <= LOGINS_BYTES_MAX,
            "the logins are longer than {LOGINS_BYTES_MAX} bytes: capstan auth logout --all"
        );
        self.next.file().write_all(text.as_bytes()).context("cannot write the logins")?;
        self.next.put_in_place()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn login(token: &str) -> Login {
        Login {
            subject: "ann".into(),
            email: Some("ann@a.example".into()),
            token: Secret::new(token),
            expires_at: Some(7),
            refresh_token: Some(Secret::new("r")),
            nonce: Some("n".into()),
            client: Client {
                issuer: "https://a.example".into(),
                client_id: "cli".into(),
                client_secret_file: None,
                ca: Some("/ca.pem".into()),
                scope: vec!["openid".into()],
                resource: None,
                sends: Sends::IdToken,
            },
        }
    }

    fn key(text: &str) -> anyhow::Result<ServerKey> {
        ServerKey::of(&text.parse().unwrap())
    }

    async fn open(path: &Path) -> anyhow::Result<Locked> {
        Locked::open_at(path, LOGINS_LOCK_TIME_MAX).await
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_login_is_for_one_address_and_never_for_plain_text() {
        let one = key("https://Capstan.example:4480").unwrap();
        assert_eq!(one, key("HTTPS://capstan.EXAMPLE:4480/").unwrap());
        for other in [
            "https://capstan.example:4481",
            "https://capstan.example.:4480",
            "https://b.example:4480",
            "http://127.0.0.1:4480",
        ] {
            assert_ne!(one, key(other).unwrap(), "{other}");
        }
        assert!(key("unix:/x").unwrap_err().to_string().contains("needs no login"));
        assert!(key("http://b.example:1").unwrap_err().to_string().contains("plain text"));
    }

    #[tokio::test]
    async fn what_is_kept_is_read_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("capstan/logins.toml");
        assert_eq!(Logins::load_from(&path).unwrap(), Logins::default());
        let server = key("https://capstan.example:4480").unwrap();
        let mut locked = open(&path).await.unwrap();
        locked.logins.put(server.clone(), login("a.b.c"));
        locked.store().unwrap();
        let found = Logins::load_from(&path).unwrap();
        assert_eq!(found.get(&server), Some(&login("a.b.c")));
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(mode(&path.with_extension("lock")), 0o600);
        // What is dropped leaves the file as it was, and nothing beside it.
        let mut dropped = open(&path).await.unwrap();
        assert_eq!(dropped.logins.clear().len(), 1);
        drop(dropped);
        assert_eq!(Logins::load_from(&path).unwrap(), found);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
        assert!(!format!("{found:?}").contains("a.b.c"));
    }

    #[tokio::test]
    async fn a_file_that_others_can_use_or_that_is_too_long_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logins.toml");
        let error = |path: &Path| format!("{:#}", Logins::load_from(path).unwrap_err());
        let most = usize::try_from(LOGINS_BYTES_MAX).unwrap();
        fs::write(&path, " ".repeat(most)).unwrap();
        for wrong in [0o644, 0o640, 0o604, 0o620, 0o602] {
            fs::set_permissions(&path, Permissions::from_mode(wrong)).unwrap();
            let said = format!("chmod 600 {}", path.display());
            assert!(error(&path).contains(&said), "{wrong:o}: {}", error(&path));
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        Logins::load_from(&path).unwrap();
        fs::write(&path, " ".repeat(most + 1)).unwrap();
        assert!(error(&path).contains("longer than"));
        fs::write(&path, "token = \"a.b.c\"").unwrap();
        assert!(error(&path).contains("log in again") && !error(&path).contains("a.b.c"));
        // Nor is one written that could not be read.
        fs::write(&path, "").unwrap();
        let mut locked = open(&path).await.unwrap();
        locked.logins.put(key("https://a:1").unwrap(), login(&"x".repeat(most)));
        assert!(locked.store().unwrap_err().to_string().contains("longer than"));
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[tokio::test]
    async fn two_processes_wait_for_each_other_but_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logins.toml");
        let first = open(&path).await.unwrap();
        // Shorter than commands wait.
        let (start, patience) = (Instant::now(), LOGINS_LOCK_TIME_MAX / 100);
        assert!(patience > LOGINS_LOCK_PAUSE * 2);
        let waited = Locked::open_at(&path, patience).await;
        assert!(waited.unwrap_err().to_string().contains("another command"));
        assert!(start.elapsed() >= patience);
        let (second, ()) = tokio::join!(open(&path), async {
            sleep(LOGINS_LOCK_PAUSE * 2).await;
            drop(first);
        });
        second.unwrap();
    }
}
