//! The Authorization API 1.0 of AuthZEN over HTTP: every case of its public certification scenario, all sub-levels (the names
//! of its sections are the names here), and what the contract adds.

mod limits;
mod published;
mod search;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{PATIENCE, Serving, folder, stderr, stdout};

/// The fixture of the scenario (its section "Required Fixture"), as a policy.
const FIXTURE: &str = "\
version: 1
catalog:
  name: certification
  resources: [{name: record, actions: [read, write, delete]}, {name: record.part, actions: [read]}]
  capabilities: [audit]
  roles:
    - {name: reader, capabilities: [record.read, record.part.read]}
    - {name: writer, capabilities: [record.write]}
    - {name: deleter, capabilities: [record.delete]}
    - {name: auditor, capabilities: [audit]}
identities:
  - {id: alice}
  - {id: bob, properties: {role: admin}}
  - {id: robot, type: service}
  - {id: \"auth:agent:agentmesh:bot\", type: ai_agent}
resources:
  - {id: record-1, type: record, properties: {status: active}}
  - {id: record-2, type: record, properties: {status: archived}}
role_bindings:
  - {identity: alice, role: reader, scope: record-1}
  - {identity: alice, role: reader, scope: record-2}
  - {identity: alice, role: writer, scope: record-1, when: [{attribute: resource.status, not_equals: archived}]}
  - {identity: alice, role: writer, scope: record-2, when: [{attribute: resource.status, not_equals: archived}]}
  - {identity: alice, role: deleter, scope: record-1, when: [{attribute: action.soft, equals: true}]}
  - {identity: alice, role: auditor, scope: record-1, when: [{attribute: context.shift, equals: 2}]}
  - {identity: bob, role: reader, scope: record-1}
  - {identity: bob, role: writer, scope: record-1, when: [{attribute: subject.role, equals: admin}, {attribute: resource.status, equals: archived}]}
  - {identity: bob, role: writer, scope: record-2, when: [{attribute: subject.role, equals: admin}, {attribute: resource.status, equals: archived}]}
  - {identity: robot, role: reader, scope: record-1}
  - {identity: \"auth:agent:agentmesh:bot\", role: reader, scope: record-1}
";

const EVALUATION: &str = "/access/v1/evaluation";
const EVALUATIONS: &str = "/access/v1/evaluations";
const SUBJECTS: &str = "/access/v1/search/subject";
const RESOURCES: &str = "/access/v1/search/resource";
const ACTIONS: &str = "/access/v1/search/action";

/// A server of the fixture.
struct Point {
    server: Serving,
    address: String,
    policy: PathBuf,
}

/// A response: status, head in lower case, body.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.header("content-type").as_deref(), Some("application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let found = self.head.lines().filter_map(|line| line.split_once(": "));
        found.filter(|(found, _)| *found == name).map(|(_, value)| value.to_owned()).next()
    }
}

/// Sends bytes and reads the response to its end.
fn send_to(address: &str, request: &[u8]) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let target = request.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let target = String::from_utf8_lossy(target);
    crate::secrets::assert_http_tells_no_secret(&target, status, head, body);
    Response { status, head: head.to_lowercase(), body: body.to_owned() }
}

pub(crate) fn get_from(address: &str, path: &str) -> Response {
    let head = format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
    send_to(address, head.as_bytes())
}

pub(crate) fn post_to(address: &str, path: &str, headers: &str, body: &str) -> Response {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}");
    send_to(address, format!("{head}content-length: {length}\r\n\r\n{body}").as_bytes())
}

impl Point {
    fn start(name: &str, options: &[&str]) -> Self {
        Self::of(name, FIXTURE, options)
    }

