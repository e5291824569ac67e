//! The dispatcher: a task for each subscription that is enabled, on a thread of their own.

use std::collections::HashMap;
use std::sync::Arc;

use capstan_engine::PathBuf;
use capstan_iam::{Kind, Object};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::delivery::{Delivery, Shared};
use crate::RequestError;
use crate::clock::Clock;
use crate::feed::management::{Management, viewed};
use crate::feed::position::Position;
use crate::feed::{Freshness, Published, change_log};
use crate::limits::{DELIVERY_PAUSE, POSITIONS_SAVED, SUBSCRIPTIONS_SERVED_MAX, SUSPECTS_MAX};
use crate::telemetry::metrics::Metrics;
use crate::webhooks::Webhooks;

/// Delivers the events of a store.
pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    /// The create revision of each subscription that has a task.
    running: HashMap<PathBuf, (u64, AbortHandle)>,
    /// The number of the first record of the log that was not looked at.
    looked: Option<u64>,
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
        let positions = Default::default();
        let shared =
            Shared { published, management, webhooks, clock, metrics, suspects, positions };
        let (tasks, running) = (JoinSet::new(), HashMap::new());
        Self { shared: shared.into(), stop, tasks, running, looked: None }
    }

    /// Starts its thread, which ends with `stop`.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub(crate) fn start(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = self.stop.clone();
        std::thread::Builder::new().name("events".into()).spawn(move || {
            runtime.block_on(async {
                stop.run_until_cancelled(self.run()).await;
            });
        })?;
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
                    // One that ended while its subscription was enabled again begins anew.
                    self.looked = None;
                    seen = 0;
                }
            }
        }
    }

    /// Starts what is to be delivered at the served revision, which it returns. Ends nothing: deliveries see themselves that
    /// they are over.
    async fn look(&mut self) -> Result<u64, RequestError> {
        let (current, view) = viewed(&self.shared.published, Freshness::Any).await?;
        let revision = current.snapshot.revision();
        let head = change_log::head(&*view)?;
        let mut concerns = self.looked.is_none_or(|looked| looked < head.first);
        if let Some(looked) = self.looked.filter(|_| !concerns) {
            change_log::read(&*view, looked, &mut |revision| {
                let is_one = |kind| kind == Kind::Subscription;
                concerns =
                    revision.is_cut || revision.changes.iter().any(|change| is_one(change.kind));
                !concerns
            })?;
        }
        if !concerns {
            self.looked = Some(head.next);
            return Ok(revision);
        }
        let objects = self.shared.management.objects(Arc::clone(&view));
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
            let position = position.unwrap_or_else(|| Position::beginning(created, head.next));
            let delivery = Delivery::new(Arc::clone(&self.shared), id.clone(), position);
            let task = self.tasks.spawn(delivery.run());
            self.running.insert(id, (created, task));
        }
        // Not before: after an error everything is looked at again.
        self.looked = Some(head.next);
        Ok(revision)
    }
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").field("running", &self.running.len()).finish_non_exhaustive()
    }
}
