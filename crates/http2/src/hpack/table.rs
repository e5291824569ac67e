//! Header fields, the table of fields that every peer knows, and the table of fields that one peer has sent
//! (RFC 7541, section 2.3 and appendix A).

use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};

/// Bytes of fields that a peer may keep in its table. The protocol's first value; no other is announced.
pub(crate) const TABLE_BYTES_MAX: usize = 4_096;

/// What a field counts beside its texts (section 4.1).
const FIELD_OVERHEAD: usize = 32;

/// The name of a field in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    Header(HeaderName),
    /// Any other name that begins with a colon, or a name that is none. No request may have it.
    Malformed,
}

impl Name {
    pub(crate) fn read(text: &[u8]) -> Self {
        match text {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            // Names are in lower case (RFC 9113, section 8.2.1).
            _ => HeaderName::from_lowercase(text).map_or(Self::Malformed, Self::Header),
        }
    }
}

/// A header field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: Name,
    /// Bytes of the name as it was sent.
    pub(crate) name_bytes: usize,
    /// Empty if the value that was sent is none.
    pub(crate) value: HeaderValue,
    /// Bytes that the field counts, in the table and in the list.
    pub(crate) size: usize,
}

impl Field {
    /// A field without its value.
    pub(crate) fn named(text: &[u8]) -> Self {
        let (name, value) = (Name::read(text), HeaderValue::from_static(""));
        Self { name, name_bytes: text.len(), value, size: text.len() + FIELD_OVERHEAD }
    }

    /// The same name with another value.
    pub(crate) fn with(&self, value: Vec<u8>) -> Self {
        let Self { name, name_bytes, .. } = self;
        let size = name_bytes + value.len() + FIELD_OVERHEAD;
        let (name, value) = match HeaderValue::from_maybe_shared(Bytes::from(value)) {
            Ok(value) => (name.clone(), value),
            Err(_) => (Name::Malformed, HeaderValue::from_static("")),
        };
        Self { name, name_bytes: *name_bytes, value, size }
    }
}

/// The fields that every peer knows, the first one with number 1.
static KNOWN: LazyLock<[Field; 61]> = LazyLock::new(|| {
    let plain = [
        header::ACCEPT_LANGUAGE,
        header::ACCEPT_RANGES,
        header::ACCEPT,
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        header::AGE,
        header::ALLOW,
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONTENT_DISPOSITION,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_LENGTH,
        header::CONTENT_LOCATION,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::DATE,
        header::ETAG,
        header::EXPECT,
        header::EXPIRES,
        header::FROM,
        header::HOST,
        header::IF_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_NONE_MATCH,
        header::IF_RANGE,
        header::IF_UNMODIFIED_SINCE,
        header::LAST_MODIFIED,
        header::LINK,
        header::LOCATION,
        header::MAX_FORWARDS,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::RANGE,
        header::REFERER,
        header::REFRESH,
        header::RETRY_AFTER,
        header::SERVER,
        header::SET_COOKIE,
        header::STRICT_TRANSPORT_SECURITY,
        header::TRANSFER_ENCODING,
        header::USER_AGENT,
        header::VARY,
        header::VIA,
        header::WWW_AUTHENTICATE,
    ];
    let first = [
        (":authority", ""),
        (":method", "GET"),
        (":method", "POST"),
        (":path", "/"),
        (":path", "/index.html"),
        (":scheme", "http"),
        (":scheme", "https"),
        (":status", "200"),
        (":status", "204"),
        (":status", "206"),
        (":status", "304"),
        (":status", "400"),
        (":status", "404"),
        (":status", "500"),
        ("accept-charset", ""),
        ("accept-encoding", "gzip, deflate"),
    ];
    let first = first.map(|(name, value)| (name.to_owned(), value));
    let plain = plain.map(|name| (name.as_str().to_owned(), ""));
    let mut all = first.into_iter().chain(plain);
    std::array::from_fn(|_| {
        let (name, value) = all.next().unwrap_or_default();
        Field::named(name.as_bytes()).with(value.into())
    })
});

/// The fields that one peer has sent.
#[derive(Debug)]
pub(crate) struct Table {
    /// The newest first.
    fields: VecDeque<Field>,
    size: usize,
    size_max: usize,
    changes: u64,
}

impl Default for Table {
    fn default() -> Self {
        Self { fields: VecDeque::new(), size: 0, size_max: TABLE_BYTES_MAX, changes: 0 }
    }
}

impl Table {
    /// The field with this number, which counts from 1.
    pub(crate) fn get(&self, number: usize) -> Option<&Field> {
        let at = number.checked_sub(1)?;
        KNOWN.get(at).or_else(|| self.fields.get(at - KNOWN.len()))
    }

    /// Adds a field, in the place of the oldest ones. A field above the table's size empties it (section 4.4).
    pub(crate) fn add(&mut self, field: Field) {
        self.changes += 1;
        self.evict(field.size);
        if field.size <= self.size_max {
            self.size += field.size;
            self.fields.push_front(field);
        }
    }

    /// Changes the table's size.
    pub(crate) fn resize(&mut self, size_max: usize) {
        self.changes += 1;
        self.size_max = size_max;
        self.evict(0);
    }

    /// The number of changes so far: while it is the same, the same block means the same fields.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    fn evict(&mut self, room: usize) {
        while self.size + room > self.size_max
            && let Some(oldest) = self.fields.pop_back()
        {
            self.size -= oldest.size;
        }
    }

    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.size
    }
}
