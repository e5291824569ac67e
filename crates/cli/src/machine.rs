//! What the machine gives to the process: files, threads, and memory that others do not read.

use std::sync::mpsc;
use std::thread;

use anyhow::Context as _;
use capstan_server::limits::FILES_WANTED;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// On Linux, keeps the memory of this process, which has keys and credentials, out of core files and from other processes of its user. Root
/// can still debug it.
pub(crate) fn hide() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};

        // The kernel refuses only other values.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

/// Raises the soft limit of file descriptors to the hard limit, or to [`FILES_WANTED`] without a hard limit.
/// Each connection needs one, and the usual soft limit is 1,024.
pub(crate) fn raise_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current < maximum || maximum.is_none() {
        let wanted = Some(maximum.unwrap_or(FILES_WANTED).max(current.unwrap_or(0)));
        // On an error the current limit stays, which may be enough.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum });
    }
}

/// The processors that this process may use.
pub(crate) fn processors() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

/// The threads of the runtime.
pub(crate) fn runtime_threads() -> usize {
    let wanted = std::env::var("TOKIO_WORKER_THREADS").ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or_else(processors)
}

/// Makes sure that so many more threads can be made. Where one cannot be made later, the runtime panics.
///
/// # Errors
///
/// They cannot be made, and what may be in the way.
pub(crate) fn ensure_threads(count: usize) -> anyhow::Result<()> {
    // All of them end when this one is dropped.
    let mut running = Vec::with_capacity(count);
    for made in 0..count {
        let (stop, stopped) = mpsc::channel::<()>();
        let wait = move || {
            let _ = stopped.recv();
        };
        let thread = thread::Builder::new().stack_size(STACK).spawn(wait).with_context(|| {
            format!(
                "this process may have {made} more threads and needs {count}: raise its limit of processes (`ulimit -u`), \
                 `TasksMax=` of its unit, or the limit of its container"
            )
        })?;
        running.push((stop, thread));
    }
    for (stop, thread) in running {
        drop(stop);
        // It cannot panic, and has nothing to say.
        let _ = thread.join();
    }
    Ok(())
}

/// Bytes of the stack of a thread that waits.
const STACK: usize = 64 * 1024;
