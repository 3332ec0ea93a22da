//! Every method on every engine, with real servers where there are any: see `tests/databases.sh`.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::store::IssuedTo;
use crate::wire::opaque::digest;

/// An engine to be tested on.
#[derive(Clone, Debug)]
enum On {
    File,
    /// The URL of a server on which databases can be made.
    Server(Engine, String),
}

impl On {
    /// The server of an environment variable; `None`, and word of it, where tests are run without.
    #[expect(clippy::disallowed_methods, reason = "tests are told so where their servers are")]
    fn server(engine: Engine, variable: &str) -> Option<Self> {
        if let Ok(url) = std::env::var(variable) {
            return Some(Self::Server(engine, url));
        }
        let required = ["CI", "PORTCULLIS_TEST_DATABASES"].iter().any(|name| std::env::var_os(name).is_some());
        assert!(!required, "{variable} is not set: run this by tests/databases.sh");
        eprintln!("{variable} is not set: not tested on {engine:?}, only SQLite was (see tests/databases.sh)");
        None
    }

    fn postgres() -> Option<Self> {
        Self::server(Engine::Postgres, "PORTCULLIS_TEST_POSTGRES")
    }

    fn mysql() -> Option<Self> {
        Self::server(Engine::MySql, "PORTCULLIS_TEST_MYSQL")
    }

    const fn engine(&self) -> Engine {
        match self {
            Self::File => Engine::Sqlite,
            Self::Server(engine, _) => *engine,
        }
    }
}

/// Makes each of these a test on each engine.
macro_rules! on_each_engine {
    ($($test:ident,)*) => {
        mod sqlite {
            $(#[test]
            fn $test() {
                super::$test(&super::On::File);
            })*
        }
        mod postgres {
            $(#[test]
            fn $test() {
                if let Some(on) = super::On::postgres() {
                    super::$test(&on);
                }
            })*
        }
        mod mysql {
            $(#[test]
            fn $test() {
                if let Some(on) = super::On::mysql() {
                    super::$test(&on);
                }
            })*
        }
    };
}

// behind the macro, which they use
mod file;
mod foreign;
mod servers;

/// A database of its own, gone with it.
struct Place {
    background: tokio::runtime::Runtime,
    clock: Clock,
    directory: tempfile::TempDir,
    on: On,
    location: Location,
    name: String,
}

static PLACES: AtomicUsize = AtomicUsize::new(0);

impl Place {
    fn new(on: &On) -> Self {
        let background = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let name = format!("portcullis_{}_{}", std::process::id(), PLACES.fetch_add(1, Ordering::SeqCst));
        let location = match on {
            On::File => Location::Sqlite(directory.path().join("store.db")),
            On::Server(_, url) => {
                let (server, _) = url.rsplit_once('/').unwrap();
                Location::Server(ServerUrl::parse(&format!("{server}/{name}")).unwrap().unwrap())
            }
        };
        let place = Self { background, clock: Clock::system(), directory, on: on.clone(), location, name };
        if matches!(on, On::Server(..)) {
            place.of_server(&format!("CREATE DATABASE {}", place.name));
        }
        place
    }

    /// A statement for the server as a whole.
    fn of_server(&self, statement: &str) {
        let On::Server(_, url) = &self.on else { return };
        let url = ServerUrl::parse(url).unwrap().unwrap();
        self.background.block_on(async {
            let pool = open::server(&url).unwrap();
            query(statement.to_owned()).execute(pool.reading().await.unwrap().db()).await.unwrap();
            pool.close().await;
        });
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("store.db")
    }

    fn open(&self) -> SqlStore {
        self.open_at(&self.location).unwrap()
    }

    fn open_at(&self, location: &Location) -> Result<SqlStore, StoreError> {
        self.open_with(location, &Tables::default())
    }

    fn open_with(&self, location: &Location, tables: &Tables) -> Result<SqlStore, StoreError> {
        SqlStore::open(location, tables, self.background.handle().clone(), self.clock.clone(), |_, _| {})
    }

    /// What somebody else does to the database.
    fn execute(&self, store: &SqlStore, statement: impl Into<String>) {
        let statement = statement.into();
        self.background.block_on(async {
            let mut tx = store.inner.pool.begin().await.unwrap();
            query(statement).execute(tx.db()).await.unwrap();
            tx.commit().await.unwrap();
        });
    }

    /// Awaits on a runtime that knows nothing of the store's, as a worker does.
    fn wait<T>(answer: Answer<'_, T>) -> Result<T, StoreError> {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(answer)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let force = if self.on.engine() == Engine::Postgres { " WITH (FORCE)" } else { "" };
        if !std::thread::panicking() {
            self.of_server(&format!("DROP DATABASE {}{force}", self.name));
        }
    }
}

fn wait<T>(answer: Answer<'_, T>) -> T {
    Place::wait(answer).unwrap()
}

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

fn ann() -> Subject {
    Subject::user("ann")
}

