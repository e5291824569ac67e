//! Single changes against the same facts as one document: after any sequence of changes, the answers are
//! those of the current facts. Published snapshots do not change.

use std::collections::BTreeSet;
use std::sync::Arc;

use capstan_engine::{
    Change, Condition, Facts, Identity, IdentityState, Model, Path, PathBuf, Question as Asked,
    RoleBinding, Snapshot, Writer, self_check,
};
use capstan_testkit::generate::{self, Question, World};
use proptest::prelude::*;
use proptest::sample::Index;

use capstan_testkit::asking::{Pair, Tally, asked, build, check, explain, places, what, who};

fn empty(world: &World) -> Result<Snapshot, TestCaseError> {
    let world = World { facts: Facts::default(), ..world.clone() };
    Ok(build(&world)?.1)
}

/// Changes that create all facts except the bindings, parents before their children.
fn foundations(facts: &Facts) -> Vec<Change> {
    let mut groups = facts.groups.clone();
    groups.sort_by_key(|group| group.id.as_path().ancestors().count());
    let groups = groups.into_iter().map(Change::CreateGroup);
    let resources = facts.resources.iter().cloned().map(Change::CreateResource);
    let roles = facts.roles.iter().cloned().map(Change::CreateRole);
    let identities = facts.identities.iter().cloned().map(Change::CreateIdentity);
    groups.chain(resources).chain(roles).chain(identities).collect()
}

fn bindings(facts: &Facts) -> Vec<Change> {
    facts.role_bindings.iter().cloned().map(Change::CreateRoleBinding).collect()
}

/// The declared or derived id of a binding, as in its grants.
/// `None` if the scope is too long for an id below it.
fn id_of(writer: &Writer, binding: &RoleBinding) -> Result<Option<PathBuf>, TestCaseError> {
    if let Some(id) = &binding.id {
        return Ok(Some(id.clone()));
    }
    let snapshot = writer.publish(1);
    let same = snapshot.role_bindings(binding.identity.as_path()).into_iter().find(|one| {
        let conditions = |all: &[Condition]| all.iter().cloned().collect::<BTreeSet<_>>();
        one.role == binding.role
            && one.scope == binding.scope
            && conditions(&one.when) == conditions(&binding.when)
    });
    let same = same.ok_or_else(|| TestCaseError::fail(format!("no such binding: {binding:?}")))?;
    let lasts = ["/", &"0".repeat(16)].concat();
    let is_path = Path::parse(&format!("{}{lasts}", binding.scope)).is_ok();
    prop_assert_eq!(same.id.is_some(), is_path, "{:?}", same);
    Ok(same.id)
}

fn apply(writer: &mut Writer, changes: &[Change]) -> Result<(), TestCaseError> {
    let applied = writer.apply(changes);
    prop_assert_eq!(applied, Ok(()), "{:?}", changes);
    Ok(())
}

fn same_answers(
    world: &World,
    questions: &[Question],
    snapshot: &Snapshot,
) -> Result<(), TestCaseError> {
    let tally = Tally::default();
    let pair = Pair::new(world, snapshot, world.now, &tally);
    questions.iter().try_for_each(|question| pair.agrees(question))?;
    let compared = self_check(snapshot, usize::MAX, world.now);
    prop_assert!(compared.is_ok(), "{:?}", compared);
    prop_assert_eq!(snapshot.bindings_len(), world.facts.role_bindings.len());
    prop_assert_eq!(snapshot.identities_len(), world.facts.identities.len());
    Ok(())
}

/// The answers of every kind to one question, as text.
fn all_of(snapshot: &Snapshot, question: &Question, world: &World) -> String {
    let now = world.now;
    format!(
        "{:?} {:?} {:?} {:?} {:?}",
        check(snapshot, question, now),
        what(snapshot, question, now),
        who(snapshot, question, now),
        places(snapshot, question, now),
        explain(snapshot, question, now),
    )
}

