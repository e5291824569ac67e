//! Export, import and another catalog, on a store in memory.

mod at_limits;
mod backups;
mod resolved;

use std::time::Duration;

use capstan_iam::{Authentication, ClaimMatch, IdentityUpdate, Match, UpdateIdentity};
use capstan_policy::load_policy;
use capstan_testkit::{fuzz, generate, written};
use futures_util::TryStreamExt as _;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::*;
use crate::feed::journal::documents::StoreDocuments;
use crate::feed::management::{
    Action, CatalogSource, ChangedAccess, ChangedObject, Difference, DocumentFormat,
    Documents as _, Export, Import, SetCatalog,
};
use crate::limits::{
    ACCESS_CHANGES_BYTES_MAX, CALLER_EXPORTS_MAX, EXPORT_CHUNK_BYTES, EXPORT_PARTS_MAX,
    EXPORT_STALL_MAX, EXPORT_TIME_MAX, EXPORTS_MAX, PROBLEMS_MAX,
};

const CATALOG: &str = "chainguard-2025-08-14";

impl Running {
    fn documents(&self) -> StoreDocuments {
        let clock = Clock::Fixed(Timestamp::new(START, 0));
        StoreDocuments::new(self.writes.clone(), Arc::clone(&self.published), clock, vec![])
    }

    fn export_of(&self, actor: Actor, parent: Option<&str>, format: DocumentFormat) -> Export {
        let current = self.published.current().unwrap();
        let objects = self.writes.objects(current.view().unwrap());
        let now = Timestamp::new(START, 0);
        Export { current, objects, actor, now, parent: parent.map(path), format }
    }

    async fn export_by(&self, actor: Actor, parent: Option<&str>) -> String {
        let export = self.export_of(actor, parent, DocumentFormat::Yaml);
        let parts: Vec<_> = self.documents().export(export).try_collect().await.unwrap();
        String::from_utf8(parts.concat()).unwrap()
    }

    async fn export(&self) -> String {
        self.export_by(Actor::Operator, None).await
    }

    async fn try_import(
        &self,
        document: &str,
        change: impl FnOnce(&mut Import),
    ) -> Result<Difference, RequestError> {
        let mut import = Import {
            origin: origin(),
            parent: None,
            document: document.into(),
            dry_run: false,
            prune: false,
        };
        change(&mut import);
        let documents = self.documents();
        documents.import(documents.turn().await?, import).await
    }

    async fn import(&self, document: &str) -> Difference {
        self.try_import(document, |_| {}).await.unwrap()
    }

    async fn refuses(&self, document: &str, change: impl FnOnce(&mut Import)) -> String {
        let before = self.revision();
        let refused = self.try_import(document, change).await.unwrap_err();
        assert_eq!(self.revision(), before);
        let RequestError::Field { field, problem } = refused else { panic!("{refused:?}") };
        assert_eq!(field, "chunk");
        problem
    }

    fn object(&self, kind: Kind, id: &str) -> Option<Object> {
        let view = self.published.current().unwrap().view().unwrap();
        self.writes.objects(view).get(kind, path(id).as_path()).unwrap()
    }
}

fn origin() -> Origin {
    let (method, authentication) = ("PolicyService/Import", "operator");
    Origin { method, authentication, source: "unix".into(), request: [7; 32] }
}

/// A store without objects.
async fn empty(catalog: &StoredCatalog) -> Arc<Faulty> {
    let journal = Faulty::new();
    let head = Head::empty(3);
    let now = Timestamp::new(START, 0);
    let batch = first_batch(&head, catalog, vec![], ("init", now));
    journal.append(head, batch).await.unwrap();
    journal
}

fn about(parent: &str) -> impl FnOnce(&mut Import) {
    move |import: &mut Import| import.parent = Some(path(parent))
}

fn pruned(parent: &str) -> impl FnOnce(&mut Import) {
    move |import: &mut Import| (import.parent, import.prune) = (Some(path(parent)), true)
}

fn changed(difference: &Difference) -> Vec<(Action, String)> {
    let changes = difference.changes.iter();
    changes.map(|ChangedObject { action, id, .. }| (*action, id.to_string())).collect()
}

const ACME: &str = "
version: 1
catalog: chainguard-2025-08-14
groups:
  - {id: acme, name: Acme, description: The organization}
  - {id: acme/platform, name: Platform}
