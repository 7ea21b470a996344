//! A WebSocket client for the claims: `tokio-tungstenite` with what every claim needs.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use simd_json::OwnedValue;
use simd_json::prelude::*;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::server::{Server, patience};

/// Longer than anything takes on a busy machine; what is not there by then does not come.
const PATIENCE: Duration = Duration::from_secs(15);

/// A text message of the server: as it came, and what it says.
#[derive(Debug, Clone)]
pub struct Heard {
    pub text: String,
    value: OwnedValue,
}

impl Heard {
    pub fn new(text: String) -> Self {
        // A payload may hold numbers that no library keeps; here it is only ever compared as text.
        let known = match text.split_once(r#","payload":"#) {
            Some((front, _)) if front.starts_with(r#"{"type":"message""#) => format!("{front}}}"),
            _ => text.clone(),
        };
        let value = simd_json::to_owned_value(&mut known.into_bytes());
        let value = value.unwrap_or_else(|error| panic!("not JSON ({error}): {text}"));
        Self { text, value }
    }

    pub fn kind(&self) -> &str {
        self.str("type")
    }

    pub fn str(&self, key: &str) -> &str {
        self.value.get_str(key).unwrap_or_else(|| panic!("no string {key} in {}", self.text))
    }

    pub fn number(&self, key: &str) -> u64 {
        self.value.get_u64(key).unwrap_or_else(|| panic!("no number {key} in {}", self.text))
    }

    pub fn has(&self, key: &str) -> bool {
        self.value.get(key).is_some()
    }

    /// The payload, byte for byte: it stands last.
    pub fn payload(&self) -> &str {
        let (_, rest) = self.text.split_once(r#""payload":"#).expect("a payload");
        rest.strip_suffix('}').expect("the payload stands last")
    }
}

/// What came from the server.
#[derive(Debug, Clone)]
pub enum Event {
    Text(Heard),
    /// A close frame (1005: one without a code).
    Close(u16, String),
    /// The connection ended without one.
    Gone,
}

pub struct Client {
    pub socket: WebSocketStream<TcpStream>,
    pub welcome: Heard,
    /// Payloads of the pong frames that came.
    pub pongs: Vec<Vec<u8>>,
    /// How many ping frames came (and were answered).
    pub pings: usize,
    inbox: VecDeque<Heard>,
}

impl Client {
    pub async fn open(server: &Server) -> Self {
        Self::open_with(server, None).await
    }

    /// A client that says who it is.
    pub async fn open_as(server: &Server, user: &str) -> Self {
        let url = format!("{}?user={user}", server.url());
        Self::try_open_at(server, &url, None).await.expect("the handshake succeeds")
    }

    /// With a small receive buffer, a client that stops reading is noticed soon.
    pub async fn open_with(server: &Server, receive_buffer_bytes: Option<u32>) -> Self {
        Self::try_open(server, receive_buffer_bytes).await.expect("the handshake succeeds")
    }

    pub async fn try_open(
        server: &Server,
        receive_buffer_bytes: Option<u32>,
    ) -> Result<Self, Error> {
        Self::try_open_at(server, &server.url(), receive_buffer_bytes).await
    }

    async fn try_open_at(
        server: &Server,
        url: &str,
        receive_buffer_bytes: Option<u32>,
    ) -> Result<Self, Error> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream =
            timeout(patience(PATIENCE), socket.connect(server.address)).await.expect("connects")?;
        stream.set_nodelay(true)?;
        let mut request = url.into_client_request()?;
        let protocol = HeaderValue::from_static("ringcast.json.v1");
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let config = WebSocketConfig::default().read_buffer_size(4096);
        let opening = client_async_with_config(request, stream, Some(config));
        let (socket, _) = timeout(patience(PATIENCE), opening).await.expect("an answer in time")?;
        let mut client = Self {
            socket,
            welcome: Heard { text: String::new(), value: OwnedValue::null() },
            pongs: Vec::new(),
            pings: 0,
            inbox: VecDeque::new(),
        };
        client.welcome = client.hear().await;
        assert_eq!(client.welcome.kind(), "welcome");
        Ok(client)
    }

    /// Sends a text as it is.
    pub async fn say(&mut self, text: impl Into<String>) {
        self.send(Message::text(text.into())).await;
    }

    pub async fn send(&mut self, message: Message) {
        timeout(patience(PATIENCE), self.socket.send(message))
            .await
            .expect("sent in time")
            .expect("open");
    }

    /// The next text; anything else is a failure.
    pub async fn hear(&mut self) -> Heard {
        if let Some(heard) = self.inbox.pop_front() {
            return heard;
        }
        match self.event().await {
            Event::Text(heard) => heard,
            other => panic!("instead of a text came {other:?}"),
        }
    }

    /// The next text of type `kind`; others before it are a failure.
    pub async fn hear_kind(&mut self, kind: &str) -> Heard {
        let heard = self.hear().await;
        assert_eq!(heard.kind(), kind, "{}", heard.text);
        heard
    }

    /// Sends the members `request` with `id` in front and returns its answer. What comes before
    /// the answer is heard later.
    pub async fn ask(&mut self, id: &str, request: &str) -> Heard {
        self.say(format!(r#"{{"id":"{id}",{request}}}"#)).await;
        self.answer(id).await
    }

    pub async fn answer(&mut self, id: &str) -> Heard {
        let is_answer = |heard: &Heard| heard.value.get_str("id") == Some(id);
        if let Some(at) = self.inbox.iter().position(is_answer) {
            return self.inbox.remove(at).expect("it is there");
        }
        loop {
            match self.event().await {
                Event::Text(heard) if is_answer(&heard) => return heard,
                Event::Text(heard) => self.inbox.push_back(heard),
                other => panic!("instead of the answer to {id} came {other:?}"),
            }
        }
    }

    /// Subscribes and returns the answer.
    pub async fn subscribe(&mut self, channel: &str) -> Heard {
        let answer =
            self.ask("subscribe", &format!(r#""type":"subscribe","channel":"{channel}""#)).await;
        assert_eq!(answer.kind(), "subscribed", "{}", answer.text);
        answer
    }

    /// Publishes without asking for an answer.
    pub async fn publish(&mut self, channel: &str, payload: &str) {
        self.say(publish_text(channel, payload)).await;
    }

    /// Publishes and returns the number that the message was given.
    pub async fn publish_acked(&mut self, channel: &str, payload: &str) -> u64 {
        let request = format!(r#""type":"publish","channel":"{channel}","payload":{payload}"#);
        let answer = self.ask("publish", &request).await;
        assert_eq!(answer.kind(), "ack", "{}", answer.text);
        answer.number("seq")
    }

    /// Proves that nothing else is on its way: all that the server had to say comes before the
    /// answer to this ping.
    pub async fn heard_nothing_more(&mut self) {
        self.ask("nothing more", r#""type":"ping""#).await;
        assert!(self.inbox.is_empty(), "also heard {:?}", self.inbox);
    }

    /// The next event; pings are answered and counted, pongs kept.
    pub async fn event(&mut self) -> Event {
        timeout(patience(PATIENCE), self.next_event()).await.expect("something comes in time")
    }

    /// Like [`Client::event`], but `None` when nothing comes for `patience`.
    pub async fn event_within(&mut self, patience: Duration) -> Option<Event> {
        if let Some(heard) = self.inbox.pop_front() {
            return Some(Event::Text(heard));
        }
        timeout(patience, self.next_event()).await.ok()
    }

    async fn next_event(&mut self) -> Event {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    return Event::Text(Heard::new(text.as_str().to_owned()));
                }
                Some(Ok(Message::Ping(_))) => self.pings += 1,
                Some(Ok(Message::Pong(payload))) => self.pongs.push(payload.to_vec()),
                Some(Ok(Message::Close(frame))) => {
                    return frame.map_or_else(
                        || Event::Close(1005, String::new()),
                        |frame| Event::Close(frame.code.into(), frame.reason.as_str().to_owned()),
                    );
                }
                Some(Ok(other)) => panic!("the server sent {other:?}"),
                Some(Err(_)) | None => return Event::Gone,
            }
        }
    }

    /// Reads on until the connection ends; returns the close code and reason.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.event().await {
                Event::Text(_) => {}
                Event::Close(code, reason) => return (code, reason),
                Event::Gone => panic!("the connection ended without a close frame"),
            }
        }
    }
}

pub fn publish_text(channel: &str, payload: &str) -> String {
    format!(r#"{{"type":"publish","channel":"{channel}","payload":{payload}}}"#)
}

/// A small generator for schedules: xorshift64*, seeded, the same everywhere.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}
