//! The section `upstreams`: named groups of servers, and how they are used.

use std::collections::HashSet;
use std::time::Duration;

use super::super::decode::{self, Placed, Section};
use super::super::report::{Place, Report};
use super::super::tree::Node;
use super::PairOfFiles;
use crate::forward::{Balance, HealthCheck, Protocol, ServerAddress};

const KEEP_ALIVE_MAX: u64 = 10_000;
const PROBES_MAX: u64 = 1000;

/// One entry of `upstreams`.
#[derive(Debug)]
pub struct Upstream {
    /// Its name.
    pub name: Placed<Box<str>>,
    /// What answers; `None` where that was wrong.
    pub kind: Option<Kind>,
}

/// What answers.
#[derive(Debug)]
pub enum Kind {
    /// The gateway itself.
    Echo,
    /// Servers.
    Servers(Box<Servers>),
}

/// The servers of an upstream and how they are used.
#[derive(Debug)]
pub struct Servers {
    /// `servers`.
    pub servers: Vec<ServerAddress>,
    /// `balance`.
    pub balance: Balance,
    /// `health`.
    pub health: Option<HealthCheck>,
    /// `keep_alive`.
    pub keep_alive: usize,
    /// `tls`.
    pub tls: Option<Tls>,
}

/// `tls` of an upstream.
#[derive(Debug)]
pub struct Tls {
    /// Where it stands.
    pub place: Place,
    /// `ca`, instead of the system's roots.
    pub ca: Option<Placed<Box<str>>>,
    /// `server_name`, instead of the URL's host.
    pub server_name: Option<Box<str>>,
    /// `cert` and `key`, shown to the servers.
    pub certificate: Option<PairOfFiles>,
}

/// Reads the section.
pub fn read(node: &Node, report: &mut Report) -> Vec<Upstream> {
    let mut upstreams = Vec::new();
    for (name, node) in decode::entries(node, report) {
        if name.value.is_empty() || name.value.chars().any(char::is_control) {
            report.add(name.place, "the name of an upstream is a text without control characters");
        }
        let kind = upstream(node, report);
        upstreams.push(Upstream { name: Placed { value: name.value.into(), place: name.place }, kind });
    }
    upstreams
}

fn upstream(node: &Node, report: &mut Report) -> Option<Kind> {
    let keys = &["servers", "balance", "health", "keep_alive", "tls", "builtin"];
    let section = Section::open(node, "an upstream", keys, &[], report)?;
    if let Some(builtin) = section.node("builtin") {
        if keys.iter().any(|key| *key != "builtin" && section.node(key).is_some()) {
            report.add(builtin.place, "an upstream is either `builtin` or has `servers`");
            return None;
        }
        return decode::one_of(&[("echo", ())])(builtin, report).map(|()| Kind::Echo);
    }
    let servers = section.required(
        "servers",
        "a list of URLs such as `[http://127.0.0.1:9001]`, or `builtin: echo`",
        report,
        servers,
    );
    let balance = section.read("balance", report, balance).unwrap_or(Balance::LeastRequests);
    let health = section.read("health", report, health);
    let keep_alive = section.read("keep_alive", report, decode::whole(0, KEEP_ALIVE_MAX)).unwrap_or(64);
    let tls = section.read("tls", report, tls);
    let servers = servers?;
    if let (Some(tls), false) = (&tls, servers.iter().any(|server| server.protocol == Protocol::Https)) {
        report.add(tls.place, "no server of this upstream is `https://`");
    }
    Some(Kind::Servers(Box::new(Servers { servers, balance, health, keep_alive, tls })))
}

fn balance(node: &Node, report: &mut Report) -> Option<Balance> {
    if matches!(node.value, super::Value::Map(_)) || decode::is_word(node, "hash") {
        report.add(node.place, "`balance: hash` is not available yet");
        return None;
    }
    decode::one_of(&Balance::ALL.map(|balance| (balance.name(), balance)))(node, report)
}

fn servers(node: &Node, report: &mut Report) -> Option<Vec<ServerAddress>> {
    let mut seen = HashSet::new();
    decode::some(node, report, |item, report| {
        let server = server(item, report)?;
        if !seen.insert((server.host.clone(), server.port)) {
            report.add(item.place, "this server is given above already");
            return None;
        }
        Some(server)
    })
}

/// A URL such as `http://127.0.0.1:9001`. What it may not have is not in the message: it may be a password.
fn server(node: &Node, report: &mut Report) -> Option<ServerAddress> {
    let url = decode::full_text(node, report)?;
    let address = server_address(url);
    if let Err(what) = address {
        report.add_with_hint(node.place, what, "expected a URL such as `http://127.0.0.1:9001`");
    }
    address.ok()
}

