//! `capstan routes`: the route of a request and its requirements, as text and as JSON, and what is wrong with a table.

use serde_json::json;

use crate::common::{capstan, command, folder, stderr, stdout};

const ROUTES: &str = "version: 1
routes:
- {name: base, methods: [GET], path: /v2/, authenticated: true}
- {name: tags, hosts: [r.example], methods: [GET], path: '/v2/{r...}/tags', require: [
    {capability: repo.list, resource: 'acme/platform/{r}'}, {capability: tag.list, resource: 'acme/platform/{r}'}]}
- {name: push, methods: [PUT], path: '/v2/{r...}/{tag}', where: {tag: tag}, require: [
    {capability: repo.update, resource: 'acme/platform/{r}'}]}
- {name: copy, methods: [PUT], path: '/v2/{r...}/{tag}', query: [{name: from, as: s}], if_denied_remove: [from],
   where: {tag: tag}, require: [{capability: repo.update, resource: 'acme/platform/{s}'}]}
- {name: call, grpc: my.pkg.Service/Method, authenticated: true}
";
const DEMO: &str = "deploy/quickstart/policy.yaml";

const MISSPELT: &str = "- {name: misspelt, methods: [GET], path: /misspelt, require: [
    {capability: repo.lsit, resource: acme}]}\n";

/// The exit code and the output.
fn test(name: &str, arguments: &[&str]) -> (Option<i32>, String) {
    test_of(name, ROUTES, arguments)
}

fn test_of(name: &str, table: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let routes = folder(name).join("routes.yaml");
    std::fs::write(&routes, table).unwrap();
    let command = ["routes", "test", "--routes", routes.to_str().unwrap()];
    let output = capstan(&[&command[..], arguments].concat());
    (output.status.code(), stdout(&output) + &stderr(&output))
}

fn test_json(name: &str, arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
    let (code, text) = test(name, &[arguments, &["--output", "json"]].concat());
    (code, serde_json::from_str(&text).unwrap())
}

#[test]
fn a_route_is_printed_with_its_requirements() {
    let (code, text) = test("routes-shown", &["GET", "http://r.example:80/v2/a/b/tags?n=1"]);
    let expected = "route tags
  {r} = a/b
requires repo.list at acme/platform/a/b
requires tag.list at acme/platform/a/b
";
    assert_eq!((code, &*text), (Some(0), expected));
    let (code, json) = test_json("routes-json", &["GET", "https://R.example/v2/a/b/tags"]);
    let requires = |capability| json!({"capability": capability, "resource": "acme/platform/a/b"});
    let expected = json!({
        "route": "tags",
        "values": [{"name": "r", "value": "a/b"}],
        "requires": [requires("repo.list"), requires("tag.list")],
    });
    assert_eq!((code, json), (Some(0), expected));
    let (code, text) = test("routes-any", &["GET", "/v2/"]);
    assert_eq!((code, &*text), (Some(0), "route base\nrequires any identity\n"));
    let grpc = ["--content-type", "application/grpc", "POST", "/my.pkg.Service/Method"];
    assert_eq!(test("routes-grpc", &grpc).0, Some(0));
}

