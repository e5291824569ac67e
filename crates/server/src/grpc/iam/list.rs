//! One page of a list: the objects that the caller may see and the filter wants, in order.
//!
//! ```text
//! parts of all ids that may be visible ─▶ scan ─▶ visible? wanted? does it fit? ─▶ page
//! ```
//!
//! **Invariants**: a page ends at its size, before 4 MiB, or after a look at [`SCANNED_MAX`] objects or
//! [`SCANNED_BYTES_MAX`] of them; then there is a token, and the next page goes on behind the last object that was looked
//! at. An object that no page can hold is left out, and logged. Only what a caller may see is looked at, with two
//! exceptions: resources of another type, and role bindings that show their identities.

use std::collections::HashSet;
use std::ops::ControlFlow;

use capstan_engine::{IdRange, Path, PathBuf};
use capstan_iam::{Kind, Object, Reader, Shown};
use capstan_proto::iam::v1;
use tokio_util::sync::CancellationToken;

use super::filter::{Filter, Listed};
use super::kinds::{Described, Identities, Resources, RoleBindings, Roles};
use super::objects;
use super::pieces::{Piece, Pieces};
use super::reading::{Reading, Source, Viewer};
use crate::RequestError;
use crate::limits::{SCANNED_BYTES_MAX, SCANNED_MAX};

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
    /// Cancelled once nobody waits for the page any more: then it ends.
    pub(super) gone: CancellationToken,
}

/// A page in the making.
pub(super) struct Page<M> {
    pub(super) entries: Vec<M>,
    /// The place at which the page ends if there may be more; `None` at the end of the list.
    pub(super) ended_at: Option<String>,
    bytes: usize,
    scanned: usize,
    scanned_bytes: usize,
    last: String,
}

/// Bytes of a tag and a length before each message of a page.
pub(super) const ENTRY_BYTES: usize = 8;

impl<M: Listed> Page<M> {
    /// An empty page.
    pub(super) fn new() -> Self {
        Self {
            entries: vec![],
            ended_at: None,
            bytes: 0,
            scanned: 0,
            scanned_bytes: 0,
            last: String::new(),
        }
    }

    /// Counts bytes of the store that were read, beside the messages.
    pub(super) const fn read(&mut self, bytes: usize) {
        self.scanned_bytes = self.scanned_bytes.saturating_add(bytes);
    }

