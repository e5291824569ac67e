//! Who asks, on which state; the method's own capabilities; and how a refusal is told.

use std::collections::BTreeMap;

use capstan_engine::{CapabilitySet, Path, PathBuf, Timestamp};

use crate::limits::{WHO_COULD_EXAMINED_MAX, WHO_COULD_MAX};
use crate::rights::{Rights, names, nothing, set};
use crate::rules::grant::manages_access;
use crate::rules::session::counting;
use crate::view::View;
use crate::{Actor, Cause, Incarnation, JudgeError, Refusal, Rule, RuleSet, State};

/// An actor before a state, at a time.
#[derive(Clone, Debug)]
pub(crate) struct Access<'s> {
    pub(crate) rules: RuleSet,
    pub(crate) view: View<'s>,
    pub(crate) actor: &'s Actor,
    pub(crate) rights: Rights<'s>,
    pub(crate) now: Timestamp,
}

impl<'s> Access<'s> {
    /// An actor that is registered and enabled, or the operator.
    pub(crate) fn new(
        rules: RuleSet,
        state: State<'s>,
        actor: &'s Actor,
        now: Timestamp,
    ) -> Result<Self, JudgeError> {
        let rights = Rights::of(state.snapshot, actor, now);
        let mut rights = rights.ok_or_else(|| Refusal::open(None, Cause::AuthnFailed))?;
        let view = View(state);
        rights = rights.with_session(counting(&view, actor, now)?);
        // Pull tokens are below groups.
        if let Some(id) = actor.id().filter(|id| id.as_path().parent().is_some())
            && rules.keeps(Rule::PullToken)
            && view.identity(id.as_path())?.is_some_and(|one| one.is_pull_token())
        {
            // R7, also if its role has come to hold more since the token was made.
            let all = state.snapshot.catalog().capabilities();
            rights = rights.without(&all.filter(|name| manages_access(name)).collect::<Vec<_>>());
        }
        if let Some(narrowing) = actor.narrowing()
            && rules.keeps(Rule::Narrowed)
        {
            rights = rights.narrowed(narrowing);
        }
        Ok(Self { rules, view, actor, rights, now })
    }

    /// Whether the actor is this identity, and may do to itself what everybody may (R16). Whoever has a narrowed credential may
    /// not: it is for what it says, and nothing else (R21).
    pub(crate) fn is(&self, identity: Path<'_>) -> bool {
        let is_narrowed = self.actor.narrowing().is_some() && self.rules.keeps(Rule::Narrowed);
        self.is_shown_itself(identity) && !is_narrowed
    }

    /// Whether the actor is this identity.
    pub(crate) fn is_shown_itself(&self, identity: Path<'_>) -> bool {
        self.actor.id().is_some_and(|id| id.as_path() == identity)
    }

    /// The actor, as what it promises or sends names it; `None` for the operator.
    pub(crate) fn incarnation(&self) -> Result<Option<Incarnation>, JudgeError> {
        let Some(id) = self.actor.id() else { return Ok(None) };
        let found = self.view.identity(id.as_path())?.ok_or_else(Refusal::not_found)?;
        Ok(Some(Incarnation { id: found.id, created: found.meta.created }))
    }

    /// The capabilities that a method needs at a scope. One that the catalog lacks makes it the operator's (R19).
    pub(crate) fn require(&self, method: &[&str], scope: Path<'_>) -> Result<(), JudgeError> {
        if self.rights.is_operator() {
            return Ok(());
        }
        let catalog = self.view.snapshot().catalog();
        let is_absent = |name: &&str| catalog.capability(name).is_none();
        let absent: Vec<_> =
            method.iter().filter(|name| is_absent(name)).map(|name| (*name).to_owned()).collect();
        if !absent.is_empty() && self.rules.keeps(Rule::ClosedCatalog) {
            let cause = Cause::OperatorOnly { scope: Some(scope.into()), absent };
            return Err(self.refuse(Some(Rule::ClosedCatalog), cause, scope));
        }
        self.miss(None, &self.rights.lacks(&set(catalog, method), scope), scope)
    }

    /// Refuses if anything is missing.
    pub(crate) fn miss(
        &self,
        rule: Option<Rule>,
        missing: &CapabilitySet,
        scope: Path<'_>,
    ) -> Result<(), JudgeError> {
        let missing = names(self.view.snapshot().catalog(), missing);
        if missing.is_empty() {
            return Ok(());
        }
        Err(self.refuse(rule, Cause::MissingCapability { scope: scope.into(), missing }, scope))
    }

    /// Refuses to everybody but the operator. At the root there is nothing to hide, so it is told.
    pub(crate) fn only_operator(
        &self,
        rule: Rule,
        scope: Option<Path<'_>>,
    ) -> Result<(), JudgeError> {
        if self.rights.is_operator() || !self.rules.keeps(rule) {
            return Ok(());
        }
        let cause = Cause::OperatorOnly { scope: scope.map(PathBuf::from), absent: vec![] };
        Err(match scope {
            Some(scope) => self.refuse(Some(rule), cause, scope),
            None => Refusal::open(Some(rule), cause).into(),
        })
    }

    /// A refusal for something at this scope: told to who holds `groups.list` there, otherwise `NOT_FOUND`.
    pub(crate) fn refuse(&self, rule: Option<Rule>, cause: Cause, scope: Path<'_>) -> JudgeError {
        if self.rules.keeps(Rule::Visibility) && !self.rights.holds("groups.list", scope) {
            return Refusal::hidden(rule, cause).into();
        }
        let who_could = match &cause {
            Cause::MissingCapability { missing, .. } => self.who_could(missing, scope),
            _ => vec![],
        };
        let mut refusal = Refusal::open(rule, cause);
        refusal.who_could = who_could;
        refusal.into()
    }

    /// A few identities that hold all of these capabilities there, by bindings that the actor may see.
    fn who_could(&self, missing: &[String], scope: Path<'_>) -> Vec<PathBuf> {
        let snapshot = self.view.snapshot();
        let catalog = snapshot.catalog();
        let wanted = catalog.capability_set(missing);
        if wanted.len() < missing.len() {
            return vec![]; // The catalog lacks one: nobody holds it.
        }
        let visible =
            scope.ancestors().filter(|scope| self.rights.holds("role_bindings.list", *scope));
        let bindings = visible.flat_map(|scope| snapshot.bindings_at(scope));
        let mut held: BTreeMap<PathBuf, CapabilitySet> = BTreeMap::new();
        for binding in bindings.take(WHO_COULD_EXAMINED_MAX) {
            let counts = binding.when.is_empty()
                && binding.expires_at.is_none_or(|expires_at| self.now < expires_at);
            if let Some(role) = snapshot.role(&binding.role).filter(|_| counts) {
                let held = held.entry(binding.identity);
                held.or_insert_with(|| nothing(catalog)).add(&role.capabilities);
            }
        }
        let is_active = |id: &PathBuf| {
            let state = snapshot.identity_state(id.as_path());
            state.is_some_and(|state| state.registered && !state.disabled)
        };
        let could = held.into_iter().filter(|(id, held)| held.covers(&wanted) && is_active(id));
        could.map(|(id, _)| id).take(WHO_COULD_MAX).collect()
    }
}
