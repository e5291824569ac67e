//! No sequence of operations gives an attacker what its identities did not hold together; and each rule that is left
//! out is found.
//!
//! The long run, one million sequences and every attack of three operations on each of a thousand small worlds:
//!
//! ```text
//! CAPSTAN_ESCALATION_SEQUENCES=1000000 cargo test --release -p capstan-testkit --test iam escalation -- --nocapture
//! ```

use std::time::Instant;

use capstan_iam::{Rule, RuleSet};
use capstan_testkit::managed::Managed;
use fastrand::Rng;

use crate::attack::draw::{operation, world};
use crate::attack::small;
use crate::attack::{Attack, FOUND_BY_ATTACK, Violation};

/// Sequences in one world.
const SEQUENCES_A_WORLD: u64 = 20;
/// Operations in a sequence that are done, at most; as many again and more are refused.
const STEPS_MAX: usize = 6;
/// Attempts in a sequence.
const ATTEMPTS: usize = 12;
/// Sequences of the short form.
const SEQUENCES: u64 = 20_000;
/// The short form takes one of so many small worlds.
const SMALL_EVERY: usize = 97;
/// Within so many sequences a rule that is left out must be found.
const FOUND_WITHIN: u64 = 400_000;

fn sequences() -> u64 {
    let long = std::env::var("CAPSTAN_ESCALATION_SEQUENCES").ok();
    long.map_or(SEQUENCES, |long| long.parse().expect("a number of sequences"))
}

#[derive(Debug, Default)]
struct Ran {
    sequences: u64,
    attempts: u64,
    done: u64,
    longest: usize,
}

/// Runs sequences in random worlds until one of them violates something.
fn run(
    seed: u64,
    sequences: u64,
    set: impl Fn(&mut Managed),
    ran: &mut Ran,
) -> Result<(), Box<Violation>> {
    let mut rng = Rng::with_seed(seed);
    let first = ran.sequences;
    while ran.sequences - first < sequences {
        let (mut before, own) = world(&mut rng);
        set(&mut before);
        for _ in 0..SEQUENCES_A_WORLD {
            let mut attack = Attack::new(&before, &own);
            ran.sequences += 1;
            for _ in 0..ATTEMPTS {
                if attack.done == STEPS_MAX {
                    break;
                }
                if let Some((who, operation)) = operation(&mut rng, &mut attack) {
                    ran.attempts += 1;
                    attack.try_one(&who, &operation)?;
                }
            }
            ran.done += attack.done as u64;
            ran.longest = ran.longest.max(attack.done);
        }
    }
    Ok(())
}

#[test]
fn no_sequence_gains_anything() {
    let (sequences, start, mut ran) = (sequences(), Instant::now(), Ran::default());
    if let Err(violation) = run(7, sequences, |_| {}, &mut ran) {
        panic!("after {} sequences: {violation}", ran.sequences);
    }
    println!("{ran:?} in {:?}", start.elapsed());
    // The attacker gets somewhere: otherwise nothing was tried.
    assert!(ran.done > ran.sequences / 4, "{ran:?}");
    assert_eq!(ran.longest, STEPS_MAX);
}

/// Every attack of so many operations, in each of these worlds: the attacker has one or two bindings, and the victim one.
#[test]
fn no_attack_of_three_operations_gains_anything_in_a_small_world() {
    let is_long = std::env::var("CAPSTAN_ESCALATION_SEQUENCES").is_ok();
    // All worlds take minutes: the short form takes a few of them, and attacks of two operations.
    let (every, depth) = if is_long { (1, 3) } else { (SMALL_EVERY, 2) };
    let (start, mut worlds, mut tried, mut states) = (Instant::now(), 0, 0, 0);
    for before in small::worlds().into_iter().step_by(every) {
        worlds += 1;
        let own = ["acme/mallory".to_owned()];
        match small::attack(&Attack::new(&before, &own), depth) {
            Ok(counted) => {
                tried += counted.tried;
                states += counted.states;
            }
            Err(violation) => panic!("{violation}\nin {:?}", before.objects().collect::<Vec<_>>()),
        }
    }
    println!("{worlds} worlds, {tried} operations, {states} states in {:?}", start.elapsed());
    assert!(states > worlds);
}

/// The bounded-exhaustive attack finds rules that are left out, too.
#[test]
fn small_worlds_are_enough_to_find_a_missing_rule() {
    for rule in [Rule::Grant, Rule::RoleUpdate, Rule::CredentialChange, Rule::Duration] {
        let own = ["acme/mallory".to_owned()];
        let finds = |mut before: Managed| {
            before.rules = RuleSet::FULL.without(rule);
            small::attack(&Attack::new(&before, &own), 2).is_err()
        };
        assert!(small::worlds().into_iter().any(finds), "{rule}");
    }
}

#[test]
fn every_rule_that_is_left_out_is_found() {
    for rule in FOUND_BY_ATTACK {
        let (start, mut ran) = (Instant::now(), Ran::default());
        let set = |world: &mut Managed| world.rules = RuleSet::FULL.without(rule);
        let found = run(11, FOUND_WITHIN, set, &mut ran);
        let violation = found.expect_err(rule.number());
        let (number, took) = (rule.number(), start.elapsed());
        println!("{number}: after {} sequences, {took:?}: {violation}", ran.sequences);
    }
    // The others have tests of their own, which leave them out as well.
    let others: Vec<_> =
        Rule::ALL.into_iter().filter(|one| !FOUND_BY_ATTACK.contains(one)).collect();
    assert_eq!(others, [Rule::Own, Rule::Visibility, Rule::ClosedCatalog, Rule::Narrowed]);
}

/// R15 is no rule that can be left out: the state that a batch is judged on is made to be another one.
#[test]
fn a_batch_that_is_judged_on_what_it_gives_is_found() {
    let mut ran = Ran::default();
    let found = run(11, FOUND_WITHIN, |world| world.judges_before = false, &mut ran);
    println!("R15: after {} sequences: {}", ran.sequences, found.unwrap_err());
}
