//! Receiving: scarce buffers, ends, pauses, many sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use ringcast::io::{Driver, ListenerSettings, Sent, Settings, SocketId};

use crate::Kind;
use crate::world::{World, assert_clean_end, pattern, settings};

pub(crate) fn nothing_is_lost_when_buffers_run_out<K: Kind>() {
    const SOCKETS: usize = 64;
    const BYTES: usize = 60_000;
    let settings = Settings { receive_buffers: 5, receive_buffer_bytes: 512, ..settings() };
    let mut world = World::<K>::with(&settings, &ListenerSettings::default());
    let pairs: Vec<(TcpStream, SocketId)> = (0..SOCKETS).map(|_| world.pair()).collect();
    let sockets: Vec<SocketId> = pairs.iter().map(|(_, socket)| *socket).collect();
    let writer = thread::spawn(move || {
        for (index, (client, _)) in pairs.iter().enumerate() {
            let mut client = client;
            client.write_all(&pattern(index as u64, BYTES)).expect("the kernel has room");
        }
        pairs
    });
    world.until("all bytes", |world| {
        sockets.iter().all(|socket| world.of(*socket).bytes.len() >= BYTES)
    });
    for (index, socket) in sockets.iter().enumerate() {
        assert!(world.of(*socket).bytes == pattern(index as u64, BYTES), "socket {index}");
    }
    drop(writer.join().expect("no panic"));
    world.until("all ends", |world| sockets.iter().all(|socket| world.of(*socket).ended));
}

pub(crate) fn the_end_is_told_once_and_sending_goes_on<K: Kind>() {
    let mut world = World::<K>::new();
    let (mut client, socket) = world.pair();
    client.write_all(b"my last words").expect("it is open");
    client.shutdown(Shutdown::Write).expect("it is open");
    world.until("the end", |world| world.of(socket).ended);
    assert_eq!(world.of(socket).bytes, b"my last words");
    for round in 0..20_u8 {
        assert!(matches!(world.send(socket, &[&[round]]), Sent::Whole));
        world.tick(Duration::from_millis(1));
        let mut heard = [0; 1];
        client.read_exact(&mut heard).expect("sending goes on");
        assert_eq!(heard, [round]);
    }
    assert!(world.of(socket).failed.is_none());
    world.close(socket);
    world.idle(Duration::from_millis(20));
    assert_clean_end(&mut client);
}

pub(crate) fn the_end_is_told_after_the_bytes_in_one_segment<K: Kind>() {
    let mut world = World::<K>::new();
    for count in [1, 511, 512, 4095, 4096, 4097, 8192, 20_000] {
        let (mut client, socket) = world.pair();
        let said = pattern(count as u64, count);
        // All of it is in the socket, FIN included, before the driver looks.
        client.write_all(&said).expect("it is open");
        drop(client);
        thread::sleep(Duration::from_millis(2));
        world.until("the end", |world| world.of(socket).ended);
        assert!(world.of(socket).bytes == said, "{count} bytes before the end");
        world.close(socket);
    }
}

pub(crate) fn shutdown_sends_a_fin_and_receiving_goes_on<K: Kind>() {
    let mut world = World::<K>::new();
    let (mut client, socket) = world.pair();
    world.send_all(socket, b"goodbye");
    world.driver.shutdown(socket);
    world.driver.shutdown(socket);
    let reader = {
        let mut client = client.try_clone().expect("a twin");
        thread::spawn(move || {
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).map(|_| heard)
        })
    };
    world.until("the client to hear the end", |_| reader.is_finished());
    assert_eq!(reader.join().expect("no panic").expect("a clean end"), b"goodbye");
    client.write_all(b"and to you").expect("it is half open");
    world.until_bytes(socket, 10);
    drop(client);
    world.until("the end", |world| world.of(socket).ended);
    assert!(matches!(world.send(socket, &[b"?"]), Sent::Failed(_)), "we had said goodbye");
}

pub(crate) fn a_paused_idle_socket_is_silent_and_loses_nothing<K: Kind>() {
    let mut world = World::<K>::new();
    let (mut client, socket) = world.pair();
    world.idle(Duration::from_millis(10));
    pause_and_resume(&mut world, &mut client, socket, false);
}

pub(crate) fn a_paused_chatty_socket_is_silent_and_loses_nothing<K: Kind>() {
    let mut world = World::<K>::new();
    let (mut client, socket) = world.pair();
    world.make_chatty(&mut client, socket);
    pause_and_resume(&mut world, &mut client, socket, false);
    pause_and_resume(&mut world, &mut client, socket, true);
}

