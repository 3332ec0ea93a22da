//! What a file may say: one struct a section, and every default in one place.
//!
//! Reading checks what a value can be by itself. Names that refer to something, files and keys are for `compile`.

pub mod settings;
pub mod auth;
pub mod issuers;
pub mod upstreams;
pub mod routes;
mod cors;
pub mod endpoints;
pub mod expect;
pub mod store;

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::decode::{self, Placed, Section};
use super::report::{Place, Report};
use super::snapshot::Expectation;
use super::tree::{Node, Plain, Value};
use crate::listen::tls::MinVersion;
use crate::principal::NAME_BYTES_MAX;
use crate::record;
use crate::rejection::Texts;
use crate::wire::fields::IdentityNames;
use crate::wire::target::PathPolicy;

/// A whole file. Where something was wrong it holds the default; the problem is in the report.
#[derive(Debug)]
pub struct Model {
    /// `listeners`.
    pub listeners: Vec<Listener>,
    /// `workers`; `None`: one per core.
    pub workers: Option<usize>,
    /// `trusted_proxies`.
    pub trusted_proxies: Vec<IpNet>,
    /// `admin.address`.
    pub admin: Placed<SocketAddr>,
    /// `store`.
    pub store: store::Store,
    /// `auth`.
    pub auth: auth::Auth,
    /// `tokens`.
    pub tokens: auth::Tokens,
    /// `passwords`: the fewest and the most bytes.
    pub passwords: (usize, usize),
    /// `identity_headers`.
    pub identity: IdentityNames,
    /// `errors`.
    pub texts: Texts,
    /// `paths`.
    pub paths: PathPolicy,
    /// `limits`.
    pub limits: settings::Limits,
    /// `timeouts`.
    pub timeouts: settings::Timeouts,
    /// `endpoints`; `None`: the standard ones.
    pub endpoints: Option<Vec<endpoints::Endpoint>>,
    /// `upstreams`.
    pub upstreams: Vec<upstreams::Upstream>,
    /// `routes`.
    pub routes: Vec<routes::Route>,
    /// `expect`.
    pub expect: Vec<Expectation>,
    /// `log`.
    pub log: record::Settings,
    /// `bootstrap`.
    pub bootstrap: auth::Bootstrap,
}

/// One of `listeners`.
#[derive(Debug)]
pub struct Listener {
    /// Where it is bound.
    pub address: Placed<SocketAddr>,
    /// What it does.
    pub mode: ListenerMode,
}

/// What a listener does.
#[derive(Debug)]
pub enum ListenerMode {
    /// Serves in clear.
    Plain,
    /// Sends everybody to https; where it says so.
    Redirect(Place),
    /// Serves over TLS.
    Tls {
        /// Where it says so.
        place: Place,
        /// With what.
        certificates: Certificates,
        /// From which version on.
        min_version: MinVersion,
    },
}

/// The paths of a certificate and its key.
#[derive(Debug)]
pub struct PairOfFiles {
    /// `cert`.
    pub cert: Placed<Box<str>>,
    /// `key`.
    pub key: Placed<Box<str>>,
}

/// Where certificates come from.
#[derive(Debug)]
pub enum Certificates {
    /// Files, at least one pair.
    Files(Vec<PairOfFiles>),
    /// Made at first start for these names.
    SelfSigned(Vec<Box<str>>),
}

const KEYS: &[&str] = &[
    "listeners",
    "workers",
    "trusted_proxies",
    "admin",
    "store",
    "auth",
    "tokens",
    "passwords",
    "identity_headers",
    "errors",
    "paths",
    "limits",
    "timeouts",
    "endpoints",
    "upstreams",
    "routes",
    "expect",
    "log",
    "bootstrap",
];

const LISTENER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8443);
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9901);
const WORKERS_MAX: u64 = 1024;

/// Each of which has sockets of its own in every worker.
const LISTENERS_MAX: usize = 1_000;
/// What an address is, for messages.
const ADDRESS: &str = "an address with its port, such as `127.0.0.1:8443` or `[::]:8443`";
/// The keys without which nothing is served, and what they take.
const REQUIRED: [(&str, &str); 2] = [
    ("upstreams", "where requests go, such as `upstreams: { api: { servers: [http://127.0.0.1:9001] } }`"),
    ("routes", "who may go where, such as `routes: [{ path: /**, allow: [user], to: api }]`"),
];

