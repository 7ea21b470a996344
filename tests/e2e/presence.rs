//! Who is there: lists, numbers, and those who come and go.

use std::collections::BTreeSet;
use std::time::Duration;

use simd_json::OwnedValue;
use simd_json::prelude::*;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::client::{Chance, Client, Heard};
use crate::on_every_setup;
use crate::peer::Peer;
use crate::raw::{ask, get, upgrade_request};
use crate::server::{Server, Setup};
use crate::stream::Stream;

on_every_setup!(
    three_tabs_are_one_user_who_joins_once_and_leaves_with_the_last,
    who_comes_back_within_grace_has_not_been_away,
    the_list_is_read_a_page_at_a_time_and_numbers_say_how_many_there_are,
    whoever_listens_through_any_door_is_there,
    lists_and_events_make_the_truth_on_every_shard,
    what_is_no_user_and_what_has_no_presence_is_refused,
);

fn config(grace: &str) -> String {
    format!(
        "[[channel]]\nmatch = \"room\"\npresence = {{ grace = \"{grace}\", events = \"30ms\" }}\n"
    )
}

/// The next of those who come and go: event, users, total.
async fn told(client: &mut Client) -> (String, Vec<String>, u64) {
    let heard = client.hear_kind("message").await;
    assert_eq!(heard.str("channel"), "presence:room");
    let payload = simd_json::to_owned_value(&mut heard.payload().as_bytes().to_vec());
    let payload = payload.expect("JSON");
    let event = payload.get_str("event").expect("an event").to_owned();
    let users = payload.get_array("users").into_iter().flatten();
    let users = users.map(|user| user.as_str().expect("a name").to_owned()).collect();
    (event, users, payload.get_u64("total").expect("a number"))
}

