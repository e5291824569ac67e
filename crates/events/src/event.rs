//! One CloudEvent, as a request in binary mode.
//!
//! ```text
//! ce-specversion: 1.0                 ce-subject: acme/platform
//! ce-id: 00000000000000070001         ce-group: acme
//! ce-source: https://iam.example.com  ce-time: 2026-11-29T12:00:00Z
//! ce-type: dev.capstan.iam.group.created.v1
//! content-type: application/json      body: the data
//! ```
//!
//! Specifications: CloudEvents 1.0.2, and its HTTP protocol binding, section 3.1. Values are percent-encoded as section
//! 3.1.3.2 says. Most SDKs do not decode them: keep source and subject to the characters of paths, and put names into the
//! data.
//!
//! **Invariants**: an id has hexadecimal digits only, so that nothing that is made of it can be split in two ways. The data
//! is one JSON object. An event that exists can be sent.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::de::IgnoredAny;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::clock::UnixMillis;
use crate::limits::{EVENT_ATTRIBUTE_BYTES_MAX, EVENT_DATA_BYTES_MAX, EVENT_ID_DIGITS_MAX};

/// What an event consists of.
#[derive(Clone, Debug, Default)]
pub struct EventFields<'a> {
    /// 1 to 64 digits `0-9a-f`. With `source` it names the event: a repeated delivery has the same.
    pub id: &'a str,
    /// The service's URL.
    pub source: &'a str,
    /// Words of `a-z 0-9 _`, joined by dots: `dev.capstan.iam.role_binding.created.v1`.
    pub kind: &'a str,
    /// What the event is about. Empty: none.
    pub subject: &'a str,
    /// The extension `group`. Empty: none.
    pub group: &'a str,
    /// When it happened. Years 1970 to 9999.
    pub time: UnixMillis,
    /// A JSON object, at most [`EVENT_DATA_BYTES_MAX`].
    pub data: Bytes,
}

/// One CloudEvent. Clones share the data.
#[derive(Clone, Debug)]
pub struct Event {
    id: Box<str>,
    headers: HeaderMap,
    data: Bytes,
}

/// Why something is not an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The id is empty, too long, or has other characters.
    #[error("id: expected 1 to {EVENT_ID_DIGITS_MAX} of `0-9a-f`")]
    Id,
    /// The type has other characters.
    #[error("type: expected words of `a-z 0-9 _`, joined by dots")]
    Type,
    /// An attribute that must not be empty is.
    #[error("{0}: must not be empty")]
    Empty(&'static str),
    /// An attribute is longer than [`EVENT_ATTRIBUTE_BYTES_MAX`].
    #[error("{0}: longer than {EVENT_ATTRIBUTE_BYTES_MAX} bytes")]
    TooLong(&'static str),
    /// An attribute has control characters, which CloudEvents does not allow.
    #[error("{0}: must not contain control characters")]
    Control(&'static str),
    /// The time is after the year 9999.
    #[error("time: after the year 9999")]
    Time,
    /// The data is longer than [`EVENT_DATA_BYTES_MAX`].
    #[error("data: longer than {EVENT_DATA_BYTES_MAX} bytes")]
    DataTooLong,
    /// The data is not one JSON object.
    #[error("data: not a JSON object: {0}")]
    Data(String),
}

impl Event {
    /// Makes an event.
    ///
    /// # Errors
    ///
    /// If an attribute or the data is not what [`EventFields`] says.
    pub fn new(fields: EventFields<'_>) -> Result<Self, EventError> {
        let EventFields { id, source, kind, subject, group, time, data } = fields;
        let digits = id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !digits || id.is_empty() || id.len() > EVENT_ID_DIGITS_MAX {
            return Err(EventError::Id);
        }
        let is_word = |word: &str| {
            let allowed = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
            !word.is_empty() && word.bytes().all(allowed)
        };
        if !kind.split('.').all(is_word) {
            return Err(EventError::Type);
        }
        if source.is_empty() {
            return Err(EventError::Empty("source"));
        }
        if data.len() > EVENT_DATA_BYTES_MAX {
            return Err(EventError::DataTooLong);
        }
        let not_json = |error: serde_json::Error| EventError::Data(error.to_string());
        if data.first() != Some(&b'{') {
            return Err(EventError::Data("it does not begin with `{`".into()));
        }
        let _: IgnoredAny = serde_json::from_slice(&data).map_err(not_json)?;
        if std::str::from_utf8(&data).is_err() {
            return Err(EventError::Data("not UTF-8".into()));
        }

        let time = i64::try_from(time.0).map_err(|_| EventError::Time)?;
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time) * 1_000_000)
            .map_err(|_| EventError::Time)?;
        let time = time.format(&Rfc3339).map_err(|_| EventError::Time)?;

        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("ce-specversion", HeaderValue::from_static("1.0"));
        for (name, attribute, value) in [
            ("ce-id", "id", id),
            ("ce-source", "source", source),
            ("ce-type", "type", kind),
            ("ce-time", "time", &*time),
            ("ce-subject", "subject", subject),
            ("ce-group", "group", group),
        ] {
            // CloudEvents: an attribute that is present is not empty.
            if !value.is_empty() {
                headers.insert(HeaderName::from_static(name), header_value(attribute, value)?);
            }
        }
        Ok(Self { id: id.into(), headers, data })
    }

    /// The id.
    #[must_use]
    pub const fn id(&self) -> &str {
        &self.id
    }

    /// The headers of its request: attributes and content type.
    #[must_use]
    pub const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body of its request.
    #[must_use]
    pub const fn data(&self) -> &Bytes {
        &self.data
    }
}

