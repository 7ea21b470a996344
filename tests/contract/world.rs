//! The harness: a driver, its listener, what it has said so far, and the rules that hold at
//! every moment.

use std::collections::{HashMap, HashSet};
use std::io::{self, IoSlice, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::panic;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ringcast::io::{
    Completion, Driver, ListenerSettings, Send, Sent, Settings, SocketId, listener,
};
use socket2::SockRef;

use crate::Kind;

/// Far above what any claim takes, far below what a person waits for. On machines that are many
/// times slower (emulated ones), RINGCAST_TEST_PATIENCE says how many.
pub(crate) fn patience() -> Duration {
    let factor = std::env::var("RINGCAST_TEST_PATIENCE").ok();
    let factor = factor.map_or(1, |factor| factor.parse().expect("RINGCAST_TEST_PATIENCE counts"));
    Duration::from_secs(30) * factor
}

/// Runs a claim on a thread of its own, so that one that hangs fails instead.
pub(crate) fn bounded(claim: fn()) {
    let (done, result) = mpsc::channel();
    let thread = thread::spawn(move || {
        claim();
        let _ = done.send(());
    });
    match result.recv_timeout(patience() * 4 / 3) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the claim hangs"),
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
            if let Err(cause) = thread.join() {
                panic::resume_unwind(cause);
            }
        }
    }
}

/// Small queues: many tests run beside each other under one RLIMIT_MEMLOCK.
pub(crate) fn settings() -> Settings {
    Settings { sockets_max: 4096, submissions: 256, completions: 2048, ..Settings::default() }
}

/// What was heard of one socket.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) bytes: Vec<u8>,
    pub(crate) receives: usize,
    pub(crate) ended: bool,
    pub(crate) failed: Option<io::Error>,
    pub(crate) writable: usize,
    awaiting: usize,
    paused: bool,
}

pub(crate) struct World<K: Kind> {
    pub(crate) driver: K::Driver,
    pub(crate) address: SocketAddr,
    pub(crate) accepted: Vec<(SocketId, SocketAddr)>,
    pub(crate) heard: HashMap<SocketId, Heard>,
    closed: HashSet<SocketId>,
    pub(crate) woken: usize,
    pub(crate) accept_failures: Vec<io::Error>,
    pub(crate) listener_closed: usize,
    completions: Vec<Completion>,
}

impl<K: Kind> World<K> {
    pub(crate) fn new() -> Self {
        Self::with(&settings(), &ListenerSettings::default())
    }

    pub(crate) fn with(settings: &Settings, listens: &ListenerSettings) -> Self {
        let mut world = Self::without_listener(settings);
        let socket = listener((Ipv4Addr::LOCALHOST, 0).into(), listens).expect("a listener");
        let address = SockRef::from(&socket).local_addr().expect("it is bound");
        world.address = address.as_socket().expect("it is an IP socket");
        world.driver.listen(socket).expect("it listens");
        world
    }

    pub(crate) fn without_listener(settings: &Settings) -> Self {
        Self {
            driver: K::make(settings),
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            accepted: Vec::new(),
            heard: HashMap::new(),
            closed: HashSet::new(),
            woken: 0,
            accept_failures: Vec::new(),
            listener_closed: 0,
            completions: Vec::new(),
        }
    }

    /// One harvest; checks what must hold whatever the test is about.
    pub(crate) fn tick(&mut self, rest: Duration) {
        let mut completions = std::mem::take(&mut self.completions);
        self.driver.harvest(Some(rest), &mut completions).expect("the driver works");
        for completion in completions.drain(..) {
            self.hear(completion);
        }
        self.completions = completions;
    }

