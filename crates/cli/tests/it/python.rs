//! A client that shares only the schema with Capstan: Python, grpcio, generated stubs.

use std::path::Path;
use std::process::Command;

use crate::common::{Serving, folder, stderr, stdout};

/// A Python program checks every cell of the role table, and the errors of the contract.
#[test]
fn a_python_client_gets_every_cell_of_the_role_table() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = workspace.join("target/python/bin/python");
    assert!(
        python.exists(),
        "{} is missing: dev/test installs it, and then runs every test",
        python.display()
    );
    let folder = folder("python");
    let script = workspace.join("crates/cli/tests/python/client.py");
    let run = |arguments: &[&str]| {
        let output = Command::new(&python).arg(&script).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}\n{errors}");
        text.into_owned()
    };
    let policy = folder.join("policy.json");
    let table = workspace.join("crates/testkit/tables/chainguard-2025-08-14.tsv");
    let (policy, table) = (policy.to_str().unwrap(), table.to_str().unwrap());
    run(&["policy", table, policy]);
    let free = ["--listen", "127.0.0.1:0", "--http", "none"];
    let unix = format!("unix:{}", folder.join("grpc.sock").display());
    let server = Serving::start(&[&["--policy", policy, "--listen", &unix], &free[..]].concat(), 2);
    let tcp = server.lines.iter().find_map(|line| line.strip_prefix("grpc 127")).unwrap();
    let tcp = format!("127{tcp}");
    let protos = workspace.join("proto");
    let (protos, stubs) = (protos.to_str().unwrap(), folder.to_str().unwrap());
    let report = run(&["ask", table, protos, stubs, &tcp, &unix]);
    assert!(report.contains("768 checks, 12 lists, 1 batch"), "{report}");
}

/// The package of `clients/python`, as pip installs it: its client, and services that it protects.
#[test]
fn the_python_package_asks_and_protects() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = folder("python-package");
    let unix = format!("unix:{}", folder.join("grpc.sock").display());
    let server = Serving::start(
        &["--demo", "--listen", "127.0.0.1:0", "--listen", &unix, "--http", "none"],
        18,
    );
    let tcp = server.lines.iter().find_map(|line| line.strip_prefix("grpc 127")).unwrap();
    let output = Command::new(workspace.join("target/python/bin/python"))
        .arg(workspace.join("crates/cli/tests/python/protected.py"))
        .args([format!("http://127{tcp}"), unix])
        .args([workspace.join("proto"), workspace.join("crates/client/tests/it"), folder])
        .output()
        .unwrap();
    let (text, errors) = (stdout(&output), stderr(&output));
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("45 answers"), "{text}");
}