fn add_ann(store: &SqlStore) -> Account {
    assert_eq!(wait(store.add_account(ann(), secret("hash"), vec!["user".into()], vec![])), Added::Yes);
    wait(store.account(ann())).unwrap()
}

/// A client, and what is issued to it.
fn add_app(store: &SqlStore) -> IssuedTo {
    let app = Subject::client("app");
    assert_eq!(wait(store.add_account(app.clone(), secret("hash"), vec![], vec![])), Added::Yes);
    let session_version = wait(store.account(app)).unwrap().session_version;
    IssuedTo { id: "app".into(), session_version }
}

fn token(text: &str, owner: &Account, expires_at: i64) -> NewToken {
    NewToken {
        digest: digest(text),
        owner: owner.subject.clone(),
        scopes: vec![Scope::from("read")].into(),
        expires_at,
        session: Some("family".into()),
        client: None,
        session_version: owner.session_version,
    }
}

fn refresh(owner: &Account, expires_at: i64) -> RefreshToken {
    RefreshToken {
        owner: owner.subject.clone(),
        client: None,
        scopes: vec![Scope::from("read"), Scope::from("write")].into(),
        family: "family".into(),
        expires_at,
        session_version: owner.session_version,
    }
}

fn rotation(used: &str, successor: &str, now: i64) -> Rotation {
    Rotation {
        used: digest(used),
        used_at_ms: now * 1_000,
        replay: b"sealed".to_vec(),
        successor: digest(successor),
        successor_expires_at: now + 200,
        scopes: vec![Scope::from("read")].into(),
        token: None,
    }
}

fn standing_word(standing: &RefreshStanding) -> &'static str {
    match standing {
        RefreshStanding::Unknown => "unknown",
        RefreshStanding::Live(_) => "live",
        RefreshStanding::Used { .. } => "used",
        RefreshStanding::Revoked(_) => "revoked",
    }
}

fn stands(store: &SqlStore, text: &str) -> &'static str {
    standing_word(&wait(store.refresh_token(digest(text))))
}

fn an_account_comes_back_as_it_was_added(on: &On) {
    let place = Place::new(on);
    let store = place.open();
    let roles = vec!["z".into(), "a".into(), "[\"quoted\"]".into()];
    let added = wait(store.add_account(Subject::client("Ann"), secret("h"), roles.clone(), vec!["s".into()]));
    assert_eq!(added, Added::Yes);
    let account = wait(store.account(Subject::client("Ann"))).unwrap();
    assert_eq!((&*account.roles, &*account.scopes), (&roles[..], &[Scope::from("s")][..]));
    assert_eq!(account.password_hash.expose(), "h");
    assert_eq!((account.disabled, account.session_version, account.sessions_ended_at), (false, 1, 0));
    for (name, other) in [
        ("letter case", Subject::client("ann")),
        ("the other kind", Subject::user("Ann")),
        ("a blank behind", Subject::client("Ann ")),
        ("a pattern", Subject::client("%")),
        ("an attempt at SQL", Subject::client("' OR 1=1 --")),
    ] {
        assert!(wait(store.account(other)).is_none(), "{name}");
    }
    assert_eq!(wait(store.add_account(Subject::client("Ann"), secret("x"), vec![], vec![])), Added::Taken);
    assert_eq!(wait(store.account(Subject::client("Ann"))).unwrap().password_hash.expose(), "h");
    assert_eq!(wait(store.add_account(Subject::user("Ann"), secret("x"), vec![], vec![])), Added::Yes);
    assert_eq!(wait(store.add_account(Subject::client("ann"), secret("x"), vec![], vec![])), Added::Yes);
    let listed = wait(store.accounts(SubjectKind::Client));
    assert_eq!(listed.iter().map(|account| &*account.subject.name).collect::<Vec<_>>(), ["Ann", "ann"]);
    assert!(listed.iter().all(|account| account.password_hash.expose().is_empty()));
}

fn what_was_answered_for_is_there_after_opening_again(on: &On) {
    let place = Place::new(on);
    drop(add_ann(&place.open()));
    assert!(wait(place.open().account(ann())).is_some());
}

