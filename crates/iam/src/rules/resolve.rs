//! R9: who decides whom tokens of an issuer prove holds all that these identities reach.
//!
//! ```text
//! issuer ─▶ identities of the organization that name it, or a pattern that matches it ─┬▶ control of each
//!        └▶ identities that act for accounts whose tokens it makes ────────────────────┘
//! ```
//!
//! Root identities are not among them: a provider of an organization proves none.

use std::collections::{BTreeSet, HashMap};

use capstan_engine::{Path, PathBuf};
use regex::Regex;

use crate::limits::{ISSUER_PATTERNS_MAX, RESOLVED_MAX};
use crate::object::parent_or_self;
use crate::rules::access::Access;
use crate::rules::control::Control;
use crate::{
    Authentication, Cause, ClaimMatch, JudgeError, Kind, Match, Object, Reference, Rule,
    compile_pattern,
};

impl Access<'_> {
    /// Control of every identity of an organization that a token of this issuer can prove.
    pub(crate) fn resolve(
        &self,
        organization: Path<'_>,
        issuer: &str,
        how: Control,
    ) -> Result<(), JudgeError> {
        if self.rights.is_operator() {
            return Ok(());
        }
        let mut found = self.referring(&Reference::Issuer { organization, issuer })?;
        found.extend(self.referring(&Reference::IssuerPattern { organization })?);
        let acting = self.acting(organization, issuer)?;
        if found.len() + acting.len() > RESOLVED_MAX {
            let cause = Cause::OperatorOnly { scope: Some(organization.into()), absent: vec![] };
            return Err(self.refuse(Some(Rule::IdentityProvider), cause, organization));
        }
        let mut patterns = Patterns { issuer, matching: HashMap::new() };
        for (kind, id) in found {
            if kind == Kind::Identity && self.names(id.as_path(), &mut patterns)? {
                let parent = parent_or_self(id.as_path());
                self.control(id.as_path(), parent, how)?;
            }
        }
        for id in acting {
            self.control(id.as_path(), parent_or_self(id.as_path()), how)?;
        }
        Ok(())
    }

    /// Identities that account associations of an organization name for accounts of this issuer, up to one more than are judged.
    fn acting(&self, organization: Path<'_>, issuer: &str) -> Result<Vec<PathBuf>, JudgeError> {
        let mut named = BTreeSet::new();
        let at = Some(organization);
        self.view.0.objects.below(Kind::AccountAssociation, at, &mut |object| {
            if let Object::AccountAssociation(one) = object
                && one.accounts.may_be_of(issuer)
            {
                named.extend(one.services.into_values().map(|one| (one.id, one.created)));
            }
            named.len() <= RESOLVED_MAX
        })?;
        let mut acting = vec![];
        for (id, created) in named {
            // One that was made again is not the one that was named.
            let found = self.view.identity(id.as_path())?;
            if found.is_some_and(|identity| identity.meta.created == created) {
                acting.push(id);
            }
        }
        Ok(acting)
    }

    /// What has a reference, up to one more than are judged.
    fn referring(&self, to: &Reference<'_>) -> Result<Vec<(Kind, PathBuf)>, JudgeError> {
        let mut found = vec![];
        self.view.0.objects.referring(to, &mut |kind, id| {
            found.push((kind, id));
            found.len() <= RESOLVED_MAX
        })?;
        Ok(found)
    }

    fn names(&self, id: Path<'_>, patterns: &mut Patterns<'_>) -> Result<bool, JudgeError> {
        let identity = self.view.identity(id)?;
        Ok(match identity.and_then(|identity| identity.authentication) {
            Some(Authentication::ClaimMatch(ClaimMatch { issuer, .. })) => match issuer {
                Match::Exact(issuer) => issuer == patterns.issuer,
                Match::Pattern(pattern) => patterns.matches(pattern),
            },
            // Not proved by tokens of a provider, but by those that its own keys have signed.
            _ => false,
        })
    }

    /// The first object of this kind in an organization that names an issuer, literally.
    pub(crate) fn naming(
        &self,
        organization: Path<'_>,
        issuer: &str,
        is_it: impl Fn(&Object) -> bool,
    ) -> Result<Option<Object>, JudgeError> {
        let (mut found, mut error) = (None, None);
        let objects = self.view.0.objects;
        objects.referring(&Reference::Issuer { organization, issuer }, &mut |kind, id| {
            match objects.get(kind, id.as_path()) {
                Ok(object) => found = object.filter(&is_it),
                Err(unreadable) => error = Some(unreadable),
            }
            found.is_none() && error.is_none()
        })?;
        error.map_or(Ok(found), |error| Err(error.into()))
    }
}

/// Whether patterns match an issuer, each compiled once.
struct Patterns<'i> {
    issuer: &'i str,
    matching: HashMap<String, bool>,
}

impl Patterns<'_> {
    /// Whatever cannot be compiled counts as if it matched.
    fn matches(&mut self, pattern: String) -> bool {
        if let Some(known) = self.matching.get(&pattern) {
            return *known;
        }
        if self.matching.len() >= ISSUER_PATTERNS_MAX {
            return true;
        }
        let compiled = compile_pattern(&pattern);
        let matches = compiled.as_ref().map_or(true, |regex: &Regex| regex.is_match(self.issuer));
        self.matching.insert(pattern, matches);
        matches
    }
}
