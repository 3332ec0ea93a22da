//! One GET for a JWK Set: over TLS, or in clear from this machine only.
//!
//! Everything is bounded: the time by the caller, the head and the body in bytes. A redirect is a failure: where keys come
//! from is said by the configuration alone.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, HOST, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::jwks::{JWKS_BYTES_MAX, JwksError};

/// The most bytes of a response's head.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Where a JWK Set is.
pub struct Location {
    /// As the configuration has it.
    pub url: Box<str>,
    /// A name or an address, without brackets.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// `Host`.
    pub authority: Box<str>,
    /// Path and query.
    pub target: Box<str>,
    /// How the server proves that it is the one; `None`: in clear.
    pub tls: Option<Tls>,
}

/// How a server proves that it is the one.
pub struct Tls {
    /// What is trusted.
    pub config: Arc<ClientConfig>,
    /// The name that its certificate must be for.
    pub name: ServerName<'static>,
    /// SHA-256 of whom `config` trusts and what it shows.
    pub content: [u8; 32],
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// What was fetched.
pub(super) struct Fetched {
    pub(super) body: Bytes,
    /// How long it is good for, as its server says.
    pub(super) max_age: Option<Duration>,
}

/// Why there is no JWK Set.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The name did not resolve.
    #[error("name not resolved: {0}")]
    Resolve(io::Error),
    /// Nobody accepts connections.
    #[error("not connected: {0}")]
    Connect(io::Error),
    /// The certificate is not trusted or not for the name, or TLS failed otherwise.
    #[error("tls handshake failed: {0}")]
    Tls(io::Error),
    /// The response is no HTTP, or broke off.
    #[error("http: {0}")]
    Http(#[from] hyper::Error),
    /// The URL cannot be asked for.
    #[error("it cannot be asked for: {0}")]
    Request(#[from] http::Error),
    /// Another status than 200; a redirect is not followed.
    #[error("status {0}")]
    Status(StatusCode),
    /// The body is too long, or broke off.
    #[error("the body is longer than {JWKS_BYTES_MAX} bytes or breaks off")]
    Body,
    /// It is no JWK Set, or of no use.
    #[error(transparent)]
    Jwks(#[from] JwksError),
    /// It took too long.
    #[error("no answer in time")]
    TooLate,
}

/// Asks once, over a connection of its own. The caller bounds the time.
pub(super) async fn fetch(location: &Location) -> Result<Fetched, FetchError> {
    let address = (&*location.host, location.port);
    let addresses: Vec<_> = tokio::net::lookup_host(address).await.map_err(FetchError::Resolve)?.collect();
    let tcp = TcpStream::connect(&*addresses).await.map_err(FetchError::Connect)?;
    match &location.tls {
        None => ask(location, tcp).await,
        Some(tls) => {
            let connector = TlsConnector::from(Arc::clone(&tls.config));
            let stream = connector.connect(tls.name.clone(), tcp).await.map_err(FetchError::Tls)?;
            ask(location, stream).await
        }
    }
}

async fn ask(
    location: &Location,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Fetched, FetchError> {
    let request = Request::get(&*location.target)
        .header(HOST, &*location.authority)
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(ACCEPT_ENCODING, "identity")
        .header(USER_AGENT, "portcullis")
        .body(Empty::<Bytes>::new())?;
    let mut client = http1::Builder::new();
    client.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await?;
    let connection = Ending(tokio::spawn(connection));
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let max_age = max_age(response.headers());
    let body = Limited::new(response.into_body(), JWKS_BYTES_MAX).collect().await.map_err(|_| FetchError::Body)?;
    drop(connection);
    Ok(Fetched { body: body.to_bytes(), max_age })
}

/// Ends the connection with the question, also where that is given up.
struct Ending<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// RFC 9111 5.2.2.1.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives = values.flat_map(|value| value.split(',')).map(str::trim);
    let seconds = directives.find_map(|directive| {
        let (name, value) = directive.split_once('=')?;
        name.eq_ignore_ascii_case("max-age").then(|| value.trim_matches('"').parse().ok())?
    });
    seconds.map(Duration::from_secs)
}
