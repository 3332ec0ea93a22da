//! Byte streams into a connection of ours and, beside it, into what stood before it: the reference scanner in front of
//! hyper. Ours refuses at least what those refuse, and reads what both take as those do; but for the bytes of a query,
//! which goes on whatever they are.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, request};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{spawn_local, yield_now};

use super::super::connection::Service;
use super::super::link::{Guard, Worker};
use super::super::listeners::{Offer, Speaks};
use super::super::reference::{Scanned, Scanner};
use super::super::{Bounds, ListenState, Peer, Shutdown, Terms, Timeouts};
use super::*;
use crate::forward::tests::local;
use crate::record::metrics::Metrics;
use crate::rejection::Rejection;
use crate::wire::body::BodyError;
use crate::wire::http1::lines::Lines;
use crate::wire::target::RawQuery;

const HEADER_BYTES_MAX: usize = 2048;
const HEADERS_MAX: usize = 20;

impl Socket for DuplexStream {
    fn reset_when_closed(&mut self) {}
}

/// One request as its handler saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    head: String,
    /// Content and trailers; `None` where it broke off.
    body: Option<(Vec<u8>, String)>,
}

/// What a query may hold for us and not for hyper, as letters.
fn as_letters(query: &mut [u8]) {
    for byte in query {
        if !byte.is_ascii() || matches!(byte, b'"' | b'<' | b'>') {
            *byte = b'q';
        }
    }
}

/// What was read, with all that may be a query as letters: what looks like a request line may as well be content, or
/// stand in a field, and is changed for hyper there too.
fn plain(read: &[u8]) -> Vec<u8> {
    let mut plain = read.to_vec();
    if let Some(mark) = memchr::memchr(b'?', read) {
        as_letters(&mut plain[mark..]);
    }
    plain
}

fn fields(headers: &HeaderMap) -> String {
    let fields = headers.iter().map(|(name, value)| format!("{name}={:?}", plain(value.as_bytes())));
    fields.collect::<Vec<_>>().join(";")
}

/// The same in what looks like a request line, so that hyper is asked what it makes of all else.
fn with_plain_queries(said: &[u8]) -> Vec<u8> {
    let mut plain = said.to_vec();
    for mark in memchr::memchr_iter(b'?', said) {
        let end = said[mark..].iter().position(|&byte| byte <= b' ').map_or(said.len(), |length| mark + length);
        if said[end..].starts_with(b" HTTP/1.") {
            as_letters(&mut plain[mark..end]);
        }
    }
    plain
}

/// Reads a request to its end.
async fn see<B: http_body::Body<Data = Bytes>>(head: &request::Parts, body: B) -> Seen {
    let mut target = head.uri.to_string().into_bytes();
    if let Some(query) = head.extensions.get::<RawQuery>() {
        target.push(b'?');
        target.extend_from_slice(query.as_bytes());
    }
    let target = plain(&target);
    let target = String::from_utf8_lossy(&target);
    let text = format!("{} {target} {:?} {}", head.method, head.version, fields(&head.headers));
    let collected = body.collect().await.ok();
    let body = collected.map(|body| {
        let trailers = body.trailers().map(fields).unwrap_or_default();
        (plain(&body.to_bytes()), trailers)
    });
    Seen { head: text, body }
}

/// Reads every request to its end and remembers it.
#[derive(Clone, Default)]
struct Reader(Rc<RefCell<Vec<Seen>>>);

impl Handler for Reader {
    async fn handle(&self, _: &Rc<Peer>, head: Box<request::Parts>, body: Body) -> Response<Body> {
        let seen = see(&head, body).await;
        let broken = seen.body.is_none();
        self.0.borrow_mut().push(seen);
        let mut response = Response::new(Body::full("read"));
        if broken {
            *response.status_mut() = StatusCode::BAD_REQUEST;
        }
        response
    }

    fn refuse(&self, _: &Rc<Peer>, _: &request::Parts, rejection: Rejection) -> Response<Body> {
        let mut response = Response::new(Body::full("refused"));
        *response.status_mut() = rejection.status();
        response
    }

