//! A snapshot from the objects of a store.
//!
//! ```text
//! view ──scan, decode: one thread──▶ parts of many facts ──index: another──▶ Snapshot
//! ```
//!
//! The time follows the objects that there are; the history is not read.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use capstan_engine::{Catalog, Facts, Loader, Model, Snapshot};
use capstan_iam::record::{self, KeyRange, prefix};
use capstan_iam::{Credential, Kind, Object};
use capstan_store::{Op, View};

use super::quotas::Quotas;
use super::{beside, catalog};
use crate::authn::secrets::Tokens;
use crate::feed::fact::{Fact, PART_FACTS, PARTS_MAX};

/// Before the error of an object, which names it.
const CONTRADICTION: &str = "the objects of the store contradict each other";

/// What a store holds.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) snapshot: Snapshot,
    pub(super) quotas: Quotas,
    pub(super) tokens: Tokens,
    /// Operations that make the references what the objects say. A store that was written before there were any has none of
    /// them, and without them a rule would find nobody; all others need none.
    pub(super) references: Vec<Op>,
}

/// Loads all objects. Blocks the thread for seconds if there are millions.
///
/// # Errors
///
/// The store cannot be read, a record is corrupt, or the objects contradict each other.
pub(super) fn load(view: &Arc<dyn View>) -> anyhow::Result<Loaded> {
    load_under(view, catalog::of(&**view)?, view.head().revision())
}

/// The same under another catalog, for a later revision.
///
/// # Errors
///
/// As [`load`], or the catalog lacks what the objects name.
pub(super) fn load_under(
    view: &Arc<dyn View>,
    catalog: Arc<Catalog>,
    revision: u64,
) -> anyhow::Result<Loaded> {
    let (sender, receiver) = sync_channel(PARTS_MAX);
    std::thread::scope(|scope| {
        let indexing = scope.spawn({
            let catalog = Arc::clone(&catalog);
            move || index(&receiver, catalog, revision)
        });
        let read = read(&**view, &sender);
        drop(sender);
        let indexed = indexing.join().map_err(|_| anyhow!("loading failed; the log says why"))?;
        // If the objects cannot be read, the index is not complete.
        let Read { quotas, references } = read?;
        let references = missing_references(&**view, references)?;
        let snapshot = match indexed? {
            Some(snapshot) => snapshot,
            None => index_whole(&**view, catalog, revision)?,
        };
        Ok(Loaded { snapshot, quotas, tokens: tokens(&**view)?, references })
    })
}

/// What is counted while the objects are read.
#[derive(Default)]
struct Read {
    quotas: Quotas,
    /// Objects that refer to something.
    references: u64,
}

/// Reads all objects, groups first, so that what refers to others comes after them.
fn read(view: &dyn View, to: &SyncSender<Vec<Fact>>) -> anyhow::Result<Read> {
    let Read { mut quotas, mut references } = Read::default();
    let kinds = [Kind::Group, Kind::Role, Kind::Identity, Kind::Resource, Kind::RoleBinding];
    for kind in kinds {
        let mut part = Vec::with_capacity(PART_FACTS);
        objects(view, kind, &mut |object| {
            quotas.loaded(kind, object.id().as_str());
            references += u64::from(object.reference().is_some());
            part.extend(Fact::of(object));
            if part.len() < PART_FACTS {
                return true;
            }
            let part = std::mem::replace(&mut part, Vec::with_capacity(PART_FACTS));
            // Nobody takes facts any more if one was refused.
            to.send(part).is_ok()
        })?;
        let _ = to.send(part);
    }
    for kind in Kind::BESIDE {
        objects(view, kind, &mut |object| {
            quotas.loaded(kind, object.id().as_str());
            references += u64::from(object.reference().is_some());
            true
        })?;
    }
    view.scan(KeyRange::prefix(prefix::CREATOR).bounds(), &mut |_, creator| {
        quotas.loaded_creator(&String::from_utf8_lossy(creator));
        true
    })?;
    Ok(Read { quotas, references })
}

