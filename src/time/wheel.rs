//! One timer for each key, cheap to hold and cheap to be wrong about.

use super::Time;
use crate::limits::WHEEL_STEP;
use crate::mem::Key;

/// Slots of the wheel: with steps of 16 ms a horizon of 32 s, beyond the default ping interval.
const SLOTS: usize = 2048;
const STEP_MS: u64 = WHEEL_STEP.as_millis() as u64;
/// "No neighbour" in a list of nodes.
const NONE: u32 = u32::MAX;

/// A timer wheel that holds at most one timer for each key.
///
/// A timer may fire *early*, never late by more than a step: a deadline beyond the horizon is
/// parked at the horizon. The owner looks at its real deadline when a timer fires and sets it
/// again when it is not due. That is what keeps receiving cheap: a deadline that moves with every
/// received byte costs nothing until its timer fires.
///
/// The timers of one slot are a linked list through a table of 16-byte nodes.
#[derive(Debug)]
pub struct Wheel {
    /// First node of each slot's list.
    slots: Box<[u32; SLOTS]>,
    /// One bit a slot: whether its list has a node.
    occupied: [u64; SLOTS / 64],
    /// By key index.
    nodes: Vec<Node>,
    /// The step up to and including which everything has fired.
    step: u64,
    count: usize,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    next: u32,
    previous: u32,
    generation: u32,
    /// The slot that holds this node, or `NONE`.
    slot: u32,
}

impl Wheel {
    /// A wheel without timers, at the start of time.
    #[must_use]
    pub fn new() -> Self {
        Self {
            slots: Box::new([NONE; SLOTS]),
            occupied: [0; SLOTS / 64],
            nodes: Vec::new(),
            step: 0,
            count: 0,
        }
    }

    /// How many timers are set.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether no timer is set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Sets the timer of `key` to `at`, whatever it was before.
    pub fn set(&mut self, key: Key, at: Time) {
        self.cancel(key);
        let index = key.index();
        if self.nodes.len() <= index {
            let unset = Node { next: NONE, previous: NONE, generation: 0, slot: NONE };
            self.nodes.resize(index + 1, unset);
        }
        // Rounded up, so that a timer that fires has been reached, and at least one step ahead,
        // because the present step has fired already.
        let due = at.as_millis().div_ceil(STEP_MS);
        let due = due.clamp(self.step + 1, self.step + SLOTS as u64 - 1);
        let slot = (due % SLOTS as u64) as usize;
        let next = self.slots[slot];
        self.nodes[index] =
            Node { next, previous: NONE, generation: key.generation(), slot: slot as u32 };
        if next != NONE {
            self.nodes[next as usize].previous = index as u32;
        }
        self.slots[slot] = index as u32;
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.count += 1;
    }

    /// Forgets the timer of `key`'s slot, if there is one.
    pub fn cancel(&mut self, key: Key) {
        let Some(node) = self.nodes.get_mut(key.index()) else { return };
        if node.slot == NONE {
            return;
        }
        let Node { next, previous, slot, .. } = *node;
        node.slot = NONE;
        match previous {
            NONE => self.slots[slot as usize] = next,
            previous => self.nodes[previous as usize].next = next,
        }
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        if self.slots[slot as usize] == NONE {
            self.occupied[slot as usize / 64] &= !(1 << (slot % 64));
        }
        self.count -= 1;
    }

    /// Moves on to `now`, appends the keys whose timers fire on the way to `due`, and forgets
    /// those timers.
    pub fn expire(&mut self, now: Time, due: &mut Vec<Key>) {
        let reached = now.as_millis() / STEP_MS;
        if self.count == 0 {
            self.step = self.step.max(reached);
            return;
        }
        // After a long stall each slot still needs only one visit.
        let first = (self.step + 1).max(reached.saturating_sub(SLOTS as u64 - 1));
        for step in first..=reached {
            self.fire((step % SLOTS as u64) as usize, due);
        }
        self.step = self.step.max(reached);
    }

