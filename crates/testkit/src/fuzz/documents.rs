//! Documents: each loads or is refused, with positions inside the text. A loaded document that is written
//! and loaded again gives the same result.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use capstan_engine::{
    Attributes, Facts, Loader, Model, Question, Snapshot, Timestamp, parse_name, self_check,
};
use capstan_policy::{
    BUILT_IN, Catalogs, DIAGNOSTICS_MAX, Diagnostic, Diagnostics, Policy, Streamed, load_callers,
    load_policy, load_policy_tests, load_routes, stream_policy,
};

use crate::{Naive, written};

/// The highest length of one diagnostic, for any document.
const DIAGNOSTIC_BYTES_MAX: usize = 2_000;
/// The number of bindings of a loaded policy with checks.
const BINDINGS_ASKED: usize = 8;
/// The number of identities in the self-check of the snapshot.
const IDENTITIES_CHECKED: usize = 8;

/// The built-in catalogs, a small catalog, and a built-in catalog under a short name. They are loaded only
/// once, because loading takes longer than the rest of a test.
static CATALOGS: LazyLock<Catalogs> = LazyLock::new(|| {
    const TEST: &str = "name: test
resources: [{name: record, actions: [read, write]}]
capabilities: [gulfstream]
roles:
  - {name: reader, capabilities: [record.read]}
  - {name: owner, owner: true, capabilities: [record.read, record.write, gulfstream]}
";
    let mut catalogs = Catalogs::default();
    let newest = BUILT_IN.last().map(|(name, document)| {
        document.replacen(&format!("name: {name}"), "name: guard", 1) // its own name is already used
    });
    for document in newest.iter().map(String::as_str).chain([TEST]) {
        let loaded = catalogs.load(document.as_bytes());
        assert!(loaded.is_ok(), "{loaded:?}");
    }
    catalogs
});

/// Tests a policy by the rules of this module. A snapshot of a loaded policy decides as the naive model.
/// Returns whether the policy loads. The catalogs are the built-in ones, the small catalog `test`, and the
/// newest built-in catalog as `guard`.
///
/// # Panics
///
/// If a rule does not hold.
#[must_use]
pub fn policy(document: &[u8]) -> bool {
    let loaded = loaded_twice(document);
    streamed(document, loaded.as_ref().map(|(_, policy)| policy));
    let Some((facts, Policy { model, warnings, .. })) = loaded else {
        return false;
    };
    in_text(document, &warnings);
    let catalog = model.catalog().facts().clone();
    // An inline catalog can have the name of a loaded one.
    let known = CATALOGS.get(&catalog.name);
    let is_known = known.is_some_and(|known| Arc::ptr_eq(&known, model.catalog()));
    let source = if is_known { catalog.name.clone() } else { written::catalog(&catalog) };
    let text = written::policy(&source, model.facts());
    let reloaded = load_policy(text.as_bytes(), &CATALOGS).map(|reloaded| {
        let reloaded = reloaded.model;
        let catalog = (!is_known).then(|| format!("{:?}", reloaded.catalog().facts()));
        (format!("{:?}", reloaded.facts()), catalog)
    });
    assert_eq!(reloaded, Ok((facts, (!is_known).then(|| format!("{catalog:?}")))), "{text}");
    decided(&model);
    true
}

/// Loads a policy twice, with equal results. Returns the policy and its facts as text, if it loads.
fn loaded_twice(document: &[u8]) -> Option<(String, Policy)> {
    let [first, second] = [(), ()].map(|()| load_policy(document, &CATALOGS));
    let facts = |loaded: &Policy| format!("{:?}", loaded.model.facts());
    let [said, again] = [&first, &second].map(|loaded| match loaded {
        Ok(policy) => Ok((facts(policy), policy.warnings.clone())),
        Err(diagnostics) => Err(diagnostics.clone()),
    });
    assert_eq!(said, again, "two loads of one document");
    let (facts, _) = judged(document, said)?;
    Some((facts, first.ok()?))
}

