//! The endpoints on a real store in a temporary directory, with a clock that the tests move.

mod accounts;
mod login;
mod oauth;
mod refresh;
mod revoke;

use std::cell::Cell;
use std::io::Write;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::WWW_AUTHENTICATE;
use http_body_util::BodyExt as _;
use serde_json::json;

use super::template::Claims;
use super::*;
use crate::authenticate::issuers::Issuers;
use crate::authenticate::keys::{Algorithm, Key, KeyRing};
use crate::authenticate::{CacheSettings, ClaimPath, JwtSettings, LookUp, RoleSource, TypeSource, Visit};
use crate::limit::{self, Quota};
use crate::principal::{Scheme, SchemeSet, Scope};
use crate::record::lines::Lines;
use crate::rejection::{Audience, Format};
use crate::secret::Secret;
use crate::store::sql::SqlStore;

pub(super) const ANN: (&str, &str) = ("ann", "correct horse");
pub(super) const CLIENT: (&str, &str) = ("api", "client secret/+=~");

pub(super) struct Rig {
    pub(super) service: Service,
    pub(super) auth: authenticate::Settings,
    pub(super) tokens: Settings,
    pub(super) clock: Clock,
    metrics: WorkerMetrics,
    endpoints: Endpoints,
    address: Cell<IpAddr>,
    audit: Kept,
    background: Option<tokio::runtime::Runtime>,
    _directory: tempfile::TempDir,
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A response, of either kind.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Said {
    pub(super) fn text(&self, member: &str) -> String {
        self.body[member].as_str().unwrap_or_else(|| panic!("no text `{member}` in {self:?}")).to_owned()
    }

    pub(super) fn error(&self) -> (u16, &str) {
        (self.status, self.body["error"].as_str().unwrap_or_default())
    }

    pub(super) fn challenges(&self) -> Vec<&str> {
        self.headers.get_all(WWW_AUTHENTICATE).iter().map(|value| value.to_str().unwrap()).collect()
    }
}

/// As flask-jwt-extended and `SimpleJWT` tell types apart.
pub(super) fn by_claim() -> TypeSource {
    TypeSource::Claim { claim: path("type"), access: "access".into(), refresh: "refresh".into(), unmarked: None }
}

pub(super) fn path(text: &str) -> ClaimPath {
    ClaimPath(text.split('.').map(Into::into).collect())
}

pub(super) fn hs256() -> KeyRing {
    let secret = Secret::new(b"a secret of the replaced system!".to_vec());
    KeyRing::new(vec![Key::hmac("k1", Algorithm::HS256, secret).unwrap()]).unwrap()
}

pub(super) fn endpoint(action: Action) -> Endpoint {
    Endpoint {
        path: "/e".into(),
        action,
        fields: HashMap::new(),
        reply: None,
        status: None,
        texts: Arc::new(Texts::default()),
        password_grant: false,
        file: None,
        from: Source::Either,
        incomplete: Incomplete::Standard,
        ends: Ends::Family,
    }
}

pub(super) fn with_reply(action: Action, reply: &Value) -> Endpoint {
    Endpoint { reply: Some(Reply::compile(reply.as_object().unwrap().clone()).unwrap()), ..endpoint(action) }
}

/// The claims of a JWT, unverified.
pub(super) fn claims(token: &str) -> Value {
    segment(token, 1)
}

pub(super) fn header(token: &str) -> Value {
    segment(token, 0)
}

fn segment(token: &str, number: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(number).unwrap()).unwrap()).unwrap()
}

pub(super) fn basic((name, password): (&str, &str)) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

pub(super) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

impl Rig {
    pub(super) async fn start() -> Self {
        Self::with(JwtSettings::of("portcullis")).await
    }

    pub(super) async fn with(jwt: JwtSettings) -> Self {
        let (clock, directory) = (Clock::system(), tempfile::tempdir().unwrap());
        let background = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (handle, file, its_clock) = (
            background.handle().clone(),
            crate::config::snapshot::StoreLocation::Sqlite(directory.path().join("store.db")),
            clock.clone(),
        );
        // opening blocks
        let opened = std::thread::spawn(move || {
            SqlStore::open(&file, &crate::store::tables::Tables::default(), handle, its_clock, |_, _| {})
        });
        let store: Arc<dyn Store> = Arc::new(opened.join().unwrap().unwrap());
        let (metrics, limits) = (Arc::new(Metrics::new()), Arc::new(Limits::new(clock.clone())));
        let changes = Arc::new(Changes::default());
        let passwords = Arc::new(PasswordPool::start(2).unwrap());
        let keys = Arc::new(Keys::load(Arc::clone(&store), clock.clone()).await.unwrap());
        let parts = LookUp {
            store: Arc::clone(&store),
            passwords: Arc::clone(&passwords),
            keys: Arc::clone(&keys),
            issuers: Arc::new(Issuers::new(Arc::clone(&changes), clock.clone(), Arc::clone(&metrics))),
            changes: Arc::clone(&changes),
            clock: clock.clone(),
        };
        let cache = CacheSettings {
            ttl: Duration::from_secs(30),
            capacity: 100,
            negative_ttl: Duration::from_secs(2),
            stale_if_store_down: Duration::ZERO,
        };
        let authenticator =
            Authenticator::new(parts, Arc::clone(&limits), &cache, background.handle().clone()).unwrap();
        let audit = Kept::default();
        let (lines, _) = Lines::to(audit.clone(), metrics.log_lines_dropped.clone()).unwrap();
        let service = Service {
            store,
            passwords,
            limits,
            changes,
            authenticator: Arc::new(authenticator),
            keys,
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            audit: Arc::new(Audit::new(lines, clock.clone())),
        };
        let tokens = Settings {
            access_ttl: Duration::from_mins(15),
            refresh_ttl: Duration::from_hours(7 * 24),
            opaque_ttl: Duration::from_hours(24),
            default_role: Role::from("user"),
            refresh_format: RefreshFormat::Opaque,
            refresh_grace: Duration::from_secs(10),
            claims: Claims::default(),
            sub_as_json_text: false,
            password_bytes_min: 8,
            password_bytes_max: 64,
        };
        let rig = Self {
            service,
            auth: authenticate::Settings { realm: "api".into(), cache, jwt: Arc::new(jwt), issuers: Arc::default() },
            tokens,
            clock,
            metrics: metrics.worker(),
            endpoints: Endpoints::default(),
            address: Cell::new("192.0.2.1".parse().unwrap()),
            audit,
            background: Some(background),
            _directory: directory,
        };
        rig.add(Subject::user(ANN.0), ANN.1, &["admin", "user"], &[]).await;
        rig.add(Subject::client(CLIENT.0), CLIENT.1, &["user"], &["read", "write"]).await;
        rig
    }

