//! What `capstan config check` finds in the files that a configuration names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Output;

use capstan_testkit::https::Authority;

use crate::common::{Serving, capstan, command, folder, stderr, stdout};

/// Keys of an issuer: that of RFC 8037, appendix A.2.
const KEYS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
const CATALOG: &str = "name: mine\nresources:\n  - name: things\n    actions: [list]\nroles: []\n";
const ROUTES: &str = "version: 1\nidentity: [credential]\nroutes:\n  - name: all\n    methods: [GET]\n    path: /\n    require:\n      - {capability: repo.list, resource: acme}\n";

/// A folder with a store and every file that a configuration can name, all of them right.
struct World {
    folder: PathBuf,
    authority: Authority,
}

impl World {
    fn new(name: &str) -> Self {
        let folder = folder(name);
        let world = Self { folder, authority: Authority::generate() };
        let (certificate, key) = world.authority.certificate(&["localhost"], false);
        for (name, text) in [
            ("server.pem", certificate.pem()),
            ("server.key", key.serialize_pem()),
            ("ca.pem", world.authority.pem()),
            ("list.pem", world.authority.revoking(&[1], false)),
            ("keys.json", KEYS.into()),
            ("policy.yaml", include_str!("../../../../../deploy/quickstart/policy.yaml").into()),
            ("catalog.yaml", CATALOG.into()),
            ("callers.yaml", "{version: 1, callers: []}".into()),
            ("routes.yaml", ROUTES.into()),
            ("noise", "? no document: [of any kind".into()),
            ("decisions.ndjson", String::new()),
        ] {
            world.write(name, &text, 0o600);
        }
        let data = world.path("data");
        let made = capstan(&["init", "--data", &data, "--org", "acme", "--owner", "alice"]);
        assert!(made.status.success(), "{}", stderr(&made));
        let made = capstan(&["keys", "rotate", "--folder", &world.path("keys")]);
        assert!(made.status.success(), "{}", stderr(&made));
        for (name, mode) in [("open", 0o777), ("noise-store", 0o700), ("noise-keys", 0o700)] {
            std::fs::create_dir(world.folder.join(name)).unwrap();
            set_mode(&world.folder.join(name), mode);
        }
        world.write("noise-store/store.redb", "SQLite format 3", 0o600);
        world.write("noise-keys/20260101T000000Z.pem", "no key", 0o600);
        world
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        std::fs::write(self.folder.join(name), text).unwrap();
        set_mode(&self.folder.join(name), mode);
    }

