//! Sampling, and the bound of the exporter's queue.

use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;

use super::*;

const CHECK: &str = "/capstan.v1.DecisionService/Check";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// An exporter that blocks until the test lets it go, and counts spans.
#[derive(Clone, Debug)]
struct Held {
    let_go: Arc<Mutex<mpsc::Receiver<()>>>,
    exported: Arc<AtomicUsize>,
}

impl Exporter for Held {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        // Blocks until the sender is dropped.
        let _ = self.let_go.lock().unwrap().recv();
        self.exported.fetch_add(batch.len(), Relaxed);
        Ok(())
    }
}

fn traces(sample_ratio: f64, parent_based: bool) -> (Traces, mpsc::Sender<()>, Arc<AtomicUsize>) {
    let (hold, let_go) = mpsc::channel();
    let exported = Arc::new(AtomicUsize::new(0));
    let held = Held { let_go: Arc::new(Mutex::new(let_go)), exported: Arc::clone(&exported) };
    (Traces::new(held, sample_ratio, parent_based), hold, exported)
}

fn headers(traceparent: &str) -> HeaderMap {
    HeaderMap::from_iter([("traceparent".parse().unwrap(), traceparent.parse().unwrap())])
}

#[test]
fn the_ratio_samples_unless_the_caller_decides() {
    let least = 1 << 32; // the lower 32 bits of chance are not used
    for (ratio, always, half, never) in
        [(0.0, false, false, false), (0.5, true, false, false), (1.0, true, true, true)]
    {
        let (own, ..) = traces(ratio, false);
        let (traces, ..) = traces(ratio, true);
        let begins = |headers: &HeaderMap, chance| traces.begin(CHECK, headers, chance).is_some();
        let none = HeaderMap::new();
        assert_eq!(begins(&none, 0), always);
        assert_eq!(begins(&none, (u64::MAX / 2) + least), half);
        assert_eq!(begins(&none, u64::MAX), never);
        for flags in ["00", "01"] {
            let traced = headers(&format!("00-{TRACE}-{PARENT}-{flags}"));
            assert_eq!(own.begin(CHECK, &traced, 0).is_some(), always);
            assert_eq!(own.begin(CHECK, &traced, u64::MAX).is_some(), never);
        }
        // The caller's trace context decides, and chance does not.
        assert!(begins(&headers(&format!("00-{TRACE}-{PARENT}-01")), u64::MAX));
        assert!(!begins(&headers(&format!("00-{TRACE}-{PARENT}-00")), 0));
        // A malformed header counts as none.
        for none in ["", "00", "00-0-0-01", "nonsense"] {
            assert_eq!(begins(&headers(none), 0), always, "{none}");
        }
    }
}

#[test]
fn a_header_of_1_kib_is_read_and_a_longer_one_is_not() {
    let (traces, ..) = traces(0.0, true);
    // A later version of the format may be longer.
    let known = format!("01-{TRACE}-{PARENT}-01-");
    for (length, read) in [(TRACE_HEADER_BYTES_MAX, true), (TRACE_HEADER_BYTES_MAX + 1, false)] {
        let header = headers(&format!("{known}{}", "x".repeat(length - known.len())));
        assert_eq!(traces.begin(CHECK, &header, 0).is_some(), read, "{length}");
    }
}

#[tokio::test]
async fn spans_beyond_the_queue_are_lost() {
    let (traces, hold, exported) = traces(1.0, false);
    for _ in 0..3 * SPANS_MAX {
        traces.begin(CHECK, &HeaderMap::new(), 0).unwrap().ended(Code::Ok);
    }
    drop(hold);
    assert!(traces.provider.shutdown_with_timeout(Duration::from_secs(30)).is_ok());
    let exported = exported.load(Relaxed);
    // The queued spans, and the batch that the exporter held.
    assert!((SPANS_MAX..SPANS_MAX + 1_000).contains(&exported), "{exported}");
}