/// Reads the whole file.
pub fn read(root: &Node, report: &mut Report) -> Model {
    let is_empty = matches!(&root.value, Value::Scalar(scalar) if scalar.kind() == Plain::Null);
    let file = if is_empty {
        report.add_with_hint(root.place, "there is nothing in this file", "expected at least `upstreams` and `routes`");
        None
    } else {
        Section::open(root, "the file", KEYS, &[], report)
    };
    let section = |key: &str| file.as_ref().and_then(|file| file.node(key));
    if let Some(file) = &file {
        for (key, expected) in REQUIRED {
            // each is read below
            file.required(key, expected, report, |_, _| Some(()));
        }
    }
    let mut routes =
        section("routes").and_then(|node| decode::list(node, report, routes::Route::read)).unwrap_or_default();
    // where it is not known which upstreams there are, no name is wrong
    let are_known = |node: &Node| matches!(node.value, Value::Map(_)) && !report.is_settled(node.place);
    if !section("upstreams").is_some_and(are_known) {
        for route in &mut routes {
            route.to = None;
        }
    }
    Model {
        listeners: section("listeners")
            .filter(|node| decode::is_at_most(LISTENERS_MAX, node, report))
            .and_then(|node| decode::some(node, report, listener))
            .unwrap_or_else(default_listeners),
        workers: section("workers").and_then(|node| number_or_auto(node, 1, WORKERS_MAX, report)),
        trusted_proxies: section("trusted_proxies")
            .and_then(|node| decode::list(node, report, network))
            .unwrap_or_default(),
        admin: section("admin")
            .and_then(|node| admin(node, report))
            .unwrap_or(Placed { value: ADMIN, place: Place::START }),
        store: store::Store::read(section("store"), report),
        auth: auth::Auth::read(section("auth"), report),
        tokens: auth::Tokens::read(section("tokens"), report),
        passwords: settings::passwords(section("passwords"), report),
        identity: settings::identity(section("identity_headers"), report),
        texts: settings::texts(section("errors"), &Texts::default(), report),
        paths: settings::paths(section("paths"), report),
        limits: settings::Limits::read(section("limits"), report),
        timeouts: settings::Timeouts::read(section("timeouts"), report),
        endpoints: section("endpoints").and_then(|node| decode::list(node, report, endpoints::Endpoint::read)),
        upstreams: section("upstreams").map(|node| upstreams::read(node, report)).unwrap_or_default(),
        routes,
        expect: section("expect").and_then(|node| decode::list(node, report, expect::read)).unwrap_or_default(),
        log: settings::log(section("log"), report),
        bootstrap: auth::Bootstrap::read(section("bootstrap"), report),
    }
}

fn default_listeners() -> Vec<Listener> {
    let certificates = Certificates::SelfSigned(vec!["localhost".into()]);
    let mode = ListenerMode::Tls { place: Place::START, certificates, min_version: MinVersion::Tls12 };
    vec![Listener { address: Placed { value: LISTENER, place: Place::START }, mode }]
}

fn listener(node: &Node, report: &mut Report) -> Option<Listener> {
    let section = Section::open(node, "a listener", &["address", "tls", "redirect"], &["proxy_protocol"], report)?;
    let address = section.required("address", ADDRESS, report, address);
    let tls = section.node("tls");
    let redirect = section.node("redirect");
    if let (Some(_), Some(redirect)) = (tls, redirect) {
        report.add(redirect.place, "a listener either serves over `tls` or redirects");
        return None;
    }
    let mode = match (tls, redirect) {
        (Some(node), _) => tls_mode(node, report)?,
        (None, Some(node)) => {
            decode::one_of(&[("https", ())])(node, report)?;
            ListenerMode::Redirect(node.place)
        }
        (None, None) => ListenerMode::Plain,
    };
    Some(Listener { address: address?, mode })
}

