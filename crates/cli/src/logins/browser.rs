//! A login in the browser of this machine: the authorization code flow with PKCE (RFC 6749, RFC 7636, RFC 8252).
//!
//! ```text
//! state, nonce, verifier ─▶ URL ─▶ browser ─▶ issuer ─▶ 127.0.0.1 ─▶ code ─▶ token endpoint, with the verifier ─▶ Tokens
//! ```
//!
//! **Invariants**: state, nonce and verifier are random and of one login. Nobody else can use the code: the token endpoint wants
//! the verifier, which is sent to nobody else. What the browser brings is of the issuer that was asked.

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use capstan_engine::quote;
use sha2::{Digest as _, Sha256};

use super::loopback::{Callback, Loopback};
use super::provider::{Field, Provider, Tokens};
use super::secret::Secret;
use crate::output;

/// How the browser is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Browser {
    /// Whether it is opened.
    pub(crate) opens: bool,
    /// The port that it comes back to; 0 for any.
    pub(crate) port: u16,
}

/// Logs in. Returns the tokens, and the nonce that the ID token must have.
///
/// # Errors
///
/// The browser does not come back, or the issuer refuses.
pub(super) async fn log_in(
    provider: &Provider<'_>,
    browser: Browser,
) -> anyhow::Result<(Tokens, String)> {
    let (state, nonce, verifier) = (Secret::random()?, Secret::random()?, Secret::random()?);
    let loopback = Loopback::bind(browser.port).await?;
    let redirect_uri = loopback.redirect_uri();
    let challenge = challenge(&verifier);
    let url = provider.authorization_url(&[
        ("redirect_uri", &redirect_uri),
        ("state", state.expose()),
        ("nonce", nonce.expose()),
        ("code_challenge", &challenge),
    ])?;
    open(&url, browser)?;
    let code = code(loopback.wait(&state).await?, provider)?;
    let grant = vec![
        Field::Open("grant_type", "authorization_code"),
        Field::Secret("code", &code),
        Field::Open("redirect_uri", &redirect_uri),
        Field::Secret("code_verifier", &verifier),
    ];
    Ok((provider.token(grant).await?, nonce.expose().to_owned()))
}

fn challenge(verifier: &Secret) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.expose()))
}

/// Opens the browser, and says the URL in case that nothing is seen of it.
fn open(url: &str, browser: Browser) -> anyhow::Result<()> {
    let is_open = browser.opens && open::that_detached(url).is_ok();
    if is_open {
        output::instruction(format_args!(
            "log in in the browser. If it does not open, go to:\n{url}"
        ))
    } else {
        output::instruction(format_args!(
            "log in with a browser of this machine (or of another one, with --device), at:\n{url}"
        ))
    }
}

/// The code that the browser brought.
fn code(callback: Callback, provider: &Provider<'_>) -> anyhow::Result<Secret> {
    let Callback { code, error, error_description, issuer } = callback;
    let expected = &provider.client.issuer;
    // Without it, another provider could be given the code of this one (RFC 9207).
    ensure!(
        issuer.as_ref().map_or(!provider.names_itself(), |issuer| issuer == expected),
        "the browser came back from the issuer {}, and not from {expected}",
        quote(issuer.as_deref().unwrap_or(""))
    );
    if let Some(error) = error {
        let description = error_description.map(|text| format!(": {}", quote(&text)));
        bail!("the issuer refuses: {}{}", quote(&error), description.unwrap_or_default());
    }
    code.context("the browser came back without a code")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636, appendix B.
    #[test]
    fn the_challenge_is_that_of_the_standard() {
        let verifier = Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(challenge(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
