//! The configuration with which a client of a registry uses a pull token.
//!
//! All of them send HTTP Basic authentication (RFC 7617). A user name is the path of a token, so it has slashes and may
//! have `@`, `+`, `=` and `:`. Base64 hides them, and a URL has them percent-encoded.
//!
//! **Invariant**: what a server answers is written only if it is what a user name and a secret can be ([`Credential::new`]),
//! and options are checked likewise. So nothing in these texts needs a quote or an escape of a shell, JSON, INI or XML.

use anyhow::{Context as _, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use capstan_engine::{PathBuf, quote};
use hyper::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use crate::limits::APK_USER_BYTES_MAX;
use crate::output::{Client, Output};

/// All but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The characters of a generated path segment, and the slash before it.
const SEGMENT_BYTES: usize = 17;
/// The `<id>` of a Maven server without `--id`.
const SERVER_ID: &str = "capstan";

/// Where the token is used.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct ClientArgs {
    /// The registry: HOST, HOST:PORT or with a path behind it, over https. For docker, pip, npm and apk
    #[arg(long, value_name = "HOST[/PATH]", conflicts_with = "url")]
    registry: Option<String>,

    /// The registry as a URL, with a path or without; with the scheme http the secret is sent unencrypted
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// The id of the server in Maven's settings: that of the repository in the pom.xml [default: capstan]
    #[arg(long = "id", value_name = "ID")]
    server_id: Option<String>,
}

/// What a configuration is written for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Configuration {
    Env,
    Docker(Address),
    Pip(Address),
    Npm(Address),
    Maven { server_id: String },
    Apk(Address),
}

/// A registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// `https` or `http`.
    scheme: String,
    /// With the port, if one is given.
    host: String,
    /// Begins with a slash, and has none at its end; or empty.
    path: String,
}

/// A user name and its secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Credential<'c> {
    username: &'c str,
    secret: &'c str,
}

impl ClientArgs {
    /// What `--output` asks for; `None` if it asks for no client.
    ///
    /// # Errors
    ///
    /// An option that the client needs is missing, one that it does not take is given, or one is malformed.
    pub(super) fn configuration(&self, output: Output) -> anyhow::Result<Option<Configuration>> {
        let client = match output {
            Output::Client(client) => client,
            Output::Table | Output::Json | Output::Tree | Output::Id | Output::Junit => {
                let is_given = self.has_address() || self.server_id.is_some();
                ensure!(
                    !is_given,
                    "--registry, --url and --id are of the configuration of a client: {CLIENTS}"
                );
                return Ok(None);
            }
        };
        let word = output.word();
        ensure!(
            self.server_id.is_none() || client == Client::Maven,
            "--output {word} takes no --id: that is of maven"
        );
        Ok(Some(match client {
            Client::Env | Client::Maven if self.has_address() => {
                bail!("--output {word} has no address in it: leave out --registry and --url")
            }
            Client::Env => Configuration::Env,
            Client::Maven => Configuration::Maven { server_id: self.server_id()? },
            Client::Docker => Configuration::Docker(self.address(word)?),
            Client::Pip => {
                let address = self.address(word)?;
                // pip looks for the host in a text whose user name has plain slashes (`str(Link)`), and finds another
                // one. It does so only where the host must be trusted: without TLS.
                ensure!(
                    address.scheme == "https",
                    "pip takes no user name with a slash over http://, and that of a token has one: give a registry with \
                     https://"
                );
                Configuration::Pip(address)
            }
            Client::Npm => Configuration::Npm(self.address(word)?),
            Client::Apk => Configuration::Apk(self.address(word)?),
        }))
    }

    fn has_address(&self) -> bool {
        self.registry.is_some() || self.url.is_some()
    }

    fn server_id(&self) -> anyhow::Result<String> {
        let id = self.server_id.as_deref().unwrap_or(SERVER_ID);
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        ensure!(
            !id.is_empty() && id.bytes().all(is_word),
            "--id {}: expected letters, digits, `-`, `.` and `_`",
            quote(id)
        );
        Ok(id.to_owned())
    }

