//! A management plane without a store: whole objects in a map, beside the engine's writer.
//!
//! A test asks for operations as an actor, and sees the outcome or the refusal. Objects can also be put without being
//! judged. What an identity can do is computed a second time, without code of the product ([`Bindings`]).

mod effective;
pub mod operations;

use std::collections::BTreeMap;
use std::sync::Arc;

use capstan_engine::{Catalog, Facts, Model, Path, PathBuf, Snapshot, Timestamp, Writer};
use capstan_iam::{
    Actor, Context, InviteCode, JudgeError, Kind, Meta, Object, Objects, ObjectsError, Operation,
    Outcome, Reader, Reference, Refusal, Response, Role, RoleBinding, RuleSet, SecretHash, State,
    judge,
};

pub use effective::{Bindings, Bits, bits, named, role_bits};

/// A state of objects, and the time.
#[derive(Clone, Debug)]
pub struct Managed {
    writer: Writer,
    snapshot: Arc<Snapshot>,
    objects: BTreeMap<(Kind, String), Object>,
    /// Invites by the hashes of their codes.
    codes: BTreeMap<[u8; 32], InviteCode>,
    /// The time of operations and reads.
    pub now: Timestamp,
    /// The rules that are kept.
    pub rules: RuleSet,
    /// R15: operations are judged on the state before them. Without it an actor has what a batch gives it already when
    /// the batch is judged. The rules have no such mode, so the state is made to be so.
    pub judges_before: bool,
    /// The issuers that neither providers nor keys of identities can have.
    pub reserved_issuers: Vec<String>,
    /// The issuers that keys of identities cannot have.
    pub trusted_issuers: Vec<String>,
    ids: u64,
}

impl Managed {
    /// No objects, at [`T0`].
    ///
    /// # Panics
    ///
    /// Never: nothing is a valid policy.
    #[must_use]
    #[expect(clippy::expect_used, reason = "for tests only")]
    pub fn new(catalog: Arc<Catalog>) -> Self {
        let model = Model::new(catalog, Facts::default()).expect("nothing is a valid policy");
        let snapshot = Arc::new(Snapshot::build(&model, 1).expect("it is small"));
        Self {
            writer: Writer::new(&snapshot),
            snapshot,
            objects: BTreeMap::new(),
            codes: BTreeMap::new(),
            now: T0,
            rules: RuleSet::FULL,
            judges_before: true,
            reserved_issuers: vec![],
            trusted_issuers: vec![],
            ids: 0,
        }
    }

