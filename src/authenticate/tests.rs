//! The stage as a request meets it: credentials, cache, limits and a store that tests can stop, hold and change.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::keys::{Algorithm, Key, KeyRing, Keys};
use super::password::PasswordPool;
use super::*;
use crate::clock::{Clock, UnixSeconds};
use crate::limit::{self, Limits, Quota};
use crate::principal::{Role, Scope};
use crate::record::metrics::{Metrics, WorkerMetrics};
use crate::store::{
    Added, Answer, Change, Claimed, Ended, JwtStanding, NewToken, OpaqueToken, RefreshStanding, RefreshToken, Rotation,
    Store, StoreError, StoredKey, TokenDigest, TokenListing, TokenStanding, Tombstone, digest,
};
use crate::wire::opaque::{OpaqueKind, mint};

pub(super) const SECRET: &[u8] = b"a secret of thirty-two bytes....";
/// Of `Tr0ub4dor&3`, in a format that is cheap to verify.
const CHEAP_HASH: &str =
    "pbkdf2:sha256:1000$qRSuy0UwRZ9ILlGk$cbb704805bc502c3907f52e54e5fd247056c9e0295a6835226d98284df778a0f";
const PASSWORD: &str = "Tr0ub4dor&3";

/// Claims are read under these settings in all tests of this stage.
pub(super) fn jwt_settings() -> JwtSettings {
    let key = Key::hmac("k1", Algorithm::HS256, Secret::new(SECRET.to_vec())).unwrap();
    JwtSettings { keys: Some(Arc::new(KeyRing::new(vec![key]).unwrap())), ..JwtSettings::of("portcullis") }
}

pub(super) fn claims(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

fn settings() -> Settings {
    Settings {
        realm: "api".into(),
        cache: CacheSettings {
            ttl: Duration::from_secs(30),
            capacity: 1000,
            negative_ttl: Duration::from_secs(2),
            stale_if_store_down: Duration::from_mins(5),
        },
        jwt: Arc::new(jwt_settings()),
        issuers: Arc::default(),
    }
}

pub(super) struct Row {
    id: &'static str,
    hash: String,
    roles: Vec<Role>,
    pub(super) disabled: bool,
    session_version: i64,
    sessions_ended_at: UnixSeconds,
}

#[derive(Default)]
pub(super) struct Tables {
    accounts: HashMap<Subject, Row>,
    /// Whether no account was seen before.
    unseen: bool,
    tokens: HashMap<TokenDigest, (Subject, Option<UnixSeconds>)>,
    pub(super) revoked: HashSet<Arc<str>>,
    removed: HashMap<Subject, Tombstone>,
    keys: Vec<StoredKey>,
}

impl Tables {
    fn account(&self, subject: &Subject) -> Option<Account> {
        self.accounts.get(subject).map(|row| Account {
            subject: subject.clone(),
            id: row.id.into(),
            password_hash: Secret::new(row.hash.clone()),
            roles: row.roles.clone().into(),
            scopes: [].into(),
            disabled: row.disabled,
            session_version: row.session_version,
            sessions_ended_at: row.sessions_ended_at,
            created_at: 0,
        })
    }
}

/// A store in memory that counts what it is asked, can be down, hang, or hold its answers until told.
pub(super) struct FakeStore {
    tables: Mutex<Tables>,
    asked: AtomicUsize,
    pub(super) down: AtomicBool,
    hangs: AtomicBool,
    held: AtomicBool,
    gate: Semaphore,
}

impl FakeStore {
    fn new() -> Self {
        Self {
            tables: Mutex::default(),
            asked: AtomicUsize::new(0),
            down: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            held: AtomicBool::new(false),
            gate: Semaphore::new(0),
        }
    }

    /// Reads first and is held afterwards: what it answers may be outdated when it is heard.
    fn answer<'a, T: Send + 'a>(&'a self, read: impl FnOnce(&Tables) -> T + Send + 'a) -> Answer<'a, T> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if self.down.load(Ordering::SeqCst) {
                return Err(StoreError::Unavailable("stopped".into()));
            }
            if self.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            let answer = read(&self.tables.lock().unwrap());
            if self.held.load(Ordering::SeqCst) {
                self.gate.acquire().await.unwrap().forget();
            }
            Ok(answer)
        })
    }

    fn unused<T: Send + 'static>() -> Answer<'static, T> {
        Box::pin(async { Err(StoreError::Broken("not needed by these tests".into())) })
    }

    fn change(&self, with: impl FnOnce(&mut Tables)) {
        with(&mut self.tables.lock().unwrap());
    }
}

