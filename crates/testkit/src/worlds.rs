//! Named worlds in the product's own formats: a policy, and the tests that it must pass.
//!
//! **Invariant**: a world is read with [`capstan_policy`], as in `capstan policy test`. A world that does not
//! load fails the test that reads it.

use std::path::{Path, PathBuf};

use capstan_engine::{CatalogFacts, Model, Timestamp};
use capstan_policy::{Catalogs, PolicyTests, load_policy, load_policy_tests};

/// The folder of the worlds.
pub const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/worlds");

/// A policy and its tests.
#[derive(Debug)]
pub struct World {
    /// The prefix of the names of its files.
    pub name: String,
    /// The file of the policy.
    pub policy_file: PathBuf,
    /// The content of the file.
    pub policy: Vec<u8>,
    /// The model of the policy.
    pub model: Model,
    /// The catalog, for the naive model.
    pub catalog: CatalogFacts,
    /// The tests.
    pub tests: PolicyTests,
    /// The time of the tests: worlds do not depend on the clock.
    pub now: Timestamp,
}

/// Every world, by name.
///
/// # Panics
///
/// If a world cannot be read, does not load, or breaks the rules of worlds.
#[must_use]
#[expect(clippy::panic, reason = "a broken world is a bug of the tests that read it")]
pub fn worlds() -> Vec<World> {
    let load = || -> Result<Vec<World>, String> {
        let entries = std::fs::read_dir(DIRECTORY).map_err(|error| error.to_string())?;
        let mut worlds = Vec::new();
        for entry in entries {
            let file = entry.map_err(|error| error.to_string())?.file_name();
            if let Some(name) = file.to_str().and_then(|file| file.strip_suffix(".tests.yaml")) {
                worlds.push(world(name).map_err(|error| format!("world `{name}`: {error}"))?);
            }
        }
        worlds.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(worlds)
    };
    load().unwrap_or_else(|error| panic!("{error}"))
}

fn world(name: &str) -> Result<World, String> {
    let directory = Path::new(DIRECTORY);
    let read =
        |file: &Path| std::fs::read(file).map_err(|error| format!("`{}`: {error}", file.display()));
    let tests = read(&directory.join(format!("{name}.tests.yaml")))?;
    let tests = load_policy_tests(&tests).map_err(|found| found.to_string())?;
    let policy = tests.policy.as_deref().ok_or("`policy` is missing")?;
    if !["yaml", "json"].iter().any(|kind| policy == format!("{name}.policy.{kind}")) {
        return Err(format!("policy `{policy}` is another world's"));
    }
    let now = tests.now.ok_or("`now` is missing")?;
    let policy_file = directory.join(policy);
    let policy = read(&policy_file)?;
    let loaded = load_policy(&policy, &Catalogs::default()).map_err(|found| found.to_string())?;
    let model = loaded.model;
    let catalog = model.catalog().facts().clone();
    Ok(World { name: name.to_owned(), policy_file, policy, model, catalog, tests, now })
}
