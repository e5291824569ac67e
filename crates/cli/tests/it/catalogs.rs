//! Served catalogs: every cell of the built-in catalogs over gRPC, a user's catalog with many
//! capabilities, and the warning about the literal catalog.

mod compare;
mod other_clouds;
mod side_by_side;

use std::collections::BTreeSet;

use capstan_policy::Catalogs;
use capstan_proto::iam::v1 as iam;
use capstan_proto::v1;
use capstan_server::feed::source::Source;
use capstan_testkit::table_2025;
use serde_json::{Value, json};
use tonic::Code;

use crate::common::{InProcess, Serving, capstan, folder, stderr, stdout};

const DEMO: &str = "deploy/quickstart/policy.yaml";
const LITERAL: &str = "chainguard-2025-08-14";
const CORRECTED: &str = "chainguard-2025-08-14+errata";
const OVERVIEW: &str = "chainguard-2023-12-07";

// === Cell by cell ===

/// (role, capability)
type Cells = BTreeSet<(String, String)>;

/// A policy of this catalog with one identity for each role. The identity has the role's name, and is bound
/// to the role at `acme`.
fn one_identity_each(catalog: &Value, roles: &[String]) -> Value {
    let identities = roles.iter().map(|role| json!({"id": role}));
    let bindings =
        roles.iter().map(|role| json!({"identity": role, "role": role, "scope": "acme"}));
    json!({
        "version": 1,
        "catalog": catalog,
        "groups": [{"id": "acme"}],
        "identities": identities.collect::<Vec<_>>(),
        "role_bindings": bindings.collect::<Vec<_>>(),
    })
}

async fn serve(name: &str, policy: &Value) -> InProcess {
    let file = folder(name).join("policy.json");
    std::fs::write(&file, policy.to_string()).unwrap();
    InProcess::start(Source::file(file)).await
}

fn question(identity: &str, capability: &str) -> v1::CheckItem {
    v1::CheckItem {
        identity: identity.into(),
        capability: capability.into(),
        resource: "acme/nginx".into(),
        properties: None,
    }
}

/// Whether checks allow the role's identity each of these capabilities.
async fn decisions(server: &InProcess, role: &str, capabilities: &[String]) -> Vec<bool> {
    let checks = capabilities.iter().map(|capability| question(role, capability)).collect();
    let batch = v1::BatchCheckRequest { checks, consistency: None };
    let answer = server.decisions().batch_check(batch).await.unwrap().into_inner();
    let decided = answer.results.iter().map(|result| {
        assert_eq!(result.error, None);
        let reason =
            if result.allowed { v1::Reason::Granted } else { v1::Reason::CapabilityNotInRole };
        assert_eq!(result.reason(), reason);
        result.allowed
    });
    decided.collect()
}

async fn listed(server: &InProcess, role: &str) -> Vec<String> {
    let request = v1::ListCapabilitiesRequest {
        identity: role.into(),
        resource: "acme/nginx".into(),
        ..Default::default()
    };
    let mut answer = server.decisions().list_capabilities(request).await.unwrap().into_inner();
    assert_eq!(answer.grants.remove(0).role, role);
    assert!(answer.grants.is_empty());
    answer.capabilities
}

/// Serves a built-in catalog, and compares every cell with the answers of BatchCheck, ListCapabilities
/// and ListRoles. Returns the number of cells.
async fn compare_with_served(
    name: &str,
    roles: &[String],
    capabilities: &BTreeSet<String>,
    expected: &Cells,
) -> usize {
    let server = serve(name, &one_identity_each(&json!(name), roles)).await;
    let known = Catalogs::default().get(name).unwrap();
    assert!(known.capabilities().eq(capabilities.iter().map(String::as_str)), "{name}");
    let capabilities: Vec<_> = capabilities.iter().cloned().collect();

    let request = iam::ListRolesRequest::default();
    let served = server.roles().list_roles(request).await.unwrap().into_inner();
    assert_eq!(served.catalog, name);
    let served_names: Vec<_> = served.roles.iter().map(|role| role.id.clone()).collect();
    assert_eq!(served_names, roles);

    let mut compared = 0;
    for role in &served.roles {
        let has = |capability: &String| expected.contains(&(role.id.clone(), capability.clone()));
        let decided = decisions(&server, &role.id, &capabilities).await;
        for (capability, allowed) in capabilities.iter().zip(decided) {
            assert_eq!(allowed, has(capability), "{name}: {} {capability}", role.id);
            compared += 1;
        }
        let whole: Vec<_> = capabilities.iter().filter(|name| has(name)).cloned().collect();
        assert_eq!(role.capabilities, whole, "{name}: {}", role.id);
        assert_eq!(listed(&server, &role.id).await, whole, "{name}: {}", role.id);
    }
    compared
}

