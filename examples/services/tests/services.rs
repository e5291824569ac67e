//! The services, and a Capstan with a policy, over TCP.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics fails")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use capstan_client::Client;
use capstan_example_services::shop::cart_client::CartClient;
use capstan_example_services::shop::orders_client::OrdersClient;
use capstan_example_services::shop::stock_client::StockClient;
use capstan_example_services::shop::{CheckoutRequest, CountRequest, PlaceRequest};
use capstan_example_services::{serve_orders, serve_stock};
use capstan_server::feed::source::Source;
use capstan_server::server::{Config, Feed, Runtime, Server};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

const POLICY: &str = "version: 1
catalog: chainguard-2025-08-14
groups: [{id: acme}]
identities: [{id: ann}, {id: bob}, {id: cat}]
role_bindings:
  - {identity: ann, role: owner, scope: acme}
  - {identity: bob, role: viewer, scope: acme}
";

/// A Capstan of a policy, until the test ends. Returns its address.
async fn capstan(source: Source) -> String {
    let config = Config { runtime: Runtime::PerCore(1), ..Config::new(Feed::Document(source)) };
    let server = Server::bind(config).await.unwrap();
    let address = format!("http://{}", server.grpc_addresses()[0]);
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let reload = capstan_server::feed::reload::channel();
    let ready = || ready.send(()).unwrap();
    Handle::current().spawn(server.run(std::future::pending(), reload, ready));
    is_ready.await.unwrap();
    address
}

async fn listen() -> (TcpListener, Channel) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, Endpoint::from_shared(url).unwrap().connect_lazy())
}

fn by<T>(identity: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-identity", identity.parse().unwrap());
    request.set_timeout(Duration::from_secs(20));
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_needs_what_both_services_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, POLICY).unwrap();
    let capstan = capstan(Source::file(&file)).await;
    let (stock_at, stock) = listen().await;
    let (orders_at, orders) = listen().await;
    let client = || Client::connect(&capstan).unwrap();
    Handle::current().spawn(serve_stock(stock_at, client()));
    Handle::current().spawn(serve_orders(orders_at, client(), stock.clone()));
    let place = async |who, repo: &str| {
        let request = PlaceRequest { repo: repo.into(), count: 9 };
        let placed = OrdersClient::new(orders.clone()).place(by(who, request)).await;
        placed.map(|placed| placed.into_inner().placed).map_err(|status| status.code())
    };
    let count = async |who, repo: &str| {
        let request = CountRequest { repo: repo.into() };
        let count = StockClient::new(stock.clone()).count(by(who, request)).await;
        count.map(|count| count.into_inner().count).map_err(|status| status.code())
    };
    assert_eq!(place("ann", "acme/nginx").await, Ok(true));
    assert_eq!(place("ann", "acme").await, Ok(false));
    assert_eq!(place("bob", "acme/nginx").await, Err(Code::PermissionDenied));
    assert_eq!(count("bob", "acme/nginx").await, Ok(10));
    for who in ["cat", "nobody"] {
        assert_eq!(count(who, "acme/nginx").await, Err(Code::PermissionDenied));
    }
    assert_eq!(count("bob", "other").await, Err(Code::PermissionDenied));
    assert_eq!(count("bob", "").await, Err(Code::InvalidArgument));
}

/// The service in Python, until it is dropped.
struct Cart(Child);

impl Cart {
    /// Generates its code, starts it, and waits until it serves. `dev/test` installs what it needs into target/python.
    fn start(folder: &Path, capstan: &str, orders: &str) -> (Self, Channel) {
        let workspace = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let python = workspace.join("target/python/bin/python");
        let protos = workspace.join("examples/services/proto");
        let generated = Command::new(&python)
            .args(["-m", "grpc_tools.protoc"])
            .arg(format!("-I{}", protos.display()))
            .arg(format!("-I{}", workspace.join("proto").display()))
            .arg(format!("--python_out={}", folder.display()))
            .arg(format!("--grpc_python_out={}", folder.display()))
            .args(["shop/v1/shop.proto", "shop/v1/cart.proto"])
            .status();
        assert!(generated.unwrap().success());
        let mut child = Command::new(&python)
            .arg(workspace.join("examples/services/python/cart.py"))
            .args([capstan.trim_start_matches("http://"), "127.0.0.1:0", orders])
            .env("PYTHONPATH", folder)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("grpc ").unwrap().to_owned();
        (Self(child), Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy())
    }
}

impl Drop for Cart {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Three services in two languages: what the first has seen revoked, the last does not allow.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_in_python_stands_in_front_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, POLICY).unwrap();
    let capstan = capstan(Source::file(&file)).await;
    let (stock_at, stock) = listen().await;
    let (orders_at, _) = listen().await;
    let orders = orders_at.local_addr().unwrap().to_string();
    let client = || Client::connect(&capstan).unwrap();
    Handle::current().spawn(serve_stock(stock_at, client()));
    Handle::current().spawn(serve_orders(orders_at, client(), stock));
    let (_cart, cart) = Cart::start(folder.path(), &capstan, &orders);
    let checkout = async |who, group: &str| {
        let names = vec!["a".into(), "nginx".into()];
        let request = CheckoutRequest { group: group.into(), names, count: 8 };
        let done = CartClient::new(cart.clone()).checkout(by(who, request)).await;
        done.map(|done| done.into_inner().placed).map_err(|status| status.code())
    };
    assert_eq!(checkout("ann", "acme").await, Ok(vec!["nginx".to_owned()]));
    // The cart lets bob in, the orders do not.
    assert_eq!(checkout("bob", "acme").await, Err(Code::PermissionDenied));
    assert_eq!(checkout("cat", "acme").await, Err(Code::PermissionDenied));
    assert_eq!(checkout("ann", "a b").await, Err(Code::InvalidArgument));
    std::fs::write(
        &file,
        POLICY.replace("{identity: ann, role: owner", "{identity: ann, role: viewer"),
    )
    .unwrap();
    let begun = Instant::now();
    while checkout("ann", "acme").await != Err(Code::PermissionDenied) {
        assert!(begun.elapsed() < Duration::from_secs(30), "the revocation is not seen");
    }
}
