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
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let (error, description) = (quote(text("error")), quote(text("error_description")));
    bail!("the token is not exchanged: {error}: {description}")
}
