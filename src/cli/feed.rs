//! The synthetic market of `ringcast demo`: a client like any other, publishing ticks.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::client::{Client, Event};
use super::url::Url;

/// What is traded, and what it starts at.
const SYMBOLS: [(&str, f64); 12] = [
    ("AAPL", 227.5),
    ("MSFT", 428.1),
    ("NVDA", 131.2),
    ("AMZN", 201.7),
    ("GOOG", 176.4),
    ("META", 583.9),
    ("TSLA", 321.2),
    ("AMD", 142.6),
    ("INTC", 24.8),
    ("NFLX", 812.3),
    ("ORCL", 184.0),
    ("IBM", 212.9),
];

/// Time between two ticks of the whole market: 40 a second, spread over the symbols by chance.
const TICK_INTERVAL: Duration = Duration::from_millis(25);

/// Largest move of a price in one tick, as a share of it.
const MOVE_MAX: f64 = 0.0012;

/// Events that wait while the feed sleeps.
const EVENTS_MAX: usize = 64;

/// Publishes ticks to the server at `server` for as long as the process lives.
pub(super) fn start(server: SocketAddr) {
    let url = Url::parse(&format!("ws://{server}/ws")).expect("an address makes a URL");
    thread::Builder::new()
        .name("feed".into())
        .spawn(move || run(&Client::start(url, EVENTS_MAX)))
        .expect("a demonstration may start one more thread");
}

fn run(client: &Client) {
    let mut market = Market::new(fastrand::Rng::new());
    let mut connection = None;
    loop {
        for event in client.events().try_iter() {
            connection = match event {
                Event::Open(number) => Some(number),
                Event::Message(_) => connection,
                Event::Lost(..) | Event::Refused(_) => None,
            };
        }
        if let Some(number) = connection {
            let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            client.send(number, market.tick(time).as_bytes());
        }
        thread::sleep(TICK_INTERVAL);
    }
}

/// Prices that wander.
struct Market {
    random: fastrand::Rng,
    prices: [f64; SYMBOLS.len()],
    volumes: [u64; SYMBOLS.len()],
}

impl Market {
    fn new(random: fastrand::Rng) -> Self {
        Self { random, prices: SYMBOLS.map(|(_, price)| price), volumes: [0; SYMBOLS.len()] }
    }

    /// The next tick, as a publish request.
    fn tick(&mut self, time: Duration) -> String {
        let index = self.random.usize(..SYMBOLS.len());
        let (symbol, start) = SYMBOLS[index];
        // A pull towards the start keeps a page that is left open for days in sight.
        let pull = (start / self.prices[index] - 1.0) * 0.002;
        let change = (self.random.f64() * 2.0 - 1.0) * MOVE_MAX + pull;
        self.prices[index] *= 1.0 + change;
        self.volumes[index] += self.random.u64(1..=40) * 100;
        let price = self.prices[index];
        format!(
            r#"{{"type":"publish","channel":"md.{symbol}","payload":{{"symbol":"{symbol}","price":{price:.2},"change":{:.2},"volume":{},"t":{}}}}}"#,
            price - start,
            self.volumes[index],
            time.as_millis(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Market, SYMBOLS};
    use crate::proto::envelope::{Parser, Request};

    #[test]
    fn every_tick_is_a_publish_of_a_known_symbol_and_prices_stay_in_sight() {
        let mut market = Market::new(fastrand::Rng::with_seed(7));
        let mut parser = Parser::new();
        for _ in 0..20_000 {
            let tick = market.tick(Duration::from_secs(1));
            let message = parser.parse(tick.as_bytes()).expect("valid JSON");
            let Ok(Request::Publish { channel, .. }) = message.request else { panic!("{tick}") };
            assert!(SYMBOLS.iter().any(|(symbol, _)| channel == format!("md.{symbol}")));
        }
        for (price, (symbol, start)) in market.prices.iter().zip(SYMBOLS) {
            assert!((start * 0.5..start * 2.0).contains(price), "{symbol} at {price}");
        }
    }
}
