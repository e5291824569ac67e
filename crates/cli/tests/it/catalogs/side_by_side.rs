//! `roles compare` and `roles diff`, and their errors for unknown roles.

use serde_json::{Value, json};

use super::{CORRECTED, DEMO, LITERAL, OVERVIEW, json_of};
use crate::common::{Serving, capstan, folder, stderr, stdout};

const COLUMNS: [&str; 6] = [
    "Pull Images",
    "List Tags/Repos",
    "View SBOMs/Diffs",
    "Create IAM Resources",
    "Create Pull Tokens",
    "Libraries Access",
];

/// The roles of a comparison with their marks: `x` or `.` for each column.
fn marks(comparison: &Value) -> Vec<(String, String)> {
    assert_eq!(comparison["columns"], json!(COLUMNS));
    let rows = comparison["roles"].as_array().unwrap().iter().map(|role| {
        assert_eq!(role["marks"].as_object().unwrap().len(), COLUMNS.len());
        let mark = |column: &str| if role["marks"][column].as_bool().unwrap() { 'x' } else { '.' };
        (role["name"].as_str().unwrap().to_owned(), COLUMNS.map(mark).iter().collect())
    });
    rows.collect()
}

const EXPECTED: [(&str, &str); 12] = [
    ("owner", "xxxxxx"),
    ("editor", "xxx..."),
    ("viewer", "xxx..."),
    ("registry.pull", "xxx..."),
    ("registry.pull_token_creator", "xxxxx."),
    ("apk.pull", "......"),
    ("libraries.java.pull", ".....x"),
    ("libraries.java.pull_token_creator", "...xxx"),
    ("libraries.python.pull", ".....x"),
    ("libraries.python.pull_token_creator", "...xxx"),
    ("libraries.javascript.pull", ".....x"),
    ("libraries.javascript.pull_token_creator", "...xxx"),
];

fn owned(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(role, marks)| ((*role).into(), (*marks).into())).collect()
}

#[test]
fn compare_marks_the_uses_of_each_role() {
    let alone = json_of(&["roles", "compare", "-o", "json"]);
    assert_eq!(alone["catalog"], LITERAL);
    assert_eq!(marks(&alone), owned(&EXPECTED));
    for same in
        [&["role", "compare"][..], &["iam", "roles", "compare"], &["iam", "role", "compare"]]
    {
        assert_eq!(json_of(&[same, &["-o", "json"]].concat()), alone);
    }
    let corrected = json_of(&["roles", "compare", "--catalog", CORRECTED, "-o", "json"]);
    assert_eq!(corrected["catalog"], CORRECTED);
    assert_eq!(marks(&corrected), owned(&EXPECTED));

    let table = stdout(&capstan(&["roles", "compare"]));
    assert!(!table.contains('\x1b'), "no colours outside of a terminal");
    for (role, marks) in EXPECTED {
        let row = table.lines().find(|line| line.starts_with(&format!("│ {role} "))).unwrap();
        let shown: String = row.chars().filter(|c| "✔·".contains(*c)).collect();
        assert_eq!(shown, marks.replace('x', "✔").replace('.', "·"), "{table}");
    }
    let header = table.lines().nth(2).unwrap();
    assert!(COLUMNS.iter().all(|column| header.contains(column)), "{header}");
}

#[test]
fn compare_applies_the_same_rules_to_other_catalogs_and_custom_roles() {
    let overview = json_of(&["roles", "compare", "--catalog", OVERVIEW, "-o", "json"]);
    let expected =
        [("owner", "...x.."), ("editor", "...x.."), ("viewer", "......"), ("gulfstream", "......")];
    assert_eq!(marks(&overview), owned(&expected));
    let custom = [&EXPECTED[..], &[("acme/release", "xx....")]].concat();
    let in_process = json_of(&["roles", "compare", "--policy", DEMO, "-o", "json"]);
    assert_eq!(marks(&in_process), owned(&custom));
    assert_eq!(in_process["catalog"], CORRECTED);
    let server = ["--policy", DEMO, "--listen", "127.0.0.1:0", "--http", "none"];
    let server = Serving::start(&server, 1);
    let served = ["roles", "compare", "--addr", &server.address("grpc"), "-o", "json"];
    assert_eq!(json_of(&served), in_process);
    let served = ["roles", "diff", "editor", "viewer", "--addr", &server.address("grpc")];
    assert_eq!(stdout(&capstan(&served)).matches("subscriptions").count(), 1);
}

