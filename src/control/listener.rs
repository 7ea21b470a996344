//! The admin listener: `hyper` on the control thread. What is answered is decided in `admin`.
//!
//! Each connection carries one request, within a time, and their number is bounded: whoever can
//! reach this port must not be able to close it for the operator.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Shared;
use crate::{admin, limits};

/// Connections at once. A scraper and a few people need one each; more wait in the backlog.
const CONNECTIONS_MAX: usize = 64;

/// From accept to a complete request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// From accept to the end: a page is a few hundred KiB at most.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// Serves `listener` for as long as the runtime lives.
pub(super) async fn serve(listener: std::net::TcpListener, shared: Rc<Shared>) {
    let adopted = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
    let listener = match adopted {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("the admin listener cannot be served: {error}"),
    };
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                tokio::task::spawn_local(async move {
                    // A peer that is too slow, or breaks off, has no page; nobody else cares.
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, answer(stream, shared)).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!("the admin listener could not accept: {error}");
                tokio::time::sleep(limits::ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, shared: Rc<Shared>) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let page = admin::page(request.method().as_str(), request.uri().path(), &shared.snapshot());
        async move { Ok::<_, Infallible>(response(page)) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(limits::REQUEST_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn response(page: admin::Response) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(page.body)));
    *response.status_mut() = StatusCode::from_u16(page.status).expect("a status of ours");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if page.status == 405 {
        // RFC 9110 15.5.6: a 405 says what is allowed.
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}
