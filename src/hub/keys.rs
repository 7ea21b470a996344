//! Keys of publishes: whoever repeats one is told the first number, and nothing is published.
//!
//! A publisher whose connection broke before the ack came cannot know whether its message was
//! taken. With a key it may say it again.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use foldhash::quality::SeedableRandomState;

use super::KeyWindow;
use super::segment::Meter;
use crate::limits::KEY_PLACE_BYTES;
use crate::time::Time;

/// The keys that a channel's home remembers.
///
/// `order` has each key of `numbers` once, the oldest first, and `meter` counts them.
#[derive(Debug)]
pub(super) struct Keys {
    numbers: HashMap<Rc<[u8]>, u64, SeedableRandomState>,
    order: VecDeque<(Time, Rc<[u8]>)>,
    meter: Meter,
}

impl Keys {
    /// None yet; all that come are counted in `meter`.
    pub(super) fn new(hasher: SeedableRandomState, meter: Meter) -> Self {
        Self { numbers: HashMap::with_hasher(hasher), order: VecDeque::new(), meter }
    }

    /// The number of the message that was published with `key`.
    pub(super) fn find(&mut self, key: &[u8], window: KeyWindow, now: Time) -> Option<u64> {
        self.trim(window, now);
        self.numbers.get(key).copied()
    }

    /// Remembers that `key` is of message `seq`; with all keys of the shard in at most `bytes_max`
    /// bytes, for which the oldest of this channel give way.
    pub(super) fn remember(
        &mut self,
        key: &[u8],
        seq: u64,
        window: KeyWindow,
        bytes_max: usize,
        now: Time,
    ) {
        let bytes = place_bytes(key);
        while (self.order.len() >= window.keys as usize || self.meter.bytes() + bytes > bytes_max)
            && self.forget_oldest()
        {}
        if window.keys == 0 || self.meter.bytes() + bytes > bytes_max {
            return;
        }
        let key: Rc<[u8]> = key.into();
        self.numbers.insert(Rc::clone(&key), seq);
        self.order.push_back((now, key));
        self.meter.add(bytes);
    }

    /// Forgets those whose time is over.
    pub(super) fn trim(&mut self, window: KeyWindow, now: Time) {
        while self.order.front().is_some_and(|(since, _)| *since + window.age <= now) {
            self.forget_oldest();
        }
    }

    /// Bytes of what is remembered.
    pub(super) fn bytes(&self) -> usize {
        self.order.iter().map(|(_, key)| place_bytes(key)).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// False when there was none.
    fn forget_oldest(&mut self) -> bool {
        let Some((_, key)) = self.order.pop_front() else { return false };
        self.meter.sub(place_bytes(&key));
        self.numbers.remove(&key);
        true
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.meter.sub(self.bytes());
    }
}

fn place_bytes(key: &[u8]) -> usize {
    key.len() + KEY_PLACE_BYTES
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use foldhash::SharedSeed;

    use super::*;

    const WINDOW: KeyWindow = KeyWindow { age: Duration::from_secs(10), keys: 3 };

    fn keys() -> Keys {
        let hasher = SeedableRandomState::with_seed(1, SharedSeed::global_fixed());
        Keys::new(hasher, Meter::default())
    }

    fn at(seconds: u64) -> Time {
        Time::START + Duration::from_secs(seconds)
    }

    #[test]
    fn a_key_is_known_until_its_time_is_over() {
        let mut keys = keys();
        keys.remember(b"a", 7, WINDOW, 1 << 20, at(0));
        assert_eq!(keys.find(b"a", WINDOW, at(9)), Some(7));
        assert_eq!(keys.find(b"b", WINDOW, at(9)), None);
        assert_eq!(keys.find(b"a", WINDOW, at(10)), None);
        assert!(keys.is_empty() && keys.meter.bytes() == 0);
    }

    #[test]
    fn the_oldest_keys_give_way_to_a_channels_own_and_to_the_shards_bound() {
        let mut keys = keys();
        for (seq, key) in [b"a", b"b", b"c", b"d"].into_iter().enumerate() {
            keys.remember(key, seq as u64, WINDOW, 1 << 20, at(0));
        }
        assert_eq!(keys.find(b"a", WINDOW, at(1)), None);
        assert_eq!(keys.find(b"d", WINDOW, at(1)), Some(3));
        let two = 2 * place_bytes(b"e");
        keys.remember(b"e", 4, WINDOW, two, at(1));
        assert_eq!((keys.numbers.len(), keys.meter.bytes()), (2, two));
        keys.remember(b"too long for this bound", 5, WINDOW, 10, at(1));
        assert!(keys.is_empty(), "what does not fit alone makes room and is not kept");
    }

    #[test]
    fn what_is_forgotten_with_its_channel_is_counted_no_more() {
        let meter = Meter::default();
        let hasher = SeedableRandomState::with_seed(1, SharedSeed::global_fixed());
        let mut keys = Keys::new(hasher, meter.clone());
        keys.remember(b"a", 1, WINDOW, 1 << 20, at(0));
        assert_eq!(meter.bytes(), keys.bytes());
        drop(keys);
        assert_eq!(meter.bytes(), 0);
    }
}
