//! Requests against route tables: the naive model, evasions, and limits.

use capstan_policy::{ROUTE_SEGMENTS_MAX, ROUTES_MAX, load_routes};
use capstan_testkit::routing::{
    Request, Route, canonical_form, document, near_target, request, routes,
};
use proptest::prelude::*;

use super::{CanonicalRequest, MalformedRequestError, RouteError, Table};
use crate::limits::{QUERY_PARAMETERS_MAX, TARGET_BYTES_MAX, TARGET_SEGMENTS_MAX};

fn table(document: &str) -> Table {
    Table::new(
        load_routes(document.as_bytes()).unwrap_or_else(|found| panic!("{found}\n{document}")),
    )
}

fn get(target: &str) -> Result<CanonicalRequest<'_>, MalformedRequestError> {
    CanonicalRequest::parse("GET", "example", target, "")
}

/// The name of the route that a request matches, and the resource that it requires.
fn matched(
    table: &Table,
    asked: &CanonicalRequest<'_>,
) -> Result<(String, Option<String>), RouteError> {
    table.find(asked).map(|matched| {
        let required = matched.requires().next().and_then(|required| required.resource);
        (matched.route.name.clone(), required.map(|path| path.to_string()))
    })
}

/// The routes that a request matches in the naive model, each with its resource.
fn naive<'r>(all: &'r [Route], request: &Request<'_>) -> Vec<(&'r Route, String)> {
    let resource = |route: &Route| {
        let values = route.takes(request)?;
        let path = values.iter().filter(|(name, _)| name.starts_with('p'));
        Some(path.fold(String::from("root"), |all, (_, value)| format!("{all}/{value}")))
    };
    all.iter().filter_map(|route| Some((route, resource(route)?))).collect()
}

proptest! {
    /// In a table that loads, a request matches at most one route, and the index finds it. The
    /// error of a table that does not load names two routes and a request that matches both.
    #[test]
    fn the_index_finds_the_route_of_the_naive_model(
        all in routes(4),
        requests in prop::collection::vec(request(), 24),
    ) {
        let document = document(&all);
        let loaded = load_routes(document.as_bytes());
        for request in &requests {
            let expected = naive(&all, request);
            let Ok(routes) = &loaded else {
                continue;
            };
            prop_assert!(expected.len() <= 1, "{expected:?}\n{request:?}");
            let target = request.target();
            let asked = CanonicalRequest::parse(request.method, request.host, &target, request.content_type);
            let found = matched(&Table::new(routes.clone()), &asked.unwrap());
            let is_form = request.content_type.contains("form");
            let expected = match expected.first() {
                None => Err(RouteError::NoRoute),
                Some((route, _)) if is_form && !route.form => Err(RouteError::Form),
                Some((route, resource)) => Ok((route.name.clone(), Some(resource.clone()))),
            };
            prop_assert_eq!(found, expected, "{}\n{:?}", document, request);
        }
        if let Err(found) = &loaded {
            for diagnostic in found.iter() {
                let (route, request) = diagnostic.found.split_once(", which matches ").unwrap();
                let names = [route, &*diagnostic.expected].map(|it| it.split('`').nth(1));
                if request.contains('…') {
                    continue; // The diagnostic has cut the request.
                }
                let request = Request::written(request.trim_matches('`')).unwrap();
                for name in names {
                    let route = all.iter().find(|route| Some(&*route.name) == name).unwrap();
                    prop_assert!(route.takes(&request).is_some(), "{diagnostic}\n{document}");
                }
            }
        }
    }

    /// A request whose path is spelled with percent-encoding has the route and the resource of its
    /// canonical form. An encoded slash is refused outside a parameter that accepts it.
    #[test]
    fn a_spelling_has_the_route_of_its_canonical_form(
        all in routes(4),
        request in request(),
        how in prop::collection::vec(0..8u8, 48),
    ) {
        let Ok(routes) = load_routes(document(&all).as_bytes()) else { return Ok(()) };
        let table = Table::new(routes);
        let plain = request.path.join("/");
        let last = plain.len() - usize::from(plain.ends_with('/'));
        let (mut spelled, mut glued) = (String::from("/"), String::new());
        for (at, (c, how)) in plain.chars().zip(&how).enumerate() {
            match how {
                0 if at < last => spelled += &format!("%{:02X}", u32::from(c)),
                1 if at < last => spelled += &format!("%{:02x}", u32::from(c)),
                _ => spelled.push(c),
            }
            glued.push(if c == '/' && *how < 2 && at < last { '|' } else { c });
        }
        let there = Request { path: glued.split('/').collect(), ..request.clone() };
        let query = request.target();
        let query = query.find('?').and_then(|at| query.get(at..)).unwrap_or_default();
        let target = format!("{spelled}{query}");
        let asked =
            CanonicalRequest::parse(request.method, request.host, &target, request.content_type);
        let is_form = request.content_type.contains("form");
        let expected = match (naive(&all, &there).first(), naive(&all, &request).first()) {
            (Some((route, _)), _) if is_form && !route.form => Err(RouteError::Form),
            (Some((route, resource)), _) => Ok((route.name.clone(), Some(resource.clone()))),
            (None, None) => Err(RouteError::NoRoute),
            (None, Some(_)) => Err(RouteError::Malformed(MalformedRequestError::EncodedSlash)),
        };
        prop_assert_eq!(matched(&table, &asked.unwrap()), expected, "{}", target);
    }

    /// A request is either canonical or refused.
    #[test]
    fn a_path_that_parses_is_canonical(target in near_target()) {
        let path = target.split('?').next().unwrap_or_default();
        match get(&target) {
            Ok(asked) => {
                let read = format!("/{}", asked.span(0, asked.len()));
                prop_assert_eq!(Some(read), canonical_form(path), "{:?}", target);
            }
            Err(MalformedRequestError::Path) => {
                prop_assert_eq!(canonical_form(path), None, "{:?}", target);
            }
            Err(malformed) => prop_assert_eq!(malformed, MalformedRequestError::Query),
        }
    }
}