    pub(crate) fn hear(&mut self, completion: Completion) {
        match completion {
            Completion::Accepted { socket, peer } => {
                assert_eq!(self.listener_closed, 0, "accepted after ListenerClosed");
                self.accepted.push((socket, peer));
                self.know(socket);
            }
            Completion::AcceptFailed { error } => self.accept_failures.push(error),
            Completion::Received { socket, buffer } => {
                let bytes = self.driver.received(buffer);
                assert_eq!(bytes.len(), buffer.bytes());
                assert!(!bytes.is_empty(), "{socket:?}: nothing is no reception");
                let copy = bytes.to_vec();
                let heard = self.open(socket, "Received");
                assert!(!heard.ended && heard.failed.is_none(), "{socket:?}: bytes after the end");
                assert!(!heard.paused, "{socket:?}: bytes while paused");
                heard.bytes.extend(copy);
                heard.receives += 1;
            }
            Completion::EndOfStream { socket } => {
                let heard = self.open(socket, "EndOfStream");
                assert!(!heard.ended && heard.failed.is_none(), "{socket:?}: two ends");
                assert!(!heard.paused, "{socket:?}: an end while paused");
                heard.ended = true;
            }
            Completion::Failed { socket, error } => {
                let heard = self.open(socket, "Failed");
                assert!(heard.failed.is_none(), "{socket:?}: failed twice");
                assert!(!heard.paused, "{socket:?}: a failure while paused");
                heard.failed = Some(error);
            }
            Completion::Writable { socket } => {
                let heard = self.open(socket, "Writable");
                assert!(heard.awaiting > 0, "{socket:?}: nobody asked for Writable");
                heard.awaiting = 0;
                heard.writable += 1;
            }
            Completion::Woken => self.woken += 1,
            Completion::ListenerClosed => {
                self.listener_closed += 1;
                assert_eq!(self.listener_closed, 1, "ListenerClosed is told once");
            }
        }
    }

    fn know(&mut self, socket: SocketId) {
        assert!(!self.closed.contains(&socket), "{socket:?} was given out twice");
        assert!(self.heard.insert(socket, Heard::default()).is_none(), "{socket:?} is in use");
        if K::QUIET {
            self.driver.quiet(socket);
        }
    }

    fn open(&mut self, socket: SocketId, what: &str) -> &mut Heard {
        assert!(!self.closed.contains(&socket), "{what} for {socket:?}, which is closed");
        self.heard.get_mut(&socket).unwrap_or_else(|| panic!("{what} for unknown {socket:?}"))
    }

    /// Ticks until `reached`.
    pub(crate) fn until(&mut self, what: &str, mut reached: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !reached(self) {
            assert!(
                start.elapsed() < patience(),
                "waited in vain for: {what} ({:?}, failures to accept: {:?})",
                self.driver.describe(),
                self.accept_failures
            );
            self.tick(Duration::from_millis(50));
        }
    }

    /// Ticks for a while in which nothing in particular is expected.
    pub(crate) fn idle(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.tick(Duration::from_millis(5));
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it connects");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(patience())).expect("an option");
        stream
    }

    /// A client and the driver's name for it.
    pub(crate) fn pair(&mut self) -> (TcpStream, SocketId) {
        let client = self.connect();
        let name = client.local_addr().expect("it is bound");
        let socket = self.accepted_from(name);
        (client, socket)
    }

    pub(crate) fn accepted_from(&mut self, peer: SocketAddr) -> SocketId {
        self.until("an accept", |world| {
            // Slots that are being closed may be short for a moment; trying again is the rule.
            world.driver.resume_accepting();
            world.open_from(peer).is_some()
        });
        self.open_from(peer).expect("just seen")
    }

    /// The one from `peer` that is open: the kernel may give a port to several, one after the other.
    fn open_from(&self, peer: SocketAddr) -> Option<SocketId> {
        let is_it = |(socket, from): &&(SocketId, SocketAddr)| {
            *from == peer && self.heard.contains_key(socket)
        };
        self.accepted.iter().rev().find(is_it).map(|(socket, _)| *socket)
    }

    pub(crate) fn adopt(&mut self, fd: std::os::fd::OwnedFd) -> SocketId {
        let socket = self.driver.adopt(fd).expect("it is adopted");
        self.know(socket);
        socket
    }

    pub(crate) fn of(&self, socket: SocketId) -> &Heard {
        &self.heard[&socket]
    }

