//! One page of a list: the objects that the caller may see and the filter wants, in order.
//!
//! ```text
//! parts of all ids that may be visible ─▶ scan ─▶ visible? wanted? does it fit? ─▶ page
//! ```
//!
//! **Invariants**: a page ends at its size, before 4 MiB, or after a look at [`SCANNED_MAX`] objects; then there is a token,
//! and the next page goes on behind the last object that was looked at. Only what a caller may see is looked at, with two
//! exceptions: resources of another type, and role bindings that show their identities.

use std::ops::ControlFlow;

use capstan_engine::{IdRange, Path, PathBuf};
use capstan_iam::{Kind, Object};
use capstan_proto::iam::v1;
use prost::Message as _;

use super::filter::{Filter, Listed};
use super::kinds::{Described, Identities, Resources, RoleBindings, Roles};
use super::objects;
use super::reading::Reading;
use super::visible::{Piece, Pieces, Rights, Viewer};
use crate::RequestError;
use crate::limits::SCANNED_MAX;

/// What a page is to have.
pub(super) struct Wanted {
    /// Only objects at or below this path.
    pub(super) parent: Option<PathBuf>,
    pub(super) filter: Filter,
    /// Most objects.
    pub(super) size: usize,
    /// Most bytes of their messages.
    pub(super) bytes_max: usize,
    /// The place at which the page before ended.
    pub(super) after: Option<String>,
}

/// A page in the making.
pub(super) struct Page<M> {
    pub(super) entries: Vec<M>,
    /// The place at which the page ends if there may be more; `None` at the end of the list.
    pub(super) ended_at: Option<String>,
    bytes: usize,
    scanned: usize,
    last: String,
}

/// Bytes of a tag and a length before each message of a page.
const ENTRY_BYTES: usize = 8;

impl<M: Listed> Page<M> {
    fn new() -> Self {
        Self { entries: vec![], ended_at: None, bytes: 0, scanned: 0, last: String::new() }
    }

