//! `ringcast serve` and `ringcast demo`: from a proven configuration to a running server.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc::unbounded_channel;

use super::{EXIT_USAGE, complain, feed};
use crate::config::{Config, DriverKind, LogFormat, MemoryPlan, Problems};
use crate::control::{self, Control, Outcome, shards::Shards, snapshot};
use crate::io::cannot_listen;

/// What the shards may take beyond their own deadline before they are left behind.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// Whether the synthetic market feed runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// `ringcast serve`.
    Off,
    /// `ringcast demo`.
    On,
}

/// Serves until a signal ends it. Returns the exit status.
#[must_use]
pub fn serve(proven: Result<Config, Problems>, feed: Feed) -> u8 {
    let config = match proven {
        Ok(config) => config,
        Err(problems) => {
            complain(&problems);
            return EXIT_USAGE;
        }
    };
    start_log(&config);
    // Huge pages hold memory that nobody uses: 2 MiB for a few connections more, and half of what
    // an idle server has. With them, fan-out costs the same.
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "transparent huge pages stay on");
    }
    match run(&config, feed) {
        Ok(outcome) => u8::try_from(outcome.status()).unwrap_or(1),
        Err(error) => {
            tracing::error!("{error}");
            1
        }
    }
}

fn run(config: &Config, feed: Feed) -> io::Result<Outcome> {
    // Bound before any thread starts, so that a port in use is one clear line.
    let admin = config.admin.map(bind_admin).transpose()?;
    let (failures, finished) = unbounded_channel();
    let shards = Shards::start(config, failures)?;
    // Only now: what stands in the way of a start is one clear line, not the last of twelve.
    for line in MemoryPlan::of(config).to_string().lines() {
        tracing::info!("{line}");
    }
    let description = &shards.description;
    tracing::info!("driver {}: {}", description.name, shards.reason);
    for note in &description.notes {
        tracing::info!("driver {}: {note}", description.name);
    }
    if let Some(address) = &admin {
        tracing::info!("admin listener on http://{}/metrics", address.local_addr()?);
    }
    tracing::info!("listening on ws://{}/ws with {} shards", shards.listening, config.shards);
    if feed == Feed::On {
        feed::start(shards.listening);
        let page = shards.listening;
        // Nobody may be reading, which is no reason to end.
        let _ = writeln!(io::stdout(), "ringcast demo: open http://{page}/ in a browser");
    }
    let draining = Arc::new(AtomicBool::new(false));
    let mut drain = shards.drainer();
    let control = Control {
        admin,
        snapshot: Box::new(snapshot::collector(config, &shards, draining.clone())),
        drain: Box::new(move || {
            draining.store(true, Relaxed);
            drain();
        }),
        alive: Box::new(snapshot::watcher(&shards)),
        finished,
        drain_deadline: config.timing.drain_window + DRAIN_GRACE,
        uring: config.driver != DriverKind::Epoll,
    };
    let outcome = control::run(control)?;
    if outcome == Outcome::Drained {
        shards.join();
        tracing::info!("drained");
    }
    Ok(outcome)
}

fn bind_admin(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .map_err(|error| cannot_listen(&error, "cannot bind the admin listener to", address))
}

fn start_log(config: &Config) {
    let builder = tracing_subscriber::fmt()
        .with_max_level(config.log.level)
        .with_target(false)
        // A log that cannot be written (a full disk) is not complained about in the same place:
        // that would end the process.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    match config.log.format {
        LogFormat::Text => {
            builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init();
        }
        LogFormat::Json => builder.json().init(),
    }
}
