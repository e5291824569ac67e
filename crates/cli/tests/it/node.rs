//! The package of `clients/node`, as npm installs it.

use std::path::Path;
use std::process::Command;

use crate::common::{Serving, folder, stderr, stdout};

/// Its client, and services that it protects.
#[test]
fn the_node_package_asks_and_protects() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (node, installed) =
        (workspace.join("target/webhook/node/node"), workspace.join("target/node"));
    assert!(node.exists() && installed.exists(), "dev/test installs {}", installed.display());
    let unix = format!("unix:{}", folder("node-package").join("grpc.sock").display());
    let listen = ["--listen", "127.0.0.1:0", "--listen", &unix, "--http", "none"];
    let server = Serving::start(&[&["--demo"][..], &listen].concat(), 18);
    let tcp = server.lines.iter().find_map(|line| line.strip_prefix("grpc 127")).unwrap();
    let output = Command::new(node)
        .arg(workspace.join("crates/cli/tests/node/protected.js"))
        .arg(installed.canonicalize().unwrap())
        .args([format!("http://127{tcp}"), unix])
        .arg(workspace.join("crates/client/tests/it"))
        .output()
        .unwrap();
    let (text, errors) = (stdout(&output), stderr(&output));
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("49 answers"), "{text}");
}
