//! `capstan serve --config`, and `capstan config`.

mod files;

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use crate::common::{Serving, capstan, command, folder, stderr, stdout};

struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let files = Self(folder(name));
        std::fs::create_dir_all(&files.0).unwrap();
        std::fs::copy(
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/quickstart/policy.yaml"),
            files.0.join("policy.yaml"),
        )
        .unwrap();
        files
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn write(&self, text: &str) -> String {
        std::fs::write(self.0.join("capstan.toml"), text).unwrap();
        self.path("capstan.toml")
    }
}

fn check(file: &str) -> Output {
    capstan(&["config", "check", file])
}

#[test]
fn options_go_before_the_environment_and_that_before_the_file() {
    let files = Files::new("config-layers");
    let (policy, socket) = (files.path("policy.yaml"), files.path("file.sock"));
    let file = files.write(&format!(
        "policy = {policy:?}\nlisten = [\"unix:{socket}\", \"127.0.0.1:0\"]\nhttp = \"127.0.0.1:0\"\nreflection = true\n"
    ));
    // All of it is the file's.
    let server = Serving::start(&["--config", &file], 3);
    assert_eq!(server.address("grpc"), format!("unix:{socket}"));
    server.address("http");
    let roles =
        capstan(&["check", "alice", "repo.list", "acme", "--addr", &format!("unix:{socket}")]);
    assert_ne!(roles.status.code(), Some(2), "{}", stderr(&roles));
    drop(server);
    // The environment and an option replace a key each, and another source of the policy replaces that of the file.
    let other = files.path("environment.sock");
    let mut served = command(&["serve", "--config", &file, "--http", "none", "--demo"]);
    served.env("CAPSTAN_SERVE_LISTEN", format!("unix:{other} 127.0.0.1:0"));
    served.env("CAPSTAN_SERVE_HTTP", "127.0.0.1:1");
    let server = Serving::spawn(&mut served, 3);
    assert!(server.lines.contains(&format!("grpc unix:{other}")), "{:?}", server.lines);
    assert!(!server.lines.iter().any(|line| line.starts_with("http ")), "{:?}", server.lines);
    server.address("management");
    drop(server);
    // Without a file the environment alone is enough.
    let mut served = command(&["serve"]);
    served.env("CAPSTAN_SERVE_POLICY", &policy).env("CAPSTAN_SERVE_LISTEN", "127.0.0.1:0");
    let server = Serving::spawn(served.env("CAPSTAN_SERVE_HTTP", "none"), 1);
    assert!(server.address("grpc").starts_with("127.0.0.1:"));
}

#[test]
fn a_file_with_problems_starts_nothing_and_tells_them_all() {
    let files = Files::new("config-problems");
    let file = files.write("lsiten = 1\nworkers = \"many\"\ndemo = true\n[tls]\ncert = \"x\"\n");
    for output in [capstan(&["serve", "--config", &file]), check(&file)] {
        assert_eq!(output.status.code(), Some(2));
        let said = stderr(&output);
        for expected in [
            ":1:1: `lsiten` is no option of serve; did you mean `listen`?",
            ":2:11: invalid value 'many'",
            ":4:2: `tls`",
        ] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
        assert!(said.contains("has 3 problems"), "{said}");
    }
    let absent = capstan(&["serve", "--config", &files.path("absent.toml")]);
    assert!(stderr(&absent).contains("absent.toml"), "{}", stderr(&absent));
    let mut wrong = command(&["serve", "--demo"]);
    let wrong = wrong.env("CAPSTAN_SERVE_WORKRES", "2").output().unwrap();
    assert!(stderr(&wrong).contains("did you mean `workers`?"), "{}", stderr(&wrong));
    // What only several options together show.
    let both = files.write("policy = \"a\"\ndata = \"b\"\n");
    for output in [capstan(&["serve", "--config", &both]), check(&both)] {
        assert_eq!(output.status.code(), Some(2));
        let said = format!(":1:1: policy cannot be used with data ({both}:2:1)");
        assert!(stderr(&output).contains(&said), "{}", stderr(&output));
    }
    // Other commands do not look at it.
    let mut other = command(&["roles", "list"]);
    assert!(other.env("CAPSTAN_SERVE_WORKRES", "2").output().unwrap().status.success());
}

