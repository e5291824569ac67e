//! Real clients of registries send the user name and the secret of the configuration that is made for them.
//!
//! `dev/test --without registry` leaves them out by the name of this module. apk is in no package here: the unit tests of
//! `auth/clients.rs` have every byte of its line.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use serde_json::json;

use super::done;
use super::server::{Fake, SECRET};
use crate::common::folder;

/// Has each character that a path may have and that configurations give a meaning.
const USER: &str = "acme/web:eu+a=b@c~d/0123456789abcdef";

/// A registry that asks for a credential, has nothing, and notes the credentials that it was sent.
struct Registry {
    port: u16,
    sent: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&sent);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                if let Some(credential) = answer(socket.unwrap()) {
                    noted.lock().unwrap().push(credential);
                }
            }
        });
        Self { port, sent }
    }

    /// Every credential that was sent is the one of the configuration.
    fn assert_asked_with_the_credential(&self, client: &str) {
        let credential =
            base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{SECRET}"));
        let sent: BTreeSet<String> = self.sent.lock().unwrap().drain(..).collect();
        assert_eq!(sent, BTreeSet::from([format!("Basic {credential}")]), "{client}");
    }
}

/// Answers one request of a connection. Returns its header `Authorization`.
fn answer(mut socket: TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|read| read > 0) {
        head.extend(byte);
    }
    // What is no text is a TLS handshake, which is not answered.
    let head = String::from_utf8(head).ok()?;
    let header = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
    };
    let credential = head.lines().find_map(header);
    let status = match credential {
        Some(_) => "404 Not Found",
        None => "401 Unauthorized\r\nwww-authenticate: Basic realm=\"registry\"",
    };
    let _ = write!(socket, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    credential
}

/// Writes the configuration of a new token into a file. Returns the folder.
fn configured(name: &str, file: &str, options: &[&str]) -> PathBuf {
    let server = Fake::start();
    let token = json!({"id": USER, "role": "registry.pull", "scope": "acme"});
    let answer = json!({"pull_token": token, "username": USER, "secret": SECRET, "revision": 1});
    server.script("CreatePullToken", Ok(vec![answer]));
    let create = ["auth", "pull-token", "create", "--group", "acme", "--role", "registry.pull"];
    let (text, _) = done(&server, &[&create[..], options].concat());
    let folder = folder(&format!("pull-token-{name}"));
    fs::write(folder.join(file), text).unwrap();
    folder
}

/// Runs a client in a folder, without the settings of this machine. It fails: there is nothing in the registry.
fn run(folder: &Path, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> String {
    let program = program.as_ref();
    let mut command = Command::new(program);
    for (name, _) in std::env::vars() {
        let prefixes = ["pip", "npm", "maven", "docker", "registry", "http_proxy", "https_proxy"];
        if prefixes.iter().any(|prefix| name.to_lowercase().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    let output = command
        .args(arguments)
        .current_dir(folder)
        .envs([("HOME", folder), ("PIP_CONFIG_FILE", &folder.join("pip.conf"))])
        .env("npm_config_cache", folder)
        .output()
        .unwrap_or_else(|error| panic!("{program:?}: {error}; dev/test installs it"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success(), "{text}");
    assert!(!text.contains(SECRET), "{text}");
    text
}

/// docker takes a configuration by the host alone, which has been tried with its version 28 and TLS; it does not ask a
/// registry without TLS unless its daemon does.
#[test]
fn skopeo_sends_what_its_configuration_has() {
    let registry = Registry::start();
    let host = format!("127.0.0.1:{}", registry.port);
    for at in [host.clone(), format!("{host}/acme")] {
        let options = ["--output", "docker", "--registry", &at];
        let folder = configured("docker", "config.json", &options);
        let image = format!("docker://{host}/acme/web:1");
        let inspect = ["inspect", "--authfile", "config.json", "--tls-verify=false", &image];
        run(&folder, "skopeo", &inspect);
        registry.assert_asked_with_the_credential("skopeo");
    }
}

/// Without TLS, pip takes what is before the first slash of a user name for the host that it would have to trust.
#[test]
fn pip_sends_what_its_configuration_has() {
    let registry = Registry::start();
    let at = format!("127.0.0.1:{}/python/simple", registry.port);
    let folder = configured("pip", "pip.conf", &["--output", "pip", "--registry", &at]);
    let file = folder.join("pip.conf");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("https://", "http://")).unwrap();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let pip = workspace.join("target/tools/python/bin/pip");
    let download = ["download", "--no-deps", "--no-input", "--retries", "0", "no-such-package"];
    let text = run(&folder, &pip, &download);
    assert!(
        text.contains("located at acme is not a trusted"),
        "--output pip may take http://: {text}"
    );
    run(&folder, &pip, &[&download[..], &["--trusted-host", "acme"]].concat());
    registry.assert_asked_with_the_credential("pip");
}

#[test]
fn npm_sends_what_its_configuration_has() {
    let registry = Registry::start();
    let url = format!("http://127.0.0.1:{}/npm", registry.port);
    let folder = configured("npm", ".npmrc", &["--output", "npm", "--url", &url]);
    run(&folder, "npm", &["view", "@acme/no-such-package", "--fetch-retries", "0"]);
    registry.assert_asked_with_the_credential("npm");
}

/// The repositories of Debian's packages have the plugin, so that no other repository is asked.
#[test]
fn maven_sends_what_its_settings_have() {
    let registry = Registry::start();
    let folder = configured("maven", "settings.xml", &["--output", "maven", "--id", "acme.libs"]);
    let repository = |id: &str, url: &str| format!("<id>{id}</id><url>{url}</url>");
    let debian = repository("central", "file:///usr/share/maven-repo");
    let ours = repository("acme.libs", &format!("http://127.0.0.1:{}/java/", registry.port));
    let pom = format!(
        "<project><modelVersion>4.0.0</modelVersion><packaging>pom</packaging><groupId>x</groupId>\
         <artifactId>x</artifactId><version>1</version>\
         <repositories><repository>{ours}</repository><repository>{debian}</repository></repositories>\
         <pluginRepositories><pluginRepository>{debian}</pluginRepository></pluginRepositories>\
         <dependencies><dependency><groupId>com.acme</groupId><artifactId>no-such-library</artifactId>\
         <version>1.0</version></dependency></dependencies></project>"
    );
    fs::write(folder.join("pom.xml"), pom).unwrap();
    let local = format!("-Dmaven.repo.local={}", folder.join("repository").display());
    let plugin = "/usr/share/maven-repo/org/apache/maven/plugins/maven-dependency-plugin";
    let versions =
        fs::read_dir(plugin).unwrap_or_else(|_| panic!("{plugin}: dev/test installs it"));
    let version = versions.map(|found| found.unwrap().file_name().into_string().unwrap());
    let version =
        version.filter(|name| name.starts_with(|first: char| first.is_ascii_digit())).max();
    let goal =
        format!("org.apache.maven.plugins:maven-dependency-plugin:{}:resolve", version.unwrap());
    let text = run(&folder, "mvn", &["-q", "-B", "-s", "settings.xml", &local, &goal]);
    assert!(text.contains("no-such-library"), "{text}");
    registry.assert_asked_with_the_credential("maven");
}