/// Reads the document piece by piece. If its facts keep the rules, they are those of the document that was read
/// whole; if they do not, it was refused.
fn streamed(document: &[u8], whole: Option<&Policy>) {
    let mut catalog = None;
    let collected = stream_policy(document, &CATALOGS, |found| {
        catalog = Some(found);
        Facts::default()
    });
    if let (Ok(Streamed { sink, credentials }), Some(catalog)) = (collected, catalog) {
        let judged = Model::new(catalog, sink).ok();
        let facts = |model: &Model| format!("{:?} {:?}", model.catalog().facts(), model.facts());
        let expected = whole.map(|policy| facts(&policy.model));
        assert_eq!(judged.as_ref().map(facts), expected, "read whole");
        if let Some(policy) = whole {
            assert_eq!(credentials, policy.credentials);
            assert!(policy.warnings.is_empty(), "warnings are lost");
        }
    }
    let loaded = stream_policy(document, &CATALOGS, Loader::new);
    if let Some(Ok(loaded)) = loaded.ok().map(|streamed| streamed.sink.finish(1)) {
        let built = whole.map(|policy| Snapshot::build(&policy.model, 1));
        assert!(matches!(built, Some(Ok(_))), "{built:?}");
        let (Some(policy), Some(Ok(built))) = (whole, built) else { return };
        same_snapshots(&loaded, &built, policy.model.facts());
    }
}

/// Compares two snapshots of the same facts: roles, types, bindings with their ids, and who may do what.
///
/// # Panics
///
/// If there is a difference.
pub fn same_snapshots(one: &Snapshot, other: &Snapshot, facts: &Facts) {
    let sizes = |snapshot: &Snapshot| (snapshot.identities_len(), snapshot.bindings_len());
    assert_eq!(sizes(one), sizes(other));
    let of_roles = |snapshot: &Snapshot| format!("{:?}", snapshot.roles());
    assert_eq!(of_roles(one), of_roles(other));
    let now = facts.role_bindings.iter().find_map(|binding| binding.expires_at);
    let now = now.unwrap_or(Timestamp::UNIX_EPOCH);
    for snapshot in [one, other] {
        let checked = self_check(snapshot, IDENTITIES_CHECKED, now);
        assert!(checked.is_ok(), "{checked:?}");
    }
    let registered = facts.identities.iter().map(|identity| identity.id.as_path());
    let bound = facts.role_bindings.iter().map(|binding| binding.identity.as_path());
    for identity in registered.chain(bound).collect::<BTreeSet<_>>() {
        let state = |snapshot: &Snapshot| snapshot.identity_state(identity);
        assert_eq!(state(one), state(other), "{identity}");
        assert_eq!(one.identity_kind(identity), other.identity_kind(identity), "{identity}");
        // Those without an id have no order.
        let of_identity = |snapshot: &Snapshot| {
            let all = snapshot.role_bindings(identity);
            let mut all: Vec<_> = all.iter().map(|binding| format!("{binding:?}")).collect();
            all.sort();
            all
        };
        assert_eq!(of_identity(one), of_identity(other));
    }
    for resource in &facts.resources {
        let kind =
            |snapshot: &Snapshot| snapshot.resource_kind(resource.id.as_path()).map(str::to_owned);
        assert_eq!((kind(one), kind(other)), (Some(resource.kind.clone()), kind(one)));
    }
    let names: Vec<_> = one.catalog().capabilities().collect();
    let groups = facts.groups.iter().map(|group| &group.id);
    let scopes = groups.chain(facts.resources.iter().map(|resource| &resource.id));
    for (resource, capability) in scopes.zip(names.iter().cycle()) {
        let who = |snapshot: &Snapshot| {
            let all =
                snapshot.list_identities(capability, resource.as_path(), Attributes::NONE, now);
            format!("{all:?}")
        };
        assert_eq!(who(one), who(other));
    }
}

