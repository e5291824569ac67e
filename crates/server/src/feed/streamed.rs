//! A policy in JSON, read piece by piece: one thread reads, another indexes.
//!
//! ```text
//! file ─▶ stream_policy ─▶ parts of many facts ─▶ Difference, or Loader ─▶ Snapshot
//! ```
//!
//! **Invariant**: of a document that is not read to its end, or whose facts are refused, nothing is left.

use std::collections::HashSet;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use anyhow::{anyhow, bail};
use capstan_engine::{
    Catalog, CustomRole, Difference, FactSink, Group, Identity, Loader, RegisteredResource,
    RoleBinding, Snapshot,
};
use capstan_policy::{Catalogs, Credentials, Streamed, stream_policy};

use super::fact::{Fact, PART_FACTS, PARTS_MAX};

enum Part {
    Begin(Arc<Catalog>),
    Facts(Vec<Fact>),
    /// Asks whether all these are identities.
    Identities(Vec<Box<str>>, Sender<bool>),
    /// The document was read to its end.
    End,
}

/// Nobody takes facts any more: one was refused.
#[derive(Debug, thiserror::Error)]
#[error("the facts are refused")]
struct Refused;

/// Makes a snapshot of facts: of all anew, or of those that differ from another snapshot.
pub(super) trait Indexer: FactSink<Error: Error + Send + Sync + 'static> {
    /// The snapshot.
    ///
    /// # Errors
    ///
    /// The document has to be indexed in another way.
    fn finish(self, revision: u64) -> anyhow::Result<Snapshot>;
}

impl Indexer for Loader {
    fn finish(self, revision: u64) -> anyhow::Result<Snapshot> {
        Ok(Self::finish(self, revision)?)
    }
}

impl Indexer for Difference {
    fn finish(self, revision: u64) -> anyhow::Result<Snapshot> {
        Ok(Self::finish(self, revision)?)
    }
}

/// Reads a document on this thread, in large parts, and indexes its facts on another.
///
/// # Errors
///
/// The document has to be read whole, which tells why.
pub(super) fn load<I: Indexer>(
    document: impl io::Read,
    catalogs: &Catalogs,
    revision: u64,
    begin: impl FnOnce(&Arc<Catalog>) -> anyhow::Result<I> + Send,
) -> anyhow::Result<(Snapshot, Credentials)> {
    let (to, from) = sync_channel(PARTS_MAX);
    std::thread::scope(|scope| {
        let indexing = std::thread::Builder::new().name("index".into());
        let indexed = indexing.spawn_scoped(scope, move || index(from, revision, begin))?;
        let read = stream_policy(document, catalogs, |catalog| {
            // If nobody takes the catalog, nobody takes facts either.
            let _ = to.send(Part::Begin(catalog));
            Parts { facts: Vec::new(), to }
        });
        let read = read.map_err(anyhow::Error::from).and_then(|Streamed { sink, credentials }| {
            sink.end()?;
            Ok(credentials)
        });
        let indexed = indexed.join().map_err(|_| anyhow!("indexing failed; the log says why"))?;
        let credentials = read?;
        Ok((indexed?, credentials))
    })
}

/// Indexes facts until the end of their document.
fn index<I: Indexer>(
    from: Receiver<Part>,
    revision: u64,
    begin: impl FnOnce(&Arc<Catalog>) -> anyhow::Result<I>,
) -> anyhow::Result<Snapshot> {
    let mut parts = from.into_iter();
    let Some(Part::Begin(catalog)) = parts.next() else { bail!("facts without a catalog") };
    let mut indexer = begin(&catalog)?;
    for part in parts {
        match part {
            Part::Begin(_) => bail!("a second catalog"),
            Part::Facts(facts) => {
                facts.into_iter().try_for_each(|fact| fact.put(&mut indexer))?;
            }
            // Without an answer nothing is declared.
            Part::Identities(ids, answer) => {
                let _ = answer.send(indexer.has_identities(ids.iter().map(|id| &**id)));
            }
            Part::End => return indexer.finish(revision),
        }
    }
    bail!("the document ends early")
}

/// Facts on their way to the other thread.
struct Parts {
    facts: Vec<Fact>,
    to: SyncSender<Part>,
}

