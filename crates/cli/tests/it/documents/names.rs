//! Checks of commands without running them: a shell splits them, with every program replaced by one that only tells
//! its arguments. `capstan` must take the arguments, `cargo` have what they name, and a script exist.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command as Process;
use std::sync::LazyLock;

use serde_json::Value;

use super::blocks::root;
use crate::common::{capstan, stderr, stdout};

/// Options of `cargo` and of test programs that take a value in the next argument.
const WITH_VALUE: [&str; 11] = [
    "-p",
    "--package",
    "--test",
    "--bench",
    "--bin",
    "--example",
    "--features",
    "--target",
    "--test-threads",
    "--config",
    "--binary",
];
/// Programs whose arguments contain another command.
const WRAPPERS: [&str; 2] = ["taskset", "valgrind"];
/// Variables that other programs read.
const FOREIGN_VARIABLES: [&str; 3] = ["LD_PRELOAD", "PROPTEST_CASES", "SHUTTLE_ITERATIONS"];

/// Checks the names in a command.
///
/// # Errors
///
/// What is wrong.
pub(super) fn check(text: &str, folder: &Path) -> Result<(), String> {
    let text = &plain(text);
    let assigned = text.split_whitespace().map_while(assignment);
    for name in assigned.filter(|name| !FOREIGN_VARIABLES.contains(name)) {
        if !sources("").contains(&format!("\"{name}\"")) {
            return Err(format!("nothing reads {name}"));
        }
    }
    let calls = calls(text, folder)?;
    if calls.is_empty() {
        return Err("no program is run".into());
    }
    calls.iter().try_for_each(|call| check_call(call))
}

/// The name of an assignment before a command.
fn assignment(word: &str) -> Option<&str> {
    let (name, _) = word.split_once('=')?;
    let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
    (!name.is_empty() && name.chars().all(is_name)).then_some(name)
}

/// The command with the binary under its plain name, and with paths of programs as words without slashes.
fn plain(text: &str) -> String {
    let text = super::session::plain(text).replace("exec capstan", "capstan");
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let program = words.iter_mut().find(|word| assignment(word).is_none());
    if let Some(program) = program.filter(|program| program.contains('/')) {
        *program = program.replace('/', "%");
    }
    words.join(" ")
}

/// The programs that a command runs, with their arguments.
fn calls(text: &str, folder: &Path) -> Result<Vec<Vec<String>>, String> {
    // One write for a call: those of a pipeline run at once.
    let tell =
        "command_not_found_handle() { local IFS=$'\\037'; printf '%s\\037\\036' \"$*\" >>calls; }";
    // fish's `source` reads standard input.
    let source = "source() { [ $# = 0 ] || . \"$1\"; }";
    let told = folder.join("calls");
    let _ = fs::remove_file(&told);
    let output = Process::new("bash")
        .args(["-c", &format!("PATH=/nowhere\n{tell}\n{source}\n{text}")])
        .current_dir(folder)
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(stderr(&output));
    }
    let told = fs::read_to_string(told).unwrap_or_default();
    let calls = told.split('\x1e').filter(|call| !call.is_empty());
    let words = |call: &str| call.split_terminator('\x1f').map(str::to_owned).collect();
    Ok(calls.map(words).collect())
}

fn check_call(call: &[String]) -> Result<(), String> {
    let [program, arguments @ ..] = call else { return Err("an empty command".into()) };
    let script = program.replace('%', "/");
    match &**program {
        "capstan" => parses(arguments),
        "cargo" => cargo(arguments),
        wrapper if WRAPPERS.contains(&wrapper) => {
            let ours = |word: &String| word == "capstan" || word == "cargo";
            let inner = arguments.iter().position(ours);
            inner.map_or(Ok(()), |at| check_call(&arguments[at..]))
        }
        _ if script != **program && !script.starts_with("venv/") => {
            let found = fs::metadata(root().join(&script));
            let runs = found.is_ok_and(|found| found.permissions().mode() & 0o111 != 0);
            if runs { Ok(()) } else { Err(format!("{script} is no program of the repository")) }
        }
        _ => Ok(()),
    }
}

/// With `--help` at the end, clap reads all arguments before it, and nothing is run.
fn parses(arguments: &[String]) -> Result<(), String> {
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.push("--help");
    let output = capstan(&arguments);
    let is_help = output.status.success() && stdout(&output).contains("Usage: capstan");
    if is_help {
        Ok(())
    } else {
        Err(format!("capstan refuses {arguments:?}: {}", stderr(&output)))
    }
}

/// What `cargo metadata` says.
static METADATA: LazyLock<Value> = LazyLock::new(|| {
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let output = Process::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)))
});

fn cargo(arguments: &[String]) -> Result<(), String> {
    let mut arguments = arguments.iter().map(String::as_str).filter(|word| !word.starts_with('+'));
    let mut command = arguments.next().unwrap_or_default();
    if command == "miri" {
        command = arguments.next().unwrap_or_default();
    }
    let arguments: Vec<&str> = arguments.collect();
    match command {
        "test" | "bench" | "run" | "check" | "build" => targets(command, &arguments),
        "fuzz" => fuzz_target(&arguments),
        "golden" | "lint" => {
            let aliases = fs::read_to_string(root().join(".cargo/config.toml")).unwrap();
            let has = aliases.contains(&format!("\n{command} = "));
            if has { Ok(()) } else { Err(format!("no alias {command}")) }
        }
        "install" => Ok(()),
        other => Err(format!("cargo {other} is not known here")),
    }
}

