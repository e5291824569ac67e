//! The configuration file of `capstan serve`: TOML whose keys are the names of its options.
//!
//! ```text
//! options ─▶ environment: CAPSTAN_SERVE_… ─▶ file: --config ─▶ one command line, which clap reads as any other
//! ```
//!
//! **Invariants**: what is given first in this order counts, option by option; where the policy comes from is one option.
//! A file is read as a whole or not at all: every problem of it is told at once, with its line and column. Settings that do not fit
//! together are told with the place of each.

mod command;
mod lint;
mod together;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use capstan_engine::{did_you_mean, quote};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args as _, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(crate) use command::ConfigCommand;
use together::together;

use crate::limits::{CONFIG_BYTES_MAX, CONFIG_PROBLEMS_MAX};
use crate::serve::Serve;

/// The beginning of environment variables that are options of `serve`.
const VARIABLE: &str = "CAPSTAN_SERVE_";
/// Options that say where the policy comes from: one of them counts.
const SOURCES: [&str; 3] = ["policy", "data", "demo"];

/// An option that a command line, a file or the environment gives.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    /// The name of the option, without `--`.
    key: String,
    /// None for a flag that is not set.
    values: Vec<String>,
    is_flag: bool,
    place: Place,
}

/// Where an option is given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// The command line, as `--name`.
    Option(String),
    /// The environment, by the name of the variable.
    Variable(String),
    /// Line and column of the file, from 1 up.
    File(usize, usize),
}

impl Place {
    /// As it is told.
    fn told(&self, file: Option<&Path>) -> String {
        match (self, file) {
            (Self::Option(name) | Self::Variable(name), _) => name.clone(),
            (Self::File(line, column), Some(file)) => {
                format!("{}:{line}:{column}", file.display())
            }
            (Self::File(..), None) => "serve".to_owned(),
        }
    }
}

impl Setting {
    /// As arguments of a command line.
    fn arguments(&self) -> impl Iterator<Item = OsString> {
        let argument = |value: &String| match self.is_flag {
            true => format!("--{}", self.key).into(),
            false => format!("--{}={value}", self.key).into(),
        };
        self.values.iter().map(argument)
    }
}

/// What a file or the environment gives.
#[derive(Debug, Default, PartialEq, Eq)]
struct Given {
    settings: Vec<Setting>,
    problems: Vec<Problem>,
    /// Options that are given, and whose values are none.
    unread: Vec<String>,
}

type Problem = (Place, String);

/// The options of `serve`, without those that a file cannot have.
fn serve() -> Command {
    Serve::augment_args(Command::new("serve").no_binary_name(true)).disable_help_flag(true)
}

fn options(serve: &Command) -> impl Iterator<Item = &Arg> {
    serve.get_arguments().filter(|one| one.get_long().is_some_and(|name| name != "config"))
}

/// A command line with what the environment and the file of `--config` add to `serve`; any other stays as it is.
///
/// # Errors
///
/// The file cannot be read or has problems: all of them. A variable that is no option.
pub(crate) fn expand(mut words: Vec<OsString>, command: Command) -> anyhow::Result<Vec<OsString>> {
    let strict = command.clone();
    let lenient = lenient(command).try_get_matches_from(&words);
    let Some(("serve", given)) = lenient.as_ref().ok().and_then(ArgMatches::subcommand) else {
        return Ok(words);
    };
    let serve = serve();
    let options: Vec<Setting> = options(&serve).filter_map(|one| typed(one, given)).collect();
    let file = given.try_get_one::<PathBuf>("config").ok().flatten().cloned();
    let (variables, from_file) = (
        variables(&serve, std::env::vars_os()),
        match &file {
            Some(file) => read(file, &serve)?,
            None => Given::default(),
        },
    );
    let problems = [variables.problems, from_file.problems].concat();
    refuse(file.as_deref(), problems)?;
    let layers = [options.clone(), variables.settings, from_file.settings];
    let all = merged(layers);
    let added = all.iter().filter(|setting| !matches!(setting.place, Place::Option(_)));
    words.extend(added.flat_map(Setting::arguments));
    let does_not_fit = |error: clap::Error| {
        matches!(error.kind(), ErrorKind::ArgumentConflict | ErrorKind::MissingRequiredArgument)
    };
    // Of options of the command line alone clap tells it as well.
    if all.len() > options.len() && strict.try_get_matches_from(&words).is_err_and(does_not_fit) {
        refuse(file.as_deref(), together(&serve, &all, &[], file.as_deref()))?;
    }
    Ok(words)
}

