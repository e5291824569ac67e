//! A real file system that is full, and one that is read-only.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use capstan_store::{AppendError, Batch, Journal as _, Limits, OpenError, RedbStore, StoreError};

use crate::common::{batch, dump, put};

/// A file system in memory, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: PathBuf, size: &str) -> Self {
        std::fs::create_dir(&path).unwrap();
        let mounted = Self(path);
        mounted.mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        mounted
    }

    fn mount(&self, arguments: &[&str]) {
        let status = Command::new("mount").args(arguments).arg(&self.0).status().unwrap();
        assert!(status.success(), "mount {arguments:?}: needs root");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _left_behind = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
#[ignore = "mounts a file system, which needs root"]
fn a_full_file_system_heals_and_a_read_only_one_is_said() {
    let parent = tempfile::tempdir().unwrap();
    let mounted = Mounted::new(parent.path().join("mounted"), "8m");
    let dir = mounted.0.join("data");
    RedbStore::init(&dir, 1, &Batch::default(), &Limits::default()).unwrap();
    let store = RedbStore::open(&dir, Limits::default()).unwrap();
    let run = tokio::runtime::Builder::new_current_thread().build().unwrap();
    run.block_on(async {
        let mut head =
            store.append(store.head().await.unwrap(), batch(vec![put("a", "1")])).await.unwrap();
        let filler = File::create(mounted.0.join("filler")).unwrap();
        let is_full =
            |answer: Result<_, _>| matches!(answer, Err(AppendError::Store(StoreError::Full)));

        // Somebody else fills it.
        let view = store.view().await.unwrap();
        let free = rustix::fs::fstatvfs(&filler).unwrap();
        let rest = free.f_bavail * free.f_frsize;
        rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), 0, rest).unwrap();
        for _ in 0..20 {
            assert!(is_full(store.append(head, batch(vec![put("b", "1")])).await));
            assert_eq!(store.head().await.unwrap(), head);
            assert_eq!(dump(&*view), [("a".into(), "1".into())]);
        }
        filler.set_len(0).unwrap();
        let freed = Instant::now();
        head = store.append(head, batch(vec![put("b", "1")])).await.unwrap();
        assert!(freed.elapsed() < Duration::from_secs(5));

        // The store fills it.
        let mut written = 0;
        loop {
            match store
                .append(head, batch(vec![put(&format!("c{written}"), vec![1; 100_000])]))
                .await
            {
                Ok(after) => (head, written) = (after, written + 1),
                answer => break assert!(is_full(answer)),
            }
        }
        assert!(written > 5, "{written} were written");
        assert_eq!(dump(&*store.view().await.unwrap()).len(), 2 + written);
        mounted.mount(&["-o", "remount,size=32m"]);
        store.append(head, batch(vec![put("d", "1")])).await.unwrap();
    });
    drop(store);
    RedbStore::check(&dir).unwrap();

    mounted.mount(&["-o", "remount,ro"]);
    let error = RedbStore::open(&dir, Limits::default()).unwrap_err();
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
    assert!(error.to_string().contains("cannot be written: Read-only file system"), "{error}");
}
