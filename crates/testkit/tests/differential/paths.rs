//! Paths and ancestry, as both read section 2; and that the generator meets every limit of them.

use std::collections::BTreeSet;

use capstan_engine::{Path, PathBuf};
use capstan_testkit::generate::near_path;
use capstan_testkit::naive::{is_at_or_above, is_path};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

proptest! {
    #[test]
    fn paths_are_paths_to_both(near in near_path(), arbitrary in any::<String>()) {
        for text in [near, arbitrary] {
            prop_assert_eq!(Path::parse(&text).is_ok(), is_path(&text), "{:?}", text);
            prop_assert_eq!(text.parse::<PathBuf>().is_ok(), is_path(&text), "{:?}", text);
        }
    }

    #[test]
    fn ancestry_is_a_prefix_of_segments(
        paths in prop::collection::vec(near_path(), 2..=4),
        suffix in "(/?[a-c.]){0,3}",
    ) {
        let longer = paths.iter().map(|path| format!("{path}{suffix}"));
        let all = paths.iter().cloned().chain(longer);
        let all: Vec<_> = all.filter(|path| is_path(path)).collect();
        for (above, below) in all.iter().flat_map(|a| all.iter().map(move |b| (a, b))) {
            let (Ok(a), Ok(b)) = (Path::parse(above), Path::parse(below)) else {
                return Err(TestCaseError::fail(format!("{above:?} or {below:?}")));
            };
            prop_assert_eq!(a.contains(b), is_at_or_above(above, below), "{:?} {:?}", a, b);
            let ancestors: Vec<_> = b.ancestors().map(|path| path.as_str()).collect();
            prop_assert_eq!(ancestors.contains(&a.as_str()), a.contains(b), "{:?} {:?}", a, b);
            prop_assert_eq!(ancestors.len(), below.split('/').count());
        }
    }
}

/// Both sides of every limit of section 2.
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
