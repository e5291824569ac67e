//! Page tokens: where a list goes on, bound to the request and the revision that it began with.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::LazyLock;

use crate::RequestError;
use crate::limits::{PAGE_DEFAULT, PAGE_MAX};

/// Keyed per process: a token of another process, or of another request, is refused.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// One page of a list of known length.
pub(crate) struct Page {
    /// The first entry.
    pub(crate) start: usize,
    /// How many entries, at most.
    pub(crate) size: usize,
    seal: u64,
}

impl Page {
    /// Reads `page_size` and `page_token` of a request. `list` is all that decides what the list
    /// holds: the call, its other fields and the revision.
    pub(crate) fn parse(size: i32, token: &str, list: impl Hash) -> Result<Self, RequestError> {
        let size = match usize::try_from(size) {
            Ok(0) => PAGE_DEFAULT,
            Ok(size) => size.min(PAGE_MAX),
            Err(_) => return Err(RequestError::field("page_size", "negative")),
        };
        let seal = KEYS.hash_one(list);
        let start = if token.is_empty() { Some(0) } else { open(token, seal) };
        let start = start.ok_or_else(|| {
            RequestError::field("page_token", "not one that this list, at this revision, gave out")
        })?;
        Ok(Self { start, size, seal })
    }

    /// The token of the page after this one; empty if `length` entries end with this page.
    pub(crate) fn next(&self, length: usize) -> String {
        let next = self.start.saturating_add(self.size);
        if next >= length {
            String::new()
        } else {
            format!("{:016x}{next:x}", self.seal ^ mix(next))
        }
    }
}

/// The first entry that a token names, if it was sealed for this list.
fn open(token: &str, seal: u64) -> Option<usize> {
    let start = usize::from_str_radix(token.get(16..)?, 16).ok()?;
    let sealed = format!("{:016x}{start:x}", seal ^ mix(start));
    (sealed == token).then_some(start)
}

fn mix(start: usize) -> u64 {
    KEYS.hash_one(("page", start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(size: i32, token: &str, list: &str) -> Result<(usize, usize), String> {
        Page::parse(size, token, list)
            .map(|page| (page.start, page.size))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn sizes_follow_the_contract() {
        assert_eq!(page(0, "", "l"), Ok((0, 100)));
        assert_eq!(page(7, "", "l"), Ok((0, 7)));
        assert_eq!(page(1_000, "", "l"), Ok((0, 1_000)));
        assert_eq!(page(i32::MAX, "", "l"), Ok((0, 1_000)));
        assert_eq!(page(-1, "", "l"), Err("page_size: negative".into()));
    }

    #[test]
    fn a_token_goes_on_with_its_own_list_only() {
        let first = Page::parse(10, "", "roles at 1").unwrap();
        let token = first.next(25);
        assert_eq!(page(10, &token, "roles at 1"), Ok((10, 10)));
        assert_eq!(first.next(10), "");
        for bad in ["x", "0", &token[1..], &format!("{token}0"), "é".repeat(20).as_str()] {
            assert!(page(10, bad, "roles at 1").is_err(), "{bad}");
        }
        assert!(page(10, &token, "roles at 2").is_err());
    }
}