#[test]
fn a_path_is_canonical_or_refused() {
    for path in ["/", "/v2/", "/a", "/a/b/", "/a/b.c/...", "/a@1:2+3=4,5!$&'()*~_-", "/.a/a."] {
        assert!(get(path).is_ok(), "{path}");
    }
    for (path, decoded) in [
        ("/%61%7A%41%5a%30%39", "azAZ09"),
        ("/a%2B1%21%40%3a%3D%2d%5F%7e", "a+1!@:=-_~"),
        ("/%40a%2fb", "@a/b"),
        ("/a%2F.b/", "a/.b/"),
    ] {
        let asked = get(path).unwrap();
        assert_eq!(asked.span(0, asked.len()), decoded, "{path}");
    }
    for path in [
        "",
        "a",
        "*",
        "//",
        "//a",
        "/a//b",
        "/a//",
        "/./a",
        "/a/.",
        "/a/./",
        "/..",
        "/a/../b",
        "/a/..",
        "/%2e%2e/a",
        "/%2e",
        "/a%2Eb",
        "/.%2e/a",
        "/a%",
        "/a%6",
        "/a%%61",
        "/%+61",
        "/%6 1",
        "/%\u{e9}1",
        "/a%2541",
        "/a%252fb",
        "/a%%32fb",
        "/a%5cb",
        "/a%00b",
        "/a%0d%0ab",
        "/a%20b",
        "/a%2ab",
        "/a%2cb",
        "/a%24b",
        "/a%26b",
        "/a%3bb",
        "/a%3fb",
        "/a%23b",
        "/a%25b",
        "/a%7fb",
        "/a%c3%a9b",
        "/a%c0%af",
        "/a%80",
        // Encoded slashes that climb, or that are no slash between two segments.
        "%2fa",
        "/%2f",
        "/%2fa",
        "/a%2f",
        "/a%2f%2fb",
        "/a/%2fb",
        "/a%2f/b",
        "/a%2f..%2fb",
        "/a%2f../b",
        "/../a%2fb",
        "/a%2f.",
        "/a%2f..",
        "/a;x",
        "/a;/b",
        "/a\\b",
        "/a b",
        "/a\tb",
        "/a\0",
        "/a\r\n",
        "/a#b",
        "/é",
        "/a|b",
        "/a\"b",
        "/a<b>",
        "/a^b",
        "/a`b",
        "/{a}",
        "/[a]",
        "http://h/a",
        "/a\u{7f}",
    ] {
        assert_eq!(get(path).err(), Some(MalformedRequestError::Path), "{path}");
    }
}

