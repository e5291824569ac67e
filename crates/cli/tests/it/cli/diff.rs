//! `policy diff` against checks of both documents: no change is overlooked, and what is listed is true at its scope.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use capstan_engine::{
    Attributes, Catalog, Facts, Model, Path, Properties, Question, Snapshot, Timestamp,
};
use capstan_testkit::generate::{World, world};
use capstan_testkit::written::policy_document;
use proptest::prelude::*;
use serde::Deserialize;

use crate::common::{capstan, folder, stderr, stdout};

#[derive(Debug, Deserialize)]
struct Report {
    gained: Vec<Change>,
    lost: Vec<Change>,
}

#[derive(Debug, Deserialize)]
struct Change {
    identity: String,
    scope: String,
    capabilities: BTreeSet<String>,
    #[serde(default)]
    when: Vec<serde_json::Value>,
    #[serde(default)]
    except: Vec<String>,
}

fn is_at_or_below(resource: &str, scope: &str) -> bool {
    resource.strip_prefix(scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Change {
    fn covers(&self, (identity, capability, resource): (&str, &str, &str)) -> bool {
        self.identity == identity
            && self.capabilities.contains(capability)
            && is_at_or_below(resource, &self.scope)
            && !self.except.iter().any(|scope| is_at_or_below(resource, scope))
    }
}

/// One of the two documents.
struct Side {
    snapshot: Snapshot,
    now: Timestamp,
}

impl Side {
    fn allows(&self, (identity, capability, resource): (&str, &str, &str)) -> bool {
        let question = Question {
            identity: Path::parse(identity).unwrap(),
            capability,
            resource: Path::parse(resource).unwrap(),
            attributes: Attributes::NONE,
        };
        self.snapshot.check(&question, self.now).unwrap().allowed()
    }
}

/// The facts without some bindings and some properties, and with some disabled identities enabled.
fn part(facts: &Facts, keeps: &[bool]) -> Facts {
    let mut keeps = keeps.iter().copied().cycle();
    let mut keep = || keeps.next().unwrap();
    let mut part = facts.clone();
    part.role_bindings.retain(|_| keep());
    part.identities.iter_mut().for_each(|one| one.disabled &= keep());
    let identities = part.identities.iter_mut().map(|one| &mut one.properties);
    let resources = part.resources.iter_mut().map(|one| &mut one.properties);
    for properties in identities.chain(resources) {
        if !keep() {
            *properties = Properties::new();
        }
    }
    part
}

fn compare(world: &World, keeps: [&[bool]; 2]) -> Result<(), TestCaseError> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = Timestamp::new(i64::try_from(since_epoch.as_secs()).unwrap(), 0);
    let folder = folder("policy-diff-checked");
    let files = ["old.yaml", "new.yaml"].map(|name| folder.join(name));
    let mut sides = Vec::new();
    for (file, keeps) in files.iter().zip(keeps) {
        let facts = part(&world.facts, keeps);
        std::fs::write(file, policy_document(&world.catalog, &facts)).unwrap();
        let catalog = Arc::new(Catalog::new(world.catalog.clone()).unwrap());
        let model = Model::new(catalog, facts).unwrap();
        sides.push(Side { snapshot: Snapshot::build(&model, 1).unwrap(), now });
    }
    let [old, new] = files.map(|file| file.to_str().unwrap().to_owned());
    let output = capstan(&["policy", "diff", &old, &new, "--output", "json"]);
    prop_assert!(output.status.success(), "{}", stderr(&output));
    let Report { gained, lost } = serde_json::from_str(&stdout(&output)).unwrap();

    let Facts { groups, resources, .. } = &world.facts;
    let scopes = groups.iter().map(|one| &one.id).chain(resources.iter().map(|one| &one.id));
    let below = scopes.flat_map(|one| [one.to_string(), format!("{one}/some")]);
    let places: Vec<String> = below.filter(|path| Path::parse(path).is_ok()).collect();
    let names: Vec<&str> = sides[0].snapshot.catalog().capabilities().collect();
    for identity in world.identities() {
        for capability in &names {
            for place in &places {
                let question = (identity.as_str(), *capability, place.as_str());
                let [before, after] = [0, 1].map(|at| sides[at].allows(question));
                let listed = |changes: &[Change]| changes.iter().any(|one| one.covers(question));
                prop_assert!(!after || before || listed(&gained), "gained: {question:?}");
                prop_assert!(!before || after || listed(&lost), "lost: {question:?}");
            }
        }
    }
    for (side, changes) in [(&sides[1], gained), (&sides[0], lost)] {
        for change in changes.iter().filter(|change| change.when.is_empty()) {
            for capability in &change.capabilities {
                let question = (&*change.identity, &**capability, &*change.scope);
                prop_assert!(side.allows(question), "nobody gave it: {change:?}");
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: ProptestConfig::default().cases / 6, // a case starts a program
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_changed_check_is_listed(
        world in world(),
        old in proptest::collection::vec(any::<bool>(), 16),
        new in proptest::collection::vec(any::<bool>(), 16),
    ) {
        compare(&world, [&old, &new])?;
    }
}