    fn redirect(&self, _: &Rc<Peer>, _: &request::Parts, _: HeaderValue) -> Response<Body> {
        Response::new(Body::empty())
    }
}

fn service<H: Handler>(handler: H) -> (Rc<Service<H>>, Guard) {
    let long = Duration::from_secs(30);
    let bounds = Bounds { header_bytes_max: HEADER_BYTES_MAX, headers_max: HEADERS_MAX, connections_max: 1 };
    let timeouts = Timeouts { handshake: long, request_header: long, idle: long, drain: long };
    let state = Arc::new(ListenState::new(Terms { timeouts, bounds }, Arc::new(Metrics::new())));
    let worker = Rc::new(Worker::new(state));
    let place = worker.state.room.enter().now_or_never().unwrap();
    let guard = Guard::new(&worker, "test", place);
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let peer = Rc::new(Peer { address, listener: "test".into(), https: false, shutdown: Shutdown::new() });
    let link = worker.link(Arc::new(Offer::new(Speaks::Plain)));
    (Service::new(handler, peer, worker, link, None), guard)
}

/// Says `pieces` one after the other and ends; what comes back.
async fn say(mut peer: DuplexStream, pieces: Vec<Vec<u8>>) -> String {
    for piece in pieces {
        if peer.write_all(&piece).await.is_err() {
            break;
        }
        yield_now().await;
        yield_now().await;
    }
    drop(peer.shutdown().await);
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// What a connection of ours makes of it: the requests and what the caller gets.
async fn ours(pieces: Vec<Vec<u8>>) -> (Vec<Seen>, String) {
    let (socket, peer) = duplex(1 << 20);
    let reader = Reader::default();
    let (service, guard) = service(reader.clone());
    let said = spawn_local(say(peer, pieces));
    assert!(serve(socket, false, &service, guard).await.is_none());
    let answer = said.await.unwrap();
    (reader.0.take(), answer)
}

/// What stood before it makes of the same: hyper reads what the scanner lets pass, and a NUL where it does not.
async fn theirs(pieces: &[Vec<u8>]) -> Vec<Seen> {
    let mut scanner = Scanner::new(HEADER_BYTES_MAX, HEADERS_MAX);
    let mut passed = Vec::new();
    'said: for piece in pieces {
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            match scanner.scan(rest) {
                Scanned::More => {
                    passed.push(rest.to_vec());
                    break;
                }
                Scanned::End { taken } => {
                    passed.push(rest[..taken].to_vec());
                    rest = &rest[taken..];
                }
                Scanned::Refused { taken, .. } => {
                    passed.push([&rest[..taken], b"\0\n\n"].concat());
                    break 'said;
                }
                Scanned::Broken { taken } => {
                    passed.push(rest[..taken].to_vec());
                    break 'said;
                }
            }
        }
    }
    let (socket, peer) = duplex(1 << 20);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let remembered = Rc::clone(&seen);
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let remembered = Rc::clone(&remembered);
        async move {
            let (head, body) = request.into_parts();
            // trailers as the gateway's own body lets them pass
            let seen = see(&head, Body::streamed(body)).await;
            remembered.borrow_mut().push(seen);
            Ok::<_, Infallible>(Response::new(Body::full("read")))
        }
    });
    let said = spawn_local(say(peer, passed));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.max_header_size(HEADER_BYTES_MAX).half_close(true);
    drop(builder.serve_connection(TokioIo::new(socket), service).await);
    drop(said.await.unwrap());
    seen.take()
}

/// Cuts `said` where `cuts` say.
fn cut(said: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(said.len().max(1)).min(said.len())).collect();
    cuts.extend([0, said.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|ends| said[ends[0]..ends[1]].to_vec()).collect()
}

