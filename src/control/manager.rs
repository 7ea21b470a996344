//! What the service manager is told (`sd_notify`), and how the shards are watched for it.
//! Without a service manager, telling is nothing and watching is for `/healthz`.

use std::rc::Rc;
use std::time::Duration;

use sd_notify::NotifyState;

use super::Shared;

/// How often readiness is looked at until it is there. Starting takes milliseconds.
const READY_POLL: Duration = Duration::from_millis(10);

/// How often the shards are looked at when no watchdog asks for more.
const WATCH_INTERVAL_MAX: Duration = Duration::from_secs(5);

/// Tells that clients can connect, as soon as they can.
pub(super) async fn announce(shared: Rc<Shared>) {
    while !shared.snapshot().ready {
        tokio::time::sleep(READY_POLL).await;
    }
    tell(NotifyState::Ready);
}

/// Tells that the shutdown has begun.
pub(super) fn stopping() {
    tell(NotifyState::Stopping);
}

/// Looks at the shards for as long as the process lives, and feeds the watchdog while they
/// move: a thread that only proves itself alive would hide a shard that is stuck.
pub(super) async fn keep_watch(mut alive: Box<dyn FnMut() -> bool + Send>, shared: Rc<Shared>) {
    let watchdog = sd_notify::watchdog_enabled();
    // sd_watchdog_enabled(3): every half of the time.
    let interval = watchdog.map_or(WATCH_INTERVAL_MAX, |time| (time / 2).min(WATCH_INTERVAL_MAX));
    let mut interval = tokio::time::interval(interval.max(Duration::from_millis(1)));
    interval.tick().await;
    loop {
        interval.tick().await;
        let moves = alive();
        if moves != shared.alive.replace(moves) {
            match moves {
                true => tracing::info!("every shard moves again"),
                false => tracing::error!("a shard does not move"),
            }
        }
        if moves && watchdog.is_some() {
            tell(NotifyState::Watchdog);
        }
    }
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("the service manager could not be told: {error}");
    }
}