#[test]
fn a_refusal_is_printed_with_its_cause() {
    for (arguments, why) in [
        (&["GET", "/v2/a/tags"][..], "no route"), // the route is for another host
        (&["DELETE", "http://r.example/v2/a/tags"], "no route"),
        (&["GET", "http://r.example"], "no route"),
        (&["POST", "/my.pkg.Service/Method"], "no route"),
        (&["--content-type", "multipart/form-data", "GET", "/v2/"], "the route takes no forms"),
        (&["TRACE", "/v2/"], "the method is none of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        (&["GET", "http:///v2/"], "a host is missing or malformed"),
        (&["GET", "/v2/?a=%"], "the query is not canonical"),
    ] {
        let (code, text) = test("routes-none", arguments);
        assert_eq!((code, &*text), (Some(1), &*format!("refused: {why}\n")), "{arguments:?}");
    }
    let (code, json) = test_json("routes-none-json", &["GET", "/v2/%2e%2e/"]);
    assert_eq!((code, &json["route"]), (Some(1), &serde_json::Value::Null));
    assert!(json["refused"].as_str().unwrap().starts_with("the path is not canonical"));
}

#[test]
fn with_a_policy_the_decision_is_printed() {
    let ask = |identity: &'static str, request: [&'static str; 2]| {
        let who = ["--policy", DEMO, "--identity", identity];
        [&who[..], &request].concat()
    };
    let tags = ["GET", "http://r.example/v2/images/tags"];
    let (code, text) = test("routes-may", &ask("alice", tags));
    let expected = "route tags
  {r} = images
requires repo.list at acme/platform/images: GRANTED
requires tag.list at acme/platform/images: GRANTED
allowed
";
    assert_eq!((code, &*text), (Some(0), expected));
    let (code, json) = test_json("routes-may-json", &ask("nobody", tags));
    assert_eq!((code, &json["allowed"]), (Some(1), &json!(false)));
    assert_eq!(json["requires"][1]["reason"], "UNKNOWN_IDENTITY");
    assert_eq!(json["requires"][1]["allowed"], false);
    let misspelt = format!("{ROUTES}{MISSPELT}");
    let asked = ask("alice", ["GET", "/misspelt"]);
    let (code, text) = test_of("routes-misspelt", &misspelt, &asked);
    assert_eq!(code, Some(1));
    assert!(text.contains("requires repo.lsit at acme: UNKNOWN_CAPABILITY\ndenied\n"), "{text}");
    let (code, text) = test("routes-nopath", &ask("alice", ["PUT", "/v2/a*b/1.0"]));
    assert_eq!(code, Some(1));
    assert!(text.contains("requires repo.update at (no path): MALFORMED_RESOURCE\n"), "{text}");
    let (code, json) =
        test_json("routes-without", &ask("alice", ["PUT", "/v2/images/1.0?from=.."]));
    let expected = (Some(0), &json!("push"), &json!(["from"]), &json!(true));
    assert_eq!((code, &json["route"], &json["removes"], &json["allowed"]), expected);
    let (code, text) = test("routes-without", &ask("alice", ["PUT", "/v2/images/1.0?from=.."]));
    let expected = "route push\nwithout the query parameters from, which Envoy removes\n";
    assert!(code == Some(0) && text.starts_with(expected), "{text}");
    let (code, text) = test("routes-without", &ask("nobody", ["PUT", "/v2/images/1.0?from=.."]));
    assert!(code == Some(1) && text.starts_with("route copy\n"), "{text}");
    let (code, json) = test_json("routes-any-may", &ask("nobody", ["GET", "/v2/"]));
    assert_eq!((code, &json["allowed"]), (Some(0), &json!(true)));
    let (code, json) = test_json("routes-none-may", &ask("alice", ["GET", "/nowhere"]));
    assert_eq!((code, &json["allowed"]), (Some(1), &json!(false)));
}