roles:
  - {id: acme/puller, name: Puller, description: pulls, capabilities: [apk.list, repo.list]}
identities:
  - {id: alice}
  - {id: acme/ci, name: CI, type: service, properties: {team: platform}, description: builds}
  - {id: acme/old, disabled: true, authentication: {claim_match: {issuer: 'https://i', subject_pattern: '^a|b$|^$'}}}
resources:
  - {id: acme/platform/nginx, type: repo, name: nginx, properties: {visibility: private}}
role_bindings:
  - {identity: alice, role: owner, scope: acme}
  - {id: acme/platform/named, identity: acme/ci, role: acme/puller, scope: acme/platform, description: why}
  - {identity: 0123456789abcdef0123456789abcdef01234567, role: viewer, scope: acme/platform/nginx,
     expires_at: 2027-06-01T00:00:00Z, when: [{attribute: resource.visibility, equals: private}]}
";

/// [`ACME`] with this pattern, which is anchored.
fn acme_document() -> String {
    ACME.replace("^a|b$|^$", "^(a|b)$")
}

#[tokio::test]
async fn an_import_is_one_change_that_is_audited_and_survives_a_restart() {
    let journal = acme().await;
    let running = start(&journal).await;
    let first = running.revision();
    let document = acme_document();
    let asked = running.try_import(&document, |import| import.dry_run = true).await.unwrap();
    assert_eq!((asked.revision, running.revision()), (first, first));
    assert_eq!(running.object(Kind::Group, "acme/platform"), None);
    let made = running.import(&document).await;
    assert_eq!((made.revision, running.revision()), (first + 1, first + 1));
    assert_eq!((&asked.changes, &asked.access), (&made.changes, &made.access));
    let created = |id: &str| (Action::Created, id.to_owned());
    let anonymous = &made.changes[4].id;
    assert_eq!(
        changed(&made),
        [
            (Action::Updated, "acme".to_owned()),
            created("acme/platform"),
            created("acme/puller"),
            created("acme/platform/named"),
            created(anonymous.as_str()),
            created("acme/ci"),
            created("acme/old"),
            created("acme/platform/nginx"),
        ]
    );
    let access = ChangedAccess {
        identity: path("acme/ci"),
        scope: path("acme/platform"),
        gained: vec!["apk.list".into(), "repo.list".into()],
        lost: vec![],
    };
    assert!(made.access.contains(&access), "{:?}", made.access);
    assert_eq!(made.access.len(), 2, "alice gains nothing: {:?}", made.access);
    assert!(running.allows("acme/ci", "repo.list", "acme/platform/x"));
    let records = running.audit();
    let record = records.last().unwrap();
    assert_eq!((&*record.method, record.revision), ("PolicyService/Import", made.revision));
    assert_eq!((record.changes.len(), &*record.origin.authentication), (8, "operator"));

    let document = running.export().await;
    let again = start(&journal).await;
    assert_eq!(again.export().await, document);
    assert!(again.allows("acme/ci", "repo.list", "acme/platform/x"));
    // What is the same is not touched.
    let etag = again.object(Kind::Identity, "acme/ci");
    for same in [&document, &acme_document()] {
        let same = again.import(same).await;
        assert_eq!((same.changes.len(), same.access.len(), same.revision), (0, 0, made.revision));
    }
    let renamed = again.import(&document.replace("name: Platform", "name: P")).await;
    assert_eq!(changed(&renamed), [(Action::Updated, "acme/platform".to_owned())]);
    assert_eq!(again.object(Kind::Identity, "acme/ci"), etag);
    let group = again.group("acme/platform").unwrap();
    assert_eq!((group.meta.created, group.meta.updated), (made.revision, renamed.revision));
    // Writes go on.
    assert_eq!(again.as_alice(create("acme/more")).await.revision, renamed.revision + 1);
}

