//! An OpenID Connect provider, as its discovery document describes it, and the requests that a client sends it.
//!
//! ```text
//! Client ─▶ discovery document ─▶ Provider ─┬─▶ authorization_url   for the browser
//!                                          ├─▶ device              a code for another device
//!                                          ├─▶ token               tokens for a code or for a refresh token
//!                                          └─▶ revoke
//! ```
//!
//! **Invariants**: the document names the issuer that was asked, byte for byte, so that no other provider gets what is meant for
//! this one. All URLs are https, unless the issuer is this machine. What a provider says is told in errors as far as it
//! repeats nothing that was sent to it in secret.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use capstan_engine::quote;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde::Deserialize;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::endpoint::{Endpoint, Plain};
use super::file::{Client, ensure_private};
use super::http::{Answer, Http};
use super::secret::Secret;
use crate::limits::CLIENT_SECRET_BYTES_MAX;

/// A provider, and the client that asks it.
pub(super) struct Provider<'c> {
    pub(super) client: &'c Client,
    http: Http,
    plain: Plain,
    document: Document,
    secret: Option<Secret>,
}

/// What is used of a discovery document (OpenID Connect Discovery 1.0, RFC 8414, RFC 8628, RFC 9207).
#[derive(Debug, Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    #[serde(default)]
    scopes_supported: Vec<String>,
    code_challenge_methods_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// What a token endpoint gives.
#[derive(Debug, Deserialize)]
pub(super) struct Tokens {
    pub(super) access_token: Option<Secret>,
    pub(super) id_token: Option<Secret>,
    pub(super) refresh_token: Option<Secret>,
    #[serde(default)]
    pub(super) token_type: String,
    /// In seconds. Some providers send a text.
    #[serde(default)]
    pub(super) expires_in: serde_json::Value,
}

/// What a provider gives for another device (RFC 8628, section 3.2).
#[derive(Debug, Deserialize)]
pub(super) struct Device {
    pub(super) device_code: Secret,
    pub(super) user_code: String,
    pub(super) verification_uri: String,
    pub(super) verification_uri_complete: Option<String>,
    pub(super) expires_in: u64,
    pub(super) interval: Option<u64>,
}

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub(super) enum GrantError {
    /// The provider refuses, with a code of RFC 6749, section 5.2, or RFC 8628, section 3.5.
    #[error("the issuer refuses: {}{}", quote(code), description.as_ref().map(|text| format!(": {}", quote(text))).unwrap_or_default())]
    Refused { code: String, description: Option<String> },
    /// There is no answer, or none that counts.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    error_description: Option<String>,
}

/// A parameter of a form: its name, and its value, which may be a secret.
pub(super) enum Field<'f> {
    Open(&'f str, &'f str),
    Secret(&'f str, &'f Secret),
}

/// The scope that asks for a refresh token (OpenID Connect Core 1.0, section 11).
pub(super) const OFFLINE: &str = "offline_access";

impl<'c> Provider<'c> {
    /// Reads the discovery document, and the secret of the client.
    ///
    /// # Errors
    ///
    /// The issuer is no URL to ask, does not answer, or answers for another one; or the secret cannot be read.
    pub(super) async fn discover(client: &'c Client) -> anyhow::Result<Self> {
        let (_, plain) = Endpoint::issuer(&client.issuer)?;
        let secret = client.client_secret_file.as_deref().map(read_secret).transpose()?;
        let http = Http::new(client.ca.as_deref());
        let url = Endpoint::discovery(&client.issuer, plain)?;
        let Answer { status, body } = http.get(&url).await?;
        ensure!(status == StatusCode::OK, "cannot ask {url}: it answers {}", status.as_u16());
        let document: Document = serde_json::from_slice(&body)
            .map_err(|error| anyhow!("{url} is no discovery document: {error}"))?;
        ensure!(
            document.issuer == client.issuer,
            "{url} is of the issuer {}, and not of {}: give --issuer as it is written there",
            quote(&document.issuer),
            quote(&client.issuer)
        );
        Ok(Self { client, http, plain, document, secret })
    }

    /// Whether answers by the browser name the issuer (RFC 9207).
    pub(super) fn names_itself(&self) -> bool {
        self.document.authorization_response_iss_parameter_supported
    }

