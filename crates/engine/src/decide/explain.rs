//! Explain: why a decision is what it is, for someone who wants to change it.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::index::binding::IdentityExtra;
use crate::index::read::is_disabled;
use crate::index::table::Entry;
use crate::model::path::contains;
use crate::model::similar::similar;
use crate::{
    CapabilityIx, Condition, Decision, Grant, Path, Question, Reason, Role, Snapshot, Timestamp,
    UnknownCapabilityError, Value,
};

/// Most bindings of each kind that an explanation names.
pub const EXPLAINED_BINDINGS_MAX: usize = 20;
/// Most declared names that are compared with one that is not declared. In a larger policy only the identity's
/// own scopes are compared.
const COMPARED_NAMES_MAX: usize = 16_384;

/// A decision, with its witness or with the roles that would change it.
#[derive(Clone, Debug)]
pub struct Explanation<'s> {
    /// The decision.
    pub decision: Decision,
    /// Whether the identity is disabled: then none of its bindings counts, and none is named here.
    pub disabled: bool,
    /// On an allow, the granting binding with the latest expiry; of several, the topmost.
    pub witness: Option<Grant<'s>>,
    /// On a deny, the roles that would give the capability: all built-in ones that have it, and
    /// custom ones whose group is at or above the resource; fewest capabilities first, then by
    /// name.
    pub roles: Vec<&'s str>,
    /// On a deny, the bindings on the path that have the capability and do not count, from the topmost scope
    /// down: at most [`EXPLAINED_BINDINGS_MAX`].
    pub uncounted: Vec<Uncounted<'s>>,
    /// With [`Reason::NoBinding`], bindings of the identity elsewhere that are in time: at most
    /// [`EXPLAINED_BINDINGS_MAX`], those with the capability first, then by scope.
    pub elsewhere: Vec<Grant<'s>>,
    /// With [`Reason::NoBinding`], the deepest declared group or resource at or above the resource asked about.
    pub declared: Option<&'s str>,
    /// Declared paths that are similar to what is not declared: scopes beside the first undeclared path with
    /// [`Reason::NoBinding`], identities with [`Reason::UnknownIdentity`].
    pub similar: Vec<&'s str>,
}

/// A binding that has the capability and does not count.
#[derive(Clone, Debug)]
pub struct Uncounted<'s> {
    /// The binding.
    pub grant: Grant<'s>,
    /// Whether its time is over.
    pub expired: bool,
    /// Its tests that do not hold, each with the value that was seen; `None` if the attribute is absent.
    pub failed: Vec<(&'s Condition, Option<Value>)>,
}