fn whatever_ends_sessions_kills_every_token(on: &On) {
    type End = fn(&SqlStore) -> bool;
    let ends: [(&str, End); 3] = [
        ("a new password", |store| wait(store.set_password(ann(), secret("new")))),
        ("disabling", |store| wait(store.set_disabled(ann(), true)) && wait(store.set_disabled(ann(), false))),
        ("removal and return", |store| {
            let removed = wait(store.remove_account(ann()));
            let standing = wait(store.jwt_standing(ann(), vec![]));
            assert_eq!(standing.removed.map(|tombstone| tombstone.session_version), Some(1));
            assert!(standing.account.is_none());
            drop(add_ann_again(store));
            removed
        }),
    ];
    for (name, end) in ends {
        let place = Place::new(on);
        let store = place.open();
        let (owner, now) = (add_ann(&store), place.clock.unix());
        let other = {
            wait(store.add_account(Subject::client("ann"), secret("h"), vec![], vec![]));
            wait(store.account(Subject::client("ann"))).unwrap()
        };
        wait(store.issue(Some(token("t", &owner, now + 100)), Some((digest("r"), refresh(&owner, now + 100)))));
        wait(store.issue(Some(token("o", &other, now + 100)), None));
        assert!(wait(store.token(digest("t"), now)).live().is_some(), "{name}");
        assert_eq!(stands(&store, "r"), "live", "{name}");
        assert!(end(&store), "{name}");
        assert!(wait(store.token(digest("t"), now)).live().is_none(), "{name}");
        assert_eq!(stands(&store, "r"), "revoked", "{name}");
        assert!(wait(store.tokens(Some(ann()), now)).is_empty(), "{name}");
        let account = wait(store.account(ann())).unwrap();
        assert_eq!(account.session_version, 2, "{name}");
        assert!(account.sessions_ended_at >= now, "{name}");
        assert!(wait(store.token(digest("o"), now)).live().is_some(), "{name}: of another principal");
        // issued with what was known before
        wait(store.issue(Some(token("late", &owner, now + 100)), Some((digest("l"), refresh(&owner, now + 100)))));
        assert!(wait(store.token(digest("late"), now)).live().is_none(), "{name}");
        assert_eq!(stands(&store, "l"), "revoked", "{name}");
    }
}

fn add_ann_again(store: &SqlStore) -> Account {
    let account = add_ann(store);
    assert!(wait(store.jwt_standing(ann(), vec![])).removed.is_none());
    account
}

fn session_versions_never_come_twice(on: &On) {
    let place = Place::new(on);
    let store = place.open();
    let mut last = add_ann(&store).session_version;
    for _ in 0..3 {
        assert!(wait(store.set_password(ann(), secret("h"))));
        assert!(wait(store.remove_account(ann())));
        let next = add_ann(&store).session_version;
        assert!(next > last + 1, "{next} after {last}");
        last = next;
    }
}

fn a_disabled_owner_has_no_tokens(on: &On) {
    let place = Place::new(on);
    let store = place.open();
    let now = place.clock.unix();
    drop(add_ann(&store));
    assert!(wait(store.set_disabled(ann(), true)));
    let owner = wait(store.account(ann())).unwrap();
    assert!(owner.disabled);
    wait(store.issue(Some(token("t", &owner, now + 100)), Some((digest("r"), refresh(&owner, now + 100)))));
    assert!(wait(store.token(digest("t"), now)).live().is_none());
    assert_eq!(stands(&store, "r"), "revoked");
    assert!(wait(store.set_disabled(ann(), false)));
    assert!(wait(store.token(digest("t"), now)).live().is_some());
}

fn what_is_not_there_cannot_be_changed(on: &On) {
    let place = Place::new(on);
    let store = place.open();
    let (_, start) = wait(store.changes(None));
    assert!(!wait(store.set_password(ann(), secret("x"))));
    assert!(!wait(store.rehash(ann(), secret("x"), secret("y"))));
    assert!(!wait(store.set_roles(ann(), vec![])));
    assert!(!wait(store.set_disabled(ann(), true)));
    assert!(!wait(store.remove_account(ann())));
    assert!(!wait(store.revoke_token(digest("t"))));
    assert!(wait(store.revoke_listed(1, i64::MAX)).is_none());
    assert_eq!(stands(&store, "r"), "unknown");
    assert_eq!(wait(store.changes(Some(start))), (vec![], start));
}

fn a_hash_is_replaced_only_where_it_is_the_one_that_was_verified(on: &On) {
    let place = Place::new(on);
    let store = place.open();
    drop(add_ann(&store));
    assert!(!wait(store.rehash(ann(), secret("another"), secret("new"))));
    assert!(wait(store.rehash(ann(), secret("hash"), secret("new"))));
    let account = wait(store.account(ann())).unwrap();
    assert_eq!((account.password_hash.expose().as_str(), account.session_version), ("new", 1));
}

fn who_proved_an_older_password_does_not_undo_what_was_done_meanwhile(on: &On) {
    type Meanwhile = fn(&SqlStore) -> bool;
    let meanwhile: [(&str, Meanwhile, bool); 5] = [
        ("nothing", |_| true, true),
        ("other roles", |store| wait(store.set_roles(ann(), vec![])), true),
        ("a reset", |store| wait(store.set_password(ann(), secret("reset"))), false),
        ("disabled", |store| wait(store.set_disabled(ann(), true)), false),
        (
            "removed and made again",
            |store| wait(store.remove_account(ann())) && add_ann(store).session_version > 0,
            false,
        ),
    ];
    for (name, meanwhile, expected) in meanwhile {
        let place = Place::new(on);
        let store = place.open();
        let proven = add_ann(&store).session_version;
        assert!(meanwhile(&store), "{name}");
        let before = wait(store.account(ann())).unwrap();
        let (_, start) = wait(store.changes(None));
        assert_eq!(wait(store.change_password(ann(), secret("new"), proven)).is_some(), expected, "{name}");
        let after = wait(store.account(ann())).unwrap();
        if expected {
            assert_eq!((after.password_hash.expose().as_str(), after.session_version), ("new", proven + 1), "{name}");
            assert_eq!(wait(store.changes(Some(start))).0, [Change::Subject(ann())], "{name}");
            assert!(wait(store.change_password(ann(), secret("twice"), proven)).is_none(), "{name}");
        } else {
            assert_eq!(after.password_hash.expose(), before.password_hash.expose(), "{name}");
            assert_eq!((after.session_version, after.disabled), (before.session_version, before.disabled), "{name}");
            assert!(wait(store.changes(Some(start))).0.is_empty(), "{name}");
        }
    }
    let place = Place::new(on);
    assert!(wait(place.open().change_password(ann(), secret("x"), 1)).is_none(), "nobody");
}

