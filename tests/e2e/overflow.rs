//! Slow clients: what they receive and what they are told they lost is together exactly what
//! was published, their pings are answered all the while, and nobody else notices.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Chance, Client, Event, Heard};
use crate::on_every_setup;
use crate::server::{Server, Setup};

on_every_setup!(
    received_and_gaps_are_exactly_what_was_published_in_25_seeded_schedules,
    drop_oldest_keeps_the_newest,
    drop_newest_keeps_the_oldest,
    close_ends_the_slow_client_with_4409,
    the_first_rule_that_matches_decides,
    a_client_that_never_reads_delays_nobody,
    a_stalled_client_does_not_move_the_p99_of_the_others,
    a_flood_of_unread_pings_is_bounded,
);

/// Little room everywhere, so that a pause of the reader is noticed after some 30 KiB.
const SMALL: &str = "
[limits]
outbox_messages_max = 24
outbox_bytes_max = \"16KiB\"
[socket]
send_buffer_bytes = 4096
notsent_lowat_bytes = 2048
";

/// What `SMALL` is about on the client's side.
const RECEIVE_BUFFER_BYTES: Option<u32> = Some(4096);

/// The book kept of one channel: every number is heard once, as a message or inside a gap.
#[derive(Debug)]
struct Account {
    channel: String,
    next: u64,
    received: u64,
    lost: u64,
    gaps: u64,
    /// Messages since the last gap, and before the first.
    run: u64,
    first_run: u64,
}

impl Account {
    /// Opens with the answer to the subscription.
    fn open(subscribed: &Heard) -> Self {
        Self::from(subscribed.str("channel"), subscribed.number("seq") + 1)
    }

    fn from(channel: &str, next: u64) -> Self {
        let channel = channel.to_owned();
        Self { channel, next, received: 0, lost: 0, gaps: 0, run: 0, first_run: 0 }
    }

    fn enter(&mut self, heard: &Heard) {
        assert_eq!(heard.str("channel"), self.channel);
        match heard.kind() {
            "message" => {
                assert_eq!(heard.number("seq"), self.next, "{}", heard.text);
                // Each payload says which number it was published as.
                let expected = format!("[{},", self.next);
                assert!(heard.payload().starts_with(&expected), "{}", heard.text);
                self.next += 1;
                self.received += 1;
                self.run += 1;
                self.first_run += u64::from(self.gaps == 0);
            }
            "gap" => {
                let (from, to) = (heard.number("from"), heard.number("to"));
                assert_eq!(from, self.next, "a gap begins where the messages ended");
                assert!(from <= to, "{}", heard.text);
                assert_eq!(heard.str("reason"), "slow_consumer");
                self.next = to + 1;
                self.lost += to - from + 1;
                self.gaps += 1;
                self.run = 0;
            }
            other => panic!("{other} in the account of {}", self.channel),
        }
    }

    fn is_complete(&self, last: u64) -> bool {
        assert!(self.next <= last + 1, "heard more than was published");
        self.next == last + 1
    }
}

/// A payload that says which number it will get, and some filling.
fn numbered(seq: u64, filling: usize) -> String {
    format!("[{seq},\"{}\"]", "x".repeat(filling))
}

