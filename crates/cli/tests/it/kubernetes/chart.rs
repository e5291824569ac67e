//! What the chart renders.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use super::{VALUES, all, container, deploy, list, python, rendered, values, workload};
use crate::common::{PATIENCE, folder, golden};

/// Manifests for those who do without Helm, too.
#[test]
fn three_sets_of_values_match_the_golden_files() {
    let rendered = rendered();
    for name in VALUES {
        let path = deploy().join(format!("rendered/{name}.yaml"));
        golden(path.to_str().unwrap(), rendered[name]["text"].as_str().unwrap());
    }
}

#[test]
fn wrong_values_are_refused_with_the_value() {
    golden("kubernetes.refused", &python("refuse", &[deploy().join("chart"), values("central")]));
}

/// Numbers and words of YAML as names, long names, and documents with every kind of line end come out as they went in.
#[test]
fn odd_values_are_rendered_as_they_are() {
    let count = python("odd", &[deploy().join("chart"), values("central")]);
    assert!(count.trim().parse::<usize>().unwrap() >= 20, "{count}");
}

/// Names lead somewhere: selectors select the pods, ports and volumes are there.
#[test]
fn names_in_manifests_lead_to_something() {
    for (name, objects) in all() {
        let workload = workload(&objects);
        let labels = workload.pointer("/spec/template/metadata/labels").unwrap();
        let selects = |selector: &Value| {
            let wanted = selector.as_object().unwrap();
            !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value)
        };
        let container = container(workload);
        let ports: BTreeSet<_> =
            list(container, "/ports").iter().map(|port| port["name"].as_str().unwrap()).collect();
        let has_port = |port: &Value| port.as_str().is_some_and(|port| ports.contains(port));
        assert!(selects(&workload["spec"]["selector"]["matchLabels"]), "{name}");
        let mut volumes: BTreeSet<_> = list(workload, "/spec/template/spec/volumes")
            .iter()
            .map(|volume| volume["name"].as_str().unwrap())
            .collect();
        let claims = list(workload, "/spec/volumeClaimTemplates").iter();
        volumes.extend(claims.map(|claim| claim["metadata"]["name"].as_str().unwrap()));
        for mount in list(container, "/volumeMounts") {
            assert!(volumes.contains(mount["name"].as_str().unwrap()), "{name}: {mount}");
            assert!(
                mount.get("subPath").is_none(),
                "{name}: a changed ConfigMap would not be seen"
            );
        }
        for object in &objects {
            match object["kind"].as_str().unwrap() {
                "Service" => {
                    assert!(selects(&object["spec"]["selector"]), "{name}");
                    for port in list(object, "/spec/ports") {
                        assert!(has_port(&port["targetPort"]), "{name}: {port}");
                    }
                }
                "NetworkPolicy" => {
                    assert!(selects(&object["spec"]["podSelector"]["matchLabels"]), "{name}");
                    for rule in list(object, "/spec/ingress") {
                        assert!(!list(rule, "/from").is_empty(), "{name}: everybody may connect");
                        for port in list(rule, "/ports") {
                            assert!(has_port(&port["port"]), "{name}: {port}");
                        }
                    }
                }
                "PodDisruptionBudget" => {
                    assert!(selects(&object["spec"]["selector"]["matchLabels"]), "{name}");
                    let least = object["spec"]["minAvailable"].as_u64().unwrap();
                    assert!(least < workload["spec"]["replicas"].as_u64().unwrap(), "{name}");
                }
                "PodMonitor" => {
                    assert!(selects(&object["spec"]["selector"]["matchLabels"]), "{name}");
                    for endpoint in list(object, "/spec/podMetricsEndpoints") {
                        assert!(has_port(&endpoint["port"]), "{name}: {endpoint}");
                    }
                    // The alerts name the job.
                    let endpoints = list(object, "/spec/podMetricsEndpoints");
                    let job = json!({"targetLabel": "job", "replacement": "capstan"});
                    assert_eq!(endpoints[0]["relabelings"], json!([job]), "{name}");
                }
                _ => {}
            }
        }
    }
}

/// The standard `restricted` of Pod Security, and a root file system that cannot be written.
#[test]
fn every_container_is_restricted() {
    for (name, objects) in all() {
        let spec = &workload(&objects)["spec"]["template"]["spec"];
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        assert_eq!(spec["automountServiceAccountToken"], false, "{name}");
        let containers = [list(spec, "/initContainers"), list(spec, "/containers")].concat();
        for container in &containers {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(security["capabilities"]["drop"], json!(["ALL"]), "{name}");
            let resources = &container["resources"];
            if container["image"].as_str().unwrap().contains("/capstan") {
                // More memory than is promised would be taken away when it is needed.
                assert_eq!(
                    resources["limits"]["memory"], resources["requests"]["memory"],
                    "{name}"
                );
            }
        }
    }
}

/// The chart goes to an OCI registry and comes back as it was. `dev/test` installs the registry with the registry example.
#[test]
fn registry_of_charts_gives_back_what_was_pushed() {
    let folder = folder("chart");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let config = folder.join("registry.yaml");
    let storage = folder.join("storage");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
        storage.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut registry = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("dev/test installs docker-registry; --without registry leaves this test out");
    wait_for(address);
    let arguments =
        [deploy().join("chart"), values("store"), address.to_string().into(), folder.clone()];
    let published = std::panic::catch_unwind(|| python("publish", &arguments));
    registry.kill().unwrap();
    registry.wait().unwrap();
    assert_eq!(published.unwrap().trim(), "True");
}

fn wait_for(address: SocketAddr) {
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < PATIENCE, "nothing listens at {address}");
        std::thread::yield_now();
    }
}
