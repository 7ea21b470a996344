//! What the shards say of themselves, as the operator's pages want it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::SystemTime;

use super::process::process_numbers;
use super::shards::Shards;
use crate::admin::{Driver, ShardNumbers, Snapshot};
use crate::config::{Config, MemoryPlan};
use crate::conn::EndReason;
use crate::hub::Format;
use crate::metrics::Number;
use crate::proto::http::Refusal;
use crate::shard::{Door, Metrics};

/// Collects the numbers of this moment whenever it is called.
pub fn collector(
    config: &Config,
    shards: &Shards,
    draining: Arc<AtomicBool>,
) -> impl Fn() -> Snapshot + Send + 'static {
    let started_at = SystemTime::now();
    let driver =
        Driver { name: shards.description.name, descriptors: shards.description.descriptors };
    let metrics = shards.metrics.clone();
    let plan: Vec<(&'static str, u64)> =
        MemoryPlan::of(config).lines.iter().map(|line| (line.name, line.bytes)).collect();
    move || Snapshot {
        started_at,
        ready: true,
        draining: draining.load(Relaxed),
        alive: true,
        driver,
        shards: metrics.iter().map(|metrics| numbers(metrics)).collect(),
        plan: plan.clone(),
        process: process_numbers(),
    }
}

/// Whether since the last call every shard has moved or was resting.
pub fn watcher(shards: &Shards) -> impl FnMut() -> bool + Send + 'static {
    let metrics = shards.metrics.clone();
    let mut seen = vec![0; metrics.len()];
    move || {
        metrics.iter().zip(&mut seen).all(|(metrics, seen)| {
            let ticks = metrics.ticks.get();
            std::mem::replace(seen, ticks) != ticks || metrics.resting.get() == 1
        })
    }
}

fn numbers(metrics: &Metrics) -> ShardNumbers {
    let (outbox_depth, outbox_depth_sum) = metrics.outbox_depth.read();
    ShardNumbers {
        connections: metrics.connections.get(),
        clients: metrics.clients.get(),
        accepted: metrics.accepted.get(),
        accept_failures: metrics.accept_failures.get(),
        handed_over: metrics.handed_over.get(),
        handshakes_ok: metrics.handshakes_ok.get(),
        handshakes_failed: labelled(Refusal::NAMES, &metrics.refused),
        requests: labelled(Door::NAMES, &metrics.requests),
        ended: labelled(EndReason::ALL.map(EndReason::name), &metrics.ended),
        messages_in: metrics.messages_in.get(),
        errors: metrics.errors.get(),
        publishes: metrics.publishes.get(),
        encoded: labelled(Format::ALL.map(Format::name), &metrics.encoded),
        deliveries: metrics.deliveries.get(),
        dropped: vec![
            ("drop_oldest", metrics.dropped_oldest.get()),
            ("drop_newest", metrics.dropped_newest.get()),
            ("memory", metrics.dropped_memory.get()),
            ("stale", metrics.dropped_stale.get()),
        ],
        gaps: metrics.gaps.get(),
        bytes_in: metrics.bytes_in.get(),
        bytes_out: metrics.bytes_out.get(),
        sends: metrics.sends.get(),
        outbox_depth,
        outbox_depth_sum,
        backlogged: metrics.blocked.get(),
        channels: metrics.channels.get(),
        subscriptions: metrics.subscriptions.get(),
        presence_users: metrics.users.get(),
        presence_connections: metrics.connections_present.get(),
        memory: vec![
            ("segments", metrics.segments_bytes.get()),
            ("replies", metrics.replies_bytes.get()),
            ("presence", metrics.presence_bytes.get()),
            ("held", metrics.held_bytes.get()),
        ],
        load_permille: metrics.load_permille.get(),
        ticks: metrics.ticks.get(),
        letters_sent: metrics.letters_sent.get(),
        letters_received: metrics.letters_heard.get(),
        mailbox_full: metrics.letters_shelved.get(),
    }
}

fn labelled<const N: usize>(
    labels: [&'static str; N],
    numbers: &[Number; N],
) -> Vec<(&'static str, u64)> {
    labels.into_iter().zip(numbers.iter().map(Number::get)).collect()
}
