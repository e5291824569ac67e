//! Searches: what they find, page by page, and of which revision.

use std::time::Instant;

use serde_json::json;

use super::{ACTIONS, EVALUATION, FIXTURE, Point, RESOURCES, SUBJECTS, asked, record, user, with};
use crate::common::PATIENCE;

#[test]
fn search() {
    let point = Point::start("authzen-search", &[]);
    let subjects = json!({"subject": {"type": "user"}, "action": {"name": "read"}, "resource": record("record-1")});
    let resources = json!({"subject": user("alice"), "action": {"name": "read"}, "resource": {"type": "record"}});
    let actions = json!({"subject": user("alice"), "resource": record("record-1")});
    let at =
        [(SUBJECTS, subjects.clone()), (RESOURCES, resources.clone()), (ACTIONS, actions.clone())];
    let expected: [&[&str]; 3] = [&["alice", "bob"], &["record-1", "record-2"], &["read", "write"]];
    for ((path, body), expected) in at.iter().zip(expected) {
        assert_eq!(
            point.found(path, body),
            (expected.iter().map(|id| (*id).to_owned()).collect(), String::new())
        );
        // A context changes nothing, and neither does the id of what is searched for.
        let mut more = body.clone();
        more["context"] = json!({"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"});
        match *path {
            SUBJECTS => more["subject"]["id"] = json!("bob"),
            RESOURCES => more["resource"]["id"] = json!("record-2"),
            _ => more["action"] = json!({"name": "delete"}),
        }
        assert_eq!(point.found(path, &more), point.found(path, body), "{more}");
    }
    let first = &point.post(SUBJECTS, &subjects).json()["results"][0];
    assert_eq!(first, &json!({"type": "user", "id": "alice"}));
    // With properties.
    let archived =
        json!({"type": "record", "id": "record-2", "properties": {"status": "archived"}});
    let admin = json!({"type": "user", "id": "bob", "properties": {"role": "admin"}});
    let write =
        with(with(subjects.clone(), "/action/name", json!("write")), "/resource", archived.clone());
    assert_eq!(point.found(SUBJECTS, &write).0, ["bob"]);
    let write =
        with(with(resources.clone(), "/action/name", json!("write")), "/subject", admin.clone());
    assert_eq!(point.found(RESOURCES, &write).0, ["record-2"]);
    assert_eq!(point.found(ACTIONS, &json!({"subject": admin, "resource": archived})).0, ["write"]);
    let mut soft = actions.clone();
    soft["action"] = json!({"properties": {"soft": true}});
    assert_eq!(point.found(ACTIONS, &soft).0, ["delete", "read", "write"]);
    let services = with(subjects.clone(), "/subject/type", json!("service"));
    assert_eq!(point.found(SUBJECTS, &services).0, ["robot"]);
    // What is unknown has no results.
    for (path, body, changes) in [
        (
            SUBJECTS,
            &subjects,
            vec![
                ("/subject/type", "spaceship"),
                ("/action/name", "fly"),
                ("/resource/type", "spaceship"),
                ("/resource/id", "none"),
                ("/resource/id", "a b"),
            ],
        ),
        (
            RESOURCES,
            &resources,
            vec![
                ("/subject/type", "service"),
                ("/subject/id", "nobody"),
                ("/subject/id", "a b"),
                ("/action/name", "fly"),
                ("/resource/type", "spaceship"),
            ],
        ),
        (
            ACTIONS,
            &actions,
            vec![
                ("/subject/id", "nobody"),
                ("/subject/type", "service"),
                ("/resource/type", "spaceship"),
                ("/resource/id", "none"),
            ],
        ),
    ] {
        for (at, value) in changes {
            let body = with(body.clone(), at, json!(value));
            assert_eq!(point.found(path, &body), (vec![], String::new()), "{body}");
        }
    }
    // Page by page. The pages that follow need no limit (which is no part of the search), and have another default.
    for ((path, body), expected) in at.iter().zip(expected) {
        let mut body = body.clone();
        body["page"] = json!({"limit": 1, "properties": {"x": 1}});
        let (first, token) = point.found(path, &body);
        assert_eq!(first, expected[..1]);
        assert!(!token.is_empty());
        body["page"] = json!({"token": token});
        assert_eq!(
            point.found(path, &body),
            (expected[1..].iter().map(|id| (*id).to_owned()).collect(), String::new())
        );
        // It is of this search only.
        body["context"] = json!({"shift": 1});
        assert_eq!(point.post(path, &body).status, 400);
    }
}

/// A page that follows is of the revision of the first one, and says so.
#[test]
fn pages_are_of_one_revision() {
    let point = Point::start("authzen-revisions", &[]);
    let revision = |response: &super::Response| -> u64 {
        response.header("capstan-revision").unwrap().parse().unwrap()
    };
    let mut body = json!({"subject": {"type": "user"}, "action": {"name": "read"},
        "resource": record("record-1"), "page": {"limit": 1}});
    let first = point.post(SUBJECTS, &body);
    let before = revision(&first);
    body["page"]["token"] = first.json()["page"]["next_token"].clone();
    let without_bob = FIXTURE.replace("  - {identity: bob, role: reader, scope: record-1}\n", "");
    std::fs::write(&point.policy, without_bob).unwrap();
    let begun = Instant::now();
    let after = loop {
        let response = point.post(EVALUATION, &asked("bob", "read", "record-1"));
        if response.json()["decision"] == false {
            break revision(&response);
        }
        assert!(begun.elapsed() < PATIENCE, "the policy is not read again");
    };
    assert!(after > before);
    let second = point.post(SUBJECTS, &body);
    assert_eq!(second.json()["results"], json!([user("bob")]));
    assert_eq!(revision(&second), before);
    let headers = format!("content-type: application/json\r\ncapstan-revision: {after}\r\n");
    let newer = point.post_as(SUBJECTS, &headers, &body.to_string());
    assert_eq!(newer.status, 400, "{newer:?}");
}
