//! What the methods of a service need, from their options.
//!
//! **Invariant**: every method of a named service has a rule, or there are no rules.

use std::collections::{HashMap, HashSet};

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ReflectMessage as _, Value,
};
use thiserror::Error;

/// The option of a method.
const OPTION: &str = "capstan.v1.authorization";

/// What methods need, by the path of a call.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    methods: HashMap<String, Rule>,
    /// Services that need nothing, each with a slash on both sides.
    open: HashSet<String>,
}

/// What one method needs.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    Open,
    Needs { capability: String, place: Place },
}

/// Where it is needed.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// A path.
    At(String),
    /// The text in a field of the request.
    Field(Field),
}

/// A field of the request, or of messages in it.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    request: MessageDescriptor,
    /// From the request down.
    steps: Vec<FieldDescriptor>,
}

/// Why there are no rules. A service should not start then.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RulesError {
    /// The bytes are no descriptor set, or it is not whole.
    #[error("not a descriptor set: {0}")]
    Descriptors(String),
    /// The set has no such service.
    #[error("the descriptors have no service `{0}`")]
    NoService(String),
    /// The set does not have the file with the option.
    #[error("the descriptors have no option `{OPTION}`: import capstan/v1/options.proto")]
    NoOption,
    /// A method does not say what it needs.
    #[error("{method}: no option (capstan.v1.authorization)")]
    Missing {
        /// Its full name.
        method: String,
    },
    /// A method's option cannot be kept to.
    #[error("{method}: {problem}")]
    Invalid {
        /// Its full name.
        method: String,
        /// What is wrong.
        problem: String,
    },
}

impl Rules {
    /// The rules of some services, from an encoded `FileDescriptorSet` that has them and `capstan/v1/options.proto`.
    ///
    /// # Errors
    ///
    /// A service is not there, or a method does not say what it needs, or cannot be protected so.
    pub fn of_services<'s>(
        descriptors: &[u8],
        services: impl IntoIterator<Item = &'s str>,
    ) -> Result<Self, RulesError> {
        let pool = DescriptorPool::decode(descriptors);
        let pool = pool.map_err(|error| RulesError::Descriptors(error.to_string()))?;
        let option = pool.get_extension_by_name(OPTION).ok_or(RulesError::NoOption)?;
        let mut rules = Self::default();
        for name in services {
            let service = pool.get_service_by_name(name);
            let service = service.ok_or_else(|| RulesError::NoService(name.to_owned()))?;
            for method in service.methods() {
                let options = method.options();
                let missing = || RulesError::Missing { method: method.full_name().to_owned() };
                if !options.has_extension(&option) {
                    return Err(missing());
                }
                let Value::Message(option) = options.get_extension(&option).into_owned() else {
                    return Err(missing());
                };
                let rule = rule(&method, &option).map_err(|problem| RulesError::Invalid {
                    method: method.full_name().to_owned(),
                    problem,
                })?;
                rules.methods.insert(format!("/{name}/{}", method.name()), rule);
            }
        }
        Ok(rules)
    }

    /// Lets calls of a service through that has no options of its own, such as health or reflection.
    #[must_use]
    pub fn open_service(mut self, service: &str) -> Self {
        self.open.insert(service.to_owned());
        self
    }

    /// The rule of a call; `None` if there is none.
    pub(super) fn of(&self, path: &str) -> Option<&Rule> {
        const OPEN: &Rule = &Rule::Open;
        let service = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        let is_open = service.is_some_and(|(service, _)| self.open.contains(service));
        if is_open { Some(OPEN) } else { self.methods.get(path) }
    }
}

fn rule(method: &MethodDescriptor, option: &DynamicMessage) -> Result<Rule, String> {
    let text = |name| match option.get_field_by_name(name).as_deref() {
        Some(Value::String(text)) => text.clone(),
        _ => String::new(),
    };
    let has = |name| {
        let field = option.descriptor().get_field_by_name(name);
        field.is_some_and(|field| option.has_field(&field))
    };
    let capability = text("capability");
    if has("open") {
        let is_open = option.get_field_by_name("open").as_deref() == Some(&Value::Bool(true));
        return match (is_open, capability.is_empty()) {
            (true, true) => Ok(Rule::Open),
            (true, false) => Err("open, and a capability: one of them is wrong".to_owned()),
            (false, _) => Err("open: false says nothing".to_owned()),
        };
    }
    if capability.is_empty() {
        return Err("no capability, and not open".to_owned());
    }
    let place = if has("at") {
        Place::At(text("at"))
    } else if has("resource") {
        if method.is_client_streaming() {
            let problem = "takes a stream of requests, which may name other resources: use `at`";
            return Err(problem.to_owned());
        }
        Place::Field(Field::new(&method.input(), text("resource"))?)
    } else {
        return Err("neither `resource` nor `at`".to_owned());
    };
    Ok(Rule::Needs { capability, place })
}

impl Field {
    fn new(request: &MessageDescriptor, name: String) -> Result<Self, String> {
        let (mut message, mut steps) = (Some(request.clone()), vec![]);
        for step in name.split('.') {
            let field = message.as_ref().and_then(|message| message.get_field_by_name(step));
            let field = field.filter(|field| !field.is_list() && !field.is_map());
            let field = field
                .ok_or_else(|| format!("{} has no single field `{name}`", request.full_name()))?;
            message = match field.kind() {
                Kind::Message(inner) => Some(inner),
                _ => None,
            };
            steps.push(field);
        }
        match steps.last().map(FieldDescriptor::kind) {
            Some(Kind::String) => Ok(Self { name, request: request.clone(), steps }),
            _ => Err(format!("`{name}` of {} is no text", request.full_name())),
        }
    }

    /// The text in the field of an encoded request; empty if the request does not have it.
    ///
    /// # Errors
    ///
    /// The bytes are not such a request.
    pub(super) fn read(&self, request: &[u8]) -> Result<String, prost::DecodeError> {
        let mut message = DynamicMessage::decode(self.request.clone(), request)?;
        for step in &self.steps {
            match message.get_field(step).into_owned() {
                Value::Message(inner) => message = inner,
                Value::String(text) => return Ok(text),
                _ => break,
            }
        }
        Ok(String::new())
    }
}
