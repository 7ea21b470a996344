//! The slots behind [`SocketId`]s: which are in use, by which life, and what is next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::SocketId;

/// What a driver knows of each socket, under ids that are not given out twice (until 2^24
/// lives of one slot have passed).
#[derive(Debug)]
pub(super) struct Sockets<S> {
    slots: Vec<Slot<S>>,
    /// Slots below `slots.len()` that may be given out; the lowest goes first, so that tables
    /// under the same keys stay dense.
    free: BinaryHeap<Reverse<u32>>,
    open: usize,
}

#[derive(Debug)]
struct Slot<S> {
    generation: u32,
    state: Option<S>,
}

impl<S> Sockets<S> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: BinaryHeap::new(), open: 0 }
    }

    /// How many sockets are open.
    pub(super) const fn open(&self) -> usize {
        self.open
    }

    /// Gives the lowest free slot to a new socket. [`free`](Self::free) returns it.
    pub(super) fn insert(&mut self, state: S) -> SocketId {
        let index = match self.free.pop() {
            Some(Reverse(index)) => index,
            None => u32::try_from(self.slots.len()).expect("sockets are counted in 32 bits"),
        };
        self.insert_at(index, state)
    }

    /// Gives slot `index` to a new socket: for when the kernel chose the number. Not to be
    /// mixed with [`insert`](Self::insert).
    ///
    /// # Panics
    /// When the slot is in use: two lives of one slot never overlap.
    pub(super) fn insert_at(&mut self, index: u32, state: S) -> SocketId {
        while self.slots.len() <= index as usize {
            self.slots.push(Slot { generation: 0, state: None });
        }
        let slot = &mut self.slots[index as usize];
        assert!(slot.state.is_none(), "slot {index} is in use");
        slot.state = Some(state);
        self.open += 1;
        SocketId::new(index, slot.generation)
    }

    pub(super) fn get(&mut self, socket: SocketId) -> Option<&mut S> {
        let slot = self.slots.get_mut(socket.index())?;
        if slot.generation == socket.generation() { slot.state.as_mut() } else { None }
    }

    /// Ends the life named `socket`; the name finds nothing from now on.
    pub(super) fn remove(&mut self, socket: SocketId) -> Option<S> {
        let slot = self.slots.get_mut(socket.index())?;
        if slot.generation != socket.generation() {
            return None;
        }
        let state = slot.state.take()?;
        slot.generation = socket.next_life().generation();
        self.open -= 1;
        Some(state)
    }

    /// Lets [`insert`](Self::insert) give the slot out again.
    pub(super) fn free(&mut self, socket: SocketId) {
        self.free.push(Reverse(u32::try_from(socket.index()).expect("keys are 32 bits")));
    }

    /// Takes every socket out, for the end of the driver.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = S> + '_ {
        self.open = 0;
        self.slots.iter_mut().filter_map(|slot| slot.state.take())
    }
}

#[cfg(test)]
mod tests {
    use super::Sockets;

    #[test]
    fn the_lowest_slot_is_reused_under_a_new_name() {
        let mut sockets = Sockets::new();
        let ids: Vec<_> = (0..4).map(|value| sockets.insert(value)).collect();
        for index in [3, 1] {
            assert_eq!(sockets.remove(ids[index]), Some(index));
            sockets.free(ids[index]);
        }
        let again = sockets.insert(9);
        assert_eq!((again.index(), again.generation()), (1, 1));
        assert_eq!(sockets.get(ids[1]), None, "the old name finds nothing");
        assert_eq!(sockets.remove(ids[1]), None);
        assert_eq!(sockets.open(), 3);
    }
}