#[test]
fn invalid_arguments_are_errors() {
    for (arguments, error) in [
        (&["GET", "r.example/v2/"][..], "`r.example/v2/` is neither http://HOST/PATH nor /PATH"),
        (
            &["--policy", "nowhere.yaml", "--identity", "a", "GET", "/v2/"],
            "cannot read nowhere.yaml",
        ),
        (&["--identity", "a", "GET", "/v2/"], "--policy <FILE>"),
        (&["--policy", DEMO, "GET", "/v2/"], "--identity <IDENTITY>"),
        (
            &["--policy", DEMO, "--identity", "//", "GET", "http://r.example/v2/a/tags"],
            "identity: segment 1 is empty",
        ),
        // Neither a route that requires no capability nor a refusal hides a malformed identity.
        (&["--policy", DEMO, "--identity", "a//b", "GET", "/v2/"], "identity: segment 2 is empty"),
        (
            &["--policy", DEMO, "--identity", "a b", "GET", "/nowhere"],
            "identity: character ' ' in segment 1",
        ),
        (&["GET"], "<URL>"),
    ] {
        let (code, text) = test("routes-errors", arguments);
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(text.contains(error), "{arguments:?}\n{text}");
    }
    let output = capstan(&["routes", "test", "--routes", "README.md", "GET", "/"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("README.md:"), "{}", stderr(&output));
}

#[test]
fn a_hyphen_is_standard_input() {
    let routes = folder("routes-stdin").join("routes.yaml");
    std::fs::write(&routes, ROUTES).unwrap();
    let routes = routes.to_str().unwrap();
    let asked = ["--identity", "alice", "GET", "/v2/"];
    for (arguments, input) in [
        (["--routes", "-", "--policy", DEMO], routes),
        (["--routes", routes, "--policy", "-"], DEMO),
    ] {
        let arguments = [&["routes", "test"][..], &arguments, &asked].concat();
        let mut command = command(&arguments);
        let folder = command.get_current_dir().unwrap().to_owned();
        let input = std::fs::File::open(folder.join(input)).unwrap();
        let output = command.stdin(input).output().unwrap();
        let text = stdout(&output);
        assert_eq!(text, "route base\nrequires any identity\nallowed\n", "{}", stderr(&output));
    }
}

#[test]
fn a_capability_that_no_catalog_has_is_an_error() {
    let file = folder("routes-unknown").join("routes.yaml");
    let routes = file.to_str().unwrap();
    std::fs::write(&file, format!("{ROUTES}{MISSPELT}")).unwrap();
    let found = "routes.yaml:12:18: ";
    let expected = "routes[5].require[0].capability: found `repo.lsit`; expected a capability of a catalog; did you \
                    mean `repo.list`?";
    let output = capstan(&["routes", "validate", routes]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(&format!("{found}error: {expected}")), "{text}");
    assert!(text.ends_with("routes.yaml: not valid: 1 error\n"), "{text}");
    let output = capstan(&["routes", "test", "--routes", routes, "GET", "/v2/"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains(&format!("{found}{expected}")), "{}", stderr(&output));
}

#[test]
fn a_table_is_valid_for_one_policy_or_for_any_catalog() {
    let file = folder("routes-valid").join("routes.yaml");
    let (routes, catalog) = (file.to_str().unwrap(), file.with_file_name("catalog.yaml"));
    std::fs::write(&file, ROUTES.replace("tag.list", "record.read")).unwrap();
    let resources = "[{name: record, purpose: '', actions: [read]}]";
    let roles = "[{name: owner, owner: true, capabilities: [record.read]}]";
    std::fs::write(&catalog, format!("{{name: mine, resources: {resources}, roles: {roles}}}"))
        .unwrap();
    let with = |more: &[&str]| {
        let output = capstan(&[&["routes", "validate", routes], more].concat());
        (output.status.code(), stdout(&output))
    };
    let mine = ["--catalog", catalog.to_str().unwrap()];
    let (code, text) = with(&mine);
    let valid = format!("{routes}: valid: 5 routes, 4 requirements\n");
    assert_eq!((code, text), (Some(0), valid));
    assert_eq!(with(&[]).0, Some(2));
    // The policy has another catalog.
    let (code, text) = with(&[&mine[..], &["--policy", DEMO]].concat());
    assert_eq!(code, Some(2));
    assert!(
        text.contains("found `record.read`; expected a capability of catalog `chainguard-"),
        "{text}"
    );
    let (code, text) = with(&[&mine[..], &["--output", "json"]].concat());
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &report["files"][0]["declares"]["routes"]), (Some(0), &json!(5)));
}