#[test]
fn a_query_is_canonical_or_refused() {
    for query in
        ["", "a", "a=", "a=b&c=d", "&a=1&", "a=%2F+%25", "filter%5Bname%5D=x", "=x", "a=b=c"]
    {
        assert!(get(&format!("/?{query}")).is_ok(), "{query}");
    }
    for query in [
        "a;b", "a=1;b=2", "a=#", "%61=1", "a%2Db=1", "a+b=1", "a%=1", "a%zz=1", "a=%", "a=%f",
        "a=%gg", "a=é", "a= b", "a=\\", "a%ff=1", "fro%6D=x",
    ] {
        assert_eq!(get(&format!("/?{query}")).err(), Some(MalformedRequestError::Query), "{query}");
    }
}

#[test]
fn a_host_is_a_name_without_its_port() {
    for (host, name) in [
        ("a.example", "a.example"),
        ("A.Example:443", "a.example"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:80", "[::1]"),
        ("a_b-c.", "a_b-c."),
    ] {
        let asked = CanonicalRequest::parse("GET", host, "/", "").unwrap();
        assert_eq!(asked.host, name);
    }
    for host in
        ["", ":80", "a:b", "a:", "a:123456", "a@b", "a/b", "a b", "a,b", "é", "[::1", "::1", "a\0"]
    {
        assert_eq!(
            CanonicalRequest::parse("GET", host, "/", "").err(),
            Some(MalformedRequestError::Host),
            "{host}"
        );
    }
}

#[test]
fn a_method_is_one_of_seven() {
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        assert!(CanonicalRequest::parse(method, "h", "/", "").is_ok(), "{method}");
    }
    for method in ["", "get", "CONNECT", "TRACE", "PROPFIND", "GET ", "G\0"] {
        assert_eq!(
            CanonicalRequest::parse(method, "h", "/", "").err(),
            Some(MalformedRequestError::Method),
            "{method}"
        );
    }
}

#[test]
fn a_body_has_the_kind_of_its_content_type() {
    let read = |content_type| {
        let asked = CanonicalRequest::parse("POST", "h", "/", content_type).unwrap();
        (asked.is_grpc, asked.carries_form)
    };
    for grpc in ["application/grpc", "application/grpc+proto", "Application/GRPC; a=b"] {
        assert_eq!(read(grpc), (true, false), "{grpc}");
    }
    for form in [
        "application/x-www-form-urlencoded",
        "Application/X-WWW-Form-Urlencoded;charset=utf-8",
        "multipart/form-data; boundary=x",
        " multipart/mixed",
    ] {
        assert_eq!(read(form), (false, true), "{form}");
    }
    for other in ["", "application/grpc-web", "application/grpcx", "application/json"] {
        assert_eq!(read(other), (false, false), "{other}");
    }
}

#[test]
fn a_request_has_its_limits() {
    let long = |bytes: usize| format!("/{}", "a".repeat(bytes - 1));
    assert!(get(&long(TARGET_BYTES_MAX)).is_ok());
    assert_eq!(get(&long(TARGET_BYTES_MAX + 1)).err(), Some(MalformedRequestError::LongTarget));
    let deep = |segments: usize| "/a".repeat(segments);
    assert!(get(&deep(TARGET_SEGMENTS_MAX)).is_ok());
    assert_eq!(get(&deep(TARGET_SEGMENTS_MAX + 1)).err(), Some(MalformedRequestError::DeepPath));
    let encoded = |segments: usize| format!("/a{}", "%2Fa".repeat(segments - 1));
    assert!(get(&encoded(TARGET_SEGMENTS_MAX)).is_ok());
    assert_eq!(get(&encoded(TARGET_SEGMENTS_MAX + 1)).err(), Some(MalformedRequestError::DeepPath));
    let wide = |parameters: usize| format!("/?{}", "a=1&".repeat(parameters));
    assert!(get(&wide(QUERY_PARAMETERS_MAX)).is_ok());
    assert_eq!(get(&wide(QUERY_PARAMETERS_MAX + 1)).err(), Some(MalformedRequestError::LongQuery));
}

