//! Bytes of requests: whatever they are, they are answered or refused as the contract says.

mod body;

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

fn value() -> impl Strategy<Value = prost_types::Value> {
    let number = prop_oneof![
        prop::sample::select(vec![
            0.0,
            -0.0,
            1.0,
            2.0,
            9_007_199_254_740_991.0,
            9_007_199_254_740_992.0
        ]),
        any::<f64>(),
    ];
    let strings = prop::sample::select(vec!["", "open", "archived", "x", "1", "true"]);
    let kind = prop_oneof![
        4 => strings.prop_map(|text| Kind::StringValue(text.into())),
        4 => number.prop_map(Kind::NumberValue),
        4 => any::<bool>().prop_map(Kind::BoolValue),
        1 => any::<i32>().prop_map(Kind::NullValue),
        1 => Just(Kind::ListValue(prost_types::ListValue::default())),
        1 => Just(Kind::StructValue(prost_types::Struct::default())),
    ];
    prop::option::weighted(0.95, kind).prop_map(|kind| prost_types::Value { kind })
}

fn properties() -> impl Strategy<Value = Option<v1::Properties>> {
    let names = prop::sample::select(vec!["status", "n", "team", "ok", "s", "on", ""]);
    let some = || prop::collection::hash_map(names.clone().prop_map(str::to_owned), value(), 0..=3);
    let all = (some(), prop_oneof![Just(Default::default()), some()], some(), some());
    let all = all.prop_map(|(subject, resource, action, context)| v1::Properties {
        subject,
        resource,
        action,
        context,
    });
    prop::option::of(all)
}

fn item() -> impl Strategy<Value = v1::CheckItem> {
    const CAPABILITIES: [&str; 4] = ["repo.list", "repo.update", "repo.tag.list", "gulf"];
    let capability = prop_oneof![
        6 => prop::sample::select(&CAPABILITIES[..]).prop_map(str::to_owned),
        1 => word(),
    ];
    (word(), capability, word(), properties()).prop_map(
        |(identity, capability, resource, properties)| v1::CheckItem {
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

/// Which call, and the bytes of a message that it takes.
fn encoded() -> impl Strategy<Value = Vec<u8>> {
    fn call(which: u8, message: &impl Message) -> Vec<u8> {
        [&[which], &*message.encode_to_vec()].concat()
    }
    let consistency = prop::option::of(any::<u64>().prop_map(|revision| v1::Consistency {
        mode: Some(v1::consistency::Mode::AtLeast(revision)),
    }));
    let one = (0..7u8, item(), consistency, page()).prop_map(|(which, item, consistency, page)| {
        let v1::CheckItem { identity, capability, resource, properties } = item;
        let (page_size, page_token) = page;
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
                },
            ),
            5 => call(
                which,
                &v1::ExplainRequest { identity, capability, resource, properties, consistency },
            ),
            _ => call(6, &v1::ListRolesRequest { page_size, page_token }),
        }
    });
    let batch = prop::collection::vec(item(), 0..=6);
    let batch =
        batch.prop_map(|checks| call(1, &v1::BatchCheckRequest { checks, consistency: None }));
    prop_oneof![6 => one, 1 => batch]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

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

/// The body would pass for nothing if all were refused.
#[test]
fn requests_are_drawn_that_are_answered() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut answered = [0; 7];
    for _ in 0..500 {
        let bytes = encoded().new_tree(&mut runner).unwrap().current();
        answered[usize::from(bytes[0])] += usize::from(request(&bytes));
    }
    assert!(answered.iter().all(|count| *count >= 10), "{answered:?}");
}

#[test]
fn more_checks_than_a_batch_may_have_are_refused() {
    let batch = |length: usize| [&[1], &*[0x0a, 0x00].repeat(length)].concat();
    assert!(request(&batch(1000)));
    assert!(!request(&batch(1001)));
}
