//! The policy of a revision as a document, read from the store object by object.
//!
//! **Invariants**: only what the caller may see is in it. It loads by itself. The same revision gives the same bytes to
//! the same caller.
//!
//! The document of an organization declares what its role bindings name: root identities with id, name and type, and
//! identities of other organizations (an import can bind them) by their ids alone. Pull tokens and their bindings are
//! left out, and so are resources that the caller does not see, with the bindings at them.
//!
//! Memory: one object, and the ids of what is named from outside or left out.

use std::collections::{BTreeSet, HashSet};
use std::io;

use capstan_engine::{self as engine, Path, PathBuf};
use capstan_iam::{Identity, Kind, Object, ObjectsError, Reader, RoleBinding, RuleSet, State};
use capstan_policy::{Details, PolicyWriter, Style};

use crate::RequestError;
use crate::feed::management::{DocumentFormat, Export};

/// Why a document ends early.
pub(super) enum Ended {
    /// Its reader is told this.
    Failed(RequestError),
    /// There is no reader any more.
    Gone,
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<ObjectsError> for Ended {
    fn from(error: ObjectsError) -> Self {
        Self::Failed(error.into())
    }
}

/// Writes the document.
pub(super) fn write<W: io::Write>(export: &Export, out: W) -> Result<W, Ended> {
    let snapshot = &export.current.snapshot;
    let state = State { snapshot, objects: &*export.objects };
    let reader = Reader::new(&RuleSet::FULL, &state, &export.actor, export.now);
    let style = match export.format {
        DocumentFormat::Yaml => Style::Yaml,
        DocumentFormat::Json => Style::Json,
    };
    let mut exporter = Exporter {
        export,
        reader: reader.map_err(|error| Ended::Failed(error.into()))?,
        left_out: HashSet::new(),
        writer: PolicyWriter::new(out, style, snapshot.catalog())?,
    };
    exporter.all()?;
    Ok(exporter.writer.finish()?)
}

struct Exporter<'e, W> {
    export: &'e Export,
    reader: Reader<'e>,
    /// Pull tokens, and resources that are not seen: bindings of or at them are left out.
    left_out: HashSet<PathBuf>,
    writer: PolicyWriter<W>,
}

impl<W: io::Write> Exporter<'_, W> {
    fn all(&mut self) -> Result<(), Ended> {
        let outside = self.named_from_outside()?;
        let is_foreign = |id: &&PathBuf| id.as_path().parent().is_some();
        // Groups of other organizations above their identities.
        let above = |id: &PathBuf| -> Vec<PathBuf> {
            id.as_path().ancestors().skip(1).map(PathBuf::from).collect()
        };
        let groups: BTreeSet<PathBuf> = outside.iter().filter(is_foreign).flat_map(above).collect();
        let (before, after) = self.around(groups);
        self.foreign_groups(before)?;
        self.kind(Kind::Group)?;
        self.foreign_groups(after)?;
        self.kind(Kind::Role)?;
        let (before, after) = self.around(outside);
        self.identities_from_outside(before)?;
        self.kind(Kind::Identity)?;
        self.identities_from_outside(after)?;
        self.kind(Kind::Resource)?;
        self.kind(Kind::RoleBinding)
    }

    /// The ids that sort before those of the organization, and those after them.
    fn around(&self, outside: BTreeSet<PathBuf>) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let organization = self.parent().map(|parent| format!("{parent}/")).unwrap_or_default();
        outside.into_iter().partition(|id| *id.as_str() < *organization)
    }

    fn foreign_groups(&mut self, ids: Vec<PathBuf>) -> Result<(), Ended> {
        for id in ids {
            self.writer.group(&engine::Group { id, name: String::new() }, &Details::default())?;
        }
        Ok(())
    }

    fn identities_from_outside(&mut self, ids: Vec<PathBuf>) -> Result<(), Ended> {
        for id in ids {
            let fact = match self.export.objects.get(Kind::Identity, id.as_path())? {
                Some(Object::Identity(found)) if found.is_root() => {
                    let fact = engine::Identity::named(id);
                    engine::Identity { name: found.name, kind: found.kind, ..fact }
                }
                Some(_) => engine::Identity::named(id),
                // It is bound without being registered.
                None => continue,
            };
            self.writer.identity(&fact, &Details::default())?;
        }
        Ok(())
    }

    fn parent(&self) -> Option<Path<'_>> {
        self.export.parent.as_ref().map(PathBuf::as_path)
    }

    /// Identities outside of the organization that are bound in it.
    fn named_from_outside(&self) -> Result<BTreeSet<PathBuf>, Ended> {
        let mut outside = BTreeSet::new();
        let Some(parent) = self.parent() else { return Ok(outside) };
        self.export.objects.below(Kind::RoleBinding, Some(parent), &mut |object| {
            if let Object::RoleBinding(binding) = object
                && !parent.contains(binding.identity.as_path())
            {
                outside.insert(binding.identity);
            }
            true
        })?;
        Ok(outside)
    }

    /// Writes the objects of a kind, in the order of their ids.
    fn kind(&mut self, kind: Kind) -> Result<(), Ended> {
        let mut ended = None;
        let export = self.export;
        let parent = export.parent.as_ref().map(PathBuf::as_path);
        export.objects.below(kind, parent, &mut |object| match self.object(object) {
            Ok(()) => true,
            Err(error) => {
                ended = Some(error);
                false
            }
        })?;
        ended.map_or(Ok(()), Err)
    }

    fn object(&mut self, object: Object) -> Result<(), Ended> {
        if self.reader.show(&object)?.is_none() {
            self.left_out.insert(object.id().clone());
            return Ok(());
        }
        let described = |description| Details { description, authentication: None };
        match object {
            Object::Group(group) => {
                self.writer.group(&group.fact(), &described(group.description))?;
            }
            Object::Role(role) => self.writer.role(&role.fact())?,
            Object::Identity(identity) if identity.is_pull_token() => {
                self.left_out.insert(identity.id);
            }
            Object::Identity(identity) => {
                let fact = identity.fact();
                let Identity { description, authentication, .. } = identity;
                self.writer.identity(&fact, &Details { description, authentication })?;
            }
            Object::Resource(resource) => {
                self.writer.resource(&resource.fact(), &described(resource.description))?;
            }
            Object::RoleBinding(binding) => self.binding(binding)?,
            // No document has them.
            Object::GroupInvite(_)
            | Object::Subscription(_)
            | Object::IdentityProvider(_)
            | Object::GroupRoleMapping(_)
            | Object::AccountAssociation(_) => {}
        }
        Ok(())
    }

    /// A derived id is not written: it is made again.
    fn binding(&mut self, binding: RoleBinding) -> Result<(), Ended> {
        let RoleBinding { identity, scope, .. } = &binding;
        if self.left_out.contains(identity) || self.left_out.contains(scope) {
            return Ok(());
        }
        let mut fact = binding.fact();
        if fact.has_derived_id() {
            fact.id = None;
        }
        let (description, authentication) = (binding.description, None);
        Ok(self.writer.role_binding(&fact, &Details { description, authentication })?)
    }
}