    /// Every option that names a file, with the one of this folder: `DIR` stands for the folder.
    fn settings(&self, source: &str) -> BTreeMap<&'static str, String> {
        let of_store = [
            ("data", "DIR/data"),
            ("management", "unix:operator.sock"),
            ("trust-issuer", "https://issuer.example,DIR/keys.json"),
            ("public-url", "https://capstan.example"),
            ("signing-keys", "DIR/keys"),
            ("webhook-ca", "DIR/ca.pem"),
        ];
        let of_policy = [("policy", "DIR/policy.yaml"), ("catalog", "DIR/catalog.yaml")];
        let both = [
            ("listen", "unix:grpc.sock"),
            ("listen-management", "unix:manage.sock"),
            ("http", "127.0.0.1:0"),
            ("tls-cert", "DIR/server.pem"),
            ("tls-key", "DIR/server.key"),
            ("client-ca", "DIR/ca.pem"),
            ("client-crl", "DIR/list.pem"),
            ("callers", "DIR/callers.yaml"),
            ("routes", "DIR/routes.yaml"),
            ("decision-log", "DIR/decisions.ndjson"),
        ];
        let special = if source == "data" { &of_store[..] } else { &of_policy };
        let all = special.iter().chain(&both);
        all.map(|(key, value)| (*key, self.filled(value))).collect()
    }

    fn filled(&self, value: &str) -> String {
        value.replace("DIR", self.folder.to_str().unwrap())
    }

    /// Checks a file of these settings, one a line in the order of their names.
    fn check(&self, settings: &BTreeMap<&'static str, String>, more: &[&str]) -> Output {
        let file = self.configuration(settings);
        // Sockets have short paths so, and ones that are beneath no folder of everybody.
        let mut check = command(&[&["config", "check", &file], more].concat());
        check.current_dir(&self.folder).output().unwrap()
    }

    fn configuration(&self, settings: &BTreeMap<&'static str, String>) -> String {
        let lines = settings.iter().map(|(key, value)| format!("{key} = {value:?}\n"));
        self.write("capstan.toml", &lines.collect::<String>(), 0o600);
        self.path("capstan.toml")
    }

    /// What is in the folder, and when it was changed last.
    fn state(&self) -> BTreeSet<String> {
        let listed = std::process::Command::new("find")
            .arg(&self.folder)
            .args(["!", "-name", "capstan.toml", "-mindepth", "1", "-printf", "%p %m %s %C@\n"])
            .output()
            .unwrap();
        stdout(&listed).lines().map(str::to_owned).collect()
    }
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// What each option that names a file can name in vain, and what is said of it. The feed with which it is checked is that in which it counts.
const WRONG: &[(&str, &str, &str, &str)] = &[
    ("policy", "policy", "DIR/absent", "cannot read"),
    ("policy", "policy", "DIR", "cannot read"),
    ("policy", "policy", "DIR/noise", "DIR/noise:1:"),
    ("policy", "catalog", "DIR/absent", "no catalog and no file is named"),
    ("policy", "catalog", "DIR/noise", "DIR/noise:1:"),
    ("data", "data", "DIR/absent", "there is no store in"),
    ("data", "data", "DIR/noise", "is a file, not a directory"),
    ("data", "data", "DIR/open", "may be changed by other users"),
    ("data", "data", "DIR/noise-store", "is not a store of Capstan"),
    ("data", "management", "unix:absent/o.sock", "cannot listen on unix:absent/o.sock"),
    ("data", "management", "unix:noise", "is no socket"),
    ("data", "listen", "unix:absent/g.sock", "cannot listen on unix:absent/g.sock"),
    ("data", "listen", "unix:noise", "is no socket"),
    ("data", "listen-management", "unix:absent/m.sock", "cannot listen on"),
    ("data", "listen-management", "unix:noise", "is no socket"),
    ("data", "tls-cert", "DIR/absent", "DIR/absent: No such file"),
    ("data", "tls-cert", "DIR/noise", "no certificate in PEM"),
    ("data", "tls-cert", "DIR/ca.pem", "DIR/ca.pem and DIR/server.key"),
    ("data", "tls-key", "DIR/absent", "DIR/absent: No such file"),
    ("data", "tls-key", "DIR/noise", "no private key in PEM"),
    ("data", "tls-key", "DIR/world.key", "everybody may read the private key"),
    ("data", "client-ca", "DIR/absent", "DIR/absent: No such file"),
    ("data", "client-ca", "DIR/noise", "no certificate in PEM"),
    ("data", "client-crl", "DIR/absent", "DIR/absent: No such file"),
    ("data", "client-crl", "DIR/noise", "no list of revoked certificates"),
    ("data", "trust-issuer", "https://issuer.example,DIR/absent", "keys of DIR/absent: No such"),
    ("data", "trust-issuer", "https://issuer.example,DIR/noise", "no JSON"),
    ("data", "callers", "DIR/absent", "cannot read"),
    ("data", "callers", "DIR/noise", "DIR/noise:1:"),
    ("data", "routes", "DIR/absent", "cannot read"),
    ("data", "routes", "DIR/noise", "DIR/noise:1:"),
    // Only a policy says here which capabilities there are.
    ("policy", "routes", "DIR/unknown.yaml", "nothing.list"),
    ("data", "decision-log", "DIR/absent/log", "cannot open the decision log"),
    ("data", "decision-log", "DIR", "cannot open the decision log"),
    ("data", "signing-keys", "DIR/open", "others can put keys there"),
    ("data", "signing-keys", "DIR/noise", "signing keys in DIR/noise"),
    ("data", "signing-keys", "DIR/nowhere", "no key signs, and none can be made"),
    ("data", "webhook-ca", "DIR/absent", "authorities DIR/absent: No such file"),
    ("data", "webhook-ca", "DIR/noise", "expected certificates in PEM"),
];

/// Options with a value that names no file.
const NO_FILES: &[&str] = &[
    "audit-records",
    "drain-delay-ms",
    "http",
    "max-document-bytes",
    "max-in-flight",
    "otlp-endpoint",
    "otlp-sample-ratio",
    "probes",
    "public-url",
    "quota-caller-changes",
    "quota-caller-objects",
    "quota-organization-changes",
    "quota-organization-objects",
    "rotate-keys",
    "runtime",
    "socket-group",
    "socket-mode",
    "token-audience",
    "trust-algorithms",
    "webhook-allow",
    "workers",
];

fn wrong_world(name: &str) -> World {
    let world = World::new(name);
    let key = std::fs::read_to_string(world.folder.join("server.key")).unwrap();
    world.write("world.key", &key, 0o604);
    std::os::unix::fs::symlink("none/at/all", world.folder.join("nowhere")).unwrap();
    world.write("unknown.yaml", &ROUTES.replace("repo.list", "nothing.list"), 0o600);
    world
}