fn an_opaque_token_lives_until_its_last_second(on: &On) {
    let place = Place::new(on);
    let store = place.open();
    let owner = add_ann(&store);
    wait(store.issue(Some(token("t", &owner, 1_000)), None));
    let found = wait(store.token(digest("t"), 999)).live().unwrap();
    assert_eq!((found.expires_at, found.session.as_deref()), (Some(1_000), Some("family")));
    assert_eq!((&found.owner.subject, &*found.scopes), (&ann(), &[Scope::from("read")][..]));
    assert!(wait(store.token(digest("t"), 1_000)).live().is_none());
    assert!(wait(store.token(digest("T"), 999)).live().is_none());
    assert_eq!(stands(&store, "t"), "unknown", "an opaque token does not refresh");
    assert!(wait(store.revoke_token(digest("t"))));
    assert!(wait(store.token(digest("t"), 999)).live().is_none());
}

fn a_refresh_token_is_used_once_and_then_known_as_used(on: &On) {
    let place = Place::new(on);
    let store = place.open();
    let (owner, app, now) = (add_ann(&store), add_app(&store), place.clock.unix());
    let first = RefreshToken { client: Some(app.clone()), ..refresh(&owner, now + 100) };
    wait(store.issue(None, Some((digest("r1"), first))));
    assert!(wait(store.token(digest("r1"), now)).live().is_none(), "a refresh token is no access token");
    let beside = Rotation { token: Some(token("t", &owner, now + 50)), ..rotation("r1", "r2", now) };
    let RefreshStanding::Live(before) = wait(store.rotate(beside)) else { panic!("not live") };
    assert_eq!((before.client.as_ref(), &*before.family), (Some(&app), "family"));
    assert!(wait(store.token(digest("t"), now)).live().is_some());
    let RefreshStanding::Used { used_at_ms, replay, .. } = wait(store.refresh_token(digest("r1"))) else {
        panic!("not used")
    };
    assert_eq!((used_at_ms, replay.as_deref()), (now * 1_000, Some(&b"sealed"[..])));
    assert_eq!(standing_word(&wait(store.rotate(rotation("r1", "r3", now)))), "used");
    assert_eq!(stands(&store, "r3"), "unknown", "a refused rotation leaves nothing");
    let RefreshStanding::Live(next) = wait(store.refresh_token(digest("r2"))) else { panic!("not live") };
    assert_eq!((next.expires_at, next.client), (now + 200, Some(app)));
    assert_eq!(&*next.scopes, &[Scope::from("read")][..]);
    assert_eq!(standing_word(&wait(store.rotate(rotation("r2", "r4", now + 200)))), "unknown", "expired");
    assert_eq!(standing_word(&wait(store.rotate(rotation("none", "r5", now)))), "unknown");
}

fn an_answer_is_kept_until_what_it_gave_is_used(on: &On) {
    let place = Place::new(on);
    let store = place.open();
    let (owner, now) = (add_ann(&store), place.clock.unix());
    let kept = |token: &str| match wait(store.refresh_token(digest(token))) {
        RefreshStanding::Used { replay, .. } => replay.is_some(),
        other @ (RefreshStanding::Unknown | RefreshStanding::Live(_) | RefreshStanding::Revoked(_)) => {
            panic!("{token}: {other:?}")
        }
    };
    for name in ["r", "other"] {
        let family = RefreshToken { family: name.into(), ..refresh(&owner, now + 100) };
        wait(store.issue(None, Some((digest(&format!("{name}1")), family))));
        wait(store.rotate(rotation(&format!("{name}1"), &format!("{name}2"), now)));
    }
    assert!(kept("r1") && kept("other1"));
    assert_eq!(standing_word(&wait(store.rotate(rotation("r2", "r3", now + 200)))), "unknown", "expired");
    assert!(kept("r1"), "a use that came to nothing shows nothing");
    wait(store.rotate(rotation("r2", "r3", now)));
    assert!(!kept("r1"));
    assert!(kept("r2") && kept("other1"));
}

