//! What a client is subscribed to.

use std::ops::{Deref, DerefMut};

use crate::hub::TopicId;

/// A client's place in a topic, and what holds it there: one or both.
#[derive(Debug, Clone, Copy)]
pub(in crate::hub) struct Subscription {
    pub(in crate::hub) topic: TopicId,
    /// In `Audience::subscribers`.
    pub(in crate::hub) position: u32,
    /// The client has asked for the channel.
    pub(in crate::hub) is_direct: bool,
    /// A pattern of the client matches.
    pub(in crate::hub) by_pattern: bool,
}

impl Subscription {
    /// Not on the list of subscribers yet, but among `Audience::newcomers`.
    pub(in crate::hub) const NEWCOMER: u32 = u32::MAX;
    /// Neither: it catches up, and is listed in `Client::recoveries`.
    pub(in crate::hub) const RECOVERING: u32 = u32::MAX - 1;
}

/// The subscriptions of a client, in no order. Most clients have one, which needs no allocation.
#[derive(Debug, Default)]
pub(in crate::hub) enum Subscriptions {
    #[default]
    None,
    One(Subscription),
    /// Two or more.
    #[expect(clippy::box_collection, reason = "a vector here would be room in every client")]
    Several(Box<Vec<Subscription>>),
}

/// Every client has this.
const _: () = assert!(size_of::<Subscriptions>() == size_of::<Subscription>());

impl Subscriptions {
    pub(in crate::hub) fn push(&mut self, subscription: Subscription) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(subscription),
            Self::One(first) => Self::Several(Box::new(vec![first, subscription])),
            Self::Several(mut list) => {
                list.push(subscription);
                Self::Several(list)
            }
        };
    }

    /// Takes out what is at `index`; the last one takes its place.
    pub(in crate::hub) fn swap_remove(&mut self, index: usize) -> Subscription {
        let removed = self[index];
        *self = match std::mem::take(self) {
            Self::None | Self::One(_) => Self::None,
            Self::Several(mut list) => {
                list.swap_remove(index);
                match list[..] {
                    [last] => Self::One(last),
                    _ => Self::Several(list),
                }
            }
        };
        removed
    }
}

impl Deref for Subscriptions {
    type Target = [Subscription];

    fn deref(&self) -> &[Subscription] {
        match self {
            Self::None => &[],
            Self::One(subscription) => std::slice::from_ref(subscription),
            Self::Several(list) => list,
        }
    }
}

impl DerefMut for Subscriptions {
    fn deref_mut(&mut self) -> &mut [Subscription] {
        match self {
            Self::None => &mut [],
            Self::One(subscription) => std::slice::from_mut(subscription),
            Self::Several(list) => list,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Subscription, Subscriptions};
    use crate::mem::Key;

    fn subscription(position: u32) -> Subscription {
        let topic = Key::new(position, 1);
        Subscription { topic, position, is_direct: true, by_pattern: false }
    }

    #[test]
    fn what_is_pushed_and_removed_in_any_order_is_what_a_vector_would_hold() {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut held, mut expected) = (Subscriptions::default(), Vec::new());
        let mut shrunk = 0;
        for position in 0..2000 {
            if expected.is_empty() || random.u8(..) < 125 {
                held.push(subscription(position));
                expected.push(position);
            } else {
                let index = random.usize(..expected.len());
                assert_eq!(held.swap_remove(index).position, expected.swap_remove(index));
                shrunk += u32::from(expected.len() == 1);
            }
            let positions: Vec<u32> = held.iter().map(|held| held.position).collect();
            assert_eq!(positions, expected);
            let is_boxed = matches!(held, Subscriptions::Several(_));
            assert_eq!(is_boxed, expected.len() > 1, "one subscription owns no memory");
        }
        assert!(shrunk > 10, "it shrank to one only {shrunk} times");
    }
}
