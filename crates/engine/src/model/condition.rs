//! Conditions: the closed list of tests that a binding may carry (section 3 of the contract).
//!
//! **Invariant**: an absent attribute fails every test, `not_equals` too; values of different types
//! are different. So an unknown value never makes a binding count.

use std::collections::BTreeMap;

/// Most tests in one binding's `when`.
pub const CONDITIONS_MAX: usize = 16;

/// Attributes by name.
pub type Properties = BTreeMap<String, Value>;

/// The value of an attribute. Values of different types are never equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// A string, compared byte for byte.
    String(String),
    /// true or false.
    Boolean(bool),
    /// A whole number within ±(2^53 − 1), so that JSON holds it exactly.
    Integer(i64),
}

/// What an attribute belongs to: the part of its name before the first dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttributeCategory {
    /// The identity. A registered property wins over the one that the request supplies.
    Subject,
    /// The resource. A registered property wins over the one that the request supplies.
    Resource,
    /// What is done. Only the request supplies it.
    Action,
    /// Everything else. Only the request supplies it.
    Context,
}

impl AttributeCategory {
    const ALL: [(&'static str, Self); 4] = [
        ("subject", Self::Subject),
        ("resource", Self::Resource),
        ("action", Self::Action),
        ("context", Self::Context),
    ];
}

/// One test of a binding's `when`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Condition {
    /// What the attribute belongs to.
    pub category: AttributeCategory,
    /// Its name: everything after the first dot.
    pub name: String,
    /// Whether it must equal the value, or must be there and differ.
    pub equals: bool,
    /// The value.
    pub value: Value,
}

/// Splits an attribute such as `resource.status` at the first dot into category and name. The name
/// may contain dots. `None` for an unknown category or an empty name.
#[must_use]
pub fn parse_attribute(text: &str) -> Option<(AttributeCategory, &str)> {
    let (category, name) = text.split_once('.')?;
    let (_, category) = AttributeCategory::ALL.into_iter().find(|(word, _)| *word == category)?;
    (!name.is_empty()).then_some((category, name))
}

/// What a request supplies about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// About the identity.
    pub subject: Properties,
    /// About the resource.
    pub resource: Properties,
    /// About what is done.
    pub action: Properties,
    /// About everything else.
    pub context: Properties,
}

impl Attributes {
    /// A request that supplies nothing.
    pub const NONE: &'static Self = &Self {
        subject: Properties::new(),
        resource: Properties::new(),
        action: Properties::new(),
        context: Properties::new(),
    };
}

impl Condition {
    /// The attribute as it is written in documents, such as `resource.status`.
    #[must_use]
    pub fn attribute(&self) -> String {
        let word = AttributeCategory::ALL.iter().find(|(_, category)| *category == self.category);
        format!("{}.{}", word.map_or("", |(word, _)| word), self.name)
    }

    /// Whether the test holds for this value of the attribute. An absent one fails every test.
    #[must_use]
    pub fn accepts(&self, value: Option<&Value>) -> bool {
        value.is_some_and(|value| (*value == self.value) == self.equals)
    }

    /// Whether no value of the attribute meets both tests.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        let same_attribute = (self.category, &self.name) == (other.category, &other.name);
        same_attribute
            && match (self.equals, other.equals) {
                (true, true) => self.value != other.value,
                (true, false) | (false, true) => self.value == other.value,
                // Values of other types are left.
                (false, false) => false,
            }
    }

    /// Whether the test holds. A registered property wins; the request supplies only what is not
    /// registered.
    pub(crate) fn holds(&self, registered: Option<&Properties>, supplied: &Attributes) -> bool {
        self.accepts(self.seen(registered, supplied))
    }

    /// The value of the attribute, if it is there.
    pub(crate) fn seen<'v>(
        &self,
        registered: Option<&'v Properties>,
        supplied: &'v Attributes,
    ) -> Option<&'v Value> {
        let supplied = match self.category {
            AttributeCategory::Subject => &supplied.subject,
            AttributeCategory::Resource => &supplied.resource,
            AttributeCategory::Action => &supplied.action,
            AttributeCategory::Context => &supplied.context,
        };
        let registered = registered.and_then(|properties| properties.get(&self.name));
        registered.or_else(|| supplied.get(&self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_named_after_the_first_dot() {
        assert_eq!(
            parse_attribute("resource.status"),
            Some((AttributeCategory::Resource, "status"))
        );
        assert_eq!(parse_attribute("subject.a.b"), Some((AttributeCategory::Subject, "a.b")));
        for bad in ["", "status", "resource.", ".status", "Resource.status", "user.name"] {
            assert_eq!(parse_attribute(bad), None, "{bad}");
        }
    }

    #[test]
    fn tests_contradict_if_no_value_meets_both() {
        let test = |category, name: &str, equals, value| Condition {
            category,
            name: name.into(),
            equals,
            value: Value::Integer(value),
        };
        let context = |equals, value| test(AttributeCategory::Context, "n", equals, value);
        let one = context(true, 1);
        assert!(one.contradicts(&context(true, 2)) && !one.contradicts(&one));
        assert!(one.contradicts(&context(false, 1)) && context(false, 1).contradicts(&one));
        assert!(!one.contradicts(&context(false, 2)) && !context(false, 2).contradicts(&one));
        assert!(!context(false, 1).contradicts(&context(false, 2)));
        assert!(!one.contradicts(&test(AttributeCategory::Context, "m", true, 2)));
        assert!(!one.contradicts(&test(AttributeCategory::Action, "n", true, 2)));
    }

    #[test]
    fn absent_fails_and_registered_wins() {
        let integer = |n| Value::Integer(n);
        let one = |name: &str, value| Properties::from([(name.to_owned(), value)]);
        let supplied = Attributes {
            subject: one("team", Value::String("x".into())),
            context: one("n", integer(1)),
            ..Attributes::default()
        };
        let registered = one("team", Value::String("platform".into()));
        let holds = |category, name: &str, equals, value: &Value| {
            let registered = (category == AttributeCategory::Subject).then_some(&registered);
            let condition = Condition { category, name: name.into(), equals, value: value.clone() };
            condition.holds(registered, &supplied)
        };
        let platform = Value::String("platform".into());
        assert!(holds(AttributeCategory::Subject, "team", true, &platform));
        assert!(!holds(AttributeCategory::Subject, "team", true, &Value::String("x".into())));
        assert!(holds(AttributeCategory::Context, "n", true, &integer(1)));
        assert!(!holds(AttributeCategory::Context, "n", false, &integer(1)));
        for other in [Value::String("1".into()), Value::Boolean(true), integer(2)] {
            assert!(!holds(AttributeCategory::Context, "n", true, &other));
            assert!(holds(AttributeCategory::Context, "n", false, &other));
        }
        for category in [AttributeCategory::Resource, AttributeCategory::Action] {
            assert!(
                !holds(category, "n", true, &integer(1))
                    && !holds(category, "n", false, &integer(1))
            );
        }
    }
}
