//! Completion in shells: which names are offered, by real shells (`dev/test` installs zsh and fish), and that nothing
//! else is said.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::command_limits::{COMPLETION_CANDIDATES_MAX, COMPLETION_TIME_MAX};
use crate::common::{PATIENCE, Serving, capstan, command, folder, stderr, stdout};

const DEMO: &str = "deploy/quickstart/policy.yaml";
/// No server answers here.
const CLOSED: &str = "http://127.0.0.1:1";
/// Calls the function that the script defines, as Bash does at a TAB.
const TAB: &str = r#"
source <(capstan completions bash) || exit 9
COMP_LINE="$BEFORE$AFTER" COMP_POINT=${#BEFORE}
_capstan
for reply in "${COMPREPLY[@]}"; do printf '%s|\n' "$reply"; done
"#;

/// A command in the root of the workspace, with `capstan` on the path.
fn with_path(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let binary = Path::new(env!("CARGO_BIN_EXE_capstan"));
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new(program);
    command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .env("PATH", format!("{}:{path}", binary.parent().unwrap().display()))
        .env("CAPSTAN_ADDR", CLOSED)
        .env("CAPSTAN_COMPLETE_MS", (1_000 * PATIENCE.as_secs()).to_string());
    command
}

fn tab_at(before: &str, after: &str, addr: &str) -> Vec<String> {
    let output = with_path("bash")
        .args(["--norc", "-c", TAB])
        .envs([("BEFORE", before), ("AFTER", after), ("CAPSTAN_ADDR", addr)])
        .output()
        .unwrap();
    assert_eq!((stderr(&output), output.status.code()), (String::new(), Some(0)), "{before}");
    stdout(&output).lines().map(|line| line.trim_end_matches('|').to_owned()).collect()
}

/// What Bash is offered when TAB is pressed behind this line. A whole and only word has a blank at its end.
fn tab(line: &str) -> Vec<String> {
    tab_at(line, "", CLOSED)
}

/// The names among the candidates: without options.
fn names(candidates: Vec<String>) -> Vec<String> {
    candidates.into_iter().filter(|one| !one.starts_with('-')).collect()
}

#[test]
fn a_policy_file_has_the_names_of_every_argument() {
    let of = |line: &str| tab(&line.replace("P ", &format!("--policy {DEMO} ")));
    assert_eq!(of("capstan check P al"), ["alice "]);
    let platform = ["ci", "images/puller", "images/token-desk", "packages/puller"];
    let platform = platform.map(|name| format!("acme/platform/{name}"));
    assert_eq!(of("capstan check P acme/p"), platform);
    assert_eq!(of("capstan check P ").len(), 15, "every identity, and no option");
    assert_eq!(of("capstan explain P alice manifest.m"), ["manifest.metadata.list "]);
    assert_eq!(
        of("capstan who P repo.list acme/platform/images/n"),
        ["acme/platform/images/nginx "]
    );
    assert_eq!(of("capstan where P bo"), ["bob "]);
    assert_eq!(of("capstan capabilities P bob acme/research/"), ["acme/research/libraries "]);
    assert_eq!(of("capstan roles list P acme"), ["acme/release "]);
    assert_eq!(of("capstan roles diff P editor vi"), ["viewer "]);
    assert_eq!(of("capstan roles compare P editor vi"), ["viewer "]);
    assert_eq!(of("capstan bindings P --identity car"), ["carol "]);
    assert_eq!(of("capstan bindings P --scope acme/research/"), ["acme/research/libraries "]);
    assert_eq!(of("capstan bindings P --role own"), ["owner "]);
    assert_eq!(of("capstan routes test P --identity da"), ["dave "]);
    // The option may be behind the cursor, and the word may go on there.
    let behind = format!("ice repo.list acme --policy {DEMO}");
    assert_eq!(tab_at("capstan check al", &behind, CLOSED), ["alice "]);
}

#[test]
fn built_in_names_need_neither_policy_nor_server() {
    assert_eq!(tab("capstan roles list registry.pull_"), ["registry.pull_token_creator "]);
    assert_eq!(tab("capstan roles list").len(), 1);
    assert_eq!(tab("capstan rol"), ["roles "], "the name of the help, and not its alias");
    assert_eq!(tab("capstan check alice vuln_report."), ["vuln_report.create", "vuln_report.list"]);
    let old = tab("capstan roles list --catalog chainguard-2023-12-07 ");
    assert_eq!(names(old).len(), 4);
    assert_eq!(tab("capstan roles list --catalog chainguard-2023"), ["chainguard-2023-12-07 "]);
    let method = "capstan.iam.v1.PolicyService/SetCatalog";
    assert_eq!(
        tab(&format!("capstan audit list --method {}", &method[..30])),
        [format!("{method} ")]
    );
    assert_eq!(tab("capstan check al"), [""; 0], "nobody knows the identities");
    assert_eq!(tab("capstan che"), ["check "]);
    assert_eq!(tab("capstan check --pol"), ["--policy "]);
    assert_eq!(tab("capstan check --policy deploy/quick"), ["deploy/quickstart/"]);
}

#[test]
fn words_that_bash_divides_are_whole() {
    let file = folder("completion-words").join("my policy.yaml");
    let ids = ["user:ann@example.org", "user:bob@example.org", "a+b=c"];
    let identities: Vec<Value> = ids.iter().map(|id| json!({"id": id})).collect();
    let policy =
        json!({"version": 1, "catalog": "chainguard-2023-12-07", "identities": identities});
    std::fs::write(&file, policy.to_string()).unwrap();
    let policy = format!("--policy='{}'", file.display());
    // Bash replaces only what follows the last `:`, `@` or `=`.
    assert_eq!(tab(&format!("capstan check {policy} user:a")), ["ann@example.org "]);
    assert_eq!(tab(&format!("capstan check {policy} user:ann@ex")), ["example.org "]);
    assert_eq!(tab(&format!("capstan check {policy} a+b=")), ["c "]);
    let both = ["user:ann@example.org", "user:bob@example.org"];
    assert_eq!(tab(&format!("capstan check {policy} us")), both);
    let spaced = file.display().to_string().replace("my policy", "my");
    assert_eq!(
        tab(&format!("capstan check --policy={}", spaced.trim_end_matches(".yaml"))),
        [file.display().to_string().replace(' ', "\\ ") + " "]
    );
}

#[test]
fn a_server_is_asked_for_what_its_calls_list() {
    let server = ["--policy", DEMO, "--listen", "127.0.0.1:0", "--http", "none"];
    let server = Serving::start(&server, 1);
    let addr = format!("http://{}", server.address("grpc"));
    let of = |line: &str| names(tab(&line.replace("S ", &format!("--addr {addr} "))));
    assert_eq!(of("capstan roles list S acme"), ["acme/release "], "custom roles, too");
    assert_eq!(of("capstan check S bob repo.u"), ["repo.update "]);
    assert_eq!(of("capstan check S bob repo.list acme/"), ["acme/platform "]);
    assert_eq!(of("capstan explain S alice repo.list a"), ["acme "]);
    // Without a capability: wherever the identity has any role.
    let ci = ["acme/platform/images", "acme/platform/packages"];
    assert_eq!(of("capstan capabilities S acme/platform/ci "), ci);
    // Who may do what follows? Nobody else is known.
    let after = " repo.delete acme/platform/images";
    let before = format!("capstan check --addr {addr} ");
    assert_eq!(names(tab_at(&before, after, CLOSED)), ["alice "]);
    assert_eq!(of("capstan check S "), [""; 0]);
    assert_eq!(of("capstan who S repo.list "), [""; 0]);
    // The environment names a server, too.
    assert_eq!(tab_at("capstan check bob repo.list ", "", &addr), ["acme/platform "]);
    assert_eq!(tab_at("capstan roles list acme", "", &addr), [""; 0], "as `roles list` itself");
}

/// Who may do something only under conditions is a name, too.
#[test]
fn a_server_lists_conditional_names() {
    let policy = folder("completion-conditional").join("policy.yaml");
    let text = "version: 1\ncatalog: chainguard-2025-08-14+errata\ngroups: [{id: acme}]\nidentities: [{id: eve}]\n\
                role_bindings: [{identity: eve, role: viewer, scope: acme, when: [\n\
                {attribute: context.mfa, equals: true}]}]\n";
    std::fs::write(&policy, text).unwrap();
    let policy = policy.to_str().unwrap();
    let arguments = ["--policy", policy, "--listen", "127.0.0.1:0", "--http", "none"];
    let server = Serving::start(&arguments, 1);
    let addr = format!("http://{}", server.address("grpc"));
    assert_eq!(tab(&format!("capstan check --addr {addr} eve repo.list ")), ["acme "]);
    let before = format!("capstan check --addr {addr} e");
    assert_eq!(tab_at(&before, " repo.list acme", CLOSED), ["eve "]);
}

/// A server that never answers ends the wait after [`COMPLETION_TIME_MAX`], or after another time, without a word.
#[test]
fn a_silent_server_gives_no_candidates_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    let longer = 2 * COMPLETION_TIME_MAX;
    for (words, wait) in [
        (&["capstan", "roles", "list", "--addr", &addr, "own"][..], None),
        (&["capstan", "check", "--addr", &addr, "bob", "repo.l"], None),
        (&["capstan", "check", "--addr", &addr, "bob", "repo.l"], Some(longer)),
    ] {
        let mut command = asks("fish", words);
        match wait {
            Some(wait) => command.env("CAPSTAN_COMPLETE_MS", wait.as_millis().to_string()),
            None => command.env_remove("CAPSTAN_COMPLETE_MS"),
        };
        let start = Instant::now();
        let output = command.output().unwrap();
        let took = start.elapsed();
        assert_eq!((stdout(&output), stderr(&output)), (String::new(), String::new()), "{words:?}");
        let most = wait.unwrap_or(COMPLETION_TIME_MAX);
        assert!(took >= most && took < most + PATIENCE, "{took:?}");
    }
}