/// See [`Loaded::references`]. Each change of an object brings its reference, so that their number tells.
fn missing_references(view: &dyn View, expected: u64) -> anyhow::Result<Vec<Op>> {
    let (all, mut there) = (KeyRange::prefix(prefix::REFERENCE), 0);
    view.scan(all.bounds(), &mut |_, _| {
        there += 1;
        true
    })?;
    if there == expected {
        return Ok(vec![]);
    }
    let mut ops = vec![];
    view.scan(all.bounds(), &mut |key, _| {
        ops.push(Op::Delete { key: Bytes::copy_from_slice(key) });
        true
    })?;
    for kind in Kind::ALL {
        objects(view, kind, &mut |object| {
            let put = |key: Vec<u8>| Op::Put { key: key.into(), value: Bytes::new() };
            ops.extend(beside::reference(&object).map(put));
            true
        })?;
    }
    Ok(ops)
}

/// The pull tokens. A credential proves the identity that it was made with, and no later one of the same id.
fn tokens(view: &dyn View) -> anyhow::Result<Tokens> {
    let (mut found, mut broken) = (vec![], None);
    view.scan(KeyRange::prefix(prefix::CREDENTIAL).bounds(), &mut |key, value| {
        match Credential::identity(key).zip(Credential::decode(value)) {
            Some(one) => found.push(one),
            None => broken = Some(key.escape_ascii().to_string()),
        }
        broken.is_none()
    })?;
    if let Some(key) = broken {
        return Err(anyhow!("the record `{key}` is no credential of a pull token"));
    }
    let mut tokens = Tokens::default();
    for (identity, credential) in found {
        let key = record::key(Kind::Identity, identity.as_path());
        let object = view.get(&key)?.map(|value| record::decode(&key, &value)).transpose()?;
        let is_its_own = matches!(
            object,
            Some(Object::Identity(one))
                if one.is_pull_token() && one.meta.created == credential.created
        );
        anyhow::ensure!(
            is_its_own,
            "{CONTRADICTION}: `{identity}` has the secret of another token"
        );
        tokens.insert(identity, &credential);
    }
    Ok(tokens)
}

/// Calls `each` with all objects of a kind until it returns false.
pub(super) fn objects(
    view: &dyn View,
    kind: Kind,
    each: &mut dyn FnMut(Object) -> bool,
) -> anyhow::Result<()> {
    let mut broken = None;
    view.scan(KeyRange::all(kind).bounds(), &mut |key, value| match record::decode(key, value) {
        Ok(object) => each(object),
        Err(error) => {
            broken = Some(error);
            false
        }
    })?;
    broken.map_or(Ok(()), |error| Err(error.into()))
}

/// Indexes facts that come in parts. `None` if only all of them together tell whether they contradict each other.
fn index(
    parts: &Receiver<Vec<Fact>>,
    catalog: Arc<Catalog>,
    revision: u64,
) -> anyhow::Result<Option<Snapshot>> {
    let mut loader = Loader::new(catalog);
    for fact in parts.iter().flatten() {
        match fact.put(&mut loader) {
            Ok(()) => {}
            Err(capstan_engine::LoadError::BindingIds) => return Ok(None),
            Err(error) => return Err(error).context(CONTRADICTION),
        }
    }
    match loader.finish(revision) {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(capstan_engine::LoadError::BindingIds) => Ok(None),
        Err(error) => Err(error).context(CONTRADICTION),
    }
}

/// Indexes all objects at once.
fn index_whole(view: &dyn View, catalog: Arc<Catalog>, revision: u64) -> anyhow::Result<Snapshot> {
    let mut facts = Facts::default();
    for kind in Kind::ALL {
        objects(view, kind, &mut |object| {
            if let Some(fact) = Fact::of(object) {
                // Facts take everything.
                let Ok(()) = fact.put(&mut facts);
            }
            true
        })?;
    }
    let model = Model::new(catalog, facts);
    let model = model.map_err(|error| anyhow!("{CONTRADICTION}: {error}"))?;
    Ok(Snapshot::build(&model, revision)?)
}
