//! Exchanges over a socket of a test's own: what servers say, whole, in pieces and wrong, and beside hyper.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRAILER};
use http::{HeaderMap, HeaderValue, Request, request};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::task::spawn_local;

use super::super::outgoing::Outgoing;
use super::super::rewrite::Framing;
use super::super::tests::local;
use super::connection::Answer;
use super::decode::Fields;
use super::*;
use crate::clock::Clock;
use crate::wire::body::Body;
use crate::wire::fields::IdentityNames;
use crate::wire::http1::spares::Spares;

impl Transport for DuplexStream {
    fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        Pin::new(self).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }
}

/// What became of a request, as text.
struct Told {
    /// Status, fields, content and trailers; or why there is none.
    response: String,
    /// Whether the connection came back.
    kept: bool,
    /// What the server got.
    seen: String,
}

/// Reads a head, says `pieces` one after the other, and hangs up, unless it `holds`.
async fn serve(mut peer: DuplexStream, pieces: Vec<Vec<u8>>, holds: bool) -> Vec<u8> {
    let mut seen = Vec::new();
    while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
        assert_ne!(peer.read_buf(&mut seen).await.unwrap(), 0);
    }
    for piece in pieces {
        if peer.write_all(&piece).await.is_err() {
            return seen;
        }
        tokio::task::yield_now().await;
    }
    if holds {
        drop(peer.read_to_end(&mut seen).await);
    }
    seen
}

fn outgoing(body: Body) -> Outgoing {
    Outgoing::new(body, &Clock::system(), &IdentityNames::default()).0
}

/// An exchange whose head says what a test says, whether it is true or not.
async fn said<S: Transport>(
    stream: S,
    head: &request::Parts,
    body: &mut Outgoing,
    spares: &Spares,
    home: impl FnOnce(S) + Unpin + 'static,
) -> Result<Answer, Failed> {
    let mut lead = format!("{} {} HTTP/1.1\r\n", head.method, head.uri).into_bytes();
    for (name, value) in &head.headers {
        lead.extend_from_slice(format!("{name}: {}\r\n", value.to_str().unwrap()).as_bytes());
    }
    lead.extend_from_slice(b"\r\n");
    let length = head.headers.get(CONTENT_LENGTH).map(|length| length.to_str().unwrap().parse().unwrap());
    let framing = match length {
        _ if body.is_end_stream() => Framing::Empty,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked(head.headers.get_all(TRAILER).iter().cloned().collect()),
    };
    let means = Means { spares, clock: &Clock::system() };
    let expected = Expected { method: &head.method, fields: Fields::Map };
    exchange(stream, expected, lead, &framing, body, means, move |stream, _| home(stream)).await
}

async fn ask(request: Request<Body>, pieces: Vec<Vec<u8>>, holds: bool) -> Told {
    let (stream, peer) = duplex(1 << 20);
    let serving = spawn_local(serve(peer, pieces, holds));
    let (head, body) = request.into_parts();
    let kept = Rc::new(RefCell::new(None));
    let home = {
        let kept = Rc::clone(&kept);
        move |stream| *kept.borrow_mut() = Some(stream)
    };
    let spares = Spares::default();
    let response = match said(stream, &head, &mut outgoing(body), &spares, home).await {
        Err(Failed::Unsent) => "unsent".to_owned(),
        Err(Failed::Lost { answered, error: Error::Malformed(malformed) }) => format!("{malformed:?} {answered}"),
        Err(Failed::Lost { answered, error }) => format!("{error} {answered}"),
        Ok(answer) => show(answer.head.status, &answer.head.headers, answer.body.collect().await),
    };
    let mut connection = kept.take();
    let (is_kept, seen) = if holds {
        let is_kept = connection.as_mut().is_some_and(Transport::is_quiet);
        drop(connection);
        (is_kept, serving.await.unwrap())
    } else {
        // all that it says is said, however late
        let seen = serving.await.unwrap();
        (connection.as_mut().is_some_and(Transport::is_quiet), seen)
    };
    Told { response, kept: is_kept, seen: String::from_utf8(seen).unwrap() }
}

