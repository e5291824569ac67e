//! Decisions and searches that others have published (the worlds `published-…`), over HTTP and by the command line. `worlds.rs` asks them over
//! gRPC, and the testkit asks the naive model and the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use capstan_policy::Expectation;
use capstan_server::clock::Clock;
use capstan_server::feed::source::Source;
use capstan_testkit::worlds::{DIRECTORY, World, worlds};
use serde_json::{Value, json};

use super::{ACTIONS, EVALUATION, RESOURCES, SUBJECTS, post_to};
use crate::common::{InProcess, capstan, stdout};

fn published() -> Vec<World> {
    let all: Vec<_> =
        worlds().into_iter().filter(|world| world.name.starts_with("published-")).collect();
    assert!(all.len() >= 10, "{} worlds", all.len());
    all
}

#[test]
fn the_command_line_agrees_with_published_decisions() {
    let mut passed = 0;
    for world in published() {
        let file = |kind| format!("{DIRECTORY}/{}.{kind}.yaml", world.name);
        let output = capstan(&["policy", "test", &file("policy"), &file("tests")]);
        assert!(output.status.success(), "{}: {output:?}", world.name);
        let count = world.tests.tests.len();
        assert_eq!(stdout(&output).trim_end(), format!("ok: {count} passed, 0 failed"));
        passed += count;
    }
    assert!(passed >= 600, "{passed}");
}

struct Point<'w> {
    world: &'w World,
    address: String,
}

impl Point<'_> {
    async fn post(&self, path: &str, body: Value) -> Value {
        let address = self.address.clone();
        let path = path.to_owned();
        let asked = body.to_string();
        let answer = tokio::task::spawn_blocking(move || {
            post_to(&address, &path, "content-type: application/json\r\n", &asked)
        });
        answer.await.unwrap().json()
    }

    fn subject(&self, identity: &str) -> Value {
        let known = self.world.model.facts().identities.iter();
        let kind = known.filter(|it| it.id.as_str() == identity).map(|it| it.kind.as_str()).next();
        json!({"type": kind.unwrap(), "id": identity})
    }

    /// The values of a field of the results.
    async fn search(&self, path: &str, body: Value, field: &str) -> BTreeSet<String> {
        let found = self.post(path, body).await;
        let results = found["results"].as_array().unwrap().iter();
        let results: Vec<_> = results.map(|it| it[field].as_str().unwrap().to_owned()).collect();
        let set: BTreeSet<_> = results.iter().cloned().collect();
        assert_eq!(set.len(), results.len(), "{found}");
        set
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authzen_agrees_with_published_decisions_and_searches() {
    let (mut decisions, mut searches) = (0, 0);
    for world in published() {
        let source = Source::file(&world.policy_file);
        let server = InProcess::start_at(source, Clock::Fixed(world.now)).await;
        let point = Point { world: &world, address: server.http.to_string() };
        // What each identity may do, by capability: for the searches of resources.
        let mut cells: BTreeMap<(String, String), BTreeMap<String, bool>> = BTreeMap::new();
        for test in &world.tests.tests {
            let place = format!("{}:{}", world.name, test.line);
            match &test.expectation {
                Expectation::Check { identity, capability, resource, allowed, .. } => {
                    let (kind, action) = capability.rsplit_once('.').unwrap();
                    let body = json!({
                        "subject": point.subject(identity.as_str()),
                        "action": {"name": action},
                        "resource": {"type": kind, "id": resource.as_str()},
                    });
                    let found = point.post(EVALUATION, body).await;
                    assert_eq!(found["decision"], *allowed, "{place}: {found}");
                    decisions += 1;
                    let cell = (identity.to_string(), capability.clone());
                    cells.entry(cell).or_default().insert(resource.to_string(), *allowed);
                }
                Expectation::Capabilities { identity, resource, capabilities } => {
                    let kinds: BTreeSet<_> =
                        capabilities.iter().map(|it| it.rsplit_once('.').unwrap().0).collect();
                    // A registered resource has one type.
                    let registered = registered_kind(&world, resource.as_str());
                    for kind in kinds.into_iter().filter(|kind| registered == Some(kind)) {
                        let body = json!({
                            "subject": point.subject(identity.as_str()),
                            "resource": {"type": kind, "id": resource.as_str()},
                        });
                        let found = point.search(ACTIONS, body, "name").await;
                        let actions = capabilities.iter().filter_map(|it| it.rsplit_once('.'));
                        let expected = actions.filter(|(of, _)| *of == kind);
                        let expected: BTreeSet<_> =
                            expected.map(|(_, action)| action.to_owned()).collect();
                        assert_eq!(found, expected, "{place}");
                        searches += 1;
                    }
                }
                Expectation::Identities { capability, resource, identities } => {
                    let (kind, action) = capability.rsplit_once('.').unwrap();
                    let kinds: BTreeSet<_> =
                        world.model.facts().identities.iter().map(|it| it.kind.as_str()).collect();
                    for of in kinds {
                        let body = json!({
                            "subject": {"type": of},
                            "action": {"name": action},
                            "resource": {"type": kind, "id": resource.as_str()},
                        });
                        let found = point.search(SUBJECTS, body, "id").await;
                        let expected = identities.iter().map(ToString::to_string);
                        let expected: BTreeSet<_> =
                            expected.filter(|id| point.subject(id)["type"] == of).collect();
                        assert_eq!(found, expected, "{place}");
                        searches += 1;
                    }
                }
            }
        }
        for ((identity, capability), resources) in cells {
            let (kind, action) = capability.rsplit_once('.').unwrap();
            let registered: BTreeSet<_> = world
                .model
                .facts()
                .resources
                .iter()
                .filter(|it| it.kind == kind)
                .map(|it| it.id.to_string())
                .collect();
            // Of the others nothing is published.
            if registered.is_empty() || !registered.iter().all(|id| resources.contains_key(id)) {
                continue;
            }
            let body = json!({
                "subject": point.subject(&identity),
                "action": {"name": action},
                "resource": {"type": kind},
            });
            let found = point.search(RESOURCES, body, "id").await;
            let expected: BTreeSet<_> = registered.into_iter().filter(|id| resources[id]).collect();
            assert_eq!(found, expected, "{}: {identity} {capability}", world.name);
            searches += 1;
        }
    }
    assert!(decisions >= 450 && searches >= 200, "{decisions} decisions, {searches} searches");
}

fn registered_kind<'w>(world: &'w World, resource: &str) -> Option<&'w str> {
    let known = world.model.facts().resources.iter();
    known.filter(|it| it.id.as_str() == resource).map(|it| &*it.kind).next()
}

/// The source of each is named in its policy.
#[test]
fn published_worlds_say_where_they_are_from() {
    for world in published() {
        let text = std::fs::read_to_string(Path::new(&world.policy_file)).unwrap();
        assert!(text.lines().take(4).any(|line| line.contains("github.com/")), "{}", world.name);
    }
}
