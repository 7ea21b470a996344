//! A whole shard over a driver made of [`paper`].

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::conn::{self, EndReason};
use crate::hub::{self, Capacity, Delivery, Letter, Request, Rule, Rules};
use crate::io::epoll::Epoll;
use crate::io::{Buffer, SocketId};
use crate::limits::{
    LINGER_BYTES_MAX, MAILBOX_LETTERS_MAX, REPLIES_BYTES_MAX, TIMERS_PER_TICK_MAX,
};
use crate::proto::http::Refusal;
use crate::proto::ws::close;
use crate::proto::ws::frame::{Opcode, write_masked};

mod paper;
mod presence;
mod publish;
mod recall;

use paper::{Paper, Socket};

const SOCKET: SocketId = Key::new(0, 0);

const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

struct Fixed(Time);

impl Clock for Fixed {
    fn now(&mut self) -> Time {
        self.0
    }
}

/// A shard with one client, whose WebSocket is open.
struct One {
    shard: Shard<Paper>,
    /// The post of a second shard, if there is one.
    neighbour: Post,
    now: Time,
}

impl One {
    fn new() -> Self {
        Self::with(1 << 20, 1)
    }

    fn with(memory_bytes_max: usize, shards: u16) -> Self {
        Self::with_room(memory_bytes_max, shards, MailboxRoom::default())
    }

    fn with_room(memory_bytes_max: usize, shards: u16, room: MailboxRoom) -> Self {
        Self::with_rules(memory_bytes_max, shards, room, Vec::new())
    }

    fn with_rules(
        memory_bytes_max: usize,
        shards: u16,
        room: MailboxRoom,
        rules: Vec<hub::ChannelRule>,
    ) -> Self {
        let settings = Settings {
            conn: conn::Settings {
                message_bytes_max: 1_000,
                handshake_timeout: Duration::from_secs(5),
                body_bytes_max: 10_000,
                channels_per_client_max: 8,
                request_timeout: Duration::from_secs(8),
                cors: crate::proto::http::Cors::Off,
                ping_interval: Duration::from_secs(25),
                pong_timeout: Duration::from_secs(10),
                idle_timeout: None,
                close_timeout: Duration::from_secs(3),
                compression: true,
                compression_window_bytes_max: 4096,
                echo: false,
                pages: Vec::new(),
            },
            hub: hub::Settings {
                shard: 0,
                shards,
                home_seed: 1,
                outbox: Capacity { messages: 16, bytes: 65_536 },
                channels_per_client_max: 8,
                channels_max: 100,
                compression_level: 2,
                memory_bytes_max,
                rules: Rules { rules, default: Rule::default() },
            },
            drain_window: Duration::from_secs(30),
            held_bytes_max: 1 << 20,
        };
        let epoll = Epoll::new(&crate::io::Settings::default()).expect("a driver");
        let waker = epoll.waker();
        let ((address, mailbox), (neighbour, its_mailbox)) = (mailbox(room), mailbox(room));
        let all = [(address, waker.clone()), (neighbour, waker.clone())];
        let driver = Paper {
            sockets: BTreeMap::from([(SOCKET, Socket { room: usize::MAX, ..Socket::default() })]),
            completions: VecDeque::new(),
            received: Vec::new(),
            sent_to: Vec::new(),
            waker,
        };
        let shared = Shared {
            post: Post::new(mailbox, all.clone()),
            admission: Arc::new(Admission::new(1, 10, None)),
            metrics: Arc::default(),
        };
        let shard = Shard::new(settings, driver, shared, fastrand::Rng::with_seed(1));
        let neighbour = Post::new(its_mailbox, all);
        let mut one = Self { shard, neighbour, now: Time::START };
        let peer = ([127, 0, 0, 1], 1).into();
        one.shard.driver.completions.push_back(Completion::Accepted { socket: SOCKET, peer });
        one.send(UPGRADE);
        assert!(one.socket().sent.starts_with(b"HTTP/1.1 101 "));
        one
    }

    fn tick(&mut self) -> bool {
        self.shard.tick(self.now, &mut Fixed(self.now)).expect("paper does not break")
    }

