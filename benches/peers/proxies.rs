//! Each proxy, told to do the same as well as it can: one worker, connections kept on both sides, no log, nothing
//! compressed or collected that can be passed on.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use super::process::{Cpu, memory};
use super::secrets::{HMAC_SECRET, Proof, ROLE, Secrets, USER};
use super::workloads::{Workload, prefix};

/// How long one may take until it listens: envoy needs seconds for 10,000 routes.
const START_WITHIN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);
const END_WITHIN: Duration = Duration::from_secs(3);

/// What one is set up with.
pub(crate) struct Setup<'a> {
    pub(crate) workload: &'a Workload,
    pub(crate) secrets: &'a Secrets,
    pub(crate) folder: PathBuf,
    pub(crate) port: u16,
    pub(crate) upstream: SocketAddr,
}

impl Setup<'_> {
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn secret(&self, name: &str) -> String {
        self.secrets.file(name).display().to_string()
    }

    fn prefixes(&self) -> Vec<String> {
        (0..self.workload.routes).map(|number| format!("{}/", prefix(number))).collect()
    }

    fn is_jwt(&self) -> bool {
        matches!(self.workload.proof, Some(Proof::Hs256 | Proof::Rs256 | Proof::Es256))
    }
}

/// One that may be measured.
pub(crate) struct Proxy {
    pub(crate) name: &'static str,
    /// What is looked for to know whether it is there.
    pub(crate) program: &'static str,
    /// How it is started, where it can do this.
    pub(crate) command: fn(&Setup) -> Option<Command>,
}

pub(crate) const PROXIES: [Proxy; 5] = [
    Proxy { name: "nginx", program: "nginx", command: nginx },
    Proxy { name: "HAProxy", program: "haproxy", command: haproxy },
    Proxy { name: "Envoy", program: "envoy", command: envoy },
    Proxy { name: "Caddy", program: "caddy", command: caddy },
    Proxy { name: "Portcullis", program: env!("CARGO_BIN_EXE_portcullis"), command: portcullis },
];

impl Proxy {
    pub(crate) fn is_there(&self) -> bool {
        Path::new(self.program).is_absolute()
            || Command::new("sh")
                .args(["-c", "command -v \"$0\"", self.program])
                .output()
                .is_ok_and(|found| found.status.success())
    }
}

/// A proxy that runs, with all its processes.
pub(crate) struct Running(Child);

impl Running {
    /// # Errors
    /// It ended, or does not listen; with what it said.
    pub(crate) fn start(command: &Command, apart: &[String], setup: &Setup) -> Result<Self, String> {
        let log = setup.folder.join("said");
        let to = || fs::File::options().append(true).create(true).open(&log).unwrap();
        let mut words = apart.iter().map(std::ffi::OsStr::new).chain([command.get_program()]).chain(command.get_args());
        let mut started = Command::new(words.next().unwrap());
        started.args(words).stdin(Stdio::null()).stdout(to()).stderr(to()).process_group(0);
        started.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut running = Self(started.spawn().map_err(|error| error.to_string())?);
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", setup.port)).is_err() {
            if running.0.try_wait().unwrap().is_some() || begun.elapsed() > START_WITHIN {
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(said.lines().rev().take(3).collect::<Vec<_>>().join(" / "));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(running)
    }

    /// Its processes are those of the group that it was started as the first of.
    fn processes(&self) -> Vec<u32> {
        let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let is_of_group = |process: &u32| {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace());
            fields.and_then(|mut fields| fields.nth(2)?.parse().ok()) == Some(self.0.id())
        };
        all.filter(is_of_group).collect()
    }

    pub(crate) fn cpu(&self) -> Cpu {
        self.processes().into_iter().map(Cpu::of).fold(Cpu::default(), Cpu::and)
    }

    pub(crate) fn memory(&self) -> u64 {
        self.processes().into_iter().map(memory).sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let (group, begun) = (Pid::from_child(&self.0), Instant::now());
        kill_process_group(group, Signal::TERM).ok();
        while matches!(self.0.try_wait(), Ok(None)) && begun.elapsed() < END_WITHIN {
            std::thread::sleep(PAUSE);
        }
        kill_process_group(group, Signal::KILL).ok();
        drop(self.0.wait());
    }
}

