//! TLS of a client: whom it trusts, and how it proves who it is.

use std::fmt;

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// How a server of an `https` address must prove itself, and how this client does. By default the authorities of the platform are
/// trusted, and the client proves nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Authorities in PEM, which are trusted instead of those of the platform.
    pub authorities: Option<Vec<u8>>,
    /// The client's certificate in PEM, followed by those between it and an authority, and its private key in PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name that the server's certificate must have, instead of the host of the address.
    pub server_name: Option<String>,
}

impl TlsOptions {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn config(&self) -> ClientTlsConfig {
        let mut config = ClientTlsConfig::new();
        config = match &self.authorities {
            Some(pem) => config.ca_certificate(Certificate::from_pem(pem)),
            None => config.with_native_roots(),
        };
        if let Some((certificate, key)) = &self.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        match &self.server_name {
            Some(name) => config.domain_name(name),
            None => config,
        }
    }
}

impl fmt::Debug for TlsOptions {
    /// Without the private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("authorities", &self.authorities.is_some())
            .field("identity", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}