#[tokio::test]
async fn what_the_document_lacks_is_deleted_only_if_asked() {
    let running = start(&acme().await).await;
    running.import(&acme_document()).await;
    let other = "version: 1\ncatalog: chainguard-2025-08-14\ngroups: [{id: other}]\n\
                 identities: [{id: bob}]\nrole_bindings: [{identity: bob, role: owner, scope: other}]\n";
    running.import(other).await;
    let small = "version: 1\ncatalog: chainguard-2025-08-14\n\
                 groups: [{id: acme, name: Acme, description: The organization}]\nidentities: [{id: alice}]\n\
                 role_bindings: [{identity: alice, role: owner, scope: acme}]\n";
    assert_eq!(running.import(small).await.changes, []);
    let made = running.try_import(small, pruned("acme")).await.unwrap();
    let deleted: Vec<_> = changed(&made);
    assert!(deleted.iter().all(|(action, _)| *action == Action::Deleted), "{deleted:?}");
    assert_eq!(deleted.len(), 7, "{deleted:?}");
    assert!(made.access.iter().all(|one| one.gained.is_empty() && !one.lost.is_empty()));
    assert!(!running.allows("acme/ci", "repo.list", "acme/platform/x"));
    let acme = running.export_by(Actor::Operator, Some("acme")).await;
    assert_eq!(acme, small.replace(" [{", "\n  - {").replace("}]", "}"));
    assert!(running.export().await.contains("{identity: bob, role: owner, scope: other}"));
    let problem = running.refuses(other, pruned("acme")).await;
    assert!(problem.contains("does not declare `acme`"), "{problem}");
}

/// A path that was one kind of object can be another one, and a binding can take the place of another.
#[tokio::test]
async fn what_is_deleted_makes_room() {
    let running = start(&acme().await).await;
    running.import(&acme_document()).await;
    let next = acme_document()
        .replace("{id: acme/puller, name: Puller", "{id: acme/ci, name: Puller")
        .replace("{id: acme/ci, name: CI,", "{id: acme/puller, name: CI,")
        .replace("identity: acme/ci, role: acme/puller", "identity: acme/puller, role: acme/ci");
    let problem = running.refuses(&next, |_| {}).await;
    assert!(problem.contains("`acme/ci` exists already"), "{problem}");
    running.try_import(&next, pruned("acme")).await.unwrap();
    assert!(running.allows("acme/puller", "repo.list", "acme/platform/x"));
    assert_eq!(
        running.export_by(Actor::Operator, Some("acme")).await.matches("acme/ci").count(),
        2
    );
    // The same binding by another id.
    let moved = next.replace("acme/platform/named", "acme/platform/moved");
    let made = running.import(&moved).await;
    let expected = [
        (Action::Created, "acme/platform/moved".to_owned()),
        (Action::Deleted, "acme/platform/named".to_owned()),
    ];
    assert_eq!(changed(&made), expected);
    assert_eq!(made.access, []);
    // Without an id it keeps the one that it has.
    let unnamed = moved.replace("id: acme/platform/moved, ", "");
    assert_eq!(running.import(&unnamed).await.changes, []);
}

#[tokio::test]
async fn what_no_document_changes_is_refused() {
    let running = start(&acme().await).await;
    let document = acme_document();
    let problem = running.refuses(&document.replace("groups:", "grups:"), |_| {}).await;
    assert!(problem.contains("4:1") && problem.contains("grups"), "{problem}");
    let other =
        document.replace("catalog: chainguard-2025-08-14", "catalog: chainguard-2023-12-07");
    let other = other.replace("[apk.list, repo.list]", "[groups.list]");
    let problem = running.refuses(&other, |_| {}).await;
    assert!(
        problem.contains("`chainguard-2023-12-07`, and the store `chainguard-2025-08-14`"),
        "{problem}"
    );
    let token = document.replace("type: service", "type: pull_token");
    assert!(running.refuses(&token, |_| {}).await.contains("pull token"));
    let outside = document.replace("groups:", "groups:\n  - {id: other}");
    assert!(
        running.refuses(&outside, about("acme")).await.contains("`other` is outside of `acme`")
    );
    let bound = outside.replace("role: owner, scope: acme}", "role: owner, scope: other}");
    assert!(running.refuses(&bound, about("acme")).await.contains("at `other`"));
    let hash = "a".repeat(64);
    let secret = format!("{document}credentials: [{{identity: alice, sha256: {hash}}}]\n");
    assert!(running.refuses(&secret, |_| {}).await.contains("credentials"));
    assert_eq!(running.audit().len(), 1);
}

