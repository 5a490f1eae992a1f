//! From settings to a running server, and back to an exit code.

use crate::clustered::{self, Clustered};
use crate::io::Driver;
use crate::io::epoll::Epoll;
use crate::io::uring::{self, Uring};
use crate::listen::{self, Listener};
use crate::worker::{Inbox, Worker};
use hypercache_commands::Shared;
use hypercache_commands::config::Config;
use hypercache_commands::shared::Mailbox;
use hypercache_commands::{acl, exposure};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use tracing::{debug, error, info};

/// Runs a server under the given settings until SIGTERM, SIGINT or SHUTDOWN.
///
/// # Errors
/// One sentence that says why it could not start or had to stop.
pub fn serve(config: Config) -> Result<(), String> {
    let workers = worker_count(&config);
    let choice = config.get("io");
    let shared = Shared::new(config, workers);
    shared.scripts.install(Box::new(hypercache_scripting::Engine));
    hypercache_store::start_preparing();
    acl::load_at_start(&shared)?;
    exposure::check(&shared.config, shared.acl.strangers())?;
    let listeners = listen::open_all(&shared.config)?;
    // One more than workers: the standby's.
    let inboxes = (0..=workers)
        .map(|_| Inbox::new())
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(|error| format!("cannot create the event loops: {error}"))?;
    let inboxes = Arc::new(inboxes);
    let mailboxes = inboxes.iter().map(|inbox| {
        let waker = inbox.waker().clone();
        Mailbox::new(Box::new(move || waker.wake()))
    });
    assert!(shared.mailboxes.set(mailboxes.collect()).is_ok(), "mailboxes are set once");
    watch_signals(&shared)?;
    let clustered = clustered::start(&shared)?;
    for listener in &listeners {
        info!("listening on {}", listener.name);
    }
    let backend = choose_backend(&choice)?;
    info!("event loops: {workers}, on {}", backend.name());
    assert!(shared.io_backend.set(backend.name()).is_ok(), "the back end is chosen once");
    crate::standby::watch(&shared, &inboxes, &listeners)
        .map_err(|error| format!("cannot watch over scripts: {error}"))?;
    let threads = start_workers(&shared, &inboxes, listeners, backend)?;
    let ended = join(threads);
    let goodbye = clustered.map_or(Ok(()), Clustered::stop);
    ended.and(goodbye)
}

/// What the event loops run on.
#[derive(Clone, Copy, Debug)]
enum Backend {
    Uring,
    Epoll,
}

impl Backend {
    fn name(self) -> &'static str {
        match self {
            Backend::Uring => "io_uring",
            Backend::Epoll => "epoll",
        }
    }
}

/// Follows the setting `io`; `auto` takes io_uring where a probe finds all of it that is needed.
fn choose_backend(choice: &str) -> Result<Backend, String> {
    if choice == "epoll" {
        return Ok(Backend::Epoll);
    }
    match uring::probe() {
        Ok(()) => Ok(Backend::Uring),
        Err(why) if choice == "uring" => {
            Err(format!("io_uring cannot be used here: {why}; try --io epoll"))
        }
        Err(why) => {
            info!("io_uring cannot be used here ({why}); falling back to epoll");
            Ok(Backend::Epoll)
        }
    }
}

fn worker_count(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    config.get("threads").parse().unwrap_or_else(|_| cores())
}

/// Starts the workers and waits until each has its event loop, made on its own thread because
/// io_uring binds a ring to the thread that made it.
fn start_workers(
    shared: &Arc<Shared>,
    inboxes: &Arc<Vec<Inbox>>,
    listeners: Vec<Listener>,
    backend: Backend,
) -> Result<Vec<JoinHandle<std::io::Result<()>>>, String> {
    let mut listeners = Some(listeners);
    let mut threads = Vec::new();
    for id in 0..shared.workers() {
        // The first worker accepts and deals connections out in turn.
        let listeners = listeners.take().unwrap_or_default();
        let (shared, inboxes) = (Arc::clone(shared), Arc::clone(inboxes));
        let (ready, started) = mpsc::channel();
        let body = move || {
            let waker = inboxes[id].waker().clone();
            match backend {
                Backend::Uring => {
                    let driver = Uring::new(waker);
                    run_worker(driver, shared, inboxes, id, listeners, &ready)
                }
                Backend::Epoll => {
                    let driver = Epoll::new(waker);
                    run_worker(driver, shared, inboxes, id, listeners, &ready)
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("hc-worker-{id}"));
        let fail = |error: std::io::Error| format!("cannot start a worker thread: {error}");
        threads.push(thread.spawn(body).map_err(fail)?);
        let failed = || "a worker thread ended before it began".to_owned();
        started.recv().map_err(|_| failed())??;
    }
    Ok(threads)
}

fn run_worker<D: Driver>(
    driver: std::io::Result<D>,
    shared: Arc<Shared>,
    inboxes: Arc<Vec<Inbox>>,
    id: usize,
    listeners: Vec<Listener>,
    ready: &mpsc::Sender<Result<(), String>>,
) -> std::io::Result<()> {
    let mut driver = match driver {
        Ok(driver) => driver,
        Err(error) => {
            let _caller_waits = ready.send(Err(format!("cannot create an event loop: {error}")));
            return Ok(());
        }
    };
    for listener in listeners {
        if let Err(error) = driver.listen(listener.fd, listener.is_unix) {
            let text = format!("cannot listen on {}: {error}", listener.name);
            let _caller_waits = ready.send(Err(text));
            return Ok(());
        }
    }
    debug!("event loop {id} runs on {}", driver.name());
    let _caller_waits = ready.send(Ok(()));
    let ended = Worker::new(Arc::clone(&shared), driver, inboxes, id).run();
    if ended.is_err() {
        // The others cannot do its work: they stop, and the process ends with the error.
        shared.stop();
    }
    ended
}

fn join(threads: Vec<JoinHandle<std::io::Result<()>>>) -> Result<(), String> {
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(format!("an event loop failed: {error}")),
            Err(_) => return Err("a worker panicked; this is a bug, please report it".into()),
        }
    }
    info!("stopped");
    Ok(())
}

/// The first SIGTERM or SIGINT lets everything finish; the second ends the process at once.
fn watch_signals(shared: &Arc<Shared>) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("cannot watch signals: {error}");
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT]).map_err(fail)?;
    let shared = Arc::clone(shared);
    let watch = move || {
        for _ in signals.forever() {
            if shared.stop() {
                error!("second signal: stopping at once");
                std::process::exit(1);
            }
            info!("signal received: stopping");
        }
    };
    let thread = std::thread::Builder::new().name("hc-signals".into());
    thread.spawn(watch).map(drop).map_err(fail)
}
