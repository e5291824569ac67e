//! Identities that are bound before they are registered, and disabled ones, change by change.

#![expect(clippy::unwrap_used, reason = "a test that panics fails")]

use std::sync::Arc;

use capstan_engine::{
    Attributes, Change, ChangeError, Facts, Group, Identity, IdentityState, Model, Path, PathBuf,
    Question, Reason, RoleBinding, Snapshot, Timestamp, Writer, is_derived_identity,
};
use capstan_policy::Catalogs;

const PERSON: &str = "0123456789abcdef0123456789abcdef01234567";
const NOW: Timestamp = Timestamp::new(1_000, 0);

fn path(text: &str) -> PathBuf {
    text.parse().unwrap()
}

fn group(id: &str) -> Group {
    Group { id: path(id), name: String::new() }
}

fn binding(identity: &str, role: &str, expires_at: Option<i64>) -> RoleBinding {
    RoleBinding {
        id: None,
        identity: path(identity),
        role: role.into(),
        scope: path("acme"),
        expires_at: expires_at.map(|seconds| Timestamp::new(seconds, 0)),
        when: vec![],
    }
}

/// A writer of one group.
fn writer() -> Writer {
    let catalog = Catalogs::default().get("chainguard-2025-08-14").unwrap();
    let facts = Facts { groups: vec![group("acme")], ..Facts::default() };
    let model = Model::new(catalog, facts).unwrap();
    Writer::new(&Snapshot::build(&model, 1).unwrap())
}

fn reason(snapshot: &Snapshot, identity: &str, capability: &str) -> Reason {
    let question = Question {
        identity: Path::parse(identity).unwrap(),
        capability,
        resource: Path::parse("acme/below").unwrap(),
        attributes: Attributes::NONE,
    };
    snapshot.check(&question, NOW).unwrap().reason
}

fn refused(writer: &mut Writer, change: Change) -> ChangeError {
    writer.apply([change]).unwrap_err().error
}

fn state(writer: &Writer, identity: &str) -> Option<(bool, bool, bool)> {
    let snapshot: Arc<Snapshot> = writer.publish(2);
    let identity = Path::parse(identity).unwrap();
    let is_bound = snapshot.bound_scopes(identity).next().is_some();
    let state = snapshot.identity_state(identity);
    state.map(|IdentityState { registered, disabled }| (registered, disabled, is_bound))
}

#[test]
fn a_person_is_known_while_bound_or_registered() {
    let mut writer = writer();
    let bind = || Change::CreateRoleBinding(binding(PERSON, "viewer", None));
    let unbind = Change::DeleteRoleBinding(binding(PERSON, "viewer", None).derived_id().unwrap());
    let register = Change::CreateIdentity(Identity::named(path(PERSON)));
    let exists = ChangeError::AlreadyExists(PERSON.into());
    let unknown = ChangeError::NotFound { kind: "identity", id: PERSON.into() };

    assert_eq!(reason(&writer.publish(2), PERSON, "repo.list"), Reason::UnknownIdentity);
    writer.apply([bind()]).unwrap();
    assert_eq!(state(&writer, PERSON), Some((false, false, true)));
    assert_eq!(reason(&writer.publish(2), PERSON, "repo.list"), Reason::Granted);
    assert_eq!(writer.publish(2).identities_len(), 0, "none is registered");
    // A path names one thing.
    assert_eq!(refused(&mut writer, Change::CreateGroup(group(PERSON))), exists);
    // What is not registered is neither changed nor deleted.
    let update = Change::UpdateIdentity(Identity::named(path(PERSON)));
    assert_eq!(refused(&mut writer, update), unknown);
    assert_eq!(refused(&mut writer, Change::DeleteIdentity(path(PERSON))), unknown);

    writer.apply([&register]).unwrap();
    assert_eq!(state(&writer, PERSON), Some((true, false, true)));
    assert_eq!(reason(&writer.publish(2), PERSON, "repo.list"), Reason::Granted);
    assert_eq!(refused(&mut writer, register), exists);
    let bound = refused(&mut writer, Change::DeleteIdentity(path(PERSON)));
    assert_eq!(bound, ChangeError::StillBound(PERSON.into()));
    writer.apply([&unbind, &Change::DeleteIdentity(path(PERSON))]).unwrap();
    assert_eq!(state(&writer, PERSON), None);

    // The last binding goes, and with it the person.
    writer.apply([bind()]).unwrap();
    writer.apply([unbind]).unwrap();
    assert_eq!(state(&writer, PERSON), None);
    assert_eq!(reason(&writer.publish(2), PERSON, "repo.list"), Reason::UnknownIdentity);
    writer.apply([Change::CreateGroup(group(PERSON))]).unwrap();
    assert_eq!(refused(&mut writer, bind()), unknown, "a group is no identity");
}