fn server_address(url: &str) -> Result<ServerAddress, &'static str> {
    let (scheme, rest) = url.split_once("://").ok_or("a server is given by its URL")?;
    let (protocol, default_port) = match scheme {
        "http" => (Protocol::Http1, 80),
        "https" => (Protocol::Https, 443),
        "h2c" => (Protocol::H2c, 80),
        _ => return Err("a server's URL begins with `http://`, `https://` or `h2c://`"),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains('@') {
        return Err("a server's URL has no credentials");
    }
    if authority.contains(['/', '?', '#']) {
        return Err("a server's URL has no path, query or fragment; the path of a request is sent as it is");
    }
    let parsed: http::uri::Authority = authority.parse().map_err(|_| "not a host and a port")?;
    let port = match parsed.as_str().strip_prefix(parsed.host()) {
        Some("") => default_port,
        Some(_) => parsed.port_u16().filter(|&port| port != 0).ok_or("a port is a number from 1 to 65535")?,
        None => return Err("not a host and a port"),
    };
    let host = parsed.host().trim_start_matches('[').trim_end_matches(']');
    if rustls::pki_types::ServerName::try_from(host).is_err() {
        return Err("not a host name or an IP address");
    }
    Ok(ServerAddress { label: url.into(), host: host.into(), port, protocol })
}

fn health(node: &Node, report: &mut Report) -> Option<HealthCheck> {
    let keys = &["path", "interval", "timeout", "unhealthy_after", "healthy_after"];
    let section = Section::open(node, "`health`", keys, &[], report)?;
    let path = section.read("path", report, |node, report| {
        let path = decode::full_text(node, report)?;
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            report.add(node.place, "the path of a probe begins with `/` and is visible ASCII without `#`");
            return None;
        }
        Some(path.into())
    });
    let interval = section.read("interval", report, decode::some_time);
    let timeout = section.read("timeout", report, decode::some_time);
    let unhealthy_after = section.read("unhealthy_after", report, decode::whole(1, PROBES_MAX));
    let healthy_after = section.read("healthy_after", report, decode::whole(1, PROBES_MAX));
    Some(HealthCheck {
        path: path.unwrap_or_else(|| "/health".into()),
        interval: interval.unwrap_or(Duration::from_secs(5)),
        timeout: timeout.unwrap_or(Duration::from_secs(1)),
        unhealthy_after: unhealthy_after.unwrap_or(3),
        healthy_after: healthy_after.unwrap_or(2),
    })
}

/// The section `tls` of whatever is asked over `https://`.
pub fn tls(node: &Node, report: &mut Report) -> Option<Tls> {
    let section = Section::open(node, "`tls`", &["ca", "server_name", "cert", "key"], &[], report)?;
    let ca = section.read("ca", report, decode::placed_text);
    let server_name = section.read("server_name", report, super::server_name);
    let cert = section.read("cert", report, decode::placed_text);
    let key = section.read("key", report, decode::placed_text);
    if section.node("cert").is_some() != section.node("key").is_some() {
        report.add(node.place, "`cert` and `key` go together");
    }
    Some(Tls {
        place: node.place,
        ca,
        server_name,
        certificate: cert.zip(key).map(|(cert, key)| PairOfFiles { cert, key }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_scheme_a_host_and_a_port() {
        for (url, expected) in [
            ("http://127.0.0.1:9001", Some(("127.0.0.1", 9001, Protocol::Http1))),
            ("http://orders/", Some(("orders", 80, Protocol::Http1))),
            ("https://api.example.com", Some(("api.example.com", 443, Protocol::Https))),
            ("h2c://[::1]:50051", Some(("::1", 50051, Protocol::H2c))),
            ("http://[::1]", Some(("::1", 80, Protocol::Http1))),
            ("http://", None),
            ("http://a:0", None),
            ("http://a:65536", None),
            ("http://a:", None),
            ("http://a:b", None),
            ("http://user:canary@a", None),
            ("http://a/base", None),
            ("http://a//", None),
            ("http://a?x", None),
            ("http://a#x", None),
            ("http://a b", None),
            ("ftp://a", None),
            ("HTTP//a", None),
            ("127.0.0.1:9001", None),
        ] {
            let found = server_address(url).ok();
            assert_eq!(found.as_ref().map(|found| (&*found.host, found.port, found.protocol)), expected, "{url}");
        }
    }
}