    fn address(&self, word: &str) -> anyhow::Result<Address> {
        match (&self.registry, &self.url) {
            (Some(registry), _) => {
                let what = format!("--registry {}", quote(registry));
                ensure!(!registry.contains("://"), "{what}: a URL is given with --url");
                Address::parse(&format!("https://{registry}")).with_context(|| what)
            }
            (None, Some(url)) => {
                Address::parse(url).with_context(|| format!("--url {}", quote(url)))
            }
            (None, None) => {
                bail!("--output {word} needs the registry: --registry HOST[/PATH], or --url URL")
            }
        }
    }
}

/// The values of `--output`, in messages.
pub(super) const CLIENTS: &str = "--output env, docker, pip, npm, maven or apk";

impl Address {
    /// # Errors
    ///
    /// Not `http://` or `https://` with a host, or there is more than a host, a port and a path of characters that are
    /// plain in all configurations.
    fn parse(url: &str) -> anyhow::Result<Self> {
        let expected = || {
            anyhow!(
                "expected HOST, HOST:PORT or HOST/PATH, and before it https:// or http:// in --url"
            )
        };
        let uri: Uri = url.parse().map_err(|_| expected())?;
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.authority()) else {
            return Err(expected());
        };
        let path = uri.path().trim_end_matches('/');
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%+@:".contains(&byte);
        ensure!(
            matches!(scheme, "https" | "http") && uri.query().is_none() && !url.contains('#'),
            expected()
        );
        ensure!(!host.as_str().contains('@'), "a user name or password does not belong here");
        ensure!(
            path.bytes().all(is_plain),
            "the path: expected letters, digits and `-._~%+@:`, percent-encode others"
        );
        Ok(Self {
            scheme: scheme.to_owned(),
            host: host.as_str().to_owned(),
            path: path.to_owned(),
        })
    }

    /// The URL with the credential in it.
    fn with(&self, credential: Credential<'_>) -> String {
        let Self { scheme, host, path } = self;
        let [user, secret] = [credential.username, credential.secret]
            .map(|text| utf8_percent_encode(text, RESERVED).to_string());
        format!("{scheme}://{user}:{secret}@{host}{path}")
    }
}

impl<'c> Credential<'c> {
    /// # Errors
    ///
    /// What a server answered is no user name or no secret.
    pub(super) fn new(username: &'c str, secret: &'c str) -> anyhow::Result<Self> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        ensure!(
            username.parse::<PathBuf>().is_ok()
                && !secret.is_empty()
                && secret.bytes().all(is_word),
            "the server's answer has no user name and secret: is it of another version?"
        );
        Ok(Self { username, secret })
    }

    /// What follows `Basic` in the header `Authorization`.
    fn basic(self) -> String {
        STANDARD.encode(format!("{}:{}", self.username, self.secret))
    }
}

impl Configuration {
    /// # Errors
    ///
    /// The client does not take the user names of tokens of this group.
    pub(super) fn check(&self, group: &str) -> anyhow::Result<()> {
        let bytes = group.len() + SEGMENT_BYTES;
        ensure!(
            !matches!(self, Self::Apk(_)) || bytes <= APK_USER_BYTES_MAX,
            "apk takes user names of at most {APK_USER_BYTES_MAX} bytes, and that of this token would have {bytes}: choose a \
             group with a shorter path"
        );
        Ok(())
    }