const ALL: &[&str] = &["create", "delete", "list", "update"];
const BUT_UPDATE: &[&str] = &["create", "delete", "list"];
const LIST: &[&str] = &["list"];

/// The overview of 2023-12-07, one row for each sentence: role, actions, resources.
#[rustfmt::skip]
const OVERVIEW_SAYS: [(&str, &[&str], &[&str]); 11] = [
    // "An owner can create, delete, view (list), and modify (update) across images, policies,
    // groups, account associations, role bindings, and subscriptions."
    ("owner", ALL, &["images", "policies", "groups", "account_associations"]),
    ("owner", ALL, &["role_bindings", "subscriptions"]),
    // "Additionally, an owner can create, delete, and view clusters and group invites."
    ("owner", BUT_UPDATE, &["clusters", "group_invites"]),
    // "An owner has read-only access to roles and records."
    ("owner", LIST, &["roles", "records"]),

    // "An editor can create, delete, and view images, clusters, role bindings, and subscriptions."
    // Images follow the sentence after the next one, which contradicts this one.
    ("editor", BUT_UPDATE, &["clusters", "role_bindings", "subscriptions"]),
    // "Additionally, an editor can modify role bindings and subscriptions."
    ("editor", &["update"], &["role_bindings", "subscriptions"]),
    // "As opposed to the owner role, an editor can view images, policies, records, groups (and
    // group invites), roles, and account association; but an editor cannot make changes to images,
    // policies, records, groups, roles, and account associations."
    ("editor", LIST, &["images", "policies", "records", "groups", "group_invites", "roles"]),
    ("editor", LIST, &["account_associations"]),
    // "An editor cannot invite users to groups." No row: no `group_invites.create`.

    // "Viewer is a role that generally only has read-only access. That is, a viewer can list
    // images, policies, groups (and group invites), clusters, records, roles and role bindings,
    // subscriptions, and account associations."
    ("viewer", LIST, &["images", "policies", "groups", "group_invites", "clusters", "records"]),
    ("viewer", LIST, &["roles", "role_bindings", "subscriptions", "account_associations"]),

    // "Gulfstream is a role used for Chainguard's proprietary controller infrastructure, also known
    // as Gulfstream." The overview does not list its actions: one opaque capability.
    ("gulfstream", &[], &["gulfstream"]),
];

#[tokio::test]
async fn every_cell_of_the_overview_of_2023_is_served() {
    let mut expected = Cells::new();
    for (role, actions, resources) in OVERVIEW_SAYS {
        for resource in resources {
            for action in actions {
                let cell = (role.to_owned(), format!("{resource}.{action}"));
                assert!(expected.insert(cell), "{role} {resource} {action} twice");
            }
            if actions.is_empty() {
                expected.insert((role.to_owned(), (*resource).to_owned()));
            }
        }
    }
    let count = |of: &str| expected.iter().filter(|(role, _)| role == of).count();
    assert_eq!(["owner", "editor", "viewer", "gulfstream"].map(count), [32, 18, 10, 1]);
    // The actions of a resource are the actions of all roles.
    let capabilities: BTreeSet<_> = expected.iter().map(|(_, name)| name.clone()).collect();
    assert_eq!(capabilities.len(), 33);
    for never in ["clusters.update", "group_invites.update", "roles.create", "records.delete"] {
        assert!(!capabilities.contains(never), "{never}");
    }
    let roles = ["owner", "editor", "viewer", "gulfstream"].map(String::from);
    assert_eq!(compare_with_served(OVERVIEW, &roles, &capabilities, &expected).await, 4 * 33);
}