    fn of(name: &str, policy: &str, options: &[&str]) -> Self {
        let file = folder(name).join("policy.yaml");
        std::fs::write(&file, policy).unwrap();
        let fixed = ["--policy", file.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        let server = Serving::start(&[&fixed[..], &["--http", "127.0.0.1:0"], options].concat(), 2);
        let address = server.address("http");
        Self { server, address, policy: file }
    }

    fn post_as(&self, path: &str, headers: &str, body: &str) -> Response {
        post_to(&self.address, path, headers, body)
    }

    fn post(&self, path: &str, body: &Value) -> Response {
        self.post_as(path, "content-type: application/json\r\n", &body.to_string())
    }

    fn get(&self, path: &str) -> Response {
        get_from(&self.address, path)
    }

    #[track_caller]
    fn decision(&self, body: &Value) -> bool {
        self.post(EVALUATION, body).json()["decision"].as_bool().unwrap()
    }

    fn reason(&self, body: &Value) -> String {
        let found = self.post(EVALUATION, body).json();
        assert_eq!(found["decision"], false, "{found}");
        found["context"]["reason"].as_str().unwrap().to_owned()
    }

    /// Ids or names of the results of a search, with what it says of the page.
    #[track_caller]
    fn found(&self, path: &str, body: &Value) -> (Vec<String>, String) {
        let found = self.post(path, body).json();
        let results = found["results"].as_array().unwrap();
        assert_eq!(found["page"]["count"], results.len());
        let of = |one: &Value| {
            let id = if path == ACTIONS { &one["name"] } else { &one["id"] };
            id.as_str().unwrap().to_owned()
        };
        let token = found["page"]["next_token"].as_str().unwrap().to_owned();
        (results.iter().map(of).collect(), token)
    }
}

fn user(id: &str) -> Value {
    json!({"type": "user", "id": id})
}

fn record(id: &str) -> Value {
    json!({"type": "record", "id": id})
}

fn asked(subject: &str, action: &str, resource: &str) -> Value {
    json!({"subject": user(subject), "action": {"name": action}, "resource": record(resource)})
}

fn with(mut body: Value, path: &str, value: Value) -> Value {
    *body.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
    body
}

/// A body without a field.
fn without(mut body: Value, parent: &str, field: &str) -> Value {
    body.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field).unwrap();
    body
}

#[test]
fn basic() {
    let point = Point::start("authzen-basic", &[]);
    // The four rules of identifiers.
    for (subject, action, decision) in [
        ("alice", "read", true),
        ("alice", "write", true),
        ("bob", "read", true),
        ("bob", "write", false),
    ] {
        assert_eq!(
            point.decision(&asked(subject, action, "record-1")),
            decision,
            "{subject} {action}"
        );
    }
    let context = json!({"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"});
    let mut read = asked("alice", "read", "record-1");
    read["context"] = context;
    assert!(point.decision(&read));
    // The four rules of properties, which come with the request as well as registered.
    for archived in [true, false] {
        let mut write = asked("alice", "write", "record-2");
        if archived {
            write["resource"]["properties"] = json!({"status": "archived"});
        }
        assert!(!point.decision(&write));
        let mut write = with(write, "/subject", user("bob"));
        write["subject"]["properties"] = json!({"role": "admin"});
        assert!(point.decision(&write));
    }
    for soft in [true, false] {
        let mut delete = asked("alice", "delete", "record-1");
        delete["action"]["properties"] = json!({"soft": soft});
        assert_eq!(point.decision(&delete), soft);
    }
    // More properties, unknown fields, and values that are none of ours.
    let mut more = asked("alice", "read", "record-1");
    more["subject"]["properties"] =
        json!({"department": "Sales", "role": null, "list": [1, {"a": 2}], "half": 0.5});
    more["action"]["properties"] = json!({"method": "GET"});
    more["resource"]["properties"] = json!({});
    more["unknown"] = json!([1]);
    more["subject"]["unknown"] = json!({"id": "other"});
    for _ in 0..3 {
        assert!(point.decision(&more));
    }
    // A type of the catalog with a dot, and a capability as the name of the action.
    let part = json!({"subject": user("alice"), "action": {"name": "read"},
        "resource": {"type": "record.part", "id": "record-1/part"}});
    assert!(point.decision(&part));
    let mut audit = asked("alice", "audit", "record-1");
    assert!(!point.decision(&audit));
    audit["context"] = json!({"shift": 2});
    assert!(point.decision(&audit));
    assert!(point.decision(&asked("alice", "record.read", "record-1")));
    let shown = point.post(EVALUATION, &asked("alice", "read", "record-1")).json();
    assert_eq!(shown, json!({"decision": true, "context": {"reason": "GRANTED"}}));
}