/// Ours took nothing that the others refused, nor read it otherwise. Gives how many requests both took.
fn compare(said: &[u8], pieces: Vec<Vec<u8>>) -> (usize, usize) {
    let text = String::from_utf8_lossy(said).into_owned();
    let plain = with_plain_queries(said);
    let mut rest = plain.as_slice();
    let plain = pieces.iter().map(|piece| rest.split_off(..piece.len()).unwrap().to_vec()).collect::<Vec<_>>();
    let (theirs, (ours, answer)) = local(async { (theirs(&plain).await, ours(pieces).await) });
    assert!(ours.len() <= theirs.len(), "{text:?}: {ours:?}, {theirs:?}");
    for (index, (one, other)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(one.head, other.head, "{text:?}");
        if one.body.is_some() {
            assert_eq!(one.body, other.body, "{text:?}");
        } else {
            assert_eq!(index + 1, ours.len(), "{text:?}: something follows a body without end");
        }
    }
    let whole = ours.iter().filter(|seen| seen.body.is_some()).count();
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count() + answer.matches("HTTP/1.0 200 OK\r\n").count(), whole);
    (whole, theirs.iter().filter(|seen| seen.body.is_some()).count())
}

fn field() -> impl Strategy<Value = String> {
    ("[A-Za-z][A-Za-z0-9_.-]{0,12}", "[!-~]([ -~\u{e4}]{0,20}[!-~])?")
        .prop_filter("no field that frames", |(name, _)| {
            let framing = ["connection", "content-length", "transfer-encoding"];
            !framing.contains(&name.to_ascii_lowercase().as_str())
        })
        .prop_map(|(name, value)| format!("{name}: {value}\r\n"))
}

/// A request as a caller may say it.
fn request() -> impl Strategy<Value = String> {
    let body = prop_oneof![
        Just((String::new(), String::new())),
        Just(("Content-Length: 0\r\n".to_owned(), String::new())),
        "[a-z\r\n]{1,200}".prop_map(|text| (format!("content-length:{}\r\n", text.len()), text)),
        (
            proptest::collection::vec("[a-z\r\n]{1,40}", 0..6),
            proptest::option::of("[!-~]{1,9}"),
            prop_oneof![Just(""), Just(";a"), Just(" ;a=b;c=\"d\"")]
        )
            .prop_map(|(chunks, trailer, extension)| {
                let chunks = chunks.iter().map(|chunk| format!("{:x}{extension}\r\n{chunk}\r\n", chunk.len()));
                let chunks = chunks.collect::<Vec<_>>().concat();
                let trailer = trailer.map(|value| format!("X-Sum: {value}\r\n")).unwrap_or_default();
                ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{chunks}0\r\n{trailer}\r\n"))
            }),
    ];
    let method = prop_oneof![Just("GET"), Just("POST"), Just("HEAD"), Just("X-OWN")];
    let target = prop_oneof![
        Just("/"),
        Just("/a/b?c=d%20&e"),
        Just("http://a.example/b?c"),
        Just("*"),
        Just("a.example:80"),
        Just("/%2e/\"<>"),
        Just("/a?\u{e4}=\"<>")
    ];
    let wish = prop_oneof![
        4 => Just(""),
        1 => Just("Connection: keep-alive\r\n"),
        1 => Just("Connection: close\r\n"),
        1 => Just("Expect: 100-continue\r\n"),
        1 => Just("TE: trailers\r\n"),
    ];
    let before = prop_oneof![4 => Just(""), 1 => Just("\r\n")];
    (before, method, target, prop::bool::weighted(0.2), proptest::collection::vec(field(), 0..6), body, wish).prop_map(
        |(before, method, target, old, fields, (framing, body), wish)| {
            let old = old && !framing.starts_with('T');
            let version = if old { "1.0" } else { "1.1" };
            format!(
                "{before}{method} {target} HTTP/{version}\r\nHost: a\r\n{wish}{}{framing}\r\n{body}",
                fields.concat()
            )
        },
    )
}

fn pipeline() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(request(), 1..4).prop_map(|requests| requests.concat().into_bytes())
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    proptest::collection::vec(any::<prop::sample::Index>(), 0..6)
}

