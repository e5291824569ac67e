//! TLS: certificates, clients of an authority, rotation, and what does not speak it.

mod client;
mod identity;
mod load;
mod revoked;
mod rotation;
mod wire;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use capstan_testkit::https::Authority;

use crate::common::{Serving, folder};

/// An authority, the files of a server, and those of clients.
struct Files {
    folder: PathBuf,
    authority: Authority,
}

impl Files {
    fn new(name: &str) -> Self {
        let files = Self { folder: folder(name), authority: Authority::generate() };
        files.write("ca.pem", &files.authority.pem());
        files.certificate("server", &["localhost", "127.0.0.1"]);
        files
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Replaces a file, which only its owner may read.
    fn write(&self, name: &str, text: &str) {
        let (path, new) = (self.folder.join(name), self.folder.join(format!("{name}.new")));
        std::fs::write(&new, text).unwrap();
        set_mode(&new, 0o600);
        std::fs::rename(new, path).unwrap();
    }

    /// Writes NAME.pem and NAME.key of a certificate that the authority gives.
    fn certificate(&self, name: &str, names: &[&str]) {
        self.certificate_of(&self.authority, name, names, false);
    }

    fn certificate_of(&self, authority: &Authority, name: &str, names: &[&str], expired: bool) {
        let (certificate, key) = authority.certificate(names, expired);
        self.write(&format!("{name}.key"), &key.serialize_pem());
        self.write(&format!("{name}.pem"), &certificate.pem());
    }

    /// A server of the demo with TLS.
    fn serve(&self, more: &[&str]) -> Serving {
        let (cert, key) = (self.path("server.pem"), self.path("server.key"));
        let fixed = ["--demo", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
        let tls = ["--tls-cert", &cert, "--tls-key", &key];
        Serving::start(&[&fixed[..], &tls, more].concat(), 18)
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
