//! What no document has: it goes with what a document lacks, and keeps a document from what contradicts it.
//!
//! ```text
//! group that goes ─▶ invites and mappings to it, its subscriptions, its account association
//! role that goes  ─▶ invites and mappings that promise it; an identity provider is left without it
//! ```

use capstan_engine::PathBuf;
use capstan_iam::{
    Authentication, IdentityProvider, Kind, Object, Objects as _, Reference, record,
};

use super::super::unreadable;
use super::{Comparison, Found, refused};

impl Comparison<'_> {
    /// Deletes what goes with a group.
    pub(super) fn empty(&mut self, group: &PathBuf) -> Found {
        self.delete_beside(&self.beside_at(group)?)
    }

    /// What goes with a group: invites to it, mappings to it, its subscriptions, its account association.
    fn beside_at(&self, group: &PathBuf) -> Found<Vec<Object>> {
        let mut all = vec![];
        for kind in [Kind::GroupInvite, Kind::Subscription] {
            self.state.below(kind, Some(group.as_path()), &mut |object| {
                if object.id().as_path().parent() == Some(group.as_path()) {
                    all.push(object);
                }
                true
            })?;
        }
        let mut mappings = vec![];
        self.state.referring(&Reference::Scope(group.as_path()), &mut |kind, id| {
            mappings.push((kind, id));
            true
        })?;
        for (kind, id) in mappings.into_iter().chain([(Kind::AccountAssociation, group.clone())]) {
            all.extend(self.get(kind, &id)?);
        }
        Ok(all)
    }

    /// Deletes what promises a role that is deleted. An identity provider stays, without the role.
    pub(super) fn break_promises(&mut self, role: &str) -> Found {
        let (providers, others): (Vec<_>, Vec<_>) = self
            .promises_of(role)?
            .into_iter()
            .partition(|object| matches!(object, Object::IdentityProvider(_)));
        for before in providers {
            if let Object::IdentityProvider(provider) = before.clone() {
                let meta = self.meta(Some(&provider.meta), false);
                let (default_role, role_created) = (None, None);
                let after = IdentityProvider { default_role, role_created, meta, ..provider };
                self.change(Some(&before), Some(&Object::IdentityProvider(after)))?;
            }
        }
        self.delete_beside(&others)
    }

    /// The objects that promise a role.
    fn promises_of(&self, role: &str) -> Found<Vec<Object>> {
        let (range, mut keys) = (record::promises_of(role), vec![]);
        let scanned = self.state.scan(range.bounds(), &mut |key, _| {
            keys.extend(key.get(record::promise_key(role, &[]).len()..).map(<[u8]>::to_vec));
            true
        });
        scanned.map_err(unreadable)?;
        let ids = keys.iter().filter_map(|key| record::parse_key(key));
        let found = ids.map(|(kind, id)| self.get(kind, &id));
        found.filter_map(Result::transpose).collect()
    }

    /// Deletes what the engine does not know with what it is at or promises.
    fn delete_beside(&mut self, objects: &[Object]) -> Found {
        for object in objects {
            if self.gone.insert((object.kind(), object.id().clone())) {
                self.change(Some(object), None)?;
            }
        }
        Ok(())
    }

    /// Refuses the path of something new if no document knows what has it.
    pub(super) fn free_beside(&self, id: &PathBuf) -> Found {
        if self.state.is_taken_beside(id.as_path())? {
            return refused(format!(
                "`{id}` is the path of an object that no document changes, such as a group invite: delete it first, or take \
                 another path"
            ));
        }
        Ok(())
    }

    /// Refuses keys of an identity for a reserved issuer, and for that of an identity provider of its organization (R8).
    pub(super) fn keys_beside(&self, after: &Object) -> Found {
        let Object::Identity(identity) = after else { return Ok(()) };
        let Some(Authentication::StaticKeys(keys)) = &identity.authentication else {
            return Ok(());
        };
        if self.reserved_issuers.contains(&keys.issuer) {
            return refused(format!(
                "`{}` has keys of its own for `{}`, an issuer that is trusted for others",
                identity.id, keys.issuer
            ));
        }
        let Some(to @ Reference::Issuer { .. }) = after.reference() else { return Ok(()) };
        let mut taken = false;
        self.state.referring(&to, &mut |kind, _| {
            taken = kind == Kind::IdentityProvider;
            !taken
        })?;
        if taken {
            return refused(format!(
                "`{}` has keys of its own for `{}`, which is the issuer of an identity provider",
                identity.id, keys.issuer
            ));
        }
        Ok(())
    }
}
