//! A token for an access token of a server (RFC 8693).

use std::path::Path;

use anyhow::{Context as _, bail};
use capstan_engine::quote;
use serde_json::Value;
use url::form_urlencoded::Serializer;

use super::endpoint::{Endpoint, Plain};
use super::http::Http;

/// Asks the server that is known at this URL.
///
/// # Errors
///
/// The URL is none, is asked in plain text although it is of another machine, or the server refuses or does not answer. No error
/// has a token.
pub(crate) async fn exchange(
    url: &str,
    ca: Option<&Path>,
    asked: &[(&str, &str)],
) -> anyhow::Result<Value> {
    let url = format!("{}/oauth2/token", url.strip_suffix('/').unwrap_or(url));
    let url = Endpoint::parse(&url, Plain::Loopback).context("--url")?;
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
    form.append_pair("subject_token_type", "urn:ietf:params:oauth:token-type:jwt");
    form.extend_pairs(asked);
    let answer = Http::new(ca).post(&url, form.finish(), None).await?;
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let body = body.with_context(|| {
        let status = answer.status.as_u16();
        format!("{url}: status {status}, and no JSON: is it a server with --data and --public-url?")
    })?;
    if answer.status.is_success() {
        return Ok(body);
    }
    // A URL may be wrong, and whoever answers there may repeat what it was sent.
    let tells =
        |text: &&str| !asked.iter().any(|(name, value)| is_secret(name) && text.contains(value));
    let text = |name: &str| body.get(name).and_then(Value::as_str).filter(tells);
    let error = quote(text("error").unwrap_or("unknown error"));
    let description = text("error_description").unwrap_or_default().chars();
    let description: String =
        description.take(SAID_CHARS_MAX).flat_map(char::escape_debug).collect();
    // Quotation marks need no escape here.
    let description = description.replace("\\\"", "\"").replace("\\'", "'");
    bail!("the token is not exchanged: {error}: {description}")
}

/// Characters of a sentence of the server that are shown.
const SAID_CHARS_MAX: usize = 300;

fn is_secret(parameter: &str) -> bool {
    parameter == "subject_token"
}
