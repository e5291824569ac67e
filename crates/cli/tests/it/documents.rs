//! Every command and document of README.md and docs/ is run or read as it is written there.
//!
//! ```text
//! Markdown ─▶ blocks ─▶ commands ─┬─▶ names: arguments, packages, tests, scripts exist
//!                                 └─▶ session: runs, or stands in the table of exempt.rs
//! ```
//!
//! A command that is neither run nor exempt fails here, and so does an exemption that no document needs.

mod blocks;
mod claims;
mod exempt;
mod names;
mod session;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use capstan_policy::{Catalogs, load_callers, load_policy, load_policy_tests, load_routes};

use crate::common::{InProcess, folder, stderr, stdout};
use blocks::{Block, Command, blocks, matches, prose, read, root};
use capstan_server::feed::source::Source;
use exempt::{BLOCKS, COMMANDS, Exempt, PARTS, Part};
use session::Session;

/// Documents outside of `docs/`.
const OTHERS: [&str; 5] = [
    "README.md",
    "CONTRIBUTING.md",
    "deploy/examples/registry/README.md",
    "deploy/examples/webhook/README.md",
    "deploy/kubernetes/README.md",
];
const REGISTRY: &str = "deploy/examples/registry";

/// Files that a reader has: document, file, and where its text is.
const FILES: &[(&str, &str, From)] = &[
    ("README.md", "acme.yaml", From::Block("README.md", "`acme.yaml`:")),
    ("README.md", "old.yaml", From::Block("README.md", "`acme.yaml`:")),
    ("README.md", "new.yaml", From::File("deploy/quickstart/policy.yaml")),
    ("docs/OPERATING.md", "acme.yaml", From::Block("README.md", "`acme.yaml`:")),
    ("docs/ENVOY.md", "acme.yaml", From::File("deploy/examples/registry/policy.yaml")),
    ("docs/ENVOY.md", "routes.yaml", From::File("deploy/examples/registry/routes.yaml")),
    (
        "docs/HARDENING.md",
        "capstan.toml",
        From::Block("docs/HARDENING.md", "mean and their defaults."),
    ),
    ("docs/MANAGING.md", "bindings.ndjson", From::Block("docs/MANAGING.md", "`bindings.ndjson`:")),
    ("docs/PERFORMANCE.md", "W.json", From::Output("capstan bench generate W")),
];

enum From {
    /// The block that this line introduces in that document.
    Block(&'static str, &'static str),
    File(&'static str),
    Output(&'static str),
}

/// Servers that a reader has when a command is typed: document, how the command begins, and the server.
const SERVERS: &[(&str, &str, &str)] = &[(
    "README.md",
    "target/release/capstan bench --addr unix:",
    "capstan serve --policy acme.yaml --listen unix:/run/capstan.sock",
)];

fn documents() -> Vec<&'static str> {
    let mut found: Vec<&'static str> = OTHERS.to_vec();
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let names = docs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names = names.filter(|name| name.ends_with(".md"));
    found.extend(names.map(|name| &*format!("docs/{name}").leak()));
    found.sort_unstable();
    assert!(found.len() >= 10, "{found:?}");
    found
}

fn commands(document: &'static str) -> Vec<Command> {
    let shells = blocks(document).into_iter().filter(Block::is_shell);
    shells.flat_map(|block| block.commands(document)).collect()
}

fn exempts(command: &Command) -> Option<&'static Exempt> {
    let of = |exempt: &&Exempt| {
        exempt.document == command.document && command.text.starts_with(exempt.begins)
    };
    COMMANDS.iter().find(of)
}

/// The block of a document that this line introduces.
fn introduced(document: &str, line: &str) -> String {
    let found = blocks(document).into_iter().find(|block| block.introduced_by == line);
    found.unwrap_or_else(|| panic!("{document}: no block after {line:?}")).text
}

