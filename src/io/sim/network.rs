//! The network between peers and drivers: links, listeners, and the time at which things arrive.

use std::cell::{RefCell, RefMut};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::rc::Rc;

use super::faults::strikes;
use super::link::{Line, Link, LinkId, Packet, Server, Way};
use super::{Faults, Log};
use crate::io::Waker;

/// The network of one world. Clones are the same network.
///
/// Peers use the verbs here; drivers ([`Sim`](super::Sim)) hold the other ends. Nothing happens
/// by itself: the world says how late it is ([`advance`](Self::advance)).
#[derive(Debug, Clone)]
pub struct Network(pub(super) Rc<RefCell<State>>);

#[derive(Debug)]
pub(super) struct State {
    pub(super) now: u64,
    pub(super) random: fastrand::Rng,
    pub(super) faults: Faults,
    pub(super) links: Vec<Link>,
    pub(super) ports: Vec<Port>,
    pub(super) released: BTreeMap<RawFd, LinkId>,
    pub(super) log: Log,
    arrivals: BinaryHeap<Reverse<(u64, u64, Arrival)>>,
    order: u64,
    /// Nothing arrives before this.
    outage_until: u64,
    /// Links whose peer has something to read.
    touched: Vec<LinkId>,
    /// Sends to a socket that had been sent to in the same tick.
    pub(super) sent_again: u64,
    pub(super) adopts_refused: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Arrival {
    /// A connection reaches a listener.
    Syn(LinkId, usize),
    /// The front of a pipe arrives.
    Packet(LinkId, Way),
    /// The kernel gives a connection up whose packets are not acknowledged. If all of them are, it looks
    /// again after so long.
    GivenUp(LinkId, u64),
    /// A driver has something to tell that it had not before.
    Nudge,
}

/// What the network keeps of one shard's driver.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) waker: Waker,
    pub(super) listening: bool,
    pub(super) accepting: bool,
    /// It is to be told that the listener is closed.
    pub(super) closing: bool,
    pub(super) backlog: VecDeque<LinkId>,
    /// Links whose server end it holds.
    pub(super) open: Vec<LinkId>,
}

/// What a peer can know of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerView {
    /// Bytes that can be read.
    pub readable: usize,
    /// The server has ended its stream, and everything before that was read.
    pub ended: bool,
    /// The server's reset has come.
    pub reset: bool,
}

/// From one end of a line to the other when all is well.
const HEALED_LATENCY_US: u64 = 1_000;

impl Network {
    /// An empty network. All of its chance comes from `random`.
    #[must_use]
    pub fn new(random: fastrand::Rng, faults: Faults) -> Self {
        Self(Rc::new(RefCell::new(State {
            now: 0,
            random,
            faults,
            links: Vec::new(),
            ports: Vec::new(),
            released: BTreeMap::new(),
            log: Log::default(),
            arrivals: BinaryHeap::new(),
            order: 0,
            outage_until: 0,
            touched: Vec::new(),
            sent_again: 0,
            adopts_refused: 0,
        })))
    }

    /// It is `now`, in microseconds: what arrives by then has arrived.
    pub fn advance(&self, now: u64) {
        let mut state = self.state();
        state.now = state.now.max(now);
        while let Some(Reverse((at, _, arrival))) = state.arrivals.peek().copied() {
            if at > state.now {
                break;
            }
            state.arrivals.pop();
            state.arrive(arrival);
        }
    }