#[tokio::test]
async fn actions_of_no_role_of_2023_are_unknown_capabilities() {
    let server = serve("absent", &one_identity_each(&json!(OVERVIEW), &["owner".into()])).await;
    let absent = ["clusters.update", "group_invites.update", "roles.update", "gulfstream.list"];
    let checks = absent.map(|capability| question("owner", capability)).to_vec();
    let batch = v1::BatchCheckRequest { checks, consistency: None };
    let answer = server.decisions().batch_check(batch).await.unwrap().into_inner();
    assert_eq!(answer.results.len(), absent.len());
    for result in answer.results {
        assert_eq!(result.error.unwrap().code, i32::from(Code::InvalidArgument));
        assert!(!result.allowed);
    }
}

/// The reference of 2025-08-14 from the testkit's table: roles, capabilities, cells.
fn reference() -> (Vec<String>, BTreeSet<String>, Cells) {
    let table = table_2025();
    let roles = table[0].1.iter().map(|(role, _)| role.clone()).collect();
    let capabilities = table.iter().map(|(capability, _)| capability.clone()).collect();
    let cells = table.iter().flat_map(|(capability, row)| {
        let ticked = row.iter().filter(|(_, has)| *has);
        ticked.map(|(role, _)| (role.clone(), capability.clone()))
    });
    let cells = cells.collect();
    (roles, capabilities, cells)
}

#[tokio::test]
async fn every_cell_of_the_reference_of_2025_is_served() {
    let (roles, capabilities, expected) = reference();
    let compared = compare_with_served(LITERAL, &roles, &capabilities, &expected).await;
    assert_eq!(compared, 12 * 64);
}

/// "For example, the libraries.*.pull_token_creator roles are focused on their respective library
/// ecosystems and don't have container registry access."
#[tokio::test]
async fn every_cell_of_the_overlay_is_served() {
    let (roles, capabilities, mut expected) = reference();
    let before = expected.len();
    let registry = ["manifest.", "manifest.metadata.", "record_signatures.", "repo."];
    expected.retain(|(role, capability)| {
        role != "libraries.javascript.pull_token_creator"
            || !registry.iter().any(|resource| capability.starts_with(resource))
    });
    assert_eq!(before - expected.len(), 10);
    let compared = compare_with_served(CORRECTED, &roles, &capabilities, &expected).await;
    assert_eq!(compared, 12 * 64);
}

// === A wide catalog ===

const ROLES: usize = 2_461;
const CAPABILITIES: usize = 13_790;

/// Zero-padded, so that names and bits have the order of the numbers.
fn capability(at: usize) -> String {
    format!("area.kind{:04}.act{}", at / 10, at % 10)
}

fn role(at: usize) -> String {
    format!("role{at:04}")
}

/// The numbers of a role's capabilities: eight spread over the catalog, for some roles also the first or
/// the last.
fn of_role(role: usize) -> BTreeSet<usize> {
    let strewn = (0..8).map(|step| (role * 31 + step * 977) % CAPABILITIES);
    let first = role.is_multiple_of(3).then_some(0);
    let last = role.is_multiple_of(5).then_some(CAPABILITIES - 1);
    strewn.chain(first).chain(last).collect()
}

fn wide_policy() -> Value {
    let actions: Vec<_> = (0..10).map(|action| format!("act{action}")).collect();
    let resources = (0..CAPABILITIES / 10)
        .map(|kind| json!({"name": format!("area.kind{kind:04}"), "actions": actions}));
    let roles = (0..ROLES).map(|at| {
        let capabilities: Vec<_> = of_role(at).into_iter().map(capability).collect();
        json!({"name": role(at), "capabilities": capabilities})
    });
    let catalog = json!({
        "name": "wide",
        "resources": resources.collect::<Vec<_>>(),
        "roles": roles.collect::<Vec<_>>(),
    });
    one_identity_each(&catalog, &(0..ROLES).map(role).collect::<Vec<_>>())
}

