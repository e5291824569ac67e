//! Identity providers, mappings and account associations: of random worlds, and of an attacker.

use capstan_iam::{
    AccountAssociation, Authentication, CreateGroupRoleMapping, CreateIdentityProvider,
    GroupRoleMapping, IdentityProvider, IdentityProviderUpdate, Incarnation, Kind, Match, Object,
    Operation,
};
use capstan_testkit::managed::Managed;
use capstan_testkit::managed::operations::{self as make, *};
use fastrand::Rng;

use super::{META, ids, one_in, pick, roles, root, someone};
use crate::attack::{Attack, ISSUERS};

/// Claims of one of the issuers, or of all of them.
pub(super) fn claims(rng: &mut Rng) -> Option<Authentication> {
    let issuer = match rng.usize(..4) {
        0 => Match::Pattern("https://(idp|other)[.]example".into()),
        _ => Match::Exact(pick(rng, &ISSUERS).into()),
    };
    Some(make::claims(issuer))
}

/// Puts a few into a world.
pub(super) fn put(rng: &mut Rng, world: &mut Managed, groups: &[String]) {
    let roles = roles(world);
    for organization in groups.iter().filter(|group| !group.contains('/')) {
        if one_in(rng, 2) {
            continue;
        }
        let id = format!("{organization}/idp");
        let CreateIdentityProvider { oidc, .. } = new_provider(&id, pick(rng, &ISSUERS));
        let built_in: Vec<_> = roles.iter().filter(|role| !role.contains('/')).collect();
        let default_role = one_in(rng, 3).then(|| pick(rng, &built_in).as_str().into());
        world
            .put(Object::IdentityProvider(IdentityProvider {
                id: path(&id),
                name: String::new(),
                description: String::new(),
                oidc,
                default_role,
                role_created: None,
                creator: None,
                meta: META,
            }))
            .unwrap();
        for at in 0..rng.usize(..3) {
            let scopes: Vec<_> =
                groups.iter().filter(|group| root(group) == organization).collect();
            let (role, scope) = (pick(rng, &built_in), pick(rng, &scopes));
            let CreateGroupRoleMapping { external_group, role, scope, .. } =
                new_mapping(&id, "world", role, scope);
            world
                .put(Object::GroupRoleMapping(GroupRoleMapping {
                    id: path(&format!("{id}/w{at}")),
                    name: String::new(),
                    description: String::new(),
                    external_group,
                    role,
                    role_created: None,
                    scope,
                    creator: None,
                    meta: META,
                }))
                .unwrap();
        }
    }
    for group in groups {
        let identities = ids(world, Kind::Identity);
        let is_own = |id: &String| id.contains('/') && root(id) == root(group);
        let own: Vec<_> = identities.into_iter().filter(is_own).collect();
        if own.is_empty() || !one_in(rng, 3) {
            continue;
        }
        let one = Incarnation { id: path(&pick(rng, &own)), created: META.created };
        world
            .put(Object::AccountAssociation(AccountAssociation {
                id: path(group),
                name: String::new(),
                description: String::new(),
                accounts: aws("012345678901"),
                services: [("x".to_owned(), one)].into(),
                meta: META,
            }))
            .unwrap();
    }
}

/// Something that an attacker may try.
pub(super) fn operation(rng: &mut Rng, attack: &Attack<'_>, scopes: &[String]) -> Operation {
    let world = &attack.world;
    let scope = pick(rng, scopes);
    let providers = ids(world, Kind::IdentityProvider);
    let provider =
        if providers.is_empty() { format!("{}/idp", root(&scope)) } else { pick(rng, &providers) };
    let mappings = ids(world, Kind::GroupRoleMapping);
    let associations = ids(world, Kind::AccountAssociation);
    let associated = if associations.is_empty() { scope.clone() } else { pick(rng, &associations) };
    let role = pick(rng, &roles(world));
    match rng.usize(..20) {
        0..4 => {
            let at = if one_in(rng, 5) { &*scope } else { root(&scope) };
            let id = format!("{at}/idp{}", rng.usize(..2));
            let default_role = (!one_in(rng, 3)).then_some(&*role);
            make::provider(&id, pick(rng, &ISSUERS), default_role)
        }
        4..7 => rekey(&provider, &rng.usize(..3).to_string()),
        7..9 => default_role(&provider, (!one_in(rng, 4)).then_some(&*role)),
        9 => {
            let name = Some("x".into());
            update_provider(&provider, IdentityProviderUpdate { name, ..Default::default() })
        }
        10 => delete_provider(&provider),
        11..14 => map(&provider, "mallory", &role, &scope),
        14 if !mappings.is_empty() => unmap(&pick(rng, &mappings)),
        15..17 => associate(&scope, &[("x", &someone(rng, attack))]),
        17 => rename_services(&associated, &[("x", &someone(rng, attack))]),
        18 => reaccount(&associated, "111111111111"),
        _ => disassociate(&associated),
    }
}
