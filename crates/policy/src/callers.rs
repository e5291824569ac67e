//! Who may ask: the callers of decisions that a server answers on addresses which other machines reach.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use capstan_engine::{PathBuf, parse_name, quote};
use capstan_iam::{check_dns_name, check_spiffe_id};

use crate::diagnostics::Diagnostics;
use crate::policy::{decode, path};
use crate::reader::{Mark, Node, Reader, Required};

/// Most callers in a document.
pub const CALLERS_MAX: usize = 1_000;

/// The loaded document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Callers {
    /// Whether also callers of this machine, by loopback and unix sockets, must be named.
    pub names_this_machine: bool,
    /// The callers, in order of the document. No two are known by the same.
    pub callers: Vec<Caller>,
}

/// A caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name, for people and logs; unique.
    pub name: String,
    /// What the caller must prove.
    pub proves: Proves,
    /// What it may ask about is at or below this path; `None` for everything.
    pub subtree: Option<PathBuf>,
    /// What it may ask, at least one; sorted.
    pub methods: Vec<Asks>,
}

/// What a caller must prove.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Proves {
    /// Its client certificate has this SPIFFE ID.
    SpiffeId(String),
    /// Its client certificate has no URI and this DNS name.
    DnsName(String),
    /// It is this identity, by a token or a secret.
    Identity(PathBuf),
}

/// A set of methods that a caller may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asks {
    /// Check, BatchCheck and StreamCheck; AuthZEN's evaluations.
    Check,
    /// ListCapabilities.
    Capabilities,
    /// Explain.
    Explain,
    /// ListIdentities and ListScopes; AuthZEN's searches.
    Search,
    /// The requests of Envoy.
    Authorize,
    /// The objects of a policy file, by the management methods that read.
    Policy,
}

impl Asks {
    /// All sets, in the order of the documents.
    pub const ALL: [Self; 6] = [
        Self::Check,
        Self::Capabilities,
        Self::Explain,
        Self::Search,
        Self::Authorize,
        Self::Policy,
    ];

    /// The word in a document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Capabilities => "capabilities",
            Self::Explain => "explain",
            Self::Search => "search",
            Self::Authorize => "authorize",
            Self::Policy => "policy",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::as_str).join(", ");
        Self::ALL.into_iter().find(|one| one.as_str() == text).ok_or_else(known)
    }
}

/// Loads a document of callers.
///
/// # Errors
///
/// All diagnostics of the document: the first 100 by position, and the number of all.
pub fn load_callers(document: &[u8]) -> Result<Callers, Diagnostics> {
    let text = decode(document)?;
    let mut reader = Reader::new(text);
    let callers = reader.document(read_document);
    let (diagnostics, ..) = reader.finish();
    callers.filter(|_| diagnostics.is_empty()).ok_or(diagnostics)
}

fn read_document<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Callers {
    let mark = node.mark;
    let mut all = Callers::default();
    let (mut version, mut listed) = (Required::new("version"), Required::new("callers"));
    let mut taken = Taken::default();
    let is_mapping = reader.mapping(
        node,
        "callers: a mapping with `version` and `callers`",
        &["version", "this_machine", "callers"],
        |reader, key, value| match key {
            "version" => {
                version.read(reader, value, |reader, node| reader.exactly(node, 1).then_some(()))
            }
            "this_machine" => {
                let named = reader.parse(value, "who of this machine may ask", |text| match text {
                    "open" => Ok(false),
                    "named" => Ok(true),
                    _ => Err("open or named"),
                });
                all.names_this_machine |= named.unwrap_or_default();
            }
            _ => listed.read(reader, value, |reader, node| {
                let mark = node.mark;
                reader.list(&mut all.callers, node, "a list of callers", |reader, node| {
                    read_caller(reader, node, &mut taken)
                });
                if all.callers.len() > CALLERS_MAX {
                    let found = format!("{} callers", all.callers.len());
                    reader.report(mark, found, format!("at most {CALLERS_MAX}"));
                }
                Some(())
            }),
        },
    );
    version.get(reader, mark, is_mapping);
    listed.get(reader, mark, is_mapping);
    all
}

