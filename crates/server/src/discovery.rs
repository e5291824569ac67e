//! What an issuer publishes: its discovery document, and its keys (OpenID Connect Discovery 1.0, sections 3 and 4).
//!
//! ```text
//! issuer ─▶ /.well-known/openid-configuration: says the same issuer? ─▶ jwks_uri ─▶ a set of keys?
//! ```
//!
//! **Invariants**: what an issuer answers decides; that it does not answer decides nothing. Nothing of an answer is told to
//! the caller, apart from what is wrong with it. Redirects are not followed.

use std::time::Duration;

use bytes::Bytes;
use capstan_events::{Client, Failure, Outcome, Sink, SinkError};
use serde::Deserialize;
use tokio::time::timeout;

use crate::limits::{DISCOVERED_KEYS_MAX, DISCOVERY_TIME_MAX};

const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

/// Whether an issuer publishes keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Discovered {
    /// It does.
    Keys,
    /// It could not be asked, or did not answer: why.
    Unanswered(String),
    /// What it answered gives no keys: why.
    Wrong(String),
}

/// The keys of an issuer, and what it says of them.
#[derive(Clone, Debug)]
pub(crate) struct PublishedKeys {
    /// `jwks_uri`.
    pub(crate) url: String,
    /// `id_token_signing_alg_values_supported`; `None` if it does not say.
    pub(crate) algorithms: Option<Vec<String>>,
    /// A JSON Web Key Set.
    pub(crate) keys: Bytes,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
    #[serde(default)]
    id_token_signing_alg_values_supported: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Map<String, serde_json::Value>>,
}

/// Asks an issuer, for at most [`DISCOVERY_TIME_MAX`].
pub(crate) async fn discover(client: &Client, issuer: &str) -> Discovered {
    match published_keys(client, issuer).await {
        Ok(_) => Discovered::Keys,
        Err(other) => other,
    }
}

/// Asks an issuer for its keys, for at most [`DISCOVERY_TIME_MAX`].
///
/// # Errors
///
/// It was not asked, does not answer, or publishes none.
pub(crate) async fn published_keys(
    client: &Client,
    issuer: &str,
) -> Result<PublishedKeys, Discovered> {
    in_time(ask(client, issuer)).await
}

/// Reads the keys again of an issuer that was asked before, at the same time limit.
///
/// # Errors
///
/// As [`published_keys`].
pub(crate) async fn keys_at(client: &Client, url: &str) -> Result<Bytes, Discovered> {
    in_time(read_keys(client, url)).await
}

async fn in_time<T>(asked: impl Future<Output = Result<T, Discovered>>) -> Result<T, Discovered> {
    let late = |_| Err(Discovered::Unanswered(late(DISCOVERY_TIME_MAX)));
    timeout(DISCOVERY_TIME_MAX, asked).await.unwrap_or_else(late)
}

fn late(time: Duration) -> String {
    format!("it did not answer within {time:?}")
}

async fn ask(client: &Client, issuer: &str) -> Result<PublishedKeys, Discovered> {
    let url = format!("{}{DISCOVERY_PATH}", issuer.strip_suffix('/').unwrap_or(issuer));
    let document = fetch(client, &url, "the discovery document").await?;
    let document: Document = parse("the discovery document", &document)?;
    // Byte for byte: the tokens of another issuer are not this one's (section 4.3).
    if document.issuer != issuer {
        return wrong("the discovery document is of another issuer");
    }
    let keys = read_keys(client, &document.jwks_uri).await?;
    let algorithms = document.id_token_signing_alg_values_supported;
    Ok(PublishedKeys { url: document.jwks_uri, algorithms, keys })
}

async fn read_keys(client: &Client, url: &str) -> Result<Bytes, Discovered> {
    let document = fetch(client, url, "`jwks_uri`").await?;
    let keys: KeySet = parse("`jwks_uri`", &document)?;
    if keys.keys.is_empty() || keys.keys.len() > DISCOVERED_KEYS_MAX {
        return wrong(&format!("`jwks_uri` must have 1 to {DISCOVERED_KEYS_MAX} keys"));
    }
    Ok(document)
}

fn wrong<T>(problem: &str) -> Result<T, Discovered> {
    Err(Discovered::Wrong(problem.to_owned()))
}

/// The position alone is told of what is no JSON: no byte of it.
fn parse<'d, T: Deserialize<'d>>(what: &str, document: &'d Bytes) -> Result<T, Discovered> {
    let parsed = serde_json::from_slice(document);
    parsed.or_else(|error: serde_json::Error| match error.classify() {
        serde_json::error::Category::Data => {
            let wanted = if what.starts_with('`') { "`keys`" } else { "`issuer` and `jwks_uri`" };
            wrong(&format!("{what} has no valid {wanted}"))
        }
        _ => wrong(&format!("{what} is no JSON, see line {}", error.line())),
    })
}

async fn fetch(client: &Client, url: &str, what: &str) -> Result<Bytes, Discovered> {
    let not_asked = |kind: &str| Err(Discovered::Unanswered(format!("{what} is at {kind}")));
    let url = match Sink::parse(url, client.policy()) {
        Ok(url) => url,
        Err(SinkError::Address(error)) => return not_asked(error.kind),
        Err(SinkError::Port(_)) => return not_asked("a port that the server does not connect to"),
        Err(_) => return wrong(&format!("{what} is at no https URL")),
    };
    match client.fetch(&url).await {
        Ok(document) => Ok(document),
        Err(Outcome::Refused(error)) => {
            tracing::warn!(url = url.as_str(), %error, "an issuer is not asked");
            not_asked(error.kind)
        }
        Err(Outcome::Failed(failure)) => {
            tracing::debug!(url = url.as_str(), %failure, "an issuer does not answer");
            Err(of_failure(what, &failure))
        }
        Err(Outcome::Gone | Outcome::Delivered) => wrong(&format!("{what} is gone")),
    }
}

/// A status that says that there is no document is an answer. One that says that the server has a problem is none.
fn of_failure(what: &str, failure: &Failure) -> Discovered {
    match failure.status {
        Some(status @ (200..=407 | 409..=428 | 430..=499)) => {
            Discovered::Wrong(format!("{what} is not there: status {status}"))
        }
        _ => Discovered::Unanswered(format!("{what}: {}", failure.reason())),
    }
}