    /// What people do with the text.
    pub(super) const fn what_to_do(&self) -> &'static str {
        match self {
            Self::Env => "a shell reads these lines with `eval`",
            Self::Docker(_) => {
                "write this to ~/.docker/config.json, or to a file that podman and skopeo are given with --authfile, with mode 600"
            }
            Self::Pip(_) => {
                "write this to pip.conf (`pip config list -v` shows where), with mode 600"
            }
            Self::Npm(_) => "write this to ~/.npmrc, with mode 600",
            Self::Maven { .. } => {
                "write this to ~/.m2/settings.xml, with mode 600; the repository in the pom.xml has the same id"
            }
            Self::Apk(_) => {
                "write this to /etc/apk/repositories, as a line of its own, readable by root alone (mode 600)"
            }
        }
    }

    /// Whether the client sends the secret unencrypted.
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Env | Self::Maven { .. } => false,
            Self::Docker(at) | Self::Pip(at) | Self::Npm(at) | Self::Apk(at) => at.scheme == "http",
        }
    }

    /// The text of the configuration, without a line end behind it.
    pub(super) fn text(&self, credential: Credential<'_>) -> String {
        let Credential { username, secret } = credential;
        match self {
            Self::Env => format!(
                "export CAPSTAN_PULL_TOKEN_USERNAME='{username}'\nexport CAPSTAN_PULL_TOKEN_PASSWORD='{secret}'"
            ),
            // The key is a host for docker, which cuts off a path; podman, skopeo and others choose the longest key of
            // an image's name (containers-auth.json(5)). Neither has a scheme: docker's `ConvertToHostname`.
            Self::Docker(Address { host, path, .. }) => {
                let registry = format!("{host}{path}");
                let auths = json!({ "auths": { (registry): { "auth": credential.basic() } } });
                format!("{auths:#}")
            }
            // pip decodes both parts (`split_auth_from_netloc`), sends them without being asked, and reads the file
            // without interpolation of `%` (`RawConfigParser`).
            Self::Pip(at) => format!("[global]\nindex-url = {}/", at.with(credential)),
            // A key begins with `//` and ends with a slash (npm's documentation of `.npmrc`, "Auth related
            // configuration"). npm has no `always-auth` since version 7: it sends the header to this URL always.
            Self::Npm(Address { scheme, host, path }) => format!(
                "registry={scheme}://{host}{path}/\n//{host}{path}/:_auth={}",
                credential.basic()
            ),
            // Sent to the repository with this id, once it asks (https://maven.apache.org/settings.html#Servers).
            Self::Maven { server_id } => format!(
                "<settings xmlns=\"http://maven.apache.org/SETTINGS/1.0.0\">\n  <servers>\n    <server>\n      \
                 <id>{server_id}</id>\n      <username>{username}</username>\n      <password>{secret}</password>\n    \
                 </server>\n  </servers>\n</settings>"
            ),
            // apk decodes both parts since version 2.12.9 (`fetchParseURL` of its libfetch), and sends them without
            // being asked. It sends those of the variable HTTP_AUTH to every host that asks, whatever the realm, so that
            // is not used.
            Self::Apk(at) => at.with(credential),
        }
    }
}

impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(registry: Option<&str>, url: Option<&str>, id: Option<&str>) -> ClientArgs {
        let [registry, url, server_id] = [registry, url, id].map(|text| text.map(str::to_owned));
        ClientArgs { registry, url, server_id }
    }

    fn text(client: Client, args: &ClientArgs) -> String {
        let credential = Credential::new("acme/a:b+c@d=e/0f", "capstan_pt_x").unwrap();
        let configuration = args.configuration(Output::Client(client)).unwrap().unwrap();
        configuration.text(credential)
    }

    const USER: &str = "acme%2Fa%3Ab%2Bc%40d%3De%2F0f:capstan_pt_x";
    const BASIC: &str = "YWNtZS9hOmIrY0BkPWUvMGY6Y2Fwc3Rhbl9wdF94";

    #[test]
    fn every_client_has_its_configuration() {
        assert_eq!(STANDARD.decode(BASIC).unwrap(), b"acme/a:b+c@d=e/0f:capstan_pt_x");
        let none = ClientArgs::default();
        assert_eq!(
            text(Client::Env, &none),
            "export CAPSTAN_PULL_TOKEN_USERNAME='acme/a:b+c@d=e/0f'\nexport CAPSTAN_PULL_TOKEN_PASSWORD='capstan_pt_x'"
        );
        assert_eq!(
            text(Client::Maven, &args(None, None, Some("acme-libs"))),
            "<settings xmlns=\"http://maven.apache.org/SETTINGS/1.0.0\">\n  <servers>\n    <server>\n      \
             <id>acme-libs</id>\n      <username>acme/a:b+c@d=e/0f</username>\n      \
             <password>capstan_pt_x</password>\n    </server>\n  </servers>\n</settings>"
        );
        assert!(text(Client::Maven, &none).contains("<id>capstan</id>"));
        let at = args(Some("host.example:8443/a/b/"), None, None);
        let docker = "{\n  \"auths\": {\n    \"host.example:8443/a/b\": {\n      \"auth\": \"BASIC\"\n    }\n  }\n}";
        assert_eq!(text(Client::Docker, &at), docker.replace("BASIC", BASIC));
        assert_eq!(
            text(Client::Pip, &at),
            format!("[global]\nindex-url = https://{USER}@host.example:8443/a/b/")
        );
        assert_eq!(
            text(Client::Npm, &at),
            format!(
                "registry=https://host.example:8443/a/b/\n//host.example:8443/a/b/:_auth={BASIC}"
            )
        );
        assert_eq!(text(Client::Apk, &at), format!("https://{USER}@host.example:8443/a/b"));
        let plain = args(None, Some("http://[::1]:80"), None);
        assert_eq!(text(Client::Apk, &plain), format!("http://{USER}@[::1]:80"));
        let is_open = |args: &ClientArgs| {
            args.configuration(Output::Client(Client::Npm)).unwrap().unwrap().is_open()
        };
        assert!(is_open(&plain) && !is_open(&at));
    }

    #[test]
    fn addresses_that_would_break_a_configuration_are_errors() {
        let error = |client, args: &ClientArgs| {
            let error = args.configuration(Output::Client(client)).unwrap_err();
            format!("{error:#}")
        };
        for bad in [
            "",
            "host/a b",
            "host/a?b",
            "host/a#b",
            "host/a\nb",
            "host/a;b",
            "host/a=b",
            "host/\"",
            "ho st",
            "/a",
        ] {
            let text = error(Client::Npm, &args(Some(bad), None, None));
            assert!(
                text.starts_with("--registry `") && text.contains("expected"),
                "{bad:?}: {text}"
            );
        }
        for bad in ["host", "ftp://host", "https://", "https:/host", "//host/a"] {
            let text = error(Client::Pip, &args(None, Some(bad), None));
            assert!(text.starts_with("--url `"), "{bad:?}: {text}");
        }
        let text = error(Client::Apk, &args(None, Some("https://me:secret@host"), None));
        assert!(text.ends_with("a user name or password does not belong here"), "{text}");
        let text = error(Client::Docker, &args(Some("https://host"), None, None));
        assert!(text.ends_with("a URL is given with --url"), "{text}");
        for client in [Client::Docker, Client::Pip, Client::Npm, Client::Apk] {
            let text = error(client, &ClientArgs::default());
            assert!(text.contains("needs the registry: --registry HOST[/PATH]"), "{text}");
        }
        for client in [Client::Env, Client::Maven] {
            let text = error(client, &args(Some("host"), None, None));
            assert!(text.contains("leave out --registry"), "{text}");
        }
        assert!(error(Client::Pip, &args(Some("host"), None, Some("x"))).contains("takes no --id"));
        assert!(error(Client::Maven, &args(None, None, Some("a<b"))).starts_with("--id `a<b`"));
        assert!(args(Some("host"), None, None).configuration(Output::Json).is_err());
        assert_eq!(ClientArgs::default().configuration(Output::Json).unwrap(), None);
    }

    #[test]
    fn what_is_no_user_name_or_secret_is_not_written() {
        for (username, secret) in [
            ("acme/x'; rm", "capstan_pt_x"),
            ("", "capstan_pt_x"),
            ("acme/x", ""),
            ("acme/x", "a'b"),
            ("acme/x", "a\nb"),
            ("acme/x", "<b>"),
        ] {
            assert!(Credential::new(username, secret).is_err(), "{username} {secret}");
        }
        let credential = Credential::new("acme/x", "capstan_pt_x").unwrap();
        assert!(!format!("{credential:?}").contains("capstan_pt_x"));
    }

    #[test]
    fn apk_takes_no_longer_user_name() {
        let apk = args(Some("host"), None, None).configuration(Output::Client(Client::Apk));
        let (apk, most) = (apk.unwrap().unwrap(), APK_USER_BYTES_MAX - SEGMENT_BYTES);
        assert!(apk.check(&"a".repeat(most)).is_ok());
        let error = apk.check(&"a".repeat(most + 1)).unwrap_err().to_string();
        assert!(
            error.contains("at most 256 bytes, and that of this token would have 257"),
            "{error}"
        );
        assert!(Configuration::Env.check(&"a".repeat(most + 1)).is_ok());
    }
}