/// What makes one reader see an end where another sees none.
const WEDGES: [&str; 26] = [
    "\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    ":",
    "\0",
    "\x0b",
    ",",
    ";",
    "#",
    "0",
    "+",
    "\u{e9}",
    "0\r\n\r\n",
    "\r\n\r\n",
    "Content-Length: 3\r\n",
    "content-length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "\r\nTransfer-Encoding: chunked",
    "\r\nContent-Length: 5",
    " chunked",
    "HTTP/1.0",
    "GET /x HTTP/1.1\r\n\r\n",
    "FFFFFFFFFFFFFFFF0",
    "\r\n ",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_valid_is_read_as_hyper_reads_it(said in pipeline(), cuts in cuts()) {
        let (ours, theirs) = compare(&said, cut(&said, &cuts));
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn what_is_not_is_never_read_where_it_was_refused(
        mut said in pipeline(),
        wedges in proptest::collection::vec((any::<prop::sample::Index>(), 0..WEDGES.len(), 0..3_usize), 1..4),
        cuts in cuts(),
    ) {
        for (at, wedge, removed) in wedges {
            let at = at.index(said.len());
            let end = (at + removed).min(said.len());
            said.splice(at..end, WEDGES[wedge].bytes());
        }
        compare(&said, cut(&said, &cuts));
    }

    #[test]
    fn nor_where_bytes_are_changed(
        mut said in pipeline(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cuts in cuts(),
    ) {
        for (at, byte) in changes {
            let at = at.index(said.len());
            said[at] = byte;
        }
        compare(&said, cut(&said, &cuts));
    }
}

#[test]
fn content_that_looks_like_a_request_line_is_content() {
    let line = "POST /a?\u{e4}\"<> HTTP/1.1";
    let said = format!("POST / HTTP/1.1\r\nHost: a\r\nX: {line}\r\nContent-Length: {}\r\n\r\n{line}", line.len());
    assert_eq!(compare(said.as_bytes(), vec![said.clone().into_bytes()]), (1, 1));
    // and where its end stands behind it
    let said = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{line}");
    compare(said.as_bytes(), vec![said.clone().into_bytes()]);
}

#[test]
fn attacks_on_framing_are_refused_wherever_they_are_cut() {
    let post = "POST /x HTTP/1.1\r\nHost: a\r\n";
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let coded = format!("{post}Transfer-Encoding: chunked\r\n\r\n");
    for attack in [
        format!("{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"),
        format!("{post}Content-Length: 0\r\nContent-Length: 44\r\n\r\n"),
        format!("{post}Content-Length: 0\r\nContent-Length: 0\r\n\r\n"),
        format!("{post}Content-Length: +0\r\n\r\n"),
        format!("{post}Content-Length: 0x0\r\n\r\n"),
        format!("{post}Content-Length: 0 0\r\n\r\n"),
        format!("{post}Content-Length: 99999999999999999999999\r\n\r\n"),
        format!("{post}Content-Length: 18446744073709551615\r\n\r\n"),
        format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
        format!("{post}Content-Length : 0\r\n\r\n"),
        format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        format!("{post}X-A: b\r\n Content-Length: 44\r\n\r\n"),
        "POST /x HTTP/1.1\r\n Host: a\r\nContent-Length: 0\r\n\r\n".to_owned(),
        format!("{post}X-A: b\rContent-Length: 44\r\n\r\n"),
        format!("{post}X-A: b\r\r\n\r\n"),
        format!("{post}X-A: b\nContent-Length: 44\r\n\r\n"),
        format!("{post}X-A: b\0c\r\n\r\n"),
        format!("{post}: x\r\n\r\n"),
        format!("{post}Content-Length\r\n\r\n"),
        "POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "POST /x HTTP/1.2\r\nHost: a\r\n\r\n".to_owned(),
        "GET /x\r\n\r\n".to_owned(),
        "GET /x#y HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "\r\rGET /x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        format!("{coded}+0\r\n\r\n"),
        format!("{coded}0x0\r\n\r\n"),
        format!("{coded} 0\r\n\r\n"),
        format!("{coded}0\n\n"),
        format!("{coded}1\r\nx\n0\r\n\r\n"),
        format!("{coded}0\r\r\n\r\n"),
        format!("{coded}1\r\nxx0\r\n\r\n"),
        format!("{coded}FFFFFFFFFFFFFFFFF\r\nx\r\n0\r\n\r\n"),
        format!("{coded}10000000000000001\r\nx\r\n0\r\n\r\n"),
        format!("{coded}0;a=\n\r\n\r\n"),
        format!("{coded}0;a\rb\r\n\r\n"),
        format!("{coded}-1\r\n\r\n"),
        format!("{coded}0\r\nX: y\n\r\n"),
        format!("{coded}0\r\n X: y\r\n\r\n"),
        format!("{coded}0\r\nX : y\r\n\r\n"),
    ] {
        let said = format!("{attack}{smuggled}").into_bytes();
        for at in 0..attack.len() {
            let (one, two) = said.split_at(at);
            let (whole, _) = compare(&said, vec![one.to_vec(), two.to_vec()]);
            assert_eq!(whole, 0, "{attack:?} cut at {at}");
        }
        let (whole, _) = compare(&said, said.chunks(1).map(<[u8]>::to_vec).collect());
        assert_eq!(whole, 0, "{attack:?} byte by byte");
    }
}

#[test]
fn what_both_take_is_taken_whole() {
    let said = "\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n\
                POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
                POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n\
                GET /d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n\
                GET /e HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /f HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(compare(said.as_bytes(), vec![said.into()]), (5, 5));
    let bytes = said.bytes().map(|byte| vec![byte]).collect();
    assert_eq!(compare(said.as_bytes(), bytes), (5, 5));
}

type Answering = dyn Fn(Request<Body>) -> LocalBoxFuture<'static, Response<Body>>;

/// Answers as told.
#[derive(Clone)]
struct Told(Rc<Answering>);

impl Told {
    fn new<F: Future<Output = Response<Body>> + 'static>(answer: impl Fn(Request<Body>) -> F + 'static) -> Self {
        Self(Rc::new(move |request| Box::pin(answer(request))))
    }
}

impl Handler for Told {
    async fn handle(&self, _: &Rc<Peer>, head: Box<request::Parts>, body: Body) -> Response<Body> {
        (self.0)(Request::from_parts(*head, body)).await
    }

    fn refuse(&self, peer: &Rc<Peer>, asked: &request::Parts, rejection: Rejection) -> Response<Body> {
        Reader::default().refuse(peer, asked, rejection)
    }

    fn redirect(&self, peer: &Rc<Peer>, asked: &request::Parts, location: HeaderValue) -> Response<Body> {
        Reader::default().redirect(peer, asked, location)
    }
}

/// A caller and the service of a connection that answers so, whose socket holds so many bytes.
fn connected(told: Told, bytes_max: usize) -> (DuplexStream, Rc<Service<Told>>) {
    let (socket, peer) = duplex(bytes_max);
    let (service, guard) = service(told);
    let serving = Rc::clone(&service);
    spawn_local(async move { serve(socket, false, &serving, guard).await.is_none() });
    (peer, service)
}

/// A body of these frames, each of which is there once it is asked for; none ends it as broken.
fn frames(frames: Vec<Option<Frame<Bytes>>>) -> Body {
    let frames = frames.into_iter().map(|frame| frame.ok_or(BodyError::Stalled));
    Body::boxed(StreamBody::new(futures_util::stream::iter(frames)))
}

#[expect(clippy::unnecessary_wraps, reason = "one of a list of what may break")]
fn data(text: &'static str) -> Option<Frame<Bytes>> {
    Some(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// What comes back for `said`, without the date.
async fn answered(told: Told, said: &str) -> String {
    let (peer, _service) = connected(told, 1 << 20);
    let answer = say(peer, vec![said.into()]).await;
    let lines = answer.split_inclusive('\n').filter(|line| !line.starts_with("date: "));
    lines.collect()
}

type Make = Box<dyn Fn() -> Response<Body>>;

/// A name, a head without its end, the response, and what is to be written of it behind the version.
type Case = (&'static str, &'static str, Make, &'static str);

fn with_length(length: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert("content-length", HeaderValue::from_static(length));
    response
}

fn of(status: u16, body: Body) -> Response<Body> {
    Response::builder().status(status).body(body).unwrap()
}

/// A body and the lines of fields that came with it.
fn in_lines(body: &'static str, text: &'static str, dated: bool) -> Body {
    let mut lines = Lines::new(text.into(), dated);
    lines.request_id = Some(HeaderValue::from_static("7"));
    Body::full(body).behind(Some(lines))
}

fn not_modified(mut response: Response<Body>) -> Response<Body> {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

fn announced(body: Body) -> Response<Body> {
    Response::builder().header("trailer", "x-sum").body(body).unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "one of a list of what may break")]
fn trailers() -> Option<Frame<Bytes>> {
    Some(Frame::trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())])))
}

