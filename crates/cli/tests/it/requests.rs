//! Arbitrary request bytes: each request is answered or refused as the contract says.

mod body;

use std::collections::HashMap;

use body::request;
use proptest::prelude::*;
use prost::Message;
use prost_types::value::Kind;

use capstan_proto::v1;

fn word() -> impl Strategy<Value = String> {
    const WORDS: [&str; 18] = [
        "al",
        "ci",
        "a/t",
        "no",
        "nobody",
        "a",
        "a/b",
        "a/b/c",
        "a/b/r",
        "o",
        "rec",
        "repo.list",
        "repo.update",
        "repo.tag.list",
        "gulf",
        "status",
        "n",
        "team",
    ];
    prop_oneof![
        24 => prop::sample::select(&WORDS[..]).prop_map(str::to_owned),
        1 => capstan_testkit::generate::near_path(),
        1 => any::<String>(),
    ]
}

fn value() -> impl Strategy<Value = Kind> {
    let number = any::<f64>().prop_map(Kind::NumberValue);
    let text = any::<String>().prop_map(Kind::StringValue);
    let list = Kind::ListValue(prost_types::ListValue::default());
    let object = Kind::StructValue(prost_types::Struct::default());
    let null = any::<i32>().prop_map(Kind::NullValue);
    prop_oneof![
        number,
        text,
        any::<bool>().prop_map(Kind::BoolValue),
        null,
        Just(list),
        Just(object)
    ]
}

