//! An attacker with some identities, and what it must never reach (privileges, D.4).
//!
//! What the attacker's identities can do together is compared with what they could do before, at every path, at every
//! later time. Rules that take nothing from the attacker when they are left out have a property of their own.

pub(crate) mod draw;
mod resolved;
pub(crate) mod small;
mod subscriptions;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use capstan_engine::{Path, Timestamp};
use capstan_iam::{Actor, Kind, Object, ObjectChange, Operation, Outcome, Rule};
use capstan_testkit::managed::{Bindings, Bits, Managed, T0, after, bits, named, role_bits};

/// Every kind whose management methods an attacker tries.
pub(crate) const KINDS: [&str; 8] = [
    "groups",
    "roles",
    "role_bindings",
    "identity",
    "group_invites",
    "identity_providers",
    "account_associations",
    "subscriptions",
];
/// Issuers of providers and of claims that identities match.
pub(crate) const ISSUERS: [&str; 2] = ["https://idp.example", "https://okta.example"];
/// Times at which what can be done is compared: before any binding of a world ends, between, and after.
pub(crate) const TIMES: [Timestamp; 3] = [T0, after(15), after(25)];
/// The e-mail address of all identities of an attacker.
pub(crate) const EMAIL: &str = "mallory@example.com";
/// Times at which bindings of a world end.
pub(crate) const ENDS: [Timestamp; 2] = [after(10), after(20)];

/// What must not be.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) what: String,
    /// The operations up to it.
    pub(crate) operations: Vec<(String, Operation)>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        self.operations
            .iter()
            .try_for_each(|(who, operation)| writeln!(f, "  {who}: {operation:?}"))
    }
}

/// An attacker in a world.
#[derive(Clone, Debug)]
pub(crate) struct Attack<'w> {
    before: &'w Managed,
    /// The identities that the attacker controls at first.
    own: &'w [String],
    pub(crate) world: Managed,
    /// Those that it controls, with the time at which that ends.
    pub(crate) controlled: BTreeMap<String, Option<Timestamp>>,
    /// Providers whose tokens it can make.
    providers: BTreeSet<String>,
    /// Roles that providers give its members, with their scopes. An identity of its own stands for each.
    sessions: BTreeSet<(String, String)>,
    pub(crate) operations: Vec<(String, Operation)>,
    pub(crate) done: usize,
}

impl<'w> Attack<'w> {
    pub(crate) fn new(before: &'w Managed, own: &'w [String]) -> Self {
        let controlled = own.iter().map(|id| (id.clone(), None)).collect();
        Self {
            before,
            own,
            world: before.clone(),
            controlled,
            providers: BTreeSet::new(),
            sessions: BTreeSet::new(),
            operations: vec![],
            done: 0,
        }
    }

    /// Those that can ask now.
    pub(crate) fn actors(&self) -> Vec<String> {
        let is_active = |id: &String| match self.world.object(Kind::Identity, id) {
            Some(Object::Identity(one)) => !one.disabled,
            _ => false,
        };
        let controlled = self.controlled.iter();
        let now = controlled.filter(|(_, end)| end.is_none_or(|end| self.world.now < end));
        now.map(|(id, _)| id.clone()).filter(is_active).collect()
    }

    /// Tries an operation. Returns whether it was done.
    pub(crate) fn try_one(
        &mut self,
        who: &str,
        operation: &Operation,
    ) -> Result<bool, Box<Violation>> {
        let actor = Actor::Identity {
            id: who.parse().unwrap(),
            email: Some(EMAIL.into()),
            session: None,
            narrowing: None,
        };
        let Ok(outcome) = self.world.judge(&actor, operation) else { return Ok(false) };
        self.operations.push((who.to_owned(), operation.clone()));
        let mut next = self.world.clone();
        if let Err(error) = next.apply(&outcome) {
            return Err(self.violation(format!("the engine refuses what the rules allow: {error}")));
        }
        if outcome.is_unchanged() {
            self.operations.pop();
            return Ok(false);
        }
        self.done += 1;
        let broken = broken(&self.world, &next, who, &outcome);
        self.world = next;
        if let Some(what) = broken {
            return Err(self.violation(what));
        }
        self.control(&outcome);
        self.resolve(&outcome);
        self.gain().map_or(Ok(true), |what| Err(self.violation(what)))
    }

