use super::*;
use crate::hub::Publisher;
use crate::io::Driver;
use crate::io::epoll::Epoll;
use crate::limits::LETTERS_PER_TICK_MAX;
use crate::mem::Key;

const FULL: u32 = MAILBOX_LETTERS_MAX as u32;

fn request(number: u32) -> Letter {
    Letter::Request(Request::Detach { channel: "a".into(), shard: 0, topic: Key::new(number, 0) })
}

fn delivery(number: u32) -> Letter {
    Letter::Delivery(Delivery::Refused { topic: Key::new(number, 0) })
}

/// What a letter made above says: whether it is a delivery, and its number.
fn said(letter: Letter) -> (bool, u32) {
    match letter {
        Letter::Request(Request::Detach { topic, .. }) => (false, topic.index() as u32),
        Letter::Delivery(Delivery::Refused { topic }) => (true, topic.index() as u32),
        other => panic!("{other:?}"),
    }
}

/// The posts of two shards.
fn pair() -> (Post, Post) {
    let waker = Epoll::new(&crate::io::Settings::default()).expect("a driver").waker();
    let ((address_0, mailbox_0), (address_1, mailbox_1)) =
        (mailbox(MailboxRoom::default()), mailbox(MailboxRoom::default()));
    let all = [(address_0, waker.clone()), (address_1, waker)];
    (Post::new(mailbox_0, all.clone()), Post::new(mailbox_1, all))
}

fn hear_all(post: &mut Post) -> Vec<(bool, u32)> {
    std::iter::from_fn(|| post.next_letter()).map(said).collect()
}

#[test]
fn what_does_not_fit_waits_on_the_shelf_and_keeps_its_order() {
    for letter in [request, delivery] {
        let (mut sender, mut hearer) = pair();
        let count = FULL + 500;
        for number in 0..FULL {
            sender.send(1, letter(number));
        }
        assert!(!sender.is_congested());
        for number in FULL..count {
            sender.send(1, letter(number));
        }
        assert!(sender.is_congested());
        assert!(!sender.others[0].requests.slit.sender.is_full(), "only that shard's mailbox is");
        let mut heard = Vec::new();
        for _ in 0..300 {
            heard.push(said(hearer.next_letter().expect("a full mailbox")).1);
        }
        // There is room now, but not for who comes after those that wait.
        sender.send(1, letter(count));
        heard.extend(hear_all(&mut hearer).into_iter().map(|(_, number)| number));
        assert!(sender.is_congested());
        sender.empty_shelves();
        assert!(!sender.is_congested());
        heard.extend(hear_all(&mut hearer).into_iter().map(|(_, number)| number));
        assert!(heard.into_iter().eq(0..=count));
        assert_eq!(sender.counts().sent, u64::from(count) + 1);
        assert_eq!(sender.counts().shelved, 501);
        assert_eq!(hearer.counts().heard, u64::from(count) + 1);
        assert!(!hearer.has_mail());
    }
}

#[test]
fn deliveries_are_heard_first_and_also_while_requests_have_to_wait() {
    let (mut shard, mut other) = pair();
    other.send(0, request(1));
    other.send(0, delivery(2));
    assert_eq!(hear_all(&mut shard), [(true, 2), (false, 1)]);

    for number in 0..=FULL {
        shard.send(1, delivery(number));
    }
    other.send(0, request(3));
    other.send(0, delivery(4));
    assert_eq!(hear_all(&mut shard), [(true, 4)], "a request would cause more of what waits");
    assert_eq!(shard.letters_waiting(), 1);
    // A shard that took this for mail would never rest, and only burn the core that the other
    // one may need to make room.
    assert!(!shard.has_mail());
    hear_all(&mut other);
    shard.empty_shelves();
    assert_eq!(hear_all(&mut shard), [(false, 3)]);
}

#[test]
fn requests_that_wait_keep_nobody_from_hearing_requests() {
    let (mut shard, mut other) = pair();
    for number in 0..=FULL {
        shard.send(1, request(number));
    }
    assert!(shard.is_congested());
    other.send(0, request(1));
    assert_eq!(hear_all(&mut shard), [(false, 1)]);
}

#[test]
fn two_full_shards_do_not_wait_for_each_other() {
    let (first, second) = pair();
    let mut shards = [first, second];
    let count = 3 * FULL;
    for (shard, other) in [(0_usize, 1), (1, 0)] {
        for number in 0..count {
            shards[shard].send(other, request(number));
            shards[shard].send(other, delivery(number));
        }
    }
    // Each request is answered by a delivery, as at a channel's home.
    let mut heard = [0, 0];
    for _ in 0..1_000 {
        for (shard, other) in [(0_usize, 1), (1, 0)] {
            shards[shard].empty_shelves();
            for _ in 0..LETTERS_PER_TICK_MAX {
                let Some(letter) = shards[shard].next_letter() else { break };
                match said(letter) {
                    (true, _) => heard[shard] += 1,
                    (false, number) => shards[shard].send(other, delivery(number)),
                }
            }
        }
    }
    assert_eq!(heard, [2 * count; 2]);
    assert!(shards.iter().all(|shard| !shard.is_congested() && !shard.has_mail()));
}

#[test]
fn letters_to_a_shard_that_has_ended_are_not_kept() {
    let (mut shard, ended) = pair();
    for number in 0..=FULL {
        shard.send(1, delivery(number));
    }
    assert!(shard.is_congested());
    drop(ended);
    shard.empty_shelves();
    shard.send(1, request(1));
    assert!(!shard.is_congested());
}

#[test]
fn a_socket_that_cannot_be_handed_over_comes_back() {
    let (first, mut second) = pair();
    let socket = || OwnedFd::from(std::fs::File::open("/dev/null").expect("it is always there"));
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    assert!(first.hand_over(1, socket(), peer).is_ok());
    assert!(matches!(second.next_note(), Some(Note::Adopt { .. })));
    for _ in 0..FULL {
        first.others[1].notes.try_send(Note::Drain).expect("there is room");
    }
    assert!(first.hand_over(1, socket(), peer).is_err());
    while second.next_note().is_some() {}
    assert!(first.hand_over(1, socket(), peer).is_ok());
}

/// What could happen: 4096 publishes of the largest size waited in one mailbox, beside the memory
/// budget, while the shard that was to hear them was busy.
#[test]
fn a_mailbox_is_full_when_its_letters_point_to_too_many_bytes() {
    const COUNT: u32 = 64;
    let publish = |bytes: usize| {
        Letter::Request(Request::Publish {
            channel: "a".into(),
            payload: vec![b'1'; bytes].into(),
            key: None,
            publisher: Publisher { shard: 0, client: Key::new(0, 0), id: None },
        })
    };
    let (mut sender, mut hearer) = pair();
    for _ in 0..COUNT {
        sender.send(1, publish(MAILBOX_BYTES_MAX / 16));
    }
    assert_eq!(hearer.letters_waiting(), 15);
    let mut heard = 0;
    while sender.is_congested() {
        heard += std::iter::from_fn(|| hearer.next_letter()).count();
        sender.empty_shelves();
    }
    heard += std::iter::from_fn(|| hearer.next_letter()).count();
    assert_eq!(heard, COUNT as usize);
    // One that is too large for any mailbox travels alone.
    sender.send(1, publish(2 * MAILBOX_BYTES_MAX));
    assert!(!sender.is_congested());
    sender.send(1, publish(1));
    assert!(sender.is_congested());
    assert!(hearer.next_letter().is_some());
    sender.empty_shelves();
    assert!(!sender.is_congested() && hearer.next_letter().is_some());
}