/// An option that the command line has.
fn typed(option: &Arg, given: &ArgMatches) -> Option<Setting> {
    let (key, id) = (option.get_long()?, option.get_id().as_str());
    if given.value_source(id) != Some(ValueSource::CommandLine) {
        return None;
    }
    let (is_flag, _) = kind(option);
    let raw = given.get_raw(id).into_iter().flatten();
    let values = raw.map(|value| value.to_string_lossy().into_owned()).collect();
    Some(Setting { key: key.to_owned(), values, is_flag, place: Place::Option(format!("--{key}")) })
}

/// What counts of layers, the first of which counts most.
fn merged(layers: impl IntoIterator<Item = Vec<Setting>>) -> Vec<Setting> {
    let mut all: Vec<Setting> = vec![];
    for layer in layers {
        let is_source = |setting: &Setting| SOURCES.contains(&&*setting.key);
        let is_source_taken = all.iter().any(is_source);
        let counts = |setting: &Setting| {
            let is_taken = all.iter().any(|other| other.key == setting.key);
            !(is_taken || is_source(setting) && is_source_taken)
        };
        let added: Vec<_> = layer.into_iter().filter(counts).collect();
        all.extend(added);
    }
    all
}

/// Problems as an error, in the order of their places: the first [`CONFIG_PROBLEMS_MAX`] of them.
fn refuse(file: Option<&Path>, mut problems: Vec<Problem>) -> anyhow::Result<()> {
    problems.sort();
    problems.dedup();
    let mut said = String::new();
    for (place, problem) in problems.iter().take(CONFIG_PROBLEMS_MAX) {
        let _ = write!(said, "\n{}: {problem}", place.told(file));
    }
    if problems.len() > CONFIG_PROBLEMS_MAX {
        let _ = write!(said, "\nand {} more", problems.len() - CONFIG_PROBLEMS_MAX);
    }
    match problems.len() {
        0 => Ok(()),
        1 => Err(anyhow!("the configuration has a problem:{said}")),
        count => Err(anyhow!("the configuration has {count} problems:{said}")),
    }
}

/// A command that takes what it understands, at each level.
fn lenient(command: Command) -> Command {
    command.ignore_errors(true).mut_subcommands(lenient)
}

/// The options that the environment gives. Several values of one are separated by spaces.
fn variables(serve: &Command, all: impl Iterator<Item = (OsString, OsString)>) -> Given {
    let mut given = Given::default();
    for (name, value) in all {
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(VARIABLE)) else {
            continue;
        };
        let key = rest.to_ascii_lowercase().replace('_', "-");
        let place = Place::Variable(format!("{VARIABLE}{rest}"));
        let read = match options(serve).find(|one| one.get_long() == Some(&key)) {
            None => Err(format!("no option of serve{}", meant(serve, &key))),
            Some(option) => variable(option, value).and_then(|values| {
                let is_flag = kind(option).0;
                let setting = Setting { key: key.clone(), values, is_flag, place: place.clone() };
                problem_of(serve, &setting).map_or(Ok(setting), Err)
            }),
        };
        match read {
            Ok(setting) => given.settings.push(setting),
            Err(problem) => {
                given.problems.push((place, problem));
                given.unread.push(key);
            }
        }
    }
    given.settings.sort_by(|a, b| a.key.cmp(&b.key));
    given
}

/// The values of a variable.
fn variable(option: &Arg, value: OsString) -> Result<Vec<String>, String> {
    let value = value.into_string().map_err(|_| "not UTF-8".to_owned())?;
    match (kind(option), value.as_str()) {
        ((true, _), "true") => Ok(vec![String::new()]),
        ((true, _), "false") => Ok(vec![]),
        ((true, _), _) => Err("expected true or false".to_owned()),
        ((false, true), _) => Ok(value.split_whitespace().map(str::to_owned).collect()),
        ((false, false), _) => Ok(vec![value]),
    }
}

