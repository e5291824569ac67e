//! `deploy/examples/registry` as its users have it: skopeo and curl, a real Envoy, a real registry.

use std::path::Path;
use std::process::Command;

use crate::common::{folder, golden};

/// Runs a part of the Python program, and answers what it prints.
fn registry(part: &str) -> String {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = workspace.join("target/examples/registry/python/bin/python");
    assert!(
        python.exists(),
        "{} is missing: dev/test installs it and what else is needed, and then runs every test",
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

/// Each of the twelve roles, and two of the policy's own, try everything that there is. The program
/// compares what they could do with what the catalog gives them; the golden table is for people.
#[test]
fn every_role_can_do_what_the_golden_table_says() {
    golden("registry.roles", &registry("roles"));
}

/// The golden file says what became of each trick, and how it was passed on if it was. The program
/// asserts of all that was passed on that its identity may do it.
#[test]
fn no_trick_gets_further_than_the_golden_file_says() {
    let tricks = registry("tricks");
    assert!(tricks.lines().count() >= 40);
    golden("registry.tricks", &tricks);
}

#[test]
fn what_is_over_is_refused_and_nothing_passes_undecided() {
    let report = registry("faults");
    assert_eq!(report.lines().count(), 3, "{report}");
}
