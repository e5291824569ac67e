//! The token of a caller, from a file.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use capstan_client::ServerAddress;
use tonic::metadata::{Ascii, MetadataValue};

use crate::limits::TOKEN_FILE_BYTES_MAX;

/// The `authorization` of calls to this server. It is never printed.
///
/// # Errors
///
/// The file cannot be read or holds no token, or other machines would see the token on its way.
pub(crate) fn bearer(file: &Path, to: &ServerAddress) -> anyhow::Result<MetadataValue<Ascii>> {
    ensure!(
        to.is_tls() || to.unix_path().is_some() || is_of_this_machine(to.authority()),
        "{to} is asked in plain text, and everybody on the way would see the token: ask https://{}",
        to.authority()
    );
    let what = || format!("--token-file {}", file.display());
    let mut text = String::new();
    let opened = File::open(file).with_context(what)?;
    opened.take(TOKEN_FILE_BYTES_MAX + 1).read_to_string(&mut text).with_context(what)?;
    ensure!(text.len() as u64 <= TOKEN_FILE_BYTES_MAX, "{}: too long for a token", what());
    let token = text.trim();
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    ensure!(is_token, "{}: expected one token: a line without spaces", what());
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().with_context(what)?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_of_this_machine(authority: &str) -> bool {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let address: Result<std::net::IpAddr, _> = host.parse();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_where_nobody_else_sees_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let read = |text: &str, to: &str| {
            std::fs::write(&file, text).unwrap();
            bearer(&file, &to.parse().unwrap())
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
        assert!(bearer(&folder.path().join("absent"), &"unix:/x".parse().unwrap()).is_err());
    }
}
