//! The third driver: a network made of memory, in which every event follows from a seed.
//!
//! A [`Network`] joins any number of peers to the drivers ([`Sim`]) of any number of shards, all on
//! one thread. It carries bytes with latency, bandwidth and full buffers, and has resets, pulled
//! cables and outages; the drivers fail in every way that [`Driver`] allows, as often as
//! [`Faults`] says. Time stands still until the world moves it on, so a harvest never rests: the
//! world asks the shard how long it would, and the network whether it has news for it.
//!
//! What the contract forbids is asserted here, so that a shard which breaks it is found out: a
//! send after the FIN, two sends for one socket in one call, a release of a socket that has lived.

mod faults;
mod link;
mod log;
mod network;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

pub use faults::Faults;
pub use link::{Line, LinkId};
pub use log::Log;
pub use network::{Network, PeerView};

use super::sockets::Sockets;
use super::{
    Buffer, Completion, Description, Driver, SLICES_PER_SEND_MAX, Send, Sent, SocketId, Waker,
};
use faults::strikes;
use link::{Held, Packet, Server, Way};
use network::{Port, State, broken};

/// One shard's driver in a simulated network.
#[derive(Debug)]
pub struct Sim {
    network: Network,
    shard: usize,
    sockets: Sockets<LinkId>,
    /// Received in this tick.
    lent: Vec<Vec<u8>>,
    /// Sent to in this tick.
    sent_to: BTreeSet<SocketId>,
    waker: Waker,
}

/// A fact, for the log.
#[derive(Debug, Hash)]
enum Fact {
    Accepted { shard: usize, socket: SocketId },
    AcceptFailed { shard: usize },
    Received { bytes: usize },
    EndOfStream,
    Writable,
    Failed,
    ListenerClosed { shard: usize },
    Woken { shard: usize },
    Sent { bytes: usize, taken: usize, digest: u64 },
    SendFailed,
    Paused,
    Resumed,
    Shut,
    Closed,
    Released { shard: usize },
    Adopted { shard: usize, socket: SocketId },
    AdoptFailed { shard: usize },
}

impl Sim {
    /// The driver of the network's next shard, counted from 0.
    ///
    /// # Errors
    /// When there is no descriptor left for its waker.
    pub fn new(network: &Network) -> io::Result<Self> {
        let waker = Waker::new()?;
        let mut state = network.state();
        let shard = state.ports.len();
        state.ports.push(Port::new(waker.clone()));
        drop(state);
        let (sockets, lent, sent_to) = (Sockets::new(), Vec::new(), BTreeSet::new());
        Ok(Self { network: network.clone(), shard, sockets, lent, sent_to, waker })
    }

    /// Opens the server's end of `link` here.
    fn open(&mut self, link: LinkId) -> SocketId {
        let socket = self.sockets.insert(link);
        let shard = self.shard;
        let mut state = self.network.state();
        state.ports[shard].open.push(link);
        state.link(link).server = Server::Open(Held {
            socket,
            touched: false,
            paused: false,
            awaiting: false,
            writable_at: 0,
            told_end: false,
            told_failed: false,
        });
        socket
    }

    /// Takes `socket` out of this driver.
    fn take(&mut self, socket: SocketId) -> LinkId {
        let link = self.sockets.remove(socket).expect("a socket that is open");
        self.sockets.free(socket);
        self.network.state().ports[self.shard].open.retain(|open| *open != link);
        link
    }

    fn change(&mut self, socket: SocketId, fact: Fact, change: impl FnOnce(&mut Held)) {
        let link = *self.sockets.get(socket).expect("a socket that is open");
        let mut state = self.network.state();
        change(state.link(link).held().expect("it is open here"));
        state.tell(Some(link), fact);
    }

    fn accept(&mut self, completions: &mut Vec<Completion>, completions_max: usize) {
        loop {
            let mut state = self.network.state();
            let permille = state.faults.accept_fails;
            let port = &mut state.ports[self.shard];
            if !port.accepting || port.backlog.is_empty() || completions.len() >= completions_max {
                break;
            }
            if !port.closing && strikes(&mut state.random, permille) {
                state.ports[self.shard].accepting = false;
                state.tell(None, Fact::AcceptFailed { shard: self.shard });
                let errors = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
                let error = state.random.choice(errors).expect("there are four");
                let error = io::Error::from_raw_os_error(error);
                completions.push(Completion::AcceptFailed { error });
                break;
            }
            let link = state.ports[self.shard].backlog.pop_front().expect("looked at just now");
            let peer = state.link(link).peer;
            drop(state);
            let socket = self.open(link);
            self.network.tell(Some(link), Fact::Accepted { shard: self.shard, socket });
            completions.push(Completion::Accepted { socket, peer });
        }
        let mut state = self.network.state();
        let port = &mut state.ports[self.shard];
        if port.closing && port.backlog.is_empty() {
            (port.closing, port.accepting) = (false, false);
            state.tell(None, Fact::ListenerClosed { shard: self.shard });
            completions.push(Completion::ListenerClosed);
        }
    }

