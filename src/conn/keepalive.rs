//! When something is due on a connection. Any received byte is life.

use std::time::Duration;

use super::Settings;
use crate::time::Time;

/// The clockwork of one connection.
#[derive(Debug)]
pub(super) struct Keepalive {
    /// When the last byte came.
    heard: Time,
    /// When the last message came, or the connection opened.
    message: Time,
    /// When we pinged, if nothing was heard since.
    pinged: Option<Time>,
    /// Where in its tenth more or less this client's ping interval lies.
    jitter: u8,
}

/// What a time limit asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet; look again at this time.
    Later(Time),
    /// The client has been silent: ping it.
    Ping,
    /// It has been silent after the ping, too.
    PongTimeout,
    /// It sent no message for too long.
    IdleTimeout,
}

impl Keepalive {
    pub(super) fn accepted(now: Time, random: &mut fastrand::Rng) -> Self {
        Self { heard: now, message: now, pinged: None, jitter: random.u8(..) }
    }

    /// Bytes came.
    pub(super) fn heard(&mut self, now: Time) {
        self.heard = now;
        self.pinged = None;
    }

    /// A message came, or the connection opened.
    pub(super) fn message(&mut self, now: Time) {
        self.message = now;
    }

    /// What it may have said was not read: its silence until now says nothing.
    pub(super) fn excuse(&mut self, now: Time) {
        self.heard(now);
        self.message(now);
    }

    /// When the last byte came.
    pub(super) const fn last_heard(&self) -> Time {
        self.heard
    }

    /// When the connection was accepted, as long as no message came.
    pub(super) const fn opened(&self) -> Time {
        self.message
    }

    /// We pinged.
    pub(super) fn pinged(&mut self, now: Time) {
        self.pinged = Some(now);
    }

    /// What is due on an open connection.
    pub(super) fn due(&self, now: Time, settings: &Settings) -> Due {
        let idle = settings.idle_timeout.map(|timeout| self.message + timeout);
        if idle.is_some_and(|idle| idle <= now) {
            return Due::IdleTimeout;
        }
        let (at, due) = match self.pinged {
            Some(pinged) => (pinged + settings.pong_timeout, Due::PongTimeout),
            None => (self.heard + self.interval(settings), Due::Ping),
        };
        if at <= now { due } else { Due::Later(idle.map_or(at, |idle| idle.min(at))) }
    }

    /// Pings of clients that came in one burst must not go out in one burst for ever after.
    pub(super) fn interval(&self, settings: &Settings) -> Duration {
        let tenth = settings.ping_interval / 10;
        settings.ping_interval - tenth + tenth * 2 * u32::from(self.jitter) / u32::from(u8::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::tests::settings;

    fn at(ms: u64) -> Time {
        Time::START + Duration::from_millis(ms)
    }

    #[test]
    fn silence_is_pinged_within_a_tenth_of_the_interval_and_differently_for_each_client() {
        let settings = settings();
        let mut random = fastrand::Rng::with_seed(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            let keepalive = Keepalive::accepted(at(0), &mut random);
            let Due::Later(time) = keepalive.due(at(0), &settings) else { panic!("too early") };
            assert!((22_500..=27_500).contains(&time.as_millis()), "{time:?}");
            assert_eq!(keepalive.due(time, &settings), Due::Ping);
            seen.insert(time);
        }
        assert!(seen.len() > 200, "only {} different intervals", seen.len());
    }

    #[test]
    fn any_byte_after_a_ping_is_life_and_silence_is_not() {
        let settings = settings();
        let mut keepalive = Keepalive::accepted(at(0), &mut fastrand::Rng::with_seed(1));
        keepalive.pinged(at(25_000));
        assert_eq!(keepalive.due(at(34_999), &settings), Due::Later(at(35_000)));
        assert_eq!(keepalive.due(at(35_000), &settings), Due::PongTimeout);
        keepalive.heard(at(34_999));
        assert!(matches!(keepalive.due(at(35_000), &settings), Due::Later(_)));
    }

    #[test]
    fn pongs_do_not_count_against_the_idle_timeout() {
        let settings = Settings { idle_timeout: Some(Duration::from_secs(60)), ..settings() };
        let mut keepalive = Keepalive::accepted(at(0), &mut fastrand::Rng::with_seed(1));
        keepalive.heard(at(59_999));
        assert_eq!(keepalive.due(at(60_000), &settings), Due::IdleTimeout);
        keepalive.message(at(60_000));
        assert!(matches!(keepalive.due(at(60_000), &settings), Due::Later(_)));
    }
}