#[test]
fn what_is_no_policy_gives_no_candidates_and_no_noise() {
    let folder = folder("completion-noise");
    let (bad, pipe) = (folder.join("bad.yaml"), folder.join("pipe"));
    std::fs::write(&bad, "version: 1\nidentities: [{id: alice}\n").unwrap();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Whatever is in the pipe is for the command that reads it.
    let write = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::File::options().write(true).open(pipe).unwrap()
    });
    for policy in [&bad, &pipe, &folder, &PathBuf::from("-"), &PathBuf::from("no-such-file")] {
        let start = Instant::now();
        for typed in ["al", "alice repo.l", "alice repo.list ac"] {
            let line = format!("capstan check --policy {} {typed}", policy.display());
            assert_eq!(tab(&line), [""; 0], "{line}");
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{}", policy.display());
    }
    assert!(!write.is_finished(), "the pipe was opened");
    drop(std::fs::File::open(&pipe).unwrap());
    write.join().unwrap();
    for addr in ["nonsense:", "https://127.0.0.1:1", CLOSED, "unix:/no/such/socket"] {
        assert_eq!(
            tab(&format!("capstan check --addr {addr} bob repo.list ac")),
            [""; 0],
            "{addr}"
        );
    }
}

#[test]
fn many_names_are_offered_up_to_the_next_slash() {
    let file = folder("completion-many").join("policy.json");
    let teams = ["acme", "acme/a", "acme/b"];
    let people = |team: &str, count: usize| -> Vec<Value> {
        (0..count).map(|at| json!({"id": format!("{team}/p{at:04}")})).collect()
    };
    let write = |of_b: usize| {
        let identities = [people("acme/a", 40), people("acme/b", of_b)].concat();
        let policy = json!({"version": 1, "catalog": "chainguard-2023-12-07",
            "groups": teams.map(|id| json!({"id": id})), "identities": identities});
        std::fs::write(&file, policy.to_string()).unwrap();
    };
    let of = |typed: &str| tab(&format!("capstan check --policy {} {typed}", file.display()));
    write(COMPLETION_CANDIDATES_MAX - 40);
    assert_eq!(of("").len(), COMPLETION_CANDIDATES_MAX, "as many as may be are whole");
    write(COMPLETION_CANDIDATES_MAX - 40 + 1);
    assert_eq!(of(""), ["acme/"]);
    assert_eq!(of("acme/"), ["acme/a/", "acme/b/"]);
    assert_eq!(of("acme/a/").len(), 40);
    write(1_000);
    let tens: Vec<String> = (0..10).map(|at| format!("acme/b/p0{at}")).collect();
    assert_eq!(of("acme/b/"), tens);
    assert_eq!(of("acme/b/p0123"), ["acme/b/p0123 "]);
}

