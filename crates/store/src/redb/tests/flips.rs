//! Flipped bits in a file at rest: refused, or everything that is read is right.

use super::*;

/// Copies by default. `CAPSTAN_BIT_FLIPS` asks for another number, 2,000 in the long run.
const COPIES: u64 = 100;

/// What a store answers to everything that can be asked.
fn everything(store: &RedbStore) -> Result<(Head, State, Vec<Committed>), String> {
    let snapshot = recovered(store).map_err(|error| error.to_string())?;
    let state = dump(&*snapshot).map_err(|error| error.to_string())?;
    for (key, value) in &state {
        let found = snapshot.get(key).map_err(|error| error.to_string())?;
        assert_eq!(found.as_ref(), Some(value));
    }
    let transactions = snapshot.transactions(snapshot.kept.from, u64::MAX);
    let transactions = transactions.map_err(|error| error.to_string())?.into();
    Ok((snapshot.head, state, transactions))
}

#[test]
fn a_flipped_bit_is_refused_or_changes_nothing() {
    let wanted = std::env::var("CAPSTAN_BIT_FLIPS").map_or(COPIES, |it| it.parse().unwrap());
    let sim = new_disk();
    let store = open_sim(&sim, limits()).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let mut head = head_of(&store);
    for number in 0..20 {
        // One long transaction, whose pages are most of the file, and some short ones, which the log keeps.
        let count = if number == 0 { 3_000 } else { 1 };
        let value = |random: &mut fastrand::Rng| vec![random.u8(..); 300];
        let ops =
            (0..count).map(|at| put(format!("key {number} {at}"), value(&mut random))).collect();
        let batch = Batch { transactions: vec![Transaction { ops }], side: Vec::new() };
        head = append(&store, &head, &batch).unwrap();
    }
    let expected = everything(&store).unwrap();
    assert!(expected.1.len() > 3_000 && expected.2.len() == 8);
    drop(store);
    let file = sim.file();

    let (mut refused, mut reads_refused) = (0, 0);
    for copy in 0..wanted {
        let mut flipped = file.clone();
        let bit = random.usize(..file.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        match open_sim(&Sim::of(flipped), limits()) {
            Err(error) => {
                let named = matches!(
                    error,
                    OpenError::Corrupt { .. }
                        | OpenError::Foreign { .. }
                        | OpenError::Newer { .. }
                        | OpenError::Truncated(_)
                );
                assert!(named, "copy {copy}, bit {bit}: {error:?}");
                refused += 1;
            }
            Ok(store) => match everything(&store) {
                Ok(found) => assert!(found == expected, "copy {copy}, bit {bit}: another content"),
                Err(_) => reads_refused += 1,
            },
        }
    }
    // Most of the file is content, and redb's checksums, which are verified first, have all of it.
    assert!(refused * 3 > wanted, "of {wanted} copies only {refused} were refused");
    assert_eq!(reads_refused, 0);
}