    fn violation(&self, what: String) -> Box<Violation> {
        Box::new(Violation { what, operations: self.operations.clone() })
    }

    /// Whoever makes an identity, or sets how it authenticates, can become it.
    fn control(&mut self, outcome: &Outcome) {
        for change in &outcome.objects {
            let Some(Object::Identity(identity)) = &change.after else { continue };
            let end = match &change.before {
                None => None,
                Some(Object::Identity(before))
                    if before.authentication != identity.authentication =>
                {
                    match &identity.authentication {
                        Some(new) => new.expires_at(),
                        None => continue,
                    }
                }
                Some(_) => continue,
            };
            let known = self.controlled.entry(identity.id.as_str().to_owned()).or_insert(end);
            *known = known.and_then(|known| end.map(|end| known.max(end)));
        }
    }

    /// Something that the attacker can do and could not do before.
    fn gain(&self) -> Option<String> {
        let (before, now) = (Bindings::of(self.before), Bindings::of(&self.world));
        let scopes = [self.before, &self.world].into_iter().flat_map(Managed::objects);
        let scopes = scopes.filter(|object| matches!(object.kind(), Kind::Group | Kind::Resource));
        let mut paths: Vec<&str> = scopes.map(|object| object.id().as_str()).collect();
        paths.sort_unstable();
        paths.dedup();
        for time in TIMES.into_iter().filter(|time| *time >= self.world.now) {
            for path in &paths {
                let could = self.own.iter().fold(0, |bits, id| bits | before.most(id, path, time));
                let controlled = self.controlled.iter();
                let controlled = controlled.filter(|(_, end)| end.is_none_or(|end| time < end));
                let can = controlled.fold(0, |bits, (id, _)| bits | now.most(id, path, time));
                if can & !could != 0 {
                    let gained = named(self.before.snapshot().catalog(), can & !could);
                    let later = time.seconds() - T0.seconds();
                    return Some(format!("gains {gained:?} at {path}, {later} s later"));
                }
            }
        }
        None
    }
}

/// Properties of single operations.
fn broken(before: &Managed, after: &Managed, who: &str, outcome: &Outcome) -> Option<String> {
    structure(before, after, who, outcome)
        .or_else(|| resolved::structure(after))
        .or_else(|| outcome.objects.iter().find_map(|change| taken(before, who, change)))
        .or_else(|| outcome.objects.iter().find_map(|change| role_content(before, who, change)))
        .or_else(|| {
            outcome.objects.iter().find_map(|change| subscriptions::told(before, who, change))
        })
}

