//! What is asked of every proxy: the workloads of the table in `benches/README.md`.

use super::secrets::Proof;

/// How callers ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asking {
    /// By so many connections that are kept.
    Kept(usize),
    /// By a new connection for each request, so many at once.
    Brief(usize),
    /// Over HTTP/2: so many connections, each with so many streams at a time.
    Streams(usize, usize),
    /// Once, by so many connections that then do nothing: what counts is memory.
    Idle(usize),
    /// So many requests a second: what counts is how long an answer takes.
    Paced(u32),
}

#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) asking: Asking,
    pub(crate) tls: bool,
    pub(crate) proof: Option<Proof>,
    /// Every request is refused with this status.
    pub(crate) refused: Option<u16>,
    /// So many prefixes, of which a thousand are asked for; no others where it is 0.
    pub(crate) routes: usize,
    /// Bytes of each answer.
    pub(crate) answer: usize,
    /// Bytes of each request's body.
    pub(crate) upload: usize,
    /// What Portcullis is to take of what nginx takes.
    pub(crate) goal: &'static str,
}

const MIB: usize = 1024 * 1024;

const PLAIN: Workload = Workload {
    id: "W1",
    title: "forward 128 B",
    asking: Asking::Kept(64),
    tls: false,
    proof: None,
    refused: None,
    routes: 0,
    answer: 128,
    upload: 0,
    goal: "0.95",
};

pub(crate) fn workloads() -> Vec<Workload> {
    let proved = |id, title, proof| Workload { id, title, proof: Some(proof), goal: "1.00", ..PLAIN };
    vec![
        PLAIN,
        proved("W2", "Bearer HS256 and role", Proof::Hs256),
        proved("W3r", "Bearer RS256 and role", Proof::Rs256),
        proved("W3e", "Bearer ES256 and role", Proof::Es256),
        Workload { asking: Asking::Kept(8), ..proved("W4", "Basic, bcrypt of cost 10", Proof::Basic) },
        proved("W5", "Token, 100,000 live", Proof::Token),
        Workload { id: "W6k", title: "TLS 1.3 kept alive", tls: true, goal: "", ..PLAIN },
        Workload {
            id: "W6h",
            title: "full handshake and one request",
            asking: Asking::Brief(16),
            tls: true,
            goal: "0.55",
            ..PLAIN
        },
        Workload { id: "W8g", title: "1 MiB down", asking: Asking::Kept(16), answer: MIB, goal: "0.80", ..PLAIN },
        Workload { id: "W8p", title: "10 MiB up", asking: Asking::Kept(4), upload: 10 * MIB, goal: "0.95", ..PLAIN },
        Workload { id: "W9", title: "idle connection", asking: Asking::Idle(5_000), goal: "4 KB", ..PLAIN },
        Workload {
            id: "W9t",
            title: "idle connection, TLS",
            asking: Asking::Idle(2_000),
            tls: true,
            goal: "16 KB",
            ..PLAIN
        },
        Workload { id: "W10", title: "10,000 routes over 10", routes: 10_000, goal: "1.02", ..PLAIN },
        Workload { id: "W11", title: "added p50 at 4,000/s", asking: Asking::Paced(4_000), goal: "0.10 ms", ..PLAIN },
        Workload { refused: Some(401), goal: "0.50", ..proved("W12", "refused, 401", Proof::Token) },
        Workload { id: "W13", title: "limited, 429", refused: Some(429), goal: "0.50", ..PLAIN },
        Workload { tls: true, goal: "0.90", ..proved("W14", "TLS 1.3 kept alive, HS256", Proof::Hs256) },
        Workload {
            asking: Asking::Streams(8, 32),
            tls: true,
            goal: "0.75",
            ..proved("W15", "HTTP/2 over TLS, HS256", Proof::Hs256)
        },
    ]
}

/// Of route number `number`.
pub(crate) fn prefix(number: usize) -> String {
    format!("/r{number:05}")
}
