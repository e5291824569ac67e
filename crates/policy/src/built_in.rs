//! The built-in catalogs: documents, and overlays that correct a document.
//!
//! **Invariant**: an overlay only removes capabilities from roles, and each of them must exist in
//! the base. An overlay that does not fit its base yields no catalog.

use capstan_engine::{Catalog, CatalogFacts};

use crate::catalog::load_catalog;

/// The built-in catalog documents: (name, YAML text). Overlays are not in this list.
pub const BUILT_IN: [(&str, &str); 2] = [
    ("chainguard-2023-12-07", include_str!("../catalogs/chainguard-2023-12-07.yaml")),
    ("chainguard-2025-08-14", include_str!("../catalogs/chainguard-2025-08-14.yaml")),
];

/// A correction of a built-in catalog, under a name of its own. The base document stays as it was
/// published.
struct Overlay {
    name: &'static str,
    base: &'static str,
    /// The error in the base, for the warning of a policy that names the base: a relative clause
    /// that follows the base's name.
    why: &'static str,
    /// (role, capabilities that the overlay removes from it).
    drops: &'static [(&'static str, &'static [&'static str])],
}

const OVERLAYS: [Overlay; 1] = [Overlay {
    name: "chainguard-2025-08-14+errata",
    base: "chainguard-2025-08-14",
    why: "in which role `libraries.javascript.pull_token_creator` can write manifests and \
          repositories, although its prose denies that role access to the container registry",
    drops: &[(
        "libraries.javascript.pull_token_creator",
        &[
            "manifest.create",
            "manifest.delete",
            "manifest.list",
            "manifest.update",
            "manifest.metadata.list",
            "record_signatures.list",
            "repo.create",
            "repo.delete",
            "repo.list",
            "repo.update",
        ],
    )],
}];

/// The names of all built-in catalogs: documents, then overlays.
pub(crate) fn names<'n>() -> impl Iterator<Item = &'n str> {
    let documents = BUILT_IN.iter().map(|(name, _)| *name);
    documents.chain(OVERLAYS.iter().map(|overlay| overlay.name))
}

pub(crate) fn get(name: &str) -> Option<Catalog> {
    match OVERLAYS.iter().find(|overlay| overlay.name == name) {
        Some(overlay) => overlay.apply(&document(overlay.base)?),
        None => document(name),
    }
}

fn document(name: &str) -> Option<Catalog> {
    let (_, document) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name)?;
    load_catalog(document.as_bytes(), |_| false).ok().map(|(catalog, _)| catalog)
}

/// The known error in this catalog ([`Overlay::why`]), and the name of the corrected catalog.
pub(crate) fn erratum(name: &str) -> Option<(&'static str, &'static str)> {
    let overlay = OVERLAYS.iter().find(|overlay| overlay.base == name)?;
    Some((overlay.why, overlay.name))
}

impl Overlay {
    /// The base without the dropped capabilities. `None` if a role or capability is not in the
    /// base.
    fn apply(&self, base: &Catalog) -> Option<Catalog> {
        let opaque = base.capabilities().filter(|name| !name.contains('.'));
        let mut facts = CatalogFacts {
            name: self.name.into(),
            resources: base.resources().to_vec(),
            capabilities: opaque.map(Into::into).collect(),
            roles: base.roles().to_vec(),
        };
        for (role, capabilities) in self.drops {
            let role = facts.roles.iter_mut().find(|known| known.name == *role)?;
            for capability in *capabilities {
                let at = role.capabilities.iter().position(|held| held == capability)?;
                role.capabilities.remove(at);
            }
        }
        Catalog::new(facts).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_that_does_not_fit_gives_no_catalog() {
        let base = document("chainguard-2023-12-07").unwrap();
        let applied = |drops| Overlay { name: "x", base: "y", why: "", drops }.apply(&base);
        let roles = |drops| applied(drops).map(|catalog| catalog.roles().to_vec());
        assert!(roles(&[("viewer", &["images.list", "roles.list"])]).is_some());
        assert!(roles(&[("viewer", &["images.list", "images.update"])]).is_none());
        assert!(roles(&[("viewer", &["images.list", "images.list"])]).is_none());
        assert!(roles(&[("vewer", &["images.list"])]).is_none());
        // An overlay without drops changes only the name.
        let same = applied(&[]).unwrap();
        assert_eq!(same.name(), "x");
        assert!(same.capabilities().eq(base.capabilities()));
        assert_eq!(format!("{:?}", same.roles()), format!("{:?}", base.roles()));
        assert_eq!(format!("{:?}", same.resources()), format!("{:?}", base.resources()));
    }
}
