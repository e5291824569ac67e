//! Parsers of paths, times and names against the naive model, and the coverage of the path generator.

use std::collections::BTreeSet;

use capstan_testkit::fuzz::path;
use capstan_testkit::generate::near_path;
use capstan_testkit::naive::is_path;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

proptest! {
    /// Paths that are similar to each other, and paths below each other.
    #[test]
    fn the_parser_and_the_naive_model_accept_the_same_paths(
        paths in prop::collection::vec(near_path(), 2..=4),
        suffix in "(/?[a-c.]){0,3}",
        arbitrary in any::<String>(),
    ) {
        let longer: Vec<_> = paths.iter().map(|path| format!("{path}{suffix}")).collect();
        path([paths, longer].concat().join("\n").as_bytes());
        path(arbitrary.as_bytes());
    }

    #[test]
    fn a_formatted_time_parses_to_the_same_time(
        time in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,10})?Z",
        offset in "[+-][0-2][0-9]:[0-5][0-9]",
    ) {
        path(format!("{time}\n{}", time.replace('Z', &offset)).as_bytes());
    }

    #[test]
    fn the_parsers_and_the_naive_model_accept_the_same_names(
        name in "[A-Za-z0-9_.+*é-]{0,130}",
        of in "(subject|resource|action|context|user)?\\.?",
    ) {
        path(format!("{name}\n{of}{name}").as_bytes());
    }
}

/// The generator draws paths at and just over every limit of section 2 of the contract.
#[test]
fn the_generator_reaches_every_limit_of_paths() {
    let mut runner = TestRunner::deterministic();
    let mut corners = BTreeSet::new();
    let mut paths = 0;
    for _ in 0..4000 {
        let text = near_path().new_tree(&mut runner).unwrap().current();
        let good = is_path(&text);
        paths += usize::from(good);
        let segments = text.split('/');
        let longest = segments.clone().map(str::len).max();
        for (at_limit, corner) in [
            (segments.clone().count() == 16, "16 segments"),
            (segments.clone().count() == 17, "17 segments"),
            (longest == Some(128), "a segment of 128 bytes"),
            (longest == Some(129), "a segment of 129 bytes"),
            (text.len() == 1024, "1024 bytes"),
            (text.len() == 1025, "1025 bytes"),
            (text.contains("//"), "a double slash"),
            (text.ends_with('/'), "a slash at the end"),
            (text.starts_with('/'), "a slash at the start"),
            (text.split('/').any(|segment| segment == ".."), "a segment `..`"),
            (text.split('/').any(|segment| segment == "..."), "a segment `...`"),
            (!text.is_ascii(), "more than ASCII"),
            (text.is_empty(), "nothing"),
        ] {
            if at_limit {
                corners.insert((corner, good));
            }
        }
    }
    assert!((1500..3500).contains(&paths), "{paths} of 4000 are paths");
    let good = ["16 segments", "a segment of 128 bytes", "1024 bytes", "a segment `...`"];
    let bad = [
        "17 segments",
        "a segment of 129 bytes",
        "1025 bytes",
        "a double slash",
        "a slash at the end",
        "a slash at the start",
        "a segment `..`",
        "more than ASCII",
        "nothing",
    ];
    for (corner, is_good) in good.map(|c| (c, true)).into_iter().chain(bad.map(|c| (c, false))) {
        assert!(corners.contains(&(corner, is_good)), "{corner} as a path: {is_good}");
        assert!(is_good || !corners.contains(&(corner, true)), "{corner} as a path");
    }
}
