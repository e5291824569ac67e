//! Named worlds in the product's own formats: a policy, and the tests that it must pass.
//!
//! **Invariant**: a world is read with [`capstan_policy`], as `capstan policy test` reads it; what
//! does not load is a broken world, and stops the test that asked for it.

use std::path::{Path, PathBuf};

use capstan_engine::{CatalogFacts, Model, Timestamp};
use capstan_policy::{Catalogs, PolicyTests, load_policy, load_policy_tests};

/// Where the worlds are.
pub const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/worlds");

/// A policy and its tests.
#[derive(Debug)]
pub struct World {
    /// What its files begin with.
    pub name: String,
    /// The policy's file, to be served as it is.
    pub policy_file: PathBuf,
    /// What that file holds.
    pub policy: Vec<u8>,
    /// The policy, proved.
    pub model: Model,
    /// Its catalog, for the naive model.
    pub catalog: CatalogFacts,
    /// The questions and answers.
    pub tests: PolicyTests,
    /// When they are asked: worlds do not depend on the clock.
    pub now: Timestamp,
}

/// Every world, by name.
///
/// # Panics
///
/// A world that cannot be read, that does not load, or that breaks the rules of worlds.
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