    /// Looks at one object at a place of the list. Without a message it may not be seen. Breaks if the page ends.
    fn look(&mut self, wanted: &Wanted, place: String, message: Option<M>) -> ControlFlow<()> {
        if let Some(message) = message.filter(|message| wanted.filter.matches(message)) {
            let bytes = message.encoded_len() + ENTRY_BYTES;
            let is_full = self.entries.len() >= wanted.size
                || (!self.entries.is_empty() && self.bytes + bytes > wanted.bytes_max);
            if is_full {
                self.ended_at = Some(std::mem::take(&mut self.last));
                return ControlFlow::Break(());
            }
            self.bytes += bytes;
            self.entries.push(message);
        }
        self.scanned += 1;
        self.last = place;
        if self.scanned >= SCANNED_MAX {
            self.ended_at = Some(std::mem::take(&mut self.last));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// A page of objects of one kind, in the order of their ids.
///
/// # Errors
///
/// The store cannot be read.
pub(super) fn page<K: Described>(
    reading: &Reading,
    viewer: &Viewer<'_>,
    wanted: &Wanted,
) -> Result<Page<K::Message>, RequestError> {
    let parent = wanted.parent.as_ref().map(PathBuf::as_path);
    let pieces = viewer.pieces(&[K::CAPABILITY], parent);
    let mut page = Page::new();
    let _ = scan::<K>(reading, viewer, wanted, &pieces, wanted.after.as_deref(), &mut page)?;
    Ok(page)
}

/// A page of resources, of whatever type.
pub(super) fn resources(
    reading: &Reading,
    viewer: &Viewer<'_>,
    wanted: &Wanted,
) -> Result<Page<v1::Resource>, RequestError> {
    let catalog = reading.snapshot().catalog();
    let of_types = catalog.capabilities().filter(|name| name.ends_with(".list"));
    let capabilities: Vec<_> = of_types.collect();
    let pieces = viewer.pieces(&capabilities, wanted.parent.as_ref().map(PathBuf::as_path));
    let mut page = Page::new();
    let after = wanted.after.as_deref();
    let _ = scan::<Resources>(reading, viewer, wanted, &pieces, after, &mut page)?;
    Ok(page)
}

/// A page of roles: the built-in ones, in the catalog's order, then custom ones by id. With a parent only the latter.
pub(super) fn roles(
    reading: &Reading,
    viewer: &Viewer<'_>,
    wanted: &Wanted,
) -> Result<Page<v1::Role>, RequestError> {
    let (snapshot, mut page) = (reading.snapshot(), Page::new());
    let (built_in, custom) = match wanted.after.as_deref() {
        None => (snapshot.roles(), None),
        Some(after) if after.contains('/') => (&[][..], Some(after)),
        Some(after) => (snapshot.roles_after(after), None),
    };
    if wanted.parent.is_none() {
        for role in built_in.iter().take_while(|role| !role.id.contains('/')) {
            let message = objects::declared_role(snapshot, role);
            if page.look(wanted, role.id.to_string(), Some(message)).is_break() {
                return Ok(page);
            }
        }
    }
    let parent = wanted.parent.as_ref().map(PathBuf::as_path);
    let pieces = viewer.pieces(&[Roles::CAPABILITY], parent);
    let _ = scan::<Roles>(reading, viewer, wanted, &pieces, custom, &mut page)?;
    Ok(page)
}

/// A page of role bindings: also the viewer's own, wherever they are.
pub(super) fn role_bindings(
    reading: &Reading,
    viewer: &Viewer<'_>,
    wanted: &Wanted,
) -> Result<Page<v1::RoleBinding>, RequestError> {
    let parent = wanted.parent.as_ref().map(PathBuf::as_path);
    let mut pieces = viewer.pieces(&[RoleBindings::CAPABILITY], parent);
    if let Viewer::Identity(rights) = viewer {
        let own = reading.snapshot().role_bindings(rights.identity.as_path()).into_iter();
        let hidden = own.filter(|own| !rights.holds(RoleBindings::CAPABILITY, own.scope.as_path()));
        let ids = hidden.filter_map(|own| own.id);
        pieces.add(ids.filter(|id| parent.is_none_or(|parent| parent.contains(id.as_path()))));
    }
    let (mut page, after) = (Page::new(), wanted.after.as_deref());
    let _ = scan::<RoleBindings>(reading, viewer, wanted, &pieces, after, &mut page)?;
    Ok(page)
}

/// Before the place of a role binding that shows its identity. No path has a space.
const BOUND: char = ' ';

/// A page of identities: those of groups and the viewer itself, by id; then root identities that are bound where the viewer
/// may list bindings, in the order of the first such binding.
pub(super) fn identities(
    reading: &Reading,
    viewer: &Viewer<'_>,
    wanted: &Wanted,
) -> Result<Page<v1::Identity>, RequestError> {
    let parent = wanted.parent.as_ref().map(PathBuf::as_path);
    let mut page = Page::new();
    let after = wanted.after.as_deref();
    let bound_after = after.and_then(|after| after.strip_prefix(BOUND));
    if bound_after.is_none() {
        let mut pieces = viewer.pieces(&[Identities::CAPABILITY], parent);
        if let Viewer::Identity(rights) = viewer
            && parent.is_none_or(|parent| parent.contains(rights.identity.as_path()))
            && !pieces.contains(rights.identity.as_str())
        {
            pieces.add([rights.identity.clone()].into_iter());
        }
        if scan::<Identities>(reading, viewer, wanted, &pieces, after, &mut page)?.is_break() {
            return Ok(page);
        }
    }
    if let Viewer::Identity(rights) = viewer
        && parent.is_none()
    {
        // The list goes on here, even if the page ends before the first binding.
        page.last = BOUND.to_string();
        bound_identities(reading, (viewer, rights), wanted, bound_after, &mut page)?;
    }
    Ok(page)
}

/// Root identities, each at the first binding that shows it.
fn bound_identities(
    reading: &Reading,
    (viewer, rights): (&Viewer<'_>, &Rights<'_>),
    wanted: &Wanted,
    after: Option<&str>,
    page: &mut Page<v1::Identity>,
) -> Result<(), RequestError> {
    let pieces = viewer.pieces(&[RoleBindings::CAPABILITY], None);
    let after = after.filter(|after| !after.is_empty());
    let mut failed = None;
    let _ = each::<RoleBindings>(reading, &pieces, after, &mut |binding| {
        let identity = Path::parse(&binding.identity).ok();
        let shows = identity.filter(|identity| {
            identity.parent().is_none()
                && *identity != rights.identity.as_path()
                && is_first_binding(reading, rights, *identity, &binding.id)
        });
        let shown = match shows.map(|identity| reading.get(Kind::Identity, identity)) {
            Some(Ok(Some(Object::Identity(one)))) => Some(restricted(objects::identity(one))),
            Some(Err(error)) => {
                failed = Some(error);
                return ControlFlow::Break(());
            }
            _ => None,
        };
        page.look(wanted, format!("{BOUND}{}", binding.id), shown)
    })?;
    failed.map_or(Ok(()), Err)
}

/// Whether a binding is the first of its identity that the viewer may list.
fn is_first_binding(
    reading: &Reading,
    rights: &Rights<'_>,
    identity: Path<'_>,
    binding: &str,
) -> bool {
    let bindings = reading.snapshot().role_bindings(identity).into_iter();
    let mut listed =
        bindings.filter(|one| rights.holds(RoleBindings::CAPABILITY, one.scope.as_path()));
    listed.next().and_then(|first| first.id).is_some_and(|first| first.as_str() == binding)
}

/// What is shown of a root identity to whoever may list its bindings.
pub(super) fn restricted(identity: v1::Identity) -> v1::Identity {
    let v1::Identity { id, name, r#type, .. } = identity;
    v1::Identity { id, name, r#type, ..Default::default() }
}

/// Looks at the objects of some parts until the page ends.
fn scan<K: Described>(
    reading: &Reading,
    viewer: &Viewer<'_>,
    wanted: &Wanted,
    pieces: &Pieces,
    after: Option<&str>,
    page: &mut Page<K::Message>,
) -> Result<ControlFlow<()>, RequestError> {
    each::<K>(reading, pieces, after, &mut |message| {
        let place = K::id(&message).to_owned();
        let visible = K::is_visible(reading.snapshot(), viewer, &message).then_some(message);
        page.look(wanted, place, visible)
    })
}

/// Calls `each` with the messages of some parts, in order, until it breaks.
fn each<K: Described>(
    reading: &Reading,
    pieces: &Pieces,
    after: Option<&str>,
    each: &mut dyn FnMut(K::Message) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, RequestError> {
    for (piece, after) in pieces.after(after) {
        let (prefix, after) = match piece {
            Piece::All => ("", after),
            Piece::Below(prefix) => (&**prefix, after),
            Piece::One(id) => {
                if let Some(message) = one::<K>(reading, id)?
                    && each(message).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
                continue;
            }
        };
        let mut flow = ControlFlow::Continue(());
        match &reading.objects {
            Some(objects) => objects.scan(K::KIND, prefix, after, &mut |object| {
                flow = K::message(object).map_or(ControlFlow::Continue(()), &mut *each);
                flow.is_continue()
            })?,
            None => {
                let range = IdRange { prefix, after, limit: SCANNED_MAX + 1 };
                let mut all = K::declared(reading.snapshot(), range).into_iter();
                flow = all.try_for_each(&mut *each);
            }
        }
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The object of this id.
fn one<K: Described>(reading: &Reading, id: &str) -> Result<Option<K::Message>, RequestError> {
    let Ok(id) = Path::parse(id) else { return Ok(None) };
    if reading.objects.is_some() {
        return Ok(reading.get(K::KIND, id)?.and_then(K::message));
    }
    // A policy file: the first object that begins with the id has it, if there is one.
    let range = IdRange { prefix: id.as_str(), after: None, limit: 1 };
    let found = K::declared(reading.snapshot(), range).into_iter().next();
    Ok(found.filter(|message| K::id(message) == id.as_str()))
}