const REGISTRY: &str = "version: 1
routes:
- {name: mount, methods: [POST], path: '/v2/{r...}/uploads/', query: [{name: from, as: source}, {name: mount, as: blob}],
   require: [{capability: r.get, resource: 'i/{source}'}]}
- {name: upload, methods: [POST], path: '/v2/{r...}/uploads/', query: [digest],
   require: [{capability: r.get, resource: 'i/{r}'}]}
- {name: list, methods: [GET], path: '/v2/{r...}/list', query: [n], require: [{capability: r.get, resource: 'i/{r}'}]}
- {name: call, grpc: my.pkg.Service/Method, require: [{capability: r.get, resource: i}]}
";

#[test]
fn a_query_decides_if_the_route_lists_it() {
    let table = table(REGISTRY);
    let post =
        |target: &str| matched(&table, &CanonicalRequest::parse("POST", "h", target, "").unwrap());
    let is = |name: &str, resource: &str| Ok((name.to_owned(), Some(resource.to_owned())));
    assert_eq!(post("/v2/a/b/uploads/"), is("upload", "i/a/b"));
    assert_eq!(post("/v2/a/b/uploads/?digest=sha256%3Aaa"), is("upload", "i/a/b"));
    assert_eq!(post("/v2/a/uploads/?mount=x&from=c%2Fd"), is("mount", "i/c/d"));
    // Neither route matches.
    for query in ["mount=x", "from=c", "mount=x&from=c&digest=y", "other=1", "digest=1&Mount=x"] {
        assert_eq!(post(&format!("/v2/a/uploads/?{query}")), Err(RouteError::NoRoute), "{query}");
    }
    // Servers differ in which of the values they use.
    let repeated = Err(RouteError::Malformed(MalformedRequestError::RepeatedParameter));
    assert_eq!(post("/v2/a/uploads/?mount=x&from=c&from=d"), repeated);
    assert_eq!(post("/v2/a/uploads/?digest=x&digest=x"), repeated);
    // Servers differ in how they read `+`.
    let query = Err(RouteError::Malformed(MalformedRequestError::Query));
    assert_eq!(post("/v2/a/uploads/?mount=x&from=c+d"), query);
    assert_eq!(post("/v2/a/uploads/?mount=x&from=%ff"), query);
    // An invalid path is a requirement that no identity meets.
    for from in ["", "..", "%2e%2e%2fsecret", "a%2F%2Fb", "%2Fa", "a%2F", "a%00", "%252e"] {
        let found = post(&format!("/v2/a/uploads/?mount=x&from={from}"));
        assert_eq!(found, Ok(("mount".into(), None)), "{from}");
    }
    let get = |target: &str| matched(&table, &get(target).unwrap());
    assert_eq!(get("/v2/a/list?n=5&last=b&last=c"), is("list", "i/a"));
    assert_eq!(get("/v2/a/list?n=5&n=6"), repeated);
    assert_eq!(get("/v2/list"), Err(RouteError::NoRoute));
    assert_eq!(get("/v2/a/list/"), Err(RouteError::NoRoute));
}

#[test]
fn a_grpc_route_matches_grpc_requests_only() {
    let table = table(REGISTRY);
    let call = |method: &str, content_type: &str| {
        let asked =
            CanonicalRequest::parse(method, "h", "/my.pkg.Service/Method", content_type).unwrap();
        table.find(&asked).map(|matched| matched.route.name.clone())
    };
    assert_eq!(call("POST", "application/grpc+proto"), Ok("call".into()));
    for (method, content_type) in
        [("POST", ""), ("POST", "application/grpc-web"), ("GET", "application/grpc")]
    {
        assert_eq!(call(method, content_type), Err(RouteError::NoRoute), "{method} {content_type}");
    }
}