impl Parts {
    fn put(&mut self, fact: Fact) -> Result<(), Refused> {
        self.facts.push(fact);
        if self.facts.len() >= PART_FACTS { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Refused> {
        let facts = std::mem::replace(&mut self.facts, Vec::with_capacity(PART_FACTS));
        self.to.send(Part::Facts(facts)).map_err(|_| Refused)
    }

    fn end(mut self) -> Result<(), Refused> {
        self.send()?;
        self.to.send(Part::End).map_err(|_| Refused)
    }

    fn ask(&self, ids: Vec<Box<str>>) -> Option<bool> {
        let (answer, answered) = channel();
        self.to.send(Part::Identities(ids, answer)).ok()?;
        answered.recv().ok()
    }
}

impl FactSink for Parts {
    type Error = Refused;

    fn group(&mut self, group: Group) -> Result<(), Refused> {
        self.put(Fact::Group(group))
    }

    fn role(&mut self, role: CustomRole) -> Result<(), Refused> {
        self.put(Fact::Role(role))
    }

    fn identity(&mut self, identity: Identity) -> Result<(), Refused> {
        self.put(Fact::Identity(identity))
    }

    fn resource(&mut self, resource: RegisteredResource) -> Result<(), Refused> {
        self.put(Fact::Resource(resource))
    }

    fn role_binding(&mut self, binding: RoleBinding) -> Result<(), Refused> {
        self.put(Fact::RoleBinding(binding))
    }

    /// Asked at the end of the document, when only the last part is still here.
    fn has_identities<'i>(&self, ids: impl Iterator<Item = &'i str>) -> bool {
        let here: HashSet<&str> = self.facts.iter().filter_map(Fact::identity).collect();
        let elsewhere: Vec<Box<str>> = ids.filter(|id| !here.contains(id)).map(Box::from).collect();
        elsewhere.is_empty() || self.ask(elsewhere).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A policy of so many identities, with a credential of one of them.
    fn policy(identities: usize, credential: usize, more: &str) -> String {
        let ids: Vec<_> = (0..identities).map(|at| format!("{{\"id\": \"i{at}\"}}")).collect();
        let hash = "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90";
        format!(
            "{{\"version\": 1, \"catalog\": \"chainguard-2025-08-14+errata\", \"identities\": [{}], \
             \"credentials\": [{{\"identity\": \"i{credential}\", \"sha256\": \"{hash}\"}}]{more}}}",
            ids.join(", ")
        )
    }

    fn loaded(document: &str) -> Result<(usize, usize), String> {
        let begin = |catalog: &Arc<Catalog>| Ok(Loader::new(Arc::clone(catalog)));
        let loaded = load(document.as_bytes(), &Catalogs::default(), 7, begin);
        let loaded = loaded.map_err(|error| format!("{error:#}"));
        loaded.map(|(snapshot, credentials)| (snapshot.identities_len(), credentials.len()))
    }

    #[test]
    fn all_parts_of_a_document_arrive() {
        for identities in [1, PART_FACTS - 1, PART_FACTS, PART_FACTS + 1, PART_FACTS * 10 + 1] {
            for credential in [0, identities / 2, identities - 1] {
                assert_eq!(loaded(&policy(identities, credential, "")), Ok((identities, 1)));
            }
            assert!(loaded(&policy(identities, identities, "")).is_err());
        }
    }

    #[test]
    fn a_second_document_is_compared_with_the_first() {
        let snapshot = |document: &str, served: Option<&Snapshot>| {
            let (document, catalogs) = (document.as_bytes(), Catalogs::default());
            let anew = |catalog: &Arc<Catalog>| Ok(Loader::new(Arc::clone(catalog)));
            let changed = |served, catalog: &Arc<Catalog>| Ok(Difference::new(served, catalog)?);
            match served {
                None => load(document, &catalogs, 1, anew),
                Some(served) => load(document, &catalogs, 2, |catalog| changed(served, catalog)),
            }
        };
        let (first, _) = snapshot(&policy(PART_FACTS, 0, ""), None).unwrap();
        let (second, _) = snapshot(&policy(PART_FACTS + 1, PART_FACTS, ""), Some(&first)).unwrap();
        assert_eq!((second.revision(), second.identities_len()), (2, PART_FACTS + 1));
        assert!(first.bytes_beside(&second) < first.index_bytes());
        // An identity that is gone has no credential.
        assert!(snapshot(&policy(PART_FACTS, PART_FACTS, ""), Some(&second)).is_err());
        let (third, _) = snapshot(&policy(7, 6, ""), Some(&second)).unwrap();
        assert_eq!(third.identities_len(), 7);
    }

    #[test]
    fn a_document_that_ends_early_leaves_nothing() {
        let document = policy(PART_FACTS * (PARTS_MAX + 3), 0, "");
        for end in [0, 1, 40, document.len() / 2, document.len() - 1] {
            assert!(loaded(document.get(..end).unwrap()).is_err(), "{end}");
        }
    }

    #[test]
    fn a_refused_fact_ends_the_reading() {
        let twice = ", \"groups\": [{\"id\": \"i0\"}], \"resources\": []";
        assert!(loaded(&policy(PART_FACTS * (PARTS_MAX + 3), 0, twice)).is_err());
        let unknown = ", \"role_bindings\": [{\"identity\": \"i0\", \"role\": \"viewer\", \
                       \"scope\": \"acme\"}]";
        let error = loaded(&policy(1, 0, unknown)).unwrap_err();
        assert_eq!(error, "scope `acme` does not exist");
    }
}
