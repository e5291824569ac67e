//! The writer on a disk that becomes full at any byte and has space again later.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Mutex, OnceLock};

use capstan_engine::{Decision, Reason, Timestamp};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::methods::Rpc;
use crate::telemetry::decision_log::{Line, QueueCapacity};
use crate::telemetry::metrics::Metrics;

/// A disk with a limited number of free bytes.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

impl Disk {
    fn free(&self, bytes: usize) {
        self.0.lock().unwrap().0 = bytes;
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().1.clone()).unwrap()
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (free, written) = &mut *self.0.lock().unwrap();
        let goes = bytes.len().min(*free);
        if goes == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        *free -= goes;
        written.extend(&bytes[..goes]);
        Ok(goes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn entry(identity: &str) -> Entry {
    let denied = Decision { reason: Reason::NoBinding, valid_until: None };
    let lines = vec![Line::new([identity, "r.get", "acme"], Ok::<_, String>(denied))];
    Entry { rpc: Rpc::CHECK, now: Timestamp::new(0, 0), revision: 1, lines }
}

fn writer(disk: &Disk, capacity: usize) -> (Writer, mpsc::Sender<Entry>) {
    let (entries, queued) = mpsc::channel();
    let queue = Queue {
        entries: entries.clone(),
        capacity: QueueCapacity {
            lines: AtomicUsize::new(capacity),
            lines_max: capacity,
            bytes: AtomicUsize::new(usize::MAX / 2),
            bytes_max: usize::MAX,
        },
        lost: AtomicU64::new(0),
        metrics: Arc::new(Metrics::default()),
        begun: AtomicBool::new(true),
        reopen: AtomicBool::new(false),
        finish: AtomicBool::new(false),
        writer: OnceLock::new(),
        finished: CancellationToken::new(),
    };
    let clock = Clock::Fixed(Timestamp::new(0, 0));
    let target = Target::File("unused".into());
    (Writer::new(target, Box::new(disk.clone()), Arc::new(queue), queued, clock), entries)
}

/// The disk is full during the first four lines, at every possible byte, and has space for the last
/// two. Every line is whole, and the report has the right number of lost lines.
#[test]
fn a_full_disk_leaves_whole_lines_and_the_right_count() {
    let length = {
        let mut line = Vec::new();
        let one = entry("one");
        one.append(&one.lines[0], one.time().as_deref(), &mut line);
        line.len()
    };
    for free in 0..=4 * length {
        let disk = Disk::default();
        disk.free(free);
        let (mut writer, entries) = writer(&disk, 100);
        for identity in ["one", "two", "six", "ten"] {
            entries.send(entry(identity)).unwrap();
        }
        assert!(!writer.write_waiting());
        writer.report_lost(true);
        assert_eq!(writer.failing, free < 4 * length);
        disk.free(usize::MAX);
        entries.send(entry("after")).unwrap();
        writer.write_waiting();
        writer.report_lost(true);
        entries.send(entry("last")).unwrap();
        writer.write_waiting();
        writer.report_lost(true);
        assert!(!writer.failing);

        let text = disk.text();
        assert!(text.ends_with('\n'));
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let identities: Vec<_> =
            lines.iter().filter_map(|line| line["identity"].as_str()).collect();
        let kept = free.div_ceil(length);
        let expected = [&["one", "two", "six", "ten"][..kept], &["after", "last"]].concat();
        assert_eq!(identities, expected, "{free} bytes free");
        let lost: Vec<_> = lines.iter().filter_map(|line| line["lost"].as_u64()).collect();
        assert_eq!(lost, [4 - kept as u64].repeat(usize::from(kept < 4)), "{free} bytes free");
    }
}

/// One round of the writer is bounded, however fast callers are.
#[test]
fn one_round_of_the_writer_is_bounded() {
    let disk = Disk::default();
    disk.free(usize::MAX);
    let (mut writer, entries) = writer(&disk, 10);
    for _ in 0..25 {
        entries.send(entry("one")).unwrap();
    }
    assert_eq!([(); 3].map(|()| writer.write_waiting()), [true, true, false]);
    assert_eq!(disk.text().lines().count(), 25);
}
