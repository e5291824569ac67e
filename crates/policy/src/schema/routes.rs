//! The keys of a route table.

use super::texts::{
    CAPABILITY, CHALLENGE, GRPC_METHOD, HOST, NAME, PARAMETER, PATH_TEMPLATE, QUERY_NAME,
    REMOVABLE, RESOURCE_TEMPLATE, TEXT,
};
use super::{Document, Key, Kind, Rule, Shape, Table, Test};
use crate::routes::{ENCODED_SLASH, Form};
use crate::{Method, REQUIREMENTS_MAX, ROUTE_HOSTS_MAX, ROUTE_QUERY_MAX, ROUTES_MAX};

pub(super) const DOCUMENT: Document = Document {
    name: "routes",
    title: "Route tables",
    description: "A route table says which capabilities a request to a service behind Envoy requires. \
                  `capstan serve --routes FILE` reads it. [ENVOY.md](ENVOY.md) explains how requests are matched.",
    root: &ROUTES,
    examples: &[FULL],
};

const FULL: &str = r#"version: 1
identity: [credential, jwt, peer]
jwt: {payload: jwt_payload, claim: sub, prefix: "acme:"}
peer: {prefix: "spiffe://example.org/"}
challenge: 'Basic realm="registry"'
routes:
  - name: manifest-by-tag
    hosts: [registry.example]
    methods: [GET, HEAD]
    path: /v2/{repository...}/manifests/{tag}
    where: {tag: tag}
    query: [n, last]
    form: false
    require:
      - {capability: manifest.list, resource: "acme/images/{repository}"}
  - name: mount
    methods: [POST]
    path: /v2/{repository...}/blobs/uploads/
    query: [{name: mount, as: blob}, {name: from, as: source}]
    if_denied_remove: [mount, from]
    require:
      - {capability: repo.update, resource: "acme/images/{repository}"}
      - {capability: repo.list, resource: "acme/images/{source}"}
  - {name: rpc, grpc: my.pkg.Service/Method, require: [{capability: record.read, resource: acme/records}]}
  - {name: base, methods: [GET], path: /v2/, authenticated: true}
"#;

