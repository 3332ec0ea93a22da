//! The admin endpoint: metrics and health, for those who run the gateway.
//!
//! It lives on the background runtime, so that it answers while workers are busy, and on its own address, which is never
//! public. It takes no request body, keeps few connections, and tells nobody anything about callers.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::listen::Shutdown;

/// Scrapers and probes are few; more at once are not theirs.
const CONNECTIONS_MAX: usize = 64;

/// For a request's head to arrive, which is also how long a connection is kept between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);

/// For a connection in all. A scraper opens another.
const CONNECTION_MAX: Duration = Duration::from_hours(1);

/// Heads are short here.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long accepting pauses where descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// What the admin endpoint asks the gateway.
pub trait AdminState: Send + Sync + 'static {
    /// The metrics in the Prometheus text format, with gauges brought up to date; `None` where they cannot be made.
    fn metrics(&self) -> Option<String>;

    /// Whether store and snapshot are ready and the gateway does not drain. Answers at once: from what is known, not by
    /// asking the store.
    fn is_ready(&self) -> bool;
}

/// The listener of the admin endpoint.
///
/// # Errors
/// The address cannot be listened on.
pub fn bind(address: SocketAddr) -> std::io::Result<StdListener> {
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves on a listener that was [bound](bind) until it is `closed`, which ends no connection. Runs on a runtime of several
/// threads, and does not end before it, so that health is told while the workers drain.
///
/// # Errors
/// The listener cannot be used by the runtime.
pub async fn serve(listener: StdListener, state: Arc<dyn AdminState>, closed: Shutdown) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let start = |socket, permit| {
        tokio::spawn(timeout(CONNECTION_MAX, connection(socket, Arc::clone(&state), permit)));
    };
    tokio::select! {
        () = accept(&listener, &connections, start) => {}
        () = closed.wait() => {}
    }
    // what waits in the queue would be reset where the socket closes
    while let (Some(Ok((socket, _))), Ok(permit)) =
        (listener.accept().now_or_never(), Arc::clone(&connections).try_acquire_owned())
    {
        start(socket, permit);
    }
    Ok(())
}

async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>, start: impl Fn(TcpStream, OwnedSemaphorePermit)) {
    let mut failed_before = false;
    loop {
        // as a semaphore that nobody closes, it always gives one in the end
        let Ok(permit) = Arc::clone(connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                failed_before = false;
                start(socket, permit);
            }
            Err(error) => {
                if !std::mem::replace(&mut failed_before, true) {
                    tracing::warn!(%error, "cannot accept connections to the admin endpoint");
                }
                sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, state: Arc<dyn AdminState>, _permit: OwnedSemaphorePermit) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(request.method(), request.uri().path(), &*state);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "connection to the admin endpoint broke off");
    }
}

fn answer(method: &Method, path: &str, state: &dyn AdminState) -> Response<Full<Bytes>> {
    if !matches!(path, "/metrics" | "/healthz" | "/readyz") {
        return text(StatusCode::NOT_FOUND, "not found\n");
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => match state.metrics() {
            Some(metrics) => {
                let mut response = text(StatusCode::OK, metrics);
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            None => text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be made\n"),
        },
        "/readyz" if !state.is_ready() => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        _ => text(StatusCode::OK, "ok\n"),
    }
}

/// hyper leaves the body away where the request is `HEAD`, and says its length all the same.
fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Fake {
        ready: AtomicBool,
    }

    impl AdminState for Fake {
        fn metrics(&self) -> Option<String> {
            Some("up 1\n".into())
        }

        fn is_ready(&self) -> bool {
            self.ready.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn health_and_metrics_are_told_and_nothing_else() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Fake { ready: AtomicBool::new(true) });
        let closed = Shutdown::new();
        let server = tokio::spawn(serve(listener, Arc::clone(&state) as _, closed.clone()));
        for (ready, request, status, rest) in [
            (true, "GET /healthz", "200 OK", "\r\n\r\nok\n"),
            (true, "GET /readyz", "200 OK", "\r\n\r\nok\n"),
            (false, "GET /readyz", "503 Service Unavailable", "\r\n\r\nnot ready\n"),
            (false, "GET /healthz", "200 OK", "\r\n\r\nok\n"),
            (true, "GET /metrics?x", "200 OK", "\r\n\r\nup 1\n"),
            (true, "GET /metrics", "200 OK", "content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            (true, "HEAD /healthz", "200 OK", "content-length: 3\r\n"),
            (true, "GET /", "404 Not Found", "\r\n\r\nnot found\n"),
            (true, "GET /metrics/", "404 Not Found", "\r\n\r\nnot found\n"),
            (true, "POST /healthz", "405 Method Not Allowed", "allow: GET, HEAD\r\n"),
            (true, "POST /nowhere", "404 Not Found", "\r\n\r\nnot found\n"),
        ] {
            state.ready.store(ready, Ordering::Relaxed);
            let mut socket = TcpStream::connect(address).await.unwrap();
            let text = format!("{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            socket.write_all(text.as_bytes()).await.unwrap();
            let mut response = String::new();
            socket.read_to_string(&mut response).await.unwrap();
            assert!(response.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {response}");
            assert!(response.contains(rest), "{request}: {response}");
        }
        closed.begin();
        server.await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    }
}
