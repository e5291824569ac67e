//! An issuer that answers what it is told to, and logins that somebody has to go on with.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Output, Stdio};
use std::sync::{Arc, Mutex};

use capstan_testkit::https::{Authority, Received, Reply, Server};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use crate::common::{assert_tells_no_secret, command, stderr};
use crate::tokens::{Key, claims, with};

/// Runs `capstan` with its contexts and logins in this folder.
pub(in crate::tokens) fn within(config: &Path, arguments: &[&str]) -> Output {
    command(arguments).env("XDG_CONFIG_HOME", config).output().unwrap()
}

/// An issuer that answers what it is told to.
pub(super) struct Fake {
    pub(super) folder: TempDir,
    pub(super) server: Server,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) key: Key,
}

pub(super) type Instead = fn() -> Reply;

#[derive(Default)]
pub(super) struct State {
    /// Members of the discovery document that differ.
    pub(super) document: Vec<(&'static str, Value)>,
    /// What it answers instead of the document.
    pub(super) instead: Option<Instead>,
    /// What the token endpoint answers, in turn; then `invalid_grant`.
    pub(super) tokens: VecDeque<Value>,
    pub(super) device: Value,
    pub(super) revocation: u16,
}

pub(super) fn reply(status: u16, body: &Value) -> Reply {
    let body = body.to_string();
    Reply::raw(format!("HTTP/1.1 {status} Any\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
}

fn answer(request: &Received, state: &mut State) -> Reply {
    let url = format!("https://{}", request.header("host").unwrap());
    match request.line.split(' ').nth(1).unwrap() {
        "/.well-known/openid-configuration" => {
            if let Some(instead) = state.instead {
                return instead();
            }
            let mut document = json!({
                "issuer": url,
                "authorization_endpoint": format!("{url}/auth"),
                "token_endpoint": format!("{url}/token"),
                "device_authorization_endpoint": format!("{url}/device"),
                "revocation_endpoint": format!("{url}/revoke"),
                "scopes_supported": ["openid", "offline_access"],
            });
            for (name, value) in &state.document {
                document[name] = value.clone();
            }
            reply(200, &document)
        }
        "/token" => match state.tokens.pop_front() {
            Some(tokens) if tokens.get("error").is_none() => reply(200, &tokens),
            Some(error) => reply(400, &error),
            None => reply(400, &json!({"error": "invalid_grant"})),
        },
        "/device" => reply(200, &state.device),
        "/revoke" => reply(state.revocation, &json!({})),
        _ => Reply::status(404, ""),
    }
}

/// A server that nobody asks.
pub(super) const SERVER: &str = "https://capstan.example:4480";

impl Fake {
    pub(super) async fn start() -> Self {
        Self::of(&Authority::generate()).await
    }

    pub(super) async fn of(authority: &Authority) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let state = Arc::new(Mutex::new(State { revocation: 200, ..State::default() }));
        let answers = Arc::clone(&state);
        let config = authority.server_config(&["127.0.0.1"], false);
        let server = Server::listen(Ipv4Addr::LOCALHOST, config, move |request| {
            answer(request, &mut answers.lock().unwrap())
        })
        .await;
        Self { folder, server, state, key: Key::new("f1", Algorithm::ES256) }
    }

    pub(super) fn url(&self) -> String {
        format!("https://{}", self.server.address)
    }

    pub(super) fn ca(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    /// An ID token of `ann` for the client `cli`.
    pub(super) fn id_token(&self, change: impl FnOnce(Value) -> Value) -> String {
        self.key.sign(&change(with(claims(&self.url(), "ann"), "aud", "cli")))
    }

    pub(super) fn arguments<'a>(
        &'a self,
        url: &'a str,
        ca: &'a str,
        more: &[&'a str],
    ) -> Vec<&'a str> {
        let fixed =
            ["auth", "login", "--addr", SERVER, "--issuer", url, "--client-id", "cli", "--ca", ca];
        [&fixed, more].concat()
    }

    /// A login that ends before a person does anything.
    pub(super) fn refused(&self, more: &[&str]) -> String {
        let (url, ca) = (self.url(), self.ca());
        let output = within(self.folder.path(), &self.arguments(&url, &ca, more));
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output)
    }

    pub(super) fn begin(&self) -> Pending {
        let (url, ca) = (self.url(), self.ca());
        let arguments = self.arguments(&url, &ca, &["--no-browser"]);
        Pending::start(self.folder.path(), &arguments, "https://")
    }

    /// The forms that were sent to a path.
    pub(super) fn forms(&self, path: &str) -> Vec<String> {
        let line = format!("POST {path} HTTP/1.1");
        let requests = self.server.requests().into_iter().filter(|request| request.line == line);
        requests.map(|request| String::from_utf8(request.body).unwrap()).collect()
    }
}

/// A login that somebody has to go on with. Dropped, it ends.
pub(in crate::tokens) struct Pending {
    process: Child,
    says: BufReader<ChildStderr>,
    /// What follows in the line that was waited for.
    pub(in crate::tokens) found: String,
}

impl Pending {
    /// Starts it with its logins in this folder, and waits for a line that begins so.
    pub(in crate::tokens) fn start(config: &Path, arguments: &[&str], line: &str) -> Self {
        let mut command = command(arguments);
        let command = command.env("XDG_CONFIG_HOME", config);
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let says = BufReader::new(process.stderr.take().unwrap());
        let mut pending = Self { process, says, found: String::new() };
        let mut said = String::new();
        loop {
            let mut next = String::new();
            assert!(pending.says.read_line(&mut next).unwrap() > 0, "no {line:?} in {said}");
            if let Some(rest) = next.strip_prefix(line) {
                rest.trim_end().clone_into(&mut pending.found);
                return pending;
            }
            said += &next;
        }
    }

    pub(super) fn url(&self) -> Url {
        Url::parse(&format!("https://{}", self.found)).unwrap()
    }

    pub(super) fn parameter(&self, name: &str) -> String {
        self.url().query_pairs().find(|(found, _)| found == name).unwrap().1.into_owned()
    }

    /// The browser comes back with this. Returns the page.
    pub(super) fn back(&self, query: &str) -> String {
        let to = Url::parse(&self.parameter("redirect_uri")).unwrap();
        let host = format!("127.0.0.1:{}", to.port().unwrap());
        let mut stream = TcpStream::connect(&host).unwrap();
        write!(stream, "GET {}?{query} HTTP/1.1\r\nhost: {host}\r\n\r\n", to.path()).unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    }

    /// The same with the state and these parameters.
    pub(super) fn back_with(&self, query: &str) {
        let page = self.back(&format!("state={}&{query}", self.parameter("state")));
        assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    }

    /// Waits for its end. Returns the exit code, and what it said at last.
    pub(in crate::tokens) fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.says.read_to_string(&mut said).unwrap();
        assert_tells_no_secret(&said);
        (self.process.wait().unwrap().code(), said)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
