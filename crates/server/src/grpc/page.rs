//! Page tokens: where a list goes on, and at which revision and time it began.
//!
//! **Invariant**: the pages of one list are of one revision and one time. A token is sealed for its
//! request, with a key of this process, so a token that was made up or belongs to another request
//! is refused.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::LazyLock;

use capstan_engine::{Snapshot, Timestamp};

use crate::RequestError;
use crate::limits::{PAGE_DEFAULT, PAGE_MAX};

static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// One page of a list.
pub(crate) struct Page {
    start: usize,
    size: usize,
    revision: u64,
    /// The time that the whole list is of: expiry must not come between two pages.
    pub(crate) now: Timestamp,
    list: u64,
}

/// What a token says, before it is believed.
struct Token<'t> {
    seal: &'t str,
    revision: u64,
    now: Timestamp,
    start: usize,
}

impl Page {
    /// Reads `page_size` and `page_token` of a request. `list` is all else of the request that
    /// decides what the list holds.
    pub(crate) fn parse(
        size: i32,
        token: &str,
        list: impl Hash,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<Self, RequestError> {
        let size = match usize::try_from(size) {
            Ok(0) => PAGE_DEFAULT,
            Ok(size) => size.min(PAGE_MAX),
            Err(_) => return Err(RequestError::field("page_size", "negative")),
        };
        let (revision, list) = (snapshot.revision(), KEY.hash_one(list));
        let first = Self { start: 0, size, revision, now, list };
        if token.is_empty() {
            return Ok(first);
        }
        let refused = || RequestError::field("page_token", "not one that this list gave out");
        let Token { seal, revision, now, start } = parse(token).ok_or_else(refused)?;
        let page = Self { start, revision, now, ..first };
        if page.seal(start) != seal {
            return Err(refused());
        }
        if revision != snapshot.revision() {
            // Genuine, but what it was given out for is no longer held.
            return Err(RequestError::RevisionGone { revision });
        }
        Ok(page)
    }

    /// The revision that a token was given out at, if it looks like one.
    pub(crate) fn revision(token: &str) -> Option<u64> {
        Some(parse(token)?.revision)
    }

    /// The entries of this page, of all.
    pub(crate) fn of<'l, T>(&self, all: &'l [T]) -> &'l [T] {
        let rest = all.get(self.start..).unwrap_or_default();
        rest.get(..self.size).unwrap_or(rest)
    }

    /// The token of the page after this one; empty if `length` entries end with this page.
    pub(crate) fn next(&self, length: usize) -> String {
        let next = self.start.saturating_add(self.size);
        if next >= length {
            return String::new();
        }
        let (seconds, nanos) = (self.now.seconds(), self.now.nanos());
        format!("{}.{:x}.{seconds}.{nanos}.{next:x}", self.seal(next), self.revision)
    }

    fn seal(&self, start: usize) -> String {
        let seal = |half: u8| KEY.hash_one((half, self.list, self.revision, self.now, start));
        format!("{:016x}{:016x}", seal(0), seal(1))
    }
}

fn parse(token: &str) -> Option<Token<'_>> {
    let mut parts = token.split('.');
    let seal = parts.next()?;
    let revision = u64::from_str_radix(parts.next()?, 16).ok()?;
    let now = Timestamp::new(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let start = usize::from_str_radix(parts.next()?, 16).ok()?;
    parts.next().is_none().then_some(Token { seal, revision, now, start })
}
