//! A real server in this process, on its own runtime so that a test can kill it.

use std::path::{Path, PathBuf};

use capstan_client::{Client, Options};
use capstan_server::feed::reload::Reload;
use capstan_server::feed::source::Source;
use capstan_server::server::{self, Address, Config, Feed, Server};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::PATIENCE;

/// A server. Dropping it kills the server.
pub(crate) struct Real {
    pub(crate) address: Address,
    pub(crate) reload: Reload,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Receiver<()>>,
    runtime: Option<Runtime>,
}

impl Drop for Real {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The default configuration of a server.
pub(crate) fn config(source: Source) -> Config {
    Config { runtime: server::Runtime::PerCore(2), ..Config::new(Feed::Document(source)) }
}

impl Real {
    pub(crate) async fn demo() -> Self {
        Self::start(config(Source::Demo)).await
    }

    pub(crate) async fn start(config: Config) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (reload, wakes) = capstan_server::feed::reload::channel();
        let handle = reload.clone();
        runtime.spawn(async move {
            let server = Server::bind(config).await.unwrap();
            let address = server.grpc_addresses()[0].clone();
            let stopped = async { drop(stopped.await) };
            let ready = || ready.send(address).unwrap();
            server.run(stopped, (handle, wakes), ready).await.unwrap();
            let _ = end.send(());
        });
        let address = is_ready.await.unwrap();
        Self { address, reload, stop: Some(stop), ended: Some(ended), runtime: Some(runtime) }
    }

    pub(crate) fn client(&self, options: Options) -> Client {
        let address = match &self.address {
            Address::Tcp(address) => format!("http://{address}"),
            unix @ Address::Unix(_) => unix.to_string(),
        };
        Client::connect_with(&address, options).unwrap()
    }

    /// Kills the server, and waits until its address is free.
    pub(crate) fn kill(mut self) {
        let runtime = self.runtime.take().unwrap();
        // Waiting for the end of a runtime is not possible inside another runtime.
        std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE)).join().unwrap();
    }

    /// Drains the server as SIGTERM does, and waits for its end.
    pub(crate) async fn drain(mut self) {
        drop(self.stop.take());
        self.ended.take().unwrap().await.unwrap();
    }
}

/// An empty folder for one test.
pub(crate) fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}
