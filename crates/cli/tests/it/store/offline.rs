//! `capstan store check` and `compact`: what they say and do while no server has the store, and what they refuse.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use capstan_store::{Batch, Journal as _, Limits, Op, RedbStore, Transaction};
use serde_json::{Value, json};

use super::{CATALOG, Data, SEQUENCE};
use crate::common::{capstan, stderr, stdout};

fn run(verb: &str, dir: &Path, more: &[&str]) -> Output {
    let arguments = ["store", verb, "--data", dir.to_str().unwrap()];
    capstan(&[&arguments[..], more].concat())
}

fn json_of(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap()
}

#[test]
fn a_store_is_checked_and_not_changed() {
    let data = Data::init(CATALOG);
    let file = data.dir.join("store.redb");
    let before = fs::read(&file).unwrap();
    let checked = run("check", &data.dir, &[]);
    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    let text = stdout(&checked);
    let words = format!("ok: every record of {} is whole", data.dir.display());
    assert!(text.starts_with(&words), "{text}");
    assert!(text.contains("revision 1099511627777 (transaction 1 of epoch 1), digest "), "{text}");

    let checked = run("check", &data.dir, &["--output", "json"]);
    let checked = json_of(&checked);
    let digest = checked["digest"].as_str().unwrap();
    assert!(text.contains(digest) && digest.len() == 64, "{digest}");
    let records = checked["records"].as_u64().unwrap();
    // Catalog, group, identity, role binding, an audit record and the head of the audit log.
    assert_eq!(records, 6, "{checked}");
    assert!(text.contains("6 records with "), "{text}");
    let revision = checked["revision"].as_u64().unwrap();
    assert_eq!((revision & SEQUENCE, revision >> 40), (1, 1));
    assert_eq!(
        (&checked["epoch"], &checked["transaction"], &checked["history_from"]),
        (&json!(1), &json!(1), &json!(1))
    );
    assert!(fs::read(&file).unwrap() == before);
}

#[test]
fn a_compacted_store_is_shorter_and_has_the_same_records() {
    let data = Data::init(CATALOG);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = RedbStore::open(&data.dir, Limits::default()).unwrap();
    runtime.block_on(async {
        let keys = || (0..1_000).map(|number| format!("x{number}").into_bytes().into());
        let put = |key| Op::Put { key, value: vec![1; 5_000].into() };
        let batch = |ops| Batch { transactions: vec![Transaction { ops }], side: vec![] };
        let head = store.head().await.unwrap();
        let head = store.append(head, batch(keys().map(put).collect())).await.unwrap();
        let delete = keys().map(|key| Op::Delete { key }).collect();
        store.append(head, batch(delete)).await.unwrap();
    });
    drop(store);
    let before = json_of(&run("check", &data.dir, &["--output", "json"]));
    let length = fs::metadata(data.dir.join("store.redb")).unwrap().len();

    let compacted = json_of(&run("compact", &data.dir, &["--output", "json"]));
    assert_eq!(compacted["bytes_before"], length);
    let shorter = fs::metadata(data.dir.join("store.redb")).unwrap().len();
    assert_eq!(compacted["bytes_after"], shorter);
    assert!(shorter < length * 3 / 4, "{length} bytes, then {shorter}");
    assert_eq!(json_of(&run("check", &data.dir, &["--output", "json"])), before);

    let again = run("compact", &data.dir, &[]);
    let text = stdout(&again);
    assert!(text.starts_with(&format!("compacted {}: {shorter} bytes before", data.dir.display())));
    drop(data.start());
}

/// Both refuse the same, with the exit codes of `serve`, and leave the file alone.
#[test]
fn what_is_no_whole_store_is_refused_with_the_exit_codes_of_serve() {
    let refused = |dir: &Path, code: i32, text: &str| {
        for verb in ["check", "compact"] {
            let output = run(verb, dir, &[]);
            assert_eq!(output.status.code(), Some(code), "{verb}: {}", stderr(&output));
            assert!(stderr(&output).contains(text), "{verb}: {}", stderr(&output));
            assert_eq!(stdout(&output), "");
            let output = run(verb, dir, &["--output", "json"]);
            assert_eq!(output.status.code(), Some(code), "{verb}");
            assert!(json_of(&output)["error"].as_str().unwrap().contains(text), "{verb}");
        }
    };
    let data = Data::init(CATALOG);
    refused(&data.dir.join("elsewhere"), 66, "there is no store in");

    let server = data.start();
    let pid = server.process.pid();
    refused(&data.dir, 75, &format!("is already open, by process {pid}"));
    server.kill();

    let file = data.dir.join("store.redb");
    let mut damaged = fs::read(&file).unwrap();
    damaged.iter_mut().skip(4_096 + 1_000).step_by(4_096).for_each(|byte| *byte ^= 0x10);
    fs::write(&file, &damaged).unwrap();
    refused(&data.dir, 65, "is corrupt");
    assert!(fs::read(&file).unwrap() == damaged);

    fs::set_permissions(&data.dir, Permissions::from_mode(0o777)).unwrap();
    refused(&data.dir, 78, "may be changed by other users");
}
