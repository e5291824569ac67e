//! A folder of private keys, each with the time from which it signs.
//!
//! **Invariants**: what is no key of a time is told and passed over, and takes no other key away. A file is whole when it has its name.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use capstan_engine::Timestamp;
use capstan_events::SigningKey;
use rustix::fs::{Access, access};
use rustix::process::geteuid;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::limits::{KEY_FILES_MAX, KEY_FILES_READ_MAX, KEY_PUBLISHED_AFTER, KEY_PUBLISHED_AHEAD};

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
    /// Its `kid`, or why it is no key.
    pub key_id: Result<String, String>,
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
    /// It is no key that can be used.
    Unusable,
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
            Self::Unusable => "unusable",
        }
    }

    const fn is_published(self) -> bool {
        matches!(self, Self::Next | Self::Signs | Self::Former)
    }
}

/// The keys that count, and what is wrong in the folder.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Those that are published.
    pub(super) keys: Vec<(KeyFile, SigningKey)>,
    pub(super) problems: Vec<String>,
}

impl Prepared {
    /// Their files.
    pub(super) fn files(&self) -> Vec<KeyFile> {
        self.keys.iter().map(|(file, _)| file.clone()).collect()
    }

    /// Whether one of them signs.
    pub(super) fn signs(&self) -> bool {
        self.keys.iter().any(|(file, _)| file.state == KeyState::Signs)
    }
}

