//! Helpers of the document tests: a small catalog, sample documents, and checks of diagnostics.

#![expect(dead_code, reason = "no test file needs all helpers")]

use std::sync::LazyLock;

use capstan_policy::{Catalogs, Diagnostic, Diagnostics, Policy, load_policy};

/// The built-in catalogs, and a small one named `test`.
pub(crate) static CATALOGS: LazyLock<Catalogs> = LazyLock::new(|| {
    let mut catalogs = Catalogs::default();
    let loaded = catalogs.load(
        b"name: test
resources: [{name: record, actions: [read, write]}]
capabilities: [gulfstream]
roles:
  - {name: reader, capabilities: [record.read]}
  - {name: owner, owner: true, capabilities: [record.read, record.write, gulfstream]}
",
    );
    assert!(loaded.is_ok(), "{loaded:?}");
    catalogs
});

/// Declarations of each kind that others can refer to, in four lines.
pub(crate) const ACME: &str = "groups: [{id: acme}, {id: acme/dev}, {id: other}]
roles: [{id: acme/dev/auditor, capabilities: [record.read]}]
identities: [{id: alice}, {id: acme/ci, type: service}]
resources: [{id: acme/dev/r1, type: record}, {id: loose, type: record}]
";

/// A policy with the catalog `test`. `body` starts at line 3.
pub(crate) fn policy(body: &str) -> String {
    format!("version: 1\ncatalog: test\n{body}")
}

/// Loads a policy.
pub(crate) fn load(document: impl AsRef<[u8]>) -> Result<Policy, Diagnostics> {
    load_policy(document.as_ref(), &CATALOGS)
}

/// The facts of a policy, which must load, as text.
pub(crate) fn facts(document: impl AsRef<[u8]>) -> String {
    let loaded = load(document);
    assert!(loaded.is_ok(), "{loaded:?}");
    loaded.map_or_else(|_| String::new(), |policy| format!("{:#?}", policy.model.facts()))
}

/// Loads a policy, and expects exactly these diagnostics.
pub(crate) fn check(document: impl AsRef<[u8]>, expected: &[&str]) {
    check_loaded(&document, &load(&document), expected);
}

/// As [`check`], for a policy of [`ACME`] and `more`, which starts at line 7.
pub(crate) fn check_acme(more: &str, expected: &[&str]) {
    check(policy(&format!("{ACME}{more}")), expected);
}

/// Expects exactly these diagnostics. Each that quotes the document must have the position of the
/// quoted text.
pub(crate) fn check_loaded<T>(
    document: impl AsRef<[u8]>,
    loaded: &Result<T, Diagnostics>,
    expected: &[&str],
) {
    let text = String::from_utf8_lossy(document.as_ref());
    assert_eq!(lines(loaded), expected, "{text}");
    for diagnostic in loaded.as_ref().err().into_iter().flat_map(Diagnostics::iter) {
        assert!(points_at_what_it_found(&text, diagnostic), "{diagnostic}\n{text}");
    }
}

/// The diagnostics without their suggestions, one line each; empty if the document loaded. Suggestions have their
/// own test (`crates/cli/tests/it/cli/validate.rs`).
pub(crate) fn lines<T>(loaded: &Result<T, Diagnostics>) -> Vec<String> {
    let Err(diagnostics) = loaded else {
        return Vec::new();
    };
    assert!(!diagnostics.is_empty(), "refused without a diagnostic");
    let line = |diagnostic: &Diagnostic| {
        let text = diagnostic.to_string();
        text.split("; did you mean `").next().unwrap_or_default().to_owned()
    };
    diagnostics.iter().map(line).collect()
}

/// Whether a diagnostic that quotes the document has the position of the quoted text.
fn points_at_what_it_found(document: &str, diagnostic: &Diagnostic) -> bool {
    let found = diagnostic.found.as_str();
    let partly = ["no `", "parent `", "role `", "capability `", "unexpected character"];
    if partly.iter().any(|start| found.starts_with(start)) {
        return true; // quotes a missing text, or a part of a scalar
    }
    let Some(piece) = found.split('`').nth(1) else {
        return true; // quotes nothing
    };
    let piece = piece.split(['\\', '…']).next().unwrap_or_default();
    let document = document.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let line = document.split(['\n', '\r']).nth(diagnostic.line - 1).unwrap_or_default();
    let rest: String = line.chars().skip(diagnostic.column - 1).collect();
    let rest = rest.trim_start_matches(['"', '\'']);
    if rest.contains('\\') {
        return true; // escaped in the document
    }
    let action = piece.rsplit('.').next().unwrap_or_default();
    // A scalar of several lines is quoted with blanks for its line ends.
    rest.starts_with(piece)
        || !rest.is_empty() && piece.starts_with(rest.trim_end())
        || found.ends_with("` again") && rest.starts_with(action)
}

/// The same policy in YAML and in JSON.
pub(crate) const YAML: &str = r#"# The same in two notations.
version: 1
catalog: test
groups:
  - id: acme
    name: 'it''s ü 😀'
  - {id: acme/dev, name: a/b}
roles:
  - id: acme/dev/auditor
    capabilities: [record.read]
identities:
  - id: alice
    properties: {on: true, level: -7, big: 9007199254740991, text: "1\\2\"3", a b: ''}
role_bindings:
  - identity: alice
    role: owner
    scope: acme
    expires_at: 2027-01-01T00:00:00Z
    when: [{attribute: resource.status, not_equals: archived}]
resources: []
"#;
pub(crate) const JSON: &str = r#"{
	"version": 1,
	"catalog": "test",
	"groups": [
		{"id": "acme", "name": "it's \u00fc \uD83D\uDE00"},
		{"id": "acme\/dev", "name": "a\/b"}
	],
	"roles": [{"id": "acme/dev/auditor", "capabilities": ["record.read"]}],
	"identities": [
		{ "id" : "alice" , "properties" : {
			"on": true, "level": -7, "big": 9.007199254740991e15, "text": "1\\2\"3", "a b": ""
		} }
	],
	"role_bindings": [{
		"identity": "alice",
		"role": "owner",
		"scope": "acme",
		"expires_at": "2027-01-01T00:00:00Z",
		"when": [{"attribute": "resource.status", "not_equals": "archived"}]
	}],
	"resources": [ ]
}
"#;