#[test]
fn only_ids_of_persons_need_no_registration() {
    let mut writer = writer();
    let upper = PERSON.to_uppercase();
    let below = format!("acme/{PERSON}");
    for other in ["alice", &PERSON[1..], &format!("{PERSON}0"), &upper, &below] {
        assert!(!is_derived_identity(Path::parse(other).unwrap()), "{other}");
        let found = refused(&mut writer, Change::CreateRoleBinding(binding(other, "viewer", None)));
        assert_eq!(found, ChangeError::NotFound { kind: "identity", id: other.into() });
    }
    assert!(is_derived_identity(Path::parse(PERSON).unwrap()));
    // A binding that is refused for another reason leaves nobody behind.
    let other = Change::CreateRoleBinding(binding(PERSON, "no-such-role", None));
    assert!(matches!(refused(&mut writer, other), ChangeError::NotFound { kind: "role", .. }));
    assert_eq!(state(&writer, PERSON), None);
}

/// An update may give a binding to somebody else, and the one before may be gone with it.
#[test]
fn a_binding_passes_from_person_to_person() {
    let mut writer = writer();
    let other = PERSON.replace('0', "f");
    writer.apply([Change::CreateRoleBinding(binding(PERSON, "viewer", None))]).unwrap();
    let id = binding(PERSON, "viewer", None).derived_id();
    let update = RoleBinding { id: id.clone(), ..binding(&other, "editor", None) };
    writer.apply([Change::UpdateRoleBinding(update)]).unwrap();
    assert_eq!(state(&writer, PERSON), None);
    assert_eq!(state(&writer, &other), Some((false, false, true)));
    let snapshot = writer.publish(2);
    let found = snapshot.role_binding(id.unwrap().as_path()).unwrap();
    assert_eq!((found.identity, &*found.role), (path(&other), "editor"));
}

#[test]
fn bindings_of_an_identity_are_found_by_their_ids() {
    let mut writer = writer();
    let named = RoleBinding { id: Some(path("acme/named")), ..binding(PERSON, "editor", None) };
    let derived = binding(PERSON, "viewer", None);
    writer.apply([named, derived.clone()].map(Change::CreateRoleBinding)).unwrap();
    let snapshot = writer.publish(2);
    let has = |identity: &str, id: &str| {
        snapshot.has_role_binding(path(identity).as_path(), |one| one == id)
    };
    let id = derived.derived_id().unwrap().to_string();
    assert!(has(PERSON, "acme/named") && has(PERSON, &id));
    assert!(!has(PERSON, "acme/other") && !has("alice", &id) && !has("nobody", &id));
}

/// Whatever the reason would be, it is `NO_BINDING`, and the same as before once the identity is enabled.
#[test]
fn nothing_of_a_disabled_identity_counts() {
    let mut writer = writer();
    let alice = |disabled| Identity { disabled, ..Identity::named(path("alice")) };
    writer.apply([Change::CreateIdentity(alice(true))]).unwrap();
    assert_eq!(state(&writer, "alice"), Some((true, true, false)));
    let bindings = [binding("alice", "viewer", None), binding("alice", "owner", Some(999))];
    writer.apply(bindings.map(Change::CreateRoleBinding)).unwrap();
    assert_eq!(state(&writer, "alice"), Some((true, true, true)));
    let asked = ["repo.list", "repo.delete", "groups.delete"];
    let reasons = |writer: &Writer| asked.map(|name| reason(&writer.publish(2), "alice", name));
    assert_eq!(reasons(&writer), [Reason::NoBinding; 3]);
    let snapshot = writer.publish(2);
    assert_eq!(snapshot.role_bindings(Path::parse("alice").unwrap()).len(), 2, "they stay");

    writer.apply([Change::UpdateIdentity(alice(false))]).unwrap();
    assert_eq!(reasons(&writer), [Reason::Granted, Reason::Expired, Reason::Expired]);
    writer.apply([Change::UpdateIdentity(alice(true))]).unwrap();
    assert_eq!(reasons(&writer), [Reason::NoBinding; 3]);
    let bound = refused(&mut writer, Change::DeleteIdentity(path("alice")));
    assert_eq!(bound, ChangeError::StillBound("alice".into()));
}
