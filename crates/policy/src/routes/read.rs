//! Reads route tables.

use std::collections::HashMap;

use capstan_engine::{Value, parse_capability_name, parse_name, quote};

use super::template::parameter;
use super::{
    CHALLENGE_BYTES_MAX, Form, IdentitySources, JwtSource, Method, QueryParameter,
    REQUIREMENTS_MAX, ROUTE_HOSTS_MAX, ROUTE_QUERY_MAX, ROUTES_MAX, Requirement, ResourceTemplate,
    Route, Routes, Template, is_host,
};
use crate::catalog::string;
use crate::reader::{Kind, Mark, Node, Reader, Required};

/// The value of `where` that lets `%2F` stand for a slash within `{name...}`.
pub(crate) const ENCODED_SLASH: &str = "encoded_slash";

/// The readable part of a table.
#[derive(Default)]
pub(super) struct Draft {
    /// The table without its routes.
    pub(super) rest: Routes,
    /// The routes, each with its position.
    pub(super) routes: Vec<(Route, Mark)>,
}

pub(super) fn read_table<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Draft {
    let mark = node.mark;
    let mut draft = Draft::default();
    let (mut version, mut sources) = (Required::new("version"), None);
    let mut listed = Required::new("routes");
    let mut jwt =
        JwtSource { payload: "jwt_payload".into(), claim: "sub".into(), prefix: String::new() };
    let (mut peer, mut seen) = (String::new(), HashMap::new());
    let is_mapping = reader.mapping(
        node,
        "a route table: a mapping with `version` and `routes`",
        &["version", "identity", "jwt", "peer", "challenge", "routes"],
        |reader, key, value| match key {
            "version" => {
                version.read(reader, value, |reader, node| reader.exactly(node, 1).then_some(()))
            }
            "identity" => sources = Some(read_sources(reader, value)),
            "jwt" => read_jwt(reader, value, &mut jwt),
            "peer" => read_peer(reader, value, &mut peer),
            "challenge" => {
                if let Some(challenge) = reader.parse(value, "a challenge", parse_challenge) {
                    draft.rest.challenge = Some(challenge);
                }
            }
            _ => listed.read(reader, value, |reader, node| {
                let mark = node.mark;
                reader.list(&mut draft.routes, node, "a list of routes", |reader, node| {
                    read_route(reader, node, &mut seen)
                });
                if draft.routes.len() > ROUTES_MAX {
                    let found = format!("{} routes", draft.routes.len());
                    reader.report(mark, found, format!("at most {ROUTES_MAX}"));
                }
                Some(())
            }),
        },
    );
    version.get(reader, mark, is_mapping);
    listed.get(reader, mark, is_mapping);
    if let Some(sources) = sources {
        let accepts = |source| sources.contains(&source);
        draft.rest.identity = IdentitySources {
            credential: accepts(Source::Credential),
            jwt: accepts(Source::Jwt).then_some(jwt),
            peer: accepts(Source::Peer).then_some(peer),
        };
    }
    draft
}

#[derive(Clone, Copy, PartialEq)]
enum Source {
    Credential,
    Jwt,
    Peer,
}

fn read_sources<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Vec<Source> {
    let mark = node.mark;
    let (mut sources, mut seen) = (Vec::new(), 0);
    reader.list(&mut sources, node, "a list of identity sources", |reader, node| {
        seen += 1;
        reader.parse(node, "an identity source", |text| match text {
            "credential" => Ok(Source::Credential),
            "jwt" => Ok(Source::Jwt),
            "peer" => Ok(Source::Peer),
            _ => Err("credential, jwt or peer"),
        })
    });
    if seen == 0 {
        reader.report(mark, "no identity source", "credential, jwt or peer");
    }
    sources
}

fn read_jwt<'t>(reader: &mut Reader<'t>, node: Node<'t>, jwt: &mut JwtSource) {
    reader.mapping(
        node,
        "the identity in a token: a mapping with `payload`, `claim` and `prefix`",
        &["payload", "claim", "prefix"],
        |reader, key, value| {
            let Some(text) = reader.text(value) else { return };
            match key {
                "payload" => jwt.payload = text,
                "claim" => jwt.claim = text,
                _ => jwt.prefix = text,
            }
        },
    );
}

