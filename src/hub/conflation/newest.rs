//! The newest message of each key, until it is its turn.

use std::collections::HashMap;

use foldhash::quality::SeedableRandomState;

use crate::hub::segment::Meter;
use crate::limits::CONFLATION_PLACE_BYTES;
use crate::time::Time;

/// The newest message of each key that was published since the last flush.
///
/// Bytes are copied: a reference would keep alive the whole segment a message came in, and with it
/// all that is superseded. Between flushes the place of a key stays, with the room its values take,
/// so that keys which go on coming cost no allocation; one that has not come in an interval is
/// forgotten.
#[derive(Debug)]
pub(super) struct Newest {
    values: HashMap<Box<[u8]>, Value<Vec<u8>>, SeedableRandomState>,
    /// How many of them wait.
    waiting: usize,
    /// What `values` takes, counted in `meter`.
    bytes: usize,
    meter: Meter,
}

/// A message, without its channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<P> {
    /// Its number; 0 when it has been flushed.
    pub(super) seq: u64,
    pub(super) published: Time,
    pub(super) payload: P,
}

impl Newest {
    pub(super) fn new(hasher: SeedableRandomState, meter: Meter) -> Self {
        Self { values: HashMap::with_hasher(hasher), waiting: 0, bytes: 0, meter }
    }

    /// This one is the newest of its key from now on.
    pub(super) fn put(&mut self, key: &[u8], newest: Value<&[u8]>) {
        let Value { seq, published, payload } = newest;
        let Some(value) = self.values.get_mut(key) else {
            let value = Value { seq, published, payload: payload.to_vec() };
            self.count(place_bytes(key, &value));
            self.waiting += 1;
            self.values.insert(key.into(), value);
            return;
        };
        self.waiting += usize::from(value.seq == 0);
        (value.seq, value.published) = (seq, published);
        let before = value.payload.capacity();
        value.payload.clear();
        value.payload.extend_from_slice(payload);
        let grown = value.payload.capacity() - before;
        self.count(grown);
    }

    /// Hands out what waits, in the order of the numbers.
    pub(super) fn take(&mut self, mut give: impl FnMut(Value<&[u8]>)) {
        let mut waiting = Vec::with_capacity(self.waiting);
        let values = self.values.values().filter(|value| value.seq > 0);
        waiting.extend(values.map(|Value { seq, published, payload }| Value {
            seq: *seq,
            published: *published,
            payload: payload.as_slice(),
        }));
        waiting.sort_unstable_by_key(|value| value.seq);
        waiting.into_iter().for_each(&mut give);
        let mut freed = 0;
        self.values.retain(|key, value| {
            let has_come = std::mem::take(&mut value.seq) > 0;
            freed += if has_come { 0 } else { place_bytes(key, value) };
            has_come
        });
        self.waiting = 0;
        self.bytes -= freed;
        self.meter.sub(freed);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.waiting = 0;
        self.meter.sub(std::mem::take(&mut self.bytes));
    }

    pub(super) const fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// How many messages wait.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many keys have a place.
    pub(super) fn keys(&self) -> usize {
        self.values.len()
    }

    /// Bytes that all groups of the shard take.
    pub(super) fn bytes_of_all(&self) -> usize {
        self.meter.bytes()
    }

    /// Bytes taken here, checked against what is there.
    pub(super) fn bytes(&self) -> usize {
        let there: usize = self.values.iter().map(|(key, value)| place_bytes(key, value)).sum();
        assert_eq!(there, self.bytes, "what waits is counted");
        there
    }

    fn count(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.meter.add(bytes);
    }
}

impl Drop for Newest {
    fn drop(&mut self) {
        self.clear();
    }
}

fn place_bytes(key: &[u8], value: &Value<Vec<u8>>) -> usize {
    key.len() + value.payload.capacity() + CONFLATION_PLACE_BYTES
}

#[cfg(test)]
mod tests {
    use foldhash::SharedSeed;

    use super::*;

    fn newest() -> Newest {
        let hasher = SeedableRandomState::with_seed(1, SharedSeed::global_fixed());
        Newest::new(hasher, Meter::default())
    }

    fn put(newest: &mut Newest, key: &str, seq: u64, payload: &str) {
        let value = Value { seq, published: Time::START, payload: payload.as_bytes() };
        newest.put(key.as_bytes(), value);
        newest.bytes();
    }

    fn taken(newest: &mut Newest) -> Vec<(u64, String)> {
        let mut taken = Vec::new();
        newest.take(|Value { seq, payload, .. }| {
            taken.push((seq, String::from_utf8(payload.into()).expect("text")));
        });
        taken
    }

    #[test]
    fn the_newest_of_each_key_is_kept_and_handed_out_in_order() {
        let mut newest = newest();
        for (key, seq) in [("a", 1), ("b", 2), ("a", 3), ("", 4), ("c", 5), ("b", 6)] {
            put(&mut newest, key, seq, &format!("{key}{seq}"));
        }
        assert_eq!(newest.waiting(), 4);
        let expected = [(3, "a3"), (4, "4"), (5, "c5"), (6, "b6")];
        assert_eq!(taken(&mut newest), expected.map(|(seq, text)| (seq, text.to_owned())));
        assert!(!newest.is_waiting());
        assert_eq!(taken(&mut newest), []);
    }

    #[test]
    fn a_key_that_does_not_come_in_an_interval_is_forgotten_and_all_bytes_come_back() {
        let mut newest = newest();
        put(&mut newest, "a", 1, "long enough to be seen");
        put(&mut newest, "b", 2, "x");
        taken(&mut newest);
        put(&mut newest, "b", 3, "y");
        assert_eq!((newest.keys(), newest.waiting()), (2, 1));
        taken(&mut newest);
        assert_eq!(newest.keys(), 1);
        let bytes = newest.bytes();
        assert_eq!(newest.bytes_of_all(), bytes);
        taken(&mut newest);
        assert_eq!((newest.keys(), newest.bytes(), newest.bytes_of_all()), (0, 0, 0));
    }
}
