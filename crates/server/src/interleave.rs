//! Points at which a model test may switch threads. They compile to nothing outside tests.
//!
//! The model tests run this crate's own sequences of atomic steps in orders that a scheduler draws
//! at random. A step is an operation of a library, such as to acquire a semaphore's permit, to
//! change a map's entry or to store a pointer. The libraries test the steps themselves.

/// A point between two steps.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn point() {}

/// A point between two steps. It switches threads within [`check`] and does nothing elsewhere.
#[cfg(test)]
pub(crate) fn point() {
    if IN_MODEL.get() {
        shuttle::thread::yield_now();
    }
}

#[cfg(test)]
thread_local! {
    /// A model's threads are coroutines of one thread, so a thread-local value serves all of them.
    static IN_MODEL: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs a model in `CAPSTAN_MODEL_RUNS` random orders; the default is 2,000.
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