/// What a header value may not contain as it is. Everything beyond ASCII is encoded, too.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

fn header_value(attribute: &'static str, value: &str) -> Result<HeaderValue, EventError> {
    if value.len() > EVENT_ATTRIBUTE_BYTES_MAX {
        return Err(EventError::TooLong(attribute));
    }
    if value.chars().any(char::is_control) {
        return Err(EventError::Control(attribute));
    }
    let encoded = utf8_percent_encode(value, ENCODED).to_string();
    HeaderValue::try_from(encoded).map_err(|_| EventError::Control(attribute))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields() -> EventFields<'static> {
        EventFields {
            id: "7f01",
            source: "https://iam.example.com",
            kind: "dev.capstan.iam.role_binding.created.v1",
            subject: "acme/platform/0f1e2d3c4b5a6978",
            group: "acme/platform",
            time: UnixMillis(1_796_000_000_123),
            data: Bytes::from_static(br#"{"body":{}}"#),
        }
    }

    #[test]
    fn attributes_become_headers() {
        let event = Event::new(fields()).unwrap();
        let mut headers: Vec<_> = event.headers().iter().collect();
        headers.sort_by_key(|(name, _)| name.as_str());
        let headers: Vec<_> = headers
            .into_iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(
            headers,
            [
                ("ce-group", "acme/platform"),
                ("ce-id", "7f01"),
                ("ce-source", "https://iam.example.com"),
                ("ce-specversion", "1.0"),
                ("ce-subject", "acme/platform/0f1e2d3c4b5a6978"),
                ("ce-time", "2026-11-30T00:53:20.123Z"),
                ("ce-type", "dev.capstan.iam.role_binding.created.v1"),
                ("content-type", "application/json"),
            ]
        );
        let root = Event::new(EventFields { subject: "", group: "", ..fields() }).unwrap();
        assert_eq!(root.headers().len(), 6, "an empty attribute has no header");
    }

    /// The example of the HTTP protocol binding, section 3.1.3.2.
    #[test]
    fn values_are_percent_encoded_as_the_binding_says() {
        let event = Event::new(EventFields { subject: "Euro € 😀", ..fields() }).unwrap();
        assert_eq!(event.headers()["ce-subject"], "Euro%20%E2%82%AC%20%F0%9F%98%80");
        let event = Event::new(EventFields { subject: "50% \"x\"~", ..fields() }).unwrap();
        assert_eq!(event.headers()["ce-subject"], "50%25%20%22x%22~");
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let long = "a".repeat(EVENT_ATTRIBUTE_BYTES_MAX + 1);
        let ids = ["", "7F", "7.1", "7 1", &"0".repeat(EVENT_ID_DIGITS_MAX + 1)];
        for id in ids {
            assert_eq!(Event::new(EventFields { id, ..fields() }).unwrap_err(), EventError::Id);
        }
        for kind in ["", "a..b", ".a", "a.", "a-b", "A", "a\r\nx: y"] {
            assert_eq!(Event::new(EventFields { kind, ..fields() }).unwrap_err(), EventError::Type);
        }
        let refusal = |fields| Event::new(fields).unwrap_err();
        assert_eq!(refusal(EventFields { source: "", ..fields() }), EventError::Empty("source"));
        assert_eq!(
            refusal(EventFields { subject: &long, ..fields() }),
            EventError::TooLong("subject")
        );
        for group in ["a\nb", "a\u{0}", "a\u{7f}", "a\u{85}"] {
            assert_eq!(refusal(EventFields { group, ..fields() }), EventError::Control("group"));
        }
        let time = UnixMillis(253_402_300_800_000);
        assert_eq!(refusal(EventFields { time, ..fields() }), EventError::Time);
        assert_eq!(
            refusal(EventFields { time: UnixMillis(u64::MAX), ..fields() }),
            EventError::Time
        );
        for data in ["", "[]", "1", "{", "{} {}", "{\"a\":1,}"] {
            let error = refusal(EventFields { data: data.into(), ..fields() });
            assert!(matches!(error, EventError::Data(_)), "{data}: {error}");
        }
        let data = Bytes::from_static(b"{\"a\":\"\xff\"}");
        assert!(matches!(refusal(EventFields { data, ..fields() }), EventError::Data(_)));
        let data = format!("{{\"a\":\"{}\"}}", "x".repeat(EVENT_DATA_BYTES_MAX - 8));
        assert!(Event::new(EventFields { data: data.clone().into(), ..fields() }).is_ok());
        let data = format!("{data} ");
        assert_eq!(refusal(EventFields { data: data.into(), ..fields() }), EventError::DataTooLong);
    }

    proptest! {
        /// Every subject that is taken is decoded to itself, by one round of percent-decoding.
        #[test]
        fn every_subject_survives_its_header(subject in "\\PC{1,64}") {
            let event = Event::new(EventFields { subject: &subject, ..fields() }).unwrap();
            let value = event.headers()["ce-subject"].as_bytes();
            prop_assert!(value.iter().all(|byte| (0x21..=0x7e).contains(byte) && *byte != b'"'));
            let decoded = percent_encoding::percent_decode(value).decode_utf8().unwrap();
            prop_assert_eq!(decoded, subject);
        }
    }
}