#[test]
fn a_denial_says_why() {
    let point = Point::start("authzen-reasons", &[]);
    let read = asked("alice", "read", "record-1");
    for (body, reason) in [
        (asked("alice", "delete", "record-2"), "CAPABILITY_NOT_IN_ROLE"),
        (asked("nobody", "read", "record-1"), "UNKNOWN_IDENTITY"),
        (asked("alice", "read", "other"), "NO_BINDING"),
        (with(read.clone(), "/subject/type", json!("service")), "WRONG_SUBJECT_TYPE"),
        (with(read.clone(), "/subject/type", json!("")), "WRONG_SUBJECT_TYPE"),
        (with(read.clone(), "/resource/type", json!("record.part")), "WRONG_RESOURCE_TYPE"),
        (
            with(read.clone(), "/resource", json!({"type": "spaceship", "id": "x"})),
            "UNKNOWN_ACTION",
        ),
        (with(read.clone(), "/action/name", json!("part.read")), "UNKNOWN_ACTION"),
        (with(read.clone(), "/subject/id", json!("alice smith")), "MALFORMED_ID"),
        (with(read.clone(), "/resource/id", json!("")), "MALFORMED_ID"),
    ] {
        assert_eq!(point.reason(&body), reason, "{body}");
    }
    let robot = with(read, "/subject", json!({"type": "service", "id": "robot"}));
    assert!(point.decision(&robot));
}

