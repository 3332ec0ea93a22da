//! Drives listeners over real sockets, with a handler that answers what it is asked for.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header, request};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use super::tls::{CertificateFiles, CertificateSource, MinVersion};
use super::*;
use crate::principal::SchemeSet;
use crate::rejection::{Audience, Format, Texts};
use crate::wire::upgrade::OnUpgrade;

const PATIENCE: Duration = Duration::from_secs(10);

/// A body that has nothing to say for long.
#[derive(Debug)]
struct Quiet;

impl http_body::Body for Quiet {
    type Data = Bytes;
    type Error = crate::wire::body::BodyError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, crate::wire::body::BodyError>>> {
        std::task::Poll::Pending
    }
}

/// Answers by the path.
#[derive(Clone, Default)]
struct Told {
    seen: Rc<RefCell<Vec<String>>>,
    release: Rc<Notify>,
}

impl Handler for Told {
    async fn handle(&self, _: &Rc<Peer>, head: Box<request::Parts>, body: Body) -> Response<Body> {
        let mut request = Request::from_parts(*head, body);
        let path = request.uri().path().to_owned();
        self.seen.borrow_mut().push(format!("{} {path}", request.method()));
        match path.as_str() {
            "/panic" => panic!("as asked"),
            "/wait" => self.release.notified().await,
            "/large" => return Response::new(Body::full(vec![b'x'; 8 << 20])),
            "/quiet" => return Response::new(Body::boxed(Quiet)),
            "/unread" => return Response::new(Body::full("unread")),
            "/upgrade" => {
                let promised = request.extensions_mut().remove::<OnUpgrade>().unwrap();
                spawn_local(async move {
                    let mut socket = promised.upgraded().await.unwrap();
                    let mut said = [0; 5];
                    socket.read_exact(&mut said).await.unwrap();
                    socket.write_all(&said).await.unwrap();
                });
                let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
                return response.header("connection", "upgrade").header("upgrade", "x").body(Body::empty()).unwrap();
            }
            _ => {}
        }
        let version = request.version();
        match request.into_body().collect().await {
            Ok(body) => {
                let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
                let text = format!("{path} {body}");
                let version = HeaderValue::from_static(if version == Version::HTTP_2 { "2" } else { "1" });
                let mut response = Response::new(Body::full(text));
                response.headers_mut().insert("x-version", version);
                response.headers_mut().insert("x-request-id", HeaderValue::from_static("handled"));
                response
            }
            Err(_) => Response::builder().status(400).body(Body::empty()).unwrap(),
        }
    }

    fn refuse(&self, _: &Rc<Peer>, _: &request::Parts, rejection: Rejection) -> Response<Body> {
        let texts = Texts::default();
        let schemes = SchemeSet::default();
        let audience =
            Audience { realm: "api", schemes, texts: &texts, method: "GET", request_id: "r1", format: Format::Json };
        let mut response = rejection.respond(&audience).map(Body::full);
        response.headers_mut().insert("x-request-id", HeaderValue::from_static("r1"));
        response
    }

    fn redirect(&self, _: &Rc<Peer>, _: &request::Parts, location: HeaderValue) -> Response<Body> {
        Response::builder().status(308).header(header::LOCATION, location).body(Body::empty()).unwrap()
    }
}

struct Server {
    address: SocketAddr,
    listeners: Listeners,
    state: Arc<ListenState>,
    told: Told,
    shutdown: Shutdown,
    metrics: Arc<Metrics>,
    task: JoinHandle<()>,
}

fn limits() -> Terms {
    let long = Duration::from_secs(30);
    Terms {
        timeouts: Timeouts { handshake: long, request_header: long, idle: long, drain: long },
        bounds: Bounds { header_bytes_max: 4096, headers_max: 100, connections_max: 100 },
    }
}

impl Server {
    fn start(mode: Mode, limits: &Terms) -> Self {
        Self::with([mode], limits)
    }

    /// A server with several listeners, of which the first is asked.
    fn with(modes: impl IntoIterator<Item = Mode>, limits: &Terms) -> Self {
        let settings: Vec<_> = modes.into_iter().map(any_port).collect();
        let (listeners, mut workers) = Listeners::bind(&settings, 1).unwrap();
        let (address, _) = listeners.addresses().next().unwrap();
        let (told, shutdown, metrics) = (Told::default(), Shutdown::new(), Arc::new(Metrics::new()));
        let state = Arc::new(ListenState::new(*limits, Arc::clone(&metrics)));
        let task = spawn_local(serve(workers.remove(0), told.clone(), Arc::clone(&state), shutdown.clone()));
        Self { address, listeners, state, told, shutdown, metrics, task }
    }

