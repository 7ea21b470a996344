//! fastwebsockets behind hyper, after its own `echo_server` example; a subscriber's task waits
//! for its socket and its queue at once and writes each message as it comes.

use std::sync::Arc;

use bytes::Bytes;
use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, WebSocketError};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::net::TcpListener;

use super::{Crowd, Role};

pub(super) async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let crowd = Crowd::<Bytes>::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let crowd = Arc::clone(&crowd);
        tokio::spawn(async move {
            let io = hyper_util::rt::TokioIo::new(stream);
            let service = service_fn(move |request| switch(request, Arc::clone(&crowd)));
            let _ = http1::Builder::new().serve_connection(io, service).with_upgrades().await;
        });
    }
}

async fn switch(
    mut request: Request<Incoming>,
    crowd: Arc<Crowd<Bytes>>,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let role = Role::of(request.uri().path());
    let (response, upgrade) = upgrade(&mut request)?;
    tokio::spawn(async move {
        // The example runs its clients outside tokio's budget, so this does too.
        let _ = tokio::task::unconstrained(client(upgrade, role, crowd)).await;
    });
    Ok(response)
}

async fn client(
    upgrade: UpgradeFut,
    role: Role,
    crowd: Arc<Crowd<Bytes>>,
) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(upgrade.await?);
    if role == Role::Subscriber {
        let (id, mut queue) = crowd.join();
        let ended = loop {
            tokio::select! {
                frame = socket.read_frame() => match frame {
                    Ok(frame) if frame.opcode == OpCode::Close => break Ok(()),
                    Ok(_) => {}
                    Err(error) => break Err(error),
                },
                Some(message) = queue.recv() => {
                    let frame = Frame::text(Payload::Borrowed(&message));
                    if let Err(error) = socket.write_frame(frame).await {
                        break Err(error);
                    }
                }
            }
        };
        crowd.leave(id);
        return ended;
    }
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary if role == Role::Echo => {
                socket.write_frame(frame).await?;
            }
            OpCode::Text => crowd.publish(&Bytes::copy_from_slice(&frame.payload)),
            _ => {}
        }
    }
}
