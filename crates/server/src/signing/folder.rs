//! A folder of private keys, each with the time from which it signs.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use capstan_engine::Timestamp;
use capstan_events::SigningKey;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::limits::{KEY_FILES_MAX, KEY_PUBLISHED_AFTER, KEY_PUBLISHED_AHEAD};

/// A folder of private keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFolder(PathBuf);

/// A file of the folder. Two are equal if the file is the same and has not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// Its name.
    pub name: String,
    /// The time from which it signs.
    pub from: Timestamp,
    /// What it is for now.
    pub state: KeyState,
    /// Device, inode, length, and the last change in seconds and nanoseconds.
    version: (u64, u64, u64, i64, i64),
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It is published, and signs later.
    Next,
    /// It signs.
    Signs,
    /// It is published, since what it has signed may count still.
    Former,
    /// It counts no more.
    Over,
}

impl KeyState {
    /// In a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Signs => "signs",
            Self::Former => "former",
            Self::Over => "over",
        }
    }
}

impl KeyFolder {
    /// A folder, which need not be there.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its keys, by the time from which they sign. None if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be read, has a `.pem` whose name is no time, or more than [`KEY_FILES_MAX`].
    pub fn list(&self, now: Timestamp) -> anyhow::Result<Vec<KeyFile>> {
        self.read(now).with_context(|| format!("signing keys in {}", self.0.display()))
    }

