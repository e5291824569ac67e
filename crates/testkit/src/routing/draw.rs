//! Generators of routes that nearly overlap, of requests that nearly match them, and of ambiguous paths.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{Part, Request, Route};

const HOSTS: [&str; 2] = ["a.example", "b.example"];
const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "PUT"];
const LITERALS: [&str; 3] = ["a", "b", "sha256:00"];
const SEGMENTS: [&str; 5] = ["a", "b", "c", "sha256:00", "c+d"];
const QUERY: [&str; 3] = ["n", "from", "x[y]"];
const TYPES: [&str; 5] =
    ["", "", "text/plain", "application/x-www-form-urlencoded", "application/grpc"];
const FORMS: [&str; 3] = ["digest", "not_digest", "tag"];

/// One part of a path: 0 is a literal, 1 a parameter, 2 a parameter of several segments, 3 one that
/// accepts encoded slashes.
type Draw = (u8, &'static str, Option<&'static str>);

fn part() -> impl Strategy<Value = Draw> {
    let form = prop::option::weighted(0.4, select(&FORMS[..]));
    let kind = prop_oneof![3 => Just(0u8), 2 => Just(1u8), 1 => Just(2u8), 1 => Just(3u8)];
    (kind, select(&LITERALS[..]), form)
}

/// Draws a route with this name.
fn route(name: String) -> impl Strategy<Value = Route> {
    let hosts = prop_oneof![2 => Just(vec![]), 1 => subsequence(HOSTS.to_vec(), 1..=2)];
    let methods = subsequence(METHODS.to_vec(), 1..=2);
    let path = (prop::collection::vec(part(), 1..=4), prop::bool::weighted(0.2));
    let query = subsequence(QUERY.to_vec(), 0..=2)
        .prop_flat_map(|names| {
            let count = names.len();
            (Just(names), prop::collection::vec(any::<bool>(), count))
        })
        .prop_map(|(names, must)| {
            let bound = |(at, must): (usize, bool)| must.then(|| format!("q{at}"));
            let bound = must.into_iter().enumerate().map(bound);
            names.into_iter().zip(bound).collect::<Vec<_>>()
        });
    (hosts, methods, path, query, prop::bool::weighted(0.2)).prop_map(
        move |(hosts, methods, (draws, ends_in_slash), query, form)| {
            let path = parts(draws, ends_in_slash);
            Route { name: name.clone(), hosts, methods, path, query, form }
        },
    )
}

/// The parts of a path. At most one part has several segments.
fn parts(draws: Vec<Draw>, ends_in_slash: bool) -> Vec<Part> {
    let mut several = false;
    let mut path: Vec<_> = draws
        .into_iter()
        .enumerate()
        .map(|(at, (kind, literal, form))| match kind {
            0 => Part::Literal(literal),
            2 if !several => {
                several = true;
                Part::Many(format!("p{at}"))
            }
            3 if !several => {
                several = true;
                Part::Joined(format!("p{at}"))
            }
            _ => Part::One(format!("p{at}"), form),
        })
        .collect();
    if ends_in_slash {
        path.push(Part::Literal(""));
    }
    path
}

/// Draws this number of routes, which often overlap.
pub fn routes(count: usize) -> impl Strategy<Value = Vec<Route>> {
    (0..count).map(|at| route(format!("r{at}"))).collect::<Vec<_>>()
}

/// Draws a request that often matches one of the routes.
pub fn request() -> impl Strategy<Value = Request<'static>> {
    let path = prop::collection::vec(select(&SEGMENTS[..]), 1..=5);
    let query = subsequence(QUERY.to_vec(), 0..=2).prop_flat_map(|names| {
        let values = prop::collection::vec(select(&SEGMENTS[..4]), names.len());
        (Just(names), values).prop_map(|(names, values)| names.into_iter().zip(values).collect())
    });
    let host = select(&HOSTS[..]);
    (select(&METHODS[..]), host, path, prop::bool::weighted(0.2), query, select(&TYPES[..]))
        .prop_map(|(method, host, mut path, ends_in_slash, query, content_type)| {
            if ends_in_slash {
                path.push("");
            }
            Request { method, host, path, query, content_type }
        })
}

/// Draws a path, often ambiguous, and sometimes a query.
pub fn near_target() -> impl Strategy<Value = String> {
    const PIECES: [&str; 40] = [
        "a", "a", "v2", "x.y", "/", "/", "/", "/", "//", ".", "..", "...", "/./", "/../", "%2e",
        "%2E%2E", "%2f", "%5c", "\\", ";", ";x=1", "?", "#", "%", "%zz", "%00", "\0", "\r\n", " ",
        "\u{e9}", "*", "@", ":", "http://h", "%2F", "%61", "%2b", "%2525", "%40", "%21",
    ];
    let pieces = prop::collection::vec(select(&PIECES[..]), 0..=7);
    let nasty = pieces.prop_map(|pieces| format!("/{}", pieces.concat()));
    let plain = prop::collection::vec(select(&SEGMENTS[..]), 1..=4).prop_map(|path| path.join("/"));
    prop_oneof![
        4 => nasty,
        2 => plain.prop_map(|path| format!("/{path}")),
        1 => any::<String>(),
    ]
}