#[test]
fn every_command_is_run_as_written_and_shows_what_is_shown() {
    let (mut run, mut wrong) = (0, Vec::new());
    for document in documents() {
        let mut session = Session::new(document);
        for (_, file, from) in FILES.iter().filter(|(of, ..)| *of == document) {
            let text = match from {
                From::Block(document, line) => introduced(document, line),
                From::File(path) => read(path),
                From::Output(command) => {
                    let output = session.output(command);
                    assert!(output.status.success(), "{command}: {}", stderr(&output));
                    stdout(&output)
                }
            };
            fs::write(session.folder().join(file), text).unwrap();
        }
        if document == "README.md" {
            // `python3 -m venv venv`, with what `pip install` installs.
            let python = root().join("target/python");
            assert!(python.exists(), "{} is missing: dev/test makes it", python.display());
            symlink(fs::canonicalize(python).unwrap(), session.folder().join("venv")).unwrap();
        }
        for block in blocks(document) {
            if document == "README.md" && block.language == "python" {
                wrong.extend(run_python(&session, &block).err());
            }
            if !block.is_shell() {
                continue;
            }
            let commands = block.commands(document).into_iter();
            for command in commands.filter(|command| exempts(command).is_none()) {
                let needed = SERVERS
                    .iter()
                    .find(|(of, begins, _)| *of == document && command.text.starts_with(begins));
                if let Some((.., server)) = needed {
                    session.serve(server).unwrap();
                }
                wrong.extend(session.run(&command).err());
                run += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(run >= 25, "{run} commands were run");
}

/// The block prints what its last comment says.
fn run_python(session: &Session, block: &Block) -> Result<(), String> {
    let (_, shown) = block.text.trim_end().rsplit_once("# ").unwrap();
    fs::write(session.folder().join("asks.py"), session.at_free_addresses(&block.text)).unwrap();
    let output = session.output("venv/bin/python asks.py");
    let said = stdout(&output);
    if matches(shown, &said) {
        return Ok(());
    }
    Err(format!("README.md:{}: shown {shown:?}, found {said:?} {}", block.line, stderr(&output)))
}

/// The block of the README, as [`asks_like_the_readme`] has it.
#[tokio::test]
async fn the_rust_of_the_readme_compiles_and_prints_what_it_says() {
    let block = blocks("README.md").into_iter().find(|block| block.language == "rust").unwrap();
    let code: String = block.text.lines().map(|line| line.split("  //").next().unwrap()).collect();
    let code = code.replace("\"http://127.0.0.1:4480\"", "address");
    let code = code.replace("println!", "Ok(format!").replace("reason);", "reason))");
    let words = |text: &str| text.split_whitespace().collect::<String>();
    let ours = read("crates/cli/tests/it/documents.rs");
    assert!(words(&ours).contains(&words(&code)), "{code}\nis not what asks_like_the_readme has");
    let shown = block.text.trim_end().rsplit_once("// ").unwrap().1;
    let server = InProcess::start(Source::Demo).await;
    let said = asks_like_the_readme(&format!("http://{}", server.grpc)).await.unwrap();
    assert_eq!(said, shown);
}

async fn asks_like_the_readme(address: &str) -> anyhow::Result<String> {
    use capstan_client::{Check, Client};

    let client = Client::connect(address)?;
    let check = Check::new("bob", "repo.list", "acme/platform/images/nginx");
    let decision = client.check(check).await?;
    Ok(format!("{} {:?}", decision.allowed, decision.reason))
}

/// Of run and of exempt commands, and of those within sentences.
#[test]
fn every_command_names_what_exists() {
    let folder = folder("documents-checked");
    let mut wrong = Vec::new();
    for document in documents() {
        for command in commands(document) {
            if let Err(error) = names::check(&command.text, &folder) {
                wrong.push(format!("{}: {error}", command.place()));
            }
        }
        for span in spans(document) {
            if let Err(error) = names::check(&span, &folder) {
                wrong.push(format!("{document}: `{span}`: {error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The commands of `capstan` and `cargo`, and scripts, in backticks. `…` stands for anything.
fn spans(document: &str) -> Vec<String> {
    let prose = prose(document).replace('\n', " ");
    let spans = prose.split('`').skip(1).step_by(2).filter(|span| {
        let begins = |word: &&str| span.starts_with(word);
        ["capstan ", "cargo ", "dev/", ".ci/", "target/release/capstan "].iter().any(begins)
    });
    spans
        .map(|span| span.replace(" …", "").replace(" W | big-W", " W").replace("...", ""))
        .collect()
}

#[test]
fn no_exemption_is_stale() {
    let commands: Vec<Command> = documents().into_iter().flat_map(commands).collect();
    for Exempt { document, begins, why, instead } in COMMANDS {
        let used = commands
            .iter()
            .filter_map(exempts)
            .any(|used| used.document == *document && used.begins == *begins);
        assert!(used, "{document} has no command {begins:?}");
        assert!(!why.is_empty(), "{document}: {begins}");
        if let Some(test) = instead {
            assert!(names::is_test(test), "{document}: {begins}: no test {test}");
        }
    }
    for (document, begins, _) in SERVERS {
        let is_used =
            |command: &Command| command.document == *document && command.text.starts_with(begins);
        assert!(commands.iter().any(is_used), "{document} has no command {begins:?}");
    }
    for (document, file, _) in FILES {
        assert!(commands_of(document).contains(file), "{document} has no command with {file}");
    }
    for (document, language, _) in BLOCKS {
        let is_used = |block: &Block| block.language == *language;
        assert!(blocks(document).iter().any(is_used), "{document} has no block of {language:?}");
    }
}

fn commands_of(document: &'static str) -> String {
    commands(document).into_iter().map(|command| command.text + "\n").collect()
}

/// Every block is run, or a whole document of some kind, or exempt.
#[test]
fn every_block_is_run_or_read() {
    let mut unused: BTreeSet<&str> = PARTS.iter().map(|(_, line, _)| *line).collect();
    for document in documents() {
        for block in blocks(document) {
            let place = format!("{document}:{}", block.line);
            let exempt = |(of, language, _): &&(&str, &str, &str)| {
                *of == document && *language == block.language
            };
            if BLOCKS.iter().any(|one| exempt(&one)) || block.is_shell() {
                continue;
            }
            match &*block.language {
                "yaml" => {
                    let first = block.text.lines().next().unwrap();
                    let part = PARTS.iter().find(|(of, line, _)| *of == document && *line == first);
                    unused.remove(first);
                    assert!(
                        is_read(&block.text, part.map(|(.., part)| part)),
                        "{place}: no document"
                    );
                }
                // The tests above run them.
                "python" | "rust" if document == "README.md" => {}
                other => panic!("{place}: a block of {other:?} is neither run nor exempt"),
            }
        }
    }
    assert_eq!(unused, BTreeSet::new());
}

/// Whether the reader of some kind of document accepts the block.
fn is_read(text: &str, part: Option<&Part>) -> bool {
    const HEAD: &str = "version: 1\ncatalog: chainguard-2025-08-14+errata\n";
    let text = match part {
        None => text.to_owned(),
        Some(Part::Catalog) => format!("{text}catalog: chainguard-2025-08-14+errata\n"),
        Some(Part::Policy) => {
            format!("{HEAD}groups: [{{id: acme}}]\nidentities: [{{id: acme/ci}}]\n{text}")
        }
        Some(Part::Envoy) => return true,
    };
    let text = text.as_bytes();
    load_policy(text, &Catalogs::default()).is_ok()
        || Catalogs::default().load(text).is_ok()
        || load_routes(text).is_ok()
        || load_callers(text).is_ok()
        || load_policy_tests(text).is_ok()
}

/// The custom role of README's policy can pull an image by its tag, as its description says.
#[test]
fn the_puller_of_the_readme_can_pull_by_tag() {
    let policy = introduced("README.md", "`acme.yaml`:");
    let at_images = policy.replace("acme/platform", "acme/images").replace("2027-", "2127-");
    let file = folder("documents-puller").join("acme.yaml");
    fs::write(&file, at_images).unwrap();
    let request = |method: &str, url: &str| {
        let file = file.to_str().unwrap();
        let routes = format!("{REGISTRY}/routes.yaml");
        let arguments = ["routes", "test", "--routes", &routes, "--policy", file, "--identity"];
        let output = crate::common::capstan(&[&arguments[..], &["acme/ci", method, url]].concat());
        output.status.code()
    };
    assert_eq!(request("GET", "http://r.example/v2/web/manifests/latest"), Some(0));
    assert_eq!(request("DELETE", "http://r.example/v2/web/manifests/latest"), Some(1));
}