/// The document of an organization says little of a person, so an import leaves the rest as it is.
#[tokio::test]
async fn a_person_keeps_what_the_document_does_not_say() {
    let running = start(&acme().await).await;
    let claims = ClaimMatch {
        issuer: Match::Exact("https://i".into()),
        subject: Match::Pattern("secret-subject|x".into()),
        audience: None,
        claims: Default::default(),
        claim_patterns: Default::default(),
    };
    let update = IdentityUpdate {
        description: Some("private".into()),
        disabled: Some(false),
        authentication: Some(Some(Authentication::ClaimMatch(claims))),
        properties: Some([("n".to_owned(), capstan_engine::Value::Integer(1))].into()),
        ..IdentityUpdate::default()
    };
    let update = UpdateIdentity { id: path("alice"), update, etag: None };
    running.writes.write(write(Actor::Operator, Operation::UpdateIdentity(update))).await.unwrap();
    let before = running.object(Kind::Identity, "alice");
    for actor in [Actor::Operator, alice()] {
        let document = running.export_by(actor, Some("acme")).await;
        assert!(document.contains("  - {id: alice}\n"), "{document}");
        assert_eq!(running.import(&document).await.changes, []);
        let other = document.replace("{id: alice}", "{id: alice, disabled: true}");
        let made = running.try_import(&other, about("acme")).await.unwrap();
        assert_eq!(made.changes, [], "it is not of the organization");
    }
    // All of it, for the operator.
    let document = running.export().await;
    assert!(document.contains("subject_pattern: \"^(?:secret-subject|x)$\""), "{document}");
    assert_eq!(running.import(&document).await.changes, []);
    assert_eq!(running.object(Kind::Identity, "alice"), before);
    let made =
        running.import(&document.replace("{id: alice,", "{id: alice, disabled: true,")).await;
    assert_eq!(changed(&made), [(Action::Updated, "alice".to_owned())]);
    assert_eq!((made.access.len(), made.access[0].gained.len()), (1, 0));
}

/// Holders of the four capabilities see no resource of a type of which they may list none.
#[tokio::test]
async fn a_document_has_only_what_its_reader_may_see() {
    let running = start(&acme().await).await;
    let document = acme_document()
        .replace("identities:\n", "  - {id: acme/reads, capabilities: [groups.list, roles.list, role_bindings.list, identity.list]}\nidentities:\n  - {id: carol}\n")
        .replace("role_bindings:\n", "role_bindings:\n  - {identity: carol, role: acme/reads, scope: acme}\n");
    running.import(&document).await;
    let seen = running.export_by(Actor::identity(path("carol")), Some("acme")).await;
    assert!(!seen.contains("nginx"), "{seen}");
    assert!(load_policy(seen.as_bytes(), &Catalogs::default()).is_ok(), "{seen}");
    assert!(running.export_by(alice(), Some("acme")).await.contains("nginx"));
}