/// One page of the list: users with their connections, and whether there are more.
async fn page(client: &mut Client, members: &str) -> (Heard, Vec<(String, u64)>, bool) {
    let heard =
        client.ask("list", &format!(r#""type":"presence","channel":"room"{members}"#)).await;
    assert_eq!(heard.kind(), "presence", "{}", heard.text);
    let value: OwnedValue =
        simd_json::to_owned_value(&mut heard.text.clone().into_bytes()).expect("JSON");
    let users = value.get_array("users").expect("a list").iter();
    let users = users.map(|user| {
        let name = user.get_str("user").expect("a name").to_owned();
        (name, user.get_u64("connections").expect("a number"))
    });
    let (users, has_more) = (users.collect(), value.get_bool("more").expect("it says"));
    (heard, users, has_more)
}

fn named(users: &[(&str, u64)]) -> Vec<(String, u64)> {
    users.iter().map(|(name, connections)| ((*name).to_owned(), *connections)).collect()
}

/// Asks for the list until it is `expected`.
async fn list_becomes(client: &mut Client, expected: &[(&str, u64)]) {
    let mut users = Vec::new();
    for _ in 0..500 {
        (_, users, _) = page(client, "").await;
        if users == named(expected) {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("{users:?} does not become {expected:?}");
}

pub async fn three_tabs_are_one_user_who_joins_once_and_leaves_with_the_last(setup: Setup) {
    let server = Server::start(setup, &config("200ms")).await;
    let mut observer = Client::open(&server).await;
    observer.subscribe("presence:room").await;
    let mut tabs = Vec::new();
    for _ in 0..3 {
        let mut tab = Client::open_as(&server, "ann").await;
        tab.subscribe("room").await;
        tabs.push(tab);
    }
    assert_eq!(told(&mut observer).await, ("presence.join".into(), vec!["ann".into()], 1));
    list_becomes(&mut observer, &[("ann", 3)]).await;
    assert!(server.metric("ringcast_presence_users").await == 1.0);
    assert!(server.metric("ringcast_presence_connections").await == 3.0);
    let answer = tabs[0].ask("leave", r#""type":"unsubscribe","channel":"room""#).await;
    assert_eq!(answer.kind(), "ack");
    drop(tabs.remove(1));
    list_becomes(&mut observer, &[("ann", 1)]).await;
    sleep(Duration::from_millis(600)).await;
    observer.heard_nothing_more().await;
    drop(tabs.remove(1));
    assert_eq!(told(&mut observer).await, ("presence.leave".into(), vec!["ann".into()], 0));
    list_becomes(&mut observer, &[]).await;
    observer.heard_nothing_more().await;
}

pub async fn who_comes_back_within_grace_has_not_been_away(setup: Setup) {
    let server = Server::start(setup, &config("10s")).await;
    let mut observer = Client::open(&server).await;
    observer.subscribe("presence:room").await;
    let mut client = Client::open_as(&server, "ann").await;
    client.subscribe("room").await;
    assert_eq!(told(&mut observer).await, ("presence.join".into(), vec!["ann".into()], 1));
    for _ in 0..3 {
        drop(client);
        list_becomes(&mut observer, &[("ann", 0)]).await;
        client = Client::open_as(&server, "ann").await;
        client.subscribe("room").await;
        list_becomes(&mut observer, &[("ann", 1)]).await;
    }
    sleep(Duration::from_millis(200)).await;
    observer.heard_nothing_more().await;
}

pub async fn the_list_is_read_a_page_at_a_time_and_numbers_say_how_many_there_are(setup: Setup) {
    let server = Server::start(setup, &config("5s")).await;
    let mut clients = Vec::new();
    for number in 0..10 {
        let mut client = Client::open_as(&server, &format!("u{number}")).await;
        client.subscribe("room").await;
        clients.push(client);
    }
    for _ in 0..2 {
        let mut client = Client::open(&server).await;
        client.subscribe("room").await;
        clients.push(client);
    }
    // Not subscribed itself, and on any shard.
    let mut asking = Client::open(&server).await;
    let expected: Vec<_> = (0..10).map(|number| (format!("u{number}"), 1)).collect();
    let borrowed: Vec<_> = expected.iter().map(|(name, one)| (name.as_str(), *one)).collect();
    list_becomes(&mut asking, &borrowed).await;
    let (mut all, mut members) = (Vec::new(), r#","limit":4"#.to_owned());
    for has_more in [true, true, false] {
        let (heard, users, more) = page(&mut asking, &members).await;
        assert_eq!((heard.number("total"), more), (10, has_more), "{}", heard.text);
        assert!(heard.has("epoch") && !heard.has("unlisted"), "{}", heard.text);
        members = format!(r#","limit":4,"after":"{}""#, users.last().expect("some").0);
        all.extend(users);
    }
    assert_eq!(all, expected);
    let mut numbers = (0, 0, 0);
    for _ in 0..100 {
        let stats = asking.ask("stats", r#""type":"presence_stats","channel":"room""#).await;
        assert_eq!(stats.kind(), "presence_stats", "{}", stats.text);
        let number = |key| stats.number(key);
        numbers = (number("users"), number("connections"), number("anonymous"));
        if numbers == (10, 12, 2) {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("{numbers:?}");
}

pub async fn whoever_listens_through_any_door_is_there(setup: Setup) {
    let server = Server::start(setup, &config("100ms")).await;
    let mut asking = Client::open(&server).await;
    let mut stream = Stream::open(&server, "channel=room&user=sse%20%C3%A9").await;
    stream.hear_kind("subscribed").await;
    let raw = Peer::open(&server, "/raw/room?user=raw&mode=sub", "").await;
    let mut packed = Peer::open(&server, "/ws?user=packed", "ringcast.msgpack.v1").await;
    assert_eq!(packed.hear_map().await["type"], "welcome".into());
    packed
        .say_map(vec![("type", "subscribe".into()), ("channel", "room".into()), ("id", 1.into())])
        .await;
    assert_eq!(packed.hear_map().await["type"], "subscribed".into());
    let mut poll = TcpStream::connect(server.address).await.expect("connects");
    let request =
        "GET /poll?channel=room&since=-&timeout=30s&user=poll HTTP/1.1\r\nHost: x\r\n\r\n";
    let with_place = asking.subscribe("room").await;
    let cursor = format!("{}.{}", with_place.str("epoch"), with_place.number("seq"));
    let request = request.replace("since=-", &format!("since={cursor}"));
    poll.write_all(request.as_bytes()).await.expect("sent");
    let all = [("packed", 1), ("poll", 1), ("raw", 1), ("sse \u{e9}", 1)];
    list_becomes(&mut asking, &all).await;

    let members = |kind: &'static str| {
        let after = ("after", "poll".into());
        vec![("type", kind.into()), ("channel", "room".into()), ("id", 2.into()), after]
    };
    packed.say_map(members("presence")).await;
    let list = packed.hear_map().await;
    assert_eq!((&list["id"], &list["total"], &list["more"]), (&2.into(), &4.into(), &false.into()));
    let users = list["users"].as_array().expect("a list");
    assert_eq!((users.len(), &users[0]["user"]), (2, &"raw".into()));
    packed.say_map(members("presence_stats")).await;
    assert_eq!(packed.hear_map().await["anonymous"], 1.into());

    // A poll that is answered leaves, and so does everybody else.
    asking.publish_acked("room", "1").await;
    list_becomes(&mut asking, &all[..1].iter().chain(&all[2..]).copied().collect::<Vec<_>>()).await;
    drop((stream, raw));
    list_becomes(&mut asking, &[("packed", 1)]).await;
}

/// Who is there, as an observer knows it that has read the list once.
#[derive(Debug, Default)]
struct Known {
    users: BTreeSet<String>,
    seq: u64,
}

impl Known {
    async fn read(client: &mut Client) -> Self {
        let mut known = Self::default();
        let mut members = r#","limit":2"#.to_owned();
        let mut is_first = true;
        loop {
            let (heard, users, has_more) = page(client, &members).await;
            if std::mem::take(&mut is_first) {
                known.seq = heard.number("seq");
            }
            if let Some((last, _)) = users.last() {
                members = format!(r#","limit":2,"after":"{last}""#);
            }
            known.users.extend(users.into_iter().map(|(name, _)| name));
            if !has_more {
                return known;
            }
        }
    }

    /// Hears one event, which may be older than the list.
    async fn hear(&mut self, client: &mut Client) {
        let heard = client.hear_kind("message").await;
        let mut payload = heard.payload().as_bytes().to_vec();
        let payload = simd_json::to_owned_value(&mut payload).expect("JSON");
        if heard.number("seq") <= self.seq {
            return;
        }
        for user in payload.get_array("users").expect("few are told by name") {
            let name = user.as_str().expect("a name").to_owned();
            match payload.get_str("event") {
                Some("presence.join") => self.users.insert(name),
                Some("presence.leave") => self.users.remove(&name),
                other => panic!("{other:?}"),
            };
        }
    }
}

pub async fn lists_and_events_make_the_truth_on_every_shard(setup: Setup) {
    let server = Server::start(setup, &config("20ms")).await;
    let mut observers = Vec::new();
    for _ in 0..3 {
        let mut client = Client::open(&server).await;
        client.subscribe("presence:room").await;
        observers.push((client, None::<Known>));
    }
    let mut chance = Chance::new(11);
    let mut there: Vec<(String, Client)> = Vec::new();
    for round in 0..60 {
        if there.is_empty() || chance.below(5) < 3 {
            let name = format!("u{}", chance.below(8));
            let mut client = Client::open_as(&server, &name).await;
            client.subscribe("room").await;
            there.push((name, client));
        } else {
            there.swap_remove(chance.below(there.len() as u64) as usize);
        }
        if round % 20 == 10 {
            let (client, known) = &mut observers[round / 20];
            *known = Some(Known::read(client).await);
        }
        sleep(Duration::from_millis(chance.below(15))).await;
    }
    // The last word is said by somebody nobody has heard of.
    let mut last = Client::open_as(&server, "last").await;
    sleep(Duration::from_millis(400)).await;
    last.subscribe("room").await;
    there.push(("last".into(), last));
    let truth: BTreeSet<String> = there.iter().map(|(name, _)| name.clone()).collect();
    for (client, known) in &mut observers {
        let known = known.as_mut().expect("everybody has read the list");
        while !known.users.contains("last") {
            known.hear(client).await;
        }
        assert_eq!(known.users, truth);
    }
}

pub async fn what_is_no_user_and_what_has_no_presence_is_refused(setup: Setup) {
    let mut server = Server::start(setup, &config("5s")).await;
    let long = "u".repeat(65);
    for user in ["", "a%0Ab", "%ff", "a&user=b", &long] {
        for target in
            [format!("/sse?channel=room&user={user}"), format!("/poll?channel=room&user={user}")]
        {
            let answer = get(server.address, &target).await.expect("an answer");
            assert_eq!(answer.status, 400, "{target}: {}", answer.body);
        }
        for target in [format!("/ws?user={user}"), format!("/raw/room?user={user}")] {
            let answer = ask(server.address, &upgrade_request(&target)).await.expect("an answer");
            assert_eq!(answer.status, 400, "{target}: {}", answer.body);
        }
    }
    let poll = get(server.address, "/poll?channel=presence:other").await.expect("an answer");
    assert_eq!(poll.status, 400, "{}", poll.body);
    let mut stream = Stream::open(&server, "channel=presence:other").await;
    assert_eq!(stream.hear_kind("error").await.str("code"), "refused");
    assert!(stream.next().await.is_none(), "it ends");
    let mut raw = Peer::open(&server, "/raw/presence:other", "").await;
    assert_eq!(raw.closed().await.0, 1008);
    let mut client = Client::open(&server).await;
    for (request, code) in [
        (r#""type":"presence","channel":"other""#, "no_presence"),
        (r#""type":"presence_stats","channel":"presence:room""#, "no_presence"),
        (r#""type":"subscribe","channel":"presence:other""#, "no_presence"),
        (r#""type":"history","channel":"presence:other""#, "no_presence"),
        (r#""type":"publish","channel":"presence:room","payload":1"#, "reserved_channel"),
        (r#""type":"presence","channel":"room","after":7"#, "bad_after"),
        (r#""type":"presence","channel":"room","limit":0"#, "bad_range"),
        (r#""type":"presence""#, "missing_field"),
    ] {
        let answer = client.ask("1", request).await;
        assert_eq!((answer.kind(), answer.str("code")), ("error", code), "{request}");
    }
    let body = r#"{"channel":"presence:room","payload":1}"#;
    let head = format!(
        "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = ask(server.address, &format!("{head}{body}")).await.expect("an answer");
    assert_eq!(answer.status, 403, "{}", answer.body);
    assert!(answer.body.contains("reserved_channel"), "{}", answer.body);
    server.assert_lives().await;
}
