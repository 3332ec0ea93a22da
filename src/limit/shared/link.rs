//! The connection to where the counts are kept: made, watched and made again in the background.
//!
//! While there is none, nobody waits for one: [`Link::live`] says so at once. A connection is put in force only after it has
//! shown that it does what requests will ask of it, writing included; the first failure takes it out of force for everybody.
//!
//! Of a cluster any server will do: all keys are of one slot (see [`KEY_PREFIX`]), and the first answer says who has it.

use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisError, Script, ServerErrorKind};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::address::{Node, Settings};
use super::{ANSWER_MAX, Cost, Drawn, IN_FLIGHT_MAX, KEY_PREFIX};
use crate::record::metrics::Metrics;

/// The longest that making a connection may take, or an answer to a probe.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// After a failure, each gateway counts for itself for at least so long; then another connection is tried.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// How often a connection is tried out, so that one that is dead is seldom found by a request.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Scripts cannot call each other: each begins with what they have in common.
const DRAW_TEXT: &str = concat!(include_str!("under_way.lua"), include_str!("draw.lua"));
const END_TEXT: &str = concat!(include_str!("under_way.lua"), include_str!("end.lua"));
/// Draws on budgets.
pub(super) static DRAW: LazyLock<Script> = LazyLock::new(|| Script::new(DRAW_TEXT));
/// Tells how an attempt ended.
pub(super) static END: LazyLock<Script> = LazyLock::new(|| Script::new(END_TEXT));

/// Drawn on to try a connection out; full again within a millisecond.
const PROBE: Cost = Cost { each_us: 1.0, whole_us: 1e6 };

/// Codes of errors that may be shown. The rest of an error's text is the server's own, which may repeat what it was sent,
/// the password included.
const CODES: [&str; 16] = [
    "ASK",
    "BUSY",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOPERM",
    "NOREPLICAS",
    "NOSCRIPT",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "WRONGPASS",
];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("name not resolved: {0}")]
    Resolve(io::Error),
    #[error("not connected: {0}")]
    Connect(io::Error),
    #[error("tls handshake failed: {0}")]
    Tls(io::Error),
    #[error("no certificates are believed")]
    NoRoots,
    #[error("refused: {0}")]
    Refused(&'static str),
    /// Another of a cluster has the keys. Where it is, is the server's own text.
    #[error("refused: MOVED")]
    Moved(Node),
    #[error("it has no such database (a cluster has 0 alone)")]
    Database,
    #[error("authentication failed")]
    Authentication,
    #[error("the connection broke")]
    Broken,
    #[error("it does not speak as Redis does")]
    Garbled,
    #[error("no answer in time")]
    TooLate,
}

impl From<RedisError> for LinkError {
    fn from(error: RedisError) -> Self {
        let known = error.code().and_then(|code| CODES.into_iter().find(|known| *known == code));
        match (known, error.kind()) {
            (_, ErrorKind::Server(ServerErrorKind::Moved)) => match error.redirect_node() {
                Some((node, _)) => Self::Moved(Node::parse(node)),
                None => Self::Garbled,
            },
            (Some(code), _) => Self::Refused(code),
            (None, ErrorKind::AuthenticationFailed) => Self::Authentication,
            (None, ErrorKind::Server(_)) => Self::Refused("an error that is not shown"),
            (None, _) if error.is_io_error() => Self::Broken,
            (None, _) => Self::Garbled,
        }
    }
}

/// A connection in force.
pub(super) struct Live {
    pub(super) connection: MultiplexedConnection,
    driver: AbortHandle,
    lost: Notify,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The connection, where there is one.
#[derive(Default)]
pub(super) struct Link {
    live: ArcSwapOption<Live>,
    why: ArcSwapOption<LinkError>,
}

impl Link {
    pub(super) fn live(&self) -> Option<Arc<Live>> {
        self.live.load_full()
    }