const ROUTES: Table = Table {
    name: "route table",
    description: "The whole document.",
    keys: &[
        Key::required("version", Kind::Version, "The version of the format.", "1"),
        Key::optional(
            "identity",
            Kind::List {
                of: &Kind::Words(|| vec!["credential", "jwt", "peer"]),
                min: 1,
                max: None,
            },
            "The accepted sources of a request's identity.",
            r#"["credential", "jwt", "peer"]"#,
        )
        .or(r#"["credential"]"#),
        Key::optional(
            "jwt",
            Kind::Table(&JWT),
            "Where the identity is in a token.",
            r#"{"payload": "jwt_payload", "claim": "sub", "prefix": "acme:"}"#,
        ),
        Key::optional(
            "peer",
            Kind::Table(&PEER),
            "Where the identity is in a certificate.",
            r#"{"prefix": "spiffe://example.org/"}"#,
        ),
        Key::optional(
            "challenge",
            Kind::Text(&CHALLENGE),
            "`WWW-Authenticate` of a 401. Without it, the scheme that the sources accept.",
            r#""Basic realm=\"registry\"""#,
        ),
        Key::required(
            "routes",
            Kind::List { of: &Kind::Table(&ROUTE), min: 0, max: Some(ROUTES_MAX) },
            "The routes. A request that matches none is denied.",
            r#"[{"name": "base", "methods": ["GET"], "path": "/v2/", "authenticated": true}]"#,
        ),
    ],
    notes: &["Routes have unique names. No request matches two routes."],
    ..Table::EMPTY
};

const JWT: Table = Table {
    name: "token",
    description: "The place of an identity in a token that Envoy verified.",
    keys: &[
        Key::optional(
            "payload",
            Kind::Text(&TEXT),
            "Envoy's `payload_in_metadata`.",
            r#""jwt_payload""#,
        )
        .or(r#""jwt_payload""#),
        Key::optional("claim", Kind::Text(&TEXT), "The claim with the identity.", r#""sub""#)
            .or(r#""sub""#),
        Key::optional(
            "prefix",
            Kind::Text(&TEXT),
            "What stands before the identity in the claim.",
            r#""acme:""#,
        )
        .or(r#""""#),
    ],
    ..Table::EMPTY
};

const PEER: Table = Table {
    name: "peer",
    description: "The place of an identity in a certificate that Envoy verified.",
    keys: &[Key::optional(
        "prefix",
        Kind::Text(&TEXT),
        "What stands before the identity in the certificate's name.",
        r#""spiffe://example.org/""#,
    )
    .or(r#""""#)],
    ..Table::EMPTY
};

const ROUTE: Table = Table {
    name: "route",
    description: "What a request must be to match, and what it then requires.",
    keys: &[
        Key::required("name", Kind::Text(&NAME), "The name, for logs and tests.", r#""manifest-by-tag""#),
        Key::optional(
            "hosts",
            Kind::List { of: &Kind::Text(&HOST), min: 1, max: Some(ROUTE_HOSTS_MAX) },
            "The hosts of requests that match. Without it, every host.",
            r#"["registry.example"]"#,
        ),
        Key::optional(
            "methods",
            Kind::list(&Kind::Words(|| Method::ALL.map(Method::as_str).into())),
            "The methods of requests that match.",
            r#"["GET", "HEAD"]"#,
        ),
        Key::optional(
            "path",
            Kind::Text(&PATH_TEMPLATE),
            "The paths of requests that match.",
            r#""/v2/{repository...}/manifests/{tag}""#,
        ),
        Key::optional(
            "grpc",
            Kind::Text(&GRPC_METHOD),
            "The gRPC method of requests that match.",
            r#""my.pkg.Service/Method""#,
        ),
        Key::optional(
            "where",
            Kind::Forms(|| {
                let named = Form::NAMED.iter().map(|(name, _)| *name);
                named.chain([ENCODED_SLASH]).collect()
            }),
            "The forms of the path's parameters. `digest`, `tag` and `not_digest` are for `{x}`; `encoded_slash` is \
             for `{x...}`, and reads `%2F` as a slash.",
            r#"{"tag": "tag"}"#,
        ),
        Key::optional(
            "query",
            Kind::List {
                of: &Kind::Either(&Kind::Text(&QUERY_NAME), &Kind::Table(&QUERY)),
                min: 0,
                max: Some(ROUTE_QUERY_MAX),
            },
            "Query parameters. One given by name is optional.",
            r#"["n", "last"]"#,
        )
        .or("[]"),
        Key::optional("form", Kind::Boolean, "Whether the body may be a form.", "false").or("false"),
        Key::optional(
            "require",
            Kind::List { of: &Kind::Table(&REQUIREMENT), min: 0, max: Some(REQUIREMENTS_MAX) },
            "What the identity must be allowed. All must hold.",
            r#"[{"capability": "manifest.list", "resource": "acme/images/{repository}"}]"#,
        ),
        Key::optional("authenticated", Kind::Boolean, "Whether any proved identity may pass.", "true").or("false"),
        Key::optional(
            "if_denied_remove",
            Kind::list(&Kind::Text(&REMOVABLE)),
            "Query parameters that Envoy removes if a requirement is not met and the request is allowed without them.",
            r#"["mount", "from"]"#,
        )
        .or("[]"),
    ],
    rules: &[
        Rule {
            description: "Either `path` with one method or more, or `grpc` without `methods`.",
            shapes: &[
                Shape { has: &["path", "methods"], lacks: &["grpc"], tests: &[("methods", Test::NotEmpty)] },
                Shape { has: &["grpc"], lacks: &["path", "methods"], tests: &[] },
            ],
        },
        Rule {
            description: "Either requirements in `require`, or `authenticated: true`.",
            shapes: &[
                Shape {
                    has: &["require"],
                    lacks: &[],
                    tests: &[("require", Test::NotEmpty), ("authenticated", Test::Is(false))],
                },
                Shape {
                    has: &["authenticated"],
                    lacks: &[],
                    tests: &[
                        ("authenticated", Test::Is(true)),
                        ("require", Test::Empty),
                        ("if_denied_remove", Test::Empty),
                    ],
                },
            ],
        },
    ],
    notes: &[
        "`where`, resources and `if_denied_remove` name only parameters that the route has.",
        "A parameter has one name, in the path and in `as`. A query parameter is listed once.",
    ],
    ..Table::EMPTY
};

const QUERY: Table = Table {
    name: "required query parameter",
    description: "A query parameter that a request must have. Its value is a parameter of resources.",
    keys: &[
        Key::required("name", Kind::Text(&QUERY_NAME), "The name in the query.", r#""from""#),
        Key::required(
            "as",
            Kind::Text(&PARAMETER),
            "The parameter `{x}` of resources.",
            r#""source""#,
        ),
    ],
    ..Table::EMPTY
};

const REQUIREMENT: Table = Table {
    name: "requirement",
    description: "A capability that the identity must have at a resource.",
    keys: &[
        Key::required(
            "capability",
            Kind::Text(&CAPABILITY),
            "The capability.",
            r#""manifest.list""#,
        ),
        Key::required(
            "resource",
            Kind::Text(&RESOURCE_TEMPLATE),
            "The resource's path. `{x}` is the value of a parameter.",
            r#""acme/images/{repository}""#,
        ),
    ],
    ..Table::EMPTY
};