    pub(super) async fn add(&self, subject: Subject, password: &str, roles: &[&str], scopes: &[&str]) {
        let hash = self.service.passwords.hash(Secret::new(password.to_owned())).await.unwrap().unwrap();
        let roles = roles.iter().map(|role| Role::from(*role)).collect();
        let scopes = scopes.iter().map(|scope| Scope::from(*scope)).collect();
        self.service.store.add_account(subject, hash, roles, scopes).await.unwrap();
    }

    pub(super) fn limit(&self, settings: &limit::Settings) {
        self.service.limits.apply(settings);
    }

    pub(super) fn from(&self, address: &str) -> &Self {
        self.address.set(address.parse().unwrap());
        self
    }

    /// Sends a JSON body.
    pub(super) async fn post(&self, endpoint: &Endpoint, authorization: Option<&str>, body: &Value) -> Said {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(endpoint, "POST", authorization, Some("application/json"), &body).await
    }

    /// Sends a form.
    pub(super) async fn form(&self, endpoint: &Endpoint, authorization: Option<&str>, body: &str) -> Said {
        self.send(endpoint, "POST", authorization, Some("application/x-www-form-urlencoded"), body).await
    }

    pub(super) async fn send(
        &self,
        endpoint: &Endpoint,
        method: &str,
        authorization: Option<&str>,
        content_type: Option<&str>,
        body: &str,
    ) -> Said {
        let mut request = Request::builder().method(method).uri("/e").header("host", "api.example.com");
        for (name, value) in [("authorization", authorization), ("content-type", content_type)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        self.sent(endpoint, request.body(Body::full(body.to_owned())).unwrap()).await
    }

    pub(super) async fn sent(&self, endpoint: &Endpoint, request: Request<Body>) -> Said {
        let asked = Asked {
            auth: &self.auth,
            tokens: &self.tokens,
            endpoints: &self.endpoints,
            address: self.address.get(),
            request_id: &HeaderValue::from_static("r1"),
            https: true,
            metrics: &self.metrics,
            proven: &Proven::default(),
        };
        let audience = Audience {
            realm: "api",
            schemes: endpoint.challenged(),
            texts: &endpoint.texts,
            method: "POST",
            request_id: "r1",
            format: Format::Json,
        };
        let response = self.service.answer(endpoint, asked, request).await;
        let response = response.unwrap_or_else(|rejection| rejection.respond(&audience).map(Body::full));
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Said { status: head.status.as_u16(), headers: head.headers, body }
    }

    /// The reply of a login as ann.
    pub(super) async fn logged_in(&self) -> Said {
        let said = self.post(&endpoint(Action::Login), None, &json!({"username": ANN.0, "password": ANN.1})).await;
        assert_eq!(said.status, 200, "{said:?}");
        said
    }

    pub(super) async fn refreshed(&self, token: &str) -> Said {
        self.post(&endpoint(Action::Refresh), None, &json!({ "refresh_token": token })).await
    }

    /// Whether a route would let this credential pass.
    pub(super) async fn accepts(&self, authorization: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", authorization.parse().unwrap());
        let address = "198.51.100.1".parse().unwrap();
        let (audit, request_id) = (&*self.service.audit, &HeaderValue::from_static("r1"));
        let now = self.service.clock.now();
        let visit = Visit { address, now, metrics: &self.metrics, recent: None, audit, request_id };
        let identified = self.service.authenticator.identify(&self.auth, SchemeSet::all(), &headers, visit).await;
        match identified {
            Ok(identity) => Scheme::from_name(authorization.split(' ').next().unwrap()) == Some(identity.scheme),
            Err(rejection) => {
                assert_eq!(rejection.status(), 401, "{rejection:?}");
                false
            }
        }
    }

    /// The last of so many events of the audit log.
    pub(super) async fn last_told(&self, count: usize) -> Value {
        self.audited(count, &[]).await;
        let text = String::from_utf8(self.audit.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), count, "{text}");
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    }

    /// The kinds of what the audit log says once it has this many events; none of the given secrets may be in it.
    pub(super) async fn audited(&self, count: usize, secrets: &[&str]) -> Vec<String> {
        let text = || String::from_utf8(self.audit.0.lock().unwrap().clone()).unwrap();
        // the writer has its own thread
        let deadline = std::time::Duration::from_secs(5);
        let written = async {
            while text().matches('\n').count() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(deadline, written).await.unwrap();
        let text = text();
        for secret in secrets {
            assert!(!text.contains(secret));
        }
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["audit"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(background) = self.background.take() {
            background.shutdown_background();
        }
    }
}

pub(super) fn quota(count: u32, burst: u32) -> Quota {
    Quota { count: count.try_into().unwrap(), per: Duration::from_mins(1), burst: burst.try_into().unwrap() }
}