#[test]
fn each_file_that_is_wrong_is_told_with_the_place_that_names_it() {
    let world = wrong_world("cf-each");
    let before = world.state();
    for source in ["data", "policy"] {
        let right = world.check(&world.settings(source), &[]);
        let said = stdout(&right) + &stderr(&right);
        assert_eq!(right.status.code(), Some(0), "{said}");
        assert!(said.contains("nothing dangerous"), "{said}");
    }
    for (source, option, value, expected) in WRONG {
        let mut settings = world.settings(source);
        settings.insert(option, world.filled(value));
        let found = world.check(&settings, &[]);
        let said = stderr(&found);
        assert_eq!(found.status.code(), Some(2), "{option} {value}: {}{said}", stdout(&found));
        let line = settings.keys().position(|key| key == option).unwrap() + 1;
        let place = format!("\n{}:{line}:1: ", world.path("capstan.toml"));
        assert!(said.contains(&place), "{option} {value}: {place}: {said}");
        assert!(said.contains(&world.filled(expected)), "{option} {value}: {expected}: {said}");
        assert!(said.contains("the configuration has a problem:"), "{option} {value}: {said}");
        // Of another machine nothing is known.
        let elsewhere = world.check(&settings, &["--no-files"]);
        let said = stdout(&elsewhere) + &stderr(&elsewhere);
        assert_eq!(elsewhere.status.code(), Some(0), "{option} {value}: {said}");
    }
    assert_eq!(world.state(), before, "it changes nothing");
}

/// An option that is new stands in one of the tables.
#[test]
fn every_option_that_names_a_file_is_looked_into() {
    let help = stdout(&capstan(&["serve", "--help"]));
    let lines = help.lines().filter_map(|line| line.trim_start().strip_prefix("--"));
    let with_value = lines.filter(|line| line.contains(" <"));
    let with_value = with_value.filter_map(|line| line.split([' ', ',']).next());
    // What every command has, and what names the file itself.
    let global = ["context", "ca", "cert", "key", "server-name", "config"];
    let options: BTreeSet<&str> = with_value.filter(|name| !global.contains(name)).collect();
    let tables: BTreeSet<&str> =
        WRONG.iter().map(|(_, option, _, _)| *option).chain(NO_FILES.iter().copied()).collect();
    assert!(options.len() > 30, "{options:?}");
    assert_eq!(options, tables);
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let world = wrong_world("cf-all");
    let mut settings = world.settings("data");
    // Of each option the first row.
    for (_, option, value, _) in WRONG.iter().rev().filter(|(source, ..)| *source == "data") {
        settings.insert(option, world.filled(value));
    }
    settings.extend([("policy", world.path("absent")), ("insecure-plaintext", "yes".into())]);
    settings.insert("otlp-endpoint", "collector".into());
    let said = stderr(&world.check(&settings, &[]));
    for (line, key) in settings.keys().enumerate() {
        let place = format!("{}:{}:", world.path("capstan.toml"), line + 1);
        let is_right = ["http", "public-url"].contains(key);
        assert_ne!(said.contains(&place), is_right, "{key}: {said}");
    }
    let at = |key| settings.keys().position(|other| *other == key).unwrap() + 1;
    let file = world.path("capstan.toml");
    let both = format!(
        "{file}:{}:1: policy cannot be used with data ({file}:{}:1)",
        at("policy"),
        at("data")
    );
    let reversed = format!(
        "{file}:{}:1: data cannot be used with policy ({file}:{}:1)",
        at("data"),
        at("policy")
    );
    assert!(said.contains(&both) || said.contains(&reversed), "{said}");
}

/// A server that runs with a file is not disturbed by a look at it, and what it has open is not in the way.
#[test]
fn a_running_server_is_not_disturbed() {
    let world = World::new("cf-runs");
    let mut settings = world.settings("data");
    for key in ["callers", "client-ca", "client-crl"] {
        settings.remove(key);
    }
    let file = world.configuration(&settings);
    let mut serve = command(&["serve", "--config", &file]);
    let server = Serving::spawn(serve.current_dir(&world.folder), 4);
    let addr = format!("unix:{}", world.path("operator.sock"));
    let asks = || capstan(&["iam", "tree", "acme", "--addr", &addr]).status.code();
    assert_eq!(asks(), Some(0), "{:?}", server.lines);
    let before = world.state();
    let looked = world.check(&settings, &[]);
    assert_eq!(looked.status.code(), Some(0), "{}{}", stdout(&looked), stderr(&looked));
    assert_eq!(world.state(), before);
    assert_eq!(asks(), Some(0));
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0), "{log}");
}