proptest! {
    #[test]
    fn changes_give_the_same_answers_as_one_document(
        (world, questions) in generate::asked(),
        churn in prop::collection::vec(any::<(Index, bool)>(), 0..=12),
        step in 1usize..=5,
    ) {
        let mut writer = Writer::new(&empty(&world)?);
        apply(&mut writer, &foundations(&world.facts))?;
        for changes in bindings(&world.facts).chunks(step) {
            apply(&mut writer, changes)?;
        }
        let whole = writer.publish(2);
        same_answers(&world, &questions, &whole)?;
        let before: Vec<_> = questions.iter().map(|one| all_of(&whole, one, &world)).collect();

        // Delete some bindings, and create some of them again.
        let mut smaller = world.clone();
        for (at, back) in churn {
            let bindings = &mut smaller.facts.role_bindings;
            if bindings.is_empty() {
                break;
            }
            let binding = bindings.remove(at.index(bindings.len()));
            let Some(id) = id_of(&writer, &binding)? else {
                bindings.push(binding);
                continue;
            };
            apply(&mut writer, &[Change::DeleteRoleBinding(id)])?;
            if back {
                apply(&mut writer, &[Change::CreateRoleBinding(binding.clone())])?;
                bindings.push(binding);
            }
        }
        same_answers(&smaller, &questions, &writer.publish(3))?;

        // Delete the identities without a binding.
        let is_bound = |id| smaller.facts.role_bindings.iter().any(|one| one.identity == id);
        let mut fewer = smaller.clone();
        fewer.facts.identities.retain(|one| is_bound(one.id.clone()));
        let gone = smaller.facts.identities.iter().filter(|one| !is_bound(one.id.clone()));
        let gone: Vec<_> = gone.map(|one| Change::DeleteIdentity(one.id.clone())).collect();
        apply(&mut writer, &gone)?;
        same_answers(&fewer, &questions, &writer.publish(4))?;

        let after: Vec<_> = questions.iter().map(|one| all_of(&whole, one, &world)).collect();
        prop_assert_eq!(before, after, "a published snapshot has changed");
    }

    /// A refused change has no effect, and neither have earlier changes of the same batch.
    #[test]
    fn a_refused_change_has_no_effect((world, questions) in generate::asked()) {
        let (model, whole) = build(&world)?;
        let mut writer = Writer::new(&whole);
        let facts = model.facts();
        let mut wrong: Vec<Change> = bindings(facts);
        wrong.extend(facts.groups.iter().map(|one| Change::CreateGroup(one.clone())));
        wrong.extend(facts.role_bindings.iter().flat_map(|one| [
            Change::DeleteGroup(one.scope.clone()),
            Change::DeleteResource(one.scope.clone()),
            Change::DeleteIdentity(one.identity.clone()),
        ]));
        let roles = facts.role_bindings.iter().filter_map(|one| one.role.parse().ok());
        wrong.extend(roles.map(Change::DeleteRole));
        let parents = facts.groups.iter().filter_map(|one| one.id.as_path().parent());
        wrong.extend(parents.map(|parent| Change::DeleteGroup(parent.into())));
        let first = facts.role_bindings.first();
        let first = first.map(|one| id_of(&writer, one)).transpose()?.flatten();
        let first = first.map(Change::DeleteRoleBinding);
        for change in wrong {
            prop_assert!(writer.apply([&change]).is_err(), "{:?}", change);
            // After its deletion, the same binding can be created again.
            let again = matches!(&change, Change::CreateRoleBinding(_));
            if let Some(first) = first.as_ref().filter(|_| !again) {
                let refused = writer.apply([first, &change]);
                if refused.is_ok() {
                    // The deleted binding was the last reference, so the change is valid.
                    writer = Writer::new(&whole);
                }
            }
        }
        same_answers(&world, &questions, &writer.publish(2))?;
    }

    /// An update by id is equal to a delete and a create with the same id. Ids find their bindings after any
    /// sequence of changes.
    #[test]
    fn ids_find_their_bindings(
        (world, questions) in generate::asked(),
        steps in prop::collection::vec(any::<(Index, Index, bool)>(), 1..=12),
    ) {
        let mut world = world;
        let mut writer = Writer::new(&build(&world)?.1);
        for (at, other, has_number) in steps {
            let bindings = &mut world.facts.role_bindings;
            if bindings.is_empty() {
                break;
            }
            let (at, other) = (at.index(bindings.len()), other.index(bindings.len()));
            let Some(id) = id_of(&writer, &bindings[at])? else { continue };
            let found = writer.publish(1).role_binding(id.as_path());
            prop_assert_eq!(found.map(|one| one.identity), Some(bindings[at].identity.clone()));
            // The identity, role and expiry of another binding.
            let (role, identity) = (bindings[other].role.clone(), bindings[other].identity.clone());
            let expires_at = bindings[other].expires_at;
            let updated = RoleBinding { id: Some(id.clone()), role, identity, expires_at, ..bindings[at].clone() };
            if writer.apply([Change::UpdateRoleBinding(updated.clone())]).is_ok() {
                bindings[at] = updated;
            }
            let last = if has_number { "00000000000000af" } else { "a-name" };
            let named = format!("{}/{last}", bindings[at].scope);
            let Ok(named) = named.parse() else { continue };
            let named = RoleBinding { id: Some(named), ..bindings[at].clone() };
            let renamed = [Change::DeleteRoleBinding(id), Change::CreateRoleBinding(named.clone())];
            if writer.apply(renamed).is_ok() {
                bindings[at] = named;
            }
        }
        let snapshot = writer.publish(2);
        same_answers(&world, &questions, &snapshot)?;
        let document = build(&world)?.1;
        for identity in world.identities() {
            // Those at the deepest scopes have no id, and therefore no order.
            let listed = |snapshot: &Snapshot| {
                let all = snapshot.role_bindings(identity.as_path());
                let mut all: Vec<_> = all.iter().map(|one| format!("{one:?}")).collect();
                all.sort();
                all
            };
            prop_assert_eq!(listed(&snapshot), listed(&document));
        }
        let everything = world.facts.role_bindings.iter();
        for id in everything.filter_map(|one| id_of(&writer, one).ok().flatten()).collect::<Vec<_>>() {
            apply(&mut writer, &[Change::DeleteRoleBinding(id.clone())])?;
            prop_assert!(writer.apply([Change::DeleteRoleBinding(id)]).is_err());
        }
    }

    /// Identities are disabled and enabled, registered after they were bound, and deleted, and bindings come and go: the
    /// answers are those of one document after each step.
    #[test]
    fn identities_come_and_go(
        (world, questions) in generate::asked(),
        steps in prop::collection::vec(any::<(u8, Index, Index)>(), 1..=12),
    ) {
        let mut world = world;
        let mut writer = Writer::new(&build(&world)?.1);
        for (kind, at, other) in steps {
            let facts = &mut world.facts;
            let at = at.index(facts.identities.len().max(1));
            let other = other.index(facts.role_bindings.len().max(1));
            match kind % 4 {
                0 => {
                    let Some(identity) = facts.identities.get_mut(at) else { continue };
                    identity.disabled ^= true;
                    apply(&mut writer, &[Change::UpdateIdentity(identity.clone())])?;
                }
                1 => {
                    let Some(identity) = facts.identities.get(at) else { continue };
                    let is_bound = facts.role_bindings.iter().any(|one| one.identity == identity.id);
                    let deleted = writer.apply([Change::DeleteIdentity(identity.id.clone())]);
                    prop_assert_eq!(deleted.is_err(), is_bound);
                    if !is_bound {
                        facts.identities.remove(at);
                    }
                }
                2 => {
                    let Some(binding) = facts.role_bindings.get(other) else { continue };
                    let new = Identity { disabled: kind > 127, ..Identity::named(binding.identity.clone()) };
                    let registered = facts.identities.iter().any(|one| one.id == new.id);
                    let (update, delete) =
                        (Change::UpdateIdentity(new.clone()), Change::DeleteIdentity(new.id.clone()));
                    prop_assert_eq!(writer.apply([update]).is_ok(), registered);
                    prop_assert!(writer.apply([delete]).is_err());
                    let created = writer.apply([Change::CreateIdentity(new.clone())]);
                    prop_assert_eq!(created.is_err(), registered);
                    let known = facts.identities.iter_mut().find(|one| one.id == new.id);
                    match known {
                        Some(known) => *known = new,
                        None => facts.identities.push(new),
                    }
                }
                _ => {
                    if facts.role_bindings.is_empty() {
                        continue;
                    }
                    let Some(id) = id_of(&writer, &facts.role_bindings[other])? else { continue };
                    apply(&mut writer, &[Change::DeleteRoleBinding(id)])?;
                    let binding = facts.role_bindings.remove(other);
                    if kind > 127 {
                        // To the end: of an identity that is registered by now, or is not.
                        apply(&mut writer, &[Change::CreateRoleBinding(binding.clone())])?;
                        facts.role_bindings.push(binding);
                    }
                }
            }
            // Whatever became of its identity, a binding is there once.
            let again = world.facts.role_bindings.iter().cloned();
            for again in again.map(|one| RoleBinding { id: None, ..one }) {
                prop_assert!(writer.apply([Change::CreateRoleBinding(again)]).is_err());
            }
            let snapshot = writer.publish(2);
            for identity in world.identities() {
                let mut registered = world.facts.identities.iter();
                let registered = registered.find(|one| one.id == *identity);
                let state = IdentityState {
                    registered: registered.is_some(),
                    disabled: registered.is_some_and(|one| one.disabled),
                };
                prop_assert_eq!(snapshot.identity_state(identity.as_path()), Some(state));
            }
            same_answers(&world, &questions, &snapshot)?;
        }
    }

    /// A batch gives the answers of single checks.
    #[test]
    fn a_batch_answers_as_single_checks((world, questions) in generate::asked(), times in 1usize..=4) {
        let (_, snapshot) = build(&world)?;
        let all: Vec<_> = questions.iter().cycle().take(questions.len() * times).collect();
        let batch: Vec<Asked<'_>> = all.iter().map(|one| asked(one)).collect();
        let mut answers = Vec::new();
        snapshot.check_batch(&batch, world.now, |at, answer| answers.push((at, answer)));
        let single = all.iter().map(|one| check(&snapshot, one, world.now)).enumerate();
        prop_assert_eq!(answers, single.collect::<Vec<_>>());
    }
}

