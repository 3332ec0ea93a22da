//! Where the counts are kept that all gateways share: a URL, read once.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use redis::{ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::secret::Secret;

/// What a URL must look like.
const EXPECTED: &str =
    "expected `redis://HOST`, `redis://USER:PASSWORD@HOST:PORT/DATABASE`, or the same with `rediss` for TLS";

/// A Redis or Valkey, and how it is talked to. It may hold a password and is never shown but for host and port.
pub struct Address {
    pub(super) host: Box<str>,
    pub(super) port: u16,
    /// Of the certificate that the server must show; `None`: in clear.
    pub(super) tls: Option<ServerName<'static>>,
    /// Whether that name was given, and so is that of every server of a cluster.
    pub(super) is_named: bool,
    /// Who we are there, and which database.
    pub(super) login: RedisConnectionInfo,
    url: Secret<String>,
}

impl Address {
    /// Reads a URL. `server_name`: what the certificate must be for, instead of the host.
    ///
    /// # Errors
    /// It is none, or has what we do not know. The message does not show it.
    pub fn parse(url: &str, server_name: Option<&str>) -> Result<Self, &'static str> {
        let (scheme, rest) = url.split_once("://").ok_or(EXPECTED)?;
        let is_tls = match scheme {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(EXPECTED),
        };
        // such as `#insecure`, which would turn the check of certificates off
        if rest.contains(['?', '#']) {
            return Err(
                "this URL has a `?` or `#`, which mean nothing here; in a password they are written %3F and %23",
            );
        }
        let info = (&*format!("redis://{rest}")).into_connection_info().map_err(|_| EXPECTED)?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else { return Err(EXPECTED) };
        let tls = if is_tls {
            let name = ServerName::try_from(server_name.unwrap_or(host).to_owned());
            Some(name.map_err(|_| "no certificate can be for the host of this URL")?)
        } else {
            None
        };
        let login = info.redis_settings().clone();
        if login.db() < 0 {
            return Err(EXPECTED);
        }
        Ok(Self {
            host: host.as_str().into(),
            port: *port,
            tls,
            is_named: server_name.is_some(),
            login: login.set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name(),
            url: Secret::new(url.to_owned()),
        })
    }

    /// Whether certificates have to be checked.
    pub const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A server of a cluster, as another of it says where it is. What it leaves out is as it is with that one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) host: Option<Box<str>>,
    pub(super) port: Option<u16>,
}

impl Node {
    /// Reads `HOST:PORT`, where the host of IPv6 has no brackets, and may be empty or `?`.
    pub(super) fn parse(text: &str) -> Self {
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let host = Some(host).filter(|host| !host.is_empty() && *host != "?").map(Into::into);
        Self { host, port: port.parse().ok() }
    }
}

/// `limits.shared`.
#[derive(Clone)]
pub struct Settings {
    /// Where.
    pub address: Arc<Address>,
    /// Whose certificates are believed, and what is shown, where it is asked over TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// SHA-256 of whom `tls` trusts and what it shows.
    pub content: Option<[u8; 32]>,
}

impl Settings {
    /// Whether these lead to the same place by the same way.
    pub(super) fn are(&self, other: &Self) -> bool {
        let (one, another) = (&self.address, &other.address);
        one.url.matches(another.url.expose().as_bytes()) && one.tls == another.tls && self.content == other.content
    }

    /// Of all that leads there; not to be printed, since a password could be guessed from it.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        let name = self.address.tls.as_ref().map(|name| name.to_str().into_owned());
        for part in [self.address.url.expose().as_bytes(), format!("{name:?} {:?}", self.content).as_bytes()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        out
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_without_being_shown() {
        for (url, expected) in [
            ("redis://cache", Some(("cache", 6379, false, None, None, 0))),
            ("valkey://cache:7000/3", Some(("cache", 7000, false, None, None, 3))),
            ("redis://:canary@127.0.0.1", Some(("127.0.0.1", 6379, false, None, Some("canary"), 0))),
            ("rediss://ann:can%40ary@[::1]:1/", Some(("::1", 1, true, Some("ann"), Some("can@ary"), 0))),
            ("valkeys://cache", Some(("cache", 6379, true, None, None, 0))),
            ("redis://", None),
            ("redis:cache", None),
            ("redis://cache:port", None),
            ("redis://cache/canary", None),
            ("redis://cache/-1", None),
            ("redis://cache?db=1", None),
            ("rediss://cache/#insecure", None),
            ("rediss://ca_nary:canary@-/", None),
            ("unix:///run/redis", None),
            ("http://cache", None),
            ("canary", None),
        ] {
            let parsed = Address::parse(url, None);
            assert!(!format!("{parsed:?}").contains("canary"), "{url}");
            let read = parsed.as_ref().ok().map(|address| {
                let login = &address.login;
                (&*address.host, address.port, address.is_tls(), login.username(), login.password(), login.db())
            });
            assert_eq!(read, expected, "{url}");
        }
    }

    #[test]
    fn a_server_of_a_cluster_is_where_another_says() {
        for (text, host, port) in [
            ("127.0.0.1:7001", Some("127.0.0.1"), Some(7001)),
            ("::1:7001", Some("::1"), Some(7001)),
            ("cache-1.example:7001", Some("cache-1.example"), Some(7001)),
            (":7001", None, Some(7001)),
            ("?:7001", None, Some(7001)),
            ("cache", Some("cache"), None),
            ("cache:99999", Some("cache"), None),
            ("", None, None),
        ] {
            assert_eq!(Node::parse(text), Node { host: host.map(Into::into), port }, "{text}");
        }
    }

    #[test]
    fn settings_are_the_same_by_all_that_they_say() {
        let settings = |url, name, ca| {
            let address = Arc::new(Address::parse(url, name).unwrap());
            Settings { address, tls: None, content: Some([ca; 32]) }
        };
        let one = settings("rediss://:a@h", None, 1);
        for (another, expected) in [
            (settings("rediss://:a@h", None, 1), true),
            (settings("rediss://:b@h", None, 1), false),
            (settings("rediss://:a@h/1", None, 1), false),
            (settings("rediss://:a@h", Some("i"), 1), false),
            (settings("rediss://:a@h", None, 2), false),
        ] {
            assert_eq!(one.are(&another), expected, "{another:?}");
        }
    }
}