#[test]
fn a_requirement_with_a_too_long_resource_is_never_met() {
    let table = table(REGISTRY);
    let path = |segments: usize| format!("/v2/{}/list", vec!["a"; segments].join("/"));
    let resource = |target: &str| matched(&table, &get(target).unwrap()).unwrap().1;
    assert!(resource(&path(15)).is_some());
    assert_eq!(resource(&path(16)), None);
    assert_eq!(resource(&format!("/v2/{}/list", "a".repeat(2_000))), None);
}

/// In the largest table, every route is found.
#[test]
fn every_route_of_the_largest_table_is_found() {
    let route = |at: usize| {
        let deep = "/x".repeat(at % (ROUTE_SEGMENTS_MAX - 2));
        format!(
            "- {{name: n{at}, methods: [GET], path: '/r{at}{deep}/{{a}}', authenticated: true}}\n"
        )
    };
    let all: String = (0..ROUTES_MAX).map(route).collect();
    let table = table(&format!("version: 1\nroutes:\n{all}"));
    for at in 0..ROUTES_MAX {
        let target = format!("/r{at}{}/z", "/x".repeat(at % (ROUTE_SEGMENTS_MAX - 2)));
        assert_eq!(table.find(&get(&target).unwrap()).unwrap().route.name, format!("n{at}"));
    }
}

/// An encoded slash is a slash of the resource where the route accepts it, and is refused elsewhere.
#[test]
fn an_encoded_slash_is_accepted_where_the_route_says_so() {
    let table = table(
        "version: 1
routes:
- {name: package, methods: [GET], path: '/npm/{p...}', where: {p: encoded_slash},
   require: [{capability: r.get, resource: 'i/{p}'}]}
- {name: readme, methods: [GET], path: '/doc/{x}/{p...}/readme', where: {p: encoded_slash},
   require: [{capability: r.get, resource: 'i/{x}/{p}'}]}
- {name: file, methods: [GET], path: '/file/{p...}', require: [{capability: r.get, resource: 'i/{p}'}]}
- {name: one, methods: [GET], path: '/one/{p}', require: [{capability: r.get, resource: 'i/{p}'}]}
",
    );
    let get = |target: &str| matched(&table, &get(target).unwrap());
    let is = |name: &str, resource: &str| Ok((name.to_owned(), Some(resource.to_owned())));
    for spelled in ["/npm/@a/b", "/npm/@a%2fb", "/npm/@a%2Fb", "/npm/%40a%2Fb", "/%6epm/%40a%2Fb"] {
        assert_eq!(get(spelled), is("package", "i/@a/b"), "{spelled}");
    }
    assert_eq!(get("/npm/@a%2fb/-/b-1.0.0%2B1.tgz"), is("package", "i/@a/b/-/b-1.0.0+1.tgz"));
    assert_eq!(get("/doc/x/a%2Fb/readme"), is("readme", "i/x/a/b"));
    assert_eq!(get("/file/pkg-1.0%2Blocal.1.whl"), is("file", "i/pkg-1.0+local.1.whl"));
    // No resource has `!`.
    assert_eq!(get("/file/pkg-1%211.0.whl"), Ok(("file".into(), None)));
    let refused = Err(RouteError::Malformed(MalformedRequestError::EncodedSlash));
    for elsewhere in [
        "/npm%2Fa",
        "/npm%2Fa%2Fb",
        "/file/a%2Fb",
        "/file%2Fa",
        "/one%2Fa",
        "/doc%2Fx/a/readme",
        "/doc/x%2Fa/readme",
        "/doc/x/a%2Freadme",
        "/doc/x%2Fa%2Freadme",
    ] {
        assert_eq!(get(elsewhere), refused, "{elsewhere}");
    }
    assert_eq!(get("/one/a%2Fb"), Err(RouteError::NoRoute));
}