/// Thousands of single changes, more than the initial size of the tables, give the answers of an index
/// that was built from all facts at once.
#[test]
fn grown_tables_give_the_same_answers() {
    let catalog = capstan_policy::Catalogs::default().get("chainguard-2025-08-14").unwrap();
    let is_person = |at: usize| at.is_multiple_of(13);
    let id = |at: usize| match is_person(at) {
        true => format!("{at:040x}").parse().unwrap(),
        false => format!("acme/team-{}/user-{at}", at % 97).parse().unwrap(),
    };
    let group = |at: usize| format!("acme/team-{at}").parse().unwrap();
    let mut facts = Facts::default();
    facts.groups.push(capstan_engine::Group { id: "acme".parse().unwrap(), name: String::new() });
    facts
        .groups
        .extend((0..97).map(|at| capstan_engine::Group { id: group(at), name: String::new() }));
    for at in 0..6_000 {
        if !is_person(at) {
            let disabled = at.is_multiple_of(11);
            facts.identities.push(Identity { disabled, ..Identity::named(id(at)) });
        }
        facts.role_bindings.push(capstan_engine::RoleBinding {
            id: None,
            identity: id(at),
            role: ["viewer", "owner", "apk.pull"][at % 3].into(),
            scope: group(at % 89),
            expires_at: None,
            when: vec![],
        });
    }
    let nothing = Model::new(Arc::clone(&catalog), Facts::default()).unwrap();
    let mut writer = Writer::new(&Snapshot::build(&nothing, 1).unwrap());
    writer.apply(foundations(&Facts { identities: vec![], ..facts.clone() })).unwrap();
    let mut identities = facts.identities.iter().cloned().peekable();
    for (at, binding) in facts.role_bindings.iter().enumerate() {
        let declared = identities.next_if(|one| one.id == binding.identity);
        let change = Change::CreateRoleBinding(binding.clone());
        writer.apply(declared.map(Change::CreateIdentity).into_iter().chain([change])).unwrap();
        if at % 1_000 == 0 {
            drop(writer.publish(at as u64 + 2));
        }
    }
    let grown = writer.publish(10_000);
    let built = Snapshot::build(&Model::new(catalog, facts).unwrap(), 1).unwrap();
    let none = capstan_engine::Attributes::NONE;
    let now = capstan_engine::Timestamp::UNIX_EPOCH;
    assert_eq!(grown.identities_len(), built.identities_len());
    for at in 0..6_000 {
        let (identity, state) =
            (id(at), |one: &Snapshot, id: &PathBuf| one.identity_state(id.as_path()));
        assert_eq!(state(&grown, &identity), state(&built, &identity));
        let bindings = |one: &Snapshot| format!("{:?}", one.role_bindings(identity.as_path()));
        assert_eq!(bindings(&grown), bindings(&built));
        for (scope, capability) in [(at % 89, "repo.list"), (at % 97, "apk.list")] {
            let (identity, resource) = (id(at), group(scope));
            let asked = Asked {
                identity: identity.as_path(),
                capability,
                resource: resource.as_path(),
                attributes: none,
            };
            assert_eq!(grown.check(&asked, now), built.check(&asked, now));
        }
    }
    for at in 0..97 {
        let resource = group(at);
        let who = |snapshot: &Snapshot| {
            let found = snapshot.list_identities("repo.list", resource.as_path(), none, now);
            found.unwrap().into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(who(&grown), who(&built));
    }
    let (a, b) = (grown.index_bytes(), built.index_bytes());
    assert!(a < b * 2, "{a} bytes grown, {b} bytes built");
}

/// A scope with thousands of bindings, which come and go in any order, gives the answers of an index that was built
/// from those that are left. The list of who is bound there is in the scope's record, then in parts, and in the record again.
#[test]
fn a_scope_with_many_bindings_gives_the_same_answers() {
    let catalog = capstan_policy::Catalogs::default().get("chainguard-2025-08-14").unwrap();
    // An odd factor visits all, in an order that is neither that of creation nor that of ids.
    let id = |at: u32| -> PathBuf {
        let mixed = (u64::from(at) * 0x9E37_79B9 + 1) << 17;
        format!("{:040x}", u128::from(mixed)).parse().unwrap()
    };
    let binding = |at: u32, numbered: bool| capstan_engine::RoleBinding {
        id: (numbered && at.is_multiple_of(7)).then(|| format!("acme/{at:016x}").parse().unwrap()),
        identity: id(at / 2),
        role: ["viewer", "apk.pull"][at as usize % 2].into(),
        scope: "acme".parse().unwrap(),
        expires_at: None,
        when: vec![],
    };
    for numbered in [false, true] {
        let mut facts = Facts::default();
        facts
            .groups
            .push(capstan_engine::Group { id: "acme".parse().unwrap(), name: String::new() });
        let model = Model::new(Arc::clone(&catalog), facts.clone()).unwrap();
        let mut writer = Writer::new(&Snapshot::build(&model, 1).unwrap());
        let first = writer.publish(2);
        let compare = |writer: &Writer, bound: &[u32]| {
            let grown = writer.publish(3);
            let mut facts = facts.clone();
            facts.role_bindings = bound.iter().map(|at| binding(*at, numbered)).collect();
            let built =
                Snapshot::build(&Model::new(Arc::clone(&catalog), facts).unwrap(), 3).unwrap();
            let now = capstan_engine::Timestamp::UNIX_EPOCH;
            for snapshot in [&*grown, &built] {
                self_check(snapshot, usize::MAX, now).unwrap();
            }
            let all = |snapshot: &Snapshot| {
                let acme = "acme".parse::<PathBuf>().unwrap();
                let none = capstan_engine::Attributes::NONE;
                let who = snapshot.list_identities("repo.list", acme.as_path(), none, now).unwrap();
                let who: Vec<_> = who.into_iter().map(str::to_owned).collect();
                let mut here: Vec<_> = snapshot.bindings_at(acme.as_path()).collect();
                assert!(here.is_sorted_by_key(|one| one.identity.clone()));
                here.sort_by(|a, b| a.id.cmp(&b.id));
                for one in here.iter().step_by(401) {
                    let by_id = snapshot.role_binding(one.id.as_ref().unwrap().as_path());
                    assert_eq!(format!("{by_id:?}"), format!("{:?}", Some(one)));
                }
                (who, here.len(), format!("{here:?}"))
            };
            assert_eq!(all(&grown), all(&built));
            assert_eq!(all(&grown).1, bound.len());
            (grown.index_bytes(), built.index_bytes())
        };
        let mut bound = vec![];
        for at in 0..4_000 {
            writer.apply([Change::CreateRoleBinding(binding(at, numbered))]).unwrap();
            bound.push(at);
            if matches!(at, 511..=514 | 2_500 | 3_999) {
                let (grown, built) = compare(&writer, &bound);
                assert!(grown < built * 2, "{grown} bytes grown, {built} bytes built");
            }
        }
        while bound.len() > 60 {
            let at = bound.swap_remove(bound.len() * 7 / 11);
            let found = writer.publish(4).same_binding(&binding(at, numbered)).unwrap();
            writer.apply([Change::DeleteRoleBinding(found.id.unwrap())]).unwrap();
            if matches!(bound.len(), 2_000 | 255..=258 | 60) {
                compare(&writer, &bound);
            }
        }
        assert_eq!(first.bindings_len(), 0, "a snapshot does not change");
    }
}
