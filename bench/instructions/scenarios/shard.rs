//! Whole ticks of a shard, over a driver that costs nothing.

use std::sync::Arc;
use std::time::Duration;

use ringcast::conn;
use ringcast::io::{Driver, SocketId};
use ringcast::mem::Key;
use ringcast::proto::ws::Opcode;
use ringcast::proto::ws::frame::write_masked;
use ringcast::shard::{Admission, MailboxRoom, Metrics, Post, Settings, Shard, Shared, mailbox};
use ringcast::time::{Clock, Time};

use super::requests::{UPGRADE, conn_settings, publish, subscribe};
use super::sink::{Peers, Sink};
use super::{Scenarios, hub};
use crate::meter::Meter;

const CONNECTIONS_MAX: usize = 200_000;
const ROUNDS: u64 = 10;
const STEP: Duration = Duration::from_millis(20);

pub(super) const ALL: Scenarios = &[
    ("shard: an idle tick", "tick", idle),
    ("shard: an idle tick with 100,000 connections", "tick", idle_crowd),
    ("shard: a tick in which 1,000 of 100,000 are looked at", "timer", looks),
    ("shard: a tick that pings 1,000 clients", "ping", pings),
    ("shard: a handshake and its welcome", "handshake", handshakes),
    ("shard: a tick that publishes to 1 subscriber", "publish", |meter| fan_out(meter, 1, false)),
    ("shard: a tick that publishes to 1,000 subscribers", "delivery", |meter| {
        fan_out(meter, 1_000, false);
    }),
    ("shard: a tick that publishes to 1,000 subscribers, compressed", "delivery", |meter| {
        fan_out(meter, 1_000, true);
    }),
];

struct Fixed(Time);

impl Clock for Fixed {
    fn now(&mut self) -> Time {
        self.0
    }
}

/// A shard, its time, and what its metrics count.
struct One {
    shard: Shard<Sink>,
    peers: Peers,
    metrics: Arc<Metrics>,
    now: Time,
    connections: u32,
}

impl One {
    fn new() -> Self {
        Self::with_compression(true)
    }

    /// The browsers' offer of compression is agreed to, or not.
    fn with_compression(compression: bool) -> Self {
        let settings = Settings {
            conn: conn::Settings { compression, ..conn_settings() },
            hub: hub::settings(),
            drain_window: Duration::from_secs(30),
            held_bytes_max: 1 << 30,
        };
        let (peers, metrics) = (Peers::default(), Arc::new(Metrics::default()));
        let driver = Sink::new(peers.clone());
        let (address, mailbox) = mailbox(MailboxRoom::default());
        let shared = Shared {
            post: Post::new(mailbox, [(address, driver.waker())]),
            admission: Arc::new(Admission::new(1, CONNECTIONS_MAX, None)),
            metrics: Arc::clone(&metrics),
        };
        let shard = Shard::new(settings, driver, shared, fastrand::Rng::with_seed(1));
        Self { shard, peers, metrics, now: Time::START, connections: 0 }
    }

    fn tick(&mut self) {
        let goes_on =
            self.shard.tick(self.now, &mut Fixed(self.now)).expect("a sink does not break");
        assert!(goes_on);
    }

    /// So many peers connect in one tick, and say nothing yet.
    fn connect(&mut self, count: u32) -> Vec<SocketId> {
        let first = self.connections;
        self.connections += count;
        let sockets: Vec<SocketId> =
            (first..self.connections).map(|index| Key::new(index, 0)).collect();
        sockets.iter().for_each(|socket| self.peers.connect(*socket));
        self.tick();
        sockets
    }

    fn bring(&mut self, socket: SocketId, bytes: &[u8]) {
        self.peers.send(socket, bytes);
        self.tick();
    }

    /// So many clients connect and open their WebSockets.
    fn open(&mut self, count: u32) -> Vec<SocketId> {
        let sockets = self.connect(count);
        for socket in &sockets {
            self.bring(*socket, UPGRADE);
        }
        sockets
    }
}

fn masked(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    write_masked(&mut frame, Opcode::Text, text.as_bytes(), [0x37, 0xfa, 0x21, 0x3d]);
    frame
}

fn idle(meter: &mut Meter) {
    let mut one = One::new();
    one.tick();
    for _ in 0..ROUNDS {
        one.now = one.now + STEP;
        meter.count(1, || one.tick());
    }
}

fn idle_crowd(meter: &mut Meter) {
    let mut one = One::new();
    for _ in 0..100 {
        one.connect(1_000);
    }
    for _ in 0..ROUNDS {
        one.now = one.now + STEP;
        meter.count(1, || one.tick());
    }
    assert_eq!(one.metrics.connections.get(), 100_000);
}

/// Clients are looked at a moment after they have opened, to see whether they are quiet.
fn looks(meter: &mut Meter) {
    let mut one = One::new();
    for _ in 0..99 {
        one.connect(1_000);
    }
    one.open(1_000);
    one.now = one.now + Duration::from_millis(200);
    one.tick();
    one.now = one.now + Duration::from_millis(100);
    meter.count(1_000, || one.tick());
    assert_eq!(one.peers.quieted(), 1_000);
}

fn pings(meter: &mut Meter) {
    let mut one = One::new();
    one.open(1_000);
    one.now = one.now + Duration::from_millis(300);
    one.tick();
    one.now = one.now + Duration::from_secs(28);
    let before = one.metrics.sends.get();
    meter.count(1_000, || one.tick());
    assert_eq!(one.metrics.sends.get() - before, 1_000);
}

fn handshakes(meter: &mut Meter) {
    let mut one = One::new();
    one.open(1);
    let sockets = one.connect(20);
    meter.count(20, || sockets.iter().for_each(|socket| one.bring(*socket, UPGRADE)));
    assert_eq!(one.metrics.handshakes_ok.get(), 21);
}

fn fan_out(meter: &mut Meter, subscribers: u32, compression: bool) {
    let mut one = One::with_compression(compression);
    let publisher = one.open(1)[0];
    let (publish, subscribe) = (masked(&publish(128)), masked(&subscribe()));
    for client in one.open(subscribers) {
        one.bring(client, &subscribe);
    }
    one.bring(publisher, &publish);
    let (sends, deliveries) = (one.metrics.sends.get(), one.metrics.deliveries.get());
    for _ in 0..ROUNDS {
        meter.count(u64::from(subscribers), || one.bring(publisher, &publish));
    }
    let delivered = ROUNDS * u64::from(subscribers);
    assert_eq!(one.metrics.deliveries.get() - deliveries, delivered);
    // And an ack for each publish.
    assert_eq!(one.metrics.sends.get() - sends, delivered + ROUNDS);
}
