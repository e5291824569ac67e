//! The authorities that certificates of sinks must come from.
//!
//! **Invariants**: certificates are always verified, by the roots of the platform and those of the operator
//! (`--webhook-ca`). There is no switch that turns this off.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::limits::CA_FILE_BYTES_MAX;

/// The authorities that certificates of sinks must come from.
#[derive(Clone, Debug)]
pub struct Roots(RootCertStore);

/// Why there are no authorities.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read.
    #[error("authorities {path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// The file is longer than [`CA_FILE_BYTES_MAX`].
    #[error("authorities {0}: longer than {CA_FILE_BYTES_MAX} bytes")]
    TooLong(String),
    /// No certificates, or one that is none.
    #[error("authorities: expected certificates in PEM: {0}")]
    Format(String),
    /// The platform has no authorities, and none are given.
    #[error(
        "this machine has no certificate authorities: install `ca-certificates`, or name a file (--webhook-ca)"
    )]
    None,
}

impl Roots {
    /// The roots of the platform, and those of a file in PEM if one is named. As elsewhere, the variables `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR` stand in for the platform's.
    ///
    /// # Errors
    ///
    /// If the file is not certificates, or there is no root at all.
    pub fn load(file: Option<&Path>) -> Result<Self, RootsError> {
        let mut roots = RootCertStore::empty();
        // What cannot be read of the platform's is left out: a damaged root must not end all deliveries.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = file {
            let name = path.display().to_string();
            let mut pem = Vec::new();
            File::open(path)
                .and_then(|file| file.take(CA_FILE_BYTES_MAX + 1).read_to_end(&mut pem))
                .map_err(|error| RootsError::File { path: name.clone(), error })?;
            if u64::try_from(pem.len()).unwrap_or(u64::MAX) > CA_FILE_BYTES_MAX {
                return Err(RootsError::TooLong(name));
            }
            add(&mut roots, &pem)?;
        }
        if roots.is_empty() { Err(RootsError::None) } else { Ok(Self(roots)) }
    }

    /// Only the roots of this text in PEM.
    ///
    /// # Errors
    ///
    /// If it is not certificates.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        let mut roots = RootCertStore::empty();
        add(&mut roots, pem)?;
        Ok(Self(roots))
    }

    /// TLS 1.2 and 1.3 for HTTP/1.1, without a certificate of our own.
    pub(crate) fn client_config(self) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.0)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn add(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), RootsError> {
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| RootsError::Format(error.to_string()))?;
        roots.add(certificate).map_err(|error| RootsError::Format(error.to_string()))?;
    }
    if roots.len() == before {
        return Err(RootsError::Format("none found".into()));
    }
    Ok(())
}