#[test]
fn malformed_requests_are_400() {
    let point = Point::start("authzen-malformed", &[]);
    let read = asked("alice", "read", "record-1");
    let refused = |path: &str, body: &Value, field: &str| {
        let response = point.post(path, body);
        assert_eq!(response.status, 400, "{body}: {response:?}");
        assert!(response.body.starts_with(field), "{field}: {response:?}");
    };
    for path in [EVALUATION, EVALUATIONS] {
        for field in ["subject", "action", "resource"] {
            refused(path, &without(read.clone(), "", field), &format!("{field}: missing"));
            refused(
                path,
                &with(read.clone(), &format!("/{field}"), json!(null)),
                &format!("{field}: missing"),
            );
            refused(
                path,
                &with(read.clone(), &format!("/{field}"), json!("alice")),
                &format!("{field}: "),
            );
        }
        for (parent, field) in [
            ("subject", "type"),
            ("subject", "id"),
            ("action", "name"),
            ("resource", "type"),
            ("resource", "id"),
        ] {
            let name = format!("{parent}.{field}: ");
            refused(
                path,
                &without(read.clone(), &format!("/{parent}"), field),
                &format!("{name}missing"),
            );
            refused(path, &with(read.clone(), &format!("/{parent}/{field}"), json!(123)), &name);
        }
        let mut context = read.clone();
        context["context"] = json!([]);
        refused(path, &context, "context: ");
        let json = "content-type: application/json\r\n";
        let twice = r#"{"subject": {"type": "user", "id": "alice", "id": "bob"}, "action": {"name": "read"}, "resource": {"type": "record", "id": "record-1"}}"#;
        for (headers, body, said) in [
            (json, "", "body: empty"),
            (json, "{", "body: "),
            (json, "[]", "body: "),
            (json, "{} {}", "body: "),
            (json, "\u{fffd}", "body: "),
            (json, twice, "subject: duplicate field `id`"),
            ("content-type: text/plain\r\n", &*read.to_string(), "content-type: "),
            ("", &*read.to_string(), "content-type: "),
        ] {
            let response = point.post_as(path, headers, body);
            assert_eq!(response.status, 400, "{body}: {response:?}");
            assert!(response.body.starts_with(said), "{said}: {response:?}");
        }
    }
    let twice = r#"{"subject": {"type": "user", "id": "alice", "properties": {"a": 1, "a": 2}}, "action": {"name": "read"}, "resource": {"type": "record", "id": "record-1"}}"#;
    let response =
        point.post_as(EVALUATION, "content-type: application/json; charset=utf-8\r\n", twice);
    assert!(
        response.body.starts_with("subject.properties: the member `a` comes twice"),
        "{response:?}"
    );
    // Searches: what is searched for has no id, and everything else has one.
    let target = |field: &str| without(read.clone(), &format!("/{field}"), "id");
    for (path, body, field) in [
        (SUBJECTS, without(target("subject"), "", "action"), "action: missing"),
        (SUBJECTS, without(target("subject"), "", "subject"), "subject: missing"),
        (SUBJECTS, without(target("subject"), "/resource", "id"), "resource.id: missing"),
        (SUBJECTS, without(target("subject"), "/subject", "type"), "subject.type: missing"),
        (RESOURCES, without(target("resource"), "", "subject"), "subject: missing"),
        (RESOURCES, without(target("resource"), "/subject", "id"), "subject.id: missing"),
        (RESOURCES, without(target("resource"), "/resource", "type"), "resource.type: missing"),
        (
            ACTIONS,
            without(without(read.clone(), "", "action"), "", "resource"),
            "resource: missing",
        ),
        (
            ACTIONS,
            without(without(read.clone(), "", "action"), "/subject", "id"),
            "subject.id: missing",
        ),
    ] {
        refused(path, &body, field);
    }
    let mut page = target("subject");
    page["page"] = json!({"limit": -1});
    refused(SUBJECTS, &page, "page.limit: negative");
    page["page"] = json!({"token": "AAAA"});
    refused(SUBJECTS, &page, "page.token: ");
    page["page"] = json!({"token": 7});
    refused(SUBJECTS, &page, "page.token: ");
    // Other methods and paths.
    assert_eq!(point.get(EVALUATION).status, 405);
    assert_eq!(point.post("/access/v1/evaluatio", &read).status, 404);
}

#[test]
fn a_request_id_comes_back() {
    let point = Point::start("authzen-headers", &[]);
    let read = asked("alice", "read", "record-1").to_string();
    let json = "content-type: application/json\r\n";
    for (body, status) in [(&*read, 200), ("{", 400)] {
        let headers = format!("{json}X-Request-ID: Bfe9 eb/29\r\n");
        let response = point.post_as(EVALUATION, &headers, body);
        assert_eq!(
            (response.status, response.header("x-request-id")),
            (status, Some("bfe9 eb/29".into()))
        );
    }
    let response = point.post_as(EVALUATION, json, &read);
    assert_eq!(response.header("x-request-id"), None);
    // The revision that answered, and one that is not here yet.
    let revision: u64 = response.header("capstan-revision").unwrap().parse().unwrap();
    let at_least = |revision: &str| {
        point.post_as(EVALUATION, &format!("{json}capstan-revision: {revision}\r\n"), &read)
    };
    assert_eq!(at_least(&revision.to_string()).status, 200);
    let later = at_least(&(revision + 1).to_string());
    assert_eq!((later.status, later.header("retry-after")), (503, Some("1".into())), "{later:?}");
    assert_eq!(at_least("x").status, 400);
}