/// Whether an option is a flag, and whether it may be given several times.
fn kind(option: &Arg) -> (bool, bool) {
    let action = option.get_action();
    (matches!(action, ArgAction::SetTrue), matches!(action, ArgAction::Append))
}

fn meant(serve: &Command, key: &str) -> String {
    did_you_mean(key, options(serve).filter_map(Arg::get_long))
}

/// The options of a file, and its problems.
///
/// # Errors
///
/// The file cannot be read.
fn read(path: &Path, serve: &Command) -> anyhow::Result<Given> {
    let what = || format!("--config {}", path.display());
    let mut text = String::new();
    let file = File::open(path).with_context(what)?;
    file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text).with_context(what)?;
    ensure!(
        text.len() as u64 <= CONFIG_BYTES_MAX,
        "{}: longer than {CONFIG_BYTES_MAX} bytes",
        what()
    );
    Ok(parse(&text, serve))
}

/// The options of a text, and its problems, in order.
fn parse(text: &str, serve: &Command) -> Given {
    let (table, errors) = DeTable::parse_recoverable(text);
    let at = |span: Range<usize>| position(text, span.start);
    let mut given = Given {
        problems: errors
            .iter()
            .map(|error| (at(error.span().unwrap_or_default()), error.message().to_owned()))
            .collect(),
        ..Given::default()
    };
    for (name, value) in table.get_ref() {
        let (key, place) = (name.get_ref().to_string(), at(name.span()));
        let Some(option) = options(serve).find(|one| one.get_long() == Some(&key)) else {
            let hint = meant(serve, &key);
            given.problems.push((place, format!("{} is no option of serve{hint}", quote(&key))));
            continue;
        };
        let read = match values(option, value) {
            Ok(values) => {
                let is_flag = kind(option).0;
                let setting = Setting { key: key.clone(), values, is_flag, place };
                problem_of(serve, &setting).map_or(Ok(setting), Err)
            }
            Err(expected) => Err(format!("{key}: expected {expected}")),
        };
        match read {
            Ok(setting) => given.settings.push(setting),
            Err(problem) => {
                given.problems.push((at(value.span()), problem));
                given.unread.push(key);
            }
        }
    }
    given.problems.sort();
    given.settings.sort_by(|a, b| a.place.cmp(&b.place));
    given
}

/// The values of an option; or what is expected.
fn values(option: &Arg, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, &'static str> {
    let (is_flag, several) = kind(option);
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    };
    match (value.get_ref(), is_flag, several) {
        (DeValue::Boolean(is_set), true, _) => Ok(is_set.then(String::new).into_iter().collect()),
        (_, true, _) => Err("true or false"),
        (DeValue::Array(all), false, true) => {
            let all: Option<Vec<_>> = all.iter().map(|value| one(value.get_ref())).collect();
            all.filter(|all| !all.is_empty()).ok_or("a list of texts")
        }
        (value, false, true) => one(value).map(|one| vec![one]).ok_or("a text, or a list of them"),
        (value, false, false) => one(value).map(|one| vec![one]).ok_or("a text or a number"),
    }
}

/// What clap says of the values of one option. What it says of several together, it says of the whole command line.
fn problem_of(serve: &Command, setting: &Setting) -> Option<String> {
    let error = serve.clone().try_get_matches_from(setting.arguments()).err()?;
    let is_of_value = matches!(
        error.kind(),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue | ErrorKind::InvalidUtf8
    );
    if !is_of_value {
        return None;
    }
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    Some(first.trim_start_matches("error: ").to_owned())
}