fn of_two_uses_at_once_one_wins(on: &On) {
    let place = Place::new(on);
    let (first, second) = (place.open(), place.open());
    let (owner, now) = (add_ann(&first), place.clock.unix());
    for round in 0..20 {
        let used = format!("r{round}");
        let family = RefreshToken { family: used.as_str().into(), ..refresh(&owner, now + 100) };
        wait(first.issue(None, Some((digest(&used), family))));
        let answers: Vec<_> = (0..6)
            .map(|number| {
                let store = if number % 2 == 0 { &first } else { &second };
                store.rotate(rotation(&used, &format!("{used}-{number}"), now))
            })
            .collect();
        let standings: Vec<_> = answers.into_iter().map(|answer| standing_word(&wait(answer))).collect();
        assert_eq!(standings.iter().filter(|&&word| word == "live").count(), 1, "{standings:?}");
        assert_eq!(standings.iter().filter(|&&word| word == "used").count(), 5, "{standings:?}");
    }
}

fn a_revoked_family_is_revoked_in_all_its_parts(on: &On) {
    let place = Place::new(on);
    let store = place.open();
    let (owner, now) = (add_ann(&store), place.clock.unix());
    wait(store.issue(Some(token("t", &owner, now + 50)), Some((digest("r1"), refresh(&owner, now + 100)))));
    wait(store.rotate(rotation("r1", "r2", now)));
    let (_, start) = wait(store.changes(None));
    wait(store.revoke_family("family".into(), now + 100));
    assert_eq!((stands(&store, "r1"), stands(&store, "r2")), ("revoked", "revoked"));
    assert_eq!(standing_word(&wait(store.rotate(rotation("r2", "r3", now)))), "revoked");
    assert!(wait(store.token(digest("t"), now)).live().is_none());
    assert!(is_revoked(&store, &["j", "family"]) && is_revoked(&store, &["family", "j"]));
    assert!(!is_revoked(&store, &["j"]) && !is_revoked(&store, &[]));
    let (heard, _) = wait(store.changes(Some(start)));
    assert_eq!(heard, [Change::Token(digest("t")), Change::Session("family".into())]);
    wait(store.issue(None, Some((digest("late"), refresh(&owner, now + 100)))));
    assert_eq!(stands(&store, "late"), "revoked", "a family does not come back");
}

/// Whether a token of any of these ids is revoked: one of ours, and one of another issuer, which are asked for otherwise.
#[track_caller]
fn is_revoked(store: &SqlStore, ids: &[&str]) -> bool {
    let ids: Vec<Arc<str>> = ids.iter().map(|&id| id.into()).collect();
    let ours = wait(store.jwt_standing(ann(), ids.clone())).revoked;
    assert_eq!(wait(store.jwt_revoked(ids)), ours);
    ours
}

fn a_revoked_jwt_is_known_until_it_would_have_expired(on: &On) {
    let place = Place::new(on);
    let store = place.open();
    drop(add_ann(&store));
    let revoked = |id: &str| is_revoked(&store, &[id]);
    wait(store.revoke_jwt("j".into(), 1_000));
    wait(store.revoke_jwt("j".into(), 500));
    assert!(revoked("j") && !revoked("J") && !revoked("j ") && !revoked("[\"j\"]") && !revoked("' OR '1'='1"));
    // longer than a column, and with what no column holds
    let (long, odd) = ("x".repeat(5_000), "nul\0 and \u{1f511}");
    for id in [&*long, odd] {
        assert!(!revoked(id));
        wait(store.revoke_jwt(id.into(), 1_000));
        assert!(revoked(id));
    }
    assert!(!revoked(&"x".repeat(4_999)) && !revoked("nul"));
    wait(store.purge(999));
    assert!(revoked("j"), "the later end counts");
    wait(store.purge(1_000));
    assert!(!revoked("j"));
}

fn a_purge_goes_so_far_and_says_that_there_is_more(on: &On) {
    let place = Place::new(on);
    let store = place.open();
    let left = |table: &str| {
        place.background.block_on(async {
            let count = query(format!("SELECT count(*) AS n FROM {table}"));
            count.one(store.inner.pool.reading().await.unwrap().db()).await.unwrap().number("n").unwrap()
        })
    };
    let rows = |row: &dyn Fn(i64) -> String| (0..=PURGE_ROWS).map(row).collect::<Vec<_>>().join(", ");
    let revocations = rows(&|number| format!("('{number}', 7)"));
    place.execute(&store, format!("INSERT INTO portcullis_revocations (id, until) VALUES {revocations}"));
    assert!(!wait(store.purge(6)), "none has ended");
    assert_eq!(left("portcullis_revocations"), PURGE_ROWS + 1);
    assert!(wait(store.purge(7)));
    assert_eq!(left("portcullis_revocations"), 1);
    assert!(!wait(store.purge(7)));
    assert_eq!(left("portcullis_revocations"), 0);
}