    /// When something arrives next.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.state().arrivals.peek().map(|Reverse((at, ..))| *at)
    }

    /// Whether the driver of `shard` has something to tell: a tick of it would not rest.
    #[must_use]
    pub fn has_news(&self, shard: usize) -> bool {
        let state = self.state();
        let port = &state.ports[shard];
        port.waker.is_called()
            || (port.accepting && !port.backlog.is_empty())
            || port.closing
            || port.open.iter().any(|link| state.links[link.0 as usize].has_news(state.now))
    }

    /// A peer connects to one of the shards that listen.
    #[must_use]
    pub fn connect(&self, peer: SocketAddr, line: Line) -> LinkId {
        let mut state = self.state();
        let link = LinkId(u32::try_from(state.links.len()).expect("links are counted in 32 bits"));
        state.links.push(Link::new(peer, line));
        let listening: Vec<usize> =
            (0..state.ports.len()).filter(|shard| state.ports[*shard].listening).collect();
        match state.random.choice(&listening).copied() {
            Some(shard) => {
                let at = state.now + line.latency_us;
                state.schedule(at, Arrival::Syn(link, shard));
            }
            None => state.refuse(link),
        }
        link
    }

    /// A peer sends; returns how many of `bytes` were taken.
    #[must_use]
    pub fn send(&self, link: LinkId, bytes: &[u8]) -> usize {
        let mut state = self.state();
        let up = &mut state.link(link).up;
        let taken = bytes.len().min(up.room());
        if taken > 0 && !up.finished {
            state.transmit(link, Way::Up, Packet::Bytes(bytes[..taken].to_vec()));
        }
        taken
    }

    /// A peer reads up to `bytes_max`.
    #[must_use]
    pub fn receive(&self, link: LinkId, bytes_max: usize) -> Vec<u8> {
        self.state().link(link).down.read(bytes_max)
    }

    /// How many bytes of what the peer has sent the server has read.
    #[must_use]
    pub fn heard(&self, link: LinkId) -> u64 {
        let state = self.state();
        let up = &state.links[link.0 as usize].up;
        up.sent - up.outstanding as u64
    }

    /// What a peer knows of its connection.
    #[must_use]
    pub fn view(&self, link: LinkId) -> PeerView {
        let state = self.state();
        let down = &state.links[link.0 as usize].down;
        let readable = down.arrived.len();
        PeerView { readable, ended: down.fin && readable == 0, reset: down.reset }
    }

    /// A peer ends its stream; it still reads.
    pub fn finish(&self, link: LinkId) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.link(link).up.finished, true) {
            state.transmit(link, Way::Up, Packet::Fin);
        }
    }

    /// A peer closes both ways: what it has not read, or what comes later, is answered with a
    /// reset.
    pub fn close(&self, link: LinkId) {
        let unread = self.view(link).readable > 0;
        let mut state = self.state();
        if state.link(link).peer_gone {
            return;
        }
        state.link(link).peer_gone = true;
        state.link(link).down.clear();
        if unread {
            state.transmit(link, Way::Up, Packet::Reset);
        } else if !std::mem::replace(&mut state.link(link).up.finished, true) {
            state.transmit(link, Way::Up, Packet::Fin);
        }
    }

    /// A peer breaks the connection with a reset.
    pub fn reset(&self, link: LinkId) {
        let mut state = self.state();
        state.link(link).peer_gone = true;
        state.link(link).down.clear();
        state.transmit(link, Way::Up, Packet::Reset);
    }

    /// The peer's cable is pulled: from now on no packet passes, and nobody is told. Where the
    /// server has sent something, its kernel gives up `after` that.
    pub fn vanish(&self, link: LinkId, after: u64) {
        let mut state = self.state();
        state.link(link).cut = true;
        state.link(link).peer_gone = true;
        let at = state.now + after;
        state.schedule(at, Arrival::GivenUp(link, after));
    }

    /// Whether a driver still holds the server's end, or will.
    #[must_use]
    pub fn is_served(&self, link: LinkId) -> bool {
        !matches!(self.state().links[link.0 as usize].server, Server::Gone)
    }

    /// Links whose peers have something to read since the last call.
    #[must_use]
    pub fn take_touched(&self) -> Vec<LinkId> {
        std::mem::take(&mut self.state().touched)
    }

    /// Where in the stream to the peer of `link` a send ended before its end, since the last call.
    #[must_use]
    pub fn take_partial_sends(&self, link: LinkId) -> Vec<u64> {
        std::mem::take(&mut self.state().link(link).partial_sends)
    }

    /// Where in the stream to the peer of `link` each send ended, and when it was made, since the last
    /// call.
    #[must_use]
    pub fn take_sends(&self, link: LinkId) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.state().link(link).sends)
    }

    /// Sends to a socket that had been sent to in the same tick, so far.
    #[must_use]
    pub fn sent_again(&self) -> u64 {
        self.state().sent_again
    }

    /// Released sockets for which there was no room, so far.
    #[must_use]
    pub fn adopts_refused(&self) -> u64 {
        self.state().adopts_refused
    }

    /// Nothing arrives anywhere before `until`.
    pub fn set_outage(&self, until: u64) {
        let mut state = self.state();
        state.outage_until = until;
        state.tell(None, ("outage until", until));
    }

    /// From now on nothing goes wrong and every line is fast.
    pub fn heal(&self) {
        let mut state = self.state();
        let (buffers, buffer_bytes) = (state.faults.buffers, state.faults.buffer_bytes);
        state.faults = Faults { buffers, buffer_bytes, ..Faults::default() };
        state.outage_until = 0;
        let soon = state.now + HEALED_LATENCY_US;
        for link in &mut state.links {
            let latency_us = HEALED_LATENCY_US;
            link.line = Line { latency_us, bytes_per_s: 100_000_000, ..link.line };
            link.up.busy_until = link.up.busy_until.min(soon);
            link.down.busy_until = link.down.busy_until.min(soon);
        }
        // What is on its way arrives soon, in its order.
        let arrivals = std::mem::take(&mut state.arrivals);
        state.arrivals = arrivals
            .into_iter()
            .map(|Reverse((at, order, arrival))| match arrival {
                Arrival::GivenUp(..) => Reverse((at, order, arrival)),
                _ => Reverse((at.min(soon), order, arrival)),
            })
            .collect();
    }

    /// Something that somebody outside of the network did or saw.
    pub fn tell(&self, link: Option<LinkId>, what: impl std::hash::Hash + std::fmt::Debug) {
        self.state().tell(link, what);
    }

    /// What happened so far.
    #[must_use]
    pub fn log(&self) -> RefMut<'_, Log> {
        RefMut::map(self.state(), |state| &mut state.log)
    }

    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }
}