#[test]
fn batch() {
    let point = Point::start("authzen-batch", &[]);
    let decisions = |body: &Value| -> Vec<bool> {
        let found = point.post(EVALUATIONS, body).json();
        assert!(found.get("decision").is_none());
        let all = found["evaluations"].as_array().unwrap();
        all.iter().map(|one| one["decision"].as_bool().unwrap()).collect()
    };
    let full = json!({"evaluations": [
        asked("alice", "read", "record-1"), asked("bob", "write", "record-1"), asked("alice", "write", "record-1")]});
    assert_eq!(decisions(&full), [true, false, true]);
    // Defaults replace whole entities: nothing is merged into one that an evaluation has.
    let archived =
        json!({"type": "record", "id": "record-2", "properties": {"status": "archived"}});
    let mut inherited = asked("alice", "write", "record-1");
    inherited["resource"]["properties"] = json!({"status": "active"});
    inherited["evaluations"] = json!([{}, {"resource": archived}]);
    assert_eq!(decisions(&inherited), [true, false]);
    let merged = json!({"subject": user("alice"), "action": {"name": "delete", "properties": {"soft": true}},
        "resource": record("record-1"), "evaluations": [{}, {"action": {"name": "delete"}}, {"subject": {"id": "bob"}}]});
    assert_eq!(decisions(&merged), [true, false, false]);
    let context = json!({"subject": user("alice"), "action": {"name": "audit"}, "resource": record("record-1"),
        "context": {"shift": 2}, "evaluations": [{}, {"context": {}}, {"context": {"shift": 3}}, {}]});
    assert_eq!(decisions(&context), [true, false, false, true]);
    let subjects = json!({"action": {"name": "write"}, "resource": archived, "evaluations": [
        {"subject": {"type": "user", "id": "bob", "properties": {"role": "admin"}}}, {"subject": user("alice")}]});
    assert_eq!(decisions(&subjects), [true, false]);
    // One that is malformed among others.
    let failed = json!({"subject": user("alice"), "action": {"name": "read"},
        "options": {"evaluations_semantic": "execute_all"},
        "evaluations": [{"resource": record("record-1")}, {}, "x", {"resource": {"type": 1}}, {"resource": record("record-2")}]});
    assert_eq!(decisions(&failed), [true, false, false, false, true]);
    let found = point.post(EVALUATIONS, &failed).json();
    assert_eq!(
        found["evaluations"][1]["context"]["error"],
        json!({"status": 400, "message": "resource: missing"})
    );
    // The other semantics end with the one that decides.
    let mut ends = json!({"subject": user("alice"), "action": {"name": "write"},
        "evaluations": [{"resource": record("record-1")}, {}, {"resource": record("record-1")}]});
    for (semantic, expected) in [
        ("execute_all", vec![true, false, true]),
        ("deny_on_first_deny", vec![true, false]),
        ("permit_on_first_permit", vec![true]),
    ] {
        ends["options"] = json!({"evaluations_semantic": semantic, "other": 1});
        assert_eq!(decisions(&ends), expected, "{semantic}");
    }
    ends["options"] = json!({"evaluations_semantic": "any"});
    assert_eq!(point.post(EVALUATIONS, &ends).status, 400);
    ends["options"] = json!(null);
    ends["evaluations"] = json!({});
    assert_eq!(point.post(EVALUATIONS, &ends).status, 400);
    // Without a list it is one evaluation.
    for list in [None, Some(json!([])), Some(json!(null))] {
        let mut one = asked("alice", "read", "record-1");
        if let Some(list) = list {
            one["evaluations"] = list;
        }
        assert_eq!(point.post(EVALUATIONS, &one).json()["decision"], true);
    }
}