fn a_standing_says_what_became_of_the_subject(on: &On) {
    let place = Place::new(on);
    let store = place.open();
    let standing = wait(store.jwt_standing(ann(), vec![]));
    assert!(standing.account.is_none() && standing.removed.is_none() && !standing.revoked);
    drop(add_ann(&store));
    let standing = wait(store.jwt_standing(ann(), vec![]));
    assert_eq!(standing.account.map(|account| account.subject), Some(ann()));
    assert!(wait(store.jwt_standing(Subject::client("ann"), vec![])).account.is_none());
}

fn listed_tokens_are_the_living_and_can_be_revoked_by_number(on: &On) {
    let place = Place::new(on);
    let store = place.open();
    let (owner, now) = (add_ann(&store), place.clock.unix());
    wait(store.issue(Some(token("t", &owner, now + 100)), Some((digest("r"), refresh(&owner, now + 100)))));
    wait(store.issue(Some(token("expired", &owner, now)), None));
    let listed = wait(store.tokens(None, now));
    let kinds: Vec<_> = listed.iter().map(|listing| (listing.kind, listing.expires_at)).collect();
    assert_eq!(kinds, [("refresh", Some(now + 100)), ("token", Some(now + 100))]);
    assert!(wait(store.tokens(Some(Subject::client("ann")), now)).is_empty());
    // access tokens of the session may outlive its refresh token
    let until = now + 5_000;
    let revoked =
        |number: usize| wait(store.revoke_listed(listed[number].id, until)).map(|token| (token.owner, token.kind));
    assert_eq!(revoked(1), Some((ann(), "token")));
    assert!(wait(store.token(digest("t"), now)).live().is_none());
    assert_eq!(revoked(0), Some((ann(), "refresh")));
    assert_eq!(stands(&store, "r"), "revoked");
    assert!(wait(store.tokens(Some(ann()), now)).is_empty());
    wait(store.purge(until - 1));
    assert!(wait(store.jwt_revoked(vec!["family".into()])));
}

fn a_token_that_is_issued_while_its_session_ends_is_dead_from_the_start(on: &On) {
    let place = Place::new(on);
    let store = place.open();
    let (owner, now) = (add_ann(&store), place.clock.unix());
    wait(store.issue(Some(token("before", &owner, now + 100)), Some((digest("r"), refresh(&owner, now + 100)))));
    assert!(wait(store.token(digest("before"), now)).live().is_some());
    wait(store.revoke_family("family".into(), now + 100));
    wait(store.issue(Some(token("after", &owner, now + 100)), None));
    for text in ["before", "after"] {
        assert!(wait(store.token(digest(text), now)).live().is_none(), "{text}");
    }
}

fn what_a_client_got_for_a_user_ends_with_the_sessions_of_the_client(on: &On) {
    let app = Subject::client("app");
    for name in ["disabled, and enabled again", "with a new secret", "removed, and another of the same id"] {
        let place = Place::new(on);
        let store = place.open();
        let (owner, before, now) = (add_ann(&store), add_app(&store), place.clock.unix());
        let before = Some(before);
        let issue = |of: &str, client: &Option<IssuedTo>| {
            let [opaque, of_refresh] = ["t", "r"].map(|kind| format!("{kind} {of}"));
            let opaque = NewToken { client: client.clone(), session: None, ..token(&opaque, &owner, now + 100) };
            let family = format!("family of {of}").into();
            let token = RefreshToken { client: client.clone(), family, ..refresh(&owner, now + 100) };
            wait(store.issue(Some(opaque), Some((digest(&of_refresh), token))));
        };
        issue("own", &None);
        issue("old", &before);
        assert_eq!(wait(store.token(digest("t old"), now)).live().unwrap().client, before, "{name}");
        assert_eq!(wait(store.tokens(Some(ann()), now)).len(), 4, "{name}");
        match name {
            "with a new secret" => assert!(wait(store.set_password(app.clone(), secret("other")))),
            "removed, and another of the same id" => {
                assert!(wait(store.remove_account(app.clone())));
                assert_ne!(Some(add_app(&store)), before);
            }
            _ => assert!([true, false].into_iter().all(|disabled| wait(store.set_disabled(app.clone(), disabled)))),
        }
        // by a client that authenticated before that
        issue("late", &before);
        for of in ["old", "late"] {
            assert!(wait(store.token(digest(&format!("t {of}")), now)).live().is_none(), "{name}: {of}");
            assert_eq!(stands(&store, &format!("r {of}")), "revoked", "{name}: {of}");
            let used = format!("r {of}");
            assert_eq!(standing_word(&wait(store.rotate(rotation(&used, "next", now)))), "revoked", "{name}: {of}");
        }
        assert_eq!(wait(store.tokens(Some(ann()), now)).len(), 2, "{name}: what came without a client lives");
        assert!(wait(store.token(digest("t own"), now)).live().is_some(), "{name}");
        assert_eq!(stands(&store, "r own"), "live", "{name}");
    }
}

