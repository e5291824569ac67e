//! Types of identities and resources while they are loaded: each text once.

use crate::index::load::{of_position, position};
use crate::{Map, USER};

/// Types by the positions of identities and resources.
#[derive(Default)]
pub(super) struct Kinds {
    texts: Vec<Box<str>>,
    /// The position of each text.
    positions: Map<Box<str>, u32>,
    resources: Vec<u32>,
    /// Of the identities that are no users, by position, ascending.
    identities: Vec<(u32, u32)>,
}

impl Kinds {
    /// The type of the next resource.
    pub(super) fn push_resource(&mut self, kind: &str) {
        let text = self.text(kind);
        self.resources.push(text);
    }

    /// The type of the identity at a position, which is behind all before.
    pub(super) fn push_identity(&mut self, at: u32, kind: &str) {
        if kind != USER {
            let text = self.text(kind);
            self.identities.push((at, text));
        }
    }

    pub(super) fn of_resource(&self, at: usize) -> &str {
        self.resources.get(at).and_then(|text| self.texts.get(*text as usize)).map_or("", |it| it)
    }

    pub(super) fn of_identity(&self, at: u32) -> &str {
        let text = of_position(&self.identities, at);
        text.and_then(|text| self.texts.get(*text as usize)).map_or(USER, |it| it)
    }

    fn text(&mut self, kind: &str) -> u32 {
        self.positions.get(kind).copied().unwrap_or_else(|| {
            let at = position(self.texts.len());
            self.texts.push(kind.into());
            self.positions.insert(kind.into(), at);
            at
        })
    }
}