    /// Waits until this many bytes were received from `socket` in all.
    pub(crate) fn until_bytes(&mut self, socket: SocketId, count: usize) {
        self.until("bytes", |world| world.of(socket).bytes.len() >= count);
    }

    pub(crate) fn send(&mut self, socket: SocketId, slices: &[&[u8]]) -> Sent {
        let slices: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut outcomes = Vec::new();
        self.driver.send(&[Send { socket, slices: &slices }], &mut outcomes);
        assert_eq!(outcomes.len(), 1, "one outcome for one send");
        outcomes.pop().expect("just counted")
    }

    /// Sends all of `bytes`, waiting whenever the socket is full.
    pub(crate) fn send_all(&mut self, socket: SocketId, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.send(socket, &[bytes]) {
                Sent::Whole => return,
                Sent::Partial(count) => {
                    bytes = &bytes[count..];
                    self.await_writable(socket);
                    let before = self.of(socket).writable;
                    self.until("room", |world| world.of(socket).writable > before);
                }
                Sent::Failed(error) => panic!("sending failed: {error}"),
            }
        }
    }

    /// Sends until the socket and the peer's side are full and stay so. How many bytes it took.
    pub(crate) fn fill(&mut self, socket: SocketId) -> usize {
        let flood = vec![7; 256 * 1024];
        let mut sent = 0;
        let mut refusals = 0;
        // A peer whose window is shut is probed every 200 ms or so, and may open it a little.
        while refusals < 20 {
            match self.send(socket, &[&flood]) {
                Sent::Partial(0) => {
                    refusals += 1;
                    thread::sleep(Duration::from_millis(40));
                }
                Sent::Partial(count) => (sent, refusals) = (sent + count, 0),
                Sent::Whole => (sent, refusals) = (sent + flood.len(), 0),
                Sent::Failed(error) => panic!("sending failed: {error}"),
            }
        }
        sent
    }

    pub(crate) fn await_writable(&mut self, socket: SocketId) {
        self.heard.get_mut(&socket).expect("known").awaiting += 1;
        self.driver.await_writable(socket);
    }

    pub(crate) fn pause(&mut self, socket: SocketId) {
        self.heard.get_mut(&socket).expect("known").paused = true;
        self.driver.pause(socket);
    }

    pub(crate) fn resume(&mut self, socket: SocketId) {
        self.heard.get_mut(&socket).expect("known").paused = false;
        self.driver.resume(socket);
    }

    pub(crate) fn close(&mut self, socket: SocketId) {
        assert!(self.heard.remove(&socket).is_some(), "the test closes what is open");
        self.closed.insert(socket);
        self.driver.close(socket);
    }

    /// What [`close`](Self::close) checks, for a socket that left by [`Driver::release`].
    pub(crate) fn forget(&mut self, socket: SocketId) {
        assert!(self.heard.remove(&socket).is_some(), "the test releases what is open");
        self.closed.insert(socket);
    }

    /// Makes `socket` one that talks much, by talking: a byte at a time, each received.
    pub(crate) fn make_chatty(&mut self, client: &mut TcpStream, socket: SocketId) {
        use std::io::Write;
        for _ in 0..24 {
            let before = self.of(socket).bytes.len();
            client.write_all(b"c").expect("it is open");
            self.until_bytes(socket, before + 1);
        }
    }
}

/// A seeded generator (xorshift64*), so that a failing schedule can be replayed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// 0 up to, not including, `count`.
    pub(crate) const fn below(&mut self, count: usize) -> usize {
        (self.next() >> 16) as usize % count
    }
}

/// Bytes of which every stretch tells where it is from.
pub(crate) fn pattern(seed: u64, count: usize) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        bytes.extend(dice.next().to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// Waits for the FIN, with nothing before it. The kernel may interrupt this thread's reads to clean
/// up after a ring of its own, and with a timeout set they are not taken up again: that is no end.
pub(crate) fn assert_clean_end(client: &mut TcpStream) {
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("a clean end");
    assert_eq!(rest, [0; 0], "nothing before the end");
}

/// Closing with this set sends a reset instead of a FIN.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("an option");
}
