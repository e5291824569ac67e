//! What a test and its server speak: plain text or TLS. A bound of the server holds over both.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use capstan_server::limits::Limits;
use capstan_server::server::{Config, TlsOptions};
use capstan_testkit::https::Authority;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::common::{InProcess, Serving, config_within, folder};
use crate::raw::Socket;
use crate::secrets::Channel;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Plain,
    Tls,
}

/// Where a server listens, and what it speaks there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    pub(crate) over: Over,
}

/// The tests of these names, over both: each is an `async fn` of what is spoken, and becomes `plain::NAME` and `tls::NAME`.
macro_rules! over_both {
    ($($name:ident),+ $(,)?) => {
        mod plain {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name($crate::over::Over::Plain).await;
                }
            )+
        }
        mod tls {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name($crate::over::Over::Tls).await;
                }
            )+
        }
    };
}
pub(crate) use over_both;

/// The certificate of all these servers, and its authority.
struct Files {
    authority: Authority,
    certificate: PathBuf,
    key: PathBuf,
}

static FILES: LazyLock<Files> = LazyLock::new(|| {
    let (authority, folder) = (Authority::generate(), folder("over-tls"));
    let (certificate, key) = authority.certificate(&["localhost", "127.0.0.1"], false);
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let certificate = write("server.pem", certificate.pem());
    Files { certificate, key: write("server.key", key.serialize_pem()), authority }
});

static CONNECTOR: LazyLock<TlsConnector> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add(FILES.authority.der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
});

impl Over {
    /// The arguments of a server that speaks this.
    pub(crate) fn arguments(self) -> Vec<&'static str> {
        match self {
            Self::Plain => vec![],
            Self::Tls => {
                let Files { certificate, key, .. } = &*FILES;
                let [certificate, key] = [certificate, key].map(|path| path.to_str().unwrap());
                vec!["--tls-cert", certificate, "--tls-key", key]
            }
        }
    }

    /// The configuration of a server that speaks this.
    pub(crate) fn config(self, config: Config) -> Config {
        let tls = (self == Self::Tls).then(|| TlsOptions {
            certificate: FILES.certificate.clone(),
            key: FILES.key.clone(),
            client_authorities: None,
            revocations: vec![],
        });
        Config { tls, ..config }
    }

    /// Starts a server in this process, with the demo's policy and these limits.
    pub(crate) async fn start(self, limits: Limits) -> InProcess {
        InProcess::start_with(self.config(config_within(limits))).await
    }

    /// Starts a server of the demo's policy as a process. It has no HTTP port.
    pub(crate) fn serve(self, more: &[&str]) -> Serving {
        let fixed = ["--demo", "--listen", "127.0.0.1:0", "--http", "none"];
        Serving::start(&[&fixed, more, &self.arguments()].concat(), 1)
    }

    /// The gRPC address of such a process.
    pub(crate) fn of(self, server: &Serving) -> Place {
        Place { address: server.address("grpc").parse().unwrap(), over: self }
    }
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self { address, over: Over::Plain }
    }
}

impl From<&InProcess> for Place {
    fn from(server: &InProcess) -> Self {
        Self { address: server.grpc, over: server.over }
    }
}

impl Place {
    /// A connection, after the handshake of TLS if there is one.
    pub(crate) async fn open(self) -> std::io::Result<Box<dyn Socket>> {
        self.over(TcpStream::connect(self.address).await?).await
    }

    /// The same over this connection.
    pub(crate) async fn over(self, tcp: TcpStream) -> std::io::Result<Box<dyn Socket>> {
        tcp.set_nodelay(true)?;
        if self.over == Over::Plain {
            return Ok(Box::new(tcp));
        }
        let name = ServerName::try_from("localhost").unwrap();
        Ok(Box::new(CONNECTOR.connect(name, tcp).await?))
    }

    /// For a gRPC library.
    pub(crate) fn endpoint(self) -> Endpoint {
        let Self { address, over } = self;
        if over == Over::Plain {
            return Endpoint::from_shared(format!("http://{address}")).unwrap();
        }
        let tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(FILES.authority.pem()));
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
        endpoint.tls_config(tls).unwrap()
    }

    /// A connection of a gRPC library.
    pub(crate) async fn channel(self) -> Channel {
        self.endpoint().connect().await.unwrap().into()
    }

    /// The same from another loopback address, which is another peer.
    pub(crate) async fn channel_of_another_peer(self) -> Channel {
        let endpoint = self.endpoint().local_address(Some([127, 0, 0, 2].into()));
        endpoint.connect().await.unwrap().into()
    }
}