/// Compares the answers of the snapshot and the naive model.
fn decided(model: &Model) {
    let (catalog, facts) = (model.catalog().facts().clone(), model.facts());
    let snapshot = Snapshot::build(model, 1);
    assert!(snapshot.is_ok(), "{:?}", snapshot.err());
    let Ok(snapshot) = snapshot else { return };
    let now = facts.role_bindings.iter().find_map(|binding| binding.expires_at);
    let now = now.unwrap_or(Timestamp::UNIX_EPOCH);
    let checked = self_check(&snapshot, IDENTITIES_CHECKED, now);
    assert!(checked.is_ok(), "{checked:?}");
    let naive = Naive::new(&catalog, facts, Attributes::NONE, now);
    let names: Vec<_> = model.catalog().capabilities().collect();
    let bindings = facts.role_bindings.iter().rev().take(BINDINGS_ASKED);
    for (binding, capability) in bindings.zip(names.iter().cycle()) {
        let (identity, resource) = (binding.identity.as_path(), binding.scope.as_path());
        let question = Question { identity, capability, resource, attributes: Attributes::NONE };
        let found = snapshot.check(&question, now).map(|found| (found.reason, found.valid_until));
        let expected = naive.check(identity.as_str(), capability, resource.as_str());
        assert_eq!(found.ok(), expected, "{question:?} at {now:?}");
    }
}

/// Tests a policy-test document by the rules of this module. Returns whether it loads.
///
/// # Panics
///
/// If a rule does not hold.
#[must_use]
pub fn policy_tests(document: &[u8]) -> bool {
    let loaded = load_policy_tests(document);
    let again = load_policy_tests(document);
    assert_eq!(format!("{loaded:?}"), format!("{again:?}"), "two loads of one document");
    let Some(tests) = judged(document, loaded) else { return false };
    let lines = lines(document).len();
    assert!(tests.tests.iter().all(|test| (1..=lines).contains(&test.line)), "{tests:?}");
    let text = written::policy_tests(&tests);
    let reloaded = load_policy_tests(text.as_bytes());
    let reloaded = reloaded.map(|mut reloaded| {
        // The places are those of the written document.
        for (test, before) in reloaded.tests.iter_mut().zip(&tests.tests) {
            (test.line, test.column) = (before.line, before.column);
        }
        format!("{reloaded:?}")
    });
    assert_eq!(reloaded, Ok(format!("{tests:?}")), "{text}");
    true
}

/// Tests a route table by the rules of this module. Returns whether it loads.
///
/// # Panics
///
/// If a rule does not hold.
#[must_use]
pub fn routes(document: &[u8]) -> bool {
    let loaded = load_routes(document);
    assert_eq!(loaded, load_routes(document), "two loads of one document");
    let Some(table) = judged(document, loaded) else { return false };
    for route in &table.routes {
        assert!(!route.methods.is_empty() && parse_name(&route.name).is_ok(), "{route:?}");
        let bound = route.query.iter().filter_map(|parameter| parameter.bound.as_deref());
        let known: Vec<_> = route.path.parameters().chain(bound).collect();
        let mut named = route.requires.iter().flat_map(|required| required.resource.parameters());
        assert!(named.all(|name| known.contains(&name)), "{route:?}");
    }
    true
}

/// Tests a document of callers by the rules of this module. Returns whether it loads.
///
/// # Panics
///
/// If a rule does not hold.
#[must_use]
pub fn callers(document: &[u8]) -> bool {
    let loaded = load_callers(document);
    assert_eq!(loaded, load_callers(document), "two loads of one document");
    let Some(all) = judged(document, loaded) else { return false };
    for caller in &all.callers {
        assert!(!caller.methods.is_empty() && parse_name(&caller.name).is_ok(), "{caller:?}");
        let same = all.callers.iter().filter(|one| one.proves == caller.proves);
        assert_eq!(same.count(), 1, "{caller:?}");
    }
    true
}

