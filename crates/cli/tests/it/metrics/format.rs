//! Both formats of `/metrics`, by a strict reader of their rules, and the text format by Prometheus's own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use capstan_server::feed::source::Source;

use super::{check, raw};
use crate::common::InProcess;

const TEXT: &str = "content-type: text/plain; version=0.0.4; charset=utf-8";
const OPEN: &str = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The families of a text, each with its kind and its series.
type Families<'t> = BTreeMap<&'t str, (&'t str, Vec<(&'t str, BTreeMap<&'t str, &'t str>, f64)>)>;

/// Reads a text by the rules of its format. Panics at what breaks one.
fn read(text: &str, is_open: bool) -> Families<'_> {
    let lines = match text.strip_suffix("# EOF\n") {
        Some(lines) if is_open => lines,
        None if !is_open => text,
        _ => panic!("the end mark"),
    };
    assert!(lines.ends_with('\n'));
    let mut families = Families::new();
    let (mut helped, mut seen, mut family) = (BTreeSet::new(), BTreeSet::new(), "");
    for line in lines.lines() {
        assert!(
            !line.is_empty() && !line.ends_with(' ') && !line.contains(['\r', '\t']),
            "{line:?}"
        );
        if let Some(rest) = line.strip_prefix("# ") {
            let [what, name, words] = rest.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            assert!(is_name(name), "{line}");
            match what {
                "HELP" => {
                    assert!(helped.insert(name) && !families.contains_key(name), "{line}");
                    assert!(!words.ends_with("..") && !words.contains('\\'), "{line}");
                }
                "TYPE" => {
                    let kinds: &[_] = match is_open {
                        true => &["counter", "gauge", "histogram", "info"],
                        false => &["counter", "gauge", "histogram"],
                    };
                    assert!(helped.contains(name) && kinds.contains(&words), "{line}");
                    assert!(families.insert(name, (words, vec![])).is_none(), "{line}");
                    family = name;
                }
                "UNIT" => {
                    assert!(is_open && name == family && name.ends_with(&format!("_{words}")))
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(seen.insert(series), "twice: {line}");
        let (name, labels) = match series.split_once('{') {
            None => (series, BTreeMap::new()),
            Some((name, labels)) => (name, labels_of(labels.strip_suffix('}').unwrap())),
        };
        let (kind, all) = families.get_mut(family).unwrap();
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{name} in {family}"));
        let suffixes: &[_] = match (&**kind, is_open) {
            ("counter", true) => &["_total"],
            ("info", true) => &["_info"],
            ("histogram", _) => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        assert!(is_name(name) && suffixes.contains(&suffix), "{line}");
        assert_eq!(suffix == "_bucket", labels.contains_key("le"), "{line}");
        assert!(is_open || *kind != "counter" || name.ends_with("_total"), "{line}");
        all.push((suffix, labels, value.parse().unwrap()));
    }
    for (kind, series) in families.values().filter(|(kind, _)| *kind == "histogram") {
        assert_is_cumulative(kind, series);
    }
    families
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|letter: char| letter.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// Our labels have no escapes, commas or quotes in their values.
fn labels_of(text: &str) -> BTreeMap<&str, &str> {
    let mut labels = BTreeMap::new();
    for label in text.split(',') {
        let (name, value) = label.split_once('=').unwrap();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
        assert!(is_name(name) && !value.contains(['"', '\\']), "{text}");
        assert!(labels.insert(name, value).is_none(), "{text}");
    }
    labels
}

fn assert_is_cumulative(kind: &str, series: &[(&str, BTreeMap<&str, &str>, f64)]) {
    assert_eq!(kind, "histogram");
    let (mut last, mut bound) = (0.0, f64::NEG_INFINITY);
    for (suffix, labels, value) in series {
        match *suffix {
            "_bucket" => {
                let le: f64 = labels["le"].parse().unwrap();
                assert!(le > bound && *value >= last, "{labels:?}");
                (last, bound) = (*value, le);
            }
            "_count" => assert!(*value == last || bound == f64::NEG_INFINITY, "{labels:?}"),
            _ => {}
        }
        if bound == f64::INFINITY {
            let same: Vec<_> = series
                .iter()
                .filter(|(suffix, other, _)| {
                    *suffix == "_count" && other.get("rpc") == labels.get("rpc")
                })
                .collect();
            assert!(matches!(same[..], [(.., count)] if *count == last), "{labels:?}");
            (last, bound) = (0.0, f64::NEG_INFINITY);
        }
    }
    assert_eq!(bound, f64::NEG_INFINITY, "no bucket without end");
}

async fn asked() -> InProcess {
    let server = InProcess::start(Source::Demo).await;
    for resource in ["acme", "acme/platform", "acme//"] {
        let _ = server.decisions().check(check("alice", "repo.list", resource)).await;
    }
    server
}

#[tokio::test]
async fn both_formats_keep_their_rules_and_say_the_same() {
    let server = asked().await;
    let (head, text) = raw(server.http, "").await;
    assert!(head.contains(TEXT) && head.contains("vary: accept"), "{head}");
    let (head, open) = raw(server.http, "Accept: application/openmetrics-text\r\n").await;
    assert!(head.contains(OPEN) && head.contains("vary: accept"), "{head}");
    let (text, open) = (read(&text, false), read(&open, true));
    assert_eq!(text.len(), open.len());
    assert_eq!(text["capstan_requests_total"].0, "counter");
    assert_eq!(open["capstan_requests"].0, "counter");
    assert_eq!((text["capstan_build_info"].0, open["capstan_build"].0), ("gauge", "info"));
    let series =
        |families: &Families<'_>| families.values().map(|(_, series)| series.len()).sum::<usize>();
    assert_eq!(series(&text), series(&open));
    let checks = &text["capstan_request_duration_seconds"].1;
    let counted = |(suffix, labels, value): &&(&str, BTreeMap<_, _>, f64)| {
        *suffix == "_count" && labels["rpc"] == "Check" && *value == 3.0
    };
    assert_eq!(checks.iter().filter(counted).count(), 1);
}

/// Scrapers of all ages, and browsers, get what they read.
#[tokio::test]
async fn the_format_is_the_one_that_is_asked_for() {
    let server = asked().await;
    for (accept, wanted) in [
        ("Accept: */*\r\n", TEXT),
        ("Accept: text/html, */*;q=0.8\r\n", TEXT),
        ("Accept: text/plain;version=0.0.4;q=1,*/*;q=0.1\r\n", TEXT),
        ("Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n", OPEN),
        ("Accept: text/plain;q=0.5\r\nAccept: application/openmetrics-text;q=0.6\r\n", OPEN),
        ("Accept: \u{e4}\r\n", TEXT),
    ] {
        let (head, body) = raw(server.http, accept).await;
        assert!(head.contains(wanted), "{accept}: {head}");
        let _ = read(&body, wanted == OPEN);
    }
}

/// `dev/test` unpacks Debian's package `prometheus` where it is not installed.
#[tokio::test]
async fn promtool_has_nothing_to_say() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let unpacked = workspace.join("target/tools/prometheus/usr/bin/promtool");
    let mut tool = Command::new(if unpacked.exists() { &*unpacked } else { "promtool".as_ref() });
    tool.args(["check", "metrics"]);
    let tool = tool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut tool =
        tool.expect("dev/test installs promtool, and `--without promtool` leaves this test out");
    let (_, text) = raw(asked().await.http, "").await;
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