fn show<E>(status: http::StatusCode, headers: &HeaderMap, body: Result<http_body_util::Collected<Bytes>, E>) -> String {
    let fields = |headers: &HeaderMap| {
        let fields =
            headers.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value.as_bytes())));
        fields.collect::<Vec<_>>().join(",")
    };
    let body = body.map_or_else(
        |_| "broken".to_owned(),
        |body| {
            let trailers = body.trailers().map(fields).unwrap_or_default();
            format!("{:?} {trailers}", body.to_bytes())
        },
    );
    format!("{} {} {body}", status.as_u16(), fields(headers))
}

fn get() -> Request<Body> {
    Request::builder().uri("/").header("host", "a").body(Body::empty()).unwrap()
}

#[test]
fn every_answer_is_the_same_however_it_comes() {
    let interims = |count: usize| "HTTP/1.1 100 Continue\r\n\r\n".repeat(count);
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let cases: Vec<(&str, String, &str, bool)> = vec![
        ("a length", ok.into(), r#"200 content-length=2 b"ok" "#, true),
        ("nothing", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into(), r#"200 content-length=0 b"" "#, true),
        (
            "chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x\r\nk\r\n0\r\n\r\n".into(),
            r#"200 transfer-encoding=chunked b"ok" "#,
            true,
        ),
        (
            "trailers",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\nHost: evil\r\n\r\n"
                .into(),
            r#"200 transfer-encoding=chunked b"ok" x-sum=7"#,
            true,
        ),
        ("no end but the connection's", "HTTP/1.1 200 OK\r\nX-A: b\r\n\r\nall".into(), r#"200 x-a=b b"all" "#, false),
        ("interim responses", format!("{}{ok}", interims(16)), r#"200 content-length=2 b"ok" "#, true),
        ("too many of them", format!("{}{ok}", interims(17)), "Interim true", false),
        ("none but interim ones", interims(2), "connection closed true", false),
        (
            "a server that closes",
            ok.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
            r#"200 content-length=2,connection=close b"ok" "#,
            false,
        ),
        ("one that is old", ok.replace("1.1", "1.0"), r#"200 content-length=2 b"ok" "#, false),
        ("a second response", format!("{ok}{ok}"), r#"200 content-length=2 b"ok" "#, false),
        ("a line behind", format!("{ok}\r\n"), r#"200 content-length=2 b"ok" "#, false),
        (
            "a body of what has none",
            "HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 200 OK\r\n\r\n".into(),
            r#"304  b"" "#,
            false,
        ),
        (
            "a response behind chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n".into(),
            r#"200 transfer-encoding=chunked b"" "#,
            false,
        ),
        ("silence", String::new(), "connection closed false", false),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-Le".into(), "connection closed true", false),
        ("half a body", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok".into(), "200 content-length=4 broken", false),
        (
            "half a chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nok".into(),
            "200 transfer-encoding=chunked broken",
            false,
        ),
        (
            "no last chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n".into(),
            "200 transfer-encoding=chunked broken",
            false,
        ),
        (
            "a chunk of no size",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n".into(),
            "200 transfer-encoding=chunked broken",
            false,
        ),
        ("garbage", "SSH-2.0-x\r\n\r\n".into(), "Head true", false),
        ("an upgrade", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".into(), "Upgrade true", false),
        (
            "both framings",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            "BothFramings true",
            false,
        ),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk".into(),
            "Length true",
            false,
        ),
        ("a folded line", "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\n\r\n".into(), "Head true", false),
        ("a bare line feed", "HTTP/1.1 200 OK\r\nX-A: b\nX-B: c\r\n\r\n".into(), "BareLineFeed true", false),
        ("a NUL", "HTTP/1.1 200 OK\r\nX-A: b\0c\r\n\r\n".into(), "Head true", false),
    ];
    for (name, said, expected, kept) in cases {
        local(async {
            let said = said.as_bytes();
            let whole = ask(get(), vec![said.to_vec()], kept).await;
            assert_eq!((whole.response.as_str(), whole.kept), (expected, kept), "{name}");
            assert_eq!(whole.seen, "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "{name}");
            // where the server stays, and what it said beyond is read already, nothing but that tells
            let behind = name.contains(" behind");
            assert!(!behind || !ask(get(), vec![said.to_vec()], true).await.kept, "{name}: kept");
            let crumbs = ask(get(), said.chunks(1).map(<[u8]>::to_vec).collect(), kept).await;
            assert_eq!(crumbs.response, expected, "{name}, byte by byte");
            for at in 1..said.len() {
                let (one, two) = said.split_at(at);
                let told = ask(get(), vec![one.to_vec(), two.to_vec()], kept).await;
                assert_eq!(told.response, expected, "{name}, cut at {at}");
                assert!(kept || !told.kept, "{name}, cut at {at}: kept");
            }
        });
    }
}

#[test]
fn heads_pass_up_to_the_bound() {
    local(async {
        for (name, fill, expected) in [("the largest", 0, "200"), ("a byte more", 1, "TooLarge true")] {
            let frame = "HTTP/1.1 204 No Content\r\nX-Fill: \r\n\r\n".len();
            let fill = "x".repeat(RESPONSE_HEAD_BYTES_MAX - frame + fill);
            let said = format!("HTTP/1.1 204 No Content\r\nX-Fill: {fill}\r\n\r\n");
            let told = ask(get(), said.as_bytes().chunks(10_000).map(<[u8]>::to_vec).collect(), true).await;
            assert!(told.response.starts_with(expected) || told.response.starts_with("204"), "{name}");
            assert_eq!(told.response.starts_with("TooLarge"), expected != "200", "{name}");
        }
    });
}

#[test]
fn large_bodies_stream_and_give_their_connection_back() {
    local(async {
        for length in [16 * 1024, 64 * 1024, 300 * 1024] {
            let content = "0123456789abcdef".repeat(length / 16);
            let chunks = content.as_bytes().chunks(5000);
            let chunks = chunks.map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)));
            let chunked = chunks.collect::<Vec<_>>().concat();
            for said in [
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{content}"),
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}0\r\n\r\n"),
            ] {
                let told = ask(get(), vec![said.into_bytes()], true).await;
                assert!(told.response.contains(&format!("b\"{content}\"")), "{length}");
                assert!(told.kept, "{length}");
            }
        }
    });
}

/// A body of unknown length, from frames that are there at once.
fn frames(frames: Vec<Frame<Bytes>>) -> Body {
    Body::boxed(StreamBody::new(futures_util::stream::iter(frames.into_iter().map(Ok))))
}

#[test]
fn a_requests_body_is_written_as_its_head_says() {
    local(async {
        let large = "y".repeat(100_000);
        let chunk = |text: &'static str| Frame::data(Bytes::from_static(text.as_bytes()));
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        trailers.insert("x-else", HeaderValue::from_static("7"));
        let coded = ("transfer-encoding", "chunked".to_owned());
        let long = |length: usize| ("content-length", length.to_string());
        for (name, framing, body, expected) in [
            ("a small one", long(2), Body::full("ab"), Some("ab".to_owned())),
            ("a large one", long(100_000), Body::full(large.clone()), Some(large.clone())),
            (
                "small chunks",
                coded.clone(),
                frames(vec![chunk("ab"), chunk(""), chunk("c")]),
                Some("2\r\nab\r\n1\r\nc\r\n0\r\n\r\n".into()),
            ),
            (
                "a large chunk",
                coded.clone(),
                frames(vec![Frame::data(large.clone().into())]),
                Some(format!("186a0\r\n{large}\r\n0\r\n\r\n")),
            ),
            (
                "a large chunk that ends it",
                coded.clone(),
                Body::full(large.clone()),
                Some(format!("186a0\r\n{large}\r\n0\r\n\r\n")),
            ),
            (
                "trailers that were announced",
                coded.clone(),
                frames(vec![chunk("a"), Frame::trailers(trailers)]),
                Some("1\r\na\r\n0\r\nx-sum: 7\r\n\r\n".into()),
            ),
            ("more than the head says", long(2), frames(vec![chunk("a"), chunk("bcHTTP")]), None),
            ("less than the head says", long(3), frames(vec![chunk("ab")]), None),
        ] {
            let (stream, mut peer) = duplex(4096);
            let serving = spawn_local(async move {
                let mut seen = Vec::new();
                let mut ends = expected.as_ref().map(|body| format!("\r\n\r\n{body}").into_bytes());
                while ends.as_ref().is_none_or(|end| !seen.ends_with(end)) {
                    if peer.read_buf(&mut seen).await.unwrap() == 0 {
                        break;
                    }
                }
                if ends.take().is_some() {
                    peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                }
                (seen, expected)
            });
            let request =
                Request::builder().method("POST").uri("/").header("trailer", "X-Sum").header(framing.0, framing.1);
            let (head, ()) = request.body(()).unwrap().into_parts();
            let kept = Rc::new(RefCell::new(None));
            let home = {
                let kept = Rc::clone(&kept);
                move |stream| *kept.borrow_mut() = Some(stream)
            };
            let answered = said(stream, &head, &mut outgoing(body), &Spares::default(), home).await;
            let (seen, expected) = serving.await.unwrap();
            assert_eq!(answered.is_ok(), expected.is_some(), "{name}");
            assert_eq!(kept.borrow().is_some(), expected.is_some(), "{name}");
            assert!(
                expected.is_some() || !String::from_utf8_lossy(&seen).contains("HTTP/1.1\r\n\r\n\r\nabcHTTP"),
                "{name}"
            );
            assert!(!String::from_utf8_lossy(&seen).contains("cHTTP"), "{name}");
        }
    });
}

#[test]
fn an_answer_before_the_requests_end_does_not_give_the_connection_back() {
    local(async {
        for said in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A: b\r\n\r\n",
        ] {
            let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
            let waiting = futures_util::stream::once(async move {
                drop(receiver.await);
                Ok(Frame::data(Bytes::from_static(b"late")))
            });
            let body = Body::boxed(StreamBody::new(Box::pin(waiting)));
            let request = Request::builder().method("POST").uri("/").header("transfer-encoding", "chunked").body(body);
            let told = ask(request.unwrap(), vec![said.into()], true).await;
            assert!(told.response.contains("b\"ok\""), "{}", told.response);
            assert!(!told.kept);
            assert!(!told.seen.contains("late"), "{}", told.seen);
            drop(sender);
        }
    });
}

#[test]
fn a_connection_that_takes_nothing_gives_the_request_back() {
    local(async {
        let (stream, peer) = duplex(64);
        drop(peer);
        let (head, ()) = Request::builder().uri("/").body(()).unwrap().into_parts();
        let failed = said(stream, &head, &mut Outgoing::empty(), &Spares::default(), drop).await;
        assert!(matches!(failed, Err(Failed::Unsent)));
    });
}

#[test]
fn what_a_server_said_before_it_stopped_reading_is_heard() {
    local(async {
        let (stream, mut peer) = duplex(4096);
        peer.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
        let serving = spawn_local(async move {
            let mut seen = [0; 100];
            peer.read_exact(&mut seen).await.unwrap();
        });
        let request = Request::builder().method("POST").uri("/").header("content-length", 100_000).body(());
        let (head, ()) = request.unwrap().into_parts();
        let body = Body::full(vec![b'x'; 100_000]);
        let answer = said(stream, &head, &mut outgoing(body), &Spares::default(), |_| panic!("kept")).await;
        let answer = answer.unwrap_or_else(|_| panic!("lost"));
        assert_eq!(answer.head.status, 413);
        serving.await.unwrap();
    });
}

#[test]
fn buffers_are_held_only_while_something_is_in_them() {
    local(async {
        let (stream, mut peer) = duplex(4096);
        let spares = Rc::new(Spares::default());
        let (head, ()) = Request::builder().uri("/").body(()).unwrap().into_parts();
        let asked = {
            let spares = Rc::clone(&spares);
            spawn_local(async move { said(stream, &head, &mut Outgoing::empty(), &spares, drop).await.is_ok() })
        };
        let mut seen = [0; 4];
        peer.read_exact(&mut seen).await.unwrap();
        assert_eq!(spares.kept(), (1, 1), "while the server thinks");
        peer.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        assert_eq!(spares.kept(), (0, 1), "while half a head is here");
        peer.write_all(b"Content-Length: 0\r\n\r\n").await.unwrap();
        assert!(asked.await.unwrap());
        assert_eq!(spares.kept(), (1, 1), "after");
    });
}

/// What hyper makes of the same bytes.
async fn ask_hyper(head_only: bool, pieces: Vec<Vec<u8>>) -> String {
    let (stream, peer) = duplex(1 << 20);
    let serving = spawn_local(serve(peer, pieces, false));
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Body>(io).await.unwrap();
    spawn_local(async move { drop(connection.await) });
    let mut request = get();
    if head_only {
        *request.method_mut() = http::Method::HEAD;
    }
    let told = match sender.send_request(request).await {
        Err(_) => "none".to_owned(),
        Ok(response) => {
            let (head, body) = response.into_parts();
            show(head.status, &head.headers, Body::streamed(body).collect().await)
        }
    };
    serving.await.unwrap();
    told
}

fn field() -> impl Strategy<Value = String> {
    ("[A-Za-z][A-Za-z0-9-]{0,12}", "[!-~]([ -~]{0,20}[!-~])?")
        .prop_filter("no field that frames", |(name, _)| {
            let framing =
                ["connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive"];
            !framing.contains(&name.to_ascii_lowercase().as_str())
        })
        .prop_map(|(name, value)| format!("{name}: {value}\r\n"))
}

/// A response as a server may say it, and whether it answers a HEAD.
fn response() -> impl Strategy<Value = (String, bool)> {
    let body = prop_oneof![
        Just((String::new(), "Content-Length: 0\r\n".to_owned())),
        "[a-z]{1,200}".prop_map(|text| (text.clone(), format!("Content-Length: {}\r\n", text.len()))),
        "[a-z]{0,200}".prop_map(|text| (text, String::new())),
        (proptest::collection::vec("[a-z]{1,40}", 0..6), proptest::option::of("[!-~]{1,9}"), "(;[a-z]{1,3})?")
            .prop_map(|(chunks, trailer, extension)| {
                let chunks = chunks.iter().map(|chunk| format!("{:x}{extension}\r\n{chunk}\r\n", chunk.len()));
                let mut text = chunks.collect::<Vec<_>>().concat();
                text += "0\r\n";
                text += &trailer.map(|value| format!("X-Sum: {value}\r\n")).unwrap_or_default();
                text += "\r\n";
                (text, "Transfer-Encoding: chunked\r\n".to_owned())
            }),
    ];
    let status = prop_oneof![
        Just("200 OK"),
        Just("404 Not Found"),
        Just("204 No Content"),
        Just("304 Not Modified"),
        Just("299 ")
    ];
    let before = prop_oneof![Just(""), Just("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")];
    (before, status, proptest::collection::vec(field(), 0..8), body, any::<bool>()).prop_map(
        |(before, status, fields, (body, framing), head_only)| {
            let bodiless = head_only || status.starts_with("204") || status.starts_with("304");
            let body = if bodiless { String::new() } else { body };
            (format!("{before}HTTP/1.1 {status}\r\n{}{framing}\r\n{body}", fields.concat()), head_only)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_valid_is_read_as_hyper_reads_it(
        (said, head_only) in response(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(said.len())).collect();
        cuts.sort_unstable();
        let (mut pieces, mut from) = (Vec::new(), 0);
        for to in cuts.into_iter().chain([said.len()]) {
            if to > from {
                pieces.push(said.as_bytes()[from..to].to_vec());
                from = to;
            }
        }
        let (ours, theirs) = local(async {
            let mut request = get();
            if head_only {
                *request.method_mut() = http::Method::HEAD;
            }
            (ask(request, pieces.clone(), false).await.response, ask_hyper(head_only, pieces).await)
        });
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn nothing_a_server_says_breaks_more_than_its_response(
        mut said in response().prop_map(|(said, _)| said.into_bytes()),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for (at, byte) in changes {
            let at = at.index(said.len());
            said[at] = byte;
        }
        local(async {
            let whole = ask(get(), vec![said.clone()], false).await;
            let crumbs = ask(get(), said.chunks(1).map(<[u8]>::to_vec).collect(), false).await;
            let lost = |told: Told| if told.response.ends_with(" true") { "lost".to_owned() } else { told.response };
            // of a head that is broken and has no end either one of the two is seen first
            assert_eq!(lost(whole), lost(crumbs));
        });
    }
}
