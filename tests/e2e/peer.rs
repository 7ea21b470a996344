//! A WebSocket of any dialect.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rmpv::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::server::{Server, patience};

const PATIENCE: Duration = Duration::from_secs(15);

/// A client of any dialect.
pub struct Peer(WebSocketStream<TcpStream>);

impl Peer {
    pub async fn open(server: &Server, path: &str, protocols: &str) -> Self {
        Self::open_with(server, path, protocols, None).await.0
    }

    /// Also says which protocol the server chose.
    pub async fn open_with(
        server: &Server,
        path: &str,
        protocols: &str,
        receive_buffer_bytes: Option<u32>,
    ) -> (Self, Option<String>) {
        let socket = TcpSocket::new_v4().expect("a socket");
        if let Some(bytes) = receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes).expect("a small buffer");
        }
        let stream = socket.connect(server.address).await.expect("connects");
        let url = format!("ws://{}{path}", server.address);
        let mut request = url.into_client_request().expect("a request");
        if !protocols.is_empty() {
            let protocols = HeaderValue::from_str(protocols).expect("a header");
            request.headers_mut().insert("Sec-WebSocket-Protocol", protocols);
        }
        let opening = timeout(patience(PATIENCE), client_async(request, stream));
        let (socket, answer) = opening.await.expect("in time").expect("the handshake succeeds");
        let chosen = answer.headers().get("Sec-WebSocket-Protocol");
        (Self(socket), chosen.map(|chosen| chosen.to_str().expect("text").to_owned()))
    }

    /// A MessagePack client that has heard its welcome.
    pub async fn msgpack(server: &Server) -> Self {
        let mut peer = Self::open(server, "/ws", "ringcast.msgpack.v1").await;
        assert_eq!(peer.hear_map().await["type"], "welcome".into());
        peer
    }

    pub async fn send(&mut self, message: Message) {
        let sending = timeout(patience(PATIENCE), self.0.send(message));
        sending.await.expect("sent in time").expect("open");
    }

    pub async fn say_map(&mut self, members: Vec<(&str, Value)>) {
        let members = members.into_iter().map(|(name, value)| (name.into(), value)).collect();
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &Value::Map(members)).expect("a vector takes it");
        self.send(Message::binary(bytes)).await;
    }

    /// The next message, good-bye, ping or pong.
    pub async fn hear_any(&mut self) -> Message {
        let next = timeout(patience(PATIENCE), self.0.next()).await.expect("in time");
        next.expect("not without a good-bye").expect("sound frames")
    }

    /// The next message or good-bye.
    pub async fn hear(&mut self) -> Message {
        loop {
            match self.hear_any().await {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    pub async fn hear_map(&mut self) -> Value {
        let message = self.hear().await;
        let Message::Binary(bytes) = message else { panic!("instead of a map came {message:?}") };
        let mut rest = &bytes[..];
        let value = rmpv::decode::read_value(&mut rest).expect("MessagePack");
        assert!(rest.is_empty() && value.is_map(), "{value}");
        value
    }

    /// The next message or good-bye, if one comes in time; as the end of the connection counts what is
    /// no good-bye, too.
    pub async fn next_within(&mut self, limit: Duration) -> Option<Message> {
        let next = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(message)) => return message,
                    Some(Err(_)) | None => return Message::Close(None),
                }
            }
        };
        timeout(limit, next).await.ok()
    }

    pub async fn subscribe(&mut self, channel: &str) {
        let members =
            vec![("type", "subscribe".into()), ("channel", channel.into()), ("id", 1.into())];
        self.say_map(members).await;
        assert_eq!(self.hear_map().await["type"], "subscribed".into());
    }

    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(frame) = self.hear().await {
                let frame = frame.expect("a code and a reason");
                return (frame.code.into(), frame.reason.as_str().to_owned());
            }
        }
    }
}

/// What a MessagePack client hears, as a JSON client hears it. Maps, texts, numbers and truths only.
pub fn in_json(value: &Value) -> String {
    match value {
        Value::Map(members) => {
            let member =
                |(name, value): &(Value, Value)| format!("{}:{}", in_json(name), in_json(value));
            let members: Vec<_> = members.iter().map(member).collect();
            format!("{{{}}}", members.join(","))
        }
        Value::String(text) => format!("{:?}", text.as_str().expect("UTF-8")),
        Value::Integer(_) | Value::Boolean(_) => value.to_string(),
        other => panic!("{other}"),
    }
}
