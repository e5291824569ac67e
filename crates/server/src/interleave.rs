//! Points at which a model test may switch threads. In a release build they are nothing.
//!
//! The model tests run our sequences of atomic steps (a semaphore's permit, a map's entry, a pointer's
//! store) in every order that a scheduler could choose. The steps themselves are of libraries that have
//! model tests of their own.

/// A point between two steps.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn point() {}

/// A point between two steps: switches threads within [`check`], and does nothing elsewhere.
#[cfg(test)]
pub(crate) fn point() {
    if IN_MODEL.get() {
        shuttle::thread::yield_now();
    }
}

#[cfg(test)]
thread_local! {
    /// A model's threads are coroutines of one thread.
    static IN_MODEL: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs a model in orders drawn at random: `CAPSTAN_MODEL_RUNS` of them, or 2,000.
#[cfg(test)]
pub(crate) fn check(model: impl Fn() + Send + Sync + 'static) {
    let runs = std::env::var("CAPSTAN_MODEL_RUNS").ok().and_then(|text| text.parse().ok());
    let model = move || {
        IN_MODEL.set(true);
        model();
    };
    let scheduler = shuttle::scheduler::RandomScheduler::new(runs.unwrap_or(2_000));
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    shuttle::Runner::new(scheduler, config).run(model);
    IN_MODEL.set(false);
}
