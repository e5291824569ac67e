//! The chart and the manifests of `deploy/kubernetes`: rendered by Helm's own engine, held against the schemas of Kubernetes, and
//! run: the server is started with the arguments of each container, and probed as kubelet probes it.

mod chart;
mod monitoring;
mod pods;
mod probes;

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::common::{stderr, stdout};

const VALUES: [&str; 3] = ["central", "envoy", "store"];

fn workspace() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn deploy() -> PathBuf {
    workspace().join("deploy/kubernetes")
}

fn values(name: &str) -> PathBuf {
    deploy().join(format!("values/{name}.yaml"))
}

/// Runs a part of the Python program. Returns its output.
fn python(verb: &str, arguments: &[PathBuf]) -> String {
    let python = workspace().join("target/python/bin/python");
    assert!(python.exists(), "dev/test installs {}, and then runs every test", python.display());
    let output = Command::new(python)
        .arg(workspace().join("crates/cli/tests/python/kubernetes.py"))
        .arg(verb)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
    stdout(&output)
}

/// What each set of values is rendered to: `{NAME: {"text", "objects"}}`. It was linted, and has the schemas of Kubernetes.
fn rendered() -> Value {
    let arguments: Vec<_> =
        std::iter::once(deploy().join("chart")).chain(VALUES.map(values)).collect();
    serde_json::from_str(&python("render", &arguments)).unwrap()
}

/// The objects of the sidecar's manifest.
fn sidecar() -> Value {
    serde_json::from_str(&python("read", &[deploy().join("sidecar.yaml")])).unwrap()
}

/// All objects, by the name of what they are of.
fn all() -> Vec<(String, Vec<Value>)> {
    let rendered = rendered();
    let of = |objects: &Value| objects.as_array().unwrap().clone();
    let mut all: Vec<_> =
        VALUES.iter().map(|name| ((*name).to_owned(), of(&rendered[name]["objects"]))).collect();
    all.push(("sidecar".into(), of(&sidecar())));
    all
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The workload among objects.
fn workload(objects: &[Value]) -> &Value {
    let is_one = |it: &&Value| it["kind"] == "Deployment" || it["kind"] == "StatefulSet";
    objects.iter().find(is_one).unwrap()
}

/// The container of Capstan, which may be a sidecar.
fn container(workload: &Value) -> &Value {
    ["/spec/template/spec/initContainers", "/spec/template/spec/containers"]
        .iter()
        .flat_map(|pointer| list(workload, pointer))
        .find(|container| container["name"] == "capstan")
        .unwrap()
}
