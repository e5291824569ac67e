//! A text that must not be told: a token, a code, or the secret of a client.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A secret. `Debug` does not show it, and there is no `Display`. It is serialized for the file of the logins only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// 32 random bytes in base64url: a text of 43 characters that no other login has.
    ///
    /// # Errors
    ///
    /// The system has no randomness.
    pub(super) fn random() -> anyhow::Result<Self> {
        use base64::Engine as _;
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)
            .map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
        Ok(Self(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The text, where it is sent or printed on request.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it can be sent in a header: visible ASCII, and not empty.
    pub(super) fn is_word(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_graphic())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_and_random_ones_differ() {
        assert_eq!(format!("{:?}", Some(Secret::new("a.b.c"))), "Some(Secret(…))");
        let (one, other) = (Secret::random().unwrap(), Secret::random().unwrap());
        assert_eq!(one.expose().len(), 43);
        assert!(one.is_word() && one != other);
        for text in ["", "a b", "a\n", "\u{e4}"] {
            assert!(!Secret::new(text).is_word(), "{text:?}");
        }
    }
}
