//! Whom the claims of a token are of, whose keys must have signed it, and which roles it carries.
//!
//! ```text
//! identity that is named, or derived ─▶ keys: of its own, of its provider, or of an issuer that is trusted
//!     ─▶ signature ─▶ its claims ─▶ default roles, and roles that groups of the token are mapped to
//! ```
//!
//! **Invariants**: before the signature was verified only some look-ups are made, whatever a token says: no pattern is
//! compared, and no mapping read. Everything else is judged at one revision.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use capstan_engine::{Path, PathBuf, Timestamp};
use capstan_iam::{
    AccountAssociation, Accounts, Algorithm, Authentication, Identity, IdentityProvider,
    Incarnation, Kind, Object, ObjectsError, Reference, Session, SessionGrant, derived_identity_id,
};
use serde_json::Value;

use super::refused;
use crate::RequestError;
use crate::authn::clouds;
use crate::authn::keys::{KeySet, SignedBy};
use crate::authn::matching::{is_for, is_of};
use crate::authn::remembered::Named;
use crate::authn::token::Claims;
use crate::feed::management::StoredObjects;
use crate::limits::{ORGANIZATIONS_LOOKED_AT_MAX, SESSION_ROLES_MAX, TOKEN_GROUPS_MAX};

/// Whose keys must have signed a token.
#[derive(Clone, Debug)]
pub(super) enum Keys {
    /// These, of the revision or of the operator's file.
    Given(KeySet),
    /// Those that the issuer publishes.
    Published,
}

/// Whom a token may be of, by its issuer, and whose keys must have signed it then.
pub(super) struct Candidate {
    id: PathBuf,
    /// `None` if nothing but the id says whose it is.
    how: Option<Authentication>,
    /// The provider of its organization that has the issuer.
    provider: Option<IdentityProvider>,
    /// The accounts that the token must be of, if it is to be of one that acts for a group.
    accounts: Option<Accounts>,
    /// The revision that made the identity, if it is registered.
    created: Option<u64>,
    pub(super) keys: Keys,
}

/// Whom a token is of that its key has signed.
pub(super) struct Whose {
    pub(super) identity: PathBuf,
    pub(super) email: Option<String>,
    pub(super) session: Option<Arc<Session>>,
    /// When the keys of the identity end.
    pub(super) keys_end: Option<Timestamp>,
    /// The revision that made the identity, if it is registered.
    pub(super) created: Option<u64>,
}

/// The claims of a token, and what they are compared with.
pub(super) struct Finder<'f> {
    pub(super) objects: &'f dyn StoredObjects,
    /// The keys of issuers that the operator trusts; `None` for discovered ones.
    pub(super) trusted: &'f HashMap<String, Option<KeySet>>,
    /// The algorithms that tokens of these may be signed with; all without any.
    pub(super) algorithms: &'f [String],
    /// Capstan's own audiences.
    pub(super) own: &'f [String],
    pub(super) claims: &'f Claims,
    pub(super) now: Timestamp,
}

