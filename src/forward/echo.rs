//! `builtin: echo`: answers with what an upstream would have received, as JSON. For a first run and for debugging.
//!
//! The answer shows the rewritten head exactly and the body up to `SHOWN_BYTES_MAX`. The same answer is served by
//! `portcullis echo`, then of what came over the socket.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, request};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use crate::authenticate::Identity;
use crate::wire::body::{Body, BodyError};

/// Bytes of a body that are shown; the rest is only counted.
const SHOWN_BYTES_MAX: usize = 64 * 1024;

/// Connections of `portcullis echo` at once, and how long one may take to send a head or leave a body standing.
const CONNECTIONS_MAX: usize = 1024;
const WAITS_AT_MOST: Duration = Duration::from_secs(30);

/// What was received of a body.
#[derive(Debug, Default)]
struct Received {
    shown: BytesMut,
    bytes: u64,
}

/// The answer to a request.
///
/// # Errors
/// Where its body does not come to its end.
pub(super) async fn answer(
    head: &request::Parts,
    body: impl http_body::Body<Data = bytes::Bytes, Error = BodyError> + Unpin,
    identity: Option<&Identity>,
) -> Result<Response<Body>, BodyError> {
    let received = receive(body).await?;
    let text = if head.method == Method::HEAD { Vec::new() } else { describe(head, &received, identity) };
    let mut response = Response::new(Body::full(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

async fn receive(
    mut body: impl http_body::Body<Data = bytes::Bytes, Error = BodyError> + Unpin,
) -> Result<Received, BodyError> {
    let mut received = Received::default();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(chunk) = frame?.into_data() {
            received.bytes += chunk.remaining() as u64;
            let room = SHOWN_BYTES_MAX - received.shown.len();
            received.shown.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        }
    }
    Ok(received)
}

fn describe(head: &request::Parts, received: &Received, identity: Option<&Identity>) -> Vec<u8> {
    let mut members = Map::new();
    members.insert("method".into(), head.method.as_str().into());
    members.insert("path".into(), head.uri.path().into());
    members.insert("query".into(), head.uri.query().into());
    members.insert("headers".into(), fields(&head.headers));
    if let Some(identity) = identity {
        let roles: Vec<&str> = identity.principal.roles.iter().map(crate::principal::Role::as_str).collect();
        let name = &*identity.principal.subject.name;
        members.insert("identity".into(), json!({ "name": name, "roles": roles, "scheme": identity.scheme.name() }));
    }
    let truncated = received.bytes > received.shown.len() as u64;
    let (text, encoding) = body_text(&received.shown, truncated);
    members.insert("body".into(), text.into());
    members.insert("body_encoding".into(), encoding.into());
    members.insert("body_bytes".into(), received.bytes.into());
    members.insert("body_truncated".into(), truncated.into());
    let mut text = Value::Object(members).to_string().into_bytes();
    text.push(b'\n');
    text
}

/// Text where it is text; a truncated one may end inside a character, which is left out.
fn body_text(shown: &[u8], truncated: bool) -> (String, &'static str) {
    let whole = match std::str::from_utf8(shown) {
        Ok(text) => Some(text),
        Err(error) if truncated && error.error_len().is_none() => {
            shown.get(..error.valid_up_to()).and_then(|valid| std::str::from_utf8(valid).ok())
        }
        Err(_) => None,
    };
    whole.map_or_else(|| (STANDARD.encode(shown), "base64"), |text| (text.to_owned(), "utf-8"))
}

/// A value by name, or a list of them where a field came more than once.
fn fields(headers: &HeaderMap) -> Value {
    let mut members = Map::new();
    for name in headers.keys() {
        let text = |value: &HeaderValue| Value::from(String::from_utf8_lossy(value.as_bytes()));
        let mut values: Vec<Value> = headers.get_all(name).iter().map(text).collect();
        let value = if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
        members.insert(name.as_str().to_owned(), value);
    }
    Value::Object(members)
}

/// Answers every request over HTTP/1.1 with what it was; runs on a `LocalRuntime`.
///
/// # Errors
/// Where no connection can be accepted any more.
pub async fn serve(listener: TcpListener) -> io::Result<()> {
    let room = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let (stream, _) = listener.accept().await?;
        tokio::task::spawn_local(async move {
            let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
                let (head, body) = request.into_parts();
                let answered = answer(&head, Body::streamed(body).stalling_after(WAITS_AT_MOST), None).await;
                Ok::<_, Infallible>(answered.unwrap_or_else(|_| {
                    let mut response = Response::new(Body::empty());
                    *response.status_mut() = StatusCode::BAD_REQUEST;
                    response
                }))
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(WAITS_AT_MOST);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "connection ended");
            }
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    fn answered(request: Request<Body>) -> (Response<Body>, Value) {
        crate::forward::tests::local(async {
            let (head, body) = request.into_parts();
            let mut response = answer(&head, body, None).await.unwrap();
            let text = http_body_util::BodyExt::collect(response.body_mut()).await.unwrap().to_bytes();
            let value = serde_json::from_slice(&text).unwrap_or_default();
            (response, value)
        })
    }

    #[test]
    fn what_came_is_told() {
        let request = Request::builder()
            .method("POST")
            .uri("/a/b?c=d")
            .header("X-One", "1")
            .header("x-two", "a")
            .header("x-two", "b")
            .body(Body::full("hällo"))
            .unwrap();
        let (response, value) = answered(request);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        let expected = json!({
            "method": "POST", "path": "/a/b", "query": "c=d",
            "headers": { "x-one": "1", "x-two": ["a", "b"] },
            "body": "hällo", "body_encoding": "utf-8", "body_bytes": 6, "body_truncated": false,
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn a_body_is_shown_up_to_the_bound() {
        for (name, body, shown, encoding, truncated) in [
            ("none", Vec::new(), 0, "utf-8", false),
            ("as much as is shown", vec![b'a'; SHOWN_BYTES_MAX], SHOWN_BYTES_MAX, "utf-8", false),
            ("a byte more", vec![b'a'; SHOWN_BYTES_MAX + 1], SHOWN_BYTES_MAX, "utf-8", true),
            (
                "a character cut in two",
                [&vec![b'a'; SHOWN_BYTES_MAX - 1][..], "ä".as_bytes()].concat(),
                SHOWN_BYTES_MAX - 1,
                "utf-8",
                true,
            ),
            ("not text", vec![0xff, 0xfe], 4, "base64", false),
        ] {
            let length = body.len();
            let (_, value) = answered(Request::new(Body::full(body)));
            assert_eq!(value["body"].as_str().unwrap().len(), shown, "{name}");
            assert_eq!(value["body_encoding"], encoding, "{name}");
            assert_eq!(value["body_bytes"], length, "{name}");
            assert_eq!(value["body_truncated"], truncated, "{name}");
        }
    }

    #[test]
    fn head_gets_no_body() {
        let (response, _) = answered(Request::builder().method("HEAD").body(Body::empty()).unwrap());
        assert!(response.body().is_end_stream());
    }
}