    fn read(&self, now: Timestamp) -> anyhow::Result<Vec<KeyFile>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(error.into()),
        };
        let mut all = vec![];
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(time) = name.strip_suffix(".pem") else { continue };
            let Some(from) = time_of(time) else {
                bail!(
                    "{name}: expected the UTC time from which it signs as its name, such as 20261130T111044Z.pem"
                );
            };
            ensure!(all.len() < KEY_FILES_MAX, "more than {KEY_FILES_MAX} keys: delete old ones");
            // Of a link, the file that it leads to.
            let found = fs::metadata(entry.path()).with_context(|| name.clone())?;
            let changed = (found.ctime(), found.ctime_nsec());
            let version = (found.dev(), found.ino(), found.len(), changed.0, changed.1);
            all.push(KeyFile { name, from, state: KeyState::Next, version });
        }
        all.sort_by_key(|key| key.from);
        let signs = all.iter().rposition(|key| key.from <= now);
        let ends: Vec<_> = all.iter().skip(1).map(|next| next.from).collect();
        for (at, key) in all.iter_mut().enumerate() {
            let ends = ends.get(at).map(|end| later(*end, KEY_PUBLISHED_AFTER));
            key.state = match signs {
                Some(signs) if at == signs => KeyState::Signs,
                Some(signs) if at < signs && ends.is_some_and(|end| end <= now) => KeyState::Over,
                Some(signs) if at < signs => KeyState::Former,
                _ => KeyState::Next,
            };
        }
        Ok(all)
    }

    /// Makes a key that signs from a time on, in a file that only its owner can read.
    ///
    /// # Errors
    ///
    /// There is one for this second, or the folder cannot be written.
    pub fn make(&self, from: Timestamp) -> anyhow::Result<String> {
        let folder = || format!("signing keys in {}", self.0.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0).with_context(folder)?;
        let name = format!("{}.pem", name_of(from).context("a time that no file can have")?);
        SigningKey::generate(&self.0.join(&name)).with_context(folder)?;
        Ok(name)
    }

    /// Makes the next key: it signs after the time that receivers of the published keys need to see it.
    ///
    /// # Errors
    ///
    /// There is a next one already, or as [`Self::make`].
    pub fn rotate(&self, now: Timestamp) -> anyhow::Result<String> {
        let all = self.list(now)?;
        if let Some(next) = all.iter().find(|key| key.state == KeyState::Next) {
            bail!("{} is the next key already: it signs at its time", next.name);
        }
        let is_first = all.is_empty();
        self.make(if is_first { now } else { later(now, KEY_PUBLISHED_AHEAD) })
    }

    /// Deletes the key with this `kid`, so that what it has signed counts no more; makes another one if no key signs then.
    /// Returns whether there was one.
    ///
    /// # Errors
    ///
    /// The folder cannot be read or written.
    pub fn revoke(&self, kid: &str, now: Timestamp) -> anyhow::Result<bool> {
        for file in self.list(now)? {
            let path = self.0.join(&file.name);
            if SigningKey::load(&path)?.kid() != kid {
                continue;
            }
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
            let signs = |key: &KeyFile| key.state == KeyState::Signs;
            if !self.list(now)?.iter().any(signs) {
                self.make(now)?;
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// The `kid` of a key.
    ///
    /// # Errors
    ///
    /// It cannot be read, others can read it, or it is no key.
    pub fn key_id(&self, file: &KeyFile) -> anyhow::Result<String> {
        Ok(self.key(file)?.kid().to_owned())
    }

    fn key(&self, file: &KeyFile) -> anyhow::Result<SigningKey> {
        let path = self.0.join(&file.name);
        SigningKey::load(&path).with_context(|| path.display().to_string())
    }

    /// Makes keys and deletes them as their time has come. What it returns does not change until it is called again.
    pub(super) fn prepare(
        &self,
        now: Timestamp,
        rotated: Option<Duration>,
    ) -> anyhow::Result<Vec<KeyFile>> {
        let all = self.list(now)?;
        let signs = all.iter().find(|key| key.state == KeyState::Signs);
        let is_last = all.last().is_some_and(|last| last.state == KeyState::Signs);
        let next = match (signs, rotated) {
            (None, _) => Some(now),
            (Some(signs), Some(rotated)) if is_last => {
                let (end, soon) = (later(signs.from, rotated), later(now, KEY_PUBLISHED_AHEAD));
                (end <= soon).then_some(soon)
            }
            _ => None,
        };
        let is_over = |key: &&KeyFile| key.state == KeyState::Over;
        let is_as_it_must_be = next.is_none() && !all.iter().any(|key| is_over(&key));
        if is_as_it_must_be {
            return Ok(all);
        }
        for key in all.iter().filter(is_over) {
            // One that cannot be deleted is not published either.
            if let Err(error) = fs::remove_file(self.0.join(&key.name)) {
                tracing::debug!(key = key.name, %error, "a key that is over is not deleted");
            }
        }
        if let Some(from) = next {
            let name = self.make(from)?;
            tracing::info!(key = name, "a signing key was made");
        }
        let all = self.list(now)?;
        Ok(all.into_iter().filter(|key| key.state != KeyState::Over).collect())
    }

    /// The key that signs, and those that are published with it.
    pub(super) fn keys(&self, of: &[KeyFile]) -> anyhow::Result<(SigningKey, Vec<SigningKey>)> {
        let (mut signs, mut further) = (None, vec![]);
        for file in of {
            let key = self.key(file)?;
            match file.state {
                KeyState::Signs => signs = Some(key),
                KeyState::Next | KeyState::Former => further.push(key),
                KeyState::Over => {}
            }
        }
        Ok((signs.context("no key signs now")?, further))
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    let by = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
    Timestamp::new(time.seconds().saturating_add(by), 0)
}

/// `20261130T111044Z`.
fn name_of(time: Timestamp) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(time.seconds()).ok()?.format(&Rfc3339).ok()?;
    Some(time.replace(['-', ':'], ""))
}

fn time_of(name: &str) -> Option<Timestamp> {
    let digits = |from: usize, to: usize| name.get(from..to);
    let (date, time) = name.split_once('T')?;
    if date.len() != 8 || time.len() != 7 || !time.ends_with('Z') {
        return None;
    }
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        digits(0, 4)?,
        digits(4, 6)?,
        digits(6, 8)?,
        digits(9, 11)?,
        digits(11, 13)?,
        digits(13, 15)?
    );
    let time = OffsetDateTime::parse(&text, &Rfc3339).ok()?;
    Some(Timestamp::new(time.unix_timestamp(), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-30 11:10:44.
    const NOW: i64 = 1_796_037_044;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::new(NOW + seconds, 0)
    }

    fn states(folder: &KeyFolder, seconds: i64) -> Vec<&'static str> {
        folder.list(at(seconds)).unwrap().iter().map(|key| key.state.as_str()).collect()
    }

    #[test]
    fn names_are_times() {
        assert_eq!(name_of(at(0)).as_deref(), Some("20261130T111044Z"));
        assert_eq!(time_of("20261130T111044Z"), Some(at(0)));
        for wrong in [
            "",
            "20261130T111044",
            "20261330T111044Z",
            "2026-11-30T11:10:44Z",
            "20261130t111044Z",
            "20261130T111044z",
            "+0261130T111044Z",
            "2026113\u{e4}T11104Z",
        ] {
            assert_eq!(time_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_key_is_published_before_it_signs_and_after() {
        let place = tempfile::tempdir().unwrap();
        let folder = KeyFolder::new(place.path().join("a/keys"));
        assert_eq!(states(&folder, 0), [""; 0]);
        let day = Duration::from_secs(86_400);
        let (ahead, after) =
            (KEY_PUBLISHED_AHEAD.as_secs() as i64, KEY_PUBLISHED_AFTER.as_secs() as i64);
        let prepared = |seconds: i64| {
            let all = folder.prepare(at(seconds), Some(day)).unwrap();
            all.iter().map(|key| key.state.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(prepared(0), ["signs"]);
        assert_eq!(prepared(86_400 - ahead - 1), ["signs"]);
        assert_eq!(prepared(86_400 - ahead), ["signs", "next"]);
        assert_eq!(prepared(86_400 - 1), ["signs", "next"]);
        assert_eq!(prepared(86_400), ["former", "signs"]);
        assert_eq!(prepared(86_400 + after - 1), ["former", "signs"]);
        assert_eq!(prepared(86_400 + after), ["signs"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the former one is deleted");
        // After a long sleep the next one is published first, all the same.
        assert_eq!(prepared(10 * 86_400), ["signs", "next"]);
        // Without rotation nothing is made.
        assert_eq!(folder.prepare(at(100 * 86_400), None).unwrap().len(), 1);
        let mode = fs::metadata(folder.path()).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o700);
    }

    #[test]
    fn keys_are_rotated_and_revoked_by_hand() {
        let place = tempfile::tempdir().unwrap();
        let folder = KeyFolder::new(place.path().to_owned());
        folder.rotate(at(0)).unwrap();
        assert_eq!(states(&folder, 0), ["signs"]);
        folder.rotate(at(10)).unwrap();
        assert_eq!(states(&folder, 10), ["signs", "next"]);
        assert!(folder.rotate(at(11)).unwrap_err().to_string().contains("next key already"));
        let first = folder.key_id(&folder.list(at(10)).unwrap()[0]).unwrap();
        assert!(!folder.revoke("no such", at(10)).unwrap());
        assert!(folder.revoke(&first, at(10)).unwrap());
        assert_eq!(states(&folder, 10), ["signs", "next"], "another one signs at once");
        assert_ne!(folder.key_id(&folder.list(at(10)).unwrap()[0]).unwrap(), first);
    }

    #[test]
    fn what_is_no_key_of_a_time_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let folder = KeyFolder::new(place.path().to_owned());
        fs::write(place.path().join("README"), "").unwrap();
        assert_eq!(states(&folder, 0), [""; 0]);
        fs::write(place.path().join("mine.pem"), "").unwrap();
        let refused = format!("{:#}", folder.list(at(0)).unwrap_err());
        assert!(refused.contains("mine.pem: expected the UTC time"), "{refused}");
        fs::remove_file(place.path().join("mine.pem")).unwrap();
        for second in 0..=KEY_FILES_MAX as i64 {
            let name = format!("{}.pem", name_of(at(second)).unwrap());
            fs::write(place.path().join(name), "").unwrap();
        }
        let refused = format!("{:#}", folder.list(at(0)).unwrap_err());
        assert!(refused.contains("more than"), "{refused}");
    }
}
