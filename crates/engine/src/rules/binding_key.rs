//! What makes two role bindings the same, and the id derived from it.

use std::fmt::Write as _;
use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use crate::{Condition, PathBuf, RoleBinding, Value};

/// Two bindings are the same if their keys are equal: identity, role, scope, and the set of
/// conditions. The expiry does not count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BindingKey<'f> {
    identity: &'f str,
    role: &'f str,
    scope: &'f str,
    /// Sorted, each once.
    conditions: Vec<&'f Condition>,
}

impl<'f> BindingKey<'f> {
    pub(crate) fn new(
        identity: &'f str,
        role: &'f str,
        scope: &'f str,
        conditions: &'f [Condition],
    ) -> Self {
        let mut conditions: Vec<_> = conditions.iter().collect();
        conditions.sort_unstable();
        conditions.dedup();
        Self { identity, role, scope, conditions }
    }

    pub(crate) fn of(binding: &'f RoleBinding) -> Self {
        let (identity, scope) = (binding.identity.as_str(), binding.scope.as_str());
        Self::new(identity, &binding.role, scope, &binding.when)
    }

    /// Whether these are its conditions, in any order.
    pub(crate) fn has_conditions(&self, conditions: &[Condition]) -> bool {
        match self.conditions.is_empty() {
            true => conditions.is_empty(),
            false => self.conditions == BindingKey::new("", "", "", conditions).conditions,
        }
    }

    /// The number in the last segment of the id of a binding that declares none: SipHash-1-3 under
    /// zero keys (Aumasson and Bernstein, *SipHash: a fast short-input PRF*, 2012) of this
    /// encoding, which must not change, because ids are visible:
    ///
    /// ```text
    /// identity 0xff role 0xff scope 0xff
    /// number of conditions: u64, then of each:
    ///   category: u64 (0 subject, 1 resource, 2 action, 3 context)   name 0xff
    ///   1 if it must be equal, 0 if it must differ: u8
    ///   type of the value: u64 (0 string, 1 boolean, 2 integer)
    ///   the value: text 0xff, or u8, or i64
    /// ```
    ///
    /// Numbers are little-endian. No UTF-8 text contains 0xff, so no two keys have the same encoding.
    pub(crate) fn derived_number(&self) -> u64 {
        let mut hash = SipHasher13::new();
        let text = |hash: &mut SipHasher13, text: &str| {
            hash.write(text.as_bytes());
            hash.write(&[0xff]);
        };
        text(&mut hash, self.identity);
        text(&mut hash, self.role);
        text(&mut hash, self.scope);
        hash.write(&(self.conditions.len() as u64).to_le_bytes());
        for Condition { category, name, equals, value } in &self.conditions {
            hash.write(&(*category as u64).to_le_bytes());
            text(&mut hash, name);
            hash.write(&[u8::from(*equals)]);
            let kind: u64 = match value {
                Value::String(_) => 0,
                Value::Boolean(_) => 1,
                Value::Integer(_) => 2,
            };
            hash.write(&kind.to_le_bytes());
            match value {
                Value::String(value) => text(&mut hash, value),
                Value::Boolean(value) => hash.write(&[u8::from(*value)]),
                Value::Integer(value) => hash.write(&value.to_le_bytes()),
            }
        }
        hash.finish()
    }
}

impl RoleBinding {
    /// The id that this binding has if it declares none and nothing else has that path: the scope and 16 hex digits,
    /// which follow from identity, role, scope and conditions. `None` if the scope is as deep or as long as a path can
    /// be.
    #[must_use]
    pub fn derived_id(&self) -> Option<PathBuf> {
        binding_id(self.scope.as_str(), BindingKey::of(self).derived_number()).parse().ok()
    }

    /// Whether its id is [`Self::derived_id`]. This makes no text.
    #[must_use]
    pub fn has_derived_id(&self) -> bool {
        self.has_id_of(BindingKey::of(self).derived_number())
    }

    /// Whether its id is the one that this derived number gives.
    pub(crate) fn has_id_of(&self, derived: u64) -> bool {
        let declared = self.id.as_ref().and_then(|id| split_binding_id(id.as_str()));
        declared == Some((self.scope.as_str(), derived))
    }
}

/// The id of a binding at this scope whose last segment is this number: 16 lower-case hex digits.
pub(crate) fn binding_id(scope: &str, number: u64) -> String {
    let mut id = String::with_capacity(scope.len() + 17);
    let _ = write!(id, "{scope}/{number:016x}");
    id
}

/// Splits an id that [`binding_id`] can make into scope and number.
pub(crate) fn split_binding_id(id: &str) -> Option<(&str, u64)> {
    let (scope, last) = id.split_at_checked(id.len().checked_sub(17)?)?;
    let digits = last.strip_prefix('/')?;
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.bytes().all(is_digit) {
        Some((scope, u64::from_str_radix(digits, 16).ok()?))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AttributeCategory;

    /// Ids that were given out stay what they are.
    #[test]
    fn derived_numbers_never_change() {
        let conditions = [
            Condition {
                category: AttributeCategory::Context,
                name: "ticket".into(),
                equals: false,
                value: Value::Integer(-7),
            },
            Condition {
                category: AttributeCategory::Subject,
                name: "team".into(),
                equals: true,
                value: Value::String("platform".into()),
            },
            Condition {
                category: AttributeCategory::Resource,
                name: "public".into(),
                equals: true,
                value: Value::Boolean(true),
            },
        ];
        let number = |conditions| {
            BindingKey::new("alice", "viewer", "acme/platform", conditions).derived_number()
        };
        assert_eq!(number(&[]), PLAIN);
        assert_eq!(number(&conditions), CONDITIONAL);
        let doubled = [&conditions[1..], &conditions[..], &conditions[..1]].concat();
        assert_eq!(number(&doubled), CONDITIONAL, "conditions are a set");
        let key = |conditions| BindingKey::new("alice", "viewer", "acme/platform", conditions);
        for (one, other) in [(&conditions[..], &conditions[1..]), (&doubled, &[]), (&[], &[])] {
            for (one, other) in [(one, one), (one, other), (other, one), (&conditions, &doubled)] {
                assert_eq!(key(one).has_conditions(other), key(one) == key(other));
            }
        }
    }

    const PLAIN: u64 = 0x16e1_8ea6_1111_ed29;
    const CONDITIONAL: u64 = 0xf4ab_7278_13f4_f276;

    #[test]
    fn ids_are_split_as_they_are_made() {
        assert_eq!(split_binding_id(&binding_id("a/b", 7)), Some(("a/b", 7)));
        assert_eq!(split_binding_id(&binding_id("a", u64::MAX)), Some(("a", u64::MAX)));
        for other in
            ["0000000000000007", "a/000000000000007", "a/000000000000000A", "a/+00000000000000f"]
        {
            assert_eq!(split_binding_id(other), None, "{other}");
        }
    }
}
