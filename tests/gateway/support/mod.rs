//! The harness: a real gateway, a recording upstream, a small client, keys made on the spot.
//!
//! It has no opinions about behaviour; the tests have. Nothing here uses a fixed port, a network or a sleep.

pub mod client;
pub mod clocked;
pub mod databases;
pub mod example;
pub mod gateway;
pub mod http2;
pub mod idp;
pub mod keys;
pub mod matching;
pub mod outside;
pub mod redis;
pub mod replay;
pub mod upstream;
pub mod wait;
pub mod websocket;

pub use client::{Connection, Request, Response, delete, get, post, put, statuses};
pub use gateway::{Cli, Gateway, Setup};
pub use keys::{Certificate, Signer};
pub use upstream::{Received, Reply, Upstream};
pub use wait::{DEADLINE, Gate, eventually, unix_now};

/// Users whose passwords are their names and `password`, as most tests need them.
pub const USERS: &str = "
bootstrap:
  users:
    - { name: admin, password: adminpassword, roles: [admin] }
    - { name: user, password: userpassword, roles: [user] }
    - { name: guest, password: guestpassword, roles: [guest] }
  clients:
    - { id: robot, secret: robot-secret-1, roles: [user], scopes: ['orders:read', 'orders:write'] }
";

/// The secret of [`HS256`].
pub const SECRET: &str = "an-hmac-secret-of-more-than-32-bytes";

/// A signing key that tests share with the gateway.
pub const HS256: &str = "
auth:
  jwt:
    keys: [{ id: k1, algorithm: HS256, secret: an-hmac-secret-of-more-than-32-bytes }]
";

/// Rules for commands that look at them; nobody listens at their upstream.
pub const RULES: &str = "
bootstrap:
  users: [{ name: user, password: '${USER_PASSWORD:-userpassword}', roles: [user] }]
upstreams: { api: { servers: ['http://127.0.0.1:9'] } }
routes:
  - path: /orders/**
    methods: [GET]
    allow: [user, admin]
    to: api
  - path: /orders/{id}/refund
    methods: [POST]
    allow: [admin]
    strip_prefix: /orders
    to: api
  - { path: /health, allow: anyone, to: api }
  - { path: /me, allow: authenticated, to: api }
";

/// Three routes, one a role, and an open one, all to `api`.
pub fn routes(upstream: &Upstream) -> String {
    format!(
        "
upstreams:
  api: {{ servers: ['{}'] }}
routes:
  - {{ path: /open/**, allow: anyone, to: api }}
  - {{ path: /any/**, allow: authenticated, to: api }}
  - {{ path: /user/**, allow: [user, admin], to: api }}
  - {{ path: /admin/**, allow: [admin], to: api }}
",
        upstream.url()
    )
}

/// A gateway with [`USERS`] and [`routes`] before an upstream that answers `hello`, as most attacks need it.
pub fn usual() -> (Gateway, Upstream) {
    let upstream = Upstream::hello();
    (Gateway::start(&format!("{USERS}{}", routes(&upstream))), upstream)
}

/// What stands behind a request that is to hide it: another one, which nobody authorized.
pub const SMUGGLED: &str = "GET /admin/smuggled HTTP/1.1\r\nHost: a\r\nX-Auth-User: admin\r\nConnection: close\r\n\r\n";
