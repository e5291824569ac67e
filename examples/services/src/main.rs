//! Serves both services: `example-services CAPSTAN ORDERS STOCK`, three addresses such as `127.0.0.1:4480`.

use anyhow::{Context as _, bail};
use capstan_client::Client;
use capstan_example_services::{serve_orders, serve_stock};
use tokio::net::TcpListener;
use tonic::transport::Endpoint;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(capstan), Some(orders), Some(stock)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        bail!(
            "usage: example-services CAPSTAN ORDERS STOCK, such as 127.0.0.1:4480 127.0.0.1:4500 127.0.0.1:4501"
        );
    };
    let client = || Client::connect(&format!("http://{capstan}"));
    let bind = async |address: &str| {
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
    };
    let channel = Endpoint::from_shared(format!("http://{stock}"))?.connect_lazy();
    let (stock, orders) = (bind(&stock).await?, bind(&orders).await?);
    let stock = serve_stock(stock, client()?);
    tokio::try_join!(stock, serve_orders(orders, client()?, channel))?;
    Ok(())
}
