//! Time as a value. Nothing here asks the operating system what time it is: whoever owns a
//! clock passes [`Time`] down as an argument, so that any day can be replayed.

mod duration;
mod span;
mod wheel;

use std::ops::{Add, Sub};
use std::time::Duration;

pub use duration::parse_duration;
pub use span::Span;
pub use wheel::Wheel;

/// A moment, in milliseconds since the shards of this process began: the same for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(u64);

impl Time {
    /// The moment the shards began.
    pub const START: Self = Self(0);

    /// The moment `elapsed` after the shards began.
    #[must_use]
    pub const fn from_start(elapsed: Duration) -> Self {
        Self(elapsed.as_millis() as u64)
    }

    /// Milliseconds since the shards began.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(millis))
    }
}

/// Tells the time: the operating system's in production, a simulated one elsewhere.
pub trait Clock {
    /// The time now. Never earlier than what was told before.
    fn now(&mut self) -> Time;
}
