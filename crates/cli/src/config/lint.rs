//! What is dangerous in a configuration.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use capstan_server::askers;
use capstan_server::clock::Clock;
use capstan_server::signing::KeyFolder;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::{Place, Setting};
use crate::serve::KEYS;

/// Something dangerous.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// A name that does not change.
    pub(super) rule: &'static str,
    #[serde(flatten, serialize_with = "as_fields")]
    pub(super) place: Place,
    pub(super) problem: String,
    pub(super) advice: &'static str,
}

/// `line` and `column`, or `variable`.
fn as_fields<S: Serializer>(place: &Place, to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(None)?;
    match place {
        Place::File(line, column) => {
            map.serialize_entry("line", line)?;
            map.serialize_entry("column", column)?;
        }
        Place::Option(name) | Place::Variable(name) => map.serialize_entry("variable", name)?,
    }
    map.end()
}

/// The findings, in the order of the file. `looks`: whether at what the settings name, too.
pub(super) fn findings(settings: &[Setting], looks: bool) -> Vec<Finding> {
    let found = |key: &str| settings.iter().find(|setting| setting.key == key);
    let has = |key: &str| found(key).is_some_and(|setting| !setting.values.is_empty());
    let mut all = vec![];
    let mut add = |rule, of: &Setting, problem: String, advice| {
        all.push(Finding { rule, place: of.place.clone(), problem, advice });
    };
    for (key, rule, problem, advice) in FLAGS {
        if let Some(setting) = found(key).filter(|setting| !setting.values.is_empty()) {
            add(rule, setting, (*problem).to_owned(), advice);
        }
    }
    for setting in settings {
        for value in &setting.values {
            match setting.key.as_str() {
                "listen" | "listen-management" | "http" if is_open(value) && !has("tls-cert") => {
                    let problem = format!("{value} can be reached by other machines, without TLS");
                    add(
                        "plain-text",
                        setting,
                        problem,
                        "give tls-cert and tls-key, or listen on 127.0.0.1",
                    );
                }
                "listen" | "listen-management"
                    if value.starts_with("unix:/tmp/") || value.starts_with("unix:/var/tmp/") =>
                {
                    let problem = format!("everybody can make files beside {value}");
                    add(
                        "shared-folder",
                        setting,
                        problem,
                        "use a folder of the server's own, such as /run/capstan",
                    );
                }
                "socket-mode" if value.ends_with(['2', '3', '6', '7']) => {
                    let problem =
                        format!("mode {value} lets every process of this machine connect");
                    add("open-socket", setting, problem, "give 660 and socket-group");
                }
                "tls-key" if looks => {
                    if let Some(mode) = mode(value).filter(|mode| mode & 0o077 != 0) {
                        let problem = format!(
                            "{value} has mode {mode:03o}: others can read or change a secret key"
                        );
                        add(
                            "readable-key",
                            setting,
                            problem,
                            "chmod 600, and a user of the server's own",
                        );
                    }
                }
                "signing-keys" if looks => {
                    if let Some(mode) = mode(value).filter(|mode| mode & 0o077 != 0) {
                        let problem = format!(
                            "{value} has mode {mode:03o}: others can see which keys there are, or bring their own"
                        );
                        add("readable-key", setting, problem, "chmod 700");
                    }
                }
                "data" if looks => {
                    if let Some(mode) = mode(value).filter(|mode| mode & 0o077 != 0) {
                        let problem =
                            format!("{value} has mode {mode:03o}: the store is the server's alone");
                        add("readable-store", setting, problem, "chmod 700");
                    }
                }
                // A pipe would be empty for the server.
                "callers" if looks && Path::new(value).is_file() => {
                    // A document that does not load is told as a problem.
                    if let Ok(callers) = askers::load(Path::new(value)) {
                        for (caller, advice) in askers::unproved(&callers, has("client-ca")) {
                            let problem = format!("`{caller}` cannot prove who it is");
                            add("unproved-caller", setting, problem, advice);
                        }
                    }
                }
                "webhook-allow" => {
                    if let Some(what) = reaches(value) {
                        let problem = format!("events may be sent to {value}, which has {what}");
                        add(
                            "wide-webhooks",
                            setting,
                            problem,
                            "name the networks of your receivers only",
                        );
                    }
                }
                "otlp-endpoint" if value.starts_with("http://") && !is_local(value) => {
                    let problem =
                        format!("traces, which name identities, go to {value} in plain text");
                    add("plain-traces", setting, problem, "run a collector on this machine");
                }
                _ => {}
            }
        }
    }
    if let Some(trusted) = found("trust-issuer")
        && !has("token-audience")
        && !has("public-url")
    {
        let problem = "tokens have no audience that is this server's, so none is taken".to_owned();
        add("no-audience", trusted, problem, "give public-url or token-audience");
    }
    if looks
        && has("public-url")
        && let Some(data) = found("data")
    {
        let (of, folder) = match found("signing-keys") {
            Some(folder) => (folder, folder.values.first().map(PathBuf::from)),
            None => (data, data.values.first().map(|data| Path::new(data).join(KEYS))),
        };
        // A folder that cannot be read is told as a problem.
        let keys = folder.and_then(|folder| KeyFolder::new(folder).look(Clock::System.now()).ok());
        for key in keys.into_iter().flatten() {
            let why = key.key_id.err().unwrap_or_default();
            let problem = format!("{} is not used to sign: {why}", key.name);
            add("unused-key", of, problem, "mend it, or delete it");
        }
    }
    all.sort_by(|a, b| a.place.cmp(&b.place));
    all
}

