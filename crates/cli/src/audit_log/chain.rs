//! The chain of an audit log, verified as its entries are read: of a store, or of a backup.

use capstan_iam::audit::{AuditHead, BrokenChain, Digest, HEAD_KEY, Verifier, number};
use capstan_iam::record::prefix;
use serde::Serialize;

/// What was verified.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Verified {
    pub(crate) valid: bool,
    /// How many records fit.
    pub(crate) records: u64,
    /// The number of the first record that is kept: older ones were deleted by the retention.
    pub(crate) first: u64,
    /// The digest of the last record that fits.
    pub(crate) digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

/// A log that is being read, up to the first record that does not fit.
#[derive(Debug)]
pub(crate) struct Chain {
    verifier: Verifier,
    /// By its record, which comes after those of the log in the order of keys.
    head: Option<Vec<u8>>,
    records: u64,
    digest: Option<Digest>,
    problem: Option<String>,
}

impl Chain {
    pub(crate) const fn new() -> Self {
        let verifier = Verifier::before_head();
        Self { verifier, head: None, records: 0, digest: None, problem: None }
    }

    /// The next entry of the state, in the order of keys. Those of no log are passed over. Returns whether all fit so far.
    pub(crate) fn entry(&mut self, key: &[u8], value: &[u8]) -> bool {
        if key == HEAD_KEY {
            self.head = Some(value.to_vec());
        }
        if key.first() != Some(&prefix::AUDIT) || self.problem.is_some() {
            return self.problem.is_none();
        }
        let fits = match number(key) {
            Some(number) => self.verifier.next(number, value),
            // No record has such a key.
            None => Err(BrokenChain::Misplaced(0)),
        };
        match fits {
            Ok(()) => {
                self.records = self.records.saturating_add(1);
                self.digest = value.first_chunk().copied();
            }
            Err(broken) => self.problem = Some(broken.to_string()),
        }
        self.problem.is_none()
    }

    /// What was found, once all entries were read.
    pub(crate) fn finish(self) -> Verified {
        let Self { verifier, head, records, digest, problem } = self;
        let decoded = head.map_or(Some(AuditHead::empty()), |bytes| AuditHead::decode(&bytes));
        let ended = match &decoded {
            None => Some("the head of the audit log is corrupt".to_owned()),
            Some(head) => verifier.finish(head).err().map(|broken| broken.to_string()),
        };
        let problem = problem.or(ended);
        let head = decoded.unwrap_or_else(AuditHead::empty);
        let digest = hex(&digest.unwrap_or(head.closing));
        Verified { valid: problem.is_none(), records, first: head.first, digest, problem }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