    /// Looks at one object at a place of the list. Without a message it may not be seen. Breaks if the page ends.
    pub(super) fn look(
        &mut self,
        wanted: &Wanted,
        place: String,
        message: Option<M>,
    ) -> ControlFlow<()> {
        let message = message.map(|message| (message.encoded_len(), message));
        self.read(message.as_ref().map_or(0, |(bytes, _)| *bytes));
        if let Some((bytes, message)) = message.filter(|(_, found)| wanted.filter.matches(found)) {
            let bytes = bytes + ENTRY_BYTES;
            if bytes > wanted.bytes_max {
                tracing::error!(%place, bytes, "an object is too large for a list, and left out");
            } else if self.entries.len() >= wanted.size || self.bytes + bytes > wanted.bytes_max {
                self.ended_at = Some(std::mem::take(&mut self.last));
                return ControlFlow::Break(());
            } else {
                self.bytes += bytes;
                self.entries.push(message);
            }
        }
        self.scanned += 1;
        self.last = place;
        let is_long = self.scanned >= SCANNED_MAX || self.scanned_bytes >= SCANNED_BYTES_MAX;
        if is_long || wanted.gone.is_cancelled() {
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
    let pieces = reading.pieces(viewer, &[K::CAPABILITY], parent);
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
    let parent = wanted.parent.as_ref().map(PathBuf::as_path);
    let pieces = reading.pieces(viewer, &capabilities, parent);
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
    let pieces = reading.pieces(viewer, &[Roles::CAPABILITY], parent);
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
    let mut pieces = reading.pieces(viewer, &[RoleBindings::CAPABILITY], parent);
    if let (Viewer::Actor(reader), Some(identity)) = (viewer, reading.identity()) {
        let own = reading.snapshot().role_bindings(identity.as_path()).into_iter();
        let hidden = own.filter(|own| !reader.holds(RoleBindings::CAPABILITY, own.scope.as_path()));
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
        let mut pieces = reading.pieces(viewer, &[Identities::CAPABILITY], parent);
        if let Some(identity) = reading.identity()
            && parent.is_none_or(|parent| parent.contains(identity.as_path()))
            && !pieces.contains(identity.as_str())
        {
            pieces.add([identity.clone()].into_iter());
        }
        if scan::<Identities>(reading, viewer, wanted, &pieces, after, &mut page)?.is_break() {
            return Ok(page);
        }
    }
    if let (Viewer::Actor(reader), Some(identity), None) = (viewer, reading.identity(), parent) {
        // The list goes on here, even if the page ends before the first binding.
        page.last = BOUND.to_string();
        bound_identities(reading, (reader, identity), wanted, bound_after, &mut page)?;
    }
    Ok(page)
}

/// Root identities, each at the first binding that shows it.
fn bound_identities(
    reading: &Reading,
    (reader, own): (&Reader<'_>, &PathBuf),
    wanted: &Wanted,
    after: Option<&str>,
    page: &mut Page<v1::Identity>,
) -> Result<(), RequestError> {
    let pieces = Pieces::below(&reader.topmost(&[RoleBindings::CAPABILITY]), None);
    let after = after.filter(|after| !after.is_empty());
    // Those whose first binding is in this page or was in an earlier one.
    let mut seen = HashSet::new();
    let _ = each::<RoleBindings>(reading, &pieces, after, &mut |binding| {
        let Object::RoleBinding(binding) = binding else { return Ok(ControlFlow::Continue(())) };
        let place = format!("{BOUND}{}", binding.id);
        let identity = binding.identity;
        let is_first = identity.as_path().parent().is_none()
            && identity != *own
            && seen.insert(identity.clone())
            && !was_listed(reading, &pieces, identity.as_path(), after);
        let found =
            if is_first { reading.stored(Kind::Identity, identity.as_path())? } else { None };
        // The reader lists this binding, and so sees its identity in part.
        let shown = found.and_then(Identities::message).map(Identities::in_part);
        Ok(page.look(wanted, place, shown))
    })?;
    Ok(())
}

/// Whether an earlier page has listed an identity: it was bound in one of the parts, up to the place where that page ended.
fn was_listed(reading: &Reading, pieces: &Pieces, identity: Path<'_>, after: Option<&str>) -> bool {
    let Some(after) = after else { return false };
    reading.snapshot().has_role_binding(identity, |id| id <= after && pieces.contains(id))
}

/// The message of what is shown of an object.
pub(super) fn message<K: Described>(shown: Shown) -> Option<K::Message> {
    let message = K::message(shown.object)?;
    Some(if shown.in_part { K::in_part(message) } else { message })
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
    match viewer {
        Viewer::Everybody => {
            let mut look = |message: K::Message| {
                let place = K::id(&message).to_owned();
                page.look(wanted, place, Some(message))
            };
            Ok(declared::<K>(reading, pieces, after, &mut look))
        }
        Viewer::Actor(reader) => each::<K>(reading, pieces, after, &mut |object| {
            let mut shown = reader.show(&object)?.and_then(message::<K>);
            if let Some(message) = &mut shown {
                K::complete(reading, message)?;
            }
            Ok(page.look(wanted, object.id().to_string(), shown))
        }),
    }
}

/// Calls `each` with the objects of a policy file that lie in some parts, in order, until it breaks.
fn declared<K: Described>(
    reading: &Reading,
    pieces: &Pieces,
    after: Option<&str>,
    each: &mut dyn FnMut(K::Message) -> ControlFlow<()>,
) -> ControlFlow<()> {
    pieces.after(after).into_iter().try_for_each(|(piece, after)| {
        let (prefix, limit) = match piece {
            Piece::All => ("", SCANNED_MAX + 1),
            Piece::Below(prefix) => (&**prefix, SCANNED_MAX + 1),
            // The first id that begins with this one is this one, if it is there.
            Piece::One(id) => (&**id, 1),
        };
        let all = K::declared(reading.snapshot(), IdRange { prefix, after, limit }).into_iter();
        let is_here = |message: &K::Message| match piece {
            Piece::One(id) => K::id(message) == id,
            Piece::All | Piece::Below(_) => true,
        };
        all.filter(is_here).try_for_each(&mut *each)
    })
}

/// Calls `each` with the objects of a store that lie in some parts, in order, until it breaks.
fn each<K: Described>(
    reading: &Reading,
    pieces: &Pieces,
    after: Option<&str>,
    each: &mut dyn FnMut(Object) -> Result<ControlFlow<()>, RequestError>,
) -> Result<ControlFlow<()>, RequestError> {
    let Source::Store { objects, .. } = &reading.source else {
        return Ok(ControlFlow::Continue(()));
    };
    for (piece, after) in pieces.after(after) {
        let mut flow = Ok(ControlFlow::Continue(()));
        let mut goes_on = |object: Object| {
            flow = each(object);
            matches!(flow, Ok(ControlFlow::Continue(())))
        };
        match piece {
            Piece::All => objects.scan(K::KIND, "", after, &mut goes_on)?,
            Piece::Below(prefix) => objects.scan(K::KIND, prefix, after, &mut goes_on)?,
            Piece::One(id) => {
                let found = Path::parse(id).ok().map(|id| reading.stored(K::KIND, id));
                if let Some(object) = found.transpose()?.flatten() {
                    goes_on(object);
                }
            }
        }
        if flow?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn wanted(size: usize, bytes_max: usize, filter: &str) -> Wanted {
        let filter = Filter::parse::<v1::Group>(filter).unwrap();
        let gone = CancellationToken::new();
        Wanted { parent: None, filter, size, bytes_max, after: None, gone }
    }

    fn group(at: usize) -> v1::Group {
        v1::Group { id: format!("acme/g{at:06}"), ..Default::default() }
    }

    /// Looks at groups until the page ends. Returns the page, and at how many it has looked.
    fn page_of(wanted: &Wanted, visible: impl Fn(usize) -> bool) -> (Page<v1::Group>, usize) {
        let (mut page, mut looked) = (Page::new(), 0);
        for at in 0..3 * SCANNED_MAX {
            looked += 1;
            let shown = visible(at).then(|| group(at));
            if page.look(wanted, group(at).id, shown).is_break() {
                break;
            }
        }
        (page, looked)
    }

    #[test]
    fn a_page_ends_at_its_size_and_goes_on_behind_its_last_entry() {
        let (page, _) = page_of(&wanted(7, usize::MAX, ""), |_| true);
        assert_eq!(page.entries.len(), 7);
        assert_eq!(page.ended_at, Some(group(6).id));
        // What is hidden behind the last entry is looked at, and not again.
        let (page, _) = page_of(&wanted(1, usize::MAX, ""), |at| at % 5 == 0);
        assert_eq!(page.ended_at, Some(group(4).id));
    }

    #[test]
    fn a_page_ends_before_too_many_bytes() {
        let one = group(0).encoded_len() + ENTRY_BYTES;
        for (bytes_max, entries) in [(3 * one, 3), (4 * one - 1, 3), (4 * one, 4), (one, 1)] {
            let (page, _) = page_of(&wanted(1_000, bytes_max, ""), |_| true);
            assert_eq!(page.entries.len(), entries, "{bytes_max}");
            assert_eq!(page.ended_at, Some(group(entries - 1).id));
        }
        let token = "x".repeat(crate::limits::PAGE_TOKEN_BYTES_MAX);
        let rest = v1::ListRolesResponse {
            catalog: "c".repeat(capstan_engine::NAME_BYTES_MAX),
            roles: vec![],
            next_page_token: token,
            revision: u64::MAX,
        };
        assert!(rest.encoded_len() <= crate::limits::PAGE_REST_BYTES);
    }

    #[test]
    fn what_no_page_can_hold_is_left_out() {
        let one = group(0).encoded_len() + ENTRY_BYTES;
        let long = v1::Group { name: "x".repeat(2 * one), ..group(1) };
        let (wanted, mut page) = (wanted(1_000, 2 * one, ""), Page::new());
        for (at, group) in [(0, group(0)), (1, long), (2, group(2))] {
            assert!(page.look(&wanted, at.to_string(), Some(group)).is_continue());
        }
        assert_eq!(page.entries, [group(0), group(2)]);
    }

    #[test]
    fn a_page_ends_after_a_number_of_bytes() {
        let wanted = wanted(1_000, usize::MAX, r#"name = "none""#);
        let mut page = Page::new();
        page.read(SCANNED_BYTES_MAX - 1);
        assert!(page.look(&wanted, "a".into(), None::<v1::Group>).is_continue());
        assert!(page.look(&wanted, "b".into(), Some(group(0))).is_break());
        assert_eq!((page.entries.len(), page.ended_at.as_deref()), (0, Some("b")));
    }

    #[test]
    fn a_page_that_nobody_waits_for_ends() {
        let wanted = wanted(7, usize::MAX, "");
        wanted.gone.cancel();
        assert_eq!(page_of(&wanted, |_| true).1, 1);
    }

    #[test]
    fn a_page_ends_after_a_number_of_objects() {
        let (page, looked) = page_of(&wanted(7, usize::MAX, ""), |_| false);
        assert_eq!((page.entries.len(), looked), (0, SCANNED_MAX));
        assert_eq!(page.ended_at, Some(group(SCANNED_MAX - 1).id));
        let filter = format!(r#"id = "{}""#, group(SCANNED_MAX - 1).id);
        let (page, looked) = page_of(&wanted(7, usize::MAX, &filter), |_| true);
        assert_eq!((page.entries.len(), looked), (1, SCANNED_MAX));
    }
}
