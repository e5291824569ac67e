//! Kept logins: the token of a person, for the one server that it was got for. `capstan auth login` keeps them.
//!
//! ```text
//! capstan auth login ─▶ browser or device ─▶ issuer ─▶ Tokens ─▶ Login ─▶ file: logins.toml, one login a server
//!                                                                           │
//! command that asks a server, without another credential ─▶ current ◀───────┘
//!     └ the token is over, or within 30 s of it ─▶ lock ─▶ read again ─▶ issuer: refresh ─▶ file ─▶ unlock
//! ```
//!
//! **Invariants**: a token goes to the address that it was kept for and to no other, and never in plain text to another machine
//! ([`ServerKey`]). A refresh token goes to its issuer only, from one command at a time, and what comes in its place is kept
//! before the lock is released. No secret is in an argument, a log, an error or a `Debug` text ([`Secret`]).

mod browser;
mod device;
mod endpoint;
mod exchange;
mod file;
mod http;
mod id_token;
mod loopback;
mod provider;
mod secret;

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow, ensure};
use capstan_client::ServerAddress;
use tonic::metadata::{Ascii, MetadataValue};

pub(crate) use browser::Browser;
pub(crate) use exchange::exchange;
pub(crate) use file::{Client, Locked, Login, Logins, Sends, ServerKey};
use id_token::Expected;
pub(crate) use provider::read_secret;
use provider::{Field, Provider, Tokens};
pub(crate) use secret::Secret;

use crate::limits::{LOGIN_TOKEN_BYTES_MAX, REFRESH_BEFORE};

/// How a person logs in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Browser(Browser),
    Device,
}

/// Whether a token that is over is refreshed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Refresh {
    #[default]
    Yes,
    /// The command may be stopped at any time, and would lose the new token.
    No,
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Lets a person log in.
///
/// # Errors
///
/// The issuer is not as it must be, refuses or does not answer, or the person does not log in.
pub(crate) async fn log_in(client: Client, way: Way) -> anyhow::Result<Login> {
    let provider = Provider::discover(&client).await?;
    let (tokens, nonce) = match way {
        Way::Browser(browser) => {
            let (tokens, nonce) = browser::log_in(&provider, browser).await?;
            (tokens, Some(nonce))
        }
        Way::Device => (device::log_in(&provider).await?, None),
    };
    let id_token = tokens.id_token.as_ref();
    let id_token = id_token.context("the issuer gave no ID token: does --scope have openid?")?;
    let expected = Expected {
        issuer: &client.issuer,
        client_id: &client.client_id,
        nonce: nonce.as_deref(),
        subject: None,
        now: now(),
    };
    let person = id_token::read(id_token, expected)?;
    let (token, expires_at) = sent(&tokens, client.sends, person.expires_at)?;
    drop(provider);
    Ok(Login {
        subject: person.subject,
        email: person.email,
        token,
        expires_at,
        refresh_token: tokens.refresh_token,
        nonce,
        client,
    })
}

/// The token that is sent with calls, and when it ends. An ID token is there, which ends at that time.
fn sent(tokens: &Tokens, sends: Sends, id_ends: i64) -> anyhow::Result<(Secret, Option<i64>)> {
    let (token, end) = match sends {
        Sends::IdToken => (tokens.id_token.clone(), Some(id_ends)),
        Sends::AccessToken => {
            ensure!(
                tokens.token_type.eq_ignore_ascii_case("bearer"),
                "the issuer's access token is of the type {}, and not Bearer",
                capstan_engine::quote(&tokens.token_type)
            );
            let after = match &tokens.expires_in {
                serde_json::Value::String(text) => text.parse().ok(),
                value => value.as_i64(),
            };
            let end = after.map(|after: i64| now().saturating_add(after));
            let token = tokens.access_token.clone();
            let end = end.or_else(|| id_token::end(token.as_ref()?));
            (token, end)
        }
    };
    let token = token.context("the issuer gave no such token as --use says")?;
    ensure!(token.is_word(), "the issuer's token cannot be sent: it is not visible ASCII");
    let bytes = token.expose().len();
    ensure!(
        bytes <= LOGIN_TOKEN_BYTES_MAX,
        "the issuer's token has {bytes} bytes, and a server takes {LOGIN_TOKEN_BYTES_MAX} at most: ask for fewer claims \
         (--scope)"
    );
    Ok((token, end))
}

/// The login for a server, with a token that counts; `None` if there is no login for it.
///
/// # Errors
///
/// The token is over and cannot be refreshed, or the file of the logins cannot be used.
pub(crate) async fn current(
    address: &ServerAddress,
    refresh: Refresh,
) -> anyhow::Result<Option<Login>> {
    if address.unix_path().is_some() {
        return Ok(None);
    }
    let mut logins = Logins::load()?;
    // Nothing is kept for an address that is asked in plain text.
    let Ok(server) = ServerKey::of(address) else { return Ok(None) };
    let Some(login) = logins.remove(&server) else { return Ok(None) };
    if is_fresh(&login) {
        return Ok(Some(login));
    }
    let counts = login.counts_at(now());
    let found = match (&login.refresh_token, refresh) {
        (Some(_), Refresh::Yes) => renew(&server).await,
        (Some(_), Refresh::No) => Err(anyhow!("it is to be refreshed")),
        (None, _) => Err(anyhow!("the issuer gave no refresh token")),
    };
    match found {
        Ok(login) => Ok(Some(login)),
        // What counts for some seconds more is better than an error.
        Err(_) if counts => Ok(Some(login)),
        Err(error) => Err(error.context(format!(
            "the login for {address} is over: capstan auth login --addr {address}"
        ))),
    }
}