fn fuzz_target(arguments: &[&str]) -> Result<(), String> {
    let [_, target, ..] = arguments else { return Err("no fuzz target".into()) };
    let file = root().join("fuzz/fuzz_targets").join(target).with_extension("rs");
    let is_known = *target == "TARGET" || file.exists();
    if is_known { Ok(()) } else { Err(format!("no fuzz target {target}")) }
}

/// The package, its targets, and the filters of tests.
fn targets(command: &str, arguments: &[&str]) -> Result<(), String> {
    let value = |option: &str| {
        let at = arguments.iter().position(|word| *word == option);
        at.and_then(|at| arguments.get(at + 1)).copied()
    };
    let package = match value("-p") {
        None => "capstan",
        Some(name) => name,
    };
    let packages = METADATA["packages"].as_array().unwrap();
    let found = packages.iter().find(|found| found["name"] == package);
    let found = found.ok_or_else(|| format!("no package {package}"))?;
    for kind in ["test", "bench", "bin", "example"] {
        let Some(name) = value(&format!("--{kind}")).filter(|name| *name != "…") else {
            continue;
        };
        let mut targets = found["targets"].as_array().unwrap().iter();
        if !targets.any(|target| target["name"] == name && target["kind"][0] == kind) {
            return Err(format!("{package} has no {kind} {name}"));
        }
    }
    if let Some(feature) = value("--features") {
        found["features"].get(feature).ok_or_else(|| format!("no feature {feature}"))?;
    }
    if command != "test" {
        return Ok(());
    }
    // A filter of tests is part of the path of a test: of its modules or of its name.
    let manifest = Path::new(found["manifest_path"].as_str().unwrap());
    let sources = sources(manifest.parent().unwrap().to_str().unwrap());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if WITH_VALUE.contains(word) {
            words.next();
        } else if !word.starts_with('-') {
            let last = word.rsplit("::").next().unwrap();
            let named = sources.lines().filter_map(|line| {
                let line = line.trim_start().trim_start_matches("async ");
                line.strip_prefix("fn ").or_else(|| line.strip_prefix("mod "))
            });
            if !named
                .into_iter()
                .any(|name| name.split(['(', ';', ' ']).next().unwrap().contains(last))
            {
                return Err(format!("{package} has no test {word}"));
            }
        }
    }
    Ok(())
}

/// All Rust files of a folder; of the workspace's crates, if it is empty.
fn sources(folder: &str) -> String {
    let mut folders = if folder.is_empty() {
        vec![root().join("crates"), root().join("benches")]
    } else {
        vec![folder.into()]
    };
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with(".git") {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == "rs") {
                text += &fs::read_to_string(path).unwrap();
            }
        }
    }
    text
}

/// Whether a test has this name.
pub(super) fn is_test(name: &str) -> bool {
    static ALL: LazyLock<String> = LazyLock::new(|| sources(""));
    ALL.contains(&format!("fn {name}("))
}

#[test]
fn wrong_names_in_commands_are_found() {
    let folder = crate::common::folder("documents-names");
    let wrong = [
        ("capstan chekc alice repo.list acme", "unrecognized subcommand"),
        ("target/release/capstan serve --polcy acme.yaml", "unexpected argument"),
        ("cargo run --release -- serve --dem", "unexpected argument"),
        ("taskset -c 1 capstan top --interval nothing", "expected seconds"),
        ("(umask 007; exec capstan serve --listen nowhere:)", "invalid value"),
        ("cargo test -p capstan-nothing", "no package"),
        ("cargo test -p capstan --test units", "no test units"),
        ("cargo bench -p capstan-benches --bench nothing -- --quick", "no bench nothing"),
        ("cargo test -p capstan --test it no_such_test_anywhere -- --nocapture", "has no test"),
        ("CAPSTAN_NOTHING_READS=1 dev/test", "nothing reads"),
        ("dev/no-such-script 60", "is no program"),
        ("cargo +nightly fuzz run nothing", "no fuzz target"),
        ("capstan check 'alice", "unexpected EOF"),
    ];
    // The texts above stand in a source of tests, where filters are looked for.
    for (text, words) in wrong {
        let refused = check(text, &folder);
        assert!(refused.as_ref().is_err_and(|error| error.contains(words)), "{text}: {refused:?}");
    }
    for right in [
        "CAPSTAN_KILLS=50 dev/test -p capstan drain",
        "cargo test --release -p capstan --test it shapes -- --nocapture",
        "capstan check alice repo.list acme && capstan top --once | tail -n 1",
        "cargo +nightly miri test -p capstan-engine --lib prefetch",
    ] {
        assert_eq!(check(right, &folder), Ok(()), "{right}");
    }
}