/// Each set of capabilities gives exactly the marks of its rules.
#[test]
fn each_capability_gives_the_marks_of_its_rule() {
    let kinds = |names: &[&str], action: &str| -> Vec<String> {
        names.iter().map(|name| format!("{name}.{action}")).collect()
    };
    let iam = [
        "groups",
        "group_invites",
        "identity",
        "identity_providers",
        "role_bindings",
        "roles",
        "account_associations",
    ];
    let mut cases: Vec<(Vec<String>, &str)> = vec![
        (kinds(&["manifest", "repo", "tag"], "list"), "xx...."),
        (kinds(&["manifest", "repo"], "list"), "......"),
        (kinds(&["manifest", "tag"], "list"), "......"),
        (kinds(&["repo", "tag"], "list"), ".x...."),
        (kinds(&["repo"], "list"), "......"),
        (kinds(&["sboms"], "list"), "..x..."),
        (kinds(&["identity", "role_bindings"], "create"), "...xx."),
        (kinds(&iam, "list"), "......"),
        (kinds(&["libraries.artifacts", "libraries.entitlements", "apk"], "list"), "......"),
        (kinds(&["manifest", "repo", "tag", "apk", "subscriptions"], "create"), "......"),
    ];
    cases.extend(iam.map(|name| (kinds(&[name], "create"), "...x..")));
    let languages = ["libraries.java", "libraries.python", "libraries.javascript"];
    cases.extend(languages.map(|name| (kinds(&[name], "list"), ".....x")));

    let roles: Vec<_> = cases
        .iter()
        .enumerate()
        .map(|(at, (capabilities, _))| {
            json!({"id": format!("acme/r{at:02}"), "capabilities": capabilities})
        })
        .collect();
    let policy =
        json!({"version": 1, "catalog": CORRECTED, "groups": [{"id": "acme"}], "roles": roles});
    let file = folder("rules").join("policy.json");
    std::fs::write(&file, policy.to_string()).unwrap();
    let found =
        marks(&json_of(&["roles", "compare", "--policy", file.to_str().unwrap(), "-o", "json"]));
    assert_eq!(found.len(), 12 + cases.len());
    for ((capabilities, expected), (_, marks)) in cases.iter().zip(&found[12..]) {
        assert_eq!(marks, expected, "{capabilities:?}");
    }
}

#[test]
fn diff_lists_the_capabilities_of_only_one_role() {
    let diff = |a, b| json_of(&["roles", "diff", a, b, "-o", "json"]);
    assert_eq!(
        diff("libraries.java.pull_token_creator", "libraries.python.pull"),
        json!({
            "catalog": LITERAL,
            "a": "libraries.java.pull_token_creator",
            "b": "libraries.python.pull",
            "only_a": ["groups.list", "identity.create", "libraries.java.list",
                       "role_bindings.create", "roles.list"],
            "only_b": ["libraries.python.list"],
            "both": ["libraries.entitlements.list"],
        })
    );
    let same = diff("viewer", "viewer");
    assert_eq!((&same["only_a"], &same["only_b"]), (&json!([]), &json!([])));
    assert_eq!(same["both"].as_array().unwrap().len(), 22);

    // All pairs: the parts do not overlap, and together they are the capabilities of the two roles.
    let roles = json_of(&["roles", "list", "--catalog", OVERVIEW, "-o", "json"]);
    for a in roles["roles"].as_array().unwrap() {
        for b in roles["roles"].as_array().unwrap() {
            let name = |role: &Value| role["name"].as_str().unwrap().to_owned();
            let (a_name, b_name) = (name(a), name(b));
            let found = ["roles", "diff", &a_name, &b_name, "--catalog", OVERVIEW, "-o", "json"];
            let found = json_of(&found);
            let merged = |part: &str| {
                let names =
                    [&found[part], &found["both"]].map(|all| all.as_array().unwrap().clone());
                let mut names: Vec<_> = names.concat().iter().map(Value::to_string).collect();
                names.sort();
                names
            };
            let gives = |role: &Value| -> Vec<_> {
                role["capabilities"].as_array().unwrap().iter().map(Value::to_string).collect()
            };
            assert_eq!(
                (merged("only_a"), merged("only_b")),
                (gives(a), gives(b)),
                "{a_name} {b_name}"
            );
        }
    }
}