    /// What `link` has to tell.
    fn news(&mut self, link: LinkId, completions: &mut Vec<Completion>) {
        let mut state = self.network.state();
        let State { now, random, faults, links, log, .. } = &mut *state;
        let (now, id) = (*now, link);
        let link = &mut links[link.0 as usize];
        let Server::Open(held) = &link.server else { return };
        let (socket, is_writable) = (held.socket, link.is_writable(held, now));
        let mut tell = |fact| log.tell(now, Some(id), fact);
        if is_writable {
            link.held().expect("it is open").awaiting = false;
            tell(Fact::Writable);
            completions.push(Completion::Writable { socket });
        }
        if link.held().expect("it is open").paused {
            return;
        }
        // A kernel may have several receives to tell of one socket.
        while !link.up.arrived.is_empty() && self.lent.len() < faults.buffers {
            let mut bytes = faults.buffer_bytes;
            let is_partial = strikes(random, faults.receive_partial);
            if is_partial {
                bytes = random.usize(1..=link.up.arrived.len().min(bytes));
            }
            let bytes = link.up.read(bytes);
            tell(Fact::Received { bytes: bytes.len() });
            let buffer = Buffer { index: self.lent.len() as u32, bytes: bytes.len() as u32 };
            self.lent.push(bytes);
            link.held().expect("it is open").touched = true;
            completions.push(Completion::Received { socket, buffer });
            if is_partial && random.bool() {
                return;
            }
        }
        if !link.up.arrived.is_empty() {
            return;
        }
        let (fin, reset, error) = (link.up.fin, link.up.reset, broken(link));
        let held = link.held().expect("it is open");
        if reset && !std::mem::replace(&mut held.told_failed, true) {
            held.touched = true;
            tell(Fact::Failed);
            completions.push(Completion::Failed { socket, error });
        } else if fin && !reset && !std::mem::replace(&mut held.told_end, true) {
            held.touched = true;
            tell(Fact::EndOfStream);
            completions.push(Completion::EndOfStream { socket });
        }
    }

    fn send_one(&mut self, send: &Send<'_>) -> Sent {
        assert!(
            (1..=SLICES_PER_SEND_MAX).contains(&send.slices.len()),
            "a send has 1 to {SLICES_PER_SEND_MAX} slices"
        );
        let Some(id) = self.sockets.get(send.socket).copied() else {
            return Sent::Failed(io::ErrorKind::NotConnected.into());
        };
        let mut state = self.network.state();
        let State { random, faults, links, .. } = &mut *state;
        let link = &mut links[id.0 as usize];
        assert!(!link.down.finished || link.up.reset, "nothing is sent after our FIN");
        link.held().expect("it is open here").touched = true;
        if link.up.reset {
            let error = broken(link);
            state.tell(Some(id), Fact::SendFailed);
            return Sent::Failed(error);
        }
        let bytes: Vec<u8> = send.slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let mut taken = bytes.len().min(link.down.room());
        if strikes(random, faults.send_full) {
            taken = 0;
        } else if taken > 1 && strikes(random, faults.send_short) {
            taken = random.usize(1..taken);
        }
        let (wanted, digest) = (bytes.len(), log::digest_of(&bytes[..taken]));
        if taken < wanted {
            link.partial_sends.push(link.down.sent + taken as u64);
        }
        state.tell(Some(id), Fact::Sent { bytes: wanted, taken, digest });
        if taken > 0 {
            let now = state.now;
            let link = state.link(id);
            link.sends.push((link.down.sent + taken as u64, now));
            state.transmit(id, Way::Down, Packet::Bytes(bytes[..taken].to_vec()));
        }
        if taken == wanted { Sent::Whole } else { Sent::Partial(taken) }
    }
}

impl Driver for Sim {
    /// The listener is the network's own; the descriptor only stands for it.
    fn listen(&mut self, listener: OwnedFd) -> io::Result<()> {
        drop(listener);
        let port = &mut self.network.state().ports[self.shard];
        (port.listening, port.accepting) = (true, true);
        Ok(())
    }

    fn stop_listening(&mut self) {
        let port = &mut self.network.state().ports[self.shard];
        (port.closing, port.accepting) = (port.listening, true);
        port.listening = false;
    }

    fn resume_accepting(&mut self) {
        let port = &mut self.network.state().ports[self.shard];
        port.accepting = port.listening || port.closing;
    }

    fn adopt(&mut self, socket: OwnedFd) -> io::Result<SocketId> {
        let mut state = self.network.state();
        let link = state.released.remove(&socket.as_raw_fd()).expect("a socket that was released");
        let permille = state.faults.adopt_refused;
        if strikes(&mut state.random, permille) {
            state.adopts_refused += 1;
            state.tell(Some(link), Fact::AdoptFailed { shard: self.shard });
            state.close_server(link);
            return Err(io::Error::from_raw_os_error(libc::ENFILE));
        }
        drop(state);
        let socket = self.open(link);
        self.network.tell(Some(link), Fact::Adopted { shard: self.shard, socket });
        Ok(socket)
    }