/// Waits until the server has handled everything that `publisher` has sent so far.
async fn settled(publisher: &mut Client) {
    publisher.ask("settled", r#""type":"ping""#).await;
}

pub async fn received_and_gaps_are_exactly_what_was_published_in_25_seeded_schedules(setup: Setup) {
    let server = Server::start(setup, SMALL).await;
    // Each column of the matrix plays its own 25 of the 100 schedules.
    let column = match (setup.driver, setup.shards) {
        ("uring", 1) => 0,
        ("uring", _) => 1,
        ("epoll", 1) => 2,
        _ => 3,
    };
    let only: Option<u64> = std::env::var("RINGCAST_TEST_SEED").ok().and_then(|s| s.parse().ok());
    let (mut lost, mut received) = (0, 0);
    for seed in (column * 25)..(column * 25 + 25) {
        let seed = only.unwrap_or(seed);
        eprintln!(
            "schedule {seed}: RINGCAST_TEST_SEED={seed} cargo test --test e2e -- \
             25_seeded_schedules"
        );
        let accounts = schedule(&server, seed).await;
        lost += accounts.iter().map(|account| account.lost).sum::<u64>();
        received += accounts.iter().map(|account| account.received).sum::<u64>();
    }
    assert!(lost > 0 && received > 0, "{lost} lost, {received} received: that showed nothing");
}

/// Everything a slow client hears.
struct Book {
    accounts: Vec<Account>,
    pongs: u64,
}

impl Book {
    fn enter(&mut self, heard: &Heard) {
        if heard.kind() == "pong" {
            assert_eq!(heard.str("id"), format!("ping {}", self.pongs), "answers keep their order");
            self.pongs += 1;
            return;
        }
        let account =
            self.accounts.iter_mut().find(|account| account.channel == heard.str("channel"));
        account.expect("a channel that was subscribed to").enter(heard);
    }

    /// Whether nothing is missing of `published`, nor of the answers to `pings`.
    fn is_complete(&self, published: [u64; 2], pings: u64) -> bool {
        let mut channels = self.accounts.iter().zip(published);
        channels.all(|(account, last)| account.is_complete(last)) && self.pongs == pings
    }
}

/// One day in the life of a slow client, drawn from `seed`: bursts on two channels, pings of
/// both kinds, and reading in fits and starts.
async fn schedule(server: &Server, seed: u64) -> Vec<Account> {
    let mut chance = Chance::new(seed + 1);
    let mut slow = Client::open_with(server, RECEIVE_BUFFER_BYTES).await;
    let mut publisher = Client::open(server).await;
    let mut book = Book { accounts: Vec::new(), pongs: 0 };
    let mut published = [0_u64; 2];
    for channel in 0..2 {
        let subscribed = slow.subscribe(&format!("seed {seed} channel {channel}")).await;
        book.accounts.push(Account::open(&subscribed));
    }
    let (mut pings, mut ping_frames) = (0_u64, 0_u8);
    for _ in 0..8 + chance.below(8) {
        match chance.below(6) {
            0..=2 => {
                let index = chance.below(2) as usize;
                let filling = [8, 120, 700, 1500][chance.below(4) as usize];
                let channel = book.accounts[index].channel.clone();
                for _ in 0..10 + chance.below(150) {
                    published[index] += 1;
                    publisher.publish(&channel, &numbered(published[index], filling)).await;
                }
                settled(&mut publisher).await;
            }
            3 => {
                for _ in 0..1 + chance.below(60) {
                    match slow.event_within(Duration::from_millis(5)).await {
                        Some(Event::Text(heard)) => book.enter(&heard),
                        None => break,
                        Some(other) => panic!("{other:?}"),
                    }
                }
            }
            4 => {
                slow.say(format!(r#"{{"type":"ping","id":"ping {pings}"}}"#)).await;
                pings += 1;
            }
            _ => {
                slow.send(Message::Ping(vec![ping_frames].into())).await;
                ping_frames += 1;
                sleep(Duration::from_millis(chance.below(8))).await;
            }
        }
    }
    // At last it reads everything.
    while !book.is_complete(published, pings) || slow.pongs.len() < usize::from(ping_frames) {
        match slow.event_within(Duration::from_secs(5)).await {
            Some(Event::Text(heard)) => book.enter(&heard),
            // The last thing to come may be a pong frame, which is no event.
            None if book.is_complete(published, pings) => break,
            other => panic!("{other:?} with {:?} of {published:?}", book.accounts),
        }
    }
    let expected: Vec<Vec<u8>> = (0..ping_frames).map(|number| vec![number]).collect();
    assert_eq!(slow.pongs, expected, "every ping is answered, in order");
    for (account, last) in book.accounts.iter().zip(published) {
        assert_eq!(account.received + account.lost, last);
    }
    book.accounts
}

/// A slow client that has not read anything while `count` messages were published.
async fn stalled(server: &Server, channel: &str, count: u64) -> (Client, Account) {
    let mut slow = Client::open_with(server, RECEIVE_BUFFER_BYTES).await;
    let account = Account::open(&slow.subscribe(channel).await);
    let mut publisher = Client::open(server).await;
    for seq in 1..=count {
        publisher.publish(channel, &numbered(seq, 500)).await;
    }
    settled(&mut publisher).await;
    (slow, account)
}

async fn read_to(slow: &mut Client, account: &mut Account, last: u64) {
    while !account.is_complete(last) {
        account.enter(&slow.hear().await);
    }
    slow.heard_nothing_more().await;
}

pub async fn drop_oldest_keeps_the_newest(setup: Setup) {
    let server = Server::start(setup, SMALL).await;
    let (mut slow, mut account) = stalled(&server, "a", 400).await;
    let mut last_kind = String::new();
    while !account.is_complete(400) {
        let heard = slow.hear().await;
        heard.kind().clone_into(&mut last_kind);
        account.enter(&heard);
    }
    assert_eq!(last_kind, "message", "the newest message is one of those that were kept");
    assert!(account.lost > 200, "{account:?}");
    assert!(account.run >= 24, "as many as the outbox holds: {account:?}");
    // The kernel may take a few more while the pause lasts; then there is one more gap.
    assert!(account.gaps <= 8, "adjacent losses are told as one: {account:?}");
    slow.heard_nothing_more().await;
}

pub async fn drop_newest_keeps_the_oldest(setup: Setup) {
    let rule = "[[channel]]\nmatch = \"new.*\"\noverflow = \"drop_newest\"";
    let server = Server::start(setup, &format!("{SMALL}{rule}")).await;
    let (mut slow, mut account) = stalled(&server, "new.a", 400).await;
    // The notice comes without waiting for a message to come after it.
    read_to(&mut slow, &mut account, 400).await;
    assert!(account.lost > 200, "{account:?}");
    assert!(account.first_run >= 24, "as many as the outbox holds: {account:?}");
    assert!(account.gaps <= 8, "adjacent losses are told as one: {account:?}");
    let gaps = account.gaps;
    let mut publisher = Client::open(&server).await;
    publisher.publish_acked("new.a", &numbered(401, 0)).await;
    read_to(&mut slow, &mut account, 401).await;
    assert_eq!(account.gaps, gaps, "once it reads again, nothing is lost: {account:?}");
}

pub async fn close_ends_the_slow_client_with_4409(setup: Setup) {
    let rule = "[[channel]]\nmatch = \"strict\"\noverflow = \"close\"";
    let mut server = Server::start(setup, &format!("{SMALL}{rule}")).await;
    let (mut slow, mut account) = stalled(&server, "strict", 400).await;
    loop {
        match slow.event().await {
            Event::Text(heard) => account.enter(&heard),
            Event::Close(code, reason) => {
                assert_eq!(code, 4409);
                assert!(!reason.is_empty());
                break;
            }
            Event::Gone => panic!("no close frame"),
        }
    }
    assert_eq!(account.lost, 0, "all or nothing: {account:?}");
    server.assert_lives().await;
}

pub async fn the_first_rule_that_matches_decides(setup: Setup) {
    let rules = "
overflow = \"close\"
[[channel]]
match = \"md.keep.*\"
overflow = \"drop_newest\"
[[channel]]
match = \"md.*\"
overflow = \"drop_oldest\"
";
    // Top-level keys stand before the tables.
    let (top, tables) = rules.split_at(rules.find("[[").expect("a table"));
    let server = Server::start(setup, &format!("{top}{SMALL}{tables}")).await;
    let (mut oldest, mut account) = stalled(&server, "md.a", 300).await;
    read_to(&mut oldest, &mut account, 300).await;
    assert!(account.gaps > 0 && account.run >= 24, "drop_oldest ends with a full outbox");
    // Once an emulated machine published so slowly that the kernel took a little more from a
    // full outbox, and the very last message was not among the lost: a few may follow the gap.
    let (mut newest, mut account) = stalled(&server, "md.keep.a", 300).await;
    read_to(&mut newest, &mut account, 300).await;
    assert!(account.gaps > 0 && account.run < 24, "drop_newest does not: {account:?}");
    let (mut closed, _) = stalled(&server, "other", 300).await;
    assert_eq!(closed.closed().await.0, 4409, "the default");
}

pub async fn a_client_that_never_reads_delays_nobody(setup: Setup) {
    let server = Server::start(setup, SMALL).await;
    let mut stuck = Vec::new();
    for _ in 0..4 {
        let mut client = Client::open_with(&server, RECEIVE_BUFFER_BYTES).await;
        client.subscribe("a").await;
        stuck.push(client);
    }
    let mut fast = Vec::new();
    for _ in 0..4 {
        let mut client = Client::open(&server).await;
        client.subscribe("a").await;
        fast.push(client);
    }
    let mut publisher = Client::open(&server).await;
    for round in 0..60 {
        for number in 1..=8 {
            publisher.publish("a", &numbered(round * 8 + number, 400)).await;
        }
        for client in &mut fast {
            for number in 1..=8 {
                let heard = client.hear_kind("message").await;
                assert_eq!(heard.number("seq"), round * 8 + number);
            }
        }
    }
    // All the while the others could not have been served; now each gets its account settled.
    for client in &mut stuck {
        let mut account = Account::from("a", 1);
        read_to(client, &mut account, 480).await;
        assert!(account.lost > 0, "{account:?}");
    }
}

pub async fn a_stalled_client_does_not_move_the_p99_of_the_others(setup: Setup) {
    let server = Server::start(setup, SMALL).await;
    let mut publisher = Client::open(&server).await;
    let mut fast = Client::open(&server).await;
    fast.subscribe("a").await;
    let mut seq = 0;
    let mut p99 = async |fast: &mut Client| {
        let mut times = Vec::new();
        for _ in 0..400 {
            seq += 1;
            let started = Instant::now();
            publisher.publish("a", &numbered(seq, 400)).await;
            fast.hear_kind("message").await;
            times.push(started.elapsed());
        }
        times.sort_unstable();
        times[396]
    };
    let alone = p99(&mut fast).await;
    let mut stuck = Client::open_with(&server, RECEIVE_BUFFER_BYTES).await;
    stuck.subscribe("a").await;
    let beside = p99(&mut fast).await;
    // Other tests run on the same CPUs: only a stall would be this much.
    let allowed = alone * 4 + Duration::from_millis(40);
    assert!(beside < allowed, "p99 {alone:?} alone, {beside:?} beside a stalled client");
}

pub async fn a_flood_of_unread_pings_is_bounded(setup: Setup) {
    let mut server = Server::start(setup, SMALL).await;
    let before = server.resident_bytes();
    let mut raw = crate::raw::Raw::open(server.address, "/ws").await;
    let ping = crate::raw::frame(0x89, &[b'p'; 125]);
    let packet = ping.repeat(500);
    // 64 MiB of pings whose answers nobody reads: the server stops reading, not growing.
    let flood = async {
        for _ in 0..1000 {
            raw.send(&packet).await;
        }
    };
    let flooded = tokio::time::timeout(Duration::from_secs(3), flood).await;
    assert!(flooded.is_err(), "the server read everything: then where are the answers?");
    let grown = server.resident_bytes().saturating_sub(before);
    // With io_uring the kernel may have filled all receive buffers of a shard, 4 MiB, before the server
    // stops it; what they held is kept aside, in memory that doubles as it grows.
    assert!(grown < 24 << 20, "the flood cost {grown} bytes");
    server.assert_lives().await;
}