#[test]
fn dangerous_settings_are_found() {
    let files = Files::new("config-lint");
    let quiet = files
        .write(&format!("policy = {:?}\nlisten = \"127.0.0.1:0\"\n", files.path("policy.yaml")));
    let output = check(&quiet);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("2 options, nothing dangerous"), "{}", stdout(&output));
    let loud = files.write("demo = true\nlisten = \"0.0.0.0:4480\"\ninsecure-plaintext = true\n");
    let output = check(&loud);
    assert_eq!(output.status.code(), Some(1));
    let said = stdout(&output);
    for expected in [":1:1: demo:", ":2:1: plain-text: 0.0.0.0:4480", ":3:1: insecure-plaintext:"] {
        assert!(said.contains(expected), "{said}");
    }
    let json = capstan(&["config", "check", &loud, "--output", "json"]);
    let json: Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(json["findings"][1]["rule"], "plain-text");
    assert_eq!(
        (&json["findings"][1]["line"], &json["findings"][1]["column"]),
        (&2.into(), &1.into())
    );
    // What is written to begin with has no option set.
    let template = capstan(&["config", "template"]);
    let begun = files.write(&stdout(&template));
    assert!(stderr(&check(&begun)).contains("required"), "{}", stderr(&check(&begun)));
    let begun = files.write(&stdout(&template).replace("#demo = false", "demo = true"));
    assert!(stdout(&check(&begun)).contains("demo"), "{}", stderr(&check(&begun)));
}

/// Who may connect to a unix socket is said with it, and not by the umask.
#[test]
fn a_unix_socket_has_the_mode_and_the_group_that_it_is_given() {
    let files = Files::new("config-sockets");
    let (policy, socket) = (files.path("policy.yaml"), files.path("grpc.sock"));
    let group = std::fs::metadata(&files.0).unwrap().gid();
    let number = group.to_string();
    let fixed = ["--policy", &policy, "--listen", &format!("unix:{socket}"), "--http", "none"];
    for (options, mode) in [
        (&["--socket-mode", "620"][..], 0o620),
        (&["--socket-group", &number], 0o660),
        (&["--socket-mode", "600", "--socket-group", &number], 0o600),
    ] {
        let server = Serving::start(&[&fixed[..], options].concat(), 1);
        let found = std::fs::metadata(&socket).unwrap();
        assert_eq!((found.mode() & 0o777, found.gid()), (mode, group), "{options:?}");
        let addr = format!("unix:{socket}");
        let asked = capstan(&["check", "alice", "repo.list", "acme", "--addr", &addr]);
        assert_ne!(asked.status.code(), Some(2), "{}", stderr(&asked));
        drop(server);
    }
    // By its name: that of root is everywhere.
    let by_name = files.write("socket-group = \"root\"\nsocket-mode = 660\ndemo = true\n");
    assert_eq!(check(&by_name).status.code(), Some(1), "demo alone: {}", stderr(&check(&by_name)));
    for (options, said) in [
        (["--socket-mode", "888"], "expected three octal digits"),
        (["--socket-mode", "100"], "expected three octal digits"),
        (["--socket-mode", "1777"], "expected three octal digits"),
        (["--socket-group", "nobody-has-this-group"], "no group of this name"),
    ] {
        let refused = capstan(&[&["serve"], &fixed[..], &options].concat());
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains(said), "{}", stderr(&refused));
    }
}

/// The callers that a configuration names are read with it, and what is wrong with them is told.
#[test]
fn callers_are_checked_with_the_configuration() {
    let folder = Files::new("config-callers");
    let callers = folder.path("callers.yaml");
    let file = folder.write(&format!("demo = true\ncallers = {callers:?}\n"));
    for (document, code, said) in [
        ("{version: 1, callers: []}", 1, "demo"),
        ("{version: 1, callers: [{name: a, methods: [check]}]}", 2, "callers[0]: found no proof"),
        ("version: 2", 2, "expected the number 1"),
    ] {
        std::fs::write(&callers, document).unwrap();
        let output = check(&file);
        let told = stdout(&output) + &stderr(&output);
        assert_eq!((output.status.code(), told.contains(said)), (Some(code), true), "{told}");
    }
    let both = folder.write(&format!("callers = {callers:?}\ninsecure-open-decisions = true\n"));
    let output = check(&both);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cannot be used with"), "{}", stderr(&output));
}
