//! Sends: whole, partial, full, gathered, many at once.

use std::io::{IoSlice, Read, Write};
use std::thread;
use std::time::Duration;

use ringcast::io::{Driver, ListenerSettings, SLICES_PER_SEND_MAX, Send, Sent, Settings, SocketId};

use crate::Kind;
use crate::world::{Dice, World, pattern, settings};

fn small_buffers() -> ListenerSettings {
    ListenerSettings { send_buffer_bytes: Some(8 * 1024), ..ListenerSettings::default() }
}

pub(crate) fn bytes_arrive_whole_and_in_order_through_a_slow_reader<K: Kind>() {
    const BYTES: usize = 6 * 1024 * 1024;
    let mut world = World::<K>::with(&settings(), &small_buffers());
    let (mut client, socket) = world.pair();
    let said = pattern(1, BYTES);
    let reader = thread::spawn(move || {
        let mut dice = Dice::new(2);
        let mut heard = Vec::with_capacity(BYTES);
        let mut part = vec![0; 256 * 1024];
        while heard.len() < BYTES {
            let count = 1 + dice.below(part.len());
            let count = client.read(&mut part[..count]).expect("it is open");
            assert_ne!(count, 0, "it ended early");
            heard.extend_from_slice(&part[..count]);
            if dice.below(8) == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        heard
    });
    let mut dice = Dice::new(3);
    let mut sent = 0;
    let (mut partial, mut full) = (0, 0);
    while sent < BYTES {
        // Gathers of odd sizes, cut at odd places.
        let mut slices: Vec<&[u8]> = Vec::new();
        let mut end = sent;
        for _ in 0..=dice.below(SLICES_PER_SEND_MAX) {
            let next = BYTES.min(end + 1 + dice.below(4000));
            if next > end {
                slices.push(&said[end..next]);
            }
            end = next;
        }
        match world.send(socket, &slices) {
            Sent::Whole => sent = end,
            Sent::Partial(count) => {
                assert!(count < end - sent, "a partial send is less than whole");
                sent += count;
                if count == 0 {
                    full += 1;
                } else {
                    partial += 1;
                }
                world.await_writable(socket);
                let before = world.of(socket).writable;
                world.until("room", |world| world.of(socket).writable > before);
            }
            Sent::Failed(error) => panic!("sending failed: {error}"),
        }
    }
    assert!(reader.join().expect("no panic") == said, "what arrived is what was sent");
    assert!(partial > 0, "the test saw partial sends ({full} full)");
}

pub(crate) fn a_full_socket_takes_nothing_and_is_writable_once<K: Kind>() {
    let mut world = World::<K>::with(&settings(), &small_buffers());
    let (mut client, socket) = world.pair();
    let sent = world.fill(socket);
    let flood = vec![7; 256 * 1024];
    assert!(matches!(world.send(socket, &[&flood, &flood]), Sent::Partial(0)));
    world.await_writable(socket);
    world.await_writable(socket);
    world.idle(Duration::from_millis(50));
    assert_eq!(world.of(socket).writable, 0, "it is full still");
    let mut heard = vec![0; sent];
    client.read_exact(&mut heard).expect("it was sent");
    world.until("room", |world| world.of(socket).writable == 1);
    world.idle(Duration::from_millis(50));
    assert_eq!(world.of(socket).writable, 1, "told once");
    assert!(matches!(world.send(socket, &[b"x"]), Sent::Whole));
    // Asking again for what is so already is answered at once.
    world.await_writable(socket);
    world.until("room", |world| world.of(socket).writable == 2);
}

pub(crate) fn gathers_of_1_to_64_slices_arrive_in_order<K: Kind>() {
    let mut world = World::<K>::new();
    let (mut client, socket) = world.pair();
    for count in 1..=SLICES_PER_SEND_MAX {
        let said = pattern(count as u64, count * 7);
        let slices: Vec<&[u8]> = said.chunks(7).collect();
        assert!(matches!(world.send(socket, &slices), Sent::Whole));
        let mut heard = vec![0; said.len()];
        client.read_exact(&mut heard).expect("it was sent");
        assert_eq!(heard, said, "{count} slices");
    }
}

pub(crate) fn two_thousand_are_sent_to_in_one_call<K: Kind>() {
    let mut world = World::<K>::new();
    let mut clients: Vec<_> = (0..2000).map(|_| world.connect()).collect();
    world.until("all accepted", |world| world.accepted.len() == 2000);
    for round in 0..3_u8 {
        let said: Vec<[u8; 5]> = world
            .accepted
            .iter()
            .map(|(_, peer)| {
                let port = peer.port().to_le_bytes();
                [round, port[0], port[1], b'.', b'\n']
            })
            .collect();
        let slices: Vec<[IoSlice<'_>; 2]> =
            said.iter().map(|said| [IoSlice::new(&said[..2]), IoSlice::new(&said[2..])]).collect();
        let sends: Vec<Send<'_>> = world
            .accepted
            .iter()
            .zip(&slices)
            .map(|((socket, _), slices)| Send { socket: *socket, slices })
            .collect();
        let mut outcomes = Vec::new();
        world.driver.send(&sends, &mut outcomes);
        assert_eq!(outcomes.len(), 2000);
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Sent::Whole)));
        for client in &mut clients {
            let port = client.local_addr().expect("bound").port().to_le_bytes();
            let mut heard = [0; 5];
            client.read_exact(&mut heard).expect("it was sent");
            assert_eq!(heard, [round, port[0], port[1], b'.', b'\n']);
        }
    }
}