    /// The scopes that are asked for, and whether a refresh token is among what they ask for.
    pub(super) fn scope(&self) -> (String, bool) {
        let has = |scope: &&str| self.document.scopes_supported.iter().any(|known| known == scope);
        let scope = if self.client.scope.is_empty() {
            let more = ["email", OFFLINE].into_iter().filter(has);
            std::iter::once("openid").chain(more).collect::<Vec<_>>().join(" ")
        } else {
            self.client.scope.join(" ")
        };
        let is_offline = scope.split(' ').any(|one| one == OFFLINE);
        (scope, is_offline)
    }

    /// Where the browser goes, with these parameters beside those of the client.
    ///
    /// # Errors
    ///
    /// The provider has no such URL, or no PKCE with SHA-256.
    pub(super) fn authorization_url(&self, parameters: &[(&str, &str)]) -> anyhow::Result<String> {
        let methods = self.document.code_challenge_methods_supported.as_deref();
        // Not every provider that takes it says so.
        ensure!(
            methods.is_none_or(|methods| methods.iter().any(|method| method == "S256")),
            "the issuer has no PKCE with S256, without which a code could be used by others"
        );
        let url = self
            .endpoint(self.document.authorization_endpoint.as_deref(), "authorization_endpoint")?;
        let (scope, is_offline) = self.scope();
        let mut all = vec![
            ("response_type", "code"),
            ("client_id", &*self.client.client_id),
            ("scope", &*scope),
            ("code_challenge_method", "S256"),
        ];
        all.extend_from_slice(parameters);
        all.extend(self.client.resource.as_deref().map(|resource| ("resource", resource)));
        if is_offline {
            // Required with it (OpenID Connect Core 1.0, section 11).
            all.push(("prompt", "consent"));
        }
        Ok(url.with(&all))
    }

    /// Begins a login on another device.
    ///
    /// # Errors
    ///
    /// The provider has no such grant, refuses, or does not answer.
    pub(super) async fn device(&self) -> anyhow::Result<Device> {
        let found = self.document.device_authorization_endpoint.as_deref();
        let url = self.endpoint(found, "device_authorization_endpoint")?;
        let (scope, _) = self.scope();
        let mut form = vec![Field::Open("scope", &scope)];
        form.extend(self.resource());
        Ok(self.ask(&url, &form).await?)
    }

    /// Tokens for a grant: `grant_type` and its own parameters.
    ///
    /// # Errors
    ///
    /// As of [`GrantError`].
    pub(super) async fn token(&self, mut grant: Vec<Field<'_>>) -> Result<Tokens, GrantError> {
        let url = self.endpoint(self.document.token_endpoint.as_deref(), "token_endpoint")?;
        grant.extend(self.resource());
        self.ask(&url, &grant).await
    }

