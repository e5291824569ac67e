//! A table against a map, and its corners.

use std::collections::BTreeMap;

use super::*;

impl Extra for u32 {}

/// The same numbers on every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
        (self.0 >> 33) as usize % end
    }
}

fn same(table: &Table<u32>, map: &BTreeMap<String, (Vec<u8>, Option<u32>)>) {
    assert_eq!(table.len(), map.len());
    for (key, (payload, extra)) in map {
        let entry = table.get(key).unwrap();
        assert_eq!((entry.key(), entry.payload()), (key.as_str(), &payload[..]));
        assert_eq!(entry.extra().map(|extra| **extra), *extra);
        assert_eq!(table.key(entry.number()), key);
    }
    let mut keys: Vec<_> = table.iter().map(|entry| entry.key()).collect();
    keys.sort_unstable();
    assert!(keys.iter().eq(map.keys()));
}

/// After any sequence of changes, in one shard or in many, a table has the entries of a map, and older
/// versions have theirs.
#[test]
fn a_table_has_the_entries_of_a_map() {
    for made_for in [0, 5_000] {
        let mut table = Table::new(Seed::random(), made_for);
        let mut map: BTreeMap<String, (Vec<u8>, Option<u32>)> = BTreeMap::new();
        let (mut draw, mut kept) = (Draw(7), Vec::new());
        for step in 0..6_000 {
            let key = format!("acme/{}", draw.below(700));
            match draw.below(10) {
                0..3 => {
                    table.remove(&key);
                    map.remove(&key);
                }
                3 => {
                    if let Some(number) = table.get(&key).map(|entry| entry.number()) {
                        let extra = (draw.below(2) == 0).then_some(step);
                        table.set_extra(number, extra.map(Arc::new));
                        map.get_mut(&key).unwrap().1 = extra;
                    }
                }
                4 => {
                    let entry = table.get(&key);
                    if let Some((number, old)) = entry.map(|one| (one.number(), one.payload())) {
                        let longer = [old, b"more"].concat();
                        assert_eq!(table.put(&key, &longer), Some(number));
                        table.write_at(number, 0, b"M");
                        let payload = &mut map.get_mut(&key).unwrap().0;
                        payload.extend(b"more");
                        payload[0] = b'M';
                    }
                }
                5 => {
                    let entry = table.get(&key).filter(|entry| entry.payload().len() > 3);
                    if let Some((number, old)) = entry.map(|one| (one.number(), one.payload())) {
                        let shorter = [&old[..1], &old[3..]].concat();
                        assert_eq!(table.put(&key, &shorter), Some(number));
                        map.get_mut(&key).unwrap().0.drain(1..3);
                    }
                }
                _ => {
                    let payload = vec![b'x'; draw.below(40)];
                    let number = table.put(&key, &payload).unwrap();
                    assert_eq!(table.get(&key).unwrap().number(), number);
                    map.entry(key).or_insert((vec![], None)).0 = payload;
                }
            }
            if step % 1_500 == 700 {
                kept.push((table.clone(), map.clone()));
            }
        }
        same(&table, &map);
        kept.iter().for_each(|(table, map)| same(table, map));
    }
}

/// Keys with equal tags are distinguished by the rest of their fingerprints, also after one of them is
/// removed.
#[test]
fn equal_tags_are_distinguished() {
    let mut branch: Branch<()> = Branch::new(1, OFFSETS_END);
    let print = |at: u128| Fingerprint(7 << 64 | at << 96 | at);
    for (at, key) in (0..).zip([b"a", b"b", b"c"]) {
        assert!(branch.put(0, print(at), key, key).unwrap().0);
    }
    assert_eq!(branch.put(0, print(1), b"b", b"B"), Some((false, 1)));
    let get = |branch: &Branch<()>, at: u128| {
        let probe = Probe { branch, shard: (0, 0), fingerprint: print(at) };
        let key = ["a", "b", "c", "d"][at as usize];
        probe.entry(probe.offset(), key).map(|entry| entry.payload().to_vec())
    };
    assert_eq!(get(&branch, 0).unwrap(), b"a");
    assert_eq!(get(&branch, 1).unwrap(), b"B");
    assert_eq!(get(&branch, 2).unwrap(), b"c");
    assert_eq!(get(&branch, 3), None);
    branch.remove(0, print(0));
    assert_eq!(get(&branch, 0), None);
    assert_eq!(get(&branch, 1).unwrap(), b"B");
    assert_eq!(get(&branch, 2).unwrap(), b"c");
}

/// A full shard refuses an insertion and does not change. Garbage is reused, and a record that gets shorter
/// needs no space.
#[test]
fn a_full_shard_refuses_and_does_not_change() {
    const END: u32 = 40;
    let mut branch: Branch<()> = Branch::new(1, END);
    let print = |key: &str| Fingerprint(u128::from(key.as_bytes()[0]) << 64 | 1);
    let put = |branch: &mut Branch<()>, key: &str, length: usize| {
        let payload = vec![key.as_bytes()[0]; length];
        branch.put(0, print(key), key.as_bytes(), &payload).is_some()
    };
    let length = |branch: &Branch<()>, key: &str| {
        let (_, record) = branch.find(0, print(key))?;
        assert!(record.payload.iter().all(|byte| *byte == key.as_bytes()[0]), "{key}");
        Some(record.payload.len())
    };
    // The last one begins before the end.
    for key in ["a", "b", "c"] {
        assert!(put(&mut branch, key, 200));
    }
    let before = branch.clone();
    assert!(!put(&mut branch, "d", 8) && !put(&mut branch, "a", 300));
    for key in ["a", "b", "c"] {
        assert_eq!(length(&branch, key), Some(200));
    }
    assert_eq!(length(&branch, "d"), None);
    assert!(put(&mut branch, "b", 60));
    assert_eq!((length(&branch, "b"), length(&before, "b")), (Some(60), Some(200)));
    // Where the rest of b was.
    assert!(put(&mut branch, "d", 8) && put(&mut branch, "e", 8));
    branch.remove(0, print("c"));
    assert!(put(&mut branch, "a", 300));
    let found = ["a", "b", "c", "d", "e"].map(|key| length(&branch, key));
    assert_eq!(found, [Some(300), Some(60), None, Some(8), Some(8)]);
    assert_eq!(
        ["a", "b", "c", "d"].map(|key| length(&before, key)),
        [Some(200), Some(200), Some(200), None]
    );
}

/// A text that is longer than any path is not found and cannot be inserted.
#[test]
fn longer_texts_than_paths_are_refused() {
    let mut table: Table<()> = Table::new(Seed::random(), 0);
    let longest = "x".repeat(TEXT_BYTES_MAX);
    assert!(table.put(&longest, &[]).is_some());
    let longer = format!("{longest}x");
    assert_eq!(table.put(&longer, &[]), None);
    assert!(table.get(&longer).is_none() && table.get(&longest).is_some());
}

/// A shard that has used all its numbers refuses an insertion and does not change.
#[test]
fn a_full_table_refuses() {
    let mut table: Table<()> = Table::new(Seed::random(), 0);
    for at in 0..=u32::from(u16::MAX) {
        assert!(table.put(&format!("k{at}"), &[]).is_some());
    }
    assert_eq!(table.put("one more", &[]), None);
    assert!(table.get("one more").is_none() && table.get("k65535").is_some());
    assert!(table.is_crowded());
    table.remove("k7");
    assert!(table.put("one more", &[]).is_some());
}
