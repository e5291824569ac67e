//! What became of one attempt.
//!
//! **Invariants**: nothing of a sink's response but its status and `Retry-After` leaves this crate, so a subscription cannot
//! be used to read what another server answers.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, RETRY_AFTER};

use crate::clock::UnixMillis;
use crate::guard::AddressError;
use crate::limits::{DETAIL_BYTES_MAX, RETRY_AFTER_MAX};

/// What became of one attempt to deliver an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The sink answered 2xx.
    Delivered,
    /// The sink answered 410: nothing further may be sent to it. Disable the subscription.
    Gone,
    /// Anything else. Try again later ([`Circuit`](crate::Circuit)).
    Failed(Failure),
    /// The sink has an address that may not be connected to. No connection was opened to any of its addresses. Try again
    /// later: names can be corrected.
    Refused(AddressError),
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In which step. This and the status may be shown to the subscription's owner.
    pub kind: FailureKind,
    /// The status that the sink answered, if it did.
    pub status: Option<u16>,
    /// How long the sink asks to wait (429 and 503), at most [`RETRY_AFTER_MAX`].
    pub retry_after: Option<Duration>,
    /// More about it, for the operator's log. At most [`DETAIL_BYTES_MAX`] bytes, and no byte that the sink chose apart from
    /// names in its certificate.
    pub detail: String,
}

/// The step in which an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The name has no address, too many, or the lookup failed.
    Lookup,
    /// No address accepted a connection.
    Connect,
    /// TLS failed: the certificate, its name, its authority, or no TLS at all.
    Tls,
    /// The exchange took longer than [`EXCHANGE_TIME_MAX`](crate::limits::EXCHANGE_TIME_MAX).
    Timeout,
    /// The answer is not HTTP, its head is too large, or the connection broke.
    Protocol,
    /// The sink answered 3xx. Redirects are not followed.
    Redirect,
    /// The sink answered another status than 2xx, 3xx and 410.
    Status,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, detail: &dyn fmt::Display) -> Self {
        let mut detail = detail.to_string();
        detail.retain(|c| !c.is_control());
        if detail.len() > DETAIL_BYTES_MAX {
            detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
        }
        Self { kind, status: None, retry_after: None, detail }
    }
}

impl Failure {
    /// What the owner of the subscription may be told: the step, and the status. Nothing that the peer said is in it.
    #[must_use]
    pub fn reason(&self) -> String {
        let what = match self.kind {
            FailureKind::Lookup => "the name has no address, too many, or could not be looked up",
            FailureKind::Connect => "no connection is accepted",
            FailureKind::Tls => "TLS failed",
            FailureKind::Timeout => "no answer came in time",
            FailureKind::Protocol => "the answer is not HTTP, or broke off",
            FailureKind::Redirect => "the answer is a redirect",
            FailureKind::Status => "the answer is an error",
        };
        match self.status {
            Some(status) => format!("{what}, status {status}"),
            None => what.to_owned(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl Outcome {
    /// What a response means.
    pub(crate) fn read(status: StatusCode, headers: &HeaderMap, now: UnixMillis) -> Self {
        if status.is_success() {
            return Self::Delivered;
        }
        if status == StatusCode::GONE {
            return Self::Gone;
        }
        let (kind, text) = if status.is_redirection() {
            (FailureKind::Redirect, "redirects are not followed")
        } else {
            (FailureKind::Status, "not a success")
        };
        let waits =
            matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let retry_after = if waits { retry_after(headers, now) } else { None };
        let failure = Failure::new(kind, &format_args!("status {}: {text}", status.as_u16()));
        Self::Failed(Failure { status: Some(status.as_u16()), retry_after, ..failure })
    }
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds or a date.
fn retry_after(headers: &HeaderMap, now: UnixMillis) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        UnixMillis::from(httpdate::parse_http_date(text).ok()?).since(now)
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(status: u16, wait: Option<&'static str>) -> Outcome {
        let wait = wait.map(|wait| (RETRY_AFTER, HeaderValue::from_static(wait)));
        let now = UnixMillis(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT
        Outcome::read(StatusCode::from_u16(status).unwrap(), &wait.into_iter().collect(), now)
    }

    fn failed(status: u16, wait: Option<&'static str>) -> (FailureKind, Option<Duration>) {
        match read(status, wait) {
            Outcome::Failed(failure) => {
                assert_eq!(failure.status, Some(status));
                (failure.kind, failure.retry_after)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_2xx_is_delivered_and_only_410_is_gone() {
        for status in 100..=999 {
            let outcome = read(status, Some("1"));
            match status {
                200..=299 => assert_eq!(outcome, Outcome::Delivered),
                410 => assert_eq!(outcome, Outcome::Gone),
                300..=399 => assert_eq!(failed(status, None), (FailureKind::Redirect, None)),
                _ => assert_eq!(failed(status, None), (FailureKind::Status, None)),
            }
        }
    }

    #[test]
    fn a_wait_is_seconds_or_a_date_and_is_bounded() {
        let wait = |text| failed(429, Some(text)).1;
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(wait("120"), seconds(120));
        assert_eq!(wait("0"), seconds(0));
        assert_eq!(wait("99999999999999999999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(wait("Sun, 06 Nov 1994 08:51:37 GMT"), seconds(120));
        assert_eq!(wait("Sun Nov  6 08:51:37 1994"), seconds(120));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:36 GMT"), seconds(0));
        assert_eq!(wait("Sat, 06 Nov 2094 08:49:37 GMT"), Some(RETRY_AFTER_MAX));
        for text in ["", "-1", "1.5", "soon"] {
            assert_eq!(wait(text), None, "{text}");
        }
        assert_eq!(failed(503, Some("7")).1, seconds(7));
        assert_eq!(failed(500, Some("7")).1, None, "only 429 and 503 say when");
    }

    #[test]
    fn details_are_short_and_of_one_line() {
        let long = "é\n".repeat(1_000);
        let failure = Failure::new(FailureKind::Protocol, &long);
        assert_eq!(failure.detail, "é".repeat(DETAIL_BYTES_MAX / 2));
        assert_eq!(failure.to_string(), failure.detail);
    }
}
