//! A table of values under keys that somebody else gives out.

use super::Key;

/// Entries per page: growing moves no entry and wastes at most one page.
const PAGE_ENTRIES: usize = 128;

/// Values under [`Key`]s that another table gave out (the driver names a socket; the
/// connection and the client it belongs to live under the same key in tables of their own).
///
/// Entries live in pages which never move, so growing copies nothing and the memory held is
/// within one page of what is used. A key of an earlier life finds nothing.
#[derive(Debug)]
pub struct Table<T> {
    pages: Vec<Box<[Slot<T>; PAGE_ENTRIES]>>,
    count: usize,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Table<T> {
    /// An empty table; it owns no page yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { pages: Vec::new(), count: 0 }
    }

    /// How many values are held.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing is held.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Puts `value` under `key`.
    ///
    /// # Panics
    /// When the slot is taken: two lives of one slot never overlap.
    pub fn insert(&mut self, key: Key, value: T) -> &mut T {
        let page = key.index() / PAGE_ENTRIES;
        while self.pages.len() <= page {
            self.pages.push(empty_page());
        }
        let slot = &mut self.pages[page][key.index() % PAGE_ENTRIES];
        assert!(slot.value.is_none(), "slot {key:?} is taken");
        slot.generation = key.generation();
        self.count += 1;
        slot.value.insert(value)
    }

    /// Takes out what lives under `key`.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slot_mut(key)?;
        let value = slot.value.take();
        self.count -= usize::from(value.is_some());
        value
    }

    /// What lives under `key`.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&T> {
        let slot = self.pages.get(key.index() / PAGE_ENTRIES)?;
        let slot = &slot[key.index() % PAGE_ENTRIES];
        if slot.generation == key.generation() { slot.value.as_ref() } else { None }
    }

    /// What lives under `key`, to change it.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slot_mut(key)?.value.as_mut()
    }

    /// Every key that holds a value, and the value.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.pages.iter().enumerate().flat_map(|(page, slots)| {
            slots.iter().enumerate().filter_map(move |(index, slot)| {
                let index = u32::try_from(page * PAGE_ENTRIES + index).expect("keys are 32 bits");
                slot.value.as_ref().map(|value| (Key::new(index, slot.generation), value))
            })
        })
    }

    /// How many places there are, with a value or without.
    #[must_use]
    pub const fn places(&self) -> usize {
        self.pages.len() * PAGE_ENTRIES
    }

    /// What is at `place`, and its key.
    #[must_use]
    pub fn at(&self, place: usize) -> Option<(Key, &T)> {
        let slot = &self.pages.get(place / PAGE_ENTRIES)?[place % PAGE_ENTRIES];
        let index = u32::try_from(place).expect("keys are 32 bits");
        slot.value.as_ref().map(|value| (Key::new(index, slot.generation), value))
    }

    fn slot_mut(&mut self, key: Key) -> Option<&mut Slot<T>> {
        let page = self.pages.get_mut(key.index() / PAGE_ENTRIES)?;
        let slot = &mut page[key.index() % PAGE_ENTRIES];
        (slot.generation == key.generation()).then_some(slot)
    }
}

fn empty_page<T>() -> Box<[Slot<T>; PAGE_ENTRIES]> {
    let slots: Box<[Slot<T>]> =
        (0..PAGE_ENTRIES).map(|_| Slot { generation: 0, value: None }).collect();
    slots.try_into().unwrap_or_else(|_| unreachable!("the iterator has a page's length"))
}

#[cfg(test)]
mod tests {
    use super::{Key, Table};

    #[test]
    fn a_key_of_an_earlier_life_finds_nothing() {
        let mut table = Table::new();
        let first = Key::new(300, 7);
        table.insert(first, "first");
        assert_eq!(table.remove(first), Some("first"));
        table.insert(first.next_life(), "second");
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(first.next_life()), Some(&"second"));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn iteration_visits_each_value_once_in_the_order_of_slots() {
        let mut table = Table::new();
        for index in [500, 3, 129] {
            table.insert(Key::new(index, 1), index);
        }
        let seen: Vec<u32> = table.iter().map(|(_, value)| *value).collect();
        assert_eq!(seen, [3, 129, 500]);
        let places = (0..table.places()).filter_map(|place| table.at(place));
        assert!(places.eq(table.iter()), "place by place it is the same");
        assert_eq!(table.at(table.places()), None);
    }

    #[test]
    #[should_panic(expected = "is taken")]
    fn two_lives_of_one_slot_never_overlap() {
        let mut table = Table::new();
        table.insert(Key::new(1, 1), ());
        table.insert(Key::new(1, 2), ());
    }
}
