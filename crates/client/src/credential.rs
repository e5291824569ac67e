//! What proves who a client is: a token in a file.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

use crate::address::ServerAddress;
use crate::error::ConnectError;
use crate::limits::TOKEN_FILE_BYTES_MAX;

/// What proves who asks: the token in a file, of an issuer that the server believes, or a secret of Capstan's, such as a pull token. The file
/// is read again and again, so that a token which is renewed in place goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    file: PathBuf,
    identity: Option<String>,
}

impl Credential {
    /// The token in this file. Nothing is read yet.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { file: path.into(), identity: None }
    }

    /// Names the identity that the token proves, which one below a group needs (R13 of the privilege rules).
    #[must_use]
    pub fn of(mut self, identity: impl Into<String>) -> Self {
        self.identity = Some(identity.into());
        self
    }

    /// Whether only the server at this address would see the token.
    ///
    /// # Errors
    ///
    /// [`ConnectError::PlainToken`]: other machines would, on its way.
    pub fn ensure_hidden_on_its_way_to(&self, to: &ServerAddress) -> Result<(), ConnectError> {
        to.ensure_hides_tokens()
    }

    /// Adds it to the metadata of a request. It is never printed.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not one line of visible ASCII of at most [`TOKEN_FILE_BYTES_MAX`] bytes; or the identity is no text of metadata.
    pub fn add_to<T>(&self, request: &mut Request<T>) -> io::Result<()> {
        request.metadata_mut().insert("authorization", self.authorization()?);
        if let Some(identity) = &self.identity {
            let value = identity.parse().map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidInput, "the identity is not visible ASCII")
            })?;
            request.metadata_mut().insert("x-capstan-caller", value);
        }
        Ok(())
    }

    /// The `authorization` of calls.
    ///
    /// # Errors
    ///
    /// As [`Credential::add_to`].
    pub fn authorization(&self) -> io::Result<MetadataValue<Ascii>> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.file.display()))
        };
        self.read().map_err(named)
    }

    fn read(&self) -> io::Result<MetadataValue<Ascii>> {
        let invalid = |problem: &str| io::Error::new(io::ErrorKind::InvalidData, problem);
        let mut text = String::new();
        File::open(&self.file)?.take(TOKEN_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > TOKEN_FILE_BYTES_MAX {
            return Err(invalid("too long for a token"));
        }
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid("expected one token: a line without spaces"));
        }
        let value = format!("Bearer {token}").parse();
        let mut value: MetadataValue<Ascii> = value.map_err(|_| invalid("no token"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn bearer(file: &Path, to: &str) -> Result<MetadataValue<Ascii>, String> {
        let credential = Credential::file(file);
        let hidden = credential.ensure_hidden_on_its_way_to(&to.parse().unwrap());
        hidden.map_err(|error| error.to_string())?;
        credential.authorization().map_err(|error| error.to_string())
    }

    #[test]
    fn a_token_is_sent_where_nobody_else_sees_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let read = |text: &str, to: &str| {
            std::fs::write(&file, text).unwrap();
            bearer(&file, to)
        };
        for to in [
            "https://capstan.example:4480",
            "unix:/run/capstan.sock",
            "http://127.0.0.1:4480",
            "http://[::1]:4480",
            "http://LOCALHOST:1",
        ] {
            let value = read("a.b.c\n", to).unwrap();
            assert_eq!(
                (value.as_bytes(), value.is_sensitive()),
                (&b"Bearer a.b.c"[..], true),
                "{to}"
            );
            assert!(!format!("{value:?}").contains("a.b.c"));
        }
        for to in ["http://capstan.example:4480", "http://10.0.0.1:1", "http://127.0.0.1.example:1"]
        {
            let error = read("a.b.c", to).unwrap_err().to_string();
            assert!(error.contains("https://") && !error.contains("a.b.c"), "{error}");
        }
        let longest = "x".repeat(usize::try_from(TOKEN_FILE_BYTES_MAX).unwrap());
        assert!(read(&longest, "unix:/x").is_ok());
        for text in ["", " \n", "a b", "a\nb", "\u{e4}", &format!("{longest}x")] {
            assert!(read(text, "unix:/x").is_err(), "{text}");
        }
        assert!(bearer(&folder.path().join("absent"), "unix:/x").is_err());
    }
}
