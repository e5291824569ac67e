//! Route tables: which tables load, and the diagnostics of others.

#![expect(clippy::panic, reason = "all of this is test code, not only the test functions")]

use capstan_policy::{
    CHALLENGE_BYTES_MAX, Form, IdentitySources, JwtSource, Method, Piece, REQUIREMENTS_MAX,
    ROUTE_HOSTS_MAX, ROUTE_PARAMETERS_MAX, ROUTE_PATH_BYTES_MAX, ROUTE_QUERY_MAX,
    ROUTE_SEGMENTS_MAX, ROUTES_MAX, Routes, Segment, load_routes,
};

/// Loads a table with these routes, which start at line 3, and expects exactly these diagnostics.
fn check(routes: &str, expected: &[&str]) {
    check_document(&format!("version: 1\nroutes:\n{routes}"), expected);
}

fn check_document(document: &str, expected: &[&str]) {
    let found = match load_routes(document.as_bytes()) {
        Ok(_) => vec![],
        Err(found) => found.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(found, expected, "{document}");
}

fn load(document: &str) -> Routes {
    load_routes(document.as_bytes()).unwrap_or_else(|found| panic!("{found}"))
}

const ANY: &str = "authenticated: true";

#[test]
fn a_table_loads_with_all_fields() {
    let routes = load(
        "version: 1
identity: [peer, jwt]
jwt: {payload: p, claim: c, prefix: x/}
peer: {prefix: 'spiffe://e/'}
challenge: Bearer realm=\"x\"
routes:
- name: one
  hosts: [a.example, '[::1]']
  methods: [GET, DELETE]
  path: /v2/{name...}/x/{tag}/
  where: {tag: digest, name: encoded_slash}
  query: [n, {name: from, as: source}]
  if_denied_remove: [from, n]
  form: true
  require:
  - {capability: repo.list, resource: 'a/{name}/{source}'}
  - {capability: tag.list, resource: a}
- {name: two, grpc: my.pkg.Service/Method, require: [], authenticated: true}
",
    );
    let jwt = JwtSource { payload: "p".into(), claim: "c".into(), prefix: "x/".into() };
    let peer = Some("spiffe://e/".into());
    let expected = IdentitySources { credential: false, jwt: Some(jwt), peer };
    assert_eq!((routes.challenge(), &routes.identity), (Some("Bearer realm=\"x\""), &expected));
    let [one, two] = &routes.routes[..] else { panic!() };
    assert_eq!((&*one.name, &*one.hosts), ("one", &["a.example".to_owned(), "[::1]".into()][..]));
    assert_eq!(one.methods, [Method::Get, Method::Delete]);
    assert_eq!(one.path.before, [Segment::Literal("v2".into())]);
    let (name, after) = one.path.rest.as_ref().unwrap();
    let tag = Segment::Parameter { name: "tag".into(), form: Form::Digest };
    let (x, end) = (Segment::Literal("x".into()), Segment::Literal("".into()));
    assert_eq!((&**name, &**after), ("name", &[x, tag, end][..]));
    assert!(one.path.takes_encoded_slashes && !two.path.takes_encoded_slashes);
    let query: Vec<_> = one.query.iter().map(|it| (&*it.name, it.bound.as_deref())).collect();
    assert_eq!(query, [("n", None), ("from", Some("source"))]);
    assert_eq!(one.if_denied_remove, [Box::from("from"), Box::from("n")]);
    assert!(one.takes_forms && one.is_strict() && !one.is_grpc);
    let parameter = |name: &str| Piece::Parameter(name.into());
    let pieces = [Piece::Literal("a".into()), parameter("name"), parameter("source")];
    assert_eq!(one.requires[0].resource.pieces, pieces);
    assert_eq!(one.requires[1].capability, "tag.list");
    assert!(two.is_grpc && two.requires.is_empty() && two.methods == [Method::Post]);

    let empty = load(r#"{"version": 1, "routes": []}"#);
    assert_eq!(empty, Routes::default());
    assert!(empty.identity.credential);
}

#[test]
fn the_table_itself_is_checked() {
    let table = "found %; expected a route table: a mapping with `version` and `routes`";
    check_document("", &["1:1: found nothing; expected a document"]);
    check_document("[]", &[&format!("1:1: {}", table.replace('%', "a list"))]);
    check_document(
        "{}",
        &[
            "1:1: found no `version`; expected the key `version`",
            "1:1: found no `routes`; expected the key `routes`",
        ],
    );
    check_document(
        "version: 2\nroute: []\nroutes: {}\nidentity: []\njwt: x\npeer: {suffix: a}\nchallenge: \
         \"a\\nb\"",
        &[
            "1:10: version: found the number `2`; expected the number 1",
            "2:1: found unknown key `route`; expected one of the keys version, identity, jwt, \
             peer, challenge, routes; did you mean `routes`?",
            "3:9: routes: found a mapping; expected a list of routes",
            "4:11: identity: found no identity source; expected credential, jwt or peer",
            "5:6: jwt: found the string `x`; expected the identity in a token: a mapping with \
             `payload`, `claim` and `prefix`",
            "6:8: peer: found unknown key `suffix`; expected one of the keys prefix; did you mean \
             `prefix`?",
            "7:12: challenge: found `a\\nb`; expected a challenge (visible ASCII)",
        ],
    );
    check_document(
        "version: 1\nidentity: [header]\nroutes: []\n",
        &["2:12: identity[0]: found `header`; expected an identity source (credential, jwt or \
             peer)"],
    );
}

#[test]
fn a_route_is_whole() {
    check(
        "- {}\n",
        &[
            "3:3: routes[0]: found no `name`; expected the key `name`",
            "3:3: routes[0]: found neither `path` nor `grpc`; expected one of them",
            "3:3: routes[0]: found no method; expected at least one method",
        ],
    );
    check(
        &format!("- {{name: a, path: /, grpc: a.B/C, methods: [GET], {ANY}}}\n"),
        &[
            "3:3: routes[0]: found both `path` and `grpc`; expected one of them",
            "3:3: routes[0]: found `methods` of a gRPC route; expected no `methods`: gRPC calls are POST requests",
        ],
    );
    for methods in ["", "methods: [], "] {
        check(
            &format!("- {{name: a, path: /, {methods}{ANY}}}\n"),
            &["3:3: routes[0]: found no method; expected at least one method"],
        );
    }
    let requires =
        "expected either requirements in `require`, or `authenticated: true` for any identity";
    for (more, found) in [
        ("", "neither"),
        ("require: []", "neither"),
        ("authenticated: false", "neither"),
        ("require: [{capability: a, resource: b}], authenticated: true", "both"),
    ] {
        check(
            &format!("- {{name: a, path: /, methods: [GET], {more}}}\n"),
            &[&format!("3:3: routes[0]: found {found}; {requires}")],
        );
    }
    check(
        &format!(
            "- {{name: a, path: /a, methods: [GET], {ANY}}}\n- {{name: a, path: /b, methods: \
             [GET], {ANY}}}\n"
        ),
        &["4:10: routes[1].name: found `a`, already used in line 3; expected a name that no \
             other route has"],
    );
    check(
        &format!(
            "- {{name: 'a b', path: /a, methods: [get, CONNECT], hosts: [A.example], {ANY}}}\n"
        ),
        &[
            "3:10: routes[0].name: found `a b`; expected a route's name (character ' ': only A-Z \
             a-z 0-9 _ - . +)",
            "3:37: routes[0].methods[0]: found `get`; expected a method (GET, HEAD, POST, PUT, \
             PATCH, DELETE, OPTIONS)",
            "3:42: routes[0].methods[1]: found `CONNECT`; expected a method (GET, HEAD, POST, PUT, \
             PATCH, DELETE, OPTIONS)",
            "3:60: routes[0].hosts[0]: found `A.example`; expected a host (lower case, without a \
             port)",
        ],
    );
}

#[test]
fn a_path_is_a_template_of_canonical_paths() {
    let canonical = "canonical segments: no percent-encoding, no `;`, no `.` and `..`";
    let braces = "a parameter is a whole segment: {name} or {name...}";
    let names = "a parameter's name is 1 to 64 of A-Z a-z 0-9 _";
    let long = format!("/{}", "a".repeat(ROUTE_PATH_BYTES_MAX));
    let deep = "/a".repeat(ROUTE_SEGMENTS_MAX + 1);
    let many: String = (0..=ROUTE_PARAMETERS_MAX).map(|at| format!("/{{p{at}}}")).collect();
    for (path, expected) in [
        ("", "it must begin with `/`"),
        ("a", "it must begin with `/`"),
        ("//", "no double slash"),
        ("/a//b", "no double slash"),
        ("/./a", canonical),
        ("/..", canonical),
        ("/%61", canonical),
        ("/a;b", canonical),
        ("/a b", canonical),
        ("/é", canonical),
        ("/a?b", canonical),
        ("/a#", canonical),
        ("/a{b}", braces),
        ("/{a}b", braces),
        ("/{a", braces),
        ("/{}", names),
        ("/{a-b}", names),
        ("/{...}", names),
        ("/{a..}", names),
        ("/{a...}/{b...}", "at most one `{name...}`"),
        ("/{a}/{a}", "parameter `a` only once"),
        ("/{a}/b/{a...}", "parameter `a` only once"),
        (&long, "at most 1024 bytes"),
        (&deep, "at most 32 segments"),
        (&many, "at most 16 parameters"),
    ] {
        let document = format!("- {{name: a, methods: [GET], path: '{path}', {ANY}}}\n");
        let found = load_routes(format!("version: 1\nroutes:\n{document}").as_bytes()).unwrap_err();
        let fields: Vec<_> = found.iter().map(|it| (&*it.field, &*it.expected)).collect();
        assert_eq!(fields, [("routes[0].path", &*format!("a path ({expected})"))], "{path}");
    }
    let longest = format!("/{}", "a".repeat(ROUTE_PATH_BYTES_MAX - 1));
    let deepest = "/a".repeat(ROUTE_SEGMENTS_MAX);
    let most: String = (0..ROUTE_PARAMETERS_MAX).map(|at| format!("/{{p{at}}}")).collect();
    for path in
        ["/", "/a/", "/{a}/", "/{a...}", "/{a...}/", "/a@1:2/{a}", &longest, &deepest, &most]
    {
        check(&format!("- {{name: a, methods: [GET], path: '{path}', {ANY}}}\n"), &[]);
    }
    for grpc in ["a", "/a/b", "a/b/c", "a./b", "a b/c", "a/", "a/b-c"] {
        let document = format!("version: 1\nroutes: [{{name: a, grpc: '{grpc}', {ANY}}}]");
        let found = load_routes(document.as_bytes()).unwrap_err();
        let expected_texts: Vec<_> = found.iter().map(|it| &*it.expected).collect();
        assert_eq!(expected_texts, ["a gRPC method (package.Service/Method)"], "{grpc}");
    }
}

#[test]
fn parameters_are_those_of_the_path_and_the_query() {
    let route =
        |more: &str| format!("- {{name: a, methods: [PUT], path: '/{{p}}/{{q...}}', {more}}}\n");
    check(
        &route(&format!("where: {{p: tag, q: tag, z: digest}}, {ANY}")),
        &[
            "3:3: routes[0]: found `where` of `q`; expected a parameter of the path with exactly \
             one segment",
            "3:3: routes[0]: found `where` of `z`; expected a parameter of the path with exactly \
             one segment",
        ],
    );
    check(
        &route(&format!("where: {{p: regex}}, {ANY}")),
        &["3:57: routes[0].where: found an unknown form for `p`; expected one of digest, tag, \
             not_digest, encoded_slash"],
    );
    check(
        &route(&format!("where: {{q: encoded_slash, p: encoded_slash}}, {ANY}")),
        &[
            "3:3: routes[0]: found `encoded_slash` of `p`; expected the parameter `{name...}` of the \
             path",
        ],
    );
    check(
        &route("require: [{capability: r.get, resource: 'a/{p}/{q}/{r}'}]"),
        &["3:60: routes[0]: found parameter `r`; expected a parameter of the path, or one that \
             the query binds"],
    );
    check(
        &route("query: [{name: from, as: p}], require: [{capability: r.get, resource: 'a/{p}'}]"),
        &["3:58: routes[0]: found `p`; expected a name that no other parameter has"],
    );
    check(
        &route(&format!("query: [a, a, 'b=c', {{name: d}}, {{name: e, as: 'f-g'}}], {ANY}")),
        &[
            "3:61: routes[0].query: found `a` again; expected each query parameter once",
            "3:64: routes[0].query[2]: found `b=c`; expected a query parameter's name (1 to 128 of \
             visible ASCII, without % + & = ; #)",
            "3:71: routes[0].query[3]: found no `as`; expected the key `as`",
            "3:96: routes[0].query[4].as: found `f-g`; expected a parameter (a parameter's name is \
             1 to 64 of A-Z a-z 0-9 _)",
        ],
    );
    for (resource, why) in [
        ("", "the path is empty"),
        ("/a", "segment 1 is empty: no leading, trailing or double slash"),
        ("a//b", "segment 2 is empty: no leading, trailing or double slash"),
        ("../a", "segment 1 is `.` or `..`"),
        ("a/x{p}", "character '{' in segment 2: only A-Z a-z 0-9 - . _ ~ @ : + ="),
        ("{q...}", "a parameter's name is 1 to 64 of A-Z a-z 0-9 _"),
    ] {
        check(
            &route(&format!("require: [{{capability: r.get, resource: '{resource}'}}]")),
            &[&format!(
                "3:90: routes[0].require[0].resource: found `{resource}`; expected a resource's \
                 path ({why})"
            )],
        );
    }
    // Permissions of other clouds have slashes and colons.
    for capability in ["Microsoft.Storage/read", "s3:GetObject", "a.b/c:d"] {
        check(&route(&format!("require: [{{capability: '{capability}', resource: b}}]")), &[]);
    }
    check(
        &route("require: [{capability: '.a', resource: b}, {resource: b}]"),
        &[
            "3:73: routes[0].require[0].capability: found `.a`; expected a capability (a dot at \
             either end or two in a row)",
            "3:93: routes[0].require[1]: found no `capability`; expected the key `capability`",
        ],
    );
}

#[test]
fn lists_have_their_limits() {
    let route = |more: String| format!("- {{name: a, methods: [GET], path: /, {more}}}\n");
    let hosts = |count: usize| {
        let all: Vec<_> = (0..count).map(|at| format!("h{at}")).collect();
        route(format!("hosts: [{}], {ANY}", all.join(", ")))
    };
    let query = |count: usize| {
        let all: Vec<_> = (0..count).map(|at| format!("q{at}")).collect();
        route(format!("query: [{}], {ANY}", all.join(", ")))
    };
    let require = |count: usize| {
        route(format!("require: [{}]", vec!["{capability: a, resource: b}"; count].join(", ")))
    };
    let routes = |count: usize| {
        let route = |at| format!("- {{name: n{at}, methods: [GET], path: /p{at}, {ANY}}}\n");
        (0..count).map(route).collect::<String>()
    };
    for (most, document, found) in [
        (ROUTE_HOSTS_MAX, &hosts as &dyn Fn(usize) -> String, "65 hosts"),
        (ROUTE_QUERY_MAX, &query, "33 query parameters"),
        (REQUIREMENTS_MAX, &require, "17 requirements"),
        (ROUTES_MAX, &routes, "1001 routes"),
    ] {
        check(&document(most), &[]);
        let document = format!("version: 1\nroutes:\n{}", document(most + 1));
        let diagnostics = load_routes(document.as_bytes()).unwrap_err();
        let diagnostics: Vec<_> = diagnostics.iter().map(|it| &*it.found).collect();
        assert_eq!(diagnostics, [found]);
    }
    let challenge = |bytes| format!("version: 1\nchallenge: {}\nroutes: []", "a".repeat(bytes));
    load(&challenge(CHALLENGE_BYTES_MAX));
    assert_eq!(load_routes(challenge(CHALLENGE_BYTES_MAX + 1).as_bytes()).unwrap_err().total(), 1);
}

/// Pairs of routes, and a request that both match, if one exists. A property test of the server
/// compares the overlap check with a naive model, for any two routes.
#[test]
fn overlapping_routes_are_refused_with_a_request_that_both_match() {
    let digest = "sha256:00";
    for (one, other, request) in [
        ("methods: [GET], path: /a", "methods: [GET], path: /a", Some("GET /a".to_owned())),
        ("methods: [GET], path: /a", "methods: [PUT], path: /a", None),
        ("methods: [GET], path: /a", "methods: [GET], path: /a/", None),
        ("methods: [GET], path: /a", "methods: [PUT, GET], path: '/{x}'", Some("GET /a".into())),
        ("methods: [GET], path: '/{x...}'", "methods: [GET], path: /a/b", Some("GET /a/b".into())),
        ("methods: [GET], path: '/{x...}'", "methods: [GET], path: /a/", None),
        ("methods: [GET], path: '/{x...}/'", "methods: [GET], path: /a/", Some("GET /a/".into())),
        (
            "methods: [GET], path: '/{x...}/a'",
            "methods: [GET], path: '/b/{x...}'",
            Some("GET /b/x/a".into()),
        ),
        ("methods: [GET], path: '/{x...}/a/{y}'", "methods: [GET], path: '/{x...}/b/{y}'", None),
        (
            "methods: [GET], path: '/{x...}/a/{y}', where: {y: digest}",
            "methods: [GET], path: '/{x...}/a/{y}', where: {y: tag}",
            None,
        ),
        (
            "methods: [GET], path: '/{y}', where: {y: digest}",
            "methods: [GET], path: '/{y}'",
            Some(format!("GET /{digest}")),
        ),
        ("methods: [GET], path: '/{y}', where: {y: digest}", "methods: [GET], path: /latest", None),
        (
            "methods: [GET], path: '/{y}', where: {y: not_digest}",
            "methods: [GET], path: '/{y}', where: {y: tag}",
            Some("GET /x".into()),
        ),
        ("methods: [GET], path: /a, hosts: [b]", "methods: [GET], path: /a, hosts: [c]", None),
        (
            "methods: [GET], path: /a, hosts: [b, c]",
            "methods: [GET], path: /a, hosts: [c]",
            Some("GET http://c/a".into()),
        ),
        (
            "methods: [GET], path: /a, hosts: [b]",
            "methods: [GET], path: /a",
            Some("GET http://b/a".into()),
        ),
        ("methods: [PUT], path: /a, query: [{name: q, as: q}]", "methods: [PUT], path: /a", None),
        (
            "methods: [PUT], path: /a, query: [{name: q, as: q}]",
            "methods: [PUT], path: /a, query: [q]",
            Some("PUT /a?q=x".into()),
        ),
        (
            "methods: [GET], path: /a, query: [{name: q, as: q}]",
            "methods: [GET], path: /a",
            Some("GET /a?q=x".into()),
        ),
        (
            "methods: [GET], path: /a, query: [{name: q, as: q}]",
            "methods: [GET, PUT], path: /a",
            None,
        ),
        ("grpc: a.B/C", "methods: [POST], path: '/{s}/{m}'", Some("POST /a.B/C".into())),
        ("grpc: a.B/C", "grpc: a.B/D", None),
    ] {
        for (one, other) in [(one, other), (other, one)] {
            let expected = request.as_ref().map(|request| {
                format!(
                    "4:3: routes[1]: found route `b`, which matches `{request}`; expected no \
                         request that route `a` also matches"
                )
            });
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            check(
                &format!("- {{name: a, {one}, {ANY}}}\n- {{name: b, {other}, {ANY}}}\n"),
                &expected,
            );
        }
    }
}

/// Without a `challenge`, the scheme is one that the identity sources accept.
#[test]
fn the_challenge_fits_the_identity_sources() {
    for (sources, challenge) in [
        ("[credential]", Some("Basic realm=\"capstan\"")),
        ("[jwt, credential, peer]", Some("Basic realm=\"capstan\"")),
        ("[jwt]", Some("Bearer realm=\"capstan\"")),
        ("[peer, jwt]", Some("Bearer realm=\"capstan\"")),
        ("[peer]", None),
    ] {
        let text = format!("version: 1\nidentity: {sources}\nroutes: []");
        assert_eq!(load(&text).challenge(), challenge, "{sources}");
        let stated = format!("{text}\nchallenge: X");
        assert_eq!(load(&stated).challenge(), Some("X"), "{sources}");
    }
}

#[test]
fn only_listed_parameters_of_a_route_with_requirements_can_be_removed() {
    let expected =
        "a parameter that `query` lists, of A-Z a-z 0-9 - . _ ~, in a route with requirements";
    let require = "require: [{capability: r.get, resource: a}]";
    for (query, removed, requires) in
        [("[a]", "b", require), ("['a[b]']", "a[b]", require), ("[a]", "a", "authenticated: true")]
    {
        let document = format!(
            "version: 1\nroutes: [{{name: a, methods: [PUT], path: /, query: {query}, {requires}, \
             if_denied_remove: ['{removed}']}}]"
        );
        let found = load_routes(document.as_bytes()).unwrap_err();
        let found: Vec<_> = found.iter().map(|it| (&*it.found, &*it.expected)).collect();
        assert_eq!(found, [(&*format!("removal of `{removed}`"), expected)], "{removed}");
    }
}