fn read_peer<'t>(reader: &mut Reader<'t>, node: Node<'t>, prefix: &mut String) {
    reader.mapping(
        node,
        "the prefix of a peer's identity: a mapping with `prefix`",
        &["prefix"],
        |reader, _, value| {
            if let Some(text) = reader.text(value) {
                *prefix = text;
            }
        },
    );
}

fn parse_challenge(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > CHALLENGE_BYTES_MAX {
        return Err(format!("1 to {CHALLENGE_BYTES_MAX} bytes"));
    }
    if !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Err("visible ASCII".into());
    }
    Ok(text.into())
}

/// The fields of a route, before their combination is checked. An inner `None` is an unreadable
/// value, already reported; an outer `None` is an absent key.
#[derive(Default)]
struct RouteDraft {
    hosts: Vec<String>,
    methods: Option<Vec<Option<Method>>>,
    path: Option<Option<Template>>,
    grpc: Option<Option<Template>>,
    forms: Vec<(String, Option<Form>)>,
    encoded_slashes: Vec<String>,
    query: Vec<(QueryParameter, Mark)>,
    takes_forms: bool,
    requires: Option<Vec<(Option<Requirement>, Mark)>>,
    authenticated: bool,
    if_denied_remove: Vec<(Box<str>, Mark)>,
}

fn read_route<'t>(
    reader: &mut Reader<'t>,
    node: Node<'t>,
    names: &mut HashMap<String, Mark>,
) -> Option<(Route, Mark)> {
    let mark = node.mark;
    let (mut name, mut draft) = (Required::new("name"), RouteDraft::default());
    let is_mapping = reader.mapping(
        node,
        "a route: a mapping with `name`, `methods`, `path` and `require`",
        &[
            "name",
            "hosts",
            "methods",
            "path",
            "grpc",
            "where",
            "query",
            "form",
            "require",
            "authenticated",
            "if_denied_remove",
        ],
        |reader, key, value| match key {
            "name" => name.read(reader, value, |reader, node| read_name(reader, node, names)),
            "hosts" => read_hosts(reader, value, &mut draft.hosts),
            "methods" => {
                let methods = draft.methods.get_or_insert_default();
                reader.list(methods, value, "a list of methods", |reader, node| {
                    Some(read_method(reader, node))
                });
            }
            "path" => draft.path = Some(reader.parse(value, "a path", Template::parse)),
            "grpc" => draft.grpc = Some(reader.parse(value, "a gRPC method", parse_grpc)),
            "where" => read_forms(reader, value, &mut draft),
            "query" => read_query(reader, value, &mut draft.query),
            "form" => draft.takes_forms = reader.boolean(value).unwrap_or_default(),
            "require" => {
                let requires = draft.requires.get_or_insert_default();
                reader.list(requires, value, "a list of requirements", read_requirement);
            }
            "authenticated" => draft.authenticated = reader.boolean(value).unwrap_or_default(),
            _ => {
                let removed = &mut draft.if_denied_remove;
                reader.list(removed, value, "a list of query parameters", |reader, node| {
                    let mark = node.mark;
                    Some((read_query_name(reader, node)?, mark))
                });
            }
        },
    );
    let name = name.get(reader, mark, is_mapping);
    let route = if is_mapping { prove_route(reader, mark, draft) } else { None };
    Some((Route { name: name?, ..route? }, mark))
}

