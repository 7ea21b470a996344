//! The rules of [`Driver`](crate::io::Driver) that the other drivers are held to with real
//! sockets, held here with simulated ones.

use std::io::IoSlice;

use super::*;

const LINE: Line =
    Line { latency_us: 10, bytes_per_s: 1_000_000, up_bytes_max: 1_000, down_bytes_max: 1_000 };

struct Pair {
    network: Network,
    sim: Sim,
    now: u64,
}

impl Pair {
    fn new(faults: Faults) -> Self {
        let network = Network::new(fastrand::Rng::with_seed(1), faults);
        let mut sim = Sim::new(&network).expect("a waker");
        sim.listen(std::fs::File::open("/dev/null").expect("it is there").into()).expect("sim");
        Self { network, sim, now: 0 }
    }

    /// Lets everything arrive and harvests it.
    fn harvest(&mut self) -> Vec<Completion> {
        self.now += 1_000_000;
        self.network.advance(self.now);
        let mut completions = Vec::new();
        self.sim.harvest(None, &mut completions).expect("memory does not break");
        completions
    }

    fn connect(&mut self) -> (LinkId, SocketId) {
        let link = self.network.connect(peer_address(1), LINE);
        match self.harvest()[..] {
            [Completion::Accepted { socket, .. }] => (link, socket),
            ref other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, socket: SocketId, bytes: &[u8]) -> Sent {
        let mut outcomes = Vec::new();
        let slices = [IoSlice::new(bytes)];
        self.sim.send(&[Send { socket, slices: &slices }], &mut outcomes);
        outcomes.pop().expect("an outcome for each send")
    }
}

#[test]
fn bytes_then_the_end_are_told_in_this_order_and_once() {
    let mut pair = Pair::new(Faults::default());
    let (link, _) = pair.connect();
    assert_eq!(pair.network.send(link, b"abc"), 3);
    pair.network.finish(link);
    let told = pair.harvest();
    let [Completion::Received { buffer, .. }, Completion::EndOfStream { .. }] = told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(pair.sim.received(buffer), b"abc");
    assert!(pair.harvest().is_empty());
    assert!(!pair.network.has_news(0));
}

#[test]
fn a_paused_socket_tells_nothing_and_loses_nothing() {
    let mut pair = Pair::new(Faults::default());
    let (link, socket) = pair.connect();
    pair.sim.pause(socket);
    assert_eq!(pair.network.send(link, b"abc"), 3);
    assert!(pair.harvest().is_empty());
    pair.sim.resume(socket);
    assert!(matches!(pair.harvest()[..], [Completion::Received { .. }]));
}

#[test]
fn a_full_socket_takes_a_part_and_tells_once_that_it_takes_bytes_again() {
    let mut pair = Pair::new(Faults::default());
    let (link, socket) = pair.connect();
    assert!(matches!(pair.send(socket, &[7; 1_500]), Sent::Partial(1_000)));
    assert!(matches!(pair.send(socket, &[7; 500]), Sent::Partial(0)));
    pair.sim.await_writable(socket);
    assert!(pair.harvest().is_empty());
    assert_eq!(pair.network.receive(link, 600).len(), 600);
    assert!(pair.network.has_news(0));
    assert!(matches!(pair.harvest()[..], [Completion::Writable { .. }]));
    assert!(pair.harvest().is_empty());
    assert_eq!(pair.network.take_partial_sends(link), [1_000, 1_000]);
}

#[test]
fn closing_with_unread_bytes_resets_the_peer_and_without_ends_its_stream() {
    for (unread, expected) in [(&b"x"[..], (false, true)), (b"", (true, false))] {
        let mut pair = Pair::new(Faults::default());
        let (link, socket) = pair.connect();
        pair.sim.pause(socket);
        let _ = pair.network.send(link, unread);
        pair.harvest();
        pair.sim.close(socket);
        pair.harvest();
        let view = pair.network.view(link);
        assert_eq!((view.ended, view.reset), expected);
        assert!(!pair.network.is_served(link));
    }
}

#[test]
fn a_reset_fails_the_socket_once_and_every_send_after_it() {
    let mut pair = Pair::new(Faults::default());
    let (link, socket) = pair.connect();
    pair.network.reset(link);
    assert!(matches!(pair.harvest()[..], [Completion::Failed { .. }]));
    assert!(matches!(pair.send(socket, b"x"), Sent::Failed(_)));
    assert!(pair.harvest().is_empty());
}

#[test]
fn a_name_is_not_given_out_again_in_its_generation() {
    let mut pair = Pair::new(Faults::default());
    let (_, first) = pair.connect();
    pair.sim.close(first);
    let (_, second) = pair.connect();
    assert_eq!((second.index(), second.generation()), (first.index(), first.generation() + 1));
    assert!(matches!(pair.send(first, b"x"), Sent::Failed(_)));
}

#[test]
fn a_released_socket_is_adopted_with_what_its_peer_has_sent_meanwhile() {
    let mut pair = Pair::new(Faults::default());
    let mut other = Sim::new(&pair.network).expect("a waker");
    let (link, socket) = pair.connect();
    let token = pair.sim.release(socket).expect("nothing has happened to it");
    assert_eq!(pair.network.send(link, b"abc"), 3);
    pair.harvest();
    other.adopt(token).expect("there is room");
    let mut told = Vec::new();
    other.harvest(None, &mut told).expect("memory does not break");
    assert!(matches!(told[..], [Completion::Received { .. }]), "{told:?}");
}

#[test]
fn who_waits_in_the_queue_when_listening_stops_is_still_accepted() {
    let mut pair = Pair::new(Faults::default());
    let _ = pair.network.connect(peer_address(1), LINE);
    pair.network.advance(1_000);
    pair.sim.stop_listening();
    let told = pair.harvest();
    let [Completion::Accepted { .. }, Completion::ListenerClosed] = told[..] else {
        panic!("{told:?}")
    };
    let late = pair.network.connect(peer_address(2), LINE);
    assert!(pair.harvest().is_empty());
    assert!(pair.network.view(late).reset);
}
