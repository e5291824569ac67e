//! The instructions of a row by function: `dev/instructions --profile`.
//!
//! A dump of callgrind (*Callgrind Format Specification*, valgrind.org) has for each function, after `fn=`, the
//! instructions of each source line. The line after `calls=` has the instructions of the callee, which are also
//! in the lines of the callee itself.

use std::collections::BTreeMap;

/// Instructions by function in descending order. Inlined functions count for their caller.
pub(crate) fn by_function(dump: &str) -> Vec<(&str, u64)> {
    let mut names = BTreeMap::new();
    let mut costs: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut function, mut is_called) = ("", false);
    for line in dump.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            function = named(&mut names, name);
        } else if let Some(name) = line.strip_prefix("cfn=") {
            named(&mut names, name);
        } else if line.starts_with("calls=") {
            is_called = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok());
            if !std::mem::take(&mut is_called) {
                *costs.entry(function).or_default() += cost.unwrap_or_default();
            }
        }
    }
    let mut costs: Vec<_> = costs.into_iter().collect();
    costs.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
    costs
}

/// `(7) name` defines the name of number 7, and `(7)` refers to it.
fn named<'d>(names: &mut BTreeMap<&'d str, &'d str>, text: &'d str) -> &'d str {
    let (number, name) = text.split_once(' ').unwrap_or((text, ""));
    if !name.is_empty() {
        names.insert(number, name);
    }
    names.get(number).copied().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::by_function;

    #[test]
    fn instructions_of_a_callee_are_not_its_callers() {
        let dump = "version: 1\npositions: line\nevents: Ir\nsummary: 30\n\nfl=(1) a.rs\n\
                    fn=(1) measured\n16 4\n+2 3\ncfn=(2) check\ncalls=10 40\n* 20\n-1 1\n\n\
                    fn=(2)\n40 19\nfi=(2) b.rs\n+7 3\n";
        assert_eq!(by_function(dump), [("check", 22), ("measured", 8)]);
    }
}
