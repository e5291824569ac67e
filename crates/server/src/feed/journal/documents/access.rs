//! Who gains or loses what by a change of the whole policy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use capstan_engine::{AccessChange, AccessDifference, Path, PathBuf, Timestamp};

use crate::feed::journal::whole::{Concerned, Replaced};
use crate::feed::management::ChangedAccess;
use crate::limits::{ACCESS_CHANGES_BYTES_MAX, ACCESS_TIME_MAX};

/// What identities gain and lose, by identity and scope, and whether there is more: it ends after
/// [`ACCESS_CHANGES_BYTES_MAX`] and [`ACCESS_TIME_MAX`]. Restrictions are not said: what was without end and then ends
/// is lost and gained.
pub(super) fn compare(replaced: &Replaced, now: Timestamp) -> (Vec<ChangedAccess>, bool) {
    let started = Instant::now();
    let (before, after) = &replaced.states;
    let resources = replaced.resources.iter().map(PathBuf::as_path);
    let difference = AccessDifference::new((before, after), now, resources);
    let (mut all, mut bytes) = (vec![], 0_usize);
    let mut compare = |identity: Path<'_>| {
        for change in by_scope(identity, &difference) {
            let names = change.gained.iter().chain(&change.lost).map(String::len);
            bytes +=
                change.identity.as_str().len() + change.scope.as_str().len() + names.sum::<usize>();
            all.push(change);
        }
        bytes <= ACCESS_CHANGES_BYTES_MAX && started.elapsed() <= ACCESS_TIME_MAX
    };
    let is_whole = match &replaced.concerned {
        Concerned::These(identities) => identities.iter().all(|id| compare(id.as_path())),
        Concerned::All => {
            let known = before.known_identities().chain(after.known_identities());
            let known: BTreeSet<&str> = known.collect();
            known.into_iter().filter_map(|id| Path::parse(id).ok()).all(&mut compare)
        }
    };
    (all, !is_whole)
}

fn by_scope(identity: Path<'_>, difference: &AccessDifference<'_>) -> Vec<ChangedAccess> {
    let changes = difference.of(identity);
    let mut scopes: BTreeMap<String, [BTreeSet<String>; 2]> = BTreeMap::new();
    let mut add = |changes: Vec<AccessChange>, side: usize| {
        for AccessChange { scope, capabilities, .. } in changes {
            if let Some(names) = scopes.entry(scope).or_default().get_mut(side) {
                names.extend(capabilities);
            }
        }
    };
    add(changes.gained, 0);
    add(changes.lost, 1);
    let changed = scopes.into_iter().filter_map(|(scope, [gained, lost])| {
        let [gained, lost] = [gained, lost].map(|names| names.into_iter().collect());
        Some(ChangedAccess { identity: identity.into(), scope: scope.parse().ok()?, gained, lost })
    });
    changed.collect()
}
