//! Limits of pages: their entries, and the bytes of their conditions.

use capstan_engine::{CONDITIONS_MAX, EXPLAINED_BINDINGS_MAX};
use capstan_policy::TEXT_BYTES_MAX;
use capstan_proto::v1;
use capstan_server::feed::source::Source;
use capstan_server::limits::{MESSAGE_BYTES_MAX, PAGE_CONDITIONS_BYTES, PAGE_DEFAULT, PAGE_MAX};
use prost::Message as _;
use serde_json::json;
use tonic::Code;

use crate::common::{InProcess, folder};
use crate::raw::reason;

#[tokio::test]
async fn a_page_has_100_entries_by_default_and_at_most_1000() {
    let mut policy = String::from("version: 1\ncatalog: chainguard-2025-08-14\n");
    let (mut identities, mut bindings) = (String::new(), String::new());
    for at in 0..1_100 {
        identities += &format!("- {{id: person-{at}, type: user}}\n");
        bindings += &format!("- {{identity: person-{at}, role: viewer, scope: acme}}\n");
    }
    policy += &format!("groups:\n- {{id: acme}}\nidentities:\n{identities}");
    policy += &format!("role_bindings:\n{bindings}");
    let path = folder("pages").join("policy.yaml");
    std::fs::write(&path, policy).unwrap();
    let server = InProcess::start(Source::File { path, bytes_max: 1 << 20 }).await;
    let list = |page_size| v1::ListIdentitiesRequest {
        capability: "repo.list".into(),
        resource: "acme".into(),
        page_size,
        ..Default::default()
    };
    for (asked, most) in [(0, PAGE_DEFAULT), (1_000, PAGE_MAX), (5_000, PAGE_MAX), (1, 1)] {
        let page = server.decisions().list_identities(list(asked)).await.unwrap().into_inner();
        assert_eq!(page.identities.len(), most, "{asked}");
        assert!(!page.next_page_token.is_empty());
    }
    let status = server.decisions().list_identities(list(-1)).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::InvalidArgument, "INVALID_FIELD"));
}

/// Conditional entries end a page early, so that it fits into a message, and no entry is lost.
#[tokio::test]
async fn a_page_ends_when_its_conditions_are_long() {
    const IDENTITIES: usize = 60;
    let text = |name: &str, at: usize| format!("{name}{at:02}{}", "x".repeat(TEXT_BYTES_MAX - 3));
    // 16 tests of names and values of 1 KiB each, and two of the conditional identities have the most bindings.
    let when: Vec<_> = (0..CONDITIONS_MAX)
        .map(|at| json!({"attribute": format!("context.{}", text("n", at)), "equals": text("v", at)}))
        .collect();
    let binding = |identity: usize, more: usize| {
        let mut when = when.clone();
        when[0]["equals"] = format!("{more}").into();
        json!({"identity": format!("person-{identity:02}"), "role": "reader", "scope": "acme", "when": when})
    };
    let mut bindings: Vec<_> = (0..IDENTITIES).map(|at| binding(at, 0)).collect();
    bindings.extend(
        (1..=EXPLAINED_BINDINGS_MAX).flat_map(|more| [binding(0, more), binding(40, more)]),
    );
    let identities: Vec<_> =
        (0..IDENTITIES).map(|at| json!({"id": format!("person-{at:02}")})).collect();
    let policy = json!({
        "version": 1,
        "catalog": {"name": "c", "resources": [{"name": "r", "actions": ["get"]}],
                    "roles": [{"name": "reader", "capabilities": ["r.get"]}]},
        "groups": [{"id": "acme"}],
        "identities": identities,
        "role_bindings": bindings,
    });
    let path = folder("pages-of-conditions").join("policy.json");
    std::fs::write(&path, policy.to_string()).unwrap();
    let server = InProcess::start(Source::file(&path)).await;
    let mut request = v1::ListIdentitiesRequest {
        capability: "r.get".into(),
        resource: "acme".into(),
        page_size: i32::MAX,
        include_conditional: true,
        ..Default::default()
    };
    let mut all = Vec::new();
    loop {
        let page = server.decisions().list_identities(request.clone()).await.unwrap().into_inner();
        assert!(page.encoded_len() < MESSAGE_BYTES_MAX / 2, "{}", page.encoded_len());
        let sizes: Vec<_> = page.conditional.iter().map(prost::Message::encoded_len).collect();
        let (last, others) = sizes.split_last().unwrap();
        let others: usize = others.iter().sum();
        assert!(others < PAGE_CONDITIONS_BYTES, "the page should have ended before: {sizes:?}");
        all.extend(page.conditional);
        if page.next_page_token.is_empty() {
            break;
        }
        assert!(others + last >= PAGE_CONDITIONS_BYTES, "the page has room: {sizes:?}");
        request.page_token = page.next_page_token;
    }
    let most = all.iter().map(|one| one.grants.len()).max();
    assert_eq!((all.len(), most), (IDENTITIES, Some(EXPLAINED_BINDINGS_MAX)));
    assert!(all.is_sorted_by_key(|one| &one.identity));
}