fn nginx(setup: &Setup) -> Option<Command> {
    let Setup { workload, folder, port, upstream, .. } = setup;
    let (mut shared, mut guard) = (String::new(), String::new());
    match (workload.proof, workload.refused) {
        (Some(Proof::Basic), _) => {
            guard = format!("auth_basic api; auth_basic_user_file {};", setup.secret("htpasswd"));
        }
        (Some(Proof::Token), _) => {
            let mut known = String::new();
            for token in &setup.secrets.tokens {
                writeln!(known, "\"Token {token}\" {ROLE};").unwrap();
            }
            let known = setup.write("tokens", &known);
            shared = format!(
                "map_hash_max_size 300000; map_hash_bucket_size 128;
                map $http_authorization $found {{ default ''; include {}; }}",
                known.display()
            );
            guard = format!("if ($found != {ROLE}) {{ return 401; }}");
        }
        (None, Some(429)) => {
            shared.push_str("limit_req_zone $binary_remote_addr zone=callers:1m rate=1r/s;");
            guard.push_str("limit_req zone=callers; limit_req_status 429;");
        }
        (None, None) => {}
        _ => return None,
    }
    let pass = "proxy_pass http://server;";
    let mut places: String = setup.prefixes().iter().fold(String::new(), |mut text, prefix| {
        writeln!(text, "location {prefix} {{ {pass} }}").unwrap();
        text
    });
    if places.is_empty() {
        places = format!("location / {{ {pass} }}");
    }
    let (tls, buffers) = (
        if workload.tls {
            format!(
                "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3; ssl_session_tickets off;
                ssl_session_cache off; http2_max_requests 1000000000;",
                setup.secret("cert.pem"),
                setup.secret("key.pem")
            )
        } else {
            String::new()
        },
        // large answers as they come, by as much at a time as pays
        if workload.answer > 64 * 1024 {
            "proxy_buffering off; proxy_buffer_size 64k; proxy_buffers 16 64k; proxy_busy_buffers_size 256k;"
        } else {
            ""
        },
    );
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {}/{name};", folder.display()))
        .join(" ");
    let text = format!(
        "daemon off; user root; pid {folder}/pid; error_log stderr crit; worker_processes 1; worker_rlimit_nofile 20000;
        events {{ worker_connections 16384; }}
        http {{
            access_log off; {temporary} tcp_nodelay on; keepalive_timeout 1h; keepalive_requests 1000000000;
            client_max_body_size 0; client_body_buffer_size 256k; proxy_request_buffering off; {buffers}
            proxy_http_version 1.1; proxy_set_header Connection '';
            upstream server {{ server {upstream}; keepalive 512; keepalive_requests 1000000000; keepalive_timeout 1h; }}
            {shared}
            server {{ listen 127.0.0.1:{port}{}; {tls} {guard} {places} }}
        }}",
        if workload.tls { " ssl http2" } else { "" },
        folder = folder.display(),
    );
    let path = setup.write("nginx.conf", &text);
    let mut command = Command::new("nginx");
    command.arg("-e").arg("stderr").arg("-p").arg(folder).arg("-c").arg(path);
    Some(command)
}

