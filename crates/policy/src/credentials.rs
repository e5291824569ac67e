//! Credentials of a policy document: identities by the hash of their secret. The document holds no
//! secrets, and `Debug` prints no hashes.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;

use capstan_engine::{FactSink, Identity, PathBuf, Timestamp};

use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::policy::path;
use crate::reader::{Mark, Node, Reader, Required};

/// The SHA-256 of a secret.
pub type SecretHash = [u8; 32];

/// The SHA-256 of the empty string, which is no valid secret.
const EMPTY_SECRET: SecretHash = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// The identity that a secret proves, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The identity that the secret belongs to.
    pub identity: PathBuf,
    /// The credential is valid while `now < expires_at`; without an expiry it is always valid.
    pub expires_at: Option<Timestamp>,
}

/// The credentials of a policy, by hash. The time of a look-up reveals nothing about a secret: it
/// depends on the SHA-256 only, which an attacker cannot choose.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    by_hash: HashMap<SecretHash, Credential>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.len())
    }
}

impl Credentials {
    /// The credential whose secret has this hash.
    #[must_use]
    pub fn get(&self, hash: &SecretHash) -> Option<&Credential> {
        self.by_hash.get(hash)
    }

    /// The number of credentials.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// Whether the policy has no credentials.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }
}

/// The readable part of the list `credentials`.
#[derive(Default)]
pub(crate) struct CredentialsDraft {
    by_hash: HashMap<SecretHash, Credential>,
    /// The index of the first item with each hash.
    places: HashMap<SecretHash, usize>,
    /// Each item's identity, with the item's index and the identity's position in the text.
    named: Vec<(PathBuf, usize, Mark)>,
    /// Number of items so far, readable or not.
    seen: usize,
}

impl CredentialsDraft {
    pub(crate) fn read<'t>(&mut self, reader: &mut Reader<'t>, node: Node<'t>) {
        reader.list(&mut Vec::new(), node, "a list of credentials", |reader, node| {
            self.read_item(reader, node)
        });
    }

    /// Reads the next item of the list.
    pub(crate) fn read_item<'t>(&mut self, reader: &mut Reader<'t>, node: Node<'t>) -> Option<()> {
        let place = self.seen;
        self.seen += 1;
        self.read_one(reader, node, place)
    }

    fn read_one<'t>(
        &mut self,
        reader: &mut Reader<'t>,
        node: Node<'t>,
        place: usize,
    ) -> Option<()> {
        let mark = node.mark;
        let mut identity = Required::new("identity");
        let mut sha256 = Required::new("sha256");
        let mut expires_at = None;
        let is_mapping = reader.mapping(
            node,
            "a credential: a mapping with `identity` and `sha256`",
            &["identity", "sha256", "expires_at"],
            |reader, key, value| match key {
                "identity" => {
                    let mark = value.mark;
                    identity.read(reader, value, |reader, node| Some((path(reader, node)?, mark)));
                }
                "sha256" => sha256.read(reader, value, |reader, node| {
                    let mark = node.mark;
                    let hash = secret_hash(reader, node)?;
                    if let Some(first) = self.places.get(&hash) {
                        let found = format!("the same hash as credentials[{first}]");
                        reader.report(mark, found, "a secret that no other credential has");
                    }
                    Some(hash)
                }),
                _ => expires_at = reader.timestamp(value),
            },
        );
        let identity = identity.get(reader, mark, is_mapping);
        let hash = sha256.get(reader, mark, is_mapping);
        if let Some((identity, mark)) = &identity {
            self.named.push((identity.clone(), place, *mark));
        }
        let ((identity, _), hash) = (identity?, hash?);
        if let Entry::Vacant(entry) = self.by_hash.entry(hash) {
            entry.insert(Credential { identity, expires_at });
            self.places.insert(hash, place);
        }
        Some(())
    }

    /// The credentials, if each is of an identity that is declared.
    pub(crate) fn proved(self, facts: &impl FactSink) -> Option<Credentials> {
        let named = self.named.iter().map(|(path, ..)| path.as_str());
        facts.has_identities(named).then_some(Credentials { by_hash: self.by_hash })
    }

    /// The credentials. Reports each identity that is not in `declared`; `None` means that the
    /// declared identities are unknown, and reports nothing.
    pub(crate) fn prove(
        self,
        declared: Option<&[Identity]>,
        diagnostics: &mut Diagnostics,
    ) -> Credentials {
        if let Some(declared) = declared {
            let mut unknown: HashSet<_> =
                self.named.iter().map(|(path, ..)| path.as_str()).collect();
            for identity in declared {
                unknown.remove(identity.id.as_str());
            }
            for (path, place, (line, column)) in &self.named {
                if unknown.contains(path.as_str()) {
                    diagnostics.push(Diagnostic {
                        line: *line,
                        column: *column,
                        field: format!("credentials[{place}].identity"),
                        found: format!("`{path}`"),
                        expected: "a declared identity".into(),
                    });
                }
            }
        }
        Credentials { by_hash: self.by_hash }
    }
}

/// A hash: 64 lower-case hexadecimal digits. A diagnostic never quotes another text, because it may
/// be the secret itself.
fn secret_hash<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<SecretHash> {
    const EXPECTED: &str = "the SHA-256 of the secret in 64 lower-case hexadecimal digits";
    let mark = node.mark;
    let text = reader.secret(node, EXPECTED)?;
    match parse_hash(&text) {
        Some(EMPTY_SECRET) => {
            reader.report(mark, "the hash of the empty string", "the hash of a secret");
            None
        }
        None => {
            reader.report(mark, format!("a string of {} bytes", text.len()), EXPECTED);
            None
        }
        hash => hash,
    }
}

fn parse_hash(text: &str) -> Option<SecretHash> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut hash = [0; 32];
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    if pairs.len() != hash.len() {
        return None;
    }
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(hash)
}
