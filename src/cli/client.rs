//! A client that reconnects: one thread connects, reads and answers pings; whoever uses it
//! receives [`Event`]s from a channel and sends through [`Client::send`].
//!
//! This page is about coming back; one connection's life is in `link`. What messages mean is for
//! the users, with one exception: a `goaway` says when to reconnect.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::chance::Chance;
use super::link::{self, End};
use super::url::Url;
use crate::proto::ws::Opcode;
use crate::proto::ws::close::write_close_masked;
use crate::proto::ws::frame::write_masked;

/// A connection that lasted this long was a good one: the next attempt starts from the shortest
/// delay again.
const STABLE: Duration = Duration::from_secs(10);

/// The longest a server may send us away for. A drain window is at most an hour.
const GOAWAY_MAX: Duration = Duration::from_secs(3600);

/// The shortest and the longest delay before an attempt, without jitter.
const DELAY_MIN: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(30);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A connection is open: the one that [`Client::send`] calls by this number.
    Open(u64),
    /// A text message came.
    Message(Vec<u8>),
    /// There is no connection, for this reason; the next attempt comes after this delay.
    Lost(String, Duration),
    /// There is no connection, and trying again would not help.
    Refused(String),
}

/// A connection that comes back.
#[derive(Debug)]
pub struct Client {
    events: Receiver<Event>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    link: Mutex<Link>,
    is_closing: AtomicBool,
}

/// What is needed to send: both the reading thread (pongs) and the user do.
#[derive(Debug)]
pub(super) struct Link {
    stream: Option<TcpStream>,
    number: u64,
    out: Vec<u8>,
    pub(super) chance: Chance,
}

impl Shared {
    pub(super) fn link(&self) -> MutexGuard<'_, Link> {
        // A thread that panicked while it held the lock left a broken stream at worst.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Sends through `stream` from now on, which gets the next number.
    pub(super) fn adopt(&mut self, stream: TcpStream) -> u64 {
        self.stream = Some(stream);
        self.number += 1;
        self.number
    }

    /// Sends what `write` puts together. A connection that does not take it is broken; the
    /// reading thread notices.
    pub(super) fn send(&mut self, write: impl FnOnce(&mut Vec<u8>, [u8; 4])) {
        let Some(stream) = &mut self.stream else { return };
        self.out.clear();
        write(&mut self.out, self.chance.bytes());
        if stream.write_all(&self.out).is_err() {
            let _ = stream.shutdown(Shutdown::Both);
            self.stream = None;
        }
    }
}

impl Client {
    /// Connects to `url` in a thread of its own. `events_max` events wait until they are
    /// received; then nothing more is read from the server.
    #[must_use]
    pub fn start(url: Url, events_max: usize) -> Self {
        let (sender, events) = bounded(events_max);
        let link = Link { stream: None, number: 0, chance: Chance::default(), out: Vec::new() };
        let shared =
            Arc::new(Shared { link: Mutex::new(link), is_closing: AtomicBool::new(false) });
        let theirs = shared.clone();
        thread::spawn(move || stay_connected(&url, &theirs, &sender));
        Self { events, shared }
    }

    /// Where events come from.
    #[must_use]
    pub const fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// Sends a text message if connection `number` is still there. When it is not, an event
    /// tells.
    pub fn send(&self, number: u64, text: &[u8]) {
        let mut link = self.shared.link();
        if link.number == number {
            link.send(|out, key| write_masked(out, Opcode::Text, text, key));
        }
    }

    /// Says goodbye and waits up to `patience` until the server has, too.
    pub fn close(self, patience: Duration) {
        self.shared.is_closing.store(true, Ordering::Relaxed);
        let mut link = self.shared.link();
        let is_open = link.stream.is_some();
        link.send(|out, key| write_close_masked(out, 1000, "", key));
        drop(link);
        let deadline = Instant::now() + patience;
        while is_open
            && let Ok(event) = self.events.recv_deadline(deadline)
            && !matches!(event, Event::Lost(..) | Event::Refused(_))
        {}
    }
}

fn stay_connected(url: &Url, shared: &Shared, events: &Sender<Event>) {
    let mut backoff = Backoff::default();
    loop {
        let started = Instant::now();
        let end = link::converse(url, shared, events);
        shared.link().stream = None;
        let (why, asked) = match end {
            End::Unheard => return,
            End::Refused(why) => {
                // When nobody hears it, nobody needs to.
                let _ = events.send(Event::Refused(why));
                return;
            }
            End::Broken(why, asked) => (why, asked),
        };
        if started.elapsed() >= STABLE {
            backoff = Backoff::default();
        }
        let delay = match asked {
            Some(delay) => delay.min(GOAWAY_MAX),
            None => backoff.next(shared.link().chance.share()),
        };
        let is_unheard = events.send(Event::Lost(why, delay)).is_err();
        if is_unheard || shared.is_closing.load(Ordering::Relaxed) {
            return;
        }
        thread::sleep(delay);
    }
}

/// Delays that double, so that a server that is down is not besieged, and are spread, so that
/// clients that lost it together do not come back together.
#[derive(Debug, Default)]
struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next delay; `share` is drawn from 0..1 and spreads it by 20 % both ways.
    fn next(&mut self, share: f64) -> Duration {
        let doubled = DELAY_MIN.saturating_mul(1 << self.attempts.min(16));
        self.attempts += 1;
        doubled.min(DELAY_MAX).mul_f64(0.8 + 0.4 * share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_one_second_to_thirty() {
        let mut backoff = Backoff::default();
        let seconds: Vec<u64> = (0..8).map(|_| backoff.next(0.5).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn delays_are_spread_by_a_fifth_both_ways() {
        assert_eq!(Backoff::default().next(0.0), Duration::from_millis(800));
        assert_eq!(Backoff::default().next(1.0), Duration::from_millis(1200));
    }
}
