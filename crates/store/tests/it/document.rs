//! docs/STORE.md says what the store does.

use std::io;
use std::path::PathBuf;

use capstan_store::limits::{
    BATCH_BYTES_MAX, BATCH_OPS_MAX, FAILURES_MAX, FAILURES_PERIOD, FREE_BYTES_MIN,
    HISTORY_BYTES_MAX, HISTORY_TRANSACTIONS_MAX, KEY_BYTES_MAX, LOG_CHUNK_BYTES, VALUE_BYTES_MAX,
};
use capstan_store::{BackupError, HEAD_BYTES, OpenError, RestoreError, StoreError};

fn page() -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/STORE.md");
    std::fs::read_to_string(page).unwrap()
}

#[test]
fn the_figures_of_the_page_are_the_limits() {
    let page = page().split_whitespace().collect::<Vec<_>>().join(" ");
    let mib = |bytes: u64| format!("{} MiB", bytes / 1024 / 1024);
    assert_eq!((KEY_BYTES_MAX, HISTORY_TRANSACTIONS_MAX), (2_048, 10_000));
    assert_eq!((FAILURES_MAX, FAILURES_PERIOD.as_secs()), (3, 60));
    assert_eq!(HEAD_BYTES, 78);
    for said in [
        "1 to 2,048 bytes".to_owned(),
        format!("its value, up to {}", mib(VALUE_BYTES_MAX as u64)),
        format!("up to {} KiB", LOG_CHUNK_BYTES / 1024),
        format!("(10,000 are kept, and {})", mib(HISTORY_BYTES_MAX)),
        format!("less than {} and twice the batch", mib(FREE_BYTES_MIN)),
        "After three failures in 60 s".to_owned(),
        format!("{} million operations", BATCH_OPS_MAX / 1_000_000),
        format!("{} GiB", BATCH_BYTES_MAX / 1024 / 1024 / 1024),
    ] {
        assert!(page.contains(&said), "the page does not say `{said}`");
    }
}

/// Every error stands in the table of errors, in the words that it has.
#[test]
fn the_page_explains_every_error() {
    let page = page();
    let path = PathBuf::from("DIR");
    let failed = || io::Error::other("text");
    let open = [
        OpenError::Missing(path.clone()),
        OpenError::Exists(path.clone()),
        OpenError::WrongType { path: path.clone(), found: "a symbolic link", wanted: "a file" },
        OpenError::OpenToOthers {
            path: path.clone(),
            detail: String::new(),
            remedy: String::new(),
        },
        OpenError::AlreadyOpen { path: path.clone(), pid: Some(7) },
        OpenError::Empty(path.clone()),
        OpenError::Truncated(path.clone()),
        OpenError::Foreign { path: path.clone(), reason: String::new() },
        OpenError::Corrupt { path: path.clone(), reason: String::new() },
        OpenError::Newer { path: path.clone(), found: 7, known: 1 },
        OpenError::ReadOnly { path: path.clone(), source: failed() },
        OpenError::Io { path, source: failed() },
    ];
    let store = [
        StoreError::Full,
        StoreError::ReadOnly(String::new()),
        StoreError::Unreachable(failed()),
        StoreError::OutcomeUnknown(failed()),
    ];
    let restore = [
        RestoreError::Backup(BackupError::Foreign),
        RestoreError::Backup(BackupError::Newer { found: 7, known: 1 }),
        RestoreError::Backup(BackupError::Truncated(7)),
        RestoreError::Backup(BackupError::Corrupt { at: 7, reason: String::new() }),
        RestoreError::Backup(BackupError::Io(failed())),
        RestoreError::Content("text".into()),
        RestoreError::Epoch { wanted: 1, from: 2 },
        RestoreError::LastEpoch,
    ];
    let errors = open.iter().map(ToString::to_string).chain(store.iter().map(ToString::to_string));
    let errors = errors.chain(restore.iter().map(ToString::to_string));
    let table = page.split_once("## Errors").unwrap().1.lines();
    let cells = table.filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let words = |cell: &str| {
        cell.replace("process N", "process 7")
            .replace("format N", "format 7")
            .replace("version N", "version 7")
    };
    let rows: Vec<String> = cells.map(words).collect();
    let phrases: Vec<&str> =
        rows.iter().flat_map(|row| row.split('`')).filter(|it| it.len() > 2).collect(); // not `, `
    assert!(phrases.len() >= 15, "{phrases:?}");
    let errors: Vec<String> = errors.collect();
    for error in &errors {
        assert!(phrases.iter().any(|phrase| error.contains(phrase)), "{error}: {phrases:?}");
    }
    for phrase in phrases {
        assert!(errors.iter().any(|error| error.contains(phrase)), "no error says `{phrase}`");
    }
}
