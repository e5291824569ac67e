//! A login on another device: the device authorization grant (RFC 8628).
//!
//! ```text
//! issuer ─▶ URL and code, shown ─▶ the person, anywhere ─▶ issuer
//!    ▲                                                      │
//!    └── asked every interval: not yet, slower, no, expired ─┴─▶ Tokens
//! ```

use std::time::Duration;

use anyhow::{anyhow, bail, ensure};
use capstan_engine::quote;
use tokio::time::{Instant, sleep_until};

use super::provider::{Device, Field, GrantError, Provider, Tokens};
use crate::limits::{DEVICE_INTERVAL, DEVICE_INTERVAL_MAX, DEVICE_SLOWER, DEVICE_TIME_MAX};
use crate::output;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// What to do after a poll without tokens.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Ask again after this interval.
    Wait(Duration),
    Stop(String),
}

/// Logs in.
///
/// # Errors
///
/// The issuer refuses, or the person is not done in time.
pub(super) async fn log_in(provider: &Provider<'_>) -> anyhow::Result<Tokens> {
    let device = provider.device().await?;
    let until = Instant::now() + lifetime(device.expires_in);
    let mut interval = interval(device.interval);
    show(&device)?;
    loop {
        let next = Instant::now() + interval;
        ensure!(next < until, "nobody logged in with the code in time: try again");
        sleep_until(next).await;
        let grant = vec![
            Field::Open("grant_type", GRANT),
            Field::Secret("device_code", &device.device_code),
        ];
        let error = match provider.token(grant).await {
            Ok(tokens) => return Ok(tokens),
            Err(error) => error,
        };
        match after(&error, interval) {
            Next::Wait(longer) => interval = longer,
            Next::Stop(text) => bail!(text),
        }
    }
}

fn lifetime(seconds: u64) -> Duration {
    Duration::from_secs(seconds).min(DEVICE_TIME_MAX)
}

fn interval(seconds: Option<u64>) -> Duration {
    let given = seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs);
    given.unwrap_or(DEVICE_INTERVAL).min(DEVICE_INTERVAL_MAX)
}

/// RFC 8628, section 3.5.
fn after(error: &GrantError, interval: Duration) -> Next {
    let code = match error {
        GrantError::Refused { code, .. } => code.as_str(),
        // An issuer that does not answer is asked less often.
        GrantError::Failed(_) => return Next::Wait((interval * 2).min(DEVICE_INTERVAL_MAX)),
    };
    match code {
        "authorization_pending" => Next::Wait(interval),
        "slow_down" => Next::Wait((interval + DEVICE_SLOWER).min(DEVICE_INTERVAL_MAX)),
        "expired_token" => Next::Stop("nobody logged in with the code in time: try again".into()),
        "access_denied" => Next::Stop("the login was refused on the other device".into()),
        _ => Next::Stop(error.to_string()),
    }
}

fn show(device: &Device) -> anyhow::Result<()> {
    let code = plain(&device.user_code)?;
    let page = page(&device.verification_uri)?;
    output::instruction(format_args!("log in on any device, at {page}\nwith the code {code}"))?;
    if let Some(complete) = &device.verification_uri_complete {
        output::instruction(format_args!("or at once at {}", self::page(complete)?))?;
    }
    Ok(())
}

/// A page that a person can be sent to.
fn page(url: &str) -> anyhow::Result<&str> {
    let has_scheme = ["https://", "http://"].iter().any(|scheme| url.starts_with(scheme));
    ensure!(has_scheme, "the issuer sends to {}, which is no page", quote(url));
    plain(url)
}

/// A text without what changes a terminal.
fn plain(text: &str) -> anyhow::Result<&str> {
    let is_plain = !text.is_empty() && text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    is_plain
        .then_some(text)
        .ok_or_else(|| anyhow!("the issuer sends {}, which cannot be shown", quote(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> GrantError {
        GrantError::Refused { code: code.into(), description: None }
    }

    #[test]
    fn the_issuer_says_how_often_it_is_asked() {
        assert_eq!(interval(None), DEVICE_INTERVAL);
        assert_eq!(interval(Some(0)), DEVICE_INTERVAL);
        assert_eq!(interval(Some(1)), Duration::from_secs(1));
        assert_eq!(interval(Some(u64::MAX)), DEVICE_INTERVAL_MAX);
        let second = Duration::from_secs(1);
        for (error, next) in [
            (refused("authorization_pending"), Some(second)),
            (refused("slow_down"), Some(second + DEVICE_SLOWER)),
            (GrantError::Failed(anyhow!("no answer")), Some(second * 2)),
            (refused("expired_token"), None),
            (refused("access_denied"), None),
            (refused("invalid_grant"), None),
        ] {
            match (after(&error, second), next) {
                (Next::Wait(found), Some(next)) => assert_eq!(found, next, "{error}"),
                (Next::Stop(_), None) => {}
                (found, _) => panic!("{error}: {found:?}"),
            }
        }
        assert_eq!(
            after(&refused("slow_down"), DEVICE_INTERVAL_MAX),
            Next::Wait(DEVICE_INTERVAL_MAX)
        );
        assert_eq!(lifetime(600), Duration::from_secs(600));
        assert_eq!(lifetime(u64::MAX), DEVICE_TIME_MAX);
    }

    #[test]
    fn what_changes_a_terminal_is_not_shown() {
        assert!(page("https://a.example/device?user_code=AB-CD").is_ok());
        for url in
            ["", "javascript:alert(1)", "https://a\u{1b}[2J", "https://a\n", "https://\u{202e}a"]
        {
            assert!(page(url).is_err(), "{url:?}");
        }
    }
}
