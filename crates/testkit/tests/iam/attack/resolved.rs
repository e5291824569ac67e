//! What an attacker becomes by providers, mappings and associations, before any caller proves with a token who it is.
//!
//! Whoever sets what makes a token one of a provider can make its tokens: it becomes the identities that name the issuer, and
//! has the default role and what the mappings promise. Whoever maps a group is in it. Whoever makes or changes an association
//! becomes the identities that it names.

use capstan_iam::{
    Authentication, ClaimMatch, Identity, IdentityProvider, Kind, Match, Meta, Object, Outcome,
    RoleBinding, compile_pattern,
};
use capstan_testkit::managed::Managed;
use capstan_testkit::managed::operations::path;

use super::{Attack, root};

impl Attack<'_> {
    pub(super) fn resolve(&mut self, outcome: &Outcome) {
        for change in &outcome.objects {
            match (&change.before, &change.after) {
                (Some(Object::IdentityProvider(old)), Some(Object::IdentityProvider(new)))
                    if (&old.oidc, &old.default_role) == (&new.oidc, &new.default_role) => {}
                (_, Some(Object::IdentityProvider(new))) => {
                    self.providers.insert(new.id.to_string());
                }
                (None, Some(Object::GroupRoleMapping(new))) => {
                    self.session(&new.role, new.scope.as_str());
                }
                (Some(Object::AccountAssociation(old)), Some(Object::AccountAssociation(new)))
                    if (&old.accounts, &old.services) == (&new.accounts, &new.services) => {}
                (_, Some(Object::AccountAssociation(new))) => {
                    for one in new.services.values() {
                        self.become_(one.id.as_str());
                    }
                }
                _ => {}
            }
        }
        for id in self.providers.clone() {
            if let Some(Object::IdentityProvider(provider)) =
                self.world.object(Kind::IdentityProvider, &id).cloned()
            {
                self.log_in(&provider);
            }
        }
    }

    /// Everything that tokens of a provider give.
    fn log_in(&mut self, provider: &IdentityProvider) {
        let organization = provider.organization().to_string();
        let proved: Vec<String> = proved(&self.world, &organization, &provider.oidc.issuer);
        proved.iter().for_each(|id| self.become_(id));
        if let Some(role) = &provider.default_role {
            self.session(role, &organization);
        }
        let mappings = self.world.objects().filter_map(|object| match object {
            Object::GroupRoleMapping(one) if one.provider() == provider.id.as_path() => {
                Some((one.role.clone(), one.scope.to_string()))
            }
            _ => None,
        });
        for (role, scope) in mappings.collect::<Vec<_>>() {
            self.session(&role, &scope);
        }
    }

    fn become_(&mut self, id: &str) {
        self.controlled.insert(id.to_owned(), None);
    }

    /// A role that whoever comes with a token has for its call: an identity that nothing else can be.
    fn session(&mut self, role: &str, scope: &str) {
        if !self.sessions.insert((role.to_owned(), scope.to_owned())) {
            return;
        }
        let number = self.sessions.len();
        let meta = Meta::new(self.world.revision(), self.world.now);
        let identity = Identity {
            id: path(&format!("{}/session-{number}", root(scope))),
            name: String::new(),
            description: String::new(),
            kind: "user".into(),
            properties: Default::default(),
            disabled: false,
            authentication: None,
            meta,
        };
        let binding = RoleBinding {
            id: path(&format!("{scope}/session-binding-{number}")),
            name: String::new(),
            description: String::new(),
            identity: identity.id.clone(),
            role: role.into(),
            scope: path(scope),
            expires_at: None,
            when: vec![],
            meta,
        };
        let id = identity.id.to_string();
        // What the engine refuses, nobody gets.
        if self.world.put(Object::Identity(identity)).is_ok()
            && self.world.put(Object::RoleBinding(binding)).is_ok()
        {
            self.become_(&id);
        }
    }
}

/// The identities of an organization that a token of an issuer proves.
fn proved(world: &Managed, organization: &str, issuer: &str) -> Vec<String> {
    let names = |identity: &Identity| match &identity.authentication {
        Some(Authentication::ClaimMatch(ClaimMatch { issuer: wanted, .. })) => match wanted {
            Match::Exact(wanted) => wanted == issuer,
            Match::Pattern(pattern) => compile_pattern(pattern).unwrap().is_match(issuer),
        },
        _ => false,
    };
    let proved = world.objects().filter_map(|object| match object {
        Object::Identity(one)
            if one.id.as_str().contains('/')
                && root(one.id.as_str()) == organization
                && names(one) =>
        {
            Some(one.id.to_string())
        }
        _ => None,
    });
    proved.collect()
}

/// R4, R9 and R13: what providers, mappings and associations may name.
pub(super) fn structure(world: &Managed) -> Option<String> {
    let is_at_home = |role: &str, scope: &str| match role.rsplit_once('/') {
        Some((home, _)) => path(home).as_path().contains(path(scope).as_path()),
        None => true,
    };
    let mut issuers = vec![];
    for object in world.objects() {
        let id = object.id();
        let broken = match object {
            Object::IdentityProvider(one) => {
                let organization = one.organization().as_str();
                let issuer = (organization.to_owned(), &one.oidc.issuer);
                let is_again = issuers.contains(&issuer);
                issuers.push(issuer);
                let default = one.default_role.as_deref();
                is_again
                    || organization.contains('/')
                    || !default.is_none_or(|role| is_at_home(role, organization))
                    || has_own_keys(world, organization, &one.oidc.issuer)
            }
            Object::GroupRoleMapping(one) => {
                root(one.scope.as_str()) != root(id.as_str())
                    || !is_at_home(&one.role, one.scope.as_str())
            }
            Object::AccountAssociation(one) => {
                let is_foreign = |id: &str| !id.contains('/') || root(id) != root(one.id.as_str());
                one.services.values().any(|named| is_foreign(named.id.as_str()))
            }
            _ => false,
        };
        if broken {
            return Some(format!("{} {id} names what it may not: {object:?}", object.kind()));
        }
    }
    None
}

/// Whether an identity has keys of its own for the issuer of a provider.
fn has_own_keys(world: &Managed, organization: &str, issuer: &str) -> bool {
    world.objects().any(|object| match object {
        Object::Identity(Identity {
            id,
            authentication: Some(Authentication::StaticKeys(keys)),
            ..
        }) => {
            id.as_str().contains('/') && root(id.as_str()) == organization && keys.issuer == issuer
        }
        _ => false,
    })
}
