//! `capstan auth login` at npm's oidc-provider, by its own pages, and calls to a server that believes it.

use std::path::Path;
use std::process::{Output, Stdio};

use capstan_testkit::https::Authority;
use serde_json::Value;
use tempfile::TempDir;

use super::Issuer;
use super::browser::Browser;
use crate::common::{Serving, capstan, command, stderr, stdout};
use crate::tokens::login::{Pending, within};
use crate::tokens::{AUDIENCE, serve};

/// An issuer, and a server that believes it and knows `ann` as a viewer.
struct People {
    folder: TempDir,
    authority: Authority,
    _issuer: Issuer,
    url: String,
    ann: String,
    server: Serving,
    addr: String,
}

impl People {
    fn start() -> Self {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::generate());
        let (certificate, key) = authority.certificate(&["127.0.0.1"], false);
        let write =
            |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        write("issuer.pem", certificate.pem());
        write("issuer.key", key.serialize_pem());
        write("ca.pem", authority.pem());
        let issuer = Issuer::start(folder.path(), 0);
        let url = issuer.url.clone();
        let data = folder.path().join("data").display().to_string();
        let made = capstan(&["init", "--data", &data, "--org", "acme", "--owner", "alice"]);
        assert!(made.status.success(), "{}", stderr(&made));
        let audiences = ["capstan", "brief", "secretive", AUDIENCE];
        let audiences = audiences.map(|audience| ["--token-audience", audience]).concat();
        let server = serve(folder.path(), &url, &audiences);
        let operator = server.address("management");
        let operate = |arguments: &[&str]| {
            let done = capstan(&[&["iam"], arguments, &["--addr", &operator]].concat());
            assert!(done.status.success(), "{arguments:?}: {}", stderr(&done));
            stdout(&done)
        };
        let ann =
            operate(&["identities", "lookup", "--issuer", &url, "--subject", "ann", "-o", "json"]);
        let ann: Value = serde_json::from_str(&ann).unwrap();
        let ann = ann["id"].as_str().unwrap().to_owned();
        let claims = format!("issuer={url},subject=ann");
        operate(&["identities", "create", &ann, "--claim-match", &claims]);
        let binding = ["--identity", &ann, "--role", "viewer", "--group", "acme"];
        operate(&[&["role-bindings", "create"], &binding[..]].concat());
        let addr = format!("http://{}", server.address("grpc"));
        Self { folder, authority, _issuer: issuer, url, ann, server, addr }
    }

    fn config(&self) -> &Path {
        self.folder.path()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        within(self.config(), &[arguments, &["--addr", &self.addr]].concat())
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.done(&[arguments, &["-o", "json"]].concat())).unwrap()
    }

    /// Begins a login, and waits for a line that begins so.
    fn begin(&self, arguments: &[&str], line: &str) -> Pending {
        let ca = self.folder.path().join("ca.pem").display().to_string();
        let fixed = ["auth", "login", "--issuer", &self.url, "--ca", &ca, "--addr", &self.addr];
        Pending::start(self.config(), &[&fixed, arguments].concat(), line)
    }

    /// Logs in by the browser.
    async fn log_in(&self, name: &'static str, arguments: &[&str]) -> String {
        let pending = self.begin(&[&["--no-browser"], arguments].concat(), "https://");
        let page =
            Browser::of(name, &self.authority).go(&format!("https://{}", pending.found)).await;
        assert!(page.contains("goes on in the terminal"), "{page}");
        done(pending)
    }

    /// Who the server says that calls.
    fn who(&self) -> String {
        self.json(&["auth", "whoami"])["identity"].as_str().unwrap().to_owned()
    }

    fn login(&self) -> Value {
        let mut status = self.json(&["auth", "status"]);
        status["logins"][0].take()
    }
}

