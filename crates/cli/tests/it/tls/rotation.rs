//! Certificates that are replaced while the server runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use capstan_proto::v1::decision_service_client::DecisionServiceClient;
use capstan_testkit::https::Authority;
use tokio::runtime::Handle;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::Files;
use crate::common::PATIENCE;
use crate::raw;

pub(super) async fn connect(
    address: &str,
    authority: &Authority,
) -> Result<Channel, tonic::transport::Error> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
    Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?.connect().await
}

/// New connections get the new certificate, and a client that asks without a pause sees no failure. A pair that does not fit is not
/// served, and the one before is.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_without_a_failed_check() {
    let files = Files::new("tls-rotation");
    let mut server = files.serve(&[]);
    let address = server.address("grpc");
    let next = Authority::generate();
    let done = Arc::new(AtomicBool::new(false));
    // One connection from before, and new ones all the time, which trust both authorities.
    let old = connect(&address, &files.authority).await.unwrap();
    let both = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(files.authority.pem() + &next.pem()));
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    let endpoint = endpoint.tls_config(both).unwrap();
    let asked = Handle::current().spawn({
        let done = Arc::clone(&done);
        async move {
            let (mut asking, mut count) = (DecisionServiceClient::new(old), 0);
            while !done.load(Relaxed) {
                asking.check(raw::check()).await.unwrap();
                let new = endpoint.connect().await.unwrap();
                DecisionServiceClient::new(new).check(raw::check()).await.unwrap();
                count += 1;
            }
            count
        }
    });
    // First only half of the pair, and for longer than a look.
    let (certificate, key) = next.certificate(&["localhost", "127.0.0.1"], false);
    files.write("server.pem", &certificate.pem());
    tokio::task::block_in_place(|| server.wait_for_log("the certificates are not loaded again"));
    connect(&address, &files.authority).await.unwrap();
    assert!(connect(&address, &next).await.is_err());
    files.write("server.key", &key.serialize_pem());
    let begun = Instant::now();
    while connect(&address, &next).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "the new certificate is not served");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(connect(&address, &files.authority).await.is_err());
    done.store(true, Relaxed);
    assert!(asked.await.unwrap() > 0);
}

/// Files that are wrong for a while, and then as they were: what is served is the newest again.
#[test]
fn files_that_come_back_are_served_as_the_newest() {
    let files = Files::new("tls-back");
    let mut server = files.serve(&[]);
    let good = std::fs::read_to_string(files.path("server.pem")).unwrap();
    files.write("server.pem", "no certificate");
    server.wait_for_log("the certificates are not loaded again");
    files.write("server.pem", &good);
    server.wait_for_log("certificates loaded");
}

/// A client's authority that is taken away lets in nobody any more, resumed sessions included.
#[tokio::test(flavor = "multi_thread")]
async fn authorities_of_clients_are_replaced() {
    let files = Files::new("tls-client-rotation");
    files.certificate("orders", &["orders.example"]);
    files.write("clients.pem", &files.authority.pem());
    let server = files.serve(&["--client-ca", &files.path("clients.pem")]);
    let addr = format!("https://{}", server.address("grpc"));
    let read = |name: &str| std::fs::read(files.path(name)).unwrap();
    let identity = tonic::transport::Identity::from_pem(read("orders.pem"), read("orders.key"));
    let ca = Certificate::from_pem(files.authority.pem());
    let tls = ClientTlsConfig::new().ca_certificate(ca).identity(identity);
    // One configuration, so that its sessions are resumed.
    let endpoint = Endpoint::from_shared(addr).unwrap().tls_config(tls).unwrap();
    let ask = async || {
        let channel = endpoint.connect().await.map_err(drop)?;
        DecisionServiceClient::new(channel).check(raw::check()).await.map_err(drop)
    };
    for _ in 0..3 {
        ask().await.unwrap();
    }
    files.write("clients.pem", &Authority::generate().pem());
    let begun = Instant::now();
    while ask().await.is_ok() {
        assert!(begun.elapsed() < PATIENCE, "the old authority is trusted on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for _ in 0..3 {
        assert!(ask().await.is_err());
    }
}