    fn fire(&mut self, slot: usize, due: &mut Vec<Key>) {
        let mut index = std::mem::replace(&mut self.slots[slot], NONE);
        self.occupied[slot / 64] &= !(1 << (slot % 64));
        while index != NONE {
            let node = &mut self.nodes[index as usize];
            node.slot = NONE;
            due.push(Key::new(index, node.generation));
            index = node.next;
            self.count -= 1;
        }
    }

    /// When the next timer fires.
    #[must_use]
    pub fn next(&self) -> Option<Time> {
        if self.count == 0 {
            return None;
        }
        let mut step = self.step + 1;
        let end = self.step + SLOTS as u64;
        while step < end {
            let slot = (step % SLOTS as u64) as usize;
            let word = self.occupied[slot / 64] >> (slot % 64);
            if word != 0 {
                let step = step + u64::from(word.trailing_zeros());
                return Some(Time(step * STEP_MS));
            }
            step += 64 - (slot % 64) as u64;
        }
        unreachable!("{} timers are set, yet no slot is occupied", self.count)
    }
}

impl Default for Wheel {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::{Key, STEP_MS, Time, Wheel};

    fn at(ms: u64) -> Time {
        Time::START + Duration::from_millis(ms)
    }

    #[test]
    fn a_timer_fires_at_its_step_and_not_before() {
        let mut wheel = Wheel::new();
        let mut due = Vec::new();
        wheel.set(Key::new(7, 1), at(100));
        assert_eq!(wheel.next(), Some(at(112)));
        wheel.expire(at(111), &mut due);
        assert!(due.is_empty());
        wheel.expire(at(112), &mut due);
        assert_eq!(due, [Key::new(7, 1)]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_timer_set_again_or_cancelled_does_not_fire_at_its_old_time() {
        let mut wheel = Wheel::new();
        let mut due = Vec::new();
        wheel.set(Key::new(1, 1), at(50));
        wheel.set(Key::new(2, 1), at(50));
        wheel.set(Key::new(1, 1), at(500));
        wheel.cancel(Key::new(2, 1));
        wheel.expire(at(400), &mut due);
        assert!(due.is_empty());
        wheel.expire(at(600), &mut due);
        assert_eq!(due, [Key::new(1, 1)]);
    }

    #[test]
    fn a_deadline_beyond_the_horizon_fires_early_and_a_stall_fires_everything_once() {
        let mut wheel = Wheel::new();
        let mut due = Vec::new();
        for index in 0..10 {
            wheel.set(Key::new(index, 1), at(u64::from(index) * 10_000));
        }
        wheel.expire(at(10_000_000), &mut due);
        due.sort();
        assert_eq!(due.len(), 10);
        assert!(wheel.is_empty());
    }

    /// The definition: a map from key to deadline.
    #[test]
    fn the_wheel_agrees_with_a_sorted_map_over_seeded_schedules() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut wheel = Wheel::new();
            let mut naive: BTreeMap<Key, u64> = BTreeMap::new();
            let mut now = 0;
            for _ in 0..2_000 {
                let key = Key::new(random.u32(0..64), 1);
                match random.u8(0..4) {
                    0 | 1 => {
                        let deadline = now + random.u64(0..30_000);
                        wheel.set(key, at(deadline));
                        // No timer fires in the step in which it is set.
                        let step = deadline.div_ceil(STEP_MS).max(now / STEP_MS + 1);
                        naive.insert(key, step * STEP_MS);
                    }
                    2 => {
                        wheel.cancel(key);
                        naive.remove(&key);
                    }
                    _ => {
                        now += random.u64(0..1_000);
                        let mut due = Vec::new();
                        wheel.expire(at(now), &mut due);
                        due.sort();
                        let expected: Vec<Key> =
                            naive.iter().filter(|(_, at)| **at <= now).map(|(k, _)| *k).collect();
                        naive.retain(|_, at| *at > now);
                        assert_eq!(due, expected, "seed {seed}");
                    }
                }
                assert_eq!(wheel.next(), naive.values().min().map(|ms| at(*ms)), "seed {seed}");
                assert_eq!(wheel.len(), naive.len());
            }
        }
    }
}
