//! Who is there, seen through the doors of one shard.

use super::*;
use crate::hub::{ChannelRule, Presence};

const GRACE: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(500);

/// A shard whose channel `room` has presence, and its first client observes it.
fn observed() -> One {
    let presence = Presence { grace: Some(GRACE), events: Some(INTERVAL), ..Presence::default() };
    let rule = Rule { presence, ..Rule::default() };
    let rules = vec![ChannelRule { pattern: "room".into(), rule }];
    let mut one = One::with_rules(1 << 20, 1, MailboxRoom::default(), rules);
    one.text(r#"{"type":"subscribe","channel":"presence:room"}"#);
    one
}

impl One {
    /// What the socket has been sent since this was asked last.
    fn newly_said_to(&mut self, socket: SocketId) -> String {
        let socket = self.shard.driver.sockets.get_mut(&socket).expect("it is there");
        String::from_utf8_lossy(&std::mem::take(&mut socket.sent)).into_owned()
    }

    /// The answer to a request of the first client.
    fn asked(&mut self, request: &str) -> String {
        self.newly_said_to(SOCKET);
        self.text(&format!("{{\"id\":7,{request}}}"));
        self.newly_said_to(SOCKET)
    }

    /// Time goes on as long as the shard rests.
    fn rest_until_something_is_due(&mut self) -> Duration {
        let rest = self.shard.rest(self.now).expect("something is due");
        self.now = self.now + rest;
        self.tick();
        rest
    }
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

fn upgrade(target: &str) -> Vec<u8> {
    String::from_utf8_lossy(UPGRADE).replace("/ws", target).into_bytes()
}

#[test]
fn who_listens_is_there_whatever_the_door_and_is_called_as_the_url_says() {
    let mut one = observed();
    for (index, request) in [
        get("/sse?channel=room&user=sse"),
        get("/poll?channel=room&since=latest&user=p%20q"),
        upgrade("/raw/room?user=raw"),
        [upgrade("/ws?user=ann"), frame(Opcode::Text, br#"{"type":"subscribe","channel":"room"}"#)]
            .concat(),
        get("/sse?channel=room"),
    ]
    .into_iter()
    .enumerate()
    {
        let socket = one.connect(1 + index as u32);
        one.send_from(socket, &request);
    }
    let list = one.asked(r#""type":"presence","channel":"room""#);
    let users = ["ann", "p q", "raw", "sse"]
        .map(|name| format!(r#"{{"user":"{name}","connections":1}}"#))
        .join(",");
    assert!(list.contains(&format!(r#""total":4,"more":false,"users":[{users}]"#)), "{list}");
    let stats = one.asked(r#""type":"presence_stats","channel":"room""#);
    assert!(stats.ends_with(r#""users":4,"connections":5,"anonymous":1}"#), "{stats}");
    assert_eq!(
        (one.shard.metrics.users.get(), one.shard.metrics.connections_present.get()),
        (4, 5)
    );
    assert!(one.shard.metrics.presence_bytes.get() > 0);
}

#[test]
fn a_shard_wakes_to_tell_who_came_and_once_grace_is_over_who_left() {
    let mut one = observed();
    let socket = one.connect(1);
    one.send_from(socket, &get("/sse?channel=room&user=ann"));
    one.newly_said_to(SOCKET);
    // The first look at the sockets comes before.
    while one.newly_said_to(SOCKET).is_empty() && one.now < Time::START + INTERVAL {
        one.rest_until_something_is_due();
    }
    assert_eq!(one.now, Time::START + INTERVAL);
    one.shard.driver.completions.push_back(Completion::EndOfStream { socket });
    one.tick();
    let left = one.now;
    let mut told = String::new();
    while told.is_empty() && one.now < left + GRACE + INTERVAL {
        one.rest_until_something_is_due();
        told = one.newly_said_to(SOCKET);
    }
    assert_eq!(one.now, left + GRACE + INTERVAL);
    assert!(told.ends_with(r#"{"event":"presence.leave","users":["ann"],"total":0}}"#), "{told}");
}

#[test]
fn what_there_never_is_is_not_to_be_tried_again() {
    let mut one = observed();
    let poll = one.connect(1);
    one.send_from(poll, &get("/poll?channel=presence:other"));
    assert!(one.newly_said_to(poll).starts_with("HTTP/1.1 400 "));
    let stream = one.connect(2);
    one.send_from(stream, &get("/sse?channel=presence:other"));
    let said = one.newly_said_to(stream);
    assert!(said.contains(r#"data: {"type":"error","code":"refused""#), "{said}");
    for (index, request) in [
        upgrade("/raw/presence:other"),
        [upgrade("/raw/presence:room?mode=pub"), frame(Opcode::Text, b"1")].concat(),
    ]
    .into_iter()
    .enumerate()
    {
        let raw = one.connect(3 + index as u32);
        one.send_from(raw, &request);
        let sent = &one.shard.driver.sockets[&raw].sent;
        let code = close::POLICY_VIOLATION.to_be_bytes();
        assert!(sent.windows(2).any(|bytes| bytes == code), "closed with 1008");
    }
}
