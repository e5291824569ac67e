//! Pages of lists: joined pages of any size are equal to the list of the naive model.

use capstan_engine::{Cursor, Page, Scope, Snapshot, UnknownCapabilityError};
use capstan_testkit::generate::{self, Question, World};
use capstan_testkit::naive::Naive;
use proptest::prelude::*;

use capstan_testkit::asking::build;

/// All pages of a list, joined. `key` gives the sort key of an entry.
fn joined<'s, T: Copy>(
    limit: usize,
    key: impl Fn(T) -> &'s str,
    page: impl Fn(Cursor<'_>) -> Result<Page<T>, UnknownCapabilityError>,
) -> Result<Option<Vec<T>>, TestCaseError> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let Ok(Page { entries, has_more, .. }) = page(Cursor { after, limit }) else {
            return Ok(None);
        };
        prop_assert!(entries.len() <= limit && (!has_more || entries.len() == limit));
        all.extend_from_slice(&entries);
        if !has_more {
            return Ok(Some(all));
        }
        after = entries.last().map(|entry| key(*entry));
    }
}

fn identities<'s>(
    snapshot: &'s Snapshot,
    world: &World,
    question: &Question,
    cursor: Cursor<'_>,
) -> Result<Page<&'s str>, UnknownCapabilityError> {
    let Question { capability, resource, attributes, .. } = question;
    let resource = resource.as_path();
    snapshot.list_identities_page(capability, resource, attributes, world.now, cursor)
}

fn scopes<'s>(
    snapshot: &'s Snapshot,
    world: &World,
    question: &Question,
    cursor: Cursor<'_>,
) -> Result<Page<Scope<'s>>, UnknownCapabilityError> {
    let Question { identity, capability, attributes, .. } = question;
    snapshot.list_scopes_page(identity.as_path(), capability, attributes, world.now, cursor)
}

proptest! {
    #[test]
    fn joined_pages_equal_the_list_of_the_naive_model((world, questions) in generate::asked(), limit in 1usize..=9) {
        let (_, snapshot) = build(&world)?;
        for question in &questions {
            let Question { identity, capability, resource, attributes } = question;
            let naive = Naive::new(&world.catalog, &world.facts, attributes, world.now);
            let page = |cursor: Cursor<'_>| identities(&snapshot, &world, question, cursor);
            let found = joined(limit, |id| id, page)?;
            let expected = naive.list_identities(capability, resource.as_str());
            prop_assert_eq!(found, expected, "{:?}", question);
            let page = |cursor: Cursor<'_>| scopes(&snapshot, &world, question, cursor);
            let found = joined(limit, |found: Scope<'_>| found.scope, page)?;
            let found: Option<Vec<_>> = found
                .map(|all| all.into_iter().map(|one| (one.scope, one.conditional)).collect());
            let expected = naive.list_scopes(identity.as_str(), capability);
            prop_assert_eq!(found, expected, "{:?}", question);
        }
    }

    /// A page can start after a text that is not in the list, such as a deleted entry.
    #[test]
    fn a_page_can_start_after_any_text((world, questions) in generate::asked(), limit in 0usize..=4) {
        let (_, snapshot) = build(&world)?;
        for question in &questions {
            let Ok(all) = identities(&snapshot, &world, question, Cursor::ALL) else { continue };
            prop_assert!(!all.has_more);
            let ids = world.facts.identities.iter().map(|identity| identity.id.as_str());
            for after in ids.chain(["", "~", question.resource.as_str()]) {
                let cursor = Cursor { after: Some(after), limit };
                let page = identities(&snapshot, &world, question, cursor).unwrap();
                let behind: Vec<_> =
                    all.entries.iter().copied().filter(|id| *id > after).collect();
                prop_assert_eq!(page.has_more, behind.len() > limit);
                prop_assert_eq!(&page.entries[..], &behind[..behind.len().min(limit)]);
            }
        }
    }

    #[test]
    fn a_page_of_roles_can_start_after_any_role((world, _) in generate::asked()) {
        let (_, snapshot) = build(&world)?;
        let ids = |roles: &[std::sync::Arc<capstan_engine::Role>]| -> Vec<String> {
            roles.iter().map(|role| role.id.to_string()).collect()
        };
        let all = ids(snapshot.roles());
        for (at, id) in all.iter().enumerate() {
            prop_assert_eq!(&ids(snapshot.roles_after(id))[..], &all[at + 1..]);
            // A deleted custom role.
            if id.contains('/') {
                let gone = format!("{id}.gone");
                let expected: Vec<_> = all
                    .iter()
                    .filter(|one| one.contains('/') && **one > gone)
                    .cloned()
                    .collect();
                prop_assert_eq!(ids(snapshot.roles_after(&gone)), expected);
            }
        }
    }
}
