//! The containers of the manifests, run with their own arguments: volumes are folders, ports are free ones, and the address of the
//! pod is 127.0.0.2, which no listener on 127.0.0.1 answers.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use capstan_proto::iam::v1::ListGroupsRequest;
use capstan_proto::iam::v1::group_service_client::GroupServiceClient;
use capstan_proto::v1::decision_service_client::DecisionServiceClient;
use capstan_testkit::https::Authority;
use serde_json::Value;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{all, container, list, workload};
use crate::common::{PATIENCE, Serving, capstan, command, folder, stdout};
use crate::raw;

const POD: &str = "127.0.0.2";

/// A pod: its folders, and the server of its container.
struct Pod {
    name: String,
    root: PathBuf,
    objects: Vec<Value>,
    authority: Authority,
}

impl Pod {
    fn new(name: String, objects: Vec<Value>) -> Self {
        let root = folder(&format!("pod-{name}"));
        Self { name, root, objects, authority: Authority::generate() }
    }

    fn workload(&self) -> &Value {
        workload(&self.objects)
    }

    /// Makes the volumes of config maps, as kubelet does.
    fn mount(&self) {
        for mount in list(container(self.workload()), "/volumeMounts") {
            let folder = self.inside(mount["mountPath"].as_str().unwrap());
            std::fs::create_dir_all(&folder).unwrap();
            let volumes = list(self.workload(), "/spec/template/spec/volumes");
            let Some(volume) = volumes.iter().find(|volume| volume["name"] == mount["name"]) else {
                continue;
            };
            if volume.get("secret").is_some() {
                assert_eq!(volume["secret"]["defaultMode"], 0o440);
                self.write_certificates(&folder);
                continue;
            }
            let of = &volume["configMap"]["name"];
            let map = self
                .objects
                .iter()
                .find(|it| it["kind"] == "ConfigMap" && it["metadata"]["name"] == *of);
            let data = match map {
                Some(map) => serde_json::from_value(map["data"].clone()).unwrap(),
                // One that is there already.
                None => BTreeMap::from([(
                    "acme.yaml".to_owned(),
                    capstan_server::feed::source::DEMO.to_owned(),
                )]),
            };
            write_atomically(&folder, 1, &data);
        }
    }

    /// A Secret, as cert-manager makes it.
    fn write_certificates(&self, folder: &Path) {
        let (certificate, key) = self.authority.certificate(&["localhost", POD], false);
        let files = [
            ("tls.crt", certificate.pem()),
            ("tls.key", key.serialize_pem()),
            ("ca.crt", self.authority.pem()),
            ("revoked.crl", self.authority.revoking(&[], false)),
        ];
        for (name, text) in files {
            let file = folder.join(name);
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o440)).unwrap();
        }
    }

    /// A connection to a port of gRPC, with TLS where the server has it.
    async fn channel(&self, address: &str) -> Channel {
        let arguments = self.arguments(container(self.workload()));
        let has = |option: &str| arguments.iter().any(|it| it.starts_with(option));
        assert_ne!(has("--tls-cert"), has("--insecure-plaintext") || self.name == "sidecar");
        if !has("--tls-cert") {
            return channel(address).await;
        }
        let (certificate, key) = self.authority.certificate(&["orders"], false);
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.authority.pem()))
            .identity(Identity::from_pem(certificate.pem(), key.serialize_pem()));
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await.unwrap()
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The arguments of a container, with folders of this pod and free ports.
    fn arguments(&self, container: &Value) -> Vec<String> {
        let of = |argument: &Value| {
            let argument = argument.as_str().unwrap();
            let Some((option, value)) = argument.split_once('=') else {
                return argument.to_owned();
            };
            let value = match option {
                "--listen" | "--listen-management" | "--http" | "--probes" if value != "none" => {
                    let (address, port) = value.rsplit_once(':').unwrap();
                    assert!(["4480", "4481", "4482", "4483"].contains(&port), "{argument}");
                    format!("{address}:0")
                }
                "--otlp-endpoint" => "http://127.0.0.1:1".to_owned(),
                "--policy" | "--routes" | "--callers" | "--data" | "--tls-cert" | "--tls-key"
                | "--client-ca" | "--client-crl" => self.inside(value).display().to_string(),
                _ => value.to_owned(),
            };
            format!("{option}={value}")
        };
        list(container, "/args").iter().map(of).collect()
    }

    fn start(&self) -> Serving {
        let arguments = self.arguments(container(self.workload()));
        let is_address = |argument: &&String| {
            ["--listen", "--http", "--probes"].iter().any(|option| argument.starts_with(option))
                && !argument.ends_with("none")
        };
        let is_store = arguments.iter().any(|argument| argument.starts_with("--data"));
        let lines = arguments.iter().filter(is_address).count() + usize::from(is_store);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        Serving::spawn(&mut command(&arguments), lines)
    }
}

