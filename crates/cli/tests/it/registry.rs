//! `deploy/examples/registry` with a real Envoy, a real registry, and real clients.

use std::path::Path;
use std::process::Command;

use crate::common::{folder, golden};

/// Runs a part of the Python program. Returns its output.
fn registry(part: &str) -> String {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = workspace.join("target/examples/registry/python/bin/python");
    assert!(
        python.exists(),
        "{} is missing: dev/test installs it with the other tools, and then runs every test",
        python.display()
    );
    let output = Command::new(&python)
        .arg(workspace.join("crates/cli/tests/python/registry"))
        .arg(part)
        .arg(folder(&format!("registry-{part}")))
        .arg(env!("CARGO_BIN_EXE_capstan"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The twelve built-in roles and two custom roles try every kind of request. The program compares the
/// outcomes with the catalog. The golden file is for reviewers.
#[test]
fn permissions_of_every_role_match_the_golden_file() {
    golden("registry.roles", &registry("roles"));
}

/// The golden file has the outcome of each evasion, and the request that Envoy forwarded, if any. The
/// program asserts that the policy allows every forwarded request.
#[test]
fn outcomes_of_evasions_match_the_golden_file() {
    let tricks = registry("tricks");
    assert!(tricks.lines().count() >= 40);
    golden("registry.tricks", &tricks);
}

/// Real package managers install what the identity may read. The golden file says what the others see, and
/// how the clients spell the paths.
#[test]
fn package_managers_match_the_golden_file() {
    golden("registry.clients", &registry("clients"));
}

/// Real container tools pull and push what the identity may. The golden file says what the others see.
/// containerd and dockerd need root; `dev/test` leaves this test out for other users.
#[test]
fn container_tools_match_the_golden_file() {
    golden("registry.containers", &registry("containers"));
}

/// With both settings of Envoy that let an encoded slash through, every generated spelling that reaches
/// an upstream is one that its canonical form has.
#[test]
fn spellings_reach_the_upstream_as_their_canonical_form() {
    let report = registry("spellings");
    assert_eq!(report.lines().count(), 2, "{report}");
}

/// A pull token that the command line makes logs the real skopeo in, until it is revoked.
#[test]
fn a_pull_token_of_a_store_logs_in_until_it_is_revoked() {
    let report = registry("tokens");
    assert_eq!(report.lines().count(), 7, "{report}");
}

#[test]
fn revoked_access_is_refused_and_no_request_passes_without_a_decision() {
    let report = registry("faults");
    assert_eq!(report.lines().count(), 4, "{report}");
}