    fn release(&mut self, socket: SocketId) -> Option<OwnedFd> {
        let link = *self.sockets.get(socket).expect("a socket that is open");
        let mut state = self.network.state();
        let held = state.link(link).held().expect("it is open here");
        assert!(!held.touched, "only a socket that nothing has happened to is released");
        let permille = state.faults.release_refused;
        if strikes(&mut state.random, permille) {
            return None;
        }
        // What travels between shards is a descriptor, so here is one; the network knows it.
        let token = OwnedFd::from(std::fs::File::open("/dev/null").ok()?);
        state.released.insert(token.as_raw_fd(), link);
        state.link(link).server = Server::Released;
        state.tell(Some(link), Fact::Released { shard: self.shard });
        drop(state);
        self.take(socket);
        Some(token)
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn harvest(
        &mut self,
        _rest: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        self.lent.clear();
        self.sent_to.clear();
        if self.waker.take_call() {
            self.network.tell(None, Fact::Woken { shard: self.shard });
            completions.push(Completion::Woken);
        }
        let mut state = self.network.state();
        let completions_max = state.faults.completions_max.max(2);
        let told_late = state.faults.told_late;
        let mut open = state.ports[self.shard].open.clone();
        if strikes(&mut state.random, told_late) {
            state.random.shuffle(&mut open);
            let told = state.random.usize(0..=open.len());
            open.truncate(told);
        }
        drop(state);
        self.accept(completions, completions_max);
        for link in open {
            if completions.len() >= completions_max {
                break;
            }
            self.news(link, completions);
        }
        Ok(())
    }

    fn received(&mut self, buffer: Buffer) -> &mut [u8] {
        let lent = self.lent.get_mut(buffer.index as usize).expect("a buffer of this tick");
        &mut lent[..buffer.bytes()]
    }

    fn send(&mut self, sends: &[Send<'_>], outcomes: &mut Vec<Sent>) {
        let sockets: BTreeSet<SocketId> = sends.iter().map(|send| send.socket).collect();
        assert_eq!(sockets.len(), sends.len(), "at most one send for a socket in one call");
        let mut again = 0;
        for socket in sockets {
            again += u64::from(!self.sent_to.insert(socket));
        }
        self.network.state().sent_again += again;
        outcomes.extend(sends.iter().map(|send| self.send_one(send)));
    }

    fn await_writable(&mut self, socket: SocketId) {
        let link = *self.sockets.get(socket).expect("a socket that is open");
        let mut state = self.network.state();
        let late = state.faults.writable_late_us_max;
        let at = state.now + state.random.u64(0..=late);
        let held = state.link(link).held().expect("it is open here");
        (held.awaiting, held.writable_at) = (true, at);
        state.nudge_at(at);
    }

    fn pause(&mut self, socket: SocketId) {
        self.change(socket, Fact::Paused, |held| held.paused = true);
    }

    fn resume(&mut self, socket: SocketId) {
        self.change(socket, Fact::Resumed, |held| held.paused = false);
    }

    fn quiet(&mut self, socket: SocketId) {
        self.sockets.get(socket).expect("a socket that is open");
    }

    fn shutdown(&mut self, socket: SocketId) {
        let link = *self.sockets.get(socket).expect("a socket that is open");
        let mut state = self.network.state();
        state.tell(Some(link), Fact::Shut);
        if !std::mem::replace(&mut state.link(link).down.finished, true) {
            state.transmit(link, Way::Down, Packet::Fin);
        }
    }

    fn close(&mut self, socket: SocketId) {
        let link = self.take(socket);
        let mut state = self.network.state();
        state.tell(Some(link), Fact::Closed);
        state.close_server(link);
    }

    fn describe(&self) -> Description {
        let notes = vec!["nothing leaves this process".to_owned()];
        Description { name: "sim", descriptors: "simulated", notes }
    }
}

impl Drop for Sim {
    /// A driver that ends closes its sockets, as a process does.
    fn drop(&mut self) {
        let mut state = self.network.state();
        for link in self.sockets.drain() {
            state.tell(Some(link), Fact::Closed);
            state.close_server(link);
        }
        let port = &mut state.ports[self.shard];
        (port.listening, port.accepting, port.closing) = (false, false, false);
        port.open.clear();
        for link in std::mem::take(&mut port.backlog) {
            state.close_server(link);
        }
    }
}

impl Port {
    fn new(waker: Waker) -> Self {
        let (backlog, open) = (Default::default(), Vec::new());
        Self { waker, listening: false, accepting: false, closing: false, backlog, open }
    }
}

/// Where peers come from, for worlds that need many addresses.
#[must_use]
pub fn peer_address(number: u32) -> SocketAddr {
    let [_, a, b, c] = number.to_be_bytes();
    SocketAddr::from(([10, a, b, c], 40_000))
}

#[cfg(test)]
mod tests;