    fn resource(&self) -> Option<Field<'_>> {
        self.client.resource.as_deref().map(|resource| Field::Open("resource", resource))
    }

    /// Revokes a refresh token (RFC 7009). False if the provider has no such request.
    ///
    /// # Errors
    ///
    /// The provider refuses or does not answer.
    pub(super) async fn revoke(&self, token: &Secret) -> anyhow::Result<bool> {
        let Some(url) = self.document.revocation_endpoint.as_deref() else { return Ok(false) };
        let url = self.endpoint(Some(url), "revocation_endpoint")?;
        let hint = Field::Open("token_type_hint", "refresh_token");
        let form = [Field::Secret("token", token), hint];
        let Answer { status, body } = self.post(&url, &form).await?;
        if status != StatusCode::OK {
            return Err(refusal(&url, status, &body, &form).into());
        }
        Ok(true)
    }

    fn endpoint(&self, url: Option<&str>, name: &str) -> anyhow::Result<Endpoint> {
        let issuer = &self.client.issuer;
        let url = url.with_context(|| format!("the issuer {issuer} has no `{name}`"))?;
        Endpoint::parse(url, self.plain).with_context(|| format!("`{name}` of {issuer}"))
    }

    async fn ask<T: for<'d> Deserialize<'d>>(
        &self,
        url: &Endpoint,
        form: &[Field<'_>],
    ) -> Result<T, GrantError> {
        let Answer { status, body } = self.post(url, form).await?;
        if status != StatusCode::OK {
            return Err(refusal(url, status, &body, form));
        }
        // The error of the parser could show a token.
        let found = serde_json::from_slice(&body);
        Ok(found.map_err(|_| anyhow!("the answer of {url} is malformed or incomplete"))?)
    }

    /// Sends a form of this client, as what it proves itself by.
    async fn post(&self, url: &Endpoint, form: &[Field<'_>]) -> anyhow::Result<Answer> {
        let id = &*self.client.client_id;
        let mut text = Serializer::new(String::new());
        for field in form {
            match field {
                Field::Open(name, value) => text.append_pair(name, value),
                Field::Secret(name, value) => text.append_pair(name, value.expose()),
            };
        }
        let mut authorization = None;
        match (&self.secret, self.takes("client_secret_basic"), self.takes("client_secret_post")) {
            (None, ..) => {
                text.append_pair("client_id", id);
            }
            (Some(secret), true, _) => authorization = Some(basic(id, secret)?),
            (Some(secret), false, true) => {
                text.append_pair("client_id", id).append_pair("client_secret", secret.expose());
            }
            (Some(_), false, false) => {
                bail!("the issuer takes no secret of a client: leave out --client-secret-file")
            }
        }
        self.http.post(url, text.finish(), authorization).await
    }

    /// Whether the token endpoint takes this proof of a client: `client_secret_basic`, if the document does not say.
    fn takes(&self, method: &str) -> bool {
        match &self.document.token_endpoint_auth_methods_supported {
            None => method == "client_secret_basic",
            Some(methods) => methods.iter().any(|known| known == method),
        }
    }
}

/// Both parts are form-encoded first (RFC 6749, section 2.3.1).
fn basic(id: &str, secret: &Secret) -> anyhow::Result<HeaderValue> {
    let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let both = STANDARD.encode(format!("{}:{}", encode(id), encode(secret.expose())));
    let mut value = HeaderValue::try_from(format!("Basic {both}"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn refusal(url: &Endpoint, status: StatusCode, body: &[u8], form: &[Field<'_>]) -> GrantError {
    let Ok(Refusal { error: code, error_description }) = serde_json::from_slice(body) else {
        return anyhow!("{url} answers {}", status.as_u16()).into();
    };
    let repeats = |text: &str| {
        form.iter().any(|field| match field {
            Field::Open(..) => false,
            Field::Secret(_, value) => text.contains(value.expose()),
        })
    };
    if repeats(&code) {
        return anyhow!("{url} answers {}", status.as_u16()).into();
    }
    GrantError::Refused { code, description: error_description.filter(|text| !repeats(text)) }
}

/// The secret of a client: the text of a file that only its owner can use, without white space around it.
///
/// # Errors
///
/// The file cannot be read, others can use it, or it is no secret.
pub(crate) fn read_secret(path: &Path) -> anyhow::Result<Secret> {
    let what = || format!("--client-secret-file {}", path.display());
    let file = File::open(path).with_context(what)?;
    ensure_private(path, &file).with_context(what)?;
    let mut text = String::new();
    file.take(CLIENT_SECRET_BYTES_MAX + 1).read_to_string(&mut text).with_context(what)?;
    let is_short = text.len() as u64 <= CLIENT_SECRET_BYTES_MAX;
    ensure!(is_short, "{}: longer than {CLIENT_SECRET_BYTES_MAX} bytes", what());
    let secret = Secret::new(text.trim());
    ensure!(secret.is_word(), "{}: expected one secret: a line without spaces", what());
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::logins::file::Sends;

    fn client(scope: &[&str]) -> Client {
        Client {
            issuer: "https://a.example".into(),
            client_id: "c l:i".into(),
            client_secret_file: None,
            ca: None,
            scope: scope.iter().map(|one| (*one).to_owned()).collect(),
            resource: None,
            sends: Sends::IdToken,
        }
    }

    fn provider<'c>(client: &'c Client, document: &str) -> Provider<'c> {
        let document = serde_json::from_str(document).unwrap();
        Provider { client, http: Http::new(None), plain: Plain::Never, document, secret: None }
    }

    #[test]
    fn what_is_asked_for_is_what_the_issuer_has() {
        let (none, some) = (client(&[]), client(&["openid", "groups"]));
        let all = r#"{"issuer": "i", "scopes_supported": ["offline_access", "openid", "email"]}"#;
        assert_eq!(provider(&none, all).scope(), ("openid email offline_access".into(), true));
        assert_eq!(provider(&none, r#"{"issuer": "i"}"#).scope(), ("openid".into(), false));
        assert_eq!(provider(&some, all).scope(), ("openid groups".into(), false));
    }

    #[test]
    fn the_browser_is_sent_to_the_issuer_with_pkce() {
        let document = |more: &str| {
            format!(
                r#"{{"issuer": "i", "authorization_endpoint": "https://a.example/auth?x=1"{more}}}"#
            )
        };
        let offline = Client { resource: Some("urn:r".into()), ..client(&["openid", OFFLINE]) };
        let url = provider(&offline, &document("")).authorization_url(&[("state", "s")]).unwrap();
        assert_eq!(
            url,
            "https://a.example/auth?x=1&response_type=code&client_id=c+l%3Ai&scope=openid+offline_access\
             &code_challenge_method=S256&state=s&resource=urn%3Ar&prompt=consent"
        );
        let plain = document(r#", "code_challenge_methods_supported": ["plain"]"#);
        let error = provider(&offline, &plain).authorization_url(&[]).unwrap_err();
        assert!(error.to_string().contains("no PKCE with S256"), "{error}");
        for (document, said) in [
            (r#"{"issuer": "i"}"#, "has no `authorization_endpoint`"),
            (
                r#"{"issuer": "i", "authorization_endpoint": "http://127.0.0.1/"}"#,
                "expected https://",
            ),
        ] {
            let error = provider(&offline, document).authorization_url(&[]).unwrap_err();
            assert!(format!("{error:#}").contains(said), "{error:#}");
        }
    }

    #[test]
    fn a_client_proves_itself_as_the_issuer_takes_it() {
        let client = client(&[]);
        let takes = |methods: &str, method: &str| {
            provider(&client, &format!(r#"{{"issuer": "i"{methods}}}"#)).takes(method)
        };
        assert!(takes("", "client_secret_basic") && !takes("", "client_secret_post"));
        let post = r#", "token_endpoint_auth_methods_supported": ["client_secret_post"]"#;
        assert!(takes(post, "client_secret_post") && !takes(post, "client_secret_basic"));
        let value = basic("c l:i", &Secret::new("s%:")).unwrap();
        assert_eq!(value, format!("Basic {}", STANDARD.encode("c+l%3Ai:s%25%3A")));
        assert!(value.is_sensitive());
    }

    #[test]
    fn a_refusal_is_told_without_what_was_sent() {
        let url = Endpoint::parse("https://a.example/token?x", Plain::Never).unwrap();
        let sent = Secret::new("r3fresh");
        let told = |body: &str| {
            let form = [Field::Secret("refresh_token", &sent), Field::Open("scope", "openid")];
            refusal(&url, StatusCode::BAD_REQUEST, body.as_bytes(), &form).to_string()
        };
        for (body, text) in [
            (
                r#"{"error": "invalid_grant", "error_description": "no\nsuch"}"#,
                "the issuer refuses: `invalid_grant`: `no\\nsuch`",
            ),
            (r#"{"error": "invalid_grant"}"#, "the issuer refuses: `invalid_grant`"),
            (
                r#"{"error": "invalid_grant", "error_description": "no r3fresh"}"#,
                "the issuer refuses: `invalid_grant`",
            ),
            (r#"{"error": "r3fresh"}"#, "https://a.example/token answers 400"),
            ("<html>", "https://a.example/token answers 400"),
        ] {
            assert_eq!(told(body), text, "{body}");
        }
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let write = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            read_secret(&path)
        };
        let longest = "x".repeat(usize::try_from(CLIENT_SECRET_BYTES_MAX).unwrap());
        for text in ["s3cret", "s3cret\n", &longest] {
            assert_eq!(write(text, 0o600).unwrap().expose(), text.trim());
        }
        for text in ["", "\n", "a b", &format!("{longest}x")] {
            assert!(write(text, 0o600).is_err(), "{text}");
        }
        let error = format!("{:#}", write("s3cret", 0o644).unwrap_err());
        assert!(error.contains("chmod 600") && !error.contains("s3cret"), "{error}");
    }
}
