//! Whom the claims of a token are of, whose keys must have signed it, and which roles it carries.
//!
//! ```text
//! identity that is named, or derived ─▶ its authentication, and the provider of its organization ─▶ keys
//! providers of the issuer ─▶ default roles, and roles that groups of the token are mapped to ─▶ carried roles
//! ```
//!
//! Everything is of one revision, and nothing is believed before the signature was verified.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use capstan_engine::{Path, PathBuf, Timestamp};
use capstan_iam::{
    Authentication, Identity, IdentityProvider, Incarnation, Kind, Object, ObjectsError, Session,
    SessionGrant, derived_identity_id,
};
use serde_json::Value;

use super::refused;
use crate::RequestError;
use crate::authn::keys::{KeyDigest, KeySet};
use crate::authn::matching::{is_for, is_of};
use crate::authn::token::Claims;
use crate::feed::management::StoredObjects;
use crate::limits::{PROVIDERS_LOOKED_AT_MAX, SESSION_ROLES_MAX, TOKEN_GROUPS_MAX};

/// Whose keys must have signed a token.
#[derive(Clone, Debug)]
pub(super) enum Keys {
    /// These, of the revision or of the operator's file.
    Given(KeySet),
    /// Those that the issuer publishes.
    Published,
}

/// Whom a token is of, if the signature is that of one of the keys.
#[derive(Debug)]
pub(super) struct Whose {
    pub(super) identity: PathBuf,
    pub(super) keys: Keys,
    carried: Vec<Carried>,
}

/// A role that a token carries, if one of these keys has signed it: those of the provider. Without any, whatever proves the
/// issuer.
#[derive(Clone, Debug)]
struct Carried {
    grant: SessionGrant,
    keys: Option<KeySet>,
}

impl Whose {
    /// The roles that a token carries which this key has signed.
    pub(super) fn session(self, key: &KeyDigest, claims: &Claims) -> Option<Arc<Session>> {
        let is_signed = |one: &Carried| one.keys.as_ref().is_none_or(|keys| keys.contains(key));
        let grants: Vec<_> =
            self.carried.into_iter().filter(is_signed).map(|one| one.grant).collect();
        (!grants.is_empty()).then(|| Arc::new(Session { grants, ends: claims.expires_at }))
    }
}

/// The claims of a token, and what they are compared with.
pub(super) struct Finder<'f> {
    pub(super) objects: &'f dyn StoredObjects,
    /// The keys of issuers that the operator trusts; `None` for discovered ones.
    pub(super) trusted: &'f HashMap<String, Option<KeySet>>,
    /// Capstan's own audiences.
    pub(super) own: &'f [String],
    pub(super) claims: &'f Claims,
    pub(super) now: Timestamp,
}