impl Store for FakeStore {
    fn claimed(&self, subject: Subject) -> Answer<'_, Option<Claimed>> {
        self.answer(move |tables| {
            let account = tables.account(&subject)?;
            Some(if tables.unseen {
                Claimed::Unseen { password_hash: account.password_hash }
            } else {
                Claimed::Account(account)
            })
        })
    }

    fn proven(&self, subject: Subject, hash: Secret<String>) -> Answer<'_, Option<Account>> {
        self.answer(move |tables| {
            tables.account(&subject).filter(|account| hash.matches(account.password_hash.expose().as_bytes()))
        })
    }

    fn account(&self, subject: Subject) -> Answer<'_, Option<Account>> {
        self.answer(move |tables| tables.account(&subject))
    }

    fn token(&self, digest: TokenDigest, now: UnixSeconds) -> Answer<'_, TokenStanding> {
        self.answer(move |tables| {
            let Some((owner, expires_at)) = tables.tokens.get(&digest) else { return TokenStanding::Unknown };
            let expired = expires_at.is_some_and(|end| end <= now);
            let ended = TokenStanding::Ended { owner: owner.clone(), expired };
            let Some(owner) = tables.account(owner).filter(|_| !expired) else { return ended };
            TokenStanding::Live(Box::new(OpaqueToken {
                owner,
                scopes: [].into(),
                expires_at: *expires_at,
                session: None,
                client: None,
                issued_at: None,
            }))
        })
    }

    fn jwt_standing(&self, subject: Subject, ids: Vec<Arc<str>>) -> Answer<'_, JwtStanding> {
        self.answer(move |tables| JwtStanding {
            account: tables.account(&subject),
            revoked: ids.iter().any(|id| tables.revoked.contains(id)),
            removed: tables.removed.get(&subject).copied(),
        })
    }

    fn jwt_revoked(&self, ids: Vec<Arc<str>>) -> Answer<'_, bool> {
        self.answer(move |tables| ids.iter().any(|id| tables.revoked.contains(id)))
    }

    fn keys(&self, now: UnixSeconds) -> Answer<'_, Vec<StoredKey>> {
        self.answer(move |tables| {
            let living = tables.keys.iter().filter(|key| key.verifies_until.is_none_or(|until| now < until));
            living.map(copy).collect()
        })
    }

    fn add_first_key(&self, key: StoredKey) -> Answer<'_, bool> {
        self.change(|tables| {
            if tables.keys.is_empty() {
                tables.keys.push(key);
            }
        });
        self.answer(|_| true)
    }

    fn account_by_id(&self, id: Arc<str>) -> Answer<'_, Option<Account>> {
        self.answer(move |tables| {
            let subjects: Vec<_> = tables.accounts.keys().cloned().collect();
            subjects.iter().filter_map(|subject| tables.account(subject)).find(|account| account.id == id)
        })
    }
    fn clear_token(&self, _: Secret<String>, _: UnixSeconds) -> Answer<'_, Option<OpaqueToken>> {
        self.answer(|_| None)
    }
    fn revoke_clear_token(&self, _: Secret<String>) -> Answer<'_, bool> {
        Self::unused()
    }
    fn rehashes(&self) -> bool {
        false
    }
    fn refresh_token(&self, _: TokenDigest) -> Answer<'_, RefreshStanding> {
        Self::unused()
    }
    fn add_account(&self, _: Subject, _: Secret<String>, _: Vec<Role>, _: Vec<Scope>) -> Answer<'_, Added> {
        Self::unused()
    }
    fn set_password(&self, _: Subject, _: Secret<String>) -> Answer<'_, bool> {
        Self::unused()
    }
    fn change_password(&self, _: Subject, _: Secret<String>, _: i64) -> Answer<'_, Option<Ended>> {
        Self::unused()
    }
    fn rehash(&self, _: Subject, _: Secret<String>, _: Secret<String>) -> Answer<'_, bool> {
        Self::unused()
    }
    fn set_roles(&self, _: Subject, _: Vec<Role>) -> Answer<'_, bool> {
        Self::unused()
    }
    fn set_disabled(&self, _: Subject, _: bool) -> Answer<'_, bool> {
        Self::unused()
    }
    fn remove_account(&self, _: Subject) -> Answer<'_, bool> {
        Self::unused()
    }
    fn accounts(&self, _: SubjectKind) -> Answer<'_, Vec<Account>> {
        Self::unused()
    }
    fn issue(&self, _: Option<NewToken>, _: Option<(TokenDigest, RefreshToken)>) -> Answer<'_, ()> {
        Self::unused()
    }
    fn rotate(&self, _: Rotation) -> Answer<'_, RefreshStanding> {
        Self::unused()
    }
    fn revoke_token(&self, _: TokenDigest) -> Answer<'_, bool> {
        Self::unused()
    }
    fn revoke_family(&self, _: Arc<str>, _: UnixSeconds) -> Answer<'_, ()> {
        Self::unused()
    }
    fn revoke_refresh_tokens(&self, _: Arc<str>) -> Answer<'_, ()> {
        Self::unused()
    }
    fn revoke_jwt(&self, _: Arc<str>, _: UnixSeconds) -> Answer<'_, ()> {
        Self::unused()
    }
    fn revoke_listed(&self, _: i64, _: UnixSeconds) -> Answer<'_, Option<TokenListing>> {
        Self::unused()
    }
    fn tokens(&self, _: Option<Subject>, _: UnixSeconds) -> Answer<'_, Vec<TokenListing>> {
        Self::unused()
    }
    fn rotate_key(&self, _: StoredKey, _: UnixSeconds) -> Answer<'_, ()> {
        Self::unused()
    }
    fn changes(&self, _: Option<i64>) -> Answer<'_, (Vec<Change>, i64)> {
        Self::unused()
    }
    fn purge(&self, _: UnixSeconds) -> Answer<'_, bool> {
        Self::unused()
    }
    fn ping(&self) -> Answer<'_, ()> {
        Self::unused()
    }
}

fn copy(key: &StoredKey) -> StoredKey {
    StoredKey {
        id: Arc::clone(&key.id),
        algorithm: key.algorithm.clone(),
        private_key: Secret::new(key.private_key.expose().clone()),
        signs_from: key.signs_from,
        verifies_until: key.verifies_until,
    }
}

/// One worker before a store in which `ann` has the role `user`.
pub(super) struct Stage {
    pub(super) store: Arc<FakeStore>,
    pub(super) changes: Arc<Changes>,
    limits: Arc<Limits>,
    pub(super) clock: Clock,
    pub(super) settings: Settings,
    pub(super) authenticator: Authenticator,
    pub(super) metrics: Arc<Metrics>,
    worker: WorkerMetrics,
    recent: Recent,
    audit: Audit,
}

impl Stage {
    pub(super) async fn new() -> Self {
        let (store, changes, clock) = (Arc::new(FakeStore::new()), Arc::new(Changes::default()), Clock::system());
        let row = Row {
            id: "7",
            hash: CHEAP_HASH.into(),
            roles: vec!["user".into()],
            disabled: false,
            session_version: 1,
            sessions_ended_at: 0,
        };
        store.change(|tables| drop(tables.accounts.insert(Subject::user("ann"), row)));
        let keys = Keys::load(Arc::clone(&store) as Arc<dyn Store>, clock.clone()).await.unwrap();
        let metrics = Arc::new(Metrics::new());
        let parts = LookUp {
            store: Arc::clone(&store) as Arc<dyn Store>,
            passwords: Arc::new(PasswordPool::start(1).unwrap()),
            keys: Arc::new(keys),
            issuers: Arc::new(Issuers::new(Arc::clone(&changes), clock.clone(), Arc::clone(&metrics))),
            changes: Arc::clone(&changes),
            clock: clock.clone(),
        };
        let limits = Arc::new(Limits::new(clock.clone()));
        let settings = settings();
        let authenticator = Authenticator::new(parts, Arc::clone(&limits), &settings.cache, Handle::current()).unwrap();
        store.asked.store(0, Ordering::SeqCst);
        let worker = metrics.worker();
        let (recent, audit) = (Recent::default(), Audit::disabled());
        Self { store, changes, limits, clock, settings, authenticator, metrics, worker, recent, audit }
    }

    /// With keys of other issuers that are fetched at another pace.
    pub(super) fn with_issuers(&mut self, issuers: Arc<Issuers>) {
        let parts = Arc::get_mut(&mut self.authenticator.parts).unwrap();
        parts.issuers = issuers;
    }

    pub(super) async fn ask(&self, authorization: &str) -> Result<Arc<Identity>, Rejection> {
        self.ask_with(&self.settings, authorization).await
    }

    /// How a credential fares that is refused: why, and whose it is told to be.
    pub(super) async fn refusal(&self, authorization: &str) -> (Rejection, Option<Subject>) {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(authorization).unwrap());
        let presented = presented(&headers).unwrap().unwrap();
        let visit = self.visit(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let failure = self.authenticator.prove(&self.settings, presented, visit).await.unwrap_err();
        let Failure::Refused(refused) = &failure else { panic!("not refused: {failure:?}") };
        let whose = refused.whose.as_deref().cloned();
        (failure.into(), whose)
    }