#[expect(clippy::unnecessary_wraps, reason = "others cannot do everything")]
fn haproxy(setup: &Setup) -> Option<Command> {
    let Setup { workload, port, upstream, secrets, .. } = setup;
    let (mut users, mut rules) = (String::new(), Vec::new());
    match workload.proof {
        Some(proof @ (Proof::Hs256 | Proof::Rs256 | Proof::Es256)) => {
            let (algorithm, key) = match proof {
                Proof::Rs256 => ("RS256", setup.secret("rs256.pem")),
                Proof::Es256 => ("ES256", setup.secret("es256.pem")),
                Proof::Hs256 | Proof::Basic | Proof::Token => ("HS256", HMAC_SECRET.to_owned()),
            };
            rules = vec![
                "set-var(txn.jwt) http_auth_bearer".to_owned(),
                format!("deny deny_status 401 unless {{ var(txn.jwt),jwt_header_query('$.alg') -m str {algorithm} }}"),
                format!("deny deny_status 401 unless {{ var(txn.jwt),jwt_verify({algorithm},\"{key}\") -m int 1 }}"),
                "set-var(txn.end) var(txn.jwt),jwt_payload_query('$.exp','int')".to_owned(),
                "set-var(txn.now) date()".to_owned(),
                "deny deny_status 401 if { var(txn.end),sub(txn.now) -m int lt 0 }".to_owned(),
                format!("deny unless {{ var(txn.jwt),jwt_payload_query('$.role') -m str {ROLE} }}"),
            ];
        }
        Some(Proof::Basic) => {
            users = format!("userlist known\n  user {USER} password {}\n", secrets.password_hash);
            rules.push("auth unless { http_auth(known) }".to_owned());
        }
        Some(Proof::Token) => {
            let known = secrets.tokens.iter().fold(String::new(), |text, token| text + token + " " + ROLE + "\n");
            let known = setup.write("tokens.map", &known);
            rules.push(format!(
                "deny deny_status 401 unless {{ req.hdr(authorization),word(2,' '),map_str({}) -m str {ROLE} }}",
                known.display()
            ));
        }
        None => {}
    }
    if workload.proof.is_none() && workload.refused == Some(429) {
        rules.push("track-sc0 src table callers".to_owned());
        rules.push("deny deny_status 429 if { sc_http_req_rate(0) gt 1 }".to_owned());
        users.push_str("backend callers\n  stick-table type ip size 100k expire 60s store http_req_rate(60s)\n");
    }
    if workload.routes > 0 {
        let known = setup.prefixes().iter().fold(String::new(), |text, prefix| text + prefix + " " + ROLE + "\n");
        let known = setup.write("routes.map", &known);
        rules.push(format!("deny unless {{ path,map_beg({}) -m str {ROLE} }}", known.display()));
    }
    let rules = rules.iter().fold(String::new(), |text, rule| text + "  http-request " + rule + "\n");
    let tls = if workload.tls {
        format!(" ssl crt {} alpn h2,http/1.1 ssl-min-ver TLSv1.3 no-tls-tickets", setup.secret("both.pem"))
    } else {
        String::new()
    };
    let buffers = if workload.answer + workload.upload > 64 * 1024 { "  tune.bufsize 65536\n" } else { "" };
    let text = format!(
        "global\n  nbthread 1\n  maxconn 7500\n  tune.ssl.cachesize 0\n{buffers}\
        defaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  http-reuse always\n  option splice-auto\n\
        {users}\
        frontend callers_come\n  bind 127.0.0.1:{port}{tls}\n{rules}  default_backend servers\n\
        backend servers\n  server one {upstream}\n"
    );
    let path = setup.write("haproxy.cfg", &text);
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(path);
    Some(command)
}