fn tls_mode(node: &Node, report: &mut Report) -> Option<ListenerMode> {
    let keys = &["certificates", "self_signed", "min_version"];
    let section = Section::open(node, "`tls`", keys, &["acme", "client_ca"], report)?;
    let versions = [("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)];
    let min_version = section.read("min_version", report, decode::one_of(&versions)).unwrap_or(MinVersion::Tls12);
    let certificates = match (section.node("certificates"), section.node("self_signed")) {
        (Some(files), None) => Certificates::Files(decode::some(files, report, certificate)?),
        (None, Some(names)) => Certificates::SelfSigned(decode::some(names, report, server_name)?),
        (Some(_), Some(names)) => {
            report.add(names.place, "expected either `certificates` or `self_signed`, not both");
            return None;
        }
        (None, None) => {
            report.add(node.place, "expected `certificates` or `self_signed`");
            return None;
        }
    };
    Some(ListenerMode::Tls { place: node.place, certificates, min_version })
}

fn certificate(node: &Node, report: &mut Report) -> Option<PairOfFiles> {
    let section = Section::open(node, "a certificate", &["cert", "key"], &[], report)?;
    let cert = section.required("cert", "the path of a chain in PEM", report, decode::placed_text);
    let key = section.required("key", "the path of its private key in PEM", report, decode::placed_text);
    Some(PairOfFiles { cert: cert?, key: key? })
}

/// A DNS name or an IP address, as a certificate bears it.
pub fn server_name(node: &Node, report: &mut Report) -> Option<Box<str>> {
    let name = decode::full_text(node, report)?;
    if rustls::pki_types::ServerName::try_from(name).is_err() {
        report.add(node.place, format!("{} is not a host name or an IP address", decode::shown_node(node)));
        return None;
    }
    Some(name.into())
}

fn address(node: &Node, report: &mut Report) -> Option<Placed<SocketAddr>> {
    let text = decode::word(node, ADDRESS, report)?;
    let Ok(value) = text.text.parse() else {
        let hint =
            "`127.0.0.1` is this machine alone, `0.0.0.0` all of its addresses; a name such as `localhost` is none";
        report.add_with_hint(node.place, format!("{} is not {ADDRESS}", decode::shown(text)), hint);
        return None;
    };
    Some(Placed { value, place: node.place })
}

fn admin(node: &Node, report: &mut Report) -> Option<Placed<SocketAddr>> {
    Section::open(node, "`admin`", &["address"], &[], report)?.read("address", report, address)
}

fn network(node: &Node, report: &mut Report) -> Option<IpNet> {
    let expected = "an address or a network, such as `10.0.0.0/8`";
    let network = decode::parsed(node, expected, report, |text| {
        text.parse::<IpNet>()
            .or_else(|_| text.parse().map(|address: IpAddr| address.into()))
            .map_err(|_| format!("not {expected}"))
    })?;
    if network.trunc() != network {
        // 10.1.2.3/8 trusts sixteen million hosts, where perhaps one was meant
        let hint = format!("did you mean `{}` or `{}`?", network.trunc(), network.addr());
        report.add_with_hint(node.place, "this network has bits set behind its prefix", hint);
        return None;
    }
    Some(network)
}

/// A number, or `None` for `auto`.
pub fn number_or_auto(node: &Node, min: u64, max: u64, report: &mut Report) -> Option<usize> {
    if decode::is_word(node, "auto") { None } else { decode::whole(min, max)(node, report) }
}

/// The name of a user, a client or a role: not empty, at most 255 bytes, without control characters.
pub fn name(node: &Node, report: &mut Report) -> Option<Placed<Box<str>>> {
    let name = decode::placed_text(node, report)?;
    if name.value.len() > NAME_BYTES_MAX || name.value.chars().any(char::is_control) {
        report.add(name.place, format!("a name has at most {NAME_BYTES_MAX} bytes and no control characters"));
        return None;
    }
    Some(name)
}

/// The name of a user or a client: without a colon too, which ends the name in Basic (RFC 7617 2).
pub fn account_name(node: &Node, report: &mut Report) -> Option<Placed<Box<str>>> {
    let name = name(node, report)?;
    if name.value.contains(':') {
        report.add(name.place, "the name of a user or a client has no colon");
        return None;
    }
    Some(name)
}