    fn reload(&mut self, mode: Mode) -> Result<(), BindError> {
        let change = self.listeners.prepare(&[any_port(mode)])?;
        self.listeners.apply(change);
        Ok(())
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// What comes back for `request` until the connection ends.
    async fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut socket = self.connect().await;
        socket.write_all(request.as_ref()).await.unwrap();
        rest(&mut socket).await
    }
}

fn any_port(mode: Mode) -> Settings {
    Settings { address: "127.0.0.1:0".parse().unwrap(), mode }
}

async fn rest(socket: &mut (impl AsyncRead + Unpin)) -> String {
    let mut response = Vec::new();
    let read = timeout(PATIENCE, socket.read_to_end(&mut response)).await;
    let response = String::from_utf8_lossy(&response).into_owned();
    read.unwrap_or_else(|_| panic!("the connection stays open after {response:?}")).unwrap();
    response
}

/// Reads until `end` has come.
async fn until(socket: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with(end) {
        let read = timeout(PATIENCE, socket.read(&mut byte)).await.unwrap_or_else(|_| panic!("after {text:?}"));
        assert_eq!(read.unwrap(), 1, "ends after {text:?}");
        text.push(char::from(byte[0]));
    }
    text
}

async fn run(test: impl Future<Output = ()>) {
    // boxed, since some tests are larger than what clippy lets stand on a stack
    LocalSet::new().run_until(Box::pin(test)).await;
}

fn refused(response: &str, status: &str, code: &str) -> bool {
    response.starts_with(&format!("HTTP/1.1 {status}\r\n"))
        && response.contains("content-type: application/json\r\n")
        && response.contains("x-request-id: r1\r\n")
        && response.contains("connection: close\r\n")
        && response.contains(&format!("\r\n\r\n{{\"error\":\"{code}\","))
}

#[tokio::test]
async fn what_is_malformed_is_refused_in_the_contracts_words() {
    run(async {
        let server = Server::start(Mode::Plain, &limits());
        let (bad, large) =
            (("400 Bad Request", "bad_request"), ("431 Request Header Fields Too Large", "headers_too_large"));
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "x".repeat(5000));
        let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}", "x".repeat(5000));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(100));
        let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(5000));
        for (name, request, (status, code)) in [
            ("no request line", "nonsense\r\n\r\n", bad),
            ("HTTP/0.9", "GET /\r\n\r\n", bad),
            ("an unknown version", "GET / HTTP/3.0\r\nHost: a\r\n\r\n", bad),
            ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", bad),
            ("a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", bad),
            ("a fragment", "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", bad),
            ("a NUL in the target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", bad),
            ("a byte that no method has", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", bad),
            ("a byte that no name has", "GET / HTTP/1.1\r\nHost: a\r\nA(b: c\r\n\r\n", bad),
            ("a space before the colon", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nabcde", bad),
            ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nabc\r\n\r\n", bad),
            ("a folded field", "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n", bad),
            ("a bare CR", "GET / HTTP/1.1\r\nHost: a\r\nA: b\rc\r\n\r\n", bad),
            ("a bare LF", "GET / HTTP/1.1\nHost: a\n\n", bad),
            ("a NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nA: \0\r\n\r\n", bad),
            (
                "length, then chunks",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                bad,
            ),
            (
                "chunks, then length",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
                bad,
            ),
            (
                "two lengths that differ",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
                bad,
            ),
            (
                "two lengths that agree",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
                bad,
            ),
            ("a coding of a tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", bad),
            ("chunks in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", bad),
            ("a head too large", &long, large),
            ("a head without end", &endless, large),
            ("a target too long", &target, large),
            ("too many fields", &many, large),
        ] {
            let response = server.raw(request).await;
            assert!(refused(&response, status, code), "{name}: {response:?}");
            assert_eq!(response.matches("HTTP/1.1").count(), 1, "{name}: {response:?}");

            // what came before it is answered before it, whether hyper sees both at once or not
            let after =
                server.raw(format!("POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1{request}")).await;
            let (first, second) = after.split_once("/first 1").unwrap_or_else(|| panic!("{name}: {after:?}"));
            assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{name}: {after:?}");
            assert!(refused(second, status, code), "{name}: {after:?}");
        }
        assert!(server.told.seen.borrow().iter().all(|request| request == "POST /first"));
    })
    .await;
}