/// What callers have that no other may have, with its line.
#[derive(Default)]
struct Taken {
    names: HashMap<String, usize>,
    proves: HashMap<Proves, usize>,
}

fn read_caller<'t>(reader: &mut Reader<'t>, node: Node<'t>, taken: &mut Taken) -> Option<Caller> {
    let mark = node.mark;
    let (mut name, mut methods) = (Required::new("name"), Required::new("methods"));
    let (mut ways, mut proves, mut subtree) = (0, None, None);
    let is_mapping = reader.mapping(
        node,
        "a caller: a mapping with `name`, `methods`, and `spiffe_id`, `dns_name` or `identity`",
        &["name", "spiffe_id", "dns_name", "identity", "subtree", "methods"],
        |reader, key, value| match key {
            "name" => name.read(reader, value, |reader, node| {
                let mark = node.mark;
                let named = |text: &str| parse_name(text).map(|()| text.to_owned());
                let name = reader.parse(node, "a caller's name", named)?;
                once(reader, mark, &mut taken.names, (name.clone(), &name));
                Some(name)
            }),
            "spiffe_id" | "dns_name" | "identity" => {
                ways += 1;
                let mark = value.mark;
                let found = match key {
                    "spiffe_id" => reader.parse(value, "a SPIFFE ID", |text| {
                        check_spiffe_id(text).map(|()| Proves::SpiffeId(text.into()))
                    }),
                    "dns_name" => reader.parse(value, "a DNS name", |text| {
                        check_dns_name(text).map(|()| Proves::DnsName(text.into()))
                    }),
                    _ => path(reader, value).map(Proves::Identity),
                };
                if let Some(found) = found {
                    let shown = match &found {
                        Proves::SpiffeId(text) | Proves::DnsName(text) => text.clone(),
                        Proves::Identity(path) => path.as_str().to_owned(),
                    };
                    once(reader, mark, &mut taken.proves, (found.clone(), &shown));
                    proves = Some(found);
                }
            }
            "subtree" => subtree = Some(path(reader, value)),
            _ => methods.read(reader, value, |reader, node| Some(read_methods(reader, node))),
        },
    );
    let (name, methods) =
        (name.get(reader, mark, is_mapping), methods.get(reader, mark, is_mapping));
    if is_mapping && ways != 1 {
        let found = if ways == 0 { "no proof" } else { "several proofs" };
        reader.report(mark, found, "one of `spiffe_id`, `dns_name` and `identity`");
    }
    let methods = methods?;
    if subtree.is_some() && methods.contains(&Asks::Policy) {
        let expected = "no `policy` with `subtree`: a policy is read as a whole";
        reader.report(mark, "both", expected);
    }
    let (name, proves) = (name?, proves?);
    let subtree = match subtree {
        Some(read) => Some(read?),
        None => None,
    };
    Some(Caller { name, proves, subtree, methods })
}

fn read_methods<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Vec<Asks> {
    let (mark, mut methods, mut seen) = (node.mark, Vec::new(), 0);
    reader.list(&mut methods, node, "a list of methods", |reader, node| {
        seen += 1;
        reader.parse(node, "a set of methods", Asks::parse)
    });
    if seen == 0 {
        reader.report(mark, "no method", "at least one method");
    }
    methods.sort_unstable();
    methods.dedup();
    methods
}

/// Reports what another caller has, too.
fn once<'t, K: std::hash::Hash + Eq>(
    reader: &mut Reader<'t>,
    mark: Mark,
    taken: &mut HashMap<K, usize>,
    (key, shown): (K, &str),
) {
    let (line, _) = mark;
    match taken.entry(key) {
        Entry::Vacant(entry) => {
            entry.insert(line);
        }
        Entry::Occupied(entry) => {
            let found = format!("{}, already used in line {}", quote(shown), entry.get());
            reader.report(mark, found, "one that no other caller has");
        }
    }
}