/// As those are from before the column was there, and those that a gateway of then still issues.
fn a_token_that_does_not_say_in_which_sessions_its_client_got_it_lives_while_the_client_does(on: &On) {
    for ends in [false, true] {
        let place = Place::new(on);
        let store = place.open();
        let (owner, app, now) = (add_ann(&store), add_app(&store), place.clock.unix());
        let token = NewToken { client: Some(app.clone()), session: None, ..token("t", &owner, now + 100) };
        let of_refresh = RefreshToken { client: Some(app.clone()), ..refresh(&owner, now + 100) };
        wait(store.issue(Some(token), Some((digest("r"), of_refresh))));
        place.execute(&store, "UPDATE portcullis_tokens SET client_version = NULL");
        if ends {
            assert!([true, false].into_iter().all(|off| wait(store.set_disabled(Subject::client("app"), off))));
        }
        assert_eq!(wait(store.token(digest("t"), now)).live().is_none(), ends);
        assert_eq!(stands(&store, "r"), if ends { "revoked" } else { "live" });
        if !ends {
            let RefreshStanding::Live(used) = wait(store.rotate(rotation("r", "next", now))) else {
                panic!("not live")
            };
            assert_eq!(used.client, Some(app), "what comes of it says in which");
            assert_eq!(stands(&store, "next"), "live");
        }
    }
}

fn signing_key(id: &str) -> StoredKey {
    StoredKey {
        id: id.into(),
        algorithm: "EdDSA".into(),
        private_key: Secret::new(vec![1, 2]),
        signs_from: 5,
        verifies_until: None,
    }
}

fn keys_are_added_once_and_rotated(on: &On) {
    let place = Place::new(on);
    let (store, other) = (place.open(), place.open());
    assert!(wait(store.add_first_key(signing_key("k1"))));
    assert!(!wait(other.add_first_key(signing_key("k2"))));
    wait(other.rotate_key(signing_key("k3"), 100));
    let ids = |now| wait(store.keys(now)).iter().map(|key| key.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(99), ["k1", "k3"]);
    assert_eq!(ids(100), ["k3"]);
    let keys = wait(store.keys(99));
    assert_eq!(keys[0].verifies_until, Some(100));
    assert_eq!((keys[1].private_key.expose(), keys[1].signs_from), (&vec![1, 2], 5));
    wait(store.purge(100));
    assert_eq!(ids(0), ["k3"]);
}

fn each_process_hears_of_what_the_others_changed(on: &On) {
    let place = Place::new(on);
    let (store, other) = (place.open(), place.open());
    let (none, start) = wait(other.changes(None));
    assert!(none.is_empty());
    let owner = add_ann(&store);
    wait(store.issue(Some(token("t", &owner, i64::MAX)), None));
    wait(store.set_roles(ann(), vec![]));
    wait(store.revoke_token(digest("t")));
    wait(store.revoke_jwt("j".into(), 9));
    wait(store.rotate_key(signing_key("k"), 9));
    wait(store.remove_account(ann()));
    let (heard, end) = wait(other.changes(Some(start)));
    let of_ann = Change::Subject(ann());
    let expected =
        [of_ann.clone(), of_ann.clone(), Change::Token(digest("t")), Change::Session("j".into()), Change::Keys, of_ann];
    assert_eq!(heard, expected);
    assert_eq!(wait(other.changes(Some(end))), (vec![], end));
    assert_eq!(wait(other.changes(None)), (vec![], end));
}

fn changes_that_were_forgotten_count_as_all(on: &On) {
    let place = Place::new(on);
    let store = place.open();
    drop(add_ann(&store));
    let (_, start) = wait(store.changes(None));
    for _ in 0..3 {
        wait(store.set_roles(ann(), vec![]));
    }
    let now = place.clock.unix();
    wait(store.purge(now + CHANGES_KEPT_SECONDS - 60));
    assert_eq!(wait(store.changes(Some(start))).0.len(), 3, "kept for an hour");
    wait(store.purge(now + CHANGES_KEPT_SECONDS + 60));
    assert_eq!(wait(store.changes(Some(start))), (vec![Change::All], start + 3));
    assert_eq!(wait(store.changes(Some(start + 3))), (vec![], start + 3));
    assert_eq!(wait(store.changes(Some(start + 9))), (vec![Change::All], start + 3), "another file");
    assert_eq!(wait(store.changes(None)).1, start + 3);
}

fn what_is_left_to_be_told_is_taken_once_and_in_order(on: &On) {
    let place = Place::new(on);
    let (store, other) = (place.open(), place.open());
    assert!(wait(store.take_entries()).is_empty());
    let entries = |numbers: std::ops::Range<i32>| {
        numbers.map(|n| format!("{{\"n\":{n},\"name\":\"\u{1f511}\"}}")).collect::<Vec<_>>()
    };
    wait(store.leave_entries(entries(0..700)));
    wait(other.leave_entries(entries(700..1_500)));
    let mut taken: Vec<String> = Vec::new();
    // by two at once
    loop {
        let both = [store.take_entries(), other.take_entries()].map(wait);
        if both.iter().all(Vec::is_empty) {
            break;
        }
        assert!(both.iter().all(|some| some.is_sorted_by_key(|entry| number(entry))));
        taken.extend(both.into_iter().flatten());
    }
    taken.sort_by_key(|entry| number(entry));
    assert_eq!(taken, entries(0..1_500));
}