#[test]
fn discovery() {
    let point = Point::start("authzen-discovery", &["--public-url", "https://pdp.example.com/"]);
    let base = "https://pdp.example.com";
    let expected = |base: &str| {
        json!({
            "policy_decision_point": base,
            "access_evaluation_endpoint": format!("{base}{EVALUATION}"),
            "access_evaluations_endpoint": format!("{base}{EVALUATIONS}"),
            "search_subject_endpoint": format!("{base}{SUBJECTS}"),
            "search_resource_endpoint": format!("{base}{RESOURCES}"),
            "search_action_endpoint": format!("{base}{ACTIONS}"),
        })
    };
    assert_eq!(point.get("/.well-known/authzen-configuration").json(), expected(base));
    drop(point);
    // With a path, it is inserted before the path, and the endpoints are below it, too.
    let base = "https://pdp.example.com/tenant1";
    let point = Point::start("authzen-discovery-path", &["--public-url", base]);
    assert_eq!(point.get("/.well-known/authzen-configuration/tenant1").json(), expected(base));
    assert_eq!(point.get("/.well-known/authzen-configuration").status, 404);
    for path in [EVALUATION.to_owned(), format!("/tenant1{EVALUATION}")] {
        assert_eq!(point.post(&path, &asked("alice", "read", "record-1")).json()["decision"], true);
    }
    drop(point);
    // Without a public URL nothing is said: URLs never come from a request.
    let point = Point::start("authzen-discovery-none", &[]);
    assert_eq!(point.get("/.well-known/authzen-configuration").status, 404);
}

#[test]
fn decisions_are_counted_and_logged() {
    let log = folder("authzen-log").join("decisions.jsonl");
    let point = Point::start("authzen-counted", &["--decision-log", log.to_str().unwrap()]);
    assert!(point.decision(&asked("alice", "read", "record-1")));
    assert_eq!(point.reason(&asked("alice", "fly", "record-1")), "UNKNOWN_ACTION");
    let many = json!({"subject": user("alice"), "action": {"name": "read"}, "resource": record("record-1"), "evaluations": [{}, {}]});
    point.post(EVALUATIONS, &many).json();
    point.post(EVALUATION, &json!({}));
    let scraped = point.get("/metrics").body;
    for line in [
        r#"capstan_requests_total{rpc="authzen.Evaluation",code="OK"} 2"#,
        r#"capstan_requests_total{rpc="authzen.Evaluation",code="INVALID_ARGUMENT"} 1"#,
        r#"capstan_decision_reasons_total{rpc="authzen.Evaluation",reason="GRANTED"} 1"#,
        r#"capstan_decision_reasons_total{rpc="authzen.Evaluations",reason="GRANTED"} 2"#,
    ] {
        assert!(scraped.contains(line), "{line} in {scraped}");
    }
    assert_eq!(point.server.stop("-TERM").0, Some(0));
    let logged = crate::secrets::decision_log(&log);
    let lines: Vec<Value> =
        logged.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4, "{logged}");
    assert_eq!(lines[0]["rpc"], "authzen.Evaluation");
    assert!(
        logged.contains("authzen.Evaluations") && logged.contains("no such capability"),
        "{logged}"
    );
}

/// The question in docs/AUTHZEN.md, to `serve --demo`, has the answer there.
#[test]
fn the_page_has_an_answer_of_the_demo() {
    let page = include_str!("../../../../docs/AUTHZEN.md");
    let block = |language: &str| {
        let (_, rest) = page.split_once(&format!("```{language}\n")).unwrap();
        rest.split_once("```").unwrap().0
    };
    let (head, body) = block("http").split_once("\n\n").unwrap();
    assert_eq!(head.lines().next(), Some("POST /access/v1/evaluation HTTP/1.1"));
    let server =
        Serving::start(&["--demo", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"], 18);
    let json = "content-type: application/json\r\n";
    let found = post_to(&server.address("http"), EVALUATION, json, body.trim()).json();
    assert_eq!(found, serde_json::from_str::<Value>(block("json")).unwrap());
}

/// Clients of others, over TCP.
#[test]
fn clients_of_pypi_get_their_decisions() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = workspace.join("target/python/bin/python");
    assert!(python.exists(), "{} is missing: dev/test installs it", python.display());
    let point = Point::start("authzen-python", &[]);
    let script = workspace.join("crates/cli/tests/python/authzen.py");
    let url = format!("http://{}", point.address);
    let output = Command::new(&python).arg(script).arg(url).output().unwrap();
    let (text, errors) = (stdout(&output), stderr(&output));
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("12 answers of three clients"), "{text}");
}
