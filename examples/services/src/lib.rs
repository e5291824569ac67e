//! Two services that call one another, each protected by Capstan.
//!
//! ```text
//! caller ─▶ Orders.Place: repo.update? ─▶ Stock.Count: repo.list? with the revision that decided the first call
//! ```
//!
//! The metadata `x-identity` says who calls. A real service takes it from a client certificate or a verified token; metadata is
//! enough only if a proxy sets it.

use capstan_client::Client;
use capstan_client::protect::{Caller, CarryRevision, Protect, Rules};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::clone_on_ref_ptr,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod shop {
    tonic::include_proto!("shop.v1");
}

use shop::orders_server::{Orders, OrdersServer};
use shop::stock_client::StockClient;
use shop::stock_server::{Stock, StockServer};
use shop::{CountRequest, CountResponse, PlaceRequest, PlaceResponse};

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
const IDENTITY_KEY: &str = "x-identity";

/// The layer of one of the services. This is all that protects it.
fn protect(capstan: Client, service: &str) -> anyhow::Result<Protect> {
    let rules = Rules::of_services(DESCRIPTORS, [service])?;
    Ok(Protect::new(capstan, rules, |head: &http::request::Parts| {
        Some(Caller::new(head.headers.get(IDENTITY_KEY)?.to_str().ok()?))
    }))
}

/// Serves the stock.
///
/// # Errors
///
/// A method has no rule, or the server fails.
pub async fn serve_stock(listener: TcpListener, capstan: Client) -> anyhow::Result<()> {
    let mut server = Server::builder().layer(protect(capstan, "shop.v1.Stock")?);
    let server = server.add_service(StockServer::new(Shelf));
    Ok(server.serve_with_incoming(TcpListenerStream::new(listener)).await?)
}

/// Serves the stock to everybody: what the layer is measured against.
///
/// # Errors
///
/// The server fails.
pub async fn serve_bare_stock(listener: TcpListener) -> anyhow::Result<()> {
    let server = Server::builder().add_service(StockServer::new(Shelf));
    Ok(server.serve_with_incoming(TcpListenerStream::new(listener)).await?)
}

/// Serves orders, which ask the stock at this channel.
///
/// # Errors
///
/// As [`serve_stock`].
pub async fn serve_orders(
    listener: TcpListener,
    capstan: Client,
    stock: Channel,
) -> anyhow::Result<()> {
    let mut server = Server::builder().layer(protect(capstan, "shop.v1.Orders")?);
    let stock = StockClient::new(InterceptedService::new(stock, CarryRevision));
    let server = server.add_service(OrdersServer::new(Desk { stock }));
    Ok(server.serve_with_incoming(TcpListenerStream::new(listener)).await?)
}

/// The stock: as many of each repository as its path has bytes.
struct Shelf;

#[tonic::async_trait]
impl Stock for Shelf {
    async fn count(
        &self,
        request: Request<CountRequest>,
    ) -> Result<Response<CountResponse>, Status> {
        let count = u32::try_from(request.into_inner().repo.len()).unwrap_or(u32::MAX);
        Ok(Response::new(CountResponse { count }))
    }
}

struct Desk {
    stock: StockClient<InterceptedService<Channel, CarryRevision>>,
}

#[tonic::async_trait]
impl Orders for Desk {
    async fn place(
        &self,
        request: Request<PlaceRequest>,
    ) -> Result<Response<PlaceResponse>, Status> {
        let identity: Option<MetadataValue<Ascii>> = request.metadata().get(IDENTITY_KEY).cloned();
        let PlaceRequest { repo, count } = request.into_inner();
        let mut asked = Request::new(CountRequest { repo });
        if let Some(identity) = identity {
            asked.metadata_mut().insert(IDENTITY_KEY, identity);
        }
        let stock = self.stock.clone().count(asked).await?.into_inner();
        Ok(Response::new(PlaceResponse { placed: count <= stock.count }))
    }
}