fn number(entry: &str) -> i64 {
    serde_json::from_str::<serde_json::Value>(entry).unwrap()["n"].as_i64().unwrap()
}

fn purging_takes_what_expired_and_no_more(on: &On) {
    let place = Place::new(on);
    let store = place.open();
    let (owner, now) = (add_ann(&store), place.clock.unix());
    wait(store.issue(Some(token("old", &owner, now + 10)), Some((digest("r"), refresh(&owner, now + 100)))));
    wait(store.rotate(rotation("r", "r2", now)));
    let replay = || match wait(store.refresh_token(digest("r"))) {
        RefreshStanding::Used { replay, .. } => replay.is_some(),
        other @ (RefreshStanding::Unknown | RefreshStanding::Live(_) | RefreshStanding::Revoked(_)) => {
            panic!("{other:?}")
        }
    };
    wait(store.purge(now + 10));
    assert!(replay(), "within the grace");
    assert!(wait(store.token(digest("old"), 0)).live().is_none());
    wait(store.purge(now + 11));
    assert!(!replay(), "past the grace");
    wait(store.purge(now + 99));
    assert_eq!((stands(&store, "r"), stands(&store, "r2")), ("used", "live"));
    wait(store.purge(now + 100));
    assert_eq!((stands(&store, "r"), stands(&store, "r2")), ("unknown", "live"));
}

fn a_mutation_goes_on_when_its_caller_goes_away(on: &On) {
    let place = Place::new(on);
    let store = place.open();
    drop(store.add_account(ann(), secret("h"), vec![], vec![]));
    let deadline = place.clock.now() + Duration::from_secs(5);
    while wait(store.account(ann())).is_none() {
        assert!(place.clock.now() < deadline, "it did not happen");
    }
}

fn a_corrupt_row_is_broken_and_no_answer(on: &On) {
    let place = Place::new(on);
    let store = place.open();
    drop(add_ann(&store));
    place.execute(&store, "UPDATE portcullis_accounts SET roles = 'admin'");
    assert!(matches!(Place::wait(store.account(ann())), Err(StoreError::Broken(_))));
}

fn processes_that_start_at_once_agree(on: &On) {
    let place = Place::new(on);
    std::thread::scope(|scope| {
        let opening: Vec<_> = (0..6).map(|_| scope.spawn(|| place.open_at(&place.location).map(drop))).collect();
        for opened in opening {
            opened.join().unwrap().unwrap();
        }
    });
}

fn each_operation_is_observed_by_its_name(on: &On) {
    let place = Place::new(on);
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let store = SqlStore::open(
        &place.location,
        &Tables::default(),
        place.background.handle().clone(),
        place.clock.clone(),
        move |name, _| {
            assert_eq!(name, "ping");
            count.fetch_add(1, Ordering::SeqCst);
        },
    )
    .unwrap();
    wait(store.ping());
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

on_each_engine! {
    an_account_comes_back_as_it_was_added,
    what_was_answered_for_is_there_after_opening_again,
    whatever_ends_sessions_kills_every_token,
    session_versions_never_come_twice,
    a_disabled_owner_has_no_tokens,
    what_is_not_there_cannot_be_changed,
    a_hash_is_replaced_only_where_it_is_the_one_that_was_verified,
    who_proved_an_older_password_does_not_undo_what_was_done_meanwhile,
    an_opaque_token_lives_until_its_last_second,
    a_refresh_token_is_used_once_and_then_known_as_used,
    an_answer_is_kept_until_what_it_gave_is_used,
    of_two_uses_at_once_one_wins,
    a_revoked_family_is_revoked_in_all_its_parts,
    a_revoked_jwt_is_known_until_it_would_have_expired,
    a_purge_goes_so_far_and_says_that_there_is_more,
    a_standing_says_what_became_of_the_subject,
    listed_tokens_are_the_living_and_can_be_revoked_by_number,
    a_token_that_is_issued_while_its_session_ends_is_dead_from_the_start,
    what_a_client_got_for_a_user_ends_with_the_sessions_of_the_client,
    a_token_that_does_not_say_in_which_sessions_its_client_got_it_lives_while_the_client_does,
    keys_are_added_once_and_rotated,
    each_process_hears_of_what_the_others_changed,
    changes_that_were_forgotten_count_as_all,
    what_is_left_to_be_told_is_taken_once_and_in_order,
    purging_takes_what_expired_and_no_more,
    a_mutation_goes_on_when_its_caller_goes_away,
    a_corrupt_row_is_broken_and_no_answer,
    processes_that_start_at_once_agree,
    each_operation_is_observed_by_its_name,
}