pub(crate) fn full_and_free_sockets_keep_their_places_in_one_call<K: Kind>() {
    let mut world = World::<K>::with(&settings(), &small_buffers());
    let pairs: Vec<_> = (0..300).map(|_| world.pair()).collect();
    let flood = vec![7; 256 * 1024];
    for (_, socket) in pairs.iter().step_by(3) {
        while !matches!(world.send(*socket, &[&flood]), Sent::Partial(0)) {}
    }
    // Every third is full, every one after it gets too much, the others a little.
    let slices = [[IoSlice::new(b"little")], [IoSlice::new(&flood)], [IoSlice::new(b"little")]];
    let sends: Vec<Send<'_>> = pairs
        .iter()
        .enumerate()
        .map(|(index, (_, socket))| Send { socket: *socket, slices: &slices[index % 3] })
        .collect();
    let mut outcomes = Vec::new();
    world.driver.send(&sends, &mut outcomes);
    for (index, outcome) in outcomes.iter().enumerate() {
        match (index % 3, outcome) {
            // Some kernels find a corner for so little even then.
            (0, Sent::Partial(0) | Sent::Whole) | (2, Sent::Whole) => {}
            (1, Sent::Partial(count)) if (1..flood.len()).contains(count) => {}
            _ => panic!("{index}: {outcome:?}"),
        }
    }
}

pub(crate) fn a_send_to_a_closed_socket_fails_and_harms_no_other<K: Kind>() {
    let mut world = World::<K>::new();
    let (_gone, closed) = world.pair();
    let (mut client, open) = world.pair();
    world.close(closed);
    let slices = [IoSlice::new(b"hello")];
    let sends = [
        Send { socket: closed, slices: &slices },
        Send { socket: open, slices: &slices },
        Send { socket: closed, slices: &slices },
    ];
    let mut outcomes = Vec::new();
    world.driver.send(&sends, &mut outcomes);
    assert!(matches!(outcomes[..], [Sent::Failed(_), Sent::Whole, Sent::Failed(_)]));
    let mut heard = [0; 5];
    client.read_exact(&mut heard).expect("it was sent");
    assert_eq!(&heard, b"hello");
}

/// A queue of completions that overflows must not make a send that was cut look whole: every
/// client talks while each is sent more than it can take, and what arrives is compared.
pub(crate) fn tiny_queues_neither_lose_bytes_nor_misjudge_sends<K: Kind>() {
    const SOCKETS: usize = 200;
    const BYTES: usize = 120_000;
    const TALK: usize = 2000;
    let settings = Settings { submissions: 8, completions: 16, ..settings() };
    let mut world = World::<K>::with(&settings, &small_buffers());
    let pairs: Vec<_> = (0..SOCKETS).map(|_| world.pair()).collect();
    let sockets: Vec<SocketId> = pairs.iter().map(|(_, socket)| *socket).collect();
    let clients: Vec<_> = pairs
        .into_iter()
        .enumerate()
        .collect::<Vec<_>>()
        .chunks_mut(SOCKETS / 4)
        .map(|part| {
            let part: Vec<_> = part
                .iter()
                .map(|(index, (client, _))| (*index, client.try_clone().expect("a twin")))
                .collect();
            thread::spawn(move || {
                for round in 0..TALK / 100 {
                    for (index, client) in &part {
                        let said = pattern(*index as u64, TALK);
                        let mut client = client;
                        client.write_all(&said[round * 100..][..100]).expect("it is open");
                    }
                }
                for (index, client) in &part {
                    let mut heard = vec![0; BYTES];
                    let mut client = client;
                    client.read_exact(&mut heard).expect("it was sent");
                    assert!(heard == pattern(1000 + *index as u64, BYTES), "client {index}");
                }
            })
        })
        .collect();
    let said: Vec<Vec<u8>> = (0..SOCKETS).map(|at| pattern(1000 + at as u64, BYTES)).collect();
    let mut sent = vec![0; SOCKETS];
    let mut asked = vec![usize::MAX; SOCKETS];
    world.until("everyone to have everything", |world| {
        let due: Vec<usize> = (0..SOCKETS)
            .filter(|at| {
                let waits = asked[*at] == world.of(sockets[*at]).writable;
                sent[*at] < BYTES && !waits
            })
            .collect();
        let slices: Vec<[IoSlice<'_>; 1]> =
            due.iter().map(|at| [IoSlice::new(&said[*at][sent[*at]..])]).collect();
        let sends: Vec<Send<'_>> = due
            .iter()
            .zip(&slices)
            .map(|(at, slices)| Send { socket: sockets[*at], slices })
            .collect();
        let mut outcomes = Vec::new();
        world.driver.send(&sends, &mut outcomes);
        for (at, outcome) in due.into_iter().zip(outcomes) {
            match outcome {
                Sent::Whole => sent[at] = BYTES,
                Sent::Partial(count) => {
                    sent[at] += count;
                    asked[at] = world.of(sockets[at]).writable;
                    world.await_writable(sockets[at]);
                }
                Sent::Failed(error) => panic!("sending failed: {error}"),
            }
        }
        clients.iter().all(thread::JoinHandle::is_finished)
            && sockets.iter().all(|socket| world.of(*socket).bytes.len() == TALK)
    });
    for client in clients {
        client.join().expect("every byte arrived, in order");
    }
    for (at, socket) in sockets.iter().enumerate() {
        assert!(world.of(*socket).bytes == pattern(at as u64, TALK), "socket {at}");
    }
}