/// How the script of another shell asks.
fn asks(shell: &str, words: &[&str]) -> Command {
    let mut command = with_path(env!("CARGO_BIN_EXE_capstan"));
    let index = (words.len() - 1).to_string();
    command.env("CAPSTAN_COMPLETE", shell).env("_CLAP_COMPLETE_INDEX", index);
    command.arg("--").args(words);
    command
}

fn asked(shell: &str, words: &[&str]) -> Output {
    asks(shell, words).output().unwrap()
}

#[test]
fn every_shell_has_a_script_and_is_answered() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = capstan(&["completions", shell]);
        assert!(script.status.success(), "{shell}: {}", stderr(&script));
        assert!(stdout(&script).contains("CAPSTAN_COMPLETE"), "{shell}");
        assert!(stdout(&script).contains(env!("CARGO_BIN_EXE_capstan")), "{shell}");
    }
    for shell in ["fish", "powershell", "zsh"] {
        let output = asked(shell, &["capstan", "check", "--policy", DEMO, "ali"]);
        assert_eq!((stdout(&output).trim(), &*stderr(&output)), ("alice", ""), "{shell}");
    }
    let unknown = command(&[]).env("CAPSTAN_COMPLETE", "tcsh").output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("unknown shell `tcsh`"), "{}", stderr(&unknown));
    let none = asked("fish", &["capstan", "check", "--policy", "no-such-file", "ali"]);
    assert_eq!((stdout(&none), stderr(&none)), (String::new(), String::new()));
}