    fn visit(&self, address: IpAddr) -> Visit<'_> {
        static ID: HeaderValue = HeaderValue::from_static("r1");
        let recent = Some(&self.recent);
        Visit { address, now: self.clock.now(), metrics: &self.worker, recent, audit: &self.audit, request_id: &ID }
    }

    async fn ask_with(&self, settings: &Settings, authorization: &str) -> Result<Arc<Identity>, Rejection> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(authorization).unwrap());
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.authenticator.identify(settings, SchemeSet::all(), &headers, self.visit(address)).await
    }

    /// `ok`, or the reason in the log.
    pub(super) async fn outcome(&self, authorization: &str) -> &'static str {
        self.ask(authorization).await.map_or_else(|rejection| rejection.reason(), |_| "ok")
    }

    fn asked(&self) -> usize {
        self.store.asked.swap(0, Ordering::SeqCst)
    }

    pub(super) fn change(&self, change: &Change, with: impl FnOnce(&mut Tables)) {
        self.store.change(with);
        self.changes.note(change);
    }

    pub(super) fn bearer(&self, more: Value) -> String {
        let now = self.clock.unix();
        let mut all = claims(json!({ "iss": "portcullis", "sub": "ann", "iat": now, "exp": now + 900, "sv": 1 }));
        all.extend(claims(more));
        format!("Bearer {}", self.settings.jwt.keys.as_ref().unwrap().sign("at+jwt", &all).unwrap())
    }

    fn token(&self, expires_at: Option<UnixSeconds>) -> String {
        let token = mint(OpaqueKind::Token).unwrap();
        let owner = Subject::user("ann");
        self.store.change(|tables| drop(tables.tokens.insert(digest(token.expose()), (owner, expires_at))));
        format!("Token {}", token.expose())
    }
}

/// A token says whose it is once its signature holds, an opaque one once the store knows it; for the audit log.
#[tokio::test]
async fn a_refused_token_is_known_by_its_owner_where_that_can_be_believed() {
    let stage = Stage::new().await;
    let now = stage.clock.unix();
    let ended = stage.token(Some(now - 1));
    stage.change(&Change::Session("gone".into()), |tables| assert!(tables.revoked.insert("gone".into())));
    let other_key = {
        let key = Key::hmac("k1", Algorithm::HS256, Secret::new(vec![7; 32])).unwrap();
        let all = claims(json!({ "iss": "portcullis", "sub": "ann", "exp": now + 900 }));
        format!("Bearer {}", KeyRing::new(vec![key]).unwrap().sign("at+jwt", &all).unwrap())
    };
    let unknown = format!("Token {}", mint(OpaqueKind::Token).unwrap().expose());
    for (name, authorization, reason, whose) in [
        ("expired", stage.bearer(json!({ "exp": now - 900 })), "expired", Some("ann")),
        ("not valid yet", stage.bearer(json!({ "nbf": now + 900 })), "not_yet_valid", Some("ann")),
        ("revoked", stage.bearer(json!({ "jti": "gone" })), "revoked", Some("ann")),
        ("of an old session", stage.bearer(json!({ "sv": 0 })), "revoked", Some("ann")),
        ("of nobody", stage.bearer(json!({ "sub": "nobody" })), "unknown_subject", Some("nobody")),
        ("a claim of a wrong type", stage.bearer(json!({ "exp": "soon" })), "malformed", Some("ann")),
        ("an opaque one whose time is over", ended, "expired", Some("ann")),
        ("of another issuer", stage.bearer(json!({ "iss": "other" })), "wrong_issuer", None),
        ("without a subject", stage.bearer(json!({ "sub": "" })), "missing_subject", None),
        ("by another key", other_key, "bad_signature", None),
        ("an opaque one of nobody", unknown, "unknown", None),
        ("nothing like a token", format!("Token {}ann", OpaqueKind::Token.prefix()), "malformed", None),
    ] {
        // as looked up, as remembered, and as the worker remembers it
        for time in 0..3 {
            let (rejection, owner) = stage.refusal(&authorization).await;
            assert_eq!((rejection.reason(), owner), (reason, whose.map(Subject::user)), "{name}, {time}");
        }
    }
}

/// To name an owner for the audit log is worth no query of the store, which whoever kept an old token could cause at will.
#[tokio::test]
async fn a_token_that_its_claims_refuse_is_refused_without_the_store() {
    let mut stage = Stage::new().await;
    let subject = ClaimPath(vec!["user_id".into()]);
    stage.settings.jwt = Arc::new(JwtSettings { subject, subject_is_id: true, ..jwt_settings() });
    let past = stage.clock.unix() - 900;
    stage.store.down.store(true, Ordering::SeqCst);
    for (claims, reason, whose) in [
        (json!({ "user_id": "7", "exp": past }), "expired", None),
        (json!({ "user_id": "7", "aud": "orders" }), "wrong_audience", None),
        (json!({ "user_id": "7", "sv": "1" }), "malformed", None),
        (json!({ "user_id": "app", "sub_type": "client", "exp": past }), "expired", Some(Subject::client("app"))),
    ] {
        let (rejection, owner) = stage.refusal(&stage.bearer(claims)).await;
        assert_eq!((rejection.status().as_u16(), rejection.reason(), owner), (401, reason, whose));
    }
    assert_eq!(stage.asked(), 0);
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Polls once.
async fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
    std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context).is_pending())).await
}

fn ann() -> Change {
    Change::Subject(Subject::user("ann"))
}

pub(super) fn row(tables: &mut Tables) -> &mut Row {
    tables.accounts.get_mut(&Subject::user("ann")).unwrap()
}

