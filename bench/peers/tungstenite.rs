//! tokio-tungstenite, twice. Plain: the defaults, the stream split, each message sent (that is:
//! flushed) as it comes. Tuned: 4 KiB read buffers, one task per client that feeds everything
//! that waits and flushes once.

use std::sync::Arc;

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use super::{Crowd, Role};

/// Messages taken from a queue for one flush by the tuned server.
const BATCH: usize = 256;

type Socket = WebSocketStream<TcpStream>;

pub(super) async fn serve(listener: TcpListener, tuned: bool) -> std::io::Result<()> {
    let crowd = Crowd::<Utf8Bytes>::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let crowd = Arc::clone(&crowd);
        tokio::spawn(async move {
            let _ = client(stream, crowd, tuned).await;
        });
    }
}

async fn client(stream: TcpStream, crowd: Arc<Crowd<Utf8Bytes>>, tuned: bool) -> Result<(), Error> {
    let mut role = Role::Subscriber;
    let config = tuned.then(|| WebSocketConfig::default().read_buffer_size(4096));
    // The type is tungstenite's own.
    #[expect(clippy::result_large_err)]
    let look = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        role = Role::of(request.uri().path());
        Ok(response)
    };
    let socket = accept_hdr_async_with_config(stream, look, config).await?;
    match (role, tuned) {
        (Role::Echo, false) => echo(socket).await,
        (Role::Echo, true) => echo_tuned(socket).await,
        (Role::Publisher, _) => publisher(socket, &crowd).await,
        (Role::Subscriber, false) => subscriber(socket, &crowd).await,
        (Role::Subscriber, true) => subscriber_tuned(socket, &crowd).await,
    }
}

async fn echo(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

/// Feeds the answers to everything that has arrived, then flushes once.
async fn echo_tuned(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.next().await {
        let mut next = Some(message);
        while let Some(message) = next {
            let message = message?;
            if message.is_text() || message.is_binary() {
                socket.feed(message).await?;
            }
            next = socket.next().now_or_never().flatten();
        }
        socket.flush().await?;
    }
    Ok(())
}

async fn publisher(mut socket: Socket, crowd: &Crowd<Utf8Bytes>) -> Result<(), Error> {
    while let Some(message) = socket.next().await {
        if let Message::Text(text) = message? {
            crowd.publish(&text);
        }
    }
    Ok(())
}

async fn subscriber(socket: Socket, crowd: &Crowd<Utf8Bytes>) -> Result<(), Error> {
    let (mut sink, mut stream) = socket.split();
    let (id, mut queue) = crowd.join();
    let writer = tokio::spawn(async move {
        while let Some(message) = queue.recv().await {
            if sink.send(Message::Text(message)).await.is_err() {
                break;
            }
        }
    });
    while let Some(Ok(_)) = stream.next().await {}
    crowd.leave(id);
    writer.abort();
    Ok(())
}

async fn subscriber_tuned(mut socket: Socket, crowd: &Crowd<Utf8Bytes>) -> Result<(), Error> {
    let (id, mut queue) = crowd.join();
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            message = socket.next() => {
                if !matches!(message, Some(Ok(_))) {
                    break;
                }
            }
            _ = queue.recv_many(&mut batch, BATCH) => {
                let mut written = Ok(());
                for message in batch.drain(..) {
                    written = written.and(socket.feed(Message::Text(message)).await);
                }
                if written.and(socket.flush().await).is_err() {
                    break;
                }
            }
        }
    }
    crowd.leave(id);
    Ok(())
}