impl Snapshot {
    /// Why may this identity do this here, or what would let it?
    ///
    /// # Errors
    ///
    /// The catalog has no such capability.
    pub fn explain(
        &self,
        question: &Question<'_>,
        now: Timestamp,
    ) -> Result<Explanation<'_>, UnknownCapabilityError> {
        let decision = self.check(question, now)?;
        let capability = self.capability(question.capability)?;
        let Question { identity, resource, attributes, .. } = *question;
        let mut explanation = Explanation {
            decision,
            disabled: false,
            witness: None,
            roles: vec![],
            uncounted: vec![],
            elsewhere: vec![],
            declared: None,
            similar: vec![],
        };
        let entry = self.index().identities().get(identity.as_str());
        if !decision.allowed() {
            explanation.roles = self.roles_that_give(capability, resource);
        }
        let Some(entry) = entry else {
            explanation.similar = self.similar_identities(identity);
            return Ok(explanation);
        };
        if is_disabled(entry) {
            explanation.disabled = true;
            return Ok(explanation);
        }
        if decision.allowed() {
            let matrix = self.index().roles().matrix();
            let witnesses = self.counting(entry, resource, attributes, now, |binding| {
                matrix.has(binding.packed.role, capability)
                    && binding.expires_at() == decision.valid_until
            });
            explanation.witness = witnesses.first().map(|binding| self.grant(entry, binding));
            return Ok(explanation);
        }
        explanation.uncounted = self.uncounted(entry, capability, question, now);
        if decision.reason == Reason::NoBinding {
            self.explain_place(entry, capability, question, now, &mut explanation);
        }
        Ok(explanation)
    }

    /// The bindings on the path that have the capability, none of which counts.
    fn uncounted<'s>(
        &'s self,
        entry: Entry<'s, IdentityExtra>,
        capability: CapabilityIx,
        question: &Question<'_>,
        now: Timestamp,
    ) -> Vec<Uncounted<'s>> {
        let index = self.index();
        let evaluation = self.evaluation(entry, question.resource, question.attributes, now);
        let mut found = vec![];
        index.on_path(entry, question.resource, |binding| {
            if index.roles().matrix().has(binding.packed.role, capability) && !binding.is_broken() {
                let failed = binding.conditions().iter().filter_map(|condition| {
                    let seen = evaluation.seen(condition);
                    (!condition.accepts(seen)).then(|| (condition, seen.cloned()))
                });
                found.push(Uncounted {
                    grant: self.grant(entry, &binding),
                    expired: !evaluation.in_time(&binding),
                    failed: failed.collect(),
                });
            }
            ControlFlow::Continue(())
        });
        found.sort_by(|a, b| {
            let key = |one: &Uncounted<'s>| (one.grant.scope.len(), one.grant.role);
            key(a).cmp(&key(b)).then_with(|| a.grant.binding.cmp(&b.grant.binding))
        });
        found.truncate(EXPLAINED_BINDINGS_MAX);
        found
    }

    /// Where the identity is bound instead, and what of the path is declared.
    fn explain_place<'s>(
        &'s self,
        entry: Entry<'s, IdentityExtra>,
        capability: CapabilityIx,
        question: &Question<'_>,
        now: Timestamp,
        explanation: &mut Explanation<'s>,
    ) {
        let index = self.index();
        let resource = question.resource.as_str();
        let evaluation = self.evaluation(entry, question.resource, question.attributes, now);
        let mut elsewhere: Vec<_> = index
            .bindings_of(entry)
            .filter(|binding| evaluation.in_time(binding))
            .filter(|binding| !contains(index.scope_of(binding), resource))
            .map(|binding| {
                let has = index.roles().matrix().has(binding.packed.role, capability);
                let (scope, role) = (index.scope_of(&binding), index.role_id(&binding));
                (!has, scope, role, binding.position, binding)
            })
            .collect();
        elsewhere.sort_unstable_by_key(|(lacks, scope, role, position, _)| {
            (*lacks, *scope, *role, *position)
        });

        let ends = resource.match_indices('/').map(|(at, _)| at).chain([resource.len()]);
        let mut undeclared = None;
        for path in ends.filter_map(|end| resource.get(..end)) {
            match index.scope(path) {
                Some((scope, _)) => explanation.declared = Some(scope.key()),
                None => {
                    undeclared = Some(path);
                    break;
                }
            }
        }
        if let Some(path) = undeclared {
            let parent = |path: &str| path.rfind('/').map(|at| at + 1);
            let is_beside = |other: &&str| {
                parent(other) == parent(path)
                    && parent(path).is_none_or(|at| path.get(..at) == other.get(..at))
            };
            let bound = elsewhere.iter().flat_map(|(_, scope, ..)| {
                let ends = scope.match_indices('/').map(|(at, _)| at).chain([scope.len()]);
                ends.filter_map(|end| scope.get(..end)).collect::<Vec<&'s str>>()
            });
            let start = parent(path).unwrap_or(0);
            let beside = bound.chain(self.few_scopes()).filter(is_beside);
            // Only the last segments are compared: the rest is the same.
            let by_name: std::collections::BTreeMap<&str, &str> =
                beside.filter_map(|other| Some((other.get(start..)?, other))).collect();
            let typed = path.get(start..).unwrap_or(path);
            let names = similar(typed, by_name.keys().copied());
            explanation.similar =
                names.into_iter().filter_map(|name| by_name.get(name).copied()).collect();
        }
        elsewhere.truncate(EXPLAINED_BINDINGS_MAX);
        explanation.elsewhere =
            elsewhere.iter().map(|(.., binding)| self.grant(entry, binding)).collect();
    }

    fn few_scopes(&self) -> impl Iterator<Item = &str> {
        let few = self.index().scopes_len() <= COMPARED_NAMES_MAX;
        let scopes = few.then(|| self.index().sample_scopes(COMPARED_NAMES_MAX));
        scopes.into_iter().flatten().map(|entry| entry.key())
    }

    fn similar_identities(&self, identity: Path<'_>) -> Vec<&str> {
        if self.identities_len() > COMPARED_NAMES_MAX {
            return vec![];
        }
        let known = self.index().sample_identities(COMPARED_NAMES_MAX);
        similar(identity.as_str(), known.map(|entry| entry.key()))
    }

    fn roles_that_give(&self, capability: CapabilityIx, resource: Path<'_>) -> Vec<&str> {
        let usable = |role: &&Arc<Role>| match role.id.rsplit_once('/') {
            Some((group, _)) => contains(group, resource.as_str()),
            None => true,
        };
        let roles = self.roles().iter().filter(|role| role.capabilities.contains(capability));
        let mut roles: Vec<_> = roles.filter(usable).collect();
        roles.sort_by_key(|role| (role.capabilities.len(), &role.id));
        roles.into_iter().map(|role| &*role.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Attributes, Catalog, CatalogFacts, CatalogRole, Facts, Group, Identity, Model, PathBuf,
        RoleBinding,
    };

    fn path(text: &str) -> PathBuf {
        text.parse().unwrap()
    }

    /// This many groups, one of them `platform`, and this many identities: `observer`, who is bound at `platform`, and
    /// others.
    fn snapshot(groups: usize, identities: usize) -> Snapshot {
        let catalog = Catalog::new(CatalogFacts {
            name: "c".into(),
            capabilities: vec!["read".into()],
            roles: vec![CatalogRole { name: "reader".into(), ..CatalogRole::default() }],
            ..CatalogFacts::default()
        });
        // Too short to be similar to the names of the questions, and to make the comparison end early.
        let group = |at: usize| Group { id: path(&format!("{at:x}")), name: String::new() };
        let other = |at: usize| Identity::named(path(&format!("~{at:x}")));
        let platform = Group { id: path("platform"), name: String::new() };
        let facts = Facts {
            groups: (1..groups).map(group).chain([platform]).collect(),
            identities: (1..identities)
                .map(other)
                .chain([Identity::named(path("observer"))])
                .collect(),
            role_bindings: vec![RoleBinding {
                id: None,
                identity: path("observer"),
                role: "reader".into(),
                scope: path("platform"),
                expires_at: None,
                when: vec![],
            }],
            ..Facts::default()
        };
        let model = Model::new(Arc::new(catalog.unwrap()), facts).unwrap();
        Snapshot::build(&model, 1).unwrap()
    }

    fn similar_to(snapshot: &Snapshot, identity: &str, resource: &str) -> Vec<String> {
        let question = Question {
            identity: Path::parse(identity).unwrap(),
            capability: "read",
            resource: Path::parse(resource).unwrap(),
            attributes: Attributes::NONE,
        };
        let found = snapshot.explain(&question, Timestamp::UNIX_EPOCH).unwrap();
        found.similar.into_iter().map(Into::into).collect()
    }

    #[test]
    fn as_many_scopes_as_the_limit_are_compared() {
        let most = snapshot(COMPARED_NAMES_MAX, 2);
        assert_eq!(similar_to(&most, "~1", "platfrom"), ["platform"]);
        let more = snapshot(COMPARED_NAMES_MAX + 1, 2);
        assert_eq!(similar_to(&more, "~1", "platfrom"), Vec::<String>::new());
        // The identity's own scopes are always compared.
        assert_eq!(similar_to(&more, "observer", "platfrom"), ["platform"]);
    }

    #[test]
    fn as_many_identities_as_the_limit_are_compared() {
        assert_eq!(
            similar_to(&snapshot(1, COMPARED_NAMES_MAX), "obsrever", "platform"),
            ["observer"]
        );
        let more = snapshot(1, COMPARED_NAMES_MAX + 1);
        assert_eq!(similar_to(&more, "obsrever", "platform"), Vec::<String>::new());
    }
}