/// What a login that succeeds says at last.
fn done(pending: Pending) -> String {
    let (code, said) = pending.end();
    assert_eq!(code, Some(0), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_logs_in_by_the_browser() {
    let people = People::start();
    let said = people.log_in("ann", &["--client-id", "capstan"]).await;
    assert!(said.contains("as `ann@people.example` of https://127.0.0.1:"), "{said}");
    assert!(said.contains("refreshed by itself"), "{said}");
    assert_eq!(people.who(), people.ann);
    let login = people.login();
    assert_eq!((&login["subject"], &login["email"]), (&"ann".into(), &"ann@people.example".into()));
    assert_eq!((&login["refreshable"], &login["valid"]), (&true.into(), &true.into()));
    // Other commands, and the token for other programs.
    assert!(people.done(&["iam", "groups", "list"]).contains("acme"));
    assert!(people.done(&["iam", "tree", "acme"]).contains("viewer"));
    let token = people.done(&["auth", "token"]);
    assert_eq!(token.trim().split('.').count(), 3);
    let file = people.folder.path().join("token");
    std::fs::write(&file, token).unwrap();
    let by_file = ["auth", "whoami", "--token-file", file.to_str().unwrap(), "-o", "json"];
    let nobody =
        within(Path::new("/nonexistent"), &[&by_file[..], &["--addr", &people.addr]].concat());
    assert!(stdout(&nobody).contains(&people.ann), "{}", stderr(&nobody));
    // The operator's socket takes no login.
    let socket = people.server.address("management");
    let operator = within(people.config(), &["auth", "whoami", "--addr", &socket]);
    assert!(stdout(&operator).contains("the operator"), "{}", stderr(&operator));
    // Again, with what is kept, as somebody else.
    let again = Pending::start(
        people.config(),
        &["auth", "login", "--no-browser", "--addr", &people.addr],
        "https://",
    );
    let page = Browser::of("bob", &people.authority).go(&format!("https://{}", again.found)).await;
    assert!(page.contains("terminal"), "{page}");
    done(again);
    assert_eq!(people.login()["subject"], "bob");
    let unknown = people.run(&["auth", "whoami"]);
    assert!(stderr(&unknown).contains("AUTHN_FAILED"), "nobody registered bob");
    // The issuer revokes the refresh token.
    let out = people.json(&["auth", "logout"]);
    assert_eq!(out["logged_out"][0]["revoked"], true, "{out}");
    assert_eq!(people.run(&["auth", "status"]).status.code(), Some(1));
    let nobody = people.run(&["auth", "whoami"]);
    assert!(stderr(&nobody).contains("capstan auth login"), "{}", stderr(&nobody));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_logs_in_on_another_device() {
    let people = People::start();
    let pending = people.begin(&["--client-id", "capstan", "--device"], "or at once at https://");
    let page =
        Browser::of("ann", &people.authority).go(&format!("https://{}", pending.found)).await;
    assert!(page.contains("Sign-in Success"), "{page}");
    assert!(done(pending).contains("ann@people.example"));
    assert_eq!(people.who(), people.ann);
}

/// The ID tokens of `brief` are over soon, and its issuer ends a login whose refresh token is used twice.
#[tokio::test(flavor = "multi_thread")]
async fn commands_that_refresh_at_once_lose_no_token() {
    let people = People::start();
    people.log_in("ann", &["--client-id", "brief"]).await;
    let refresh_token = || {
        let text = std::fs::read_to_string(people.config().join("capstan/logins.toml")).unwrap();
        text.lines().find(|line| line.starts_with("refresh-token = ")).unwrap().to_owned()
    };
    let first = refresh_token();
    people.done(&["auth", "token"]);
    let second = refresh_token();
    assert_ne!(first, second, "it is rotated");
    let run = || {
        let arguments = ["auth", "whoami", "-o", "json", "--addr", &people.addr];
        let mut command = command(&arguments);
        command.env("XDG_CONFIG_HOME", people.config());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let together: Vec<_> = (0..6).map(|_| run()).collect();
    for process in together {
        let output = process.wait_with_output().unwrap();
        assert!(stdout(&output).contains(&people.ann), "{}", stderr(&output));
    }
    assert_ne!(refresh_token(), second);
    assert_eq!(people.who(), people.ann);
    assert_eq!(people.login()["email"], "ann@people.example");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_secret_and_an_access_token_for_the_server() {
    use std::os::unix::fs::PermissionsExt as _;
    let people = People::start();
    let file = people.folder.path().join("client.secret");
    std::fs::write(&file, "s%cret:\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let resource = format!("urn:ES256:{AUDIENCE}");
    let said = people
        .log_in(
            "ann",
            &[
                "--client-id",
                "secretive",
                "--client-secret-file",
                file.to_str().unwrap(),
                "--use",
                "access-token",
                "--scope",
                "openid offline_access api",
                "--resource",
                &resource,
            ],
        )
        .await;
    assert!(said.contains("as `ann` of"), "no scope for the address: {said}");
    assert_eq!(people.who(), people.ann);
    assert_eq!(people.login()["use"], "access-token");
}
