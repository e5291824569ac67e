//! Consent of a sink, before the first event is delivered.
//!
//! ```text
//! OPTIONS ─▶ sink ─▶ 2xx and WebHook-Allowed-Origin: our host, or * ─▶ consent
//!                  └▶ anything else: no consent
//! POST challenge ─▶ sink ─▶ its owner ─▶ ConfirmSubscription ─▶ Challenges::verify ─▶ consent
//! ```
//!
//! The first way is that of "HTTP 1.1 Web Hooks for Event Delivery", section 4. Few receivers have it, and some answer every
//! OPTIONS with 200: a status alone is no consent. The second way is for receivers that only know POST. Nothing is stored
//! for it: the challenge has its end, random bytes and an HMAC over these, the subscription and the sink.
//!
//! **Invariants**: no consent without a header that names us or everybody. A challenge proves one sink of one subscription
//! since it was created; it is compared in constant time.

use std::num::NonZeroU32;
use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use bytes::Bytes;
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::clock::UnixMillis;
use crate::event::{Event, EventError, EventFields};
use crate::limits::CHALLENGE_LIFETIME;
use crate::signer::{KeyError, Signer};
use crate::sink::Sink;

/// Names the sender in the handshake and in deliveries.
pub(crate) const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
/// Requests per minute that are asked for.
pub(crate) const REQUEST_RATE: HeaderName = HeaderName::from_static("webhook-request-rate");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// The type of the event that carries a challenge.
pub const CHALLENGE_EVENT_TYPE: &str = "dev.capstan.iam.subscription.challenge.v1";

/// What challenges begin with.
pub const CHALLENGE_PREFIX: &str = "capstan_wc_";

const NONCE_BYTES: usize = 16;
const END_BYTES: usize = 8;

/// What a sink answered to the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// The sink takes events from us.
    Granted {
        /// At most so many requests per minute; `None`: no limit.
        rate: Option<NonZeroU32>,
    },
    /// The sink answered something else. It may be asked by a challenge.
    Withheld,
}

impl Consent {
    /// What an answer to OPTIONS means.
    pub(crate) fn read(status: StatusCode, headers: &HeaderMap, origin: &HeaderValue) -> Self {
        let only = |name| {
            let mut values = headers.get_all(name).iter();
            values.next().filter(|_| values.next().is_none()).map(HeaderValue::as_bytes)
        };
        let allowed = only(ALLOWED_ORIGIN).map(<[u8]>::trim_ascii);
        let names_us = allowed
            .is_some_and(|value| value == b"*" || value.eq_ignore_ascii_case(origin.as_bytes()));
        if !status.is_success() || !names_us {
            return Self::Withheld;
        }
        let rate = only(ALLOWED_RATE).and_then(|value| std::str::from_utf8(value).ok());
        Self::Granted { rate: rate.and_then(|value| value.trim().parse().ok()) }
    }

    /// The least time between two requests; zero without a limit.
    #[must_use]
    pub fn interval(self) -> Duration {
        match self {
            Self::Granted { rate: Some(rate) } => Duration::from_secs(60) / rate.get(),
            _ => Duration::ZERO,
        }
    }
}

/// What a challenge is about.
#[derive(Clone, Copy, Debug)]
pub struct Challenged<'a> {
    /// The subscription's id.
    pub subscription: &'a str,
    /// Distinguishes it from earlier subscriptions of the same id: the revision that created it.
    pub incarnation: u64,
    /// Its sink. A challenge for one sink does not confirm another.
    pub sink: &'a Sink,
}

/// A challenge is not the one that was sent, or is too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the challenge is not valid for this subscription and sink, or is too old")]
pub struct ChallengeError;

/// Makes and verifies challenges.
#[derive(Debug)]
pub struct Challenges {
    keys: Vec<hmac::Key>,
    random: SystemRandom,
}

impl Challenges {
    /// With keys that follow from those of the signer: all replicas verify what one of them made, also after the signing key
    /// has changed, as long as the former one is published.
    ///
    /// # Errors
    ///
    /// If a key cannot be derived.
    pub fn new(signer: &Signer) -> Result<Self, KeyError> {
        let keys = signer.derive(b"capstan webhook challenge 1")?;
        Ok(Self { keys, random: SystemRandom::new() })
    }