#[tokio::test]
async fn each_scheme_proves_a_principal_and_then_serves_from_the_cache() {
    let stage = Stage::new().await;
    for credential in [basic("ann", PASSWORD), stage.token(None), stage.bearer(json!({}))] {
        let identity = stage.ask(&credential).await.unwrap();
        assert_eq!(identity.principal.subject, Subject::user("ann"));
        assert_eq!(identity.principal.user_id.as_deref(), Some("7"));
        assert_eq!((identity.user_field.as_bytes(), identity.roles_field.as_bytes()), (&b"ann"[..], &b"user"[..]));
        assert_eq!(stage.asked(), 1);
        assert_eq!(stage.ask(&credential).await.unwrap(), identity);
        assert_eq!(stage.asked(), 0);
    }
    let text = stage.metrics.text().unwrap();
    for parts in [["result=\"hit\"", "} 3"], ["result=\"miss\"", "} 3"], ["scheme=\"bearer\"", "} 2"]] {
        assert!(text.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{parts:?} in {text}");
    }
}

#[tokio::test]
async fn what_is_no_credential_is_refused_before_anything_is_asked() {
    let stage = Stage::new().await;
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for (name, fields, schemes, expected) in [
        ("none", &[][..], SchemeSet::all(), "missing_credentials"),
        ("two", &["Bearer a", "Bearer b"][..], SchemeSet::all(), "two Authorization headers"),
        ("an unknown scheme", &["Digest a"], SchemeSet::all(), "unsupported_scheme"),
        ("a scheme that is not offered", &["Basic YTpi"], SchemeSet::from_iter([Scheme::Bearer]), "unsupported_scheme"),
        ("the same, malformed", &["Basic "], SchemeSet::from_iter([Scheme::Bearer]), "unsupported_scheme"),
        ("no base64", &["Basic ***"], SchemeSet::all(), "malformed"),
        ("nothing behind the scheme", &["Token "], SchemeSet::all(), "malformed_header"),
        ("a made-up token with our prefix", &["Token pct_abc"], SchemeSet::all(), "malformed"),
    ] {
        let headers = fields.iter().map(|field| (AUTHORIZATION, HeaderValue::from_static(field))).collect();
        let result = stage.authenticator.caller(&stage.settings, schemes, &headers, stage.visit(address)).await;
        assert_eq!(result.map_err(|rejection| rejection.reason()).unwrap_err(), expected, "{name}");
    }
    assert_eq!(stage.asked(), 0);
}

#[tokio::test]
async fn a_change_holds_on_the_very_next_request() {
    for (name, change, with, expected) in [
        (
            "a disabled account",
            ann(),
            (|tables| row(tables).disabled = true) as fn(&mut Tables),
            ["disabled", "disabled", "disabled"],
        ),
        (
            "a new password, which ends the sessions",
            ann(),
            |tables| {
                row(tables).hash = "x".into();
                row(tables).session_version = 2;
                tables.tokens.clear();
            },
            ["wrong_password", "unknown", "revoked"],
        ),
        (
            "a removed account",
            ann(),
            |tables| {
                tables.accounts.clear();
                let removed = Tombstone { session_version: 1, removed_at: i64::MAX };
                tables.removed.insert(Subject::user("ann"), removed);
            },
            ["unknown_subject", "revoked", "revoked"],
        ),
        (
            "a revoked family",
            Change::Session("f1".into()),
            |tables| {
                tables.revoked.insert("f1".into());
            },
            ["ok", "ok", "revoked"],
        ),
        (
            "a revoked jti",
            Change::Session("j1".into()),
            |tables| {
                tables.revoked.insert("j1".into());
            },
            ["ok", "ok", "revoked"],
        ),
        (
            "changes that were missed",
            Change::All,
            |tables| row(tables).disabled = true,
            ["disabled", "disabled", "disabled"],
        ),
    ] {
        let stage = Stage::new().await;
        let credentials =
            [basic("ann", PASSWORD), stage.token(None), stage.bearer(json!({ "jti": "j1", "sid": "f1" }))];
        for credential in &credentials {
            assert_eq!(stage.outcome(credential).await, "ok", "{name}");
        }
        stage.change(&change, with);
        for (credential, expected) in credentials.iter().zip(expected) {
            assert_eq!(stage.outcome(credential).await, expected, "{name}");
        }
    }
}

#[tokio::test]
async fn new_roles_are_served_at_once_and_a_refusal_ends_with_its_cause() {
    let stage = Stage::new().await;
    let token = stage.bearer(json!({}));
    assert_eq!(stage.ask(&token).await.unwrap().principal.roles[0].as_str(), "user");
    stage.change(&ann(), |tables| row(tables).roles = vec!["admin".into()]);
    assert_eq!(stage.ask(&token).await.unwrap().principal.roles[0].as_str(), "admin");
    stage.change(&ann(), |tables| row(tables).disabled = true);
    assert_eq!(stage.outcome(&token).await, "disabled");
    stage.change(&ann(), |tables| row(tables).disabled = false);
    assert_eq!(stage.outcome(&token).await, "ok");
}

#[tokio::test]
async fn a_revoked_opaque_token_is_dead_at_once_and_ends_with_its_time() {
    let stage = Stage::new().await;
    let token = stage.token(None);
    let digest = digest(token.strip_prefix("Token ").unwrap());
    assert_eq!(stage.outcome(&token).await, "ok");
    stage.change(&Change::Token(digest), |tables| drop(tables.tokens.remove(&digest)));
    assert_eq!(stage.outcome(&token).await, "unknown");

    let token = stage.token(Some(stage.clock.unix() + 10));
    assert_eq!(stage.outcome(&token).await, "ok");
    stage.clock.advance(Duration::from_secs(8));
    assert_eq!((stage.outcome(&token).await, stage.asked()), ("ok", 3));
    stage.clock.advance(Duration::from_secs(3));
    assert_eq!(stage.outcome(&token).await, "expired");
}

#[tokio::test]
async fn a_remembered_jwt_ends_with_its_exp_and_leeway() {
    let stage = Stage::new().await;
    let token = stage.bearer(json!({ "exp": stage.clock.unix() - 10 }));
    assert_eq!(stage.outcome(&token).await, "ok");
    stage.clock.advance(Duration::from_secs(18));
    assert_eq!(stage.outcome(&token).await, "ok");
    stage.clock.advance(Duration::from_secs(3));
    assert_eq!(stage.outcome(&token).await, "expired");
}

#[tokio::test]
async fn a_principal_is_looked_up_again_after_its_time_and_a_refusal_sooner() {
    let stage = Stage::new().await;
    // long ones: the clock moves on by itself as well
    let times = CacheSettings {
        ttl: Duration::from_hours(1),
        negative_ttl: Duration::from_mins(10),
        ..stage.settings.cache.clone()
    };
    stage.authenticator.configure(&Settings { cache: times, ..stage.settings.clone() }, &Handle::current());
    let (good, bad) = (basic("ann", PASSWORD), basic("ann", "wrong"));
    assert_eq!((stage.outcome(&good).await, stage.outcome(&bad).await, stage.asked()), ("ok", "wrong_password", 2));
    stage.clock.advance(Duration::from_mins(9));
    assert_eq!((stage.outcome(&good).await, stage.outcome(&bad).await, stage.asked()), ("ok", "wrong_password", 0));
    stage.clock.advance(Duration::from_mins(1));
    assert_eq!((stage.outcome(&good).await, stage.outcome(&bad).await, stage.asked()), ("ok", "wrong_password", 1));
    stage.clock.advance(Duration::from_mins(49));
    assert_eq!((stage.outcome(&good).await, stage.asked()), ("ok", 0));
    stage.clock.advance(Duration::from_mins(1));
    assert_eq!((stage.outcome(&good).await, stage.asked()), ("ok", 1));
}

/// A worker's own memory of whom it met is judged as the shelf is.
#[tokio::test]
async fn what_a_worker_has_met_is_forgotten_with_the_shelf() {
    let mut stage = Stage::new().await;
    let good = basic("ann", PASSWORD);
    for _ in 0..200 {
        assert_eq!(stage.outcome(&good).await, "ok");
    }
    assert_eq!(stage.asked(), 1);
    // another shelf
    stage.settings.cache.ttl += Duration::from_hours(1);
    stage.authenticator.configure(&stage.settings, &Handle::current());
    assert_eq!((stage.outcome(&good).await, stage.asked()), ("ok", 1));
    // a change
    stage.change(&ann(), |tables| row(tables).disabled = true);
    assert_ne!(stage.outcome(&good).await, "ok");
    assert_eq!(stage.asked(), 1);
}

#[tokio::test]
async fn a_refusal_that_a_worker_has_met_ends_with_the_shelf_its_time_and_its_cause() {
    let mut stage = Stage::new().await;
    stage.settings.cache.negative_ttl = Duration::from_mins(10);
    stage.authenticator.configure(&stage.settings, &Handle::current());
    stage.change(&ann(), |tables| row(tables).disabled = true);
    let credential = basic("ann", PASSWORD);
    let met = async |stage: &Stage, times: u32| {
        for _ in 0..times {
            assert_eq!(stage.outcome(&credential).await, "disabled");
        }
        stage.asked()
    };
    assert_eq!(met(&stage, 200).await, 1);
    // its time
    stage.clock.advance(Duration::from_mins(10));
    assert_eq!(met(&stage, 3).await, 1);
    // another shelf
    stage.settings.cache.ttl += Duration::from_hours(1);
    stage.authenticator.configure(&stage.settings, &Handle::current());
    assert_eq!(met(&stage, 3).await, 1);
    // its cause
    stage.change(&ann(), |tables| row(tables).disabled = false);
    for _ in 0..3 {
        assert_eq!(stage.outcome(&credential).await, "ok");
    }
    assert_eq!(stage.asked(), 1);
    // and each time it is paid for
    stage.change(&ann(), |tables| row(tables).disabled = true);
    assert_eq!(met(&stage, 3).await, 1);
    let quota = Quota { count: NonZeroU32::MIN, per: Duration::from_mins(1), burst: NonZeroU32::new(3).unwrap() };
    let off =
        limit::Settings { per_address: None, per_account: None, per_account_anywhere: None, unauthenticated: None };
    stage.limits.apply(&limit::Settings { unauthenticated: Some(quota), ..off });
    assert_eq!(met(&stage, 3).await, 0);
    assert_eq!(stage.outcome(&credential).await, "unauthenticated");
}

#[tokio::test]
async fn unknown_users_and_wrong_passwords_are_remembered_alike_and_cost_alike() {
    let stage = Stage::new().await;
    // both verify argon2id
    let hash = password::hash("right").unwrap();
    stage.change(&ann(), |tables| row(tables).hash.clone_from(hash.expose()));
    let mut times = [Duration::MAX; 2];
    let alike = |[known, unknown]: [Duration; 2]| known < unknown * 3 && unknown < known * 3;
    // the least of many: what a busy machine adds to one is not added to all
    for round in 0..50 {
        if round >= 3 && alike(times) {
            break;
        }
        for (time, user) in times.iter_mut().zip(["ann", "nobody"]) {
            let credential = basic(user, &format!("guess {round}"));
            let before = stage.clock.now();
            let first = stage.ask(&credential).await.unwrap_err();
            *time = (*time).min(stage.clock.now() - before);
            assert_eq!(first.code(), "invalid_credentials");
            assert_eq!(stage.asked(), 1);
            assert_eq!(stage.ask(&credential).await.unwrap_err().code(), "invalid_credentials");
            assert_eq!(stage.asked(), 0);
        }
    }
    assert!(alike(times), "{times:?}");
}

#[tokio::test]
async fn an_account_that_was_never_seen_is_written_down_once_its_password_is_proven() {
    let stage = Stage::new().await;
    stage.change(&ann(), |tables| tables.unseen = true);
    assert_eq!((stage.outcome(&basic("ann", "wrong")).await, stage.asked()), ("wrong_password", 1));
    assert_eq!((stage.outcome(&basic("ann", PASSWORD)).await, stage.asked()), ("ok", 2));
    // as it is then, and not as it was
    stage.change(&ann(), |tables| row(tables).disabled = true);
    assert_eq!(stage.outcome(&basic("ann", PASSWORD)).await, "disabled");
}

#[tokio::test]
async fn a_password_is_held_against_the_hash_that_its_account_has_once_it_is_proven() {
    // of the same password, as another gateway writes it after a log-in there, of another, and of none any more
    for (hash, expected, asked) in [
        (Some(password::hash(PASSWORD).unwrap()), "ok", 4),
        (Some(password::hash("another").unwrap()), "wrong_password", 3),
        (None, "unknown_subject", 3),
    ] {
        let stage = Stage::new().await;
        stage.change(&ann(), |tables| tables.unseen = true);
        stage.store.held.store(true, Ordering::SeqCst);
        let credential = basic("ann", PASSWORD);
        let mut outcome = Box::pin(stage.outcome(&credential));
        while stage.store.asked.load(Ordering::SeqCst) == 0 {
            assert!(is_pending(&mut outcome).await);
            tokio::task::yield_now().await;
        }
        stage.store.change(|tables| match &hash {
            Some(hash) => row(tables).hash.clone_from(hash.expose()),
            None => tables.accounts.clear(),
        });
        stage.store.held.store(false, Ordering::SeqCst);
        stage.store.gate.add_permits(1);
        assert_eq!((outcome.await, stage.asked()), (expected, asked));
    }
}

#[tokio::test]
async fn a_change_of_one_name_makes_refusals_of_every_name_void() {
    let stage = Stage::new().await;
    let guesses = [basic("ann", "wrong"), basic("nobody", "wrong")];
    for guess in &guesses {
        stage.ask(guess).await.unwrap_err();
    }
    for change in [ann(), Change::Session("s".into()), Change::All] {
        stage.changes.note(&change);
        for guess in &guesses {
            stage.asked();
            stage.ask(guess).await.unwrap_err();
            assert_eq!(stage.asked(), 1, "{change:?}");
        }
    }
}

#[tokio::test]
async fn a_thousand_requests_with_one_credential_are_one_look_up() {
    let stage = Stage::new().await;
    let quota = Quota { count: NonZeroU32::MIN, per: Duration::from_mins(1), burst: NonZeroU32::new(2).unwrap() };
    let off =
        limit::Settings { per_address: None, per_account: None, per_account_anywhere: None, unauthenticated: None };
    stage.limits.apply(&limit::Settings { unauthenticated: Some(quota), ..off });
    for (credential, expected) in [(stage.bearer(json!({})), "ok"), (basic("ann", PASSWORD), "ok")] {
        let outcomes = join_all((0..1000).map(|_| stage.outcome(&credential))).await;
        assert!(outcomes.iter().all(|outcome| *outcome == expected));
        assert_eq!(stage.asked(), 1);
    }
}

#[tokio::test]
async fn bad_credentials_use_up_the_budget_of_their_address_and_good_ones_do_not() {
    let stage = Stage::new().await;
    let quota = Quota { count: NonZeroU32::MIN, per: Duration::from_mins(1), burst: NonZeroU32::new(3).unwrap() };
    let off =
        limit::Settings { per_address: None, per_account: None, per_account_anywhere: None, unauthenticated: None };
    stage.limits.apply(&limit::Settings { unauthenticated: Some(quota), ..off });
    for _ in 0..5 {
        assert_eq!(stage.outcome(&stage.token(None)).await, "ok");
    }
    let good = stage.token(None);
    assert_eq!(stage.outcome(&good).await, "ok");
    for expected in ["unknown", "unknown", "malformed"] {
        let bad = if expected == "unknown" { "Token made-up" } else { "Basic ***" };
        assert_eq!(stage.outcome(bad).await, expected);
    }
    assert_eq!(stage.outcome("Token made-up").await, "unauthenticated");
    assert_eq!(stage.outcome(&stage.token(None)).await, "unauthenticated");
    // what is remembered as good needs no budget
    assert_eq!(stage.outcome(&good).await, "ok");
}

#[tokio::test]
async fn guesses_at_one_account_are_counted_on_routes_too_and_good_credentials_never_pay() {
    let stage = Stage::new().await;
    let quota = Quota { count: NonZeroU32::MIN, per: Duration::from_mins(1), burst: NonZeroU32::new(3).unwrap() };
    let off =
        limit::Settings { per_address: None, per_account: None, per_account_anywhere: None, unauthenticated: None };
    for (limit, settings) in [
        ("per_account", limit::Settings { per_account: Some(quota.clone()), ..off.clone() }),
        ("per_account_anywhere", limit::Settings { per_account_anywhere: Some(quota), ..off.clone() }),
    ] {
        stage.limits.apply(&off);
        stage.limits.apply(&settings);
        let good = basic("ann", PASSWORD);
        for _ in 0..5 {
            // so that nothing is remembered
            stage.changes.note(&Change::All);
            assert_eq!(stage.outcome(&good).await, "ok", "{limit}");
        }
        assert_eq!(join_all((0..100).map(|_| stage.outcome(&good))).await, ["ok"; 100], "{limit}");
        for user in ["ann", "nobody"] {
            let fault = if user == "ann" { "wrong_password" } else { "unknown_subject" };
            for guess in 0..3 {
                for _ in 0..3 {
                    let outcome = stage.outcome(&basic(user, &format!("{limit} {guess}"))).await;
                    assert_eq!(outcome, fault, "{limit}: the same guess again is no further one");
                }
            }
            stage.asked();
            let more = basic(user, &format!("{limit} one more"));
            assert_eq!(stage.ask(&more).await.unwrap_err().code(), "rate_limited", "{limit}");
            assert_eq!((stage.outcome(&more).await, stage.asked()), (limit, 0));
        }
        assert_eq!(stage.outcome(&good).await, "ok", "{limit}: what is remembered as good needs no budget");
        assert_eq!(stage.outcome(&basic("bob", "guess")).await, "unknown_subject", "{limit}: another account");
        stage.changes.note(&Change::All);
        assert_eq!(stage.outcome(&good).await, limit, "or the right guess would stand out");
        stage.store.down.store(true, Ordering::SeqCst);
        for _ in 0..5 {
            assert_eq!(stage.ask(&basic("carol", limit)).await.unwrap_err().code(), "store_unavailable");
        }
        stage.store.down.store(false, Ordering::SeqCst);
        assert_eq!(stage.outcome(&basic("carol", limit)).await, "unknown_subject", "{limit}");
    }
}

#[tokio::test]
async fn a_look_up_is_finished_although_its_first_caller_went_away() {
    let stage = Stage::new().await;
    stage.store.held.store(true, Ordering::SeqCst);
    let token = stage.token(None);
    {
        let mut first = Box::pin(stage.outcome(&token));
        assert!(is_pending(&mut first).await);
    }
    let others = join_all((0..3).map(|_| stage.outcome(&token)));
    stage.store.gate.add_permits(1);
    assert_eq!(others.await, ["ok"; 3]);
    assert_eq!(stage.asked(), 1);
}

#[tokio::test]
async fn a_request_after_a_change_does_not_join_a_look_up_from_before() {
    let stage = Stage::new().await;
    stage.store.held.store(true, Ordering::SeqCst);
    let token = stage.bearer(json!({}));
    let mut before = Box::pin(stage.outcome(&token));
    assert!(is_pending(&mut before).await);
    while stage.store.asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // read by the store, not heard yet
    tokio::task::yield_now().await;
    stage.change(&ann(), |tables| row(tables).disabled = true);
    let after = stage.outcome(&token);
    stage.store.held.store(false, Ordering::SeqCst);
    stage.store.gate.add_permits(1);
    let (before, after) = futures_util::future::join(before, after).await;
    assert_eq!((before, after), ("ok", "disabled"));
    assert_eq!(stage.outcome(&token).await, "disabled");
}

#[tokio::test]
async fn while_the_store_is_down_known_principals_are_served_and_others_told_to_wait() {
    let stage = Stage::new().await;
    let (known, other) = (stage.token(None), stage.token(None));
    assert_eq!(stage.outcome(&known).await, "ok");
    stage.store.down.store(true, Ordering::SeqCst);
    stage.clock.advance(Duration::from_secs(31));
    assert_eq!((stage.outcome(&known).await, stage.outcome(&other).await), ("ok", "store_unavailable"));
    stage.asked();
    for _ in 0..10 {
        assert_eq!(stage.outcome(&known).await, "ok");
    }
    assert_eq!(stage.asked(), 0, "each request asked a store that is down");
    stage.clock.advance(Duration::from_secs(2));
    assert_eq!((stage.outcome(&known).await, stage.outcome(&known).await, stage.asked()), ("ok", "ok", 1));
    // what is revoked meanwhile is not served
    stage.changes.note(&ann());
    assert_eq!(stage.outcome(&known).await, "store_unavailable");
    stage.store.down.store(false, Ordering::SeqCst);
    assert_eq!((stage.outcome(&known).await, stage.outcome(&other).await), ("ok", "ok"));
    assert!(stage.metrics.text().unwrap().contains("{result=\"stale\"} 13"));
}

#[tokio::test]
async fn the_stale_window_ends() {
    let stage = Stage::new().await;
    let token = stage.token(None);
    assert_eq!(stage.outcome(&token).await, "ok");
    stage.store.down.store(true, Ordering::SeqCst);
    stage.clock.advance(Duration::from_secs(329));
    assert_eq!(stage.outcome(&token).await, "ok");
    stage.clock.advance(Duration::from_secs(2));
    assert_eq!(stage.outcome(&token).await, "store_unavailable");
}

#[tokio::test]
async fn a_store_that_hangs_is_not_waited_for_where_something_stale_serves() {
    let stage = Stage::new().await;
    let token = stage.token(None);
    assert_eq!(stage.outcome(&token).await, "ok");
    stage.store.hangs.store(true, Ordering::SeqCst);
    stage.clock.advance(Duration::from_secs(31));
    let before = stage.clock.now();
    assert_eq!(stage.outcome(&token).await, "ok");
    assert_eq!(stage.outcome(&token).await, "ok");
    assert!(stage.clock.now() - before < PATIENCE * 2);
}

#[tokio::test]
async fn a_failure_is_never_remembered() {
    let stage = Stage::new().await;
    let token = stage.token(None);
    stage.store.down.store(true, Ordering::SeqCst);
    assert_eq!(stage.outcome(&token).await, "store_unavailable");
    stage.store.down.store(false, Ordering::SeqCst);
    assert_eq!(stage.outcome(&token).await, "ok");
}

#[tokio::test]
async fn a_flood_of_refusals_pushes_no_principal_out() {
    let mut stage = Stage::new().await;
    stage.settings.cache.capacity = 100;
    stage.authenticator.configure(&stage.settings, &Handle::current());
    let token = stage.token(None);
    assert_eq!(stage.outcome(&token).await, "ok");
    for number in 0..1000 {
        assert_eq!(stage.outcome(&format!("Token made-up-{number}")).await, "unknown");
    }
    stage.asked();
    assert_eq!((stage.outcome(&token).await, stage.asked()), ("ok", 0));
    for number in 0..1000 {
        assert_eq!(stage.outcome(&stage.token(None)).await, "ok", "{number}");
    }
    assert!(stage.authenticator.entries() <= 200, "{}", stage.authenticator.entries());
}

#[tokio::test]
async fn a_verdict_made_under_other_settings_is_not_served() {
    let stage = Stage::new().await;
    let token = stage.bearer(json!({}));
    assert_eq!(stage.outcome(&token).await, "ok");
    for (name, change, expected) in [
        ("the same, loaded again", (|_| {}) as fn(&mut JwtSettings), "ok"),
        ("another issuer", |jwt| jwt.issuer = "other".into(), "wrong_issuer"),
        ("an audience", |jwt| jwt.audience = vec!["a".into()], "wrong_audience"),
        (
            "another secret under the same id",
            |jwt| {
                let key = Key::hmac("k1", Algorithm::HS256, Secret::new(b"other".to_vec())).unwrap();
                jwt.keys = Some(Arc::new(KeyRing::new(vec![key]).unwrap()));
            },
            "bad_signature",
        ),
    ] {
        let mut jwt = jwt_settings();
        change(&mut jwt);
        let settings = Settings { jwt: Arc::new(jwt), ..stage.settings.clone() };
        stage.asked();
        let outcome = stage.ask_with(&settings, &token).await.map_or_else(|rejection| rejection.reason(), |_| "ok");
        assert_eq!((outcome, stage.asked()), (expected, 0), "{name}");
    }
}

type With = Box<dyn FnOnce(&mut Tables)>;

#[tokio::test]
async fn a_jwt_stands_as_its_account_does() {
    let account =
        |with: fn(&mut Row)| move |tables: &mut Tables| with(tables.accounts.get_mut(&Subject::user("ann")).unwrap());
    let removed = Tombstone { session_version: 4, removed_at: 1_000 };
    let cases: Vec<(&str, Value, With, &str)> = vec![
        ("the current session version", json!({ "sv": 1 }), Box::new(|_| {}), "ok"),
        ("an older one", json!({ "sv": 0 }), Box::new(|_| {}), "revoked"),
        ("one to come", json!({ "sv": 2 }), Box::new(|_| {}), "revoked"),
        ("none, sessions never ended", json!({ "sv": null }), Box::new(|_| {}), "malformed"),
        (
            "issued before the end",
            json!({ "iat": 999 }),
            Box::new(account(|row| row.sessions_ended_at = 1000)),
            "revoked",
        ),
        (
            "issued in the second of the end",
            json!({ "iat": 1000 }),
            Box::new(account(|row| row.sessions_ended_at = 1000)),
            "revoked",
        ),
        ("issued after the end", json!({ "iat": 1001 }), Box::new(account(|row| row.sessions_ended_at = 1000)), "ok"),
        ("never ended, without iat", json!({}), Box::new(|_| {}), "ok"),
        ("no account", json!({ "sub": "nobody" }), Box::new(|_| {}), "unknown_subject"),
        ("a client of a user's name", json!({ "sub_type": "client" }), Box::new(|_| {}), "unknown_subject"),
        (
            "made again after a removal",
            json!({ "sv": 1 }),
            Box::new(move |tables| {
                tables.removed.insert(Subject::user("ann"), removed);
            }),
            "revoked",
        ),
        (
            "of the account made again",
            json!({ "sv": 5 }),
            Box::new(move |tables| {
                row(tables).session_version = 5;
                tables.removed.insert(Subject::user("ann"), removed);
            }),
            "ok",
        ),
        (
            "of another system, issued before the removal",
            json!({ "iat": 1000 }),
            Box::new(move |tables| {
                tables.removed.insert(Subject::user("ann"), removed);
            }),
            "revoked",
        ),
    ];
    for (name, more, with, expected) in cases {
        let stage = Stage::new().await;
        stage.store.change(with);
        let mut all = claims(json!({ "iss": "portcullis", "sub": "ann", "exp": stage.clock.unix() + 60 }));
        all.extend(claims(more));
        let token = stage.settings.jwt.keys.as_ref().unwrap().sign("at+jwt", &all).unwrap();
        assert_eq!(stage.outcome(&format!("Bearer {token}")).await, expected, "{name}");
    }
}

#[tokio::test]
async fn with_roles_in_a_claim_an_account_is_not_needed_but_decides_where_it_is() {
    let mut stage = Stage::new().await;
    let jwt = JwtSettings { roles: RoleSource::Claim(ClaimPath(vec!["roles".into()])), ..jwt_settings() };
    stage.settings.jwt = Arc::new(jwt);
    let removed = Tombstone { session_version: 4, removed_at: i64::MAX };
    stage.store.change(|tables| {
        tables.removed.insert(Subject::user("gone"), removed);
    });
    for (name, subject, sv, expected) in [
        ("no account", "stranger", None, "ok"),
        ("a removed one", "gone", None, "revoked"),
        ("a token of ours without its account", "stranger", Some(1), "unknown_subject"),
        ("an account", "ann", None, "ok"),
    ] {
        let mut more = json!({ "sub": subject, "roles": ["a", "b"] });
        more["iat"] = stage.clock.unix().into();
        let mut all = claims(json!({ "iss": "portcullis", "exp": stage.clock.unix() + 60 }));
        all.extend(claims(more));
        if let Some(sv) = sv {
            all.insert("sv".into(), sv.into());
        }
        let token = stage.settings.jwt.keys.as_ref().unwrap().sign("JWT", &all).unwrap();
        let result = stage.ask(&format!("Bearer {token}")).await;
        if let Ok(identity) = &result {
            assert_eq!(identity.roles_field, "a,b");
        }
        assert_eq!(result.map_or_else(|rejection| rejection.reason(), |_| "ok"), expected, "{name}");
    }
    stage.change(&ann(), |tables| row(tables).disabled = true);
    let token = stage.bearer(json!({}));
    assert_eq!(stage.outcome(&token).await, "disabled");
}

#[tokio::test]
async fn with_an_account_required_a_claim_gives_no_role_that_the_account_has_not() {
    let mut stage = Stage::new().await;
    let jwt = JwtSettings {
        roles: RoleSource::Claim(ClaimPath(vec!["roles".into()])),
        require_account: true,
        ..jwt_settings()
    };
    stage.settings.jwt = Arc::new(jwt);
    let bearer = |stage: &Stage, subject: &str, roles: Value| {
        let mut all = claims(json!({ "iss": "portcullis", "exp": stage.clock.unix() + 60 }));
        all.extend(claims(json!({ "sub": subject, "roles": roles, "iat": stage.clock.unix() })));
        format!("Bearer {}", stage.settings.jwt.keys.as_ref().unwrap().sign("JWT", &all).unwrap())
    };
    for (name, roles, expected) in [
        ("a role of the account", json!(["user"]), "user"),
        ("one more", json!(["admin", "user"]), "user"),
        ("another", json!(["admin"]), ""),
        ("none", json!([]), ""),
    ] {
        assert_eq!(stage.ask(&bearer(&stage, "ann", roles)).await.unwrap().roles_field, expected, "{name}");
    }
    assert_eq!(stage.outcome(&bearer(&stage, "stranger", json!(["user"]))).await, "unknown_subject");
    let token = bearer(&stage, "ann", json!(["admin", "user"]));
    stage.change(&ann(), |tables| row(tables).roles = vec!["admin".into()]);
    assert_eq!(stage.ask(&token).await.unwrap().roles_field, "admin", "at once");
    stage.change(&ann(), |tables| row(tables).disabled = true);
    assert_eq!(stage.outcome(&token).await, "disabled");
}

#[tokio::test]
async fn with_roles_in_a_claim_our_own_tokens_still_have_those_of_the_account() {
    let mut stage = Stage::new().await;
    let jwt = JwtSettings { roles: RoleSource::Claim(ClaimPath(vec!["roles".into()])), ..jwt_settings() };
    stage.settings.jwt = Arc::new(jwt);
    let claim = json!({ "roles": ["admin"] });
    let ours = stage.bearer(claim.clone());
    let mut theirs = claims(json!({ "iss": "portcullis", "sub": "ann", "exp": stage.clock.unix() + 900 }));
    theirs.extend(claims(claim));
    let theirs = format!("Bearer {}", stage.settings.jwt.keys.as_ref().unwrap().sign("JWT", &theirs).unwrap());
    assert_eq!(stage.ask(&ours).await.unwrap().roles_field, "user");
    assert_eq!(stage.ask(&theirs).await.unwrap().roles_field, "admin");
    stage.change(&ann(), |tables| row(tables).roles = vec!["reader".into()]);
    assert_eq!(stage.ask(&ours).await.unwrap().roles_field, "reader", "at once");
    assert_eq!(stage.ask(&theirs).await.unwrap().roles_field, "admin");
}

#[tokio::test]
async fn keys_of_the_store_are_made_once_turn_with_the_time_and_end() {
    let (store, clock) = (Arc::new(FakeStore::new()), Clock::system());
    let settings = JwtSettings { keys: None, ..jwt_settings() };
    let keys = Keys::load(Arc::clone(&store) as Arc<dyn Store>, clock.clone()).await.unwrap();
    let other = Keys::load(Arc::clone(&store) as Arc<dyn Store>, clock.clone()).await.unwrap();
    let kids = |keys: &Keys| {
        let jwks = keys.ring(&settings).jwks();
        let kids = jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned());
        kids.collect::<Vec<_>>()
    };
    let first = kids(&keys);
    assert_eq!((first.len(), &kids(&other)), (1, &first));

    let now = clock.unix();
    let next = super::keys::generate(now + 60).unwrap();
    let next_id = next.id.to_string();
    store.change(|tables| {
        tables.keys[0].verifies_until = Some(now + 600);
        tables.keys.push(next);
    });
    keys.reload().await.unwrap();
    assert_eq!(kids(&keys), [first[0].clone(), next_id.clone()], "published before it signs");
    clock.advance(Duration::from_secs(61));
    assert_eq!(kids(&keys), [next_id.clone(), first[0].clone()], "signs");
    clock.advance(Duration::from_mins(10));
    assert_eq!(kids(&keys), [next_id], "the old one has ended");
    assert!(!format!("{keys:?}").contains("private"));

    store.change(|tables| tables.keys[1].verifies_until = Some(clock.unix() + 60));
    keys.reload().await.unwrap();
    let now = clock.unix();
    let said = claims(json!({ "iss": "portcullis", "sub": "ann", "iat": now, "exp": now + 900 }));
    let token = keys.ring(&settings).sign("at+jwt", &said).unwrap();
    let read = |keys: &Keys| {
        super::bearer::read(&token, &settings, &keys.ring(&settings), JwtKind::Access, clock.unix()).map(drop)
    };
    clock.advance(Duration::from_secs(59));
    assert_eq!(read(&keys), Ok(()), "in its last second");
    clock.advance(Duration::from_secs(1));
    assert_eq!(read(&keys), Err(TokenFault::BadSignature), "the last key has ended too");
    assert!(kids(&keys).is_empty() && keys.ring(&settings).sign("at+jwt", &said).is_err());
}

