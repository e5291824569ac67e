//! `policy validate`: similar names, standard input; and the filter of the log.

use std::io::Write as _;
use std::process::Stdio;

use crate::common::{Serving, capstan, command, folder, stderr, stdout};

const DEMO: &str = "deploy/quickstart/policy.yaml";

#[test]
fn misspelt_names_get_suggestions() {
    let file = folder("validate-names").join("policy.yaml");
    let text = "version: 1
catalog: chainguard-2025-08-14+errata
groups: [{id: acme}, {id: acme/platform}, {id: acme/platfrom/x}]
identities: [{id: alice, nmae: Alice}]
roles: [{id: acme/puller, capabilities: [repo.lsit]}]
role_bindings:
- {identity: alcie, role: owner, scope: acme}
- {identity: alice, role: edtor, scope: acme}
- {identity: alice, role: acme/pullr, scope: acme}
- {identity: alice, role: owner, scope: acme/platfom}
";
    std::fs::write(&file, text).unwrap();
    let output = capstan(&["policy", "validate", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let found = stdout(&output);
    for (place, name) in [
        (":3:48: error: groups[2].id:", "acme/platform"),
        (":4:26: error: identities[0]:", "name"),
        (":5:42: error: roles[0].capabilities[0]:", "repo.list"),
        (":7:14: error: role_bindings[0].identity:", "alice"),
        (":8:27: error: role_bindings[1].role:", "editor"),
        (":9:27: error: role_bindings[2].role:", "acme/puller"),
        (":10:41: error: role_bindings[3].scope:", "acme/platform"),
    ] {
        let line = found.lines().find(|line| line.contains(place));
        let line = line.unwrap_or_else(|| panic!("{place} in {found}"));
        assert!(line.contains(&format!("; did you mean `{name}`")), "{line}");
    }
    assert!(found.ends_with("not valid: 7 errors\n"), "{found}");
}

#[test]
fn a_hyphen_is_standard_input_and_one_is_singular() {
    let run = |arguments: &[&str], text: &str| {
        let mut child = command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), stdout(&output) + &stderr(&output))
    };
    let text = "version: 1\ncatalog: chainguard-2025-08-14+errata\ngroups: [{id: acme}]\n\
                identities: [{id: ann}]\nrole_bindings: [{identity: ann, role: owner, scope: acme}]\n";
    let (code, found) = run(&["policy", "validate", "-"], text);
    let expected = "-: valid: 1 group, 0 custom roles, 1 identity, 1 role binding, 0 resources\n";
    assert_eq!((code, &*found), (Some(0), expected));
    let (code, found) = run(&["policy", "validate", "-"], "version: 2\n");
    assert!(found.contains("-:1:10: error: version:"), "{found}");
    assert_eq!(code, Some(2));
    let check = ["check", "ann", "repo.list", "acme", "--policy", "-"];
    assert_eq!(run(&check, text).0, Some(0));
    let tests =
        "tests: [{identity: bob, capability: repo.list, resource: acme/platform, allowed: true}]";
    let (code, found) = run(&["policy", "test", DEMO, "-"], tests);
    assert_eq!((code, &*found), (Some(0), "ok: 1 passed, 0 failed\n"));
}

#[test]
fn the_log_filter_is_documented_and_used() {
    let help = stdout(&capstan(&["serve", "--help"]));
    assert!(help.contains("CAPSTAN_LOG=info,capstan_server=debug"), "{help}");
    let logged = |level: &str| {
        let mut serve = command(&["serve", "--demo", "--listen", "127.0.0.1:0", "--http", "none"]);
        let server = Serving::spawn(serve.env("CAPSTAN_LOG", level), 1);
        server.stop("-TERM").1
    };
    assert_eq!(logged("error"), "");
    assert!(logged("info,capstan_server=debug").contains("\"level\":\"INFO\""));
}

/// Every line but the last begins with a place, which editors follow.
#[test]
fn the_number_of_further_mistakes_has_no_place() {
    let path = folder("validate-many").join("policy.yaml");
    let roles: String = (0..150).map(|at| format!("- {{id: r{at}}}\n")).collect();
    let text = format!("version: 1\ncatalog: chainguard-2025-08-14+errata\nroles:\n{roles}");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let output = capstan(&["check", "a", "repo.list", "b", "--policy", path]);
    let text = stderr(&output);
    let places = text.matches(&format!("{path}:")).count();
    assert!(places == 100 && text.ends_with("\nand 50 more, 150 in all\n"), "{text}");
}