type Near = Vec<(&'static str, Kind)>;

/// Attributes that conditions of the policy test, with values that meet the condition or differ slightly.
fn attributes(near: Near) -> impl Strategy<Value = HashMap<String, prost_types::Value>> {
    let names = prop::sample::select(vec!["n", "s", "status", "team", "ok", "level", ""]);
    let pair = prop_oneof![8 => prop::sample::select(near), 1 => (names, value())];
    let is_set = prop::bool::weighted(0.97);
    let one = (pair, is_set).prop_map(|((name, kind), is_set)| {
        (name.to_owned(), prost_types::Value { kind: Some(kind).filter(|_| is_set) })
    });
    prop::collection::vec(one, 0..=3).prop_map(HashMap::from_iter)
}

fn properties() -> impl Strategy<Value = Option<v1::Properties>> {
    let number = |name, number| (name, Kind::NumberValue(number));
    let text = |name, text: &str| (name, Kind::StringValue(text.into()));
    let yes = |name| (name, Kind::BoolValue(true));
    let subject = vec![text("team", "y"), number("level", 2.0)];
    let resource = vec![text("status", "open"), text("status", "Open"), number("n", 2.0)];
    let action = vec![yes("ok"), text("ok", "true"), number("ok", 1.0)];
    let context = vec![
        number("n", 1.0),
        number("n", 1.5),
        number("n", 1.0 + f64::EPSILON),
        number("n", 9_007_199_254_740_993.0),
        number("n", f64::NAN),
        text("n", "1"),
        yes("n"),
        text("s", ""),
        text("s", " "),
        number("s", -0.0),
    ];
    let resource = prop_oneof![Just(HashMap::new()), attributes(resource)];
    let all = (attributes(subject), resource, attributes(action), attributes(context));
    let all = all.prop_map(|(subject, resource, action, context)| v1::Properties {
        subject,
        resource,
        action,
        context,
    });
    prop::option::of(all)
}

/// An identity and a resource, usually with a binding of the identity at or above the resource.
fn place() -> impl Strategy<Value = (String, String)> {
    let bound = prop::sample::select(vec![
        ("al", "a/x"),
        ("al", "o"),
        ("ci", "a/b/x"),
        ("ci", "a/b/r"),
        ("ci", "a/b/c"),
        ("ci", "o"),
        ("ci", "rec"),
        ("a/t", "a/b"),
        ("a/t", "a/b/r"),
        ("no", "a"),
    ]);
    let bound = bound.prop_map(|(who, place)| (who.to_owned(), place.to_owned()));
    prop_oneof![2 => bound, 1 => (word(), word())]
}

fn item() -> impl Strategy<Value = v1::CheckItem> {
    const CAPABILITIES: [&str; 4] = ["repo.list", "repo.update", "repo.tag.list", "gulf"];
    let capability = prop_oneof![
        6 => prop::sample::select(&CAPABILITIES[..]).prop_map(str::to_owned),
        1 => word(),
    ];
    (place(), capability, properties()).prop_map(
        |((identity, resource), capability, properties)| v1::CheckItem {
            identity,
            capability,
            resource,
            properties,
        },
    )
}

fn page() -> impl Strategy<Value = (i32, String)> {
    let size = prop_oneof![8 => 0..=3, 1 => any::<i32>()];
    const TOKENS: [&str; 3] =
        ["00000000000000000000000000000000.7.1795219200.0.1", "x", "a.b.c.d.e"];
    let token = prop::sample::select(&TOKENS[..]).prop_map(str::to_owned);
    let token = prop_oneof![8 => Just(String::new()), 1 => token, 1 => any::<String>()];
    (size, token)
}

/// A byte that selects the RPC, and an encoded request of it.
fn encoded() -> impl Strategy<Value = Vec<u8>> {
    fn call(which: u8, message: &impl Message) -> Vec<u8> {
        [&[which], &*message.encode_to_vec()].concat()
    }
    let consistency = prop::option::of(any::<u64>().prop_map(|revision| v1::Consistency {
        mode: Some(v1::consistency::Mode::AtLeast(revision)),
    }));
    let page = (page(), any::<bool>());
    let one = (0..6u8, item(), consistency, page).prop_map(|(which, item, consistency, page)| {
        let v1::CheckItem { identity, capability, resource, properties } = item;
        let ((page_size, page_token), include_conditional) = page;
        match which {
            0 => call(
                which,
                &v1::CheckRequest { identity, capability, resource, properties, consistency },
            ),
            2 => call(
                which,
                &v1::ListCapabilitiesRequest { identity, resource, properties, consistency },
            ),
            3 => call(
                which,
                &v1::ListIdentitiesRequest {
                    capability,
                    resource,
                    properties,
                    consistency,
                    page_size,
                    page_token,
                    include_conditional,
                },
            ),
            4 => call(
                which,
                &v1::ListScopesRequest {
                    identity,
                    capability,
                    properties,
                    consistency,
                    page_size,
                    page_token,
                    include_conditional,
                },
            ),
            _ => call(
                5,
                &v1::ExplainRequest { identity, capability, resource, properties, consistency },
            ),
        }
    });
    let batch = prop::collection::vec(item(), 0..=6);
    let batch =
        batch.prop_map(|checks| call(1, &v1::BatchCheckRequest { checks, consistency: None }));
    prop_oneof![6 => one, 1 => batch]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases * 3, // a case is cheap
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn requests_are_answered_or_refused(bytes in encoded()) {
        request(&bytes);
    }

    #[test]
    fn changed_requests_are_answered_or_refused(
        mut bytes in encoded(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..4),
    ) {
        for (at, byte, how) in changes {
            let at = at.index(bytes.len() + 1);
            match how {
                0 => bytes.insert(at, byte),
                1 => bytes.truncate(at),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|found| *found ^= byte),
            }
        }
        request(&bytes);
    }

    #[test]
    fn random_bytes_are_answered_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        request(&bytes);
    }
}

/// The property tests would be vacuous if the generator drew only requests that are refused.
#[test]
fn the_generator_draws_requests_that_are_answered() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut answered = [0; 6];
    for _ in 0..500 {
        let bytes = encoded().new_tree(&mut runner).unwrap().current();
        answered[usize::from(bytes[0])] += usize::from(request(&bytes));
    }
    assert!(answered.iter().all(|count| *count >= 10), "{answered:?}");
}

#[test]
fn batches_over_1000_checks_are_refused() {
    let batch = |length: usize| [&[1], &*[0x0a, 0x00].repeat(length)].concat();
    assert!(request(&batch(1000)));
    assert!(!request(&batch(1001)));
}