#[test]
fn diff_prints_a_table() {
    let output = capstan(&["roles", "diff", "viewer", "registry.pull_token_creator"]);
    assert_eq!(output.status.code(), Some(0));
    let expected = "\
catalog chainguard-2025-08-14
┌───┬────────────────────────┬─────────┐
│   ┆ resource               ┆ actions │
╞═══╪════════════════════════╪═════════╡
│ - ┆ account_associations   ┆ list    │
│ - ┆ build_report           ┆ list    │
│ - ┆ group_invites          ┆ list    │
│ - ┆ identity               ┆ list    │
│ - ┆ identity_providers     ┆ list    │
│ - ┆ libraries.artifacts    ┆ list    │
│ - ┆ libraries.entitlements ┆ list    │
│ - ┆ registry.entitlements  ┆ list    │
│ - ┆ role_bindings          ┆ list    │
│ - ┆ subscriptions          ┆ list    │
│ - ┆ version                ┆ list    │
│ - ┆ vuln_report            ┆ list    │
│ + ┆ identity               ┆ create  │
│ + ┆ role_bindings          ┆ create  │
└───┴────────────────────────┴─────────┘
- only viewer: 12 capabilities
+ only registry.pull_token_creator: 2 capabilities
  both: 10 capabilities
";
    assert_eq!(stdout(&output), expected);
    let same = stdout(&capstan(&["roles", "diff", "apk.pull", "apk.pull"]));
    assert!(same.ends_with("apk.pull and apk.pull give the same: 2 capabilities\n"), "{same}");
}

#[test]
fn an_unknown_role_is_an_error_with_similar_names() {
    let error = |arguments: &[&str]| {
        let output = capstan(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(stdout(&output), "");
        stderr(&output)
    };
    assert_eq!(
        error(&["roles", "diff", "owner", "edtor"]),
        "error: there is no role `edtor`; did you mean `editor`?\n"
    );
    assert_eq!(
        error(&["roles", "diff", "java.pull", "owner"]),
        "error: there is no role `java.pull`; did you mean `apk.pull` or `libraries.java.pull` or \
         `libraries.java.pull_token_creator`?\n"
    );
    assert_eq!(
        error(&["roles", "list", "x", "--catalog", OVERVIEW]),
        "error: there is no role `x`; there are owner, editor, viewer, gulfstream\n"
    );
    assert_eq!(
        error(&["roles", "diff", "editor", "acme/relaese", "--policy", DEMO]),
        "error: there is no role `acme/relaese`; did you mean `acme/release`?\n"
    );
    let told =
        json_of(&["roles", "diff", "\u{1b}[31m", "editor", "--catalog", OVERVIEW, "-o", "json"]);
    let expected = "there is no role `\\u{1b}[31m`; there are owner, editor, viewer, gulfstream";
    assert_eq!(told, json!({"error": expected}));
}

#[test]
fn help_has_examples_and_the_rules() {
    for command in ["compare", "diff"] {
        let help = stdout(&capstan(&["roles", command, "--help"]));
        assert!(help.contains("Examples:"), "{help}");
    }
    let help = stdout(&capstan(&["roles", "compare", "--help"]));
    assert!(help.contains("  List Tags/Repos       tag.list and repo.list\n"), "{help}");
}