/// The `authorization` of calls to a server by the login that is kept for it.
///
/// # Errors
///
/// As of [`current`].
pub(crate) async fn authorization(
    address: &ServerAddress,
    refresh: Refresh,
) -> anyhow::Result<Option<MetadataValue<Ascii>>> {
    let Some(login) = current(address, refresh).await? else { return Ok(None) };
    let value = format!("Bearer {}", login.token.expose()).parse();
    let mut value: MetadataValue<Ascii> =
        value.map_err(|_| anyhow!("the kept token cannot be sent: capstan auth login"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn is_fresh(login: &Login) -> bool {
    login.counts_at(now().saturating_add_unsigned(REFRESH_BEFORE.as_secs()))
}

/// Refreshes the login for a server, unless another command has done so meanwhile.
async fn renew(server: &ServerKey) -> anyhow::Result<Login> {
    let mut locked = Locked::open().await?;
    let login = locked.logins.get(server).context("it was logged out meanwhile")?;
    if is_fresh(login) {
        return Ok(login.clone());
    }
    let login = refreshed(login).await?;
    locked.logins.put(server.clone(), login.clone());
    locked.store()?;
    Ok(login)
}

/// The login with new tokens of its issuer.
async fn refreshed(login: &Login) -> anyhow::Result<Login> {
    let Login { client, refresh_token, .. } = login;
    let before = refresh_token.as_ref().context("the issuer gave no refresh token")?;
    let provider = Provider::discover(client).await?;
    let grant =
        vec![Field::Open("grant_type", "refresh_token"), Field::Secret("refresh_token", before)];
    let tokens = provider.token(grant).await?;
    let person = tokens.id_token.as_ref().map(|id_token| {
        let expected = Expected {
            issuer: &client.issuer,
            client_id: &client.client_id,
            nonce: login.nonce.as_deref(),
            subject: Some(&login.subject),
            now: now(),
        };
        id_token::read(id_token, expected)
    });
    let person = person.transpose()?;
    ensure!(
        person.is_some() || client.sends == Sends::AccessToken,
        "the issuer gave no new ID token"
    );
    let id_ends = person.as_ref().map_or(0, |person| person.expires_at);
    let (token, expires_at) = sent(&tokens, client.sends, id_ends)?;
    let email = person.and_then(|person| person.email).or_else(|| login.email.clone());
    // Without a new one, the one before goes on (RFC 6749, section 6).
    let refresh_token = tokens.refresh_token.or_else(|| Some(before.clone()));
    Ok(Login { email, token, expires_at, refresh_token, ..login.clone() })
}

/// Takes the refresh token of a login back at its issuer. False if there is nothing to take back, or no way to.
///
/// # Errors
///
/// The issuer refuses or does not answer.
pub(crate) async fn revoke(login: &Login) -> anyhow::Result<bool> {
    let Some(token) = &login.refresh_token else { return Ok(false) };
    Provider::discover(&login.client).await?.revoke(token).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tokens(value: serde_json::Value) -> Tokens {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_token_that_is_sent_has_its_end() {
        let both =
            json!({"id_token": "i", "access_token": "a", "token_type": "bearer", "expires_in": 60});
        let sent_of = |value: &serde_json::Value, sends| sent(&tokens(value.clone()), sends, 7);
        assert_eq!(sent_of(&both, Sends::IdToken).unwrap(), (Secret::new("i"), Some(7)));
        for expires_in in [json!(60), json!("60")] {
            let mut both = both.clone();
            both["expires_in"] = expires_in;
            let (token, end) = sent_of(&both, Sends::AccessToken).unwrap();
            assert_eq!(token, Secret::new("a"));
            assert!((59..=61).contains(&(end.unwrap() - now())));
        }
        let mut open = both.clone();
        open["expires_in"] = json!(null);
        assert_eq!(sent_of(&open, Sends::AccessToken).unwrap(), (Secret::new("a"), None));
        open["token_type"] = "DPoP".into();
        assert!(sent_of(&open, Sends::AccessToken).unwrap_err().to_string().contains("`DPoP`"));
        assert!(sent_of(&json!({"access_token": "a"}), Sends::IdToken).is_err());
        let sized = |bytes: usize| json!({"id_token": "x".repeat(bytes)});
        assert!(sent_of(&sized(LOGIN_TOKEN_BYTES_MAX), Sends::IdToken).is_ok());
        let long = sent_of(&sized(LOGIN_TOKEN_BYTES_MAX + 1), Sends::IdToken).unwrap_err();
        assert!(long.to_string().contains("8193 bytes"), "{long}");
        assert!(sent_of(&json!({"id_token": "a b"}), Sends::IdToken).is_err());
    }

    #[test]
    fn a_token_is_refreshed_a_while_before_its_end() {
        let ends_after = |seconds: u64| Login {
            subject: "ann".into(),
            email: None,
            token: Secret::new("t"),
            expires_at: Some(now().saturating_add_unsigned(seconds)),
            refresh_token: None,
            nonce: None,
            client: Client {
                issuer: "https://a.example".into(),
                client_id: "cli".into(),
                client_secret_file: None,
                ca: None,
                scope: Vec::new(),
                resource: None,
                sends: Sends::IdToken,
            },
        };
        assert!(!is_fresh(&ends_after(REFRESH_BEFORE.as_secs())));
        assert!(is_fresh(&ends_after(REFRESH_BEFORE.as_secs() + 2)));
        assert!(!ends_after(0).counts_at(now()));
        assert!(is_fresh(&Login { expires_at: None, ..ends_after(0) }));
    }
}