#[tokio::test]
async fn a_document_is_sent_in_parts_to_few_clients_at_a_time() {
    let running = start(&acme().await).await;
    running.import(&many(20_000, "")).await;
    let documents = running.documents();
    let export = || running.export_of(Actor::Operator, None, DocumentFormat::Json);
    let parts: Vec<_> = documents.export(export()).try_collect().await.unwrap();
    let (last, parts) = parts.split_last().unwrap();
    assert!(parts.len() > EXPORT_PARTS_MAX + 2);
    assert!(parts.iter().all(|part| part.len() == EXPORT_CHUNK_BYTES));
    assert!((1..=EXPORT_CHUNK_BYTES).contains(&last.len()));
    // Those that are not read keep their places.
    let busy = Err(RequestError::Store(StoreFailure::Busy));
    let caller = |at: usize| path(&format!("caller-{at}"));
    let by = |at| Export { actor: Actor::identity(caller(at)), ..export() };
    let waiting: Vec<_> = (0..CALLER_EXPORTS_MAX).map(|_| documents.export(export())).collect();
    assert_eq!(documents.export(export()).try_collect::<Vec<_>>().await, busy, "of one caller");
    let others = CALLER_EXPORTS_MAX..EXPORTS_MAX;
    let others: Vec<_> = others.map(|at| documents.place(Some(caller(at))).unwrap()).collect();
    assert_eq!(documents.export(by(0)).try_collect::<Vec<_>>().await, busy, "of all");
    drop((waiting, others));
    let mut tries = 0..1_000;
    while documents.export(export()).try_collect::<Vec<_>>().await.is_err() {
        assert!(tries.next().is_some());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// A part of a document is never taken for the whole.
#[tokio::test(start_paused = true)]
async fn an_export_whose_client_stops_reading_ends_with_an_error() {
    let running = start(&acme().await).await;
    running.import(&many(20_000, "")).await;
    let export = running.export_of(Actor::Operator, None, DocumentFormat::Yaml);
    let documents = running.documents();
    let stream = documents.export(export);
    // The thread of the export works in the time of the machine, and waits in that of the runtime.
    while documents.exports_free() < EXPORTS_MAX {
        tokio::time::sleep(EXPORT_STALL_MAX).await;
    }
    let parts: Vec<_> = futures_util::StreamExt::collect(stream).await;
    let (last, parts) = parts.split_last().unwrap();
    assert_eq!(*last, Err(RequestError::Store(StoreFailure::Busy)));
    assert!(
        parts.iter().all(Result::is_ok) && parts.len() <= EXPORT_PARTS_MAX + 1,
        "{}",
        parts.len()
    );
}

/// An export keeps a revision of the store, so it ends also for a client that reads, too slowly.
#[tokio::test(start_paused = true)]
async fn an_export_that_takes_too_long_ends_with_an_error() {
    let running = start(&acme().await).await;
    running.import(&many(60_000, "")).await;
    let export = || running.export_of(Actor::Operator, None, DocumentFormat::Json);
    let documents = running.documents();
    let all = documents.export(export()).try_collect::<Vec<_>>().await.unwrap().len();
    let pause = EXPORT_STALL_MAX - Duration::from_secs(1);
    let (mut stream, begun, mut parts) =
        (documents.export(export()), tokio::time::Instant::now(), 0);
    let ended = loop {
        tokio::time::sleep(pause).await;
        match stream.try_next().await {
            Ok(Some(_)) => parts += 1,
            ended => break ended,
        }
    };
    assert_eq!(ended, Err(RequestError::Store(StoreFailure::Busy)));
    assert!(parts < all, "{parts} of {all}");
    assert!(begun.elapsed() >= EXPORT_TIME_MAX, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_answer_is_cut_and_says_so() {
    let running = start(&acme().await).await;
    let names: usize = running
        .published
        .current()
        .unwrap()
        .snapshot
        .role("owner")
        .map(|role| role.capabilities.iter().count())
        .unwrap();
    // Names have at least five bytes.
    let identities = ACCESS_CHANGES_BYTES_MAX / names / 5;
    let bound: String = (0..identities)
        .map(|at| format!("  - {{identity: acme/i{at}, role: owner, scope: acme}}\n"))
        .collect();
    let identities: String =
        (0..identities).map(|at| format!("  - {{id: acme/i{at}}}\n")).collect();
    let document = many(1, &format!("identities:\n{identities}role_bindings:\n{bound}"));
    let made = running.try_import(&document, |import| import.dry_run = true).await.unwrap();
    assert!(made.truncated && made.access.len() < made.changes.len());
    let wrong: String =
        (0..2 * PROBLEMS_MAX).map(|at| format!("  - {{ids: acme/{at}}}\n")).collect();
    let problem = running.refuses(&many(1, &format!("identities:\n{wrong}")), |_| {}).await;
    assert_eq!(problem.lines().count(), 1 + PROBLEMS_MAX + 1, "{problem}");
    assert!(problem.contains("more"), "{problem}");
}

/// Otherwise whoever is bound by the derived id would be another identity than who logs in.
#[tokio::test]
async fn a_root_identity_with_literal_claims_has_the_derived_id() {
    let running = start(&acme().await).await;
    let derived = capstan_iam::derived_identity_id("https://i", "s").unwrap();
    let document = |id: &str, subject: &str| {
        let claims = format!("{{claim_match: {{issuer: 'https://i', {subject}}}}}");
        many(0, &format!("identities:\n  - {{id: {id}, authentication: {claims}}}\n"))
    };
    let problem = running.refuses(&document("carol", "subject: s"), |_| {}).await;
    assert!(problem.contains(&derived) && problem.contains("`carol`"), "{problem}");
    // Neither a pattern nor an identity of an organization is found by a token alone.
    for (id, subject) in
        [(&*derived, "subject: s"), ("carol", "subject_pattern: ^s$"), ("acme/ci", "subject: s")]
    {
        running.import(&document(id, subject)).await;
    }
}

/// A document with groups.
fn many(groups: usize, more: &str) -> String {
    let groups: String =
        (0..groups).map(|at| format!("  - {{id: acme/g{at}, name: a group}}\n")).collect();
    format!("version: 1\ncatalog: {CATALOG}\ngroups:\n  - {{id: acme}}\n{groups}{more}")
}

#[tokio::test]
async fn an_import_that_is_not_durable_is_not_visible() {
    let journal = acme().await;
    let running = start(&journal).await;
    let (first, before) = (running.revision(), running.export().await);
    journal.fails(Fault::Full);
    let failed = running.try_import(&acme_document(), |_| {}).await.unwrap_err();
    assert_eq!(failed, RequestError::Store(StoreFailure::Full));
    assert_eq!((running.revision(), running.export().await), (first, before));
    journal.fails(Fault::UnknownMade);
    running.try_import(&acme_document(), |_| {}).await.unwrap_err();
    // Whatever it was, the next one sees it.
    assert_eq!(running.import(&acme_document()).await.changes, []);
    assert_eq!(running.revision(), first + 1);
}

#[tokio::test]
async fn imports_and_writes_wait_for_each_other() {
    let running = start(&acme().await).await;
    let first = running.revision();
    let writes = (0..20).map(|at| running.as_alice(create(&format!("acme/g{at}"))));
    let documents = running.documents();
    let import = async || {
        let import = Import {
            origin: origin(),
            parent: None,
            document: acme_document().into(),
            dry_run: false,
            prune: false,
        };
        documents.import(documents.turn().await?, import).await
    };
    let (writes, one, other) =
        tokio::join!(futures_util::future::join_all(writes), import(), import());
    assert_eq!(writes.len(), 20);
    let mut changes = [one, other].map(|made| made.unwrap().changes.len());
    changes.sort_unstable();
    assert_eq!(changes, [0, 8], "the second finds what the first has made");
    assert_eq!(running.revision(), first + 21);
    assert_eq!(running.audit().len(), 22);
}

// === Another catalog ===

async fn set(
    running: &Running,
    catalog: CatalogSource,
    dry_run: bool,
) -> Result<Difference, RequestError> {
    let change = SetCatalog { origin: origin(), catalog, dry_run };
    running.documents().set_catalog(change).await
}

#[tokio::test]
async fn another_catalog_changes_what_roles_give_at_once() {
    let journal = acme().await;
    let running = start(&journal).await;
    running.import(&acme_document()).await;
    let first = running.revision();
    // The same with another name, and without a capability of `viewer`.
    let mut facts = Catalogs::default().get(CATALOG).unwrap().facts().clone();
    facts.name = "next".into();
    let viewer = facts.roles.iter_mut().find(|role| role.name == "viewer").unwrap();
    viewer.capabilities.retain(|name| name != "repo.list");
    let next = CatalogSource::Document(written::catalog(&facts).into());
    let asked = set(&running, next.clone(), true).await.unwrap();
    assert_eq!((asked.revision, running.revision(), &*asked.catalog), (first, first, "next"));
    let [lost] = &asked.access[..] else { panic!("{:?}", asked.access) };
    assert_eq!((lost.scope.as_str(), lost.gained.len()), ("acme/platform/nginx", 0));
    assert_eq!(lost.lost, ["repo.list"]);
    let made = set(&running, next.clone(), false).await.unwrap();
    assert_eq!((made.revision, &made.access), (first + 1, &asked.access));
    let same = set(&running, next, false).await.unwrap();
    assert_eq!((same.revision, same.access.len()), (first + 1, 0));

    let again = start(&journal).await;
    let current = again.published.current().unwrap();
    assert_eq!(
        (current.snapshot.catalog().name(), current.snapshot.revision()),
        ("next", first + 1)
    );
    assert_eq!(again.audit().len(), 3);
    // Its document has the whole catalog, and is taken again.
    let document = again.export().await;
    assert_eq!(again.import(&document).await.changes, []);
    let back = set(&again, CatalogSource::Name(CATALOG.into()), false).await.unwrap();
    assert_eq!(back.access[0].gained, ["repo.list"]);
    assert_eq!(again.as_alice(create("acme/more")).await.revision, first + 3);
}

#[tokio::test]
async fn a_catalog_that_lacks_what_is_in_use_is_refused() {
    let running = start(&acme().await).await;
    running.import(&acme_document()).await;
    let first = running.revision();
    let facts = Catalogs::default().get(CATALOG).unwrap().facts().clone();
    let mut small = facts.clone();
    small.name = "small".into();
    small.roles.retain(|role| !["viewer", "editor"].contains(&&*role.name));
    small.resources.iter_mut().for_each(|one| {
        if one.name == "apk" {
            one.actions.clear()
        }
    });
    small
        .roles
        .iter_mut()
        .for_each(|role| role.capabilities.retain(|name| !name.starts_with("apk.")));
    let small = CatalogSource::Document(written::catalog(&small).into());
    let refused = set(&running, small, false).await.unwrap_err();
    let RequestError::Field { field, problem } = refused else { panic!("{refused:?}") };
    assert_eq!(field, "document");
    assert!(
        problem.contains("capability `apk.list` of `acme/puller`, role `viewer`;"),
        "{problem}"
    );
    assert!(!problem.contains("editor"), "nobody has it: {problem}");
    let unknown = set(&running, CatalogSource::Name("nothing".into()), false).await.unwrap_err();
    assert!(
        matches!(&unknown, RequestError::Field { field, .. } if field == "name"),
        "{unknown:?}"
    );
    let broken =
        set(&running, CatalogSource::Document("name: x: y".into()), true).await.unwrap_err();
    assert!(matches!(&broken, RequestError::Field { field, .. } if field == "document"));
    assert_eq!(running.revision(), first);
}

// === Any policy ===

/// Whether the ids of a policy's bindings cannot be stored: one has no room for an id, or the id that is made for one is
/// that of another one.
fn has_unstored_ids(facts: &capstan_engine::Facts) -> bool {
    let mut ids = std::collections::BTreeSet::new();
    facts.role_bindings.iter().any(|one| {
        let id = one.id.clone().or_else(|| one.derived_id());
        id.is_none_or(|id| !ids.insert(id))
    })
}

async fn any_policy(world: generate::World) -> Result<(), TestCaseError> {
    let catalog = written::catalog(&world.catalog);
    let catalog = StoredCatalog::of_document(catalog.into()).unwrap();
    let document = written::policy_document(&world.catalog, &world.facts);
    let journal = empty(&catalog).await;
    let running = start(&journal).await;
    let made = match running.try_import(&document, |_| {}).await {
        Ok(made) => made,
        Err(RequestError::Field { field, .. }) if has_unstored_ids(&world.facts) => {
            prop_assert_eq!(field, "chunk");
            return Ok(());
        }
        Err(error) => panic!("{error}\n{document}"),
    };
    let all = world.facts.groups.len() + world.facts.roles.len() + world.facts.identities.len();
    let all = all + world.facts.resources.len() + world.facts.role_bindings.len();
    prop_assert_eq!(made.changes.len(), all);
    // The document answers as the world does, and so does the store, before and after a restart.
    let exported = running.export().await;
    let read = load_policy(exported.as_bytes(), &Catalogs::default()).unwrap().model;
    let model = world.model().unwrap();
    let snapshot =
        |model: &capstan_engine::Model| capstan_engine::Snapshot::build(model, 1).unwrap();
    fuzz::same_snapshots(&snapshot(&read), &snapshot(&model), &world.facts);
    let served = running.published.current().unwrap();
    fuzz::same_snapshots(&served.snapshot, &snapshot(&model), &world.facts);
    let restarted = start(&journal).await.published.current().unwrap();
    fuzz::same_snapshots(&restarted.snapshot, &snapshot(&model), &world.facts);
    // The same again changes nothing, and elsewhere it makes the same.
    prop_assert_eq!(running.import(&exported).await.changes.len(), 0);
    let other = start(&empty(&catalog).await).await;
    prop_assert_eq!(other.import(&exported).await.changes.len(), all);
    prop_assert_eq!(&other.export().await, &exported);
    // Each organization by itself loads, and changes nothing.
    for group in world.facts.groups.iter().filter(|one| one.id.as_path().parent().is_none()) {
        let id = group.id.as_str();
        let one = running.export_by(Actor::Operator, Some(id)).await;
        let made = running.try_import(&one, pruned(id)).await;
        prop_assert!(made.is_ok(), "{:?}\n{}\n{}", made, one, exported);
        prop_assert_eq!(made.unwrap().changes, vec![], "{}\n{}", one, exported);
    }
    prop_assert_eq!(&running.export().await, &exported);
    Ok(())
}

proptest! {
    #[test]
    fn any_policy_is_imported_and_exported(world in generate::world()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(any_policy(world))?;
    }
}
