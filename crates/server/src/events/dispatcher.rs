//! The dispatcher: a task for each subscription that is enabled, on threads of their own.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use capstan_engine::PathBuf;
use capstan_events::Client;
use capstan_iam::audit::AuditHead;
use capstan_iam::{Kind, Object};
use capstan_store::View;
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::compose::Told;
use super::delivery::{Delivery, Shared};
use super::wakes::{Wakes, organization_of};
use crate::RequestError;
use crate::clock::Clock;
use crate::feed::change_log::{self, Changed};
use crate::feed::management::{Management, viewed};
use crate::feed::position::Position;
use crate::feed::{Freshness, Published};
use crate::limits::{
    DELIVERY_PAUSE, EVENT_THREADS_MAX, POSITIONS_SAVED, SUBSCRIPTIONS_SERVED_MAX, SUSPECTS_MAX,
};
use crate::telemetry::metrics::Metrics;
use crate::webhooks::Webhooks;

/// A thread that delivers.
struct Thread {
    runtime: Handle,
    client: Arc<Client>,
}

/// Of the threads that deliver: a fifth of the processor's time of a thread that is not nice to it.
#[cfg(target_os = "linux")]
const NICE: i32 = 7;

/// Delivers the events of a store.
pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    /// The create revision of each subscription that has a task.
    running: HashMap<PathBuf, (u64, AbortHandle)>,
    threads: Vec<Thread>,
    wakes: Wakes,
    /// The number of the first record of the log that was not looked at; `None` before the first look.
    looked: Option<u64>,
    /// Whether a subscription may have no task though it is enabled.
    is_missing: bool,
}

impl Dispatcher {
    /// Of a store that is served.
    pub(crate) fn new(
        (published, metrics): (Arc<Published>, Arc<Metrics>),
        management: Arc<dyn Management>,
        webhooks: Webhooks,
        clock: Clock,
        stop: CancellationToken,
    ) -> Self {
        let suspects = tokio::sync::Semaphore::new(SUSPECTS_MAX);
        let (positions, recent) = Default::default();
        let shared =
            Shared { published, management, webhooks, clock, metrics, suspects, positions, recent };
        let (tasks, running, threads) = Default::default();
        let (shared, wakes) = (Arc::new(shared), Wakes::default());
        Self { shared, stop, tasks, running, threads, wakes, looked: None, is_missing: true }
    }