impl Finder<'_> {
    /// Whom the token, which is signed so, may be of: who is named, or the root identity of its issuer and subject. It takes
    /// some look-ups.
    ///
    /// # Errors
    ///
    /// [`RequestError::AuthnFailed`]: nobody, or not with this algorithm. Or the store cannot be read.
    pub(super) fn candidate(
        &self,
        named: &Named,
        algorithm: Algorithm,
    ) -> Result<Candidate, RequestError> {
        let candidate = match named {
            Named::Nobody => self.identity(None),
            Named::Identity(id) => self.identity(Some(id.clone())),
            Named::Service { association, service } => self.service(association.as_path(), service),
        }?;
        if !self.takes(candidate.provider.as_ref(), algorithm) {
            return Err(refused("an algorithm that tokens of its issuer must not be signed with"));
        }
        Ok(candidate)
    }

    /// Whether tokens of the issuer may be signed with an algorithm: by the provider, and by the operator if the keys are those
    /// of an issuer that the operator trusts.
    fn takes(&self, provider: Option<&IdentityProvider>, algorithm: Algorithm) -> bool {
        let has_keys = provider.is_some_and(|provider| provider.oidc.jwks.is_some());
        let is_of_operator = !has_keys && self.trusted.contains_key(&self.claims.issuer);
        provider.is_none_or(|provider| algorithm.is_taken_by(&provider.oidc.algorithms))
            && (!is_of_operator || algorithm.is_taken_by(self.algorithms))
    }

    /// The identity that a service of an account association is, if nothing has replaced it.
    fn service(&self, group: Path<'_>, service: &str) -> Result<Candidate, RequestError> {
        let found = self.objects.get(Kind::AccountAssociation, group).map_err(unreadable)?;
        let Some(Object::AccountAssociation(AccountAssociation { accounts, services, .. })) = found
        else {
            return Err(refused("the group has no account association"));
        };
        let named = services.get(service);
        let Incarnation { id, created } =
            named.ok_or_else(|| refused("the account association has no such service"))?.clone();
        // Whoever may make associations of a group must not therefore become somebody of another group, or somebody who
        // proves itself otherwise: bindings are all that R9 compares them by.
        if !group.contains(id.as_path()) {
            return Err(refused("the identity of the service is not below the group"));
        }
        match self.objects.get(Kind::Identity, id.as_path()).map_err(unreadable)? {
            Some(Object::Identity(identity)) if identity.meta.created != created => {
                return Err(refused("the identity of the service is another one now"));
            }
            Some(Object::Identity(identity)) if identity.authentication.is_none() => {}
            _ => {
                return Err(refused(
                    "the identity of the service proves itself otherwise, or is gone",
                ));
            }
        }
        let (provider, keys) = self.of_organization(id.as_path())?;
        let accounts = Some(accounts);
        Ok(Candidate { id, how: None, provider, accounts, created: Some(created), keys })
    }

    /// The provider of an identity's organization that has the issuer, and the keys of the issuer there.
    fn of_organization(
        &self,
        id: Path<'_>,
    ) -> Result<(Option<IdentityProvider>, Keys), RequestError> {
        let organization = id.ancestors().last().filter(|_| id.parent().is_some());
        let provider = organization.map(|at| self.provider(at)).transpose()?.flatten();
        let keys = match provider.as_ref().map(keys_of).transpose()?.flatten() {
            Some(keys) => Keys::Given(keys),
            // What the operator says of an issuer goes before what the issuer publishes.
            None if provider.is_some() => self.trusted_keys().unwrap_or(Keys::Published),
            None => self.trusted_keys()?,
        };
        Ok((provider, keys))
    }

    fn identity(&self, named: Option<PathBuf>) -> Result<Candidate, RequestError> {
        let claims = self.claims;
        let derived = derived_identity_id(&claims.issuer, &claims.subject).ok();
        let derived: Option<PathBuf> = derived.and_then(|id| id.parse().ok());
        let is_named = named.is_some();
        let Some(id) = named.or_else(|| derived.clone()) else {
            return Err(refused("issuer and subject are no identity's"));
        };
        let found = self.objects.get(Kind::Identity, id.as_path()).map_err(unreadable)?;
        let (how, created) = match found {
            Some(Object::Identity(Identity { authentication, meta, .. })) => {
                (authentication, Some(meta.created))
            }
            _ => (None, None),
        };
        let (provider, keys) = match &how {
            // Nothing but its id says whose it is. It may not be there yet: an invite registers it.
            None if derived.as_ref() == Some(&id) => (None, self.trusted_keys()?),
            None => return Err(refused("no identity has this issuer and subject")),
            Some(how) if !is_named && how.literal() != Some((&claims.issuer, &claims.subject)) => {
                return Err(refused(
                    "the identity of this issuer and subject proves itself otherwise",
                ));
            }
            Some(Authentication::StaticKeys(keys)) => {
                // Whoever may set keys must not be able to be somebody else's issuer.
                if keys.issuer != claims.issuer || self.trusted.contains_key(&keys.issuer) {
                    return Err(refused("keys of an identity's own for another issuer"));
                }
                let keys = KeySet::read(keys.jwks.as_bytes(), None).map_err(refused)?;
                (None, Keys::Given(keys))
            }
            Some(Authentication::ClaimMatch(_)) => self.of_organization(id.as_path())?,
            Some(Authentication::ClientCertificate(_)) => {
                return Err(refused("the identity proves itself by a certificate"));
            }
        };
        Ok(Candidate { id, how, provider, accounts: None, created, keys })
    }

    /// Whether the token, which is signed so, is of the candidate, and what it carries.
    ///
    /// # Errors
    ///
    /// As [`Self::candidate`].
    pub(super) fn judge(&self, of: Candidate, by: &SignedBy) -> Result<Whose, RequestError> {
        let Candidate { id, how, provider, accounts, created, .. } = of;
        let own = match &provider {
            Some(provider) => self.audiences(provider),
            None => self.own.to_vec(),
        };
        let is_of_it = match &how {
            None => is_for(self.claims, &texts(&own)),
            Some(how) => is_of(self.claims, how, &texts(&own), self.now),
        };
        if !is_of_it {
            return Err(refused("its claims are not those of the identity"));
        }
        if let Some(accounts) = accounts {
            // Roles by groups are for who is in them: an account is nobody.
            let is_of_account = clouds::is_of(self.claims, &accounts);
            let (email, session, keys_end) = (None, None, None);
            return is_of_account
                .then_some(Whose { identity: id, email, session, keys_end, created })
                .ok_or_else(|| refused("its claims are of no account of the association"));
        }
        if let Some(Authentication::StaticKeys(keys)) = how {
            let (email, session, keys_end) = (None, None, keys.expires_at);
            return Ok(Whose { identity: id, email, session, keys_end, created });
        }
        let mut grants = vec![];
        // A person: the operator trusts the issuer, and every organization may have roles for it.
        let is_person = id.as_path().parent().is_none();
        match provider {
            Some(provider) => self.carry(&provider, by, &mut grants)?,
            None if is_person => self.carry_everywhere(by, &mut grants)?,
            None => {}
        }
        // Who may say what the addresses of people are is for the operator to say.
        let email = self.claims.verified_email().filter(|_| is_person).map(str::to_owned);
        let ends = self.claims.expires_at;
        let session = (!grants.is_empty()).then(|| Arc::new(Session { grants, ends }));
        Ok(Whose { identity: id, email, session, keys_end: None, created })
    }

    /// The keys of an issuer that the operator trusts.
    fn trusted_keys(&self) -> Result<Keys, RequestError> {
        let found = self.trusted.get(&self.claims.issuer);
        let found = found.map(|keys| keys.clone().map_or(Keys::Published, Keys::Given));
        found.ok_or_else(|| refused("its issuer is not trusted where the identity is"))
    }

    /// The provider of an organization that has the token's issuer: there is one at most, and it comes before the identities that
    /// have the issuer.
    fn provider(&self, organization: Path<'_>) -> Result<Option<IdentityProvider>, RequestError> {
        let issuer = &self.claims.issuer;
        let mut first = None;
        let to = Reference::Issuer { organization, issuer };
        let each = &mut |kind, id| {
            first = Some((kind, id));
            false
        };
        self.objects.referring(&to, each).map_err(unreadable)?;
        let Some((Kind::IdentityProvider, id)) = first else { return Ok(None) };
        let found = self.objects.get(Kind::IdentityProvider, id.as_path()).map_err(unreadable)?;
        Ok(match found {
            Some(Object::IdentityProvider(provider)) => Some(provider),
            _ => None,
        })
    }

    /// The audiences of tokens of a provider.
    fn audiences(&self, provider: &IdentityProvider) -> Vec<String> {
        let client = Some(&provider.oidc.client_id).filter(|client| !client.is_empty());
        let all: Vec<_> = client.into_iter().chain(&provider.oidc.audiences).cloned().collect();
        if all.is_empty() { self.own.to_vec() } else { all }
    }

    /// Adds what the providers of all organizations give, as far as they are looked at: one organization cannot add to them.
    fn carry_everywhere(
        &self,
        by: &SignedBy,
        to: &mut Vec<SessionGrant>,
    ) -> Result<(), RequestError> {
        let mut after: Option<String> = None;
        for _ in 0..ORGANIZATIONS_LOOKED_AT_MAX {
            let mut next = None;
            let each = &mut |object: Object| {
                next = Some(object.id().clone());
                false
            };
            let scanned = self.objects.scan(Kind::IdentityProvider, "", after.as_deref(), each);
            scanned.map_err(unreadable)?;
            let Some(next) = next else { return Ok(()) };
            let Some(organization) = next.as_path().ancestors().last() else { return Ok(()) };
            if let Some(provider) = self.provider(organization)? {
                self.carry(&provider, by, to)?;
            }
            // Behind everything below the organization.
            after = Some(format!("{organization}/\u{10ffff}"));
        }
        tracing::warn!(
            ORGANIZATIONS_LOOKED_AT_MAX,
            "more organizations have identity providers than are looked at for the roles of people"
        );
        Ok(())
    }

    /// Adds what a provider gives to a token of it.
    fn carry(
        &self,
        provider: &IdentityProvider,
        by: &SignedBy,
        to: &mut Vec<SessionGrant>,
    ) -> Result<(), RequestError> {
        // Without keys of its own, whatever proves the issuer.
        let is_signed = keys_of(provider)?.is_none_or(|keys| keys.contains(by))
            && by.algorithm.is_taken_by(&provider.oidc.algorithms);
        if !is_signed || !is_for(self.claims, &texts(&self.audiences(provider))) {
            return Ok(());
        }
        let grant = |id: &PathBuf, created: u64, role: &str, scope: Path<'_>| {
            let source = Incarnation { id: id.clone(), created };
            SessionGrant { source, role: role.into(), scope: scope.into() }
        };
        if let Some(role) = &provider.default_role
            && self.is_promised(role, provider.role_created)?
        {
            let created = provider.meta.created;
            to.push(grant(&provider.id, created, role, provider.organization()));
        }
        let groups = self.groups(provider.oidc.groups_claim.as_deref());
        if groups.is_empty() {
            return Ok(());
        }
        let mut mapped = vec![];
        let each = &mut |object| {
            if let Object::GroupRoleMapping(one) = object
                && groups.contains(&*one.external_group)
            {
                mapped.push(one);
            }
            mapped.len() < SESSION_ROLES_MAX
        };
        let at = Some(provider.id.as_path());
        self.objects.below(Kind::GroupRoleMapping, at, each).map_err(unreadable)?;
        for one in mapped {
            if self.is_promised(&one.role, one.role_created)? {
                to.push(grant(&one.id, one.meta.created, &one.role, one.scope.as_path()));
            }
        }
        Ok(())
    }

    /// Whether a role is the one that was promised: a custom one may have been made again.
    fn is_promised(&self, role: &str, created: Option<u64>) -> Result<bool, RequestError> {
        let (Some(created), Ok(role)) = (created, role.parse::<PathBuf>()) else {
            return Ok(created.is_none());
        };
        let found = self.objects.get(Kind::Role, role.as_path()).map_err(unreadable)?;
        Ok(matches!(found, Some(Object::Role(role)) if role.meta.created == created))
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
    keys.map(|keys| KeySet::given(keys.as_bytes(), &provider.oidc.algorithms))
        .transpose()
        .map_err(refused)
}

fn texts(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

fn unreadable(_: ObjectsError) -> RequestError {
    RequestError::Unreadable
}