type Read = Vec<(KeyFile, Option<SigningKey>)>;

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

    fn place(&self) -> String {
        format!("signing keys in {}", self.0.display())
    }

    /// Its files, by the time from which they sign. None if the folder is not there.
    ///
    /// # Errors
    ///
    /// It cannot be read, or others than its owner can write it.
    pub fn list(&self, now: Timestamp) -> anyhow::Result<Vec<KeyFile>> {
        Ok(self.read(now)?.into_iter().map(|(file, _)| file).collect())
    }

    fn read(&self, now: Timestamp) -> anyhow::Result<Read> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(error).with_context(|| self.place()),
        };
        let mode = fs::metadata(&self.0).with_context(|| self.place())?.mode();
        ensure!(mode & 0o022 == 0, "{}: others can put keys there: chmod go-w it", self.place());
        let mut all = vec![];
        for entry in entries.take(KEY_FILES_READ_MAX) {
            let entry = entry.with_context(|| self.place())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(time) = name.strip_suffix(".pem") {
                all.push(self.open(name.clone(), time_of(time)));
            }
        }
        all.sort_by(|(a, _), (b, _)| (a.from, &a.name).cmp(&(b.from, &b.name)));
        say_states(&mut all, now);
        Ok(all)
    }

    /// A file, and its key.
    fn open(&self, name: String, from: Option<Timestamp>) -> (KeyFile, Option<SigningKey>) {
        let path = self.0.join(&name);
        let mut version = (0, 0, 0, 0, 0);
        let mut load = || {
            let from = from.context(
                "expected the UTC time from which it signs as its name, such as 20261130T111044Z.pem",
            )?;
            // Of a link, the file that it leads to.
            let found = fs::metadata(&path)?;
            version = (found.dev(), found.ino(), found.len(), found.ctime(), found.ctime_nsec());
            let owner = found.uid();
            let is_ours = owner == geteuid().as_raw() || owner == 0;
            ensure!(is_ours, "it is of another user: chown it");
            anyhow::Ok((from, SigningKey::load(&path)?))
        };
        let (from, key_id, key) = match load() {
            Ok((from, key)) => (from, Ok(key.kid().to_owned()), Some(key)),
            Err(error) => (from.unwrap_or(Timestamp::UNIX_EPOCH), Err(format!("{error:#}")), None),
        };
        (KeyFile { name, from, state: KeyState::Unusable, key_id, version }, key)
    }

    /// Makes a key that signs from a time on, in a file that only its owner can read.
    ///
    /// # Errors
    ///
    /// There is one for this second, or the folder cannot be written.
    pub fn make(&self, from: Timestamp) -> anyhow::Result<String> {
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true).mode(0o700).create(&self.0).with_context(|| self.place())?;
        let name = format!("{}.pem", name_of(from).context("a time that no file can have")?);
        SigningKey::generate(&self.0.join(&name)).with_context(|| self.place())?;
        Ok(name)
    }

    /// Makes the next key: it signs after the time that receivers of the published keys need to see it.
    ///
    /// # Errors
    ///
    /// There is a next one already, or as many as are published, or as [`Self::make`].
    pub fn rotate(&self, now: Timestamp) -> anyhow::Result<String> {
        let all = self.list(now)?;
        if let Some(next) = all.iter().find(|key| key.state == KeyState::Next) {
            bail!("{} is the next key already: it signs at its time", next.name);
        }
        let count = all.iter().filter(|key| key.state.is_published()).count();
        ensure!(
            count < KEY_FILES_MAX,
            "{count} keys are published, which are all that may be: wait until a former one is over, or revoke one"
        );
        let signs = all.iter().any(|key| key.state == KeyState::Signs);
        self.make(if signs { later(now, KEY_PUBLISHED_AHEAD) } else { now })
    }

    /// Deletes the key with this `kid`, so that what it has signed counts no more; makes another one if no key signs then.
    /// Returns whether there was one.
    ///
    /// # Errors
    ///
    /// The folder cannot be read or written. The key may be deleted then, and no other one made.
    pub fn revoke(&self, kid: &str, now: Timestamp) -> anyhow::Result<bool> {
        let is_it = |file: &KeyFile| file.key_id.as_deref() == Ok(kid);
        let found: Vec<_> = self.list(now)?.into_iter().filter(is_it).collect();
        for file in &found {
            let path = self.0.join(&file.name);
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
        if !found.is_empty() && !self.list(now)?.iter().any(|key| key.state == KeyState::Signs) {
            self.make(now)?;
        }
        Ok(!found.is_empty())
    }

    /// Looks whether a server could sign with these keys, and changes nothing. Returns the files that are no keys which can be used.
    ///
    /// # Errors
    ///
    /// As [`Self::list`]; or no key signs, and none can be made.
    pub fn look(&self, now: Timestamp) -> anyhow::Result<Vec<KeyFile>> {
        let mut all = self.list(now)?;
        let signs = all.iter().any(|key| key.state == KeyState::Signs);
        all.retain(|key| key.key_id.is_err());
        if !signs {
            // What is missing of the folder is made.
            let there = self.0.ancestors().find(|folder| folder.symlink_metadata().is_ok());
            let there = there.filter(|folder| !folder.as_os_str().is_empty());
            let there = there.unwrap_or_else(|| Path::new("."));
            let made = match fs::metadata(there) {
                Ok(found) if !found.is_dir() => Err(anyhow!("it is no folder")),
                _ => access(there, Access::WRITE_OK | Access::EXEC_OK).map_err(Into::into),
            };
            made.with_context(|| {
                let told = all.iter().filter_map(|key| {
                    Some(format!("{}: {}; ", key.name, key.key_id.as_ref().err()?))
                });
                format!(
                    "{}: {}no key signs, and none can be made in {}",
                    self.place(),
                    told.collect::<String>(),
                    there.display()
                )
            })?;
        }
        Ok(all)
    }

    /// Makes keys and deletes them as their time has come. What it returns does not change until it is called again. No key
    /// signs if there is none and none can be made.
    ///
    /// # Errors
    ///
    /// As [`Self::list`].
    pub(super) fn prepare(
        &self,
        now: Timestamp,
        rotated: Option<Duration>,
    ) -> anyhow::Result<Prepared> {
        let all = self.list(now)?;
        for key in all.iter().filter(|key| key.state == KeyState::Over) {
            // One that cannot be deleted is not published either.
            if let Err(error) = fs::remove_file(self.0.join(&key.name)) {
                tracing::debug!(key = key.name, %error, "a key that is over is not deleted");
            }
        }
        let mut problems = vec![];
        if let Some(from) = wanted(&all, now, rotated) {
            match self.make(from) {
                Ok(name) => tracing::info!(key = name, "a signing key was made"),
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
        let mut keys = vec![];
        for (file, key) in self.read(now)? {
            match (&file.key_id, key) {
                (Err(problem), _) => problems.push(format!("{}: {problem}", file.name)),
                (Ok(_), Some(key)) if file.state.is_published() => keys.push((file, key)),
                _ => {}
            }
        }
        Ok(Prepared { keys, problems })
    }
}

/// From when the next key must sign that is to be made now; `None` if none is.
fn wanted(all: &[KeyFile], now: Timestamp, rotated: Option<Duration>) -> Option<Timestamp> {
    let Some(signs) = all.iter().find(|key| key.state == KeyState::Signs) else { return Some(now) };
    let (rotated, soon) = (rotated?, later(now, KEY_PUBLISHED_AHEAD));
    // A clock that was wrong once may have made a key for a time that is far away.
    let last = later(soon, rotated);
    let has_next = all.iter().any(|key| key.state == KeyState::Next && key.from <= last);
    (!has_next && later(signs.from, rotated) <= soon).then_some(soon)
}

/// Says what each is for. They are sorted by their times.
fn say_states(all: &mut Read, now: Timestamp) {
    let mut seen = HashSet::new();
    for (file, key) in &mut *all {
        if let Ok(id) = &file.key_id
            && !seen.insert(id.clone())
        {
            file.key_id = Err("the key of another file".to_owned());
            *key = None;
        }
    }
    let mut usable: Vec<_> =
        all.iter_mut().map(|(file, _)| file).filter(|file| file.key_id.is_ok()).collect();
    let signs = usable.iter().rposition(|key| key.from <= now);
    let ends: Vec<_> = usable.iter().skip(1).map(|next| next.from).collect();
    for (at, key) in usable.iter_mut().enumerate() {
        let ends = ends.get(at).map(|end| later(*end, KEY_PUBLISHED_AFTER));
        key.state = match signs {
            Some(signs) if at == signs => KeyState::Signs,
            Some(signs) if at < signs && ends.is_some_and(|end| end <= now) => KeyState::Over,
            Some(signs) if at < signs => KeyState::Former,
            _ => KeyState::Next,
        };
    }
    // The one that signs and what is nearest to it: former ones go first, the oldest first, and then the last of the next ones.
    let mut count = usable.iter().filter(|key| key.state.is_published()).count();
    while count > KEY_FILES_MAX {
        let former = usable.iter().position(|key| key.state == KeyState::Former);
        let next = usable.iter().rposition(|key| key.state == KeyState::Next);
        let Some(key) = former.or(next).and_then(|at| usable.get_mut(at)) else { break };
        key.state = KeyState::Unusable;
        key.key_id = Err(format!("more than {KEY_FILES_MAX} keys: delete old ones"));
        count -= 1;
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
            assert_eq!(all.problems, [""; 0]);
            all.keys.iter().map(|(key, _)| key.state.as_str()).collect::<Vec<_>>()
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
        assert_eq!(folder.prepare(at(100 * 86_400), None).unwrap().keys.len(), 1);
        // One for a time that is far away is no next key.
        folder.make(at(5_000 * 86_400)).unwrap();
        assert_eq!(prepared(11 * 86_400 + 1), ["signs", "next", "next"]);
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
        let first = folder.list(at(10)).unwrap()[0].key_id.clone().unwrap();
        assert!(!folder.revoke("no such", at(10)).unwrap());
        // A broken file keeps no other from being revoked.
        fs::write(place.path().join("20200101T000000Z.pem"), "no key").unwrap();
        assert!(folder.revoke(&first, at(10)).unwrap());
        assert_eq!(states(&folder, 10), ["unusable", "signs", "next"], "another one signs at once");
        assert_ne!(folder.list(at(10)).unwrap()[1].key_id.clone().unwrap(), first);
    }

    #[test]
    fn rotating_again_and_again_ends_in_time() {
        let place = tempfile::tempdir().unwrap();
        let folder = KeyFolder::new(place.path().to_owned());
        let ahead = KEY_PUBLISHED_AHEAD.as_secs() as i64;
        folder.rotate(at(0)).unwrap();
        let mut time = 1;
        for _ in 1..KEY_FILES_MAX {
            folder.rotate(at(time)).unwrap();
            time += ahead;
        }
        let refused = folder.rotate(at(time)).unwrap_err().to_string();
        assert!(refused.contains("all that may be"), "{refused}");
        // By hand there may be more: the one that signs counts, and no file is deleted that is not over.
        folder.make(at(time - 1)).unwrap();
        let prepared = folder.prepare(at(time), None).unwrap();
        assert!(prepared.signs() && prepared.keys.len() == KEY_FILES_MAX);
        assert!(prepared.problems[0].contains("more than"), "{:?}", prepared.problems);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), KEY_FILES_MAX + 1);
    }

    #[test]
    fn what_is_no_key_of_a_time_is_told_and_passed_over() {
        use std::os::unix::fs::PermissionsExt as _;
        let place = tempfile::tempdir().unwrap();
        let folder = KeyFolder::new(place.path().to_owned());
        folder.rotate(at(0)).unwrap();
        let write = |name: &str, text: &[u8]| {
            let path = place.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        write("README", b"");
        write("mine.pem", b"");
        write("20261130T111045Z.pem", b"half of a k");
        std::os::unix::fs::symlink("nowhere", place.path().join("20261130T111046Z.pem")).unwrap();
        let listed = folder.list(at(10)).unwrap();
        let signs = listed.iter().find(|key| key.state == KeyState::Signs).unwrap();
        let text = fs::read(place.path().join(&signs.name)).unwrap();
        // The same key again, and one that others can read.
        let open = place.path().join("20261130T111047Z.pem");
        write("20261130T111048Z.pem", &text);
        SigningKey::generate(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
        let prepared = folder.prepare(at(10), None).unwrap();
        let names: Vec<_> = prepared.keys.iter().map(|(key, _)| &key.name).collect();
        assert_eq!(names, [&signs.name]);
        for (name, says) in [
            ("mine.pem", "expected the UTC time"),
            ("45Z.pem", "not a private key"),
            ("46Z.pem", "No such file"),
            ("47Z.pem", "chmod 600"),
            ("48Z.pem", "the key of another file"),
        ] {
            let told = |problem: &&String| problem.contains(name) && problem.contains(says);
            assert!(
                prepared.problems.iter().any(|one| told(&one)),
                "{name}: {:?}",
                prepared.problems
            );
        }
        assert_eq!(prepared.problems.len(), 5);

        // A folder that others can write is none.
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let refused = format!("{:#}", folder.prepare(at(10), None).unwrap_err());
        assert!(refused.contains("chmod go-w"), "{refused}");
    }

    #[test]
    fn a_folder_is_read_so_far() {
        let place = tempfile::tempdir().unwrap();
        for at in 0..KEY_FILES_READ_MAX + 10 {
            fs::write(place.path().join(format!("{at}.pem")), "").unwrap();
        }
        let folder = KeyFolder::new(place.path().to_owned());
        assert_eq!(folder.list(at(0)).unwrap().len(), KEY_FILES_READ_MAX);
    }
}
