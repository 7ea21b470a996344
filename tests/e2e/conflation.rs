//! Conflated channels: the newest value of each key, once an interval, and what covers the rest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::client::{Client, Heard};
use crate::on_every_setup;
use crate::server::{Server, Setup};

on_every_setup!(
    once_an_interval_the_newest_of_each_key_comes_and_covers_the_rest,
    who_comes_back_ends_with_the_newest_of_each_key,
    who_wants_less_gets_less,
);

const CONFIG: &str = "
[[channel]]
match = \"md\"
history = { messages = 5000 }
conflate = { key = \"symbol\", interval = \"100ms\" }
";

const INTERVAL: Duration = Duration::from_millis(100);

const SYMBOLS: u64 = 10;

/// What somebody knows of the channel.
#[derive(Debug)]
struct Quotes {
    epoch: String,
    last: u64,
    /// The newest value of each symbol, and how many came.
    values: BTreeMap<u64, (u64, u64)>,
    covered: u64,
    began: Instant,
}

impl Quotes {
    fn begin(subscribed: &Heard, last: u64) -> Self {
        let epoch = subscribed.str("epoch").to_owned();
        Self { epoch, last, values: BTreeMap::new(), covered: 0, began: Instant::now() }
    }

    fn enter(&mut self, heard: &Heard) {
        assert_eq!(heard.kind(), "message", "{}", heard.text);
        let seq = heard.number("seq");
        let from = if heard.has("from") { heard.number("from") } else { seq };
        assert_eq!(from, self.last + 1, "{}", heard.text);
        assert!(from <= seq && (from < seq) == heard.has("from"), "{}", heard.text);
        (self.last, self.covered) = (seq, self.covered + seq - from);
        // The value is the number that it was published as.
        let (symbol, value) = quote_of(heard.payload());
        assert_eq!(value, seq, "{}", heard.text);
        let (newest, count) = self.values.entry(symbol).or_default();
        (*newest, *count) = (value, *count + 1);
    }

    async fn hear_to(&mut self, client: &mut Client, last: u64) {
        while self.last < last {
            let heard = client.hear().await;
            self.enter(&heard);
        }
    }

    /// The newest of each of the symbols, which are published in turn.
    fn check_newest(&self, last: u64) {
        let newest = (last + 1 - SYMBOLS..=last).map(|value| (value % SYMBOLS, value));
        let known = self.values.iter().map(|(symbol, (value, _))| (*symbol, *value));
        assert_eq!(known.collect::<BTreeMap<_, _>>(), newest.collect());
    }
}

fn quote(value: u64) -> String {
    format!(r#"{{"value":{value},"symbol":"s{}"}}"#, value % SYMBOLS)
}

fn quote_of(payload: &str) -> (u64, u64) {
    let (value, symbol) = payload.split_once(r#","symbol":"s"#).expect("a quote");
    let digits = |text: &str| text.trim_matches(|c: char| !c.is_ascii_digit()).parse();
    (digits(symbol).expect("a symbol"), digits(value).expect("a value"))
}

/// Publishes the values, as fast as `pause` allows between each twenty of them.
async fn publish(client: &mut Client, values: std::ops::RangeInclusive<u64>, pause: Duration) {
    for value in values {
        client.publish("md", &quote(value)).await;
        if value % 20 == 0 {
            sleep(pause).await;
        }
    }
}

async fn subscribe(client: &mut Client) -> Quotes {
    let answer = client.subscribe("md").await;
    assert_eq!(answer.str("conflate"), "100ms");
    Quotes::begin(&answer, answer.number("seq"))
}

pub async fn once_an_interval_the_newest_of_each_key_comes_and_covers_the_rest(setup: Setup) {
    let server = Server::start(setup, CONFIG).await;
    let mut publisher = Client::open(&server).await;
    let mut readers = Vec::new();
    for _ in 0..4 {
        let mut client = Client::open(&server).await;
        let quotes = subscribe(&mut client).await;
        readers.push((client, quotes));
    }
    publish(&mut publisher, 1..=1_000, Duration::from_millis(10)).await;
    for (client, quotes) in &mut readers {
        quotes.hear_to(client, 1_000).await;
        let intervals = quotes.began.elapsed().as_millis() / INTERVAL.as_millis();
        // One at the beginning, and one for the time between the server's answer and our clock.
        let most = intervals as u64 + 2;
        assert!(quotes.values.values().all(|(_, count)| *count <= most), "{most}: {quotes:?}");
        assert!(quotes.covered > 300, "{quotes:?}");
        quotes.check_newest(1_000);
    }
    // It has been quiet, so the next one comes at once.
    sleep(INTERVAL * 2).await;
    publish(&mut publisher, 1_001..=1_001, Duration::ZERO).await;
    for (client, quotes) in &mut readers {
        quotes.hear_to(client, 1_001).await;
        client.heard_nothing_more().await;
    }
}

pub async fn who_comes_back_ends_with_the_newest_of_each_key(setup: Setup) {
    let server = Server::start(setup, CONFIG).await;
    let mut publisher = Client::open(&server).await;
    let mut reader = Client::open(&server).await;
    let mut quotes = subscribe(&mut reader).await;
    let pause = Duration::from_millis(5);
    for round in 1..=6 {
        let (first, last) = (round * 200 - 199, round * 200);
        publish(&mut publisher, first..=last, pause).await;
        // In the middle of what comes.
        quotes.hear_to(&mut reader, last - 100).await;
        drop(reader);
        reader = Client::open(&server).await;
        let since = format!(r#"{{"epoch":"{}","seq":{}}}"#, quotes.epoch, quotes.last);
        let ask = format!(r#""type":"subscribe","channel":"md","since":{since}"#);
        let answer = reader.ask("1", &ask).await;
        assert_eq!(answer.number("from"), quotes.last + 1, "{}", answer.text);
        assert_eq!(answer.str("conflate"), "100ms");
    }
    publish(&mut publisher, 1_201..=1_400, pause).await;
    quotes.hear_to(&mut reader, 1_400).await;
    quotes.check_newest(1_400);
    reader.heard_nothing_more().await;
}

pub async fn who_wants_less_gets_less(setup: Setup) {
    let server = Server::start(setup, CONFIG).await;
    let mut publisher = Client::open(&server).await;
    let (mut slow, mut other) = (Client::open(&server).await, Client::open(&server).await);
    let ask = |channel: &str, interval: &str| {
        format!(r#""type":"subscribe","channel":"{channel}","conflate":"{interval}""#)
    };
    let answer = slow.ask("1", &ask("md", "700ms")).await;
    assert_eq!(answer.str("conflate"), "700ms");
    let mut slow_quotes = Quotes::begin(&answer, 0);
    let answer = other.ask("1", &ask("md", "20ms")).await;
    assert_eq!(answer.str("conflate"), "100ms", "the rule allows no more");
    let mut other_quotes = Quotes::begin(&answer, 0);
    let answer = other.ask("2", &ask("plain", "1s")).await;
    assert_eq!(answer.str("code"), "not_conflated");
    let answer = other.ask("3", &ask("md", "2 fortnights")).await;
    assert_eq!(answer.str("code"), "bad_conflate");
    publish(&mut publisher, 1..=600, Duration::from_millis(20)).await;
    slow_quotes.hear_to(&mut slow, 600).await;
    other_quotes.hear_to(&mut other, 600).await;
    for (quotes, interval) in [(&slow_quotes, 700), (&other_quotes, 100)] {
        let most = (quotes.began.elapsed().as_millis() / interval) as u64 + 2;
        assert!(quotes.values.values().all(|(_, count)| *count <= most), "{most}: {quotes:?}");
        quotes.check_newest(600);
    }
}
