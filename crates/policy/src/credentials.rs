//! Credentials of a policy document: whose secret has which hash. The secrets themselves are never
//! in a document, and what is here is never printed.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;

use capstan_engine::{Identity, PathBuf, Timestamp};

use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::policy::path;
use crate::reader::{Mark, Node, Reader, Required};

/// The SHA-256 of a secret.
pub type SecretHash = [u8; 32];

/// The hash of the empty secret, which proves nothing.
const NOTHING: SecretHash = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// Whom a secret proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Whose it is.
    pub identity: PathBuf,
    /// It counts while the time is before this; for ever if there is none.
    pub expires_at: Option<Timestamp>,
}

/// The credentials of a policy. A look-up takes as long whatever the secret: it goes by the hash,
/// of which a stranger can choose nothing.
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

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }
}

/// The list `credentials` as far as it could be read.
#[derive(Default)]
pub(crate) struct CredentialsDraft {
    by_hash: HashMap<SecretHash, Credential>,
    /// The place of the item that gave each hash.
    places: HashMap<SecretHash, usize>,
    /// The identities that are named: in which item, and where in the text.
    named: Vec<(PathBuf, usize, Mark)>,
    /// Items that were seen, read or not.
    seen: usize,
}

impl CredentialsDraft {
    pub(crate) fn read<'t>(&mut self, reader: &mut Reader<'t>, node: Node<'t>) {
        reader.list(&mut Vec::new(), node, "a list of credentials", |reader, node| {
            let place = self.seen;
            self.seen += 1;
            self.read_one(reader, node, place)
        });
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
                        let found = format!("the hash of credentials[{first}] again");
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

    /// The credentials. Reports those whose identity is not among `declared`, if that is known.
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

/// A hash, in 64 lower-case hexadecimal digits. What is none is not repeated: it may be the secret.
fn secret_hash<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<SecretHash> {
    const EXPECTED: &str = "the SHA-256 of the secret in 64 lower-case hexadecimal digits";
    let mark = node.mark;
    let text = reader.secret(node, EXPECTED)?;
    match parse_hash(&text) {
        Some(NOTHING) => {
            reader.report(mark, "the hash of nothing", "the hash of a secret");
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