/// What kubelet does with a changed ConfigMap: a new folder, and a link that is replaced. The files are links into it.
fn write_atomically(folder: &Path, version: u32, data: &BTreeMap<String, String>) {
    let new = format!("..version-{version}");
    std::fs::create_dir(folder.join(&new)).unwrap();
    for (name, text) in data {
        std::fs::write(folder.join(&new).join(name), text).unwrap();
        let link = folder.join(name);
        if !link.exists() {
            symlink(Path::new("..data").join(name), &link).unwrap();
        }
    }
    symlink(&new, folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
}

fn port(server: &Serving, word: &str) -> String {
    let address = server.address(word);
    format!("{POD}:{}", address.rsplit_once(':').unwrap().1)
}

async fn channel(address: &str) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// A probe of a container, as kubelet does it: at the address of the pod, without TLS, once.
async fn probe(server: &Serving, probe: &Value) -> Result<(), String> {
    let patience = Duration::from_secs(probe["timeoutSeconds"].as_u64().unwrap());
    let address = port(server, "probes");
    let (kind, port) = match (probe.get("grpc"), probe.get("httpGet")) {
        (Some(grpc), None) => (grpc, &grpc["port"]),
        (None, Some(http)) => (http, &http["port"]),
        _ => panic!("{probe}"),
    };
    assert_eq!(*port, 4482, "the port of --probes");
    if let Some(path) = kind.get("path") {
        let response = minreq(&address, path.as_str().unwrap(), patience);
        return if response.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(response) };
    }
    let service = kind.get("service").map_or("", |service| service.as_str().unwrap()).to_owned();
    let asked = async {
        let channel = Channel::from_shared(format!("http://{address}")).unwrap();
        let channel =
            channel.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
        HealthClient::new(channel).check(HealthCheckRequest { service }).await
    };
    match tokio::time::timeout(patience, asked).await {
        Err(_) => Err("no answer in time".into()),
        Ok(Err(status)) => Err(format!("{:?}: {}", status.code(), status.message())),
        Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => Ok(()),
        Ok(Ok(answer)) => Err(format!("{:?}", answer.get_ref().status())),
    }
}

fn minreq(address: &str, path: &str, patience: Duration) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: kube-probe/1.37\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_listener_of_loopback_does_not_answer_at_the_address_of_the_pod() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(TcpStream::connect((POD, port)).is_err());
    TcpStream::connect(("127.0.0.1", port)).unwrap();
}

/// Each probe of each manifest succeeds when the server is ready. When it is stopped, readiness fails first, and calls are answered
/// on.
#[tokio::test]
async fn probes_work_as_written() {
    for (name, objects) in all() {
        let pod = Pod::new(name, objects);
        pod.mount();
        let template = &pod.workload()["spec"]["template"]["spec"];
        for init in list(template, "/initContainers").iter().filter(|it| it["name"] == "init") {
            // Before every start of the pod.
            for said in ["made ", "is there: nothing is changed"] {
                let arguments = pod.arguments(init);
                let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
                let output = capstan(&arguments);
                assert!(stdout(&output).contains(said), "{output:?}");
            }
        }
        let container = container(pod.workload());
        let server = pod.start();
        for kind in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let probed = probe(&server, &container[kind]).await;
            assert_eq!(probed, Ok(()), "{}: {kind}", pod.name);
        }
        let mut wrong = container["readinessProbe"].clone();
        wrong["grpc"]["service"] = "capstan.v1.Decisions".into();
        let probed = probe(&server, &wrong).await;
        assert!(probed.unwrap_err().starts_with("NotFound"), "{}", pod.name);

        let decisions = port(&server, "grpc");
        let is_sidecar = pod.name == "sidecar";
        assert_eq!(TcpStream::connect(&decisions).is_err(), is_sidecar, "{}", pod.name);
        let near = if is_sidecar { server.address("grpc") } else { decisions };
        let mut decisions = DecisionServiceClient::new(pod.channel(&near).await);
        decisions.check(raw::check()).await.unwrap();

        server.signal("-TERM");
        let begun = Instant::now();
        let delays = pod.arguments(container).iter().any(|it| it == "--drain-delay-ms=5000");
        assert_eq!(delays, !is_sidecar, "{}", pod.name);
        if delays {
            while probe(&server, &container["readinessProbe"]).await.is_ok() {
                assert!(begun.elapsed() < PATIENCE);
            }
            decisions.check(raw::check()).await.unwrap();
        } else {
            // A sidecar ends after its service.
            assert_eq!(server.wait().0, Some(0));
        }
    }
}

