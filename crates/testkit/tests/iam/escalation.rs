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
use fastrand::Rng;

use crate::attack::draw::{operation, world};
use crate::attack::{Attack, FOUND_BY_ATTACK, Violation};

/// Sequences in one world.
const SEQUENCES_A_WORLD: u64 = 20;
/// Operations in a sequence that are done, at most; as many again and more are refused.
const STEPS_MAX: usize = 6;
/// Attempts in a sequence.
const ATTEMPTS: usize = 12;
/// Sequences of the short form.
const SEQUENCES: u64 = 20_000;
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
fn run(seed: u64, sequences: u64, rules: RuleSet, ran: &mut Ran) -> Result<(), Violation> {
    let mut rng = Rng::with_seed(seed);
    let first = ran.sequences;
    while ran.sequences - first < sequences {
        let (mut before, own) = world(&mut rng);
        before.rules = rules;
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
    if let Err(violation) = run(7, sequences, RuleSet::FULL, &mut ran) {
        panic!("after {} sequences: {violation}", ran.sequences);
    }
    println!("{ran:?} in {:?}", start.elapsed());
    // The attacker gets somewhere: otherwise nothing was tried.
    assert!(ran.done > ran.sequences / 4, "{ran:?}");
    assert_eq!(ran.longest, STEPS_MAX);
}

#[test]
fn every_rule_that_is_left_out_is_found() {
    for rule in FOUND_BY_ATTACK {
        let (start, mut ran) = (Instant::now(), Ran::default());
        let found = run(11, FOUND_WITHIN, RuleSet::FULL.without(rule), &mut ran);
        let violation = found.expect_err(rule.number());
        let (number, took) = (rule.number(), start.elapsed());
        println!("{number}: after {} sequences, {took:?}: {violation}", ran.sequences);
    }
    // The others have tests of their own, which leave them out as well.
    let others: Vec<_> =
        Rule::ALL.into_iter().filter(|one| !FOUND_BY_ATTACK.contains(one)).collect();
    assert_eq!(others, [Rule::Own, Rule::Visibility, Rule::ClosedCatalog]);
}