fn envoy(setup: &Setup) -> Option<Command> {
    let Setup { workload, port, upstream, secrets, .. } = setup;
    let typed = |kind: &str, mut fields: Value| {
        fields["@type"] = json!(format!("type.googleapis.com/envoy.extensions.{kind}"));
        fields
    };
    let filter = |name: &str, kind: &str, fields| json!({ "name": name, "typed_config": typed(&format!("filters.http.{kind}"), fields) });
    let mut filters = Vec::new();
    if setup.is_jwt() {
        let provider = json!({
            "issuer": "bench", "forward": true, "payload_in_metadata": "jwt",
            "local_jwks": { "inline_string": secrets.jwks().to_string() },
            "jwt_cache_config": { "jwt_cache_size": 10_000 },
        });
        let rules = json!([{ "match": { "prefix": "/" }, "requires": { "provider_name": "bench" } }]);
        filters.push(filter(
            "jwt",
            "jwt_authn.v3.JwtAuthentication",
            json!({ "providers": { "bench": provider }, "rules": rules }),
        ));
        let role = json!({ "metadata": {
            "filter": "envoy.filters.http.jwt_authn", "path": [{ "key": "jwt" }, { "key": "role" }],
            "value": { "string_match": { "exact": ROLE } },
        } });
        let policy = json!({ "permissions": [{ "any": true }], "principals": [role] });
        filters.push(filter("roles", "rbac.v3.RBAC", json!({ "rules": { "policies": { "role": policy } } })));
    }
    match workload.proof {
        // it takes no bcrypt
        Some(Proof::Basic) => return None,
        Some(Proof::Token) => {
            let known = |token: &String| json!({ "key": format!("Token {token}"), "client": ROLE });
            let known: Vec<Value> = secrets.tokens.iter().map(known).collect();
            let fields = json!({ "key_sources": [{ "header": "Authorization" }], "credentials": known });
            filters.push(filter("tokens", "api_key_auth.v3.ApiKeyAuth", fields));
        }
        Some(Proof::Hs256 | Proof::Rs256 | Proof::Es256) | None => {}
    }
    if workload.proof.is_none() && workload.refused == Some(429) {
        let always = json!({ "default_value": { "numerator": 100, "denominator": "HUNDRED" } });
        let fields = json!({
            "stat_prefix": "limit", "filter_enabled": always, "filter_enforced": always,
            "token_bucket": { "max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "1s" },
        });
        filters.push(filter("limit", "local_ratelimit.v3.LocalRateLimit", fields));
    }
    let quiet = json!({ "dynamic_stats": false, "suppress_envoy_headers": true });
    filters.push(filter("router", "router.v3.Router", quiet));
    let mut prefixes = setup.prefixes();
    if prefixes.is_empty() {
        prefixes.push("/".to_owned());
    }
    let route =
        |prefix: &String| json!({ "match": { "prefix": prefix }, "route": { "cluster": "servers", "timeout": "0s" } });
    let routes: Vec<Value> = prefixes.iter().map(route).collect();
    let manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": "callers", "codec_type": "AUTO", "generate_request_id": false, "http_filters": filters,
            "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] },
        }),
    );
    let mut chain = json!({ "filters": [{ "name": "http", "typed_config": manager }] });
    if workload.tls {
        let certificate = json!({
            "certificate_chain": { "filename": setup.secret("cert.pem") },
            "private_key": { "filename": setup.secret("key.pem") },
        });
        let context = typed(
            "transport_sockets.tls.v3.DownstreamTlsContext",
            json!({
                "disable_stateless_session_resumption": true, "disable_stateful_session_resumption": true,
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [certificate],
                    "tls_params": { "tls_minimum_protocol_version": "TLSv1_3" },
                },
            }),
        );
        chain["transport_socket"] = json!({ "name": "tls", "typed_config": context });
    }
    let at = |port: u16| json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let most = json!({ "max_connections": 65_536, "max_pending_requests": 65_536, "max_requests": 65_536 });
    let server = json!({ "endpoint": { "address": at(upstream.port()) } });
    let all = json!({ "static_resources": {
        "listeners": [{ "name": "callers", "address": at(*port), "filter_chains": [chain] }],
        "clusters": [{
            "name": "servers", "type": "STATIC", "circuit_breakers": { "thresholds": [most] },
            "load_assignment": { "cluster_name": "servers", "endpoints": [{ "lb_endpoints": [server] }] },
        }],
    } });
    let path = setup.write("envoy.json", &all.to_string());
    let mut command = Command::new("envoy");
    command.arg("-c").arg(path).args(["--concurrency", "1", "--disable-hot-restart", "-l", "off"]);
    Some(command)
}