#[tokio::test]
async fn a_wide_catalog_is_served() {
    let server = serve("wide", &wide_policy()).await;

    let (mut pages, mut seen, mut page_token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let request = iam::ListRolesRequest { page_size: 1_000, page_token, ..Default::default() };
        let page = server.roles().list_roles(request).await.unwrap().into_inner();
        assert_eq!((&*page.catalog, page.revision), ("wide", 1));
        pages.push(page.roles.len());
        seen.extend(page.roles);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [1_000, 1_000, 461]);
    for (at, found) in seen.iter().enumerate() {
        let gives: Vec<_> = of_role(at).into_iter().map(capability).collect();
        assert_eq!((&found.id, &found.capabilities), (&role(at), &gives));
    }

    // Both ends of the bit row, both sides of word boundaries, and the capabilities of each role with their
    // neighbours.
    let borders = [0, 1, 63, 64, 65, 8_191, 8_192, 13_759, 13_760, 13_788, 13_789];
    let mut compared = 0;
    for at in (0..ROLES).step_by(47).chain([ROLES - 1]) {
        let gives = of_role(at);
        let beside = gives.iter().flat_map(|at| [at.saturating_sub(1), *at, at + 1]);
        let asked: BTreeSet<_> =
            beside.chain(borders).filter(|asked| *asked < CAPABILITIES).collect();
        let names: Vec<_> = asked.iter().copied().map(capability).collect();
        let decided = decisions(&server, &role(at), &names).await;
        for (asked, allowed) in asked.iter().zip(decided) {
            assert_eq!(allowed, gives.contains(asked), "{} {}", role(at), capability(*asked));
            compared += 1;
        }
        let whole: Vec<_> = gives.into_iter().map(capability).collect();
        assert_eq!(listed(&server, &role(at)).await, whole);
    }
    assert!(compared > 1_500, "{compared}");
    let past = vec![question(&role(0), &capability(CAPABILITIES))];
    let batch = v1::BatchCheckRequest { checks: past, consistency: None };
    let answer = server.decisions().batch_check(batch).await.unwrap().into_inner();
    assert!(answer.results[0].error.is_some());
}

// === The warning about the literal catalog ===

fn json_of(arguments: &[&str]) -> Value {
    let output = capstan(arguments);
    serde_json::from_str(&stdout(&output))
        .unwrap_or_else(|error| panic!("{error}: {} {}", stdout(&output), stderr(&output)))
}

fn warnings(log: &str) -> Vec<String> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let warned = lines.filter(|line| line["level"] == "WARN");
    warned.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn serving_the_literal_catalog_logs_one_warning() {
    const FREE: [&str; 4] = ["--listen", "127.0.0.1:0", "--http", "none"];
    let file = folder("literal").join("policy.yaml");
    std::fs::write(&file, format!("version: 1\ncatalog: {LITERAL}\n")).unwrap();
    let file = file.to_str().unwrap();
    let mut server = Serving::start(&[&["--policy", file], &FREE[..]].concat(), 1);
    // A reload does not repeat the warning, and neither does a new position in the file.
    server.signal("-HUP");
    server.wait_for_log("\"revision\":2");
    let moved = format!("# moved\nversion: 1\ncatalog: {LITERAL}\n");
    std::fs::write(file, moved).unwrap();
    server.signal("-HUP");
    server.wait_for_log("\"revision\":3");
    std::fs::write(file, format!("version: 1\ncatalog: {LITERAL}\n")).unwrap();
    let (_, log) = server.stop("-TERM");
    let [warning] = &warnings(&log)[..] else { panic!("one warning: {log}") };
    for word in [LITERAL, CORRECTED, "libraries.javascript.pull_token_creator", "prose denies"] {
        assert!(warning.contains(word), "{word} in {warning}");
    }
    let (_, log) = Serving::start(&[&["--demo"], &FREE[..]].concat(), 1).stop("-TERM");
    assert_eq!(warnings(&log), [""; 0], "the demo names the overlay");

    let report = json_of(&["policy", "validate", file, DEMO, "-o", "json"]);
    let [literal, demo] = &report["files"].as_array().unwrap()[..] else { panic!("{report}") };
    assert_eq!((&literal["valid"], &literal["error_count"]), (&json!(true), &json!(0)));
    let [found] = &literal["warnings"].as_array().unwrap()[..] else { panic!("{report}") };
    assert_eq!(
        (&found["line"], &found["column"], &found["field"]),
        (&2.into(), &10.into(), &"catalog".into())
    );
    assert!(found["expected"].as_str().unwrap().contains(CORRECTED), "{found}");
    assert_eq!(demo["warnings"], json!([]));
    let text = stdout(&capstan(&["policy", "validate", file]));
    assert_eq!(text.matches("warning").count(), 1, "{text}");

    // `roles list` and `roles compare` print no warning.
    for command in ["list", "compare"] {
        let output = capstan(&["roles", command]);
        assert_eq!(stderr(&output), "");
        assert!(stdout(&output).starts_with("catalog chainguard-2025-08-14\n┌"));
    }
}