impl State {
    pub(super) fn tell(
        &mut self,
        link: Option<LinkId>,
        what: impl std::hash::Hash + std::fmt::Debug,
    ) {
        self.log.tell(self.now, link, what);
    }

    pub(super) fn link(&mut self, link: LinkId) -> &mut Link {
        &mut self.links[link.0 as usize]
    }

    /// A driver looks again at `at`.
    pub(super) fn nudge_at(&mut self, at: u64) {
        self.schedule(at, Arrival::Nudge);
    }

    /// Sends `packet` through a pipe of `link`.
    pub(super) fn transmit(&mut self, id: LinkId, way: Way, packet: Packet) {
        let (now, outage_until) = (self.now, self.outage_until);
        let link = self.link(id);
        let (cut, line) = (link.cut, link.line);
        let pipe = link.pipe(way);
        let mut travel = line.latency_us;
        if let Packet::Bytes(bytes) = &packet {
            pipe.outstanding += bytes.len();
            pipe.sent += bytes.len() as u64;
            travel += bytes.len() as u64 * 1_000_000 / line.bytes_per_s;
        }
        if cut {
            return; // What was sent stays outstanding: nobody acknowledges it.
        }
        let at = (now.max(outage_until) + travel).max(pipe.busy_until);
        pipe.busy_until = at;
        pipe.flying.push_back(packet);
        self.schedule(at, Arrival::Packet(id, way));
    }

    /// The server closes its end.
    pub(super) fn close_server(&mut self, id: LinkId) {
        let link = self.link(id);
        link.server = Server::Gone;
        // RFC 1122 4.2.2.13: closing with unread bytes, or bytes coming later, resets.
        let unread = !link.up.arrived.is_empty();
        link.up.clear();
        if unread && !link.up.reset {
            // The kernel forgets what it has not sent yet, too.
            link.down.flying.clear();
            self.transmit(id, Way::Down, Packet::Reset);
        } else if !std::mem::replace(&mut link.down.finished, true) {
            self.transmit(id, Way::Down, Packet::Fin);
        }
    }

    /// Nobody listens.
    fn refuse(&mut self, id: LinkId) {
        self.link(id).server = Server::Gone;
        self.transmit(id, Way::Down, Packet::Reset);
    }

    fn schedule(&mut self, at: u64, arrival: Arrival) {
        self.order += 1;
        self.arrivals.push(Reverse((at, self.order, arrival)));
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Nudge => {}
            Arrival::Syn(link, shard) if self.ports[shard].listening => {
                self.ports[shard].backlog.push_back(link);
            }
            Arrival::Syn(link, _) => self.refuse(link),
            Arrival::Packet(link, way) => self.arrive_packet(link, way),
            Arrival::GivenUp(id, after) => {
                let link = self.link(id);
                // Without anything unacknowledged the kernel has no reason to give up.
                if link.down.outstanding > link.down.arrived.len() {
                    link.up.reset = true;
                } else if !matches!(link.server, Server::Gone) {
                    let at = self.now + after;
                    self.schedule(at, arrival);
                }
            }
        }
    }

    fn arrive_packet(&mut self, id: LinkId, way: Way) {
        let discards = {
            let permille = self.faults.reset_discards;
            strikes(&mut self.random, permille)
        };
        let link = self.link(id);
        if link.cut {
            return;
        }
        let is_gone = match way {
            Way::Up => matches!(link.server, Server::Gone),
            Way::Down => link.peer_gone,
        };
        let pipe = link.pipe(way);
        // A reset on the other side may have emptied the pipe.
        let Some(packet) = pipe.flying.pop_front() else { return };
        match packet {
            Packet::Bytes(bytes) if is_gone => {
                pipe.outstanding -= bytes.len();
                let (back, has_reset) = match way {
                    Way::Up => (Way::Down, link.down.reset),
                    Way::Down => (Way::Up, link.up.reset),
                };
                if !has_reset {
                    self.transmit(id, back, Packet::Reset);
                }
            }
            Packet::Bytes(bytes) => pipe.arrived.extend(bytes),
            Packet::Fin => pipe.fin = true,
            Packet::Reset => {
                pipe.reset = true;
                if discards {
                    pipe.clear();
                }
                // Nothing more leaves from where the reset arrived.
                let other = match way {
                    Way::Up => &mut link.down,
                    Way::Down => &mut link.up,
                };
                other.finished = true;
            }
        }
        if way == Way::Down {
            self.touched.push(id);
        }
    }
}

impl Link {
    pub(super) fn pipe(&mut self, way: Way) -> &mut super::link::Pipe {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}

/// How a connection that a reset has come for fails.
pub(super) fn broken(link: &Link) -> io::Error {
    let kind = if link.cut { io::ErrorKind::TimedOut } else { io::ErrorKind::ConnectionReset };
    kind.into()
}
