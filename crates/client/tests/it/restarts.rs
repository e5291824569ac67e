//! Servers that are drained or killed under load.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use capstan_client::{Check, Client, Error, Options};
use capstan_server::feed::source::Source;
use capstan_server::limits::Limits;
use capstan_server::server::{Address, Config};
use tokio::task::JoinSet;

use crate::fake::{Act, Fake};
use crate::real::{Real, config};
use crate::{PATIENCE, ask};

/// Checks of the demo, with the correct decisions.
const QUESTIONS: [(&str, &str, &str, bool); 6] = [
    ("alice", "repo.delete", "acme/platform/images/nginx", true),
    ("bob", "repo.list", "acme/platform/images/nginx", true),
    ("bob", "repo.delete", "acme/platform/images/nginx", false),
    ("carol", "repo.list", "acme/platform", false),
    ("nobody", "repo.list", "acme/platform", false),
    ("acme/platform/ci", "apk.list", "acme/platform/packages/x", true),
];

/// The demo on a unix socket: no other program can take its address during a restart.
fn on_a_socket(name: &str) -> Config {
    let socket = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let listen = vec![Address::Unix(socket)];
    Config { listen, ..config(Source::Demo) }
}

/// Tasks that make checks until they are stopped.
struct Load {
    tasks: JoinSet<Vec<Error>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Load {
    fn start(client: &Client, tasks: usize, timeout: Duration) -> Self {
        let mut load =
            Self { tasks: JoinSet::new(), stop: Arc::default(), answered: Arc::default() };
        for at in 0..tasks {
            let (client, stop) = (client.clone(), Arc::clone(&load.stop));
            let answered = Arc::clone(&load.answered);
            load.tasks.spawn(async move {
                let mut errors = vec![];
                for (who, what, place, right) in QUESTIONS.into_iter().cycle().skip(at % 6) {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    match client.check(Check::new(who, what, place).timeout(timeout)).await {
                        Ok(decision) => {
                            assert_eq!(decision.allowed, right, "{who} {what} {place}");
                            answered.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(error) => errors.push(error),
                    }
                }
                errors
            });
        }
        load
    }

    /// Waits for this number of further answers.
    async fn wait_for(&self, more: usize) {
        let goal = self.answered.load(Ordering::SeqCst) + more;
        let came = async {
            while self.answered.load(Ordering::SeqCst) < goal {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, came).await.expect("no more answers");
    }

    /// Stops the tasks. Returns the errors of their checks.
    async fn stop(self) -> Vec<Error> {
        self.stop.store(true, Ordering::SeqCst);
        self.tasks.join_all().await.into_iter().flatten().collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_servers_cause_no_wrong_answers() {
    for (timeout, connections) in [(PATIENCE, 1), (Duration::from_millis(50), 3)] {
        let mut server = Real::start(on_a_socket("killed")).await;
        let client = server.client(Options { connections, ..Options::default() });
        let load = Load::start(&client, 64, timeout);
        for _ in 0..5 {
            load.wait_for(300).await;
            server.kill();
            server = Real::start(on_a_socket("killed")).await;
        }
        load.wait_for(300).await;
        let errors = load.stop().await;
        if timeout == PATIENCE {
            assert_eq!(errors, [], "calls before their deadline were not retried");
        }
        let late = |error: &Error| matches!(error, Error::DeadlineExceeded(_));
        assert!(errors.iter().all(late), "{errors:?}");
        client.shutdown().await;
        server.kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_servers_cause_no_failed_calls() {
    let mut server = Real::start(on_a_socket("drained")).await;
    let client = server.client(Options::default());
    let load = Load::start(&client, 64, PATIENCE);
    for _ in 0..5 {
        load.wait_for(300).await;
        server.drain().await;
        server = Real::start(on_a_socket("drained")).await;
    }
    load.wait_for(300).await;
    assert_eq!(load.stop().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_age_of_connections_causes_no_failed_calls() {
    // The server, or the client, or both close connections at their age.
    for (server_age, client_age) in [(30, 600_000), (30, 20), (600_000, 20)] {
        let limits =
            Limits { connection_age: Duration::from_millis(server_age), ..Limits::default() };
        let server = Real::start(Config { limits, ..config(Source::Demo) }).await;
        let options = Options {
            connections: 2,
            connection_age: Duration::from_millis(client_age),
            ..Options::default()
        };
        let client = server.client(options);
        let load = Load::start(&client, 64, PATIENCE);
        // Ten times the lower age, and answers after each of them.
        let mut ages = tokio::time::interval(Duration::from_millis(server_age.min(client_age)));
        for _ in 0..10 {
            ages.tick().await;
            load.wait_for(200).await;
        }
        assert_eq!(load.stop().await, [], "{server_age} {client_age}");
        client.shutdown().await;
    }
}

#[tokio::test]
async fn replaced_connections_are_closed() {
    let options = Options { connection_age: Duration::from_millis(20), ..Options::default() };
    let (fake, client) = Fake::start(|_| Act::Answer, options).await;
    assert!(ask(&client, "a").await.is_ok());
    fake.wait_for_ends(3).await;
    assert!(ask(&client, "a").await.is_ok());
}