impl Finder<'_> {
    /// Whom the token is of: who is named, or the root identity of its issuer and subject.
    ///
    /// # Errors
    ///
    /// [`RequestError::AuthnFailed`]: nobody. Or the store cannot be read.
    pub(super) fn find(&self, named: Option<PathBuf>) -> Result<Whose, RequestError> {
        let claims = self.claims;
        let derived = derived_identity_id(&claims.issuer, &claims.subject).ok();
        let derived: Option<PathBuf> = derived.and_then(|id| id.parse().ok());
        let is_named = named.is_some();
        let Some(id) = named.or_else(|| derived.clone()) else {
            return Err(refused("issuer and subject are no identity's"));
        };
        let found = self.objects.get(Kind::Identity, id.as_path()).map_err(unreadable)?;
        let Some(Object::Identity(Identity { authentication: Some(how), .. })) = found else {
            // Nothing but its id says whose it is. It may not be there yet: an invite registers it.
            if derived.as_ref() != Some(&id) || !is_for(claims, &texts(self.own)) {
                return Err(refused("no identity has this issuer and subject"));
            }
            return self.root(id);
        };
        if !is_named && how.literal() != Some((&claims.issuer, &claims.subject)) {
            return Err(refused("the identity of this issuer and subject proves itself otherwise"));
        }
        match how {
            Authentication::StaticKeys(ref keys) => {
                // Whoever may set keys must not be able to be somebody else's issuer.
                if self.trusted.contains_key(&keys.issuer) {
                    return Err(refused("keys of an identity's own for an issuer that is trusted"));
                }
                self.require(&how, self.own)?;
                let keys = KeySet::read(keys.jwks.as_bytes(), None).map_err(refused)?;
                Ok(Whose { identity: id, keys: Keys::Given(keys), carried: vec![] })
            }
            Authentication::ClaimMatch(_) if id.as_path().parent().is_none() => {
                self.require(&how, self.own)?;
                self.root(id)
            }
            Authentication::ClaimMatch(_) => {
                let organization = id.as_path().ancestors().last();
                let provider = self.providers(organization)?.pop();
                let Some(provider) = provider else {
                    self.require(&how, self.own)?;
                    let keys = self.trusted_keys()?;
                    return Ok(Whose { identity: id, keys, carried: vec![] });
                };
                self.require(&how, &self.audiences(&provider))?;
                let keys = match keys_of(&provider)? {
                    Some(keys) => Keys::Given(keys),
                    None => Keys::Published,
                };
                let mut carried = vec![];
                self.carry(&provider, &mut carried)?;
                Ok(Whose { identity: id, keys, carried })
            }
            Authentication::ClientCertificate(_) => {
                Err(refused("the identity proves itself by a certificate"))
            }
        }
    }

    /// A root identity: the operator must trust the issuer, and every organization may have roles for it.
    fn root(&self, identity: PathBuf) -> Result<Whose, RequestError> {
        let keys = self.trusted_keys()?;
        let mut carried = vec![];
        for provider in self.providers(None)? {
            self.carry(&provider, &mut carried)?;
        }
        Ok(Whose { identity, keys, carried })
    }

    fn require(&self, how: &Authentication, own: &[String]) -> Result<(), RequestError> {
        let is_of_it = is_of(self.claims, how, &texts(own), self.now);
        is_of_it.then_some(()).ok_or_else(|| refused("its claims are not those of the identity"))
    }

    /// The keys of an issuer that the operator trusts.
    fn trusted_keys(&self) -> Result<Keys, RequestError> {
        let found = self.trusted.get(&self.claims.issuer);
        let found = found.map(|keys| keys.clone().map_or(Keys::Published, Keys::Given));
        found.ok_or_else(|| refused("its issuer is not trusted where the identity is"))
    }

    /// The providers of the token's issuer, of an organization or of all, as far as they are looked at.
    fn providers(
        &self,
        organization: Option<Path<'_>>,
    ) -> Result<Vec<IdentityProvider>, RequestError> {
        let (mut found, mut seen) = (vec![], 0);
        let each = &mut |object| {
            if let Object::IdentityProvider(provider) = object
                && provider.oidc.issuer == self.claims.issuer
            {
                found.push(provider);
            }
            seen += 1;
            seen < PROVIDERS_LOOKED_AT_MAX
        };
        self.objects.below(Kind::IdentityProvider, organization, each).map_err(unreadable)?;
        if seen >= PROVIDERS_LOOKED_AT_MAX {
            tracing::warn!(
                PROVIDERS_LOOKED_AT_MAX,
                "more identity providers than are looked at: roles of the others are not carried"
            );
        }
        Ok(found)
    }

    /// The audiences of tokens of a provider.
    fn audiences(&self, provider: &IdentityProvider) -> Vec<String> {
        let client = Some(&provider.oidc.client_id).filter(|client| !client.is_empty());
        let all: Vec<_> = client.into_iter().chain(&provider.oidc.audiences).cloned().collect();
        if all.is_empty() { self.own.to_vec() } else { all }
    }

    /// Adds what a provider gives to a token of it.
    fn carry(
        &self,
        provider: &IdentityProvider,
        to: &mut Vec<Carried>,
    ) -> Result<(), RequestError> {
        if !is_for(self.claims, &texts(&self.audiences(provider))) {
            return Ok(());
        }
        let keys = keys_of(provider)?;
        let mut add = |id: &PathBuf, created: u64, role: &str, scope: Path<'_>| {
            let source = Incarnation { id: id.clone(), created };
            let grant = SessionGrant { source, role: role.into(), scope: scope.into() };
            to.push(Carried { grant, keys: keys.clone() });
            to.len() < SESSION_ROLES_MAX
        };
        if let Some(role) = &provider.default_role {
            add(&provider.id, provider.meta.created, role, provider.organization());
        }
        let groups = self.groups(provider.oidc.groups_claim.as_deref());
        if groups.is_empty() {
            return Ok(());
        }
        let mut is_full = false;
        let each = &mut |object| {
            if let Object::GroupRoleMapping(one) = object
                && groups.contains(&*one.external_group)
            {
                is_full = !add(&one.id, one.meta.created, &one.role, one.scope.as_path());
            }
            !is_full
        };
        let at = Some(provider.id.as_path());
        self.objects.below(Kind::GroupRoleMapping, at, each).map_err(unreadable)?;
        if is_full {
            tracing::warn!(SESSION_ROLES_MAX, "a token has more roles than are carried");
        }
        Ok(())
    }

    /// The groups that the token lists. None if the claim is no list of texts, or of too many.
    fn groups(&self, claim: Option<&str>) -> BTreeSet<&str> {
        let listed = claim.and_then(|claim| self.claims.all.get(claim)).and_then(Value::as_array);
        let listed = listed.filter(|groups| groups.len() <= TOKEN_GROUPS_MAX);
        let texts = listed.map(|groups| groups.iter().map(Value::as_str).collect());
        texts.flatten().unwrap_or_default()
    }
}

/// The keys that a provider has of its own.
fn keys_of(provider: &IdentityProvider) -> Result<Option<KeySet>, RequestError> {
    let keys = provider.oidc.jwks.as_ref();
    keys.map(|keys| KeySet::read(keys.as_bytes(), None)).transpose().map_err(refused)
}

fn texts(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

fn unreadable(_: ObjectsError) -> RequestError {
    RequestError::Unreadable
}