    /// Another peer connects.
    fn connect(&mut self, index: u32) -> SocketId {
        let (socket, peer) = (Key::new(index, 0), ([127, 0, 0, 1], 2).into());
        let driver = &mut self.shard.driver;
        driver.sockets.insert(socket, Socket { room: usize::MAX, ..Socket::default() });
        driver.completions.push_back(Completion::Accepted { socket, peer });
        self.tick();
        socket
    }

    /// The peer sends `bytes`, and the shard hears them.
    fn send(&mut self, bytes: &[u8]) {
        self.send_from(SOCKET, bytes);
    }

    fn send_from(&mut self, socket: SocketId, bytes: &[u8]) {
        self.arrives(socket, bytes);
        self.tick();
    }

    /// The peer sends `bytes`, which the next tick hears.
    fn arrives(&mut self, socket: SocketId, bytes: &[u8]) {
        let driver = &mut self.shard.driver;
        let buffer = Buffer { index: driver.received.len() as u32, bytes: bytes.len() as u32 };
        driver.received.push(bytes.to_vec());
        driver.completions.push_back(Completion::Received { socket, buffer });
    }

    fn text(&mut self, text: &str) {
        self.send(&frame(Opcode::Text, text.as_bytes()));
    }

    fn publish(&mut self, channel: &str) {
        self.text(&format!(r#"{{"type":"publish","id":1,"channel":"{channel}","payload":1}}"#));
    }

    /// Attaches the second shard to a channel whose home is here, once something was published to
    /// it, and returns its name.
    fn attach_neighbour(&mut self) -> String {
        // The first that is acknowledged at once has its home here.
        let mut names = (0..).map(|number| format!("c{number}"));
        let at_home = |name: &String| {
            self.publish(name);
            self.acks() == 1
        };
        let channel = names.find(at_home).expect("one of them");
        while self.neighbour.next_letter().is_some() {
            self.tick();
        }
        let attach = Request::Attach { channel: channel.as_str().into(), shard: 1, topic: SOCKET };
        self.neighbour.send(0, Letter::Request(attach));
        self.tick();
        channel
    }

    fn acks(&mut self) -> usize {
        let sent = &self.socket().sent;
        sent.windows(12).filter(|bytes| bytes == br#""type":"ack""#).count()
    }

    fn said_to(&self, socket: SocketId) -> String {
        String::from_utf8_lossy(&self.shard.driver.sockets[&socket].sent).into_owned()
    }

    fn socket(&mut self) -> &mut Socket {
        self.shard.driver.sockets.get_mut(&SOCKET).expect("there from the start")
    }
}

fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_masked(&mut out, opcode, payload, [1, 2, 3, 4]);
    out
}

fn close_frame(code: u16) -> Vec<u8> {
    let mut out = Vec::new();
    close::write_close_masked(&mut out, code, "", [1, 2, 3, 4]);
    out
}

/// What was seen: a peer that answered our close frame was let hang until the close timeout. Why:
/// what is to be done with the socket was asked only when something had been sent, and after the
/// answer nothing was. Now it is asked after everything a closing peer says.
#[test]
fn the_socket_is_closed_as_soon_as_the_peer_has_answered_the_close_frame() {
    let mut one = One::new();
    one.send(&frame(Opcode::Binary, b"not taken"));
    assert!(!one.socket().closed, "the peer's turn");
    one.send(&close_frame(1003));
    assert!(one.socket().closed);
    assert!(one.shard.conns.is_empty());
}

#[test]
fn a_close_frame_behind_a_malformed_message_is_heard() {
    let mut one = One::new();
    one.send(&[frame(Opcode::Text, b"[1"), close_frame(1000)].concat());
    one.tick();
    assert!(one.socket().closed);
}

#[test]
fn a_lingering_peer_that_says_too_much_is_cut_off() {
    let mut one = One::new();
    one.send(b"\x81\x02hi");
    assert!(one.socket().shut && !one.socket().closed);
    for _ in 1..LINGER_BYTES_MAX / 4_096 {
        one.send(&[0; 4_096]);
    }
    assert!(!one.socket().closed);
    one.send(&[0; 2 * 4_096]);
    assert!(one.socket().closed);
}

/// What was seen: a client that published with ids and never read its acks was read from until
/// the whole shard was at its memory ceiling. Why: acks come after the tick's reading, and the
/// next reading looked at the replies that wait only when it had one to add.
#[test]
fn a_client_that_does_not_read_its_acks_is_not_read_from() {
    let mut one = One::new();
    one.socket().room = 0;
    let mut publishes = 0;
    while !one.socket().paused {
        publishes += 1;
        one.text(r#"{"type":"publish","id":1,"channel":"a","payload":1}"#);
        assert!(one.shard.hub.replies_bytes() < 2 * REPLIES_BYTES_MAX, "after {publishes}");
    }
    one.socket().room = usize::MAX;
    one.shard.driver.completions.push_back(Completion::Writable { socket: SOCKET });
    one.tick();
    assert!(!one.socket().paused);
    assert_eq!(one.acks(), publishes);
}

#[test]
fn a_client_that_floods_pings_and_reads_no_pong_is_not_read_from() {
    let mut one = One::new();
    one.socket().room = 0;
    while !one.socket().paused {
        one.send(&frame(Opcode::Ping, &[0; 125]).repeat(10));
        assert!(one.shard.hub.replies_bytes() < 2 * REPLIES_BYTES_MAX);
    }
}

#[test]
fn a_drained_client_gets_what_waits_then_the_good_bye_and_the_shard_ends() {
    let mut one = One::new();
    one.text(r#"{"type":"subscribe","channel":"a"}"#);
    one.socket().room = 0;
    one.text(r#"{"type":"publish","channel":"a","payload":"last"}"#);
    one.shard.begin_drain(one.now);
    one.now = one.now + Duration::from_secs(28);
    assert!(one.tick());
    one.socket().room = usize::MAX;
    one.shard.driver.completions.push_back(Completion::Writable { socket: SOCKET });
    assert!(one.tick());
    let sent = String::from_utf8_lossy(&one.socket().sent).into_owned();
    let places = ["goaway", r#""last""#, "the server is going away"].map(|said| sent.find(said));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} in {sent}");
    one.send(&close_frame(1001));
    assert!(one.socket().closed);
    assert!(!one.tick(), "nobody is left");
}

/// What was seen: a peer that another shard passed on after this one had begun to drain was
/// welcomed, never told to go, and cut off without a word when the window ended.
#[test]
fn who_comes_while_the_shard_drains_is_told_to_come_back() {
    let mut one = One::new();
    one.shard.begin_drain(one.now);
    let late = one.connect(1);
    let late = &one.shard.driver.sockets[&late];
    assert!(late.sent.starts_with(b"HTTP/1.1 503 ") && late.shut);
    assert_eq!(one.shard.admission.connections(), 1);
}

#[test]
fn at_the_memory_ceiling_who_reads_no_replies_is_cut_off_and_the_others_stay() {
    let mut one = One::with(8_000, 1);
    let other = one.connect(1);
    one.send_from(other, UPGRADE);
    one.socket().room = 0;
    for _ in 0..7 {
        one.send(&frame(Opcode::Ping, &[0; 125]).repeat(10));
    }
    assert!(one.socket().closed);
    assert_eq!(one.shard.metrics.ended[EndReason::MemoryCeiling as usize].get(), 1);
    assert_eq!(one.shard.hub.replies_bytes(), 0);
    assert!(!one.shard.driver.sockets[&other].closed);
    assert_eq!(one.shard.admission.connections(), 1);
}

/// What could happen: peers that each sent most of a request head held as much as they liked. Why:
/// only open clients gave way.
#[test]
fn at_the_memory_ceiling_incomplete_request_heads_give_way_too() {
    let mut one = One::new();
    one.shard.settings.held_bytes_max = 1_000;
    let (small, large) = (one.connect(1), one.connect(2));
    one.send_from(small, &UPGRADE[..100]);
    one.send_from(large, format!("GET / HTTP/1.1\r\nCookie: {}", "x".repeat(2_000)).as_bytes());
    one.tick();
    assert!(one.shard.driver.sockets[&large].sent.starts_with(b"HTTP/1.1 503 "));
    assert!(one.shard.held_bytes <= 900);
    one.send_from(small, &UPGRADE[100..]);
    assert!(one.shard.driver.sockets[&small].sent.starts_with(b"HTTP/1.1 101 "));
}

/// What could happen: who was in its handshake when the drain began got 1001 without a word of when
/// to come back, or a FIN in answer to its request.
#[test]
fn who_is_in_its_handshake_when_the_drain_begins_is_told_when_to_come_back() {
    let mut one = One::new();
    let (quick, slow) = (one.connect(1), one.connect(2));
    one.shard.begin_drain(one.now);
    one.send_from(quick, UPGRADE);
    let heard = String::from_utf8_lossy(&one.shard.driver.sockets[&quick].sent).into_owned();
    assert!(heard.contains("goaway"), "{heard}");
    one.shard.settings.conn.handshake_timeout = Duration::from_secs(60);
    one.now = one.now + Duration::from_secs(28);
    one.tick();
    one.tick();
    let slow = &one.shard.driver.sockets[&slow];
    assert!(slow.sent.starts_with(b"HTTP/1.1 503 ") && slow.shut);
}

#[test]
fn a_crowd_of_timers_is_spread_over_ticks_and_nobody_is_forgotten() {
    const CROWD: u32 = 2 * TIMERS_PER_TICK_MAX as u32;
    let mut one = One::new();
    one.shard.admission = Arc::new(Admission::new(1, 1 + CROWD as usize, None));
    one.shard.admission.enter([127, 0, 0, 1].into()).expect("room");
    for index in 1..=CROWD {
        one.connect(index);
    }
    one.now = one.now + Duration::from_secs(6);
    let refused = |one: &One| {
        let sockets = one.shard.driver.sockets.values();
        sockets.filter(|socket| socket.sent.starts_with(b"HTTP/1.1 408 ")).count()
    };
    one.tick();
    assert!(refused(&one) <= TIMERS_PER_TICK_MAX);
    assert_eq!(one.shard.rest(one.now), Some(Duration::ZERO));
    one.tick();
    one.tick();
    assert_eq!(refused(&one), CROWD as usize);
    let timeouts = &one.shard.metrics.refused[Refusal::RequestTimeout.index()];
    assert_eq!(timeouts.get(), u64::from(CROWD));
}

/// What could happen: a message was acknowledged while it still waited on the shelf before a full
/// mailbox, so a shard that drained just then closed its subscribers without it.
#[test]
fn an_ack_waits_until_the_message_is_in_the_mailbox_of_every_shard_with_subscribers() {
    let mut one = One::with(1 << 20, 2);
    let channel = one.attach_neighbour();
    for _ in 0..MAILBOX_LETTERS_MAX {
        let letter = Letter::Delivery(Delivery::Refused { topic: SOCKET });
        one.neighbour.send(1, letter);
    }
    one.publish(&channel);
    one.tick();
    assert_eq!(one.acks(), 1, "the message waits on the shelf");
    while one.neighbour.next_letter().is_some() {}
    one.tick();
    assert_eq!(one.acks(), 2);
    let letter = one.neighbour.next_letter();
    assert!(matches!(letter, Some(Letter::Delivery(Delivery::Messages { .. }))), "{letter:?}");
}

/// What was seen: while a mailbox stayed full because more was published in every tick, nobody was
/// told that anything was taken, and the acks that waited grew without bound. Why: a tick looked for
/// empty shelves only after it had filled them again.
#[test]
fn acks_come_also_while_every_tick_fills_a_mailbox_again() {
    let room = MailboxRoom { letters: 1, ..MailboxRoom::default() };
    let mut one = One::with_room(1 << 20, 2, room);
    let channel = one.attach_neighbour();
    while one.neighbour.next_letter().is_some() {}
    one.publish(&channel);
    for tick in 1..20 {
        one.publish(&channel);
        assert!(one.shard.post.holds_deliveries(), "the mailbox has room for one letter");
        assert_eq!(one.acks(), 1 + tick, "all but the last one, which waits on the shelf");
        let letter = one.neighbour.next_letter();
        assert!(matches!(letter, Some(Letter::Delivery(_))), "{letter:?}");
    }
}

/// What was seen: a peer that was passed on, and for which the other shard's driver had no room,
/// was counted as accepted and never as ended.
#[test]
fn a_passed_on_peer_without_room_ends_with_a_reason() {
    let mut one = One::with(1 << 20, 2);
    let socket = std::fs::File::open("/dev/null").expect("it is always there").into();
    one.neighbour.hand_over(0, socket, ([127, 0, 0, 1], 3).into()).expect("there is room");
    one.tick();
    assert_eq!(one.shard.metrics.ended[EndReason::ServerFull as usize].get(), 1);
    assert_eq!(one.shard.conns.len(), 1, "the one that was there before");
}

/// What was seen: a channel whose last subscriber broke off while it was sent to stayed attached at
/// its home, until something else happened on the subscriber's shard. Why: letters were posted
/// before the sends of a tick, and the rest began after them.
#[test]
fn a_subscriber_that_breaks_off_while_it_is_sent_to_is_told_to_its_channels_home_at_once() {
    let mut one = One::with(1 << 20, 2);
    let home = hub::Settings { shard: 1, ..one.shard.settings.hub.clone() };
    let mut home = Hub::new(home, fastrand::Rng::with_seed(2));
    let asked = (0..).find_map(|number| {
        one.text(&format!(r#"{{"type":"subscribe","channel":"c{number}"}}"#));
        one.neighbour.next_letter()
    });
    home.hear(asked.expect("one of them"), one.now);
    let mut letters = Vec::new();
    home.take_letters(&mut letters);
    for (shard, letter) in letters {
        one.neighbour.send(shard, letter);
    }
    one.tick();
    one.socket().broken = true;
    one.send(&frame(Opcode::Ping, b""));
    assert!(one.socket().closed);
    let told = one.neighbour.next_letter();
    assert!(matches!(told, Some(Letter::Request(Request::Detach { .. }))), "{told:?}");
}

/// What was seen: while another shard's mailbox stayed full, clients that were not read from for it
/// were closed as if they had not answered their pings.
#[test]
fn who_is_not_read_from_because_others_cannot_keep_up_is_not_held_to_its_pong() {
    let room = MailboxRoom { letters: 1, ..MailboxRoom::default() };
    let mut one = One::with_room(1 << 20, 2, room);
    let channel = one.attach_neighbour();
    one.publish(&channel);
    one.publish(&channel);
    assert!(one.socket().paused, "the neighbour's mailbox is full");
    for _ in 0..100 {
        one.now = one.now + Duration::from_secs(1);
        one.tick();
    }
    while one.socket().paused {
        assert!(one.neighbour.next_letter().is_some(), "there is what the mailbox is full of");
        one.tick();
    }
    for _ in 0..20 {
        one.now = one.now + Duration::from_secs(1);
        one.tick();
        assert!(!one.socket().closed, "it could not be heard");
    }
    for _ in 0..40 {
        one.now = one.now + Duration::from_secs(1);
        one.tick();
    }
    assert!(one.socket().closed, "it could, and said nothing");
}

/// What was seen: a client that read slowly, and whose replies waited for longer than a ping and its
/// pong may take, was closed for not answering, because its answer was not read either.
#[test]
fn who_reads_its_replies_slowly_is_alive() {
    let mut one = One::new();
    one.socket().room = 0;
    while !one.socket().paused {
        one.send(&frame(Opcode::Ping, &[0; 125]).repeat(10));
    }
    for _ in 0..100 {
        one.now = one.now + Duration::from_secs(1);
        one.socket().room = 10;
        one.shard.driver.completions.push_back(Completion::Writable { socket: SOCKET });
        one.tick();
        assert!(!one.socket().closed);
    }
    for _ in 0..60 {
        one.now = one.now + Duration::from_secs(1);
        one.tick();
    }
    assert!(one.socket().closed, "it reads no more");
}