    /// Starts its threads, which end with `stop`. Each has a runtime and connections of its own: what an event needs stays on
    /// one thread.
    ///
    /// # Errors
    ///
    /// A thread cannot be started.
    pub(crate) fn start(mut self) -> anyhow::Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let mut runtimes = vec![];
        for _ in 0..cores.min(EVENT_THREADS_MAX) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let client = Arc::new(self.shared.webhooks.client().with_own_connections());
            self.threads.push(Thread { runtime: runtime.handle().clone(), client });
            runtimes.push(runtime);
        }
        let stop = self.stop.clone();
        if let Some(first) = self.threads.first() {
            first.runtime.clone().spawn(self.run());
        }
        for runtime in runtimes {
            let stop = stop.clone();
            std::thread::Builder::new().name("events".into()).spawn(move || {
                give_way();
                runtime.block_on(stop.cancelled());
            })?;
        }
        Ok(())
    }

    async fn run(mut self) {
        let mut saves = tokio::time::interval(POSITIONS_SAVED);
        saves.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = 0;
        loop {
            tokio::select! {
                _ = saves.tick() => {
                    let unsaved = self.shared.unsaved();
                    if !unsaved.is_empty() {
                        self.shared.management.positions(unsaved);
                    }
                }
                () = self.shared.published.later_than(seen) => match self.look().await {
                    Ok(revision) => seen = revision,
                    Err(error) => {
                        tracing::warn!(%error, "subscriptions cannot be read");
                        tokio::time::sleep(DELIVERY_PAUSE).await;
                    }
                },
                Some(_) = self.tasks.join_next() => {
                    self.running.retain(|_, (_, task)| !task.is_finished());
                    self.wakes.forget_unused();
                    // One that ended while its subscription was enabled again begins anew.
                    self.is_missing = true;
                    seen = 0;
                }
            }
        }
    }

    /// Wakes those whom the changes up to the served revision concern, and starts what is to be delivered. Returns the
    /// revision. Ends nothing: deliveries see themselves that they are over.
    async fn look(&mut self) -> Result<u64, RequestError> {
        let (current, view) = viewed(&self.shared.published, Freshness::Any).await?;
        let head = change_log::head(&*view)?;
        self.read(&*view, head)?;
        if self.is_missing {
            self.start_missing(&view, head.next)?;
        }
        Ok(current.snapshot.revision())
    }

    /// Reads the log from where it was read last.
    fn read(&mut self, view: &dyn View, head: AuditHead) -> Result<(), RequestError> {
        let Some(looked) = self.looked.filter(|looked| *looked >= head.first) else {
            // What was not read may have been anything.
            self.shared.recent().begin(head.next);
            self.wakes.tell_all(head.next.saturating_sub(1));
            self.wakes.looked(head.next);
            (self.looked, self.is_missing) = (Some(head.next), true);
            return Ok(());
        };
        let is_subscription = |change: &Changed| change.kind == Kind::Subscription;
        let next = change_log::read(view, looked, &mut |revision| {
            self.is_missing |= revision.is_cut || revision.changes.iter().any(is_subscription);
            self.looked = Some(revision.number.saturating_add(1));
            let told = Arc::new(Told::new(revision));
            self.shared.recent().push(Arc::clone(&told));
            self.wakes.tell(&told.revision);
            true
        })?;
        self.shared.recent().looked(next);
        self.wakes.looked(next);
        self.looked = Some(next);
        Ok(())
    }

    /// Starts the deliveries of subscriptions that are enabled and have none.
    fn start_missing(&mut self, view: &Arc<dyn View>, next: u64) -> Result<(), RequestError> {
        let objects = self.shared.management.objects(Arc::clone(view));
        let mut enabled = vec![];
        objects.below(Kind::Subscription, None, &mut |object| {
            if let Object::Subscription(found) = object
                && !found.disabled
            {
                enabled.push((found.id, found.meta.created));
            }
            true
        })?;
        self.shared.metrics.subscriptions(enabled.len());
        for (id, created) in enabled {
            let is_running = self.running.get(&id).is_some_and(|(of, _)| *of == created);
            if is_running {
                continue;
            }
            if self.running.len() >= SUBSCRIPTIONS_SERVED_MAX {
                tracing::error!(
                    subscription = %id,
                    "more than {SUBSCRIPTIONS_SERVED_MAX} subscriptions are enabled: it is told nothing"
                );
                continue;
            }
            let kept = view.get(&Position::key(id.as_path()));
            let kept = kept.map_err(|error| capstan_iam::ObjectsError(error.to_string()))?;
            let kept = kept.and_then(|value| Position::decode(&value));
            let position = kept.filter(|kept| kept.created == created);
            let position = position.unwrap_or_else(|| Position::beginning(created, next));
            let wake = self.wakes.wake(organization_of(id.as_path()));
            // In turn: what was started last may end first, but few are started after the beginning.
            let at = self.running.len() % self.threads.len().max(1);
            let Some(Thread { runtime, client }) = self.threads.get(at) else { break };
            let with = (Arc::clone(&self.shared), Arc::clone(client));
            let delivery = Delivery::new(with, id.clone(), position, wake);
            let task = self.tasks.spawn_on(delivery.run(), runtime);
            self.running.insert(id, (created, task));
        }
        // Not before: after an error it is done again.
        self.is_missing = false;
        Ok(())
    }
}

/// Gives way to threads that decide. On Linux a priority is that of the thread, elsewhere that of the whole process.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "events are delivered without giving way");
    }
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").field("running", &self.running.len()).finish_non_exhaustive()
    }
}