/// Line and column of a byte.
fn position(text: &str, byte: usize) -> Place {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    Place::File(before.matches('\n').count() + 1, line.chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Vec<Setting>, Vec<Problem>) {
        let Given { settings, problems, .. } = parse(text, &serve());
        (settings, problems)
    }

    #[test]
    fn a_file_has_the_options_of_serve() {
        let text = "# where the policy is\ndata = \"/var/lib/capstan\"\nlisten = [\"127.0.0.1:0\", \"unix:/run/c.sock\"]\n\
            reflection = true\ninsecure-plaintext = false\nworkers = 2\notlp-sample-ratio = 0.5\ncatalog = \"a\"\n";
        let (settings, problems) = parsed(text);
        assert_eq!(problems, []);
        let words: Vec<_> = settings.iter().flat_map(Setting::arguments).collect();
        assert_eq!(
            words,
            [
                "--data=/var/lib/capstan",
                "--listen=127.0.0.1:0",
                "--listen=unix:/run/c.sock",
                "--reflection",
                "--workers=2",
                "--otlp-sample-ratio=0.5",
                "--catalog=a"
            ]
        );
        assert_eq!(settings[0].place, Place::File(2, 1));
    }

    #[test]
    fn every_problem_is_told_with_its_place() {
        let text = "lsiten = 1\nreflection = \"yes\"\nlisten = 5\nworkers = 0\nhttp = [\"none\"]\n\
            config = \"x\"\ncatalog = []\nprobes =\ndata = \"a\"\ndata = \"b\"\n";
        let (_, problems) = parsed(text);
        let said: Vec<String> = problems
            .iter()
            .map(|(place, problem)| {
                let Place::File(line, column) = place else { panic!("{place:?}") };
                format!("{line}:{column} {problem}")
            })
            .collect();
        for expected in [
            "1:1 `lsiten` is no option of serve; did you mean `listen`?",
            "2:14 reflection: expected true or false",
            "3:10 invalid value '5' for '--listen",
            "4:11 invalid value '0' for '--workers",
            "5:8 http: expected a text or a number",
            "6:1 `config` is no option",
            "7:11 catalog: expected a list of texts",
            "8:",
            "10:1 duplicate key",
        ] {
            assert!(said.iter().any(|one| one.starts_with(expected)), "{expected}: {said:#?}");
        }
        assert!(problems.is_sorted());
    }

    #[test]
    fn variables_are_options_too() {
        let serve = serve();
        let given = |all: &[(&str, &str)]| {
            variables(&serve, all.iter().map(|(name, value)| ((*name).into(), (*value).into())))
        };
        let found = given(&[
            ("CAPSTAN_SERVE_LISTEN", "127.0.0.1:1 unix:/x"),
            ("CAPSTAN_SERVE_REFLECTION", "true"),
            ("CAPSTAN_SERVE_INSECURE_PLAINTEXT", "false"),
            ("CAPSTAN_LOG", "info"),
        ]);
        let words: Vec<_> = found.settings.iter().flat_map(Setting::arguments).collect();
        assert_eq!(words, ["--listen=127.0.0.1:1", "--listen=unix:/x", "--reflection"]);
        for (name, value, said) in [
            ("CAPSTAN_SERVE_LSITEN", "x", "did you mean `listen`?"),
            ("CAPSTAN_SERVE_REFLECTION", "yes", "expected true or false"),
            ("CAPSTAN_SERVE_WORKERS", "0", "invalid value '0'"),
        ] {
            let found = given(&[(name, value), ("CAPSTAN_SERVE_HTTP", "x")]);
            let said_all = refuse(None, found.problems).unwrap_err().to_string();
            assert!(said_all.contains(&format!("\n{name}: ")), "{said_all}");
            assert!(said_all.contains(said), "{said_all}");
            assert!(said_all.contains("\nCAPSTAN_SERVE_HTTP: "), "{said_all}");
        }
    }

    #[test]
    fn a_file_is_not_read_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("capstan.toml");
        let fits = usize::try_from(CONFIG_BYTES_MAX).unwrap();
        std::fs::write(&path, "#".repeat(fits)).unwrap();
        assert_eq!(read(&path, &serve()).unwrap(), Given::default());
        std::fs::write(&path, "#".repeat(fits + 1)).unwrap();
        assert!(read(&path, &serve()).unwrap_err().to_string().contains("longer than"));
        let wrong: String = (0..CONFIG_PROBLEMS_MAX + 3).map(|at| format!("a{at} = 1\n")).collect();
        std::fs::write(&path, wrong).unwrap();
        let problems = read(&path, &serve()).unwrap().problems;
        let said = refuse(Some(&path), problems).unwrap_err().to_string();
        assert!(said.ends_with("and 3 more"), "{said}");
        assert!(read(&folder.path().join("absent"), &serve()).is_err());
    }
}