    /// A new challenge: `capstan_wc_` and 90 of `a-z 2-7`. It can be returned for [`CHALLENGE_LIFETIME`].
    ///
    /// # Errors
    ///
    /// If the system has no random numbers.
    pub fn issue(&self, about: Challenged<'_>, now: UnixMillis) -> Result<String, KeyError> {
        let mut bytes = now.after(CHALLENGE_LIFETIME).0.to_be_bytes().to_vec();
        let mut nonce = [0; NONCE_BYTES];
        self.random.fill(&mut nonce).map_err(|_| KeyError::Random)?;
        bytes.extend_from_slice(&nonce);
        let key = self.keys.first().ok_or(KeyError::Format)?;
        let tag = hmac::sign(key, &message(about, &bytes));
        bytes.extend_from_slice(tag.as_ref());
        Ok(CHALLENGE_PREFIX.to_owned() + &BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }

    /// Whether this is a challenge that was made for this subscription and sink, and is not too old.
    ///
    /// # Errors
    ///
    /// If it is not. The error does not say why.
    pub fn verify(
        &self,
        challenge: &str,
        about: Challenged<'_>,
        now: UnixMillis,
    ) -> Result<(), ChallengeError> {
        let text = challenge.strip_prefix(CHALLENGE_PREFIX).ok_or(ChallengeError)?;
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(ChallengeError);
        }
        let bytes = BASE32_NOPAD
            .decode(text.to_ascii_uppercase().as_bytes())
            .map_err(|_| ChallengeError)?;
        let (signed, tag) =
            bytes.split_at_checked(END_BYTES + NONCE_BYTES).ok_or(ChallengeError)?;
        let message = message(about, signed);
        // `hmac::verify` takes constant time, and only tags of full length.
        if !self.keys.iter().any(|key| hmac::verify(key, &message, tag).is_ok()) {
            return Err(ChallengeError);
        }
        let end = signed.first_chunk().copied().map(u64::from_be_bytes).ok_or(ChallengeError)?;
        // An end further away than any that is given out now: the clock was wrong when it was made.
        let is_timely = now.0 < end && end <= now.after(CHALLENGE_LIFETIME).after(CLOCK_SKEW).0;
        is_timely.then_some(()).ok_or(ChallengeError)
    }

    /// The event that carries a challenge: data `{"subscription", "challenge", "expires_at"}`. Its id follows from the
    /// challenge.
    ///
    /// # Errors
    ///
    /// If the group or the issuer is not an attribute of an event.
    pub fn event(
        signer: &Signer,
        about: Challenged<'_>,
        group: &str,
        challenge: &str,
        now: UnixMillis,
    ) -> Result<Event, EventError> {
        let end = i64::try_from(now.after(CHALLENGE_LIFETIME).seconds()).ok();
        let end = end.and_then(|end| OffsetDateTime::from_unix_timestamp(end).ok());
        let end = end.and_then(|end| end.format(&Rfc3339).ok()).ok_or(EventError::Time)?;
        let data = serde_json::json!({
            "subscription": about.subscription,
            "challenge": challenge,
            "expires_at": end,
        });
        let id = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, challenge.as_bytes());
        Event::new(EventFields {
            id: &HEXLOWER.encode(id.as_ref()),
            source: signer.issuer().as_str(),
            kind: CHALLENGE_EVENT_TYPE,
            subject: about.subscription,
            group,
            time: now,
            data: Bytes::from(data.to_string()),
        })
    }
}

/// How far the clocks of two replicas may differ.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// What the HMAC is over. Lengths stand before the parts, so that no two of them are one message.
fn message(about: Challenged<'_>, signed: &[u8]) -> Vec<u8> {
    let incarnation = about.incarnation.to_be_bytes();
    let parts: [&[u8]; 4] =
        [signed, about.subscription.as_bytes(), &incarnation, about.sink.as_str().as_bytes()];
    let mut message = Vec::new();
    for part in parts {
        message.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        message.extend_from_slice(part);
    }
    message
}

#[cfg(test)]
mod tests;