/// Flags that are dangerous wherever they are.
const FLAGS: &[(&str, &str, &str, &str)] = &[
    (
        "insecure-plaintext",
        "insecure-plaintext",
        "what is asked and answered can be read and changed on its way",
        "give tls-cert and tls-key",
    ),
    (
        "insecure-plaintext-management",
        "insecure-plaintext",
        "credentials and changes can be read, and used, on their way",
        "give tls-cert and tls-key",
    ),
    (
        "insecure-open-decisions",
        "open-decisions",
        "whoever can reach the server may ask about every identity",
        "name who may ask: callers, or client-ca",
    ),
    (
        "insecure-trust-caller-header",
        "trusted-header",
        "every process of this machine can call as anybody",
        "have callers prove who they are: trust-issuer, client-ca, or pull tokens",
    ),
    (
        "reflection",
        "reflection",
        "whoever can connect can list the methods of the server",
        "leave it out, unless the tools of its users need it",
    ),
    ("demo", "demo", "everybody may read and change the demo", "serve a policy or a store"),
];

/// Whether an address can be reached by other machines.
fn is_open(value: &str) -> bool {
    value.parse::<SocketAddr>().is_ok_and(|address| !address.ip().to_canonical().is_loopback())
}

fn is_local(url: &str) -> bool {
    let authority = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
    authority.starts_with("localhost:")
        || authority.parse::<SocketAddr>().is_ok_and(|it| it.ip().is_loopback())
}

fn mode(path: &str) -> Option<u32> {
    std::fs::metadata(path).ok().map(|found| found.permissions().mode() & 0o777)
}

/// What a network has that no event should be sent to.
fn reaches(network: &str) -> Option<&'static str> {
    let network: ipnet::IpNet = network.parse().ok()?;
    let has = |address: [u8; 4]| network.contains(&std::net::IpAddr::from(address));
    if has([169, 254, 169, 254]) {
        return Some("the metadata of a cloud's machine");
    }
    let is_loopback = has([127, 0, 0, 1])
        || network.contains(&std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST));
    is_loopback.then_some("this machine's own services")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<&'static str> {
        let given = super::super::parse(text, &super::super::serve());
        assert_eq!(given.problems, [], "{text}");
        findings(&given.settings, true).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn what_is_dangerous_is_found() {
        let tls = "tls-cert = \"/c\"\ntls-key = \"/k\"\n";
        for (text, expected) in [
            ("data = \"/absent\"".to_owned(), &[][..]),
            ("listen = [\"127.0.0.1:1\", \"[::1]:1\", \"unix:/run/capstan/c.sock\"]".into(), &[]),
            ("listen = \"0.0.0.0:4480\"".into(), &["plain-text"]),
            ("http = \"192.0.2.1:4481\"".into(), &["plain-text"]),
            (format!("{tls}listen = \"[::]:4480\""), &[]),
            (format!("{tls}insecure-open-decisions = true"), &["open-decisions"]),
            (format!("{tls}client-ca = \"/ca\"\nlisten = \"[::]:4480\""), &[]),
            ("probes = \"0.0.0.0:4482\"".into(), &[]),
            ("listen = \"unix:/tmp/c.sock\"".into(), &["shared-folder"]),
            ("socket-mode = 666".into(), &["open-socket"]),
            ("socket-mode = \"660\"\nsocket-group = 0".into(), &[]),
            (
                "insecure-plaintext = true\nreflection = true\ndemo = true".into(),
                &["insecure-plaintext", "reflection", "demo"],
            ),
            ("insecure-plaintext = false\nreflection = false".into(), &[]),
            ("insecure-trust-caller-header = true".into(), &["trusted-header"]),
            (
                "webhook-allow = [\"10.1.0.0/16\", \"0.0.0.0/0\", \"127.0.0.0/8\", \"::/0\"]"
                    .into(),
                &["wide-webhooks"; 3],
            ),
            ("otlp-endpoint = \"http://collector:4317\"".into(), &["plain-traces"]),
            ("otlp-endpoint = \"http://127.0.0.1:4317\"".into(), &[]),
            ("trust-issuer = \"https://a.example,/keys\"".into(), &["no-audience"]),
            ("trust-issuer = \"https://a.example,/keys\"\ntoken-audience = \"x\"".into(), &[]),
        ] {
            assert_eq!(rules(&text), expected, "{text}");
        }
    }

    #[test]
    fn files_that_others_read_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("k.pem");
        std::fs::write(&key, "x").unwrap();
        let text = format!("tls-cert = \"/c\"\ntls-key = {key:?}\ndata = {:?}\n", folder.path());
        let of = |key_mode: u32, folder_mode: u32| {
            let set = |path: &std::path::Path, mode| {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            };
            set(&key, key_mode);
            set(folder.path(), folder_mode);
            rules(&text)
        };
        assert_eq!(of(0o600, 0o700), [""; 0]);
        assert_eq!(of(0o640, 0o700), ["readable-key"]);
        assert_eq!(of(0o604, 0o755), ["readable-key", "readable-store"]);
        let text = format!("data = \"/d\"\nsigning-keys = {:?}\n", folder.path());
        assert_eq!(rules(&text), ["readable-key"]);
    }
}
