//! Update masks: which fields of an object an update sets.
//!
//! ```text
//! no mask ─▶ every field that is set      `*` ─▶ all, also those that are not set      paths ─▶ these
//! ```
//!
//! **Invariant**: a path that an update cannot set is refused, never ignored.

use prost_types::FieldMask;

use crate::RequestError;

/// The fields of a kind of object. Those that are output only, and those that do not exist, cannot be in a mask.
#[derive(Debug)]
pub(super) struct Fields {
    /// Fields that an update may set.
    pub(super) mutable: &'static [&'static str],
    /// Fields that never change. An update may repeat them.
    pub(super) immutable: &'static [&'static str],
}

/// Which fields an update sets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mask {
    /// Those that are set in the object.
    Set,
    /// All that may change.
    All,
    /// These.
    Paths(Vec<&'static str>),
}

impl Mask {
    /// Reads a mask. One without paths is as none.
    ///
    /// # Errors
    ///
    /// A path that no update can set, or `*` beside others.
    pub(super) fn parse(mask: Option<&FieldMask>, fields: &Fields) -> Result<Self, RequestError> {
        let paths = mask.map(|mask| &*mask.paths).unwrap_or_default();
        match paths {
            [] => return Ok(Self::Set),
            [all] if all == "*" => return Ok(Self::All),
            _ => {}
        }
        let known = |path: &String| {
            let mut known = fields.mutable.iter().chain(fields.immutable);
            known.find(|field| *field == path).copied().ok_or_else(|| {
                let mutable = fields.mutable.join(", ");
                RequestError::field(
                    "update_mask",
                    format!("no `{path}`: the mask is `*` or of {mutable}"),
                )
            })
        };
        paths.iter().map(known).collect::<Result<_, _>>().map(Self::Paths)
    }

    /// The value of a field, if the update sets it.
    pub(super) fn of<T>(&self, field: &str, value: T, is_set: bool) -> Option<T> {
        let sets = match self {
            Self::Set => is_set,
            Self::All => true,
            Self::Paths(paths) => paths.contains(&field),
        };
        sets.then_some(value)
    }

    /// The value of a text field, if the update sets it.
    pub(super) fn text(&self, field: &str, value: String) -> Option<String> {
        let is_set = !value.is_empty();
        self.of(field, value, is_set)
    }

    /// The value of a field that never changes, if the update repeats it. `*` asks for no change of one that is not
    /// set.
    pub(super) fn immutable<T>(&self, field: &str, value: T, is_set: bool) -> Option<T> {
        match self {
            Self::Set | Self::All => is_set.then_some(value),
            Self::Paths(_) => self.of(field, value, is_set),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: Fields = Fields { mutable: &["name", "description"], immutable: &["type"] };

    fn mask(paths: &[&str]) -> Result<Mask, RequestError> {
        let paths = paths.iter().map(|&path| path.to_owned()).collect();
        Mask::parse(Some(&FieldMask { paths }), &FIELDS)
    }

    /// Which of name (set), description (not set) and type (not set) an update sets.
    fn sets(mask: &Mask) -> [bool; 3] {
        [
            mask.text("name", "n".into()).is_some(),
            mask.text("description", String::new()).is_some(),
            mask.immutable("type", "", false).is_some(),
        ]
    }

    #[test]
    fn a_mask_says_which_fields_an_update_sets() {
        assert_eq!(Mask::parse(None, &FIELDS).unwrap(), Mask::Set);
        assert_eq!(sets(&mask(&[]).unwrap()), [true, false, false]);
        assert_eq!(sets(&mask(&["*"]).unwrap()), [true, true, false]);
        assert_eq!(sets(&mask(&["description"]).unwrap()), [false, true, false]);
        assert_eq!(sets(&mask(&["name", "type", "name"]).unwrap()), [true, false, true]);
        assert!(Mask::Set.immutable("type", "x", true).is_some());
        assert!(Mask::All.immutable("type", "x", true).is_some());
    }

    #[test]
    fn what_no_update_sets_is_refused() {
        for paths in [
            &["etag"][..],
            &["id"],
            &["create_time"],
            &["name", "*"],
            &["*", "*"],
            &["group.name"],
            &[""],
            &["Name"],
        ] {
            let Err(RequestError::Field { field, .. }) = mask(paths) else { panic!("{paths:?}") };
            assert_eq!(field, "update_mask", "{paths:?}");
        }
    }
}
