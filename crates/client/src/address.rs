//! Where the server is.

use tonic::transport::{Channel, Endpoint};

use crate::error::ConnectError;
use crate::limits::{CONNECT_TIMEOUT, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};

/// `http://HOST:PORT` or `unix:PATH`; `HOST:PORT` is the first.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, ConnectError> {
    let malformed = || ConnectError::Address(address.into());
    let url = if let Some(path) = address.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(malformed());
        }
        address.into()
    } else if address.starts_with("http://") {
        address.into()
    } else if address.contains(':') && !address.contains("//") {
        format!("http://{address}")
    } else {
        return Err(malformed());
    };
    let endpoint = Endpoint::from_shared(url).map_err(|_| malformed())?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// A connection, or what is in its way.
pub(crate) async fn connect(endpoint: &Endpoint) -> Result<Channel, String> {
    endpoint.connect().await.map_err(|error| format!("cannot connect: {}", chain(&error)))
}

/// An error and what caused it: tonic's own texts say little.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Wrappers repeat what they wrap.
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_command_line_reads_them() {
        for good in ["http://127.0.0.1:4480", "127.0.0.1:4480", "localhost:1", "unix:/run/c.sock"] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in ["", "unix:", "https://a:1", "ftp://a:1", "http://", "http://a b", "a", "/run/c"]
        {
            assert_eq!(endpoint(bad).err(), Some(ConnectError::Address(bad.into())), "{bad}");
        }
    }
}
