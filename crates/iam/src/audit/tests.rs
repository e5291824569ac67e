//! A log reads back as it was written, and every tampering is found and named.

use capstan_engine::Path;

use super::*;
use crate::{Delete, Group, Kind, Meta, Object, RoleBinding};

fn record(at: u64) -> AuditRecord {
    let id: PathBuf = format!("acme/{at}").parse().unwrap();
    let now = Timestamp::new(1_790_000_000, 7);
    let group = |name: &str| {
        let (name, description) = (name.into(), String::new());
        Object::Group(Group { id: id.clone(), name, description, meta: Meta::new(at, now) })
    };
    let origin = Origin {
        authentication: "caller-header".into(),
        source: "127.0.0.1".into(),
        request: [3; 32],
    };
    let operation = Operation::DeleteGroup(Delete { id: id.clone(), etag: None });
    let objects = [ObjectChange {
        kind: Kind::Group,
        id: id.clone(),
        before: Some(group("a")),
        after: at.is_multiple_of(2).then(|| group("b")),
    }];
    let actor = Actor::identity("alice".parse().unwrap());
    AuditRecord::of_change(&actor, &operation, &origin, (at, now), &objects)
}

/// Keys and values.
type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn log(count: u64) -> (AuditHead, Entries) {
    let mut head = AuditHead::empty();
    let entries = (1..=count).map(|at| head.append(&record(at))).collect();
    (head, entries)
}

