//! `capstan audit verify`: its exit codes, which supervisors and scripts rely on.

use capstan_iam::audit::key;
use capstan_store::{Batch, Journal as _, Limits, Op, RedbStore};
use serde_json::Value;

use super::end_to_end::Store;
use crate::common::{capstan, stderr, stdout};

/// The exit code, and what is printed.
fn verify(data: &str, more: &[&str]) -> (i32, String) {
    let output = capstan(&[&["audit", "verify", "--data", data], more].concat());
    (output.status.code().unwrap(), stdout(&output) + &stderr(&output))
}

#[test]
fn the_exit_code_says_whether_the_log_fits_or_nothing_was_verified() {
    let mut store = Store::start("manage-audit-verify");
    store.done(&["iam", "folders", "create", "acme/db"]);
    let data = store.data();
    let (code, text) = verify(&data, &[]);
    assert_eq!(code, 2, "a server has it: {text}");
    assert!(text.contains("is already open, by process"), "{text}");
    store.stop();

    let (code, text) = verify(&data, &["--output", "json"]);
    let verified: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &verified["valid"], &verified["records"]), (0, &true.into(), &2.into()));
    let digest = verified["digest"].as_str().unwrap();
    assert_eq!(verify(&data, &["--digest", digest]).0, 0);
    let (code, text) = verify(&data, &["--digest", &"f".repeat(64)]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("broken: no audit record has the digest fff"), "{text}");
    for not_a_digest in ["", "abc", &"g".repeat(64)] {
        let (code, text) = verify(&data, &["--digest", not_a_digest]);
        assert_eq!((code, text.contains("expected 64 hex digits")), (2, true), "{text}");
    }
    let (code, text) = verify("/no/such/store", &[]);
    assert_eq!((code, text.contains("/no/such/store")), (2, true), "{text}");

    change_second_record(&data);
    for (output, part) in [("table", "broken: "), ("json", "\"valid\":false")] {
        let (code, text) = verify(&data, &["--output", output]);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(part) && text.contains("record 2 was changed"), "{text}");
    }
}

/// As somebody does who can write the store.
fn change_second_record(data: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = RedbStore::open(data.as_ref(), Limits::default()).unwrap();
        let view = store.view().await.unwrap();
        let mut record = view.get(&key(2)).unwrap().unwrap().to_vec();
        *record.last_mut().unwrap() ^= 1;
        let op = Op::Put { key: key(2).into(), value: record.into() };
        store.append(view.head(), Batch { side: vec![op], ..Batch::default() }).await.unwrap();
    });
}
