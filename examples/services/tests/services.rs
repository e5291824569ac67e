//! Both services, and a Capstan of the demo, over TCP.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics fails")]

use std::time::Duration;

use capstan_client::Client;
use capstan_example_services::shop::orders_client::OrdersClient;
use capstan_example_services::shop::stock_client::StockClient;
use capstan_example_services::shop::{CountRequest, PlaceRequest};
use capstan_example_services::{serve_orders, serve_stock};
use capstan_server::feed::source::Source;
use capstan_server::server::{Config, Feed, Runtime, Server};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

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
    let policy = "version: 1\ncatalog: chainguard-2025-08-14\ngroups: [{id: acme}]\nidentities: [{id: ann}, {id: bob}, {id: cat}]\n\
        role_bindings:\n  - {identity: ann, role: owner, scope: acme}\n  - {identity: bob, role: viewer, scope: acme}\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, policy).unwrap();
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