#[tokio::test]
async fn a_subject_that_is_an_id_is_never_taken_for_a_name() {
    let mut stage = Stage::new().await;
    let subject = ClaimPath(vec!["user_id".into()]);
    stage.settings.jwt = Arc::new(JwtSettings { subject, subject_is_id: true, ..jwt_settings() });
    // somebody registered the id of another as a name
    let row = Row {
        id: "8",
        hash: CHEAP_HASH.into(),
        roles: vec![],
        disabled: false,
        session_version: 1,
        sessions_ended_at: 0,
    };
    stage.store.change(|tables| drop(tables.accounts.insert(Subject::user("7"), row)));
    for (name, id, expected) in [
        ("as text", json!("7"), "ann"),
        ("as a number", json!(7), "ann"),
        ("theirs", json!("8"), "7"),
        ("a name", json!("ann"), "unknown_subject"),
        ("nobody's", json!("9"), "unknown_subject"),
    ] {
        let token = stage.bearer(json!({ "user_id": id }));
        let outcome = stage.ask(&token).await;
        let outcome = outcome.map(|identity| identity.principal.subject.name.to_string());
        assert_eq!(outcome.unwrap_or_else(|rejection| rejection.reason().to_owned()), expected, "{name}");
    }
    let token = stage.bearer(json!({ "user_id": "7" }));
    assert!(stage.ask(&token).await.is_ok());
    stage.change(&ann(), |tables| self::row(tables).disabled = true);
    assert_eq!(stage.outcome(&token).await, "disabled", "a change of the account is heard under its name");
}
