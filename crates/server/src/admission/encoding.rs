//! The compression of requests and answers, by the heads of requests: gzip, or none.

use capstan_proto::contract::{ACCEPT_ENCODING_KEY, ENCODING_KEY};
use tonic::codegen::http::{HeaderMap, HeaderValue};

/// How the compressed messages of a request are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// No message may be compressed.
    Identity,
    Gzip,
    Unknown,
}

impl Encoding {
    /// Of a request, by its head. The names are case-sensitive, as in other servers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        match find(headers, ENCODING_KEY).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => Self::Identity,
            Some(b"gzip") => Self::Gzip,
            Some(_) => Self::Unknown,
        }
    }
}

/// Whether the client takes answers that are compressed with gzip.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    find(headers, ACCEPT_ENCODING_KEY).is_some_and(|value| {
        value.as_bytes().split(|&b| b == b',').any(|one| one.trim_ascii() == b"gzip")
    })
}

fn find<'h>(headers: &'h HeaderMap, key: &str) -> Option<&'h HeaderValue> {
    // Requests have few headers: comparing their names is faster than hashing one.
    headers.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &'static str, value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(key, HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn an_encoding_is_told_by_its_name() {
        assert_eq!(Encoding::of(&HeaderMap::new()), Encoding::Identity);
        for (value, encoding) in [
            ("identity", Encoding::Identity),
            ("gzip", Encoding::Gzip),
            ("GZIP", Encoding::Unknown),
            ("gzip,identity", Encoding::Unknown),
            ("deflate", Encoding::Unknown),
            ("", Encoding::Unknown),
        ] {
            assert_eq!(Encoding::of(&with(ENCODING_KEY, value)), encoding, "{value}");
        }
    }

    #[test]
    fn gzip_is_one_of_a_list() {
        assert!(!takes_gzip(&HeaderMap::new()));
        for good in ["gzip", "identity, deflate, gzip", "gzip,identity", " gzip ,zstd"] {
            assert!(takes_gzip(&with(ACCEPT_ENCODING_KEY, good)), "{good}");
        }
        for other in ["", "identity", "deflate", "x-gzip", "gzip2", "gzip;q=0"] {
            assert!(!takes_gzip(&with(ACCEPT_ENCODING_KEY, other)), "{other}");
        }
    }
}
