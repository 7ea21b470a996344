//! The hub alone: from a publish to every subscriber's outbox, and out of it.

use std::hint::black_box;

use ringcast::hub::{Capacity, ClientId, Format, Hub, Publish, Rule, Rules, Settings, Settled};
use ringcast::io::SLICES_PER_SEND_MAX;
use ringcast::limits::SENDS_PER_SUBMISSION_MAX;
use ringcast::mem::Key;
use ringcast::time::Time;

use super::Scenarios;
use super::requests::payload;
use crate::meter::Meter;

const CHANNEL: &str = "plant.line-3.pressure";
const ROUNDS: usize = 10;
const JSON: Format = Format::Json;
const DEFLATE: Format = Format::JsonDeflate;

pub(super) const ALL: Scenarios = &[
    ("hub: publish 128 B to 1 subscriber", "publish", |meter| publish(meter, 1, 128, JSON)),
    ("hub: publish 128 B to 1,000 subscribers", "delivery", |meter| {
        publish(meter, 1_000, 128, JSON);
    }),
    ("hub: publish 4 KiB to 1,000 subscribers", "delivery", |meter| {
        publish(meter, 1_000, 4096, JSON);
    }),
    ("hub: publish 128 B to 1 subscriber, compressed", "publish", |meter| {
        publish(meter, 1, 128, DEFLATE);
    }),
    ("hub: publish 128 B to 1,000 subscribers, compressed", "delivery", |meter| {
        publish(meter, 1_000, 128, DEFLATE);
    }),
    ("hub: publish 4 KiB to 1,000 subscribers, compressed", "delivery", |meter| {
        publish(meter, 1_000, 4096, DEFLATE);
    }),
    ("hub: flush 1 message to each of 1,000 clients", "client", |meter| flush(meter, 1)),
    ("hub: flush 16 messages to each of 1,000 clients", "client", |meter| flush(meter, 16)),
    ("hub: subscribe", "subscribe", subscribe),
];

pub(super) fn settings() -> Settings {
    Settings {
        shard: 0,
        shards: 1,
        home_seed: 1,
        outbox: Capacity { messages: 256, bytes: 65_536 },
        channels_per_client_max: 128,
        channels_max: 100_000,
        compression_level: 2,
        memory_bytes_max: 1 << 30,
        rules: Rules { rules: Vec::new(), default: Rule::default() },
    }
}

/// A hub whose clients read whatever they are sent.
struct Room {
    hub: Hub,
    publisher: ClientId,
    batch: Vec<ClientId>,
    totals: Vec<usize>,
}

impl Room {
    fn new(clients: u32, format: Format) -> Self {
        let mut hub = Hub::new(settings(), fastrand::Rng::with_seed(1));
        for client in 0..=clients {
            hub.open(Key::new(client, 0));
            hub.agree(Key::new(client, 0), format);
        }
        Self { hub, publisher: Key::new(clients, 0), batch: Vec::new(), totals: Vec::new() }
    }

    fn with_subscribers(clients: u32, format: Format) -> Self {
        let mut room = Self::new(clients, format);
        room.subscribe(clients);
        room.flush();
        room
    }

    fn subscribe(&mut self, clients: u32) {
        let mut replies = Vec::new();
        for client in (0..clients).map(|index| Key::new(index, 0)) {
            let subscribed =
                self.hub.subscribe(client, Some(b"1"), CHANNEL, None, &mut replies, Time::START);
            subscribed.expect("there is room");
            self.hub.reply(client, &mut replies);
        }
        assert_eq!(self.hub.settle(Time::START), Settled::Done);
    }

    fn publish(&mut self, payload: &[u8]) {
        let publish = Publish { channel: CHANNEL, payload, id: Some(b"17"), key: None };
        self.hub.publish(self.publisher, publish, Time::START).expect("there is room");
        assert_eq!(self.hub.settle(Time::START), Settled::Done);
        self.hub.acknowledge_settled();
    }

    /// What the shard does with the hub to send, without the sending.
    fn flush(&mut self) {
        while self.hub.has_dirty() {
            self.hub.take_dirty(&mut self.batch, SENDS_PER_SUBMISSION_MAX);
            let mut slices = Vec::with_capacity(2 * self.batch.len());
            for client in &self.batch {
                let first = slices.len();
                self.hub.gather(*client, &mut slices, SLICES_PER_SEND_MAX);
                self.totals.push(slices[first..].iter().map(|slice| slice.len()).sum());
            }
            black_box(&slices);
            drop(slices);
            for (client, bytes) in self.batch.drain(..).zip(self.totals.drain(..)) {
                black_box(self.hub.sent(client, bytes));
            }
        }
    }
}

fn publish(meter: &mut Meter, subscribers: u32, payload_bytes: usize, format: Format) {
    let mut room = Room::with_subscribers(subscribers, format);
    let payload = payload(payload_bytes);
    for round in 0..=ROUNDS {
        let mut publish = || room.publish(payload.as_bytes());
        if round == 0 {
            publish()
        } else {
            meter.count(u64::from(subscribers), publish)
        }
        room.flush();
    }
    assert_eq!(room.hub.flow().deliveries, u64::from(subscribers) * (ROUNDS as u64 + 1));
    assert_eq!(room.hub.encoded()[format as usize], ROUNDS as u64 + 1);
}

fn flush(meter: &mut Meter, messages: usize) {
    const CLIENTS: u32 = 1_000;
    let mut room = Room::with_subscribers(CLIENTS, JSON);
    let payload = payload(128);
    for round in 0..=ROUNDS {
        for _ in 0..messages {
            room.publish(payload.as_bytes());
        }
        if round == 0 { room.flush() } else { meter.count(u64::from(CLIENTS), || room.flush()) }
    }
    let expected = u64::from(CLIENTS) * messages as u64 * (ROUNDS as u64 + 1);
    assert_eq!(room.hub.flow().deliveries, expected);
}

fn subscribe(meter: &mut Meter) {
    const CLIENTS: u32 = 1_000;
    Room::with_subscribers(CLIENTS, JSON);
    let mut room = Room::new(CLIENTS, JSON);
    meter.count(u64::from(CLIENTS), || room.subscribe(CLIENTS));
    assert_eq!(room.hub.counts().subscriptions, u64::from(CLIENTS));
}