/// Where management has a port of its own, each port serves its calls and no others, with the certificates of the pod.
#[tokio::test]
async fn management_has_a_port_of_its_own() {
    let (name, objects) = all().into_iter().find(|(name, _)| name == "store").unwrap();
    let pod = Pod::new(format!("{name}-management"), objects);
    let has_port = |kind: &str, pointer: &str| {
        let of_kind = |it: &&Value| it["kind"] == kind;
        let object = pod.objects.iter().find(of_kind).unwrap();
        list(object, pointer)
            .iter()
            .any(|port| port["port"] == 4483 || port["port"] == "management")
    };
    assert!(has_port("Service", "/spec/ports"));
    assert!(has_port("NetworkPolicy", "/spec/ingress/1/ports"));
    assert!(!has_port("NetworkPolicy", "/spec/ingress/0/ports"), "clients manage");
    pod.mount();
    let template = &pod.workload()["spec"]["template"]["spec"];
    let init = pod.arguments(&list(template, "/initContainers")[0]);
    assert!(capstan(&init.iter().map(String::as_str).collect::<Vec<_>>()).status.success());
    let server = pod.start();
    let (decides, manages) = (port(&server, "grpc"), port(&server, "grpc-management"));
    for (address, serves_decisions) in [(&decides, true), (&manages, false)] {
        let channel = pod.channel(address).await;
        let check = DecisionServiceClient::new(channel.clone()).check(raw::check()).await;
        let mut groups = GroupServiceClient::new(channel);
        let groups = groups.list_groups(ListGroupsRequest::default()).await;
        // Who is on this machine may ask, and nobody manages by this certificate. What is not served says where it is.
        let expected = match serves_decisions {
            true => (Code::Ok, Code::Unimplemented),
            false => (Code::Unimplemented, Code::Unauthenticated),
        };
        let code = |error: Option<Status>| error.map_or(Code::Ok, |status| status.code());
        assert_eq!((code(check.err()), code(groups.err())), expected, "{address}");
    }
}

/// A changed ConfigMap is served without a restart.
#[tokio::test]
async fn a_changed_config_map_is_served() {
    let (name, objects) = all().into_iter().find(|(name, _)| name == "central").unwrap();
    let pod = Pod::new(format!("{name}-changed"), objects);
    pod.mount();
    let server = pod.start();
    let mut decisions = DecisionServiceClient::new(channel(&port(&server, "grpc")).await);
    let question = capstan_proto::v1::CheckRequest {
        identity: "acme/orders".into(),
        capability: "repo.list".into(),
        resource: "acme/platform".into(),
        ..Default::default()
    };
    assert!(decisions.check(question.clone()).await.unwrap().get_ref().allowed);
    let map = pod.objects.iter().find(|it| it["kind"] == "ConfigMap").unwrap();
    let mut data: BTreeMap<String, String> = serde_json::from_value(map["data"].clone()).unwrap();
    let policy = data.values_mut().next().unwrap();
    let binding = policy.lines().find(|line| line.contains("role: viewer")).unwrap().to_owned();
    *policy = policy.replace(&binding, "");
    write_atomically(&pod.inside("/etc/capstan/policy"), 2, &data);
    let begun = Instant::now();
    while decisions.check(question.clone()).await.unwrap().get_ref().allowed {
        assert!(begun.elapsed() < PATIENCE, "the old policy is served on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The address for probes tells no decision, over neither protocol.
#[tokio::test]
async fn the_address_for_probes_answers_no_question() {
    let server = Serving::start(
        &["--demo", "--listen=127.0.0.1:0", "--http=none", "--probes=0.0.0.0:0"],
        // Its demo is of this machine only, as the gRPC address is.
        18,
    );
    let address = port(&server, "probes");
    let mut decisions = DecisionServiceClient::new(channel(&address).await);
    let refused = decisions.check(raw::check()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("of gRPC it answers health only"), "{refused}");
    for (path, wanted) in [
        ("/livez", "HTTP/1.1 200"),
        ("/readyz", "HTTP/1.1 200"),
        ("/metrics", "HTTP/1.1 200"),
        ("/access/v1/evaluation", "HTTP/1.1 404"),
        ("/.well-known/authzen-configuration", "HTTP/1.1 404"),
        ("/.well-known/jwks.json", "HTTP/1.1 404"),
    ] {
        let answer = minreq(&address, path, PATIENCE);
        assert!(answer.starts_with(wanted), "{path}: {answer}");
    }
}