/// Checks the combination of a route's fields. The name of the result is empty.
fn prove_route(reader: &mut Reader<'_>, mark: Mark, draft: RouteDraft) -> Option<Route> {
    let RouteDraft { hosts, methods, path, grpc, forms, query, takes_forms, .. } = draft;
    let encoded_slashes = draft.encoded_slashes;
    let is_grpc = grpc.is_some();
    if path.is_some() == is_grpc {
        let found = if is_grpc { "both `path` and `grpc`" } else { "neither `path` nor `grpc`" };
        reader.report(mark, found, "one of them");
    }
    let methods = match methods {
        None if is_grpc => vec![Method::Post],
        Some(methods) if !is_grpc && !methods.is_empty() => {
            methods.into_iter().collect::<Option<Vec<_>>>()?
        }
        _ => {
            let (found, expected) = if is_grpc {
                ("`methods` of a gRPC route", "no `methods`: gRPC calls are POST requests")
            } else {
                ("no method", "at least one method")
            };
            reader.report(mark, found, expected);
            return None;
        }
    };
    let mut path = path.or(grpc).flatten()?;
    for (parameter, form) in forms {
        if !path.restrict(&parameter, form.unwrap_or_default()) {
            let found = format!("`where` of {}", quote(&parameter));
            reader.report(mark, found, "a parameter of the path with exactly one segment");
        }
    }
    for parameter in encoded_slashes {
        if !path.take_encoded_slashes(&parameter) {
            let found = format!("`{ENCODED_SLASH}` of {}", quote(&parameter));
            reader.report(mark, found, "the parameter `{name...}` of the path");
        }
    }
    let bound =
        query.iter().filter_map(|(parameter, mark)| Some((parameter.bound.as_ref()?, mark)));
    let mut known: Vec<&str> = path.parameters().collect();
    for (name, mark) in bound {
        if known.contains(&&**name) {
            reader.report(*mark, quote(name), "a name that no other parameter has");
        }
        known.push(name);
    }
    if draft.authenticated == draft.requires.as_ref().is_some_and(|all| !all.is_empty()) {
        let found = if draft.authenticated { "both" } else { "neither" };
        let expected = "either requirements in `require`, or `authenticated: true` for any \
                        identity";
        reader.report(mark, found, expected);
    }
    let mut requires = Vec::new();
    for (requirement, mark) in draft.requires.unwrap_or_default() {
        let requirement = requirement?;
        if let Some(name) = requirement.resource.parameters().find(|name| !known.contains(name)) {
            let found = format!("parameter {}", quote(name));
            reader.report(mark, found, "a parameter of the path, or one that the query binds");
        }
        requires.push(requirement);
    }
    if requires.len() > REQUIREMENTS_MAX {
        let found = format!("{} requirements", requires.len());
        reader.report(mark, found, format!("at most {REQUIREMENTS_MAX}"));
    }
    let query: Vec<_> = query.into_iter().map(|(parameter, _)| parameter).collect();
    for (name, mark) in &draft.if_denied_remove {
        // Envoy compares undecoded names, so only names with one spelling can be removed.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let is_listed = query.iter().any(|listed| listed.name == *name);
        if !is_listed || requires.is_empty() || !name.bytes().all(is_plain) {
            let expected = "a parameter that `query` lists, of A-Z a-z 0-9 - . _ ~, in a route \
                            with requirements";
            reader.report(*mark, format!("removal of {}", quote(name)), expected);
        }
    }
    let if_denied_remove = draft.if_denied_remove.into_iter().map(|(name, _)| name).collect();
    let name = String::new();
    Some(Route {
        name,
        hosts,
        methods,
        path,
        is_grpc,
        query,
        takes_forms,
        requires,
        if_denied_remove,
    })
}

fn read_name<'t>(
    reader: &mut Reader<'t>,
    node: Node<'t>,
    names: &mut HashMap<String, Mark>,
) -> Option<String> {
    let mark = node.mark;
    let name =
        reader.parse(node, "a route's name", |text| parse_name(text).map(|()| text.to_owned()))?;
    if let Some((line, _)) = names.insert(name.clone(), mark) {
        let found = format!("{}, already used in line {line}", quote(&name));
        reader.report(mark, found, "a name that no other route has");
    }
    Some(name)
}

fn read_method<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<Method> {
    reader.parse(node, "a method", |text| {
        let known = || Method::ALL.map(Method::as_str).join(", ");
        Method::parse(text).ok_or_else(known)
    })
}

fn read_hosts<'t>(reader: &mut Reader<'t>, node: Node<'t>, hosts: &mut Vec<String>) {
    let (mark, mut seen) = (node.mark, 0);
    reader.list(hosts, node, "a list of hosts", |reader, node| {
        seen += 1;
        reader.parse(node, "a host", |text| {
            if !is_host(text) || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
                return Err("lower case, without a port");
            }
            Ok(text.to_owned())
        })
    });
    if !(1..=ROUTE_HOSTS_MAX).contains(&seen) {
        let found = format!("{seen} hosts");
        let expected = format!("1 to {ROUTE_HOSTS_MAX}, or no `hosts` for every host");
        reader.report(mark, found, expected);
    }
}

