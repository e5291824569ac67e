//! Settings that do not fit together, with the places of both.
//!
//! What fits is what clap says of the options of `serve`. It tells one fault of a command line at a time, and not where its words come
//! from. So it is asked again and again.

use std::path::Path;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{Place, Problem, SOURCES, Setting};

/// Every two settings that exclude each other, and every one that needs another. What is needed and `unread` is told elsewhere.
pub(super) fn together(
    serve: &Command,
    settings: &[Setting],
    unread: &[String],
    file: Option<&Path>,
) -> Vec<Problem> {
    let mut problems = vec![];
    let mut left: Vec<&Setting> = settings.iter().filter(|one| !one.values.is_empty()).collect();
    let is_given = |key: &str| {
        left.iter().any(|one| one.key == key) || unread.iter().any(|unread| unread == key)
    };
    if !SOURCES.iter().any(|key| is_given(key)) {
        let problem = format!("one of {} is required", SOURCES.join(", "));
        problems.push((Place::File(1, 1), problem));
    }
    for setting in &left {
        for needed in named(serve, &[setting], ErrorKind::MissingRequiredArgument).0 {
            if !is_given(&needed) {
                problems.push((setting.place.clone(), format!("{} needs {needed}", setting.key)));
            }
        }
    }
    // Of a setting it tells everything that it cannot be used with. Without it, it tells that of another one.
    loop {
        let (excluded, others) = named(serve, &left, ErrorKind::ArgumentConflict);
        let at = left.iter().position(|one| excluded.contains(&one.key));
        let Some(setting) = at.map(|at| left.remove(at)) else { return problems };
        for other in left.iter().filter(|one| others.contains(&one.key)) {
            let problem = format!(
                "{} cannot be used with {} ({})",
                setting.key,
                other.key,
                other.place.told(file)
            );
            problems.push((setting.place.clone(), problem));
        }
    }
}

/// The options that clap names as wrong, and those it names beside them, if these settings together have a fault of this kind.
fn named(serve: &Command, settings: &[&Setting], kind: ErrorKind) -> (Vec<String>, Vec<String>) {
    let words = settings.iter().flat_map(|setting| setting.arguments());
    let Err(error) = serve.clone().try_get_matches_from(words) else { return Default::default() };
    if error.kind() != kind {
        return Default::default();
    }
    let of = |context| match error.get(context) {
        Some(ContextValue::String(one)) => vec![name_of(one)],
        Some(ContextValue::Strings(all)) => all.iter().map(|one| name_of(one)).collect(),
        _ => vec![],
    };
    let (wrong, beside) = (of(ContextKind::InvalidArg), of(ContextKind::PriorArg));
    (wrong.into_iter().flatten().collect(), beside.into_iter().flatten().collect())
}

/// `data` of `--data <DIR>`; `None` of a choice such as `<--policy <FILE>|--demo>`.
fn name_of(usage: &str) -> Option<String> {
    let name = usage.strip_prefix("--")?.split([' ', '=']).next()?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{parse, serve};

    /// The problems of a file, each as `LINE: PROBLEM`.
    fn problems(text: &str) -> Vec<String> {
        let serve = serve();
        let given = parse(text, &serve);
        let found = together(&serve, &given.settings, &given.unread, Some(Path::new("f")));
        let said = |(place, problem): (Place, String)| {
            let Place::File(line, _) = place else { panic!("{place:?}") };
            format!("{line}: {problem}")
        };
        let mut found: Vec<_> = found.into_iter().map(said).collect();
        found.sort();
        found
    }

    #[test]
    fn what_does_not_fit_is_told_with_both_places() {
        for (text, expected) in [
            ("demo = true", &[][..]),
            ("policy = \"p\"\ntls-cert = \"c\"\ntls-key = \"k\"\nclient-ca = \"a\"", &[]),
            ("", &["1: one of policy, data, demo is required"]),
            ("demo = false", &["1: one of policy, data, demo is required"]),
            // What cannot be read is told as that.
            ("policy = []\ndata = {}", &[]),
            ("demo = true\ntls-key = []\ntls-cert = \"c\"", &[]),
            ("demo = true\ntls-key = \"k\"", &["2: tls-key needs tls-cert"]),
            (
                "demo = true\nclient-crl = \"l\"",
                &[
                    "2: client-crl needs client-ca",
                    "2: client-crl needs tls-cert",
                    "2: client-crl needs tls-key",
                ],
            ),
            (
                "policy = \"p\"\ndata = \"d\"\ndemo = true\ntrust-issuer = \"https://a.example\"",
                &[
                    "1: policy cannot be used with data (f:2:1)",
                    "1: policy cannot be used with demo (f:3:1)",
                    "1: policy cannot be used with trust-issuer (f:4:1)",
                    "2: data cannot be used with demo (f:3:1)",
                    "3: demo cannot be used with trust-issuer (f:4:1)",
                ],
            ),
            (
                "policy = \"p\"\nsigning-keys = \"k\"\naudit-records = 9",
                &[
                    "1: policy cannot be used with audit-records (f:3:1)",
                    "1: policy cannot be used with signing-keys (f:2:1)",
                    "2: signing-keys needs public-url",
                ],
            ),
        ] {
            assert_eq!(problems(text), expected, "{text}");
        }
    }
}
