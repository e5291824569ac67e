//! Connections with TLS for programs that speak their own protocol over them.
//!
//! ```text
//! TlsOptions, host, protocol ─▶ TlsConnector ─▶ connect(TCP) ─▶ TlsStream
//! ```
//!
//! **Invariant**: a stream has the protocol that was asked for, and its server has proved to be the host, as for [`Client`](crate::Client)s.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
pub use tokio_rustls::client::TlsStream;

use crate::error::ConnectError;
use crate::tls::TlsOptions;

/// The protocol inside TLS, by its name in ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2, which the server must choose.
    Http2,
    /// HTTP/1.1, which is also that of a server that chooses nothing.
    Http1,
}

/// Opens TLS over connections to one host. Clones share the configuration.
#[derive(Clone)]
pub struct TlsConnector {
    connector: tokio_rustls::TlsConnector,
    name: ServerName<'static>,
    protocol: Protocol,
}

impl TlsConnector {
    /// `host` is that of the address: a name, an IPv4 address, or an IPv6 address in brackets.
    ///
    /// # Errors
    ///
    /// The options are not PEM, a certificate and a key do not belong together, the host cannot be in a certificate, or the platform has
    /// no authorities and none are given.
    pub fn new(options: &TlsOptions, host: &str, protocol: Protocol) -> Result<Self, ConnectError> {
        let host = options.server_name.as_deref().unwrap_or(host);
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned());
        let name =
            name.map_err(|_| ConnectError::Tls(format!("`{host}` is no name of a server")))?;
        let mut config = config(options).map_err(ConnectError::Tls)?;
        config.alpn_protocols = vec![match protocol {
            Protocol::Http2 => b"h2".to_vec(),
            Protocol::Http1 => b"http/1.1".to_vec(),
        }];
        Ok(Self { connector: Arc::new(config).into(), name, protocol })
    }

    /// Makes the handshake. In TLS 1.3 it is over before the server has looked at the certificate of the client: a refusal is an
    /// error of the first read.
    ///
    /// # Errors
    ///
    /// The connection ends, the server does not prove that it is the host, or it speaks no such protocol.
    pub async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let stream = self.connector.connect(self.name.clone(), stream).await?;
        let has_chosen = stream.get_ref().1.alpn_protocol().is_some();
        if self.protocol == Protocol::Http2 && !has_chosen {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "it speaks no HTTP/2"));
        }
        Ok(stream)
    }
}

fn config(options: &TlsOptions) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(options.authorities.as_deref())?);
    let Some((certificates, key)) = &options.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates).collect();
    let certificates =
        certificates.map_err(|error| format!("the client's certificate: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key);
    let key = key.map_err(|error| format!("the client's private key: {error}"))?;
    let config = builder.with_client_auth_cert(certificates, key);
    config.map_err(|error| format!("the client's certificate: {error}"))
}

/// The authorities of this text in PEM, or those of the platform.
fn roots(pem: Option<&[u8]>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(pem) = pem else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return if roots.is_empty() {
            Err("this machine has no certificate authorities, and none are given".into())
        } else {
            Ok(roots)
        };
    };
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("the authorities: {error}"))?;
        roots.add(certificate).map_err(|error| format!("the authorities: {error}"))?;
    }
    if roots.is_empty() { Err("the authorities: no certificate in PEM".into()) } else { Ok(roots) }
}

impl fmt::Debug for TlsConnector {
    /// Without the private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnector")
            .field("name", &self.name)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}