/// Settings of the file, of the environment and of the command line that do not fit, each with its place.
#[test]
fn conflicts_name_both_settings_with_their_places() {
    let world = World::new("cf-both");
    let settings = BTreeMap::from([
        ("client-ca", world.path("ca.pem")),
        ("policy", world.path("policy.yaml")),
        ("tls-cert", world.path("server.pem")),
        ("tls-key", world.path("server.key")),
    ]);
    let file = world.configuration(&settings);
    let issuer = "https://issuer.example";
    for (words, variable, expected) in [
        (
            &["--signing-keys", "k", "--public-url", issuer][..],
            None,
            &["--signing-keys: signing-keys cannot be used with policy (FILE:2:1)"][..],
        ),
        (
            &[],
            Some(("CAPSTAN_SERVE_TRUST_ISSUER", issuer)),
            &["CAPSTAN_SERVE_TRUST_ISSUER: trust-issuer cannot be used with policy (FILE:2:1)"],
        ),
        (
            &["--insecure-plaintext"],
            Some(("CAPSTAN_SERVE_WEBHOOK_CA", "f")),
            &[
                "--insecure-plaintext: insecure-plaintext cannot be used with client-ca (FILE:1:1)",
                "--insecure-plaintext: insecure-plaintext cannot be used with tls-cert (FILE:3:1)",
                "--insecure-plaintext: insecure-plaintext cannot be used with tls-key (FILE:4:1)",
                "CAPSTAN_SERVE_WEBHOOK_CA: webhook-ca cannot be used with policy (FILE:2:1)",
                "CAPSTAN_SERVE_WEBHOOK_CA: webhook-ca needs public-url",
            ],
        ),
    ] {
        let mut serve = command(&[&["serve", "--config", &file], words].concat());
        serve.envs(variable);
        let said = serve.output().unwrap();
        assert_eq!(said.status.code(), Some(2));
        let said = stderr(&said).replace(&file, "FILE");
        let mut found: Vec<_> = said.lines().skip(1).collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{said}");
    }
    // What a server itself says of its settings.
    let text = std::fs::read_to_string(&file).unwrap();
    world.write("capstan.toml", &format!("{text}insecure-trust-caller-header = true\n"), 0o600);
    let mut check = command(&["config", "check", &file]);
    let said = check.env("CAPSTAN_SERVE_LISTEN", "0.0.0.0:1").output().unwrap();
    let said = stderr(&said).replace(&file, "FILE");
    for expected in [
        "FILE:5:1: 0.0.0.0:1 can be reached by other machines",
        "beside listen (CAPSTAN_SERVE_LISTEN)",
        "FILE:1:1: --client-ca proves who calls",
        "beside insecure-trust-caller-header (FILE:5:1)",
        "has 2 problems",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

/// A file of the folder of keys that is no key does not keep a server from starting. It signs with another one.
#[test]
fn keys_that_are_not_used_are_told() {
    let world = World::new("cf-keys");
    let mut settings = world.settings("data");
    settings.insert("signing-keys", world.path("noise-keys"));
    let found = world.check(&settings, &[]);
    let said = stdout(&found);
    assert_eq!(found.status.code(), Some(1), "{said}{}", stderr(&found));
    assert!(said.contains("unused-key: 20260101T000000Z.pem is not used to sign"), "{said}");
    let key = std::fs::read_dir(world.folder.join("keys")).unwrap().next().unwrap().unwrap().path();
    set_mode(&key, 0o644);
    settings.insert("signing-keys", world.path("keys"));
    let found = world.check(&settings, &[]);
    let said = stdout(&found);
    assert!(said.contains("unused-key") && said.contains("644"), "{said}{}", stderr(&found));
    assert_eq!(world.check(&settings, &["--no-files"]).status.code(), Some(0));
}

/// A document may name callers whom nothing can prove, as the server is configured.
#[test]
fn callers_that_cannot_prove_themselves_are_told() {
    let world = World::new("cf-unproved");
    let callers = world.folder.join("named.yaml");
    let document = "{version: 1, callers: [{name: web, dns_name: web.example, methods: [check]}]}";
    std::fs::write(&callers, document).unwrap();
    let mut settings = world.settings("policy");
    settings.insert("callers", callers.display().to_string());
    assert_eq!(world.check(&settings, &[]).status.code(), Some(0), "by a certificate");
    settings.retain(|key, _| !key.starts_with("client-"));
    let found = world.check(&settings, &[]);
    let said = stdout(&found);
    assert_eq!(found.status.code(), Some(1), "{said}{}", stderr(&found));
    assert!(said.contains("unproved-caller: `web` cannot prove who it is"), "{said}");
    assert!(said.contains("give --client-ca"), "{said}");
    std::fs::write(&callers, "{version: 1, callers: []}").unwrap();
    assert_eq!(world.check(&settings, &[]).status.code(), Some(0));
}