/// Tests a catalog by the rules of this module, as a document and inside a policy. Returns whether the
/// document loads.
///
/// # Panics
///
/// If a rule does not hold.
#[must_use]
pub fn catalog(document: &[u8]) -> bool {
    let mut catalogs = CATALOGS.clone();
    let names = catalogs.names().count();
    let loaded = catalogs.load(document);
    assert_eq!(loaded.as_ref().err(), CATALOGS.clone().load(document).as_ref().err());
    assert_eq!(catalogs.names().count(), names + usize::from(loaded.is_ok()));
    inline(document);
    let Some((catalog, warnings)) = judged(document, loaded) else { return false };
    in_text(document, &warnings);
    let facts = catalog.facts().clone();
    assert!(catalogs.get(&facts.name).is_some_and(|known| Arc::ptr_eq(&known, &catalog)));
    let taken = catalogs.load(document);
    assert!(judged(document, taken).is_none(), "an already used name");
    let text = written::catalog(&facts);
    let reloaded = CATALOGS.clone().load(text.as_bytes());
    let reloaded = reloaded.map(|(catalog, _)| format!("{:?}", catalog.facts()));
    assert_eq!(reloaded, Ok(format!("{facts:?}")), "{text}");
    for (name, at) in catalog.capabilities().map(|name| (name, catalog.capability(name))) {
        assert_eq!(at.and_then(|at| catalog.capability_name(at)), Some(name));
    }
    let sorted: Vec<_> = catalog.capabilities().collect();
    assert!(sorted.is_sorted_by(|a, b| a < b), "{sorted:?}");
    true
}

/// The catalog inside a policy.
fn inline(document: &[u8]) {
    let mut policy = b"version: 1\ncatalog:\n  ".to_vec();
    for byte in document {
        policy.push(*byte);
        if *byte == b'\n' {
            policy.extend(b"  ");
        }
    }
    judged(&policy, load_policy(&policy, &CATALOGS));
}

/// The loaded document, or `None` with valid diagnostics.
fn judged<T>(document: &[u8], loaded: Result<T, Diagnostics>) -> Option<T> {
    let diagnostics = match loaded {
        Ok(loaded) => return Some(loaded),
        Err(diagnostics) => diagnostics,
    };
    let kept = diagnostics.iter().count();
    assert!(kept >= 1 && kept == diagnostics.total().min(DIAGNOSTICS_MAX), "{diagnostics}");
    let places = diagnostics.iter().map(|one| (one.line, one.column));
    assert!(places.is_sorted(), "{diagnostics}");
    in_text(document, diagnostics.iter());
    if std::str::from_utf8(document).is_err() {
        let place = diagnostics.iter().map(|one| (one.line, one.column)).next();
        assert!(kept == 1 && place == not_utf8(document), "{diagnostics}");
    }
    None
}

/// The position of the first invalid UTF-8 byte.
fn not_utf8(document: &[u8]) -> Option<(usize, usize)> {
    let good = document.utf8_chunks().next()?.valid().replace("\r\n", "\n");
    let good = good.trim_start_matches('\u{feff}');
    let last = good.rsplit(['\n', '\r']).next()?;
    Some((good.matches(['\n', '\r']).count() + 1, last.chars().count() + 1))
}

/// Asserts that each diagnostic has a position in the text, is short, and has no control characters.
fn in_text<'d>(document: &[u8], diagnostics: impl IntoIterator<Item = &'d Diagnostic>) {
    let lines = lines(document);
    for diagnostic in diagnostics {
        let length = lines.get(diagnostic.line.wrapping_sub(1));
        let is_in = length.is_some_and(|length| (1..=length + 1).contains(&diagnostic.column));
        assert!(is_in, "{diagnostic}\n{}", String::from_utf8_lossy(document));
        let said = diagnostic.to_string();
        assert!(said.len() < DIAGNOSTIC_BYTES_MAX, "{} bytes: {said:.200}", said.len());
        assert!(!said.contains(char::is_control), "{said:?}");
    }
}

/// The length of each line in characters.
fn lines(document: &[u8]) -> Vec<usize> {
    let text = String::from_utf8_lossy(document).replace("\r\n", "\n");
    text.split(['\n', '\r']).map(|line| line.chars().count()).collect()
}
