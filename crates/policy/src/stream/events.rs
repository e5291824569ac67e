//! Events of one value in JSON, as [`Reader`](crate::reader::Reader) takes them.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;

use serde::de::{
    Deserialize as _, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess,
    Visitor,
};

use super::window::Stop;
use crate::reader::{Kind, Next, Node};

/// Longest key of a mapping, in bytes. A document with a longer one is read whole, by a reader that bounds the characters
/// from the start of a key to its colon, blanks and escapes included: a character of one byte can take six. See also
/// `BLANKS_MAX`.
const KEY_BYTES_MAX: usize = 100;

/// Reads the value at the start of these bytes into events. Returns the number of its bytes, with blanks before it. If
/// the bytes end there, a number may not be complete.
pub(super) fn read_events<'w>(
    bytes: &'w [u8],
    events: &mut VecDeque<Next<'w>>,
) -> Result<usize, Stop> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    Events(events).deserialize(&mut json)?;
    Ok(json.into_iter::<IgnoredAny>().byte_offset())
}

/// Reads a key of the document, as [`read_events`] does.
pub(super) fn read_key(bytes: &[u8]) -> Result<(Box<str>, usize), Stop> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let key = Box::deserialize(&mut json)?;
    Ok((key, json.into_iter::<IgnoredAny>().byte_offset()))
}

/// The events of one value, as the reader takes them.
struct Events<'e, 'w>(&'e mut VecDeque<Next<'w>>);

impl<'w> Events<'_, 'w> {
    fn push(&mut self, kind: Kind<'w>) {
        self.0.push_back(Next::Node(Node { mark: (0, 0), kind }));
    }

    fn plain<E>(mut self, text: impl Into<Cow<'w, str>>) -> Result<(), E> {
        self.push(Kind::Scalar { text: text.into(), plain: true });
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Events<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Events<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.plain(if value { "true" } else { "false" })
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.plain(value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.plain(value.to_string())
    }

    /// The text is another one than that of the document, with the same value.
    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.plain(format!("{value:?}"))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.plain("null")
    }

    fn visit_borrowed_str<E: Error>(mut self, text: &'de str) -> Result<(), E> {
        self.push(Kind::Scalar { text: Cow::Borrowed(checked(text)?), plain: false });
        Ok(())
    }

    /// A text with escapes.
    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        self.push(Kind::Scalar { text: Cow::Owned(checked(text)?.into()), plain: false });
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        self.push(Kind::Sequence);
        while list.next_element_seed(Events(self.0))?.is_some() {}
        self.0.push_back(Next::Close);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.push(Kind::Mapping);
        while map.next_key_seed(Key(self.0))?.is_some() {
            map.next_value_seed(Events(self.0))?;
        }
        self.0.push_back(Next::Close);
        Ok(())
    }
}

/// A key of a mapping.
struct Key<'e, 'w>(&'e mut VecDeque<Next<'w>>);

impl<'w> Key<'_, 'w> {
    fn push<E: Error>(self, key: Cow<'w, str>) -> Result<(), E> {
        if key.len() > KEY_BYTES_MAX {
            return Err(E::custom("a long key"));
        }
        checked::<E>(&key)?;
        Events(self.0).push(Kind::Scalar { text: key, plain: false });
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Key<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<(), D::Error> {
        key.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<(), E> {
        self.push(Cow::Borrowed(key))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        self.push(Cow::Owned(key.into()))
    }
}

/// Refuses a text with U+FFFE, U+FFFF or a control character that JSON may have and YAML only escaped.
fn checked<E: Error>(text: &str) -> Result<&str, E> {
    let is_control = |c| matches!(c, '\u{7f}'..='\u{84}' | '\u{86}'..='\u{9f}');
    let is_refused = |c| is_control(c) || matches!(c, '\u{fffe}' | '\u{ffff}');
    if text.as_bytes().contains(&0x7f) || !text.is_ascii() && text.contains(is_refused) {
        return Err(E::custom("a character that YAML does not have"));
    }
    Ok(text)
}