fn root(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

/// Whether a role has a capability that changes who may do what.
fn manages(world: &Managed, role: &str) -> bool {
    let (snapshot, is_managing) = (world.snapshot(), |name: &str| {
        let change = ["create", "update", "delete"];
        name.rsplit_once('.')
            .is_some_and(|(kind, action)| KINDS.contains(&kind) && change.contains(&action))
    });
    let names = snapshot.role(role).into_iter().flat_map(|role| role.capabilities.iter());
    names.filter_map(|one| snapshot.catalog().capability_name(one)).any(is_managing)
}

/// R4, R6, R7, R11, R12, R13.
fn structure(before: &Managed, after: &Managed, who: &str, outcome: &Outcome) -> Option<String> {
    let (had, has) = (Bindings::of(before), Bindings::of(after));
    for (binding, _) in has.iter() {
        let (identity, scope) = (binding.identity.as_str(), binding.scope.as_str());
        if identity.contains('/') && root(identity) != root(scope) {
            return Some(format!("{identity} is bound in another organization, at {scope}"));
        }
        if let Some((home, _)) = binding.role.rsplit_once('/')
            && !Path::parse(home).unwrap().contains(binding.scope.as_path())
        {
            return Some(format!("{} is bound outside its home, at {scope}", binding.role));
        }
    }
    for object in after.objects() {
        let Object::Identity(identity) = object else { continue };
        let of = has.iter().filter(|(one, _)| one.identity == identity.id);
        let roles: Vec<_> = of.map(|(one, _)| &*one.role).collect();
        // A custom role may get more later, from whoever holds it.
        let is_new = before.object(Kind::Identity, identity.id.as_str()).is_none();
        let managing = is_new && roles.iter().any(|role| manages(after, role));
        if identity.is_pull_token() && (roles.len() > 1 || managing) {
            return Some(format!("pull token {} has {roles:?}", identity.id));
        }
    }
    for object in after.objects() {
        let Object::GroupInvite(invite) = object else { continue };
        let is_new = before.object(Kind::GroupInvite, invite.id.as_str()).is_none();
        if is_new && invite.email.is_none() && manages(after, &invite.role) {
            return Some(format!("invites anybody to {}", invite.role));
        }
    }
    for object in after.objects().filter(|one| one.kind() == Kind::Group) {
        let id = object.id().as_str();
        let known = before.object(Kind::Group, id).is_some();
        if !id.contains('/') && !known {
            return Some(format!("made organization {id}"));
        }
        if !id.contains('/') && !had.owners(id).is_empty() && has.owners(id).is_empty() {
            return Some(format!("{id} has no owner any more"));
        }
    }
    let changed = outcome.objects.iter().find(|change| {
        change.kind == Kind::Identity
            && !change.id.as_str().contains('/')
            && change.id.as_str() != who
    });
    changed.map(|change| format!("changed root identity {}", change.id))
}

/// R17: what is taken away from somebody else is held.
fn taken(before: &Managed, who: &str, change: &ObjectChange) -> Option<String> {
    let bindings = Bindings::of(before);
    let lacks = |scope: &str, taken: Bits| {
        let lacking = taken & !bindings.caps(who, scope, before.now);
        let names = named(before.snapshot().catalog(), lacking);
        (lacking != 0).then(|| format!("takes {names:?} at {scope} from {}", change.id))
    };
    match (&change.before, &change.after) {
        (Some(Object::RoleBinding(old)), new) if old.identity.as_str() != who => {
            let kept = match new {
                Some(Object::RoleBinding(new))
                    if new.identity == old.identity
                        && new.expires_at == old.expires_at
                        && new.when == old.when =>
                {
                    role_bits(before, &new.role)
                }
                _ => 0,
            };
            lacks(old.scope.as_str(), role_bits(before, &old.role) & !kept)
        }
        (Some(Object::Identity(old)), Some(Object::Identity(new)))
            if new.disabled && !old.disabled && old.id.as_str() != who =>
        {
            let mut of = bindings.iter().filter(|(one, _)| one.identity == old.id);
            of.find_map(|(one, bits)| lacks(one.scope.as_str(), *bits))
        }
        (Some(Object::GroupRoleMapping(old)), None) => {
            lacks(old.scope.as_str(), role_bits(before, &old.role))
        }
        (Some(Object::IdentityProvider(old)), None) => old
            .default_role
            .as_ref()
            .and_then(|role| lacks(old.organization().as_str(), role_bits(before, role))),
        _ => None,
    }
}

/// R2 and R3: what a role is made to hold, or not to hold any more, is held at its home.
fn role_content(before: &Managed, who: &str, change: &ObjectChange) -> Option<String> {
    let catalog = before.snapshot().catalog();
    let of = |object: &Option<Object>| match object {
        Some(Object::Role(role)) => {
            Some(bits(catalog, role.capabilities.iter().map(String::as_str)))
        }
        _ => None,
    };
    let new = of(&change.after)?;
    let changed = new ^ of(&change.before).unwrap_or(0);
    let home = change.id.as_path().parent().unwrap();
    let lacking = changed & !Bindings::of(before).caps(who, home.as_str(), before.now);
    let names = named(catalog, lacking);
    (lacking != 0).then(|| format!("makes role {} with or without {names:?}", change.id))
}

/// The rules whose absence an attack finds.
pub(crate) const FOUND_BY_ATTACK: [Rule; 14] = [
    Rule::Grant,
    Rule::RoleCreate,
    Rule::RoleUpdate,
    Rule::RoleScope,
    Rule::BindingUpdate,
    Rule::Invite,
    Rule::PullToken,
    Rule::CredentialChange,
    Rule::IdentityProvider,
    Rule::LastOwner,
    Rule::Organization,
    Rule::AcrossOrganizations,
    Rule::Duration,
    Rule::Delete,
];