fn verify(head: AuditHead, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<(), BrokenChain> {
    verify_by(Verifier::new(&head), head, entries)
}

fn verify_by(
    mut verifier: Verifier,
    head: AuditHead,
    entries: &[(Vec<u8>, Vec<u8>)],
) -> Result<(), BrokenChain> {
    for (key, value) in entries {
        verifier.next(number(key).unwrap(), value)?;
    }
    verifier.finish(&head)
}

#[test]
fn a_log_reads_back_as_it_was_written() {
    let (head, entries) = log(5);
    assert_eq!(AuditHead::decode(&head.encode()), Some(head));
    for (at, (key, value)) in (1..).zip(&entries) {
        assert_eq!(number(key), Some(at));
        assert_eq!(AuditRecord::decode(at, value).unwrap().0, record(at));
    }
    assert_eq!(verify(head, &entries), Ok(()));
    assert_eq!(verify(AuditHead::empty(), &[]), Ok(()));
    let (found, digest) = AuditRecord::decode(5, &entries[4].1).unwrap();
    assert_eq!((found.object, digest), ("acme/5".into(), head.digest));
    assert!(AuditHead::decode(b"").is_none() && AuditRecord::decode(1, b"short").is_err());
}

#[test]
fn every_tampering_is_found_and_named() {
    let (head, entries) = log(6);
    let tampered = |change: &dyn Fn(&mut Entries)| {
        let mut entries = entries.clone();
        change(&mut entries);
        verify(head, &entries).unwrap_err()
    };
    // Any byte of any record.
    for ((number, at), (_, value)) in (1..).zip(0usize..).zip(&entries) {
        for byte in 0..value.len() {
            let found = tampered(&|entries| entries[at].1[byte] ^= 1);
            assert_eq!(found, BrokenChain::Changed(number), "byte {byte}");
        }
    }
    assert_eq!(tampered(&|all| drop(all.remove(2))), BrokenChain::Missing { from: 3, to: 3 });
    assert_eq!(tampered(&|all| all.truncate(4)), BrokenChain::Missing { from: 5, to: 6 });
    assert_eq!(tampered(&|all| all.clear()), BrokenChain::Missing { from: 1, to: 6 });
    assert_eq!(tampered(&|all| all.insert(3, all[1].clone())), BrokenChain::Misplaced(2));
    assert_eq!(tampered(&|all| all.swap(1, 2)), BrokenChain::Missing { from: 2, to: 2 });
    // The values of two records are exchanged, under the right keys.
    let found = tampered(&|all| {
        let other = all[3].1.clone();
        all[3].1 = std::mem::replace(&mut all[2].1, other);
    });
    assert_eq!(found, BrokenChain::Changed(3));
    // A record is forged with a digest that fits it, and so is the one after it: the head tells.
    let found = tampered(&|all| {
        let mut forger = AuditHead::empty();
        for (at, entry) in (1..).zip(all) {
            *entry = forger.append(&AuditRecord { actor: "bob".into(), ..record(at) });
        }
    });
    assert_eq!(found, BrokenChain::OtherEnd { last: 6, head: 6 });
    let more = tampered(&|all| {
        let mut forger = head;
        all.push(forger.append(&record(7)));
    });
    assert_eq!(more, BrokenChain::OtherEnd { last: 7, head: 6 });
}

/// Whose head is read last finds the same. Of the first record and the second one it may name either.
#[test]
fn records_before_their_head_are_verified() {
    let verify = |head, entries: &Entries| verify_by(Verifier::before_head(), head, entries);
    let (head, entries) = log(4);
    assert_eq!(verify(head, &entries), Ok(()));
    assert_eq!(verify(AuditHead::empty(), &vec![]), Ok(()));
    assert_eq!(verify(head, &vec![]), Err(BrokenChain::Missing { from: 1, to: 4 }));
    for at in 0..entries.len() {
        for byte in 0..entries[at].1.len() {
            let mut changed = entries.clone();
            changed[at].1[byte] ^= 1;
            let found = verify(head, &changed).unwrap_err();
            let named = at as u64 + 1;
            let is_named =
                found == BrokenChain::Changed(named) || at == 0 && found == BrokenChain::Changed(2);
            assert!(is_named, "byte {byte} of record {named}: {found:?}");
        }
        let mut less = entries.clone();
        less.remove(at);
        let number = at as u64 + 1;
        let missing = BrokenChain::Missing { from: number, to: number };
        assert_eq!(verify(head, &less), Err(missing));
    }
    let (mut later, mut kept) = (head, entries.clone());
    later.delete_first(&kept.remove(0).1).unwrap();
    assert_eq!(verify(later, &kept), Ok(()));
    assert_eq!(verify(later, &entries), Err(BrokenChain::Misplaced(1)));
    assert_eq!(verify(log(3).0, &entries), Err(BrokenChain::OtherEnd { last: 4, head: 3 }));
}

#[test]
fn old_records_are_deleted_and_their_digest_is_kept() {
    let (mut head, mut entries) = log(6);
    assert_eq!(head.delete_first(&entries[1].1), None, "it is not the first one");
    for at in 1..=4 {
        let (key, value) = entries.remove(0);
        assert_eq!(head.delete_first(&value), Some(key));
        assert_eq!((head.first, head.kept()), (at + 1, 6 - at));
        assert_eq!(verify(head, &entries), Ok(()));
    }
    assert_eq!(AuditHead::decode(&head.encode()), Some(head));
    entries.remove(0);
    assert_eq!(verify(head, &entries), Err(BrokenChain::Missing { from: 5, to: 5 }));
    let (last, _) = log(6);
    assert_eq!(last.digest, head.digest);
}

#[test]
fn a_long_change_is_cut_and_counted() {
    let now = Timestamp::UNIX_EPOCH;
    let name = "x".repeat(limits::TEXT_BYTES_MAX);
    let change = |at: usize| {
        let id: PathBuf = format!("acme/{at}").parse().unwrap();
        let (name, description) = (name.clone(), name.clone());
        let group = Group { id: id.clone(), name, description, meta: Meta::new(1, now) };
        let after = Some(Object::Group(group));
        ObjectChange { kind: Kind::Group, id, before: None, after }
    };
    let objects: Vec<_> = (0..8_000).map(change).collect();
    let operation = Operation::DeleteGroup(Delete { id: "acme".parse().unwrap(), etag: None });
    let origin = Origin::default();
    let made = |objects: &[ObjectChange]| {
        AuditRecord::of_change(&Actor::Operator, &operation, &origin, (1, now), objects)
    };
    let cut = made(&objects);
    assert_eq!(cut.changes_count, 8_000);
    assert!(cut.changes.len() > 5_000 && cut.changes.len() < 8_000);
    assert!(AuditHead::empty().append(&cut).1.len() <= limits::AUDIT_CHANGES_BYTES_MAX + 200_000);
    let whole = made(&objects[..1_000]);
    assert_eq!((whole.changes.len(), whole.changes_count), (1_000, 0));
    assert!(whole.is_about("acme") && !whole.is_about("acm"));
    assert!(Path::parse(&whole.object).is_ok());
    assert_eq!(
        super::cut("ä".repeat(limits::AUDIT_TEXT_BYTES_MAX)).len(),
        limits::AUDIT_TEXT_BYTES_MAX
    );
}

/// The path of a new object is found out when it is made, and an organization is made with the binding of its owner.
#[test]
fn the_object_of_what_is_made_is_the_new_one() {
    let meta = Meta::new(1, Timestamp::UNIX_EPOCH);
    let path = |text: &str| -> PathBuf { text.parse().unwrap() };
    let made = |object: Object| {
        let (kind, id) = (object.kind(), object.id().clone());
        ObjectChange { kind, id, before: None, after: Some(object) }
    };
    let text = String::new;
    let group = Group { id: path("new"), name: text(), description: text(), meta };
    let owner = RoleBinding {
        id: path("new/owner"),
        name: text(),
        description: text(),
        identity: path("alice"),
        role: "owner".into(),
        scope: path("new"),
        expires_at: None,
        when: vec![],
        meta,
    };
    let (group, owner) = (made(Object::Group(group)), made(Object::RoleBinding(owner)));
    let object = |operation: &Operation, objects: &[ObjectChange]| {
        let (origin, at) = (Origin::default(), (1, Timestamp::UNIX_EPOCH));
        AuditRecord::of_change(&Actor::Operator, operation, &origin, at, objects).object
    };
    let create = Operation::CreateGroup(crate::CreateGroup {
        parent: None,
        id: None,
        name: text(),
        description: text(),
        owner: Some(path("alice")),
    });
    assert_eq!(object(&create, &[group.clone(), owner.clone()]), "new");
    assert_eq!(object(&create, &[owner.clone(), group]), "new");
    // Of a batch and of what is deleted it is what the request names.
    let remove = Operation::RemoveMember(crate::RemoveMember {
        organization: path("new"),
        identity: path("alice"),
    });
    let gone = ObjectChange { before: owner.after.clone(), after: None, ..owner };
    assert_eq!(object(&remove, &[gone]), "new");
}