const GET: &str = "GET / HTTP/1.1\r\n";

/// What is written in answer to `head`, behind the version.
fn told(name: &str, head: &str, make: Make) -> String {
    let make = Rc::new(make);
    let answer = local(answered(Told::new(move |_| std::future::ready(make())), &format!("{head}\r\n")));
    let version = if head.contains("1.0") { "HTTP/1.0 " } else { "HTTP/1.1 " };
    assert!(answer.is_empty() || answer.starts_with(version), "{name}: {answer:?}");
    answer.chars().skip(version.len()).collect()
}

#[test]
fn a_response_is_framed_by_its_body() {
    let cases: Vec<Case> = vec![
        ("a body", GET, Box::new(|| of(200, Body::full("ok"))), "200 OK\r\ncontent-length: 2\r\n\r\nok"),
        ("none", GET, Box::new(|| of(200, Body::empty())), "200 OK\r\ncontent-length: 0\r\n\r\n"),
        (
            "of unknown length",
            GET,
            Box::new(|| of(200, frames(vec![data("ab"), data(""), data("c")]))),
            "200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        ),
        (
            "of a length that the head knows",
            GET,
            Box::new(|| with_length("3", frames(vec![data("ab"), data("c")]))),
            "200 OK\r\ncontent-length: 3\r\n\r\nabc",
        ),
        (
            "of another length than the head says",
            GET,
            Box::new(|| with_length("9", Body::full("abc"))),
            "200 OK\r\ncontent-length: 3\r\n\r\nabc",
        ),
        (
            "to HEAD",
            "HEAD / HTTP/1.1\r\n",
            Box::new(|| of(200, Body::full("abc"))),
            "200 OK\r\ncontent-length: 3\r\n\r\n",
        ),
        (
            "to HEAD, as the head says",
            "HEAD / HTTP/1.1\r\n",
            Box::new(|| with_length("9", Body::empty())),
            "200 OK\r\ncontent-length: 9\r\n\r\n",
        ),
        (
            "to HEAD, of unknown length",
            "HEAD / HTTP/1.1\r\n",
            Box::new(|| of(200, frames(vec![data("ab")]))),
            "200 OK\r\n\r\n",
        ),
        ("no content", GET, Box::new(|| of(204, Body::full("abc"))), "204 No Content\r\n\r\n"),
        ("not modified", GET, Box::new(|| not_modified(with_length("9", Body::empty()))), "304 Not Modified\r\n\r\n"),
    ];
    for (name, head, make, expected) in cases {
        assert_eq!(told(name, head, make), expected, "{name}");
    }
}

#[test]
fn a_response_is_framed_for_its_caller() {
    let cases: Vec<Case> = vec![
        (
            "trailers nobody takes",
            GET,
            Box::new(|| announced(frames(vec![data("a"), trailers()]))),
            "200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        ),
        (
            "trailers",
            "GET / HTTP/1.1\r\nTE: trailers\r\n",
            Box::new(|| announced(frames(vec![data("a"), trailers()]))),
            "200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-sum: 7\r\n\r\n",
        ),
        (
            "to an old caller",
            "GET / HTTP/1.0\r\n",
            Box::new(|| of(200, frames(vec![data("ab"), data("c")]))),
            "200 OK\r\nconnection: close\r\n\r\nabc",
        ),
        (
            "to an old caller who stays",
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n",
            Box::new(|| of(200, Body::full("ok"))),
            "200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok",
        ),
        (
            "to a caller who goes",
            "GET / HTTP/1.1\r\nConnection: close\r\n",
            Box::new(|| of(200, Body::full("ok"))),
            "200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        ),
        (
            "fields as they were written",
            GET,
            Box::new(|| of(200, in_lines("ok", "X-A:b\r\nServer: s\r\n", false))),
            "200 OK\r\nX-A:b\r\nServer: s\r\nx-request-id: 7\r\ncontent-length: 2\r\n\r\nok",
        ),
        (
            "the same to an old caller",
            "GET / HTTP/1.0\r\n",
            Box::new(|| of(200, in_lines("", "Server: s\r\n", false))),
            "200 OK\r\nServer: s\r\nx-request-id: 7\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        ),
    ];
    for (name, head, make, expected) in cases {
        assert_eq!(told(name, head, make), expected, "{name}");
    }
}

#[test]
fn a_response_is_dated_once() {
    for (lines, dated, expected) in [("Date: then\r\n", true, 0), ("Server: s\r\n", false, 1)] {
        let told = Told::new(move |_| std::future::ready(of(200, in_lines("ok", lines, dated))));
        let answer = local(async {
            let (peer, _service) = connected(told, 1 << 20);
            say(peer, vec![format!("{GET}\r\n").into()]).await
        });
        assert!(answer.contains(lines), "{answer}");
        assert_eq!(answer.matches("\r\ndate: ").count(), expected, "{answer}");
    }
}

#[test]
fn a_response_that_is_not_what_its_head_says_has_no_end() {
    let cases: Vec<Case> = vec![
        (
            "one that breaks off",
            GET,
            Box::new(|| of(200, frames(vec![data(LARGE), None]))),
            "200 OK\r\ntransfer-encoding: chunked\r\n\r\n2400\r\n",
        ),
        ("one that is longer than it says", GET, Box::new(|| with_length("2", frames(vec![data(LARGE)]))), ""),
        (
            "one that is shorter than it says",
            GET,
            Box::new(|| with_length("9999", frames(vec![data(LARGE)]))),
            "200 OK\r\ncontent-length: 9999\r\n\r\n",
        ),
    ];
    for (name, head, make, expected) in cases {
        let answer = told(name, head, make);
        assert!(answer.starts_with(expected) && !answer.ends_with("0\r\n\r\n"), "{name}: {answer:?}");
        assert!(answer.len() <= expected.len() + LARGE.len() + 2, "{name}: {answer:?}");
    }
}

/// More than is copied behind a head.
const LARGE: &str = match std::str::from_utf8(&[b'x'; 9216]) {
    Ok(text) => text,
    Err(_) => panic!(),
};

/// Reads until it ends so.
async fn until(peer: &mut DuplexStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        assert_ne!(peer.read_buf(&mut text).await.unwrap(), 0, "ends after {:?}", String::from_utf8_lossy(&text));
    }
    String::from_utf8(text).unwrap()
}

async fn content(request: Request<Body>) -> String {
    request
        .into_body()
        .collect()
        .await
        .map_or("broken".into(), |body| String::from_utf8(body.to_bytes().to_vec()).unwrap())
}

#[test]
fn a_body_is_asked_for_where_it_is_wanted_and_its_caller_waits() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let reads = Told::new(|request| async move { Response::new(Body::full(content(request).await)) });
    local(async {
        let (mut peer, _service) = connected(reads.clone(), 4096);
        peer.write_all(head.as_bytes()).await.unwrap();
        assert_eq!(until(&mut peer, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        peer.write_all(b"body").await.unwrap();
        assert!(until(&mut peer, "\r\n\r\nbody").await.starts_with("HTTP/1.1 200 "));
        // who does not wait is not told
        for cut in [1, 4] {
            let (one, two) = "body".split_at(cut);
            peer.write_all(format!("{head}{one}").as_bytes()).await.unwrap();
            yield_now().await;
            peer.write_all(two.as_bytes()).await.unwrap();
            assert!(until(&mut peer, "\r\n\r\nbody").await.starts_with("HTTP/1.1 200 "), "{cut}");
        }
        // nor who is answered at once; whether a body follows is then unknown
        let refuses = Told::new(|_| std::future::ready(Response::new(Body::full("no"))));
        let (mut peer, _service) = connected(refuses, 4096);
        peer.write_all(head.as_bytes()).await.unwrap();
        let answer = until(&mut peer, "\r\n\r\nno").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close\r\n"), "{answer}");
    });
}

#[test]
fn a_body_streams_no_faster_than_it_is_read() {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<tokio::sync::oneshot::Sender<usize>>();
    let receiver = Rc::new(tokio::sync::Mutex::new(receiver));
    let told = Told::new(move |request| {
        let receiver = Rc::clone(&receiver);
        async move {
            let (mut body, mut read) = (request.into_body(), 0);
            while let Some(asked) = receiver.lock().await.recv().await {
                let Some(Ok(frame)) = body.frame().await else { break };
                read += frame.data_ref().map_or(0, Bytes::len);
                asked.send(read).unwrap();
            }
            Response::new(Body::full("read"))
        }
    });
    local(async {
        let (mut peer, _service) = connected(told, 1024);
        let writing = spawn_local(async move {
            peer.write_all(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n").await.unwrap();
            let (mut written, piece) = (0, [b'x'; 1000]);
            while tokio::time::timeout(Duration::from_millis(50), peer.write_all(&piece)).await.is_ok() {
                written += piece.len();
            }
            written
        });
        // asked for a piece, and for no other
        let (asked, read) = tokio::sync::oneshot::channel();
        sender.send(asked).unwrap();
        let read = read.await.unwrap();
        assert!((1..=64 * 1024).contains(&read), "{read}");
        let written = writing.await.unwrap();
        assert!(written <= read + 1024 + 1000, "{written} were taken for {read}");
    });
}

#[test]
fn another_task_may_read_the_body_and_the_connection_goes_on_after() {
    let told = Told::new(|request| async move {
        let read = spawn_local(content(request)).await.unwrap();
        Response::new(Body::full(read))
    });
    local(async {
        let (mut peer, _service) = connected(told, 4096);
        for _ in 0..3 {
            peer.write_all(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
            for piece in ["2\r\na", "b\r\n", "1\r\nc\r\n0", "\r\n\r\n"] {
                yield_now().await;
                peer.write_all(piece.as_bytes()).await.unwrap();
            }
            until(&mut peer, "\r\n\r\nabc").await;
        }
        // one that the caller takes back is broken, not ended
        peer.write_all(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n").await.unwrap();
        peer.shutdown().await.unwrap();
        until(&mut peer, "\r\n\r\nbroken").await;
    });
}

#[test]
fn a_connection_without_a_request_holds_no_buffer_and_little_else() {
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let receiver = Rc::new(RefCell::new(Some(receiver)));
    let told = Told::new(move |_| {
        let receiver = receiver.take();
        async move {
            if let Some(receiver) = receiver {
                drop(receiver.await);
            }
            Response::new(Body::full("ok"))
        }
    });
    local(async {
        let (mut peer, service) = connected(told, 4096);
        let spares = &service.worker.spares;
        peer.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        while spares.kept() != (1, 0) {
            yield_now().await;
        }
        sender.send(()).unwrap();
        until(&mut peer, "\r\n\r\nok").await;
        while spares.kept() != (1, 1) {
            yield_now().await;
        }
        peer.write_all(b"GET / HT").await.unwrap();
        while spares.kept() != (0, 1) {
            yield_now().await;
        }
        peer.write_all(b"TP/1.1\r\n\r\n").await.unwrap();
        until(&mut peer, "\r\n\r\nok").await;
        while spares.kept() != (1, 1) {
            yield_now().await;
        }
    });
    let (service, guard) = service(Reader::default());
    let (socket, _peer) = duplex(1);
    let idle = serve(socket, false, &service, guard);
    assert!(std::mem::size_of_val(&idle) <= 768, "{} bytes", std::mem::size_of_val(&idle));
}
