//! The control thread: everything that is not on a message's way. It serves the operator's
//! pages, watches the shards for the service manager, and turns signals into a shutdown.
//!
//! It runs on `tokio-uring`, or on plain `tokio` where io_uring is missing or unwanted.
//!
//! Reading order: [`Control`], [`run`], `signals`, `listener` (the admin listener), `manager`
//! (what the service manager is told), `process` (what the kernel accounts to us).

mod listener;
mod manager;
mod process;
pub mod shards;
mod signals;
pub mod snapshot;

use std::cell::Cell;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until};

use crate::admin::Snapshot;
use signals::Signal;

pub use process::process_numbers;

/// What the control thread needs from the rest of the process.
pub struct Control {
    /// Where the operator's pages are served. Bound by the caller before any thread starts, so
    /// that a port in use is one clear line.
    pub admin: Option<TcpListener>,
    /// Collects the numbers of this moment. `alive` in it is filled in here.
    pub snapshot: Box<dyn Fn() -> Snapshot + Send>,
    /// Starts the shutdown: asks every shard to drain. Called once.
    pub drain: Box<dyn FnMut() + Send>,
    /// Whether since the last call every shard has moved or was resting. Called about every
    /// five seconds, or at half the service manager's watchdog time where that is sooner.
    pub alive: Box<dyn FnMut() -> bool + Send>,
    /// Hears why a shard failed, in one line. When every shard has dropped its end, all have
    /// ended, and so does [`run`].
    pub finished: UnboundedReceiver<String>,
    /// From the beginning of the shutdown to the end of the process, whatever is still open.
    pub drain_deadline: Duration,
    /// Whether io_uring may be used: false where the operator asked for epoll.
    pub uring: bool,
}

/// How the process came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All shards ended after a signal. Exit status 0.
    Drained,
    /// The deadline passed while something was still open. Exit status 0: everybody had the
    /// time that was promised.
    DeadlinePassed,
    /// A shard failed, or all ended without being asked to. Exit status 1.
    Failed,
    /// A second signal: exit at once, without joining anything. Exit status 128 + its number,
    /// as a shell shows for a process that died of it (130, 143).
    Interrupted(i32),
}

impl Outcome {
    /// The exit status that goes with it.
    #[must_use]
    pub const fn status(self) -> i32 {
        match self {
            Self::Drained | Self::DeadlinePassed => 0,
            Self::Failed => 1,
            Self::Interrupted(signal) => 128 + signal,
        }
    }
}

/// Entries of the control thread's ring: files and wake-ups, never client traffic.
const RING_ENTRIES: u32 = 64;

/// Runs until all shards have ended or must be left behind. Blocks the calling thread. The
/// caller exits with [`Outcome::status`] and joins shards only after [`Outcome::Drained`].
///
/// # Errors
/// When not even the plain runtime or the signals can be set up.
pub fn run(control: Control) -> io::Result<Outcome> {
    if control.uring {
        match tokio_uring::Runtime::new(tokio_uring::builder().entries(RING_ENTRIES)) {
            Ok(runtime) => {
                tracing::info!("control thread on tokio-uring");
                return runtime.block_on(async { Ok(watch(control, hear_signals()?).await) });
            }
            Err(error) => tracing::info!("control thread on tokio: no io_uring here ({error})"),
        }
    } else {
        tracing::info!("control thread on tokio: epoll was asked for");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| shards::doing("starting the control thread", &error))?;
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async { Ok(watch(control, hear_signals()?).await) })
}

fn hear_signals() -> io::Result<Receiver<Signal>> {
    signals::heard().map_err(|error| shards::doing("listening to signals", &error))
}

/// What the tasks of the control thread share.
struct Shared {
    snapshot: Box<dyn Fn() -> Snapshot + Send>,
    alive: Cell<bool>,
}

impl Shared {
    fn snapshot(&self) -> Snapshot {
        Snapshot { alive: self.alive.get(), ..(self.snapshot)() }
    }
}

/// The life of the process as this thread sees it.
async fn watch(control: Control, mut signals: Receiver<Signal>) -> Outcome {
    let Control { admin, snapshot, mut drain, alive, mut finished, drain_deadline, .. } = control;
    let shared = Rc::new(Shared { snapshot, alive: Cell::new(true) });
    if let Some(admin) = admin {
        tokio::task::spawn_local(listener::serve(admin, shared.clone()));
    }
    tokio::task::spawn_local(manager::announce(shared.clone()));
    tokio::task::spawn_local(manager::keep_watch(alive, shared));

    let mut failed = false;
    tokio::select! {
        signal = signals.recv() => {
            let name = signal.map_or("end of signals", Signal::name);
            tracing::info!("{name}: draining, at most {drain_deadline:?}; once more ends at once");
        }
        failure = finished.recv() => {
            failed = true;
            match failure {
                Some(line) => tracing::error!("a shard failed, shutting down: {line}"),
                None => tracing::error!("all shards ended without being asked to"),
            }
        }
    }
    manager::stopping();
    drain();

    let deadline = Instant::now() + drain_deadline;
    loop {
        tokio::select! {
            // What has finished is heard before the deadline is looked at.
            biased;
            failure = finished.recv() => match failure {
                Some(line) => {
                    failed = true;
                    tracing::error!("a shard failed: {line}");
                }
                None if failed => return Outcome::Failed,
                None => return Outcome::Drained,
            },
            Some(signal) = signals.recv() => {
                tracing::warn!("{} again: ending at once", signal.name());
                return Outcome::Interrupted(signal.number());
            }
            () = sleep_until(deadline) => {
                tracing::warn!("{drain_deadline:?} are over: leaving what is still open");
                return if failed { Outcome::Failed } else { Outcome::DeadlinePassed };
            }
        }
    }
}

#[cfg(test)]
mod tests;