/// A command of a shell that `dev/test` installs.
fn shell(name: &str) -> Command {
    let is_there = Command::new(name).args(["-c", "exit 0"]).status().is_ok();
    assert!(
        is_there,
        "{name} is missing: dev/test installs it, and `--without shells` leaves this test out"
    );
    with_path(name)
}

#[test]
fn fish_completes_names() {
    let complete = |line: &str| {
        let script = format!("capstan completions fish | source; complete -C '{line}'");
        let output = shell("fish").args(["--no-config", "-c", &script]).output().unwrap();
        assert_eq!(stderr(&output), "", "{line}");
        stdout(&output).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&format!("capstan check --policy {DEMO} ali")), ["alice"]);
    assert_eq!(complete("capstan roles list registry.pull_"), ["registry.pull_token_creator"]);
    assert_eq!(complete("capstan check --policy no-such-file ali"), [""; 0]);
}

/// The script's own function; what it offers is printed instead of shown.
#[test]
fn zsh_completes_names() {
    let complete = |words: &str| {
        let script = format!(
            "compdef() {{}}\n_describe() {{ print -rl -- \"${{(@P)3}}\" }}\n\
             source <(capstan completions zsh)\nwords=({words}) CURRENT=${{#words}}\n\
             _clap_dynamic_completer_capstan"
        );
        let output = shell("zsh").args(["-f", "-c", &script]).output().unwrap();
        assert_eq!(stderr(&output), "", "{words}");
        stdout(&output).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&format!("capstan check --policy {DEMO} ali")), ["alice"]);
    let copy = folder("completion-zsh").join("my policy.yaml");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(DEMO), &copy).unwrap();
    let quoted = copy.display().to_string().replace(' ', "\\\\\\ ");
    assert_eq!(complete(&format!("capstan check --policy {quoted} ali")), ["alice"]);
    assert_eq!(complete("capstan roles list registry.pull_"), ["registry.pull_token_creator"]);
    assert_eq!(complete("capstan check --policy no-such-file ali"), [""; 0]);
}

/// Keys typed at a prompt of Bash, in a terminal.
#[test]
fn bash_completes_a_command_as_it_is_typed() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = workspace.join("target/python/bin/python");
    assert!(python.exists(), "{} is missing: dev/test installs it", python.display());
    let output = with_path(python)
        .arg("crates/cli/tests/python/typing_keys.py")
        .args([
            "source <(capstan completions bash)\n",
            "alice repo.list at acme/platform  (GRANTED)",
        ])
        .arg(format!("capstan chec\t--pol\t{DEMO} ali\trepo.lis\tacme/pl\t\n"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{} {}", stdout(&output), stderr(&output));
}
