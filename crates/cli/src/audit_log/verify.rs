//! `capstan audit verify`: whether a record of a store's audit log was changed, removed or moved.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use capstan_iam::audit::{AuditHead, HEAD_KEY};
use capstan_iam::record::{KeyRange, prefix};
use capstan_store::{Journal as _, Limits, RedbStore, View};

use super::chain::{Chain, Verified, hex};
use crate::DENIED;
use crate::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  capstan audit verify --data /var/lib/capstan
  capstan audit verify --data backup --output json

Each record has the SHA-256 of itself and the digest before it. They are computed anew from the records as they are \
stored, which no list shows whole: so this reads the store itself, and no server may have it open. Keep the last digest \
elsewhere: who can write the store could compute a whole new chain, and the digest tells.

Exit codes: 0 every record fits; 1 a record was changed, removed or moved, or none has the --digest; 2 nothing was \
verified: the store is not there, is open elsewhere, or cannot be read.";

/// Whether a record of a store's audit log was changed, removed or moved
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Verify {
    /// The directory of the store
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Fails unless the last digest, or that of any other record, is this: one that was printed before
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    digest: Option<String>,
}

fn sha256(text: &str) -> Result<String, &'static str> {
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then(|| text.to_owned()).ok_or("expected 64 hex digits")
}

impl Verify {
    pub(super) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let what = || format!("--data {}", self.data.display());
        // A view reads the store, which is closed when it is dropped.
        let store = RedbStore::open(&self.data, Limits::default()).with_context(what)?;
        let view = store.view().await.with_context(what)?;
        let mut verified = verify(&*view)?;
        if let (None, Some(digest)) = (&verified.problem, &self.digest)
            && !has_digest(&*view, digest)?
        {
            verified.valid = false;
            verified.problem = Some(format!("no audit record has the digest {digest}"));
        }
        match format {
            Format::Json => output::json(&verified)?,
            Format::Table => {
                let Verified { records, first, digest, .. } = &verified;
                let word =
                    output::verdict(verified.valid, if verified.valid { "ok" } else { "broken" });
                match &verified.problem {
                    Some(problem) => output::line(format!("{word}: {problem}"))?,
                    None => output::line(format!("{word}: every audit record fits"))?,
                }
                let count = crate::audit::count(usize::try_from(*records)?, "records");
                output::line(format!("{count} from number {first} on, last digest {digest}"))?;
            }
        }
        Ok(if verified.valid { ExitCode::SUCCESS } else { ExitCode::from(DENIED) })
    }
}

/// Verifies all records, up to the first that does not fit.
///
/// # Errors
///
/// The store cannot be read.
fn verify(view: &dyn View) -> anyhow::Result<Verified> {
    let mut chain = Chain::new();
    view.scan(KeyRange::prefix(prefix::AUDIT).bounds(), &mut |key, value| chain.entry(key, value))?;
    if let Some(head) = view.get(HEAD_KEY)? {
        chain.entry(HEAD_KEY, &head);
    }
    Ok(chain.finish())
}

/// Whether a record, or the one before the first, has a digest.
fn has_digest(view: &dyn View, wanted: &str) -> anyhow::Result<bool> {
    let wanted = wanted.to_ascii_lowercase();
    let head = view.get(HEAD_KEY)?.and_then(|bytes| AuditHead::decode(&bytes));
    let mut found = head.is_some_and(|head| hex(&head.closing) == wanted);
    view.scan(KeyRange::prefix(prefix::AUDIT).bounds(), &mut |_, value| {
        found |= value.first_chunk::<32>().is_some_and(|digest| hex(digest) == wanted);
        !found
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use capstan_engine::Timestamp;
    use capstan_iam::audit::{AuditRecord, Origin};
    use std::collections::BTreeMap;
    use std::ops::Bound;

    /// A state of keys and values.
    #[derive(Debug, Default)]
    struct State(BTreeMap<Vec<u8>, Vec<u8>>);

    impl View for State {
        fn head(&self) -> capstan_store::Head {
            capstan_store::Head::empty(1)
        }

        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, capstan_store::StoreError> {
            Ok(self.0.get(key).map(|value| Bytes::copy_from_slice(value)))
        }

        fn scan(
            &self,
            range: (Bound<&[u8]>, Bound<&[u8]>),
            each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
        ) -> Result<(), capstan_store::StoreError> {
            let mut entries = self.0.range::<[u8], _>(range);
            let _ = entries.find(|(key, value)| !each(key, value));
            Ok(())
        }
    }

    fn log(records: u64) -> State {
        let (mut state, mut head) = (State::default(), AuditHead::empty());
        for revision in 0..records {
            let at = (revision, Timestamp::new(0, 0));
            let record = AuditRecord::of_bootstrap("Init", &Origin::default(), at, &[]);
            let (key, value) = head.append(&record);
            state.0.insert(key, value);
        }
        state.0.insert(HEAD_KEY.to_vec(), head.encode());
        state
    }

    fn problem(state: &State) -> Option<String> {
        let verified = verify(state).unwrap();
        assert_eq!(verified.valid, verified.problem.is_none());
        verified.problem
    }

    #[test]
    fn a_whole_log_fits_and_an_empty_one_too() {
        assert_eq!(problem(&State::default()), None);
        let state = log(3);
        let verified = verify(&state).unwrap();
        assert_eq!((verified.valid, verified.records, verified.first), (true, 3, 1));
        assert!(has_digest(&state, &verified.digest).unwrap());
        assert!(has_digest(&state, &verify(&log(2)).unwrap().digest.to_uppercase()).unwrap());
        assert!(!has_digest(&state, &verify(&log(4)).unwrap().digest).unwrap());
    }

    #[test]
    fn a_changed_removed_or_moved_record_is_named() {
        let key = capstan_iam::audit::key;
        let mut changed = log(4);
        *changed.0.get_mut(&key(2)).unwrap().last_mut().unwrap() ^= 1;
        assert!(problem(&changed).unwrap().contains("record 2 was changed"));
        let mut removed = log(4);
        removed.0.remove(&key(3));
        assert!(problem(&removed).unwrap().contains("records 3 to 3 are missing"));
        let mut cut = log(4);
        cut.0.remove(&key(4));
        assert!(problem(&cut).unwrap().contains("records 4 to 4 are missing"));
        let mut swapped = log(4);
        let (second, third) = (swapped.0[&key(2)].clone(), swapped.0[&key(3)].clone());
        swapped.0.insert(key(2), third);
        swapped.0.insert(key(3), second);
        assert!(problem(&swapped).unwrap().contains("record 2 was changed"));
        let mut first = log(4);
        *first.0.get_mut(&key(1)).unwrap().last_mut().unwrap() ^= 1;
        assert!(problem(&first).unwrap().contains("record 1 was changed"));
        let mut other = log(4);
        other.0.insert([key(2), vec![0]].concat(), vec![]);
        assert!(problem(&other).unwrap().contains("in the wrong place"));
        let mut headless = log(4);
        headless.0.insert(HEAD_KEY.to_vec(), vec![1]);
        assert_eq!(problem(&headless).unwrap(), "the head of the audit log is corrupt");
    }
}