    /// Takes a connection out of force that failed a request.
    pub(super) fn lost(&self, live: &Arc<Live>, error: LinkError) {
        let before = self.live.compare_and_swap(live, None);
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, live)) {
            self.why.store(Some(Arc::new(error)));
            live.lost.notify_one();
        }
    }

    /// Makes connections for ever. `tried` becomes true after the first attempt, however it ended.
    pub(super) async fn keep(&self, settings: &Settings, metrics: &Metrics, tried: watch::Sender<bool>) {
        let up = metrics.limits_shared_up.with_label_values::<&str>(&[]);
        let mut told = false;
        loop {
            let error = match connect(settings).await {
                Ok(live) => {
                    let live = Arc::new(live);
                    self.live.store(Some(Arc::clone(&live)));
                    up.set(1);
                    tried.send_replace(true);
                    if std::mem::take(&mut told) {
                        tracing::info!(at = ?settings.address, "shared limits answer again");
                    }
                    let error = self.watched(&live).await;
                    self.live.store(None);
                    error
                }
                Err(error) => Arc::new(error),
            };
            up.set(0);
            tried.send_replace(true);
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(
                    at = ?settings.address,
                    %error,
                    "shared limits do not answer: this gateway counts for itself until they do"
                );
            }
            sleep(RETRY_AFTER).await;
        }
    }

    /// Returns when a connection fails: requests, or to answer a probe.
    async fn watched(&self, live: &Live) -> Arc<LinkError> {
        loop {
            tokio::select! {
                () = live.lost.notified() => return self.why.swap(None).unwrap_or_else(|| Arc::new(LinkError::Broken)),
                () = sleep(PROBE_EVERY) => {}
            }
            match timeout(CONNECT_MAX, probe(live)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Arc::new(error),
                Err(_) => return Arc::new(LinkError::TooLate),
            }
        }
    }
}

async fn connect(settings: &Settings) -> Result<Live, LinkError> {
    let address = &settings.address;
    let found = async {
        match dial(settings, &address.host, address.port).await {
            // once: whom it names has the keys, or the cluster is changing
            Err(LinkError::Moved(Node { host, port })) => {
                dial(settings, host.as_deref().unwrap_or(&address.host), port.unwrap_or(address.port)).await
            }
            ended => ended,
        }
    };
    timeout(CONNECT_MAX, found).await.unwrap_or(Err(LinkError::TooLate))
}

async fn dial(settings: &Settings, host: &str, port: u16) -> Result<Live, LinkError> {
    let address = &*settings.address;
    let found = tokio::net::lookup_host((host, port)).await.map_err(LinkError::Resolve)?;
    let addresses: Vec<_> = found.collect();
    let tcp = TcpStream::connect(&*addresses).await.map_err(LinkError::Connect)?;
    tcp.set_nodelay(true).map_err(LinkError::Connect)?;
    match &address.tls {
        None => greet(settings, tcp).await,
        Some(name) => {
            let name = if address.is_named || *host == *address.host {
                name.clone()
            } else {
                ServerName::try_from(host.to_owned()).map_err(|error| LinkError::Tls(io::Error::other(error)))?
            };
            let config = settings.tls.as_ref().ok_or(LinkError::NoRoots)?;
            let connector = TlsConnector::from(Arc::clone(config));
            greet(settings, connector.connect(name, tcp).await.map_err(LinkError::Tls)?).await
        }
    }
}

async fn greet(
    settings: &Settings,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Live, LinkError> {
    // whoever asks bounds the time and the number of what is under way
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(IN_FLIGHT_MAX);
    let login = &settings.address.login;
    let (connection, driver) =
        MultiplexedConnection::new_with_config(login, stream, config).await.map_err(|error| {
            // of what it is asked to begin with, everything else has an error of its own
            let is_other = error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError);
            if is_other && login.db() != 0 { LinkError::Database } else { error.into() }
        })?;
    let live = Live { connection, driver: tokio::spawn(driver).abort_handle(), lost: Notify::new() };
    let mut connection = live.connection.clone();
    for script in [DRAW_TEXT, END_TEXT] {
        let () = redis::cmd("SCRIPT").arg("LOAD").arg(script).query_async(&mut connection).await?;
    }
    // one that is too slow for requests would be put in force again and again, and each time hold some of them up
    timeout(ANSWER_MAX, probe(&live)).await.unwrap_or(Err(LinkError::TooLate))?;
    Ok(live)
}

/// Does what requests do.
async fn probe(live: &Live) -> Result<(), LinkError> {
    let Cost { each_us, whole_us } = PROBE;
    let key = format!("{KEY_PREFIX}probe");
    let drawn = DRAW.key(key).arg(each_us).arg(whole_us).invoke_async(&mut live.connection.clone()).await;
    let _: Drawn = drawn?;
    Ok(())
}