#[tokio::test]
async fn what_comes_byte_by_byte_is_refused_alike() {
    run(async {
        let server = Server::start(Mode::Plain, &limits());
        for request in [
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            "GET / HTTP/1.1\r\nHost: a\n",
            "GET /a#b HTTP/1.1\r\n",
        ] {
            let mut socket = server.connect().await;
            for byte in request.bytes() {
                socket.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            let response = rest(&mut socket).await;
            assert!(refused(&response, "400 Bad Request", "bad_request"), "{request:?}: {response:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn requests_are_answered_in_turn_on_one_connection() {
    run(async {
        let server = Server::start(Mode::Plain, &limits());
        let requests = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n\
                        POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n\r\n\
                        GET /wait HTTP/1.1\r\nHost: a\r\n\r\n\
                        POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
        server.told.release.notify_one();
        let response = server.raw(requests).await;
        let bodies: Vec<_> =
            response.split("\r\n\r\n").skip(1).map(|part| part.split("HTTP/1.1").next().unwrap()).collect();
        assert_eq!(bodies, ["/a ", "/b xyz", "/wait ", "/c abc"], "{response}");
        assert!(server.raw("GET /old HTTP/1.0\r\n\r\n").await.ends_with("/old "), "HTTP/1.0");
    })
    .await;
}

#[tokio::test]
async fn who_has_said_all_still_gets_the_response_and_who_is_gone_ends_the_request() {
    run(async {
        let server = Server::start(Mode::Plain, &limits());
        let wait = b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
        let asked = |count: usize| {
            let seen = Rc::clone(&server.told.seen);
            async move {
                while seen.borrow().len() < count {
                    sleep(Duration::from_millis(5)).await;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let mut socket = server.connect().await;
        socket.write_all(wait).await.unwrap();
        socket.shutdown().await.unwrap();
        asked(1).await;
        server.told.release.notify_waiters();
        let response = rest(&mut socket).await;
        assert!(response.ends_with("/wait x"), "{response}");
        let gauge = server.metrics.connections.with_label_values(&[&server.address.to_string()]);
        for (name, count, reset) in [("closed", 2, false), ("reset", 3, true)] {
            let mut socket = server.connect().await;
            socket.write_all(wait).await.unwrap();
            asked(count).await;
            if reset {
                socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
            }
            drop(socket);
            let patience = if reset { Duration::from_secs(1) } else { PATIENCE };
            let ended = timeout(patience, async {
                while gauge.get() > 0 {
                    sleep(Duration::from_millis(10)).await;
                }
            });
            ended.await.unwrap_or_else(|_| panic!("{name}: still served"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_response_that_looks_like_a_refusal_is_left_alone() {
    run(async {
        let server = Server::start(Mode::Plain, &limits());
        let canned = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{canned}",
            canned.len()
        );
        let response = server.raw(request).await;
        assert!(response.ends_with(canned) && response.starts_with("HTTP/1.1 200 OK"), "{response}");
    })
    .await;
}

#[tokio::test]
async fn a_broken_chunk_ends_the_connection() {
    run(async {
        let server = Server::start(Mode::Plain, &limits());
        for chunk in ["x\r\n", "1\nab", "1\r\nab\r\n", "ffffffffffffffff1\r\n"] {
            let response = server.raw(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")).await;
            assert!(!response.contains("200 OK"), "{chunk:?}: {response}");
        }
        assert!(!server.told.seen.borrow().iter().any(|request| request.contains("smuggled")));
    })
    .await;
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_no_next_request() {
    run(async {
        let server = Server::start(Mode::Plain, &limits());
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        // whole and short: the connection may go on; announced and never sent: it may not
        let head = |length: usize| format!("POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        let next = "GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let mut socket = server.connect().await;
        socket.write_all(format!("{}{smuggled}{next}", head(smuggled.len())).as_bytes()).await.unwrap();
        let response = rest(&mut socket).await;
        assert!(response.contains("unread"), "{response}");
        // an upload that is cut short by its refusal still reads the response, not a reset
        let mut socket = server.connect().await;
        socket.write_all(head(64 << 20).as_bytes()).await.unwrap();
        let (mut reading, mut writing) = socket.into_split();
        let upload = spawn_local(async move {
            let piece = vec![b'x'; 65536];
            while writing.write_all(&piece).await.is_ok() {}
        });
        let response = until(&mut reading, "unread").await;
        assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
        // for as long as what comes is dropped, and no longer
        timeout(PATIENCE * 2, upload).await.unwrap().unwrap();
        assert!(!server.told.seen.borrow().iter().any(|request| request.contains("smuggled")));
    })
    .await;
}

#[tokio::test]
async fn a_panic_ends_its_request_only() {
    run(async {
        let server = Server::start(Mode::Plain, &limits());
        let response = server
            .raw("GET /panic HTTP/1.1\r\nHost: a\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await;
        assert!(response.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{response}");
        assert!(response.contains("\"internal_error\"") && response.ends_with("/a "), "{response}");
    })
    .await;
}

#[tokio::test]
async fn who_is_slow_is_told_and_who_is_idle_is_not() {
    run(async {
        let mut limits = limits();
        limits.timeouts.request_header = Duration::from_millis(200);
        limits.timeouts.idle = Duration::from_millis(200);
        let server = Server::start(Mode::Plain, &limits);
        for request in ["GET", "P", "GET / HTTP/1.1\r\nHost: a\r\nA: b", "GET / HTTP/1.1\r\n"] {
            let response = server.raw(request).await;
            assert!(refused(&response, "408 Request Timeout", "request_timeout"), "{request:?}: {response}");
        }
        assert_eq!(server.raw("").await, "");
        let answered = server.raw("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answered.ends_with("/a "), "{answered}");
        let second = server.raw("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b").await;
        let (_, second) = second.split_once("/a ").unwrap();
        assert!(refused(second, "408 Request Timeout", "request_timeout"), "{second}");
        // a request under way is not idle
        let mut socket = server.connect().await;
        socket.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        sleep(Duration::from_millis(600)).await;
        server.told.release.notify_one();
        assert!(rest(&mut socket).await.ends_with("/wait "));
        // who does not read the response is cut off
        let mut socket = server.connect().await;
        socket.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let gauge = server.metrics.connections.with_label_values(&[&server.address.to_string()]);
        timeout(PATIENCE, async {
            sleep(Duration::from_millis(50)).await;
            while gauge.get() > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
    })
    .await;
}

#[tokio::test]
async fn connections_past_the_cap_wait_their_turn() {
    run(async {
        let mut limits = limits();
        limits.bounds.connections_max = 2;
        let server = Server::start(Mode::Plain, &limits);
        let request = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
        let (mut first, mut second, mut third) =
            (server.connect().await, server.connect().await, server.connect().await);
        for socket in [&mut first, &mut second] {
            socket.write_all(request).await.unwrap();
            until(socket, "/a ").await;
        }
        third.write_all(request).await.unwrap();
        let waits = timeout(Duration::from_millis(100), third.read_u8()).await;
        assert!(waits.is_err());
        drop(first);
        until(&mut third, "/a ").await;
    })
    .await;
}

#[tokio::test]
async fn an_upgraded_connection_carries_anything() {
    run(async {
        let server = Server::start(Mode::Plain, &limits());
        let mut socket = server.connect().await;
        // what is said before the answer is not taken for a request
        let request = b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n\0\n\n";
        socket.write_all(request).await.unwrap();
        let head = until(&mut socket, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        socket.write_all(b"\xff\n").await.unwrap();
        let mut said = [0; 5];
        socket.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"\0\n\n\xff\n");
    })
    .await;
}

async fn http2(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> hyper::client::conn::http2::SendRequest<Empty<Bytes>> {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    spawn_local(connection);
    sender
}

async fn get(
    sender: &mut hyper::client::conn::http2::SendRequest<Empty<Bytes>>,
    path: &str,
) -> Result<String, hyper::Error> {
    let request = Request::get(format!("http://a{path}")).body(Empty::new()).unwrap();
    let response = sender.send_request(request).await?;
    let version = response.headers().get("x-version").cloned();
    let body = response.into_body().collect().await?.to_bytes();
    Ok(format!("{} {}", version.map_or("-".into(), |v| v.to_str().unwrap().to_owned()), String::from_utf8_lossy(&body)))
}

#[tokio::test]
async fn http2_is_spoken_with_prior_knowledge() {
    run(async {
        let mut limits = limits();
        limits.timeouts.idle = Duration::from_millis(300);
        let server = Server::start(Mode::Plain, &limits);
        let mut sender = http2(server.connect().await).await;
        assert_eq!(get(&mut sender, "/a").await.unwrap(), "2 /a ");
        assert!(get(&mut sender, "/panic").await.unwrap().contains("internal_error"));
        assert_eq!(get(&mut sender, "/b").await.unwrap(), "2 /b ");
        timeout(PATIENCE, async {
            while !sender.is_closed() {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("an idle connection is closed");
        // a preface that is none is an HTTP/1.1 request that is none
        let response = server.raw("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").await;
        assert!(refused(&response, "400 Bad Request", "bad_request"), "{response}");
    })
    .await;
}

#[tokio::test]
async fn a_response_that_no_window_is_granted_for_ends_and_its_connection_goes_on() {
    run(async {
        let mut limits = limits();
        limits.timeouts.idle = Duration::from_millis(400);
        let server = Server::start(Mode::Plain, &limits);
        let mut handshake = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = handshake
            .initial_stream_window_size(0)
            .handshake::<_, Empty<Bytes>>(TokioIo::new(server.connect().await))
            .await
            .unwrap();
        spawn_local(connection);
        let request = |path: &str| Request::get(format!("http://a{path}")).body(Empty::new()).unwrap();
        let waits = spawn_local(sender.send_request(request("/wait")));
        for path in ["/large", "/a"] {
            let begun = tokio::time::Instant::now();
            let response = timeout(PATIENCE, sender.send_request(request(path))).await.unwrap().unwrap();
            let ended = timeout(PATIENCE, response.into_body().collect()).await.expect("the stream ends");
            assert!(ended.is_err() && begun.elapsed() > limits.timeouts.idle, "{path}");
        }
        server.told.release.notify_waiters();
        assert_eq!(timeout(PATIENCE, waits).await.unwrap().unwrap().unwrap().status(), StatusCode::OK);
        // a body that has nothing to say is not the caller's fault
        let mut sender = http2(server.connect().await).await;
        let quiet = sender.send_request(request("/quiet")).await.unwrap();
        assert!(timeout(limits.timeouts.idle * 3, quiet.into_body().collect()).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn http2_is_held_to_the_bounds_of_http1() {
    run(async {
        let server = Server::start(Mode::Plain, &limits());
        let mut sender = http2(server.connect().await).await;
        for (fields, value, status) in [(100, "b", 200), (101, "b", 431), (1, "b ", 400), (1, "\tb", 400)] {
            let mut request = Request::get("http://a/a");
            for _ in 0..fields {
                request = request.header("a", value);
            }
            let response = sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
            assert_eq!(response.status(), status, "{fields} of {value:?}");
        }
        assert_eq!(server.told.seen.borrow().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_drain_at_the_cap_answers_who_was_accepted() {
    run(async {
        let mut limits = limits();
        limits.bounds.connections_max = 2;
        let server = Server::start(Mode::Plain, &limits);
        let mut idle = [server.connect().await, server.connect().await];
        for socket in &mut idle {
            socket.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            until(socket, "/a ").await;
        }
        let mut waiting = Vec::new();
        for _ in 0..4 {
            let mut socket = server.connect().await;
            socket.write_all(b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            waiting.push(socket);
        }
        sleep(Duration::from_millis(50)).await;
        server.shutdown.begin();
        for mut socket in waiting {
            let response = rest(&mut socket).await;
            assert!(response.contains("connection: close\r\n") && response.ends_with("/b "), "{response}");
        }
        timeout(PATIENCE, server.task).await.expect("the drain ends").unwrap();
        assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens");
    })
    .await;
}

#[tokio::test]
async fn a_drain_lets_requests_finish_and_closes_the_rest() {
    run(async {
        let server = Server::start(Mode::Plain, &limits());
        let wait = b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n";
        let (mut busy, mut idle) = (server.connect().await, server.connect().await);
        let mut streams = http2(server.connect().await).await;
        busy.write_all(wait).await.unwrap();
        idle.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        until(&mut idle, "/a ").await;
        let mut clone = streams.clone();
        let stream = spawn_local(async move { get(&mut clone, "/wait").await });
        let mut opened = server.connect().await;
        while server.told.seen.borrow().len() < 3 {
            sleep(Duration::from_millis(5)).await;
        }
        // this one is in the listen queue, or just accepted, when the drain begins
        let mut queued = server.connect().await;
        server.shutdown.begin();
        queued.write_all(b"GET /queued HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let queued = rest(&mut queued).await;
        assert!(queued.contains("connection: close\r\n") && queued.ends_with("/queued "), "{queued}");
        opened.write_all(b"GET /opened HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(rest(&mut opened).await.ends_with("/opened "));
        assert_eq!(rest(&mut idle).await, "");
        timeout(PATIENCE, async {
            while TcpStream::connect(server.address).await.is_ok() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("nobody listens any more");
        assert!(!server.task.is_finished());
        server.told.release.notify_waiters();
        let response = rest(&mut busy).await;
        assert!(response.contains("connection: close\r\n") && response.ends_with("/wait "), "{response}");
        assert_eq!(timeout(PATIENCE, stream).await.unwrap().unwrap().unwrap(), "2 /wait ");
        assert!(get(&mut streams, "/late").await.is_err());
        timeout(PATIENCE, server.task).await.expect("the drain ends").unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline() {
    run(async {
        let mut limits = limits();
        limits.timeouts.drain = Duration::from_millis(200);
        let server = Server::start(Mode::Plain, &limits);
        let mut busy = server.connect().await;
        busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        while server.told.seen.borrow().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
        server.shutdown.begin();
        timeout(PATIENCE, server.task).await.expect("the drain ends").unwrap();
        assert_eq!(rest(&mut busy).await, "");
    })
    .await;
}

#[tokio::test]
async fn a_redirect_listener_sends_callers_to_https() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let tls = tls::Settings {
            source: CertificateSource::Files(vec![certificate(directory.path(), "only", &["x.example"])]),
            min_version: MinVersion::Tls12,
            shown: None,
        };
        let server = Server::with([Mode::Redirect, Mode::Tls(Arc::new(tls))], &limits());
        let https = server.listeners.addresses().nth(1).unwrap().0.port();
        let response = server.raw("POST /a%2F?b=%41 HTTP/1.1\r\nHost: x.example:80\r\nConnection: close\r\n\r\n").await;
        assert!(response.starts_with("HTTP/1.1 308 Permanent Redirect\r\n"), "{response}");
        assert!(response.contains(&format!("location: https://x.example:{https}/a%2F?b=%41\r\n")), "{response}");
        for host in ["", "Host: a@b\r\n", "Host: a\r\nHost: b\r\n"] {
            let response = server.raw(format!("GET / HTTP/1.1\r\n{host}Connection: close\r\n\r\n")).await;
            assert!(response.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{host:?}: {response}");
        }
        assert!(server.told.seen.borrow().is_empty());
    })
    .await;
}

fn certificate(directory: &Path, file: &str, names: &[&str]) -> CertificateFiles {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (cert, key) = (directory.join(format!("{file}.pem")), directory.join(format!("{file}.key")));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    CertificateFiles { cert, key }
}

type TlsSocket = tokio_rustls::client::TlsStream<TcpStream>;

/// Connects as one who trusts `roots` and asks for `name`.
async fn tls_to(server: &Server, roots: &[&CertificateFiles], name: &str, alpn: &[&str]) -> std::io::Result<TlsSocket> {
    let mut config = trusting(roots, rustls::DEFAULT_VERSIONS);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    tls_by(server, Arc::new(config), name).await
}

async fn tls_by(server: &Server, config: Arc<rustls::ClientConfig>, name: &str) -> std::io::Result<TlsSocket> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio_rustls::TlsConnector::from(config).connect(name, server.connect().await).await
}

/// One who trusts `roots` and speaks these versions.
fn trusting(
    roots: &[&CertificateFiles],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ClientConfig {
    let mut trusted = rustls::RootCertStore::empty();
    for root in roots {
        trusted.add(CertificateDer::from_pem_file(&root.cert).unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(trusted)
        .with_no_client_auth()
}

#[tokio::test]
async fn a_reload_sets_the_oldest_version_and_keeps_sessions() {
    use rustls::HandshakeKind::{Full, Resumed};
    use rustls::version::{TLS12, TLS13};
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let files = certificate(directory.path(), "only", &["a.example"]);
        let from = |min_version| tls::Settings {
            source: CertificateSource::Files(vec![files.clone()]),
            min_version,
            shown: None,
        };
        let mut server = Server::start(Mode::Tls(Arc::new(from(MinVersion::Tls12))), &limits());
        // this one keeps its sessions, and comes back with what it was given under other settings
        let old = Arc::new(trusting(&[&files], &[&TLS12]));
        for (name, oldest, kind) in [
            ("at first", MinVersion::Tls12, Some(Full)),
            ("the same again", MinVersion::Tls12, Some(Resumed)),
            ("raised", MinVersion::Tls13, None),
            ("lowered", MinVersion::Tls12, Some(Resumed)),
        ] {
            server.reload(Mode::Tls(Arc::new(from(oldest)))).unwrap();
            let connected = tls_by(&server, Arc::clone(&old), "a.example").await.ok();
            assert_eq!(connected.and_then(|socket| socket.get_ref().1.handshake_kind()), kind, "{name}");
            let new = Arc::new(trusting(&[&files], &[&TLS13]));
            assert!(tls_by(&server, new, "a.example").await.is_ok(), "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn certificates_are_picked_by_name_and_replaced_without_a_break() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let first = certificate(directory.path(), "first", &["a.example"]);
        let second = certificate(directory.path(), "second", &["*.b.example"]);
        let settings = |files: &[&CertificateFiles]| {
            let source = CertificateSource::Files(files.iter().copied().cloned().collect());
            Mode::Tls(Arc::new(tls::Settings { source, min_version: MinVersion::Tls12, shown: None }))
        };
        let mut server = Server::start(settings(&[&first, &second]), &limits());
        for (name, root, trusted) in [
            ("a.example", &first, true),
            ("x.b.example", &second, true),
            ("x.b.example", &first, false),
            ("c.example", &second, false),
        ] {
            assert_eq!(tls_to(&server, &[root], name, &[]).await.is_ok(), trusted, "{name}");
        }
        let mut old = tls_to(&server, &[&first], "a.example", &["http/1.1"]).await.unwrap();
        let third = certificate(directory.path(), "third", &["c.example"]);
        server.reload(settings(&[&third])).unwrap();
        assert!(tls_to(&server, &[&third], "c.example", &[]).await.is_ok());
        assert!(tls_to(&server, &[&first], "a.example", &[]).await.is_err());
        old.write_all(b"GET /old HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        until(&mut old, "/old ").await;
        std::fs::write(&third.key, "").unwrap();
        assert!(server.reload(settings(&[&third])).is_err());
        assert!(tls_to(&server, &[&third], "c.example", &[]).await.is_ok(), "a failed reload changes nothing");
        server.listeners.record(&server.metrics);
        let text = server.metrics.text().unwrap();
        assert!(text.contains("portcullis_certificate_expiry_seconds{name=\"c.example\"}"), "{text}");
        assert!(text.contains("result=\"ok\""), "{text}");
    })
    .await;
}

#[tokio::test]
async fn the_protocol_is_chosen_by_alpn() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let source =
            CertificateSource::SelfSigned { names: vec!["localhost".into()], directory: directory.path().to_owned() };
        let settings = tls::Settings { source, min_version: MinVersion::Tls13, shown: None };
        tls::check(&settings).unwrap();
        assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none(), "a check makes nothing");
        let mut limits = limits();
        limits.timeouts.handshake = Duration::from_millis(200);
        let server = Server::start(Mode::Tls(Arc::new(settings)), &limits);
        let root = CertificateFiles {
            cert: directory.path().join("portcullis-selfsigned.pem"),
            key: directory.path().join("portcullis-selfsigned.key"),
        };
        let socket = tls_to(&server, &[&root], "localhost", &["h2", "http/1.1"]).await.unwrap();
        assert_eq!(socket.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(get(&mut http2(socket).await, "/a").await.unwrap(), "2 /a ");
        for alpn in [&["http/1.1"][..], &[]] {
            let mut socket = tls_to(&server, &[&root], "localhost", alpn).await.unwrap();
            socket.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            until(&mut socket, "/a ").await;
        }
        assert!(tls_to(&server, &[&root], "127.0.0.1", &[]).await.is_ok());
        // a bad request over TLS is refused in the same words
        let mut socket = tls_to(&server, &[&root], "localhost", &[]).await.unwrap();
        socket.write_all(b"nonsense\r\n\r\n").await.unwrap();
        let response = rest(&mut socket).await;
        assert!(refused(&response, "400 Bad Request", "bad_request"), "{response}");
        // a handshake that never comes is not waited for
        assert_eq!(server.raw("").await, "");
    })
    .await;
}

#[tokio::test]
async fn nothing_is_lost_where_a_drain_begins_under_load() {
    run(async {
        let server = Rc::new(Server::start(Mode::Plain, &limits()));
        let callers: Vec<_> = (0..20)
            .map(|_| {
                let server = Rc::clone(&server);
                spawn_local(async move {
                    let mut socket = server.connect().await;
                    let mut answered = 0;
                    loop {
                        socket.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
                        let head = until(&mut socket, "\r\n\r\n").await;
                        until(&mut socket, "/a ").await;
                        answered += 1;
                        if head.contains("connection: close") {
                            return answered;
                        }
                    }
                })
            })
            .collect();
        sleep(Duration::from_millis(200)).await;
        server.shutdown.begin();
        for caller in callers {
            // nor that of a caller whose connection was idle at that instant: a panic would be one that was not answered
            assert!(timeout(PATIENCE, caller).await.unwrap().unwrap() > 0);
        }
    })
    .await;
}

#[tokio::test]
async fn other_terms_hold_for_connections_to_come() {
    run(async {
        let mut terms = limits();
        terms.bounds.connections_max = 1;
        let server = Server::start(Mode::Plain, &terms);
        let mut kept = server.connect().await;
        let request =
            |path: &str, bytes: usize| format!("GET {path} HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "x".repeat(bytes));
        kept.write_all(request("/a", 1000).as_bytes()).await.unwrap();
        until(&mut kept, "/a ").await;
        terms.bounds = Bounds { header_bytes_max: 512, headers_max: 100, connections_max: 2 };
        terms.timeouts.request_header = Duration::from_millis(200);
        server.state.configure(terms);
        let large = server.raw(request("/a", 1000)).await;
        assert!(refused(&large, "431 Request Header Fields Too Large", "headers_too_large"), "{large}");
        let slow = server.raw("GET").await;
        assert!(refused(&slow, "408 Request Timeout", "request_timeout"), "{slow}");
        kept.write_all(request("/b", 1000).as_bytes()).await.unwrap();
        until(&mut kept, "/b ").await;
        terms.bounds.connections_max = 1;
        server.state.configure(terms);
        let mut second = server.connect().await;
        second.write_all(request("/c", 1).as_bytes()).await.unwrap();
        assert!(timeout(Duration::from_millis(100), second.read_u8()).await.is_err(), "there is room for one");
        drop(kept);
        until(&mut second, "/c ").await;
    })
    .await;
}

#[tokio::test]
async fn a_listener_that_goes_leaves_its_connections_to_their_requests() {
    run(async {
        let mut server = Server::start(Mode::Plain, &limits());
        let (mut busy, mut idle, fresh) = (server.connect().await, server.connect().await, server.connect().await);
        let mut multiplexed = http2(server.connect().await).await;
        assert_eq!(get(&mut multiplexed, "/a").await.unwrap(), "2 /a ");
        let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        idle.write_all(request("/a").as_bytes()).await.unwrap();
        until(&mut idle, "/a ").await;
        busy.write_all(request("/wait").as_bytes()).await.unwrap();
        timeout(PATIENCE, async {
            while !server.told.seen.borrow().iter().any(|seen| seen == "GET /wait") {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        let change = server.listeners.prepare(&[]).unwrap();
        server.listeners.apply(change);
        timeout(PATIENCE, async {
            while TcpStream::connect(server.address).await.is_ok() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("nobody listens any more");
        timeout(PATIENCE, async {
            while !multiplexed.is_closed() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("HTTP/2 is told to go");
        server.told.release.notify_waiters();
        for (mut socket, sent, path) in [(busy, true, "/wait"), (idle, false, "/b"), (fresh, false, "/c")] {
            if !sent {
                socket.write_all(request(path).as_bytes()).await.unwrap();
            }
            let response = rest(&mut socket).await;
            assert!(response.contains("connection: close\r\n"), "{path}: {response}");
            assert!(response.ends_with(&format!("{path} ")), "{path}: {response}");
        }
        assert!(!server.task.is_finished(), "the worker serves on");
    })
    .await;
}

#[tokio::test]
async fn who_never_said_a_word_does_not_hold_the_drain() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let files = certificate(directory.path(), "only", &["a.example"]);
        let tls = tls::Settings {
            source: CertificateSource::Files(vec![files.clone()]),
            min_version: MinVersion::Tls12,
            shown: None,
        };
        for mode in [Mode::Plain, Mode::Tls(Arc::new(tls))] {
            let server = Server::start(mode.clone(), &limits());
            let mut silent = server.connect().await;
            let mut shaken = match &mode {
                Mode::Tls(_) => Some(tls_to(&server, &[&files], "a.example", &[]).await.unwrap()),
                Mode::Plain | Mode::Redirect => None,
            };
            let gauge = server.metrics.connections.with_label_values(&[&server.address.to_string()]);
            timeout(PATIENCE, async {
                while gauge.get() < 1 + i64::from(shaken.is_some()) {
                    sleep(Duration::from_millis(5)).await;
                }
            })
            .await
            .unwrap();
            server.shutdown.begin();
            timeout(PATIENCE, server.task).await.unwrap_or_else(|_| panic!("{mode:?} holds the drain")).unwrap();
            assert_eq!(rest(&mut silent).await, "");
            if let Some(shaken) = &mut shaken {
                assert!(timeout(PATIENCE, shaken.read_u8()).await.unwrap().is_err());
            }
        }
    })
    .await;
}