fn caddy(setup: &Setup) -> Option<Command> {
    let Setup { workload, folder, port, upstream, secrets } = setup;
    if !matches!(workload.proof, None | Some(Proof::Basic)) || workload.refused.is_some() {
        return None;
    }
    let mut handlers = Vec::new();
    if workload.proof.is_some() {
        let account = json!({ "username": USER, "password": secrets.password_hash });
        let basic = json!({ "hash": { "algorithm": "bcrypt" }, "hash_cache": {}, "accounts": [account] });
        handlers.push(json!({ "handler": "authentication", "providers": { "http_basic": basic } }));
    }
    let transport =
        json!({ "protocol": "http", "compression": false, "keep_alive": { "max_idle_conns_per_host": 1024 } });
    handlers.push(json!({
        "handler": "reverse_proxy", "flush_interval": 0, "transport": transport,
        "upstreams": [{ "dial": upstream.to_string() }],
    }));
    let of = |prefix: &String| json!({ "match": [{ "path": [format!("{prefix}*")] }], "handle": handlers });
    let mut routes: Vec<Value> = setup.prefixes().iter().map(of).collect();
    if routes.is_empty() {
        routes.push(json!({ "handle": handlers }));
    }
    let mut server = json!({
        "listen": [format!("127.0.0.1:{port}")], "automatic_https": { "disable": true }, "routes": routes,
    });
    let mut apps = json!({});
    if workload.tls {
        server["tls_connection_policies"] = json!([{ "protocol_min": "tls1.3", "alpn": ["h2", "http/1.1"] }]);
        let files = json!([{ "certificate": setup.secret("cert.pem"), "key": setup.secret("key.pem") }]);
        apps["tls"] = json!({ "certificates": { "load_files": files }, "session_tickets": { "disabled": true } });
    }
    apps["http"] = json!({ "servers": { "one": server } });
    let all = json!({
        "admin": { "disabled": true }, "logging": { "logs": { "default": { "level": "ERROR" } } }, "apps": apps,
    });
    let path = setup.write("caddy.json", &all.to_string());
    let mut command = Command::new("caddy");
    command.args(["run", "--config"]).arg(path).env("GOMAXPROCS", "1");
    command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
    Some(command)
}

#[expect(clippy::unnecessary_wraps, reason = "others cannot do everything")]
fn portcullis(setup: &Setup) -> Option<Command> {
    let Setup { workload, folder, port, upstream, secrets } = setup;
    let tls = if workload.tls {
        let (cert, key) = (setup.secret("cert.pem"), setup.secret("key.pem"));
        format!(", tls: {{ certificates: [{{ cert: {cert}, key: {key} }}] }}")
    } else {
        String::new()
    };
    let allow = if workload.proof.is_some() { format!("[{ROLE}]") } else { "anyone".to_owned() };
    let is_limited = workload.proof.is_none() && workload.refused == Some(429);
    let rate = if is_limited { ", rate: { rate: 1/s, burst: 1, by: address }" } else { "" };
    let mut prefixes = setup.prefixes();
    if prefixes.is_empty() {
        prefixes.push("/".to_owned());
    }
    let routes = prefixes.iter().fold(String::new(), |mut text, prefix| {
        writeln!(text, "  - {{ path: {prefix}**, allow: {allow}{rate}, to: servers }}").unwrap();
        text
    });
    // limits of bad credentials are off, since one workload is nothing but those
    let text = format!(
        "listeners: [{{ address: '127.0.0.1:{port}'{tls} }}]
admin: {{ address: '127.0.0.1:0' }}
workers: 1
store: sqlite:store.db
auth:
  jwt:
    issuer: bench
    roles: role
    keys:
      - {{ id: hs256, algorithm: HS256, secret: {HMAC_SECRET} }}
      - {{ id: rs256, algorithm: RS256, public_key: {} }}
      - {{ id: es256, algorithm: ES256, public_key: {} }}
tokens: {{ default_role: {ROLE} }}
limits:
  connections: 9000
  unauthenticated: off
  token_endpoints: {{ per_address: off, per_account: off, per_account_anywhere: off }}
log: {{ access: off, audit: off, level: warn }}
upstreams: {{ servers: {{ servers: ['http://{upstream}'], keep_alive: 512 }} }}
routes:
{routes}",
        setup.secret("rs256.pem"),
        setup.secret("es256.pem"),
    );
    let path = setup.write("gateway.yaml", &text);
    let program = || Command::new(env!("CARGO_BIN_EXE_portcullis"));
    if matches!(workload.proof, Some(Proof::Basic | Proof::Token)) {
        let mut import = program();
        import.args(["import", "htpasswd"]).arg(secrets.file("htpasswd")).arg("--config").arg(&path);
        let imported = import.output().unwrap();
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    }
    if workload.proof == Some(Proof::Token) {
        secrets.fill_store(&folder.join("store.db"), secrets.tokens.len());
    }
    let mut command = program();
    command.arg("run").arg("--config").arg(path);
    Some(command)
}
