//! `capstan auth login` and the kept logins, with an issuer that does what none should.

mod fake;

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use capstan_testkit::https::{Authority, Reply};
use serde_json::{Value, json};

use fake::{Fake, Instead, SERVER};
pub(super) use fake::{Pending, within};

use super::{World, now, with};
use crate::command_limits::{LOGIN_BODY_BYTES_MAX, LOGIN_REQUEST_TIME_MAX};
use crate::common::{PATIENCE, command, stderr, stdout};

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_not_as_it_must_be_is_refused() {
    let fake = Fake::start().await;
    let url = fake.url();
    let cases: [(&'static str, Value, &str); 7] = [
        ("issuer", format!("{url}/").into(), "is of the issuer"),
        ("issuer", "https://other.example".into(), "is of the issuer `https://other.example`"),
        ("issuer", Value::Null, "no discovery document"),
        ("authorization_endpoint", Value::Null, "has no `authorization_endpoint`"),
        ("authorization_endpoint", "http://127.0.0.1:1/auth".into(), "expected https://"),
        ("authorization_endpoint", "https://a:b@c.example".into(), "does not belong in a URL"),
        ("code_challenge_methods_supported", json!(["plain"]), "no PKCE with S256"),
    ];
    for (name, value, said) in cases {
        fake.change(|state| state.document = vec![(name, value)]);
        let error = fake.refused(&["--no-browser"]);
        assert!(error.contains(said), "{name}: {error}");
    }
    let answers: [(Instead, &str); 4] = [
        (
            || Reply::status(302, "location: https://other.example/x?secret\r\n"),
            "it redirects (302) to `https://other.example/x`",
        ),
        (|| Reply::status(404, ""), "answers 404"),
        (|| Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]"), "no discovery document"),
        (
            || {
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                    LOGIN_BODY_BYTES_MAX + 1
                );
                Reply::raw(head + &" ".repeat(LOGIN_BODY_BYTES_MAX + 1))
            },
            "longer than 262144 bytes",
        ),
    ];
    for (instead, said) in answers {
        fake.change(|state| state.instead = Some(instead));
        let error = fake.refused(&["--no-browser"]);
        assert!(error.contains(said), "{error}");
    }
    // What is not asked at all.
    let asked = fake.server.requests().len();
    for (issuer, more, said) in [
        ("http://issuer.example", &[][..], "expected https://"),
        (&*url, &["--addr", "http://capstan.example:4480"], "plain text"),
        (&url, &["--addr", "unix:/run/x"], "needs no login"),
        (&url, &["--scope", "email"], "--scope needs openid"),
        (&url, &["--server-name", "x"], "about the server"),
    ] {
        let fixed = ["auth", "login", "--client-id", "cli", "--issuer", issuer];
        let addr = if more.contains(&"--addr") { &[][..] } else { &["--addr", SERVER] };
        let output = within(fake.folder.path(), &[&fixed, addr, more].concat());
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
    for unused in ["status", "token", "logout"] {
        let output = within(fake.folder.path(), &["auth", unused, "--addr", SERVER, "--ca", "x"]);
        assert!(
            stderr(&output).contains(&format!("`auth {unused}` does not")),
            "{}",
            stderr(&output)
        );
    }
    let nobody = within(fake.folder.path(), &["auth", "login", "--addr", SERVER]);
    assert!(stderr(&nobody).contains("give --issuer and --client-id"), "{}", stderr(&nobody));
    // Of an authority that is not trusted.
    let untrusted = ["auth", "login", "--client-id", "cli", "--issuer", &url, "--addr", SERVER];
    let untrusted = within(fake.folder.path(), &untrusted);
    assert!(stderr(&untrusted).contains("give --ca"), "{}", stderr(&untrusted));
    assert_eq!(fake.server.requests().len(), asked);
}

/// An issuer on this machine needs no certificate.
#[test]
fn an_issuer_on_this_machine_is_asked_in_plain_text() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let document = json!({"issuer": issuer, "authorization_endpoint": format!("{issuer}/auth")});
    let document = document.to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        lines.find(|line| line.as_ref().unwrap().is_empty());
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", document.len());
        stream.write_all((head + &document).as_bytes()).unwrap();
    });
    let client = ["--issuer", &issuer, "--client-id", "cli", "--addr", SERVER, "--no-browser"];
    let arguments = [&["auth", "login"], &client[..]].concat();
    let pending = Pending::start(folder.path(), &arguments, &format!("{issuer}/auth?"));
    assert!(pending.found.contains("code_challenge_method=S256"), "{}", pending.found);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_never_answers_is_not_waited_for() {
    let fake = Fake::start().await;
    fake.change(|state| state.instead = Some(|| Reply::raw("").hang()));
    let error = fake.refused(&["--no-browser"]);
    assert!(error.contains(&format!("no answer within {LOGIN_REQUEST_TIME_MAX:?}")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_answer_to_this_login_counts() {
    let fake = Fake::start().await;
    // A wrong state is refused, and the wait goes on.
    let login = fake.begin();
    for query in ["code=c&state=guess", "code=c", "error=access_denied&state=guess"] {
        assert!(login.back(query).starts_with("HTTP/1.1 400 "), "{query}");
    }
    assert!(fake.forms("/token").is_empty());
    login.back_with("error=access_denied&error_description=no%1b[2J");
    let (code, said) = login.end();
    assert_eq!(code, Some(2));
    assert!(said.contains("the issuer refuses: `access_denied`: `no\\u{1b}[2J`"), "{said}");
    assert_eq!(said.matches("not of this login").count(), 3, "{said}");
    // Another issuer's answer, or that of one which should name itself.
    let login = fake.begin();
    login.back_with("code=c0de&iss=https://other.example");
    assert!(login.end().1.contains("from the issuer `https://other.example`"));
    fake.change(|state| {
        state.document = vec![("authorization_response_iss_parameter_supported", true.into())];
    });
    let login = fake.begin();
    login.back_with("code=c0de");
    assert!(login.end().1.contains("from the issuer ``"));
    fake.change(|state| state.document.clear());
    assert!(fake.forms("/token").is_empty());
    // ID tokens that are not of this login.
    let cases: [(&str, Value, &str); 8] = [
        ("nonce", "other".into(), "nonce"),
        ("nonce", Value::Null, "nonce"),
        ("iss", "https://other.example".into(), "of the issuer"),
        ("aud", json!(["other"]), "not for the client"),
        ("exp", (now() - 3600).into(), "clock"),
        ("exp", Value::Null, "malformed or incomplete"),
        ("sub", "".into(), "no subject"),
        ("sub", Value::Null, "malformed or incomplete"),
    ];
    for (name, value, said) in cases {
        let login = fake.begin();
        let nonce = login.parameter("nonce");
        let token = fake.id_token(|claims| with(with(claims, "nonce", nonce), name, value));
        fake.change(|state| state.tokens = [json!({"id_token": token})].into());
        login.back_with("code=c0de");
        let (code, error) = login.end();
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains(said), "{said}: {error}");
    }
    for (tokens, said) in [
        (json!({"access_token": "a"}), "no ID token"),
        (json!({"error": "invalid_client"}), "`invalid_client`"),
        (json!({"id_token": 7}), "malformed or incomplete"),
        (json!({"id_token": "opaque"}), "no signed token"),
    ] {
        fake.change(|state| state.tokens = [tokens].into());
        let login = fake.begin();
        login.back_with("code=c0de");
        let (_, error) = login.end();
        assert!(error.contains(said), "{error}");
    }
    assert!(!kept(&fake).exists());
}

fn kept(fake: &Fake) -> PathBuf {
    fake.folder.path().join("capstan/logins.toml")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_kept_for_its_owner_alone() {
    let fake = Fake::start().await;
    let login = fake.begin();
    let nonce = login.parameter("nonce");
    assert_eq!(login.parameter("code_challenge_method"), "S256");
    assert_eq!(login.parameter("scope"), "openid offline_access");
    assert_eq!(login.parameter("prompt"), "consent");
    let token = fake.id_token(|claims| with(claims, "nonce", nonce));
    let tokens = json!({"id_token": token, "refresh_token": "r3fresh"});
    fake.change(|state| state.tokens = [tokens].into());
    login.back_with("code=c0de");
    let (code, said) = login.end();
    assert_eq!(code, Some(0), "{said}");
    let form = &fake.forms("/token")[0];
    for part in ["grant_type=authorization_code", "code=c0de", "client_id=cli", "code_verifier="] {
        assert!(form.contains(part), "{form}");
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&kept(&fake)), 0o600);
    assert_eq!(mode(kept(&fake).parent().unwrap()), 0o700);
    let run =
        |arguments: &[&str]| within(fake.folder.path(), &[arguments, &["--addr", SERVER]].concat());
    assert_eq!(stdout(&run(&["auth", "token"])).trim(), token);
    for format in ["table", "json"] {
        let status = run(&["auth", "status", "-o", format]);
        assert_eq!(status.status.code(), Some(0));
        let text = stdout(&status);
        assert!(text.contains("ann") && text.contains(SERVER), "{text}");
        assert!(!text.contains(&token) && !text.contains("r3fresh"), "{text}");
    }
    let other = within(fake.folder.path(), &["auth", "status", "--addr", "https://b.example:1"]);
    assert_eq!(other.status.code(), Some(1));
    // Others can read it: nothing is read.
    fs::set_permissions(kept(&fake), Permissions::from_mode(0o640)).unwrap();
    for arguments in
        [&["auth", "status"][..], &["auth", "token"], &["auth", "whoami"], &["auth", "logout"]]
    {
        let refused = run(arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        let said = format!("chmod 600 {}", kept(&fake).display());
        assert!(stderr(&refused).contains(&said), "{}", stderr(&refused));
    }
    fs::set_permissions(kept(&fake), Permissions::from_mode(0o600)).unwrap();
    // The issuer does not revoke: that is a warning.
    fake.change(|state| state.revocation = 503);
    let out = run(&["auth", "logout"]);
    assert_eq!(out.status.code(), Some(0));
    assert!(stderr(&out).contains("warning: the refresh token of"), "{}", stderr(&out));
    assert_eq!(
        fake.forms("/revoke"),
        ["token=r3fresh&token_type_hint=refresh_token&client_id=cli"]
    );
    assert!(!fs::read_to_string(kept(&fake)).unwrap().contains("r3fresh"));
    assert!(stderr(&run(&["auth", "token"])).contains("capstan auth login"));
    assert!(stderr(&run(&["auth", "logout"])).contains("there was no login"));
}

/// The program that opens pages gets the URL.
#[tokio::test(flavor = "multi_thread")]
async fn the_browser_is_opened() {
    let fake = Fake::start().await;
    let folder = fake.folder.path();
    let program = folder.join("bin/xdg-open");
    fs::create_dir(folder.join("bin")).unwrap();
    let to = folder.join("opened");
    fs::write(
        &program,
        format!("#!/bin/sh\nprintf %s \"$1\" > {0}.new && mv {0}.new {0}\n", to.display()),
    )
    .unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let (url, ca) = (fake.url(), fake.ca());
    let path = format!("{}:/usr/bin:/bin", folder.join("bin").display());
    let mut process = command(&fake.arguments(&url, &ca, &[]))
        .env("XDG_CONFIG_HOME", folder)
        .env("PATH", path)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut says = BufReader::new(process.stderr.take().unwrap()).lines();
    let said = says.find_map(|line| line.unwrap().starts_with("https://").then_some(())).is_some();
    let start = std::time::Instant::now();
    while !to.exists() {
        assert!(said && start.elapsed() < PATIENCE, "nothing is opened");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let opened = fs::read_to_string(&to).unwrap();
    assert!(opened.starts_with(&format!("{url}/auth?response_type=code&")), "{opened}");
    process.kill().unwrap();
    process.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_waits_as_the_issuer_says() {
    let fake = Fake::start().await;
    let device = json!({"device_code": "d3vice", "user_code": "AB-CD", "expires_in": 60, "interval": 1,
        "verification_uri": "https://a.example/device"});
    let run = |device: Value, tokens: Vec<Value>| {
        fake.change(|state| (state.device, state.tokens) = (device, tokens.into()));
        let (url, ca) = (fake.url(), fake.ca());
        within(fake.folder.path(), &fake.arguments(&url, &ca, &["--device"]))
    };
    let pending = json!({"error": "authorization_pending"});
    let done = json!({"id_token": fake.id_token(|claims| claims)});
    let login = run(device.clone(), vec![pending.clone(), done]);
    assert!(login.status.success(), "{}", stderr(&login));
    let said = stderr(&login);
    assert!(said.contains("https://a.example/device") && said.contains("the code AB-CD"), "{said}");
    assert!(said.contains("then log in again"), "{said}");
    assert_eq!(fake.forms("/token").len(), 2);
    assert!(fake.forms("/token")[1].contains("device_code=d3vice"));
    for (error, said) in [
        ("access_denied", "refused on the other device"),
        ("expired_token", "in time"),
        ("invalid_grant", "`invalid_grant`"),
    ] {
        let refused = run(device.clone(), vec![json!({"error": error})]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains(said), "{}", stderr(&refused));
    }
    let late = run(with(device.clone(), "expires_in", 2), vec![pending.clone(), pending]);
    assert!(stderr(&late).contains("in time"), "{}", stderr(&late));
    let hostile = run(with(device, "verification_uri", "https://a\u{1b}[2J"), Vec::new());
    assert!(stderr(&hostile).contains("cannot be shown"), "{}", stderr(&hostile));
    fake.change(|state| state.document = vec![("device_authorization_endpoint", Value::Null)]);
    assert!(fake.refused(&["--device"]).contains("has no `device_authorization_endpoint`"));
}

/// A world whose server believes `people`, an issuer that refreshes, and the folder of a caller's logins.
struct Kept {
    world: World,
    fake: Fake,
    addr: String,
}

impl Kept {
    async fn start() -> Self {
        let authority = Authority::generate();
        let world = World::start_of(&authority, &[]).await;
        let fake = Fake::of(&authority).await;
        let addr = format!("http://{}", world.server.address("grpc"));
        Self { world, fake, addr }
    }

    /// Keeps a login of `ann` whose token ends so.
    fn keep(&self, token: &str, ends: i64, refresh: Option<&str>) {
        let refresh = refresh.map_or_else(String::new, |it| format!("refresh-token = \"{it}\"\n"));
        let (addr, url, ca) = (&self.addr, self.fake.url(), self.fake.ca());
        let text = format!(
            "[logins.\"{addr}\"]\nsubject = \"ann\"\ntoken = \"{token}\"\nexpires-at = {ends}\n{refresh}\n\
             [logins.\"{addr}\".client]\nissuer = \"{url}\"\nclient-id = \"cli\"\nca = \"{ca}\"\nuse = \"id-token\"\n"
        );
        fs::create_dir_all(kept(&self.fake).parent().unwrap()).unwrap();
        fs::write(kept(&self.fake), text).unwrap();
        fs::set_permissions(kept(&self.fake), Permissions::from_mode(0o600)).unwrap();
    }

    fn run(&self, arguments: &[&str], addr: &str) -> Output {
        within(self.fake.folder.path(), &[arguments, &["--addr", addr]].concat())
    }

    fn who(&self) -> Result<String, String> {
        let found = self.run(&["auth", "whoami", "-o", "json"], &self.addr);
        if !found.status.success() {
            return Err(stdout(&found));
        }
        let found: Value = serde_json::from_str(&stdout(&found)).unwrap();
        Ok(found["identity"].as_str().unwrap().to_owned())
    }

    fn text(&self) -> String {
        fs::read_to_string(kept(&self.fake)).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_goes_to_the_server_that_it_was_kept_for() {
    let kept = Kept::start().await;
    let token = kept.world.people.sign(&kept.world.of_ann());
    kept.keep(&token, now() + 600, None);
    assert_eq!(kept.who().unwrap(), kept.world.ann);
    // The same server by another name.
    let (_, port) = kept.addr.rsplit_once(':').unwrap();
    let elsewhere = format!("http://localhost:{port}");
    let nobody = kept.run(&["auth", "whoami"], &elsewhere);
    assert_eq!(nobody.status.code(), Some(2));
    assert!(stderr(&nobody).contains("AUTHN_FAILED"), "{}", stderr(&nobody));
    assert!(stderr(&kept.run(&["auth", "token"], &elsewhere)).contains("there is no login"));
    // A file goes first, and a context with one.
    let file = kept.fake.folder.path().join("wrong");
    fs::write(&file, "a.b.c").unwrap();
    let wrong = kept.run(&["auth", "whoami", "--token-file", file.to_str().unwrap()], &kept.addr);
    assert!(stderr(&wrong).contains("AUTHN_FAILED"), "{}", stderr(&wrong));
    // Decisions are asked for with it, and by whom it proves.
    let check =
        kept.run(&["check", "alice", "repo.list", "acme", "--as", &kept.world.ann], &kept.addr);
    assert_eq!(check.status.code(), Some(0), "{}", stderr(&check));
    let named = kept.run(&["check", "alice", "repo.list", "acme", "--as", "alice"], &elsewhere);
    assert!(stderr(&named).contains("capstan auth login"), "{}", stderr(&named));
    // A call by a context, which says the address.
    let config = kept.fake.folder.path();
    assert!(within(config, &["context", "add", "dev", "--addr", &kept.addr]).status.success());
    let by_context = within(config, &["auth", "whoami", "--context", "dev"]);
    assert!(stdout(&by_context).contains(&kept.world.ann), "{}", stderr(&by_context));
    let status = within(config, &["auth", "status", "--context", "dev"]);
    assert_eq!(status.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_refreshed_and_what_comes_with_it_is_kept() {
    let kept = Kept::start().await;
    let ann = |name: &str| kept.fake.id_token(|claims| with(claims, "jti", name));
    let answer = |token: &str, refresh: Option<&str>| {
        let tokens = json!({"id_token": token, "refresh_token": refresh});
        kept.fake.change(|state| state.tokens = [tokens].into());
    };
    let token = || stdout(&kept.run(&["auth", "token"], &kept.addr)).trim().to_owned();
    for ends in [now() - 60, now() + 20] {
        kept.keep("old.old.old", ends, Some("r1"));
        // It is rotated.
        let new = ann("one");
        answer(&new, Some("r2"));
        assert_eq!(token(), new);
        assert!(kept.text().contains("\"r2\"") && !kept.text().contains("\"r1\""));
        assert_eq!(token(), new, "it is fresh");
    }
    // It is not, and goes on.
    kept.keep("old.old.old", now() - 60, Some("r3"));
    answer(&ann("two"), None);
    assert_eq!(token(), ann_of(&kept.text()));
    assert!(kept.text().contains("\"r3\""));
    let form = kept.fake.forms("/token").pop().unwrap();
    assert_eq!(form, "grant_type=refresh_token&refresh_token=r3&client_id=cli");
    // A token that counts some seconds more is used when its issuer refuses.
    let short = kept.world.people.sign(&kept.world.of_ann());
    kept.keep(&short, now() + 20, Some("r4"));
    assert_eq!(kept.who().unwrap(), kept.world.ann);
    kept.keep(&short, now() + 20, None);
    assert_eq!(kept.who().unwrap(), kept.world.ann);
}

/// One refreshes, and the others find what it has kept.
#[tokio::test(flavor = "multi_thread")]
async fn commands_at_once_refresh_once() {
    let kept = Kept::start().await;
    kept.keep("old.old.old", now() - 60, Some("r1"));
    let new = kept.fake.id_token(|claims| claims);
    let tokens = json!({"id_token": new, "refresh_token": "r2"});
    kept.fake.change(|state| state.tokens = [tokens].into());
    let run = || {
        let mut command = command(&["auth", "token", "--addr", &kept.addr]);
        let command = command.env("XDG_CONFIG_HOME", kept.fake.folder.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let together: Vec<_> = (0..6).map(|_| run()).collect();
    for process in together {
        let output = process.wait_with_output().unwrap();
        assert_eq!(stdout(&output).trim(), new, "{}", stderr(&output));
    }
    assert_eq!(kept.fake.forms("/token").len(), 1);
    assert!(kept.text().contains("\"r2\""));
}

/// A TAB may be cut off at any time, and would lose the refresh token that comes in the place of the one before.
#[tokio::test(flavor = "multi_thread")]
async fn completion_uses_a_login_and_refreshes_none() {
    let kept = Kept::start().await;
    let offered = || {
        let words = ["capstan", "iam", "groups", "describe", "--addr", &kept.addr, "ac"];
        let mut command = command(&[&["--"], &words[..]].concat());
        command.env("XDG_CONFIG_HOME", kept.fake.folder.path());
        command.env("CAPSTAN_COMPLETE", "fish").env("_CLAP_COMPLETE_INDEX", "6");
        let command = command.env("CAPSTAN_COMPLETE_MS", PATIENCE.as_millis().to_string());
        stdout(&command.output().unwrap())
    };
    kept.keep(&kept.world.people.sign(&kept.world.of_ann()), now() + 600, Some("r1"));
    assert!(offered().contains("acme"), "{}", offered());
    kept.keep("old.old.old", now() - 60, Some("r1"));
    assert_eq!(offered(), "");
    assert!(kept.fake.forms("/token").is_empty());
}

/// The token in a file of logins.
fn ann_of(text: &str) -> String {
    let (_, rest) = text.split_once("\ntoken = \"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_cannot_be_refreshed_says_what_to_do() {
    let kept = Kept::start().await;
    let over = now() - 60;
    let advice = format!("the login for {0} is over: capstan auth login --addr {0}", kept.addr);
    let refused = |tokens: Option<Value>, refresh, said: &str| {
        kept.keep("old.old.old", over, refresh);
        let before = kept.text();
        kept.fake.change(|state| state.tokens = tokens.into_iter().collect());
        for arguments in [&["auth", "token"][..], &["check", "alice", "repo.list", "acme"]] {
            let output = kept.run(arguments, &kept.addr);
            assert_eq!(output.status.code(), Some(2), "{said}");
            let error = stderr(&output);
            assert!(error.contains(&advice), "{error}");
            let is_first = arguments.contains(&"token");
            assert!(!is_first || error.contains(said), "{said}: {error}");
            assert!(!error.contains("r1") && !error.contains("old.old"), "{error}");
        }
        assert_eq!(kept.text(), before);
    };
    refused(None, None, "no refresh token");
    refused(None, Some("r1"), "`invalid_grant`");
    let bob = kept.fake.id_token(|claims| with(claims, "sub", "bob"));
    refused(Some(json!({"id_token": bob})), Some("r1"), "of another person");
    refused(
        Some(json!({"access_token": "a", "token_type": "Bearer"})),
        Some("r1"),
        "no new ID token",
    );
    kept.fake.change(|state| state.document = vec![("issuer", "https://other.example".into())]);
    refused(None, Some("r1"), "is of the issuer");
    kept.fake.change(|state| state.instead = Some(|| Reply::status(503, "")));
    refused(None, Some("r1"), "answers 503");
    // It says so, too, and logs out all the same.
    let status = kept.run(&["auth", "status", "-o", "json"], &kept.addr);
    let status: Value = serde_json::from_str(&stdout(&status)).unwrap();
    assert_eq!(status["logins"][0]["refreshable"], true);
    kept.keep("old.old.old", over, None);
    let status = kept.run(&["auth", "status"], &kept.addr);
    assert_eq!(status.status.code(), Some(1));
    assert!(stdout(&status).contains("no, and over"), "{}", stdout(&status));
    let out = kept.run(&["auth", "logout"], &kept.addr);
    assert!(out.status.success() && kept.text().is_empty(), "{}", kept.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_logins_are_forgotten_at_once() {
    let kept = Kept::start().await;
    kept.keep("a.b.c", now() + 600, Some("r1"));
    let config = kept.fake.folder.path();
    let out = within(config, &["auth", "logout", "--all", "-o", "json"]);
    let out: Value = serde_json::from_str(&stdout(&out)).unwrap();
    assert_eq!(out, json!({"logged_out": [{"server": kept.addr, "revoked": true}]}));
    assert_eq!(kept.text(), "");
    let none = within(config, &["auth", "status"]);
    assert!(stdout(&none).contains("no logins"), "{}", stdout(&none));
}
