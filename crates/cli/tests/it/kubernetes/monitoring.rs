//! The alerts and the dashboard: read by Prometheus' own programs, over what a running server exports. `dev/test` unpacks Debian's package
//! `prometheus`, and `--without promtool` leaves these tests out.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use capstan_proto::v1::decision_service_client::DecisionServiceClient;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{deploy, list, python, workspace};
use crate::common::{PATIENCE, Serving, connect, folder, stderr, stdout};
use crate::raw;

fn tool(name: &str) -> Command {
    let unpacked = workspace().join("target/tools/prometheus/usr/bin").join(name);
    Command::new(if unpacked.exists() { unpacked } else { PathBuf::from(name) })
}

fn alerts() -> PathBuf {
    deploy().join("chart/files/alerts.yaml")
}

/// Every expression of the dashboard, for a server of any name.
fn expressions() -> Vec<String> {
    let text = std::fs::read_to_string(deploy().join("chart/files/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = list(&dashboard, "/panels").iter();
    let of = |target: &Value| {
        let expression = target["expr"].as_str().unwrap();
        let expression = expression.replace("$__rate_interval", "10s").replace("$__range", "1m");
        let expression = expression.replace("$job", ".*").replace("$instance", ".*");
        assert!(!expression.contains('$'), "{expression}");
        expression
    };
    panels.flat_map(|panel| list(panel, "/targets")).map(of).collect()
}

/// The metrics that a text names, with their label matchers.
fn selectors(text: &str) -> BTreeSet<String> {
    let is_name = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    text.match_indices("capstan_")
        .filter(|(at, _)| !text[..*at].ends_with(is_name))
        .map(|(at, _)| {
            let rest = &text[at..];
            let name = rest.find(|letter| !is_name(letter)).unwrap_or(rest.len());
            let matchers = match rest[name..].starts_with('{') {
                true => rest[name..].find('}').unwrap() + 1,
                false => 0,
            };
            rest[..name + matchers].to_owned()
        })
        .collect()
}

#[test]
fn promtool_accepts_and_tests_the_alerts() {
    let check = tool("promtool").args(["check", "rules"]).arg(alerts()).output();
    let check = check.expect("dev/test installs promtool");
    assert!(check.status.success(), "{}{}", stdout(&check), stderr(&check));
    let tests = workspace().join("crates/cli/tests/it/kubernetes/alerts_test.yaml");
    let test = tool("promtool").args(["test", "rules"]).arg(&tests).output().unwrap();
    assert!(test.status.success(), "{}{}", stdout(&test), stderr(&test));
    // Each alert is expected to fire by a test.
    let tests = std::fs::read_to_string(tests).unwrap();
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "nothing fires {name}");
        for key in ["summary", "description"] {
            assert!(rule["annotations"][key].is_string(), "{name} has no {key}");
        }
        assert!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap()));
    }
}

fn rules() -> Vec<Value> {
    let alerts: Value = serde_json::from_str(&python("yaml", &[alerts()])).unwrap();
    list(&alerts, "/groups").iter().flat_map(|group| list(group, "/rules").to_vec()).collect()
}

/// A Prometheus that scrapes a server every second.
struct Prometheus {
    child: Child,
    address: String,
}

impl Prometheus {
    fn start(target: &str) -> Self {
        let folder = folder("prometheus");
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{}]\n\
             scrape_configs:\n  - {{job_name: capstan, static_configs: [{{targets: [\"{target}\"]}}]}}\n",
            alerts().canonicalize().unwrap().display()
        );
        std::fs::write(folder.join("prometheus.yml"), config).unwrap();
        let child = tool("prometheus")
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stderr(Stdio::null())
            .spawn()
            .expect("dev/test installs prometheus with promtool");
        Self { child, address }
    }

    /// The data of an answer of its API; `None` while it starts.
    fn get(&self, path: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /api/v1/{path} HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        if head.contains("503 Service Unavailable") {
            return None;
        }
        let answer: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        Some(answer["data"].clone())
    }

    /// How many series an expression has.
    fn series(&self, expression: &str) -> usize {
        let query = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        self.get(&format!("query?query={query}")).map_or(0, |data| list(&data, "/result").len())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every expression of the dashboard has series, every alert can be evaluated, and every selector of one selects something.
#[tokio::test]
async fn promtool_prometheus_finds_what_alerts_and_dashboard_name() {
    let server = Serving::start(
        &["--demo", "--listen=127.0.0.1:0", "--http=none", "--probes=127.0.0.1:0"],
        18,
    );
    let prometheus = Prometheus::start(&server.address("probes"));
    let mut decisions = DecisionServiceClient::new(
        connect(server.address("grpc").parse::<SocketAddr>().unwrap()).await,
    );
    let expressions = expressions();
    assert!(expressions.len() >= 30, "{}", expressions.len());
    let alerts = std::fs::read_to_string(alerts()).unwrap();
    let mut wanted: BTreeSet<String> = selectors(&alerts);
    assert!(wanted.len() >= 16, "{wanted:?}");
    // In the texts of annotations stand names, too.
    wanted.extend(expressions.iter().cloned());
    let begun = Instant::now();
    while !wanted.is_empty() {
        decisions.check(raw::check()).await.unwrap();
        wanted.retain(|expression| prometheus.series(expression) == 0);
        assert!(begun.elapsed() < 2 * PATIENCE, "nothing has {wanted:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let groups = prometheus.get("rules").unwrap();
    let evaluated: Vec<_> =
        list(&groups, "/groups").iter().flat_map(|group| list(group, "/rules")).collect();
    assert_eq!(evaluated.len(), rules().len());
    for rule in evaluated {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_eq!(rule["state"], "inactive", "{rule}");
    }
    // What is not there is not found.
    assert_eq!(prometheus.series("capstan_checks_total"), 0);
    assert_eq!(prometheus.series("capstan_requests_total{code=\"Ok\"}"), 0);
}