/// The template of a gRPC method's path, from `my.pkg.Service/Method`.
fn parse_grpc(text: &str) -> Result<Template, String> {
    let is_word = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match text.split_once('/') {
        Some((service, method)) if service.split('.').all(is_word) && is_word(method) => {
            Template::parse(&format!("/{text}"))
        }
        _ => Err("package.Service/Method".into()),
    }
}

fn read_forms<'t>(reader: &mut Reader<'t>, node: Node<'t>, draft: &mut RouteDraft) {
    let mark = node.mark;
    for (parameter, value) in reader.properties(node) {
        if matches!(&value, Value::String(text) if **text == *ENCODED_SLASH) {
            draft.encoded_slashes.push(parameter.to_string());
            continue;
        }
        let named = |name: &str| Form::NAMED.into_iter().find(|(known, _)| *known == name);
        let form = match &value {
            Value::String(name) => named(name).map(|(_, form)| form),
            _ => None,
        };
        if form.is_none() {
            let known = Form::NAMED.map(|(name, _)| name).join(", ");
            let found = format!("an unknown form for {}", quote(&parameter));
            reader.report(mark, found, format!("one of {known}, {ENCODED_SLASH}"));
        }
        draft.forms.push((parameter, form));
    }
}

fn read_query<'t>(
    reader: &mut Reader<'t>,
    node: Node<'t>,
    query: &mut Vec<(QueryParameter, Mark)>,
) {
    let mark = node.mark;
    reader.list(query, node, "a list of query parameters", |reader, node| {
        let mark = node.mark;
        if !matches!(node.kind, Kind::Mapping) {
            let name = read_query_name(reader, node)?;
            return Some((QueryParameter { name, bound: None }, mark));
        }
        let (mut name, mut bound) = (Required::new("name"), Required::new("as"));
        let is_mapping = reader.mapping(
            node,
            "a required query parameter: a mapping with `name` and `as`",
            &["name", "as"],
            |reader, key, value| match key {
                "name" => name.read(reader, value, read_query_name),
                _ => bound.read(reader, value, |reader, node| {
                    reader.parse(node, "a parameter", |text| parameter(text).map(Box::from))
                }),
            },
        );
        let (name, bound) =
            (name.get(reader, mark, is_mapping), bound.get(reader, mark, is_mapping));
        Some((QueryParameter { name: name?, bound: Some(bound?) }, mark))
    });
    if query.len() > ROUTE_QUERY_MAX {
        let found = format!("{} query parameters", query.len());
        reader.report(mark, found, format!("at most {ROUTE_QUERY_MAX}"));
    }
    for (at, (parameter, mark)) in query.iter().enumerate() {
        if query.iter().take(at).any(|(earlier, _)| earlier.name == parameter.name) {
            let found = format!("{} again", quote(&parameter.name));
            reader.report(*mark, found, "each query parameter once");
        }
    }
}

fn read_query_name<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<Box<str>> {
    reader.parse(node, "a query parameter's name", |text| {
        let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b"%+&=;#".contains(&byte);
        if text.is_empty() || text.len() > 128 || !text.bytes().all(is_allowed) {
            return Err("1 to 128 of visible ASCII, without % + & = ; #");
        }
        Ok(Box::from(text))
    })
}

fn read_requirement<'t>(
    reader: &mut Reader<'t>,
    node: Node<'t>,
) -> Option<(Option<Requirement>, Mark)> {
    let mark = node.mark;
    let (mut capability, mut resource) = (Required::new("capability"), Required::new("resource"));
    let is_mapping = reader.mapping(
        node,
        "a requirement: a mapping with `capability` and `resource`",
        &["capability", "resource"],
        |reader, key, value| match key {
            "capability" => capability.read(reader, value, |reader, node| {
                let mark = node.mark;
                let name = string(reader, node, "a capability")?;
                if let Err(error) = parse_capability_name(&name) {
                    reader.report(mark, quote(&name), format!("a capability ({error})"));
                }
                Some((name, mark))
            }),
            _ => resource.read(reader, value, |reader, node| {
                reader.parse(node, "a resource's path", ResourceTemplate::parse)
            }),
        },
    );
    let capability = capability.get(reader, mark, is_mapping);
    let resource = resource.get(reader, mark, is_mapping);
    let both = capability.zip(resource);
    let requirement = both.map(|((capability, position), resource)| Requirement {
        capability,
        resource,
        position,
    });
    Some((requirement, mark))
}