/// The harness fails any test in which a paused socket speaks.
fn pause_and_resume<K: Kind>(
    world: &mut World<K>,
    client: &mut TcpStream,
    socket: SocketId,
    quiet: bool,
) {
    let said = pattern(9, 300_000);
    let before = world.of(socket).bytes.len();
    let mut sent = 0;
    for part in said.chunks(15_000) {
        // On both sides of the pause, so that some is in flight when it begins.
        client.write_all(&part[..5000]).expect("it is open");
        if sent % 2 == 0 {
            world.tick(Duration::ZERO);
        }
        world.pause(socket);
        if quiet {
            world.driver.quiet(socket);
        }
        client.write_all(&part[5000..]).expect("it is open");
        world.idle(Duration::from_millis(4));
        world.resume(socket);
        if sent % 3 == 0 {
            world.pause(socket);
            world.tick(Duration::ZERO);
            world.resume(socket);
        }
        sent += part.len();
        world.until_bytes(socket, before + sent);
    }
    assert!(world.of(socket).bytes[before..] == said, "nothing lost, doubled or reordered");
}

pub(crate) fn the_end_of_a_paused_socket_waits_for_resume<K: Kind>() {
    for chatty in [false, true] {
        let mut world = World::<K>::new();
        let (mut client, socket) = world.pair();
        if chatty {
            world.make_chatty(&mut client, socket);
        }
        let before = world.of(socket).bytes.len();
        world.pause(socket);
        client.write_all(b"last").expect("it is open");
        drop(client);
        world.idle(Duration::from_millis(30));
        assert!(!world.of(socket).ended);
        world.resume(socket);
        world.until("the end", |world| world.of(socket).ended);
        assert_eq!(&world.of(socket).bytes[before..], b"last");
    }
}

/// A send may meet what the kernel has to tell of others; none of it may be lost or overtaken.
pub(crate) fn what_arrives_during_sends_keeps_its_order<K: Kind>() {
    const PART: usize = 30_000;
    let settings = Settings { receive_buffer_bytes: 512, ..settings() };
    let mut world = World::<K>::with(&settings, &ListenerSettings::default());
    let (mut talker, talks) = world.pair();
    let (mut listener, listens) = world.pair();
    world.make_chatty(&mut talker, talks);
    let before = world.of(talks).bytes.len();
    let said = pattern(11, 40 * PART);
    for (round, part) in said.chunks(PART).enumerate() {
        for half in part.chunks(PART / 2) {
            talker.write_all(half).expect("it is open");
            thread::sleep(Duration::from_millis(1));
            assert!(matches!(world.send(listens, &[b"."]), Sent::Whole));
        }
        listener.read_exact(&mut [0; 2]).expect("it was sent");
        if round % 2 == 0 {
            world.until_bytes(talks, before + (round + 1) * PART);
        } else {
            world.tick(Duration::ZERO);
        }
    }
    world.until_bytes(talks, before + said.len());
    assert!(world.of(talks).bytes[before..] == said, "in order");
}

pub(crate) fn two_thousand_sockets_echo<K: Kind>() {
    const COUNT: usize = 2000;
    const ROUNDS: usize = 5;
    let mut world = World::<K>::new();
    let address = world.address;
    let clients = thread::spawn(move || {
        let mut clients: Vec<TcpStream> = (0..COUNT)
            .map(|_| {
                let client = TcpStream::connect(address).expect("it connects");
                client.set_nodelay(true).expect("an option");
                client.set_read_timeout(Some(Duration::from_secs(50))).expect("an option");
                client
            })
            .collect();
        for round in 0..ROUNDS {
            for (index, client) in clients.iter_mut().enumerate() {
                client.write_all(&pattern((index * ROUNDS + round) as u64, 100)).expect("open");
            }
            for (index, client) in clients.iter_mut().enumerate() {
                let mut heard = [0; 100];
                client.read_exact(&mut heard).expect("an answer");
                assert_eq!(heard[..], pattern((index * ROUNDS + round) as u64, 100));
            }
        }
    });
    let mut echoed = std::collections::HashMap::new();
    world.until("the clients to be content", |world| {
        let due: Vec<(SocketId, Vec<u8>)> = world
            .heard
            .iter()
            .filter_map(|(socket, heard)| {
                let done: &mut usize = echoed.entry(*socket).or_insert(0);
                let part = heard.bytes[*done..].to_vec();
                *done += part.len();
                (!part.is_empty()).then_some((*socket, part))
            })
            .collect();
        for (socket, part) in due {
            world.send_all(socket, &part);
        }
        clients.is_finished()
    });
    clients.join().expect("every client got its own bytes back");
    world.until("all ends", |world| world.heard.values().all(|heard| heard.ended));
}