    /// The engine's snapshot.
    #[must_use]
    pub const fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.snapshot.revision()
    }

    /// All objects, by kind and path.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    /// The object of this kind and path.
    #[must_use]
    pub fn object(&self, kind: Kind, id: &str) -> Option<&Object> {
        self.objects.get(&(kind, id.to_owned()))
    }

    /// The state, to be judged on.
    #[must_use]
    pub fn state(&self) -> State<'_> {
        State { snapshot: &self.snapshot, objects: self }
    }

    /// Judges an operation and does nothing.
    ///
    /// # Errors
    ///
    /// It is refused.
    pub fn judge(&self, actor: &Actor, operation: &Operation) -> Result<Outcome, Box<Refusal>> {
        let mut ids = self.ids;
        let mut new_id = || {
            ids += 1;
            ids
        };
        let mut context = Context {
            now: self.now,
            revision: self.revision() + 1,
            new_id: &mut new_id,
            reserved_issuers: &self.reserved_issuers,
            trusted_issuers: &self.trusted_issuers,
        };
        let helped = (!self.judges_before).then(|| self.helped(actor, operation));
        let state = helped.as_ref().unwrap_or(self).state();
        refused(judge(&self.rules, &state, actor, operation, &mut context))
    }

    /// The state in which an actor has what a batch gives it. It has it by roles of other names, so that no binding of
    /// the batch is there twice.
    #[expect(clippy::expect_used, reason = "for tests only")]
    fn helped(&self, actor: &Actor, operation: &Operation) -> Self {
        let mut helped = self.clone();
        let Operation::BatchCreateRoleBindings(batch) = operation else { return helped };
        let own = batch.bindings.iter().filter(|one| Some(&one.identity) == actor.id());
        for (at, binding) in own.enumerate() {
            let catalog = self.snapshot.catalog();
            let Some(role) = self.snapshot.role(&binding.role) else { continue };
            let root =
                binding.scope.as_path().ancestors().last().unwrap_or(binding.scope.as_path());
            let child = |name: &str| format!("{root}/{name}-{at}").parse().expect("a path");
            let names = role.capabilities.iter().filter_map(|one| catalog.capability_name(one));
            let meta = Meta::new(self.revision(), self.now);
            let (id, name, description) = (child("role-of-batch"), String::new(), String::new());
            let capabilities = names.map(ToOwned::to_owned).collect();
            let same = Role { id, name, description, capabilities, meta };
            let given = RoleBinding {
                id: child("binding-of-batch"),
                name: String::new(),
                description: String::new(),
                identity: binding.identity.clone(),
                role: same.id.as_str().into(),
                scope: binding.scope.clone(),
                expires_at: binding.expires_at,
                when: binding.when.clone(),
                meta,
            };
            // What the engine refuses, the batch does not give either.
            if helped.put(Object::Role(same)).is_ok() {
                let _ = helped.put(Object::RoleBinding(given));
            }
        }
        helped
    }

    /// Judges an operation and does it.
    ///
    /// # Errors
    ///
    /// It is refused.
    ///
    /// # Panics
    ///
    /// The engine refuses what the rules allow.
    #[expect(clippy::panic, reason = "for tests only")]
    pub fn perform(
        &mut self,
        actor: &Actor,
        operation: &Operation,
    ) -> Result<Outcome, Box<Refusal>> {
        let outcome = self.judge(actor, operation)?;
        if let Err(error) = self.apply(&outcome) {
            panic!("the engine refuses what the rules allow: {error}\n{operation:?}");
        }
        Ok(outcome)
    }

    /// Does what an operation comes to.
    ///
    /// # Errors
    ///
    /// The engine refuses it.
    pub fn apply(&mut self, outcome: &Outcome) -> Result<(), capstan_engine::ApplyError> {
        self.writer.apply(&outcome.changes)?;
        if !outcome.is_unchanged() {
            // As many as an operation can have drawn.
            self.ids += 4_000;
            self.snapshot = self.writer.publish(self.revision() + 1);
        }
        if let Response::NewGroupInvite(invite, code) = &outcome.response {
            let found = InviteCode { invite: invite.id.clone(), created: invite.meta.created };
            self.codes.insert(*code.bytes(), found);
        }
        for change in &outcome.objects {
            let key = (change.kind, change.id.as_str().to_owned());
            match &change.after {
                Some(object) => self.objects.insert(key, object.clone()),
                None => self.objects.remove(&key),
            };
        }
        Ok(())
    }

    /// Puts a new object without asking anybody.
    ///
    /// # Errors
    ///
    /// The engine refuses it.
    pub fn put(&mut self, object: Object) -> Result<(), capstan_engine::ApplyError> {
        self.writer.apply(object.created())?;
        self.snapshot = self.writer.publish(self.revision() + 1);
        self.objects.insert((object.kind(), object.id().as_str().to_owned()), object);
        Ok(())
    }

    /// Replaces an object that decides nothing.
    pub fn replace(&mut self, object: Object) {
        self.objects.insert((object.kind(), object.id().as_str().to_owned()), object);
    }

    /// The path of the invite with the code of this number.
    #[must_use]
    pub fn invite(&self, code: u8) -> Option<PathBuf> {
        self.codes.get(&[code; 32]).map(|found| found.invite.clone())
    }

    /// Whoever reads as an actor.
    ///
    /// # Errors
    ///
    /// The actor is not known or disabled.
    pub fn reader<'s>(&'s self, actor: &'s Actor) -> Result<Reader<'s>, Box<Refusal>> {
        refused(Reader::new(&self.rules, &self.state(), actor, self.now))
    }

    /// What an actor gets of an object.
    ///
    /// # Errors
    ///
    /// It is refused.
    ///
    /// # Panics
    ///
    /// The id is no path.
    #[expect(clippy::expect_used, reason = "for tests only")]
    pub fn get(
        &self,
        actor: &Actor,
        kind: Kind,
        id: &str,
    ) -> Result<capstan_iam::Shown, Box<Refusal>> {
        let id: PathBuf = id.parse().expect("a path");
        refused(self.reader(actor)?.get(kind, id.as_path()))
    }

    /// The ids of what an actor sees of a kind, sorted.
    #[must_use]
    pub fn list(&self, actor: &Actor, kind: Kind) -> Vec<String> {
        let Ok(reader) = self.reader(actor) else { return vec![] };
        let of_kind = self.objects.values().filter(|object| object.kind() == kind);
        let seen = of_kind.filter(|object| matches!(reader.show(object), Ok(Some(_))));
        seen.map(|object| object.id().as_str().to_owned()).collect()
    }
}

/// The time at which worlds begin: 2026-01-01T00:00:00Z.
pub const T0: Timestamp = Timestamp::new(1_767_225_600, 0);

/// Some seconds after [`T0`].
#[must_use]
pub const fn after(seconds: i64) -> Timestamp {
    Timestamp::new(T0.seconds() + seconds, 0)
}

/// A map has no errors.
#[expect(clippy::panic, reason = "for tests only")]
fn refused<T>(judged: Result<T, JudgeError>) -> Result<T, Box<Refusal>> {
    judged.map_err(|error| match error {
        JudgeError::Refused(refusal) => refusal,
        JudgeError::Objects(error) => panic!("{error}"),
    })
}

impl Objects for Managed {
    fn get(&self, kind: Kind, id: Path<'_>) -> Result<Option<Object>, ObjectsError> {
        Ok(self.objects.get(&(kind, id.as_str().to_owned())).cloned())
    }

    fn below(
        &self,
        kind: Kind,
        at: Option<Path<'_>>,
        each: &mut dyn FnMut(Object) -> bool,
    ) -> Result<(), ObjectsError> {
        let from = (kind, at.map_or("", Path::as_str).to_owned());
        let of_kind = self.objects.range(from..).take_while(|((found, _), _)| *found == kind);
        let is_below = |object: &&Object| at.is_none_or(|at| at.contains(object.id().as_path()));
        for object in of_kind.map(|(_, object)| object).filter(is_below) {
            if !each(object.clone()) {
                break;
            }
        }
        Ok(())
    }

    fn invite(&self, code: &SecretHash) -> Result<Option<InviteCode>, ObjectsError> {
        Ok(self.codes.get(code.bytes()).cloned())
    }

    fn is_promised(&self, role: &str) -> Result<bool, ObjectsError> {
        Ok(self.objects.values().any(|object| object.promises() == Some(role)))
    }

    fn referring(
        &self,
        to: &Reference<'_>,
        each: &mut dyn FnMut(Kind, PathBuf) -> bool,
    ) -> Result<(), ObjectsError> {
        let refers = |object: &&Object| object.reference() == Some(*to);
        for object in self.objects.values().filter(refers) {
            if !each(object.kind(), object.id().clone()) {
                break;
            }
        }
        Ok(())
    }
}
